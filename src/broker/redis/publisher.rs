//! A publisher: a queue of requests and the one connection that carries them to Redis.
//!
//! All requests about one address go through one publisher, in order. What has piled up leaves as one pipeline; each
//! command gets its own reply, and the next pipeline leaves when all replies have come. What may have reached Redis
//! when the connection broke is not sent again: its outcome is unknown, and its sender is told so. Only what surely
//! reached nobody is retried (`parked`).

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;

use redis::Cmd;
use tokio::sync::{mpsc, oneshot};

use super::driver::Driver;
use super::request::{Publish, Reply, ReplySender, Request, Save};
use super::scripts::Scripts;
use super::store::Store;
use crate::broker::BrokerError;
use crate::telemetry::{Metrics, RedisTrouble};

/// How many requests may wait for a publisher, and of how many bytes; more fail as busy.
const QUEUE: usize = 8192;
const QUEUE_BYTES: usize = 64 << 20;
/// The sending end of a publisher's queue.
#[derive(Clone, Debug)]
pub(super) struct Publisher {
    requests: mpsc::Sender<Request>,
    /// The bytes of what waits.
    bytes: Arc<AtomicUsize>,
    metrics: Arc<Metrics>,
}

impl Publisher {
    /// A publisher, and its driver: a future that must run for requests to move.
    pub(super) fn open(
        store: Store,
        scripts: Arc<Scripts>,
        own_lease: String,
    ) -> (Self, impl Future<Output = ()> + Send + 'static) {
        let (sender, requests) = mpsc::channel(QUEUE);
        let metrics = Arc::clone(&store.metrics);
        let bytes = Arc::new(AtomicUsize::new(0));
        let driver = Driver::new(requests, Arc::clone(&bytes), store, scripts, own_lease);
        let publisher = Self {
            requests: sender,
            bytes,
            metrics,
        };
        (publisher, driver.run())
    }

    /// Queues an envelope.
    pub(super) fn send(&self, message: Publish) {
        self.enqueue(Request::Publish(message));
    }

    /// Queues a command at once; only the reply is awaited.
    pub(super) fn query(&self, command: Cmd) -> impl Future<Output = Reply> + Send + 'static {
        self.enqueue_with_reply(|reply_to| Request::Command(command, reply_to))
    }

    /// The same for an update of a session's record.
    pub(super) fn save(&self, save: Save) -> impl Future<Output = Reply> + Send + 'static {
        self.enqueue_with_reply(|reply_to| Request::Save(save, reply_to))
    }

    fn enqueue_with_reply(
        &self,
        request: impl FnOnce(ReplySender) -> Request,
    ) -> impl Future<Output = Reply> + Send + 'static {
        let (reply_to, reply) = oneshot::channel();
        self.enqueue(request(reply_to));
        async { reply.await.unwrap_or(Err(BrokerError::TimedOut)) }
    }

    /// How many requests wait.
    pub(super) fn waiting(&self) -> usize {
        self.requests.max_capacity() - self.requests.capacity()
    }

    fn enqueue(&self, request: Request) {
        let bytes = request.bytes();
        let refused = if self.bytes.load(Relaxed) + bytes > QUEUE_BYTES {
            request
        } else {
            // Counted first: the driver may take it at once.
            self.bytes.fetch_add(bytes, Relaxed);
            let Err(refused) = self.requests.try_send(request) else {
                return;
            };
            self.bytes.fetch_sub(bytes, Relaxed);
            refused.into_inner()
        };
        self.metrics.redis_failed(RedisTrouble::Busy);
        refused.fail(&BrokerError::Busy);
    }
}
