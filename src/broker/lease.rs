//! Leases: which session holds a name, on which node, and for how long.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::model::{Address, Heartbeat, NamePattern, Names, NodeId, SessionId, UserName};

/// The longest that a client hears nothing before it asks: in a call or waiting for an answer, and otherwise.
const BUSY: Duration = Duration::from_secs(4);
const IDLE: Duration = Duration::from_secs(15);

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

    /// How long after the death of its node a resumable session is kept that is in no call. Nobody waits for its user,
    /// and its client may be idle: it notices later.
    pub fn grace_if_idle(&self) -> Duration {
        self.grace + self.idle_longer()
    }

    /// When a client that hears nothing asks and gives up, so that it comes back in time. It hears nothing from the
    /// moment its node dies. The session ends when the node's lease has run out, of which a fifth may have passed
    /// before, and then the grace.
    pub fn heartbeat(&self) -> Heartbeat {
        let kept = self.node_ttl * 4 / 5 + self.grace;
        // Both together are 4/7 of that time. The rest is for the way back.
        let busy = BUSY.min(kept * 2 / 7);
        Heartbeat {
            busy,
            idle: self.idle_longer().max(busy),
            answer: busy,
        }
    }

    /// How much longer an idle session is kept: as long as its client may be idle, if its lease lasts for so long.
    fn idle_longer(&self) -> Duration {
        let shortest_lease = self.user_ttl * 2 / 3;
        IDLE.min(shortest_lease.saturating_sub(self.grace + self.node_ttl * 7 / 5))
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
    /// Who may call the user; `None` for everybody.
    pub callable_by: Option<Names>,
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

/// A lease as other nodes see it. The displayed text is the stored one: `NODE SESSION GENERATION FLAGS`, with
/// `c=PATTERN,PATTERN` before the flags if only these may call the user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// The node of the session.
    pub node: NodeId,
    /// The session.
    pub session: SessionId,
    /// Grows with each resume of the session.
    pub generation: u32,
    /// Who may call the user; `None` for everybody.
    pub callable_by: Option<Names>,
    /// The kind of session.
    pub flags: Flags,
}

/// The prefix of the word with those who may call the user.
const CALLABLE_BY: &str = "c=";

/// The stored form of those who may call a user: a word, and a space behind it. Empty for everybody.
pub(super) fn callable_word(names: Option<&Names>) -> String {
    names.map_or_else(String::new, |names| {
        let names: Vec<String> = names.iter().map(NamePattern::encoded).collect();
        format!("{CALLABLE_BY}{} ", names.join(","))
    })
}

impl Holder {
    /// Whether this user may call the holder, and may know that it is here.
    pub fn lets_call(&self, caller: &UserName) -> bool {
        let names = self.callable_by.as_ref();
        names.is_none_or(|names| names.cover(caller))
    }
}

impl Lease {
    /// This lease as held by `node`.
    pub fn held_by(&self, node: &NodeId) -> Holder {
        Holder {
            node: node.clone(),
            session: self.session,
            generation: self.generation,
            callable_by: self.callable_by.clone(),
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
            "{} {} {} {}{flags}",
            self.node,
            self.session,
            self.generation,
            callable_word(self.callable_by.as_ref())
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
        let node = NodeId::known(word()?);
        let session = word()?.parse().map_err(|_| InvalidHolder)?;
        let generation = word()?.parse().map_err(|_| InvalidHolder)?;
        let (mut flags, mut callable_by) = (word()?, None);
        if let Some(names) = flags.strip_prefix(CALLABLE_BY) {
            let names = names.split(',').filter(|name| !name.is_empty());
            callable_by = Some(names.map(NamePattern::decoded).collect());
            flags = word()?;
        }
        Ok(Self {
            node,
            session,
            generation,
            callable_by,
            flags: Flags {
                resumable: flags.contains('r'),
                detached: flags.contains('d'),
            },
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
    /// The lease of a resumable session had run out, because Redis did not answer for so long. It is ours again, and
    /// the inbox was kept: nothing is lost.
    Restored,
    /// A newer connection of the same session holds the name.
    Replaced,
    /// Another session holds the name.
    Lost,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a client needs to come back once it has noticed: an attempt that is swallowed, and one that succeeds.
    const WAY_BACK: Duration = Duration::from_secs(5);

    fn terms([user_ttl, node_ttl, grace]: [u64; 3]) -> Terms {
        let [user_ttl, node_ttl, grace] = [user_ttl, node_ttl, grace].map(Duration::from_secs);
        let challenge = Duration::from_secs(2);
        Terms {
            user_ttl,
            node_ttl,
            challenge,
            grace,
        }
    }

    /// A machine loses power. Its node's lease was renewed a fifth of its time before, the leases of its users a third.
    #[test]
    fn who_can_come_back_after_the_death_of_a_machine_does_so_in_time() {
        for times in [
            [50, 5, 10],
            [30, 5, 10],
            [100, 5, 30],
            [60, 10, 10],
            [40, 5, 12],
        ] {
            let terms = terms(times);
            let Heartbeat { busy, idle, answer } = terms.heartbeat();
            let lease_left = terms.node_ttl * 4 / 5;
            assert!(
                busy + answer + WAY_BACK <= lease_left + terms.grace,
                "{terms:?}"
            );
            assert!(
                idle + answer + WAY_BACK <= lease_left + terms.grace_if_idle(),
                "{terms:?}"
            );
            let noticed_at_the_latest = terms.node_ttl * 7 / 5;
            assert!(
                noticed_at_the_latest + terms.grace_if_idle() <= terms.user_ttl * 2 / 3,
                "{terms:?}"
            );
        }
    }

    #[test]
    fn by_default_silence_is_noticed_within_8_and_19_seconds() {
        let seconds = Duration::from_secs;
        let terms = terms([50, 5, 10]);
        let (busy, idle, answer) = (seconds(4), seconds(15), seconds(4));
        assert_eq!(terms.heartbeat(), Heartbeat { busy, idle, answer });
        assert_eq!(terms.grace_if_idle(), seconds(25));
    }

    /// Short times are for tests: they need no seconds for the way back.
    #[test]
    fn short_times_add_up_too() {
        for times in [[3, 1, 0], [6, 1, 1], [12, 2, 2]] {
            let terms = terms(times);
            let Heartbeat { busy, idle, answer } = terms.heartbeat();
            let lease_left = terms.node_ttl * 4 / 5;
            assert!(busy + answer < lease_left + terms.grace, "{terms:?}");
            assert!(
                idle + answer < lease_left + terms.grace_if_idle(),
                "{terms:?}"
            );
        }
    }

    #[test]
    fn holder_round_trips_through_text() {
        for flags in ["-", "r", "rd", "c= -", "c=bob,team-*,a%2A%2C%20%C3%BC rd"] {
            let text = format!("node-1.00c0ffee {:032x} 7 {flags}", 42);
            assert_eq!(text.parse::<Holder>().unwrap().to_string(), text);
        }
        for invalid in ["", "node", "node session 1 -", "a b c d"] {
            assert_eq!(invalid.parse::<Holder>(), Err(InvalidHolder));
        }
    }
}
