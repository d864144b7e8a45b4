//! The routes of HTTP sessions: open, close, post messages, read events.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use axum::{Extension, Router};
use bytes::Bytes;
use tokio::time::{Instant, timeout};

use super::super::reject::Rejection;
use super::super::request::{media_type, parameter};
use super::super::{Endpoints, admission};
use super::buffer::{EventId, Unread};
use super::posts::MAX_MESSAGES;
use super::stream::EventStream;
use super::token::{Token, token};
use crate::protocol::posted;

/// Time limit for receiving a body.
const BODY_WITHIN: Duration = Duration::from_secs(10);
/// A body with several messages may be this many times as long as one message.
const MAX_BATCH_FACTOR: usize = 4;
/// The longest `Idempotency-Key`, in bytes.
const KEY_BYTES: usize = 128;
/// The longest wait of a poll; longer ones are shortened.
const LONGEST_POLL: Duration = Duration::from_secs(25);

pub(in crate::transport) fn routes() -> Router<Endpoints> {
    Router::new()
        .route("/v1/sessions", post(open))
        .route("/v1/sessions/{id}", delete(close))
        .route("/v1/sessions/{id}/close", post(close))
        .route("/v1/events", get(events))
        .route("/v1/messages", post(messages))
}

/// `POST /v1/sessions`: opens a session, with a login if the body has one.
async fn open(
    State(endpoints): State<Endpoints>,
    Extension(from): Extension<SocketAddr>,
    headers: HeaderMap,
    uri: Uri,
    request: Body,
) -> Result<Response, Rejection> {
    if endpoints.phase.is_draining() {
        return Err(Rejection::Draining);
    }
    let permit = endpoints.homes.acquire(from.ip())?;
    let jwt = admission::token_of(&headers, &uri, "token");
    let admitted = endpoints.admit(jwt).await?;
    let login = body(request, endpoints.settings.frame_bytes).await?;
    let login = posted::initial_login(&login)?;
    let opened = endpoints.homes.open(from.ip(), login, permit, admitted);
    let token = opened.await?;
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

/// `DELETE /v1/sessions/{id}` and `POST …/close`: ends a session. Its call peers get a `leave` with
/// reason `closed`. `POST` exists for `navigator.sendBeacon`.
async fn close(
    State(endpoints): State<Endpoints>,
    Extension(from): Extension<SocketAddr>,
    Path(id): Path<String>,
    headers: HeaderMap,
    uri: Uri,
) -> Result<Response, Rejection> {
    let token = token(&headers, &uri)?;
    if token.session().to_string() != id {
        return Err(Rejection::SessionGone);
    }
    endpoints.homes.post(&token, from.ip(), None, None).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// `POST /v1/messages`: queues all messages or none. The replies are events.
async fn messages(
    State(endpoints): State<Endpoints>,
    Extension(from): Extension<SocketAddr>,
    headers: HeaderMap,
    uri: Uri,
    request: Body,
) -> Result<Response, Rejection> {
    let token = token(&headers, &uri)?;
    let key = match headers.get("idempotency-key") {
        None => None,
        Some(key) => match key.to_str() {
            Ok(key) if (1..=KEY_BYTES).contains(&key.len()) => Some(key),
            _ => {
                return Err(Rejection::Bad(
                    "Invalid Idempotency-Key: send 1 to 128 visible ASCII characters",
                ));
            }
        },
    };
    let permit = endpoints.posts.acquire(from.ip());
    let _permit = permit.map_err(|_| Rejection::TooMany)?;
    // A stranger's body is not received.
    endpoints.homes.authorize(&token).await?;
    let longest = endpoints.settings.frame_bytes;
    let messages = match media_type(&headers).as_str() {
        "application/json" => vec![posted::message(body(request, longest).await?)?],
        "application/x-ndjson" | "application/ndjson" => {
            posted::messages(&body(request, MAX_BATCH_FACTOR * longest).await?)?
        }
        _ => return Err(Rejection::MediaType),
    };
    if messages.len() > MAX_MESSAGES || messages.iter().any(|message| message.len() > longest) {
        return Err(Rejection::TooLarge);
    }
    let posted = endpoints.homes.post(&token, from.ip(), Some(messages), key);
    let accepted = posted.await?;
    let accepted = format!("{{\"accepted\":{accepted}}}\n");
    Ok(json(StatusCode::ACCEPTED, accepted))
}

/// `GET /v1/events`: streams or polls the events after the client's last one.
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
        Some(_) => return Err(Rejection::Bad("Unknown mode: send mode=sse or mode=poll")),
    };
    let permit = endpoints.connections.acquire(from.ip());
    let permit = permit.map_err(|_| Rejection::TooMany)?;
    // Tracked before the stream opens, so that a drain waits for it.
    let tracked = endpoints.phase.track();
    if polls {
        let until = Instant::now() + wait(&headers, &uri)?;
        return poll(&endpoints, &token, from.ip(), after, until).await;
    }
    let reader = endpoints.homes.stream(&token, from.ip(), after).await?;
    let (settings, phase) = (endpoints.settings.http, endpoints.phase.clone());
    let events = EventStream::new(reader, settings, phase, (permit, tracked));
    let events = Body::from_stream(events.chunks());
    let headers = [
        ("content-type", "text/event-stream; charset=utf-8"),
        ("cache-control", "no-store, no-transform"),
        ("x-accel-buffering", "no"),
    ];
    Ok((headers, events).into_response())
}

/// Answers when there are events, when the wait is over, or when the node drains.
async fn poll(
    endpoints: &Endpoints,
    token: &Token,
    from: IpAddr,
    after: EventId,
    until: Instant,
) -> Result<Response, Rejection> {
    let drain = endpoints.phase.draining();
    let unread = tokio::select! {
        biased;
        unread = endpoints.homes.poll(token, from, after, until) => unread?,
        () = drain.cancelled() => Unread::nothing(after),
    };
    Ok(json(StatusCode::OK, page(&unread)))
}

fn page(unread: &Unread) -> String {
    // The text of an event is JSON already.
    let event = |(id, text): &(EventId, String)| format!(r#"{{"id":"{id}","data":{text}}}"#);
    let events: Vec<String> = unread.events.iter().map(event).collect();
    let reset = if unread.reset { r#""reset":true,"# } else { "" };
    let (events, next) = (events.join(","), unread.next);
    format!("{{{reset}\"events\":[{events}],\"next\":\"{next}\"}}\n")
}

/// The client's last event: `?after=`, or the header that an `EventSource` sends when it
/// reconnects.
fn after(headers: &HeaderMap, uri: &Uri) -> Result<EventId, Rejection> {
    let header = text(headers, "last-event-id");
    let asked = parameter(uri, "after");
    // An EventSource reconnects to its original URL, so its header is newer than `after`.
    match header.or(asked.as_deref()) {
        None | Some("") => Ok(EventId::default()),
        Some(after) => EventId::parse(after).ok_or(Rejection::Bad(
            "Unknown event id: send an id that this server sent, or none",
        )),
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
            Err(_) => Err(Rejection::Bad(
                "Invalid wait: send a whole number of seconds",
            )),
        },
    }
}

/// Receives a body of at most `most` bytes.
async fn body(body: Body, most: usize) -> Result<Bytes, Rejection> {
    match timeout(BODY_WITHIN, axum::body::to_bytes(body, most)).await {
        Ok(Ok(bytes)) => Ok(bytes),
        Ok(Err(_)) => Err(Rejection::TooLarge),
        Err(_) => Err(Rejection::Bad(
            "The body did not arrive within 10 seconds: send it again",
        )),
    }
}

/// A header's value, if it is present and text.
fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

/// A JSON response that is not cached.
fn json(status: StatusCode, body: String) -> Response {
    let headers = [
        ("content-type", "application/json"),
        ("cache-control", "no-store"),
    ];
    (status, headers, body).into_response()
}
