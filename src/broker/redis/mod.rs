//! The broker over Redis. Keys with a time to live are the leases; one channel for each user carries what is sent to
//! them.
//!
//! A request goes through a `publisher` into a `batch`, one pipeline to Redis, whose replies go to the `waiter`s.
//! What arrives on the channels goes through the `subscriber`, which decodes it, and `questions`, which gives answers
//! to who asked and all else to the node's inbound queue. The reply of Redis goes through a `waiter` to the receipt of
//! each envelope.
//!
//! A signal to a plain call peer whose session is known is published directly. Every other envelope goes through
//! `send.lua`, which looks the holder up and stores what is for a resumable user.

mod batch;
mod broker;
mod bundle;
mod channel;
mod commands;
mod config;
mod connect;
mod diagnosis;
mod driver;
mod epoch;
mod events;
mod health;
mod keys;
mod names;
mod nodes;
mod orphans;
mod parked;
mod probe;
mod publisher;
mod questions;
mod refused;
mod renewals;
mod reply;
mod request;
mod rerun;
mod revocations;
mod scripts;
mod store;
mod subscriber;
mod subscriptions;
mod url;
mod waiter;

pub use config::{Config, ConnectError, TlsFiles, Url};
pub use connect::connect;
