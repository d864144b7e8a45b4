//! I7: an acknowledged signal arrives, or its receiver's session has ended, or the receiver gets `missed` where a
//! loss is allowed.

use std::collections::HashMap;
use std::time::Duration;

use super::delivery::Sent;
use super::{Case, is_caller, secs};
use crate::cluster::GRACE;
use crate::history::{Event, Kind, What};

const CUT_OFF: &[Kind] = &[Kind::NodeFrozen, Kind::RedisEdge, Kind::Stall];
/// Faults that break a node's subscription, and lose what was on its way to plain users.
pub(super) const DEAFENED: &[Kind] = &[
    Kind::NodeFrozen,
    Kind::RedisEdge,
    Kind::RedisAway,
    Kind::DataLoss,
    Kind::PushesDropped,
    Kind::Stall,
    Kind::RedisCut,
];
/// The longest time from ack to arrival without a fault.
const UNDER_WAY: Duration = Duration::from_millis(400);
/// How long after a fault its effects may last.
const FELT: Duration = Duration::from_millis(500);
/// How long after a fault a session that it cut off may end.
const ENDS_WITHIN: Duration = Duration::from_secs(5);
/// A session that lasts this long after a loss of data must get `missed`.
const TOLD_WITHIN: Duration = Duration::from_secs(10);

pub(super) fn judge(case: &mut Case<'_>, sent: &HashMap<&str, Sent<'_>>) {
    let told = Told::gather(case);
    acknowledged(case, sent, &told);
    losses_of_data(case, &told);
    resumes(case);
}

/// What each client was told, in the order of the history.
#[derive(Default)]
struct Told<'a> {
    /// `missed`: signals may be lost.
    missed: HashMap<&'a str, Vec<usize>>,
    /// Its session ended, or another began.
    over: HashMap<&'a str, Vec<usize>>,
    /// The client ends for good.
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

/// Acknowledged signals must arrive, except for losses that the kind of session allows.
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

/// A plain client may lose signals when its session or the sender's ends, or when a fault breaks its node's
/// subscription, in
/// which case it gets `missed`.
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
    // A cut takes effect at once: it loses nothing that is sent later.
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

/// A resumable client may lose only what Redis loses, and then gets `missed`, unless its session has ended.
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

/// Each resumable session that exists when Redis loses data must get `missed` or end.
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
    /// When a session at this node ended that a fault in this time had cut off.
    fn over_by(&self, node: usize, from: Duration, until: Duration) -> Duration {
        let struck = self.record.troubles.iter().filter(|trouble| {
            let is_here = trouble.node.is_none_or(|struck| struck == node);
            is_here && trouble.kind != Kind::PushesDropped && trouble.overlaps(from, until)
        });
        let healed = struck.map(|trouble| trouble.until).max();
        healed.unwrap_or_default().max(until) + ENDS_WITHIN
    }
}

/// A resume may fail only if it comes too late or after a loss of data.
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
    // Writes from shortly before the loss may be lost too, as may writes after the last login.
    let since = last.min(event.at.saturating_sub(secs(8.0)));
    case.troubled(&[Kind::DataLoss], usize::MAX, since, event.at)
}
