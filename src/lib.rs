//! # Switchboard: a WebRTC signalling server that scales out
//!
//! Two people who want to call each other must swap an offer, an answer and ICE candidates before a peer-to-peer
//! connection exists. Clients speak the tutorial's JSON protocol over a WebSocket to any node. Nodes share presence and
//! pass signals on through a *broker*: Redis, or memory for a node alone.
//!
//! ## The path of a signal
//!
//! ```text
//!  WS text ─► transport ─► codec.decode ─► session ─► router.route
//!                                                      ├─ plain peer on this node ──────────────────────────┐
//!                                                      └─ broker.send ═ Redis ═► broker ─► router.deliver ──┤
//!  WS text ◄─ transport ◄─ codec.encode ◄─ session ◄─ mailbox ◄─────────────────────────────────────────────┘
//! ```
//!
//! Transport hands over frames; the session decodes and encodes them. Each send has a receipt: the reply of Redis
//! becomes `Input::Outcome`, and outcomes are acknowledged in the order of sending.
//!
//! A login subscribes to the name's channel, claims or resumes the name in one script, and publishes a *barrier* to
//! that channel. When the barrier is back the node surely receives, and the login is answered. The new connection of a
//! resumed session restores what the old one saved, reads the inbox, and only then reads frames; the old connection is
//! told `replaced` through its node.
//!
//! A session is one task. Its [`state`](session::state) is plain: `on(input, moment)` leaves actions for the connection
//! and effects for the broker. The runner executes the effects and reports their results as inputs.
//!
//! Clients without WebSockets speak the same protocol over HTTP. Their sessions are resumable like any other; the
//! connection is a stream of events or polls, and POSTs. One node is the session's *home*, and a locator in the store
//! says which. Other nodes forward POSTs and polls to the home; a stream makes the node at which it arrives the home.
//!
//! ```text
//!  POST ─► transport ─┬─ at home ───────────────────────────────┬─► home ─► session … session ─► home ─► SSE or poll
//!                     └─ broker.ask ═ Redis ═► transport there ─┘
//! ```
//!
//! Data flows one way. Nothing lower holds a reference to anything higher: the broker hands out a receiver and never
//! takes a callback. To learn the code, read `main.rs`, [`app`], [`session`], [`session::state`], [`router`],
//! [`broker`], in this order.
//!
//! ## Rooms
//!
//! | room | purpose |
//! | --- | --- |
//! | [`model`] | plain values: ids, signals, commands, events, the two kinds of "no" (a refusal, a close reason) |
//! | [`protocol`] | pure codecs between frames and commands or events: native and PeerJS |
//! | [`transport`] | everything HTTP: WebSockets, event streams, polls, PeerJS routes, pages, TLS, admin routes |
//! | [`auth`] | who a client is: tokens, the keys that verify them, and what they allow |
//! | [`session`] | one client's session: its task, its state, its end |
//! | [`router`] | one node's knowledge: names, mailboxes, logins, leases, other nodes, presence, the expiry guard |
//! | [`broker`] | presence and delivery between nodes: a trait with its promises, in memory and over Redis |
//! | [`webhooks`] | tells a receiver what happens to sessions and calls |
//! | [`telemetry`] | log lines, metrics, one trace for each call |
//!
//! `transport → session → router → broker → model` and `session → protocol → model`. `transport` also sees `protocol`
//! (to choose the codec of a path), `router` (to hand it on, and to show it to operators), `broker` (to locate HTTP
//! sessions and to ask their homes), `auth` (to refuse before the upgrade), `drain`, `ice` and `limits`; `webhooks`
//! sees `router` and `broker`; `session` also sees `auth`, `broker` (its inbox and record), `limits`, `ice` and
//! `drain`. `broker` and those above it report to `telemetry`, which knows only `model`. `config` knows the settings of
//! each room, never its behaviour. Only [`app`] sees everything. `tests/it/tidy.rs` checks this.
//!
//! ## Invariants
//!
//! - Values of [`model`] are never serialized. Each border has wire structs of its own.
//! - Only `broker::redis` knows Redis; only `transport` (and the root that wires it) knows axum.
//! - The server never opens a body, and nothing that a client says in one reaches a log.
//! - One task owns a session: its connection, codec, state and timers. Sessions never call each other; they post to
//!   mailboxes.
//! - Nothing waits while delivering. Every queue has a bound, a name for full, and a consequence:
//!
//!   | queue | bound | when it is full |
//!   | --- | --- | --- |
//!   | a session's mailbox | events and bytes; a sender's part: what is free | the sender is told: inbox full ¹ |
//!   | a node's inbound queue | 8,192 events | a resumable session reads its inbox, a plain one is told `missed` |
//!   | a publisher's queue | 8,192 requests and 64 MiB | the sender is told: unavailable |
//!   | signals parked by a publisher: nobody subscribes | 4,096, `redis.timeout` | the sender is told: unavailable |
//!   | sends of one session without an outcome | 32 | the client is not read until one is known |
//!   | a resumable user's inbox | 256 entries, 1 MiB; a sender's part: what is free | the sender is told: inbox full |
//!   | a session's offline queue | 256 names, 1 MiB; 128 signals, 512 KiB a name | the sender is told: absent |
//!   | posts of an HTTP session | 256 messages and 1 MiB | the client is told: try again |
//!   | events of an HTTP session, at its home | 1,024 events and 1 MiB | the oldest goes; an unread one is a reset |
//!   | questions about HTTP sessions | 1,024 waiting, 1,024 in work | the asking node gets no answer |
//!   | facts for webhooks, at their node | 8,192 | the fact is lost and counted |
//!   | events for webhooks | 100,000 in Redis, 10,000 in memory | the oldest is lost and counted |
//!   | spans for the collector | 8,192 (`OTEL_BSP_MAX_QUEUE_SIZE`), 5 minutes | the oldest is dropped and counted |
//!   | log lines for standard error | 4,096 lines and 4 MiB | the line is dropped and counted; a later one says so |
//!
//!   ¹ From another node, whose sender was told that it is delivered: the receiver is told `missed`. Other mail that
//!   does not fit ends the session: its client reads too slowly.
//!
//! - A name has one holder. A session that lost its name is told, and delivers nothing more.
//! - A POST is answered when the outcome of each message is known. Each message has an id: a client repeats what was
//!   not answered, and the current home processes it once.
//! - Only the receiver's session recognises repetitions, by the sender's session and the id.
//! - PeerJS signals to a name that nobody holds wait at their sender, in order. A session that takes the name in time
//!   gets them; otherwise the sender is told that nobody came.
//! - After any kind of ending each call peer gets exactly one `leave`. A session that is resumed has not ended.
//! - Each inbox entry is decided about once, and the decision is saved before the entry can be confirmed: the session's
//!   next connection tells the client what this one told.
//! - A store that may have lost data begins a new *epoch*: every session with an inbox or a call is told that it may
//!   have missed something, and the server sends nothing again.
//! - What is counted for every signal is a plain atomic. Spans of a call are built only if its offer was sampled.
//! - Below `config` nothing reads the environment, and there is no mutable static: two nodes fit in one process.
//!
//! ## Tasks
//!
//! Tasks begin in two places. [`app`] runs the services, and the node drains if one of them ends: the broker's drivers
//! (publishers, node channel, subscriber, probe, gap announcer), the answers to HTTP questions, the inbound pump, the
//! two lease renewers, the reader of revocations, the presence watch, the certificate watcher, the log's sums, the
//! answers for operators, the recorder and the teller of webhooks, the two listeners. [`transport`] runs one task for
//! each connection, which becomes its session, and one for each HTTP session whose home is here.

pub mod model;

pub mod auth;

pub mod protocol;

pub mod broker;

pub mod router;

pub mod session;

pub mod limits;

pub mod ice;

pub mod transport;

pub mod drain;

pub mod telemetry;

pub mod config;

pub mod webhooks;

mod bugs;

pub mod app;
pub mod healthcheck;
pub mod revoke;
