//! The worker's connections: a driver's small pool, each use of it with a deadline; and which lane an error takes.
//! The driver's futures are 18 KB each, so they are boxed here, where they begin.

use std::{
    io::{self, PipeReader, Write as _},
    os::fd::AsRawFd as _,
    path::PathBuf,
    time::Duration,
};

use neo4rs::{ConfigBuilder, Graph, Query, Row, query};

use crate::stores::{
    endpoint::{Endpoint, StoreError, Tls, Trust},
    limits::Limit,
    neo4j::{
        CLAIM_LABEL, LABELS_SHOWN, cypher,
        duty::Neo4jDuty,
        facts::GraphFigures,
        schema::{Definition, FoundConstraint, FoundIndex, Schema},
    },
    tls,
};

/// For everything but schema statements, which take as long as they take. What a server was never asked before takes it seconds on a busy machine;
/// whether it serves at all is the sentinel's matter.
const DEADLINE: Duration = Duration::from_secs(15);
/// What the server says where an account is locked for a while.
const TOO_OFTEN: &str = "too many times in a row";
/// The driver's limit on waiting for an answer; the socket's keep-alive finds a silent server long before.
const LONGEST_STATEMENT: Duration = Duration::from_secs(12 * 3600);

/// One login.
#[derive(Clone)]
pub struct Session(Graph);

impl Session {
    /// Does not connect yet. Two connections: how far a constraint is can be asked while it is being made.
    pub fn new(base: &Neo4jDuty, endpoint: &Endpoint) -> Result<Self, StoreError> {
        let scheme = match &endpoint.tls {
            Tls::Disable => "bolt",
            Tls::Encrypt(trust) if trust.verify => "bolt+s",
            Tls::Encrypt(_) => "bolt+ssc",
        };
        let host = if endpoint.host.contains(':') {
            format!("[{}]", endpoint.host)
        } else {
            endpoint.host.clone()
        };
        let mut config = ConfigBuilder::default()
            .uri(format!("{scheme}://{host}:{}", endpoint.port))
            .user(endpoint.user.as_str())
            .password(endpoint.password.reveal())
            .db(base.database.as_str())
            .fetch_size(1000)
            .max_connections(2)
            .connection_timeout(LONGEST_STATEMENT);
        // Held until the driver has read them, which it does at once.
        let mut files = Vec::new();
        if let Tls::Encrypt(trust) = &endpoint.tls {
            config = trusting(config, trust, &mut files).map_err(|error| StoreError::Unreachable(error.to_string()))?;
        }
        let config = config.build().map_err(error_lane)?;
        Graph::connect(config).map(Self).map_err(error_lane)
    }

    /// The rows of a read.
    pub async fn rows(&self, text: &str) -> Result<Vec<Row>, StoreError> {
        within(DEADLINE, self.read(text)).await
    }

    /// The same without a deadline.
    pub async fn read(&self, text: &str) -> Result<Vec<Row>, StoreError> {
        let mut stream = Box::pin(self.0.execute_read(query(text))).await.map_err(error_lane)?;
        let mut rows = Vec::new();
        while let Some(row) = Box::pin(stream.next()).await.map_err(error_lane)? {
            rows.push(row);
        }
        Ok(rows)
    }

    /// A small write.
    pub async fn write(&self, statement: Query) -> Result<(), StoreError> {
        within(DEADLINE, async {
            Box::pin(self.0.run(statement)).await.map(drop).map_err(error_lane)
        })
        .await
    }

    /// A schema statement in a transaction of its own, however long it takes. The driver's error has the code.
    pub async fn alter(&self, statement: &str) -> Result<(), neo4rs::Error> {
        Box::pin(self.0.run(query(statement))).await.map(drop)
    }

    /// The whole schema: two statements, whatever its size.
    pub async fn schema(&self) -> Result<Schema, StoreError> {
        let constraints = self.rows(cypher::SHOW_CONSTRAINTS).await?;
        let indexes = self.rows(cypher::SHOW_INDEXES).await?;
        Ok(Schema {
            constraints: constraints.iter().map(constraint).collect::<Result<_, _>>()?,
            indexes: indexes.iter().map(index).collect::<Result<_, _>>()?,
        })
    }

    /// What the server or the login does not allow. What may not even be asked is left out.
    pub async fn limits(&self, database: &str) -> Result<Vec<Limit>, StoreError> {
        let probes = [
            (
                format!(
                    "SHOW DATABASE {} YIELD access WHERE access = 'read-only'",
                    cypher::quote(database)
                ),
                Limit::ReadOnly,
            ),
            (cypher::COMMUNITY.to_owned(), Limit::NoRoles),
        ];
        let mut limits = Vec::new();
        for (probe, limit) in probes {
            match self.rows(&probe).await {
                Ok(rows) if rows.is_empty() => {}
                Ok(_) => limits.push(limit),
                Err(StoreError::Rejected(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(limits)
    }

    /// Node counts, for at most [`LABELS_SHOWN`] labels and without our claim; both statements cost the same on any
    /// size of graph.
    pub async fn figures(&self) -> Result<GraphFigures, StoreError> {
        let labels = self.rows(cypher::LABELS).await?;
        let labels = labels
            .iter()
            .map(|row| get::<String>(row, "label"))
            .collect::<Result<Vec<_>, _>>()?;
        let shown = labels
            .iter()
            .map(String::as_str)
            .filter(|label| *label != CLAIM_LABEL)
            .take(LABELS_SHOWN);
        let (mut figures, mut claims) = (GraphFigures::default(), 0);
        for row in self.rows(&cypher::count_nodes(shown.chain([CLAIM_LABEL]))).await? {
            match (get::<String>(&row, "label")?, get::<u64>(&row, "nodes")?) {
                (label, nodes) if label.is_empty() => figures.nodes = nodes,
                (label, nodes) if label == CLAIM_LABEL => claims = nodes,
                (_, 0) => {}
                counted => figures.labels.push(counted),
            }
        }
        figures.nodes = figures.nodes.saturating_sub(claims);
        Ok(figures)
    }
}

/// The driver takes certificates from files only. The operator writes none: it has no disk, and one file would be a key.
fn trusting(config: ConfigBuilder, trust: &Trust, files: &mut Vec<PipeReader>) -> io::Result<ConfigBuilder> {
    let mut file = |text: &str| {
        let (path, reader) = piped(text)?;
        files.push(reader);
        io::Result::Ok(path)
    };
    let ca = match (trust.verify, &trust.ca) {
        (false, _) => None,
        (true, Some(ca)) => Some(file(ca)?),
        (true, None) => Some(file(&tls::public_roots_pem())?),
    };
    Ok(match (&trust.client, ca) {
        (Some(client), ca) => {
            config.with_mutual_tls_validation(ca, file(&client.certificate)?, file(client.key.reveal())?)
        }
        (None, Some(ca)) => config.with_client_certificate(ca),
        (None, None) => config,
    })
}

/// A text as a file that exists as long as its reader and can be read once.
fn piped(text: &str) -> io::Result<(PathBuf, PipeReader)> {
    let (reader, mut writer) = io::pipe()?;
    let text = text.to_owned();
    // A pipe takes 64 KiB at a time. The thread ends when everything is read, or the reader is gone.
    std::thread::spawn(move || writer.write_all(text.as_bytes()));
    Ok((PathBuf::from(format!("/proc/self/fd/{}", reader.as_raw_fd())), reader))
}

/// A column of a row.
pub fn get<T: serde::de::DeserializeOwned>(row: &Row, column: &str) -> Result<T, StoreError> {
    row.get(column)
        .map_err(|error| StoreError::Rejected(format!("unexpected answer in {column}: {error}")))
}

fn definition(row: &Row) -> Result<Definition, StoreError> {
    Ok(Definition {
        entity: get(row, "entityType")?,
        labels: get::<Option<_>>(row, "labelsOrTypes")?.unwrap_or_default(),
        properties: get::<Option<_>>(row, "properties")?.unwrap_or_default(),
    })
}

fn constraint(row: &Row) -> Result<FoundConstraint, StoreError> {
    Ok(FoundConstraint {
        name: get(row, "name")?,
        kind: get(row, "type")?,
        on: definition(row)?,
        owned_index: get(row, "ownedIndex")?,
    })
}

fn index(row: &Row) -> Result<FoundIndex, StoreError> {
    Ok(FoundIndex {
        name: get(row, "name")?,
        kind: get(row, "type")?,
        on: definition(row)?,
        state: get(row, "state")?,
        percent: get(row, "populationPercent")?,
        owner: get(row, "owningConstraint")?,
        failure: get::<Option<_>>(row, "failureMessage")?.unwrap_or_default(),
    })
}

async fn within<T>(limit: Duration, work: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
    let late = || StoreError::Unreachable(format!("no answer within {} s", limit.as_secs()));
    tokio::time::timeout(limit, work).await.unwrap_or_else(|_| Err(late()))
}

/// Which lane an error of the driver takes.
pub fn error_lane(error: neo4rs::Error) -> StoreError {
    match error {
        neo4rs::Error::Neo4j(error) => lane(error.code(), error.message()),
        // The driver gives the message without its code.
        neo4rs::Error::AuthenticationError(text) if text.contains(TOO_OFTEN) => StoreError::LockedOut(text),
        neo4rs::Error::AuthenticationError(text) => StoreError::LoginRefused(text),
        neo4rs::Error::DeserializationError(_)
        | neo4rs::Error::UnsupportedVersion(..)
        | neo4rs::Error::ProtocolMismatch(_)
        | neo4rs::Error::UrlParseError(_)
        | neo4rs::Error::InvalidDnsName(_)
        | neo4rs::Error::InvalidConfig => StoreError::Rejected(error.to_string()),
        _ => StoreError::Unreachable(error.to_string()),
    }
}

/// Which lane a failure code of the server takes.
pub fn lane(code: &str, message: &str) -> StoreError {
    let text = format!("{message} ({code})");
    let login = ["Unauthorized", "CredentialsExpired", "TokenExpired"];
    let passes = [
        "Neo.TransientError.",
        "Neo.ClientError.Cluster.",
        "Neo.DatabaseError.General.",
    ];
    match code.strip_prefix("Neo.ClientError.Security.") {
        Some("AuthenticationRateLimit") => return StoreError::LockedOut(text),
        Some(kind) if login.contains(&kind) => return StoreError::LoginRefused(text),
        _ => {}
    }
    if passes.iter().any(|prefix| code.starts_with(prefix)) {
        return StoreError::Unreachable(text);
    }
    StoreError::Rejected(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sorts_codes_into_lanes() {
        assert!(matches!(
            lane("Neo.ClientError.Security.Unauthorized", ""),
            StoreError::LoginRefused(_)
        ));
        assert!(matches!(
            lane("Neo.ClientError.Security.AuthenticationRateLimit", ""),
            StoreError::LockedOut(_)
        ));
        assert!(matches!(
            lane("Neo.ClientError.Security.Forbidden", ""),
            StoreError::Rejected(_)
        ));
        assert!(matches!(
            lane("Neo.TransientError.General.DatabaseUnavailable", ""),
            StoreError::Unreachable(_)
        ));
        assert!(matches!(
            lane("Neo.ClientError.Statement.SyntaxError", ""),
            StoreError::Rejected(_)
        ));
        assert!(matches!(
            lane("Neo.ClientError.Database.DatabaseNotFound", ""),
            StoreError::Rejected(_)
        ));
    }
}
