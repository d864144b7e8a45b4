//! One call, as one session remembers it; the other side remembers the same.

use std::fmt;

use crate::broker::{Holder, Sender};
use crate::model::{NodeId, SessionId, TraceContext};

/// What the leave of a session says that it has heard, which will hear nothing more: whatever is under way to it begins no call.
pub(super) const EVERYTHING: u64 = u64::MAX;

/// Where the peer of a call is. What tells of an earlier connection of its session may come later: the latest connection is believed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PeerLocation {
    pub(super) session: SessionId,
    /// How often the session had been resumed.
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
    pub(super) fn is_with(&self, session: SessionId) -> bool {
        self.peer
            .as_ref()
            .is_some_and(|peer| peer.session == session)
    }

    /// Whether it is with this session, or with one that is not known yet.
    pub(super) fn may_be_with(&self, session: SessionId) -> bool {
        !self.is_with_other_than(session)
    }

    pub(super) fn is_with_other_than(&self, session: SessionId) -> bool {
        self.peer.is_some() && !self.is_with(session)
    }
}

/// One call, from one side.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Call {
    /// Unknown until the outcome of the first offer.
    pub(super) peer: Option<PeerLocation>,
    /// The peer is a plain session, as the outcome of a signal to it said.
    pub(super) is_plain: bool,
    /// The `n` of our own signal that began this call; 0 if the peer's did.
    pub(super) since: u64,
    /// The `n` of our own latest offer or answer.
    pub(super) renewed: u64,
    /// The `n` of the last that was heard from the peer.
    pub(super) heard: u64,
    /// The `n` of the peer's latest offer or answer: a leave that is older is of an earlier call.
    pub(super) joined: u64,
    /// Our own node has found the peer gone; its leave is on the way to our inbox.
    pub(super) given_up: bool,
    /// Its trace, if calls are traced.
    pub(super) trace: Option<CallTrace>,
    /// A bit for each state that the client has reported since the last offer or answer.
    pub(super) reported: u8,
}

/// The trace of one call, from one side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct CallTrace {
    /// What further spans are children of.
    pub(super) context: TraceContext,
    /// The peer is known to be in it too.
    pub(super) shared: bool,
    /// The client has told how it ended: another offer begins another.
    pub(super) ended: bool,
    /// A failure was told of a call whose spans are not built.
    pub(super) failed: bool,
}

impl CallTrace {
    /// One that this side begins, or has from its peer.
    pub(super) fn new(context: TraceContext, shared: bool) -> Self {
        Self {
            context,
            shared,
            ended: false,
            failed: false,
        }
    }
}

/// As it is noted: `SESSION ATTACH NODE SINCE RENEWED HEARD JOINED`, with `-` for what is not known, and a traceparent if there is one.
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
    /// Reads the words of a note.
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
                .map(|context| CallTrace::new(context, true)),
            reported: 0,
        })
    }
}
