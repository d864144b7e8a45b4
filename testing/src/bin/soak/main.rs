//! `cargo bench --bench storm`: one of three nodes is killed with a third of all resumable sessions, and each must be back in time.
//!
//! Settings by environment: `SESSIONS` (18000) and `RESUME_WITHIN` (30 s). Needs Linux (`/proc`, `setpriv`), `redis-server` and as many open
//! files per process as two thirds of the sessions. The table goes to stdout, progress to stderr. The run fails if a session is not resumed
//! in time, if anybody hears a leave, if a signal is lost or repeated, or if Redis comes near the end of its one core.

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

/// What ends a run is told to a person and handled by none.
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
