//! `migrate new`: an empty pair of files.

use std::{fs::OpenOptions, io::Write, path::Path};

use jiff::{Timestamp, tz::TimeZone};

use crate::migrate::report::Failure;

use super::args::NewArgs;

pub(super) fn new(args: &NewArgs) -> Result<(), Failure> {
    let name = file_name(&args.description.join(" "))?;
    let now = Timestamp::now().to_zoned(TimeZone::UTC);
    let version = now.strftime("%Y%m%d%H%M%S");
    std::fs::create_dir_all(&args.dir).map_err(|error| unwritable(&args.dir, &error))?;
    for (direction, what) in [("up", "what to do"), ("down", "how to take it back")] {
        let path = args.dir.join(format!("{version}_{name}.{direction}.sql"));
        let header = format!(
            "-- {}: {what}. Made {} UTC. The file is one transaction; for CONCURRENTLY make '-- no-transaction' its first line.\n\n",
            args.description.join(" "),
            now.strftime("%Y-%m-%d %H:%M:%S")
        );
        let opened = OpenOptions::new().write(true).create_new(true).open(&path);
        let written = opened.and_then(|mut file| file.write_all(header.as_bytes()));
        written.map_err(|error| unwritable(&path, &error))?;
        println!("{}", path.display());
    }
    Ok(())
}

fn unwritable(path: &Path, error: &std::io::Error) -> Failure {
    Failure::Usage(format!("{} cannot be written: {error}", path.display()))
}

/// Letters and digits in small, everything else an underscore.
fn file_name(description: &str) -> Result<String, Failure> {
    let spaced: String = description
        .chars()
        .map(|letter| {
            if letter.is_ascii_alphanumeric() {
                letter.to_ascii_lowercase()
            } else {
                ' '
            }
        })
        .collect();
    let name = spaced.split_whitespace().collect::<Vec<_>>().join("_");
    if name.is_empty() || name.len() > 100 {
        let what = "the description must have 1 to 100 letters or digits";
        return Err(Failure::Usage(what.to_owned()));
    }
    Ok(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_plain() {
        assert_eq!(file_name("Add  the user's e-mail").unwrap(), "add_the_user_s_e_mail");
        assert!(file_name("--").is_err() && file_name(&"x".repeat(101)).is_err());
    }

    #[test]
    fn a_pair_is_written_and_never_overwritten() {
        let dir = std::env::temp_dir().join(format!("amas-new-{}", std::process::id()));
        let args = NewArgs {
            dir: dir.clone(),
            description: vec!["add".into(), "users".into()],
        };
        new(&args).unwrap();
        let names: Vec<_> = std::fs::read_dir(&dir)
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        assert_eq!(names.len(), 2, "{names:?}");
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
