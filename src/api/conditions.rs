//! Conditions: which there are, why they are so, and how a new set is merged into an old one without needless change.

use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::{Condition, Time},
    jiff::Timestamp,
};

/// The condition types of our three kinds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ConditionType {
    Ready,
    Available,
    Reconciling,
    Stalled,
    Degraded,
    UpdatePending,
    PostgresReady,
    RedisReady,
    Neo4jReady,
    MigrationsApplied,
    Drifted,
    PoliciesReady,
}

/// Why a condition is as it is. Stable words: pipelines and people match on them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Everything declared is in.
    Ready,
    /// The store answers.
    Serving,
    /// Objects are being made, or a pod is starting.
    Provisioning,
    /// The image cannot be pulled.
    ImagePullFailed,
    /// The server's container ends again and again.
    CrashLoop,
    /// The pod cannot be scheduled, or its volume cannot be bound.
    Unschedulable,
    /// The server refused the connection or closed it.
    ConnectionLost,
    /// The server accepts connections but does not answer.
    NotResponding,
    /// The server comes and goes.
    Flapping,
    /// The server refuses the login that the Secret holds.
    LoginRefused,
    /// The server's certificate, or ours, is not accepted.
    TlsFailed,
    /// A pooler answers that does not keep a session together.
    PooledConnection,
    /// The server is being brought to the specification.
    Configuring,
    /// Migrations are running or about to.
    Migrating,
    /// The migrations asked for are in.
    Applied,
    /// A migration failed.
    MigrationFailed,
    /// The pending plan waits to be approved.
    WaitingForApproval,
    /// The pending plan has a statement that loses data, and its version is not in `allowDestructive`.
    DestructiveNotAllowed,
    /// The schema is not as the last run of migrations left it.
    Drifted,
    /// An applied migration's file has changed, or is missing.
    HistoryMismatch,
    /// The database is newer than the source.
    DatabaseAhead,
    /// The source has files beyond the version that is asked for.
    NewerAvailable,
    /// The specification cannot be carried out as written.
    InvalidSpec,
    /// The migration source cannot be found or read.
    SourceNotFound,
    /// Somebody else's object has a name that we need.
    NameTaken,
    /// A Secret is missing although its data exists.
    CredentialsMissing,
    /// The issuer has not given the servers' certificates.
    CertificatesMissing,
    /// The store is claimed by another object.
    Conflicted,
    /// An extension cannot be made with the rights at hand.
    ExtensionMissing,
    /// The store refused what it was asked.
    Refused,
    /// A CachePolicy or GraphSchema is absent, behind or not Ready.
    PolicyNotReady,
    /// The AmasDatabase that is referred to does not exist, or lacks the store.
    DatabaseNotFound,
    /// The store is not there yet.
    WaitingForStore,
    /// A store that is not required is away.
    OptionalStoreUnavailable,
    /// Stored data violates a constraint.
    ConstraintViolated,
    /// What a newer operator brings waits for a restart of the server.
    WaitingForRestart,
    /// The storage class does not let the volume grow.
    VolumeCannotGrow,
    /// The volume holds the data of a server of another version.
    DataVersionMismatch,
    /// The volume is gone that the data was on.
    VolumeMissing,
    /// The database is gone that the server had.
    DatabaseMissing,
    /// The server does not accept a parameter's value.
    InvalidParameter,
    /// Changes wait until `spec.suspend` is false.
    Suspended,
    /// The object is being deleted.
    Deleting,
}

/// A condition before it has a time.
#[derive(Clone, Debug, PartialEq)]
pub struct Wanted {
    pub kind: ConditionType,
    pub status: bool,
    pub reason: Reason,
    pub message: String,
}

impl Wanted {
    pub fn new(kind: ConditionType, status: bool, reason: Reason, message: impl Into<String>) -> Self {
        Self {
            kind,
            status,
            reason,
            message: message.into(),
        }
    }
}

/// The longest message that a condition carries.
const MESSAGE_LIMIT: usize = 1024;

/// Merges wanted conditions into the old list: the time of a condition moves only when its status does; conditions not wanted are dropped.
pub fn merge(old: &[Condition], wanted: &[Wanted], generation: i64, now: Timestamp) -> Vec<Condition> {
    let one = |wanted: &Wanted| {
        let type_ = format!("{:?}", wanted.kind);
        let status = if wanted.status { "True" } else { "False" };
        let kept = old.iter().find(|old| old.type_ == type_ && old.status == status);
        Condition {
            last_transition_time: kept.map_or(Time(now), |old| old.last_transition_time.clone()),
            message: shorten(&wanted.message, MESSAGE_LIMIT),
            observed_generation: Some(generation),
            reason: format!("{:?}", wanted.reason),
            status: status.to_owned(),
            type_,
        }
    };
    wanted.iter().map(one).collect()
}

/// Cuts a text at a character boundary and says so.
pub fn shorten(text: &str, limit: usize) -> String {
    if text.len() <= limit {
        return text.to_owned();
    }
    let end = (0..=limit.saturating_sub(4))
        .rev()
        .find(|&end| text.is_char_boundary(end))
        .unwrap_or_default();
    format!("{} ...", &text[..end])
}

/// Whether the condition `kind` is True in `conditions`.
pub fn is_true(conditions: &[Condition], kind: ConditionType) -> bool {
    let name = format!("{kind:?}");
    conditions
        .iter()
        .any(|condition| condition.type_ == name && condition.status == "True")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn time_moves_only_with_the_status() {
        let first = merge(
            &[],
            &[Wanted::new(ConditionType::Ready, false, Reason::Provisioning, "a")],
            1,
            at(10),
        );
        let same = merge(
            &first,
            &[Wanted::new(ConditionType::Ready, false, Reason::Migrating, "b")],
            2,
            at(20),
        );
        let flipped = merge(
            &same,
            &[Wanted::new(ConditionType::Ready, true, Reason::Ready, "c")],
            2,
            at(30),
        );
        let seconds = |list: &[Condition]| list[0].last_transition_time.0.as_second();
        assert_eq!((seconds(&first), seconds(&same), seconds(&flipped)), (10, 10, 30));
        assert_eq!(
            (same[0].reason.as_str(), same[0].observed_generation),
            ("Migrating", Some(2))
        );
        assert!(is_true(&flipped, ConditionType::Ready) && !is_true(&same, ConditionType::Ready));
    }

    #[test]
    fn what_is_not_wanted_goes() {
        let old = merge(
            &[],
            &[Wanted::new(ConditionType::Reconciling, true, Reason::Provisioning, "")],
            1,
            at(1),
        );
        assert!(merge(&old, &[], 1, at(2)).is_empty());
    }

    #[test]
    fn long_messages_are_cut_between_characters() {
        let text = "ä".repeat(1000);
        let cut = shorten(&text, 1024);
        assert!(cut.len() <= 1024 && cut.ends_with(" ..."));
        assert_eq!(shorten("short", 1024), "short");
    }
}
