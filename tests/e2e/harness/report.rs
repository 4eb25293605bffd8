//! What was shown: one line a figure, one result a scenario, the table at the end.

use std::process::ExitCode;

use super::Result;

#[derive(Clone)]
pub struct Figure {
    pub topic: String,
    pub value: String,
    pub target: String,
    pub ok: bool,
}

#[derive(Default)]
pub struct Report {
    pub figures: Vec<Figure>,
    passed: usize,
    /// Name and reason.
    failed: Vec<(String, String)>,
}

impl Report {
    pub fn scenario(&mut self, name: &str, outcome: &Result) {
        match outcome {
            Ok(()) => self.passed += 1,
            Err(error) => self.failed.push((name.to_owned(), error.to_string())),
        }
    }

    pub fn extend(&mut self, other: Self) {
        self.figures.extend(other.figures);
        self.passed += other.passed;
        self.failed.extend(other.failed);
    }

    /// Prints the table and the closing line. Exit code 1 when anything failed.
    pub fn print(&self) -> ExitCode {
        println!();
        table(&self.figures).iter().for_each(|line| println!("{line}"));
        println!();
        for (name, reason) in &self.failed {
            println!("failed: {name}: {}", reason.replace('\n', " "));
        }
        println!("{} passed, {} failed", self.passed, self.failed.len());
        if self.failed.is_empty() {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        }
    }
}

/// The figures as an aligned Markdown table.
fn table(figures: &[Figure]) -> Vec<String> {
    let verdict = |ok| if ok { "shown" } else { "MISSED" };
    let header = ["must show", "figure", "target", "verdict"].map(str::to_owned);
    let rows: Vec<[String; 4]> = std::iter::once(header)
        .chain(figures.iter().map(|f| {
            [
                f.topic.clone(),
                f.value.clone(),
                f.target.clone(),
                verdict(f.ok).to_owned(),
            ]
        }))
        .collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths = [0, 1, 2, 3].map(width);
    let line = |row: &[String; 4]| {
        let cell = |column: usize| format!("{:<1$}", row[column], widths[column]);
        format!("| {} |", [0, 1, 2, 3].map(cell).join(" | "))
    };
    let rule = format!("|{}|", widths.map(|width| "-".repeat(width + 2)).join("|"));
    let mut lines: Vec<String> = rows.iter().map(line).collect();
    lines.insert(1, rule);
    lines
}
