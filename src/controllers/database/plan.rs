//! What has to be written, and what each keeper has to hold. Pure: from valid values and what was seen to a list of small steps.

use serde_json::Value;

use crate::{
    api::{
        amas_database::AmasDatabaseSpec,
        common::{DeletionPolicy, NetworkSettings},
        names::{GraphName, SqlName},
        postgres::{Access, PostgresSpec},
    },
    controllers::{
        Settings,
        credentials::{Entries, Known, Purpose, SecretSpec},
        sources::Files,
    },
    engine::child::ChildKind,
    stores::{
        claim::Claim,
        endpoint::{Endpoint, Tls},
        neo4j::{self, Neo4jDuty},
        postgres::{self, ExtensionDuty, PostgresDuty, RoleDuty, Session},
        redis::{self, RedisDuty},
        workload::{Shared, TemplateKind, templates},
    },
};

use super::{
    jobs::{self, Decision, JobInput, Seeds},
    observe::{Observed, StoreKind},
    validate::{Valid, role_secret},
};

/// One write.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    AddFinalizer,
    CreateSecret(SecretSpec),
    UpdateSecret(SecretSpec, Entries),
    Create(ChildKind, Value),
    Update(ChildKind, Value),
    Delete(ChildKind, String),
}

/// What the keepers hold true from now on; a store that is not in it has none.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Duties {
    pub postgres: Option<PostgresDuty>,
    pub redis: Option<RedisDuty>,
    pub neo4j: Option<Neo4jDuty>,
}

/// Everything to do. No steps: nothing is written.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    pub steps: Vec<Step>,
    pub duties: Duties,
    /// What holds for migrations; `None` while their database is not there, or when there are none.
    pub migrations: Option<Decision>,
    /// Secrets that are missing beside their data.
    pub missing: Vec<String>,
    /// Names that somebody else's objects have.
    pub taken: Vec<(ChildKind, String)>,
}

/// The finalizer of objects whose data goes with them.
pub const FINALIZER: &str = "amas.dev/delete-data";

/// Plans. `finalized` says whether our finalizer is on the object.
pub fn plan(spec: &AmasDatabaseSpec, valid: &Valid, observed: &Observed, settings: &Settings, finalized: bool) -> Plan {
    let mut plan = Plan {
        steps: Vec::new(),
        duties: duties(spec, valid, observed, settings),
        migrations: None,
        missing: Vec::new(),
        taken: Vec::new(),
    };
    if spec.deletion_policy == DeletionPolicy::Delete && !finalized {
        plan.steps.push(Step::AddFinalizer);
    }
    secret_steps(valid, observed, &mut plan);
    if plan.missing.is_empty() {
        child_steps(spec, valid, observed, settings, &mut plan);
        migration_steps(spec, valid, observed, settings, &mut plan);
    }
    plan
}

fn secret_steps(valid: &Valid, observed: &Observed, plan: &mut Plan) {
    for spec in &valid.secrets {
        let name = spec.name.clone();
        match observed.secrets.get(&name) {
            _ if observed.taken.contains(&(ChildKind::Secret, name.clone())) => {
                plan.taken.push((ChildKind::Secret, name))
            }
            Some(Known::Foreign) => plan.taken.push((ChildKind::Secret, name)),
            Some(Known::Present(entries)) => {
                let wanted = spec.entries(entries);
                let lacks_password = !matches!(spec.purpose, Purpose::Seed { .. }) && spec.password(entries).is_none();
                if lacks_password && (spec.initialises_data || observed.status.secrets.contains(&name)) {
                    plan.missing.push(name);
                } else if wanted.iter().any(|(key, value)| entries.get(key) != Some(value)) {
                    plan.steps.push(Step::UpdateSecret(spec.clone(), wanted));
                }
            }
            Some(Known::Absent) if spec.initialises_data || observed.status.secrets.contains(&name) => {
                plan.missing.push(name)
            }
            Some(Known::Absent) | None => plan.steps.push(Step::CreateSecret(spec.clone())),
        }
    }
}

fn child_kind(kind: TemplateKind) -> ChildKind {
    match kind {
        TemplateKind::ServiceAccount => ChildKind::ServiceAccount,
        TemplateKind::ConfigMap => ChildKind::ConfigMap,
        TemplateKind::Service => ChildKind::Service,
        TemplateKind::NetworkPolicy => ChildKind::NetworkPolicy,
        TemplateKind::PersistentVolumeClaim => ChildKind::PersistentVolumeClaim,
        TemplateKind::StatefulSet => ChildKind::StatefulSet,
    }
}

fn child_steps(spec: &AmasDatabaseSpec, valid: &Valid, observed: &Observed, settings: &Settings, plan: &mut Plan) {
    let NetworkSettings { mode } = spec.network;
    let shared = Shared {
        pods: &spec.pods,
        access: mode,
        operator_namespace: &settings.operator_namespace,
    };
    let wanted = valid
        .workloads
        .iter()
        .flat_map(|workload| templates(&valid.family, workload, shared));
    let mut names = Vec::new();
    for template in wanted {
        let kind = child_kind(template.kind);
        let name = template.body["metadata"]["name"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        let key = (kind, name);
        match observed.children.get(&key) {
            None if observed.taken.contains(&key) => plan.taken.push(key.clone()),
            None => plan.steps.push(Step::Create(kind, template.body)),
            Some(seen) if seen.deleting || seen.hash == kind.hash(&template.body) => {}
            Some(_) => plan.steps.push(Step::Update(kind, template.body)),
        }
        names.push(key);
    }
    // What a store that is no longer asked for has left: its workload goes, its volume stays.
    let ours = |kind: ChildKind| {
        !matches!(
            kind,
            ChildKind::Job | ChildKind::Pod | ChildKind::PersistentVolumeClaim | ChildKind::Secret
        )
    };
    let left = observed
        .children
        .iter()
        .filter(|(key, seen)| ours(key.0) && !seen.deleting && !names.contains(key));
    plan.steps
        .extend(left.map(|((kind, name), _)| Step::Delete(*kind, name.clone())));
}

fn migration_steps(spec: &AmasDatabaseSpec, valid: &Valid, observed: &Observed, settings: &Settings, plan: &mut Plan) {
    let (Some(Files::Read(source)), Some(owner)) = (&observed.files, &valid.owner) else {
        return;
    };
    let Some((snapshot, facts)) = observed
        .postgres
        .as_ref()
        .and_then(|snapshot| Some((snapshot, snapshot.facts.migrations.as_ref()?)))
    else {
        return;
    };
    let duty_in = plan.duties.postgres.as_ref().map(PostgresDuty::fingerprint);
    let seeds = match &observed.seed_files {
        Some(Ok(files)) => Some(pending_seeds(files, &facts.seeds)),
        _ => None,
    };
    let target = target(spec, observed, source.newest());
    let known = jobs::Known {
        source,
        state: facts.state.as_ref(),
        identity: &facts.identity,
        seeds: seeds.as_ref(),
        target: Some(target),
        children: &observed.children,
    };
    let decision = jobs::decide(&valid.family, &known);
    // A Job needs the roles and extensions; until they are in, it waits.
    let prepared = snapshot.health.is_up() && duty_in.is_some() && snapshot.facts.duty_in == duty_in;
    if let (
        Decision::Start {
            job, steps, direction, ..
        },
        true,
    ) = (&decision, prepared)
    {
        let input = JobInput {
            family: &valid.family,
            spec,
            owner: owner.as_str(),
            image: &settings.own_image,
            target: Some(target),
            seeds: seeds.as_ref(),
            steps,
            direction: *direction,
        };
        let managed = spec
            .postgres
            .as_ref()
            .is_some_and(|postgres| postgres.managed.is_some());
        plan.steps
            .push(Step::Create(ChildKind::Job, jobs::job(&input, job, managed)));
    }
    plan.migrations = Some(decision);
}

/// The version asked for. Without one: the newest known when this generation was first seen, so that an upgrade of the operator starts nothing.
pub fn target(spec: &AmasDatabaseSpec, observed: &Observed, newest: i64) -> i64 {
    let asked = spec
        .migrations
        .as_ref()
        .and_then(|migrations| migrations.target_version);
    let recorded = observed
        .status
        .migrations
        .as_ref()
        .and_then(|migrations| migrations.target);
    asked
        .or(recorded.filter(|_| observed.same_generation))
        .unwrap_or(newest)
}

fn duties(spec: &AmasDatabaseSpec, valid: &Valid, observed: &Observed, settings: &Settings) -> Duties {
    let claim = Claim {
        cluster_id: settings.cluster_id.clone(),
        namespace: valid.family.namespace.clone(),
        name: valid.family.database.clone(),
        uid: valid.family.uid.clone(),
    };
    Duties {
        postgres: spec
            .postgres
            .as_ref()
            .and_then(|postgres| postgres_duty(postgres, valid, observed, &claim)),
        redis: spec.redis.as_ref().and_then(|redis| {
            let endpoint = endpoint(
                StoreKind::Redis,
                valid,
                observed,
                redis::workload::PORT,
                redis::workload::USER,
            )?;
            Some(RedisDuty {
                endpoint,
                claim: claim.clone(),
                managed: redis.managed.is_some(),
            })
        }),
        neo4j: spec.neo4j.as_ref().and_then(|neo4j| {
            let endpoint = endpoint(
                StoreKind::Neo4j,
                valid,
                observed,
                neo4j::workload::PORT,
                neo4j::workload::USER,
            )?;
            let database = neo4j
                .managed
                .as_ref()
                .map_or("neo4j", |managed| &managed.initial_database);
            Some(Neo4jDuty {
                endpoint,
                database: GraphName::parse(database).ok()?,
                claim: claim.clone(),
                managed: neo4j.managed.is_some(),
            })
        }),
    }
}

fn password(valid: &Valid, observed: &Observed, secret: &str) -> Option<crate::api::sensitive::Sensitive> {
    let spec = valid.secrets.iter().find(|spec| spec.name == secret)?;
    match observed.secrets.get(secret)? {
        Known::Present(entries) => spec.password(entries),
        _ => None,
    }
}

/// The operator's own login on a store: an external one's as its Secret says, a managed one's as we made it.
fn endpoint(store: StoreKind, valid: &Valid, observed: &Observed, port: u16, user: &str) -> Option<Endpoint> {
    if let Some(external) = observed.externals.get(&store) {
        return external.clone().ok();
    }
    let secret = match store {
        StoreKind::Postgres => "postgres-admin",
        StoreKind::Redis => "redis-connection",
        StoreKind::Neo4j => "neo4j-connection",
    };
    let password = password(valid, observed, &valid.family.child_name(secret))?;
    Some(Endpoint {
        host: valid.family.host(store.component()),
        port,
        tls: Tls::Disable,
        user: user.to_owned(),
        password,
    })
}

fn postgres_duty(postgres: &PostgresSpec, valid: &Valid, observed: &Observed, claim: &Claim) -> Option<PostgresDuty> {
    let admin = endpoint(
        StoreKind::Postgres,
        valid,
        observed,
        postgres::workload::PORT,
        postgres::workload::ADMIN,
    )?;
    let owner = valid.owner.clone()?;
    let role_password = |role: &SqlName| password(valid, observed, &role_secret(&valid.family, role.as_str()));
    let owner_login = Endpoint {
        user: owner.to_string(),
        password: role_password(&owner)?,
        ..admin.clone()
    };
    let session = Session {
        timezone: postgres.session.timezone.clone(),
        statement_timeout: postgres.session.statement_timeout.map(|span| span.get()),
        application_name: postgres.session.application_name.clone(),
        search_path: postgres.session.search_path.clone(),
    };
    let role = |role: &crate::api::postgres::Role| {
        let access = match role.access {
            Access::ReadWrite => postgres::Access::ReadWrite,
            Access::ReadOnly => postgres::Access::ReadOnly,
        };
        let password = role_password(&role.name)?;
        Some(RoleDuty {
            name: role.name.clone(),
            password,
            access,
            connection_limit: role.connection_limit,
            session: session.clone(),
        })
    };
    let schema = SqlName::parse("public").ok()?;
    Some(PostgresDuty {
        admin,
        owner_login,
        database: postgres.database.clone(),
        owner,
        extensions: postgres
            .extensions
            .iter()
            .map(|name| ExtensionDuty {
                name: name.clone(),
                schema: schema.clone(),
            })
            .collect(),
        roles: postgres.roles.iter().map(role).collect::<Option<_>>()?,
        exclusive: postgres.managed.is_some(),
        claim: postgres::Claim {
            cluster_id: claim.cluster_id.clone(),
            namespace: claim.namespace.clone(),
            name: claim.name.clone(),
            uid: claim.uid.clone(),
        },
        look_again: String::new(),
    })
}

/// The seed files of the profile with how many are not in.
pub fn pending_seeds(
    all: &[(String, crate::migrate::seed::Profile)],
    recorded: &std::collections::BTreeMap<(String, String), crate::migrate::source::Checksum>,
) -> Seeds {
    let files = all
        .iter()
        .flat_map(|(folder, profile)| profile.files.iter().map(move |script| (folder, script)));
    let pending = files
        .clone()
        .filter(|(folder, script)| recorded.get(&((*folder).clone(), script.file.clone())) != Some(&script.checksum))
        .count();
    Seeds {
        folders: all.iter().map(|(folder, _)| folder.clone()).collect(),
        files: files
            .map(|(folder, script)| (folder.clone(), script.file.clone(), script.checksum.to_string()))
            .collect(),
        pending,
    }
}
