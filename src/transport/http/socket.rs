//! The socket of an HTTP session: a stream of the client's posts, and a sink that fills the event
//! buffer.

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

/// After this long an event counts as read, even if the client has not confirmed it. If the home
/// dies later, the event may be lost; the client then gets a reset.
const ASSUME_READ_AFTER: Duration = Duration::from_secs(1);

/// The socket between a home and its session's task.
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

    /// Always ready: the buffer drops its oldest events instead of waiting for the client.
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

/// Waits for the session's next input; `None` if the session is not here any more.
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

/// The session's next input, if there is one now.
fn next(state: &mut State, home: &Home) -> Option<Received> {
    if std::mem::take(&mut state.is_pinged) {
        // Clients do not answer pings over HTTP. Their requests show that they are alive, and the
        // session expires without any.
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
        // If the other node has stopped waiting, it resumes from the locator instead.
        let _ = sender.send(handover);
        return Some(Received::Taken);
    }
    state.posts.next()
}

/// Buffers what the session sends to the client.
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
            state.version += u64::from(!progress.is_stored_alike(&state.progress));
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
