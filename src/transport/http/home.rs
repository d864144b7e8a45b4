//! The home of an HTTP session: its state, and ways to wait until that changes.

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
    /// How long the session lives without a sign of its client.
    pub(super) ttl: Duration,
    /// Locked for operations of memory only.
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

    /// Takes a post, and waits until the session has dealt with it. Returns how many messages it had.
    pub(super) async fn post(
        &self,
        messages: Option<Vec<String>>,
        key: &str,
        within: Duration,
    ) -> Result<usize, Denied> {
        let (number, count) = self.update(|state| state.post(messages, key))?;
        self.settled(number, within).await.map(|()| count)
    }

    /// Waits until the session has dealt with every post up to this one, and other nodes can know what came of them.
    pub(super) async fn settled(&self, number: u64, within: Duration) -> Result<(), Denied> {
        let settled = self.when(within, |state| state.settled(number)).await;
        settled.unwrap_or(Err(Denied::Later))
    }

    /// What there is behind an event, as soon as there is something; nothing after this time.
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

    /// Hands the session over to another node, as soon as it deals with no post.
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

    /// The locator that other nodes must read, and its version; `None` if the session is not at home here.
    pub(super) fn locator(&self, node: &NodeId) -> Option<(u64, Locator)> {
        let state = self.lock();
        let locator = || Locator::new(node, &self.proof, &state.progress);
        (state.stage == Stage::Running).then(|| (state.version, locator()))
    }

    /// Waits until the locator changes, for so long at most.
    pub(super) async fn outdated(&self, at_most: Duration) {
        let is_outdated = |state: &mut State| (state.stored_version != state.version).then_some(());
        self.when(at_most, is_outdated).await;
    }

    /// Changes the state, and wakes whoever waits for that.
    pub(super) fn update<R>(&self, change: impl FnOnce(&mut State) -> R) -> R {
        let result = change(&mut self.lock());
        self.announce();
        result
    }

    /// The state, to look at it, or to change it before [`announce`](Self::announce).
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn announce(&self) {
        self.news.send_replace(());
    }

    /// Waits until this finds something in the state, for so long at most.
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
                // The home has the sender: it cannot be gone.
                let _ = news.changed().await;
            }
        };
        timeout(at_most, found).await.unwrap_or_default()
    }
}

/// A reader that waits: its client is there.
struct Waiting<'a>(&'a Home);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.waiting -= 1;
        state.touch();
    }
}
