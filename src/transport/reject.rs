//! Every way to be turned away at the door, as HTTP.

use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};

use crate::model::Refusal;

/// Why a request gets no further.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Rejection {
    /// A page that may not connect.
    Origin,
    /// As many connections from that address as there may be.
    TooMany,
    /// The node is shutting down.
    Draining,
    /// The request is for a WebSocket door, and asks for no upgrade.
    NotAnUpgrade,
    /// It looks like a WebSocket handshake, and is none.
    BadUpgrade,
    /// Nothing proves the session.
    Unauthorized,
    /// The query names nobody.
    NoName,
    /// There is no such session any more.
    SessionGone,
    /// A newer reader of the session took over.
    Replaced,
    /// A message over the limit, or too many at once.
    TooLarge,
    /// The body is of a kind that nobody reads.
    MediaType,
    /// More waits to be heard than may.
    TooFast,
    /// The body is not what it should be.
    Refused(Refusal),
    /// Something else about the request is wrong: says what.
    Bad(&'static str),
    /// The broker does not answer.
    Unavailable,
}

impl From<Refusal> for Rejection {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl IntoResponse for Rejection {
    fn into_response(self) -> Response {
        let (status, code, message) = match &self {
            Self::Origin => (
                StatusCode::FORBIDDEN,
                "forbidden",
                "pages of this origin may not connect: see limits.origins",
            ),
            Self::TooMany => (
                StatusCode::TOO_MANY_REQUESTS,
                "too_many",
                "too many connections from this address: see limits.connections_per_ip",
            ),
            Self::Draining => (
                StatusCode::SERVICE_UNAVAILABLE,
                "draining",
                "this node is shutting down: connect again",
            ),
            Self::NotAnUpgrade => (
                StatusCode::UPGRADE_REQUIRED,
                "upgrade_required",
                "this is a door for WebSockets",
            ),
            Self::BadUpgrade => (
                StatusCode::BAD_REQUEST,
                "bad_request",
                "not a WebSocket handshake (RFC 6455, 4.1)",
            ),
            Self::Unauthorized => (
                StatusCode::UNAUTHORIZED,
                "unauthorized",
                "that is no token or secret of a session which goes on: give it as Authorization: Bearer",
            ),
            Self::NoName => (
                StatusCode::BAD_REQUEST,
                "bad_request",
                "the name of the session's user is missing: ?name=",
            ),
            Self::SessionGone => (
                StatusCode::NOT_FOUND,
                "session_gone",
                "there is no such session any more: begin another",
            ),
            Self::Replaced => (
                StatusCode::CONFLICT,
                "replaced",
                "a newer reader of this session took over",
            ),
            Self::TooLarge => (
                StatusCode::PAYLOAD_TOO_LARGE,
                "too_large",
                "a message over session.frame_bytes, or too many at once",
            ),
            Self::MediaType => (
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "unsupported_media_type",
                "a body is application/json, or application/x-ndjson",
            ),
            Self::TooFast => (
                StatusCode::TOO_MANY_REQUESTS,
                "rate_limited",
                "too much waits to be heard: try again",
            ),
            Self::Refused(refusal) => (StatusCode::BAD_REQUEST, refusal.code(), "not valid JSON"),
            Self::Bad(what) => (StatusCode::BAD_REQUEST, "bad_request", *what),
            Self::Unavailable => (
                StatusCode::SERVICE_UNAVAILABLE,
                "unavailable",
                "no answer in time: try again, a POST with the same Idempotency-Key",
            ),
        };
        let body =
            format!("{{\"type\":\"error\",\"code\":\"{code}\",\"message\":\"{message}\"}}\n");
        let mut response =
            (status, [(header::CONTENT_TYPE, "application/json")], body).into_response();
        let headers = response.headers_mut();
        match self {
            Self::Draining | Self::TooMany | Self::TooFast | Self::Unavailable => {
                headers.insert(header::RETRY_AFTER, 1.into());
            }
            Self::NotAnUpgrade => {
                headers.insert(
                    header::UPGRADE,
                    header::HeaderValue::from_static("websocket"),
                );
                headers.insert(
                    header::CONNECTION,
                    header::HeaderValue::from_static("upgrade"),
                );
            }
            Self::Unauthorized => {
                headers.insert(
                    header::WWW_AUTHENTICATE,
                    header::HeaderValue::from_static("Bearer"),
                );
            }
            _ => {}
        }
        response
    }
}
