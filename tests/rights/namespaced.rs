//! Rights that end with their namespace: no finalizer holds anything back, and what happens to one namespace is nothing to the next.

use std::time::{Duration, Instant};

use kube::{
    ResourceExt,
    api::{DeleteParams, DynamicObject},
};
use serde_json::json;

use crate::{
    life::{Life, OURS, PATIENCE, SECOND, WORK, all_stores},
    support::{
        kubernetes::condition_of,
        postgres::Postgres,
        process::{Process, eventually},
    },
};

/// The chart's role in a namespace and its binding.
const ROLE: &str = "amas-operator";
/// How long a namespace may not be asked whether it lets us in now.
const UNTIL_ASKED_AGAIN: Duration = Duration::from_secs(60);
const RBAC: &str = "rbac.authorization.k8s.io/v1";

impl Life<'_> {
    /// Made and deleted. The operator runs on.
    pub async fn short(&self) -> Process {
        let operator = self.operator();
        self.ours("AmasDatabase", "db", all_stores()).await;
        self.until("create", "statefulsets").await;
        self.policies().await;
        self.left_to_its_owner("db").await;
        operator
    }

    /// What has to go with the object has it as owner, so the garbage collector (which does not run here) deletes it: the object waits for nobody.
    async fn left_to_its_owner(&self, name: &str) {
        let api = self.cluster.api(OURS, "AmasDatabase", WORK);
        let uid = api.get(name).await.unwrap().uid();
        for (kind, least) in [("PersistentVolumeClaim", 3), ("Secret", 3)] {
            let owned = |child: &DynamicObject| {
                let owners = child.owner_references().iter();
                owners.map(|owner| Some(owner.uid.clone())).collect::<Vec<_>>() == [uid.clone()]
            };
            eventually(&format!("each {kind} has its owner"), PATIENCE, async || {
                let all = self.children_of("v1", kind, name).await;
                all.len() >= least && all.iter().all(owned)
            })
            .await;
        }
        let object = api.get(name).await.unwrap();
        assert!(object.finalizers().is_empty(), "{:?}", object.finalizers());
        api.delete(name, &DeleteParams::default()).await.unwrap();
        assert!(api.get_opt(name).await.unwrap().is_none(), "nothing holds it back");
        for resource in ["persistentvolumeclaims", "secrets"] {
            assert_eq!(self.count("delete", resource), 0, "{resource}: the garbage collector's");
        }
    }

    async fn children_of(&self, version: &str, kind: &str, database: &str) -> Vec<DynamicObject> {
        let mut children = self.children(version, kind).await;
        children.retain(|child| child.labels()["amas.dev/database"] == database);
        children
    }

    /// The rights in the first namespace go, as they do with the namespace; the operator has found that out when this returns.
    pub async fn lose_rights(&self) {
        let bindings = self.cluster.api(RBAC, "RoleBinding", WORK);
        bindings.delete(ROLE, &DeleteParams::default()).await.unwrap();
        let redis = json!({"redis": {"managed": {"storage": {"size": "1Gi"}}}});
        self.ours("AmasDatabase", "refused", redis).await;
        eventually("the operator is refused", PATIENCE, async || {
            let all = self.cluster.requests();
            all.iter().any(|request| request.refused && request.namespace == WORK)
        })
        .await;
    }

    /// The first namespace is deleted, and gone when this returns: how long that took.
    pub async fn drop_namespace(&self) -> Duration {
        let namespaces = self.cluster.api("v1", "Namespace", "");
        let begun = Instant::now();
        namespaces.delete(WORK, &DeleteParams::default()).await.unwrap();
        eventually("the namespace is gone", PATIENCE, async || {
            namespaces.get_opt(WORK).await.unwrap().is_none()
        })
        .await;
        begun.elapsed()
    }

    /// They are back, and what was refused is done.
    pub async fn regain_rights(&self) {
        let subject = json!({"kind": "ServiceAccount", "name": ROLE, "namespace": "amas-system"});
        let role = json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": ROLE});
        let binding = json!({"apiVersion": RBAC, "kind": "RoleBinding", "metadata": {"name": ROLE, "namespace": WORK},
            "roleRef": role, "subjects": [subject]});
        self.cluster.apply(WORK, binding).await;
        eventually("what was refused is done", UNTIL_ASKED_AGAIN + PATIENCE, async || {
            self.children_of("apps/v1", "StatefulSet", "refused").await.len() == 1
        })
        .await;
    }

    /// An object of the second namespace becomes Ready.
    pub async fn serve_in_the_second(&self, server: &Postgres, name: &str) {
        server.admin("postgres", &[&format!("CREATE DATABASE {name}")]).await;
        let uri = format!("postgresql://postgres:p@127.0.0.1:{}/postgres", server.port);
        let secret =
            json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "server"}, "stringData": {"uri": uri}});
        self.cluster.apply(SECOND, secret).await;
        let external = json!({"secretRef": {"name": "server"}, "tls": {"mode": "Disable"}});
        let object = json!({"apiVersion": OURS, "kind": "AmasDatabase", "metadata": {"name": name},
            "spec": {"postgres": {"external": external, "database": name}}});
        self.cluster.apply(SECOND, object).await;
        let objects = self.cluster.api(OURS, "AmasDatabase", SECOND);
        eventually(
            &format!("{name} in the second namespace is Ready"),
            PATIENCE,
            async || {
                let object = objects.get(name).await.unwrap();
                condition_of(&object.data, "Ready").is_some_and(|ready| ready["status"] == "True")
            },
        )
        .await;
    }
}
