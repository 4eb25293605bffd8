//! Writes the children but for the Secrets, and takes in what became of each.

use k8s_openapi::api::core::v1::ObjectReference;
use kube::Resource;
use serde_json::{Value, json};

use super::Done;
use crate::{
    api::{CONFIG_SENT, amas_database::AmasDatabase},
    controllers::{Context, database::jobs},
    engine::{
        answers::Verdict,
        child::ChildKind,
        events::News,
        writer::{Created, WriteError},
    },
    stores::workload::Family,
};

/// The children of one object.
#[derive(Clone, Copy)]
pub(super) struct Children<'a> {
    pub context: &'a Context,
    pub object: &'a AmasDatabase,
    pub family: &'a Family,
}

impl Children<'_> {
    fn namespace(&self) -> &str {
        &self.family.namespace
    }

    pub async fn create(&self, kind: ChildKind, body: &Value) -> Result<Done, WriteError> {
        let context = self.context;
        let created = context
            .writer
            .create(kind, self.namespace(), &self.family.database, body);
        match created.await? {
            Created::New(made) => {
                context.brought.to(self.namespace(), kind, body);
                self.take_answer(kind, body, &made).await;
            }
            Created::Ours(found) => {
                context.brought.to(self.namespace(), kind, body);
                context.children.wrote(kind, &found);
            }
            Created::Foreign => {
                context.taken.remember(self.namespace(), kind, name_of(body));
                return Ok(Done::Taken);
            }
        }
        Ok(Done::Yes)
    }

    pub async fn update(&self, kind: ChildKind, body: &Value) -> Result<(), WriteError> {
        let updated = self.context.writer.update(kind, self.namespace(), body).await?;
        let as_written = self.take_answer(kind, body, &updated).await;
        if self.was_moved(kind, body) && as_written {
            let name = name_of(body);
            let note = format!("{kind:?} {name} had been changed, and is as specified again");
            self.tell(false, "Corrected", (kind, name), note).await;
        }
        Ok(())
    }

    pub async fn replace(&self, body: &Value, why: &str) -> Result<(), WriteError> {
        let kind = ChildKind::StatefulSet;
        let updated = self.context.writer.update(kind, self.namespace(), body).await?;
        self.take_answer(kind, body, &updated).await;
        self.tell_of_restart((kind, name_of(body)), why).await;
        Ok(())
    }

    pub async fn grow(&self, body: &Value) -> Result<(), WriteError> {
        let kind = ChildKind::PersistentVolumeClaim;
        let size = &body["spec"]["resources"]["requests"]["storage"];
        let key = (name_of(body).to_owned(), size.as_str().unwrap_or_default().to_owned());
        match self.context.writer.update(kind, self.namespace(), body).await {
            Ok(updated) => self.context.children.wrote(kind, &updated),
            // The server's pod goes on as it is, and so does everything else of this object.
            Err(error) => match error.refusal().map(str::to_owned) {
                Some(why) => self.context.growth.refused(self.namespace(), key, &why),
                None => return Err(error),
            },
        }
        Ok(())
    }

    pub async fn send_config(&self, pod: &str, config: &str) -> Result<(), WriteError> {
        let patch = json!({"metadata": {"annotations": {CONFIG_SENT: config}}});
        self.patch(ChildKind::Pod, pod, patch).await
    }

    pub async fn keep_job(&self, job: &str, stays: bool) -> Result<(), WriteError> {
        self.patch(ChildKind::Job, job, jobs::lifetime(stays)).await
    }

    /// Changes one that may be gone by now.
    async fn patch(&self, kind: ChildKind, name: &str, patch: Value) -> Result<(), WriteError> {
        let patched = self.context.writer.patch(kind, self.namespace(), name, patch);
        match patched.await? {
            Some(patched) => self.context.children.wrote(kind, &patched),
            None => self.forget(kind, name),
        }
        Ok(())
    }

    pub async fn restart(&self, pod: &str, why: &str) -> Result<(), WriteError> {
        self.delete(ChildKind::Pod, pod).await?;
        self.tell_of_restart((ChildKind::Pod, pod), why).await;
        Ok(())
    }

    pub async fn delete(&self, kind: ChildKind, name: &str) -> Result<(), WriteError> {
        self.context.writer.delete(kind, self.namespace(), name).await?;
        self.forget(kind, name);
        Ok(())
    }

    fn forget(&self, kind: ChildKind, name: &str) {
        let owner = (self.family.namespace.clone(), self.family.database.clone());
        self.context.children.forget(&owner, &(kind, name.to_owned()));
    }

    /// Takes in what became of a write. False where the cluster has made something else of it, which is told once.
    async fn take_answer(&self, kind: ChildKind, body: &Value, answer: &Value) -> bool {
        let namespace = self.namespace();
        let verdict = self.context.answers.take(namespace, kind, body, answer);
        self.context.children.wrote(kind, answer);
        if let Verdict::Changed(fields) = &verdict {
            let name = name_of(body);
            tracing::warn!(
                namespace,
                ?kind,
                name,
                fields,
                "a webhook or policy of the cluster changes what is written"
            );
            let note = format!(
                "{kind:?} {name}: a webhook or policy of the cluster changes {fields}; it is left so until that or the specification changes"
            );
            self.tell(true, "ChildMutated", (kind, name), note).await;
        }
        verdict == Verdict::AsWritten
    }

    /// Whether somebody else has changed a child that we now put right: we had brought it to the same before. Of what a process before
    /// this one did only the generation tells, and for a ConfigMap not even that, since policies have their part in it.
    fn was_moved(&self, kind: ChildKind, body: &Value) -> bool {
        let status = self.object.status.as_ref();
        let observed = status.and_then(|status| status.observed_generation);
        match self.context.brought.to(self.namespace(), kind, body) {
            Some(before) => before == kind.hash(body),
            None => kind != ChildKind::ConfigMap && observed == self.object.meta().generation,
        }
    }

    async fn tell_of_restart(&self, child: (ChildKind, &str), why: &str) {
        let note = format!("{} restarts: {why}", child.1);
        self.tell(false, "Restarting", child, note).await;
    }

    async fn tell(&self, warning: bool, reason: &str, (kind, name): (ChildKind, &str), note: String) {
        let resource = kind.api_resource();
        let child = ObjectReference {
            api_version: Some(resource.api_version),
            kind: Some(resource.kind),
            namespace: Some(self.namespace().to_owned()),
            name: Some(name.to_owned()),
            ..ObjectReference::default()
        };
        let news = News {
            warning,
            reason: reason.into(),
            note,
        };
        self.context.events.publish_about(self.object, Some(child), &news).await;
    }
}

fn name_of(body: &Value) -> &str {
    body["metadata"]["name"].as_str().unwrap_or_default()
}
