//! Behaviour of nodes that run in the test's process: real connections, over memory and over a real Redis.

#![allow(clippy::unwrap_used, missing_docs, unreachable_pub)]

mod admin;
mod book;
mod calls;
mod conformance;
mod defences;
mod drain;
mod field;
mod http_calls;
mod http_moves;
mod http_sessions;
mod ice;
mod ops;
mod pages;
mod paths;
mod peerjs;
mod presence;
mod proxies;
mod redis_refuses;
mod redis_tls;
mod resume;
mod schema;
mod tidy;
mod tls;
mod tokens;
mod transcripts;
