//! What every request has: a body within bounds, headers as text, and a JSON answer.

use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use tokio::time::timeout;

use super::super::reject::Rejection;

/// How long a body may take.
const BODY_WITHIN: Duration = Duration::from_secs(10);

/// A body of so many bytes at most.
pub(super) async fn body(body: Body, most: usize) -> Result<Bytes, Rejection> {
    match timeout(BODY_WITHIN, axum::body::to_bytes(body, most)).await {
        Ok(Ok(bytes)) => Ok(bytes),
        Ok(Err(_)) => Err(Rejection::TooLarge),
        Err(_) => Err(Rejection::Bad("the body took too long")),
    }
}

/// A header, if it is there and is text.
pub(super) fn text(headers: &HeaderMap, name: impl Into<HeaderName>) -> Option<&str> {
    headers.get(name.into())?.to_str().ok()
}

/// A JSON answer that no cache keeps.
pub(super) fn json(status: StatusCode, body: String) -> Response {
    let headers = [
        (
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/json"),
        ),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
    ];
    (status, headers, body).into_response()
}
