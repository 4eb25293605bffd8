//! What a scenario gets: the client, the audit log, its namespaces, and where figures go.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use kube::Client;

use super::{About, Result, report::Figure, settings::Settings};
use crate::cluster::{audit, namespaces};

pub struct Ctx {
    pub client: Client,
    pub settings: Arc<Settings>,
    scenario: &'static str,
    /// What each line begins with: the scenario's name where several run at once.
    margin: String,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    namespaces: Vec<String>,
    /// How many of each purpose there have been.
    made: BTreeMap<String, usize>,
    figures: Vec<Figure>,
}

impl Ctx {
    pub async fn connect(settings: Settings) -> Result<Self> {
        let mut config = kube::Config::infer()
            .await
            .about("no cluster; run inside dev/cluster exec")?;
        config.connect_timeout = Some(Duration::from_secs(30));
        let client = Client::try_from(config)?;
        client
            .apiserver_version()
            .await
            .about("the API server does not answer")?;
        Ok(Self {
            client,
            settings: Arc::new(settings),
            scenario: "",
            margin: "  ".into(),
            state: Mutex::default(),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The same cluster, for one scenario; `beside` others when several run at once.
    pub(super) fn of(&self, scenario: &'static str, beside: bool) -> Self {
        Self {
            client: self.client.clone(),
            settings: self.settings.clone(),
            scenario,
            margin: if beside { format!("  {scenario}: ") } else { "  ".into() },
            state: Mutex::default(),
        }
    }

    pub(super) fn take_figures(&self) -> Vec<Figure> {
        std::mem::take(&mut self.state().figures)
    }

    /// The topics whose target was missed so far.
    pub(super) fn missed(&self) -> Vec<String> {
        let missed = |figure: &Figure| (!figure.ok).then(|| format!("{}: {}", figure.topic, figure.value));
        self.state().figures.iter().filter_map(missed).collect()
    }

    /// The namespaces of the present scenario.
    pub fn namespaces(&self) -> Vec<String> {
        self.state().namespaces.clone()
    }

    pub fn forget_namespace(&self, name: &str) {
        self.state().namespaces.retain(|known| known != name);
    }

    /// A fresh namespace `e2e-<scenario>-<purpose>` with the restricted Pod security level, numbered from the second of its purpose on.
    /// It is deleted after the scenario.
    pub async fn namespace(&self, purpose: &str) -> Result<String> {
        let mut name = format!("e2e-{}-{purpose}", self.scenario);
        {
            let mut state = self.state();
            let made = state.made.entry(purpose.to_owned()).or_default();
            *made += 1;
            if *made > 1 {
                name = format!("{name}-{made}");
            }
            state.namespaces.push(name.clone());
        }
        namespaces::create(&self.client, &name)
            .await
            .about(format!("namespace {name}"))?;
        Ok(name)
    }

    /// Records something that must be shown. A missed target fails the scenario when it ends, so the rest is still seen.
    pub fn figure(&self, topic: impl Into<String>, value: impl Into<String>, target: impl Into<String>, ok: bool) {
        let figure = Figure {
            topic: topic.into(),
            value: value.into(),
            target: target.into(),
            ok,
        };
        let verdict = if ok { "" } else { "  MISSED" };
        println!(
            "{}{}: {} (target {}){verdict}",
            self.margin, figure.topic, figure.value, figure.target
        );
        self.state().figures.push(figure);
    }

    /// One line of progress or detail.
    pub fn say(&self, text: impl AsRef<str>) {
        text.as_ref().lines().for_each(|line| println!("{}{line}", self.margin));
    }

    /// A point in the audit log; `since` reads what was requested after it.
    pub fn audit(&self) -> Result<audit::Mark> {
        let path = self
            .settings
            .audit_log
            .as_ref()
            .about("AMAS_AUDIT_LOG must name the API server's audit log")?;
        Ok(audit::Mark::now(path)?)
    }
}
