//! One WebSocket connection.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::task::{Poll, ready};
use std::time::Duration;

use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async_with_config};

type Stream = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// How long opening a connection may take.
const OPEN_WITHIN: Duration = Duration::from_secs(4);
/// How long a goodbye may take.
const CLOSE_WITHIN: Duration = Duration::from_secs(1);

/// The reading half.
pub(crate) type Reader = SplitStream<Stream>;

/// The writing half, and what waits to be written.
#[derive(Debug)]
pub(crate) struct Writer {
    sink: SplitSink<Stream, Message>,
    outgoing: VecDeque<Message>,
    is_flushed: bool,
}

/// Opens a connection; `None` if that fails.
pub(crate) async fn dial(url: String) -> Option<(Writer, Reader)> {
    let connecting = connect_async_with_config(&url, None, true);
    let (stream, _) = timeout(OPEN_WITHIN, connecting).await.ok()?.ok()?;
    let (sink, reader) = stream.split();
    let writer = Writer {
        sink,
        outgoing: VecDeque::new(),
        is_flushed: true,
    };
    Some((writer, reader))
}

impl Writer {
    pub(crate) fn push(&mut self, text: String) {
        self.outgoing.push_back(Message::text(text));
    }

    pub(crate) fn say(&mut self, message: &Value) {
        self.push(message.to_string());
    }

    /// Writes what waits. Waits for ever if nothing does. Cancel-safe.
    pub(crate) async fn write(&mut self) -> Result<(), Error> {
        poll_fn(|context| {
            while !self.outgoing.is_empty() {
                ready!(self.sink.poll_ready_unpin(context))?;
                if let Some(message) = self.outgoing.pop_front() {
                    self.sink.start_send_unpin(message)?;
                    self.is_flushed = false;
                }
            }
            if self.is_flushed {
                return Poll::Pending;
            }
            ready!(self.sink.poll_flush_unpin(context))?;
            self.is_flushed = true;
            Poll::Ready(Ok(()))
        })
        .await
    }

    /// Writes what waits, says goodbye, and waits a moment for the server's.
    pub(crate) async fn close(mut self, reader: &mut Reader, code: u16) {
        self.outgoing.push_back(Message::Close(Some(CloseFrame {
            code: CloseCode::from(code),
            reason: "".into(),
        })));
        let goodbye = async {
            if self.write().await.is_ok() {
                // Unread bytes would reset the connection, and the goodbye with it.
                while let Some(Ok(_)) = reader.next().await {}
            }
        };
        drop(timeout(CLOSE_WITHIN, goodbye).await);
    }
}
