//! Processes of containers, seen from the node: found by container id, killed, stopped, measured.

use std::{
    collections::BTreeSet,
    fs,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use k8s_openapi::api::core::v1::Pod;

use crate::harness::{About, Result};

/// The processes of one container.
pub struct Processes {
    /// The one with pid 1 inside of the container.
    pub main: i32,
    pub all: Vec<i32>,
}

/// The processes of the pod's first container.
pub fn of_pod(pod: &Pod) -> Result<Processes> {
    let containers = pod
        .status
        .as_ref()
        .and_then(|status| status.container_statuses.as_ref());
    let id = containers
        .and_then(|list| list.first()?.container_id.as_deref())
        .about("the pod runs no container")?;
    of_container(id.rsplit('/').next().unwrap_or(id))
}

/// Every process whose control group names the container.
fn of_container(id: &str) -> Result<Processes> {
    let alive = |pid: &i32| text(*pid, "cgroup").contains(id) && !is_zombie(*pid);
    let mut all: Vec<i32> = pids()?.into_iter().filter(alive).collect();
    all.sort_unstable();
    let is_main = |pid: &i32| field(*pid, "NSpid").is_some_and(|pids| pids.split_whitespace().last() == Some("1"));
    let main = all
        .iter()
        .copied()
        .find(is_main)
        .about(format!("no process of container {id} (is the suite root on the node?)"))?;
    Ok(Processes { main, all })
}

fn pids() -> Result<Vec<i32>> {
    let entries = fs::read_dir("/proc")?.filter_map(std::result::Result::ok);
    Ok(entries
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect())
}

fn text(pid: i32, file: &str) -> String {
    let bytes = fs::read(Path::new("/proc").join(pid.to_string()).join(file)).unwrap_or_default();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// A field of /proc/PID/status.
fn field(pid: i32, name: &str) -> Option<String> {
    let status = text(pid, "status");
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    Some(line.trim().to_owned())
}

/// Resident memory in MiB.
pub fn resident(pid: i32) -> Result<f64> {
    let kib = field(pid, "VmRSS").and_then(|value| value.trim_end_matches(" kB").trim().parse::<f64>().ok());
    Ok(kib.about(format!("process {pid} is gone"))? / 1024.0)
}

/// Whether it has ended and only waits to be reaped. Entry points leave such children behind.
fn is_zombie(pid: i32) -> bool {
    field(pid, "State").is_none_or(|state| state.starts_with('Z'))
}

/// Whether a signal has stopped it.
pub fn is_stopped(pid: i32) -> bool {
    field(pid, "State").is_some_and(|state| state.starts_with('T'))
}

/// CPU seconds used so far.
pub fn cpu_seconds(pid: i32) -> Result<f64> {
    let stat = text(pid, "stat");
    let after = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    let ticks: Vec<f64> = after.skip(11).take(2).filter_map(|ticks| ticks.parse().ok()).collect();
    crate::ensure!(ticks.len() == 2, "process {pid} is gone");
    Ok(ticks.iter().sum::<f64>() / 100.0)
}

/// Sends a signal (`KILL`, `STOP`, `CONT`) to processes; those that are gone meanwhile need none.
pub async fn signal(name: &str, pids: &[i32]) -> Result {
    let mut kill = tokio::process::Command::new("kill");
    kill.arg("-s").arg(name).args(pids.iter().map(i32::to_string));
    let output = kill.output().await?;
    let there = pids.iter().any(|&pid| field(pid, "State").is_some());
    let said = String::from_utf8_lossy(&output.stderr);
    crate::ensure!(
        output.status.success() || said.contains("No such process") && there,
        "kill -s {name}: {said}"
    );
    Ok(())
}

/// Stops every process of the pod's first container, also those that are born meanwhile; returns them.
pub async fn stop_all(pod: &Pod) -> Result<Vec<i32>> {
    for _ in 0..100 {
        let all = of_pod(pod)?.all;
        let running: Vec<i32> = all.iter().copied().filter(|&pid| !is_stopped(pid)).collect();
        if running.is_empty() {
            return Ok(all);
        }
        signal("STOP", &running).await?;
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    crate::fail!("the processes of the pod do not stop")
}

/// The nearest ancestor in another network namespace: `dev/cluster exec`, which stays on the host.
pub fn ancestor_outside() -> Result<Option<i32>> {
    let network = |pid: i32| fs::read_link(format!("/proc/{pid}/ns/net"));
    let mut pid = i32::try_from(std::process::id())?;
    let ours = network(pid)?;
    while let Some(parent) = field(pid, "PPid")
        .and_then(|parent| parent.parse().ok())
        .filter(|&parent| parent > 1)
    {
        if network(parent)? != ours {
            return Ok(Some(parent));
        }
        pid = parent;
    }
    Ok(None)
}

/// The command lines of all processes of the machine, also of those that end soon: looked at again and again by a thread of its own.
pub struct CommandLines {
    over: Arc<AtomicBool>,
    looking: JoinHandle<BTreeSet<String>>,
}

impl CommandLines {
    pub fn watch() -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let until = over.clone();
        let look = move || {
            let mut seen = BTreeSet::new();
            while !until.load(Ordering::Relaxed) {
                let all = pids().unwrap_or_default().into_iter();
                seen.extend(all.map(|pid| text(pid, "cmdline").replace('\0', " ")));
                std::thread::sleep(Duration::from_millis(100));
            }
            seen
        };
        Self {
            over,
            looking: std::thread::spawn(look),
        }
    }

    /// All that were seen, a line each.
    pub fn end(self) -> Result<String> {
        self.over.store(true, Ordering::Relaxed);
        let seen = self
            .looking
            .join()
            .ok()
            .about("the thread that looks at command lines")?;
        Ok(seen.into_iter().collect::<Vec<_>>().join("\n"))
    }
}
