//! The Redis server that the operator runs: image contract and configuration. Pure.

use crate::{
    api::{
        cache_policy::Eviction,
        redis::{ManagedRedis, Persistence},
    },
    stores::workload::{Config, Family, Image, Reload, SecretFile, Workload},
};

pub const PORT: u16 = 6379;
pub const USER: &str = "default";
/// Key of the connection Secret that holds the user's line with the password's hash; the server sees no clear password.
pub const ACL_KEY: &str = "users.acl";

/// What a running server cannot take up.
fn base(spec: &ManagedRedis) -> String {
    let persistence = match spec.persistence {
        Persistence::AOF => "appendonly yes\nappendfsync everysec\nsave \"\"\n",
        Persistence::RDB => "appendonly no\nsave 900 1 300 10 60 10000\n",
        Persistence::None => "appendonly no\nsave \"\"\n",
    };
    format!("port {PORT}\nbind * -::*\nprotected-mode no\ndir /data\naclfile /run/amas/{ACL_KEY}\n{persistence}")
}

/// What the server needs. Eviction is also set while it runs, so a change of it does not replace the pod.
pub fn workload(family: &Family, spec: &ManagedRedis, eviction: Option<&Eviction>, image: Image) -> Workload {
    let base = base(spec);
    let eviction = eviction.map(|eviction| {
        format!(
            "maxmemory {}\nmaxmemory-policy {}\n",
            eviction.max_memory.value(),
            eviction.policy.as_str()
        )
    });
    Workload {
        component: "redis",
        application: "redis",
        version: spec.version.clone(),
        image: image.name,
        image_source: image.source,
        user: 999,
        command: ["redis-server", "/etc/redis/redis.conf"].map(Into::into).into(),
        environment: Vec::new(),
        config: Config::Files {
            folder: "/etc/redis",
            files: [("redis.conf", base.clone() + &eviction.unwrap_or_default())].into(),
        },
        reload: Reload::AllBut(base),
        secret: SecretFile {
            secret: family.child_name("redis-connection"),
            key: ACL_KEY,
            folder: "/run/amas",
        },
        prepare: None,
        data_folder: "/data",
        scratch: vec!["/tmp"],
        read_only_root: true,
        ports: vec![("redis", PORT)],
        grace_seconds: 30,
        storage: spec.storage.clone(),
        resources: spec.resources.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stores::workload::ImageSource;
    use serde_json::json;

    fn image() -> Image {
        Image {
            name: "i".into(),
            source: ImageSource::Table,
        }
    }

    #[test]
    fn eviction_is_in_the_file_but_does_not_restart() {
        let family = Family {
            namespace: "n".into(),
            database: "d".into(),
            uid: "u".into(),
        };
        let spec: ManagedRedis = serde_json::from_value(json!({"storage": {"size": "1Gi"}})).unwrap();
        let eviction: Eviction =
            serde_json::from_value(json!({"maxMemory": "200Mi", "policy": "volatile-lru"})).unwrap();
        let (without, with) = (
            workload(&family, &spec, None, image()),
            workload(&family, &spec, Some(&eviction), image()),
        );
        let Config::Files { files, .. } = &with.config else {
            panic!("files")
        };
        assert!(files["redis.conf"].ends_with("maxmemory 209715200\nmaxmemory-policy volatile-lru\n"));
        assert!(files["redis.conf"].contains("appendonly yes"));
        assert_eq!(without.reload, with.reload);
    }
}
