//! What the kernel says: processor time, to the nanosecond, and memory.

use std::fs;
use std::time::Instant;

use crate::Outcome;
use crate::server::{Server, Servers};

/// A tick of `/proc/stat` (`USER_HZ` is 100 on every Linux of today).
const TICK_SECONDS: f64 = 0.01;

/// The state of the clocks at one moment.
pub(crate) struct Reading {
    at: Instant,
    processes: Vec<f64>,
    generator: f64,
    machine: f64,
}

/// What was used, in seconds.
#[derive(Default)]
pub(crate) struct Usage {
    /// While there was work.
    pub(crate) elapsed: f64,
    /// Processor time by the processes under test, while they rested too: what they put off counts.
    pub(crate) processes: Vec<f64>,
    generator: f64,
    strangers: f64,
}

impl Reading {
    pub(crate) fn take(servers: &Servers) -> Outcome<Self> {
        let processor = |server: &Server| processor_seconds(server.pid);
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

    /// What the processes under test used until then.
    fn processes_until(&self, later: &Self) -> Vec<f64> {
        let both = self.processes.iter().zip(&later.processes);
        both.map(|(one, other)| other - one).collect()
    }
}

impl Usage {
    /// There was work between two readings.
    pub(crate) fn worked(&mut self, from: &Reading, to: &Reading) {
        let generator = to.generator - from.generator;
        let tested: f64 = from.processes_until(to).iter().sum();
        self.elapsed += (to.at - from.at).as_secs_f64();
        self.generator += generator;
        self.strangers += (to.machine - from.machine - generator - tested).max(0.0);
        self.rested(from, to);
    }

    /// There was none.
    pub(crate) fn rested(&mut self, from: &Reading, to: &Reading) {
        let used = from.processes_until(to);
        if self.processes.is_empty() {
            self.processes = used;
            return;
        }
        for (sum, used) in self.processes.iter_mut().zip(used) {
            *sum += used;
        }
    }

    /// Cores used by the load generator.
    pub(crate) fn generator(&self) -> f64 {
        self.generator / self.elapsed
    }

    /// Cores used by anyone else. About: it is counted in ticks.
    pub(crate) fn strangers(&self) -> f64 {
        self.strangers / self.elapsed
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

/// Resident memory in KiB: of the processes that hold connections, and of Redis.
pub(crate) fn resident_kib(servers: &Servers) -> Outcome<[f64; 2]> {
    let mut sums = [0.0; 2];
    for process in &servers.processes {
        let resident = testing::process::resident_kib(process.pid);
        sums[usize::from(!process.is_node)] += resident.ok_or("a server has ended")? as f64;
    }
    Ok(sums)
}
