//! Opens sessions on WebSockets, and adapts a WebSocket to the frames of a session.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::extract::ws::{CloseFrame, Message, Utf8Bytes, WebSocket, WebSocketUpgrade};
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::Response;
use futures_util::{Sink, Stream};

use super::Endpoints;
use super::progress::{Progress, ReceivedBytes};
use super::reject::Rejection;
use crate::limits::{Permit, RateLimit};
use crate::model::{Claims, CloseReason, Frame, Realm};
use crate::protocol::Codec;
use crate::session::state::SessionPolicy;
use crate::session::{self, Clocks, Gone, InitialLogin, Received, Sending, SessionContext};

/// Bytes that are collected before a write begins; allocated as needed.
const WRITE_BUFFER: usize = 16 * 1024;
/// Close codes of clients that do not come back: normal closure, leaving the page, or no code (RFC
/// 6455, section 7.4.1).
const CLOSED_FOR_GOOD: [u16; 3] = [1000, 1001, 1005];

/// Whether a request that is no valid handshake wants to be one. Other upgrades are ignored, as RFC
/// 9110, section 7.8 allows: `curl --http2` offers `h2c`.
pub(super) fn asks_for_websocket(headers: &HeaderMap) -> bool {
    let wanted = headers.get_all(header::UPGRADE).iter();
    let mut wanted = wanted.filter_map(|upgrade| upgrade.to_str().ok());
    wanted.any(|upgrade| upgrade.to_ascii_lowercase().contains("websocket"))
}

/// The client's preferred subprotocol, which the tutorial's server chooses too. The messages are
/// the same in each.
fn first_protocol(headers: &HeaderMap) -> Option<HeaderValue> {
    let offered = headers.get(header::SEC_WEBSOCKET_PROTOCOL)?.to_str().ok()?;
    let mut offered = offered.split(',').map(str::trim);
    HeaderValue::from_str(offered.find(|protocol| !protocol.is_empty())?).ok()
}

/// The parts of a session that differ between the native and the PeerJS endpoint.
pub(super) struct SessionSetup {
    pub(super) realm: Realm,
    /// What the token of the request says.
    pub(super) admitted: Option<Arc<Claims>>,
    /// Released with the connection.
    pub(super) permit: Option<Permit>,
    pub(super) initial_login: InitialLogin,
    pub(super) policy: SessionPolicy,
    pub(super) clocks: Clocks,
    /// Size of the read buffer in bytes.
    pub(super) read_buffer: usize,
    /// Counts the bytes of the connection.
    pub(super) received: ReceivedBytes,
}

/// Lets a request in, unless the node drains, the origin is not allowed, or the address has too many connections.
pub(super) fn enter(
    endpoints: &Endpoints,
    from: SocketAddr,
    headers: &HeaderMap,
) -> Result<Option<Permit>, Rejection> {
    if endpoints.phase.is_draining() {
        return Err(Rejection::Draining);
    }
    if !endpoints.allows_origin(headers) {
        return Err(Rejection::Origin);
    }
    let permit = endpoints.connections.acquire(from.ip());
    permit.map_err(|_| Rejection::TooMany)
}

/// Upgrades the request and runs a session on the WebSocket.
pub(super) fn open_session(
    endpoints: &Endpoints,
    from: SocketAddr,
    headers: &HeaderMap,
    mut upgrade: WebSocketUpgrade,
    codec: impl Codec,
    setup: SessionSetup,
) -> Response {
    // A browser closes the connection if it offered subprotocols and the server chooses none.
    if let Some(protocol) = first_protocol(headers) {
        upgrade.set_selected_protocol(protocol);
    }
    let permit = setup.permit;
    let progress = Progress::new(setup.received, setup.clocks.silent_after);
    // Boxed because the upgrade future stores its input twice.
    let context = Box::new(SessionContext {
        router: endpoints.router.clone(),
        realm: setup.realm,
        clocks: setup.clocks,
        initial_login: setup.initial_login,
        policy: setup.policy,
        write_timeout: endpoints.settings.write_timeout,
        rate: RateLimit::new(endpoints.settings.signals_per_second),
        pace: endpoints.settings.pace(endpoints.router.local().terms),
        address: endpoints.addresses.of(from.ip()),
        phase: endpoints.phase.clone(),
        max_age: endpoints.settings.max_age,
        http: None,
        ice: Arc::clone(&endpoints.settings.ice),
        auth: Arc::clone(&endpoints.settings.auth),
        admitted: setup.admitted,
    });
    // Tracked before the upgrade is answered, so that a drain waits for this session.
    let tracked = endpoints.phase.track();
    upgrade
        .read_buffer_size(setup.read_buffer)
        .write_buffer_size(WRITE_BUFFER)
        .max_write_buffer_size(WRITE_BUFFER + 2 * endpoints.settings.frame_bytes + WRITE_BUFFER)
        .max_message_size(endpoints.settings.frame_bytes)
        .max_frame_size(endpoints.settings.frame_bytes)
        .on_upgrade(async move |socket| {
            session::run(
                WebSocketConnection {
                    socket,
                    progress,
                    _permit: permit,
                },
                codec,
                unboxed(context),
            )
            .await;
            drop(tracked);
        })
}

/// Frees the box before the session starts. With `*context` in the argument list, the allocation
/// would live as long as the session.
#[expect(clippy::boxed_local, reason = "moving out of the box frees it")]
fn unboxed<T>(value: Box<T>) -> T {
    *value
}

/// A WebSocket with the stream and sink that a session expects.
struct WebSocketConnection {
    socket: WebSocket,
    progress: Progress,
    /// Released when the connection is dropped.
    _permit: Option<Permit>,
}

impl Stream for WebSocketConnection {
    type Item = Received;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Received>> {
        let Poll::Ready(message) = Pin::new(&mut self.socket).poll_next(context) else {
            let is_overdue = self.progress.is_overdue(context);
            return if is_overdue {
                Poll::Ready(None)
            } else {
                Poll::Pending
            };
        };
        match &message {
            Some(Ok(Message::Text(_) | Message::Binary(_))) => self.progress.message(),
            Some(Ok(Message::Ping(payload) | Message::Pong(payload))) => {
                self.progress.control(payload.len());
            }
            _ => {}
        }
        let received = match message {
            None => None,
            Some(Ok(Message::Text(text))) => Some(Received::Frame(Frame::Text(text.into()))),
            Some(Ok(Message::Binary(bytes))) => Some(Received::Frame(Frame::Binary(bytes))),
            Some(Ok(Message::Ping(_))) => Some(Received::Alive),
            Some(Ok(Message::Pong(payload))) => Some(pong_received(&payload)),
            Some(Ok(Message::Close(frame))) => Some(Received::Closed {
                for_good: frame.is_none_or(|frame| CLOSED_FOR_GOOD.contains(&frame.code)),
            }),
            Some(Err(error)) => is_too_large(error).then_some(Received::TooLarge),
        };
        Poll::Ready(received)
    }
}

/// A pong without our payload answers no ping (RFC 6455, section 5.5.3 allows unsolicited pongs).
fn pong_received(payload: &[u8]) -> Received {
    match payload.try_into() {
        Ok(number) => Received::Answered(u64::from_be_bytes(number)),
        Err(_) => Received::Alive,
    }
}

fn is_too_large(error: axum::Error) -> bool {
    use tungstenite::error::{CapacityError, Error};
    let inner = error.into_inner();
    matches!(
        inner.downcast_ref(),
        Some(Error::Capacity(CapacityError::MessageTooLong { .. }))
    )
}

impl Sink<Sending> for WebSocketConnection {
    type Error = Gone;

    fn poll_ready(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<(), Gone>> {
        Pin::new(&mut self.socket)
            .poll_ready(context)
            .map_err(|_| Gone)
    }

    fn start_send(mut self: Pin<&mut Self>, sending: Sending) -> Result<(), Gone> {
        let message = match sending {
            Sending::Frame(Frame::Text(text), _) => {
                Message::Text(Utf8Bytes::try_from(text).map_err(|_| Gone)?)
            }
            Sending::Frame(Frame::Binary(bytes), _) => Message::Binary(bytes),
            Sending::Ping(number) => {
                Message::Ping(bytes::Bytes::copy_from_slice(&number.to_be_bytes()))
            }
            // Only HTTP sessions move between nodes.
            Sending::Progress(_) | Sending::Settled => return Ok(()),
            Sending::Close(reason) => Message::Close(close_frame(reason)),
        };
        Pin::new(&mut self.socket)
            .start_send(message)
            .map_err(|_| Gone)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<(), Gone>> {
        Pin::new(&mut self.socket)
            .poll_flush(context)
            .map_err(|_| Gone)
    }

    fn poll_close(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<(), Gone>> {
        Pin::new(&mut self.socket)
            .poll_close(context)
            .map_err(|_| Gone)
    }
}

fn close_frame(reason: CloseReason) -> Option<CloseFrame> {
    reason.code().map(|code| CloseFrame {
        code,
        reason: Utf8Bytes::from_static(reason.text()),
    })
}
