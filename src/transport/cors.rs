//! Cross-origin rules (CORS) for the HTTP routes: an origin may call `fetch` if it may open a
//! WebSocket.

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::Endpoints;
use super::reject::Rejection;

/// Answers to a preflight. Credentials are not allowed, because no route reads cookies.
const PREFLIGHT: [(HeaderName, &str); 3] = [
    (header::ACCESS_CONTROL_ALLOW_METHODS, "GET, POST, DELETE"),
    (
        header::ACCESS_CONTROL_ALLOW_HEADERS,
        "authorization, content-type, idempotency-key, last-event-id, prefer",
    ),
    (header::ACCESS_CONTROL_MAX_AGE, "600"),
];

/// Answers preflight requests, refuses origins that are not in `limits.origins`, and adds CORS headers to every
/// response: a refusal that a page cannot read looks to its developer like a server that is not there.
pub(super) async fn apply(
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

/// Adds CORS headers if the origin may connect.
pub(super) fn allow(
    endpoints: &Endpoints,
    headers: &HeaderMap,
    answer: impl IntoResponse,
) -> Response {
    let mut response = answer.into_response();
    let answer = response.headers_mut();
    answer.append(header::VARY, header::ORIGIN.into());
    if let Some(origin) = headers.get(header::ORIGIN)
        && endpoints.allows_origin(headers)
    {
        answer.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
    }
    response
}
