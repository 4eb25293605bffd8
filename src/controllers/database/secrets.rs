//! What has to be done to the Secrets: making them, keeping them as they should be, and the next step of each rotation. Pure.

use std::time::Duration;

use k8s_openapi::jiff::Timestamp;

use crate::{
    api::{amas_database::AmasDatabaseSpec, credentials::RotationSettings},
    controllers::credentials::{
        Calendar, Entries, Given, Known, Purpose, Rotation, SecretSpec, State, certificates,
        rotation::{self, Moment, Request},
    },
    engine::child::ChildKind,
};

use super::{
    losses,
    observe::Observed,
    plan::{Plan, Step},
    table::StoreKind,
    validate::Valid,
};

/// Where the status keeps the last handled value of each annotation.
pub const HANDLED_ROTATE: &str = "rotate-credentials";
pub const HANDLED_REISSUE: &str = "reissue-credentials";

pub fn steps(spec: &AmasDatabaseSpec, valid: &Valid, observed: &Observed, plan: &mut Plan) {
    // Where an external server is cannot be told at the moment: what is published of it stays.
    let unknown = |secret| {
        let external = store_of(secret).and_then(|store| observed.externals.get(&store));
        matches!(external, Some(Err(_)))
    };
    let is_authority = |secret: &SecretSpec| matches!(secret.purpose, Purpose::Certificates(_));
    let authority = valid.secrets.iter().find(|secret| is_authority(secret));
    // Whoever publishes it, or starts with it, comes after it.
    let awaited =
        authority.is_some_and(|secret| !matches!(observed.secrets.get(&secret.name), Some(Known::Present(_))));
    plan.waits_for_secret |= awaited || authority.is_some_and(|secret| is_incomplete(secret, observed));
    if let Some(Known::Present(entries)) = authority.and_then(|secret| observed.secrets.get(&secret.name))
        && certificates::changed_at(entries).is_some_and(|at| (at..at + STEP).contains(&observed.now))
    {
        // Everything that verifies them is told just now; nothing of the servers changes.
        plan.rotating.extend(StoreKind::ALL);
    }
    for secret in &valid.secrets {
        if unknown(secret) || awaited && !is_authority(secret) || is_incomplete(secret, observed) {
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
        let anew = store_of(secret).is_some_and(|store| losses::begins_anew(store, observed));
        let used = has_data || !anew && observed.status.secrets.contains(&name);
        match observed.secrets.get(&name) {
            _ if observed.taken.contains(&(ChildKind::Secret, name.clone())) => {
                plan.taken.push((ChildKind::Secret, name))
            }
            Some(Known::Foreign) => plan.taken.push((ChildKind::Secret, name)),
            Some(Known::Present(entries)) => match (secret.state(entries), &secret.purpose) {
                (None, purpose)
                    if used
                        && !matches!(
                            purpose,
                            Purpose::Seed { .. } | Purpose::External(_) | Purpose::Certificates(_)
                        ) =>
                {
                    lost(secret, observed, plan)
                }
                (state, _) => {
                    let moment = moment(spec, (secret, state.as_ref()), observed, plan);
                    let owner = valid.family.data_goes.then(|| valid.family.uid.clone());
                    let other = observed.secret_owners.get(&name).is_some_and(|found| *found != owner);
                    if state.as_ref().is_some_and(|state| is_moving(state, &moment)) {
                        plan.rotating.extend(store_of(secret));
                    }
                    plan.steps
                        .extend(change((secret, entries, other), state.as_ref(), &moment));
                }
            },
            Some(Known::Absent) if used => lost(secret, observed, plan),
            Some(Known::Absent) | None => create(secret, plan),
        }
    }
}

/// An issuer has not given all certificates yet: none of them is published.
fn is_incomplete(secret: &SecretSpec, observed: &Observed) -> bool {
    let Purpose::Certificates(certificates) = &secret.purpose else {
        return false;
    };
    match observed.secrets.get(&secret.name) {
        Some(Known::Present(entries)) => !certificates.is_complete(entries),
        _ => !certificates.is_complete(&Entries::new()),
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
/// when the user has the password, as with a copy of the user's own Secret.
fn lost(secret: &SecretSpec, observed: &Observed, plan: &mut Plan) {
    let reissued = matches!(request(secret, observed), Some(Request::Reissue(_)));
    let renewable = matches!(secret.purpose, Purpose::Certificates(_) | Purpose::External(_));
    if reissued || renewable || matches!(secret.given, Given::Password(_)) {
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
    let is_all_ours = matches!(secret.purpose, Purpose::Certificates(_));
    let left = entries
        .keys()
        .any(|key| (Rotation::is_note(key) || is_all_ours) && !wanted.contains_key(key));
    (differs || left || other).then(|| Step::UpdateSecret {
        spec: secret.clone(),
        from: entries.clone(),
        to: wanted,
    })
}

/// What the server takes for a step of a rotation, with room to spare.
const STEP: Duration = Duration::from_secs(30);

/// Whether the server is just being told: of a new password, or of the end of an old one.
fn is_moving(state: &State, moment: &Moment) -> bool {
    let rotation = &state.rotation;
    let just = |since: Timestamp| (since..since + STEP).contains(&moment.now);
    rotation.next.is_some() || rotation.at.is_some_and(|at| just(at) || just(at + moment.overlap))
}

/// The store that a credential is for.
pub fn store_of(secret: &SecretSpec) -> Option<StoreKind> {
    match &secret.purpose {
        Purpose::PostgresAdmin | Purpose::PostgresRole { .. } => Some(StoreKind::Postgres),
        Purpose::Redis => Some(StoreKind::Redis),
        Purpose::Neo4j { .. } => Some(StoreKind::Neo4j),
        Purpose::External(guest) if guest.graph => Some(StoreKind::Neo4j),
        Purpose::External(_) => Some(StoreKind::Redis),
        Purpose::Certificates(_) | Purpose::Seed { .. } => None,
    }
}

/// What decides on the next step of a credential.
pub fn moment(
    spec: &AmasDatabaseSpec,
    (secret, state): (&SecretSpec, Option<&State>),
    observed: &Observed,
    plan: &Plan,
) -> Moment {
    let is_in = store_of(secret).is_some_and(|store| plan.is_in(store, observed));
    let settings = &spec.credentials.rotation;
    Moment {
        now: observed.now,
        is_in,
        every: settings.every.map(|every| every.get()),
        calendar: calendar(settings, (secret, state), observed),
        overlap: settings.overlap.get(),
        created: observed.created,
        request: request(secret, observed),
    }
}

/// When the schedule wants a new password: what the status has announced holds, also when that time has passed.
fn calendar(
    settings: &RotationSettings,
    (secret, state): (&SecretSpec, Option<&State>),
    observed: &Observed,
) -> Option<Timestamp> {
    let calendar = Calendar::read(settings).ok().flatten()?;
    let name = secret.credential()?;
    let told = observed.status.credentials.iter().find(|one| one.name == name);
    let announced = told.and_then(|told| Some(told.next_rotation_at.as_ref()?.0));
    let rotated = state.and_then(|state| state.rotation.at);
    calendar.due(announced, rotated, observed.now)
}

/// What is asked for by annotation of this credential and not yet handled.
fn request(secret: &SecretSpec, observed: &Observed) -> Option<Request> {
    let credential = secret.credential()?;
    let handled = |name: &str, value: &String| observed.status.handled.get(name) == Some(value);
    let of = |value: &&String| value.split_once('/').is_some_and(|(name, _)| name == credential);
    let reissue = observed
        .annotations
        .reissue
        .as_ref()
        .filter(|value| of(value) && secret.is_role())
        .filter(|value| !handled(HANDLED_REISSUE, value))
        .cloned()
        .map(Request::Reissue);
    let rotate = observed
        .annotations
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
    let rotate = observed
        .annotations
        .rotate
        .clone()
        .filter(|value| !open(&Request::Rotate(value.clone())));
    let reissue = observed
        .annotations
        .reissue
        .clone()
        .filter(|value| !open(&Request::Reissue(value.clone())));
    let rotate = rotate.map(|value| (HANDLED_ROTATE, value));
    rotate
        .into_iter()
        .chain(reissue.map(|value| (HANDLED_REISSUE, value)))
        .collect()
}

/// When the clock alone has something to do for a credential.
pub fn wakes_at(secret: &SecretSpec, state: &State, moment: &Moment) -> Option<Timestamp> {
    match (&state.rotation.next, rotation::ends_at(state, moment.overlap)) {
        (Some(_), _) => None,
        (None, Some(end)) => Some(end),
        (None, None) => rotation::due_at(secret, state, moment),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    use super::*;
    use crate::{
        api::sensitive::Sensitive,
        controllers::database::fixtures::{Situation, at, platform},
        stores::postgres::PostgresFacts,
    };

    /// Writes what the plan says into the Secrets, as the API would keep it.
    fn write(situation: &mut Situation) -> usize {
        let steps = situation.plan().steps;
        for step in &steps {
            match step {
                Step::UpdateSecret { spec, to, .. } => {
                    let known = Known::Present(to.clone());
                    situation.observed.secrets.insert(spec.name.clone(), known);
                }
                Step::CreateSecret(spec) => {
                    let known = Known::Present(spec.entries(&Entries::new()));
                    situation.observed.secrets.insert(spec.name.clone(), known);
                }
                other => panic!("{other:?}"),
            }
        }
        steps.len()
    }

    /// The servers take in what the Secrets say.
    fn take_in(situation: &mut Situation) {
        let duties = situation.plan().duties;
        let observed = &mut situation.observed;
        let postgres = Arc::make_mut(observed.postgres.as_mut().unwrap());
        postgres.facts.duty_in = duties.postgres.map(|duty| duty.fingerprint());
        let redis = Arc::make_mut(observed.redis.as_mut().unwrap());
        redis.facts.duty_in = duties.redis.map(|duty| duty.fingerprint());
        let neo4j = Arc::make_mut(observed.neo4j.as_mut().unwrap());
        neo4j.facts.duty_in = duties.neo4j.map(|duty| duty.fingerprint());
    }

    fn ready(situation: &mut Situation) -> bool {
        let status = situation.settle();
        status
            .conditions
            .iter()
            .any(|condition| condition.type_ == "Ready" && condition.status == "True")
    }

    #[test]
    fn all_credentials_are_rotated_without_a_moment_of_not_being_ready() {
        let mut situation = Situation::converged(platform());
        assert!(ready(&mut situation));
        situation.observed.annotations.rotate = Some("now".into());
        let credentials = write(&mut situation);
        assert!(credentials >= 5, "roles, owner, superuser, Redis, Neo4j: {credentials}");
        assert!(ready(&mut situation), "the servers are being told");
        assert_eq!(write(&mut situation), 0, "before they were, nothing is published");
        take_in(&mut situation);
        assert_eq!(write(&mut situation), credentials, "published");
        assert!(ready(&mut situation));
        take_in(&mut situation);
        assert_eq!(write(&mut situation), 0);
        let status = situation.settle();
        assert_eq!(status.handled["rotate-credentials"], "now");
        assert!(
            status
                .credentials
                .iter()
                .all(|one| one.rotations == 1 && !one.preparing)
        );
        let wait = situation.report().look_again.unwrap();
        assert!(
            wait <= Duration::from_secs(3600) && wait > Duration::from_secs(3590),
            "{wait:?}"
        );
        situation.observed.now = at(3611);
        assert_eq!(write(&mut situation), credentials - 1, "the superuser has no overlap");
        assert!(ready(&mut situation), "the old ones end");
        take_in(&mut situation);
        assert_eq!((write(&mut situation), ready(&mut situation)), (0, true));
        assert!(
            situation
                .settle()
                .credentials
                .iter()
                .all(|one| one.previous_valid_until.is_none())
        );
    }

    #[test]
    fn a_schedule_is_announced_and_kept_by_an_operator_that_comes_late() {
        let mut situation = Situation::converged(platform());
        situation.object.spec.credentials.rotation.schedule = Some("0 1 * * *".into());
        // The fixture's time begins at 13:46:40.
        let (due, late) = (at(40_400), at(50_000));
        assert!(ready(&mut situation));
        let status = situation.settle();
        assert!(status.credentials.len() >= 5);
        assert!(
            status
                .credentials
                .iter()
                .all(|one| one.next_rotation_at == Some(Time(due)))
        );
        let left = due.duration_since(situation.observed.now);
        assert_eq!(situation.report().look_again, Duration::try_from(left).ok());
        situation.observed.now = late;
        let credentials = write(&mut situation);
        assert_eq!(credentials, status.credentials.len(), "all are replaced");
        take_in(&mut situation);
        assert_eq!(write(&mut situation), credentials, "published");
        take_in(&mut situation);
        assert_eq!(write(&mut situation), 0, "once");
        let status = situation.settle();
        let tomorrow = Some(Time(at(40_400 + 86_400)));
        assert!(status.credentials.iter().all(|one| one.rotations == 1));
        assert!(
            status.credentials.iter().all(|one| one.next_rotation_at == tomorrow),
            "{:?}",
            status.credentials
        );
    }

    #[test]
    fn a_lost_role_is_reissued_and_nothing_else_is() {
        let mut situation = Situation::converged(platform());
        situation.settle();
        let lost = "amas-role-amas-app".to_owned();
        assert!(
            situation.observed.secrets.contains_key(&lost),
            "{:?}",
            situation.observed.secrets.keys()
        );
        situation.observed.secrets.insert(lost.clone(), Known::Absent);
        assert_eq!(situation.plan().missing, std::slice::from_ref(&lost));
        situation.observed.annotations.reissue = Some("amas_report/1".into());
        assert_eq!(situation.plan().missing, std::slice::from_ref(&lost), "another role's");
        situation.observed.annotations.reissue = Some("amas_app/1".into());
        let plan = situation.plan();
        assert!(plan.missing.is_empty(), "{:?}", plan.missing);
        assert!(
            matches!(&plan.steps[..], [Step::CreateSecret(spec)] if spec.name == lost),
            "{:?}",
            plan.steps
        );
    }

    #[test]
    fn reissuing_is_for_roles_and_stands_in_no_rotations_way() {
        let mut situation = Situation::converged(platform());
        situation.settle();
        situation.observed.annotations.reissue = Some("redis/1".into());
        assert_eq!(situation.plan().steps, []);
        let report = situation.report();
        assert_eq!(report.status.handled["reissue-credentials"], "redis/1");
        let [told] = &report.news[..] else {
            panic!("{:?}", report.news)
        };
        assert_eq!((told.reason.as_str(), told.warning), ("NoSuchCredential", true));
        assert!(
            told.note.contains("amas_app") && !told.note.contains("neo4j"),
            "{}",
            told.note
        );
        // With it still there, everything is rotated.
        situation.observed.annotations.rotate = Some("all".into());
        let all = situation.plan().steps.len();
        situation.observed.annotations.reissue = None;
        assert_eq!(situation.plan().steps.len(), all);
        assert!(all > 2, "{all}");
        situation.observed.annotations.rotate = Some("typo/1".into());
        assert_eq!(situation.plan().steps, []);
        let news = situation.report().news;
        assert!(
            news.len() == 1 && news[0].note.starts_with("amas.dev/rotate-credentials=typo/1: "),
            "{news:?}"
        );
        assert!(news[0].note.contains("redis"), "{news:?}");
    }

    #[test]
    fn a_password_that_is_brought_is_published_followed_and_refused_in_words() {
        let mut object = platform();
        let postgres = object.spec.postgres.as_mut().unwrap();
        postgres.roles[0].secret_ref = serde_json::from_value(serde_json::json!({"name": "mine"})).unwrap();
        let role = format!("amas-role-{}", postgres.roles[0].name.as_str().replace('_', "-"));
        let mut situation = Situation::new(object.clone());
        let plan = situation.plan();
        assert!(
            plan.waits_for_secret && plan.unusable[0].contains("Secret mine does not exist"),
            "{:?}",
            plan.unusable
        );
        assert!(
            !plan
                .steps
                .iter()
                .any(|step| matches!(step, Step::Create(ChildKind::StatefulSet, _)))
        );

        let brought = |text: &str| {
            let entries = [("password".to_owned(), Sensitive::new(text))];
            Known::Present(entries.into())
        };
        let mut converged = Situation::converged(platform());
        converged.settle();
        converged.object.spec = object.spec;
        converged.observed.given = situation.observed.given.clone();
        converged
            .observed
            .given
            .insert("mine".into(), brought("my own password"));
        assert_eq!(write(&mut converged), 1);
        let Known::Present(entries) = &converged.observed.secrets[&role] else {
            panic!()
        };
        assert_eq!(entries["PGPASSWORD"].reveal(), "my own password");
        take_in(&mut converged);
        assert_eq!(write(&mut converged), 0);
        converged
            .observed
            .given
            .insert("mine".into(), brought("with a line break\n"));
        let plan = converged.plan();
        assert!(plan.steps.is_empty() && plan.unusable.len() == 1, "what works stays");
        situation = converged;
        let status = situation.settle();
        let ready = status
            .conditions
            .iter()
            .find(|condition| condition.type_ == "Ready")
            .unwrap();
        assert_eq!(
            (ready.status.as_str(), ready.reason.as_str()),
            ("False", "CredentialsMissing")
        );
        assert!(ready.message.contains("echo without -n"), "{}", ready.message);
    }

    #[test]
    fn other_passwords_on_the_server_make_the_secrets_be_read_again_and_nobody_not_ready() {
        let mut situation = Situation::converged(platform());
        assert!(ready(&mut situation));
        let postgres = Arc::make_mut(situation.observed.postgres.as_mut().unwrap());
        postgres.facts = PostgresFacts {
            unsure: vec!["amas_app".into()],
            ..postgres.facts.clone()
        };
        situation.observed.sure = true;
        let duty = situation.plan().duties.postgres.unwrap();
        assert!(duty.sure);
        assert_eq!(
            Some(duty.fingerprint()),
            situation.observed.postgres.as_ref().unwrap().facts.duty_in
        );
        assert!(ready(&mut situation));
    }
}
