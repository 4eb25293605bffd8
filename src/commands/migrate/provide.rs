//! `provide`: this program and a bundle, copied to where a container of another image finds them. For the operator's Jobs.

use std::{
    fs, io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use crate::migrate::report::Failure;

#[derive(Debug, clap::Args)]
pub(super) struct ProvideArgs {
    /// The folder that gets the program, and the bundle below `migrations`.
    #[arg(long, value_name = "DIR")]
    to: PathBuf,
    /// The folder of a bundle of migrations.
    #[arg(long, value_name = "DIR")]
    bundle: Option<PathBuf>,
}

pub(super) fn provide(args: &ProvideArgs) -> Result<(), Failure> {
    copied(args).map_err(|error| Failure::Usage(format!("{} cannot be filled: {error}", args.to.display())))
}

fn copied(args: &ProvideArgs) -> io::Result<()> {
    let program = args.to.join("amas-operator");
    fs::copy(std::env::current_exe()?, &program)?;
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755))?;
    if let Some(bundle) = &args.bundle
        && let Some(name) = bundle.file_name()
    {
        copy_folder(bundle, &args.to.join("migrations").join(name))?;
    }
    Ok(())
}

fn copy_folder(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        match entry.path().is_dir() {
            true => copy_folder(&entry.path(), &target)?,
            false => drop(fs::copy(entry.path(), target)?),
        }
    }
    Ok(())
}
