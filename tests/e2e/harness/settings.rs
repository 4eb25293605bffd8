//! What the suite is asked to do: arguments and environment.

use std::{path::PathBuf, time::Duration};

use super::{About, Result, runner::Scenario};

pub struct Settings {
    /// Only say which scenarios there are.
    pub list: bool,
    /// Run only scenarios whose name contains one of these.
    filters: Vec<String>,
    /// Measured rounds of a comparison (AMAS_E2E_ROUNDS, 3); one more is run first and thrown away.
    pub rounds: usize,
    /// How long the idle cluster is watched (AMAS_E2E_IDLE, 60 seconds).
    pub idle: Duration,
    /// The API server's audit log (AMAS_AUDIT_LOG).
    pub audit_log: Option<PathBuf>,
    /// Where the operator runs (AMAS_OPERATOR_NAMESPACE, amas-system).
    pub operator_namespace: String,
    /// The operator's image as a tar archive (AMAS_IMAGE_TAR), to say how large it is.
    pub image_tar: Option<PathBuf>,
    /// The folder with the AMAS manifests (AMAS_E2E_PLATFORM, manifests/platforms/amas).
    pub platform: PathBuf,
    /// The program that stops and starts the node (AMAS_DEV_CLUSTER, dev/cluster).
    pub dev_cluster: PathBuf,
    /// Leave the namespaces of failed scenarios where they are (AMAS_E2E_KEEP).
    pub keep: bool,
}

impl Settings {
    pub fn read(arguments: impl Iterator<Item = String>) -> Result<Self> {
        let (list, filters) = parse(arguments)?;
        let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
        let path = |name: &str| env(name).map(PathBuf::from);
        Ok(Self {
            list,
            filters,
            rounds: number("AMAS_E2E_ROUNDS", 3)?,
            idle: Duration::from_secs(number("AMAS_E2E_IDLE", 60)?),
            audit_log: path("AMAS_AUDIT_LOG"),
            operator_namespace: env("AMAS_OPERATOR_NAMESPACE").unwrap_or_else(|| "amas-system".into()),
            image_tar: path("AMAS_IMAGE_TAR"),
            platform: path("AMAS_E2E_PLATFORM").unwrap_or_else(|| root.join("manifests/platforms/amas")),
            dev_cluster: path("AMAS_DEV_CLUSTER").unwrap_or_else(|| root.join("dev/cluster")),
            keep: env("AMAS_E2E_KEEP").is_some(),
        })
    }

    /// Without a filter all but those on request.
    pub fn choose(&self, all: &'static [Scenario]) -> Vec<&'static Scenario> {
        let named = |scenario: &&Scenario| {
            self.filters
                .iter()
                .any(|filter| scenario.name.contains(filter.as_str()))
        };
        let usual = |scenario: &&Scenario| self.filters.is_empty() && !scenario.on_request;
        all.iter()
            .filter(|scenario| named(scenario) || usual(scenario))
            .collect()
    }
}

fn parse(mut arguments: impl Iterator<Item = String>) -> Result<(bool, Vec<String>)> {
    let (mut list, mut filters) = (false, Vec::new());
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--list" => list = true,
            "--filter" => filters.push(arguments.next().about("--filter needs a word")?),
            // What cargo and its friends pass to every test binary.
            "--nocapture" | "--show-output" | "-q" | "--quiet" => {}
            word if !word.starts_with('-') => filters.push(word.to_owned()),
            other => crate::fail!("unknown argument {other}; there are --list and --filter WORD"),
        }
    }
    Ok((list, filters))
}

fn env(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

fn number<N: std::str::FromStr>(name: &str, default: N) -> Result<N> {
    match env(name) {
        None => Ok(default),
        Some(text) => text.parse().ok().about(format!("{name}: '{text}' is not a number")),
    }
}
