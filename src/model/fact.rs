//! Facts: what happened to sessions and calls, for whoever is told by webhooks.

use std::time::SystemTime;

use sha2::{Digest as _, Sha256};

use super::{Address, LeaveReason, PairKind, SessionId, UserName};

/// Something that happened to a session, as its node knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fact {
    /// The session.
    pub session: SessionId,
    /// Grows with each resume of the session.
    pub generation: u32,
    /// The user.
    pub address: Address,
    /// When it happened.
    pub at: SystemTime,
    /// What happened.
    pub what: What,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// A user logged in.
    Started,
    /// The session goes on, on this node.
    Resumed,
    /// The session goes on elsewhere, with its calls with these sessions.
    Moved(Vec<SessionId>),
    /// The session is over.
    Ended(LeaveReason),
    /// Something about a call of the session.
    Call(CallFact),
}

/// Something about a call, as one side knows it. Both sides tell, and the first that does is believed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallFact {
    /// The other user, in the same realm.
    pub peer: UserName,
    /// The other session.
    pub with: SessionId,
    /// Whether this side sent the offer that began the call, as far as it knows.
    pub began: bool,
    /// The number of that offer, among what the session sent that began the call.
    pub n: u64,
    /// The number of the latest offer or answer of this side, and of the other.
    pub latest: (u64, u64),
    /// What happened to the call.
    pub what: CallNews,
}

/// What happened to a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallNews {
    /// An offer was delivered that began it.
    Started,
    /// An answer was delivered.
    Answered,
    /// A client says which kind of pair connects it.
    Connected(PairKind),
    /// It goes on at this node, of this side.
    Here,
    /// It is over.
    Ended(LeaveReason),
}

impl Fact {
    /// The address of the other user of a call.
    pub fn peer_address(&self, call: &CallFact) -> Address {
        Address::new(self.address.realm.clone(), call.peer.clone())
    }
}

impl CallFact {
    /// The id of the call. Both sides derive the same, unless both called at once.
    pub fn id(&self, own: SessionId) -> String {
        let starter = if self.began { own } else { self.with };
        let digest = Sha256::digest(format!("{starter} {}", self.n));
        hex::encode(&digest[..16])
    }
}
