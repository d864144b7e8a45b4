//! Tries everything that this node needs of Redis, on a name of its own: only then the node is ready.
//!
//! A Redis that answers PING may still refuse a command, a key or a channel. The probe does what a session does,
//! through the publishers and the subscriber of the node, so that it needs the same rights.

use std::sync::Arc;
use std::time::Duration;

use redis::Value;
use tokio::time::sleep;

use super::broker::RedisBroker;
use super::epoch::info_line;
use super::health::HealthMonitor;
use super::reply::unexpected;
use crate::broker::{
    Broker as _, BrokerError, Envelope, Flags, Lease, Payload, Receipts, RecordUpdate, Resume,
    Revocations as _, SendOptions, Sender,
};
use crate::model::{
    Address, LeaveReason, NodeId, Offset, Realm, Secret, SecretHash, SessionId, UserName,
};

/// How often Redis is probed while it works…
const EVERY: Duration = Duration::from_secs(10);
/// …and while it does not.
const AGAIN: Duration = Duration::from_millis(500);
/// No client can be in this realm: it is no path segment.
const REALM: &str = "/probe";

/// The driver that probes Redis.
pub(super) struct Probe {
    pub(super) broker: Arc<RedisBroker>,
    pub(super) health: Arc<HealthMonitor>,
}

impl Probe {
    pub(super) async fn run(self) {
        let mut has_failed = false;
        loop {
            let tried = self.try_everything().await;
            let trouble = tried.err().map(|error| match error {
                BrokerError::NoMemory => "OOM".to_owned(),
                error => error.to_string(),
            });
            // One failure may only be a connection that is being made.
            if trouble.is_none() || has_failed {
                self.health.probed(trouble.as_deref());
            }
            has_failed = trouble.is_some();
            if has_failed {
                sleep(AGAIN).await;
                continue;
            }
            if let Ok(warnings) = self.warnings().await {
                self.health.warned(warnings);
            }
            tokio::select! {
                () = sleep(EVERY) => {}
                () = self.health.is_doubted() => {}
            }
        }
    }

    /// Sends each request once that a session needs from its login to its end, and each that a node needs.
    async fn try_everything(&self) -> Result<(), BrokerError> {
        let broker = &*self.broker;
        let node = &broker.node;
        let session = SessionId::random();
        // A name that nobody has, so that probes of other nodes and earlier ones are no holders of it.
        let name = UserName::parse(&session.to_string()).map_err(|_| unexpected())?;
        let address = Address::new(Realm::new(REALM), name);
        let secret = Secret::random().hash_for(&address);
        let mut lease = Lease {
            callable_by: None,
            address: address.clone(),
            session,
            generation: 0,
            flags: Flags {
                resumable: true,
                detached: false,
            },
        };
        broker.claim(&lease, None, Some(&secret), None).await?;
        let done = self.live(&mut lease, &secret).await;
        let released = broker
            .release(&address, &lease.held_by(node), Offset::default())
            .await;
        broker.unlisten(&lease);
        done.and(released.map(drop))
    }

    async fn live(&self, lease: &mut Lease, secret: &SecretHash) -> Result<(), BrokerError> {
        let broker = &*self.broker;
        broker.barrier(lease).await?;
        self.send_to_itself(lease).await?;
        broker.read(lease, Offset::default()).await?;
        broker.save(lease, RecordUpdate::default()).await?;
        broker.renew(vec![lease.clone()]).await?;
        let names = std::slice::from_ref(&lease.address);
        broker.holders(names).await?;
        broker.verify(&lease.address, secret).await?;
        if let Resume::Won(resumed) = broker
            .resume(&lease.address, secret, None, None, false)
            .await?
        {
            broker.unlisten(lease);
            *lease = resumed.lease;
        }
        broker.locate(lease.session, "probe".into(), AGAIN).await?;
        broker.located(lease.session).await?;
        broker.revocations().await?;
        let scan = redis::cmd("SCAN").arg(0).arg("COUNT").arg(1).clone();
        broker.node_publisher.query(scan).await.map(drop)
    }

    async fn send_to_itself(&self, lease: &Lease) -> Result<(), BrokerError> {
        let (broker, receipts) = (&*self.broker, Receipts::default());
        let sender = Sender::new(
            lease.address.clone(),
            lease.session,
            lease.generation,
            NodeId::clone(&broker.node),
        );
        let envelope = Envelope {
            from: Arc::new(sender),
            n: 1,
            idempotency_key: None,
            trace: None,
            payload: Payload::Leave {
                reason: LeaveReason::Closed,
                heard: 0,
            },
        };
        let receipt = receipts.issue(false, false);
        broker.send(&lease.address, SendOptions::default(), envelope, receipt);
        receipts.ready(true).await;
        match receipts.take() {
            Some(answer) => answer.outcome.map(drop),
            None => Ok(()),
        }
    }

    /// Settings of Redis that will end sessions one day.
    async fn warnings(&self) -> Result<Vec<Arc<str>>, BrokerError> {
        let info = redis::cmd("INFO").arg("memory").arg("persistence").clone();
        let info = match self.broker.node_publisher.query(info).await? {
            Value::BulkString(text) => String::from_utf8_lossy(&text).into_owned(),
            _ => return Err(unexpected()),
        };
        let mut warnings = Vec::new();
        let policy = info_line(&info, "maxmemory_policy:");
        if !policy.is_empty() && policy != "noeviction" {
            warnings.push(
                format!(
                    "Redis evicts keys when it is full (maxmemory-policy {policy}), which ends sessions without \
                     notice: CONFIG SET maxmemory-policy noeviction"
                )
                .into(),
            );
        }
        if info_line(&info, "aof_enabled:") == "0" {
            warnings.push(
                "Redis keeps no append-only file: after its restart, sessions without a connection are lost and the \
                 others are told that they may have missed something. CONFIG SET appendonly yes"
                    .into(),
            );
        }
        Ok(warnings)
    }
}
