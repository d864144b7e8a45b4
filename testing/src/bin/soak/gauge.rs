//! Samples of the processor time of processes, from `/proc`.

use std::fs;
use std::time::Instant;

use crate::Outcome;

/// A tick of `/proc/PID/stat` (`USER_HZ` is 100 on all current Linux systems; proc(5)).
const TICK_SECONDS: f64 = 0.01;
const SECOND: f64 = 0.95;

/// Samples of groups of processes.
pub(crate) struct Gauge {
    groups: Vec<Vec<u32>>,
    samples: Vec<(Instant, Vec<f64>)>,
}

/// The share of one core that a group used, in percent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Usage {
    pub(crate) average: f64,
    /// In its busiest second.
    pub(crate) most: f64,
}

impl Gauge {
    /// Takes the first sample.
    pub(crate) fn start(groups: Vec<Vec<u32>>) -> Outcome<Self> {
        let mut gauge = Self {
            groups,
            samples: Vec::new(),
        };
        gauge.sample()?;
        Ok(gauge)
    }

    pub(crate) fn sample(&mut self) -> Outcome<()> {
        let sum = |pids: &Vec<u32>| pids.iter().copied().map(processor_seconds).sum();
        let used = self.groups.iter().map(sum).collect::<Outcome<_>>()?;
        self.samples.push((Instant::now(), used));
        Ok(())
    }

    /// What each group used since the first sample.
    pub(crate) fn usage(&self) -> Vec<Usage> {
        (0..self.groups.len())
            .map(|group| Usage {
                average: self.percent(group, 0, self.samples.len() - 1),
                most: self.busiest(group),
            })
            .collect()
    }

    fn busiest(&self, group: usize) -> f64 {
        let last = self.samples.len() - 1;
        let ends_after = |start: usize| {
            (start..=last).find(|end| {
                let elapsed = self.samples[*end].0 - self.samples[start].0;
                elapsed.as_secs_f64() >= SECOND
            })
        };
        (0..=last)
            .filter_map(|start| Some(self.percent(group, start, ends_after(start)?)))
            // What took less than a second altogether.
            .chain((last > 0).then(|| self.percent(group, 0, last)))
            .fold(0.0, f64::max)
    }

    fn percent(&self, group: usize, start: usize, end: usize) -> f64 {
        let ((begun, before), (ended, after)) = (&self.samples[start], &self.samples[end]);
        let elapsed = (*ended - *begun).as_secs_f64();
        if elapsed > 0.0 {
            (after[group] - before[group]) / elapsed * 100.0
        } else {
            0.0
        }
    }
}

/// Processor time of all threads, including ended ones.
fn processor_seconds(pid: u32) -> Outcome<f64> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat"))
        .map_err(|error| format!("process {pid} has ended: {error}"))?;
    // The process name, in parentheses, may contain any character.
    let (_, fields) = text.rsplit_once(')').ok_or("/proc/PID/stat: no name")?;
    let ticks: f64 = fields
        .split_whitespace()
        .skip(11)
        .take(2)
        .flat_map(str::parse::<f64>)
        .sum();
    Ok(ticks * TICK_SECONDS)
}
