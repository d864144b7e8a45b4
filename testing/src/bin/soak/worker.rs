//! A worker process: runs its share of the sessions, each in its own task.

use std::io::BufRead;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use crate::Outcome;
use crate::session::live;
use crate::wire::{Report, Share, Stage, Tally};

/// Concurrent logins before the kill.
const LOGINS: usize = 32;
/// Concurrent attempts to resume.
const RESUMES: usize = 500;

/// What the sessions of a worker share.
pub(crate) struct World {
    pub(crate) share: Share,
    pub(crate) stage: watch::Receiver<Stage>,
    pub(crate) logins: Semaphore,
    pub(crate) resumes: Semaphore,
    tally: Mutex<Tally>,
}

impl World {
    pub(crate) fn count<T>(&self, count: impl FnOnce(&mut Tally) -> T) -> T {
        count(&mut self.tally.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Runs until the main process ends the run, or ends itself.
pub(crate) fn run(share: &str) -> Outcome<()> {
    let share = serde_json::from_str(share)?;
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(work(share))
}

async fn work(share: Share) -> Outcome<()> {
    let (orders, mut stage) = watch::channel(Stage::LoggingIn);
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            match serde_json::from_str(&line) {
                Ok(order) => drop(orders.send_replace(order)),
                Err(error) => eprintln!("an order that is none, {line}: {error}"),
            }
        }
    });
    let sessions = share.sessions;
    let world = Arc::new(World {
        share,
        stage: stage.clone(),
        logins: Semaphore::new(LOGINS),
        resumes: Semaphore::new(RESUMES),
        tally: Mutex::default(),
    });
    let mut living = JoinSet::new();
    for number in 0..sessions {
        living.spawn(live(number, Arc::clone(&world)));
    }
    loop {
        tokio::select! {
            Some(ended) = living.join_next() => {
                tell(&Report::Broken(ended.unwrap_or_else(|error| error.to_string())));
                return Ok(());
            }
            ordered = stage.changed() => {
                if ordered.is_err() {
                    return Ok(());
                }
            }
        }
        let reached = *stage.borrow_and_update();
        if reached >= Stage::Braced {
            tell(&Report::Tally(world.count(|tally| tally.clone())));
        }
        if reached == Stage::Over {
            return Ok(());
        }
    }
}

/// Writes a report to stdout, which the main process reads.
pub(crate) fn tell(report: &Report) {
    match serde_json::to_string(report) {
        Ok(line) => println!("{line}"),
        Err(error) => eprintln!("a report that cannot be told: {error}"),
    }
}
