//! What the client of a conversation is told, on its way into the letterbox.

use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use tokio::time::sleep;

use super::Carried;
use crate::fabric::FabricError;
use crate::fabric::letterbox::{DOWNLINK, Telling, Then};
use crate::model::EntryId;
use crate::roaming::notes;
use crate::session::Standing;

/// How long to rest before something is tried again that has failed.
const RETRY: Duration = Duration::from_millis(250);

/// The way to the client.
pub(super) struct Downlink {
    carried: Carried,
    next: Batch,
    /// Of the messages in it.
    bytes: usize,
    /// Counts batches.
    number: u64,
    leaving: Option<Leaving>,
}

/// What is told at once, and the pings in it.
#[derive(Default)]
struct Batch {
    telling: Telling,
    pings: Vec<u64>,
}

struct Leaving {
    telling: Arc<Telling>,
    pings: Vec<u64>,
    writing: BoxFuture<'static, Result<bool, FabricError>>,
}

/// What was told is safe in the letterbox.
pub(super) struct Told {
    /// Everything that the client said up to here was dealt with.
    pub(super) cursor: Option<EntryId>,
    /// These pings are answered by that.
    pub(super) pings: Vec<u64>,
    /// Whether anything comes after it.
    pub(super) then: Then,
}

/// Another node has the conversation, or the store has forgotten it.
pub(super) struct Lost;

impl Downlink {
    pub(super) fn new(carried: Carried) -> Self {
        Self {
            carried,
            next: Batch::default(),
            bytes: 0,
            number: 0,
            leaving: None,
        }
    }

    /// Whether more may be fed: behind what is leaving only so much.
    pub(super) fn has_room(&self) -> bool {
        let told = self.next.telling.told.len();
        self.leaving.is_none() || (told < DOWNLINK.entries && self.bytes < DOWNLINK.bytes)
    }

    pub(super) fn tell(&mut self, said: Bytes) {
        self.bytes += said.len();
        self.next.telling.told.push(said);
    }

    pub(super) fn ping(&mut self, number: u64) {
        self.next.pings.push(number);
    }

    pub(super) fn note(&mut self, standing: &Standing) {
        let telling = &mut self.next.telling;
        telling.notes = notes::write(standing);
        telling.cursor = standing.heard.or(telling.cursor);
    }

    /// The last that is told.
    pub(super) fn end(&mut self, then: Then) {
        self.next.telling.then = then;
    }

    /// Sends what was fed, all at once, if there is anything and nothing is leaving.
    pub(super) fn send(&mut self) {
        let Batch { telling, pings } = &self.next;
        let is_empty = telling.told.is_empty()
            && telling.notes.is_empty()
            && telling.then == Then::GoesOn
            && pings.is_empty();
        if is_empty || self.leaving.is_some() {
            return;
        }
        let Batch { telling, pings } = std::mem::take(&mut self.next);
        self.bytes = 0;
        self.number += 1;
        let telling = Arc::new(telling);
        let writing = self.write(Arc::clone(&telling), Duration::ZERO);
        self.leaving = Some(Leaving {
            telling,
            pings,
            writing,
        });
    }

    /// Waits until what is leaving is safe. What is fed meanwhile is not touched: all that is told at once is written at once, with how far
    /// the conversation has come.
    pub(super) fn poll_told(&mut self, context: &mut Context<'_>) -> Poll<Result<Told, Lost>> {
        loop {
            let Some(leaving) = &mut self.leaving else {
                return Poll::Pending;
            };
            match ready!(leaving.writing.as_mut().poll(context)) {
                Ok(true) => {
                    let told = self.leaving.take().map(|leaving| Told {
                        cursor: leaving.telling.cursor,
                        pings: leaving.pings,
                        then: leaving.telling.then,
                    });
                    return Poll::Ready(told.ok_or(Lost));
                }
                Ok(false) => return Poll::Ready(Err(Lost)),
                Err(_) => {
                    // Whether it was told or not: under its number it is told once.
                    let telling = Arc::clone(&leaving.telling);
                    let writing = self.write(telling, RETRY);
                    if let Some(leaving) = &mut self.leaving {
                        leaving.writing = writing;
                    }
                }
            }
        }
    }

    fn write(
        &self,
        telling: Arc<Telling>,
        after: Duration,
    ) -> BoxFuture<'static, Result<bool, FabricError>> {
        let (carried, number) = (self.carried.clone(), self.number);
        async move {
            if !after.is_zero() {
                sleep(after).await;
            }
            let (session, epoch) = (carried.session, carried.epoch);
            let letterboxes = Arc::clone(&carried.letterboxes);
            letterboxes.tell(session, epoch, number, telling).await
        }
        .boxed()
    }
}
