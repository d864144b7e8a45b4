//! The house and the town: real `WebSockets` to real nodes, on the embedded switch and on a real Redis.

#![allow(clippy::unwrap_used, missing_docs, unreachable_pub)]

#[path = "../support/mod.rs"]
mod support;

mod calls;
mod conformance;
mod defences;
mod drain;
mod http_calls;
mod http_door;
mod http_moves;
mod ice;
mod ops;
mod pages;
mod paths;
mod peerjs;
mod presence;
mod resume;
mod tidy;
mod tls;
mod transcripts;
