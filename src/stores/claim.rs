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
    /// When its holder let it go: whoever comes next may have it. The record stays, so that the same object finds what it made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub released: Option<Timestamp>,
}

/// What a store's claim means for us.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClaimVerdict {
    /// Ours; nothing to write.
    Ours,
    /// Nobody's, released, our predecessor's of the same name, or to be taken over: ours is to be written.
    /// `since`: as it stands in a record of the same name.
    Write {
        created_by_us: bool,
        since: Option<Timestamp>,
    },
    /// Somebody else's; nothing may be done on this server. The text names the holder.
    Foreign(String),
}

/// What became of somebody's claim when it is not ours: the text that a store cannot be read as one.
const UNREADABLE: &str = "claimed by something that wrote no readable claim";

impl Claim {
    /// Decides from the text that a store holds, absent when there is none. `take_over`: a person has said that it shall be ours.
    pub fn judge(&self, found: Option<&str>, created_by_us: bool, take_over: bool) -> ClaimVerdict {
        match found.map(serde_json::from_str::<ClaimRecord>) {
            None => self.judge_record(None, created_by_us, take_over),
            Some(Ok(record)) => self.judge_record(Some(&record), created_by_us, take_over),
            Some(Err(_)) if take_over => ClaimVerdict::Write {
                created_by_us: false,
                since: None,
            },
            Some(Err(_)) => ClaimVerdict::Foreign(UNREADABLE.into()),
        }
    }

    /// The same from a record. What somebody else's record calls its own making is never ours to drop.
    pub fn judge_record(&self, found: Option<&ClaimRecord>, created_by_us: bool, take_over: bool) -> ClaimVerdict {
        let write = |created_by_us, since| ClaimVerdict::Write { created_by_us, since };
        match found {
            None => write(created_by_us, None),
            Some(record) if record.claim == *self && record.released.is_none() => ClaimVerdict::Ours,
            Some(record) if record.claim.same_object_name(self) => write(record.created_by_us, Some(record.since)),
            Some(record) if record.released.is_some() || take_over => write(false, None),
            Some(record) => ClaimVerdict::Foreign(format!("claimed by {} since {}", record.claim, record.since)),
        }
    }

    /// Our record, to be written.
    pub fn record(&self, created_by_us: bool, since: Timestamp) -> ClaimRecord {
        ClaimRecord {
            claim: self.clone(),
            created_by_us,
            since,
            released: None,
        }
    }

    /// Same place and name: ours, or our predecessor's of that name.
    pub fn same_object_name(&self, other: &Self) -> bool {
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

    fn stored(cluster: &str, uid: &str, released: bool) -> String {
        let record = ClaimRecord {
            released: released.then_some(Timestamp::UNIX_EPOCH),
            ..claim(cluster, uid).record(true, Timestamp::UNIX_EPOCH)
        };
        serde_json::to_string(&record).unwrap()
    }

    #[test]
    fn decides_who_owns() {
        let ours = claim("c1", "u1");
        let write = |created_by_us, since| ClaimVerdict::Write { created_by_us, since };
        let epoch = Some(Timestamp::UNIX_EPOCH);
        let foreign = ClaimVerdict::Foreign("claimed by agents/amas of cluster c2 since 1970-01-01T00:00:00Z".into());
        let unreadable = ClaimVerdict::Foreign(UNREADABLE.into());
        let cases = [
            (None, false, write(false, None), "nobody's"),
            (Some(stored("c1", "u1", false)), false, ClaimVerdict::Ours, "ours"),
            (
                Some(stored("c1", "old", false)),
                false,
                write(true, epoch),
                "adoption keeps what the record says",
            ),
            (
                Some(stored("c1", "u1", true)),
                false,
                write(true, epoch),
                "ours, released before",
            ),
            (Some(stored("c2", "u1", false)), false, foreign, "somebody else's"),
            (
                Some(stored("c2", "u1", true)),
                false,
                write(false, None),
                "released by somebody else",
            ),
            (
                Some(stored("c2", "u1", false)),
                true,
                write(false, None),
                "taken over: not our making",
            ),
            (Some("nonsense".into()), false, unreadable, "unreadable"),
            (
                Some("nonsense".into()),
                true,
                write(false, None),
                "unreadable, taken over",
            ),
        ];
        for (found, take_over, expected, what) in cases {
            assert_eq!(ours.judge(found.as_deref(), false, take_over), expected, "{what}");
        }
    }

    #[test]
    fn has_stable_keys() {
        assert_eq!(
            stored("c", "u", false),
            r#"{"cluster":"c","namespace":"agents","name":"amas","uid":"u","createdByUs":true,"since":"1970-01-01T00:00:00Z"}"#
        );
    }
}
