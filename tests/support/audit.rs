//! What the operator asked of the API server, read from the audit log.

use std::{
    collections::BTreeMap,
    fmt,
    fs::File,
    io::{BufRead, BufReader, Error, Result, Seek, SeekFrom},
    path::{Path, PathBuf},
};

use serde::Deserialize;

/// How every user agent of the operator begins.
const AGENT: &str = "amas-operator/";

/// What a request is to a budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Anything on a Lease.
    Lease,
    Watch,
    List,
    Get,
    /// Creating or patching an Event. Counted as a write too.
    Event,
    /// Any other create, update, patch or delete.
    Write,
    /// Discovery, access reviews and the like: no resource of the cluster.
    Other,
}

#[derive(Clone, Debug)]
pub struct Request {
    pub class: Class,
    pub verb: String,
    /// `statefulsets`, `amasdatabases/status`.
    pub resource: String,
    pub namespace: String,
    pub name: String,
    pub code: u16,
    /// The user agent: a test may tell operators apart by what it ends with.
    pub agent: String,
    /// When it was answered (a watch: opened), as RFC 3339 with microseconds, so that texts compare as times do.
    pub at: String,
}

/// A point in the log.
pub struct Mark {
    path: PathBuf,
    offset: u64,
}

impl Mark {
    pub fn now(path: &Path) -> Result<Self> {
        let offset = std::fs::metadata(path).map_err(|error| about(path, &error))?.len();
        Ok(Self {
            path: path.to_owned(),
            offset,
        })
    }

    /// The operator's requests since the mark. A watch counts when it is opened, everything else when it is answered.
    pub fn requests(&self) -> Result<Requests> {
        let mut file = File::open(&self.path).map_err(|error| about(&self.path, &error))?;
        file.seek(SeekFrom::Start(self.offset))?;
        let mut found = Vec::new();
        for line in BufReader::new(file).lines() {
            found.extend(request(&line?));
        }
        Ok(Requests(found))
    }
}

fn about(path: &Path, error: &Error) -> Error {
    Error::new(error.kind(), format!("{}: {error}", path.display()))
}

/// One line of the log, if it is a request of the operator that counts.
pub fn request(line: &str) -> Option<Request> {
    if !line.contains(AGENT) {
        return None;
    }
    let event: Event = serde_json::from_str(line).ok()?;
    let watch = event.verb == "watch";
    let counts = if watch {
        event.stage == "ResponseStarted"
    } else {
        event.stage != "ResponseStarted"
    };
    if !event.user_agent.starts_with(AGENT) || !counts {
        return None;
    }
    let object = event.object_ref.unwrap_or_default();
    Some(Request {
        class: classify(&event.verb, &object),
        verb: event.verb,
        resource: [object.resource, object.subresource]
            .join("/")
            .trim_end_matches('/')
            .to_owned(),
        namespace: object.namespace,
        name: object.name,
        code: event.response_status.unwrap_or_default().code,
        agent: event.user_agent,
        at: event.stage_timestamp,
    })
}

fn classify(verb: &str, object: &ObjectRef) -> Class {
    let mutating = matches!(verb, "create" | "update" | "patch" | "delete" | "deletecollection");
    match object.resource.as_str() {
        "" => Class::Other,
        "leases" => Class::Lease,
        "events" if mutating => Class::Event,
        _ if object.group.ends_with("authorization.k8s.io") || object.group == "authentication.k8s.io" => Class::Other,
        _ if mutating => Class::Write,
        _ => match verb {
            "watch" => Class::Watch,
            "list" => Class::List,
            _ => Class::Get,
        },
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Event {
    stage: String,
    verb: String,
    #[serde(default)]
    user_agent: String,
    #[serde(default)]
    stage_timestamp: String,
    object_ref: Option<ObjectRef>,
    response_status: Option<ResponseStatus>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ObjectRef {
    resource: String,
    subresource: String,
    namespace: String,
    name: String,
    #[serde(rename = "apiGroup")]
    group: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ResponseStatus {
    code: u16,
}

/// Requests, to be counted.
#[derive(Clone, Default)]
pub struct Requests(pub Vec<Request>);

impl Requests {
    pub fn only(&self, classes: &[Class]) -> Self {
        Self(
            self.0
                .iter()
                .filter(|request| classes.contains(&request.class))
                .cloned()
                .collect(),
        )
    }

    /// All mutating requests but those on the lease: Events included.
    pub fn writes(&self) -> Self {
        self.only(&[Class::Write, Class::Event])
    }

    pub fn in_namespace(&self, namespace: &str) -> Self {
        Self(
            self.0
                .iter()
                .filter(|request| request.namespace == namespace)
                .cloned()
                .collect(),
        )
    }

    pub fn of(&self, resource: &str) -> Self {
        Self(
            self.0
                .iter()
                .filter(|request| request.resource == resource)
                .cloned()
                .collect(),
        )
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// One line each, for finding the one too many.
    pub fn lines(&self) -> String {
        let line = |r: &Request| format!("{} {} {}/{} {}", r.verb, r.resource, r.namespace, r.name, r.code);
        self.0.iter().map(line).collect::<Vec<_>>().join("\n")
    }

    /// How many there are of each verb and resource.
    pub fn by_kind(&self) -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::new();
        for request in &self.0 {
            let refused = if request.code >= 400 {
                format!(" ({})", request.code)
            } else {
                String::new()
            };
            *counts
                .entry(format!("{} {}{refused}", request.verb, request.resource))
                .or_default() += 1;
        }
        counts
    }
}

impl fmt::Display for Requests {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts: Vec<String> = self
            .by_kind()
            .iter()
            .map(|(kind, count)| format!("{kind} x{count}"))
            .collect();
        f.write_str(
            if counts.is_empty() {
                "nothing".to_owned()
            } else {
                counts.join(", ")
            }
            .as_str(),
        )
    }
}
