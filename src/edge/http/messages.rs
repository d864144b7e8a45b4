//! `POST /v1/messages`: one message, or a line for each of several.

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::Response;

use super::super::Doors;
use super::super::reject::Rejection;
use super::posts::MOST_MESSAGES;
use super::requests::{body, json, text};
use super::token::token;
use crate::dialect::posted;

/// A request with several messages may be so many times as long as one message.
const LONGEST_AT_ONCE: usize = 4;
/// The longest idempotency key, in bytes.
const KEY_BYTES: usize = 128;

/// Takes all messages or none. What comes of them is told as events.
pub(super) async fn post(
    State(doors): State<Doors>,
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
    let kind = text(&headers, header::CONTENT_TYPE).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim();
    let longest = doors.settings.frame_bytes;
    let messages = match kind.to_ascii_lowercase().as_str() {
        "application/json" => vec![posted::message(body(request, longest).await?)?],
        "application/x-ndjson" | "application/ndjson" => {
            posted::messages(&body(request, LONGEST_AT_ONCE * longest).await?)?
        }
        _ => return Err(Rejection::MediaType),
    };
    if messages.len() > MOST_MESSAGES || messages.iter().any(|message| message.len() > longest) {
        return Err(Rejection::TooLarge);
    }
    let accepted = doors.homes.post(&token, Some(messages), key).await?;
    let accepted = format!("{{\"accepted\":{accepted}}}\n");
    Ok(json(StatusCode::ACCEPTED, accepted))
}
