//! The worker processes as the main process sees them: starts them, sends orders, reads reports.

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::process::{ChildStdin, ChildStdout, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use testing::Process;

use crate::Outcome;
use crate::wire::{Micros, Report, SHARE, Share, Stage, Tally};

const WORKERS: usize = 2;
const TALLY_WITHIN: Duration = Duration::from_secs(10);

/// All workers, and what they reported.
pub(crate) struct Crew {
    workers: Vec<Worker>,
    reports: Receiver<Report>,
    tallies: Vec<Tally>,
    pub(crate) logged_in: usize,
    pub(crate) resumed: Vec<Micros>,
    pub(crate) leaves: Vec<String>,
}

struct Worker {
    process: Process,
    orders: ChildStdin,
    share: Share,
}

impl Crew {
    pub(crate) fn start(sessions: usize, endpoints: &[SocketAddr], files: usize) -> Outcome<Self> {
        let (tell, reports) = channel();
        let start = |worker: usize| {
            let first = sessions * worker / WORKERS;
            let share = Share {
                first,
                sessions: sessions * (worker + 1) / WORKERS - first,
                endpoints: endpoints.to_vec(),
            };
            Worker::start(share, files, tell.clone())
        };
        let workers = (0..WORKERS).map(start).collect::<Outcome<_>>()?;
        Ok(Self {
            workers,
            reports,
            tallies: Vec::new(),
            logged_in: 0,
            resumed: Vec::new(),
            leaves: Vec::new(),
        })
    }

    pub(crate) fn pids(&self) -> Vec<u32> {
        let pid = |worker: &Worker| worker.process.id();
        self.workers.iter().map(pid).collect()
    }

    /// The number of sessions that lose their node.
    pub(crate) fn at_risk(&self) -> usize {
        let at_risk = |worker: &Worker| worker.share.at_risk();
        self.workers.iter().map(at_risk).sum()
    }

    /// The expected number of calls.
    pub(crate) fn calls(&self) -> usize {
        let calls = |worker: &Worker| worker.share.calls();
        self.workers.iter().map(calls).sum()
    }

    pub(crate) fn order(&mut self, stage: Stage) -> Outcome<()> {
        for worker in &mut self.workers {
            writeln!(worker.orders, "{}", serde_json::to_string(&stage)?)?;
        }
        Ok(())
    }

    /// Orders a stage that workers answer with tallies; the sum of these.
    pub(crate) fn order_tally(&mut self, stage: Stage) -> Outcome<Tally> {
        self.order(stage)?;
        let all = |crew: &Self| crew.tallies.len() == WORKERS;
        if !self.listen(Instant::now() + TALLY_WITHIN, all)? {
            return Err(format!("a worker told no tally within {TALLY_WITHIN:?}").into());
        }
        let mut sum = Tally::default();
        for tally in self.tallies.drain(..) {
            sum.add(tally);
        }
        Ok(sum)
    }

    /// Reads reports until `is_enough` or until this time; whether it was enough.
    pub(crate) fn listen(
        &mut self,
        until: Instant,
        is_enough: impl Fn(&Self) -> bool,
    ) -> Outcome<bool> {
        while !is_enough(self) {
            let left = until.saturating_duration_since(Instant::now());
            match self.reports.recv_timeout(left) {
                Ok(Report::LoggedIn) => self.logged_in += 1,
                Ok(Report::Resumed(at)) => self.resumed.push(at),
                Ok(Report::Leave(leave)) => self.leaves.push(leave),
                Ok(Report::Tally(tally)) => self.tallies.push(tally),
                Ok(Report::Broken(error)) => return Err(error.into()),
                Err(RecvTimeoutError::Timeout) => return Ok(false),
                Err(RecvTimeoutError::Disconnected) => return Err("all workers ended".into()),
            }
        }
        Ok(true)
    }
}

impl Worker {
    fn start(share: Share, files: usize, tell: Sender<Report>) -> Outcome<Self> {
        let this = std::env::current_exe()?;
        let program = this.to_str().ok_or("this program's path is no UTF-8")?;
        let text = serde_json::to_string(&share)?;
        let mut process = Process::start_with_open_files(Some(files), program, |command| {
            command.env(SHARE, text);
            command.stdin(Stdio::piped()).stdout(Stdio::piped());
            command.stderr(Stdio::inherit());
        })?;
        let orders = process.take_stdin().ok_or("a worker without stdin")?;
        let stdout = process.take_stdout().ok_or("a worker without stdout")?;
        std::thread::spawn(move || pass_on(stdout, &tell));
        Ok(Self {
            process,
            orders,
            share,
        })
    }
}

/// Forwards reports until the worker ends. The receiver may be gone already.
fn pass_on(stdout: ChildStdout, tell: &Sender<Report>) {
    let mut is_over = false;
    for line in BufReader::new(stdout).lines().map_while(Result::ok) {
        let report = serde_json::from_str(&line)
            .unwrap_or_else(|error| Report::Broken(format!("a worker said {line}: {error}")));
        is_over = matches!(report, Report::Tally(_) | Report::Broken(_));
        let _ = tell.send(report);
    }
    if !is_over {
        let _ = tell.send(Report::Broken("a worker ended too early".to_owned()));
    }
}
