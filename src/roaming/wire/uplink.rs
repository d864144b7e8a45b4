//! What the client of a conversation says, as its carrier finds it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use tokio::time::{Instant, timeout};

use super::Carried;
use crate::fabric::letterbox::{Heard, READ_AT_ONCE};
use crate::fabric::{Ear, FabricError};
use crate::model::EntryId;

/// How often is looked without having been woken: a wake may be lost, and an idle client must be noticed.
pub(in super::super) const LOOK_EVERY: Duration = Duration::from_secs(2);

/// The way from the client.
pub(super) struct Uplink {
    carried: Carried,
    session_ttl: Duration,
    /// Up to where it was read.
    read_to: EntryId,
    unheard: VecDeque<(EntryId, Option<Bytes>)>,
    /// In the look while there is one.
    ear: Option<Ear>,
    looking: Option<BoxFuture<'static, (Ear, Result<Heard, FabricError>)>>,
    /// There may be more than was read at once.
    looks_at_once: bool,
    /// Since when every look was answered.
    reached_since: Option<Instant>,
}

/// What a look has found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// What there is, if there is anything.
    News,
    /// The client has given no sign of life for too long.
    Expired,
    /// Another node has the conversation.
    Taken,
    /// There is no such letterbox any more.
    Gone,
    /// The store does not answer.
    Away,
}

impl Uplink {
    /// From this place on.
    pub(super) fn new(carried: Carried, cursor: Option<EntryId>, session_ttl: Duration) -> Self {
        Self {
            session_ttl,
            read_to: cursor.unwrap_or_default(),
            unheard: VecDeque::new(),
            ear: Some(carried.letterboxes.listen(carried.session)),
            looking: None,
            looks_at_once: true,
            reached_since: Some(Instant::now()),
            carried,
        }
    }

    /// The oldest of what was found; `None` for a message: the client closed.
    pub(super) fn next(&mut self) -> Option<(EntryId, Option<Bytes>)> {
        self.unheard.pop_front()
    }

    /// Looks when it is woken, or when it is time.
    pub(super) fn poll_look(&mut self, context: &mut Context<'_>) -> Poll<Found> {
        if let Some(mut ear) = self.ear.take() {
            let (carried, after) = (self.carried.clone(), self.read_to);
            let at_once = std::mem::take(&mut self.looks_at_once);
            let look = async move {
                if !at_once {
                    // Nothing heard is no reason not to look.
                    let _ = timeout(LOOK_EVERY, ear.heard()).await;
                }
                let (session, epoch) = (carried.session, carried.epoch);
                let letterboxes = Arc::clone(&carried.letterboxes);
                (ear, letterboxes.hear(session, epoch, after).await)
            };
            self.looking = Some(look.boxed());
        }
        let Some(looking) = &mut self.looking else {
            return Poll::Pending;
        };
        let (ear, heard) = ready!(looking.as_mut().poll(context));
        (self.looking, self.ear) = (None, Some(ear));
        Poll::Ready(self.found(heard))
    }

    fn found(&mut self, heard: Result<Heard, FabricError>) -> Found {
        match heard {
            Ok(Heard::Said { entries, idle }) => {
                let since = *self.reached_since.get_or_insert_with(Instant::now);
                self.looks_at_once = entries.len() == READ_AT_ONCE;
                if let Some((last, _)) = entries.last() {
                    self.read_to = *last;
                }
                self.unheard.extend(entries);
                // While the store was away nobody could give a sign of life.
                if idle > self.session_ttl && since.elapsed() > self.session_ttl {
                    Found::Expired
                } else {
                    Found::News
                }
            }
            Ok(Heard::Taken) => Found::Taken,
            Ok(Heard::Gone) => Found::Gone,
            Err(_) => {
                self.reached_since = None;
                Found::Away
            }
        }
    }
}
