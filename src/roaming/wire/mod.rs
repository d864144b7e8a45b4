//! A letterbox as the conversation sees it that this node carries: a stream of what its client says, a sink for what it is told.
//!
//! What was heard is let go only when it is written down what came of it, one message at a time: should this node die, the next one does again
//! what was not, and nothing twice. What is told waits here while the store is away, within bounds.

mod downlink;
mod uplink;

pub(super) use uplink::LOOK_EVERY;

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Sink, Stream};

use self::downlink::{Downlink, Lost};
use self::uplink::{Found, Uplink};
use crate::fabric::Letterboxes;
use crate::fabric::letterbox::Then;
use crate::model::{CloseReason, EntryId, Frame, SessionId};
use crate::session::{Gone, Received, Sending};

/// One end of a letterbox.
pub(super) struct Wire {
    uplink: Uplink,
    downlink: Downlink,
    /// What is being dealt with.
    open: Option<EntryId>,
    /// Pings that have reached the downlink.
    answered: VecDeque<u64>,
    end: Option<End>,
}

/// Which letterbox, and which of its carriers this is.
#[derive(Clone, Debug)]
pub(super) struct Carried {
    pub(super) letterboxes: Arc<dyn Letterboxes>,
    pub(super) session: SessionId,
    pub(super) epoch: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// The conversation does not know it yet.
    Lost,
    /// Nothing more comes.
    Known,
}

impl Wire {
    /// The wire of a conversation that this node carries, from this place on.
    pub(super) fn new(carried: Carried, cursor: Option<EntryId>, session_ttl: Duration) -> Self {
        Self {
            uplink: Uplink::new(carried.clone(), cursor, session_ttl),
            downlink: Downlink::new(carried),
            open: None,
            answered: VecDeque::new(),
            end: None,
        }
    }

    /// Writes what is leaving.
    fn write_on(&mut self, context: &mut Context<'_>) {
        while self.end.is_none()
            && let Poll::Ready(told) = self.downlink.poll_told(context)
        {
            match told {
                Ok(told) => {
                    self.answered.extend(told.pings);
                    self.open = self.open.filter(|open| told.cursor < Some(*open));
                    if told.then != Then::GoesOn {
                        self.end = Some(End::Known);
                    }
                }
                Err(Lost) => self.end = Some(End::Lost),
            }
        }
    }

    /// Writes everything that is to be told, as far as it goes.
    fn write(&mut self, context: &mut Context<'_>) {
        self.write_on(context);
        // Nothing of it is leaving yet, or it would be done.
        self.downlink.send();
        self.write_on(context);
    }

    /// What a look has found, as the conversation hears it.
    fn received(&mut self, found: Found) -> Option<Received> {
        match found {
            Found::News => None,
            Found::Expired => Some(Received::Expired),
            Found::Taken => {
                self.end = Some(End::Known);
                Some(Received::Taken)
            }
            Found::Gone => {
                self.end = Some(End::Known);
                Some(Received::Expired)
            }
            // It is not the client that is silent.
            Found::Away => Some(Received::Alive),
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
                    self.end = Some(End::Known);
                    return Poll::Ready(Some(Received::Taken));
                }
                Some(End::Known) => return Poll::Ready(None),
            }
            if self.open.is_some() {
                return Poll::Pending;
            }
            match self.uplink.next() {
                Some((place, Some(said))) => {
                    self.open = Some(place);
                    let frame = Frame::Text(said);
                    return Poll::Ready(Some(Received::Kept(frame, place)));
                }
                Some((_, None)) => {
                    return Poll::Ready(Some(Received::Closed { for_good: true }));
                }
                None => {}
            }
            let found = ready!(self.uplink.poll_look(context));
            if let Some(received) = self.received(found) {
                return Poll::Ready(Some(received));
            }
        }
    }
}

impl Sink<Sending> for Wire {
    type Error = Gone;

    fn poll_ready(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<(), Gone>> {
        self.write_on(context);
        if self.end.is_some() || self.downlink.has_room() {
            Poll::Ready(Ok(()))
        } else {
            Poll::Pending
        }
    }

    fn start_send(mut self: Pin<&mut Self>, sending: Sending) -> Result<(), Gone> {
        let downlink = &mut self.downlink;
        match sending {
            Sending::Frame(frame) => downlink.tell(frame.bytes().clone()),
            Sending::Ping(number) => downlink.ping(number),
            Sending::Standing(standing) => downlink.note(&standing),
            Sending::Close(CloseReason::Draining | CloseReason::Overloaded) => {
                downlink.end(Then::HandedOver);
            }
            Sending::Close(reason) => {
                if let Some(goodbye) = goodbye(reason) {
                    downlink.tell(goodbye);
                }
                downlink.end(Then::Over);
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
        self.downlink.end(Then::Over);
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
