//! The results as Markdown.

use std::fmt::Write as _;
use std::fs;

use crate::Outcome;
use crate::gauge::Usage;
use crate::scenario::{Load, Measured, Scenario};
use crate::server::Subject;

/// Two nodes and Redis. A server of one process uses the first column.
const PROCESSES: usize = 3;

/// A description of the machine.
pub(crate) fn machine() -> Outcome<String> {
    let processors = fs::read_to_string("/proc/cpuinfo")?;
    let model = processors
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": "))
        .map_or("unknown", |(_, model)| model);
    Ok(format!(
        "Machine: {} × {model}",
        std::thread::available_parallelism()?
    ))
}

/// One run in one line.
pub(crate) fn brief(subject: Subject, measured: &Measured) -> String {
    let (median, high) = measured.latency;
    let memory = measured
        .kib_each
        .map_or_else(String::new, |[nodes, redis]| {
            format!(", {nodes:.1} + {redis:.1} KiB each")
        });
    format!(
        "{}: {:.0}/s, p50 {median:.2} ms, p99 {high:.2} ms, CPU {:.1} µs each{memory}",
        subject.name(),
        rate(measured),
        sum_micros(measured)
    )
}

/// The medians of all runs.
pub(crate) fn table(
    scenario: Scenario,
    load: &Load,
    subjects: &[Subject],
    results: &[Vec<Measured>],
) -> String {
    let (title, unit) = title(scenario, load);
    let place_of = |subject| subjects.iter().position(|other| *other == subject);
    let befores: Vec<_> = subjects
        .iter()
        .map(|subject| subject.before().and_then(place_of))
        .collect();
    let has_before = befores.iter().any(Option::is_some);

    let (rate_title, first_title) = (format!("{unit}s/s"), format!("× {}", subjects[0].name()));
    let mut heading = vec!["server", &rate_title, "p50 ms", "p99 ms"];
    heading.extend(["node 1", "node 2", "redis", "CPU µs", &first_title]);
    if has_before {
        heading.push("× before");
    }
    let mut rows = vec![heading.into_iter().map(str::to_owned).collect()];
    for ((subject, runs), before) in subjects.iter().zip(results).zip(befores) {
        let mut row = vec![
            subject.name().to_owned(),
            decimals(median_of(runs, rate), 0),
            decimals(median_of(runs, |run| run.latency.0), 2),
            decimals(median_of(runs, |run| run.latency.1), 2),
        ];
        row.extend((0..PROCESSES).map(|place| share(runs, place)));
        row.push(decimals(median_of(runs, sum_micros), 1));
        row.push(ratio(runs, &results[0]));
        if has_before {
            row.push(before.map_or_else(none, |before| ratio(runs, &results[before])));
        }
        rows.push(row);
    }
    let most = |value: fn(&Usage) -> f64| {
        let usages = results.iter().flatten().map(|run| value(&run.usage));
        usages.fold(0.0, f64::max)
    };
    let mut text = format!(
        "### {title}\n\nCPU µs per {unit}, by process and in sum; × is the ratio of the sums, and its range.\n\n{}\n\
         Cores used at most: by the load generator {:.2}, by others {:.2}.\n",
        aligned(&rows),
        most(Usage::generator),
        most(Usage::strangers),
    );
    if scenario == Scenario::Idle {
        let _ = write!(
            text,
            "\n### Memory: {} idle connections\n\n{}",
            load.idle,
            memory(subjects, results)
        );
    }
    text
}

fn title(scenario: Scenario, load: &Load) -> (String, &'static str) {
    let Load { pairs, idle, .. } = load;
    match scenario {
        Scenario::Relay(window) => (
            format!("Relay: {pairs} pairs, {window} in flight in each, candidates of 300 bytes"),
            "signal",
        ),
        Scenario::Calls => (
            format!("Calls: {pairs} pairs, offer 2.5 KiB, answer 2 KiB, 2 × 8 candidates, leave"),
            "call",
        ),
        Scenario::Idle => (format!("Logins: {idle}"), "login"),
        Scenario::Death => ("Death".to_owned(), "death"),
    }
}

/// Memory per connection.
fn memory(subjects: &[Subject], results: &[Vec<Measured>]) -> String {
    let heading = ["server", "KiB of nodes each", "KiB of Redis each"];
    let mut rows = vec![heading.map(str::to_owned).to_vec()];
    for (subject, runs) in subjects.iter().zip(results) {
        let kib = |place: usize| {
            let each = |run: &Measured| run.kib_each.map_or(0.0, |kib| kib[place]);
            spread(&all(runs, each), 1)
        };
        let has_redis = runs
            .iter()
            .all(|run| run.usage.processes.len() == PROCESSES);
        let redis = if has_redis { kib(1) } else { none() };
        rows.push(vec![subject.name().to_owned(), kib(0), redis]);
    }
    aligned(&rows)
}

/// An aligned Markdown table. The first row is the heading.
fn aligned(rows: &[Vec<String>]) -> String {
    let width_of = |column: usize| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.max().unwrap_or_default()
    };
    let widths: Vec<_> = (0..rows[0].len()).map(width_of).collect();
    let mut table = String::new();
    for (place, row) in rows.iter().enumerate() {
        table.push('|');
        for (column, (cell, &width)) in row.iter().zip(&widths).enumerate() {
            let _ = if column == 0 {
                write!(table, " {cell:<width$} |")
            } else {
                write!(table, " {cell:>width$} |")
            };
        }
        table.push('\n');
        if place == 0 {
            table.push('|');
            for (column, width) in widths.iter().enumerate() {
                let end = if column == 0 { "-|" } else { ":|" };
                let _ = write!(table, "{}{end}", "-".repeat(width + 1));
            }
            table.push('\n');
        }
    }
    table
}

fn rate(run: &Measured) -> f64 {
    run.count as f64 / run.usage.elapsed
}

fn sum_micros(run: &Measured) -> f64 {
    run.usage.processes.iter().sum::<f64>() * 1e6 / run.count as f64
}

/// Processor use of one process, if there is such a process.
fn share(runs: &[Measured], place: usize) -> String {
    let micros = |run: &Measured| {
        let seconds = run.usage.processes.get(place)?;
        Some(seconds * 1e6 / run.count as f64)
    };
    match runs.iter().map(micros).collect::<Option<Vec<_>>>() {
        Some(micros) => decimals(median(&micros), 1),
        None => none(),
    }
}

/// The ratio of one subject's sum to that of another in the same runs.
fn ratio(runs: &[Measured], reference: &[Measured]) -> String {
    let both = runs.iter().zip(reference);
    let ratios: Vec<_> = both
        .map(|(run, reference)| sum_micros(run) / sum_micros(reference))
        .collect();
    spread(&ratios, 2)
}

fn none() -> String {
    "–".to_owned()
}

fn all(runs: &[Measured], value: impl Fn(&Measured) -> f64) -> Vec<f64> {
    runs.iter().map(value).collect()
}

fn median_of(runs: &[Measured], value: impl Fn(&Measured) -> f64) -> f64 {
    median(&all(runs, value))
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => 0.0,
        length => f64::midpoint(sorted[(length - 1) / 2], sorted[length / 2]),
    }
}

/// The median, and in parentheses the range of all runs.
fn spread(values: &[f64], places: usize) -> String {
    let least = values.iter().copied().fold(f64::INFINITY, f64::min);
    let most = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    format!(
        "{} ({}…{})",
        decimals(median(values), places),
        decimals(least, places),
        decimals(most, places)
    )
}

fn decimals(value: f64, places: usize) -> String {
    format!("{value:.places$}")
}
