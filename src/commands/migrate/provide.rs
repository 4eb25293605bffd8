//! `provide`: this program and a bundle, or the SQL files of an image, copied to where a container of another image finds them. For the
//! operator's Jobs.

use std::{
    fs, io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use crate::migrate::report::{Failure, Report};

use super::{deposit::sql_files, leave_message};

#[derive(Debug, clap::Args)]
pub(super) struct ProvideArgs {
    /// The folder that gets the program, and the bundle below `migrations`; or the files.
    #[arg(long, value_name = "DIR")]
    to: PathBuf,
    /// The folder of a bundle of migrations.
    #[arg(long, value_name = "DIR")]
    bundle: Option<PathBuf>,
    /// Not the program, but the SQL files of this folder.
    #[arg(long, value_name = "DIR", conflicts_with = "bundle")]
    files: Option<PathBuf>,
    /// Write the failure as JSON to this file (/dev/termination-log).
    #[arg(long, value_name = "FILE")]
    termination_message: Option<PathBuf>,
}

pub(super) fn provide(args: &ProvideArgs) -> Result<(), Failure> {
    let done = match &args.files {
        Some(files) => copy_files(files, &args.to),
        None => copy_program(args).map_err(|error| unfilled(&args.to, &error)),
    };
    let Err(failure) = done else { return Ok(()) };
    let report = Report::early(failure);
    leave_message(args.termination_message.as_deref(), &report);
    report.failure.map_or(Ok(()), Err)
}

fn unfilled(to: &Path, error: &io::Error) -> Failure {
    Failure::Usage(format!("{} cannot be filled: {error}", to.display()))
}

/// What a run would read there, and nothing else that is in the folder.
fn copy_files(from: &Path, to: &Path) -> Result<(), Failure> {
    let files = sql_files(from)?;
    let copy = || {
        fs::create_dir_all(to)?;
        files.iter().try_for_each(|(name, text)| fs::write(to.join(name), text))
    };
    copy().map_err(|error| unfilled(to, &error))?;
    eprintln!("{} files copied", files.len());
    Ok(())
}

fn copy_program(args: &ProvideArgs) -> io::Result<()> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sql_files_of_an_image_are_copied_and_what_is_wrong_with_them_is_left_in_words() {
        let root = std::env::temp_dir().join(format!("amas-provide-{}", std::process::id()));
        let (from, to) = (root.join("image"), root.join("run/sql"));
        fs::create_dir_all(from.join("sub")).unwrap();
        let provided = |from: &Path| {
            provide(&ProvideArgs {
                to: to.clone(),
                bundle: None,
                files: Some(from.into()),
                termination_message: Some(root.join("end")),
            })
        };
        let said = |wanted: &str| {
            let end = fs::read_to_string(root.join("end")).unwrap();
            assert!(end.contains(wanted), "{end}");
        };
        assert!(provided(&from).is_err());
        said("no file that ends in .sql");
        assert!(provided(&root.join("gone")).is_err());
        said("gone");
        for (name, text) in [("0001_a.sql", "SELECT 1"), ("README.md", "x"), ("sub/0002_b.sql", "x")] {
            fs::write(from.join(name), text).unwrap();
        }
        provided(&from).unwrap();
        let copied: Vec<_> = fs::read_dir(&to)
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        assert_eq!(copied, ["0001_a.sql"]);
        assert_eq!(fs::read_to_string(to.join("0001_a.sql")).unwrap(), "SELECT 1");
        fs::remove_dir_all(root).unwrap();
    }
}
