//! The mark on a role: whose it is. It is a line of the role's comment, because roles belong to the whole server, are made before
//! the database is there, and both are written in one transaction.

use serde::{Deserialize, Serialize};

use crate::stores::claim::Claim;

/// What the line begins with.
const PREFIX: &str = "amas.dev/claim ";

/// The AmasDatabase that uses a role as its own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Mark {
    cluster: String,
    namespace: String,
    name: String,
    /// We made the role, and may drop it.
    pub created_by_us: bool,
    /// On the owner, from before the database is made until its claim is written: it is of our making.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub creates_database: bool,
    /// Let go together with the database: the next one may have it, and the same one finds it again.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub released: bool,
}

impl Mark {
    pub fn new(claim: &Claim, created_by_us: bool) -> Self {
        Self {
            cluster: claim.cluster_id.clone(),
            namespace: claim.namespace.clone(),
            name: claim.name.clone(),
            created_by_us,
            creates_database: false,
            released: false,
        }
    }

    pub fn released(self, released: bool) -> Self {
        Self { released, ..self }
    }

    /// The mark in a role's comment.
    pub fn read(comment: Option<&str>) -> Option<Self> {
        let line = comment?.lines().find_map(|line| line.strip_prefix(PREFIX))?;
        serde_json::from_str(line).ok()
    }

    /// The comment with this mark in it; what people wrote there stays.
    pub fn write(&self, comment: Option<&str>) -> String {
        let theirs = comment.unwrap_or_default().lines();
        let json = serde_json::to_string(self).unwrap_or_default();
        let lines = theirs
            .filter(|line| !line.starts_with(PREFIX))
            .map(str::to_owned)
            .chain([format!("{PREFIX}{json}")]);
        lines.collect::<Vec<_>>().join("\n")
    }

    /// Of this object, or of its predecessor of the same name.
    pub fn is_of(&self, claim: &Claim) -> bool {
        (&self.cluster, &self.namespace, &self.name) == (&claim.cluster_id, &claim.namespace, &claim.name)
    }

    /// Whose it is, in words.
    pub fn holder(&self) -> String {
        format!("{}/{} of cluster {}", self.namespace, self.name, self.cluster)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_one_line_among_others() {
        let claim = Claim {
            cluster_id: "c".into(),
            namespace: "n".into(),
            name: "db".into(),
            uid: "1".into(),
        };
        let mark = Mark::new(&claim, true);
        let comment = mark.write(Some("for reports\nask Ann"));
        assert_eq!(
            comment,
            "for reports\nask Ann\namas.dev/claim {\"cluster\":\"c\",\"namespace\":\"n\",\"name\":\"db\",\"createdByUs\":true}"
        );
        assert_eq!(Mark::read(Some(&comment)), Some(mark.clone()));
        let intent = Mark {
            creates_database: true,
            ..mark.clone()
        };
        assert_eq!(Mark::read(Some(&intent.write(Some(&comment)))), Some(intent));
        assert_eq!(Mark::read(Some("amas.dev/claim nonsense")), None);
        assert!(
            mark.is_of(&claim)
                && !mark.is_of(&Claim {
                    name: "x".into(),
                    ..claim
                })
        );
    }
}
