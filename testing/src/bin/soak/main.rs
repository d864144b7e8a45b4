//! `make bench-storm`: kills one of three nodes with a third of all resumable sessions, each of which must resume in
//! time.
//!
//! Environment: `SESSIONS` (18000) and `RESUME_WITHIN` (30 s). Needs Linux (`/proc`, `setpriv`), `redis-server`, and
//! two thirds of
//! the sessions as open files per process. The table goes to stdout, progress to stderr. The run fails if a session
//! does not resume
//! in time, if a client gets a leave, if a signal is lost or repeated, or if Redis uses nearly all of its one core.

#![allow(clippy::print_stdout, clippy::cast_precision_loss, missing_docs)]

mod cluster;
mod crew;
mod gauge;
mod report;
mod session;
mod socket;
mod storm;
mod wire;
mod worker;

use std::error::Error;
use std::process::ExitCode;
use std::str::FromStr;
use std::time::Duration;

use storm::Load;

/// Errors end the run and are only printed.
type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

fn main() -> ExitCode {
    let run = match std::env::var(wire::SHARE) {
        Ok(share) => worker::run(&share),
        Err(_) => run(),
    };
    match run {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\nFAILED: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Outcome<()> {
    let load = Load {
        sessions: setting("SESSIONS", 18_000)?,
        resume_within: Duration::from_secs_f64(setting("RESUME_WITHIN", 30.0)?),
    };
    if load.sessions < storm::FEWEST {
        return Err(format!("SESSIONS must be {} or more", storm::FEWEST).into());
    }
    let measured = storm::run(&load)?;
    println!("{}", report::table(&load, &measured));
    report::verdict(&load, &measured)
}

fn setting<T: FromStr>(name: &str, default: T) -> Outcome<T> {
    match std::env::var(name) {
        Ok(text) => text
            .parse()
            .map_err(|_| format!("{name}={text} is not understood").into()),
        Err(_) => Ok(default),
    }
}
