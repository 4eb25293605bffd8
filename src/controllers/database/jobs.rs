//! Migration Jobs: whether one is due, and what it looks like. Pure: the history in the database, never a Job, is the truth.

use serde_json::{Value, json};
use sha2::Digest;

use crate::{
    api::{
        amas_database::AmasDatabaseSpec,
        migrations::{MigrationSource, SeedHash, SeedProfile},
    },
    controllers::credentials::hex,
    engine::{child::ChildKind, children},
    migrate::{
        history::{Run, State},
        plan::{self, Options, PlanError},
        report::{self, Termination},
        source::Source,
    },
    stores::workload::{Family, add_pod_settings, security},
};

use super::validate::role_secret;

/// Jobs of one plan that are tried when they end without an outcome in the database (their pods were lost).
const ATTEMPTS: i64 = 3;
/// How long a finished Job is kept.
const KEEP_SECONDS: u32 = 86_400;

/// What is known when migrations are decided on.
pub struct Known<'a> {
    pub source: &'a Source,
    /// What the database says; `None` before the first migration.
    pub state: Option<&'a State>,
    /// `<system identifier>/<database>`.
    pub identity: &'a str,
    /// Seed files that are not in yet, or have changed: their count, and a digest over all of them.
    pub seeds: Option<&'a Seeds>,
    pub target: Option<i64>,
    pub children: &'a children::Family,
}

/// The seed files of the profile that is asked for.
#[derive(Clone, Debug, PartialEq)]
pub struct Seeds {
    /// Folders in the order they run.
    pub folders: Vec<String>,
    /// (profile folder, file, checksum) of each file.
    pub files: Vec<(String, String, String)>,
    pub pending: usize,
}

/// What is to be done about migrations.
#[derive(Clone, Debug, PartialEq)]
pub enum Decision {
    /// All are in, and the seeds.
    Done,
    /// A Job of this plan is at work.
    Running { plan: String, pending: usize, job: String },
    /// A Job is due. `steps` is the hash that the runner checks: of the migrations alone.
    Start {
        plan: String,
        steps: String,
        pending: usize,
        job: String,
    },
    /// The last Job of this plan failed; it waits for a change of the files or the specification.
    Failed {
        plan: String,
        pending: usize,
        failure: Failure,
    },
    /// Files and history disagree.
    Impossible { problem: PlanError },
}

/// Why a Job failed.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Failure {
    pub version: Option<i64>,
    pub file: Option<String>,
    pub line: Option<i64>,
    pub sqlstate: Option<String>,
    pub message: String,
}

/// Decides. The newest known version is the target when none is given.
pub fn decide(family: &Family, known: &Known<'_>) -> Decision {
    let applied = known.state.map(|state| state.applied.as_slice()).unwrap_or_default();
    let plan = match plan::plan(known.source, applied, known.target) {
        Ok(plan) => plan,
        Err(problem) => return Decision::Impossible { problem },
    };
    let seeds = known.seeds.filter(|seeds| seeds.pending > 0);
    if plan.is_empty() && seeds.is_none() {
        return Decision::Done;
    }
    let steps = plan.hash(known.identity, &Options::default());
    let hash = job_hash(&steps, seeds);
    let pending = plan.steps.len();
    let prefix = family.child_name(&format!("migrate-{}-", plan::hash8(&hash)));
    let mut jobs: Vec<(&str, Option<bool>)> = known
        .children
        .iter()
        .filter(|((kind, name), _)| *kind == ChildKind::Job && name.starts_with(&prefix))
        .map(|((_, name), seen)| (name.as_str(), seen.facts.finished))
        .collect();
    jobs.sort_by_key(|(name, _)| attempt_number(name));
    if let Some((job, None)) = jobs.iter().find(|(_, finished)| finished.is_none()) {
        return Decision::Running {
            plan: hash,
            pending,
            job: (*job).to_owned(),
        };
    }
    let attempts = jobs.last().map_or(0, |(name, _)| attempt_number(name));
    if let Some(failure) = failure(known, &prefix, attempts, jobs.last().copied()) {
        return Decision::Failed {
            plan: hash,
            pending,
            failure,
        };
    }
    let highest = known.state.map_or(0, |state| state.highest_history_id);
    Decision::Start {
        job: format!("{prefix}{highest}-{}", attempts + 1),
        plan: hash,
        steps,
        pending,
    }
}

/// The plan's hash, and the seeds' when there are any: what the Job is for.
fn job_hash(steps: &str, seeds: Option<&Seeds>) -> String {
    let Some(seeds) = seeds else { return steps.to_owned() };
    hex(&sha2::Sha256::digest(format!("{steps}\n{:?}", seeds.files)))
}

fn attempt_number(job: &str) -> i64 {
    job.rsplit('-')
        .next()
        .and_then(|number| number.parse().ok())
        .unwrap_or_default()
}

/// The outcome of this plan's last Job, if it is one that waits for a human.
fn failure(known: &Known<'_>, prefix: &str, attempts: i64, last: Option<(&str, Option<bool>)>) -> Option<Failure> {
    let run = known
        .state
        .and_then(|state| state.latest_run.as_ref())
        .filter(|run| run.attempt.starts_with(prefix));
    match run {
        Some(run) if run.outcome.as_deref() == Some("failed") && !is_transient(run) => Some(run_failure(run)),
        _ => match last {
            Some((job, Some(false)))
                if attempts >= ATTEMPTS
                    || run.is_none() && last_message(known, job).is_some_and(|message| message.is_final) =>
            {
                let message = last_message(known, job).map(|message| message.failure);
                Some(message.unwrap_or_else(|| Failure {
                    message: format!("Job {job} failed without an outcome in the database; see its pods"),
                    ..Failure::default()
                }))
            }
            _ => None,
        },
    }
}

struct LastMessage {
    failure: Failure,
    is_final: bool,
}

/// What the Job's pod wrote when it ended: the only word there is when the runner never reached the database.
fn last_message(known: &Known<'_>, job: &str) -> Option<LastMessage> {
    let pods = known
        .children
        .iter()
        .filter(|((kind, name), _)| *kind == ChildKind::Pod && name.starts_with(job));
    let text = pods
        .filter_map(|(_, seen)| seen.facts.termination_message.as_deref())
        .next_back()?;
    let ended: Termination = serde_json::from_str(text).ok()?;
    Some(LastMessage {
        is_final: (10..20).contains(&ended.code),
        failure: Failure {
            version: ended.version,
            file: ended.file,
            line: ended.line.and_then(|line| i64::try_from(line).ok()),
            sqlstate: ended.sqlstate,
            message: ended.message.unwrap_or_default(),
        },
    })
}

fn is_transient(run: &Run) -> bool {
    run.sqlstate.as_deref().is_some_and(report::is_transient)
}

fn run_failure(run: &Run) -> Failure {
    Failure {
        version: run.failed_version,
        file: run.file.clone(),
        line: run.line.map(i64::from),
        sqlstate: run.sqlstate.clone(),
        message: run.message.clone().unwrap_or_default(),
    }
}

/// What a Job needs beside the decision.
pub struct JobInput<'a> {
    pub family: &'a Family,
    pub spec: &'a AmasDatabaseSpec,
    pub owner: &'a str,
    pub image: &'a str,
    pub target: Option<i64>,
    pub seeds: Option<&'a Seeds>,
    /// Hash of the steps, checked by the runner before the first statement.
    pub steps: &'a str,
}

/// The Job as an object. It has no token and reports through the database.
pub fn job(input: &JobInput<'_>, name: &str, managed: bool) -> Value {
    let JobInput { family, spec, .. } = input;
    let Some(migrations) = &spec.migrations else {
        return Value::Null;
    };
    let mut pod = json!({
        "restartPolicy": "Never",
        "automountServiceAccountToken": false,
        "enableServiceLinks": false,
        "securityContext": {"runAsNonRoot": true, "runAsUser": 65532, "runAsGroup": 65532, "fsGroup": 65532, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [{
            "name": "migrate", "image": input.image, "imagePullPolicy": "IfNotPresent",
            "args": arguments(input, &migrations.source, name),
            "resources": k8s_openapi::api::core::v1::ResourceRequirements::from(&migrations.job.resources),
            "securityContext": security(true),
            "volumeMounts": volume_mounts(input, &migrations.source),
        }],
        "volumes": volumes(input, &migrations.source),
    });
    if managed {
        pod["serviceAccountName"] = json!(family.child_name("postgres"));
    }
    add_pod_settings(&mut pod, &spec.pods);
    let labels = family.labels("postgresql", "migrations");
    json!({"metadata": family.metadata(name, "postgresql", "migrations", true), "spec": {
        "backoffLimit": 3,
        "podReplacementPolicy": "Failed",
        "ttlSecondsAfterFinished": KEEP_SECONDS,
        "podFailurePolicy": {"rules": [
            {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget"}]},
            // The runner's exit codes: 10 to 19 need a change by a human, 20 to 29 may pass by themselves.
            {"action": "FailJob", "onExitCodes": {"operator": "In", "values": (10..20).collect::<Vec<_>>()}},
            {"action": "Count", "onExitCodes": {"operator": "In", "values": (20..30).collect::<Vec<_>>()}},
        ]},
        "template": {"metadata": {"labels": labels, "annotations": spec.pods.annotations}, "spec": pod},
    }})
}

fn arguments(input: &JobInput<'_>, source: &MigrationSource, name: &str) -> Vec<String> {
    let bundle = source.bundle.as_ref().map(|bundle| format!("/migrations/{bundle}"));
    let folder = bundle.clone().unwrap_or_else(|| "/run/amas/source".into());
    let mut arguments: Vec<String> = ["migrate", "up", "--dir", &folder, "--attempt", name]
        .map(Into::into)
        .into();
    arguments.extend(
        [
            "--database-url-file",
            "/run/amas/login/DATABASE_URL",
            "--termination-message",
            "/dev/termination-log",
            "--plan-hash",
            input.steps,
        ]
        .map(Into::into),
    );
    if let Some(target) = input.target {
        arguments.extend(["--to".into(), target.to_string()]);
    }
    let seeds = input.seeds.zip(bundle);
    for (folder, bundle) in seeds
        .iter()
        .flat_map(|(seeds, bundle)| seeds.folders.iter().map(move |folder| (folder, bundle)))
    {
        arguments.extend(["--seed-dir".into(), format!("{bundle}/seed/{folder}")]);
    }
    if seeds.is_some() {
        for value in input.spec.seed.iter().flat_map(|seed| &seed.generate) {
            let SeedHash::Bcrypt = value.hash;
            arguments.extend(["--seed-hash".into(), format!("{0}=/run/amas/seed/{0}", value.name)]);
        }
    }
    arguments
}

fn seed_secret(input: &JobInput<'_>) -> Option<String> {
    let seed = input.spec.seed.as_ref()?;
    (seed.profile != SeedProfile::None && !seed.generate.is_empty()).then(|| input.family.child_name("seed"))
}

fn volume_mounts(input: &JobInput<'_>, source: &MigrationSource) -> Vec<Value> {
    let mount = |name: &str, path: &str| json!({"name": name, "mountPath": path, "readOnly": true});
    let mut mounts = vec![mount("login", "/run/amas/login")];
    if source.bundle.is_none() {
        mounts.push(mount("source", "/run/amas/source"));
    }
    if seed_secret(input).is_some() {
        mounts.push(mount("seed", "/run/amas/seed"));
    }
    mounts
}

fn volumes(input: &JobInput<'_>, source: &MigrationSource) -> Vec<Value> {
    let login = role_secret(input.family, input.owner);
    // 0440 with the pod's group: the runner is not root.
    let mut volumes = vec![json!({"name": "login", "secret": {
        "secretName": login, "defaultMode": 0o440, "items": [{"key": "DATABASE_URL", "path": "DATABASE_URL"}],
    }})];
    if source.bundle.is_none() {
        let maps: Vec<Value> = source
            .config_maps
            .iter()
            .map(|name| json!({"configMap": {"name": name}}))
            .collect();
        volumes.push(json!({"name": "source", "projected": {"sources": maps}}));
    }
    if let Some(secret) = seed_secret(input) {
        volumes.push(json!({"name": "seed", "secret": {"secretName": secret, "defaultMode": 0o440}}));
    }
    volumes
}
