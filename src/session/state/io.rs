//! What goes into a session's state and what comes out of it.

use std::time::Duration;

use tokio::time::Instant;

use super::LostPeer;
use crate::broker::{
    Answer, BrokerError, Entry, Envelope, Holder, Question, RecordUpdate, SendOptions, Verdict,
};
use crate::model::{
    Address, CloseReason, Correlation, Event, IfAbsent, LeaveReason, LeaveTarget, Offset, Report,
    Signal, TraceContext, UserName,
};
use crate::router::Mail;
use crate::telemetry::CallSpan;

/// What holds while one input is handled.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// The time.
    pub now: Instant,
    /// While the expiry guard holds, for how much longer: nobody is believed dead.
    pub guard: Option<Duration>,
}

/// How sessions of one protocol differ from native ones.
#[derive(Clone, Copy, Debug, Default)]
pub struct SessionPolicy {
    /// How long a session survives without a connection, at most; `None`: as long as the node allows.
    pub grace: Option<Duration>,
    /// How long its signals wait for users who are not here; zero: not at all.
    pub offline_ttl: Duration,
    /// Whether an offer or an answer is confirmed at once, since its client cannot say what it has seen and minds a repetition.
    pub confirms_calls: bool,
}

/// Something that happens to a session.
#[derive(Debug)]
pub enum Input {
    /// The client sends a signal.
    Send {
        /// To whom.
        to: UserName,
        /// What.
        signal: Signal,
        /// The trace that the client is in.
        trace: Option<TraceContext>,
        /// How the client calls it, if it wants an answer.
        id: Option<Correlation>,
        /// What becomes of it if nobody has the name.
        if_absent: IfAbsent,
    },
    /// The client ends calls.
    Leave {
        /// Which.
        whom: LeaveTarget,
        /// How the client calls this, if it wants an answer.
        id: Option<Correlation>,
    },
    /// The client tells how its connection to a call peer is.
    Report {
        /// The peer.
        with: UserName,
        /// How it is.
        report: Report,
        /// How the client calls this, if it wants an answer.
        id: Option<Correlation>,
    },
    /// The client has everything of its inbox up to here.
    Confirm(Offset),
    /// The client was sent this ping, behind everything that it was told.
    Pinged(u64),
    /// The client has answered this ping.
    Ponged(u64),
    /// Whether the session still answers, for the nodes that have asked.
    Answer(Verdict),
    /// Mail from other sessions and from the node.
    Mail(Mail),
    /// More mail came than the mailbox holds.
    Overflow,
    /// The outcome of the earliest send whose outcome is not known.
    Outcome(Answer),
    /// The answer to [`Effect::Read`].
    InboxRead(Result<Vec<Entry>, BrokerError>),
    /// The answer to [`Effect::Save`] of this number: whether the session was still ours.
    Saved(u64, Result<bool, BrokerError>),
    /// The answer to [`Effect::FindPeers`].
    PeersFound(Vec<FoundPeer>),
    /// The time of [`next_at`](super::State::next_at) has come.
    Due,
    /// The store has forgotten the lease, in this epoch.
    Forgotten(u64),
    /// The connection is gone; the session waits for its client to come back.
    Detach,
    /// The node stops, or cannot reach the broker: what is not written or did not arrive is tried again now.
    Retry,
    /// The record is to be updated now.
    Save,
    /// These entries of the inbox were read, from where the session has read to.
    Entries(Vec<Entry>),
    /// The session ends: each call ends, for this reason.
    End(LeaveReason),
    /// Words that must arrive are given up if their receivers' nodes have not listened for a while, and if their receivers are `absent` from a
    /// store that knows everybody.
    GiveUp {
        /// Whether the store knows everybody.
        absent: bool,
    },
}

/// A lost call peer, whether its node lives, and who holds its name.
pub type FoundPeer = (LostPeer, bool, Option<Holder>);

/// What to do with the client's connection, in order.
#[derive(Debug)]
pub enum Action {
    /// Tell the client.
    Tell(Event),
    /// End this span when everything before it is written.
    EndSpan(CallSpan),
    /// Find out whether the client still answers: somebody wants its name.
    Challenge,
    /// Ping the client: its pong confirms what it was told before.
    Ping,
    /// Close the connection.
    End(CloseReason),
}

/// What to do at the broker or the node, in order.
#[derive(Debug)]
pub enum Effect {
    /// Send an envelope; the outcome comes as [`Input::Outcome`].
    Send {
        /// To whom.
        to: Address,
        /// How.
        options: SendOptions,
        /// What.
        envelope: Box<Envelope>,
        /// A success needs no attention of its own.
        is_quiet: bool,
        /// The time of the outcome matters.
        is_timed: bool,
    },
    /// Update the session's record. With a number, the result comes as [`Input::Saved`].
    Save(Option<u64>, Box<RecordUpdate>),
    /// Read the inbox behind this entry after a pause; the result comes as [`Input::InboxRead`]. Replaces a read under way.
    Read(Offset, Duration),
    /// Give up the read under way.
    StopReading,
    /// Look who holds the names of these peers; the result comes as [`Input::PeersFound`].
    FindPeers(Vec<LostPeer>),
    /// Look who holds this name; the result comes as mail.
    LookUp(Address),
    /// Free the name of a holder that is dead. Should it fail, the lease runs out.
    Release(Address, Holder),
    /// Answer a node that asks whether the session still answers.
    Answer(Question, Verdict),
}
