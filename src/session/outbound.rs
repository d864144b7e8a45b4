//! Writes to the client: everything that has come up since the last time, in one write.

use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use tokio::time::{Instant, timeout};

use super::http::HttpState;
use super::runner::Runner;
use super::state::Action;
use super::{Gone, Received, Sending, Session, Socket};
use crate::bugs::{self, Bug};
use crate::model::CloseReason;
use crate::protocol::Codec;

/// How long the close may take, including the client's answer to it.
const FAREWELL: Duration = Duration::from_secs(1);

impl<S: Socket, D: Codec> Session<S, D> {
    /// Writes all pending actions at once.
    pub(super) async fn write_actions(&mut self) -> Result<(), CloseReason> {
        self.take_actions();
        let is_settled = |http: &HttpState| http.is_settled(self.runner.as_ref());
        if self.actions.is_empty() && !self.http.as_deref().is_some_and(is_settled) {
            return Ok(());
        }
        let mut sending = Vec::with_capacity(self.actions.len());
        if let Some(http) = &mut self.http {
            let progress = http.progress(self.runner.as_ref()).map(Box::new);
            sending.extend(progress.map(Sending::Progress));
        }
        // These spans end when everything is written.
        let mut spans = Vec::new();
        let mut end = Ok(());
        let mut asks = self
            .runner
            .as_ref()
            .is_some_and(|runner| runner.state.wants_ping());
        // Taken, not drained, so that an idle session keeps no buffer.
        for action in std::mem::take(&mut self.actions) {
            match action {
                Action::Tell(event) => {
                    let seq = event.seq();
                    let event = match &self.http {
                        None => Some(event),
                        Some(_) => HttpState::visible(event),
                    };
                    let said = event.and_then(|event| self.codec.encode(&event));
                    sending.extend(said.map(|said| Sending::Frame(said, seq)));
                }
                Action::Challenge => {
                    self.heartbeat.doubted();
                    asks = true;
                }
                Action::EndSpan(span) => spans.push(span),
                Action::Ping => asks = true,
                Action::End(reason) => end = Err(reason),
            }
        }
        if let Some(http) = &mut self.http
            && http.take_settled(self.runner.as_ref())
        {
            sending.push(Sending::Settled);
        }
        if asks {
            sending.push(self.ping());
        }
        let written = self.write(sending).await;
        if let Some(runner) = &mut self.runner {
            runner.written();
        }
        drop(spans);
        written.and(end)
    }

    /// Writes each message within the write time-out: a slow link is no fault, one that takes nothing is. Ends early if
    /// the mailbox overflows meanwhile.
    pub(super) async fn write(&mut self, sending: Vec<Sending>) -> Result<(), CloseReason> {
        if sending.is_empty() {
            return Ok(());
        }
        let limit = if bugs::has(Bug::BottomlessMailbox) {
            Duration::MAX
        } else {
            self.context.write_timeout
        };
        let socket = &mut self.socket;
        let writing = async {
            for message in sending {
                in_time(limit, socket.feed(message)).await?;
            }
            in_time(limit, socket.flush()).await
        };
        let mut writing = pin!(writing);
        if let Poll::Ready(written) = futures_util::poll!(&mut writing) {
            return written;
        }
        let begun = Instant::now();
        let written = tokio::select! {
            biased;
            written = writing => written,
            () = overflowed(&mut self.runner) => Err(CloseReason::TooSlow),
        };
        self.heartbeat.wrote_for(begun.elapsed());
        written
    }
}

/// Waits for one step of a write. The socket nearly always has room, and needs no timer then.
async fn in_time(
    limit: Duration,
    step: impl Future<Output = Result<(), Gone>>,
) -> Result<(), CloseReason> {
    let mut step = pin!(step);
    let done = match futures_util::poll!(&mut step) {
        Poll::Ready(done) => done,
        Poll::Pending => {
            let done = timeout(limit, step).await;
            done.map_err(|_| CloseReason::TooSlow)?
        }
    };
    done.map_err(|Gone| CloseReason::Dropped)
}

/// Sends the close reason and waits for the client to close: closing at once could reset the connection before the
/// client has read the reason.
pub(super) async fn farewell(mut socket: impl Socket, reason: CloseReason) {
    let goodbye = async {
        if matches!(reason, CloseReason::ByClient | CloseReason::Dropped) {
            // Answers the close of a client that closed cleanly.
            return socket.close().await;
        }
        socket.feed(Sending::Close(reason)).await?;
        socket.flush().await?;
        while !matches!(socket.next().await, None | Some(Received::Closed { .. })) {}
        Ok(())
    };
    // A client that does not answer is not waited for.
    let _ = timeout(FAREWELL, goodbye).await;
}

async fn overflowed(runner: &mut Option<Runner>) {
    match runner {
        Some(runner) => runner.overflowed().await,
        None => std::future::pending().await,
    }
}
