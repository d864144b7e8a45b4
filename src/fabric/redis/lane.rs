//! A publisher lane: everything about one address goes through the same lane, in order, on one connection that is held.
//!
//! What has piled up leaves as one pipeline and each command gets its own answer; the next pipeline leaves when all have come. Nothing
//! is sent twice: what may have reached Redis when the connection broke has an unknown outcome, and its sender is told so.

use std::sync::Arc;
use std::time::Duration;

use deadpool_redis::Connection;
use redis::aio::ConnectionLike as _;
use redis::{Cmd, Value};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tracing::{debug, warn};

use super::batch::{Batch, Letter};
use super::connect::{OpenError, Store};
use super::ledger::Ledger;
use super::scripts::Scripts;
use super::wire::KnownHolders;
use crate::fabric::FabricError;
use crate::telemetry::{Metrics, RedisTrouble};

/// How many jobs may wait for a lane; more are refused as busy.
const WAITING: usize = 8192;
/// How many leave in one pipeline.
const BATCH: usize = 256;
/// How long a lane rests between two tries to connect.
const RECONNECT_PAUSE: Duration = Duration::from_millis(100);
/// How often the operator is told, by each lane, that the store is full.
const COMPLAIN_EVERY: Duration = Duration::from_mins(1);

/// Where jobs wait for their lane.
#[derive(Clone, Debug)]
pub(super) struct Lane {
    jobs: mpsc::Sender<Job>,
    metrics: Arc<Metrics>,
}

/// What a lane does.
#[derive(Debug)]
pub(super) enum Job {
    /// Sends an envelope.
    Send(Letter),
    /// Asks anything else.
    Ask(Cmd, Caller),
}

/// Who waits for an answer.
pub(super) type Caller = oneshot::Sender<Result<Value, FabricError>>;

impl Lane {
    /// A lane, with what must be driven for it to move.
    pub(super) fn open(
        store: Store,
        scripts: Arc<Scripts>,
    ) -> (Self, impl Future<Output = ()> + Send + 'static) {
        let (sender, jobs) = mpsc::channel(WAITING);
        let metrics = Arc::clone(&store.metrics);
        let driver = Driver {
            jobs,
            losses: store.identity().epoch(),
            store,
            scripts,
            known: KnownHolders::default(),
            generation: 0,
            ledger: Ledger::default(),
            complained: None,
        };
        let lane = Self {
            jobs: sender,
            metrics,
        };
        (lane, driver.run())
    }

    /// Takes a place in the lane for an envelope.
    pub(super) fn send(&self, letter: Letter) {
        self.enter(Job::Send(letter));
    }

    /// Takes a place in the lane at once; the answer is awaited.
    pub(super) fn ask(
        &self,
        command: Cmd,
    ) -> impl Future<Output = Result<Value, FabricError>> + Send + 'static {
        let (caller, answer) = oneshot::channel();
        self.enter(Job::Ask(command, caller));
        async { answer.await.unwrap_or(Err(FabricError::TimedOut)) }
    }

    /// How many jobs wait.
    pub(super) fn waiting(&self) -> usize {
        self.jobs.max_capacity() - self.jobs.capacity()
    }

    fn enter(&self, job: Job) {
        if let Err(refused) = self.jobs.try_send(job) {
            self.metrics.redis_failed(RedisTrouble::Busy);
            refused.into_inner().fail(&FabricError::Busy);
        }
    }
}

impl Job {
    fn fail(self, error: &FabricError) {
        match self {
            Self::Send(Letter { receipt, .. }) => {
                if let Some(receipt) = receipt {
                    receipt.settle(Err(error.clone()));
                }
            }
            // Whoever gave up waiting needs no answer.
            Self::Ask(_, caller) => drop(caller.send(Err(error.clone()))),
        }
    }
}

struct Driver {
    jobs: mpsc::Receiver<Job>,
    /// Tells when the store has lost data, also a lane that has nothing to do.
    losses: watch::Receiver<u64>,
    store: Store,
    scripts: Arc<Scripts>,
    known: KnownHolders,
    /// Which state of the store the ledger is of.
    generation: u64,
    ledger: Ledger,
    /// When the operator was last told that the store is full.
    complained: Option<Instant>,
}

impl Driver {
    async fn run(mut self) {
        while let Some(mut connection) = self.connect().await {
            let Some(error) = self.serve(&mut connection).await else {
                return;
            };
            debug!(%error, "A lane lost its connection to Redis");
            // Taken out of the pool, which would ping it.
            drop(Connection::take(connection));
            // What waited behind something that failed must not overtake its repetition.
            while let Ok(job) = self.jobs.try_recv() {
                job.fail(&error);
            }
        }
    }

    /// Tries until it succeeds; whoever asks meanwhile is told at once that Redis is away. `None` if nobody can ask any more.
    async fn connect(&mut self) -> Option<Connection> {
        let connecting = connect_patiently(self.store.clone(), Arc::clone(&self.scripts));
        let mut connecting = std::pin::pin!(connecting);
        loop {
            tokio::select! {
                connection = &mut connecting => return Some(connection),
                job = self.jobs.recv() => job?.fail(&FabricError::unreachable(&"Redis is away")),
            }
        }
    }

    /// Moves pipelines until the connection breaks (the error) or nobody can ask any more (`None`).
    async fn serve(&mut self, connection: &mut Connection) -> Option<FabricError> {
        let (mut jobs, scripts) = (Vec::with_capacity(BATCH), Arc::clone(&self.scripts));
        loop {
            self.notice_loss();
            let owed = self.ledger.pay_some(BATCH);
            if owed.is_empty() {
                tokio::select! {
                    taken = self.jobs.recv_many(&mut jobs, BATCH) => if taken == 0 { return None },
                    () = due(self.ledger.due()) => {}
                    _ = self.losses.changed() => {}
                }
            }
            // Lets sessions that are ready add to this pipeline: a tenth less CPU, no latency (measured).
            tokio::task::yield_now().await;
            while jobs.len() < BATCH
                && let Ok(job) = self.jobs.try_recv()
            {
                jobs.push(job);
            }
            if owed.is_empty() && jobs.is_empty() {
                continue;
            }
            // It may have been noticed while this lane waited.
            self.notice_loss();
            let mut batch = Batch::new(&scripts, self.store.lives, owed.len() + jobs.len());
            for letter in owed {
                batch.add(Job::Send(letter));
            }
            for job in jobs.drain(..) {
                if let Job::Send(letter) = &job
                    && self.ledger.owes(&letter.to)
                {
                    let owed = self.ledger.pay(&letter.to);
                    for letter in owed {
                        batch.add(Job::Send(letter));
                    }
                }
                batch.add(job);
            }
            if let Err(error) = self.exchange(connection, batch).await {
                return Some(error);
            }
        }
    }

    /// What the store has lost is owed to it.
    fn notice_loss(&mut self) {
        let generation = self.store.identity().generation();
        if std::mem::replace(&mut self.generation, generation) != generation {
            self.ledger.owe();
        }
    }

    /// Sends one pipeline and hands out its answers.
    async fn exchange(
        &mut self,
        connection: &mut Connection,
        batch: Batch<'_>,
    ) -> Result<(), FabricError> {
        let (size, begun) = (batch.size(), Instant::now());
        let (pipeline, askers) = batch.finish();
        let asking = connection.req_packed_commands(&pipeline, 0, askers.len());
        let error = match timeout(self.store.timeout, asking).await {
            Ok(Ok(answers)) => {
                self.store.metrics.pipeline(size, begun.elapsed());
                let told = askers
                    .into_iter()
                    .zip(answers)
                    .map(|(asker, answer)| asker.hears(answer, &mut self.known, &mut self.ledger));
                // Everybody is told, whatever is wrong with some.
                let told = told.fold(Ok(()), Result::and);
                return self.judge(told);
            }
            Ok(Err(error)) => {
                self.store.metrics.redis_failed(RedisTrouble::Connection);
                FabricError::unreachable(&error)
            }
            Err(_) => {
                self.store.metrics.redis_failed(RedisTrouble::Timeout);
                FabricError::TimedOut
            }
        };
        for asker in askers {
            asker.fail(&error, &mut self.ledger);
        }
        Err(error)
    }

    /// A new connection loads the scripts, or finds the primary; it does not make room in the store.
    fn judge(&mut self, told: Result<(), FabricError>) -> Result<(), FabricError> {
        let Err(error) = told else {
            return Ok(());
        };
        self.store.metrics.redis_failed(RedisTrouble::Refused);
        if error != FabricError::NoMemory {
            return Err(error);
        }
        let now = Instant::now();
        if self.complained.is_none_or(|at| now - at > COMPLAIN_EVERY) {
            self.complained = Some(now);
            warn!(
                "Redis has no memory left: nobody can log in, and no signal reaches another node, until its maxmemory is raised or what else is in it is removed"
            );
        }
        Ok(())
    }
}

/// Waits until then, or for ever.
async fn due(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}

async fn connect_patiently(store: Store, scripts: Arc<Scripts>) -> Connection {
    loop {
        match timeout(store.timeout * 2, connect(&store, &scripts)).await {
            Ok(Ok(connection)) => return connection,
            Ok(Err(error)) => store.complain(&error.to_string()),
            Err(_) => store.complain("it does not answer in time"),
        }
        store.metrics.redis_failed(RedisTrouble::Connection);
        sleep(RECONNECT_PAUSE).await;
    }
}

/// A connection that has the scripts, to a Redis that is known.
async fn connect(store: &Store, scripts: &Scripts) -> Result<Connection, OpenError> {
    let away = |error: &dyn std::fmt::Display| OpenError::Away(error.to_string());
    let mut connection = store.commands().await.map_err(|error| away(&error))?;
    let load = scripts.load();
    let loaded = load.query_async::<Vec<String>>(&mut connection).await;
    let checked = match loaded {
        Ok(_) => store.identify(&mut connection).await,
        Err(error) => Err(away(&error)),
    };
    match checked {
        Ok(()) => Ok(connection),
        Err(error) => {
            // Taken out of the pool, which would hand it out again.
            drop(Connection::take(connection));
            Err(error)
        }
    }
}
