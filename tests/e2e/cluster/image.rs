//! An image of nothing but files, as `FROM scratch` and `COPY` make it, and known by its digest as one from a registry is.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::node;
use crate::{
    ensure,
    harness::{Result, context::Ctx},
};

/// Puts an image with these files in `/migrations` onto the node; gives its reference by digest.
pub async fn of_files(ctx: &Ctx, name: &str, files: &[(&str, &str)]) -> Result<String> {
    let layout = Layout::new()?;
    let migrations = layout.root.join("migrations");
    fs::create_dir_all(&migrations)?;
    for (file, text) in files {
        fs::write(migrations.join(file), text)?;
    }
    let layer = layout.root.join("layer.tar");
    let owner = ["--owner=0", "--group=0", "--mode=u=rwX,go=rX"];
    tar(&layout.root, &layer, &[owner.as_slice(), &["migrations"]].concat())?;
    let layer = fs::read(layer)?;
    let architecture = match std::env::consts::ARCH {
        "aarch64" => "arm64",
        _ => "amd64",
    };
    let files = json!({"type": "layers", "diff_ids": [digest(&layer)]});
    let config = json!({"architecture": architecture, "os": "linux", "config": {}, "rootfs": files});
    let manifest = json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": layout.blob("application/vnd.oci.image.config.v1+json", config.to_string().as_bytes())?,
        "layers": [layout.blob("application/vnd.oci.image.layer.v1.tar", &layer)?],
    });
    let mut top = layout.blob(
        "application/vnd.oci.image.manifest.v1+json",
        manifest.to_string().as_bytes(),
    )?;
    let reference = format!("{name}@{}", top["digest"].as_str().unwrap_or_default());
    let tagged = format!("{name}:files");
    top["annotations"] = json!({"io.containerd.image.name": tagged});
    let index = json!({"schemaVersion": 2, "manifests": [top]});
    fs::write(layout.tree().join("index.json"), index.to_string())?;
    fs::write(layout.tree().join("oci-layout"), r#"{"imageLayoutVersion": "1.0.0"}"#)?;
    let archive = layout.root.join("image.tar");
    tar(&layout.tree(), &archive, &["."])?;
    node::import(ctx, &archive.to_string_lossy()).await?;
    node::tag(ctx, &tagged, &reference).await?;
    Ok(reference)
}

/// A folder for what becomes the archive; gone with this.
struct Layout {
    root: PathBuf,
}

impl Layout {
    fn new() -> Result<Self> {
        let root = std::env::temp_dir().join(format!("amas-image-{}", std::process::id()));
        let layout = Self { root };
        fs::create_dir_all(layout.tree().join("blobs/sha256"))?;
        Ok(layout)
    }

    fn tree(&self) -> PathBuf {
        self.root.join("layout")
    }

    /// Adds a blob; its descriptor.
    fn blob(&self, kind: &str, bytes: &[u8]) -> Result<Value> {
        let digest = digest(bytes);
        let file = digest.replace(':', "/");
        fs::write(self.tree().join("blobs").join(file), bytes)?;
        Ok(json!({"mediaType": kind, "digest": digest, "size": bytes.len()}))
    }
}

impl Drop for Layout {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.root);
    }
}

fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

fn tar(folder: &Path, archive: &Path, of: &[&str]) -> Result {
    let output = Command::new("tar")
        .arg("-C")
        .arg(folder)
        .arg("-cf")
        .arg(archive)
        .args(of)
        .output()?;
    ensure!(
        output.status.success(),
        "tar failed: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}
