//! Folders of many small files: listed, and read by several threads.
//!
//! A long history is thousands of files. Opening one costs more than what is in it, so nothing is asked of a file that
//! its folder has told already, and no size before it is read.

use std::{
    fs::{File, FileType},
    io::{self, Read},
    path::{Path, PathBuf},
};

use super::{source::SourceError, spread};

/// Most files are smaller: one read finds all of it, the next one its end.
const BUFFER: usize = 8 * 1024;

/// The `*.sql` files of a folder, in no order. Subfolders, hidden files (the bookkeeping of a mounted ConfigMap) and files
/// that are not SQL are passed over.
pub(super) fn list(dir: &Path) -> Result<Vec<PathBuf>, SourceError> {
    let list = || -> io::Result<Vec<PathBuf>> {
        let mut paths = Vec::new();
        for entry in std::fs::read_dir(dir)? {
            let entry = entry?;
            let name = entry.file_name();
            if counts(name.as_encoded_bytes()) {
                let path = entry.path();
                if is_file(entry.file_type()?, &path)? {
                    paths.push(path);
                }
            }
        }
        Ok(paths)
    };
    list().map_err(|error| unreadable(dir, &error))
}

/// Whether a file of this name is one of a set.
pub fn counts(name: &[u8]) -> bool {
    !name.starts_with(b".") && name.ends_with(b".sql")
}

/// A mounted ConfigMap is made of links.
fn is_file(kind: FileType, path: &Path) -> io::Result<bool> {
    if kind.is_symlink() {
        return Ok(std::fs::metadata(path)?.is_file());
    }
    Ok(kind.is_file())
}

/// What `of` makes of the bytes of each file, in the order of `paths`.
pub(super) fn read_each<T: Send>(paths: &[PathBuf], of: impl Fn(&[u8]) -> T + Sync) -> Result<Vec<T>, SourceError> {
    let read = |paths: &[PathBuf]| -> Vec<Result<T, SourceError>> {
        let mut bytes = Vec::with_capacity(BUFFER);
        let one = |path: &PathBuf| {
            bytes.clear();
            // a limit keeps the library from asking for the size first
            let all = File::open(path).and_then(|file| file.take(u64::MAX).read_to_end(&mut bytes));
            all.map(|_| of(&bytes)).map_err(|error| unreadable(path, &error))
        };
        paths.iter().map(one).collect()
    };
    spread::parts(paths, read).into_iter().collect()
}

fn unreadable(path: &Path, error: &io::Error) -> SourceError {
    SourceError {
        problems: vec![format!("{}: cannot be read: {error}", path.display())],
    }
}
