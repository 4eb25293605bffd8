//! The resources and the words they are made of: data, documentation, schema rules. No client, no I/O.

pub mod amas_database;
pub mod cache_policy;
pub mod common;
pub mod conditions;
pub mod crds;
pub mod credentials;
pub mod graph_schema;
pub mod migrations;
pub mod names;
pub mod neo4j;
pub mod postgres;
pub mod redis;
pub mod sensitive;
pub mod status;
pub mod units;

/// The API group of all our resources, and the prefix of our labels and annotations.
pub const GROUP: &str = "amas.dev";

/// Label on everything that belongs to an AmasDatabase; its value is the database's name. Watches select by it.
pub const DATABASE_LABEL: &str = "amas.dev/database";
/// Annotation on a StatefulSet: the revision of the template that rendered it, so that a newer operator can go on rendering the same.
pub const TEMPLATE_REVISION: &str = "amas.dev/template-revision";

/// Annotation on a StatefulSet: the image that the operator's table had when it was rendered, or [`IMAGE_OF_SPECIFICATION`].
pub const IMAGE: &str = "amas.dev/image";
pub const IMAGE_OF_SPECIFICATION: &str = "spec";
/// Annotation on a PersistentVolumeClaim: the server that filled it and that server's version, such as `postgresql 17`.
pub const DATA: &str = "amas.dev/data";
/// Annotation on an AmasDatabase: restarts its managed servers once for each new value; `STORE/VALUE` only that store. On a pod: the value
/// that it was last restarted for.
pub const RESTART: &str = "amas.dev/restart";
/// Annotation on a pod: the certificate that it was last restarted for.
pub const CERTIFICATE: &str = "amas.dev/certificate";
/// Annotation on an AmasDatabase: makes stores and roles that somebody else claims its own, once for each new value.
pub const TAKE_OVER: &str = "amas.dev/take-over";
/// Annotation on a ConfigMap: names the configuration that it holds. On a pod: the one that the pod was started for.
pub const CONFIG: &str = "amas.dev/config";
/// Annotation on a pod: the configuration that was last written for it. A change of a pod makes its kubelet look at once, else it would
/// bring changed files only at its next round, after a minute or more.
pub const CONFIG_SENT: &str = "amas.dev/config-sent";
/// Annotation on a pod: what `kubectl rollout restart` writes.
pub const RESTARTED_AT: &str = "kubectl.kubernetes.io/restartedAt";

/// Annotation on an AmasDatabase: gives its credentials new passwords once for each new value; `CREDENTIAL/VALUE` only that one.
pub const ROTATE: &str = "amas.dev/rotate-credentials";
/// Annotation on an AmasDatabase, `ROLE/VALUE`: gives the role a new password at once, also when its Secret is lost.
pub const REISSUE: &str = "amas.dev/reissue-credentials";
/// Annotation on an AmasDatabase, `STORE/VALUE`: the store may begin anew, empty, although its volume or database is gone that was there.
pub const ACCEPT_EMPTY: &str = "amas.dev/accept-empty";
/// Annotation on an AmasDatabase: its SQL schema is right as it is now, whatever was changed by hand; once for each new value.
pub const ACCEPT_DRIFT: &str = "amas.dev/accept-drift";
/// Annotation on an AmasDatabase: the hash of the migration plan that may run, with `migrations.approval: Manual`.
pub const APPROVE_PLAN: &str = "amas.dev/approve-plan";
/// Annotation on an AmasDatabase: gives its managed servers new certificates once for each new value; `STORE/VALUE` only that store.
pub const RENEW: &str = "amas.dev/renew-certificates";
/// Annotation on an AmasDatabase: its Secrets are read again for each new value.
pub const REREAD_SECRETS: &str = "amas.dev/reread-secrets";

/// Default of a flag that is on unless switched off.
fn yes() -> bool {
    true
}
