//! The instruments of a node: name, unit, help text and label values. docs/src/observability.md has
//! the same table.

use crate::model::{CloseReason, LeaveReason, PairKind, PeerState, Refusal, SignalKind};

/// The description of an instrument.
#[derive(Clone, Copy, Debug)]
pub(super) struct Instrument {
    /// Its name. Prometheus shows underscores, the unit, and `_total` for counters.
    pub(super) name: &'static str,
    /// Its unit (UCUM).
    pub(super) unit: &'static str,
    /// The help text.
    pub(super) help: &'static str,
}

const fn instrument(name: &'static str, unit: &'static str, help: &'static str) -> Instrument {
    Instrument { name, unit, help }
}

// === Gauges ===

pub(super) const CONNECTIONS: Instrument = instrument(
    "switchboard.connections",
    "{connection}",
    "Open connections of clients, logged in or not, by transport and dialect",
);
pub(super) const SESSIONS: Instrument = instrument(
    "switchboard.sessions",
    "{session}",
    "Logged-in sessions with a connection, by transport and dialect",
);
pub(super) const NAMES: Instrument = instrument(
    "switchboard.names",
    "{name}",
    "Names that sessions of this node hold, those of sessions between connections among them",
);
pub(super) const CALLS: Instrument = instrument(
    "switchboard.calls",
    "{side}",
    "Sides of calls that this node holds; a call has two, on one node or on two",
);
pub(super) const NODES_SEEN: Instrument = instrument(
    "switchboard.nodes.seen",
    "{node}",
    "Other nodes that call peers or receivers were lately found on, and that live",
);
pub(super) const READY: Instrument = instrument(
    "switchboard.ready",
    "",
    "1 if the node is ready for new sessions, as /readyz says; 0 while it drains",
);
pub(super) const DRAINING: Instrument = instrument(
    "switchboard.draining",
    "",
    "1 while the node sends its sessions elsewhere",
);
pub(super) const FABRIC_REACHED: Instrument = instrument(
    "switchboard.fabric.reached",
    "",
    "1 if Redis has answered the last beat of the node",
);
pub(super) const FABRIC_USABLE: Instrument = instrument(
    "switchboard.fabric.usable",
    "",
    "1 if Redis does everything that the node needs, as the last probe found",
);
pub(super) const FABRIC_QUEUE: Instrument = instrument(
    "switchboard.fabric.queue",
    "{job}",
    "Signals and questions that wait for a publisher",
);
pub(super) const WEBHOOKS_WAITING: Instrument = instrument(
    "switchboard.webhooks.waiting",
    "{event}",
    "Events that wait for the receiver of webhooks, at the node that tells them; 0 at the others",
);
pub(super) const BUILD: Instrument = instrument(
    "switchboard.build.info",
    "",
    "1, with the version and the kind of broker as labels",
);

// === Counters ===

pub(super) const LOGINS: Instrument = instrument(
    "switchboard.logins",
    "{login}",
    "Logins that were answered, by result: ok, or the code of the refusal",
);
pub(super) const RESUMES: Instrument = instrument(
    "switchboard.resumes",
    "{login}",
    "Tries to resume a session, by result: ok, or the code of the refusal",
);
pub(super) const ENDED: Instrument = instrument(
    "switchboard.sessions.ended",
    "{connection}",
    "Connections that ended, by reason",
);
pub(super) const SIGNALS: Instrument = instrument(
    "switchboard.signals",
    "{signal}",
    "Signals that clients sent and whose outcome is known, by kind and outcome",
);
pub(super) const REFUSALS: Instrument = instrument(
    "switchboard.refusals",
    "{error}",
    "Errors that clients were told, by code",
);
pub(super) const LEAVES: Instrument = instrument(
    "switchboard.leaves",
    "{leave}",
    "Ends of calls that call peers were told, by reason",
);
pub(super) const REPORTS: Instrument = instrument(
    "switchboard.reports",
    "{report}",
    "What clients said of their connections, by state and the kind of the chosen pair",
);
pub(super) const MAILBOX_OVERFLOWS: Instrument = instrument(
    "switchboard.mailbox.overflows",
    "{session}",
    "Signals that found no room in the mailbox of a client, and sessions that ended for that",
);
pub(super) const LEASES: Instrument = instrument(
    "switchboard.leases",
    "{lease}",
    "Renewals of users' leases, by result; failed ones are tried again",
);
pub(super) const GAPS: Instrument = instrument(
    "switchboard.fabric.gaps",
    "{gap}",
    "Gaps in what the node hears from Redis: of all sessions (a subscription that began anew) or of one",
);
pub(super) const REDIS_ERRORS: Instrument = instrument(
    "switchboard.redis.errors",
    "{error}",
    "What went wrong with Redis, by kind",
);
pub(super) const SPANS: Instrument = instrument(
    "switchboard.spans",
    "{span}",
    "Spans of sampled calls, by what became of them; failed ones are tried again, dropped ones are lost",
);
pub(super) const PUSHES: Instrument = instrument(
    "switchboard.metrics.pushes",
    "{push}",
    "Pushes of metrics to the collector, by result",
);
pub(super) const LINES_DROPPED: Instrument = instrument(
    "switchboard.log.lines.dropped",
    "{line}",
    "Log lines that were dropped, because whoever reads standard error was too slow",
);

pub(super) const WEBHOOKS: Instrument = instrument(
    "switchboard.webhooks",
    "{event}",
    "Events for the receiver of webhooks, by what became of them; failed ones are tried again, \
     dead and lost ones are not",
);

// === Histograms ===

pub(super) const SETUP: Instrument = instrument(
    "switchboard.call.setup.duration",
    "s",
    "From the offer to a connection, as clients reported it, by the kind of the chosen pair",
);
pub(super) const DELIVERY: Instrument = instrument(
    "switchboard.delivery.duration",
    "s",
    "From the arrival of a signal in its receiver's node, or in its mailbox, \
     until it was written to the connection; one in 16 is timed",
);
pub(super) const BATCH: Instrument = instrument(
    "switchboard.fabric.batch.size",
    "{command}",
    "Signals and questions that left in one pipeline",
);
pub(super) const REDIS: Instrument = instrument(
    "switchboard.redis.duration",
    "s",
    "From a pipeline's departure until its last answer",
);
pub(super) const PROBE: Instrument = instrument(
    "switchboard.fabric.probe.duration",
    "s",
    "Once a second: from publishing to oneself until it was heard by the subscription",
);

// === Label values ===

pub(super) const TRANSPORTS: &[&str] = &["websocket", "http"];
pub(super) const DIALECTS: &[&str] = &["native", "peerjs"];
pub(super) const GAP_SCOPES: &[&str] = &["all", "session"];
pub(super) const SPAN_RESULTS: &[&str] = &["exported", "failed", "dropped"];
pub(super) const PUSH_RESULTS: &[&str] = &["exported", "failed"];
pub(super) const WEBHOOK_RESULTS: &[&str] = &["delivered", "failed", "dead", "lost"];
pub(super) const LOGIN_RESULTS: &[&str] = &[
    "ok",
    "already_logged_in",
    "draining",
    "invalid_name",
    "name_taken",
    "unauthorized",
    "unavailable",
];
pub(super) const RESUME_RESULTS: &[&str] = &[
    "ok",
    "already_logged_in",
    "draining",
    "invalid_name",
    "overloaded",
    "replaced",
    "resume_failed",
    "unauthorized",
    "unavailable",
];

/// The kinds of signals, and `leave`.
pub(super) fn signals() -> Vec<&'static str> {
    let kinds = SignalKind::ALL.into_iter().map(SignalKind::as_str);
    kinds.chain(["leave"]).collect()
}

pub(super) fn endings() -> Vec<&'static str> {
    CloseReason::ALL
        .into_iter()
        .map(CloseReason::label)
        .collect()
}

pub(super) fn reasons() -> Vec<&'static str> {
    LeaveReason::ALL
        .into_iter()
        .map(LeaveReason::as_str)
        .collect()
}

pub(super) fn states() -> Vec<&'static str> {
    PeerState::ALL.into_iter().map(PeerState::as_str).collect()
}

/// The kinds of candidate pairs, and `unknown`.
pub(super) fn pairs() -> Vec<&'static str> {
    let kinds = PairKind::ALL.into_iter().map(PairKind::as_str);
    kinds.chain(["unknown"]).collect()
}

pub(super) fn codes() -> Vec<&'static str> {
    Refusal::CODES.to_vec()
}
