//! The suite's own small harness: results, settings, the context that scenarios get, the report.

pub mod context;
pub mod report;
pub mod runner;
pub mod settings;

use std::{error::Error, fmt::Display};

/// Why a scenario failed: what was expected and what was seen.
pub type Failure = Box<dyn Error + Send + Sync>;
pub type Result<T = ()> = std::result::Result<T, Failure>;

/// Says what was being done when something failed.
pub trait About<T> {
    fn about(self, what: impl Display) -> Result<T>;
}

impl<T, E: Into<Failure>> About<T> for std::result::Result<T, E> {
    fn about(self, what: impl Display) -> Result<T> {
        self.map_err(|error| {
            let error: Failure = error.into();
            format!("{what}: {}", chain(error.as_ref())).into()
        })
    }
}

impl<T> About<T> for Option<T> {
    fn about(self, what: impl Display) -> Result<T> {
        self.ok_or_else(|| what.to_string().into())
    }
}

/// An error with its causes, each once.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}

/// Leaves the scenario with a failure.
#[macro_export]
macro_rules! fail {
    ($($text:tt)*) => { return Err(format!($($text)*).into()) };
}

/// Leaves the scenario with a failure unless the condition holds. Say what was expected and what was seen.
#[macro_export]
macro_rules! ensure {
    ($condition:expr, $($text:tt)*) => { if !$condition { $crate::fail!($($text)*); } };
}
