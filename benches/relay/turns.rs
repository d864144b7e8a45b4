//! Several subjects under the same load in turns of half a second, so that changes of the processor's clock rate
//! affect all alike.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::Outcome;
use crate::gauge::{Reading, Usage};
use crate::scenario::{Load, Measured, Pair, percentiles};
use crate::server::{Servers, Subject};
use crate::stage::{Phase, Stage, Tally};

const WARM_UP: Duration = Duration::from_millis(1500);
const TURN: Duration = Duration::from_millis(500);
/// A message that has not arrived this long after the last one was sent is lost.
const LOST_AFTER: Duration = Duration::from_secs(10);

/// One subject: its servers, and the pairs that load them, each in a task of its own.
struct Stand {
    name: &'static str,
    servers: Servers,
    stage: Arc<Stage>,
    pairs: usize,
    running: JoinSet<Outcome<Tally>>,
    usage: Usage,
    /// When its last turn ended.
    rested: Reading,
}

/// Measures each subject for the window of the load.
pub(crate) async fn under_load<F>(
    subjects: &[Subject],
    load: &Load,
    run: impl Fn(Pair, Subject, Arc<Stage>) -> F,
) -> Outcome<Vec<Measured>>
where
    F: Future<Output = Outcome<Tally>> + Send + 'static,
{
    let mut stands = Vec::with_capacity(subjects.len());
    for &subject in subjects {
        let stand = Stand::set_up(subject, load, &run).await;
        stands.push(stand.map_err(|error| format!("{}: {error}", subject.name()))?);
    }
    let mut left = load.window;
    while !left.is_zero() {
        let turn = TURN.min(left);
        for stand in &mut stands {
            let turn = stand.turn(turn).await;
            turn.map_err(|error| format!("{}: {error}", stand.name))?;
        }
        left -= turn;
    }
    let mut measured = Vec::with_capacity(stands.len());
    for stand in stands {
        let name = stand.name;
        let all = stand.close().await;
        measured.push(all.map_err(|error| format!("{name}: {error}"))?);
    }
    Ok(measured)
}

impl Stand {
    /// Starts the servers, logs all pairs in, and lets them warm up.
    async fn set_up<F>(
        subject: Subject,
        load: &Load,
        run: &impl Fn(Pair, Subject, Arc<Stage>) -> F,
    ) -> Outcome<Self>
    where
        F: Future<Output = Outcome<Tally>> + Send + 'static,
    {
        let servers = subject.start().await?;
        let mut pairs = Vec::with_capacity(load.pairs);
        for number in 0..load.pairs {
            pairs.push(Pair::login(&servers, subject, number).await?);
        }
        let stage = Arc::new(Stage::new());
        let mut running = JoinSet::new();
        for pair in pairs {
            running.spawn(run(pair, subject, stage.clone()));
        }
        let mut stand = Self {
            name: subject.name(),
            rested: Reading::take(&servers)?,
            servers,
            stage,
            pairs: load.pairs,
            running,
            usage: Usage::default(),
        };
        stand.no_failure(WARM_UP).await?;
        stand.rest().await?;
        stand.rested = Reading::take(&stand.servers)?;
        Ok(stand)
    }

    /// Lets the pairs work for some time.
    async fn turn(&mut self, time: Duration) -> Outcome<()> {
        let start = Reading::take(&self.servers)?;
        self.usage.rested(&self.rested, &start);
        self.stage.enter(Phase::Work);
        self.no_failure(time).await?;
        self.rest().await?;
        self.rested = Reading::take(&self.servers)?;
        self.usage.worked(&start, &self.rested);
        Ok(())
    }

    /// Lets the pairs complete what they began.
    async fn rest(&mut self) -> Outcome<()> {
        self.stage.enter(Phase::Rest);
        let all_rest = timeout(LOST_AFTER, self.stage.all_rest(self.pairs));
        tokio::select! {
            biased;
            Some(ended) = self.running.join_next() => {
                ended??;
                Err("a pair ended too early".into())
            }
            all_rest = all_rest => all_rest.map_err(|_| "some pairs still wait for a message: lost".into()),
        }
    }

    /// Waits, and fails if a pair ends: pairs end only at the end of the run.
    async fn no_failure(&mut self, wait: Duration) -> Outcome<()> {
        let until = Instant::now() + wait;
        tokio::select! {
            Some(ended) = self.running.join_next() => {
                ended??;
                Err(format!("a pair ended {:?} too early", until - Instant::now()).into())
            }
            () = sleep(wait) => Ok(()),
        }
    }

    /// The sum of all turns.
    async fn close(mut self) -> Outcome<Measured> {
        self.stage.enter(Phase::Closing);
        let mut tallies = Tally::default();
        while let Some(tally) = self.running.join_next().await {
            tallies.0.append(&mut tally??.0);
        }
        Ok(Measured {
            count: tallies.0.len(),
            latency: percentiles(tallies.0),
            usage: self.usage,
            kib_each: None,
        })
    }
}
