//! I5: a peer gets exactly one leave for each call that ends, and none for a call that has not ended.

use std::collections::HashSet;
use std::time::Duration;

use super::{Case, is_caller, losses, secs};
use crate::cluster::GRACE;
use crate::history::{Event, Expectation, Kind, What};

/// How long after a fault that cuts a node off its users may count as lost.
const AFTERMATH: Duration = Duration::from_secs(10);
const CUT_OFF: &[Kind] = &[Kind::NodeFrozen, Kind::RedisEdge, Kind::Stall];
/// Faults that also end sessions that are not resumable.
const UNPLUGGED: &[Kind] = &[
    Kind::NodeFrozen,
    Kind::RedisEdge,
    Kind::Stall,
    Kind::NodeDead,
    Kind::NodeDrained,
    Kind::ClientEdge,
];
/// How much later than its peer a client may learn that its own connection has ended.
const LEARNS_WITHIN: Duration = Duration::from_secs(2);

pub(super) fn judge(case: &mut Case<'_>) {
    let callers: HashSet<&str> = case
        .conns
        .iter()
        .map(|conn| conn.who)
        .filter(|who| is_caller(who))
        .collect();
    for who in callers {
        one_side(case, who);
    }
    watched(case);
    for expectation in &case.record.expectations {
        expected(case, expectation);
    }
}

/// What one side knows about its call.
#[derive(Default)]
struct Belief<'a> {
    /// Since the last end, a signal that may begin a call went in either direction.
    may_end: bool,
    /// The peer's session that sent the last signal.
    with: Option<u32>,
    /// When this side last offered: it called whoever had the name then.
    called_at: Option<Duration>,
    /// The first signal of this side since the last end that may begin a call, and when.
    began: Option<(&'a str, Duration)>,
    hung_up: bool,
    /// The last offer or answer, while it has no outcome, and when this side offered before. Outcomes are told in
    /// order, so a leave that comes before this one is of an earlier call.
    asking: Option<(&'a str, Option<Duration>)>,
}

fn one_side(case: &mut Case<'_>, who: &str) {
    let mut belief = Belief::default();
    let events: Vec<&Event> = case.events_of(who).map(|(_, event)| event).collect();
    for event in events {
        match &event.what {
            What::Sent { id, kind, .. } if ["offer", "answer"].contains(kind) => {
                belief.may_end = true;
                belief.asking = Some((id, belief.called_at));
                belief.called_at = Some(event.at);
                belief.began.get_or_insert((id, event.at));
            }
            What::Answered { id, .. } if belief.asking.is_some_and(|(asked, _)| asked == id) => {
                belief.asking = None;
            }
            What::Received(receipt) if ["offer", "answer"].contains(&&*receipt.kind) => {
                let changed = belief.with.filter(|life| *life != receipt.from_life);
                if let Some(life) = changed {
                    let words = format!(
                        "{who} is called by session {} of {} and never got the leave of the call with session {life}",
                        receipt.from_life, receipt.from
                    );
                    case.violated(5, event.at, words);
                }
                belief.may_end = true;
                belief.with = Some(receipt.from_life);
            }
            What::Left { from, reason } => {
                case.judged(5);
                if !belief.may_end && !belief.hung_up {
                    let words = format!("{who} got a second leave of {from}, {reason}");
                    case.violated(5, event.at, words);
                } else if reason == "lost" && is_unheard_call(case, who, from, &belief, event.at) {
                    // A signal of this side since then begins the next call.
                    belief.began = None;
                    continue;
                } else if let Some(why) = false_leave(case, from, who, &belief, event.at) {
                    let words = format!("{who} got a leave of {from}, {reason}, but {why}");
                    blame(case, from, event.at, &words);
                }
                // An offer or answer without an outcome belongs to the next call.
                let next = belief
                    .asking
                    .zip(belief.called_at)
                    .map(|((id, _), at)| Belief {
                        may_end: true,
                        called_at: Some(at),
                        began: Some((id, at)),
                        ..Belief::default()
                    });
                belief = next.unwrap_or_default();
            }
            What::LoggedIn { resumed: false, .. } => belief = Belief::default(),
            What::HangsUp { .. } => {
                belief = Belief {
                    hung_up: true,
                    ..Belief::default()
                }
            }
            _ => {}
        }
    }
}

/// Evidence against each reason for which the session should have stayed alive.
fn blame(case: &mut Case<'_>, left: &str, at: Duration, words: &str) {
    case.violated(5, at, words.to_owned());
    let since = at.saturating_sub(secs(6.0));
    if case.troubled_at(&[Kind::RedisAway], left, since, at) {
        case.violated(9, at, words.to_owned());
    }
    let draining = case
        .record
        .drains
        .iter()
        .any(|drain| drain.from <= at && since <= drain.until);
    if draining && left.starts_with('r') {
        case.violated(10, at, words.to_owned());
    }
}

/// Why this session, or the one that its client had at that time, cannot have ended.
fn false_leave(
    case: &Case<'_>,
    left: &str,
    told: &str,
    belief: &Belief<'_>,
    at: Duration,
) -> Option<String> {
    let before = belief.asking.and_then(|(_, before)| before);
    let called_at = before.or(belief.called_at).unwrap_or(at);
    let last = case.conns_of(left).rfind(|conn| conn.from <= called_at)?;
    let life = belief.with.unwrap_or(last.life);
    let by = at + LEARNS_WITHIN;
    let last = case
        .conns_of(left)
        .rfind(|conn| conn.from <= at && conn.life == life)?;
    let since = at.saturating_sub(AFTERMATH);
    let went = case.events_of(left).any(|(_, event)| {
        event.at <= by && matches!(event.what, What::HangsUp { .. } | What::Ends(_))
    });
    // A node that was taken for dead learns it: its users' peers have got their leaves.
    if went || case.troubled_at(CUT_OFF, told, since, at) {
        return None;
    }
    if !last.resumable {
        let over = last.until <= by || case.troubled_at(UNPLUGGED, left, since, at);
        return (!over).then(|| format!("has been connected since {:.1?}", last.from));
    }
    if case.troubled_at(CUT_OFF, left, since, at) {
        return None;
    }
    let resumes_later = case
        .conns_of(left)
        .find(|conn| conn.from > at && conn.life == life && conn.resumed);
    if let Some(later) = resumes_later {
        return Some(format!("it resumed at {:.1?}", later.from));
    }
    // Nothing of this session came later. It may have ended while it was disconnected for long, but not while it was
    // connected.
    if last.until > by {
        return Some(format!("was connected until {:.1?}", last.until));
    }
    let lost_its_name = matches!(last.closed, Some((_, Some(4001))));
    let early = at + secs(0.3) < last.until + GRACE;
    let unknown = [Kind::ClientEdge, Kind::DataLoss];
    (early && !lost_its_name && !case.troubled_at(&unknown, left, since, at))
        .then(|| format!("had its grace since {:.1?}", last.until))
}

/// Whether the signal that began the call was lost, so the peer does not know the call: it says so when it is asked
/// after a fault.
fn is_unheard_call(
    case: &Case<'_>,
    caller: &str,
    peer: &str,
    belief: &Belief<'_>,
    at: Duration,
) -> bool {
    let (Some((first, since)), None) = (belief.began, belief.with) else {
        return false;
    };
    let knows = case.events_of(peer).any(|(_, event)| match &event.what {
        What::Sent { kind, to, .. } => {
            to == caller
                && ["offer", "answer"].contains(kind)
                && event.at >= since
                && event.at <= at
        }
        What::Received(receipt) => receipt.id == first,
        _ => false,
    });
    !knows && case.troubled_at(losing(peer), peer, since, at)
}

/// A watcher must not be told that a user is absent who is present.
fn watched(case: &mut Case<'_>) {
    let events: Vec<&Event> = case.events_of("watcher").map(|(_, event)| event).collect();
    for event in events {
        let What::Presence { name, here: false } = &event.what else {
            continue;
        };
        case.judged(5);
        let since = event.at.saturating_sub(AFTERMATH);
        let forgotten = [Kind::DataLoss, Kind::RedisAway];
        let was_here = case
            .conns_of(name)
            .any(|conn| conn.from + secs(2.0) < event.at);
        // The server read the state a moment before it sent this.
        let read_at = event.at.saturating_sub(secs(1.0));
        let back = case
            .conns_of(name)
            .any(|conn| !conn.resumed && conn.from > read_at && conn.from < event.at);
        if !was_here || back || case.troubled_at(&forgotten, name, since, event.at) {
            continue;
        }
        if let Some(why) = false_leave(case, name, "watcher", &Belief::default(), event.at) {
            let words = format!("the watcher was told that {name} is absent, but {why}");
            blame(case, name, event.at, &words);
        }
    }
}

/// After an end that the run itself caused, exactly one leave arrives in time with the right reason.
fn expected(case: &mut Case<'_>, expectation: &Expectation) {
    let Expectation {
        who,
        from,
        since,
        within,
        reason,
        ending,
    } = expectation;
    case.judged(5);
    if case.troubled(&[Kind::Stall], usize::MAX, *since, *since + *within) {
        return;
    }
    let left = |event: &Event| match &event.what {
        What::Left { from: left, reason } if left == from && event.at >= *since => {
            Some((event.at, reason.clone()))
        }
        _ => None,
    };
    let leaves: Vec<(Duration, String)> = case
        .events_of(who)
        .filter_map(|(_, event)| left(event))
        .collect();
    let words = match &leaves[..] {
        [] => "got no leave".to_owned(),
        [(at, said)] => {
            let took = at.saturating_sub(*since);
            if took > *within {
                format!("got the leave after {took:.1?} and not within {within:.1?}")
            } else if reason.is_some_and(|reason| reason != said)
                && !is_made_good(case, who, said, *at)
            {
                format!("got the reason {said} and not {reason:?}")
            } else {
                return;
            }
        }
        more => format!("got {} leaves", more.len()),
    };
    let words = format!("after {from} {ending}, {who} {words}");
    case.violated(5, *since, words);
}

/// Whether a leave with this reason replaces one that was lost.
fn is_made_good(case: &Case<'_>, who: &str, reason: &str, at: Duration) -> bool {
    let since = at.saturating_sub(AFTERMATH);
    reason == "lost" && case.troubled_at(losing(who), who, since, at)
}

/// Faults that lose signals to this caller.
fn losing(who: &str) -> &'static [Kind] {
    if who.starts_with('p') {
        losses::DEAFENED
    } else {
        &[Kind::DataLoss]
    }
}
