//! The node's power switch and its images: `dev/cluster node-stop`, `node-start`, `ctr-import` and `ctr-tag`.

use std::process::Stdio;

use tokio::process::Command;

use super::process;
use crate::{
    ensure,
    harness::{About, Result, context::Ctx},
};

/// Everything on the node dies at once; volumes and the control plane stay.
pub async fn stop(ctx: &Ctx) -> Result {
    dev_cluster(ctx, &["node-stop"]).await
}

/// The node comes back with its volumes.
pub async fn start(ctx: &Ctx) -> Result {
    dev_cluster(ctx, &["node-start"]).await
}

/// Loads an image archive into the node.
pub async fn import(ctx: &Ctx, archive: &str) -> Result {
    dev_cluster(ctx, &["ctr-import", archive]).await
}

/// Gives an image of the node a further name.
pub async fn tag(ctx: &Ctx, image: &str, name: &str) -> Result {
    dev_cluster(ctx, &["ctr-tag", image, name]).await
}

/// Runs `dev/cluster` in the host's namespaces: the suite's own mounts would become the new node's, and end with the suite.
async fn dev_cluster(ctx: &Ctx, arguments: &[&str]) -> Result {
    let program = &ctx.settings.dev_cluster;
    let mut dev_cluster = match process::ancestor_outside()? {
        None => Command::new(program),
        Some(pid) => {
            let mut nsenter = Command::new("nsenter");
            nsenter
                .args(["--target", &pid.to_string(), "--mount", "--net", "--"])
                .arg(program);
            nsenter
        }
    };
    let output = dev_cluster
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .await
        .about("dev/cluster")?;
    let said = String::from_utf8_lossy(&output.stderr);
    if !said.trim().is_empty() {
        ctx.say(said.trim());
    }
    ensure!(
        output.status.success(),
        "dev/cluster {} failed: {said}",
        arguments.join(" ")
    );
    Ok(())
}
