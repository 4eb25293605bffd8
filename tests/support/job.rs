//! The Jobs that the operator makes, without nodes: what the kubelet would run, as a process with the arguments and the environment of the Job's
//! container, its volumes as folders; and what the Job controller writes when the pods have ended.

use std::path::{Path, PathBuf};

use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};
use tokio::process::Command;

use super::{kubernetes::Namespace, managed::entries, operator::KNOWING, process::Folder};

/// A pod of a Job: its folders, and its container.
pub struct Pod {
    folder: Folder,
    pub container: Command,
}

impl Pod {
    /// With these files where the Job expects its migrations, and the Secret that it has for its login.
    pub async fn new(ns: &Namespace, job: &Value, files: &[(&str, &str)]) -> Self {
        let pod = Self {
            folder: Folder::new("pod"),
            container: Command::new(env!("CARGO_BIN_EXE_amas-operator")),
        };
        let spec = &job["spec"]["template"]["spec"];
        let volumes = spec["volumes"].as_array().unwrap();
        let login = volumes.iter().find(|volume| volume["name"] == "login").unwrap();
        let secret = ns
            .wait(
                "Secret",
                login["secret"]["secretName"].as_str().unwrap(),
                "there",
                |_| true,
            )
            .await;
        for item in login["secret"]["items"].as_array().unwrap() {
            let (key, path) = (item["key"].as_str().unwrap(), item["path"].as_str().unwrap());
            pod.folder.write(&format!("login/{path}"), &entries(&secret)[key]);
        }
        let folder = pod.local(argument(job, "--dir").unwrap());
        std::fs::create_dir_all(&folder).unwrap();
        for (name, text) in files {
            std::fs::write(folder.join(name), text).unwrap();
        }
        pod.with_container(&spec["containers"][0])
    }

    fn with_container(mut self, container: &Value) -> Self {
        for argument in container["args"].as_array().unwrap() {
            let argument = self.local(argument.as_str().unwrap());
            self.container.arg(argument);
        }
        for variable in container["env"].as_array().into_iter().flatten() {
            let value = self.local(variable["value"].as_str().unwrap_or_default());
            self.container.env(variable["name"].as_str().unwrap(), value);
        }
        self.container.kill_on_drop(true);
        self
    }

    /// With this file in place of /etc/hosts.
    pub fn knowing(mut self, hosts: &Path) -> Self {
        let own = std::mem::replace(&mut self.container, Command::new("unshare"));
        let own = own.as_std();
        self.container.args(KNOWING).arg(hosts).arg(own.get_program());
        self.container.args(own.get_args());
        self.container
            .envs(own.get_envs().filter_map(|(name, value)| Some((name, value?))));
        self.container.kill_on_drop(true);
        self
    }

    /// A path inside of the pod as it is here; any other word as it is.
    fn local(&self, word: &str) -> PathBuf {
        match word.strip_prefix("/run/amas/") {
            Some(below) => self.folder.path().join(below),
            None if word == "/dev/termination-log" => self.folder.path().join("termination-log"),
            None => word.into(),
        }
    }

    /// Runs it to its end: the exit code, and what it said.
    pub async fn run(mut self) -> (Option<i32>, String) {
        let output = self.container.output().await.unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.code(), said)
    }
}

/// The value of a flag of a Job's container.
pub fn argument<'a>(job: &'a Value, flag: &str) -> Option<&'a str> {
    let all = job.pointer("/spec/template/spec/containers/0/args")?.as_array()?;
    let at = all.iter().position(|one| one == flag)?;
    all.get(at + 1)?.as_str()
}

/// As the Job controller leaves one whose pod succeeded.
pub async fn complete(ns: &Namespace, job: &str) {
    let status = json!({"completionTime": AT, "succeeded": 1});
    end(
        ns,
        job,
        status,
        ["SuccessCriteriaMet", "Complete"].map(|kind| json!({"type": kind})),
    )
    .await;
}

/// As it leaves one whose pods failed too often.
pub async fn give_up(ns: &Namespace, job: &str) {
    let why = |kind: &str| json!({"type": kind, "reason": "BackoffLimitExceeded", "message": "Job has reached the specified backoff limit"});
    end(ns, job, json!({"failed": 4}), ["FailureTarget", "Failed"].map(why)).await;
}

const AT: &str = "2026-01-01T00:00:00Z";

async fn end(ns: &Namespace, job: &str, mut status: Value, mut conditions: [Value; 2]) {
    for condition in &mut conditions {
        condition["status"] = "True".into();
        condition["lastTransitionTime"] = AT.into();
        condition["lastProbeTime"] = AT.into();
    }
    status["startTime"] = AT.into();
    status["conditions"] = json!(conditions);
    let patch = Patch::Merge(json!({"status": status}));
    ns.kind("Job")
        .patch_status(job, &PatchParams::default(), &patch)
        .await
        .unwrap();
}
