//! The socket of an HTTP session: what its client posts, as a stream; what it is told, as a sink.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::{Sink, Stream};
use tokio::time::{Instant, Sleep, sleep_until};

use super::event::Text;
use super::home::Home;
use super::state::{Ping, Stage, State};
use crate::model::CloseReason;
use crate::session::{Gone, Received, Sending};

/// When an event counts as read by a client that does not say so. If the home dies later, the event may be lost, and the client is told of a reset.
const READ_WITHIN: Duration = Duration::from_secs(1);

/// A session at its home, as its task sees it.
pub(super) struct HomeSocket {
    home: Arc<Home>,
    /// The buffer of an earlier home goes on here: it has more than the inbox.
    has_buffer: bool,
    timer: Pin<Box<Sleep>>,
}

impl HomeSocket {
    pub(super) fn new(home: Arc<Home>, has_buffer: bool) -> Self {
        Self {
            home,
            has_buffer,
            timer: Box::pin(sleep_until(Instant::now())),
        }
    }

    fn send(&self, state: &mut State, sending: Sending) {
        match sending {
            Sending::Frame(frame, entry) => state.buffer.tell(Text(frame.bytes().clone()), entry),
            Sending::Ping(number) => {
                let (told, at) = (state.buffer.last().number, Instant::now());
                state.pings.push_back(Ping { number, told, at });
                state.is_asked = true;
            }
            Sending::Standing(standing) => {
                if standing.user.is_some() {
                    state.buffer.logs_in();
                }
                if !self.has_buffer {
                    state.buffer.confirmed = Some(standing.confirmed);
                }
                let known = (&state.standing.user, &state.standing.watched);
                let is_new = (&standing.user, &standing.watched) != known;
                state.version += u64::from(is_new);
                state.standing = *standing;
            }
            Sending::Settled => state.posts.settle(),
            Sending::Close(_) if state.stage != Stage::Here => {}
            Sending::Close(CloseReason::Draining | CloseReason::Overloaded) => {
                state.stage = Stage::Left;
            }
            Sending::Close(CloseReason::Replaced) => state.stage = Stage::Replaced,
            Sending::Close(reason) => state.say_goodbye(reason),
        }
    }
}

impl Stream for HomeSocket {
    type Item = Received;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Received>> {
        loop {
            let home = Arc::clone(&self.home);
            let mut state = home.lock();
            if state.stage != Stage::Here {
                return Poll::Ready(None);
            }
            if let Some(received) = next(&mut state, &home) {
                return Poll::Ready(Some(received));
            }
            let silent_at = silent_at(&state, &home);
            if Instant::now() >= silent_at {
                return Poll::Ready(Some(Received::Expired));
            }
            let read_at = state.pings.front().map(|ping| ping.at + READ_WITHIN);
            state.waker = Some(context.waker().clone());
            drop(state);
            let next_at = read_at.map_or(silent_at, |at| at.min(silent_at));
            self.timer.as_mut().reset(next_at);
            if self.timer.as_mut().poll(context).is_pending() {
                return Poll::Pending;
            }
        }
    }
}

/// What there is for the session now.
fn next(state: &mut State, home: &Home) -> Option<Received> {
    if std::mem::take(&mut state.is_asked) {
        // The client need not answer: its requests tell whether it is there.
        return Some(Received::Alive);
    }
    let (read, now) = (state.read, Instant::now());
    let is_read = |ping: &&Ping| ping.told <= read || now - ping.at >= READ_WITHIN;
    if let Some(&Ping { number, .. }) = state.pings.front().filter(is_read) {
        state.pings.pop_front();
        return Some(Received::Answered(number));
    }
    if state.posts.is_idle()
        && let Some((taker, sender)) = state.taker.take().filter(|taker| !taker.1.is_closed())
    {
        let handover = state.move_to(taker);
        home.announce();
        // If the taker waits no longer, it resumes by what the locator says.
        let _ = sender.send(handover);
        return Some(Received::Taken);
    }
    state.posts.next()
}

/// When the client has been silent for too long. While it reads, it is there.
fn silent_at(state: &State, home: &Home) -> Instant {
    let sign = if state.waiting > 0 {
        Instant::now()
    } else {
        state.sign
    };
    sign + home.ttl
}

impl Sink<Sending> for HomeSocket {
    type Error = Gone;

    /// Nothing waits for the client: what does not fit into the buffer pushes the oldest events out.
    fn poll_ready(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<(), Gone>> {
        Poll::Ready(Ok(()))
    }

    fn start_send(self: Pin<&mut Self>, sending: Sending) -> Result<(), Gone> {
        self.send(&mut self.home.lock(), sending);
        Ok(())
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<(), Gone>> {
        self.home.announce();
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<(), Gone>> {
        self.home.end();
        Poll::Ready(Ok(()))
    }
}
