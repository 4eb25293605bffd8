//! The Jobs that the operator makes, without nodes: what the kubelet would run, as a process with the arguments and the environment of the Job's
//! container, its volumes as folders; and what the Job controller writes when the pods have ended.

use std::path::{Path, PathBuf};

use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};
use tokio::process::Command;

use super::{kubernetes::Namespace, managed::entries, operator::KNOWING, process::Folder};

/// A pod of a Job: its folders, its container, and those that run before it.
pub struct Pod {
    folder: Folder,
    first: Vec<Command>,
    pub container: Command,
}

impl Pod {
    /// With these files where the Job expects its migrations, and the Secret that it has for its login. Where a Job copies them out of an image, they
    /// are what there is in the image.
    pub async fn new(ns: &Namespace, job: &Value, files: &[(&str, &str)]) -> Self {
        let mut pod = Self {
            folder: Folder::new("pod"),
            first: Vec::new(),
            container: Command::new(PROGRAM),
        };
        let spec = &job["spec"]["template"]["spec"];
        pod.mount(ns, spec).await;
        std::fs::create_dir_all(pod.local(argument(job, "--dir").unwrap())).unwrap();
        let first = spec["initContainers"].as_array().map_or(&[][..], Vec::as_slice);
        let copied = first.iter().find_map(|container| flag(container, "--files"));
        let folder = match copied {
            Some(path) => pod.in_image(path),
            None => pod.local(argument(job, "--dir").unwrap()),
        };
        std::fs::create_dir_all(&folder).unwrap();
        for (name, text) in files {
            std::fs::write(folder.join(name), text).unwrap();
        }
        std::fs::create_dir_all(pod.local("/run/amas/program")).unwrap();
        pod.first = first.iter().map(|container| pod.command(container)).collect();
        pod.container = pod.command(&spec["containers"][0]);
        pod
    }

    /// The login, and seeds out of ConfigMaps. Of migrations the test says itself what the Job shall find.
    async fn mount(&self, ns: &Namespace, spec: &Value) {
        for volume in spec["volumes"].as_array().unwrap() {
            let mounts = spec["containers"][0]["volumeMounts"].as_array().unwrap();
            let Some(mount) = mounts.iter().find(|mount| mount["name"] == volume["name"]) else {
                continue;
            };
            let folder = self.local(mount["mountPath"].as_str().unwrap());
            std::fs::create_dir_all(&folder).unwrap();
            match volume["name"].as_str().unwrap() {
                "login" => {
                    let name = volume["secret"]["secretName"].as_str().unwrap();
                    let secret = ns.wait("Secret", name, "there", |_| true).await;
                    for item in volume["secret"]["items"].as_array().unwrap() {
                        let (key, path) = (item["key"].as_str().unwrap(), item["path"].as_str().unwrap());
                        std::fs::write(folder.join(path), &entries(&secret)[key]).unwrap();
                    }
                }
                "seed-files" => {
                    for source in volume["projected"]["sources"].as_array().unwrap() {
                        let map = ns.get("ConfigMap", source["configMap"]["name"].as_str().unwrap()).await;
                        for (name, text) in map.unwrap()["data"].as_object().unwrap() {
                            std::fs::write(folder.join(name), text.as_str().unwrap()).unwrap();
                        }
                    }
                }
                _ => {}
            }
        }
    }

    fn command(&self, container: &Value) -> Command {
        let mut command = match container["command"][0].as_str() {
            Some(program) => Command::new(self.local(program)),
            None => Command::new(PROGRAM),
        };
        let from_image = flag(container, "--files");
        for argument in container["args"].as_array().unwrap() {
            let argument = argument.as_str().unwrap();
            command.arg(match Some(argument) == from_image {
                true => self.in_image(argument),
                false => self.local(argument),
            });
        }
        for variable in container["env"].as_array().into_iter().flatten() {
            let value = self.local(variable["value"].as_str().unwrap_or_default());
            command.env(variable["name"].as_str().unwrap(), value);
        }
        command.kill_on_drop(true);
        command
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

    /// The same of a path inside of the image that brings the files.
    fn in_image(&self, path: &str) -> PathBuf {
        self.folder.path().join("image").join(path.trim_start_matches('/'))
    }

    /// Runs it to its end: the exit code of the container that ended it, and what that said.
    pub async fn run(mut self) -> (Option<i32>, String) {
        let all = self.first.iter_mut().chain(std::iter::once(&mut self.container));
        let mut end = (None, String::new());
        for container in all {
            let output = container.output().await.unwrap();
            end = (
                output.status.code(),
                String::from_utf8_lossy(&output.stderr).into_owned(),
            );
            if !output.status.success() {
                break;
            }
        }
        end
    }
}

const PROGRAM: &str = env!("CARGO_BIN_EXE_amas-operator");

/// The value of a flag of a Job's container.
pub fn argument<'a>(job: &'a Value, flag: &str) -> Option<&'a str> {
    self::flag(job.pointer("/spec/template/spec/containers/0")?, flag)
}

fn flag<'a>(container: &'a Value, flag: &str) -> Option<&'a str> {
    let all = container["args"].as_array()?;
    let at = all.iter().position(|one| one == flag)?;
    all.get(at + 1)?.as_str()
}

/// As the Job controller leaves one whose pod succeeded.
pub async fn complete(ns: &Namespace, job: &str) {
    let conditions = ["SuccessCriteriaMet", "Complete"].map(|kind| json!({"type": kind}));
    let now = jiff::Timestamp::from_second(jiff::Timestamp::now().as_second()).unwrap();
    let status = ended(json!({"completionTime": now.to_string(), "succeeded": 1}), conditions);
    write(ns, job, status).await;
}

/// As it leaves one whose pods failed too often.
pub async fn give_up(ns: &Namespace, job: &str) {
    write(ns, job, given_up()).await;
}

/// The status of such a Job.
pub fn given_up() -> Value {
    let why = |kind: &str| json!({"type": kind, "reason": "BackoffLimitExceeded", "message": "Job has reached the specified backoff limit"});
    ended(json!({"failed": 4}), ["FailureTarget", "Failed"].map(why))
}

const AT: &str = "2026-01-01T00:00:00Z";

fn ended(mut status: Value, mut conditions: [Value; 2]) -> Value {
    for condition in &mut conditions {
        condition["status"] = "True".into();
        condition["lastTransitionTime"] = AT.into();
        condition["lastProbeTime"] = AT.into();
    }
    status["startTime"] = AT.into();
    status["conditions"] = json!(conditions);
    status
}

async fn write(ns: &Namespace, job: &str, status: Value) {
    let patch = Patch::Merge(json!({"status": status}));
    ns.kind("Job")
        .patch_status(job, &PatchParams::default(), &patch)
        .await
        .unwrap();
}
