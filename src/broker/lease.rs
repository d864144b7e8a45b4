//! Leases: which session holds a name, on which node, and for how long.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::model::{Address, NodeId, SessionId};

/// Lifetimes and time-outs that apply to every broker.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    /// Time to live of a user's lease.
    pub user_ttl: Duration,
    /// Time to live of a node's own lease.
    pub node_ttl: Duration,
    /// How long a holder may take to answer a challenge.
    pub challenge: Duration,
    /// How long a resumable session survives without a connection.
    pub grace: Duration,
}

impl Terms {
    /// The longest time between two renewals of a node's lease that is not a stall: 2 s for a lease of 5 s.
    pub fn longest_gap(&self) -> Duration {
        self.node_ttl * 2 / 5
    }
}

/// A session's hold on a name, as its own node knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// The name.
    pub address: Address,
    /// The session that holds it.
    pub session: SessionId,
    /// Grows with each resume of the session.
    pub generation: u32,
    /// The kind of session.
    pub flags: Flags,
}

/// The kind of session that holds a name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags {
    /// It outlives its connection.
    pub resumable: bool,
    /// It has no connection now.
    pub detached: bool,
}

/// A lease as other nodes see it. The displayed text is the stored one: `NODE SESSION GENERATION FLAGS`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// The node of the session.
    pub node: NodeId,
    /// The session.
    pub session: SessionId,
    /// Grows with each resume of the session.
    pub generation: u32,
    /// The kind of session.
    pub flags: Flags,
}

impl Lease {
    /// This lease as held by `node`.
    pub fn held_by(&self, node: &NodeId) -> Holder {
        Holder {
            node: node.clone(),
            session: self.session,
            generation: self.generation,
            flags: self.flags,
        }
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let flags = match (self.flags.resumable, self.flags.detached) {
            (false, _) => "-",
            (true, false) => "r",
            (true, true) => "rd",
        };
        write!(
            f,
            "{} {} {} {flags}",
            self.node, self.session, self.generation
        )
    }
}

/// The stored text is not a holder. Probably another program writes keys under our prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a lease; does another program use the same redis.prefix?")]
pub struct InvalidHolder;

impl FromStr for Holder {
    type Err = InvalidHolder;

    fn from_str(text: &str) -> Result<Self, InvalidHolder> {
        let mut words = text.split(' ');
        let mut word = || words.next().ok_or(InvalidHolder);
        Ok(Self {
            node: NodeId::known(word()?),
            session: word()?.parse().map_err(|_| InvalidHolder)?,
            generation: word()?.parse().map_err(|_| InvalidHolder)?,
            flags: word().map(|flags| Flags {
                resumable: flags.contains('r'),
                detached: flags.contains('d'),
            })?,
        })
    }
}

/// The result of a claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Claim {
    /// The name is ours.
    Won,
    /// This holder has the name.
    Held(Holder),
    /// The name is free, and reserved for somebody else for so long.
    Reserved(Duration),
}

/// How long a name is reserved.
pub const RESERVED_FOR: Duration = Duration::from_secs(10);

/// The result of a renewal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Renewal {
    /// Prolonged.
    Mine,
    /// The store had lost the lease, or still had the one before our resume. It is ours again.
    Regained,
    /// The lease of a resumable session had run out, because Redis did not answer for so long. It is ours again, and the
    /// inbox was kept: nothing is lost.
    Restored,
    /// A newer connection of the same session holds the name.
    Replaced,
    /// Another session holds the name.
    Lost,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holder_round_trips_through_text() {
        for flags in ["-", "r", "rd"] {
            let text = format!("node-1.00c0ffee {:032x} 7 {flags}", 42);
            assert_eq!(text.parse::<Holder>().unwrap().to_string(), text);
        }
        for invalid in ["", "node", "node session 1 -", "a b c d"] {
            assert_eq!(invalid.parse::<Holder>(), Err(InvalidHolder));
        }
    }
}
