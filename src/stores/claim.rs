//! Who a server belongs to: the mark that keeps two objects (or two clusters) from managing one server.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// The identity an AmasDatabase writes into its stores.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Claim {
    /// The uid of the namespace `kube-system`, or the configured cluster id.
    #[serde(rename = "cluster")]
    pub cluster_id: String,
    pub namespace: String,
    pub name: String,
    /// The uid of the AmasDatabase; a new uid under the same cluster, namespace and name is an adoption.
    pub uid: String,
}

/// A claim as it lies in a store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClaimRecord {
    #[serde(flatten)]
    pub claim: Claim,
    /// Whether what holds the claim was made by us, and may be dropped by us.
    pub created_by_us: bool,
    pub since: Timestamp,
}

/// What a store's claim means for us.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClaimVerdict {
    /// Ours; nothing to write.
    Ours,
    /// Nobody's, or our predecessor's of the same name: this record is to be written.
    Write(ClaimRecord),
    /// Somebody else's; nothing may be done on this server. The text names the holder.
    Foreign(String),
}

impl Claim {
    /// Decides from what was found. `found` is the stored text, absent when there is none.
    pub fn judge(&self, found: Option<&str>, created_by_us: bool, now: Timestamp) -> ClaimVerdict {
        let Some(text) = found else {
            return ClaimVerdict::Write(ClaimRecord {
                claim: self.clone(),
                created_by_us,
                since: now,
            });
        };
        match serde_json::from_str::<ClaimRecord>(text) {
            Ok(record) if record.claim == *self => ClaimVerdict::Ours,
            Ok(record) if record.claim.same_object_name(self) => ClaimVerdict::Write(ClaimRecord {
                claim: self.clone(),
                ..record
            }),
            Ok(record) => ClaimVerdict::Foreign(format!("claimed by {} since {}", record.claim, record.since)),
            Err(_) => ClaimVerdict::Foreign("claimed by something that wrote no readable claim".into()),
        }
    }

    fn same_object_name(&self, other: &Self) -> bool {
        (&self.cluster_id, &self.namespace, &self.name) == (&other.cluster_id, &other.namespace, &other.name)
    }
}

impl std::fmt::Display for Claim {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{} of cluster {}", self.namespace, self.name, self.cluster_id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(cluster: &str, uid: &str) -> Claim {
        Claim {
            cluster_id: cluster.into(),
            namespace: "agents".into(),
            name: "amas".into(),
            uid: uid.into(),
        }
    }

    fn stored(cluster: &str, uid: &str) -> String {
        let record = ClaimRecord {
            claim: claim(cluster, uid),
            created_by_us: true,
            since: Timestamp::UNIX_EPOCH,
        };
        serde_json::to_string(&record).unwrap()
    }

    #[test]
    fn decides_who_owns() {
        let ours = claim("c1", "u1");
        let written = |uid: &str, created_by_us| {
            ClaimVerdict::Write(ClaimRecord {
                claim: claim("c1", uid),
                created_by_us,
                since: Timestamp::UNIX_EPOCH,
            })
        };
        let judge = |found: Option<&str>| ours.judge(found, false, Timestamp::UNIX_EPOCH);
        assert_eq!(judge(None), written("u1", false));
        assert_eq!(judge(Some(&stored("c1", "u1"))), ClaimVerdict::Ours);
        assert_eq!(
            judge(Some(&stored("c1", "old"))),
            written("u1", true),
            "adoption keeps what the record says"
        );
        let foreign = ClaimVerdict::Foreign("claimed by agents/amas of cluster c2 since 1970-01-01T00:00:00Z".into());
        assert_eq!(judge(Some(&stored("c2", "u1"))), foreign);
        assert!(matches!(judge(Some("nonsense")), ClaimVerdict::Foreign(_)));
    }

    #[test]
    fn has_stable_keys() {
        assert_eq!(
            stored("c", "u"),
            r#"{"cluster":"c","namespace":"agents","name":"amas","uid":"u","createdByUs":true,"since":"1970-01-01T00:00:00Z"}"#
        );
    }
}
