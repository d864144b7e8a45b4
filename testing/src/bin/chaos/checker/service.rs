//! I6, I8 and I11: as measured at the processes. I9: outages of Redis. I10: drains.

use std::collections::HashSet;
use std::time::Duration;

use super::{Case, Conn, is_caller, secs};
use crate::cluster::DRAIN_DEADLINE;
use crate::history::{Drain, Kind, Trouble, What};

/// Shorter outages end before a node must notice them.
const OUTAGE: Duration = Duration::from_secs(2);
const REFUSED_WITHIN: Duration = Duration::from_millis(2600);
/// The drain deadline of five seconds, and one more for a busy machine.
const BACK_WITHIN: Duration = Duration::from_secs(6);
const OTHERWISE_STRUCK: &[Kind] = &[
    Kind::NodeDead,
    Kind::NodeFrozen,
    Kind::NodeDrained,
    Kind::ClientEdge,
    Kind::RedisEdge,
    Kind::Stall,
];
/// Pairs whose sides stay on the same node.
const SAME_NODE: &[(&str, &str)] = &[("p0", "p1"), ("p2", "p3")];

pub(super) fn judge(case: &mut Case<'_>) {
    let record = case.record;
    for finding in &record.findings {
        case.violated(finding.invariant, finding.at, finding.evidence.clone());
    }
    for invariant in [6, 8, 11] {
        case.judged(invariant);
    }
    let outages = record.troubles.iter().filter(|trouble| {
        trouble.kind == Kind::RedisAway && trouble.until.saturating_sub(trouble.from) >= OUTAGE
    });
    for outage in outages {
        sockets_stay(case, outage);
        neighbours_talk(case, outage);
        others_are_told(case, outage);
        all_are_back(case, outage);
    }
    for drain in &record.drains {
        drained(case, drain);
    }
}

fn sockets_stay(case: &mut Case<'_>, outage: &Trouble) {
    let (from, until) = (outage.from + secs(0.3), outage.until + secs(1.0));
    for conn in case.conns.clone() {
        let Some((at, code)) = conn.closed else {
            continue;
        };
        let ours = conn.abandoned || conn.until < at || case.succeeded(&conn, at);
        if !is_caller(conn.who) || conn.from > outage.from || at < from || at > until || ours {
            continue;
        }
        if !case.troubled(
            OTHERWISE_STRUCK,
            conn.node,
            at.saturating_sub(secs(6.0)),
            at,
        ) {
            let words = format!(
                "{}'s connection to node {} ended with {code:?} while Redis was away",
                conn.who, conn.node
            );
            case.violated(9, at, words);
        }
    }
}

impl Case<'_> {
    /// Whether the same client was logged in on another connection at this time.
    fn succeeded(&self, conn: &Conn<'_>, at: Duration) -> bool {
        let mut later = self
            .conns_of(conn.who)
            .filter(|later| later.index > conn.index);
        later.any(|later| later.from <= at + secs(1.0))
    }

    /// The node to which this client was connected all the time, by one connection.
    fn steady(&self, who: &str, from: Duration, until: Duration) -> Option<usize> {
        self.conns_of(who)
            .find(|conn| conn.from <= from && conn.until >= until)
            .map(|conn| conn.node)
    }

    fn acknowledged(&self, who: &str, from: Duration, until: Duration) -> usize {
        let acks = self.events_of(who).filter(|(_, event)| {
            let is_ack = matches!(&event.what, What::Answered { outcome: Ok(_), .. });
            is_ack && event.at >= from && event.at <= until
        });
        acks.count()
    }

    fn sent(&self, who: &str, from: Duration, until: Duration) -> usize {
        let sent = self.events_of(who).filter(|(_, event)| {
            let is_sent = matches!(&event.what, What::Sent { .. });
            is_sent && event.at >= from && event.at <= until
        });
        sent.count()
    }
}

fn neighbours_talk(case: &mut Case<'_>, outage: &Trouble) {
    let (from, until) = (outage.from + secs(0.3), outage.until);
    for (one, other) in SAME_NODE {
        let steady = |who| case.steady(who, outage.from.saturating_sub(secs(1.0)), until);
        let (Some(node), Some(there)) = (steady(one), steady(other)) else {
            continue;
        };
        let struck = case.troubled(
            OTHERWISE_STRUCK,
            node,
            from.saturating_sub(secs(3.0)),
            until,
        );
        if node != there || struck || case.sent(one, from, until) == 0 {
            continue;
        }
        case.judged(9);
        if case.acknowledged(one, from, until) == 0 {
            let words = format!(
                "{one} and {other}, both on node {node}, could not signal while Redis was away"
            );
            case.violated(9, from, words);
        }
    }
}

fn others_are_told(case: &mut Case<'_>, outage: &Trouble) {
    let alone: HashSet<&str> = SAME_NODE.iter().flat_map(|(a, b)| [*a, *b]).collect();
    let until = outage.until.saturating_sub(REFUSED_WITHIN);
    let record = case.record;
    for (index, event) in record.events.iter().enumerate() {
        let What::Sent { id, .. } = &event.what else {
            continue;
        };
        let in_time = event.at > outage.from + secs(0.2) && event.at < until;
        if !in_time || !is_caller(&event.who) || alone.contains(&*event.who) {
            continue;
        }
        let by = event.at + REFUSED_WITHIN;
        let Some(conn) = case.conn(event.conn) else {
            continue;
        };
        let since = event.at.saturating_sub(secs(6.0));
        if conn.until < by || case.troubled(OTHERWISE_STRUCK, conn.node, since, by) {
            continue;
        }
        let node = conn.node;
        let mut later = record.events[index..].iter();
        let answered = later
            .by_ref()
            .take_while(|later| later.at <= by)
            .any(|later| {
                later.conn == event.conn
                    && matches!(&later.what, What::Answered { id: answered, .. } if answered == id)
            });
        case.judged(9);
        if !answered {
            let words = format!(
                "{} on node {node} was not told about {id} within {REFUSED_WITHIN:?} while Redis was away",
                event.who
            );
            case.violated(9, event.at, words);
        }
    }
}

fn all_are_back(case: &mut Case<'_>, outage: &Trouble) {
    let (from, until) = (outage.until, outage.until + BACK_WITHIN);
    let steady: Vec<(String, String)> = case
        .conns
        .iter()
        .filter(|conn| is_caller(conn.who) && conn.from <= from && conn.until >= until)
        .map(|conn| (conn.who.to_owned(), peer_of(conn.who)))
        .collect();
    let others = [Kind::RedisAway, Kind::DataLoss, Kind::RedisCut];
    for (one, peer) in steady {
        let again = case.record.troubles.iter().any(|trouble| {
            let is_other = others.contains(&trouble.kind) && trouble.from > outage.from;
            is_other && trouble.overlaps(from, until)
        });
        let since = outage.from.saturating_sub(secs(3.0));
        let struck = [&one, &peer]
            .iter()
            .any(|who| case.troubled_at(OTHERWISE_STRUCK, who, since, until));
        let unsteady = case.steady(&peer, from, until).is_none();
        if again || struck || unsteady || case.sent(&one, from, from + secs(3.0)) == 0 {
            continue;
        }
        case.judged(9);
        if case.acknowledged(&one, from, until) == 0 {
            let words =
                format!("{one} could not reach {peer} for {BACK_WITHIN:?} after Redis was back");
            case.violated(9, from, words);
        }
    }
}

/// Callers are numbered in pairs.
fn peer_of(who: &str) -> String {
    let (kind, number) = who.split_at(1);
    let number: usize = number.parse().unwrap_or_default();
    format!("{kind}{}", number ^ 1)
}

fn drained(case: &mut Case<'_>, drain: &Drain) {
    let Drain {
        node,
        from,
        until,
        code,
    } = *drain;
    case.judged(10);
    let since = from.saturating_sub(secs(3.0));
    let hindered = [
        Kind::RedisAway,
        Kind::RedisEdge,
        Kind::NodeFrozen,
        Kind::Stall,
    ];
    let is_hindered = case.troubled(&hindered, node, since, until);
    if code != Some(0) && !is_hindered {
        let words = format!(
            "node {node} drained for {:.1?} and ended with {code:?}",
            until.saturating_sub(from)
        );
        case.violated(10, from, words);
    }
    if until.saturating_sub(from) > DRAIN_DEADLINE + secs(1.0) {
        let words = format!(
            "node {node} took {:.1?} to drain",
            until.saturating_sub(from)
        );
        case.violated(10, from, words);
    }
    let there: Vec<Conn<'_>> = case
        .conns
        .iter()
        .filter(|conn| conn.node == node && is_caller(conn.who))
        .filter(|conn| conn.from < from && conn.until > from)
        .cloned()
        .collect();
    for conn in there {
        // Clients that leave by themselves, or do not read, cannot be told.
        let deaf = [Kind::ClientEdge, Kind::NodeFrozen, Kind::Stall];
        if conn.abandoned || case.troubled(&deaf, node, since, until) {
            continue;
        }
        case.judged(10);
        let told = case.events_of(conn.who).any(|(_, event)| {
            event.what == What::GoAway && event.at >= from && case.is_of(event.conn, &conn)
        });
        let words = match conn.closed {
            Some((_, Some(1012))) if told => continue,
            Some((_, Some(1012))) => "was closed without a goaway".to_owned(),
            Some((_, code)) => format!("was ended with {code:?}, goaway: {told}"),
            None => "was left open".to_owned(),
        };
        let words = format!("{} on node {node}, which drained, {words}", conn.who);
        case.violated(10, from, words);
    }
}

impl Case<'_> {
    fn is_of(&self, conn: u64, this: &Conn<'_>) -> bool {
        self.conn(conn).is_some_and(|conn| conn.index == this.index)
    }
}
