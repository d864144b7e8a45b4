//! `make torture`: three nodes and their Redis under random faults, with clients that record all they see, and a
//! checker.
//!
//! Environment: `SEEDS` (number of seeds, 1), `SEED` (the first; default: from the clock), and `BUG` (`all` or a
//! name: starts the server
//! with that seeded bug, which must be found). Needs Linux (`/proc`, `setpriv`) and `redis-server`. The faults follow
//! from the
//! seed; their effects also depend on timing, so a failure may need several runs of its seed to appear again.

#![allow(clippy::print_stdout, clippy::cast_precision_loss, missing_docs)]

mod bugs;
mod caller;
mod checker;
mod cluster;
mod diary;
mod entrance;
mod extras;
mod faults;
mod history;
mod link;
mod listener;
mod monitor;
mod partings;
mod run;
mod speech;
mod stage;
mod store;
mod streams;

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use bugs::{BUGS, Bug};
use run::Report;

/// Errors end the run and are only printed.
type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// How many violations are printed for one invariant.
const SHOWN: usize = 5;

fn main() -> ExitCode {
    // One thread: it leaves the machine to the servers, and one clock orders all events.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let done = runtime
        .map_err(Into::into)
        .and_then(|runtime| runtime.block_on(Box::pin(play_all())));
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("\nFAILED: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn play_all() -> Outcome<bool> {
    let seeds: u64 = setting("SEEDS")?.unwrap_or(1);
    let clock = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    let seed: u64 = setting("SEED")?.unwrap_or(clock % 1_000_000);
    match std::env::var("BUG") {
        Ok(name) => find_bugs(&name, seed).await,
        Err(_) => torture(seed, seeds).await,
    }
}

async fn torture(first: u64, seeds: u64) -> Outcome<bool> {
    let mut failed = Vec::new();
    for seed in first..first + seeds {
        println!("seed {seed}");
        let report = run::play(seed, None)
            .await
            .map_err(|error| format!("seed {seed}: {error}"))?;
        show(&report);
        if violations(&report) > 0 {
            let path = write_history(seed, &report.history)?;
            println!("  seed {seed} FAILED; its history is in {}", path.display());
            failed.push(seed);
        }
    }
    println!(
        "{} of {seeds} seeds without a violation",
        seeds - failed.len() as u64
    );
    if !failed.is_empty() {
        println!("failed: {failed:?}, again by SEED=n make torture");
    }
    Ok(failed.is_empty())
}

/// Writes a history to `target/tmp`. This executable is `target/release/chaos`.
fn write_history(seed: u64, history: &str) -> Outcome<PathBuf> {
    let this = std::env::current_exe()?;
    let target = this.ancestors().nth(2).ok_or("no folder above this one")?;
    let folder = target.join("tmp");
    std::fs::create_dir_all(&folder)?;
    let path = folder.join(format!("torture-{seed}.log"));
    std::fs::write(&path, history)?;
    Ok(path)
}

fn violations(report: &Report) -> usize {
    report
        .verdicts
        .values()
        .map(|verdict| verdict.violations.len())
        .sum()
}

fn show(report: &Report) {
    println!("  faults: {}", report.faults.join("; "));
    println!("  {}", report.counts);
    for (invariant, verdict) in &report.verdicts {
        if verdict.violations.is_empty() {
            println!("  I{invariant:<2} ok        {} judged", verdict.judged);
            continue;
        }
        println!(
            "  I{invariant:<2} VIOLATED  {} times, {} judged",
            verdict.violations.len(),
            verdict.judged
        );
        for (at, evidence) in verdict.violations.iter().take(SHOWN) {
            println!("        at {:.3} s: {evidence}", at.as_secs_f64());
        }
    }
    println!("  took {:.1} s", report.took.as_secs_f64());
}

/// Runs each bug's scenario; true if the checker found its invariant violated each time.
async fn find_bugs(name: &str, seed: u64) -> Outcome<bool> {
    if !cfg!(feature = "seeded-bugs") {
        return Err("BUG needs --features seeded-bugs".into());
    }
    let chosen: Vec<&Bug> = BUGS
        .iter()
        .filter(|bug| name == "all" || bug.name == name)
        .collect();
    if chosen.is_empty() {
        let names: Vec<&str> = BUGS.iter().map(|bug| bug.name).collect();
        return Err(format!("BUG={name} is unknown; there are {}", names.join(", ")).into());
    }
    let mut lines = Vec::new();
    let mut all_found = true;
    for bug in chosen {
        println!("seed {seed}, bug {}", bug.name);
        let report = run::play(seed, Some(bug))
            .await
            .map_err(|error| format!("{}: {error}", bug.name))?;
        show(&report);
        let broken: Vec<String> = report
            .verdicts
            .iter()
            .filter(|(_, verdict)| !verdict.violations.is_empty())
            .map(|(invariant, _)| format!("I{invariant}"))
            .collect();
        let found = broken.contains(&format!("I{}", bug.invariant));
        all_found &= found;
        lines.push(format!(
            "| I{:<2} | {:<24} | {:<6} | {} |",
            bug.invariant,
            bug.name,
            if found { "found" } else { "MISSED" },
            broken.join(" ")
        ));
    }
    println!("| breaks | bug | found | violated |\n| --- | --- | --- | --- |");
    for line in lines {
        println!("{line}");
    }
    Ok(all_found)
}

fn setting<T: std::str::FromStr>(name: &str) -> Outcome<Option<T>> {
    match std::env::var(name) {
        Ok(text) => match text.parse() {
            Ok(value) => Ok(Some(value)),
            Err(_) => Err(format!("{name}={text} is not understood").into()),
        },
        Err(_) => Ok(None),
    }
}
