//! The operator's release, as its administrator handles it: `dev/helm`.

use serde_json::Value;
use tokio::process::Command;

use crate::{
    ensure,
    harness::{About, Result, context::Ctx},
};

const RELEASE: &str = "amas-operator";

async fn helm(ctx: &Ctx, arguments: &[&str]) -> Result<String> {
    let program = ctx.settings.dev_cluster.with_file_name("helm");
    let namespace = &ctx.settings.operator_namespace;
    let output = Command::new(program)
        .args(arguments)
        .args(["--namespace", namespace])
        .output()
        .await
        .about("dev/helm")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "helm {} failed: {said}", arguments.join(" "));
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The values of the release.
pub async fn values(ctx: &Ctx) -> Result<Value> {
    let text = helm(ctx, &["get", "values", RELEASE, "-o", "json"]).await?;
    Ok(serde_json::from_str(&text)?)
}

/// Installs or upgrades the release with these values, and waits until it is ready.
pub async fn install(ctx: &Ctx, values: &Value) -> Result {
    let chart = concat!(env!("CARGO_MANIFEST_DIR"), "/charts/amas-operator");
    let file = std::env::temp_dir().join(format!("amas-values-{}.json", std::process::id()));
    std::fs::write(&file, values.to_string())?;
    let path = file.to_string_lossy().into_owned();
    let install = [
        "upgrade",
        "--install",
        RELEASE,
        chart,
        "--wait",
        "--timeout",
        "2m",
        "--values",
        &path,
    ];
    let done = helm(ctx, &install).await;
    std::fs::remove_file(&file)?;
    done.map(|_| ())
}

pub async fn uninstall(ctx: &Ctx) -> Result {
    helm(ctx, &["uninstall", RELEASE, "--wait"]).await.map(|_| ())
}
