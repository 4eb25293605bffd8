//! `migrate new`: an empty pair of files.

use std::{
    fs::OpenOptions,
    io::Write,
    path::{Path, PathBuf},
};

use jiff::{Timestamp, tz::TimeZone};

use crate::migrate::report::Failure;

#[derive(Debug, clap::Args)]
pub(super) struct NewArgs {
    /// Where the files are written.
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
    /// What the migration does, in a few words.
    #[arg(required = true)]
    description: Vec<String>,
}

pub(super) fn new(args: &NewArgs) -> Result<(), Failure> {
    write_at(args, Timestamp::now())
}

fn write_at(args: &NewArgs, now: Timestamp) -> Result<(), Failure> {
    let name = file_name(&args.description.join(" "))?;
    let now = now.to_zoned(TimeZone::UTC);
    let version = now.strftime("%Y%m%d%H%M%S");
    std::fs::create_dir_all(&args.dir).map_err(|error| unwritable(&args.dir, &error))?;
    for (direction, what) in [("up", "what to do"), ("down", "how to take it back")] {
        let path = args.dir.join(format!("{version}_{name}.{direction}.sql"));
        let header = format!(
            "-- {}: {what}. Made {} UTC. The file is one transaction: what none can hold\n-- (CREATE INDEX CONCURRENTLY) goes into a file of its own, for sqlx too with '-- no-transaction' as its first line.\n\n",
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
            description: vec!["Add".into(), "users".into()],
        };
        // in UTC, whatever the zone of who asks
        let now: Timestamp = "2026-03-01T00:30:05+02:00".parse().unwrap();
        write_at(&args, now).unwrap();
        let read = || {
            let mut files: Vec<_> = std::fs::read_dir(&dir)
                .unwrap()
                .map(|entry| entry.unwrap().path())
                .map(|path| {
                    (
                        path.file_name().unwrap().to_owned(),
                        std::fs::read_to_string(&path).unwrap(),
                    )
                })
                .collect();
            files.sort();
            files
        };
        let files = read();
        let names: Vec<_> = files.iter().map(|(name, _)| name.to_str().unwrap()).collect();
        assert_eq!(
            names,
            ["20260228223005_add_users.down.sql", "20260228223005_add_users.up.sql"]
        );
        for ((_, text), what) in files.iter().zip(["how to take it back", "what to do"]) {
            let begins = format!("-- Add users: {what}. Made 2026-02-28 22:30:05 UTC. ");
            assert!(
                text.starts_with(&begins) && text.contains("'-- no-transaction'"),
                "{text}"
            );
        }

        let mine = "SELECT 'mine';";
        std::fs::write(dir.join(names[1]), mine).unwrap();
        let refused = write_at(&args, now).unwrap_err().to_string();
        assert!(
            refused.contains(names[1]) && refused.contains("cannot be written"),
            "{refused}"
        );
        assert_eq!(read()[1].1, mine);
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
