//! The node's power switch: `dev/cluster node-stop` and `node-start`.

use std::process::Stdio;

use tokio::process::Command;

use super::process;
use crate::{
    ensure,
    harness::{About, Result, context::Ctx},
};

/// Everything on the node dies at once; volumes and the control plane stay.
pub async fn stop(ctx: &Ctx) -> Result {
    dev_cluster(ctx, "node-stop").await
}

/// The node comes back with its volumes.
pub async fn start(ctx: &Ctx) -> Result {
    dev_cluster(ctx, "node-start").await
}

/// Runs `dev/cluster` in the host's namespaces: the suite's own mounts would become the new node's, and end with the suite.
async fn dev_cluster(ctx: &Ctx, command: &str) -> Result {
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
        .arg(command)
        .stdin(Stdio::null())
        .output()
        .await
        .about("dev/cluster")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ctx.say(said.trim());
    ensure!(output.status.success(), "dev/cluster {command} failed: {said}");
    Ok(())
}
