//! What a run prints while it goes on: a line for each thing done, and on a terminal a bar below them.

use std::io::IsTerminal;

use crate::migrate::{blockers, plan::Direction, runner::Event};

/// Characters of the bar.
const BAR: usize = 20;

/// Prints events to standard error.
pub(super) fn print_event() -> impl FnMut(Event<'_>) + Send {
    let mut progress = Progress {
        terminal: std::io::stderr().is_terminal(),
        steps: 0,
        done: 0,
    };
    move |event| {
        // one write a line: standard error has no buffer
        if let Some(text) = progress.describe(&event) {
            eprint!("{text}");
        }
    }
}

struct Progress {
    terminal: bool,
    steps: usize,
    done: usize,
}

impl Progress {
    fn describe(&mut self, event: &Event<'_>) -> Option<String> {
        Some(match event {
            Event::Waiting(Some(holder)) => format!("waiting for the migration lock: {holder} holds it\n"),
            Event::Waiting(None) => "waiting for the migration lock\n".to_owned(),
            Event::Blocked { file, waited, by } => self.line(format!(
                "{}  has waited {} s for {}",
                name(file),
                waited.as_secs(),
                blockers::list(by)
            )),
            Event::Planned { steps: 0, .. } => return None,
            Event::Planned {
                direction,
                from,
                to,
                steps,
            } => {
                (self.steps, self.done) = (*steps, 0);
                let plural = if *steps == 1 { "" } else { "s" };
                format!("{direction} from version {from} to {to}: {steps} migration{plural}\n")
            }
            Event::BackingUp { tables } => {
                let plural = if *tables == 1 { "" } else { "s" };
                self.line(format!("backing up {tables} table{plural} that would lose data"))
            }
            Event::BackedUp { id, file, bytes, took } => self.line(format!(
                "backup {id}: {file}, {} KiB in {} ms",
                bytes.div_ceil(1024),
                took.as_millis()
            )),
            Event::Starting(step) if self.terminal => self.bar(&step.file),
            Event::Starting(_) => return None,
            Event::Applied { step, direction, took } => {
                self.done += 1;
                let verb = match direction {
                    Direction::Up => "applied",
                    Direction::Down => "taken back",
                };
                self.line(format!("{}  {verb} in {} ms", name(&step.file), took.as_millis()))
            }
            Event::Seeded { profile, file, took } => self.line(format!(
                "{}  seeded in {} ms",
                name(&format!("{profile}/{file}")),
                took.as_millis()
            )),
            Event::SeedsUnchanged(1) => "1 seed file unchanged\n".to_owned(),
            Event::SeedsUnchanged(count) => format!("{count} seed files unchanged\n"),
            Event::SchemaNotRecorded(why) => self.line(format!(
                "warning: the schema could not be recorded, changes by hand are not told: {why}"
            )),
        })
    }

    /// Where the run is, on a line that the next one overwrites.
    fn bar(&self, file: &str) -> String {
        let full = (self.done * BAR).checked_div(self.steps).unwrap_or(0).min(BAR);
        let (filled, empty) = ("#".repeat(full), "-".repeat(BAR - full));
        format!("\r\x1b[K[{filled}{empty}] {}/{} {file}", self.done, self.steps)
    }

    fn line(&self, text: String) -> String {
        let back = if self.terminal { "\r\x1b[K" } else { "" };
        format!("{back}{text}\n")
    }
}

/// A file's name as a column, without what every file has.
fn name(file: &str) -> String {
    let name = file
        .trim_end_matches(".sql")
        .trim_end_matches(".up")
        .trim_end_matches(".down");
    format!("{name:<40}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_terminal_gets_a_bar() {
        let bar = |steps, done| {
            Progress {
                terminal: true,
                steps,
                done,
            }
            .bar("0003_x.up.sql")
        };
        assert_eq!(bar(4, 1), "\r\u{1b}[K[#####---------------] 1/4 0003_x.up.sql");
        assert!(bar(0, 0).contains("[--------------------]") && bar(3, 3).contains("[####################]"));
        let plain = Progress {
            terminal: false,
            steps: 1,
            done: 0,
        };
        assert_eq!(plain.line("x".to_owned()), "x\n");
    }
}
