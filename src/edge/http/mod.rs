//! HTTP as a transport: the native protocol for networks that let no WebSocket through.

mod answer;
mod buffer;
mod denied;
mod event;
mod events;
mod home;
mod homes;
mod messages;
mod node;
mod posts;
mod requests;
mod sessions;
mod socket;
mod state;
mod stream;
mod task;
mod token;
mod wire;

pub(super) use homes::Homes;
pub(super) use token::Token;

use axum::Router;
use axum::routing::{delete, get, post};

use super::Doors;

pub(super) fn routes() -> Router<Doors> {
    Router::new()
        .route("/v1/sessions", post(sessions::open))
        .route("/v1/sessions/{id}", delete(sessions::close))
        .route("/v1/sessions/{id}/close", post(sessions::close))
        .route("/v1/events", get(events::read))
        .route("/v1/messages", post(messages::post))
}
