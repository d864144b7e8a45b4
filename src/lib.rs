//! # Switchboard: a WebRTC signalling server that scales out
//!
//! Two people who want to call each other must swap an offer, an answer and ICE candidates before a peer-to-peer connection exists. Clients
//! speak the tutorial's JSON protocol over a WebSocket to any node; nodes share presence and pass signals on through a *fabric*: a Redis, or
//! nothing at all for a node alone.
//!
//! ## The one message path
//!
//! ```text
//!  WS text ─► edge ─► session ─► dialect.hear ─► exchange.send ─┬─ peer here ─────────────► mailbox ─► session ─► dialect.say ─► WS text
//!                                                                └─ fabric.send ═ Redis ═► inbox ─► exchange.deliver ─┘
//! ```
//!
//! Whoever cannot open a WebSocket speaks the same language over HTTP. Its session is a resumable one like any other; its connection is a stream of
//! events, or polls, and POSTs. One node is its *home*, and a note in the store says which. A POST or a poll that comes to another node is
//! forwarded; a stream makes the node at which it arrives the home.
//!
//! ```text
//!  POST ─► edge ─┬─ at home ───────────────────────────► home ─► session … exchange … session ─► home (buffer) ─► SSE or poll
//!                └─ fabric.ask ═ Redis ═► edge at home ─┘
//! ```
//!
//! Data flows one way. Nothing lower holds a reference to anything higher; the fabric hands out a receiver and never takes a callback.
//! To know the house, read `main.rs`, [`app`], [`session`], [`exchange`], [`fabric`], in this order.
//!
//! ## Arrows
//!
//! `edge → session → exchange → fabric → model` and `session → dialect → model`; `edge` also sees `dialect` (which language a door speaks),
//! `exchange` (to hand it on, and to show it to operators), `fabric` (where HTTP sessions are at home, and what their homes are asked), `drain`,
//! `ice` and `limits`, and `session` sees `limits`, `ice` and `drain`. `fabric` and those above it tell `telemetry` what happens, which knows nothing but `model`. `config` knows the settings of each room,
//! never its behaviour. Only [`app`] sees everything. `tests/it/tidy.rs` holds these arrows.
//!
//! ## Invariants
//!
//! - Words of [`model`] are never serialized. Each border has wire structs of its own.
//! - Only `fabric::redis` knows Redis; only `edge` (and the root that wires it) knows axum.
//! - The server never opens a body, and nothing that a client says in one reaches a log.
//! - One task owns a session: its socket, dialect, seat and clocks. Sessions never call each other, they post to mailboxes.
//! - Nothing waits while delivering; every queue has a bound, a name for full, and a consequence:
//!
//!   | queue | bound | full |
//!   | --- | --- | --- |
//!   | a session's mailbox | events and bytes | the session ends: too slow a reader |
//!   | a node's inbox | 8,192 events | the session has a gap: a resumable one reads its inbox in the store, a plain one is told that it may have missed something |
//!   | a lane to Redis | 8,192 jobs | the sender is told: unavailable |
//!   | sends of one session that wait for the fabric | 32 | the session hears nothing more until one is known |
//!   | a resumable user's inbox in the store | 256 entries and 1 MiB, of one sender half | the sender is told: inbox full |
//!   | what waits in a session for names that nobody holds | 256 names and 1 MiB; for one of them 128 signals and 512 KiB | the sender is told: nobody is here |
//!   | what the client of an HTTP session has said | 256 messages and 1 MiB | the client is told: try again |
//!   | what it was told, at its home | 1,024 events and 1 MiB | the oldest goes; a client that had not read it is told of a reset |
//!   | questions about HTTP sessions | 1,024 waiting, 1,024 under way | the asker hears nothing, and goes on without |
//!   | spans that wait for the collector | 2,048 (`OTEL_BSP_MAX_QUEUE_SIZE`) | the span is dropped |
//!   | letters that a lane has parked, since nobody listens to a plain user's channel | 4,096, `redis.timeout` | the sender is told: unavailable |
//!
//! - A name has one holder. Whoever lost it is told, and delivers nothing more.
//! - A POST is answered when it is known what became of each message, and each has an id: its client says again what was not answered, and whoever
//!   is the home by then does it once.
//! - What waits for a name that nobody holds waits at its sender, in order and before anything later: whoever takes the name is sent it, or the
//!   sender is told that nobody came.
//! - After any kind of ending each call peer hears exactly one `leave`. A session that is resumed has not ended.
//! - What is decided about an entry of a resumable session's inbox is decided once, and written down before it can be confirmed: whoever holds the
//!   session next says what this one said.
//! - A store that may have lost data begins a new *epoch*: every session with an inbox or a call is told that it may have missed something, and nothing is
//!   sent again.
//! - What is counted for every signal is a plain atomic. A call's spans are built if its offer was sampled; without tracing nothing of it is built at all.
//! - Below `config` nobody reads the environment, and there is no mutable static: two nodes fit in one process.
//!
//! ## Tasks
//!
//! Tasks begin in three places. [`app`] runs the services, and a node drains if one of them ends: the fabric's drivers (publisher lanes, node
//! lane, subscriber, gap announcer), the inbox pump, the two lease keepers, the presence watch, the certificate keeper, the two listeners.
//! [`edge`] runs one task for each connection, which becomes its session, and one for each HTTP session that is at home here.

pub mod model;

pub mod dialect;

pub mod fabric;

pub mod exchange;

pub mod session;

pub mod limits;

pub mod ice;

pub mod edge;

pub mod drain;

pub mod telemetry;

pub mod config;

mod bugs;

pub mod app;
pub mod healthcheck;
