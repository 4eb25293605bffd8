//! The app roles' rights as a reconciled set: what the catalog grants, what is wanted, and the statements between.
//!
//! Read and granted over the owner's own login, so only for what the owner owns. Pure but for `read`.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use sqlx::PgConnection;

use super::{
    Access, PostgresDuty,
    connect::{SqlError, read as read_json},
    sql::{ident, literals},
};

/// A column whose comment ends in this is kept out of `ReadOnly`.
pub const SECRET_MARKER: &str = "amas:secret";
/// Of PUBLIC's entries in an access list.
const PUBLIC: &str = "public";
/// Objects in one statement.
const CHUNK: usize = 200;

type Privileges = BTreeSet<String>;
/// By role; the app roles and PUBLIC only.
type Acl = BTreeMap<String, Privileges>;

/// What the owner has granted to the app roles.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub struct Granted {
    database: Acl,
    schemas: BTreeMap<String, Acl>,
    relations: Vec<Relation>,
    defaults: Vec<InAdvance>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
struct Relation {
    schema: String,
    name: String,
    sequence: bool,
    acl: Option<Acl>,
    /// Only where a column is secret or has rights of its own.
    columns: Option<Vec<Column>>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
struct Column {
    name: String,
    secret: bool,
    acl: Option<Acl>,
}

/// Rights on what the owner will create in a schema.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
struct InAdvance {
    schema: String,
    sequences: bool,
    acl: Acl,
}

/// What a statement is about; in the order of the statements.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Target {
    Database,
    Schema,
    Table,
    Sequence,
    Columns(String),
    DefaultTables,
    DefaultSequences,
}

/// Objects by what is done to them: revoking comes first, because revoking from a table takes its columns' rights along.
#[derive(Debug, Default)]
struct Changes(BTreeMap<(bool, Target, Vec<String>, String), Vec<String>>);

/// One round trip.
pub async fn read(connection: &mut PgConnection, duty: &PostgresDuty) -> Result<Granted, SqlError> {
    read_json(connection, query(duty)).await
}

/// The statements that make `have` what `duty` wants; none when it is.
pub fn statements(have: &Granted, duty: &PostgresDuty) -> Vec<String> {
    let mut changes = Changes::default();
    let database = ident(duty.database.as_str());
    for role in &duty.roles {
        let (name, access) = (role.name.as_str(), role.access);
        changes.between(
            Target::Database,
            &database,
            name,
            &have.database,
            rights(access, &["CONNECT"], &["CONNECT"]),
        );
        for (schema, acl) in &have.schemas {
            let wanted = if hidden(schema) {
                set(&[])
            } else {
                rights(access, &["USAGE"], &["USAGE"])
            };
            changes.between(Target::Schema, &ident(schema), name, acl, wanted);
            default_rights(have, schema, name, access, &mut changes);
        }
        have.relations
            .iter()
            .for_each(|relation| relation_rights(relation, name, access, &mut changes));
    }
    if duty.exclusive {
        changes.between_only(Target::Database, &database, &have.database, "CONNECT");
        if let Some(acl) = have.schemas.get("public") {
            changes.between_only(Target::Schema, &ident("public"), acl, "CREATE");
        }
    }
    changes.statements()
}

fn relation_rights(relation: &Relation, role: &str, access: Access, changes: &mut Changes) {
    let object = format!("{}.{}", ident(&relation.schema), ident(&relation.name));
    let wanted = match (protected(relation), relation.sequence) {
        (true, _) => set(&[]),
        (false, true) => sequence_rights(access),
        (false, false) => table_rights(access),
    };
    let none = Acl::new();
    let have = relation.acl.as_ref().unwrap_or(&none);
    let Some(columns) = &relation.columns else {
        let target = if relation.sequence {
            Target::Sequence
        } else {
            Target::Table
        };
        return changes.between(target, &object, role, have, wanted);
    };
    let by_column = access == Access::ReadOnly && !protected(relation) && columns.iter().any(|column| column.secret);
    let on_table = if by_column { set(&[]) } else { wanted.clone() };
    let revoked = have.get(role).is_some_and(|have| !have.is_subset(&on_table));
    changes.between(Target::Table, &object, role, have, on_table);
    for column in columns {
        // What is revoked from the table is gone from its columns too.
        let have = column.acl.as_ref().filter(|_| !revoked).unwrap_or(&none);
        let wanted = if by_column && !column.secret {
            wanted.clone()
        } else {
            set(&[])
        };
        changes.between(
            Target::Columns(object.clone()),
            &ident(&column.name),
            role,
            have,
            wanted,
        );
    }
}

/// A ReadOnly role gets nothing in advance: a new table may have secret columns, and its rights come right after the batch.
fn default_rights(have: &Granted, schema: &str, role: &str, access: Access, changes: &mut Changes) {
    let writes = access == Access::ReadWrite && !hidden(schema);
    for (sequences, target, wanted) in [
        (false, Target::DefaultTables, table_rights(access)),
        (true, Target::DefaultSequences, sequence_rights(access)),
    ] {
        let found = have
            .defaults
            .iter()
            .find(|found| found.schema == schema && found.sequences == sequences);
        let acl = found.map(|found| found.acl.clone()).unwrap_or_default();
        changes.between(
            target,
            &ident(schema),
            role,
            &acl,
            if writes { wanted } else { set(&[]) },
        );
    }
}

fn table_rights(access: Access) -> Privileges {
    rights(access, &["SELECT", "INSERT", "UPDATE", "DELETE"], &["SELECT"])
}

fn sequence_rights(access: Access) -> Privileges {
    rights(access, &["USAGE", "SELECT", "UPDATE"], &["SELECT"])
}

/// An Owner role has its rights through the owner.
fn rights(access: Access, read_write: &[&str], read_only: &[&str]) -> Privileges {
    match access {
        Access::ReadWrite => set(read_write),
        Access::ReadOnly => set(read_only),
        Access::Owner => set(&[]),
    }
}

fn set(privileges: &[&str]) -> Privileges {
    privileges.iter().map(|privilege| (*privilege).to_owned()).collect()
}

/// The history belongs to the migrations' role alone.
fn protected(relation: &Relation) -> bool {
    hidden(&relation.schema) || relation.name == "_sqlx_migrations"
}

fn hidden(schema: &str) -> bool {
    matches!(schema, "amas_migrate" | "amas_operator")
}

impl Changes {
    fn between(&mut self, target: Target, object: &str, role: &str, have: &Acl, want: Privileges) {
        let have = have.get(role).cloned().unwrap_or_default();
        for (grant, difference) in [(false, &have - &want), (true, &want - &have)] {
            if !difference.is_empty() {
                let key = (grant, target.clone(), difference.into_iter().collect(), ident(role));
                self.0.entry(key).or_default().push(object.to_owned());
            }
        }
    }

    /// Takes one right from PUBLIC and leaves it the others.
    fn between_only(&mut self, target: Target, object: &str, have: &Acl, privilege: &str) {
        if have.get(PUBLIC).is_some_and(|have| have.contains(privilege)) {
            let key = (false, target, vec![privilege.to_owned()], "PUBLIC".to_owned());
            self.0.entry(key).or_default().push(object.to_owned());
        }
    }

    fn statements(self) -> Vec<String> {
        let chunked =
            |((grant, target, privileges, role), objects): ((bool, Target, Vec<String>, String), Vec<String>)| {
                let one =
                    |objects: &[String]| statement(grant, &target, &privileges.join(", "), &objects.join(", "), &role);
                objects.chunks(CHUNK).map(one).collect::<Vec<_>>()
            };
        self.0.into_iter().flat_map(chunked).collect()
    }
}

fn statement(grant: bool, target: &Target, privileges: &str, objects: &str, role: &str) -> String {
    let (verb, to) = if grant { ("GRANT", "TO") } else { ("REVOKE", "FROM") };
    let on = |kind: &str| format!("{verb} {privileges} ON {kind} {objects} {to} {role}");
    let default =
        |kind: &str| format!("ALTER DEFAULT PRIVILEGES IN SCHEMA {objects} {verb} {privileges} ON {kind} {to} {role}");
    match target {
        Target::Database => on("DATABASE"),
        Target::Schema => on("SCHEMA"),
        Target::Table => on("TABLE"),
        Target::Sequence => on("SEQUENCE"),
        Target::Columns(table) => {
            let privileges: Vec<String> = privileges.split(", ").map(|one| format!("{one} ({objects})")).collect();
            format!("{verb} {} ON TABLE {table} {to} {role}", privileges.join(", "))
        }
        Target::DefaultTables => default("TABLES"),
        Target::DefaultSequences => default("SEQUENCES"),
    }
}

/// `acl` as an object of role to privileges, of those that the object's owner gave.
fn acl(acl: &str, owner: &str, roles: &str) -> String {
    format!(
        "(SELECT coalesce(json_object_agg(g.role, g.privileges), '{{}}') FROM (
  SELECT e.role, json_agg(e.privilege_type) AS privileges FROM (
    SELECT a.privilege_type, CASE a.grantee WHEN 0 THEN '{PUBLIC}' ELSE pg_get_userbyid(a.grantee)::text END AS role
    FROM aclexplode({acl}) a WHERE a.grantor = {owner}) e
  WHERE e.role IN ({roles}) GROUP BY e.role) g)"
    )
}

fn query(duty: &PostgresDuty) -> String {
    let roles = literals(duty.roles.iter().map(|role| role.name.as_str()).chain([PUBLIC]));
    let database = acl("coalesce(d.datacl, acldefault('d', d.datdba))", "d.datdba", &roles);
    let schema = acl("n.nspacl", "n.nspowner", &roles);
    let relation = acl("c.relacl", "c.relowner", &roles);
    let column = acl("t.attacl", "c.relowner", &roles);
    let default = acl("x.defaclacl", "x.defaclrole", &roles);
    let ours = "n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'";
    format!(
        "SELECT json_build_object(
'database', (SELECT {database} FROM pg_database d WHERE d.datname = current_database()),
'schemas', (SELECT coalesce(json_object_agg(n.nspname, {schema}), '{{}}') FROM pg_namespace n
  WHERE {ours} AND pg_has_role(n.nspowner, 'USAGE')),
'relations', (SELECT coalesce(json_agg(json_build_object('schema', n.nspname, 'name', c.relname,
  'sequence', c.relkind = 'S',
  'acl', CASE WHEN c.relacl IS NOT NULL THEN {relation} END,
  'columns', CASE WHEN c.relkind <> 'S' AND (
      EXISTS (SELECT FROM pg_attribute t WHERE t.attrelid = c.oid AND t.attacl IS NOT NULL)
      OR EXISTS (SELECT FROM pg_description s WHERE s.objoid = c.oid AND s.classoid = 'pg_class'::regclass
        AND s.objsubid > 0 AND rtrim(s.description) LIKE '%{SECRET_MARKER}'))
    THEN (SELECT json_agg(json_build_object('name', t.attname,
        'secret', coalesce(rtrim(col_description(c.oid, t.attnum)) LIKE '%{SECRET_MARKER}', false),
        'acl', CASE WHEN t.attacl IS NOT NULL THEN {column} END) ORDER BY t.attnum)
      FROM pg_attribute t WHERE t.attrelid = c.oid AND t.attnum > 0 AND NOT t.attisdropped) END)
    ORDER BY n.nspname, c.relname), '[]')
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
  WHERE {ours} AND c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S') AND pg_has_role(c.relowner, 'USAGE')),
'defaults', (SELECT coalesce(json_agg(json_build_object('schema', n.nspname, 'sequences', x.defaclobjtype = 'S',
  'acl', {default})), '[]')
  FROM pg_default_acl x JOIN pg_namespace n ON n.oid = x.defaclnamespace
  WHERE x.defaclobjtype IN ('r', 'S') AND pg_get_userbyid(x.defaclrole) = current_user)
)::text"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        api::{names::SqlName, sensitive::Sensitive},
        stores::{
            endpoint::{Endpoint, Tls},
            postgres::{Claim, RoleDuty, Session, Twin},
        },
    };

    fn duty(roles: &[(&str, Access)]) -> PostgresDuty {
        let login = Endpoint {
            host: String::new(),
            port: 0,
            tls: Tls::Disable,
            user: "own".into(),
            password: Sensitive::new(""),
        };
        let role = |(name, access): &(&str, Access)| RoleDuty {
            name: SqlName::parse(*name).unwrap(),
            password: Sensitive::new(""),
            twin: Twin::default(),
            access: *access,
            connection_limit: 1,
            session: Session::default(),
        };
        let text = String::new;
        PostgresDuty {
            admin: login.clone(),
            owner_login: login,
            database: SqlName::parse("amas").unwrap(),
            owner: SqlName::parse("own").unwrap(),
            owner_twin: Twin::default(),
            admin_next: None,
            sure: false,
            extensions: vec![],
            roles: roles.iter().map(role).collect(),
            exclusive: true,
            claim: Claim {
                cluster_id: text(),
                namespace: text(),
                name: text(),
                uid: text(),
            },
            clients: None,
            serves: None,
            attention: Default::default(),
            take_over: None,
            configuration: None,
            kept: false,
            deposit: None,
            waiting_plan: None,
            back_to: None,
            drift: Default::default(),
            look_again: text(),
        }
    }

    fn acl(role: &str, privileges: &[&str]) -> Acl {
        [(role.to_owned(), set(privileges))].into()
    }

    fn table(schema: &str, name: &str, acl: Option<Acl>, columns: Option<Vec<Column>>) -> Relation {
        Relation {
            schema: schema.into(),
            name: name.into(),
            sequence: false,
            acl,
            columns,
        }
    }

    fn column(name: &str, secret: bool, acl: Option<Acl>) -> Column {
        Column {
            name: name.into(),
            secret,
            acl,
        }
    }

    const READS: &[(&str, Access)] = &[("r", Access::ReadOnly)];
    const WRITES: &[(&str, Access)] = &[("w", Access::ReadWrite)];

    fn of_relations(relations: Vec<Relation>, roles: &[(&str, Access)]) -> Vec<String> {
        let database = roles
            .iter()
            .map(|(role, _)| ((*role).to_owned(), set(&["CONNECT"])))
            .collect();
        statements(
            &Granted {
                database,
                relations,
                ..Granted::default()
            },
            &duty(roles),
        )
    }

    #[test]
    fn a_new_database_is_opened_to_its_roles_and_closed_to_others() {
        let have = Granted {
            database: acl("public", &["CONNECT", "TEMPORARY"]),
            schemas: [("public".to_owned(), acl("public", &["USAGE", "CREATE"]))].into(),
            ..Granted::default()
        };
        assert_eq!(
            statements(
                &have,
                &duty(&[("w", Access::ReadWrite), ("r", Access::ReadOnly), ("o", Access::Owner)])
            ),
            [
                "REVOKE CONNECT ON DATABASE \"amas\" FROM PUBLIC",
                "REVOKE CREATE ON SCHEMA \"public\" FROM PUBLIC",
                "GRANT CONNECT ON DATABASE \"amas\" TO \"r\"",
                "GRANT CONNECT ON DATABASE \"amas\" TO \"w\"",
                "GRANT USAGE ON SCHEMA \"public\" TO \"r\"",
                "GRANT USAGE ON SCHEMA \"public\" TO \"w\"",
                "ALTER DEFAULT PRIVILEGES IN SCHEMA \"public\" GRANT DELETE, INSERT, SELECT, UPDATE ON TABLES TO \"w\"",
                "ALTER DEFAULT PRIVILEGES IN SCHEMA \"public\" GRANT SELECT, UPDATE, USAGE ON SEQUENCES TO \"w\"",
            ]
        );
    }

    #[test]
    fn only_differences_are_granted_and_revoked() {
        let writes = ["SELECT", "INSERT", "UPDATE", "DELETE"];
        let relations = vec![
            table("s", "full", Some(acl("w", &writes)), None),
            table("s", "new", None, None),
            table("s", "New \"2\"", None, None),
            table("s", "less", Some(acl("w", &["SELECT"])), None),
            table(
                "s",
                "more",
                Some(acl("w", &["SELECT", "INSERT", "UPDATE", "DELETE", "TRUNCATE"])),
                None,
            ),
            Relation {
                schema: "s".into(),
                name: "q".into(),
                sequence: true,
                ..Relation::default()
            },
        ];
        assert_eq!(
            of_relations(relations, WRITES),
            [
                "REVOKE TRUNCATE ON TABLE \"s\".\"more\" FROM \"w\"",
                "GRANT DELETE, INSERT, SELECT, UPDATE ON TABLE \"s\".\"new\", \"s\".\"New \"\"2\"\"\" TO \"w\"",
                "GRANT DELETE, INSERT, UPDATE ON TABLE \"s\".\"less\" TO \"w\"",
                "GRANT SELECT, UPDATE, USAGE ON SEQUENCE \"s\".\"q\" TO \"w\"",
            ]
        );
    }

    #[test]
    fn the_history_is_taken_back() {
        let relations = vec![
            table("public", "_sqlx_migrations", Some(acl("w", &["SELECT"])), None),
            table("amas_migrate", "history", Some(acl("w", &["SELECT"])), None),
            table("amas_migrate", "runs", None, None),
        ];
        assert_eq!(
            of_relations(relations, WRITES),
            ["REVOKE SELECT ON TABLE \"public\".\"_sqlx_migrations\", \"amas_migrate\".\"history\" FROM \"w\""]
        );
    }

    #[test]
    fn secret_columns_are_kept_from_readers_only() {
        let columns = |granted: bool| {
            let acl = |_: &str| granted.then(|| acl("r", &["SELECT"]));
            Some(vec![column("id", false, acl("id")), column("key", true, None)])
        };
        let of = |acl, columns| of_relations(vec![table("s", "t", acl, columns)], READS);
        assert_eq!(
            of(None, columns(false)),
            ["GRANT SELECT (\"id\") ON TABLE \"s\".\"t\" TO \"r\""]
        );
        assert_eq!(of(None, columns(true)), [""; 0]);
        // Revoking from the table takes the columns' rights along.
        assert_eq!(
            of(Some(acl("r", &["SELECT"])), columns(true)),
            [
                "REVOKE SELECT ON TABLE \"s\".\"t\" FROM \"r\"",
                "GRANT SELECT (\"id\") ON TABLE \"s\".\"t\" TO \"r\"",
            ]
        );
        // No longer secret.
        assert_eq!(
            of(None, Some(vec![column("id", false, Some(acl("r", &["SELECT"])))])),
            [
                "REVOKE SELECT (\"id\") ON TABLE \"s\".\"t\" FROM \"r\"",
                "GRANT SELECT ON TABLE \"s\".\"t\" TO \"r\"",
            ]
        );
        let writer = of_relations(vec![table("s", "t", None, columns(false))], WRITES);
        assert_eq!(
            writer,
            ["GRANT DELETE, INSERT, SELECT, UPDATE ON TABLE \"s\".\"t\" TO \"w\""]
        );
    }
}
