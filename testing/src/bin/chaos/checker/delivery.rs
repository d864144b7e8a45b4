//! I3: order. I4: one outcome for each time a signal is sent. I7: nothing arrives twice. I12: the sender's name is
//! true.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use super::{Case, is_caller, losses, secs};
use crate::history::{Kind, Receipt, What};

/// An outcome that takes longer counts as missing.
const ANSWERED_WITHIN: Duration = Duration::from_secs(6);

/// One signal and who received it.
#[derive(Debug)]
pub(super) struct Sent<'a> {
    pub(super) from: &'a str,
    pub(super) to: &'a str,
    pub(super) first: usize,
    pub(super) first_at: Duration,
    /// The connection on which it was first sent.
    pub(super) conn: u64,
    pub(super) times: usize,
    pub(super) acked: Option<usize>,
    /// Where it was received, as positions in the history.
    pub(super) received: Vec<usize>,
}

pub(super) fn judge(case: &mut Case<'_>) {
    let sent = gather(case);
    order(case);
    outcomes(case);
    once(case, &sent);
    losses::judge(case, &sent);
    senders(case, &sent);
    wrongs(case);
}

fn gather<'a>(case: &Case<'a>) -> HashMap<&'a str, Sent<'a>> {
    let mut signals: HashMap<&str, Sent<'_>> = HashMap::new();
    for (index, event) in case.record.events.iter().enumerate() {
        match &event.what {
            What::Sent { id, to, .. } => {
                let signal = signals.entry(id).or_insert(Sent {
                    from: &event.who,
                    to,
                    first: index,
                    first_at: event.at,
                    conn: event.conn,
                    times: 0,
                    acked: None,
                    received: Vec::new(),
                });
                signal.times += 1;
            }
            What::Answered { id, outcome: Ok(_) } => {
                if let Some(signal) = signals.get_mut(id.as_str()) {
                    signal.acked.get_or_insert(index);
                }
            }
            What::Received(receipt) => {
                if let Some(signal) = signals.get_mut(receipt.id.as_str()) {
                    signal.received.push(index);
                }
            }
            _ => {}
        }
    }
    signals
}

/// A resumable sender sends a number after the outcome of the one before, or after it gave that up; a plain one sends
/// each once,
/// in this order.
fn order(case: &mut Case<'_>) {
    let mut highest: HashMap<(&str, &str, u32), u64> = HashMap::new();
    let mut seen: HashSet<(&str, &str)> = HashSet::new();
    let record = case.record;
    for event in &record.events {
        let What::Received(receipt) = &event.what else {
            continue;
        };
        case.judged(3);
        let last = highest
            .entry((&*event.who, &receipt.from, receipt.from_life))
            .or_default();
        let is_first = seen.insert((&*event.who, &receipt.id));
        if is_first && receipt.n < *last {
            let words = format!("{} got {} after number {last}", event.who, receipt.id);
            case.violated(3, event.at, words);
        }
        let last = highest
            .entry((&*event.who, &receipt.from, receipt.from_life))
            .or_default();
        *last = receipt.n.max(*last);
    }
}

/// Each time a signal is sent on a connection that stays open, exactly one outcome must arrive on that connection.
fn outcomes(case: &mut Case<'_>) {
    let mut counts: HashMap<(u64, &str), (usize, usize, Duration, &str)> = HashMap::new();
    let record = case.record;
    for event in &record.events {
        match &event.what {
            What::Sent { id, .. } => {
                let count = counts.entry((event.conn, id)).or_default();
                (count.0, count.2, count.3) = (count.0 + 1, event.at, &event.who);
            }
            What::Answered { id, .. } => {
                if let Some(count) = counts.get_mut(&(event.conn, id.as_str())) {
                    count.1 += 1;
                }
            }
            _ => {}
        }
    }
    for ((conn, id), (times, answers, at, who)) in counts {
        case.judged(4);
        if answers > times {
            let words = format!("{who} sent {id} {times} times and was answered {answers} times");
            case.violated(4, at, words);
        }
        let Some(conn) = case.conn(conn) else {
            continue;
        };
        let by = at + ANSWERED_WITHIN;
        let silenced = [
            Kind::NodeFrozen,
            Kind::NodeDead,
            Kind::ClientEdge,
            Kind::Stall,
        ];
        let lived_on = conn.until > by && !case.troubled(&silenced, conn.node, at, by);
        if answers < times && lived_on {
            let words = format!(
                "{who} sent {id} on a connection to node {} that lived on, and was not answered \
                 within {ANSWERED_WITHIN:?}",
                conn.node
            );
            case.violated(4, at, words);
        }
    }
}

/// No signal arrives twice.
fn once(case: &mut Case<'_>, sent: &HashMap<&str, Sent<'_>>) {
    for (id, signal) in sent {
        let [_, .., last] = signal.received[..] else {
            continue;
        };
        let last = &case.record.events[last];
        let (invariant, why) = if signal.times > 1 {
            (4, "its sender repeated it")
        } else {
            (7, "it was sent once")
        };
        let times = signal.received.len();
        let words = format!("{} got {id} {times} times: {why}", last.who);
        case.violated(invariant, last.at, words);
    }
}

/// Each signal must bear the name of its sender.
fn senders(case: &mut Case<'_>, sent: &HashMap<&str, Sent<'_>>) {
    let record = case.record;
    for event in &record.events {
        let (What::Received(receipt) | What::Late(receipt)) = &event.what else {
            continue;
        };
        let who = event.who.trim_start_matches("stranger:");
        if is_caller(who) {
            case.judged(12);
            if let Some(words) = false_name(who, receipt, sent) {
                case.violated(12, event.at, words);
            }
        }
    }
}

fn false_name(who: &str, receipt: &Receipt, sent: &HashMap<&str, Sent<'_>>) -> Option<String> {
    let Receipt { name, from, id, .. } = receipt;
    let Some(signal) = sent.get(id.as_str()) else {
        return Some(format!("{who} got {id} from {name}, but nobody sent it"));
    };
    if signal.from != name || signal.from != from {
        return Some(format!(
            "{who} got {id} from {name}, but {} sent it",
            signal.from
        ));
    }
    (signal.to != who).then(|| format!("{who} got {id}, which was sent to {}", signal.to))
}

/// Violations that a client detected by itself.
fn wrongs(case: &mut Case<'_>) {
    let record = case.record;
    let mut nodes: HashMap<&str, u64> = HashMap::new();
    for event in &record.events {
        if event.conn > 0 {
            nodes.insert(&event.who, event.conn);
        }
        let What::Wrong(invariant, words) = &event.what else {
            continue;
        };
        let node = case.conn(event.conn).map_or(usize::MAX, |conn| conn.node);
        let since = event.at.saturating_sub(secs(5.0));
        let deaf = [
            Kind::NodeFrozen,
            Kind::NodeDead,
            Kind::NodeDrained,
            Kind::ClientEdge,
            Kind::Stall,
        ];
        if *invariant != 11 || !case.troubled(&deaf, node, since, event.at) {
            case.violated(*invariant, event.at, format!("{}: {words}", event.who));
        }
    }
}
