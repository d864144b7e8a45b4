//! `cargo bench --bench relay`: compares two nodes and a Redis with the tutorial's server, under the same load, in
//! turns of half a second.
//!
//! Environment: `REPS` (3), `SECONDS` (5, the measured window), `PAIRS` (200), `IDLE` (3000), `SCENARIOS`
//! (`w1,w16,calls,idle`; `death` kills a node and tells what the other side hears) and `SUBJECTS`
//! (`tutorial,switchboard,resumable`), the first of which is the reference:
//!
//! - `switchboard` has plain sessions. `resumable` has those of the client library: a `resume` secret, an id and an ack
//!   for each signal, a `seq` on each that arrives; pongs confirm.
//! - `before` and `before-resumable` are the same with the binary that `BEFORE` names. They are in the default if it is
//!   set.
//! - `peerserver` is the server of PeerJS, `peerjs` our nodes with PeerJS clients.
//! - `tokens` needs a token of each client: `idle` tells what its check adds to a login.
//! - `by-hand` (`ws` and `ioredis`), `socketio`, `centrifugo` and `centrifugo-recovery` are two nodes of other makes
//!   and a Redis, with clients that speak to them as their libraries do.
//! - `sampled` traces one call in a hundred, `traced` all; both also with a collector that fails: `traced-refused`,
//!   `-slow`, `-gone`.
//!
//! Needs Linux (`/proc`, `setpriv`), `redis-server` and `node`. Results go to stdout, progress to stderr. The results
//! are printed only if every message arrived once, complete, in order and at its receiver; anything else ends the run
//! with an error.

#![allow(clippy::print_stdout, clippy::cast_precision_loss, missing_docs)]

mod calls;
mod client;
mod collector;
mod death;
mod frame;
mod gauge;
mod idle;
mod message;
mod peers;
mod relay;
mod report;
mod scenario;
mod server;
mod stage;
mod turns;
mod wrap;

use std::error::Error;
use std::process::ExitCode;
use std::str::FromStr;
use std::time::Duration;

use scenario::{Load, Scenario};
use server::Subject;

/// Errors end the run and are only printed.
type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

fn main() -> ExitCode {
    // `cargo test --all-targets` also starts benchmarks, without this argument.
    if !std::env::args().any(|argument| argument == "--bench") {
        eprintln!("A benchmark: cargo bench --bench relay");
        return ExitCode::SUCCESS;
    }
    // One thread: it leaves the machine to the servers.
    let run = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    match run
        .map_err(Into::into)
        .and_then(|runtime| runtime.block_on(run_all()))
    {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\nFAILED: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run_all() -> Outcome<()> {
    let repetitions: usize = setting("REPS", 3)?;
    let load = Load {
        pairs: setting("PAIRS", 200)?,
        idle: setting("IDLE", 3000)?,
        window: Duration::from_secs_f64(setting("SECONDS", 5.0)?),
    };
    let scenarios: String = setting("SCENARIOS", "w1,w16,calls,idle".to_owned())?;
    let scenarios = scenarios
        .split(',')
        .map(Scenario::named)
        .collect::<Outcome<Vec<_>>>()?;
    if repetitions == 0 || load.pairs == 0 || load.idle == 0 || load.window.is_zero() {
        return Err("REPS, PAIRS, IDLE and SECONDS must be more than 0".into());
    }
    let mut subjects = "tutorial,switchboard,resumable".to_owned();
    if std::env::var("BEFORE").is_ok_and(|binary| !binary.is_empty()) {
        subjects += ",before,before-resumable";
    }
    let subjects: String = setting("SUBJECTS", subjects)?;
    let subjects = subjects
        .split(',')
        .map(Subject::named)
        .collect::<Outcome<Vec<_>>>()?;
    server::check(&subjects)?;

    println!("{}\n", report::machine()?);
    for scenario in scenarios {
        if scenario == Scenario::Death {
            println!("{}", death::run(&subjects, load.pairs).await?);
            continue;
        }
        let mut results: Vec<_> = subjects.iter().map(|_| Vec::new()).collect();
        for repetition in 1..=repetitions {
            let measured = scenario.run(&subjects, &load).await;
            let measured = measured.map_err(|error| format!("{}, {error}", scenario.name()))?;
            for ((&subject, results), one) in subjects.iter().zip(&mut results).zip(measured) {
                let (name, brief) = (scenario.name(), report::brief(subject, &one));
                eprintln!("{name} {repetition}/{repetitions} {brief}");
                results.push(one);
            }
        }
        println!("{}", report::table(scenario, &load, &subjects, &results));
    }
    Ok(())
}

fn setting<T: FromStr>(name: &str, default: T) -> Outcome<T> {
    match std::env::var(name) {
        Ok(text) => text
            .parse()
            .map_err(|_| format!("{name}={text} is not valid").into()),
        Err(_) => Ok(default),
    }
}
