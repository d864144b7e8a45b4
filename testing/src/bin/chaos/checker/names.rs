//! I1: a name has one holder. I2: a session that lost its name is told, and gets nothing more.

use std::collections::HashMap;
use std::time::Duration;

use super::{Case, Conn, secs};
use crate::cluster::GRACE;
use crate::history::{Kind, What};

/// How long after a fault that cuts a node off its users may be without their names.
const AFTERMATH: Duration = Duration::from_secs(8);
/// Faults that make a node look dead although its users are connected.
const CUT_OFF: &[Kind] = &[Kind::NodeFrozen, Kind::RedisEdge, Kind::Stall];
/// How long a client may stop reading before it counts as gone.
const UNREAD: Duration = Duration::from_secs(4);
const REPLACED_WITHIN: Duration = Duration::from_secs(5);

pub(super) fn judge(case: &mut Case<'_>) {
    strangers(case);
    interleaved(case);
    replaced(case);
    late(case);
}

/// A stranger must not get the name of a connected user; between two connections it may.
fn strangers(case: &mut Case<'_>) {
    let wins: Vec<Conn<'_>> = case
        .conns
        .iter()
        .filter(|conn| conn.who.starts_with("stranger:"))
        .cloned()
        .collect();
    for win in wins {
        case.judged(1);
        let name = win.who.trim_start_matches("stranger:");
        if win.resumed {
            let words = format!("a stranger resumed {name}'s session with a guessed secret");
            case.violated(1, win.from, words);
        } else if let Some(words) = stolen(case, name, &win) {
            let since = win.from.saturating_sub(AFTERMATH);
            if case.troubled(&[Kind::RedisAway], win.node, since, win.from) {
                case.violated(9, win.from, words.clone());
            }
            case.violated(1, win.from, words);
        }
    }
}

fn stolen(case: &Case<'_>, name: &str, win: &Conn<'_>) -> Option<String> {
    let at = win.from;
    let since = at.saturating_sub(AFTERMATH);
    let holder = case.conns_of(name).rfind(|conn| conn.index < win.index)?;
    let ended = case.events_of(name).any(|(index, event)| {
        let over = matches!(&event.what, What::Ends(_))
            || matches!(&event.what, What::Closed { code: Some(4001) })
            || matches!(&event.what, What::Refused { code, .. } if code == "resume_failed");
        over && index > holder.index && index < win.index
    });
    if ended || case.troubled(CUT_OFF, holder.node, since, at) {
        return None;
    }
    // The server may learn of the end of a connection a little before its client.
    let attached = holder.until > at + secs(0.5);
    if attached {
        let unheard = case.troubled(&[Kind::ClientEdge], holder.node, since, at);
        if unheard && !holder.resumable {
            return None;
        }
        return Some(format!(
            "a stranger won the name {name} on node {}, whose holder had been on node {} for {:?}",
            win.node,
            holder.node,
            at.saturating_sub(holder.from)
        ));
    }
    let away = at.saturating_sub(holder.until);
    let known_lost = holder.closed.is_some() && !holder.abandoned;
    let forgotten = case.troubled(&[Kind::DataLoss], holder.node, since, at);
    let unheard = case.troubled(&[Kind::ClientEdge], holder.node, since, at);
    let within_grace = away + secs(0.3) < GRACE;
    (holder.resumable && known_lost && within_grace && !forgotten && !unheard).then(|| {
        format!("a stranger won the name {name}, which its resumable holder could claim: it had been away for {away:?}")
    })
}

/// Sessions of one name must not receive its signals alternately.
fn interleaved(case: &mut Case<'_>) {
    let mut turns: HashMap<String, Vec<(Duration, String)>> = HashMap::new();
    for event in &case.record.events {
        if let What::Received(_) = event.what {
            let name = event.who.trim_start_matches("stranger:");
            let holder = if name.len() == event.who.len() {
                format!("{name}'s session {}", event.life)
            } else {
                format!("the stranger's connection {}", event.conn)
            };
            let turns = turns.entry(name.to_owned()).or_default();
            if turns.last().is_none_or(|(_, last)| *last != holder) {
                turns.push((event.at, holder));
            }
        }
    }
    for (name, turns) in turns {
        case.judged(1);
        for (number, (at, holder)) in turns.iter().enumerate() {
            let again = turns[..number].iter().any(|(_, before)| before == holder);
            let since = at.saturating_sub(AFTERMATH);
            if again && !case.troubled_at(CUT_OFF, &name, since, *at) {
                let words =
                    format!("{holder} and another session of {name} heard signals in turns");
                case.violated(1, *at, words);
            }
        }
    }
}

/// Faults that excuse an old connection that was not closed in time.
const UNTOLD: &[Kind] = &[
    Kind::NodeFrozen,
    Kind::NodeDead,
    Kind::NodeDrained,
    Kind::RedisEdge,
    Kind::ClientEdge,
    Kind::RedisAway,
    Kind::DataLoss,
    Kind::RedisCut,
    Kind::Stall,
];

/// A connection whose session was resumed elsewhere must be closed as replaced.
fn replaced(case: &mut Case<'_>) {
    for (old, new) in successions(case) {
        let (from, until) = (
            new.from.saturating_sub(secs(1.0)),
            new.from + REPLACED_WITHIN,
        );
        if until > case.end || case.troubled(UNTOLD, old.node, from, until) {
            continue;
        }
        case.judged(2);
        let told = [4000, 4001, 4010, 4008, 1012];
        let words = match old.closed {
            Some((at, Some(code))) if at <= until && told.contains(&code) => continue,
            // The client had not read it for so long that the server has dropped it; its last frames may be lost with
            // the connection.
            Some((at, None)) if at <= until && old.unread_for(new.from) > UNREAD => continue,
            Some((at, code)) if at <= until => format!("was closed with {code:?}"),
            _ => format!("was open {REPLACED_WITHIN:?} later"),
        };
        let words = format!(
            "{} resumed on node {}, and its old connection to node {} {words}",
            new.who, new.node, old.node
        );
        case.violated(2, new.from, words);
    }
}

/// Pairs of connections of one session, the first of which was open when the second began.
fn successions<'a>(case: &Case<'a>) -> Vec<(Conn<'a>, Conn<'a>)> {
    let mut pairs = Vec::new();
    for new in case.conns.iter().filter(|conn| conn.resumed) {
        let old = case
            .conns_of(new.who)
            .rfind(|conn| conn.index < new.index && conn.life == new.life);
        let Some(old) = old else { continue };
        if old.closed.is_none_or(|(at, _)| at > new.from) {
            pairs.push((old.clone(), new.clone()));
        }
    }
    pairs
}

/// Signals sent after a resume must not reach the previous connection.
fn late(case: &mut Case<'_>) {
    let mut sent: HashMap<&str, Duration> = HashMap::new();
    let events = &case.record.events;
    for event in events {
        if let What::Sent { id, .. } = &event.what {
            sent.entry(id).or_insert(event.at);
        }
    }
    let pairs = successions(case);
    for event in events {
        let What::Late(receipt) = &event.what else {
            continue;
        };
        let Some(old) = case.conn(event.conn) else {
            continue;
        };
        let succession = pairs.iter().find(|(before, _)| before.index == old.index);
        let (Some((old, new)), Some(sent)) = (succession, sent.get(&*receipt.id)) else {
            continue;
        };
        let (node, since) = (old.node, new.from.saturating_sub(AFTERMATH));
        let excused = case.troubled(CUT_OFF, node, since, event.at)
            || case.troubled(&[Kind::RedisAway], node, since, event.at);
        if !excused && *sent > new.from + secs(1.0) {
            let words = format!(
                "{} came to a connection of {} that had been replaced {:?} before it was sent",
                receipt.id,
                event.who,
                sent.saturating_sub(new.from)
            );
            case.violated(2, event.at, words);
        }
    }
}
