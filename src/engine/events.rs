//! Kubernetes Events: one recorder for the process, under the same lease and counters as every other write.

use k8s_openapi::api::core::v1::ObjectReference;
use kube::{
    Client,
    runtime::events::{Event, EventType, Recorder, Reporter},
};

use super::{MANAGER, Own, writer::Writer};
use crate::api::conditions::shorten;

/// The longest note that the API takes.
const NOTE_LIMIT: usize = 1024;

/// Publishes Events.
#[derive(Clone)]
pub struct Events {
    recorder: Recorder,
    writer: Writer,
}

/// What is told of an object: a word to match on, and a sentence.
#[derive(Clone, Debug, PartialEq)]
pub struct News {
    pub warning: bool,
    pub reason: String,
    pub note: String,
}

impl Events {
    pub fn new(client: Client, writer: Writer, instance: &str) -> Self {
        let reporter = Reporter {
            controller: MANAGER.into(),
            instance: Some(instance.into()),
        };
        Self {
            recorder: Recorder::new(client, reporter),
            writer,
        }
    }

    /// Publishes one Event. A failure is logged and not retried: conditions tell the same, for longer.
    pub async fn publish<K: Own>(&self, object: &K, news: &News) {
        self.publish_about(object, None, news).await;
    }

    /// The same of a child of the object. Each child has an Event of its own: as one series, all but the first would go without a name, and those
    /// that are told at the same time without being counted.
    pub async fn publish_about<K: Own>(&self, object: &K, child: Option<ObjectReference>, news: &News) {
        let reference: ObjectReference = object.object_ref(&());
        let event = Event {
            type_: if news.warning {
                EventType::Warning
            } else {
                EventType::Normal
            },
            reason: news.reason.clone(),
            note: Some(shorten(&news.note, NOTE_LIMIT)),
            action: "Reconcile".into(),
            secondary: child,
        };
        let what = format!(
            "Event {} about {} {}",
            news.reason,
            K::KIND,
            object.meta().name.as_deref().unwrap_or_default()
        );
        if let Err(error) = self
            .writer
            .write_as(
                "create",
                "events".into(),
                &what,
                self.recorder.publish(&event, &reference),
            )
            .await
        {
            tracing::warn!(%error, "an Event could not be published");
        }
    }
}
