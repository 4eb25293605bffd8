//! What the server has of a duty: roles, database, extensions, schemas, claim. Read over the admin login; reads only
//! system catalogs, and our own claim table once the catalogs say that it is ours.

use std::collections::BTreeMap;

use serde::Deserialize;
use sqlx::PgConnection;

use super::{
    PostgresDuty, RoleDuty,
    connect::{SqlError, read as read_json},
    scram,
    sql::{literal, literals, owns},
    step::STATISTICS,
    wire::Wire,
};
use crate::{
    api::sensitive::Sensitive,
    stores::{claim::ClaimRecord, endpoint::Endpoint, limits::Limit},
};

/// See the file's head.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub struct Catalog {
    /// The database this was read in.
    pub here: String,
    pub me: String,
    pub superuser: bool,
    /// We may comment on roles.
    pub marks_roles: bool,
    pub creates_databases: bool,
    pub reads_settings: bool,
    pub read_only: bool,
    pub max_connections: u32,
    pub roles: BTreeMap<String, Role>,
    /// All other roles that carry a mark.
    pub others: BTreeMap<String, OtherRole>,
    /// The owner of the wanted database; `None`: there is no such database.
    pub database_owner: Option<String>,
    /// Wanted extensions whose files the server has.
    pub available: Vec<String>,
    /// Extensions in the database this was read in, and schemas with their owners, of those that are wanted.
    pub extensions: Vec<String>,
    /// Extensions here that are not wanted and that none is built on.
    pub undeclared_extensions: Vec<String>,
    pub schemas: BTreeMap<String, SchemaOwner>,
    /// Whether the claim's table is an ordinary table of ours.
    pub claim_readable: bool,
    #[serde(skip)]
    pub claim: Option<ClaimRecord>,
}

/// A role that the duty names.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub struct Role {
    pub login: bool,
    /// None of the attributes that go beyond a database.
    pub plain: bool,
    pub connection_limit: i32,
    /// Roles of the duty that it is a member of, and the one that sees what other sessions do.
    pub member_of: Vec<String>,
    /// `name=value`, for the wanted database.
    pub settings: Vec<String>,
    pub comment: Option<String>,
    /// In any database of the server.
    pub owns: bool,
    /// Its password is the duty's.
    #[serde(skip)]
    pub password_right: bool,
    /// The duty's password opens it, which nobody else has: it is ours.
    #[serde(skip)]
    pub opened: bool,
}

/// A role that the duty does not name.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub struct OtherRole {
    pub login: bool,
    /// In any database of the server.
    pub owns: bool,
    pub comment: Option<String>,
}

/// Who owns a schema, and whether that is somebody we trust with a table of ours.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub struct SchemaOwner {
    pub owner: String,
    pub trusted: bool,
}

impl From<Role> for OtherRole {
    fn from(role: Role) -> Self {
        Self {
            login: role.login,
            owns: role.owns,
            comment: role.comment,
        }
    }
}

/// Connections beside those of the roles: two for the migration runner, two for the operator, three that PostgreSQL reserves for superusers.
pub const OTHER_CONNECTIONS: i64 = 7;

impl Catalog {
    /// What the server or the login does not allow, of what this duty could make use of.
    pub fn limits(&self, want: &PostgresDuty) -> Vec<Limit> {
        let other = |role: &RoleDuty| {
            let found = self.roles.get(role.name.as_str());
            found.is_some_and(|found| found.connection_limit != role.connection_limit)
        };
        let connections: i64 = want.roles.iter().map(|role| i64::from(role.connection_limit)).sum();
        let few = connections + OTHER_CONNECTIONS > i64::from(self.max_connections);
        let all = [
            (self.read_only, Limit::ReadOnly),
            (!self.superuser, Limit::NoSuperuser),
            (!self.marks_roles, Limit::NoCreateRole),
            (!self.creates_databases, Limit::NoCreateDatabase),
            (!self.reads_settings, Limit::NoReadAllSettings),
            (
                want.is_owner_only() && want.roles.iter().any(other),
                Limit::OtherRoleLimits,
            ),
            // Of a server of ours the specification is judged.
            (!want.exclusive && few, Limit::FewConnections),
        ];
        let there = all.into_iter().filter(|(there, _)| *there);
        there.map(|(_, limit)| limit).collect()
    }
}

/// One round trip; one more each for verifiers and claim, where there are any. `passwords_set`: just now, so do not check them.
pub async fn read(
    connection: &mut PgConnection,
    duty: &PostgresDuty,
    passwords_set: bool,
) -> Result<Catalog, SqlError> {
    let mut catalog: Catalog = read_json(connection, query(duty)).await?;
    let verifiers = if passwords_set {
        None
    } else {
        verifiers(connection, &catalog).await?
    };
    for (name, password) in passwords(duty) {
        let Some(role) = catalog.roles.get_mut(&name) else {
            continue;
        };
        (role.password_right, role.opened) = match &verifiers {
            _ if passwords_set => (true, true),
            Some(all) => {
                let right = all.get(&name).is_some_and(|stored| scram::matches(stored, password));
                (right, right)
            }
            None => try_login(duty, &name, password).await,
        };
    }
    if catalog.claim_readable {
        // As a whole row: a table of before has no column `released`.
        let query = "SELECT coalesce((SELECT json_build_object('cluster', r->'cluster_id', 'namespace', r->'namespace', \
                     'name', r->'name', 'uid', r->'uid', 'createdByUs', r->'created_by_us', 'since', r->'since', \
                     'released', r->'released') FROM amas_operator.claim c, LATERAL to_jsonb(c) r), 'null')::text";
        catalog.claim = read_json(connection, query.to_owned()).await?;
    }
    Ok(catalog)
}

/// Of those that may log in, and the admin's new one.
fn passwords(duty: &PostgresDuty) -> Vec<(String, &Sensitive)> {
    let logins = duty.logins().into_iter();
    let admin = duty.admin_next.as_ref().map(|next| (duty.admin.user.clone(), next));
    logins
        .filter_map(|(name, password)| Some((name.to_string(), password?)))
        .chain(admin)
        .collect()
}

/// Those of the duty's roles; `None`: only a superuser may read them.
async fn verifiers(
    connection: &mut PgConnection,
    catalog: &Catalog,
) -> Result<Option<BTreeMap<String, String>>, SqlError> {
    if !catalog.superuser || catalog.roles.is_empty() {
        return Ok(None);
    }
    let names = literals(catalog.roles.keys().map(String::as_str));
    let query = format!(
        "SELECT json_object_agg(rolname, coalesce(rolpassword, ''))::text FROM pg_authid WHERE rolname IN ({names})"
    );
    Ok(Some(read_json(connection, query).await?))
}

/// Whether the password is right, and whether the role was opened by it. Anything but a refused password means that it is right,
/// whatever else keeps the role out.
async fn try_login(duty: &PostgresDuty, role: &str, password: &Sensitive) -> (bool, bool) {
    let login = Endpoint {
        user: role.to_owned(),
        password: password.clone(),
        ..duty.admin.clone()
    };
    let outcome = Wire::login(&login, duty.database.as_str()).await;
    let opened = outcome.is_ok();
    let refused = outcome.is_err_and(|error| error.sqlstate.as_deref() == Some("28P01"));
    (!refused, opened)
}

fn query(duty: &PostgresDuty) -> String {
    let logins = duty.logins();
    let admin = duty.admin_next.as_ref().map(|_| duty.admin.user.as_str());
    let roles = literals(logins.iter().map(|(name, _)| name.as_str()).chain(admin));
    let extensions = literals(duty.extensions.iter().map(|extension| extension.name.as_str()));
    let declared = literals(
        duty.extensions
            .iter()
            .map(|extension| extension.name.as_str())
            .chain(["plpgsql"]),
    );
    let schemas = literals(
        duty.extensions
            .iter()
            .map(|extension| extension.schema.as_str())
            .chain(["public", "amas_operator"]),
    );
    let database = literal(duty.database.as_str());
    let owns = owns("r.oid");
    format!(
        "SELECT json_build_object(
'here', current_database(), 'me', me.rolname, 'superuser', me.rolsuper, 'marks_roles', me.rolsuper OR me.rolcreaterole,
'creates_databases', me.rolsuper OR me.rolcreatedb,
'reads_settings', pg_has_role(me.oid, 'pg_read_all_settings', 'USAGE'), 'read_only', current_setting('transaction_read_only')::bool,
'max_connections', current_setting('max_connections')::int,
'roles', (SELECT coalesce(json_object_agg(r.rolname, json_build_object(
  'login', r.rolcanlogin, 'connection_limit', r.rolconnlimit, 'comment', shobj_description(r.oid, 'pg_authid'), 'owns', {owns},
  'plain', NOT (r.rolsuper OR r.rolcreaterole OR r.rolcreatedb OR r.rolreplication OR r.rolbypassrls),
  'member_of', ARRAY(SELECT g.rolname FROM pg_auth_members m JOIN pg_roles g ON g.oid = m.roleid
    WHERE m.member = r.oid AND g.rolname IN ({roles}, '{STATISTICS}')),
  'settings', coalesce((SELECT s.setconfig FROM pg_db_role_setting s JOIN pg_database d ON d.oid = s.setdatabase
    WHERE s.setrole = r.oid AND d.datname = {database}), '{{}}'))), '{{}}')
  FROM pg_roles r WHERE r.rolname IN ({roles})),
'others', (SELECT coalesce(json_object_agg(r.rolname, json_build_object(
  'login', r.rolcanlogin, 'comment', s.description, 'owns', {owns})), '{{}}')
  FROM pg_shdescription s JOIN pg_roles r ON r.oid = s.objoid
  WHERE s.classoid = 'pg_authid'::regclass AND s.description ~ 'amas\\.dev/claim' AND r.rolname NOT IN ({roles})),
'undeclared_extensions', ARRAY(SELECT e.extname FROM pg_extension e WHERE e.extname NOT IN ({declared})
  AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_extension'::regclass
    AND d.refclassid = 'pg_extension'::regclass AND d.refobjid = e.oid) ORDER BY e.extname),
'database_owner', (SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = {database}),
'available', ARRAY(SELECT name FROM pg_available_extensions WHERE name IN ({extensions})),
'extensions', ARRAY(SELECT extname FROM pg_extension WHERE extname IN ({extensions})),
'schemas', (SELECT coalesce(json_object_agg(n.nspname, json_build_object('owner', o.rolname,
    'trusted', o.rolsuper OR o.oid = me.oid)), '{{}}')
  FROM pg_namespace n JOIN pg_roles o ON o.oid = n.nspowner WHERE n.nspname IN ({schemas})),
'claim_readable', EXISTS (SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
  JOIN pg_roles co ON co.oid = c.relowner JOIN pg_roles no ON no.oid = n.nspowner
  WHERE n.nspname = 'amas_operator' AND c.relname = 'claim' AND c.relkind = 'r'
  AND (co.rolsuper OR co.oid = me.oid) AND (no.rolsuper OR no.oid = me.oid))
)::text FROM pg_roles me WHERE me.rolname = current_user"
    )
}
