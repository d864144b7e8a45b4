//! Every way to be turned away at the door, as HTTP.

use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};

/// Why a request gets no further.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rejection {
    /// A page that may not connect.
    Origin,
    /// As many connections from that address as there may be.
    Crowded,
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
    /// The fabric does not answer.
    Unavailable,
}

impl IntoResponse for Rejection {
    fn into_response(self) -> Response {
        let (status, code, message) = match self {
            Self::Origin => (
                StatusCode::FORBIDDEN,
                "forbidden",
                "pages of this origin may not connect: see limits.origins",
            ),
            Self::Crowded => (
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
                "that is no secret of a session which goes on: give it as Authorization: Bearer",
            ),
            Self::NoName => (
                StatusCode::BAD_REQUEST,
                "bad_request",
                "the name of the session's user is missing: ?name=",
            ),
            Self::Unavailable => (
                StatusCode::SERVICE_UNAVAILABLE,
                "unavailable",
                "no answer in time: try again",
            ),
        };
        let body =
            format!("{{\"type\":\"error\",\"code\":\"{code}\",\"message\":\"{message}\"}}\n");
        let mut response =
            (status, [(header::CONTENT_TYPE, "application/json")], body).into_response();
        let headers = response.headers_mut();
        match self {
            Self::Draining | Self::Crowded | Self::Unavailable => {
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
            Self::Origin | Self::BadUpgrade | Self::NoName => {}
        }
        response
    }
}
