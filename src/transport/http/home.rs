//! The home of an HTTP session: its state, and waiting for changes of it.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{oneshot, watch};
use tokio::time::timeout;

use super::buffer::{EventId, Unread};
use super::state::{Stage, State};
use super::wire::{Denied, Handover, Locator};
use crate::model::{NodeId, SecretHash};

/// The home of one session.
#[derive(Debug)]
pub(super) struct Home {
    pub(super) proof: SecretHash,
    /// The session expires after this long without a request.
    pub(super) ttl: Duration,
    /// Held for short operations in memory only.
    state: Mutex<State>,
    news: watch::Sender<()>,
}

impl Home {
    pub(super) fn new(proof: SecretHash, ttl: Duration) -> Self {
        Self {
            proof,
            ttl,
            state: Mutex::new(State::new()),
            news: watch::Sender::new(()),
        }
    }

    /// Queues a post and waits until the session has processed it. Returns the number of its
    /// messages.
    pub(super) async fn post(
        &self,
        messages: Option<Vec<String>>,
        key: &str,
        within: Duration,
    ) -> Result<usize, Denied> {
        let (number, count) = self.update(|state| state.post(messages, key))?;
        self.settled(number, within).await.map(|()| count)
    }

    /// Waits until the session has processed all posts up to `number`, and the result is stored
    /// where other nodes see it.
    pub(super) async fn settled(&self, number: u64, within: Duration) -> Result<(), Denied> {
        let settled = self.when(within, |state| state.settled(number)).await;
        settled.unwrap_or(Err(Denied::Later))
    }

    /// Waits for events after `after`, for `at_most`. Returns nothing if there are none by then.
    pub(super) async fn read(
        &self,
        reader: u64,
        after: EventId,
        at_most: Duration,
    ) -> Result<Unread, Denied> {
        self.update(|state| {
            state.waiting += 1;
            state.confirm(after);
        });
        let _waiting = Waiting(self);
        let read = |state: &mut State| match state.read(reader, after) {
            Ok(unread) if unread.is_empty() => None,
            read => Some(read),
        };
        let read = self.when(at_most, read).await;
        read.unwrap_or(Ok(Unread::nothing(after)))
    }

    /// Hands the session over to another node, as soon as no post is being processed.
    pub(super) async fn hand_over(
        &self,
        to: &NodeId,
        within: Duration,
    ) -> Result<Handover, Denied> {
        let (sender, handover) = oneshot::channel();
        let at_once = self.update(|state| match state.stage {
            Stage::Ended => Ok(Some(state.handover())),
            Stage::Released => Ok(Some(state.move_to(to.clone()))),
            Stage::Running => {
                state.takeover = Some((to.clone(), sender));
                Ok(None)
            }
            _ => Err(state.denied()),
        })?;
        if let Some(handover) = at_once {
            return Ok(handover);
        }
        match timeout(within, handover).await {
            Ok(Ok(handover)) => Ok(handover),
            _ => Err(Denied::Later),
        }
    }

    /// The locator to store, with its version; `None` if the session is not at home here.
    pub(super) fn locator(&self, node: &NodeId) -> Option<(u64, Locator)> {
        let state = self.lock();
        let locator = || Locator::new(node, &self.proof, &state.progress);
        (state.stage == Stage::Running).then(|| (state.version, locator()))
    }

    /// Waits until the stored locator is outdated, for `at_most`.
    pub(super) async fn outdated(&self, at_most: Duration) {
        let is_outdated = |state: &mut State| (state.stored_version != state.version).then_some(());
        self.when(at_most, is_outdated).await;
    }

    /// Changes the state and wakes all waiters.
    pub(super) fn update<R>(&self, change: impl FnOnce(&mut State) -> R) -> R {
        let result = change(&mut self.lock());
        self.announce();
        result
    }

    /// The state, for reading or for a change that is followed by [`announce`](Self::announce).
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn announce(&self) {
        self.news.send_replace(());
    }

    /// Waits until `find` returns a result, for `at_most`.
    pub(super) async fn when<R>(
        &self,
        at_most: Duration,
        mut find: impl FnMut(&mut State) -> Option<R>,
    ) -> Option<R> {
        let mut news = self.news.subscribe();
        let found = async {
            loop {
                let found = find(&mut self.lock());
                if found.is_some() {
                    return found;
                }
                // The home owns the sender, so the channel cannot close.
                let _ = news.changed().await;
            }
        };
        timeout(at_most, found).await.unwrap_or_default()
    }
}

/// A waiting reader. While one waits, the client counts as present.
struct Waiting<'a>(&'a Home);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.waiting -= 1;
        state.touch();
    }
}
