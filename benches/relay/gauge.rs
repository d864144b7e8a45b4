//! What the kernel says: processor time, to the nanosecond, and memory.

use std::fs;
use std::time::Instant;

use crate::Outcome;
use crate::server::{Process, Servers};

/// A tick of `/proc/stat` (`USER_HZ` is 100 on every Linux of today).
const TICK_SECONDS: f64 = 0.01;

/// The state of the clocks at one moment.
pub(crate) struct Reading {
    at: Instant,
    processes: Vec<(&'static str, f64)>,
    generator: f64,
    machine: f64,
}

/// What was used between two readings, in seconds.
pub(crate) struct Usage {
    pub(crate) elapsed: f64,
    /// Processor time by the processes under test.
    pub(crate) processes: Vec<(&'static str, f64)>,
    /// Cores used by the load generator.
    pub(crate) generator: f64,
    /// Cores used by anyone else. About: it is counted in ticks.
    pub(crate) strangers: f64,
}

impl Reading {
    pub(crate) fn take(servers: &Servers) -> Outcome<Self> {
        let processor = |process: &Process| Ok((process.role, processor_seconds(process.pid())?));
        Ok(Self {
            at: Instant::now(),
            processes: servers
                .processes
                .iter()
                .map(processor)
                .collect::<Outcome<_>>()?,
            generator: processor_seconds(std::process::id())?,
            machine: machine_seconds()?,
        })
    }

    pub(crate) fn until(&self, later: &Self) -> Usage {
        let elapsed = (later.at - self.at).as_secs_f64();
        let differ =
            |(one, other): (&(&'static str, f64), &(&'static str, f64))| (one.0, other.1 - one.1);
        let processes: Vec<_> = self
            .processes
            .iter()
            .zip(&later.processes)
            .map(differ)
            .collect();
        let generator = later.generator - self.generator;
        let known = generator + processes.iter().map(|(_, seconds)| seconds).sum::<f64>();
        let strangers = (later.machine - self.machine - known).max(0.0);
        Usage {
            elapsed,
            processes,
            generator: generator / elapsed,
            strangers: strangers / elapsed,
        }
    }
}

/// Of all threads. `utime` and `stime` count ticks of 10 ms, this counts nanoseconds.
fn processor_seconds(pid: u32) -> Outcome<f64> {
    let mut nanoseconds = 0;
    for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
        // A thread may end while it is looked at.
        if let Ok(text) = fs::read_to_string(thread?.path().join("schedstat")) {
            nanoseconds += text.split(' ').next().unwrap_or_default().parse::<u64>()?;
        }
    }
    Ok(nanoseconds as f64 / 1e9)
}

/// All that was not idle since the start of the machine.
fn machine_seconds() -> Outcome<f64> {
    let text = fs::read_to_string("/proc/stat")?;
    let ticks: Vec<u64> = text
        .lines()
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .skip(1)
        .flat_map(str::parse)
        .collect();
    // user nice system idle iowait irq softirq
    let [user, nice, system, _, _, irq, softirq, ..] = ticks[..] else {
        return Err("/proc/stat is not understood".into());
    };
    Ok((user + nice + system + irq + softirq) as f64 * TICK_SECONDS)
}

/// Resident memory of the processes that hold connections, in KiB.
pub(crate) fn resident_kib(servers: &Servers) -> Outcome<f64> {
    let mut sum = 0.0;
    for process in servers.processes.iter().filter(|process| process.is_node) {
        let status = fs::read_to_string(format!("/proc/{}/status", process.pid()))?;
        let resident = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:")?.split_whitespace().next());
        sum += resident.ok_or("no VmRSS")?.parse::<f64>()?;
    }
    Ok(sum)
}
