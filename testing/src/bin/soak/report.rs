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
    let at_risk = measured.at_risk;
    let mut table = format!(
        "### One of three nodes is killed: {at_risk} of {} sessions resume\n\n\
         | what | measured | must be |\n|---|---:|---:|\n",
        load.sessions
    );
    for (what, measured, bound) in results(load, measured).iter().chain(&costs(measured)) {
        // Writing to a string cannot fail.
        let _ = writeln!(table, "| {what} | {measured} | {bound} |");
    }
    table
}

/// What, the measured value, and its limit.
type Row = (String, String, String);

fn row(what: &str, measured: String, bound: &str) -> Row {
    (what.to_owned(), measured, bound.to_owned())
}

/// What became of sessions and signals.
fn results(load: &Load, measured: &Measured) -> Vec<Row> {
    let (resumed, tally) = (&measured.resumed, &measured.tally);
    let [median, most, last] = [50, 99, 100].map(|rank| percentile(resumed, rank));
    vec![
        row(
            "resumed, p50 / p99 / last, s after the kill",
            format!("{median:.2} / {most:.2} / {last:.2}"),
            &format!("≤ {}", load.resume_within.as_secs_f64()),
        ),
        row(
            "not resumed",
            (measured.at_risk - resumed.len()).to_string(),
            "0",
        ),
        row("leaves received", measured.leaves.len().to_string(), "0"),
        row(
            "signals missing / repeated / refused, of",
            format!(
                "{} / {} / {}, {}",
                tally.missing,
                tally.repeated,
                by_code(&tally.refused),
                tally.signals
            ),
            "0 / 0 / any",
        ),
        row("failed attempts", by_code(&tally.retries), ""),
    ]
}

/// Processor time and memory.
fn costs(measured: &Measured) -> Vec<Row> {
    let mut rows = vec![row(
        "Redis, % of a core, average / busiest second",
        percents(measured.redis),
        &format!("≤ {REDIS_MOST}"),
    )];
    for (number, node) in (1..).zip(&measured.survivors) {
        let what = format!("node {number}, % of a core, average / busiest second");
        rows.push(row(&what, percents(*node), ""));
    }
    rows.push(row(
        "load generator, % of a core, average / busiest second",
        percents(measured.generator),
        "",
    ));
    let kib = format!("{:.1} / {:.1}", measured.kib_each, measured.kib_each_after);
    rows.push(row("KiB of nodes per session, before / after", kib, ""));
    let logins = format!("{:.0}", measured.logins_per_second);
    rows.push(row("logins/s before", logins, ""));
    rows
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
