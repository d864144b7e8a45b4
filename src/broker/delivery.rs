//! What is sent, its outcome, and what a node receives.

use tokio::sync::mpsc;

use super::{Envelope, Holder, Question};
use crate::model::{Offset, SessionId, UserName};

/// How much of a resumable session's inbox may wait for its client's confirmation.
#[derive(Clone, Copy, Debug)]
pub struct InboxLimits {
    /// Entries.
    pub entries: usize,
    /// Bytes of encoded envelopes.
    pub bytes: usize,
    /// The total [weight](Self::weight) of a sender's entries if it is the only one.
    pub sender_weight: usize,
}

impl InboxLimits {
    /// The limits of every inbox (docs/src/protocol/messages.md).
    pub const DEFAULT: Self = Self {
        entries: 256,
        bytes: 1 << 20,
        sender_weight: 128,
    };

    /// Whether a sender's own weight is fair when all entries weigh `all`: no more than what is free. One sender fills
    /// half of an inbox, two a third each: however many names a flooder has, it leaves room for somebody new
    /// (Choudhury and Hahne, "Dynamic queue length thresholds", 1998, with a factor of 1).
    pub fn is_fair(&self, own: usize, all: usize) -> bool {
        own + all <= 2 * self.sender_weight
    }

    /// The weight of an envelope of so many bytes: one for each 4 KiB begun.
    pub fn weight(bytes: usize) -> usize {
        bytes.div_ceil(4096).max(1)
    }
}

/// How to deliver an envelope.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SendOptions {
    /// Deliver to this session only.
    pub only: Option<SessionId>,
    /// Accept it even if the inbox is full.
    pub always: bool,
    /// The sender is in a call with the holder, or an operator, so it need not be among those who may call it.
    pub in_call: bool,
    /// Publish directly to this plain session, which is known to hold the name, without looking its lease up.
    pub direct: Option<Holder>,
}

impl SendOptions {
    /// Whether an envelope of this user may reach the holder.
    pub fn let_reach(&self, holder: &Holder, from: &UserName) -> bool {
        self.always || self.in_call || holder.lets_call(from)
    }

    /// The only session that may receive the envelope, if there is one.
    pub fn meant(&self) -> Option<SessionId> {
        let direct = self.direct.as_ref().map(|holder| holder.session);
        self.only.or(direct)
    }
}

/// The outcome of a send, if it is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sent {
    /// Accepted for this holder.
    To(Holder),
    /// This holder's inbox is full, for all senders or for this one.
    Full(Holder),
    /// Nobody is subscribed to the channel of this plain holder: its node is reconnecting, or dead. Nothing was
    /// delivered.
    NoSubscriber(Holder),
    /// The user may not be called by the sender, whether or not anybody holds the name.
    NotCallable,
    /// Nobody holds the name, or a session other than the one that was meant.
    Absent,
}

/// One entry of an inbox.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// Its place in the inbox.
    pub id: Offset,
    /// What was sent.
    pub envelope: Envelope,
}

/// What a node receives.
#[derive(Debug)]
pub enum Inbound {
    /// Entries for a resumable session of this node.
    Push {
        /// The session that held the name then.
        session: SessionId,
        /// Its generation then.
        generation: u32,
        /// What was sent, oldest first; never empty.
        entries: Vec<Entry>,
    },
    /// A newer connection has taken this session over.
    Replaced {
        /// The session.
        session: SessionId,
        /// Its generation now.
        generation: u32,
    },
    /// Envelopes for a plain session of this node, which no inbox stores.
    Direct {
        /// The session.
        session: SessionId,
        /// What was sent, oldest first.
        envelopes: Vec<Envelope>,
    },
    /// The barrier of this session came back.
    Barrier(SessionId),
    /// Pushes were missed: by this session, or possibly by all (`None`).
    Gap(Option<SessionId>),
    /// Another node asks whether a session of this node is alive.
    Challenge(Question),
}

/// Where a node receives. Bounded: a push that does not fit becomes an [`Inbound::Gap`].
pub type Inbox = mpsc::Receiver<Inbound>;
