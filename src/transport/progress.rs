//! Whether a client finishes the messages that it begins: each holds memory until it is complete.
//!
//! The WebSocket library returns whole messages only, so the bytes of the connection are counted below it.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

/// The header and the mask of a control frame from a client (RFC 6455, section 5.2).
const CONTROL_HEADER: u64 = 6;

/// How many bytes have come from a client. Clones share the count.
#[derive(Clone, Debug, Default)]
pub(super) struct ReceivedBytes(Arc<AtomicU64>);

/// A stream that counts what is read from it.
#[derive(Debug)]
pub(super) struct Counted<S> {
    stream: S,
    received: ReceivedBytes,
}

/// Finds messages that are not finished in time.
#[derive(Debug)]
pub(super) struct Progress {
    received: ReceivedBytes,
    within: Duration,
    /// The count when it was last looked at.
    seen: u64,
    /// Bytes that belong to no message that was returned.
    unfinished: u64,
    deadline: Option<Pin<Box<Sleep>>>,
}

impl<S> Counted<S> {
    pub(super) fn new(stream: S) -> (Self, ReceivedBytes) {
        let received = ReceivedBytes::default();
        let counted = Self {
            stream,
            received: received.clone(),
        };
        (counted, received)
    }
}

impl Progress {
    /// Messages must be finished `within` this time.
    pub(super) fn new(received: ReceivedBytes, within: Duration) -> Self {
        Self {
            seen: received.0.load(Ordering::Relaxed),
            received,
            within,
            unfinished: 0,
            deadline: None,
        }
    }

    /// A text or binary message was returned.
    pub(super) fn message(&mut self) {
        self.seen = self.received.0.load(Ordering::Relaxed);
        self.unfinished = 0;
        self.deadline = None;
    }

    /// A control frame with a payload of this length was returned. It may be in the midst of a message.
    pub(super) fn control(&mut self, payload: usize) {
        self.look();
        let length = CONTROL_HEADER + payload as u64;
        self.unfinished = self.unfinished.saturating_sub(length);
    }

    /// Nothing is returned now: whether a message has been unfinished for too long.
    pub(super) fn is_overdue(&mut self, context: &mut Context<'_>) -> bool {
        self.look();
        if self.unfinished == 0 {
            self.deadline = None;
            return false;
        }
        let within = self.within;
        let deadline = self.deadline.get_or_insert_with(|| Box::pin(sleep(within)));
        deadline.as_mut().poll(context).is_ready()
    }

    fn look(&mut self) {
        let received = self.received.0.load(Ordering::Relaxed);
        self.unfinished += received - self.seen;
        self.seen = received;
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Counted<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        let bytes = buffer.filled().len() - before;
        self.received.0.fetch_add(bytes as u64, Ordering::Relaxed);
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Counted<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::task::noop_waker;

    use super::*;

    const WITHIN: Duration = Duration::from_secs(20);

    /// Whether a message is overdue after this time without another byte.
    async fn is_overdue_after(progress: &mut Progress, time: Duration) -> bool {
        let waker = noop_waker();
        let mut context = Context::from_waker(&waker);
        assert!(!progress.is_overdue(&mut context));
        tokio::time::advance(time).await;
        progress.is_overdue(&mut context)
    }

    #[tokio::test(start_paused = true)]
    async fn a_message_is_finished_in_time_or_overdue() {
        let received = ReceivedBytes::default();
        let mut progress = Progress::new(received.clone(), WITHIN);
        let receive = |bytes: u64| received.0.fetch_add(bytes, Ordering::Relaxed);
        assert!(
            !is_overdue_after(&mut progress, WITHIN * 2).await,
            "nothing has begun"
        );
        receive(100);
        assert!(!is_overdue_after(&mut progress, WITHIN / 2).await);
        receive(50);
        progress.message();
        assert!(
            !is_overdue_after(&mut progress, WITHIN * 2).await,
            "it is finished"
        );
        receive(6 + 8 + 6);
        progress.control(8);
        progress.control(0);
        assert!(
            !is_overdue_after(&mut progress, WITHIN * 2).await,
            "two pongs at once"
        );
        receive(30 + 6 + 8);
        progress.control(8);
        assert!(!is_overdue_after(&mut progress, WITHIN / 2).await);
        receive(6 + 8);
        progress.control(8);
        assert!(
            is_overdue_after(&mut progress, WITHIN / 2).await,
            "pongs do not finish a message"
        );
    }
}
