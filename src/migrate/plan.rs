//! What would run: pure. The operator and the runner call the same [`plan`] and the same [`Plan::hash`].

mod error;
mod estimates;
mod hash;
mod listing;

pub use error::PlanError;
pub use estimates::{Estimate, Estimates, estimates, tables};
pub use hash::{Options, StepId, hash_steps, hash8};
pub use listing::{Planned, PlannedLock};

use std::{fmt, sync::Arc};

use serde::Serialize;

use super::{
    history::Applied,
    progress::Unfinished,
    source::{Checksum, Migration, Source},
    statements::{self, Statement, Unrunnable},
    units,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    Up,
    Down,
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Direction::Up => "up",
            Direction::Down => "down",
        })
    }
}

/// One file to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    pub version: i64,
    pub description: String,
    /// The file whose text this is, as messages show it; for a stored down text the name it had.
    pub file: String,
    /// What is sent: the up text, or on the way down the down text.
    pub sql: Arc<str>,
    /// Of the up file, in both directions.
    pub checksum: Checksum,
    /// The way back: stored at up, run at down.
    pub down: Option<Down>,
    /// It was left in its middle in the same direction: it goes on from there.
    pub unfinished: Option<Unfinished>,
}

/// A down text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Down {
    pub sql: Arc<str>,
    pub checksum: Checksum,
}

impl Down {
    pub fn new(sql: impl Into<Arc<str>>) -> Self {
        let sql = sql.into();
        Self {
            checksum: Checksum::of(sql.as_bytes()),
            sql,
        }
    }
}

/// Steps in the order they run. Empty: the database is where it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    pub direction: Direction,
    /// The version before the first step, 0 for an empty database.
    pub from: i64,
    /// The version after the last step.
    pub to: i64,
    pub steps: Vec<Step>,
}

impl Plan {
    /// For a database that is at this version, where it should be.
    pub fn nothing(version: i64) -> Self {
        Self {
            direction: Direction::Up,
            from: version,
            to: version,
            steps: Vec::new(),
        }
    }
}

/// What would bring a database with this history to `target` (None: the newest file).
///
/// On the way up every applied version is compared with its file first, and one that is half way must have one. A target below the current version gives a down
/// plan from the stored down texts (`Applied::down`), falling back to the source's; it needs no files, which may be gone
/// after a revert in Git.
pub fn plan(source: &Source, history: &[Applied], target: Option<i64>) -> Result<Plan, PlanError> {
    let halves = history.iter().filter(|applied| !applied.success);
    if let Some(dirty) = halves.clone().find(|applied| applied.unfinished.is_none()) {
        return Err(PlanError::Dirty {
            version: dirty.version,
            description: dirty.description.clone(),
        });
    }
    let current = current(history);
    let target = check_target(source, history, target)?;
    let direction = match target {
        Some(target) if target < current => Direction::Down,
        _ => Direction::Up,
    };
    if let Some((half, unfinished)) = halves
        .filter_map(|half| half.unfinished.as_ref().map(|unfinished| (half, unfinished)))
        .find(|(_, unfinished)| unfinished.direction != direction)
    {
        return Err(PlanError::HalfWay {
            version: half.version,
            description: half.description.clone(),
            direction: unfinished.direction,
        });
    }
    if let (Direction::Down, Some(target)) = (direction, target) {
        return down(source, history, target);
    }
    for applied in history
        .iter()
        .filter(|applied| applied.success && target.is_none_or(|target| applied.version <= target))
    {
        check_applied(source, applied, current)?;
    }
    // whatever the target: its text may have got another version, and would run from its beginning
    if let Some(half) = history.iter().find(|applied| is_half_missing(source, applied)) {
        return Err(PlanError::HalfMissing {
            version: half.version,
            description: half.description.clone(),
        });
    }
    up(source, history, target)
}

/// That nothing is half way, in a direction or outside of our records.
pub fn check_whole(history: &[Applied]) -> Result<(), PlanError> {
    let Some(half) = history.iter().find(|applied| !applied.success) else {
        return Ok(());
    };
    let (version, description) = (half.version, half.description.clone());
    Err(match &half.unfinished {
        Some(unfinished) => PlanError::HalfWay {
            version,
            description,
            direction: unfinished.direction,
        },
        None => PlanError::Dirty { version, description },
    })
}

/// The highest applied version, 0 when there is none. One that is half way up is not applied yet.
pub fn current(history: &[Applied]) -> i64 {
    let applied = history.iter().filter(|applied| !half_up(applied));
    applied.map(|applied| applied.version).max().unwrap_or(0)
}

fn half_up(applied: &Applied) -> bool {
    let half = applied.unfinished.as_ref().filter(|_| !applied.success);
    half.is_some_and(|half| half.direction == Direction::Up)
}

/// It is half way up, and nothing can go on with it.
pub fn is_half_missing(source: &Source, applied: &Applied) -> bool {
    half_up(applied) && source.get(applied.version).is_none()
}

/// That a version is known to the files or the records; 0 always is.
pub fn check_target(source: &Source, history: &[Applied], target: Option<i64>) -> Result<Option<i64>, PlanError> {
    let Some(wanted) = target else { return Ok(None) };
    let applied = history.iter().any(|applied| applied.version == wanted);
    if wanted == 0 || applied || source.get(wanted).is_some() {
        return Ok(target);
    }
    let mut known: Vec<i64> = source
        .migrations()
        .map(|m| m.version)
        .chain(history.iter().map(|a| a.version))
        .collect();
    known.sort_unstable();
    known.dedup();
    let more = if known.len() > 10 { "... " } else { "" };
    let last: Vec<String> = known.iter().rev().take(10).rev().map(i64::to_string).collect();
    Err(PlanError::UnknownTarget {
        target: wanted,
        known: format!("{more}{}", last.join(", ")),
    })
}

fn check_applied(source: &Source, applied: &Applied, current: i64) -> Result<(), PlanError> {
    let version = applied.version;
    match source.get(version) {
        Some(file) if file.up.checksum == applied.checksum => Ok(()),
        Some(file) => Err(PlanError::Edited {
            version,
            file: file.up.file.clone(),
        }),
        None if version > source.newest() => Err(PlanError::DatabaseAhead {
            current,
            newest: source.newest(),
        }),
        None => Err(PlanError::Missing {
            version,
            description: applied.description.clone(),
        }),
    }
}

fn up(source: &Source, history: &[Applied], target: Option<i64>) -> Result<Plan, PlanError> {
    let current = current(history);
    let mut steps = Vec::new();
    let wanted = |version| target.is_none_or(|target| version <= target);
    let done = history.iter().filter(|applied| !half_up(applied));
    let applied: std::collections::HashSet<i64> = done.map(|applied| applied.version).collect();
    let unfinished = |version| {
        let half = history.iter().find(|applied| applied.version == version)?;
        half.unfinished.clone()
    };
    for file in source
        .migrations()
        .filter(|m| wanted(m.version) && !applied.contains(&m.version))
    {
        if file.version < current {
            return Err(PlanError::OutOfOrder {
                version: file.version,
                file: file.up.file.clone(),
                current,
            });
        }
        let unfinished = unfinished(file.version);
        match unfinished {
            None => check(file)?,
            // its rest may not be written anew
            Some(_) => sendable(file)?,
        }
        steps.push(Step {
            version: file.version,
            description: file.description.clone(),
            file: file.up.file.clone(),
            sql: file.up.sql.clone(),
            checksum: file.up.checksum.clone(),
            down: file.down.as_ref().map(|d| Down {
                sql: d.sql.clone(),
                checksum: d.checksum.clone(),
            }),
            unfinished,
        });
    }
    let to = steps.last().map_or(current, |step| step.version);
    Ok(Plan {
        direction: Direction::Up,
        from: current,
        to,
        steps,
    })
}

fn down(source: &Source, history: &[Applied], target: i64) -> Result<Plan, PlanError> {
    let mut leaving: Vec<&Applied> = history.iter().filter(|applied| applied.version > target).collect();
    leaving.sort_by_key(|applied| std::cmp::Reverse(applied.version));
    let steps: Vec<Step> = leaving
        .into_iter()
        .map(|applied| down_step(source, applied))
        .collect::<Result<_, _>>()?;
    Ok(Plan {
        direction: Direction::Down,
        from: current(history),
        to: target,
        steps,
    })
}

fn down_step(source: &Source, applied: &Applied) -> Result<Step, PlanError> {
    let version = applied.version;
    let file = source.get(version);
    let from_file = || {
        let down = file?.down.as_ref()?;
        Some(Down {
            sql: down.sql.clone(),
            checksum: down.checksum.clone(),
        })
    };
    let name = file
        .and_then(|m| m.down.as_ref().map(|d| d.file.clone()))
        .unwrap_or_else(|| format!("{version:04}_{}.down.sql", applied.description.replace(' ', "_")));
    if applied.down.is_none() && file.is_some_and(|m| m.up.checksum != applied.checksum) {
        // the file's way back belongs to another up
        return Err(PlanError::Edited {
            version,
            file: file.map_or(name, |m| m.up.file.clone()),
        });
    }
    let down = applied
        .down
        .clone()
        .or_else(from_file)
        .ok_or_else(|| PlanError::NoWayBack {
            version,
            description: applied.description.clone(),
        })?;
    statements::runnable(&down.sql).map_err(|problem| PlanError::unrunnable(&name, problem))?;
    Ok(Step {
        version,
        description: applied.description.clone(),
        file: name,
        sql: down.sql.clone(),
        checksum: applied.checksum.clone(),
        down: Some(down),
        unfinished: applied.unfinished.clone().filter(|_| !applied.success),
    })
}

/// Whether both ways of a migration can be run, each statement under what the text has set.
pub fn check(migration: &Migration) -> Result<(), PlanError> {
    each_way(migration, units::check_cuts)
}

/// Whether both ways of a migration can be sent.
fn sendable(migration: &Migration) -> Result<(), PlanError> {
    each_way(migration, |_, _| Ok(()))
}

/// Whether both ways can be sent, and what else is asked of them.
fn each_way(
    migration: &Migration,
    also: impl Fn(&str, &[Statement]) -> Result<(), Unrunnable>,
) -> Result<(), PlanError> {
    let up = &migration.up;
    statements::doing(&up.sql)
        .and_then(|all| also(&up.sql, &all))
        .map_err(|problem| PlanError::unrunnable(&up.file, problem))?;
    if let Some(down) = &migration.down {
        statements::runnable(&down.sql)
            .and_then(|all| also(&down.sql, &all))
            .map_err(|problem| PlanError::unrunnable(&down.file, problem))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(versions: &[i64]) -> Source {
        let files = versions.iter().flat_map(|v| {
            [
                (format!("{v:04}_m{v}.up.sql"), format!("SELECT {v}").into_bytes()),
                (format!("{v:04}_m{v}.down.sql"), format!("SELECT -{v}").into_bytes()),
            ]
        });
        Source::from_files(files.collect()).unwrap()
    }

    fn applied(version: i64) -> Applied {
        Applied {
            version,
            description: format!("m{version}"),
            checksum: Checksum::of(format!("SELECT {version}").as_bytes()),
            success: true,
            unfinished: None,
            applied_at: jiff::Timestamp::UNIX_EPOCH,
            down: None,
        }
    }

    fn history(versions: &[i64]) -> Vec<Applied> {
        versions.iter().map(|&v| applied(v)).collect()
    }

    #[test]
    fn plans() {
        // files, applied, target -> direction, from, to, steps
        type Case = (
            &'static [i64],
            &'static [i64],
            Option<i64>,
            Direction,
            i64,
            i64,
            &'static [i64],
        );
        use Direction::{Down, Up};
        let cases: &[Case] = &[
            (&[1, 2, 3], &[], None, Up, 0, 3, &[1, 2, 3]),
            (&[1, 2, 3], &[1], None, Up, 1, 3, &[2, 3]),
            (&[1, 2, 3], &[1], Some(2), Up, 1, 2, &[2]),
            (&[1, 2, 3], &[1, 2, 3], None, Up, 3, 3, &[]),
            (&[1, 2, 3], &[1, 2], Some(2), Up, 2, 2, &[]),
            (&[1, 2, 3], &[1, 2, 3], Some(1), Down, 3, 1, &[3, 2]),
            (&[1, 2, 3], &[1, 2, 3], Some(0), Down, 3, 0, &[3, 2, 1]),
        ];
        for (files, done, target, direction, from, to, steps) in cases {
            let plan = plan(&source(files), &history(done), *target).unwrap();
            let versions: Vec<i64> = plan.steps.iter().map(|s| s.version).collect();
            assert_eq!(
                (plan.direction, plan.from, plan.to, versions.as_slice()),
                (*direction, *from, *to, *steps)
            );
        }
    }

    #[test]
    fn refuses() {
        let mut edited = history(&[1, 2]);
        edited[1].checksum = Checksum::of(b"other");
        let mut dirty = history(&[1]);
        dirty[0].success = false;
        let half = |direction| {
            let mut half = history(&[1, 2]);
            half[1].success = false;
            half[1].unfinished = Some(Unfinished {
                direction,
                done: 1,
                digest: String::new(),
                begun: true,
            });
            half
        };
        let cases: Vec<(Source, Vec<Applied>, Option<i64>, &str)> = vec![
            (
                source(&[1, 2, 3]),
                edited,
                None,
                "0002_m2.up.sql: migration 2 was edited",
            ),
            (
                source(&[1, 3]),
                history(&[1, 2, 3]),
                None,
                "migration 2 (m2) is applied but its file is missing",
            ),
            (
                source(&[1]),
                history(&[1, 2]),
                None,
                "at version 2, ahead of the newest file (1)",
            ),
            (source(&[1]), dirty, None, "migration 1 (m1) was left half done"),
            (
                source(&[1, 2]),
                half(Direction::Up),
                Some(0),
                "migration 2 (m2) is half way up",
            ),
            (
                source(&[1, 2]),
                half(Direction::Down),
                None,
                "migration 2 (m2) is half way down",
            ),
            (
                source(&[1, 2, 3]),
                history(&[1, 3]),
                None,
                "version 2 is new but lies below",
            ),
            (
                source(&[1, 2]),
                vec![],
                Some(7),
                "there is no version 7; known are 1, 2",
            ),
            (
                source(&[1]),
                history(&[1, 2]),
                Some(1),
                "migration 2 (m2) has no down text",
            ),
        ];
        for (source, history, target, expected) in cases {
            let error = plan(&source, &history, target).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
        let bad = Source::from_files(vec![("1_x.sql".into(), b"a;\nCOMMIT".to_vec())]).unwrap();
        assert!(
            plan(&bad, &[], None)
                .unwrap_err()
                .to_string()
                .starts_with("1_x.sql:2:1: COMMIT")
        );
    }

    #[test]
    fn what_was_left_in_its_middle_is_gone_on_with() {
        for direction in [Direction::Up, Direction::Down] {
            let mut half = history(&[1, 2]);
            half[1].success = false;
            // corrected meanwhile
            half[1].checksum = Checksum::of(b"other");
            half[1].down = Some(Down::new("SELECT 2"));
            half[1].unfinished = Some(Unfinished {
                direction,
                done: 1,
                digest: "x".into(),
                begun: false,
            });
            let target = (direction == Direction::Down).then_some(1);
            let plan = plan(&source(&[1, 2, 3]), &half, target).unwrap();
            assert_eq!(plan.direction, direction);
            assert_eq!(plan.steps[0].version, 2);
            assert_eq!(plan.steps[0].unfinished, half[1].unfinished);
            assert!(plan.steps[1..].iter().all(|step| step.unfinished.is_none()));
        }
    }

    #[test]
    fn what_is_half_way_up_is_not_passed_over_without_its_file() {
        let mut half = history(&[1, 2]);
        half[1].success = false;
        half[1].unfinished = Some(Unfinished {
            direction: Direction::Up,
            done: 1,
            digest: "x".into(),
            begun: false,
        });
        // gone, or under another version; whatever is asked for
        for (files, target) in [(&[1][..], None), (&[1, 3], None), (&[1, 3], Some(3)), (&[1], Some(1))] {
            let refused = plan(&source(files), &half, target).unwrap_err();
            assert!(
                matches!(refused, PlanError::HalfMissing { version: 2, .. }),
                "{files:?} {target:?}: {refused}"
            );
        }
        assert_eq!(plan(&source(&[1, 2]), &half, None).unwrap().steps[0].version, 2);
        // the way down is in the records
        half[1].down = Some(Down::new("SELECT 'stored'"));
        if let Some(unfinished) = &mut half[1].unfinished {
            unfinished.direction = Direction::Down;
        }
        assert_eq!(plan(&source(&[1]), &half, Some(1)).unwrap().steps.len(), 1);
    }

    #[test]
    fn a_stored_down_text_wins_and_needs_no_file() {
        let mut done = history(&[1, 2]);
        done[1].down = Some(Down::new("SELECT 'stored'"));
        for files in [&[1, 2][..], &[1]] {
            let plan = plan(&source(files), &done, Some(1)).unwrap();
            assert_eq!(&*plan.steps[0].sql, "SELECT 'stored'");
        }
    }

    #[test]
    fn the_hash_moves_with_what_runs_and_with_nothing_else() {
        let options = Options::default();
        let hash = |plan: &Plan| plan.hash("db", &options);
        let base = plan(&source(&[1, 2, 3]), &history(&[1]), None).unwrap();
        let mut described = base.clone();
        described.steps[0].description = "other".into();
        described.from = 0;
        assert_eq!(hash(&base), hash(&described));
        assert_eq!((hash(&base).len(), hash8(&hash(&base)).len()), (64, 8));
        let mut changed = vec![base.hash("other db", &options)];
        changed.push(base.hash(
            "db",
            &Options {
                search_path: "x".into(),
                ..options.clone()
            },
        ));
        for change in [
            (|p: &mut Plan| p.steps[0].checksum = Checksum::of(b"x")) as fn(&mut Plan),
            |p| p.steps[0].down = None,
            |p| p.steps.swap(0, 1),
            |p| drop(p.steps.pop()),
            |p| p.direction = Direction::Down,
        ] {
            let mut plan = base.clone();
            change(&mut plan);
            changed.push(hash(&plan));
        }
        assert!(changed.iter().all(|other| *other != hash(&base)));
    }
}
