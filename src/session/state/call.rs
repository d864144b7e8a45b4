//! One call, as one of its two sessions remembers it.

use std::fmt;
use std::time::SystemTime;

use crate::broker::{Holder, Sender};
use crate::model::{NodeId, SessionId, TraceContext};

/// The `heard` of a leave from a session that ends. It receives nothing more, so no signal that is under way to it can
/// begin a call.
pub(super) const EVERYTHING: u64 = u64::MAX;

/// The session and node of a call peer. A resume changes both; reports may arrive out of order, so the highest
/// generation wins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PeerLocation {
    pub(super) session: SessionId,
    /// Grows with each resume of the session.
    pub(super) generation: u32,
    pub(super) node: NodeId,
}

impl From<&Holder> for PeerLocation {
    fn from(holder: &Holder) -> Self {
        Self {
            session: holder.session,
            generation: holder.generation,
            node: holder.node.clone(),
        }
    }
}

impl From<&Sender> for PeerLocation {
    fn from(sender: &Sender) -> Self {
        Self {
            session: sender.session,
            generation: sender.generation,
            node: sender.node.clone(),
        }
    }
}

impl Call {
    /// The call as far as the peer knows it that has heard this. An offer behind it begins the next call.
    pub(super) fn up_to(self, heard: u64) -> Self {
        Self {
            renewed: self.renewed.min(heard),
            ..self
        }
    }

    pub(super) fn is_with(&self, session: SessionId) -> bool {
        self.peer
            .as_ref()
            .is_some_and(|peer| peer.session == session)
    }

    /// Whether the call is with this session, or with one that is not known yet.
    pub(super) fn may_be_with(&self, session: SessionId) -> bool {
        !self.is_with_other_than(session)
    }

    pub(super) fn is_with_other_than(&self, session: SessionId) -> bool {
        self.peer.is_some() && !self.is_with(session)
    }
}

/// One side of a call.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Call {
    /// Unknown until the outcome of our first offer.
    pub(super) peer: Option<PeerLocation>,
    /// The peer is a plain session, as the outcome of a signal to it said.
    pub(super) is_plain: bool,
    /// The `n` of our own signal that began the call; 0 if the peer began it.
    pub(super) since: u64,
    /// The `n` of our own latest offer or answer.
    pub(super) renewed: u64,
    /// The `n` of the last signal from the peer.
    pub(super) heard: u64,
    /// The `n` of the peer's latest offer or answer. An older `leave` belongs to an earlier call.
    pub(super) joined: u64,
    /// This node found the peer gone. Its `leave` is on the way to our inbox.
    pub(super) given_up: bool,
    /// The call's trace, if calls are traced.
    pub(super) trace: Option<CallTrace>,
    /// One bit for each state that the client has reported since the last offer or answer.
    pub(super) reported: u8,
}

/// The trace of a call, as one side knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct CallTrace {
    /// The parent of further spans.
    pub(super) context: TraceContext,
    /// The peer is known to be in the same trace.
    pub(super) shared: bool,
    /// The client has reported how the call set-up ended. Another offer begins another trace.
    pub(super) ended: bool,
    /// A failure of an unsampled call was recorded.
    pub(super) failed: bool,
    /// When this side's first span of the call started. Unknown after a resume.
    pub(super) begun: Option<SystemTime>,
    /// How many signals this side has sent in a sampled call.
    pub(super) signals: u32,
}

impl CallTrace {
    /// A trace that this side begins, or that the peer `shared`.
    pub(super) fn new(context: TraceContext, shared: bool, begun: Option<SystemTime>) -> Self {
        Self {
            context,
            shared,
            ended: false,
            failed: false,
            begun,
            signals: 0,
        }
    }
}

/// The stored form: `SESSION GENERATION NODE SINCE RENEWED HEARD JOINED`, with `-` for an unknown session or node, then
/// the traceparent if there is one.
impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.peer {
            Some(peer) => write!(f, "{} {} {}", peer.session, peer.generation, peer.node)?,
            None => f.write_str("- 0 -")?,
        }
        let Self {
            since,
            renewed,
            heard,
            joined,
            ..
        } = self;
        write!(f, " {since} {renewed} {heard} {joined}")?;
        match &self.trace {
            Some(trace) => write!(f, " {}", trace.context),
            None => Ok(()),
        }
    }
}

impl Call {
    /// Parses the stored form.
    pub(super) fn read<'a>(mut words: impl Iterator<Item = &'a str>) -> Option<Self> {
        let (session, generation, node) = (words.next()?, words.next()?, words.next()?);
        let peer = match session {
            "-" => None,
            session => Some(PeerLocation {
                session: session.parse().ok()?,
                generation: generation.parse().ok()?,
                node: NodeId::known(node),
            }),
        };
        let mut number = || words.next()?.parse().ok();
        Some(Self {
            peer,
            is_plain: false,
            since: number()?,
            renewed: number()?,
            heard: number()?,
            joined: number()?,
            given_up: false,
            trace: words
                .next()
                .and_then(|word| word.parse().ok())
                .map(|context| CallTrace::new(context, true, None)),
            reported: 0,
        })
    }
}
