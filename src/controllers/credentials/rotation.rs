//! How one password takes the place of another: recorded in the Secret first, then made valid on the server, then published, and the old one
//! ended after the overlap. Where it stands is in the Secret alone, so an operator that starts anew goes on from there. Pure.

use std::time::Duration;

use k8s_openapi::jiff::Timestamp;

use super::{Entries, Given, Purpose, SecretSpec, State, generate};
use crate::api::sensitive::Sensitive;

/// Keys of a Secret that are the operator's own notes.
const NEXT: &str = "rotation.next-password";
const PREVIOUS: &str = "rotation.previous-password";
const AT: &str = "rotation.at";
const COUNT: &str = "rotation.count";
const REQUEST: &str = "rotation.request";

/// The notes in a Secret.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rotation {
    /// Being made valid on the server; nobody else has it yet.
    pub next: Option<Sensitive>,
    /// The one before the present one, valid until the overlap is over.
    pub previous: Option<Sensitive>,
    /// When the present password was published, if it is not the first.
    pub at: Option<Timestamp>,
    /// How many passwords came after the first.
    pub count: u64,
    /// The last request that was carried out.
    pub request: Option<String>,
}

impl Rotation {
    pub fn read(entries: &Entries) -> Self {
        let text = |key: &str| entries.get(key).map(Sensitive::reveal);
        Self {
            next: entries.get(NEXT).cloned(),
            previous: entries.get(PREVIOUS).cloned(),
            at: text(AT).and_then(|at| at.parse().ok()),
            count: text(COUNT).and_then(|count| count.parse().ok()).unwrap_or_default(),
            request: text(REQUEST).map(str::to_owned),
        }
    }

    pub(super) fn entries(&self) -> impl Iterator<Item = (String, Sensitive)> {
        let count = (self.count > 0).then(|| Sensitive::new(self.count.to_string()));
        let all = [
            (NEXT, self.next.clone()),
            (PREVIOUS, self.previous.clone()),
            (AT, self.at.map(|at| Sensitive::new(at.to_string()))),
            (COUNT, count),
            (REQUEST, self.request.clone().map(Sensitive::new)),
        ];
        all.into_iter()
            .filter_map(|(key, value)| Some((key.to_owned(), value?)))
    }

    /// The password that is valid, or being made so, beside the present one.
    pub fn second(&self) -> Option<&Sensitive> {
        self.next.as_ref().or(self.previous.as_ref())
    }

    /// Whether a key is a note of ours.
    pub fn is_note(key: &str) -> bool {
        [NEXT, PREVIOUS, AT, COUNT, REQUEST].contains(&key)
    }
}

/// What decides on the next step.
#[derive(Clone, Debug)]
pub struct Moment {
    pub now: Timestamp,
    /// The server has what the Secret says.
    pub is_in: bool,
    /// The oldest that a password may be; `None`: any age.
    pub every: Option<Duration>,
    /// The next time that the schedule names, or one that was missed.
    pub calendar: Option<Timestamp>,
    pub overlap: Duration,
    /// Since when the first password is in use.
    pub created: Timestamp,
    pub request: Option<Request>,
}

/// What a person asks for by annotation.
#[derive(Clone, Debug, PartialEq)]
pub enum Request {
    /// A new password, the old one valid for the overlap.
    Rotate(String),
    /// A new password at once; only of a role of PostgreSQL.
    Reissue(String),
}

impl Request {
    /// As it is noted in the Secret.
    pub fn note(&self) -> String {
        match self {
            Self::Rotate(value) => format!("rotate {value}"),
            Self::Reissue(value) => format!("reissue {value}"),
        }
    }
}

/// How a second password becomes valid beside the first.
#[derive(Clone, Copy, PartialEq)]
enum Style {
    /// On another user, which the Secret names from then on.
    Twin,
    /// The same user has two for a while.
    Both,
    /// Not at all: the new one replaces the old one.
    InPlace,
}

fn style(spec: &SecretSpec, state: &State) -> Style {
    let given = spec.given != Given::No;
    match spec.purpose {
        Purpose::Redis => Style::Both,
        Purpose::PostgresAdmin | Purpose::External(_) | Purpose::Certificates(_) | Purpose::Seed { .. } => {
            Style::InPlace
        }
        // Who brings a password knows the user's name too; after a rotation of ours it leads back to that.
        Purpose::PostgresRole { .. } | Purpose::Neo4j { .. } if given && !state.twin => Style::InPlace,
        Purpose::PostgresRole { .. } | Purpose::Neo4j { .. } => Style::Twin,
    }
}

/// Whether the new password replaces the old one on the server before it is published.
pub fn is_in_place(spec: &SecretSpec, state: &State) -> bool {
    style(spec, state) == Style::InPlace
}

/// The next state of a credential; `None` while there is nothing to do, or the server has to be waited for.
pub fn next(spec: &SecretSpec, state: &State, moment: &Moment) -> Option<State> {
    let rotation = &state.rotation;
    if let Some(request @ Request::Reissue(_)) = &moment.request
        && rotation.request.as_ref() != Some(&request.note())
        && spec.given == Given::No
    {
        return Some(replaced(state, generate(), moment, Some(request.note())));
    }
    if rotation.next.is_some() {
        return moment.is_in.then(|| published(spec, state, moment))?;
    }
    if rotation.previous.is_some() {
        return (ends_at(state, moment.overlap) <= Some(moment.now)).then(|| {
            let mut state = state.clone();
            state.rotation.previous = None;
            state
        });
    }
    begun(spec, state, moment)
}

/// When the previous password ends.
pub fn ends_at(state: &State, overlap: Duration) -> Option<Timestamp> {
    state.rotation.previous.as_ref()?;
    Some(state.rotation.at.unwrap_or_default() + overlap)
}

/// When the present password is due by its age or the schedule.
pub fn due_at(spec: &SecretSpec, state: &State, moment: &Moment) -> Option<Timestamp> {
    let by_age = moment
        .every
        .map(|every| state.rotation.at.unwrap_or(moment.created) + every);
    let first = by_age.into_iter().chain(moment.calendar).min();
    first.filter(|_| spec.given == Given::No)
}

fn begun(spec: &SecretSpec, state: &State, moment: &Moment) -> Option<State> {
    let rotation = &state.rotation;
    let asked = match (&spec.given, &moment.request) {
        (Given::No, Some(request @ Request::Rotate(_))) => {
            Some(request.note()).filter(|note| rotation.request.as_ref() != Some(note))
        }
        _ => None,
    };
    let next = match &spec.given {
        Given::Password(given) if *given != state.password => given.clone(),
        // The server is told the user's name again.
        Given::Password(given) if state.twin => given.clone(),
        Given::Password(_) | Given::Unusable(_) => return None,
        Given::No if asked.is_some() || due_at(spec, state, moment).is_some_and(|due| due <= moment.now) => generate(),
        Given::No => return None,
    };
    // A role's password is set by the admin, so it needs no preparation.
    if spec.is_role() && is_in_place(spec, state) {
        return Some(replaced(state, next, moment, None));
    }
    let mut state = state.clone();
    state.rotation.next = Some(next);
    state.rotation.request = asked.or(state.rotation.request);
    Some(state)
}

/// The new password takes the place of the old one, which ends with it.
fn replaced(state: &State, password: Sensitive, moment: &Moment, request: Option<String>) -> State {
    State {
        twin: state.twin,
        password,
        rotation: Rotation {
            next: None,
            previous: None,
            at: Some(moment.now),
            count: state.rotation.count + 1,
            request: request.or_else(|| state.rotation.request.clone()),
        },
    }
}

fn published(spec: &SecretSpec, state: &State, moment: &Moment) -> Option<State> {
    let style = style(spec, state);
    let mut new = replaced(state, state.rotation.next.clone()?, moment, None);
    new.twin ^= style == Style::Twin;
    new.rotation.previous = (style != Style::InPlace && !moment.overlap.is_zero()).then(|| state.password.clone());
    Some(new)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::common::Connection;

    const HOUR: Duration = Duration::from_secs(3600);

    fn spec(purpose: Purpose) -> SecretSpec {
        SecretSpec {
            name: "s".into(),
            purpose,
            host: "h".into(),
            encryption: Default::default(),
            connection: Connection::default(),
            initialises_data: false,
            given: Given::No,
        }
    }

    fn role() -> Purpose {
        Purpose::PostgresRole {
            role: "app".into(),
            database: "amas".into(),
            port: 5432,
        }
    }

    fn at(hours: i64) -> Timestamp {
        Timestamp::from_second(hours * 3600).unwrap()
    }

    fn moment(hours: i64, is_in: bool, request: Option<&str>) -> Moment {
        Moment {
            now: at(hours),
            is_in,
            every: None,
            calendar: None,
            overlap: HOUR,
            created: at(0),
            request: request.map(|value| Request::Rotate(value.into())),
        }
    }

    /// What survives an operator: only what is in the Secret.
    fn reread(spec: &SecretSpec, state: &State) -> State {
        let entries = spec.write(state, &Entries::new());
        let again = spec.state(&entries).unwrap();
        assert_eq!(again, *state, "nothing is lost on the way through the Secret");
        again
    }

    #[test]
    fn goes_through_its_steps_once_whatever_dies_between() {
        for (purpose, changes_user) in [
            (role(), true),
            (
                Purpose::Neo4j {
                    database: "neo4j".into(),
                },
                true,
            ),
            (Purpose::Redis, false),
        ] {
            let spec = spec(purpose);
            let first = spec.fresh();
            assert_eq!(next(&spec, &first, &moment(1, true, None)), None);
            let begun = reread(&spec, &next(&spec, &first, &moment(1, true, Some("a"))).unwrap());
            assert_eq!(
                (&begun.password, begun.twin),
                (&first.password, false),
                "nothing is published yet"
            );
            assert_eq!(
                next(&spec, &begun, &moment(1, false, Some("a"))),
                None,
                "the server comes first"
            );
            let published = reread(&spec, &next(&spec, &begun, &moment(1, true, Some("a"))).unwrap());
            assert_eq!(Some(&published.password), begun.rotation.next.as_ref());
            assert_eq!(published.rotation.previous.as_ref(), Some(&first.password));
            assert_eq!((published.twin, published.rotation.count), (changes_user, 1));
            assert_eq!(
                next(&spec, &published, &moment(1, true, Some("a"))),
                None,
                "both are valid"
            );
            assert_eq!(
                next(&spec, &published, &moment(1, true, Some("b"))),
                None,
                "a further one waits"
            );
            let ended = reread(&spec, &next(&spec, &published, &moment(2, true, Some("a"))).unwrap());
            assert_eq!(
                (&ended.password, &ended.rotation.previous),
                (&published.password, &None)
            );
            assert_eq!(
                next(&spec, &ended, &moment(9, true, Some("a"))),
                None,
                "asked once, done once"
            );
            let second = next(&spec, &ended, &moment(9, true, Some("b"))).unwrap();
            let back = next(&spec, &second, &moment(9, true, Some("b"))).unwrap();
            assert_eq!((back.twin, back.rotation.count), (false, 2));
        }
    }

    #[test]
    fn a_password_is_due_by_its_age() {
        let spec = spec(role());
        let first = spec.fresh();
        let scheduled = |hours| Moment {
            every: Some(24 * HOUR),
            ..moment(hours, true, None)
        };
        assert_eq!(next(&spec, &first, &scheduled(23)), None);
        let begun = next(&spec, &first, &scheduled(24)).unwrap();
        let published = next(&spec, &begun, &scheduled(25)).unwrap();
        let ended = next(&spec, &published, &scheduled(26)).unwrap();
        assert_eq!(
            due_at(&spec, &ended, &scheduled(26)),
            Some(at(49)),
            "counted from when it was published"
        );
        assert_eq!(next(&spec, &ended, &scheduled(48)), None);
        assert!(next(&spec, &ended, &scheduled(49)).is_some());
    }

    #[test]
    fn reissued_is_valid_at_once_and_alone() {
        let spec = spec(role());
        let reissue = Moment {
            request: Some(Request::Reissue("app/1".into())),
            ..moment(5, false, None)
        };
        let begun = next(&spec, &spec.fresh(), &moment(1, true, Some("a"))).unwrap();
        let published = next(&spec, &begun, &moment(1, true, Some("a"))).unwrap();
        let reissued = next(&spec, &published, &reissue).unwrap();
        assert!(reissued.password != published.password && reissued.rotation.second().is_none());
        assert_eq!(next(&spec, &reissued, &reissue), None);
    }

    #[test]
    fn what_the_user_brings_is_followed_and_never_rotated() {
        let given = |text: &str, purpose| SecretSpec {
            given: Given::Password(Sensitive::new(text)),
            ..spec(purpose)
        };
        let first = given("first password", role()).fresh();
        let spec = given("second password", role());
        let followed = next(&spec, &first, &moment(1, true, Some("a"))).unwrap();
        assert_eq!(followed.password.reveal(), "second password");
        assert_eq!(
            (followed.twin, followed.rotation.second()),
            (false, None),
            "the user's name stays"
        );
        assert_eq!(next(&spec, &followed, &moment(2, true, Some("a"))), None);
        // Where the login is our own, the server has to be told before the Secret.
        let admin = given("second password", Purpose::PostgresAdmin);
        let begun = next(&admin, &first, &moment(1, true, None)).unwrap();
        assert_eq!(begun.password, first.password);
        let done = next(&admin, &begun, &moment(1, true, None)).unwrap();
        assert_eq!(
            (done.password.reveal(), done.rotation.second()),
            ("second password", None)
        );
        // From a twin it leads back to the user's own name.
        let twin = State { twin: true, ..first };
        let begun = next(&spec, &twin, &moment(1, true, None)).unwrap();
        assert!(!next(&spec, &begun, &moment(1, true, None)).unwrap().twin);
        let unusable = SecretSpec {
            given: Given::Unusable("no".into()),
            ..spec
        };
        assert_eq!(
            next(&unusable, &followed, &moment(3, true, Some("z"))),
            None,
            "what works stays"
        );
    }
}
