//! The folder of backups: a dump has another name until it is whole and on disk, and none ever takes the place of another.

use std::{
    fs::{self, File},
    io::{self, ErrorKind, Read},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use jiff::Timestamp;
use sha2::{Digest, Sha256};

use crate::migrate::history;

const PARTIAL: &str = ".partial";
const BUFFER: usize = 1024 * 1024;

/// Where a dump is written.
pub(super) struct Place {
    folder: PathBuf,
    /// Without its ending.
    name: String,
}

impl Place {
    /// Makes the folder if it is absent, and an empty file in it. What an earlier run of the same database was killed over is taken away:
    /// whoever has the migration lock is the only one.
    pub fn open(folder: &Path, identity: &str) -> Result<Self, String> {
        let (prefix, now) = (prefix(identity), Timestamp::now());
        let name = format!(
            "{prefix}{}{:03}Z",
            now.strftime("%Y%m%dT%H%M%S"),
            now.as_millisecond().rem_euclid(1000)
        );
        let place = Self {
            folder: folder.to_owned(),
            name,
        };
        let opened = fs::create_dir_all(folder).and_then(|()| {
            for dead in fs::read_dir(folder)? {
                let dead = dead?;
                let of_ours = dead.file_name().to_string_lossy().starts_with(&prefix);
                if of_ours && dead.file_name().to_string_lossy().ends_with(PARTIAL) {
                    fs::remove_file(dead.path())?;
                }
            }
            if folder.join(place.file_name()).exists() {
                return Err(ErrorKind::AlreadyExists.into());
            }
            File::options()
                .write(true)
                .create_new(true)
                .mode(0o640)
                .open(place.partial())
        });
        match opened {
            Ok(_) => Ok(place),
            Err(error) => Err(format!("folder {} cannot be written: {error}", folder.display())),
        }
    }

    pub fn file_name(&self) -> String {
        format!("{}.dump", self.name)
    }

    pub fn partial(&self) -> PathBuf {
        self.folder.join(format!("{}.dump{PARTIAL}", self.name))
    }

    pub fn bytes(&self) -> u64 {
        fs::metadata(self.partial()).map_or(0, |found| found.len())
    }

    /// Brings the file to disk under its own name; its size and SHA-256.
    pub async fn finish(&self) -> Result<(u64, String), String> {
        let (partial, whole, folder) = (self.partial(), self.folder.join(self.file_name()), self.folder.clone());
        let name = whole.display().to_string();
        let finished = tokio::task::spawn_blocking(move || -> io::Result<(u64, String)> {
            let sum = checksum(&partial)?;
            File::open(&partial)?.sync_all()?;
            fs::rename(&partial, &whole)?;
            File::open(&folder)?.sync_all()?;
            Ok(sum)
        });
        match finished.await {
            Ok(Ok(sum)) => Ok(sum),
            Ok(Err(error)) => Err(format!("{name} cannot be written: {error}")),
            Err(error) => Err(format!("{name} cannot be written: {error}")),
        }
    }
}

/// A dump that was not finished is none.
impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_file(self.partial());
    }
}

/// What the names of one database's files begin with: its name as far as it can be in a file's, and a digest of which it is.
fn prefix(identity: &str) -> String {
    let database = history::database(identity);
    let plain = |c: char| if c.is_ascii_alphanumeric() || c == '_' { c } else { '-' };
    let short: String = database.chars().map(plain).take(40).collect();
    let digest = hex::encode(&Sha256::digest(identity)[..4]);
    format!("{short}-{digest}-")
}

/// The path of a recorded file; None for a name that no backup has.
pub(super) fn path(folder: &Path, file: &str) -> Option<PathBuf> {
    let plain = !file.is_empty() && !file.starts_with('.') && !file.contains('/');
    plain.then(|| folder.join(file))
}

/// Size and SHA-256.
pub(super) fn checksum(path: &Path) -> io::Result<(u64, String)> {
    let (mut file, mut hash, mut bytes) = (File::open(path)?, Sha256::new(), 0);
    let mut buffer = vec![0; BUFFER];
    loop {
        let read = file.read(&mut buffer)?;
        if read == 0 {
            break;
        }
        hash.update(&buffer[..read]);
        bytes += read as u64;
    }
    Ok((bytes, hex::encode(hash.finalize())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_in_their_folder() {
        assert!(prefix("7/../../etc").starts_with("------etc-"));
        assert_ne!(prefix("7/a"), prefix("8/a"));
        let folder = Path::new("/b");
        for bad in ["", "../x", "a/b", ".hidden"] {
            assert_eq!(path(folder, bad), None, "{bad}");
        }
        assert_eq!(path(folder, "a.dump"), Some("/b/a.dump".into()));
    }
}
