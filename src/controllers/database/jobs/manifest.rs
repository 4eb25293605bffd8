//! What a migration Job looks like. Pure.

use serde_json::{Value, json};

use super::{
    Seeds,
    encryption::{certificates, environment},
    first::{self, BACKUPS, PROGRAM},
};
use crate::{
    api::{
        amas_database::AmasDatabaseSpec,
        migrations::{BackupBefore, ImageSource, MigrationSource, OnFailure, SeedHash, SeedProfile},
    },
    controllers::database::{external, validate::role_secret},
    migrate::{plan::Direction, report::final_codes},
    stores::workload::{Family, add_pod_settings, pod_labels, security},
};

/// Where a Job has the files of a source that is no bundle.
pub(super) const SOURCE: &str = "/run/amas/source";
/// Where a Job has the seed files that come in ConfigMaps, in a folder named as the profile.
const SEED_FILES: &str = "/run/amas/seed-files";
/// How long a finished Job is kept.
const KEEP_SECONDS: u32 = 86_400;

/// What a Job needs beside the decision.
pub struct JobInput<'a> {
    pub family: &'a Family,
    pub spec: &'a AmasDatabaseSpec,
    pub owner: &'a str,
    /// The external server, if it is one.
    pub server: Option<&'a external::Server>,
    pub image: &'a str,
    pub target: Option<i64>,
    pub seeds: Option<&'a Seeds>,
    /// Hash of the steps, checked by the runner before the first statement.
    pub steps: &'a str,
    pub direction: Direction,
    /// The source whose files are only brought into the database, and nothing is run.
    pub brings: Option<&'a str>,
    /// Tables are saved first, by the pg_dump of this image.
    pub saves: Option<String>,
}

/// The Job as an object. It has no token and reports through the database.
pub fn job(input: &JobInput<'_>, name: &str, managed: bool) -> Value {
    let JobInput { family, spec, .. } = input;
    let Some(migrations) = &spec.migrations else {
        return Value::Null;
    };
    let mut pod = json!({
        "restartPolicy": "Never",
        "automountServiceAccountToken": false,
        "enableServiceLinks": false,
        "securityContext": {"runAsNonRoot": true, "runAsUser": 65532, "runAsGroup": 65532, "fsGroup": 65532, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [{
            "name": "migrate", "image": input.image, "imagePullPolicy": "IfNotPresent",
            "args": arguments(input, &migrations.source, name),
            "resources": k8s_openapi::api::core::v1::ResourceRequirements::from(&migrations.job.resources),
            "securityContext": security(true),
            "volumeMounts": volume_mounts(input, &migrations.source),
        }],
        "volumes": volumes(input, &migrations.source),
    });
    let environment = environment(input);
    if !environment.is_empty() {
        pod["containers"][0]["env"] = json!(environment);
    }
    first::add(input, &migrations.source, &mut pod);
    let of_server = managed.then(|| family.child_name("postgres"));
    if let Some(account) = migrations.job.service_account_name.clone().or(of_server) {
        pod["serviceAccountName"] = json!(account);
    }
    add_pod_settings(&mut pod, &spec.pods);
    let labels = pod_labels(&spec.pods, family.labels("postgresql", "migrations"));
    json!({"metadata": family.metadata(name, "postgresql", "migrations", true), "spec": {
        "backoffLimit": 3,
        "podReplacementPolicy": "Failed",
        "ttlSecondsAfterFinished": KEEP_SECONDS,
        "podFailurePolicy": {"rules": [
            {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget"}]},
            // The runner's exit codes: 2, 10 to 19 and a failed backup need a change by a human, 20 to 29 may pass by themselves.
            {"action": "FailJob", "onExitCodes": {"operator": "In", "values": std::iter::once(2).chain(final_codes()).collect::<Vec<_>>()}},
            {"action": "Count", "onExitCodes": {"operator": "In", "values": (20..30).collect::<Vec<_>>()}},
        ]},
        "template": {"metadata": {"labels": labels, "annotations": spec.pods.annotations}, "spec": pod},
    }})
}

/// A patch of a Job that stays, or of one that need not any more.
pub fn lifetime(stays: bool) -> Value {
    json!({"spec": {"ttlSecondsAfterFinished": (!stays).then_some(KEEP_SECONDS)}})
}

fn arguments(input: &JobInput<'_>, source: &MigrationSource, name: &str) -> Vec<String> {
    let root = input.saves.as_ref().map_or("", |_| PROGRAM);
    let bundle = source
        .bundle
        .as_ref()
        .map(|bundle| format!("{root}/migrations/{bundle}"));
    let given = || source.image.as_ref().map_or_else(|| SOURCE.to_owned(), source_folder);
    let folder = bundle.clone().unwrap_or_else(given);
    if let Some(source) = input.brings {
        let arguments = [
            "migrate",
            "deposit",
            "--dir",
            &folder,
            "--source",
            source,
            "--database-url-file",
        ];
        let files = [
            "/run/amas/login/DATABASE_URL",
            "--termination-message",
            "/dev/termination-log",
        ];
        return arguments.into_iter().chain(files).map(Into::into).collect();
    }
    let verb = match input.direction {
        Direction::Up => "up",
        Direction::Down => "down",
    };
    let mut arguments: Vec<String> = ["migrate", verb, "--dir", &folder, "--attempt", name]
        .map(Into::into)
        .into();
    arguments.extend(
        [
            "--database-url-file",
            "/run/amas/login/DATABASE_URL",
            "--termination-message",
            "/dev/termination-log",
            "--plan-hash",
            input.steps,
        ]
        .map(Into::into),
    );
    arguments.extend(backup(input));
    if input.direction == Direction::Up {
        // Judged already, and the hash binds it: a pod that goes on after another would judge only the rest.
        arguments.extend(["--allow-destructive", "all"].map(Into::into));
        let rolls_back = input
            .spec
            .migrations
            .as_ref()
            .is_some_and(|migrations| migrations.on_failure == OnFailure::Rollback);
        if rolls_back {
            arguments.extend(["--on-failure", "rollback"].map(Into::into));
        }
    }
    if let Some(target) = input.target {
        arguments.extend(["--to".into(), target.to_string()]);
    }
    if let Some(seeds) = input.seeds.filter(|_| input.direction == Direction::Up) {
        let below = match (seed_maps(input), bundle) {
            ([], Some(bundle)) => format!("{bundle}/seed"),
            _ => SEED_FILES.to_owned(),
        };
        for folder in &seeds.folders {
            arguments.extend(["--seed-dir".into(), format!("{below}/{folder}")]);
        }
        for value in input.spec.seed.iter().flat_map(|seed| &seed.generate) {
            let SeedHash::Bcrypt = value.hash;
            arguments.extend(["--seed-hash".into(), format!("{0}=/run/amas/seed/{0}", value.name)]);
        }
    }
    arguments
}

/// Where a Job has the files of an image: below the volume, as in the image.
pub(super) fn source_folder(image: &ImageSource) -> String {
    format!("{SOURCE}{}", image.path.trim_end_matches('/'))
}

/// What is saved first, and where. A Job that saves nothing says so, since the runner would ask for a folder.
fn backup(input: &JobInput<'_>) -> Vec<String> {
    let migrations = input.spec.migrations.as_ref();
    let before = match migrations.map(|migrations| migrations.backup_before) {
        Some(BackupBefore::Destructive) if input.saves.is_some() => "destructive",
        Some(BackupBefore::Always) if input.saves.is_some() => "always",
        _ => return ["--backup-before", "never"].map(Into::into).into(),
    };
    ["--backup-before", before, "--backup-dir", BACKUPS]
        .map(Into::into)
        .into()
}

/// The Secret with the owner's login, and the key that holds its URL: ours, or the user's own where the owner is all there is.
fn login(input: &JobInput<'_>) -> (String, &'static str) {
    let users = input.spec.postgres.as_ref().filter(|postgres| postgres.is_owners());
    let users = users.and_then(|postgres| Some((postgres.external.as_ref()?, input.server?.key?)));
    match users {
        Some((external, key)) => (external.secret_ref.name.clone(), key),
        None => (role_secret(input.family, input.owner), "DATABASE_URL"),
    }
}

/// ConfigMaps with seed files, while a profile is asked for.
fn seed_maps<'a>(input: &JobInput<'a>) -> &'a [String] {
    let seed = input
        .spec
        .seed
        .as_ref()
        .filter(|seed| seed.profile != SeedProfile::None);
    seed.map_or(&[], |seed| &seed.config_maps)
}

fn seed_secret(input: &JobInput<'_>) -> Option<String> {
    let seed = input.spec.seed.as_ref()?;
    (seed.profile != SeedProfile::None && !seed.generate.is_empty()).then(|| input.family.child_name("seed"))
}

fn volume_mounts(input: &JobInput<'_>, source: &MigrationSource) -> Vec<Value> {
    let mount = |name: &str, path: &str| json!({"name": name, "mountPath": path, "readOnly": true});
    let mut mounts = vec![mount("login", "/run/amas/login")];
    if source.bundle.is_none() {
        mounts.push(mount("source", SOURCE));
    }
    if seed_secret(input).is_some() {
        mounts.push(mount("seed", "/run/amas/seed"));
    }
    let profile = input.spec.seed.as_ref().and_then(|seed| seed.profile.folder());
    if let (false, Some(profile)) = (seed_maps(input).is_empty(), profile) {
        mounts.push(mount("seed-files", &format!("{SEED_FILES}/{profile}")));
    }
    for file in certificates(input) {
        mounts.push(mount(file.volume, &file.folder()));
    }
    mounts
}

fn volumes(input: &JobInput<'_>, source: &MigrationSource) -> Vec<Value> {
    // 0440 with the pod's group: the runner is not root.
    let secret = |volume: &str, secret: &str, key: &str, path: &str| {
        json!({"name": volume, "secret": {
            "secretName": secret, "defaultMode": 0o440, "items": [{"key": key, "path": path}],
        }})
    };
    let (name, key) = login(input);
    let mut volumes = vec![secret("login", &name, key, "DATABASE_URL")];
    for file in certificates(input) {
        volumes.push(secret(file.volume, &file.secret, file.key, file.key));
    }
    let projected = |volume: &str, maps: &[String]| {
        let maps: Vec<Value> = maps.iter().map(|name| json!({"configMap": {"name": name}})).collect();
        json!({"name": volume, "projected": {"sources": maps}})
    };
    if first::copied(source).is_some() {
        volumes.push(json!({"name": "source", "emptyDir": {}}));
    } else if let Some(image) = &source.image {
        let volume = json!({"reference": image.reference, "pullPolicy": image.pull_policy});
        volumes.push(json!({"name": "source", "image": volume}));
    } else if source.bundle.is_none() {
        volumes.push(projected("source", &source.config_maps));
    }
    if !seed_maps(input).is_empty() {
        volumes.push(projected("seed-files", seed_maps(input)));
    }
    if let Some(secret) = seed_secret(input) {
        volumes.push(json!({"name": "seed", "secret": {"secretName": secret, "defaultMode": 0o440}}));
    }
    volumes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controllers::database::fixtures::{family, platform};

    fn input<'a>(family: &'a Family, spec: &'a AmasDatabaseSpec, direction: Direction) -> JobInput<'a> {
        JobInput {
            family,
            spec,
            owner: "amas_owner",
            server: None,
            image: "i",
            target: None,
            seeds: None,
            steps: "s",
            direction,
            brings: None,
            saves: None,
        }
    }

    fn pod(encrypted: bool) -> Value {
        let (mut object, family) = (platform(), family());
        object.spec.tls = encrypted.then(Default::default);
        let input = input(&family, &object.spec, Direction::Up);
        job(&input, "d-migrate-1", true)["spec"]["template"]["spec"].clone()
    }

    /// A platform whose migrations come from this source.
    fn from(source: Value) -> AmasDatabaseSpec {
        let mut spec = platform().spec;
        spec.migrations.as_mut().unwrap().source = serde_json::from_value(source).unwrap();
        spec.seed = None;
        spec
    }

    #[test]
    fn a_job_is_what_the_specification_says_of_pods_and_restricted() {
        let mut spec = from(json!({"configMaps": ["files"]}));
        spec.pods = serde_json::from_value(json!({
            "labels": {"team": "data", "amas.dev/database": "other"}, "annotations": {"note": "n"}, "nodeSelector": {"disk": "fast"},
            "tolerations": [{"key": "data", "operator": "Exists", "effect": "NoSchedule"}],
            "priorityClassName": "high", "imagePullSecrets": [{"name": "registry"}],
        }))
        .unwrap();
        let resources = json!({"requests": {"cpu": "100m"}, "limits": {"memory": "1Gi"}});
        let settings = json!({"resources": resources, "serviceAccountName": "runner"});
        spec.migrations.as_mut().unwrap().job = serde_json::from_value(settings).unwrap();
        let family = family();
        let made = job(&input(&family, &spec, Direction::Up), "d-migrate-1", true);
        let labels = json!({
            "amas.dev/database": "d", "app.kubernetes.io/managed-by": "amas-operator", "app.kubernetes.io/name": "postgresql",
            "app.kubernetes.io/instance": "d", "app.kubernetes.io/component": "migrations",
        });
        let owner = json!({
            "apiVersion": "amas.dev/v1alpha1", "kind": "AmasDatabase", "name": "d", "uid": "u", "controller": true, "blockOwnerDeletion": true,
        });
        let mut of_pod = labels.clone();
        of_pod["team"] = "data".into();
        let wanted = json!({
            "metadata": {"name": "d-migrate-1", "namespace": "n", "labels": labels, "ownerReferences": [owner]},
            "spec": {
                "backoffLimit": 3, "podReplacementPolicy": "Failed", "ttlSecondsAfterFinished": 86400,
                "podFailurePolicy": {"rules": [
                    {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget"}]},
                    {"action": "FailJob", "onExitCodes": {"operator": "In", "values": [2, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 31]}},
                    {"action": "Count", "onExitCodes": {"operator": "In", "values": [20, 21, 22, 23, 24, 25, 26, 27, 28, 29]}},
                ]},
                "template": {"metadata": {"labels": of_pod, "annotations": {"note": "n"}}, "spec": {
                    "restartPolicy": "Never", "automountServiceAccountToken": false, "enableServiceLinks": false,
                    "serviceAccountName": "runner", "nodeSelector": {"disk": "fast"}, "priorityClassName": "high",
                    "tolerations": [{"key": "data", "operator": "Exists", "effect": "NoSchedule"}],
                    "imagePullSecrets": [{"name": "registry"}],
                    "securityContext": {
                        "runAsNonRoot": true, "runAsUser": 65532, "runAsGroup": 65532, "fsGroup": 65532,
                        "seccompProfile": {"type": "RuntimeDefault"},
                    },
                    "containers": [{
                        "name": "migrate", "image": "i", "imagePullPolicy": "IfNotPresent", "resources": resources,
                        "args": [
                            "migrate", "up", "--dir", "/run/amas/source", "--attempt", "d-migrate-1",
                            "--database-url-file", "/run/amas/login/DATABASE_URL", "--termination-message", "/dev/termination-log",
                            "--plan-hash", "s", "--backup-before", "never", "--allow-destructive", "all",
                        ],
                        "securityContext": {
                            "allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}, "readOnlyRootFilesystem": true,
                        },
                        "volumeMounts": [
                            {"name": "login", "mountPath": "/run/amas/login", "readOnly": true},
                            {"name": "source", "mountPath": "/run/amas/source", "readOnly": true},
                        ],
                    }],
                    "volumes": [
                        {"name": "login", "secret": {
                            "secretName": "d-role-amas-owner", "defaultMode": 0o440, "items": [{"key": "DATABASE_URL", "path": "DATABASE_URL"}],
                        }},
                        {"name": "source", "projected": {"sources": [{"configMap": {"name": "files"}}]}},
                    ],
                }},
            },
        });
        assert_eq!(made, wanted);
        // Without one of the user's: the managed server's account, else that of the namespace.
        spec.migrations.as_mut().unwrap().job.service_account_name = None;
        let account = |managed| {
            let made = job(&input(&family, &spec, Direction::Up), "j", managed);
            made["spec"]["template"]["spec"]["serviceAccountName"].clone()
        };
        assert_eq!((account(true), account(false)), (json!("d-postgres"), Value::Null));
    }

    #[test]
    fn the_files_of_an_image_are_mounted_or_copied_by_our_program_in_it() {
        let reference = format!("registry.example.com/app@sha256:{}", "a".repeat(64));
        let pod = |mount: &str, saves: Option<&str>| {
            let image = json!({"reference": reference, "path": "/sql/", "pullPolicy": "Always", "mount": mount});
            let (spec, family) = (from(json!({"image": image})), family());
            let mut input = input(&family, &spec, Direction::Up);
            input.saves = saves.map(Into::into);
            job(&input, "j", true)["spec"]["template"]["spec"].clone()
        };
        let volume = |pod: &Value, name: &str| {
            let all = pod["volumes"].as_array().unwrap();
            all.iter().find(|volume| volume["name"] == name).cloned()
        };
        let (mounted, copied) = (pod("Volume", None), pod("Copy", None));
        assert!(mounted["initContainers"].is_null());
        let image = json!({"reference": reference, "pullPolicy": "Always"});
        assert_eq!(
            volume(&mounted, "source"),
            Some(json!({"name": "source", "image": image}))
        );
        // The runner itself sees no difference.
        assert_eq!(mounted["containers"], copied["containers"]);
        assert!(
            copied["containers"]
                .to_string()
                .contains("\"--dir\",\"/run/amas/source/sql\"")
        );
        for name in ["source", "program"] {
            assert_eq!(volume(&copied, name), Some(json!({"name": name, "emptyDir": {}})));
        }
        let [program, files] = copied["initContainers"].as_array().unwrap().as_slice() else {
            panic!("{copied}")
        };
        assert_eq!(
            program["args"],
            json!(["migrate", "provide", "--to", "/run/amas/program"])
        );
        let restricted = json!({"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}, "readOnlyRootFilesystem": true});
        let wanted = json!({
            "name": "files", "image": reference, "imagePullPolicy": "Always", "command": ["/run/amas/program/amas-operator"],
            "args": [
                "migrate", "provide", "--files", "/sql/", "--to", "/run/amas/source/sql", "--termination-message", "/dev/termination-log",
            ],
            "workingDir": "/", "resources": {}, "securityContext": restricted,
            "volumeMounts": [
                {"name": "program", "mountPath": "/run/amas/program", "readOnly": true}, {"name": "source", "mountPath": "/run/amas/source"},
            ],
        });
        assert_eq!(files, &wanted);
        assert_eq!(
            (&program["image"], &program["securityContext"]),
            (&json!("i"), &restricted)
        );

        // The same where the runner needs pg_dump.
        let saving = pod("Copy", Some("postgres:x"));
        assert_eq!(saving["initContainers"], copied["initContainers"]);
        let main = &saving["containers"][0];
        assert_eq!(main["image"], "postgres:x");
        assert_eq!(main["command"], json!(["/run/amas/program/amas-operator"]));
        for mount in main["volumeMounts"].as_array().unwrap() {
            assert!(volume(&saving, mount["name"].as_str().unwrap()).is_some(), "{mount}");
        }
    }

    #[test]
    fn the_job_of_an_encrypted_server_verifies_it() {
        let variable = |name: &str, value: &str| json!({"name": name, "value": value});
        let wanted = [
            variable("PGSSLMODE", "verify-full"),
            variable("PGSSLROOTCERT", "/run/amas/ca/ca.crt"),
        ];
        let encrypted = pod(true);
        assert_eq!(encrypted["containers"][0]["env"], json!(wanted));
        let volumes = encrypted["volumes"].to_string();
        assert!(
            volumes.contains("\"d-tls\"") && !volumes.contains("ca.key"),
            "{volumes}"
        );
        let clear = pod(false).to_string();
        assert!(!clear.contains("PGSSL") && !clear.contains("d-tls"), "{clear}");
    }

    #[test]
    fn a_job_that_saves_tables_runs_where_pg_dump_is() {
        let (object, family) = (platform(), family());
        let pod = |saves: Option<&str>, direction| {
            let mut input = input(&family, &object.spec, direction);
            input.saves = saves.map(Into::into);
            job(&input, "d-migrate-1", true)["spec"]["template"]["spec"].clone()
        };
        let plain = pod(None, Direction::Up);
        assert!(plain["initContainers"].is_null() && plain["containers"][0]["command"].is_null());
        let text = plain.to_string();
        assert!(
            !text.contains("/run/amas/backups") && text.contains("\"--backup-before\",\"never\""),
            "{text}"
        );
        assert!(text.contains("\"/migrations/amas\""), "{text}");

        let saving = pod(Some("postgres:x"), Direction::Up);
        let (main, first) = (&saving["containers"][0], &saving["initContainers"][0]);
        assert_eq!((&main["image"], &first["image"]), (&json!("postgres:x"), &json!("i")));
        assert_eq!(main["command"], json!(["/run/amas/program/amas-operator"]));
        assert_eq!(
            first["args"],
            json!([
                "migrate",
                "provide",
                "--to",
                "/run/amas/program",
                "--bundle",
                "/migrations/amas"
            ])
        );
        let arguments = main["args"].to_string();
        for part in [
            "\"--dir\",\"/run/amas/program/migrations/amas\"",
            "\"--backup-before\",\"destructive\",\"--backup-dir\",\"/run/amas/backups\"",
        ] {
            assert!(arguments.contains(part), "{part}: {arguments}");
        }
        for container in [main, first] {
            assert_eq!(container["securityContext"]["readOnlyRootFilesystem"], true);
        }
        let volumes = saving["volumes"].as_array().unwrap();
        let claim = json!({"name": "backups", "persistentVolumeClaim": {"claimName": "d-backups"}});
        assert!(volumes.contains(&claim), "{volumes:?}");
        // Every mount has its volume.
        for container in [main, first] {
            for mount in container["volumeMounts"].as_array().unwrap() {
                assert!(volumes.iter().any(|volume| volume["name"] == mount["name"]), "{mount}");
            }
        }
        let down = pod(Some("postgres:x"), Direction::Down)["containers"][0]["args"].to_string();
        assert!(
            down.contains("\"--backup-dir\"") && !down.contains("--allow-destructive"),
            "{down}"
        );
    }

    #[test]
    fn only_a_way_up_is_told_to_roll_back() {
        let (mut object, family) = (platform(), family());
        let mut told = |on_failure, direction| {
            object.spec.migrations.as_mut().unwrap().on_failure = on_failure;
            let input = input(&family, &object.spec, direction);
            let job = job(&input, "d-migrate-1", true);
            job["spec"]["template"]["spec"]["containers"][0]["args"]
                .to_string()
                .contains("\"--on-failure\",\"rollback\"")
        };
        assert!(told(OnFailure::Rollback, Direction::Up));
        assert!(!told(OnFailure::Rollback, Direction::Down) && !told(OnFailure::Stop, Direction::Up));
    }
}
