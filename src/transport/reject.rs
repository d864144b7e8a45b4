//! Every reason to reject an HTTP request, with its status, code and message.

use std::borrow::Cow;

use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};

use crate::model::Refusal;

/// Why a request is rejected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Rejection {
    /// The `Origin` is not in `limits.origins`.
    Origin,
    /// The `Host` may be a stranger's name for this node.
    Host,
    /// The client's address has as many connections as `limits.connections_per_ip` allows.
    TooMany,
    /// The node is shutting down.
    Draining,
    /// A WebSocket route was requested without an upgrade.
    NotAnUpgrade,
    /// The upgrade is not a valid WebSocket handshake.
    BadUpgrade,
    /// No route has this path.
    NotFound,
    /// The token or secret is missing or wrong.
    Unauthorized,
    /// The token of the request does not admit its client.
    Token(Refusal),
    /// The key for operators is missing.
    NoAdminKey,
    /// The key for operators is wrong.
    WrongAdminKey,
    /// Nobody has the name.
    NoUser,
    /// The user's inbox is full.
    InboxFull,
    /// As much is revoked as can be remembered.
    TooManyRevocations,
    /// The body must be JSON.
    JsonOnly,
    /// The query has no valid `name`.
    NoName,
    /// The session has ended, or never existed.
    SessionGone,
    /// A newer reader of the session took over.
    Replaced,
    /// A message, or the whole body, is too long.
    TooLarge,
    /// The body's content type is not supported.
    MediaType,
    /// The session has too many unprocessed messages.
    TooFast,
    /// The body is not a valid message.
    Refused(Refusal),
    /// Another part of the request is wrong; the text says which.
    Bad(&'static str),
    /// The broker did not answer in time.
    Unavailable,
}

impl From<Refusal> for Rejection {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl Rejection {
    /// The status, and the machine-readable code of the body.
    fn status_and_code(&self) -> (StatusCode, &'static str) {
        match self {
            Self::Origin | Self::WrongAdminKey => (StatusCode::FORBIDDEN, "forbidden"),
            Self::Host => (StatusCode::MISDIRECTED_REQUEST, "forbidden"),
            Self::TooMany => (StatusCode::TOO_MANY_REQUESTS, "too_many"),
            Self::Draining => (StatusCode::SERVICE_UNAVAILABLE, "draining"),
            Self::NotAnUpgrade => (StatusCode::UPGRADE_REQUIRED, "upgrade_required"),
            Self::BadUpgrade | Self::NoName | Self::Bad(_) => {
                (StatusCode::BAD_REQUEST, "bad_request")
            }
            Self::Unauthorized | Self::NoAdminKey => (StatusCode::UNAUTHORIZED, "unauthorized"),
            Self::NoUser => (StatusCode::NOT_FOUND, "user_unavailable"),
            Self::InboxFull => (StatusCode::CONFLICT, "inbox_full"),
            Self::TooManyRevocations => (StatusCode::CONFLICT, "too_many"),
            Self::NotFound => (StatusCode::NOT_FOUND, "not_found"),
            Self::SessionGone => (StatusCode::NOT_FOUND, "session_gone"),
            Self::Replaced => (StatusCode::CONFLICT, "replaced"),
            Self::TooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "too_large"),
            Self::MediaType | Self::JsonOnly => {
                (StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type")
            }
            Self::TooFast => (StatusCode::TOO_MANY_REQUESTS, "rate_limited"),
            Self::Token(refusal) => (status_of(refusal), refusal.code()),
            Self::Refused(refusal) => (StatusCode::BAD_REQUEST, refusal.code()),
            Self::Unavailable => (StatusCode::SERVICE_UNAVAILABLE, "unavailable"),
        }
    }

    /// The machine-readable code of the body.
    pub(super) fn code(&self) -> &'static str {
        self.status_and_code().1
    }

    /// The text for people. It goes into JSON as it is, so it must not need escaping.
    fn message(&self) -> Cow<'static, str> {
        let fixed = match self {
            Self::Token(refusal) => return refusal.message(),
            Self::Origin => {
                "This page's origin may not connect. The operator can allow it in limits.origins"
            }
            Self::Host => {
                "This Host is not known here: use the node's address, or add the name to admin.hosts"
            }
            Self::TooMany => {
                "Too many connections from this address: close some. \
                 The operator sets the limit in limits.connections_per_ip"
            }
            Self::Draining => "This node is shutting down: connect again to reach another node",
            Self::NotAnUpgrade => "This path serves WebSockets only: send a WebSocket upgrade",
            Self::BadUpgrade => {
                "The WebSocket handshake is invalid (RFC 6455, section 4.1). \
                 A proxy may have removed its headers"
            }
            Self::NotFound => {
                "Nothing is served at this path. WebSockets may use any path, such as /ws; PeerJS \
                 clients use peerjs.path; HTTP sessions begin with POST /v1/sessions"
            }
            Self::Unauthorized => {
                "Invalid or expired session token: send it as Authorization: Bearer"
            }
            Self::NoAdminKey => "Send the key in admin.token as Authorization: Bearer",
            Self::WrongAdminKey => "This is not the key in admin.token",
            Self::NoUser => "Nobody of that name is here",
            Self::InboxFull => "This user's inbox is full: try again later",
            Self::TooManyRevocations => {
                "There are 10000 revocations already: revoke everything that was issued before a time"
            }
            Self::JsonOnly => "Unsupported content type: send application/json",
            Self::NoName => "The user name of the session is missing or invalid: send it as ?name=",
            Self::SessionGone => "This session has ended: open another with POST /v1/sessions",
            Self::Replaced => "A newer request reads the events of this session",
            Self::TooLarge => {
                "A message is longer than session.frame_bytes, or there are too many in one \
                 request: send less at once"
            }
            Self::MediaType => {
                "Unsupported content type: send application/json or application/x-ndjson"
            }
            Self::TooFast => "This session has too many unprocessed messages: try again later",
            Self::Refused(_) => {
                "The body is not a valid message: see docs/src/protocol/messages.md"
            }
            Self::Bad(what) => what,
            Self::Unavailable => {
                "No answer in time: try again. Repeat a POST with the same Idempotency-Key"
            }
        };
        fixed.into()
    }
}

/// The status of a request whose token does not admit its client.
fn status_of(refusal: &Refusal) -> StatusCode {
    match refusal {
        Refusal::Forbidden(_) => StatusCode::FORBIDDEN,
        Refusal::KeysUnavailable { .. } => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::UNAUTHORIZED,
    }
}

impl IntoResponse for Rejection {
    fn into_response(self) -> Response {
        let ((status, code), message) = (self.status_and_code(), self.message());
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
            Self::Token(Refusal::KeysUnavailable { .. }) => {
                headers.insert(header::RETRY_AFTER, 2.into());
            }
            Self::Unauthorized | Self::NoAdminKey | Self::Token(Refusal::Unauthorized(_)) => {
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
