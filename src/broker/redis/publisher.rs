//! A publisher: everything about one address goes through the same publisher, in order, on one connection that is held.
//!
//! What has piled up leaves as one pipeline and each command gets its own answer; the next pipeline leaves when all have come. What may have
//! reached Redis when the connection broke is not sent again: its outcome is unknown, and its sender is told so. Only what surely reached
//! nobody is tried again (`parked`).

use std::sync::Arc;
use std::time::Duration;

use deadpool_redis::Connection;
use redis::aio::ConnectionLike as _;
use redis::{Cmd, Value};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tracing::{debug, warn};

use super::batch::{Batch, Publish, Save, Verdicts};
use super::connect::{OpenError, Store};
use super::parked::Parked;
use super::scripts::Scripts;
use super::wire::KnownHolders;
use crate::broker::BrokerError;
use crate::telemetry::{Metrics, RedisTrouble};

/// How many jobs may wait for a publisher; more are refused as busy.
const WAITING: usize = 8192;
/// How many leave in one pipeline.
const BATCH: usize = 256;
/// How long a publisher rests between two tries to connect.
const RECONNECT_PAUSE: Duration = Duration::from_millis(100);
/// How often the operator is told, by each publisher, that the store refuses something.
const COMPLAIN_EVERY: Duration = Duration::from_mins(1);

/// Where jobs wait for their publisher.
#[derive(Clone, Debug)]
pub(super) struct Publisher {
    jobs: mpsc::Sender<Job>,
    metrics: Arc<Metrics>,
}

/// What a publisher does.
#[derive(Debug)]
pub(super) enum Job {
    /// Sends an envelope.
    Send(Publish),
    /// Writes down what the next holder of a session must know.
    Save(Save, Caller),
    /// Asks anything else.
    Ask(Cmd, Caller),
}

/// What a command is answered.
type Answer = Result<Value, BrokerError>;

/// Who waits for an answer.
pub(super) type Caller = oneshot::Sender<Answer>;

impl Publisher {
    /// A publisher, with what must be driven for it to move.
    pub(super) fn open(
        store: Store,
        scripts: Arc<Scripts>,
        own_lease: String,
    ) -> (Self, impl Future<Output = ()> + Send + 'static) {
        let (sender, jobs) = mpsc::channel(WAITING);
        let metrics = Arc::clone(&store.metrics);
        let timeout = store.timeout;
        let driver = Driver {
            jobs,
            store,
            scripts,
            own_lease,
            known: KnownHolders::default(),
            parked: Parked::new(timeout),
            complained: None,
        };
        let publisher = Self {
            jobs: sender,
            metrics,
        };
        (publisher, driver.run())
    }

    /// Takes a place in the publisher for an envelope.
    pub(super) fn send(&self, message: Publish) {
        self.enter(Job::Send(message));
    }

    /// Takes a place in the publisher at once; the answer is awaited.
    pub(super) fn ask(&self, command: Cmd) -> impl Future<Output = Answer> + Send + 'static {
        self.answered(|caller| Job::Ask(command, caller))
    }

    /// The same for a note.
    pub(super) fn note(&self, note: Save) -> impl Future<Output = Answer> + Send + 'static {
        self.answered(|caller| Job::Save(note, caller))
    }

    fn answered(
        &self,
        job: impl FnOnce(Caller) -> Job,
    ) -> impl Future<Output = Answer> + Send + 'static {
        let (caller, answer) = oneshot::channel();
        self.enter(job(caller));
        async { answer.await.unwrap_or(Err(BrokerError::TimedOut)) }
    }

    /// How many jobs wait.
    pub(super) fn waiting(&self) -> usize {
        self.jobs.max_capacity() - self.jobs.capacity()
    }

    fn enter(&self, job: Job) {
        if let Err(refused) = self.jobs.try_send(job) {
            self.metrics.redis_failed(RedisTrouble::Busy);
            refused.into_inner().fail(&BrokerError::Busy);
        }
    }
}

impl Job {
    fn fail(self, error: &BrokerError) {
        match self {
            Self::Send(message) => message.receipt.settle(Err(error.clone())),
            // Whoever gave up waiting needs no answer.
            Self::Ask(_, caller) | Self::Save(_, caller) => drop(caller.send(Err(error.clone()))),
        }
    }
}

struct Driver {
    jobs: mpsc::Receiver<Job>,
    store: Store,
    scripts: Arc<Scripts>,
    /// The key of this node's lease.
    own_lease: String,
    known: KnownHolders,
    parked: Parked,
    /// When the operator was last told that the store refuses something.
    complained: Option<Instant>,
}

impl Driver {
    async fn run(mut self) {
        while let Some(mut connection) = self.connect().await {
            let Some(error) = self.serve(&mut connection).await else {
                return;
            };
            debug!(%error, "A publisher lost its connection to Redis");
            // Taken out of the pool, which would ping it.
            drop(Connection::take(connection));
            self.parked.fail(&error);
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
                job = self.jobs.recv() => job?.fail(&BrokerError::unreachable(&"Redis is away")),
            }
        }
    }

    /// Moves pipelines until the connection breaks (the error) or nobody can ask any more (`None`).
    async fn serve(&mut self, connection: &mut Connection) -> Option<BrokerError> {
        let (mut jobs, scripts) = (Vec::with_capacity(BATCH), Arc::clone(&self.scripts));
        loop {
            tokio::select! {
                taken = self.jobs.recv_many(&mut jobs, BATCH) => if taken == 0 { return None },
                () = due(self.parked.next()) => {}
            }
            // Lets sessions that are ready add to this pipeline: a tenth less CPU, no latency (measured).
            tokio::task::yield_now().await;
            while jobs.len() < BATCH
                && let Ok(job) = self.jobs.try_recv()
            {
                jobs.push(job);
            }
            let mut batch = Batch::new(&scripts, self.store.lives, jobs.len());
            if !self.parked.is_empty() {
                for message in self.parked.due(Instant::now()) {
                    batch.add(Job::Send(message));
                }
            }
            for job in jobs.drain(..) {
                match job {
                    Job::Send(message) => {
                        if let Some(message) = self.parked.behind(message) {
                            batch.add(Job::Send(message));
                        }
                    }
                    job => batch.add(job),
                }
            }
            if batch.size() == 0 {
                continue;
            }
            if let Err(error) = self.router(connection, batch).await {
                return Some(error);
            }
        }
    }

    /// Sends one pipeline and hands out its answers.
    async fn router(
        &mut self,
        connection: &mut Connection,
        batch: Batch<'_>,
    ) -> Result<(), BrokerError> {
        let (size, begun) = (batch.size(), Instant::now());
        let (pipeline, askers) = batch.finish();
        let asking = connection.req_packed_commands(&pipeline, 0, askers.len());
        let mut verdicts = Verdicts::default();
        let error = match timeout(self.store.timeout, asking).await {
            Ok(Ok(answers)) => {
                self.store.metrics.pipeline(size, begun.elapsed());
                for (asker, answer) in askers.into_iter().zip(answers) {
                    asker.hears(answer, &mut self.known, &mut verdicts);
                }
                if verdicts.has_absent() {
                    self.doubt(connection).await;
                }
                let refused = self.refused(&verdicts);
                verdicts.tell();
                for (message, holder) in verdicts.unheard {
                    self.parked.park(message, holder, Instant::now());
                }
                return refused;
            }
            Ok(Err(error)) => {
                self.store.metrics.redis_failed(RedisTrouble::Connection);
                BrokerError::unreachable(&error)
            }
            Err(_) => {
                self.store.metrics.redis_failed(RedisTrouble::Timeout);
                BrokerError::TimedOut
            }
        };
        for asker in askers {
            asker.fail(&error, &mut verdicts);
        }
        verdicts.tell();
        Err(error)
    }

    /// Somebody was not found: a store that has forgotten this node's lease may have forgotten them too, and that must be known before their
    /// absence is told.
    async fn doubt(&self, connection: &mut Connection) {
        let mut lease = redis::cmd("GET");
        lease.arg(&self.own_lease);
        let asked_at = self.store.epoch.mark();
        // One that does not answer is noticed by whatever is asked next.
        if let Ok(Ok(token)) = timeout(
            self.store.timeout,
            lease.query_async::<Option<Vec<u8>>>(connection),
        )
        .await
        {
            self.store.epoch.compare(token.as_deref(), asked_at);
        }
    }

    /// What the store refused: an error if a new connection may mend it.
    fn refused(&mut self, verdicts: &Verdicts) -> Result<(), BrokerError> {
        let Some(error) = &verdicts.error else {
            return Ok(());
        };
        self.store.metrics.redis_failed(RedisTrouble::Refused);
        if verdicts.reconnects {
            return Err(error.clone());
        }
        let now = Instant::now();
        if self.complained.is_none_or(|at| now - at > COMPLAIN_EVERY) {
            self.complained = Some(now);
            match error {
                BrokerError::NoMemory => warn!(
                    "Redis has no memory left: nobody can log in, and no signal reaches another node, until its maxmemory is raised or what else is in it is removed"
                ),
                error => {
                    warn!(%error, "Redis refuses commands: what they were for is unavailable until it takes them");
                }
            }
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
