//! A publisher lane: everything about one address goes through the same lane, in order, on one connection that is held.
//!
//! What has piled up leaves as one pipeline and each command gets its own answer; the next pipeline leaves when all have come. Nothing
//! is sent twice: what may have reached Redis when the connection broke has an unknown outcome, and its sender is told so.

use std::sync::Arc;
use std::time::Duration;

use deadpool_redis::Connection;
use redis::aio::ConnectionLike as _;
use redis::{Cmd, Pipeline, Value};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{sleep, timeout};
use tracing::debug;

use super::connect::Store;
use super::scripts::Scripts;
use crate::fabric::{FabricError, Receipt, Sent};

/// How many commands may wait for a lane; more are refused as busy.
const WAITING: usize = 8192;
/// How many commands leave in one pipeline.
const BATCH: usize = 256;
/// How long a lane rests between two tries to connect.
const RECONNECT_PAUSE: Duration = Duration::from_millis(100);

/// Where commands wait for their lane.
#[derive(Clone, Debug)]
pub(super) struct Lane {
    jobs: mpsc::Sender<Job>,
}

#[derive(Debug)]
struct Job {
    command: Cmd,
    asker: Asker,
}

/// Who hears the answer.
#[derive(Debug)]
enum Asker {
    /// The sender of an envelope.
    Sender(Receipt),
    /// Anyone else.
    Caller(oneshot::Sender<Result<Value, FabricError>>),
}

impl Lane {
    /// A lane, with what must be driven for it to move.
    pub(super) fn open(store: Store, scripts: Arc<Scripts>) -> (Self, impl Future<Output = ()> + Send + 'static) {
        let (sender, jobs) = mpsc::channel(WAITING);
        let driver = Driver { jobs, store, scripts, batch: Vec::with_capacity(BATCH) };
        (Self { jobs: sender }, driver.run())
    }

    /// Takes a place in the lane for an envelope.
    pub(super) fn send(&self, command: Cmd, receipt: Receipt) {
        self.enter(Job { command, asker: Asker::Sender(receipt) });
    }

    /// Takes a place in the lane at once; the answer is awaited.
    pub(super) fn ask(&self, command: Cmd) -> impl Future<Output = Result<Value, FabricError>> + Send + 'static {
        let (sender, answer) = oneshot::channel();
        self.enter(Job { command, asker: Asker::Caller(sender) });
        async { answer.await.unwrap_or(Err(FabricError::TimedOut)) }
    }

    fn enter(&self, job: Job) {
        if let Err(refused) = self.jobs.try_send(job) {
            refused.into_inner().asker.hears(Err(FabricError::Busy));
        }
    }
}

impl Asker {
    fn hears(self, answer: Result<Value, FabricError>) {
        match self {
            Self::Sender(receipt) => receipt.settle(answer.and_then(|value| sent(&value))),
            // Whoever gave up waiting needs no answer.
            Self::Caller(caller) => drop(caller.send(answer)),
        }
    }
}

/// What `send.lua` answers.
fn sent(value: &Value) -> Result<Sent, FabricError> {
    match value {
        Value::Nil => Ok(Sent::Absent),
        Value::BulkString(holder) => {
            let holder = std::str::from_utf8(holder).ok().and_then(|text| text.parse().ok());
            holder.map(Sent::To).ok_or_else(|| FabricError::unreachable(&"a presence key holds no lease"))
        }
        _ => Err(FabricError::unreachable(&"an unexpected answer")),
    }
}

struct Driver {
    jobs: mpsc::Receiver<Job>,
    store: Store,
    scripts: Arc<Scripts>,
    batch: Vec<Job>,
}

impl Driver {
    async fn run(mut self) {
        while let Some(mut connection) = self.connect().await {
            let Some(error) = self.serve(&mut connection).await else { return };
            debug!(%error, "A lane lost its connection to Redis");
            // Taken out of the pool, which would ping it.
            drop(Connection::take(connection));
        }
    }

    /// Tries until it succeeds; whoever asks meanwhile is told at once that Redis is away. `None` if nobody can ask any more.
    async fn connect(&mut self) -> Option<Connection> {
        let connecting = connect_patiently(self.store.clone(), Arc::clone(&self.scripts));
        let mut connecting = std::pin::pin!(connecting);
        loop {
            tokio::select! {
                connection = &mut connecting => return Some(connection),
                job = self.jobs.recv() => job?.asker.hears(Err(FabricError::unreachable(&"Redis is away"))),
            }
        }
    }

    /// Moves pipelines until the connection breaks (the error) or nobody can ask any more (`None`).
    async fn serve(&mut self, connection: &mut Connection) -> Option<FabricError> {
        loop {
            if self.jobs.recv_many(&mut self.batch, BATCH).await == 0 {
                return None;
            }
            // Lets sessions that are ready add to this pipeline: a tenth less CPU, no latency (measured).
            tokio::task::yield_now().await;
            while self.batch.len() < BATCH
                && let Ok(job) = self.jobs.try_recv()
            {
                self.batch.push(job);
            }
            let mut pipeline = Pipeline::with_capacity(self.batch.len());
            let askers: Vec<Asker> = self
                .batch
                .drain(..)
                .map(|job| {
                    pipeline.add_command(job.command);
                    job.asker
                })
                .collect();
            if let Err(error) = self.exchange(connection, &pipeline, askers).await {
                return Some(error);
            }
        }
    }

    /// Sends one pipeline and hands out its answers.
    async fn exchange(
        &self,
        connection: &mut Connection,
        pipeline: &Pipeline,
        askers: Vec<Asker>,
    ) -> Result<(), FabricError> {
        let answers = match timeout(self.store.timeout, connection.req_packed_commands(pipeline, 0, askers.len())).await {
            Ok(Ok(answers)) => answers,
            Ok(Err(error)) => return Err(fail(askers, &FabricError::unreachable(&error))),
            Err(_) => return Err(fail(askers, &FabricError::TimedOut)),
        };
        let mut broken = None;
        for (asker, answer) in askers.into_iter().zip(answers) {
            asker.hears(match answer {
                Value::ServerError(error) => {
                    let told = FabricError::unreachable(&error);
                    match error.code() {
                        // A claim or a renewal that came too late; everything else may work.
                        "LATE" => {}
                        // A new connection loads the scripts, or finds the primary. This command is not repeated.
                        _ => broken = Some(told.clone()),
                    }
                    Err(told)
                }
                value => Ok(value),
            });
        }
        broken.map_or(Ok(()), Err)
    }
}

fn fail(askers: Vec<Asker>, error: &FabricError) -> FabricError {
    for asker in askers {
        asker.hears(Err(error.clone()));
    }
    error.clone()
}

async fn connect_patiently(store: Store, scripts: Arc<Scripts>) -> Connection {
    let load = scripts.load();
    loop {
        if let Ok(mut connection) = store.commands().await {
            let loading = timeout(store.timeout, load.query_async::<Vec<String>>(&mut connection)).await;
            match loading {
                Ok(Ok(_)) => return connection,
                Ok(Err(error)) => debug!(%error, "Redis does not take the scripts"),
                Err(_) => debug!("Redis does not take the scripts in time"),
            }
            drop(Connection::take(connection));
        }
        sleep(RECONNECT_PAUSE).await;
    }
}
