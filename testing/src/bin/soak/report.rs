//! The printed table, and the limits that a run must keep.

use std::collections::BTreeMap;
use std::fmt::Write;

use crate::Outcome;
use crate::gauge::Usage;
use crate::storm::{Load, Measured};

/// The share of its one core that Redis may use in its busiest second, in percent. Above it, a larger cluster would
/// overload Redis.
const REDIS_MOST: f64 = 70.0;

pub(crate) fn table(load: &Load, measured: &Measured) -> String {
    let Measured {
        at_risk,
        resumed,
        tally,
        ..
    } = measured;
    let mut table = format!(
        "### One of three nodes is killed: {at_risk} of {} sessions resume\n\n| what | measured | must be |\n|---|---:|---:|\n",
        load.sessions
    );
    let within = load.resume_within.as_secs_f64();
    let mut row = |what: &str, measured: String, bound: String| {
        // Writing to a string cannot fail.
        let _ = writeln!(table, "| {what} | {measured} | {bound} |");
    };
    row(
        "resumed, p50 / p99 / last, s after the kill",
        format!(
            "{:.2} / {:.2} / {:.2}",
            percentile(resumed, 50),
            percentile(resumed, 99),
            percentile(resumed, 100)
        ),
        format!("≤ {within}"),
    );
    row(
        "not resumed",
        (at_risk - resumed.len()).to_string(),
        "0".to_owned(),
    );
    row(
        "leaves heard",
        measured.leaves.len().to_string(),
        "0".to_owned(),
    );
    row(
        "signals missing / repeated / refused, of",
        format!(
            "{} / {} / {}, {}",
            tally.missing,
            tally.repeated,
            by_code(&tally.refused),
            tally.signals
        ),
        "0 / 0 / any".to_owned(),
    );
    row(
        "attempts that ended otherwise",
        by_code(&tally.retries),
        String::new(),
    );
    row(
        "Redis, % of a core, average / busiest second",
        percents(measured.redis),
        format!("≤ {REDIS_MOST}"),
    );
    for (number, node) in (1..).zip(&measured.survivors) {
        row(
            &format!("node {number}, % of a core, average / busiest second"),
            percents(*node),
            String::new(),
        );
    }
    row(
        "load generator, % of a core, average / busiest second",
        percents(measured.generator),
        String::new(),
    );
    row(
        "KiB of nodes per session, before / after",
        format!("{:.1} / {:.1}", measured.kib_each, measured.kib_each_after),
        String::new(),
    );
    row(
        "logins/s before",
        format!("{:.0}", measured.logins_per_second),
        String::new(),
    );
    table
}

/// Fails with all limits that were exceeded.
pub(crate) fn verdict(load: &Load, measured: &Measured) -> Outcome<()> {
    let mut complaints = Vec::new();
    let late = measured.at_risk - measured.resumed.len();
    if late > 0 {
        complaints.push(format!("{late} not resumed in {:?}", load.resume_within));
    }
    if measured.redis.most > REDIS_MOST {
        complaints.push(format!("Redis used {:.0} % of a core", measured.redis.most));
    }
    if let Some(leave) = measured.leaves.first() {
        complaints.push(format!("{} leaves: {leave}", measured.leaves.len()));
    }
    let tally = &measured.tally;
    // A refused signal is not lost: its sender knows that it did not arrive.
    let refused: usize = tally.refused.values().sum();
    if tally.missing > refused {
        complaints.push(format!("{} signals lost", tally.missing - refused));
    }
    if tally.repeated > 0 {
        complaints.push(format!("{} signals repeated", tally.repeated));
    }
    if complaints.is_empty() {
        Ok(())
    } else {
        Err(complaints.join("; ").into())
    }
}

fn percents(usage: Usage) -> String {
    format!("{:.0} / {:.0}", usage.average, usage.most)
}

fn by_code(counts: &BTreeMap<String, usize>) -> String {
    if counts.is_empty() {
        return "0".to_owned();
    }
    let each = counts.iter().map(|(code, count)| format!("{count} {code}"));
    each.collect::<Vec<_>>().join(", ")
}

/// A percentile of sorted values (nearest rank).
fn percentile(sorted: &[f64], hundredths: usize) -> f64 {
    let rank = (sorted.len() * hundredths).div_ceil(100);
    sorted
        .get(rank.saturating_sub(1))
        .copied()
        .unwrap_or(f64::NAN)
}
