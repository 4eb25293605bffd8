//! Everything that shall be the same at the end of a stage whatever happened in it, one line each.

use serde_json::{Value, json};
use sqlx::Row;

use super::life::{CHILDREN, Life, Subject};

/// What concerns the names that begin with `$1`, in the whole server. Passwords differ, so only whether there is one.
const SERVER: &str = "\
SELECT 'role ' || rolname || ' ' || concat_ws(',', rolsuper, rolinherit, rolcreaterole, rolcreatedb, rolcanlogin, rolconnlimit, rolpassword IS NOT NULL)
    || ' ' || coalesce(shobj_description(oid, 'pg_authid'), '') FROM pg_authid WHERE strpos(rolname, $1) = 1
UNION ALL SELECT 'member ' || roleid::regrole || ' ' || member::regrole FROM pg_auth_members WHERE strpos(roleid::regrole::text, $1) = 1
UNION ALL SELECT 'database ' || datname || ' ' || datdba::regrole || ' ' || coalesce(datacl::text, '') FROM pg_database WHERE datname = $1
UNION ALL SELECT 'setting ' || setrole::regrole || ' ' || setconfig::text FROM pg_db_role_setting JOIN pg_database d ON d.oid = setdatabase WHERE datname = $1
ORDER BY 1";

/// What concerns one database.
const DATABASE: &str = "\
SELECT 'schema ' || nspname || ' ' || nspowner::regrole || ' ' || coalesce(nspacl::text, '') FROM pg_namespace WHERE nspname !~ '^pg_'
UNION ALL SELECT 'default ' || defaclrole::regrole || ' ' || defaclobjtype::text || ' ' || defaclacl::text FROM pg_default_acl
UNION ALL SELECT 'relation ' || oid::regclass || ' ' || relowner::regrole || ' ' || coalesce(relacl::text, '') FROM pg_class
    WHERE relkind IN ('r', 'S', 'v') AND relnamespace::regnamespace::text !~ '^(pg_|information_schema)'
UNION ALL SELECT 'claim ' || concat_ws(' ', namespace, name, created_by_us, released IS NOT NULL) FROM amas_operator.claim
UNION ALL SELECT 'extension ' || extname FROM pg_extension ORDER BY 1";

impl Life {
    pub async fn fingerprint(&self) -> String {
        let mut lines = Vec::new();
        let object = self.ns.get("AmasDatabase", "a").await;
        let current = object.as_ref().map(|object| &object["metadata"]["uid"]);
        for kind in CHILDREN
            .into_iter()
            .chain(["AmasDatabase", "GraphSchema", "CachePolicy"])
        {
            let objects = self.ns.list(kind).await;
            lines.extend(objects.iter().filter_map(|object| summary(kind, object, current)));
        }
        if self.subject == Subject::External {
            lines.extend(self.catalog().await);
        }
        lines.extend(self.stores.lines().await);
        lines.join("\n").replace(&self.ns.name, "NS").replace(&self.id, "ID")
    }

    async fn catalog(&self) -> Vec<String> {
        let mut conn = self.postgres.connect("postgres", "postgres").await;
        let rows = sqlx::query(SERVER).bind(&self.id).fetch_all(&mut conn).await.unwrap();
        let mut lines: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
        if lines.iter().any(|line| line.starts_with("database ")) {
            let mut conn = self.postgres.connect("postgres", &self.id).await;
            // Between its making and its claim it has none.
            let rows = sqlx::query(DATABASE).fetch_all(&mut conn).await.unwrap_or_default();
            lines.extend(rows.iter().map(|row| row.get::<String, _>(0)));
        }
        lines
    }
}

/// Whose it is: the owner's name in the place of its uid, which differs.
fn owners(meta: &Value, current: Option<&Value>) -> Value {
    let mut all = meta["ownerReferences"].clone();
    for owner in all.as_array_mut().into_iter().flatten() {
        let is_there = current.is_none_or(|uid| *uid == owner["uid"]);
        owner["uid"] = if is_there {
            owner["name"].clone()
        } else {
            json!("a namesake's")
        };
    }
    all
}

fn summary(kind: &str, object: &Value, current: Option<&Value>) -> Option<String> {
    let meta = &object["metadata"];
    if meta["name"] == "kube-root-ca.crt" || meta["name"] == "default" {
        return None;
    }
    let mut content = match kind {
        // Passwords differ between runs.
        "Secret" => {
            let keys = object["data"].as_object().map(|data| data.keys().collect::<Vec<_>>());
            json!([object["type"], keys])
        }
        "ServiceAccount" => json!([object["automountServiceAccountToken"], meta["annotations"]]),
        "AmasDatabase" | "GraphSchema" | "CachePolicy" => {
            let all = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
            let conditions = all
                .iter()
                .map(|c| format!("{}={} {}", c["type"], c["status"], c["reason"]));
            // They tell the most, and the end of a long line is not shown everywhere.
            json!([conditions.collect::<Vec<_>>(), object["spec"]])
        }
        _ => json!([object["spec"], object["data"], meta["annotations"]]),
    };
    if kind == "Service" {
        for assigned in ["clusterIP", "clusterIPs"] {
            if object["spec"][assigned] != "None" && object["spec"][assigned] != json!(["None"]) {
                content[0][assigned] = Value::Null;
            }
        }
    }
    Some(format!(
        "{kind} {} {} {} {} {content}",
        meta["name"],
        meta["labels"],
        meta["finalizers"],
        owners(meta, current)
    ))
}
