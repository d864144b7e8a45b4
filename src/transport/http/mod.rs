//! Sessions over HTTP: the native protocol for networks that block WebSockets.

mod buffer;
mod home;
mod homes;
mod node;
mod posts;
mod routes;
mod socket;
mod state;
mod stream;
mod task;
mod token;
mod wire;
mod wire_claims;

pub(super) use homes::Homes;
pub(super) use routes::routes;
pub(super) use token::Token;
