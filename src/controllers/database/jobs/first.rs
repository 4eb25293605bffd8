//! What a Job's pod does before its container begins: our program, a bundle, the files of an image are put where that container finds them. Pure.

use serde_json::{Value, json};

use super::manifest::{JobInput, source_folder};
use crate::{
    api::migrations::{ImageMount, ImageSource, MigrationSource},
    controllers::database::backups,
    stores::workload::security,
};

/// Where a pod has our program, which other images do not bring, and the volume for backups.
pub(super) const PROGRAM: &str = "/run/amas/program";
pub(super) const BACKUPS: &str = "/run/amas/backups";

/// The image whose files are copied, since it is not mounted.
pub(super) fn copied(source: &MigrationSource) -> Option<&ImageSource> {
    source.image.as_ref().filter(|image| image.mount == ImageMount::Copy)
}

/// Adds the containers that run first, and what they need; and lets the Job's own container run where pg_dump is, if it needs that.
pub(super) fn add(input: &JobInput<'_>, source: &MigrationSource, pod: &mut Value) {
    let copied = copied(source);
    if copied.is_none() && input.saves.is_none() {
        return;
    }
    let resources = pod["containers"][0]["resources"].clone();
    let mut first = vec![program(input, source)];
    first.extend(copied.map(files));
    for container in &mut first {
        container["resources"] = resources.clone();
        container["securityContext"] = security(true);
    }
    pod["initContainers"] = json!(first);
    push(&mut pod["volumes"], json!({"name": "program", "emptyDir": {}}));
    if let Some(image) = &input.saves {
        run_in(image, input, pod);
    }
}

/// Our image brings the program, and the bundle where the Job's container runs in another image.
fn program(input: &JobInput<'_>, source: &MigrationSource) -> Value {
    let mut arguments: Vec<String> = ["migrate", "provide", "--to", PROGRAM].map(Into::into).into();
    if let Some(bundle) = &source.bundle {
        arguments.extend(["--bundle".into(), format!("/migrations/{bundle}")]);
    }
    json!({
        "name": "program", "image": input.image, "imagePullPolicy": "IfNotPresent", "args": arguments,
        "volumeMounts": [{"name": "program", "mountPath": PROGRAM}],
    })
}

/// The user's image, in which our program runs, brings its files. Nothing of the image itself is executed, since it may have nothing but files.
fn files(image: &ImageSource) -> Value {
    json!({
        "name": "files", "image": image.reference, "imagePullPolicy": image.pull_policy, "command": [command()],
        // Not the folder that the image may have chosen, which the user of this pod may have no right to.
        "workingDir": "/",
        "args": ["migrate", "provide", "--files", image.path, "--to", source_folder(image), "--termination-message", "/dev/termination-log"],
        "volumeMounts": [{"name": "program", "mountPath": PROGRAM, "readOnly": true}, {"name": "source", "mountPath": super::manifest::SOURCE}],
    })
}

/// The Job's own container runs in another image, which has pg_dump.
fn run_in(image: &str, input: &JobInput<'_>, pod: &mut Value) {
    let main = &mut pod["containers"][0];
    main["image"] = json!(image);
    main["command"] = json!([command()]);
    let mounts = &mut main["volumeMounts"];
    push(
        mounts,
        json!({"name": "program", "mountPath": PROGRAM, "readOnly": true}),
    );
    push(mounts, json!({"name": "backups", "mountPath": BACKUPS}));
    let claim = json!({"claimName": backups::claim_name(input.family)});
    push(
        &mut pod["volumes"],
        json!({"name": "backups", "persistentVolumeClaim": claim}),
    );
}

fn command() -> String {
    format!("{PROGRAM}/amas-operator")
}

fn push(list: &mut Value, item: Value) {
    if let Some(list) = list.as_array_mut() {
        list.push(item);
    }
}
