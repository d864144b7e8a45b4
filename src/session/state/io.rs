//! The inputs of a session's state, and its actions and effects.

use std::time::Duration;

use tokio::time::Instant;

use super::LostPeer;
use crate::broker::{
    Answer, BrokerError, Entry, Envelope, Holder, Question, RecordUpdate, SendOptions, Verdict,
};
use crate::model::{
    Address, CallFact, CloseReason, Correlation, Event, IfAbsent, LeaveReason, LeaveTarget, Offset,
    Refusal, Report, Signal, TraceContext, UserName,
};
use crate::router::Mail;
use crate::telemetry::CallSpan;

/// The circumstances in which an input is handled.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// The time.
    pub now: Instant,
    /// How much longer the expiry guard holds, if it does: meanwhile nobody counts as dead.
    pub guard: Option<Duration>,
}

/// How sessions of one protocol differ from native ones.
#[derive(Clone, Copy, Debug, Default)]
pub struct SessionPolicy {
    /// The longest time without a connection that a session survives; `None` for the node's limit.
    pub grace: Option<Duration>,
    /// How long signals wait for absent users; zero if they do not wait.
    pub offline_ttl: Duration,
    /// Whether to ping after each offer and answer, so that the client confirms it at once. For clients that cannot say
    /// what they have seen when they resume, and do not expect repetitions.
    pub confirms_calls: bool,
}

/// An input of a session's state.
#[derive(Debug)]
pub enum Input {
    /// The client sends a signal.
    Send {
        /// The receiver.
        to: UserName,
        /// The signal.
        signal: Signal,
        /// The client's own trace, if it sends one.
        trace: Option<TraceContext>,
        /// The request's id, if the client wants an answer.
        id: Option<Correlation>,
        /// What to do if nobody holds the name.
        if_absent: IfAbsent,
    },
    /// A signal of the client was refused before it came here.
    Refused {
        /// The receiver.
        to: UserName,
        /// The request's id, if the client wants an answer.
        id: Option<Correlation>,
        /// Why.
        why: Refusal,
    },
    /// The client ends calls.
    Leave {
        /// Which calls.
        whom: LeaveTarget,
        /// The request's id, if the client wants an answer.
        id: Option<Correlation>,
    },
    /// The client reports the state of its connection to a call peer.
    Report {
        /// The peer.
        with: UserName,
        /// The report.
        report: Report,
        /// The request's id, if the client wants an answer.
        id: Option<Correlation>,
    },
    /// The client's application has all inbox entries up to this one. From now on, pongs confirm nothing.
    Confirm(Offset),
    /// This ping was written behind all actions so far.
    Pinged(u64),
    /// The client answered this ping.
    Ponged(u64),
    /// The answer to the pending challenges.
    Answer(Verdict),
    /// Mail from other sessions or the node.
    Mail(Mail),
    /// The mailbox overflowed.
    Overflow,
    /// The outcome of the earliest send that has none yet.
    Outcome(Answer),
    /// The result of [`Effect::Read`].
    InboxRead(Result<Vec<Entry>, BrokerError>),
    /// The result of the [`Effect::Save`] with this number: false if another connection holds the session.
    Saved(u64, Result<bool, BrokerError>),
    /// The result of [`Effect::FindPeers`].
    PeersFound(Vec<FoundPeer>),
    /// The time that [`next_at`](super::State::next_at) returned has come.
    Due,
    /// The store had lost the lease, the inbox and the record. The lease is restored, in this epoch.
    Regained(u64),
    /// The connection is gone, and the session waits for its client to resume.
    Detach,
    /// Retry the saves and notices that have failed. Sent while the session ends or the node stops.
    Retry,
    /// Update the record now.
    Save,
    /// Inbox entries behind the last one that was handled.
    Entries(Vec<Entry>),
    /// The session ends. All calls end for this reason.
    End(LeaveReason),
    /// Give up notices whose receivers' nodes have not been subscribed for a while, and if `absent`, those whose
    /// receivers hold no name.
    GiveUp {
        /// Whether the store is intact, so that an absent user is surely gone.
        absent: bool,
    },
}

/// A lost call peer, whether its node is alive, and who holds its name.
pub type FoundPeer = (LostPeer, bool, Option<Holder>);

/// Something to do at the client's connection, in order.
#[derive(Debug)]
pub enum Action {
    /// Send the client an event.
    Tell(Event),
    /// End this span when everything before it is written.
    EndSpan(CallSpan),
    /// Ping the client and expect an answer soon: another session wants its name.
    Challenge,
    /// Ping the client. Its pong confirms everything that was written before.
    Ping,
    /// Close the connection.
    End(CloseReason),
}

/// Something to do at the broker or the node, in order.
#[derive(Debug)]
pub enum Effect {
    /// Send an envelope. The outcome comes as [`Input::Outcome`].
    Send {
        /// The receiver.
        to: Address,
        /// How to deliver it.
        options: SendOptions,
        /// The envelope.
        envelope: Box<Envelope>,
        /// A success need not wake the session.
        is_quiet: bool,
        /// The time of the outcome is needed, for a span.
        is_timed: bool,
    },
    /// Update the session's record. If it has a number, the result comes as [`Input::Saved`].
    Save(Option<u64>, Box<RecordUpdate>),
    /// Read the inbox behind this entry, after a pause. The result comes as [`Input::InboxRead`]. Replaces a read in
    /// flight.
    Read(Offset, Duration),
    /// Cancel the read in flight.
    StopReading,
    /// Read who holds the names of these peers. The result comes as [`Input::PeersFound`].
    FindPeers(Vec<LostPeer>),
    /// Look up who holds this name. The result comes as [`Mail::Looked`].
    LookUp(Address),
    /// Release the name of a dead holder. Best effort: otherwise the lease expires.
    Release(Address, Holder),
    /// Answer a challenge.
    Answer(Question, Verdict),
    /// Tell what happened to a call.
    Tell(Box<CallFact>),
}
