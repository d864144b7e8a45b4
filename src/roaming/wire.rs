//! A letterbox as the conversation sees it that this node carries: a stream of what its client says, a sink for what it is told.
//!
//! What was heard is let go only when it is written down what came of it, one message at a time: should this node die, the next one does again
//! what was not, and nothing twice. What is told waits here while the store is away, within bounds.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::{FutureExt as _, Sink, Stream};
use tokio::time::{Instant, sleep, timeout};

use super::notes;
use crate::fabric::letterbox::{DOWNLINK, Heard, READ_AT_ONCE, Telling, Then};
use crate::fabric::{Ear, FabricError, Letterboxes};
use crate::model::{CloseReason, EntryId, Frame, SessionId};
use crate::session::{Gone, Received, Sending};

/// How often is looked without having been woken: a wake may be lost, and an idle client must be noticed.
pub(super) const LOOK_EVERY: Duration = Duration::from_secs(2);
/// How long to rest before something is tried again that has failed.
const RETRY: Duration = Duration::from_millis(250);

/// One end of a letterbox.
pub(super) struct Wire {
    letterboxes: Arc<dyn Letterboxes>,
    session: SessionId,
    epoch: u64,
    session_ttl: Duration,
    uplink: Uplink,
    downlink: Downlink,
    /// Pings that have reached the downlink.
    answered: VecDeque<u64>,
    end: Option<End>,
}

/// What the client says.
struct Uplink {
    /// Up to where it was read.
    read_to: EntryId,
    unheard: VecDeque<(EntryId, Option<Bytes>)>,
    /// What is being dealt with.
    open: Option<EntryId>,
    ear: Option<Ear>,
    looking: Option<BoxFuture<'static, (Ear, Result<Heard, FabricError>)>>,
    /// There may be more than was read at once.
    looks_at_once: bool,
    /// Since when every look was answered.
    reached_since: Option<Instant>,
}

/// What the client is told.
#[derive(Default)]
struct Downlink {
    next: Batch,
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

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// Another node has it, or the store has forgotten it.
    Lost,
    /// It was told; nothing more comes.
    Told,
}

impl Wire {
    /// The wire of a conversation that this node carries, from this place on.
    pub(super) fn new(
        letterboxes: Arc<dyn Letterboxes>,
        session: SessionId,
        epoch: u64,
        cursor: Option<EntryId>,
        session_ttl: Duration,
    ) -> Self {
        Self {
            uplink: Uplink {
                read_to: cursor.unwrap_or_default(),
                unheard: VecDeque::new(),
                open: None,
                ear: Some(letterboxes.listen(session)),
                looking: None,
                looks_at_once: true,
                reached_since: Some(Instant::now()),
            },
            downlink: Downlink::default(),
            letterboxes,
            session,
            epoch,
            session_ttl,
            answered: VecDeque::new(),
            end: None,
        }
    }

    /// What was found on a look; `None` if there is nothing to say of it.
    fn found(&mut self, heard: Result<Heard, FabricError>) -> Option<Received> {
        let uplink = &mut self.uplink;
        match heard {
            Ok(Heard::Said { entries, idle }) => {
                let since = *uplink.reached_since.get_or_insert_with(Instant::now);
                uplink.looks_at_once = entries.len() == READ_AT_ONCE;
                if let Some((last, _)) = entries.last() {
                    uplink.read_to = *last;
                }
                uplink.unheard.extend(entries);
                // While the store was away nobody could give a sign of life.
                let expired = idle > self.session_ttl && since.elapsed() > self.session_ttl;
                expired.then_some(Received::Expired)
            }
            Ok(Heard::Taken) => {
                self.end = Some(End::Told);
                Some(Received::Taken)
            }
            Ok(Heard::Gone) => {
                self.end = Some(End::Lost);
                Some(Received::Expired)
            }
            Err(_) => {
                uplink.reached_since = None;
                // It is not the client that is silent.
                Some(Received::Alive)
            }
        }
    }

    fn poll_look(&mut self, context: &mut Context<'_>) -> Poll<Result<Heard, FabricError>> {
        let uplink = &mut self.uplink;
        if let Some(ear) = uplink.ear.take() {
            let letterboxes = Arc::clone(&self.letterboxes);
            let (session, epoch, after) = (self.session, self.epoch, uplink.read_to);
            let at_once = std::mem::take(&mut uplink.looks_at_once);
            let look = async move {
                let mut ear = ear;
                if !at_once {
                    // Nothing heard is no reason not to look.
                    let _ = timeout(LOOK_EVERY, ear.heard()).await;
                }
                let heard = letterboxes.hear(session, epoch, after).await;
                (ear, heard)
            };
            uplink.looking = Some(look.boxed());
        }
        let Some(looking) = &mut uplink.looking else {
            return Poll::Pending;
        };
        let (ear, heard) = std::task::ready!(looking.as_mut().poll(context));
        (uplink.looking, uplink.ear) = (None, Some(ear));
        Poll::Ready(heard)
    }

    /// Writes what is to be told, as far as it goes.
    fn write(&mut self, context: &mut Context<'_>) {
        loop {
            self.write_on(context);
            if self.end.is_some() || self.downlink.leaving.is_some() {
                return;
            }
            self.start_write();
            if self.downlink.leaving.is_none() {
                return;
            }
        }
    }

    /// Goes on with what is being written. What is fed is not touched: all that is told at once is written at once, with how far it has come.
    fn write_on(&mut self, context: &mut Context<'_>) {
        while self.end.is_none()
            && let Some(leaving) = &mut self.downlink.leaving
        {
            let Poll::Ready(written) = leaving.writing.as_mut().poll(context) else {
                return;
            };
            match written {
                Ok(true) => self.written(),
                Ok(false) => {
                    self.end = Some(End::Lost);
                    self.downlink = Downlink::default();
                }
                Err(_) => {
                    // Whether it was told or not: under its number it is told once.
                    let (letterboxes, telling) =
                        (Arc::clone(&self.letterboxes), Arc::clone(&leaving.telling));
                    let (session, epoch, number) = (self.session, self.epoch, self.downlink.number);
                    leaving.writing = async move {
                        sleep(RETRY).await;
                        letterboxes.tell(session, epoch, number, telling).await
                    }
                    .boxed();
                }
            }
        }
    }

    fn start_write(&mut self) {
        let downlink = &mut self.downlink;
        let Batch { telling, pings } = &downlink.next;
        let is_empty = telling.told.is_empty()
            && telling.notes.is_empty()
            && telling.cursor.is_none()
            && telling.then == Then::GoesOn
            && pings.is_empty();
        if is_empty {
            return;
        }
        let Batch { telling, pings } = std::mem::take(&mut downlink.next);
        downlink.bytes = 0;
        downlink.number += 1;
        let telling = Arc::new(telling);
        let (letterboxes, told) = (Arc::clone(&self.letterboxes), Arc::clone(&telling));
        let (session, epoch, number) = (self.session, self.epoch, downlink.number);
        let writing = async move { letterboxes.tell(session, epoch, number, told).await }.boxed();
        downlink.leaving = Some(Leaving {
            telling,
            pings,
            writing,
        });
    }

    fn written(&mut self) {
        let Some(Leaving { telling, pings, .. }) = self.downlink.leaving.take() else {
            return;
        };
        self.answered.extend(pings);
        if self
            .uplink
            .open
            .is_some_and(|open| telling.cursor >= Some(open))
        {
            self.uplink.open = None;
        }
        if telling.then != Then::GoesOn {
            self.end = Some(End::Told);
        }
    }
}

impl Stream for Wire {
    type Item = Received;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Received>> {
        loop {
            self.write(context);
            if let Some(ping) = self.answered.pop_front() {
                return Poll::Ready(Some(Received::Answered(ping)));
            }
            match self.end {
                None => {}
                Some(End::Lost) => {
                    self.end = Some(End::Told);
                    return Poll::Ready(Some(Received::Taken));
                }
                Some(End::Told) => return Poll::Ready(None),
            }
            if self.uplink.open.is_some() {
                return Poll::Pending;
            }
            match self.uplink.unheard.pop_front() {
                Some((place, Some(said))) => {
                    self.uplink.open = Some(place);
                    let frame = Frame::Text(said);
                    return Poll::Ready(Some(Received::Kept(frame, place)));
                }
                Some((_, None)) => {
                    return Poll::Ready(Some(Received::Closed { for_good: true }));
                }
                None => {}
            }
            let heard = std::task::ready!(self.poll_look(context));
            if let Some(received) = self.found(heard) {
                return Poll::Ready(Some(received));
            }
        }
    }
}

impl Sink<Sending> for Wire {
    type Error = Gone;

    fn poll_ready(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<(), Gone>> {
        self.write_on(context);
        let Downlink {
            next,
            bytes,
            leaving,
            ..
        } = &self.downlink;
        let has_room = next.telling.told.len() < DOWNLINK.entries && *bytes < DOWNLINK.bytes;
        if has_room || leaving.is_none() {
            Poll::Ready(Ok(()))
        } else {
            Poll::Pending
        }
    }

    fn start_send(mut self: Pin<&mut Self>, sending: Sending) -> Result<(), Gone> {
        let Downlink { next, bytes, .. } = &mut self.downlink;
        match sending {
            Sending::Frame(frame) => {
                *bytes += frame.bytes().len();
                next.telling.told.push(frame.bytes().clone());
            }
            Sending::Ping(number) => next.pings.push(number),
            Sending::Standing(standing) => {
                next.telling.notes = notes::write(&standing);
                next.telling.cursor = standing.heard.or(next.telling.cursor);
            }
            Sending::Close(CloseReason::Draining | CloseReason::Overloaded) => {
                next.telling.then = Then::HandedOver;
            }
            Sending::Close(reason) => {
                next.telling.told.extend(goodbye(reason));
                next.telling.then = Then::Over;
            }
        }
        Ok(())
    }

    /// What is told is safe here while the store is away, or with whoever goes on: nobody waits for it.
    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<(), Gone>> {
        self.write(context);
        Poll::Ready(Ok(()))
    }

    fn poll_close(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<(), Gone>> {
        self.downlink.next.telling.then = Then::Over;
        self.write(context);
        if self.end.is_some() {
            Poll::Ready(Ok(()))
        } else {
            Poll::Pending
        }
    }
}

/// What a WebSocket says by its close code.
fn goodbye(reason: CloseReason) -> Option<Bytes> {
    let code = reason.code()?;
    let words = reason.words();
    let said = format!("{{\"type\":\"close\",\"code\":{code},\"reason\":\"{words}\"}}");
    Some(said.into())
}
