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

/// A pipe whose reader has gone.
struct Gone;

impl Write for Gone {
    fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
        Err(std::io::ErrorKind::BrokenPipe.into())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn lines_for_a_reader_that_is_gone_are_counted() {
    let lines = Lines::start(Gone, Metrics::default().lines_dropped());
    for _ in 0..10 {
        lines.push(b"line");
    }
    lines.finish(Duration::from_secs(30));
    assert_eq!(dropped(&lines), 10);
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
