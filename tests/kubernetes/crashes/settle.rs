//! When a stage is over: everything stands as it should, and nothing is written any more.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::life::{Life, Run, Stage, Writes};
use crate::support::kubernetes::condition_of;

/// How long nothing may be written until a stage has come to its end. Longer than any pause that the operator makes while it still has
/// something to do and nobody spoils it.
const QUIET: Duration = Duration::from_millis(2500);
/// The same once the stage has written what an undisturbed one writes, which was waited for; and where it only has to come to the same end.
const DONE: Duration = Duration::from_millis(150);
const SAME: Duration = Duration::from_millis(600);
/// Between two looks at what was counted, and between two questions to the servers.
const LOOK: Duration = Duration::from_millis(50);
const ASK: Duration = Duration::from_millis(250);

/// How a stage goes that is waited for.
#[derive(Clone, Copy)]
pub enum Course<'a> {
    /// Nobody has measured it yet.
    New,
    /// Nobody disturbs it: it is like this one.
    Like(&'a Run),
    /// It is disturbed: its end has to be this one's, and to stay.
    Disturbed(&'a Run),
}

impl Life {
    /// Waits for the end of a stage.
    pub async fn settle(&self, stage: Stage, course: Course<'_>) -> Result<(), String> {
        let begun = Instant::now();
        let (mut seen, mut since) = (self.counted(), begun);
        while begun.elapsed() < self.patience {
            tokio::time::sleep(LOOK).await;
            let now = self.counted();
            if now != seen {
                (seen, since) = (now, Instant::now());
            }
            let (quiet, wanted) = match course {
                Course::Like(run) if sorted(&run.writes) == sorted(&self.writes()) => (DONE, None),
                Course::Like(run) => (SAME, Some(run)),
                Course::Disturbed(run) => (QUIET, Some(run)),
                Course::New => (QUIET, None),
            };
            if since.elapsed() < quiet {
                continue;
            }
            let mut is_over = self.stands(stage).await;
            if let (true, Some(run)) = (is_over, wanted) {
                is_over = self.fingerprint().await == run.fingerprint;
            }
            if is_over && self.counted() == seen {
                return Ok(());
            }
            tokio::time::sleep(ASK).await;
        }
        let told = match course {
            Course::Like(run) | Course::Disturbed(run) => difference(&run.fingerprint, &self.fingerprint().await),
            Course::New => String::new(),
        };
        Err(format!(
            "{stage:?} did not come to its end\n{told}\n{}",
            self.picture().await
        ))
    }

    /// What there is to look at when an end is not the right one: the object, who wrote its workload, and all that was written in this stage.
    async fn picture(&self) -> String {
        let object = self.ns.get("AmasDatabase", "a").await;
        let mut sets = self.ns.list("StatefulSet").await;
        // A list may come from the API server's cache; what is read by name does not.
        for listed in sets.clone() {
            sets.extend(
                self.ns
                    .get("StatefulSet", listed["metadata"]["name"].as_str().unwrap())
                    .await,
            );
        }
        format!("{object:#?}\n{sets:#?}\n{:#?}", self.writes())
    }

    async fn stands(&self, stage: Stage) -> bool {
        let Some(object) = self.ns.get("AmasDatabase", "a").await else {
            return stage == Stage::Delete && self.policies().await.is_empty();
        };
        let ready = if self.subject.serves() { "True" } else { "False" };
        stage != Stage::Delete
            && says(&object, ready)
            && (stage != Stage::Rotate || self.is_rotated().await)
            && self.policies().await.iter().all(|policy| says(policy, ready))
    }

    async fn policies(&self) -> Vec<Value> {
        [self.ns.list("GraphSchema").await, self.ns.list("CachePolicy").await].concat()
    }

    /// One password has come after the first, and nothing of a rotation is left to do.
    async fn is_rotated(&self) -> bool {
        let secret = self.ns.get("Secret", &self.rotated()).await.unwrap_or_default();
        secret["data"]["rotation.count"] == json!("MQ==")
            && ["next", "previous"]
                .iter()
                .all(|which| secret["data"][format!("rotation.{which}-password")].is_null())
    }
}

/// Whether an object says this of Ready, and says it of what it was last asked for.
fn says(object: &Value, ready: &str) -> bool {
    object.pointer("/status/observedGeneration") == object.pointer("/metadata/generation")
        && condition_of(object, "Ready").is_some_and(|found| found["status"] == ready)
}

/// Some go out at the same time, so their order is anybody's.
fn sorted(writes: &Writes) -> Writes {
    let mut writes = writes.clone();
    writes.values_mut().for_each(|all| all.sort());
    writes
}

fn difference(wanted: &str, found: &str) -> String {
    let lacking = |a: &str, b: &str| {
        a.lines()
            .filter(|line| !b.lines().any(|other| other == *line))
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    format!(
        "missing: {:#?}\ntoo much: {:#?}",
        lacking(wanted, found),
        lacking(found, wanted)
    )
}
