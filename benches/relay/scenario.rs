//! The scenarios: what is started, for how long it is watched, what counts.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::client::Client;
use crate::gauge::{Reading, Usage};
use crate::server::{Servers, Subject};
use crate::{Outcome, calls, idle, relay};

const WARM_UP: Duration = Duration::from_millis(1500);
/// What is not there this long after the last message was sent is lost.
const LOST_AFTER: Duration = Duration::from_secs(10);
/// How long a message that nobody expects may take to show up.
pub(crate) const AFTERMATH: Duration = Duration::from_millis(200);

/// How much of everything.
pub(crate) struct Load {
    pub(crate) pairs: usize,
    pub(crate) idle: usize,
    pub(crate) window: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scenario {
    /// Candidates, so many in flight per pair.
    Relay(usize),
    /// Whole calls, one after the other in each pair.
    Calls,
    /// Logins, and the memory that they take.
    Idle,
}

/// What came of one run.
pub(crate) struct Measured {
    /// Messages, calls or logins in the window.
    pub(crate) count: usize,
    /// Milliseconds, at the median and for 99 of 100.
    pub(crate) latency: (f64, f64),
    pub(crate) usage: Usage,
    /// Memory of the nodes per connection, where that is the question.
    pub(crate) kib_each: Option<f64>,
}

impl Scenario {
    pub(crate) fn named(name: &str) -> Outcome<Self> {
        match name.trim() {
            "calls" => Ok(Self::Calls),
            "idle" => Ok(Self::Idle),
            other => match other.strip_prefix('w').map(str::parse) {
                Some(Ok(window @ 1..=256)) => Ok(Self::Relay(window)),
                _ => Err(
                    format!("SCENARIOS={other}: it is a list of w1 to w256, calls and idle").into(),
                ),
            },
        }
    }

    pub(crate) fn name(self) -> String {
        match self {
            Self::Relay(window) => format!("w{window}"),
            Self::Calls => "calls".to_owned(),
            Self::Idle => "idle".to_owned(),
        }
    }

    pub(crate) async fn run(self, subject: Subject, load: &Load) -> Outcome<Measured> {
        let servers = subject.start()?;
        match self {
            Self::Idle => idle::run(&servers, subject, load.idle).await,
            Self::Relay(window) => {
                under_load(&servers, subject, load, |pair, stage| {
                    relay::run(pair, subject, window, stage)
                })
                .await
            }
            Self::Calls => {
                under_load(&servers, subject, load, |pair, stage| {
                    calls::run(pair, subject, stage)
                })
                .await
            }
        }
    }
}

/// Two users, at the two doors.
pub(crate) struct Pair {
    pub(crate) caller: Client,
    pub(crate) called: Client,
    pub(crate) names: [String; 2],
}

/// Tells the pairs what time it is: warming up, counting, or closing.
#[derive(Default)]
pub(crate) struct Stage(AtomicU8);

const COUNTING: u8 = 1;
const CLOSING: u8 = 2;

impl Stage {
    fn enter(&self, stage: u8) {
        self.0.store(stage, Ordering::Relaxed);
    }

    pub(crate) fn is_closing(&self) -> bool {
        self.0.load(Ordering::Relaxed) == CLOSING
    }
}

/// What one pair measured: how long each counted message took, in nanoseconds.
#[derive(Default)]
pub(crate) struct Tally(Vec<u32>);

impl Tally {
    /// Counts what was just completed, if it is the time to.
    pub(crate) fn add(&mut self, stage: &Stage, took: Duration) {
        if stage.0.load(Ordering::Relaxed) == COUNTING {
            self.0
                .push(u32::try_from(took.as_nanos()).unwrap_or(u32::MAX));
        }
    }
}

/// Lets each pair run in a task of its own, and watches the servers meanwhile.
async fn under_load<F>(
    servers: &Servers,
    subject: Subject,
    load: &Load,
    run: impl Fn(Pair, Arc<Stage>) -> F,
) -> Outcome<Measured>
where
    F: Future<Output = Outcome<Tally>> + Send + 'static,
{
    let mut pairs = Vec::with_capacity(load.pairs);
    for number in 0..load.pairs {
        let names = [format!("caller{number:05}"), format!("called{number:05}")];
        pairs.push(Pair {
            caller: Client::login(servers.doors[0], subject, &names[0]).await?,
            called: Client::login(servers.doors[1], subject, &names[1]).await?,
            names,
        });
    }
    let stage = Arc::new(Stage::default());
    let mut running = JoinSet::new();
    for pair in pairs {
        running.spawn(run(pair, stage.clone()));
    }

    no_failure(&mut running, WARM_UP).await?;
    stage.enter(COUNTING);
    let start = Reading::take(servers)?;
    no_failure(&mut running, load.window).await?;
    stage.enter(CLOSING);
    let usage = start.until(&Reading::take(servers)?);

    let mut tallies = Tally::default();
    let finish = async {
        while let Some(tally) = running.join_next().await {
            tallies.0.append(&mut tally??.0);
        }
        Outcome::Ok(())
    };
    let finished = timeout(LOST_AFTER, finish).await;
    match finished {
        Ok(outcome) => outcome?,
        Err(_) => {
            return Err(format!("{} pairs still wait for a message: lost", running.len()).into());
        }
    }
    let count = tallies.0.len();
    Ok(Measured {
        count,
        latency: percentiles(tallies.0),
        usage,
        kib_each: None,
    })
}

/// Waits. Pairs end only when they are told to, so one that ends now has failed.
async fn no_failure(running: &mut JoinSet<Outcome<Tally>>, wait: Duration) -> Outcome<()> {
    let until = Instant::now() + wait;
    tokio::select! {
        Some(ended) = running.join_next() => {
            ended??;
            Err(format!("a pair ended {:?} too early", until - Instant::now()).into())
        }
        () = sleep(wait) => Ok(()),
    }
}

/// The median and the 99th percentile, in milliseconds.
pub(crate) fn percentiles(mut nanoseconds: Vec<u32>) -> (f64, f64) {
    nanoseconds.sort_unstable();
    let at = |hundredths: usize| {
        let index = (nanoseconds.len() * hundredths / 100).min(nanoseconds.len().saturating_sub(1));
        nanoseconds
            .get(index)
            .map_or(0.0, |&nanoseconds| f64::from(nanoseconds) / 1e6)
    };
    (at(50), at(99))
}
