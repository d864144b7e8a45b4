//! A client of the Switchboard signalling server.
//!
//! - [`Session`] outlives its connections: it logs in, resumes, and sends and receives everything once and in order.
//! - [`Calls`] decides which signal belongs to which call, and who gives way when offers cross. Any WebRTC library can
//!   be the [`Peer`].
//!
//! Over WebSockets only. `docs/src/clients.md` says what is promised.
//!
//! From the app down: `calls` → `session` (what apps hold) → `driver` (the task that owns the connection) → `outbox`
//! and `liveness` (pure decisions) → `wire`.

mod calls;
mod driver;
mod entry;
mod liveness;
mod outbox;
mod request;
mod session;
mod socket;
mod wire;

pub use calls::{CallState, Calls, Connected, Event, Happening, Peer, PeerError};
pub use session::{Inbox, Options, Session};
pub use wire::{Description, Error, Message};
