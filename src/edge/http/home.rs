//! An HTTP session at its home: the requests of its client on one side, the session itself on the other.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{oneshot, watch};
use tokio::time::timeout;

use super::denied::Denied;
use super::event::{EventId, Text, Unread};
use super::state::{Stage, State};
use super::wire::{Handover, Locator};
use crate::model::{CloseReason, NodeId, SecretHash, UserName};
use crate::session::Standing;

/// One session at its home.
#[derive(Debug)]
pub(super) struct Home {
    proof: SecretHash,
    /// How long the session lives without a sign of its client.
    pub(super) ttl: Duration,
    /// Locked for operations of memory only.
    state: Mutex<State>,
    /// Tells whoever waits that the state has changed.
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

    pub(super) fn is_proved_by(&self, proof: &SecretHash) -> bool {
        self.proof == *proof
    }

    // === For the client ===

    /// Takes a post, all of it or nothing, and waits until the session has dealt with it. Returns how many messages it had.
    pub(super) async fn post(
        &self,
        messages: Option<Vec<Text>>,
        key: &str,
        within: Duration,
    ) -> Result<usize, Denied> {
        let (number, count) = self.lock().post(messages, key)?;
        self.settled(number, within).await.map(|()| count)
    }

    /// Waits until the session has dealt with every post up to this one, and other nodes can know what came of them.
    pub(super) async fn settled(&self, number: u64, within: Duration) -> Result<(), Denied> {
        let settled = self.when(within, |state| state.settled(number)).await;
        settled.unwrap_or(Err(Denied::Later))
    }

    /// Lets the reader of this number go on. A number that is not known is a new reader, which replaces the earlier ones.
    pub(super) fn reader(&self, number: u64) -> u64 {
        self.update(|state| state.reader(number))
    }

    /// What there is behind an event, as soon as there is something; nothing after this time.
    pub(super) async fn read(
        &self,
        reader: u64,
        after: EventId,
        at_most: Duration,
    ) -> Result<Unread, Denied> {
        self.lock().waiting += 1;
        let _waiting = Waiting(self);
        let read = |state: &mut State| match state.read(reader, after) {
            Ok(unread) if unread.is_empty() => None,
            read => Some(read),
        };
        let read = self.when(at_most, read).await;
        read.unwrap_or(Ok(Unread::nothing(after)))
    }

    /// Who has logged in.
    pub(super) fn user(&self) -> Result<Option<UserName>, Denied> {
        let state = self.lock();
        if !state.is_running() {
            return Err(state.denied());
        }
        let user = state.standing.user.as_ref();
        Ok(user.map(|(name, _)| name.clone()))
    }

    // === For nodes ===

    /// Whether requests are answered here.
    pub(super) fn is_here(&self) -> bool {
        let state = self.lock();
        state.is_running() || state.stage == Stage::Over
    }

    /// Whether the session has ended: only its last events are left.
    pub(super) fn is_over(&self) -> bool {
        self.lock().stage == Stage::Over
    }

    /// Which node has taken the session over.
    pub(super) fn moved_to(&self) -> Option<NodeId> {
        match &self.lock().stage {
            Stage::Moved(node) => node.clone(),
            _ => None,
        }
    }

    /// Hands the session over to another node, as soon as it deals with no post.
    pub(super) async fn hand_over(
        &self,
        taker: &NodeId,
        within: Duration,
    ) -> Result<Handover, Denied> {
        let (sender, handover) = oneshot::channel();
        let at_once = self.update(|state| match &state.stage {
            Stage::Over => Ok(Some(state.handover())),
            Stage::Left => Ok(Some(state.move_to(taker.clone()))),
            Stage::Here => {
                state.taker = Some((taker.clone(), sender));
                state.wake();
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

    // === For the task of the session ===

    /// Goes on with what another home has handed over; without that, with what the locator says.
    pub(super) fn restore(&self, handover: Option<Handover>, standing: Standing, greets: bool) {
        self.update(|state| {
            state.standing = standing;
            state.buffer.greets = greets;
            if let Some(handover) = handover {
                state.restore(handover);
            }
        });
    }

    /// The session cannot run here.
    pub(super) fn fail(&self, denied: Denied) {
        self.update(|state| state.stage = Stage::Failed(denied));
    }

    /// The session has ended, unless it is known to go on elsewhere.
    pub(super) fn end(&self) {
        self.update(|state| {
            if state.is_running() {
                state.stage = Stage::Over;
            }
        });
    }

    /// Another connection took the session: one of another transport, or a home elsewhere.
    pub(super) fn was_replaced(&self, by_other_transport: bool) {
        self.update(|state| match state.stage {
            Stage::Replaced if by_other_transport => state.say_goodbye(CloseReason::Replaced),
            Stage::Replaced => state.stage = Stage::Moved(None),
            _ => {}
        });
    }

    /// The locator that other nodes must read, and its version; `None` if the session is not at home here.
    pub(super) fn locator(&self, node: &NodeId) -> Option<(u64, Locator)> {
        let state = self.lock();
        let locator = || Locator::new(node, &self.proof, &state.standing);
        (state.stage == Stage::Here).then(|| (state.version, locator()))
    }

    /// Other nodes can read this version of the locator.
    pub(super) fn located(&self, version: u64) {
        self.update(|state| state.located = version);
    }

    /// Waits until the locator changes, for so long at most.
    pub(super) async fn outdated(&self, at_most: Duration) {
        let is_outdated = |state: &mut State| (state.located != state.version).then_some(());
        self.when(at_most, is_outdated).await;
    }

    /// Counts as a sign of the client: while the store is away, it can give none by another node.
    pub(super) fn forgive(&self) {
        self.lock().renew();
    }

    // === The state ===

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells whoever waits that the state has changed.
    pub(super) fn announce(&self) {
        self.news.send_replace(());
    }

    fn update<R>(&self, change: impl FnOnce(&mut State) -> R) -> R {
        let result = change(&mut self.lock());
        self.announce();
        result
    }

    /// Waits until this finds something in the state, for so long at most.
    async fn when<R>(
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
        state.renew();
    }
}
