//! What has to be done to the Secrets: making them, keeping them as they should be, and the next step of each rotation. Pure.

use k8s_openapi::jiff::Timestamp;

use crate::{
    api::amas_database::AmasDatabaseSpec,
    controllers::credentials::{
        Entries, Given, Known, Purpose, Rotation, SecretSpec, State,
        rotation::{self, Moment, Request},
    },
    engine::child::ChildKind,
};

use super::{
    observe::{Observed, StoreKind},
    plan::{Plan, Step},
    validate::Valid,
};

/// Where the status keeps the last handled value of each annotation.
pub const HANDLED_ROTATE: &str = "rotate-credentials";
pub const HANDLED_REISSUE: &str = "reissue-credentials";

pub fn steps(spec: &AmasDatabaseSpec, valid: &Valid, observed: &Observed, plan: &mut Plan) {
    // Where an external server is cannot be told at the moment: what is published of it stays.
    let unknown = matches!(observed.externals.get(&StoreKind::Postgres), Some(Err(_)));
    for secret in &valid.secrets {
        if unknown && matches!(secret.purpose, Purpose::PostgresRole { .. }) {
            continue;
        }
        let name = secret.name.clone();
        if let Given::Unusable(problem) = &secret.given {
            plan.unusable.push(problem.clone());
        }
        // A store that is only now asked for has no data yet, whatever others have.
        let volume = (
            ChildKind::PersistentVolumeClaim,
            valid.family.child_name(secret.component()),
        );
        let has_data = secret.initialises_data && observed.children.contains_key(&volume);
        let used = has_data || observed.status.secrets.contains(&name);
        match observed.secrets.get(&name) {
            _ if observed.taken.contains(&(ChildKind::Secret, name.clone())) => {
                plan.taken.push((ChildKind::Secret, name))
            }
            Some(Known::Foreign) => plan.taken.push((ChildKind::Secret, name)),
            Some(Known::Present(entries)) => match (secret.state(entries), &secret.purpose) {
                (None, purpose) if used && !matches!(purpose, Purpose::Seed { .. }) => lost(secret, observed, plan),
                (state, _) => {
                    let moment = moment(spec, secret, observed, plan);
                    let owner = valid.family.data_goes.then(|| valid.family.uid.clone());
                    let other = observed.secret_owners.get(&name).is_some_and(|found| *found != owner);
                    plan.steps.extend(change((secret, entries, other), state.as_ref(), &moment));
                }
            },
            Some(Known::Absent) if used => lost(secret, observed, plan),
            Some(Known::Absent) | None => create(secret, plan),
        }
    }
}

fn create(secret: &SecretSpec, plan: &mut Plan) {
    if matches!(secret.given, Given::Unusable(_)) {
        plan.waits_for_secret = true;
    } else {
        plan.steps.push(Step::CreateSecret(secret.clone()));
    }
}

/// Its data is there and knows only the old password: made anew only for a role, whose password the admin can set, and only when asked for, or
/// when the user has the password.
fn lost(secret: &SecretSpec, observed: &Observed, plan: &mut Plan) {
    let reissued = matches!(secret.purpose, Purpose::PostgresRole { .. })
        && matches!(request(secret, observed), Some(Request::Reissue(_)));
    if reissued || matches!(secret.given, Given::Password(_)) {
        create(secret, plan);
    } else {
        plan.missing.push(secret.name.clone());
    }
}

/// `other`: it goes with another AmasDatabase than it should.
fn change(
    (secret, entries, other): (&SecretSpec, &Entries, bool),
    state: Option<&State>,
    moment: &Moment,
) -> Option<Step> {
    let next = state.and_then(|state| rotation::next(secret, state, moment));
    let wanted = match &next {
        Some(next) => secret.write(next, entries),
        None => secret.entries(entries),
    };
    let differs = wanted.iter().any(|(key, value)| entries.get(key) != Some(value));
    let left = entries
        .keys()
        .any(|key| Rotation::is_note(key) && !wanted.contains_key(key));
    (differs || left || other).then(|| Step::UpdateSecret {
        spec: secret.clone(),
        from: entries.clone(),
        to: wanted,
    })
}

/// The store that a credential is for.
pub fn store_of(secret: &SecretSpec) -> Option<StoreKind> {
    match secret.purpose {
        Purpose::PostgresAdmin | Purpose::PostgresRole { .. } => Some(StoreKind::Postgres),
        Purpose::Redis => Some(StoreKind::Redis),
        Purpose::Neo4j { .. } => Some(StoreKind::Neo4j),
        Purpose::Seed { .. } => None,
    }
}

/// What decides on the next step of a credential.
pub fn moment(spec: &AmasDatabaseSpec, secret: &SecretSpec, observed: &Observed, plan: &Plan) -> Moment {
    let duties = &plan.duties;
    let is_in = match store_of(secret) {
        Some(StoreKind::Postgres) => observed.postgres.as_ref().is_some_and(|snapshot| {
            let wanted = duties.postgres.as_ref().map(|duty| duty.fingerprint());
            wanted.is_some() && snapshot.facts.duty_in == wanted
        }),
        Some(StoreKind::Redis) => observed.redis.as_ref().is_some_and(|snapshot| {
            let wanted = duties.redis.as_ref().map(|duty| duty.fingerprint());
            wanted.is_some() && snapshot.facts.duty_in == wanted
        }),
        Some(StoreKind::Neo4j) => observed.neo4j.as_ref().is_some_and(|snapshot| {
            let wanted = duties.neo4j.as_ref().map(|duty| duty.fingerprint());
            wanted.is_some() && snapshot.facts.duty_in == wanted
        }),
        None => false,
    };
    let settings = &spec.credentials.rotation;
    Moment {
        now: observed.now,
        is_in,
        every: settings.every.map(|every| every.get()),
        overlap: settings.overlap.get(),
        created: observed.created,
        request: request(secret, observed),
    }
}

/// What is asked for by annotation of this credential and not yet handled.
fn request(secret: &SecretSpec, observed: &Observed) -> Option<Request> {
    let credential = secret.credential()?;
    let handled = |name: &str, value: &String| observed.status.handled.get(name) == Some(value);
    let of = |value: &&String| value.split_once('/').is_some_and(|(name, _)| name == credential);
    let reissue = observed
        .reissue
        .as_ref()
        .filter(of)
        .filter(|value| !handled(HANDLED_REISSUE, value))
        .cloned()
        .map(Request::Reissue);
    let rotate = observed
        .rotate
        .as_ref()
        .filter(|value| !value.contains('/') || of(value))
        .filter(|value| !handled(HANDLED_ROTATE, value))
        .cloned()
        .map(Request::Rotate);
    reissue.or(rotate)
}

/// The annotations that have nothing left to do: the key in the status, and the value.
pub fn handled(valid: &Valid, observed: &Observed) -> Vec<(&'static str, String)> {
    let open = |request: &Request| {
        valid.secrets.iter().any(|secret| {
            let noted = match observed.secrets.get(&secret.name) {
                Some(Known::Present(entries)) => secret.state(entries).and_then(|state| state.rotation.request),
                _ => None,
            };
            self::request(secret, observed).as_ref() == Some(request)
                && secret.given == Given::No
                && noted != Some(request.note())
        })
    };
    let rotate = observed.rotate.clone().filter(|value| !open(&Request::Rotate(value.clone())));
    let reissue = observed.reissue.clone().filter(|value| !open(&Request::Reissue(value.clone())));
    let rotate = rotate.map(|value| (HANDLED_ROTATE, value));
    rotate.into_iter().chain(reissue.map(|value| (HANDLED_REISSUE, value))).collect()
}

/// When the clock alone has something to do for a credential.
pub fn wakes_at(secret: &SecretSpec, state: &State, moment: &Moment) -> Option<Timestamp> {
    match (&state.rotation.next, rotation::ends_at(state, moment.overlap)) {
        (Some(_), _) => None,
        (None, Some(end)) => Some(end),
        (None, None) => rotation::due_at(secret, state, moment),
    }
}
