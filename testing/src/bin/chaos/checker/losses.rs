//! I7: what was acknowledged is heard, or its receiver's session has ended, or is told that something may be missing, where that may be.

use std::collections::HashMap;
use std::time::Duration;

use super::delivery::Sent;
use super::{Case, is_caller, secs};
use crate::cluster::GRACE;
use crate::history::{Event, Kind, What};

const CUT_OFF: &[Kind] = &[Kind::NodeFrozen, Kind::RedisEdge, Kind::Stall];
/// What breaks the subscription of a node, with what is under way by it to plain users.
pub(super) const DEAFENED: &[Kind] = &[
    Kind::NodeFrozen,
    Kind::RedisEdge,
    Kind::RedisAway,
    Kind::DataLoss,
    Kind::PushesDropped,
    Kind::Stall,
    Kind::RedisCut,
];
/// How much later than it was acknowledged something is heard at the latest while all is well.
const UNDER_WAY: Duration = Duration::from_millis(400);
/// How long after a fault it may be felt.
const FELT: Duration = Duration::from_millis(500);
/// How long after a fault a session may end that it has cut off.
const ENDS_WITHIN: Duration = Duration::from_secs(5);
/// How long a session has to last after a loss of data for its client to be told in any case.
const TOLD_WITHIN: Duration = Duration::from_secs(10);

pub(super) fn judge(case: &mut Case<'_>, sent: &HashMap<&str, Sent<'_>>) {
    let told = Told::gather(case);
    acknowledged(case, sent, &told);
    losses_of_data(case, &told);
    resumes(case);
}

/// When each client was told what, in the order of events.
#[derive(Default)]
struct Told<'a> {
    /// Something may be missing.
    missed: HashMap<&'a str, Vec<usize>>,
    /// Its session has ended, or another began.
    over: HashMap<&'a str, Vec<usize>>,
    /// It ends for good.
    ended: HashMap<&'a str, usize>,
}

impl<'a> Told<'a> {
    fn gather(case: &Case<'a>) -> Self {
        let mut told = Self::default();
        for (index, event) in case.record.events.iter().enumerate() {
            let by = match &event.what {
                What::Status { missed: true, .. } => &mut told.missed,
                What::Refused { code, .. } if code == "resume_failed" => &mut told.over,
                What::LoggedIn { resumed: false, .. } | What::Closed { code: Some(4001) } => {
                    &mut told.over
                }
                What::Ends(_) => {
                    told.ended.entry(&event.who).or_insert(index);
                    continue;
                }
                _ => continue,
            };
            by.entry(&event.who).or_default().push(index);
        }
        told
    }

    fn over_after(&self, who: &str, index: usize) -> Option<usize> {
        later(&self.over, who, index)
    }

    fn missed_after(&self, who: &str, index: usize) -> Option<usize> {
        later(&self.missed, who, index)
    }
}

fn later(by: &HashMap<&str, Vec<usize>>, who: &str, index: usize) -> Option<usize> {
    by.get(who)?.iter().copied().find(|later| *later > index)
}

/// What was acknowledged is received, unless its loss is covered by what the kind of session allows.
fn acknowledged(case: &mut Case<'_>, sent: &HashMap<&str, Sent<'_>>, told: &Told<'_>) {
    for (id, signal) in sent.iter().filter(|(_, signal)| is_caller(signal.to)) {
        let Some(acked) = signal.acked else { continue };
        case.judged(7);
        let end = told.ended.get(signal.to).copied().unwrap_or(usize::MAX);
        if acked > end || !signal.received.is_empty() {
            continue;
        }
        let acked_at = case.record.events[acked].at;
        let why = if signal.to.starts_with('p') {
            lost_to_a_plain_client(case, signal, acked_at, told)
        } else {
            lost_to_a_resumable_client(case, signal, told)
        };
        if let Some(why) = why {
            let words = format!(
                "{id} to {} was acknowledged at {acked_at:.2?} and never heard: {why}",
                signal.to
            );
            case.violated(7, signal.first_at, words);
        }
    }
}

/// A plain client loses what is under way when its session or the sender's ends, or when a fault breaks the subscription of its node, and
/// then it is told.
fn lost_to_a_plain_client(
    case: &Case<'_>,
    signal: &Sent<'_>,
    acked_at: Duration,
    told: &Told<'_>,
) -> Option<&'static str> {
    let by = acked_at + UNDER_WAY;
    let ends = |conn: &super::Conn<'_>| conn.until <= case.over_by(conn.node, signal.first_at, by);
    let receiver = case
        .conns_of(signal.to)
        .rfind(|conn| conn.index < signal.first)?;
    if ends(receiver) || case.conn(signal.conn).is_some_and(ends) {
        return None;
    }
    let node = receiver.node;
    // What is cut is cut at once: nothing that is sent later is lost by it.
    let is_struck = case.record.troubles.iter().any(|trouble| {
        let from = if trouble.kind == Kind::RedisCut {
            signal.first_at
        } else {
            signal.first_at.saturating_sub(FELT)
        };
        DEAFENED.contains(&trouble.kind)
            && trouble.node.is_none_or(|struck| struck == node)
            && trouble.overlaps(from, by)
    });
    if !is_struck {
        return Some("nothing struck its node then");
    }
    let was_told = told.missed_after(signal.to, signal.first).is_some();
    (!was_told).then_some("it was not told that it missed something")
}

/// A resumable client loses what Redis loses, and then it is told; or its session has ended.
fn lost_to_a_resumable_client(
    case: &Case<'_>,
    signal: &Sent<'_>,
    told: &Told<'_>,
) -> Option<&'static str> {
    if told.over_after(signal.to, signal.first).is_some() {
        return None;
    }
    let Some(missed) = told.missed_after(signal.to, signal.first) else {
        return Some("it was not told that it missed something");
    };
    let told_at = case.record.events[missed].at;
    let lost = case.troubled(&[Kind::DataLoss], usize::MAX, signal.first_at, told_at);
    (!lost).then_some("Redis had lost nothing since it was sent")
}

/// Whoever has a resumable session when Redis loses data is told, or the session ends.
fn losses_of_data(case: &mut Case<'_>, told: &Told<'_>) {
    let record = case.record;
    let losses = record
        .troubles
        .iter()
        .filter(|trouble| trouble.kind == Kind::DataLoss);
    for loss in losses {
        let last = record
            .events
            .partition_point(|event| event.at < loss.from)
            .saturating_sub(1);
        let by = loss.until + TOLD_WITHIN;
        let there: Vec<&str> = case
            .conns
            .iter()
            .filter(|conn| is_caller(conn.who) && conn.resumable)
            .filter(|conn| conn.from <= loss.from && conn.until > loss.from)
            .map(|conn| conn.who)
            .collect();
        for who in there {
            let ended = told
                .ended
                .get(who)
                .map_or(case.end, |end| record.events[*end].at);
            if ended < by {
                continue;
            }
            case.judged(7);
            let is_told =
                told.missed_after(who, last).is_some() || told.over_after(who, last).is_some();
            if !is_told {
                let words =
                    format!("Redis lost data, and {who} was not told though its session lasted");
                case.violated(7, loss.until, words);
            }
        }
    }
}

impl Case<'_> {
    /// When a session at this node has ended that was cut off by whatever struck it in this time.
    fn over_by(&self, node: usize, from: Duration, until: Duration) -> Duration {
        let struck = self.record.troubles.iter().filter(|trouble| {
            let is_here = trouble.node.is_none_or(|struck| struck == node);
            is_here && trouble.kind != Kind::PushesDropped && trouble.overlaps(from, until)
        });
        let healed = struck.map(|trouble| trouble.until).max();
        healed.unwrap_or_default().max(until) + ENDS_WITHIN
    }
}

/// A resume fails only if it comes too late, or after a loss of data.
fn resumes(case: &mut Case<'_>) {
    let record = case.record;
    for event in &record.events {
        match &event.what {
            What::LoggedIn { resumed: true, .. } => case.judged(7),
            What::Refused {
                code,
                resuming: true,
                silent_for,
            } if code == "resume_failed" => {
                case.judged(7);
                let since = event.at.saturating_sub(secs(10.0));
                let excused = case.troubled_at(CUT_OFF, &event.who, since, event.at)
                    || lost_in_this_life(case, event);
                if !excused && *silent_for + secs(0.3) < GRACE {
                    let words = format!(
                        "{} could not resume, {silent_for:.2?} after it had last heard something",
                        event.who
                    );
                    case.violated(7, event.at, words);
                }
            }
            _ => {}
        }
    }
}

fn lost_in_this_life(case: &Case<'_>, event: &Event) -> bool {
    let last = case
        .conns_of(&event.who)
        .rfind(|conn| conn.from <= event.at)
        .map_or(Duration::ZERO, |conn| conn.from);
    // What was written a little before the loss may be gone as well as what was written after the last login.
    let since = last.min(event.at.saturating_sub(secs(8.0)));
    case.troubled(&[Kind::DataLoss], usize::MAX, since, event.at)
}
