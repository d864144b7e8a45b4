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
const ASSUME_READ_AFTER: Duration = Duration::from_secs(1);

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
            let read_at = state.pings.front().map(|ping| ping.at + ASSUME_READ_AFTER);
            let expires_at = state.expires_at(home.ttl);
            read_at.map_or(expires_at, |at| at.min(expires_at))
        };
        let next = |state: &mut State| match state.stage {
            Stage::Running => next(state, home).map(Some),
            _ => Some(None),
        };
        let at_most = due_at.saturating_duration_since(Instant::now());
        match home.when(at_most, next).await {
            Some(received) => return received,
            None if Instant::now() >= home.lock().expires_at(home.ttl) => {
                return Some(Received::Expired);
            }
            None => {}
        }
    }
}

/// What there is for the session now.
fn next(state: &mut State, home: &Home) -> Option<Received> {
    if std::mem::take(&mut state.is_pinged) {
        // The client need not answer: its requests tell whether it is there.
        return Some(Received::Alive);
    }
    let (read, now) = (state.read, Instant::now());
    let is_read = |ping: &&Ping| ping.after_event <= read || now - ping.at >= ASSUME_READ_AFTER;
    if let Some(&Ping { number, .. }) = state.pings.front().filter(is_read) {
        state.pings.pop_front();
        return Some(Received::Answered(number));
    }
    if state.posts.is_idle()
        && let Some((takeover, sender)) = state
            .takeover
            .take()
            .filter(|takeover| !takeover.1.is_closed())
    {
        let handover = state.move_to(takeover);
        home.announce();
        // If the takeover waits no longer, it resumes by what the locator says.
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
            state.buffer.push(text, entry);
        }
        Sending::Ping(number) => {
            let (after_event, at) = (state.buffer.last().number, Instant::now());
            state.pings.push_back(Ping {
                number,
                after_event,
                at,
            });
            state.is_pinged = true;
        }
        Sending::Progress(progress) => {
            if progress.user.is_some() {
                state.buffer.mark_logged_in();
            }
            if !state.is_handed_over {
                state.buffer.confirmed = Some(progress.confirmed);
            }
            let known = (&state.progress.user, &state.progress.watched);
            let is_new = (&progress.user, &progress.watched) != known;
            state.version += u64::from(is_new);
            state.progress = *progress;
        }
        Sending::Settled => state.posts.settle(),
        Sending::Close(_) if state.stage != Stage::Running => {}
        Sending::Close(CloseReason::Draining | CloseReason::Overloaded) => {
            state.stage = Stage::Released;
        }
        Sending::Close(CloseReason::Replaced) => state.stage = Stage::Replaced,
        Sending::Close(reason) => state.close_with(reason),
    }
}
