//! A set of files at a glance: the digest that a database has of exactly these files.
//!
//! Where nothing is to be done that is all one has to know. Every up file is read and hashed, each time: sizes and times
//! say nothing of a file that was copied, restored or mounted anew, and an edited file must be noticed. Down files are not
//! opened, since their texts were stored when the versions were applied; that they are there their names tell.

use std::path::PathBuf;

use super::{
    files,
    source::{Checksum, Kind, digest, parse_name},
};

/// What a set of files would leave applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Glance {
    /// The highest version.
    pub newest: i64,
    /// That of [`Source::digest`](super::source::Source::digest).
    pub digest: String,
}

impl Glance {
    /// None where the files have to be looked at one by one, to say what is wrong with them:
    /// [`Source::load`](super::source::Source::load) does.
    pub fn of(dirs: &[PathBuf]) -> Option<Self> {
        let (mut ups, mut downs) = (Vec::new(), Vec::new());
        for dir in dirs {
            for path in files::list(dir).ok()? {
                let name = parse_name(path.file_name()?.to_str()?).ok()?;
                match name.kind {
                    Kind::Down => downs.push(name.version),
                    kind => ups.push((name.version, kind, path)),
                }
            }
        }
        ups.sort_unstable_by_key(|(version, ..)| *version);
        downs.sort_unstable();
        let once = ups.is_sorted_by(|(one, ..), (next, ..)| one < next);
        let both_ways = ups.iter().filter(|(_, kind, _)| *kind == Kind::Up);
        if !once || !both_ways.map(|(version, ..)| version).eq(&downs) {
            return None;
        }
        let (versions, paths): (Vec<i64>, Vec<PathBuf>) =
            ups.into_iter().map(|(version, _, path)| (version, path)).unzip();
        let checksums = files::read_each(&paths, Checksum::of).ok()?;
        Some(Self {
            newest: *versions.last()?,
            digest: digest(versions.into_iter().zip(&checksums)),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::migrate::source::Source;

    /// A folder that goes when the test does.
    struct Folder(PathBuf);

    impl Folder {
        fn of(name: &str, files: &[(&str, &str)]) -> Self {
            let folder = Self(std::env::temp_dir().join(format!("amas-glance-{}-{name}", std::process::id())));
            fs::create_dir_all(&folder.0).unwrap();
            for (name, text) in files {
                folder.write(name, text);
            }
            folder
        }

        fn write(&self, name: &str, text: &str) {
            fs::write(self.0.join(name), text).unwrap();
        }

        fn glance(&self) -> Option<Glance> {
            Glance::of(std::slice::from_ref(&self.0))
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn it_is_the_digest_of_the_set_whatever_its_size() {
        // more than one thread's share, in an order that is not that of the names
        let names: Vec<_> = (1..=1001)
            .flat_map(|v| {
                [
                    (format!("{v}_m.up.sql"), format!("SELECT {v};")),
                    (format!("{v}_m.down.sql"), String::new()),
                ]
            })
            .collect();
        let files: Vec<_> = names
            .iter()
            .map(|(name, text)| (name.as_str(), text.as_str()))
            .collect();
        for count in [2, 4, 2002] {
            let folder = Folder::of(&count.to_string(), &files[..count]);
            folder.write("notes.txt", "no SQL");
            folder.write(".hidden.sql", "no migration");
            folder.write("2000_plain.sql", "SELECT 1");
            let source = Source::load(std::slice::from_ref(&folder.0)).unwrap();
            let expected = Glance {
                newest: 2000,
                digest: source.digest().to_owned(),
            };
            assert_eq!(folder.glance(), Some(expected), "{count}");
        }
    }

    #[test]
    fn an_edit_that_keeps_size_and_time_is_noticed() {
        let folder = Folder::of("edited", &[("1_a.sql", "SELECT 1;"), ("2_b.sql", "SELECT 2;")]);
        let (path, before) = (folder.0.join("2_b.sql"), folder.glance().unwrap());
        let time = fs::metadata(&path).unwrap().modified().unwrap();
        folder.write("2_b.sql", "SELECT 3;");
        fs::File::options()
            .write(true)
            .open(&path)
            .unwrap()
            .set_modified(time)
            .unwrap();
        assert_eq!(fs::metadata(&path).unwrap().modified().unwrap(), time);
        assert_ne!(folder.glance().unwrap().digest, before.digest);
    }

    #[test]
    fn a_mounted_configmap_is_made_of_links() {
        let folder = Folder::of("mounted", &[]);
        let data = folder.0.join("..data");
        fs::create_dir(&data).unwrap();
        fs::write(data.join("1_a.sql"), "SELECT 1").unwrap();
        std::os::unix::fs::symlink("..data/1_a.sql", folder.0.join("1_a.sql")).unwrap();
        assert_eq!(folder.glance().map(|glance| glance.newest), Some(1));
    }

    #[test]
    fn what_is_wrong_is_not_told_here() {
        let cases: &[&[&str]] = &[
            &[],
            &["1_a.up.sql"],
            &["1_a.down.sql"],
            &["1_a.up.sql", "1_a.down.sql", "2_b.down.sql"],
            &["1_a.sql", "01_b.sql"],
            &["1_a.up.sql", "1_a.down.sql", "1_b.down.sql"],
            &["1_a.sql", "a.sql"],
        ];
        for (index, names) in cases.iter().enumerate() {
            let files: Vec<_> = names.iter().map(|name| (*name, "SELECT 1")).collect();
            assert_eq!(Folder::of(&format!("wrong{index}"), &files).glance(), None, "{names:?}");
        }
        assert_eq!(Glance::of(&["/nowhere/at/all".into()]), None);
    }
}
