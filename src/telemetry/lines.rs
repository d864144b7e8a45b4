//! Writes log lines in a thread of its own. Nobody waits for whoever reads standard error: a line that does not fit
//! into the queue is dropped and counted, and a log line says how many were.
//!
//! `tracing-appender` does the same, but prints to standard output when the process ends and its queue is full: often
//! the same pipe, which then never ends.

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

#[derive(Debug, Default)]
struct Shared {
    waiting_bytes: AtomicUsize,
    dropped: AtomicU64,
}

/// The queue of lines. Clones share it.
#[derive(Clone, Debug)]
pub(super) struct Lines {
    jobs: SyncSender<Job>,
    shared: Arc<Shared>,
    counted: Arc<Counters>,
}

impl Lines {
    /// Starts the thread that writes to `output`. `counted` counts dropped lines.
    pub(super) fn start(output: impl Write + Send + 'static, counted: Arc<Counters>) -> Self {
        let (jobs, queue) = sync_channel(LINES);
        let lines = Self {
            jobs,
            shared: Arc::default(),
            counted,
        };
        let shared = Arc::clone(&lines.shared);
        std::thread::spawn(move || write_all(&queue, output, &shared));
        lines
    }

    fn push(&self, line: &[u8]) {
        let waiting = &self.shared.waiting_bytes;
        let before = waiting.fetch_add(line.len(), Ordering::Relaxed);
        let fits = before + line.len() <= BYTES;
        if !fits || self.jobs.try_send(Job::Line(line.to_vec())).is_err() {
            waiting.fetch_sub(line.len(), Ordering::Relaxed);
            self.shared.dropped.fetch_add(1, Ordering::Relaxed);
            self.counted.increment(0, 0);
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

#[cfg(test)]
mod tests {
    use std::sync::mpsc::Sender;

    use super::super::Metrics;
    use super::*;

    /// Takes one line, and the next one when it is let.
    struct Stuck {
        released: Receiver<()>,
        read: Sender<String>,
    }

    impl Write for Stuck {
        fn write(&mut self, line: &[u8]) -> std::io::Result<usize> {
            let _ = self.read.send(String::from_utf8_lossy(line).into_owned());
            // An error once the sender is gone: then everything is let through.
            let _ = self.released.recv();
            Ok(line.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn stuck() -> (Lines, Sender<()>, Receiver<String>) {
        let ((release, released), (read, lines)) =
            (std::sync::mpsc::channel(), std::sync::mpsc::channel());
        let counted = Metrics::default().lines_dropped();
        let started = Lines::start(Stuck { released, read }, counted);
        (started, release, lines)
    }

    fn dropped(lines: &Lines) -> u64 {
        lines.shared.dropped.load(Ordering::Relaxed)
    }

    #[test]
    fn lines_that_nobody_takes_are_dropped_and_the_rest_arrives_in_order() {
        let (lines, release, read) = stuck();
        lines.push(b"first");
        // It is on its way, and no longer in the queue.
        assert_eq!(read.recv().unwrap(), "first");
        for number in 0..LINES + 7 {
            lines.push(number.to_string().as_bytes());
        }
        assert_eq!(dropped(&lines), 7);
        let begun = Instant::now();
        lines.finish(Duration::from_millis(50));
        assert!(
            begun.elapsed() < Duration::from_secs(10),
            "it waits for the reader"
        );
        drop(release);
        lines.finish(Duration::from_secs(30));
        let numbers: Vec<String> = read.try_iter().collect();
        let expected: Vec<String> = (0..LINES).map(|number| number.to_string()).collect();
        assert_eq!(numbers, expected);
        assert_eq!(lines.shared.waiting_bytes.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn long_lines_are_bounded_by_their_bytes() {
        let (lines, _release, read) = stuck();
        lines.push(b"first");
        assert_eq!(read.recv().unwrap(), "first");
        let line = vec![b'x'; BYTES / 10];
        for _ in 0..20 {
            lines.push(&line);
        }
        let waiting = lines.shared.waiting_bytes.load(Ordering::Relaxed);
        assert!(waiting <= BYTES && dropped(&lines) >= 10, "{waiting} bytes");
    }
}
