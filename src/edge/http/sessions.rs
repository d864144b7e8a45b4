//! `/v1/sessions`: begins a session, and ends it.

use std::net::SocketAddr;

use axum::Extension;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};

use super::super::Doors;
use super::super::reject::Rejection;
use super::requests::{body, json};
use super::token::token;
use crate::dialect::posted;

/// Begins a session, with a login if the body has one.
pub(super) async fn open(
    State(doors): State<Doors>,
    Extension(from): Extension<SocketAddr>,
    request: Body,
) -> Result<Response, Rejection> {
    if doors.phase.is_draining() {
        return Err(Rejection::Draining);
    }
    let permit = doors.sessions.enter(from.ip());
    let permit = permit.map_err(|_| Rejection::Crowded)?;
    let login = body(request, doors.settings.frame_bytes).await?;
    let login = posted::opening(&login)?;
    let token = doors.homes.open(login, permit).await?;
    let (public, secret) = (token.session(), token.expose());
    let lives = doors.settings.http.session_ttl.as_secs();
    let keepalive = doors.settings.http.keepalive.as_secs();
    let opened = format!(
        "{{\"session\":\"{public}\",\"token\":\"{secret}\",\"expires_in\":{lives},\"keepalive\":{keepalive},\
         \"events\":\"/v1/events\",\"messages\":\"/v1/messages\"}}\n"
    );
    let mut response = json(StatusCode::CREATED, opened);
    // Hexadecimal digits fit into any header.
    if let Ok(location) = HeaderValue::try_from(format!("/v1/sessions/{public}")) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    Ok(response)
}

/// Ends a session for good: its call peers hear that it was closed.
pub(super) async fn close(
    State(doors): State<Doors>,
    Path(id): Path<String>,
    headers: HeaderMap,
    uri: Uri,
) -> Result<Response, Rejection> {
    let token = token(&headers, &uri)?;
    if token.session().to_string() != id {
        return Err(Rejection::SessionGone);
    }
    doors.homes.post(&token, None, None).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}
