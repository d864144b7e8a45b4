//! Writes log lines in a thread of its own. Nobody waits for whoever reads standard error: a line that does not fit
//! into the queue is dropped and counted, and a log line says how many were.
//!
//! `tracing-appender` does the same, but prints to standard output when the process ends and its queue is full: often
//! the same pipe, which then never ends.

#[cfg(test)]
mod tests;

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, TrySendError, sync_channel};
use std::time::{Duration, Instant};

use tracing::warn;
use tracing_subscriber::fmt::MakeWriter;

use super::counters::Counters;

/// How many lines may wait…
const LINES: usize = 4096;
/// …and how many bytes.
const BYTES: usize = 4 << 20;
/// How often a reader that never catches up is said to have missed lines.
const SAID_EVERY: Duration = Duration::from_secs(10);
/// Pause before the next try to tell a full queue that the process ends.
const RETRY_AFTER: Duration = Duration::from_millis(10);

enum Job {
    Line(Vec<u8>),
    /// Everything before it is written.
    End(SyncSender<()>),
}

#[derive(Debug)]
struct Shared {
    waiting_bytes: AtomicUsize,
    dropped: AtomicU64,
    counted: Arc<Counters>,
}

impl Shared {
    fn drop_one(&self) {
        self.dropped.fetch_add(1, Ordering::Relaxed);
        self.counted.increment(0, 0);
    }
}

/// The queue of lines. Clones share it.
#[derive(Clone, Debug)]
pub(super) struct Lines {
    jobs: SyncSender<Job>,
    shared: Arc<Shared>,
}

impl Lines {
    /// Starts the thread that writes to `output`. `counted` counts dropped lines.
    pub(super) fn start(output: impl Write + Send + 'static, counted: Arc<Counters>) -> Self {
        let (jobs, queue) = sync_channel(LINES);
        let shared = Arc::new(Shared {
            waiting_bytes: AtomicUsize::new(0),
            dropped: AtomicU64::new(0),
            counted,
        });
        let lines = Self {
            jobs,
            shared: Arc::clone(&shared),
        };
        std::thread::spawn(move || write_all(&queue, output, &shared));
        lines
    }

    fn push(&self, line: &[u8]) {
        let waiting = &self.shared.waiting_bytes;
        let before = waiting.fetch_add(line.len(), Ordering::Relaxed);
        let fits = before + line.len() <= BYTES;
        if !fits || self.jobs.try_send(Job::Line(line.to_vec())).is_err() {
            waiting.fetch_sub(line.len(), Ordering::Relaxed);
            self.shared.drop_one();
        }
    }

    /// Waits until everything is written, at most this long.
    pub(super) fn finish(&self, within: Duration) {
        let begun = Instant::now();
        let (done, is_done) = sync_channel(1);
        let mut job = Job::End(done);
        while let Err(error) = self.jobs.try_send(job) {
            let TrySendError::Full(back) = error else {
                return;
            };
            if begun.elapsed() > within {
                return;
            }
            job = back;
            std::thread::sleep(RETRY_AFTER);
        }
        let _ = is_done.recv_timeout(within.saturating_sub(begun.elapsed()));
    }
}

impl Write for &Lines {
    fn write(&mut self, line: &[u8]) -> std::io::Result<usize> {
        self.push(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = &'a Self;

    fn make_writer(&'a self) -> Self::Writer {
        self
    }
}

fn write_all(queue: &Receiver<Job>, mut output: impl Write, shared: &Shared) {
    let mut report = Report::new();
    loop {
        let job = match queue.try_recv() {
            Ok(job) => job,
            Err(TryRecvError::Empty) => {
                report.say(shared);
                match queue.recv() {
                    Ok(job) => job,
                    Err(_) => return,
                }
            }
            Err(TryRecvError::Disconnected) => return,
        };
        match job {
            Job::Line(line) => {
                // If nobody reads any more, nobody can be told.
                report.is_read = output.write_all(&line).is_ok();
                if !report.is_read {
                    shared.drop_one();
                }
                shared
                    .waiting_bytes
                    .fetch_sub(line.len(), Ordering::Relaxed);
                if report.at.elapsed() > SAID_EVERY {
                    report.say(shared);
                }
            }
            Job::End(done) => {
                let _ = output.flush();
                let _ = done.try_send(());
            }
        }
    }
}

/// What was said of dropped lines.
struct Report {
    said: u64,
    at: Instant,
    /// The last line was written.
    is_read: bool,
}

impl Report {
    fn new() -> Self {
        Self {
            said: 0,
            at: Instant::now(),
            is_read: false,
        }
    }

    fn say(&mut self, shared: &Shared) {
        let dropped = shared.dropped.load(Ordering::Relaxed);
        if dropped > self.said && self.is_read {
            let lines = dropped - self.said;
            (self.said, self.at) = (dropped, Instant::now());
            warn!(
                lines,
                "Log lines were dropped, because whoever reads standard error was slower than the node writes. \
                 Look at the log shipper, or set log.level higher"
            );
        }
    }
}
