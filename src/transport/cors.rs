//! What pages of other origins may ask of a node by `fetch`: what they may ask by WebSocket.

use axum::extract::{Request, State};
use axum::http::{HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::Endpoints;
use super::reject::Rejection;

/// What a browser may keep of a preflight, and what it may send. No cookie means anything here, so credentials are not allowed.
const PREFLIGHT: [(HeaderName, &str); 3] = [
    (header::ACCESS_CONTROL_ALLOW_METHODS, "GET, POST, DELETE"),
    (
        header::ACCESS_CONTROL_ALLOW_HEADERS,
        "authorization, content-type, idempotency-key, last-event-id, prefer",
    ),
    (header::ACCESS_CONTROL_MAX_AGE, "600"),
];

/// Answers preflights and refuses pages that may not connect. Every page may read its answer: a refusal that a page cannot read looks to its
/// developer like a server that is not there.
pub(super) async fn share(
    State(endpoints): State<Endpoints>,
    request: Request,
    next: Next,
) -> Response {
    let origin = request.headers().get(header::ORIGIN).cloned();
    let mut response = if !endpoints.allows_origin(request.headers()) {
        Rejection::Origin.into_response()
    } else if request.method() == Method::OPTIONS {
        (StatusCode::NO_CONTENT, PREFLIGHT).into_response()
    } else {
        next.run(request).await
    };
    let headers = response.headers_mut();
    headers.append(header::VARY, HeaderValue::from_static("origin"));
    headers.extend(origin.map(|origin| (header::ACCESS_CONTROL_ALLOW_ORIGIN, origin)));
    headers.insert(
        header::ACCESS_CONTROL_EXPOSE_HEADERS,
        HeaderValue::from_static("location, retry-after"),
    );
    response
}
