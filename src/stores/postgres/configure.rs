//! The configuration of a managed server: whether it would take what is asked for, whether the file has reached it, whether it has loaded
//! the file, and what of it waits for a restart.

use std::{collections::BTreeMap, time::Duration};

use serde::Deserialize;
use sqlx::PgConnection;
use tokio::time::sleep;

use super::{
    connect::{SqlError, execute, read},
    parameters::{Server, Setting, TOGETHER, refusals},
    sql::{literal, literals},
    workload::MARK,
};
use crate::stores::workload::digest;

/// How long a server may take to have loaded a file after it was told to.
const LOADING: Duration = Duration::from_millis(100);
const LOOKS: usize = 20;

/// What the server is asked to run with.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Configuration {
    /// The parameters of the specification, to be judged before they are written.
    pub parameters: BTreeMap<String, String>,
    /// Memory limit of the server in bytes.
    pub memory: Option<u64>,
    pub huge_pages: bool,
    /// The mark of the file that is written for the server.
    pub written: String,
}

impl Configuration {
    /// Names what was judged.
    pub fn case(&self) -> String {
        digest(&format!("{:?} {:?} {}", self.parameters, self.memory, self.huge_pages))
    }
}

/// What was read of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConfigurationFacts {
    /// [`Configuration::case`] of what `refused` is about.
    pub judged: Option<String>,
    /// What the server would not take, with the reasons.
    pub refused: Vec<String>,
    /// The mark of the file that the server sees, and of the one that it has loaded.
    pub file: Option<String>,
    pub loaded: Option<String>,
    /// Parameters that have their new value only after a restart.
    pub restart: Vec<String>,
    /// Parameters for which somebody's ALTER SYSTEM goes before the file.
    pub overridden: Vec<String>,
}

impl ConfigurationFacts {
    /// The server runs with what was written, but for what waits for a restart.
    pub fn is_in(&self, wanted: &Configuration) -> bool {
        self.judged == Some(wanted.case()) && self.loaded.as_ref() == Some(&wanted.written)
    }
}

#[derive(Debug, Deserialize)]
struct Seen {
    file: Option<String>,
    loaded: Option<String>,
    settings: Option<BTreeMap<String, Setting>>,
    restart: Vec<String>,
    overridden: Vec<String>,
    memory: Option<u64>,
}

/// Looks, judges what was not judged yet, and has the server load a file that it has not loaded.
pub async fn configure(
    connection: &mut PgConnection,
    wanted: &Configuration,
    known: Option<&ConfigurationFacts>,
) -> Result<ConfigurationFacts, SqlError> {
    let mut seen = look(connection, wanted).await?;
    let judged = known.filter(|known| known.judged == Some(wanted.case()));
    let refused = match judged {
        Some(known) => known.refused.clone(),
        None => judge(connection, wanted, &mut seen).await?,
    };
    let written = Some(&wanted.written);
    if seen.file.as_ref() == written && seen.loaded.as_ref() != written {
        execute(connection, &["SELECT pg_reload_conf()".to_owned()]).await?;
        tracing::info!(mark = wanted.written, "the server was told to load its configuration");
        for _ in 0..LOOKS {
            sleep(LOADING).await;
            seen = look(connection, wanted).await?;
            if seen.loaded.as_ref() == written {
                break;
            }
        }
    }
    Ok(ConfigurationFacts {
        judged: Some(wanted.case()),
        refused,
        file: seen.file,
        loaded: seen.loaded,
        restart: seen.restart,
        overridden: seen.overridden,
    })
}

async fn look(connection: &mut PgConnection, wanted: &Configuration) -> Result<Seen, SqlError> {
    let names = || wanted.parameters.keys().map(String::as_str);
    let all = literals(names().chain(TOGETHER));
    let ours = literals(names().chain([""]));
    let mark = literal(MARK);
    let by_hand = "sourcefile LIKE '%/postgresql.auto.conf'";
    let query = format!(
        "SELECT json_build_object(
'file', (SELECT setting FROM pg_file_settings WHERE name = {mark} ORDER BY seqno DESC LIMIT 1),
'loaded', current_setting({mark}, true),
'settings', (SELECT json_object_agg(lower(name), json_build_object('vartype', vartype, 'context', context, 'unit', unit,
  'min_val', min_val, 'max_val', max_val, 'enumvals', enumvals, 'setting', setting))
  FROM pg_settings WHERE lower(name) IN ({all})),
'restart', ARRAY(SELECT name FROM pg_settings WHERE pending_restart
  AND lower(name) NOT IN (SELECT lower(name) FROM pg_file_settings WHERE name IS NOT NULL AND {by_hand})),
'overridden', ARRAY(SELECT DISTINCT name FROM pg_file_settings WHERE lower(name) IN ({ours}) AND {by_hand}),
'memory', (SELECT (regexp_match(pg_read_file('/proc/meminfo', 0, 4096, true), 'MemTotal:\\s+(\\d+) kB'))[1]::bigint * 1024)
)::text"
    );
    read(connection, query).await
}

/// By the limits that the server tells; what a session may set, the server is asked itself.
async fn judge(
    connection: &mut PgConnection,
    wanted: &Configuration,
    seen: &mut Seen,
) -> Result<Vec<String>, SqlError> {
    let server = Server {
        settings: seen.settings.take().unwrap_or_default(),
        memory: wanted.memory.or(seen.memory),
        huge_pages: wanted.huge_pages,
    };
    let mut refused = refusals(&wanted.parameters, &server);
    if !refused.is_empty() {
        return Ok(refused);
    }
    for (name, value) in &wanted.parameters {
        let in_a_session = |setting: &Setting| matches!(setting.context.as_str(), "user" | "superuser");
        // A session cannot set the log's time zone, but one of its own of the same name.
        let probe = if name == "log_timezone" { "timezone" } else { name };
        if probe == name && !server.settings.get(name).is_some_and(in_a_session) {
            continue;
        }
        // For this one statement.
        let set = format!("SELECT set_config({}, {}, true)", literal(probe), literal(value));
        match execute(connection, &[set]).await {
            // The class of refused values.
            Err(error) if error.class() == Some("22") => refused.push(format!("{name}: {error}")),
            outcome => outcome?,
        }
    }
    Ok(refused)
}
