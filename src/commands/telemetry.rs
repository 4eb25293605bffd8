//! Structured logs of the operator.

use clap::ValueEnum;
use tracing_subscriber::EnvFilter;

/// How the operator logs.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// What is logged: a level (error, warn, info, debug, trace) or a tracing filter such as amas_operator=debug.
    #[arg(long = "log", env = "AMAS_LOG", default_value = "info")]
    filter: String,
    /// Form of the log.
    #[arg(long = "log-format", env = "AMAS_LOG_FORMAT", value_enum, default_value_t = Format::Json)]
    format: Format,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    Json,
    Text,
}

/// Starts logging to standard error; an unusable filter falls back to info and says so.
pub fn init(args: &Args) {
    let parsed = EnvFilter::try_new(&args.filter);
    let problem = parsed.as_ref().err().map(ToString::to_string);
    let filter = parsed.unwrap_or_else(|_| EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    // A second start in one process (tests) keeps the first.
    let _ = match args.format {
        Format::Json => builder
            .json()
            .flatten_event(true)
            .with_current_span(false)
            .with_span_list(false)
            .try_init(),
        Format::Text => builder.try_init(),
    };
    if let Some(problem) = problem {
        tracing::warn!(
            problem,
            filter = args.filter,
            "the log filter cannot be used; logging at info"
        );
    }
}
