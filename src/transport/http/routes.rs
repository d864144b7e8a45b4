//! The routes: begin a session, end it, post messages, read events.

use std::net::SocketAddr;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use axum::{Extension, Router};
use bytes::Bytes;
use tokio::time::{Instant, timeout};

use super::super::Endpoints;
use super::super::reject::Rejection;
use super::super::request::parameter;
use super::buffer::{EventId, Unread};
use super::posts::MAX_MESSAGES;
use super::stream::EventStream;
use super::token::{Token, token};
use crate::protocol::posted;

/// How long a body may take.
const BODY_WITHIN: Duration = Duration::from_secs(10);
/// A request with several messages may be so many times as long as one message.
const LONGEST_AT_ONCE: usize = 4;
/// The longest idempotency key, in bytes.
const KEY_BYTES: usize = 128;
/// A poll waits for so long at most, also if it asks for more.
const LONGEST_POLL: Duration = Duration::from_secs(25);

pub(in crate::transport) fn routes() -> Router<Endpoints> {
    Router::new()
        .route("/v1/sessions", post(open))
        .route("/v1/sessions/{id}", delete(close))
        .route("/v1/sessions/{id}/close", post(close))
        .route("/v1/events", get(events))
        .route("/v1/messages", post(messages))
}

/// Begins a session, with a login if the body has one.
async fn open(
    State(endpoints): State<Endpoints>,
    Extension(from): Extension<SocketAddr>,
    request: Body,
) -> Result<Response, Rejection> {
    if endpoints.phase.is_draining() {
        return Err(Rejection::Draining);
    }
    let permit = endpoints.sessions.acquire(from.ip());
    let permit = permit.map_err(|_| Rejection::TooMany)?;
    let login = body(request, endpoints.settings.frame_bytes).await?;
    let login = posted::initial_login(&login)?;
    let token = endpoints.homes.open(login, permit).await?;
    let (public, secret) = (token.session(), token.expose());
    let lives = endpoints.settings.http.session_ttl.as_secs();
    let keepalive = endpoints.settings.http.keepalive.as_secs();
    let opened = format!(
        "{{\"session\":\"{public}\",\"token\":\"{secret}\",\"expires_in\":{lives},\"keepalive\":{keepalive},\
         \"events\":\"/v1/events\",\"messages\":\"/v1/messages\"}}\n"
    );
    let location = [(header::LOCATION, format!("/v1/sessions/{public}"))];
    Ok((location, json(StatusCode::CREATED, opened)).into_response())
}

/// Ends a session for good: its call peers hear that it was closed.
async fn close(
    State(endpoints): State<Endpoints>,
    Path(id): Path<String>,
    headers: HeaderMap,
    uri: Uri,
) -> Result<Response, Rejection> {
    let token = token(&headers, &uri)?;
    if token.session().to_string() != id {
        return Err(Rejection::SessionGone);
    }
    endpoints.homes.post(&token, None, None).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// Takes all messages or none. What comes of them is told as events.
async fn messages(
    State(endpoints): State<Endpoints>,
    headers: HeaderMap,
    uri: Uri,
    request: Body,
) -> Result<Response, Rejection> {
    let token = token(&headers, &uri)?;
    let key = match headers.get("idempotency-key") {
        None => None,
        Some(key) => match key.to_str() {
            Ok(key) if (1..=KEY_BYTES).contains(&key.len()) => Some(key),
            _ => return Err(Rejection::Bad("an Idempotency-Key is 1 to 128 letters")),
        },
    };
    let kind = text(&headers, "content-type").unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim();
    let longest = endpoints.settings.frame_bytes;
    let messages = match kind.to_ascii_lowercase().as_str() {
        "application/json" => vec![posted::message(body(request, longest).await?)?],
        "application/x-ndjson" | "application/ndjson" => {
            posted::messages(&body(request, LONGEST_AT_ONCE * longest).await?)?
        }
        _ => return Err(Rejection::MediaType),
    };
    if messages.len() > MAX_MESSAGES || messages.iter().any(|message| message.len() > longest) {
        return Err(Rejection::TooLarge);
    }
    let accepted = endpoints.homes.post(&token, Some(messages), key).await?;
    let accepted = format!("{{\"accepted\":{accepted}}}\n");
    Ok(json(StatusCode::ACCEPTED, accepted))
}

/// Reads behind the last event that the client has.
async fn events(
    State(endpoints): State<Endpoints>,
    Extension(from): Extension<SocketAddr>,
    headers: HeaderMap,
    uri: Uri,
) -> Result<Response, Rejection> {
    let token = token(&headers, &uri)?;
    if endpoints.phase.is_draining() {
        return Err(Rejection::Draining);
    }
    let after = after(&headers, &uri)?;
    let polls = match parameter(&uri, "mode").as_deref() {
        None | Some("sse") => false,
        Some("poll") => true,
        Some(_) => return Err(Rejection::Bad("mode is sse or poll")),
    };
    let permit = endpoints.connections.acquire(from.ip());
    let permit = permit.map_err(|_| Rejection::TooMany)?;
    // Before the stream begins, so that a drain waits for it.
    let tracked = endpoints.phase.track();
    if polls {
        let until = Instant::now() + wait(&headers, &uri)?;
        return poll(&endpoints, &token, after, until).await;
    }
    let reader = endpoints.homes.stream(&token, after).await?;
    let (settings, phase) = (endpoints.settings.http, endpoints.phase.clone());
    let events = EventStream::new(reader, settings, phase, (permit, tracked));
    let events = Body::from_stream(events.pieces());
    let headers = [
        ("content-type", "text/event-stream; charset=utf-8"),
        ("cache-control", "no-cache, no-transform"),
        ("x-accel-buffering", "no"),
    ];
    Ok((headers, events).into_response())
}

/// Answers as soon as there is something, or when the time is over, or when the node drains.
async fn poll(
    endpoints: &Endpoints,
    token: &Token,
    after: EventId,
    until: Instant,
) -> Result<Response, Rejection> {
    let drain = endpoints.phase.draining();
    let unread = tokio::select! {
        biased;
        unread = endpoints.homes.poll(token, after, until) => unread?,
        () = drain.cancelled() => Unread::nothing(after),
    };
    Ok(json(StatusCode::OK, page(&unread)))
}

fn page(unread: &Unread) -> String {
    // The text is JSON.
    let event = |(id, text): &(EventId, String)| format!(r#"{{"id":"{id}","data":{text}}}"#);
    let events: Vec<String> = unread.events.iter().map(event).collect();
    let reset = if unread.reset { r#""reset":true,"# } else { "" };
    let (events, next) = (events.join(","), unread.next);
    format!("{{{reset}\"events\":[{events}],\"next\":\"{next}\"}}\n")
}

/// The last event that the client has, as it says itself, or as its `EventSource` says when it reconnects.
fn after(headers: &HeaderMap, uri: &Uri) -> Result<EventId, Rejection> {
    let header = text(headers, "last-event-id");
    let asked = parameter(uri, "after");
    // An EventSource reconnects to the address that it was made with: its header is newer.
    match header.or(asked.as_deref()) {
        None | Some("") => Ok(EventId::default()),
        Some(after) => {
            EventId::parse(after).ok_or(Rejection::Bad("that is no event id that was told"))
        }
    }
}

fn wait(headers: &HeaderMap, uri: &Uri) -> Result<Duration, Rejection> {
    let preferred = text(headers, "prefer");
    let preferred = preferred.and_then(|prefer| {
        let mut wishes = prefer.split([',', ';']).map(str::trim);
        wishes.find_map(|wish| wish.strip_prefix("wait="))
    });
    match parameter(uri, "wait").as_deref().or(preferred) {
        None => Ok(LONGEST_POLL),
        Some(seconds) => match seconds.parse() {
            Ok(seconds) => Ok(LONGEST_POLL.min(Duration::from_secs(seconds))),
            Err(_) => Err(Rejection::Bad("wait is a number of seconds")),
        },
    }
}

/// A body of so many bytes at most.
async fn body(body: Body, most: usize) -> Result<Bytes, Rejection> {
    match timeout(BODY_WITHIN, axum::body::to_bytes(body, most)).await {
        Ok(Ok(bytes)) => Ok(bytes),
        Ok(Err(_)) => Err(Rejection::TooLarge),
        Err(_) => Err(Rejection::Bad("the body took too long")),
    }
}

/// A header, if it is there and is text.
fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

/// A JSON answer that no cache keeps.
fn json(status: StatusCode, body: String) -> Response {
    let headers = [
        ("content-type", "application/json"),
        ("cache-control", "no-store"),
    ];
    (status, headers, body).into_response()
}
