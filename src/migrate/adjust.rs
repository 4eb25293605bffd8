//! Changes what the records say and runs nothing: a database that was migrated by other means is taken over (stamp), and what
//! files, records and database disagree on is settled by whoever knows how it is (repair).

use std::{collections::BTreeSet, fmt, time::Duration};

use sqlx::PgConnection;

use crate::api::names::SqlName;

use super::{
    drift,
    history::{self, Applied},
    plan::{self, Down, PlanError},
    record,
    report::Failure,
    session,
    source::{Checksum, Migration, Source},
    tables,
};

/// One version that the records tell otherwise from now on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// It is in, as its file says.
    Applied {
        version: i64,
        description: String,
        checksum: Checksum,
        down: Option<Down>,
    },
    /// It has no file, was left half done, and is in.
    Finished { version: i64 },
    /// It is not in.
    Pending { version: i64 },
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Applied { version, .. } => write!(f, "{version}  recorded as applied, as its file is now"),
            Self::Finished { version } => write!(f, "{version}  recorded as applied"),
            Self::Pending { version } => write!(f, "{version}  no longer recorded"),
        }
    }
}

/// Exactly the known versions up to `to` are in.
pub fn stamp(source: &Source, applied: &[Applied], to: i64) -> Result<Vec<Change>, Failure> {
    plan::check_whole(applied)?;
    plan::check_target(source, applied, Some(to))?;
    let known = |version| applied.iter().any(|one| one.version == version);
    let missing = source
        .migrations()
        .filter(|file| file.version <= to && !known(file.version));
    let above = applied.iter().filter(|one| one.version > to);
    let gone = above.map(|one| Change::Pending { version: one.version });
    Ok(missing.map(as_its_file).chain(gone).collect())
}

/// What somebody who has looked says of single versions.
#[derive(Clone, Debug, Default)]
pub struct Verdicts {
    pub applied: BTreeSet<i64>,
    pub pending: BTreeSet<i64>,
}

/// What the records must say after that; nothing for a version of which they say so already.
pub fn repair(source: &Source, applied: &[Applied], verdicts: &Verdicts) -> Result<Vec<Change>, Failure> {
    let row = |version: i64| applied.iter().find(|one| one.version == version);
    if let Some(both) = verdicts.applied.intersection(&verdicts.pending).next() {
        return Err(Failure::Usage(format!(
            "version {both} is said to be applied and pending"
        )));
    }
    let mut changes = Vec::new();
    for &version in &verdicts.applied {
        match (source.get(version), row(version)) {
            (Some(file), Some(row)) if row.success && row.checksum == file.up.checksum => {}
            (Some(file), _) => changes.push(as_its_file(file)),
            (None, Some(row)) if row.success => {}
            (None, Some(_)) => changes.push(Change::Finished { version }),
            (None, None) => {
                plan::check_target(source, applied, Some(version))?;
            }
        }
    }
    let recorded = verdicts.pending.iter().filter(|&&version| row(version).is_some());
    changes.extend(recorded.map(|&version| Change::Pending { version }));
    Ok(changes)
}

fn as_its_file(file: &Migration) -> Change {
    Change::Applied {
        version: file.version,
        description: file.description.clone(),
        checksum: file.up.checksum.clone(),
        down: file.down.as_ref().map(|down| Down {
            sql: down.sql.clone(),
            checksum: down.checksum.clone(),
        }),
    }
}

/// What files and records disagree on.
#[derive(Debug, PartialEq, Eq)]
pub struct Problem {
    pub version: i64,
    pub what: PlanError,
}

impl Problem {
    /// Which verdicts could settle it.
    pub fn remedy(&self) -> String {
        let version = self.version;
        match &self.what {
            PlanError::Edited { .. } => format!("--applied {version} if the database is as the file says now"),
            PlanError::Missing { .. } => format!("--pending {version} if it is not in the database any more"),
            PlanError::OutOfOrder { .. } => format!("--applied {version} if it is in the database already"),
            _ => {
                format!("--applied {version} if all of it is in the database, --pending {version} if nothing of it is")
            }
        }
    }
}

/// Everything that keeps a plan from being made, not only the first.
pub fn problems(source: &Source, applied: &[Applied]) -> Vec<Problem> {
    let current = plan::current(applied);
    let of_row = |row: &Applied| {
        let (version, description) = (row.version, row.description.clone());
        let what = match source.get(version) {
            None if plan::is_half_missing(source, row) => PlanError::HalfMissing { version, description },
            // the next run goes on with it
            _ if !row.success && row.unfinished.is_some() => return None,
            _ if !row.success => PlanError::Dirty { version, description },
            Some(file) if file.up.checksum != row.checksum => PlanError::Edited {
                version,
                file: file.up.file.clone(),
            },
            None if version < source.newest() => PlanError::Missing { version, description },
            _ => return None,
        };
        Some(Problem { version, what })
    };
    let below = source
        .migrations()
        .filter(|file| file.version < current && !applied.iter().any(|row| row.version == file.version));
    let below = below.map(|file| Problem {
        version: file.version,
        what: PlanError::OutOfOrder {
            version: file.version,
            file: file.up.file.clone(),
            current,
        },
    });
    let mut all: Vec<Problem> = applied.iter().filter_map(of_row).chain(below).collect();
    all.sort_by_key(|problem| problem.version);
    all
}

/// Writes what `decide` makes of the present records, under the migration lock and in one transaction.
pub async fn adjust(
    conn: &mut PgConnection,
    schema: &SqlName,
    patience: Duration,
    decide: impl FnOnce(&[Applied]) -> Result<Vec<Change>, Failure>,
) -> Result<Vec<Change>, Failure> {
    let identity = history::identity(conn).await?;
    let database = history::database(&identity).to_owned();
    session::lock(conn, &database, patience, &mut |_| {}).await?;
    let result = locked(conn, schema, decide).await;
    session::unlock(conn, &database).await?;
    result
}

async fn locked(
    conn: &mut PgConnection,
    schema: &SqlName,
    decide: impl FnOnce(&[Applied]) -> Result<Vec<Change>, Failure>,
) -> Result<Vec<Change>, Failure> {
    tables::ensure(conn, schema).await?;
    let state = history::read(conn, schema, None).await?.unwrap_or_default();
    let changes = decide(&state.applied)?;
    if changes.is_empty() {
        if !drift::is_recorded(conn, schema).await? {
            drift::record(conn, schema).await?;
        }
        return Ok(changes);
    }
    drift::note(conn, schema).await?;
    let sql: Vec<String> = changes.iter().map(|change| record::adjust(schema, change)).collect();
    if let Err(failed) = session::send(conn, &record::told(&sql)).await {
        let _ = session::send(conn, "ROLLBACK").await;
        return Err(failed.error.into());
    }
    drift::record(conn, schema).await?;
    Ok(changes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::migrate::{plan::Direction, progress::Unfinished};

    fn source(files: &[(i64, &str)]) -> Source {
        let file = |(version, sql): &(i64, &str)| (format!("{version}_m.sql"), sql.as_bytes().to_vec());
        Source::from_files(files.iter().map(file).collect()).unwrap()
    }

    fn rows(rows: &[(i64, &str, bool)]) -> Vec<Applied> {
        let row = |&(version, sql, success): &(i64, &str, bool)| Applied {
            version,
            description: "m".into(),
            checksum: Checksum::of(sql.as_bytes()),
            success,
            unfinished: None,
            applied_at: jiff::Timestamp::UNIX_EPOCH,
            down: None,
        };
        rows.iter().map(row).collect()
    }

    fn said(changes: Result<Vec<Change>, Failure>) -> Vec<(char, i64)> {
        let one = |change: &Change| match change {
            Change::Applied { version, .. } => ('a', *version),
            Change::Finished { version } => ('f', *version),
            Change::Pending { version } => ('p', *version),
        };
        changes.unwrap().iter().map(one).collect()
    }

    #[test]
    fn a_stamp_goes_both_ways() {
        let files = source(&[(1, "a"), (2, "b"), (3, "c")]);
        assert_eq!(said(stamp(&files, &[], 2)), [('a', 1), ('a', 2)]);
        let all = rows(&[(1, "a", true), (2, "b", true), (3, "c", true)]);
        assert_eq!(said(stamp(&files, &all, 1)), [('p', 2), ('p', 3)]);
        assert_eq!(said(stamp(&files, &all, 3)), []);
        assert!(matches!(
            stamp(&files, &all, 7),
            Err(Failure::Plan(PlanError::UnknownTarget { .. }))
        ));
        let half = rows(&[(1, "a", false)]);
        assert!(matches!(
            stamp(&files, &half, 1),
            Err(Failure::Plan(PlanError::Dirty { .. }))
        ));
    }

    #[test]
    fn what_goes_on_by_itself_is_no_problem() {
        let files = source(&[(1, "a"), (2, "b")]);
        let mut half = rows(&[(1, "a", true), (2, "b", false)]);
        half[1].unfinished = Some(Unfinished {
            direction: Direction::Up,
            done: 1,
            digest: String::new(),
            begun: false,
        });
        assert_eq!(problems(&files, &half), []);
        assert!(matches!(
            stamp(&files, &half, 2),
            Err(Failure::Plan(PlanError::HalfWay { version: 2, .. }))
        ));
        let verdicts = Verdicts {
            applied: [2].into(),
            ..Verdicts::default()
        };
        assert_eq!(said(repair(&files, &half, &verdicts)), [('a', 2)]);
    }

    #[test]
    fn what_is_half_way_up_without_a_file_is_a_problem() {
        let mut half = rows(&[(1, "a", true), (5, "e", false)]);
        let mut left = |direction| {
            half[1].unfinished = Some(Unfinished {
                direction,
                done: 1,
                digest: String::new(),
                begun: false,
            });
            let files = source(&[(1, "a"), (6, "e")]);
            let found: Vec<String> = problems(&files, &half).iter().map(Problem::remedy).collect();
            let gone = Verdicts {
                pending: [5].into(),
                ..Verdicts::default()
            };
            assert_eq!(said(repair(&files, &half, &gone)), [('p', 5)]);
            found
        };
        let both = "--applied 5 if all of it is in the database, --pending 5 if nothing of it is";
        assert_eq!(left(Direction::Up), [both]);
        // the way down is in the records
        assert_eq!(left(Direction::Down), [""; 0]);
    }

    #[test]
    fn a_verdict_changes_only_what_is_recorded_otherwise() {
        let files = source(&[(1, "a"), (2, "b"), (3, "c"), (5, "e")]);
        let have = rows(&[
            (1, "a", true),
            (2, "edited", true),
            (4, "gone", true),
            (5, "e", false),
            (6, "x", false),
        ]);
        let listed: Vec<(i64, bool)> = problems(&files, &have)
            .iter()
            .map(|problem| (problem.version, matches!(problem.what, PlanError::Dirty { .. })))
            .collect();
        assert_eq!(listed, [(2, false), (3, false), (4, false), (5, true), (6, true)]);
        let verdicts = Verdicts {
            applied: [1, 2, 3, 6].into(),
            pending: [4, 5, 7].into(),
        };
        let expected = [('a', 2), ('a', 3), ('f', 6), ('p', 4), ('p', 5)];
        assert_eq!(said(repair(&files, &have, &verdicts)), expected);
        let unknown = Verdicts {
            applied: [9].into(),
            ..Verdicts::default()
        };
        assert!(repair(&files, &have, &unknown).is_err());
        let torn = Verdicts {
            applied: [1].into(),
            pending: [1].into(),
        };
        assert!(repair(&files, &have, &torn).is_err());
    }
}
