//! Random walks of up, down, edits, stamps, repairs and kills in both directions beside a model of what files, records and
//! tables must say after each.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant, SystemTime},
};

use amas_operator::migrate::{
    adjust::{self, Verdicts},
    plan::Direction,
    report::Report,
    runner::{self, Event, Goal, Request, Urgency},
    source::Source,
};
use tokio::sync::watch;

use super::{Database, public, request};

/// Versions there are.
const VERSIONS: i64 = 6;
/// The one whose file is more than a transaction in both directions.
const IN_PARTS: i64 = 3;
const STEPS: usize = 160;
/// The walk that is the same each time. The other one is of the clock's choice, and can be had again: `AMAS_WALK=7`.
const WALK: u64 = 20_261_126;

/// The edition of a file: which column its table has.
type Edition = u32;

/// What must be.
#[derive(Clone, Debug, Default, PartialEq)]
struct Model {
    files: BTreeMap<i64, Edition>,
    /// Always the versions from 1 to some other.
    recorded: BTreeMap<i64, Edition>,
    tables: BTreeMap<i64, Edition>,
}

#[derive(Clone, Copy, Debug)]
enum Act {
    Up(Option<i64>),
    Down(usize),
    /// The connection is cut on the way up, so many microseconds after so many files were begun.
    Kill(usize, u64),
    /// The same on the way down, so many steps.
    KillDown(usize, usize, u64),
    Edit(i64),
    Unedit(i64),
    Stamp(i64),
    Repair(i64),
}

fn up_text(version: i64, edition: Edition) -> String {
    let table = format!("CREATE TABLE t{version} (e{edition} int);");
    match version {
        IN_PARTS => format!("{table}\nCREATE INDEX CONCURRENTLY t{version}_i ON t{version} (e{edition});"),
        // every other one shares no transaction, so that there are places between them
        _ if version % 2 == 0 => format!("{table} DO $$ BEGIN END $$;"),
        _ => table,
    }
}

fn down_text(version: i64) -> String {
    let table = format!("DROP TABLE t{version};");
    match version {
        // the first part is a transaction, which tells whether the table is there
        IN_PARTS => {
            format!("ALTER TABLE t{version} ADD going int;\nDROP INDEX CONCURRENTLY t{version}_i;\n{table}")
        }
        _ => table,
    }
}

impl Model {
    fn new() -> Self {
        Self {
            files: (1..=VERSIONS).map(|version| (version, 0)).collect(),
            ..Self::default()
        }
    }

    fn current(&self) -> i64 {
        self.recorded.keys().next_back().copied().unwrap_or(0)
    }

    fn source(&self) -> Source {
        let pair = |(&version, &edition): (&i64, &Edition)| {
            [
                (format!("{version}_m.up.sql"), up_text(version, edition).into_bytes()),
                (format!("{version}_m.down.sql"), down_text(version).into_bytes()),
            ]
        };
        Source::from_files(self.files.iter().flat_map(pair).collect()).unwrap()
    }

    /// What an act makes of it, and the exit code it ends with.
    fn act(&mut self, act: Act) -> u8 {
        match act {
            Act::Up(target) => self.up(target, usize::MAX),
            Act::Kill(..) | Act::KillDown(..) => 0,
            Act::Down(steps) => self.down(steps),
            Act::Edit(version) => {
                *self.files.get_mut(&version).unwrap() += 1;
                0
            }
            Act::Unedit(version) => {
                let recorded = self.recorded.get(&version).copied();
                self.files.insert(version, recorded.unwrap_or(0));
                0
            }
            Act::Stamp(to) => {
                self.recorded.retain(|version, _| *version <= to);
                for (version, edition) in self.files.range(..=to) {
                    self.recorded.entry(*version).or_insert(*edition);
                }
                0
            }
            Act::Repair(version) => {
                if let Some(recorded) = self.recorded.get_mut(&version) {
                    *recorded = self.files[&version];
                }
                0
            }
        }
    }

    /// At most `steps` of the way up.
    fn up(&mut self, target: Option<i64>, steps: usize) -> u8 {
        let target = target.unwrap_or(VERSIONS);
        if target < self.current() {
            return 17;
        }
        if self
            .recorded
            .iter()
            .any(|(version, edition)| self.files[version] != *edition)
        {
            return 12;
        }
        for version in (self.current() + 1..=target).take(steps) {
            if self.tables.contains_key(&version) {
                return 10;
            }
            self.tables.insert(version, self.files[&version]);
            self.recorded.insert(version, self.files[&version]);
        }
        0
    }

    /// What a cut may have left of the way that it was on, and how many steps each is.
    fn cuts(&self, act: Act) -> Vec<Model> {
        let after = |steps: usize| {
            let mut cut = self.clone();
            match act {
                Act::KillDown(most, ..) => cut.down(steps.min(most)),
                _ => cut.up(None, steps),
            };
            cut
        };
        (0..=VERSIONS as usize).map(after).collect()
    }

    fn down(&mut self, steps: usize) -> u8 {
        for _ in 0..steps {
            let current = self.current();
            if current > 0 && self.tables.remove(&current).is_none() {
                return 10;
            }
            self.recorded.remove(&current);
        }
        0
    }
}

/// Random enough, and the same each time.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }

    fn version(&mut self) -> i64 {
        self.below(VERSIONS as u64) as i64 + 1
    }

    fn act(&mut self) -> Act {
        match self.below(20) {
            0..4 => Act::Up(None),
            4..6 => Act::Up(Some(self.version())),
            6..9 => Act::Down(self.below(4) as usize),
            9..13 => Act::Kill(self.below(VERSIONS as u64) as usize, self.below(8_000)),
            13..16 => Act::KillDown(
                self.version() as usize,
                self.below(VERSIONS as u64) as usize,
                self.below(8_000),
            ),
            16 => Act::Edit(self.version()),
            17 => Act::Unedit(self.version()),
            18 => Act::Stamp(self.below(VERSIONS as u64 + 1) as i64),
            _ => Act::Repair(self.version()),
        }
    }
}

impl Database {
    async fn perform(&self, model: &Model, act: Act) -> u8 {
        let source = model.source();
        let code = |report: Report| report.exit_code();
        match act {
            Act::Up(target) => code(self.run(request(Goal::Up(target), source)).await),
            Act::Down(steps) => code(self.run(request(Goal::DownSteps(steps), Source::default())).await),
            Act::Kill(files, then) => {
                let pending = (VERSIONS - model.current()) as usize;
                let moment = (files % (pending + 1), Duration::from_micros(then));
                self.killed(request(Goal::Up(None), source), moment).await
            }
            Act::KillDown(steps, files, then) => {
                let pending = steps.min(model.recorded.len());
                let moment = (files % (pending + 1), Duration::from_micros(then));
                self.killed(request(Goal::DownSteps(steps), Source::default()), moment)
                    .await
            }
            Act::Stamp(to) => self.adjusted(|applied| adjust::stamp(&source, applied, to)).await,
            Act::Repair(version) if model.recorded.contains_key(&version) => {
                let verdicts = Verdicts {
                    applied: [version].into(),
                    ..Verdicts::default()
                };
                self.adjusted(|applied| adjust::repair(&source, applied, &verdicts))
                    .await
            }
            Act::Edit(_) | Act::Unedit(_) | Act::Repair(_) => 0,
        }
    }

    async fn adjusted(
        &self,
        decide: impl FnOnce(
            &[amas_operator::migrate::history::Applied],
        ) -> Result<Vec<adjust::Change>, amas_operator::migrate::report::Failure>,
    ) -> u8 {
        let mut conn = self.connect().await;
        let result = adjust::adjust(&mut conn, &public(), Duration::from_secs(20), decide).await;
        result.err().map_or(0, |failure| failure.exit_code())
    }

    /// The file in parts that a cut has left half way is gone on with, in its direction. Whether there was one.
    async fn settle(&self, model: &Model) -> bool {
        if self.ask("SELECT to_regclass('_sqlx_migrations')::text").await == ["NULL"] {
            return false;
        }
        let applied = self.state().await.applied;
        let Some(half) = applied.iter().find(|row| !row.success) else {
            return false;
        };
        assert_eq!(half.version, IN_PARTS, "{half:?}");
        let request = match half.unfinished.as_ref().unwrap().direction {
            Direction::Up => request(Goal::Up(Some(IN_PARTS)), model.source()),
            Direction::Down => request(Goal::DownSteps(1), Source::default()),
        };
        // refused if nothing of it was done yet and its table stands in the way, or is not there
        let code = self.run(request).await.exit_code();
        assert!([0, 10].contains(&code), "{code}");
        true
    }

    /// A way whose session the server ends in the middle.
    async fn killed(&self, request: Request, (files, then): (usize, Duration)) -> u8 {
        let mut conn = self.connect().await;
        let mut other = self.server.connect("postgres", &self.name).await;
        let (_keep, stop) = watch::channel(Urgency::No);
        let (begun, mut seen) = watch::channel(0);
        let running = tokio::spawn(async move {
            let mut tell = |event: Event<'_>| {
                if let Event::Starting(_) = event {
                    begun.send_modify(|files| *files += 1);
                }
            };
            runner::run(&mut conn, &request, stop, &mut tell).await.exit_code()
        });
        // one that ends before has begun as many as it could
        let _ = seen.wait_for(|begun| *begun >= files).await;
        tokio::time::sleep(then).await;
        let theirs = "FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'amas-migrate'";
        sqlx::raw_sql(sqlx::AssertSqlSafe(format!(
            "SELECT pg_terminate_backend(pid) {theirs}"
        )))
        .execute(&mut other)
        .await
        .unwrap();
        let code = running.await.unwrap();
        let started = Instant::now();
        while self.ask(&format!("SELECT pid::text {theirs}")).await != [""; 0] {
            assert!(started.elapsed() < Duration::from_secs(10), "the session ends");
        }
        code
    }

    /// What is there, in the model's words.
    async fn found(&self, model: &Model) -> Model {
        let applied = match self.ask("SELECT to_regclass('_sqlx_migrations')::text").await[0].as_str() {
            "NULL" => Vec::new(),
            _ => self.state().await.applied,
        };
        assert!(
            applied.iter().all(|row| row.success),
            "nothing is half done: {applied:?}"
        );
        let edition = |row: &amas_operator::migrate::history::Applied| {
            let sums = |edition: &Edition| {
                let text = up_text(row.version, *edition);
                amas_operator::migrate::source::Checksum::of(text.as_bytes()) == row.checksum
            };
            (0..STEPS as Edition).find(sums).unwrap()
        };
        let tables = self
            .ask("SELECT substr(table_name, 2) || ' ' || substr(column_name, 2) FROM information_schema.columns WHERE table_schema = 'public' AND table_name ~ '^t[0-9]$'")
            .await;
        let indexes = "SELECT relname::text || indisvalid FROM pg_index JOIN pg_class c ON c.oid = indexrelid WHERE relname ~ '^t[0-9]_i'";
        let there = tables.iter().any(|table| table.starts_with(&format!("{IN_PARTS} ")));
        let expected: Vec<String> = there.then(|| format!("t{IN_PARTS}_itrue")).into_iter().collect();
        assert_eq!(self.ask(indexes).await, expected, "the index goes with its table");
        let last =
            "SELECT DISTINCT ON (version) version, direction FROM amas_migrate.history ORDER BY version, id DESC";
        let told = match applied.is_empty() {
            true => Vec::new(),
            false => {
                self.ask(&format!(
                    "SELECT version::text FROM ({last}) last WHERE direction <> 'down' ORDER BY 1"
                ))
                .await
            }
        };
        let versions: Vec<String> = applied.iter().map(|row| row.version.to_string()).collect();
        assert_eq!(told, versions, "the history ends with what is recorded");
        let table = |text: &String| {
            let (version, edition) = text.split_once(' ').unwrap();
            (version.parse().unwrap(), edition.parse().unwrap())
        };
        Model {
            files: model.files.clone(),
            recorded: applied.iter().map(|row| (row.version, edition(row))).collect(),
            tables: tables.iter().map(table).collect(),
        }
    }
}

/// What a walk came by.
#[derive(Debug, Default)]
struct Seen {
    codes: BTreeSet<u8>,
    /// Steps that were done when the way up, or down, was cut.
    cut_up: BTreeSet<usize>,
    cut_down: BTreeSet<usize>,
    halves: usize,
}

async fn walk(name: &str, seed: u64, steps: usize) -> Seen {
    let db = Database::new(name).await;
    let (mut dice, mut model, mut seen) = (Dice(seed | 1), Model::new(), Seen::default());
    for step in 0..steps {
        let act = dice.act();
        let place = format!("AMAS_WALK={seed}, step {step}, {act:?}, before it {model:?}");
        let code = db.perform(&model, act).await;
        if let Act::Kill(..) | Act::KillDown(..) = act {
            seen.halves += usize::from(db.settle(&model).await);
            let found = db.found(&model).await;
            let done = model.cuts(act).iter().position(|cut| *cut == found);
            let done = done.unwrap_or_else(|| panic!("{place}: {found:?}"));
            match act {
                Act::KillDown(..) => seen.cut_down.insert(done),
                _ => seen.cut_up.insert(done),
            };
            model = found;
        } else {
            assert_eq!(code, model.act(act), "{place}");
            assert_eq!(db.found(&model).await, model, "{place}");
            seen.codes.insert(code);
        }
    }
    println!("AMAS_WALK={seed}: {steps} steps, {seen:?}");
    seen
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_random_walk_never_leaves_the_model() {
    let seen = walk("walk", WALK, STEPS).await;
    assert_eq!(seen.codes, BTreeSet::from([0, 10, 12, 17]), "the walk saw every ending");
    let places = (seen.cut_up.len(), seen.cut_down.len());
    assert!(
        places.0 > 2 && places.1 > 1,
        "and was cut in different places: {seen:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nor_does_one_that_nobody_has_walked_before() {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    let seed = std::env::var("AMAS_WALK").map_or(now.as_micros() as u64, |text| text.parse().unwrap());
    println!("AMAS_WALK={seed}");
    walk("walk_anew", seed, STEPS / 2).await;
}
