//! The table of wanted subscriptions.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, oneshot};
use tokio::time::timeout;

use crate::broker::{BrokerError, Lease};
use crate::model::SessionId;

/// The wanted subscriptions. The subscriber makes its connection match them.
#[derive(Debug, Default)]
pub(super) struct Subscriptions {
    /// Held for a few map operations.
    table: Mutex<Table>,
    /// Notified when the table has changed.
    pub(super) changed: Notify,
}

#[derive(Debug, Default)]
pub(super) struct Table {
    /// How many sessions and logins want each channel.
    pub(super) wanted: HashMap<String, usize>,
    /// Who waits for Redis to confirm a channel.
    pub(super) waiting: Vec<(String, oneshot::Sender<()>)>,
    /// Channels to unsubscribe, unless they are wanted again.
    pub(super) dropped: Vec<String>,
    /// Sessions with their generation whose subscription lasts until [`Subscriptions::end`].
    kept: HashSet<(SessionId, u32)>,
}

/// A subscription to one channel. Dropping it ends it, unless it was [kept](Self::keep).
#[derive(Debug)]
pub(super) struct Subscription {
    subscriptions: Arc<Subscriptions>,
    channel: Option<String>,
}

impl Subscriptions {
    /// Subscribes to a channel, and waits until Redis has confirmed it. Several logins may want one channel: it stays
    /// subscribed until the last of them ends.
    pub(super) async fn listen(
        self: &Arc<Self>,
        channel: String,
        within: Duration,
    ) -> Result<Subscription, BrokerError> {
        let (sender, confirmed) = oneshot::channel();
        {
            let mut table = self.lock();
            *table.wanted.entry(channel.clone()).or_default() += 1;
            table.waiting.push((channel.clone(), sender));
        }
        self.changed.notify_one();
        let subscription = Subscription {
            subscriptions: Arc::clone(self),
            channel: Some(channel),
        };
        match timeout(within, confirmed).await {
            Ok(Ok(())) => Ok(subscription),
            _ => Err(BrokerError::TimedOut),
        }
    }

    /// Ends the subscription that was kept for this lease. Further calls do nothing.
    pub(super) fn end(&self, lease: &Lease, channel: String) {
        if self.lock().kept.remove(&(lease.session, lease.generation)) {
            self.forget(channel);
        }
    }

    fn forget(&self, channel: String) {
        let mut table = self.lock();
        if let Some(count) = table.wanted.get_mut(&channel) {
            *count -= 1;
            if *count == 0 {
                table.wanted.remove(&channel);
                table.dropped.push(channel);
                drop(table);
                self.changed.notify_one();
            }
        }
    }

    /// Removes callers that have stopped waiting.
    pub(super) fn remove_closed(&self) {
        self.lock()
            .waiting
            .retain(|(_, waiter)| !waiter.is_closed());
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Subscription {
    /// Keeps the subscription for this lease until [`Subscriptions::end`].
    pub(super) fn keep(mut self, lease: &Lease) {
        let kept = (lease.session, lease.generation);
        self.subscriptions.lock().kept.insert(kept);
        self.channel = None;
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        if let Some(channel) = self.channel.take() {
            self.subscriptions.forget(channel);
        }
    }
}
