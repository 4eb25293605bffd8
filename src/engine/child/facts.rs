//! What is remembered of a watched child beside its metadata and hash: the few facts that decisions are made from.

use k8s_openapi::jiff::Timestamp;
use serde_json::Value;

use super::ChildKind;
use crate::api;

/// Of what a server said before it ended, these are shown.
const LAST_LINES: usize = 5;

/// What is remembered of a watched child beyond its metadata and hash.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Facts {
    /// A short word on why a pod cannot run (`ImagePullBackOff`, `CrashLoopBackOff`, `Unschedulable`) with the server's text.
    pub trouble: Option<(String, String)>,
    /// Job: its pod ended for good, successfully (true) or not (false).
    pub finished: Option<bool>,
    /// Job: when it ended well.
    pub completed_at: Option<Timestamp>,
    /// Job: nothing collects it some time after its end.
    pub stays: bool,
    /// Pod: what its first container wrote when it ended, or one that runs before it.
    pub termination_message: Option<String>,
    /// Service: the address inside the cluster.
    pub cluster_ip: Option<String>,
    pub volume: Option<Box<Volume>>,
    /// StatefulSet: what its pods are made of, and whether the pod that runs is.
    pub template: Option<Box<PodTemplate>>,
    /// Pod: the StatefulSet's revision that it was made from.
    pub made_from: Option<String>,
    /// ConfigMap: the configuration that it holds. Pod: the one that was last sent to it.
    pub config: Option<String>,
}

/// What a PersistentVolumeClaim says of its volume.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Volume {
    /// The size that the claim asks for, and the one it has.
    pub requested: String,
    pub capacity: Option<String>,
    /// What is in it: [`api::DATA`].
    pub data: Option<String>,
    /// What Kubernetes says of a growth that is under way.
    pub resizing: Option<String>,
}

/// What a StatefulSet says of its pods.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PodTemplate {
    /// Hash of the fields of the pod template that are ours.
    pub hash: u64,
    /// The image of its first container.
    pub image: Option<String>,
    /// Annotations of ours on the StatefulSet and on the template.
    pub revision: Option<String>,
    pub image_note: Option<String>,
    pub config: Option<String>,
    pub restart: Option<String>,
    pub certificate: Option<String>,
    pub restarted_at: Option<String>,
    /// The StatefulSet's own name for the template that pods shall be made from.
    pub wanted: Option<String>,
    /// The pod is, or will be at once, made from it.
    pub rolled_out: bool,
}

pub(super) fn facts(kind: ChildKind, object: &Value) -> Facts {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    match kind {
        ChildKind::Pod => Facts {
            made_from: text(&object["metadata"]["labels"]["controller-revision-hash"]),
            config: text(&object["metadata"]["annotations"][api::CONFIG_SENT]),
            ..pod_facts(&object["status"])
        },
        ChildKind::PersistentVolumeClaim => Facts {
            volume: Some(Box::new(volume(object))),
            ..Facts::default()
        },
        ChildKind::ConfigMap => Facts {
            config: text(&object["metadata"]["annotations"][api::CONFIG]),
            ..Facts::default()
        },
        ChildKind::StatefulSet => Facts {
            template: Some(Box::new(pod_template(object))),
            ..Facts::default()
        },
        ChildKind::Job => Facts {
            finished: job_finished(&object["status"]["conditions"]),
            completed_at: text(&object["status"]["completionTime"]).and_then(|time| time.parse().ok()),
            stays: object["spec"]["ttlSecondsAfterFinished"].is_null(),
            ..Facts::default()
        },
        ChildKind::Service => Facts {
            cluster_ip: text(&object["spec"]["clusterIP"]),
            ..Facts::default()
        },
        _ => Facts::default(),
    }
}

fn volume(object: &Value) -> Volume {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let conditions = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
    let resizing = conditions
        .iter()
        .filter(|condition| condition["status"] == "True")
        .find_map(|condition| {
            let kind = text(&condition["type"])?;
            let note = condition["message"].as_str().filter(|note| !note.is_empty());
            Some(note.map_or_else(|| kind.clone(), |note| format!("{kind}: {note}")))
        });
    Volume {
        requested: text(&object["spec"]["resources"]["requests"]["storage"]).unwrap_or_default(),
        capacity: text(&object["status"]["capacity"]["storage"]),
        data: text(&object["metadata"]["annotations"][api::DATA]),
        resizing,
    }
}

pub fn pod_template(object: &Value) -> PodTemplate {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let (notes, template, status) = (
        &object["metadata"]["annotations"],
        &object["spec"]["template"],
        &object["status"],
    );
    let annotations = &template["metadata"]["annotations"];
    let number = |value: &Value| value.as_i64().unwrap_or_default();
    let seen = number(&status["observedGeneration"]) >= number(&object["metadata"]["generation"]);
    let all = status["currentRevision"] == status["updateRevision"] || number(&status["updatedReplicas"]) > 0;
    PodTemplate {
        hash: ChildKind::StatefulSet.pod_template_hash(object),
        image: text(&template["spec"]["containers"][0]["image"]),
        revision: text(&notes[api::TEMPLATE_REVISION]),
        image_note: text(&notes[api::IMAGE]),
        config: text(&annotations[api::CONFIG]),
        restart: text(&annotations[api::RESTART]),
        certificate: text(&annotations[api::CERTIFICATE]),
        restarted_at: text(&annotations[api::RESTARTED_AT]),
        wanted: text(&status["updateRevision"]),
        rolled_out: seen && all,
    }
}

fn job_finished(conditions: &Value) -> Option<bool> {
    let is_true = |kind: &str| {
        let list = conditions.as_array().map(Vec::as_slice).unwrap_or_default();
        list.iter()
            .any(|condition| condition["type"] == kind && condition["status"] == "True")
    };
    if is_true("Complete") || is_true("SuccessCriteriaMet") {
        return Some(true);
    }
    (is_true("Failed") || is_true("FailureTarget")).then_some(false)
}

fn pod_facts(status: &Value) -> Facts {
    let items = |name: &str| status[name].as_array().cloned().unwrap_or_default();
    let containers: Vec<Value> = items("initContainerStatuses")
        .into_iter()
        .chain(items("containerStatuses"))
        .collect();
    let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let waiting = containers
        .iter()
        .map(|container| &container["state"]["waiting"])
        .find(|waiting| {
            let reason = waiting["reason"].as_str().unwrap_or_default();
            !matches!(reason, "" | "ContainerCreating" | "PodInitializing")
        });
    let unscheduled = items("conditions")
        .into_iter()
        .find(|condition| condition["type"] == "PodScheduled" && condition["status"] == "False");
    // What the server said last, where it ended by an error: more to the point than how long the kubelet waits.
    let last_words = containers
        .iter()
        .find_map(|container| container["lastState"]["terminated"]["message"].as_str())
        .map(last_words);
    let trouble = match (waiting, unscheduled) {
        (Some(waiting), _) if waiting["reason"] == "CrashLoopBackOff" => Some((
            word(&waiting["reason"]),
            last_words.unwrap_or_else(|| word(&waiting["message"])),
        )),
        (Some(waiting), _) => Some((word(&waiting["reason"]), word(&waiting["message"]))),
        (None, Some(condition)) => Some(("Unschedulable".to_owned(), word(&condition["message"]))),
        (None, None) => None,
    };
    let message = |container: &Value| Some(container["state"]["terminated"]["message"].as_str()?.to_owned());
    let before = || items("initContainerStatuses").iter().find_map(message);
    let termination_message = items("containerStatuses").first().and_then(message).or_else(before);
    Facts {
        trouble,
        termination_message,
        ..Facts::default()
    }
}

/// The last lines of a log that say something: where in a Java program it was does not.
fn last_words(log: &str) -> String {
    let frame = |line: &&str| line.starts_with("at ") || (line.starts_with("... ") && line.ends_with(" more"));
    let lines = log
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !frame(line));
    let mut last: Vec<&str> = lines.rev().take(LAST_LINES).collect();
    last.reverse();
    last.join(" / ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_pod_s_last_word_is_its_container_s_or_that_of_one_before_it() {
        let ended = |message: Option<&str>| json!({"state": {"terminated": {"message": message}}});
        let message = |first: Value, main: Value| {
            let status = json!({"initContainerStatuses": [ended(None), first], "containerStatuses": [main]});
            facts(ChildKind::Pod, &json!({"status": status})).termination_message
        };
        let waits = json!({"state": {"waiting": {"reason": "PodInitializing"}}});
        assert_eq!(message(ended(Some("first")), waits).as_deref(), Some("first"));
        assert_eq!(message(ended(None), ended(Some("main"))).as_deref(), Some("main"));
        assert_eq!(message(ended(None), ended(None)), None);
    }

    #[test]
    fn a_job_without_a_time_to_live_stays() {
        let stays = |spec: Value| facts(ChildKind::Job, &json!({"spec": spec})).stays;
        assert!(stays(json!({})) && !stays(json!({"ttlSecondsAfterFinished": 1})));
    }

    #[test]
    fn the_last_words_of_a_server_are_its_own() {
        let neo4j = "Exception in thread \"main\" java.lang.IllegalArgumentException: Unrecognized setting. No declared setting with name: db.x.\n\
                     \tat org.neo4j.configuration.Config.<init>(Config.java:672)\n\tat org.neo4j.server.NeoBootstrapper.start(NeoBootstrapper.java:100)\n\
                     Caused by: java.lang.Error: y\n\t... 6 more\n\n2026-11-26 INFO Stopped.\n";
        assert_eq!(
            last_words(neo4j),
            "Exception in thread \"main\" java.lang.IllegalArgumentException: Unrecognized setting. No declared setting with name: db.x. / \
             Caused by: java.lang.Error: y / 2026-11-26 INFO Stopped."
        );
        let redis = "*** FATAL CONFIG FILE ERROR (Redis 7.0.15) ***\nReading the configuration file, at line 4\n>>> 'hz \"x\"'\nnot an integer\n";
        assert!(last_words(redis).ends_with(">>> 'hz \"x\"' / not an integer"));
        assert_eq!(last_words("1\n2\n3\n4\n5\n6\n7"), "3 / 4 / 5 / 6 / 7");
    }
}
