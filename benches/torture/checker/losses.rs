//! I7: what was acknowledged is heard, a session is resumed, or somebody is told.

use std::collections::HashMap;
use std::time::Duration;

use super::delivery::Sent;
use super::{Case, is_caller, secs};
use crate::cluster::GRACE;
use crate::history::{Event, Kind, What};

const CUT_OFF: &[Kind] = &[Kind::NodeFrozen, Kind::RedisEdge, Kind::Stall];

pub(super) fn judge(case: &mut Case<'_>, sent: &HashMap<&str, Sent<'_>>) {
    acknowledged(case, sent);
    resumes(case);
}

/// What was acknowledged is received, or its receiver was told that something may be missing.
fn acknowledged(case: &mut Case<'_>, sent: &HashMap<&str, Sent<'_>>) {
    let events = &case.record.events;
    let mut told: HashMap<&str, Vec<usize>> = HashMap::new();
    let mut ended: HashMap<&str, usize> = HashMap::new();
    for (index, event) in events.iter().enumerate() {
        let is_told = match &event.what {
            What::Refused { code, .. } => code == "resume_failed",
            What::LoggedIn { resumed, .. } => !resumed,
            What::Status { missed, .. } => *missed,
            What::Closed { code } => *code == Some(4001),
            _ => false,
        };
        if is_told {
            told.entry(&event.who).or_default().push(index);
        }
        if let What::Ends(_) = event.what {
            ended.entry(&event.who).or_insert(index);
        }
    }
    for (id, signal) in sent.iter().filter(|(_, signal)| is_caller(signal.to)) {
        let Some(acked) = signal.acked else { continue };
        let end = ended.get(signal.to).copied().unwrap_or(usize::MAX);
        if acked > end || !signal.received.is_empty() {
            case.judged(7);
            continue;
        }
        let is_plain = signal.to.starts_with('p');
        if is_plain && is_loss_of_a_plain_client(case, signal) {
            continue;
        }
        case.judged(7);
        let was_told = told
            .get(signal.to)
            .is_some_and(|told| told.iter().any(|index| *index > signal.first));
        if !was_told {
            let words = format!(
                "{id} to {} was acknowledged at {:.2?} and never heard",
                signal.to, events[acked].at
            );
            case.violated(7, signal.first_at, words);
        }
    }
}

/// A plain client loses what is under way when its connection ends, and is not told when Redis forgets.
fn is_loss_of_a_plain_client(case: &Case<'_>, signal: &Sent<'_>) -> bool {
    let (from, to) = (signal.first_at, case.end);
    let held = case
        .conns_of(signal.to)
        .any(|conn| conn.index < signal.first && conn.until > case.end.saturating_sub(secs(15.0)));
    let kinds = [
        Kind::DataLoss,
        Kind::ClientEdge,
        Kind::NodeFrozen,
        Kind::NodeDead,
    ];
    !held || case.troubled_at(&kinds, signal.to, from.saturating_sub(secs(8.0)), to)
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
