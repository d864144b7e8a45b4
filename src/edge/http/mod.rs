//! The HTTP door: the native language for networks that let no WebSocket through.

mod credential;
mod events;
mod feed;
mod messages;
mod sessions;

use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use tokio::time::timeout;

pub(super) use self::credential::token;
use super::Doors;
use super::reject::Rejection;

/// How long a browser need not ask again whether it may.
const PREFLIGHT_SECONDS: HeaderValue = HeaderValue::from_static("600");
/// What a page may send…
const ALLOWED: HeaderValue =
    HeaderValue::from_static("authorization, content-type, idempotency-key, last-event-id, prefer");
/// …how…
const METHODS: HeaderValue = HeaderValue::from_static("GET, POST, DELETE, OPTIONS");
/// …and what of the answer it may see.
const EXPOSED: HeaderValue = HeaderValue::from_static("location, retry-after");
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

/// Lets pages in that may come, and answers their browsers when they ask first.
pub(super) async fn share(State(doors): State<Doors>, request: Request, next: Next) -> Response {
    let Some(origin) = request.headers().get(header::ORIGIN).cloned() else {
        return next.run(request).await;
    };
    let welcome = doors.welcomes(request.headers());
    let preflight = request.method() == Method::OPTIONS;
    let mut response = match (welcome, preflight) {
        (false, _) => return Rejection::Origin.into_response(),
        (true, true) => StatusCode::NO_CONTENT.into_response(),
        (true, false) => next.run(request).await,
    };
    let headers = response.headers_mut();
    // There is no cookie, so a page can do no more than whoever it got its token from.
    let who = if doors.settings.origins.is_empty() {
        HeaderValue::from_static("*")
    } else {
        headers.append(header::VARY, HeaderValue::from_static("origin"));
        origin
    };
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, who);
    headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED);
    if preflight {
        headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, ALLOWED);
        headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, METHODS);
        headers.insert(header::ACCESS_CONTROL_MAX_AGE, PREFLIGHT_SECONDS);
    }
    response
}

/// These routes, for pages too.
pub(super) fn shared(doors: &Doors, routes: Router<Doors>) -> Router<Doors> {
    routes.layer(middleware::from_fn_with_state(doors.clone(), share))
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
