//! The scenarios: what runs, for how long, and what is counted.

use std::time::Duration;

use crate::client::{Client, expect};
use crate::gauge::Usage;
use crate::message::Route;
use crate::server::{Servers, Subject};
use crate::turns::under_load;
use crate::{Outcome, calls, idle, relay};

/// How long to wait for messages that must not come.
pub(crate) const AFTERMATH: Duration = Duration::from_millis(200);

/// The size of a run.
pub(crate) struct Load {
    pub(crate) pairs: usize,
    pub(crate) idle: usize,
    pub(crate) window: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scenario {
    /// Candidates, with this many in flight per pair.
    Relay(usize),
    /// Whole calls, one after the other in each pair.
    Calls,
    /// Logins, and the memory of idle connections.
    Idle,
    /// Not measured but told: the death of a node.
    Death,
}

/// The results of one run.
pub(crate) struct Measured {
    /// Messages, calls or logins in the window.
    pub(crate) count: usize,
    /// Latency in milliseconds: the median and the 99th percentile.
    pub(crate) latency: (f64, f64),
    pub(crate) usage: Usage,
    /// Memory per connection, of the nodes and of Redis, in the idle scenario.
    pub(crate) kib_each: Option<[f64; 2]>,
}

impl Scenario {
    pub(crate) fn named(name: &str) -> Outcome<Self> {
        match name.trim() {
            "calls" => Ok(Self::Calls),
            "idle" => Ok(Self::Idle),
            "death" => Ok(Self::Death),
            other => match other.strip_prefix('w').map(str::parse) {
                Some(Ok(window @ 1..=256)) => Ok(Self::Relay(window)),
                _ => Err(format!(
                    "SCENARIOS={other}: it is a list of w1 to w256, calls, idle and death"
                )
                .into()),
            },
        }
    }

    pub(crate) fn name(self) -> String {
        match self {
            Self::Relay(window) => format!("w{window}"),
            Self::Calls => "calls".to_owned(),
            Self::Idle => "idle".to_owned(),
            Self::Death => "death".to_owned(),
        }
    }

    /// Measures each subject once, all under the same conditions.
    pub(crate) async fn run(self, subjects: &[Subject], load: &Load) -> Outcome<Vec<Measured>> {
        match self {
            Self::Idle => idle::run(subjects, load.idle).await,
            Self::Relay(window) => {
                let run = |pair, subject, stage| relay::run(pair, subject, window, stage);
                under_load(subjects, load, run).await
            }
            Self::Calls => under_load(subjects, load, calls::run).await,
            Self::Death => Err("it is told in a table of its own".into()),
        }
    }
}

/// Two users, one at each endpoint.
pub(crate) struct Pair {
    pub(crate) caller: Client,
    pub(crate) called: Client,
    pub(crate) names: [String; 2],
}

impl Pair {
    pub(crate) async fn login(servers: &Servers, subject: Subject, number: usize) -> Outcome<Self> {
        let names = [format!("caller{number:05}"), format!("called{number:05}")];
        Ok(Self {
            caller: Client::login(servers.endpoints[0], subject, &names[0]).await?,
            called: Client::login(servers.endpoints[1], subject, &names[1]).await?,
            names,
        })
    }

    /// The way from the caller, and the way back.
    pub(crate) fn routes(&self, subject: Subject) -> [Route<'_>; 2] {
        let [from, to] = &self.names;
        [
            Route { subject, from, to },
            Route {
                subject,
                from: to,
                to: from,
            },
        ]
    }

    /// An offer and its answer.
    pub(crate) async fn begin_call(&mut self, subject: Subject) -> Outcome<()> {
        let [there, back] = self.routes(subject);
        let (mut offer, mut answer) = (there.offer(), back.answer());
        self.caller.queue(offer.sent.bytes());
        self.caller.flush().await?;
        expect(&mut offer.received, self.called.receive().await?.as_bytes())?;
        self.called.queue(answer.sent.bytes());
        self.called.flush().await?;
        expect(
            &mut answer.received,
            self.caller.receive().await?.as_bytes(),
        )
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
