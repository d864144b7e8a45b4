//! The socket of an HTTP session: what its client posts, as a stream; what it is told, as a sink.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::stream::{self, BoxStream};
use futures_util::{Sink, Stream, StreamExt as _};
use tokio::time::Instant;

use super::home::Home;
use super::state::{Ping, Stage, State};
use crate::model::CloseReason;
use crate::session::{Gone, Received, Sending};

/// When an event counts as read by a client that does not say so. If the home dies later, the event may be lost: then
/// the client is told of a reset.
const READ_WITHIN: Duration = Duration::from_secs(1);

/// A session at its home, as its task sees it.
pub(super) struct HomeSocket {
    home: Arc<Home>,
    received: BoxStream<'static, Received>,
}

impl HomeSocket {
    pub(super) fn new(home: Arc<Home>) -> Self {
        let received = stream::unfold(Arc::clone(&home), |home| async move {
            let received = receive(&home).await?;
            Some((received, home))
        });
        Self {
            home,
            received: received.fuse().boxed(),
        }
    }
}

impl Stream for HomeSocket {
    type Item = Received;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Received>> {
        self.received.poll_next_unpin(context)
    }
}

impl Sink<Sending> for HomeSocket {
    type Error = Gone;

    /// Nothing waits for the client: what does not fit into the buffer pushes the oldest events out.
    fn poll_ready(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<(), Gone>> {
        Poll::Ready(Ok(()))
    }

    fn start_send(self: Pin<&mut Self>, sending: Sending) -> Result<(), Gone> {
        send(&mut self.home.lock(), sending);
        Ok(())
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<(), Gone>> {
        self.home.announce();
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<(), Gone>> {
        self.home.update(State::end);
        Poll::Ready(Ok(()))
    }
}

/// Waits for what the session receives next; `None`: it is not here any more.
async fn receive(home: &Home) -> Option<Received> {
    loop {
        let due_at = {
            let state = home.lock();
            let read_at = state.pings.front().map(|ping| ping.at + READ_WITHIN);
            let silent_at = state.silent_at(home.ttl);
            read_at.map_or(silent_at, |at| at.min(silent_at))
        };
        let next = |state: &mut State| match state.stage {
            Stage::Here => next(state, home).map(Some),
            _ => Some(None),
        };
        let at_most = due_at.saturating_duration_since(Instant::now());
        match home.when(at_most, next).await {
            Some(received) => return received,
            None if Instant::now() >= home.lock().silent_at(home.ttl) => {
                return Some(Received::Expired);
            }
            None => {}
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

/// Keeps for the client what the session sends.
fn send(state: &mut State, sending: Sending) {
    match sending {
        Sending::Frame(frame, entry) => {
            let text = String::from_utf8_lossy(frame.bytes()).into_owned();
            state.buffer.tell(text, entry);
        }
        Sending::Ping(number) => {
            let (told, at) = (state.buffer.last().number, Instant::now());
            state.pings.push_back(Ping { number, told, at });
            state.is_asked = true;
        }
        Sending::Standing(standing) => {
            if standing.user.is_some() {
                state.buffer.logs_in();
            }
            if !state.is_continued {
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
