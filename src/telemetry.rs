//! What a node tells its operator: logs, for people on a terminal, as JSON for machines.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people on a terminal, JSON otherwise.
    Auto,
    /// For people.
    Human,
    /// One JSON object a line.
    Json,
}

/// The filter is none.
#[derive(Debug, thiserror::Error)]
#[error("log.level is not a filter such as info or switchboard=debug: {0}")]
pub struct InvalidFilter(#[from] tracing_subscriber::filter::ParseError);

/// Starts to write log lines to standard error.
pub fn start(format: LogFormat, filter: &str) -> Result<(), InvalidFilter> {
    let filter = EnvFilter::try_new(filter)?;
    let human = match format {
        LogFormat::Auto => std::io::stderr().is_terminal(),
        LogFormat::Human => true,
        LogFormat::Json => false,
    };
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    if human {
        lines
            .with_target(false)
            .with_ansi(std::io::stderr().is_terminal())
            .init();
    } else {
        lines.json().flatten_event(true).init();
    }
    Ok(())
}
