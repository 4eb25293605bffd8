//! A view whose columns are others now cannot be replaced: it is made anew, and what hangs on it is carried over, since a definition has nothing of that.

use sqlx::{PgConnection, Row};

use super::{QUICK, said};
use crate::migrate::{record::literal, report::Failure, session};

/// What makes it.
pub(super) fn create(what: &str, name: &str, definition: &str) -> String {
    let options = definition.strip_prefix("WITH (");
    let (options, query) = options
        .and_then(|_| definition.split_once('\n'))
        .unwrap_or(("", definition));
    format!("{what} {name} {options} AS {query}")
}

/// The statements that give a view its comments, defaults, triggers, rules, rights and owner again, and the column that each is about.
const KEPT: &str = "WITH v AS (SELECT c.oid, c.relowner, c.relacl, $VIEW AS name FROM pg_catalog.pg_class c \
         WHERE c.oid = pg_catalog.to_regclass($VIEW)::pg_catalog.oid AND c.relkind = 'v'), \
     a AS (SELECT a.attrelid, a.attnum, a.attname, a.attacl, v.name FROM v JOIN pg_catalog.pg_attribute a ON a.attrelid = v.oid), \
     d AS (SELECT d.* FROM v JOIN pg_catalog.pg_description d ON d.objoid = v.oid \
         WHERE d.classoid = 'pg_catalog.pg_class'::pg_catalog.regclass), \
     granted AS (SELECT NULL::text AS about, '' AS which, v.name, g.* FROM v CROSS JOIN LATERAL pg_catalog.aclexplode(v.relacl) g \
         WHERE g.grantee <> v.relowner \
         UNION ALL SELECT a.attname::text, pg_catalog.format(' (%I)', a.attname), a.name, g.* FROM a CROSS JOIN LATERAL pg_catalog.aclexplode(a.attacl) g) \
     SELECT NULL::text AS about, pg_catalog.format('COMMENT ON VIEW %s IS %L', v.name, d.description) AS sql FROM v, d WHERE d.objsubid = 0 \
     UNION ALL SELECT a.attname::text, pg_catalog.format('COMMENT ON COLUMN %s.%I IS %L', a.name, a.attname, d.description) \
         FROM a JOIN d ON d.objsubid = a.attnum \
     UNION ALL SELECT a.attname::text, pg_catalog.format('ALTER VIEW %s ALTER COLUMN %I SET DEFAULT %s', a.name, a.attname, pg_catalog.pg_get_expr(f.adbin, f.adrelid)) \
         FROM a JOIN pg_catalog.pg_attrdef f ON f.adrelid = a.attrelid AND f.adnum = a.attnum \
     UNION ALL SELECT NULL, pg_catalog.pg_get_triggerdef(t.oid) FROM v JOIN pg_catalog.pg_trigger t ON t.tgrelid = v.oid AND NOT t.tgisinternal \
     UNION ALL SELECT NULL, pg_catalog.pg_get_ruledef(r.oid) FROM v JOIN pg_catalog.pg_rewrite r ON r.ev_class = v.oid AND r.rulename <> '_RETURN' \
     UNION ALL SELECT g.about, pg_catalog.format('GRANT %s%s ON %s TO %s%s', g.privilege_type, g.which, g.name, \
         CASE g.grantee WHEN 0 THEN 'PUBLIC' ELSE pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(g.grantee)) END, \
         CASE WHEN g.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END) FROM granted g \
     UNION ALL SELECT NULL, pg_catalog.format('ALTER VIEW %s OWNER TO %I', v.name, pg_catalog.pg_get_userbyid(v.relowner)) \
         FROM v WHERE pg_catalog.pg_get_userbyid(v.relowner) <> current_user";

/// Takes it away and makes it, in one transaction; what the server said, if it did not work.
pub(super) async fn make_anew(
    conn: &mut PgConnection,
    name: &str,
    definition: &str,
) -> Result<Option<String>, Failure> {
    let kept = format!("{QUICK}; {}", KEPT.replace("$VIEW", &literal(name)));
    let kept = match session::ask(conn, &kept).await {
        Err(sqlx::Error::Database(error)) => return Ok(Some(error.message().to_owned())),
        kept => kept?,
    };
    let create = create("CREATE VIEW", name, definition);
    let mut refused = said(conn, QUICK, &format!("BEGIN; DROP VIEW IF EXISTS {name}; {create}")).await?;
    if refused.is_none() {
        let columns = columns(conn, name).await?;
        let mut carried = Vec::new();
        for row in &kept {
            let (about, sql): (Option<String>, String) = (row.try_get("about")?, row.try_get("sql")?);
            // what is about a column goes with it
            if about.is_none_or(|column| columns.contains(&column)) {
                carried.push(sql);
            }
        }
        carried.push("COMMIT".to_owned());
        refused = said(conn, QUICK, &carried.join("; ")).await?;
    }
    if refused.is_some() {
        session::ask(conn, "ROLLBACK").await?;
    }
    Ok(refused)
}

async fn columns(conn: &mut PgConnection, name: &str) -> Result<Vec<String>, Failure> {
    let sql = format!(
        "SELECT a.attname::text FROM pg_catalog.pg_attribute a WHERE a.attrelid = pg_catalog.to_regclass({})::pg_catalog.oid AND a.attnum > 0",
        literal(name)
    );
    let rows = session::ask(conn, &sql).await?;
    Ok(rows.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?)
}
