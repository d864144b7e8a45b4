//! The HTTP door: the native language for networks that let no WebSocket through.

mod buffer;
mod events;
mod feed;
mod fields;
mod home;
mod homes;
mod messages;
mod sessions;
mod token;

pub(super) use homes::{Denied, Homes};

use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use tokio::time::timeout;

use super::Doors;
use super::reject::Rejection;

/// How long a body may take.
const BODY_WITHIN: Duration = Duration::from_secs(10);

/// The routes of the door.
pub(super) fn routes() -> Router<Doors> {
    Router::new()
        .route("/v1/sessions", post(sessions::open))
        .route("/v1/sessions/{id}", delete(sessions::close))
        .route("/v1/sessions/{id}/close", post(sessions::close))
        .route("/v1/events", get(events::read))
        .route("/v1/messages", post(messages::say))
}

/// A body of so many bytes at most.
async fn body(body: Body, most: usize) -> Result<Bytes, Rejection> {
    match timeout(BODY_WITHIN, axum::body::to_bytes(body, most)).await {
        Ok(Ok(bytes)) => Ok(bytes),
        Ok(Err(_)) => Err(Rejection::TooLarge),
        Err(_) => Err(Rejection::Bad("the body took too long")),
    }
}

/// A header as text, if it is there and is one.
fn text(headers: &HeaderMap, name: impl Into<HeaderName>) -> Option<&str> {
    headers.get(name.into())?.to_str().ok()
}

/// A JSON answer that nobody keeps.
fn json(status: StatusCode, body: String) -> Response {
    let kind = (
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    );
    let kept = (header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    (status, [kind, kept], body).into_response()
}
