//! Answers of the API server that are not what was written: a webhook or policy of the cluster has changed it on the way. What such an answer
//! was is remembered, so that the same is not written again and again; it counts as what was asked for until one of the two moves.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use serde_json::Value;

use super::{
    child::ChildKind,
    children::{ChildKey, Family},
};

/// So many fields are named.
const NAMED: usize = 3;

/// A hash of what was written, and of what became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Pair {
    written: u64,
    answered: u64,
}

impl Pair {
    /// What an object with this hash counts as.
    fn read(self, hash: u64) -> u64 {
        if hash == self.answered { self.written } else { hash }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Answer {
    object: Pair,
    /// Of the pod template alone.
    template: Pair,
}

/// The remembered answers, by namespace and child.
#[derive(Default)]
pub struct Answers(Mutex<HashMap<(String, ChildKey), Answer>>);

/// What an answer says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    AsWritten,
    /// Changed on the way, as it was when the same was written before.
    Known,
    /// Changed on the way; names the fields.
    Changed(String),
}

impl Answers {
    /// Takes in the answer to a write.
    pub fn take(&self, namespace: &str, kind: ChildKind, written: &Value, answer: &Value) -> Verdict {
        let name = written["metadata"]["name"].as_str().unwrap_or_default();
        let key = (namespace.to_owned(), (kind, name.to_owned()));
        let pair = |hash: &dyn Fn(&Value) -> u64| Pair {
            written: hash(written),
            answered: hash(answer),
        };
        let answer_is = Answer {
            object: pair(&|object| kind.hash(object)),
            template: pair(&|object| kind.pod_template_hash(object)),
        };
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if answer_is.object.written == answer_is.object.answered {
            all.remove(&key);
            return Verdict::AsWritten;
        }
        if all.insert(key, answer_is) == Some(answer_is) {
            return Verdict::Known;
        }
        let mut fields = Vec::new();
        differences(
            &kind.project(written),
            &kind.project(answer),
            String::new(),
            &mut fields,
        );
        let more = fields.len().saturating_sub(NAMED);
        fields.truncate(NAMED);
        let more = if more > 0 {
            format!(" and {more} more")
        } else {
            String::new()
        };
        Verdict::Changed(format!("{}{more}", fields.join(", ")))
    }

    /// Shows children that are as such an answer was, as what had been written.
    pub fn read(&self, namespace: &str, family: &mut Family) {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for ((_, child), answer) in all.iter().filter(|((of, _), _)| of == namespace) {
            let Some(seen) = family.get_mut(child) else { continue };
            seen.hash = answer.object.read(seen.hash);
            if let Some(template) = &mut seen.facts.template {
                template.hash = answer.template.read(template.hash);
            }
        }
    }

    /// Forgets the children of a database that is gone.
    pub fn forget(&self, namespace: &str, database: &str) {
        let prefix = format!("{database}-");
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|(of, (_, name)), _| of != namespace || !name.starts_with(&prefix));
    }
}

/// The paths at which two values differ.
fn differences(one: &Value, other: &Value, path: String, found: &mut Vec<String>) {
    match (one, other) {
        (Value::Object(a), Value::Object(b)) => {
            let mut names: Vec<&String> = a.keys().chain(b.keys().filter(|name| !a.contains_key(*name))).collect();
            names.sort();
            for name in names {
                let below = match path.as_str() {
                    "" => name.clone(),
                    path => format!("{path}.{name}"),
                };
                let of = |map: &serde_json::Map<String, Value>| map.get(name).cloned().unwrap_or_default();
                differences(&of(a), &of(b), below, found);
            }
        }
        (Value::Array(a), Value::Array(b)) => {
            for index in 0..a.len().max(b.len()) {
                let of = |items: &[Value]| items.get(index).cloned().unwrap_or_default();
                differences(&of(a), &of(b), format!("{path}[{index}]"), found);
            }
        }
        _ if one == other => {}
        _ => found.push(path),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::children::Children;
    use serde_json::json;

    fn set(image: &str, grace: i64) -> Value {
        json!({"metadata": {"name": "d-redis", "namespace": "n", "uid": "u", "resourceVersion": "1", "labels": {"amas.dev/database": "d"}},
            "spec": {"replicas": 1, "template": {"spec": {"terminationGracePeriodSeconds": grace, "containers": [{"name": "a", "image": image}]}}}})
    }

    fn seen(object: &Value) -> Family {
        let children = Children::default();
        children.wrote(ChildKind::StatefulSet, object);
        children.of(&("n".into(), "d".into()))
    }

    #[test]
    fn a_changed_answer_counts_as_what_was_written_until_one_of_the_two_moves() {
        const KIND: ChildKind = ChildKind::StatefulSet;
        let (answers, written, answer) = (Answers::default(), set("i", 30), set("mirror/i", 77));
        assert_eq!(answers.take("n", KIND, &written, &written), Verdict::AsWritten);
        let fields = "spec.template.spec.containers[0].image, spec.template.spec.terminationGracePeriodSeconds";
        assert_eq!(
            answers.take("n", KIND, &written, &answer),
            Verdict::Changed(fields.into())
        );
        assert_eq!(answers.take("n", KIND, &written, &answer), Verdict::Known, "told once");
        let key = (KIND, "d-redis".to_owned());
        let hashes = |object: &Value| {
            let mut family = seen(object);
            answers.read("n", &mut family);
            let seen = &family[&key];
            (seen.hash, seen.facts.template.as_ref().unwrap().hash)
        };
        let plain = |object: &Value| (KIND.hash(object), KIND.pod_template_hash(object));
        assert_eq!(hashes(&answer), plain(&written));
        let by_hand = set("mirror/i", 5);
        assert_eq!(hashes(&by_hand), plain(&by_hand), "moved by somebody else");
        assert_eq!(answers.take("n", KIND, &written, &written), Verdict::AsWritten);
        assert_eq!(hashes(&answer), plain(&answer), "forgotten");
    }
}
