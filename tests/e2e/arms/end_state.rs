//! The end state of an arm as a set of facts: arms are comparable only when theirs are equal.

use std::collections::BTreeSet;

use redis::aio::MultiplexedConnection;
use sqlx::PgConnection;

use crate::{
    cluster::clients,
    harness::{About, Result},
};

pub type Facts = BTreeSet<String>;

/// Every table, view, index, constraint, trigger, function and extension that is the platform's own, and how many rows it starts with.
const SQL: &str = "
WITH own AS (SELECT oid FROM pg_namespace WHERE nspname NOT LIKE 'pg\\_%' AND nspname NOT LIKE 'amas\\_%' AND nspname <> 'information_schema'),
     rel AS (SELECT c.* FROM pg_class c WHERE relnamespace IN (SELECT oid FROM own) AND relname NOT LIKE '\\_sqlx%'
             AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.objid = c.oid AND d.deptype = 'e'))
SELECT string_agg(fact, E'\\n') FROM (
  SELECT format('relation %s %s', relkind, relname) FROM rel WHERE relkind IN ('r', 'p', 'v', 'm', 'i', 'S')
  UNION ALL SELECT format('constraint %s on %s: %s', conname, rel.relname, pg_get_constraintdef(k.oid)) FROM pg_constraint k JOIN rel ON rel.oid = conrelid
  UNION ALL SELECT format('trigger %s on %s', tgname, rel.relname) FROM pg_trigger JOIN rel ON rel.oid = tgrelid WHERE NOT tgisinternal
  UNION ALL SELECT format('function %s', proname) FROM pg_proc p WHERE pronamespace IN (SELECT oid FROM own)
            AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.objid = p.oid AND d.deptype = 'e')
  UNION ALL SELECT format('extension %s', extname) FROM pg_extension
  UNION ALL SELECT format('database %s owner %s', datname, pg_get_userbyid(datdba)) FROM pg_database WHERE datname = current_database()
) facts (fact)";

pub async fn sql(connection: &mut PgConnection) -> Result<Facts> {
    let text = clients::value(connection, SQL).await?;
    let mut facts: Facts = text.lines().map(str::to_owned).collect();
    for table in ["agents", "users"] {
        if facts.contains(&format!("relation r {table}")) {
            let count = clients::value(connection, &format!("SELECT count(*)::text FROM public.{table}")).await?;
            facts.insert(format!("{count} rows in {table}"));
        }
    }
    Ok(facts)
}

/// Limit, eviction and persistence, as INFO tells every client.
pub async fn redis(connection: &mut MultiplexedConnection) -> Result<Facts> {
    let info: String = redis::cmd("INFO").query_async(connection).await?;
    let kept = |line: &&str| {
        ["maxmemory:", "maxmemory_policy:", "aof_enabled:"]
            .iter()
            .any(|key| line.starts_with(key))
    };
    Ok(info
        .lines()
        .filter(kept)
        .map(|line| format!("redis {}", line.trim()))
        .collect())
}

/// Constraints and indexes with their state.
pub async fn neo4j(graph: &neo4rs::Graph) -> Result<Facts> {
    let constraints = "SHOW CONSTRAINTS YIELD name, type, labelsOrTypes, properties \
        RETURN 'graph ' + name + ' ' + type + ' ' + toString(labelsOrTypes[0]) + ' ' + toString(properties[0]) AS row";
    let indexes = "SHOW INDEXES YIELD name, type, state, labelsOrTypes WHERE type <> 'LOOKUP' \
        RETURN 'graph ' + name + ' ' + type + ' ' + state + ' ' + toString(labelsOrTypes[0]) AS row";
    let mut facts: Facts = clients::cypher(graph, constraints).await?.into_iter().collect();
    facts.extend(clients::cypher(graph, indexes).await?);
    Ok(facts)
}

/// Fails, naming the differences, unless both are equal.
pub fn equal(ours: &Facts, floor: &Facts) -> Result {
    let join = |facts: Vec<&String>| facts.iter().map(|fact| fact.as_str()).collect::<Vec<_>>().join("; ");
    let only_ours = join(ours.difference(floor).collect());
    let only_floor = join(floor.difference(ours).collect());
    (only_ours.is_empty() && only_floor.is_empty())
        .then_some(())
        .about(format!(
            "the arms differ: only the operator's has [{only_ours}], only the floor's has [{only_floor}]"
        ))
}
