//! The Redis or Valkey server that the operator runs: image contract and configuration. Pure.

use crate::{
    api::{
        cache_policy::Eviction,
        common::ManagedTls,
        redis::{ManagedRedis, Persistence},
    },
    stores::{
        redis::{
            parameters::{is_read_at_start, lines},
            programs,
        },
        workload::{CERTIFICATES, Config, Family, Image, Reload, SecretFile, Workload},
    },
};

pub const PORT: u16 = 6379;
/// Where an encrypted server speaks TLS.
pub const TLS_PORT: u16 = 6380;
pub const USER: &str = "default";
/// Key of the connection Secret that holds the user's line with the password's hash; the server sees no clear password.
pub const ACL_KEY: &str = "users.acl";

/// What a running server cannot take up.
fn base(spec: &ManagedRedis) -> String {
    let at_start = spec.parameters.iter().filter(|(name, _)| is_read_at_start(name));
    let persistence = match spec.persistence {
        Persistence::AOF => "appendonly yes\nappendfsync everysec\nsave \"\"\n",
        Persistence::RDB => "appendonly no\nsave 900 1 300 10 60 10000\n",
        Persistence::None => "appendonly no\nsave \"\"\n",
    };
    format!(
        "port {PORT}\nbind * -::*\nprotected-mode no\ndir /data\naclfile /run/amas/{ACL_KEY}\n{persistence}{}",
        lines(at_start)
    )
}

/// What an encrypted server is told beside the rest. The port that is probed comes first.
pub fn encrypt(workload: &mut Workload, tls: &ManagedTls) {
    let mut more = format!(
        "tls-port {TLS_PORT}\ntls-auth-clients no\ntls-cert-file {CERTIFICATES}/tls.crt\ntls-key-file {CERTIFICATES}/tls.key\n"
    );
    if tls.required {
        more += "port 0\n";
        workload.ports.clear();
    }
    workload.ports.push(("redis-tls", TLS_PORT));
    if let Config::Files { files, .. } = &mut workload.config {
        for file in files.values_mut() {
            file.push_str(&more);
        }
    }
    if let Reload::AllBut(base) = &mut workload.reload {
        base.push_str(&more);
    }
    workload.encrypted = true;
}

/// What the server needs. Eviction is also set while it runs, so a change of it does not replace the pod.
pub fn workload(family: &Family, spec: &ManagedRedis, eviction: Option<&Eviction>, image: Image) -> Workload {
    let (base, program) = (base(spec), programs::of(spec.engine));
    let live = lines(spec.parameters.iter().filter(|(name, _)| !is_read_at_start(name)));
    let eviction = eviction.map(|eviction| {
        format!(
            "maxmemory {}\nmaxmemory-policy {}\n",
            eviction.max_memory.value(),
            eviction.policy.as_str()
        )
    });
    Workload {
        component: "redis",
        application: program.name,
        version: spec.version.clone(),
        image: image.name,
        image_source: image.source,
        user: program.user,
        command: vec![program.server.into(), format!("{}/redis.conf", program.config_folder)],
        environment: Vec::new(),
        config: Config::Files {
            folder: program.config_folder,
            files: [("redis.conf", base.clone() + &live + &eviction.unwrap_or_default())].into(),
        },
        reload: Reload::AllBut(base),
        secret: SecretFile {
            secret: family.child_name("redis-connection"),
            key: ACL_KEY,
            folder: "/run/amas",
        },
        encrypted: false,
        certificate: None,
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
    use crate::{
        api::{amas_database::AmasDatabase, redis::RedisEngine},
        stores::{images::Images, workload::ImageSource},
    };
    use serde_json::json;

    fn image() -> Image {
        Image {
            name: "i".into(),
            source: ImageSource::Table,
        }
    }

    #[test]
    fn versions_that_are_accepted_have_an_image_and_the_others_are_refused() {
        for engine in [RedisEngine::Redis, RedisEngine::Valkey] {
            for version in ["7", "8"] {
                let managed = json!({"engine": engine, "version": version, "storage": {"size": "1Gi"}});
                let object = json!({"apiVersion": "amas.dev/v1alpha1", "kind": "AmasDatabase", "metadata": {"name": "d"}, "spec": {"redis": {"managed": managed}}});
                let object: AmasDatabase = serde_json::from_value(object).unwrap();
                let image = Images::default().of(programs::of(engine).name, version);
                assert_eq!(image.is_some(), object.validate_cel().is_ok(), "{engine:?} {version}");
            }
        }
    }

    #[test]
    fn eviction_is_in_the_file_but_does_not_restart() {
        let family = Family {
            namespace: "n".into(),
            database: "d".into(),
            uid: "u".into(),
            data_goes: false,
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
