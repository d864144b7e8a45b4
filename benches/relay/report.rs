//! The results, as Markdown for people.

use std::fmt::Write as _;
use std::fs;

use crate::Outcome;
use crate::scenario::{Load, Measured, Scenario};
use crate::server::Subject;

/// Where this was measured.
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
        .map_or_else(String::new, |kib| format!(", {kib:.1} KiB each"));
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
    let mut table = heading(scenario, load, subjects[0]);
    for (subject, runs) in subjects.iter().zip(results) {
        let ratios: Vec<f64> = runs
            .iter()
            .zip(&results[0])
            .map(|(run, reference)| sum_micros(run) / sum_micros(reference))
            .collect();
        let _ = write!(
            table,
            "| {} | {} | {} / {} | {} | {} | {} × | {:.2} / {:.2} |",
            subject.name(),
            spread(&all(runs, rate), 0),
            decimals(median_of(runs, |run| run.latency.0), 2),
            decimals(median_of(runs, |run| run.latency.1), 2),
            shares(runs),
            spread(&all(runs, sum_micros), 1),
            spread(&ratios, 2),
            median_of(runs, |run| run.usage.generator()),
            median_of(runs, |run| run.usage.strangers()),
        );
        if scenario == Scenario::Idle {
            let _ = write!(
                table,
                " {} |",
                spread(&all(runs, |run| run.kib_each.unwrap_or_default()), 1)
            );
        }
        table.push('\n');
    }
    table
}

fn heading(scenario: Scenario, load: &Load, first: Subject) -> String {
    let first = first.name();
    let Load { pairs, idle, .. } = load;
    let (title, unit) = match scenario {
        Scenario::Relay(window) => (
            format!("Relay: {pairs} pairs, {window} in flight in each, candidates of 300 bytes"),
            "message",
        ),
        Scenario::Calls => (
            format!("Calls: {pairs} pairs, offer 2.5 KiB, answer 2 KiB, 2 × 8 candidates, leave"),
            "call",
        ),
        Scenario::Idle => (format!("Idle: {idle} logins"), "login"),
    };
    let (more, rule) = if scenario == Scenario::Idle {
        (" KiB per connection |", "---:|")
    } else {
        ("", "")
    };
    format!(
        "### {title}\n\n| server | {unit}s/s | p50 / p99 ms | CPU µs per {unit}, by process | sum | to {first} | \
         cores used by load generator / others |{more}\n|---|---:|---:|---|---:|---:|---:|{rule}\n"
    )
}

fn rate(run: &Measured) -> f64 {
    run.count as f64 / run.usage.elapsed
}

fn sum_micros(run: &Measured) -> f64 {
    run.usage
        .processes
        .iter()
        .map(|(_, seconds)| seconds)
        .sum::<f64>()
        * 1e6
        / run.count as f64
}

/// What each process used of the processor.
fn shares(runs: &[Measured]) -> String {
    let roles = runs
        .first()
        .map_or(&[][..], |run| &run.usage.processes)
        .iter()
        .map(|(role, _)| *role);
    let share = |(place, role): (usize, &str)| {
        let micros = median_of(runs, |run| {
            run.usage.processes[place].1 * 1e6 / run.count as f64
        });
        format!("{role} {}", decimals(micros, 1))
    };
    roles.enumerate().map(share).collect::<Vec<_>>().join(" + ")
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

/// The median, and in parentheses from where to where the runs went.
fn spread(values: &[f64], places: usize) -> String {
    let least = values.iter().copied().fold(f64::INFINITY, f64::min);
    let most = values.iter().copied().fold(0.0, f64::max);
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
