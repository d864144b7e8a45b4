//! One stream of server-sent events, from its first byte to its end.

use std::convert::Infallible;
use std::fmt::Write as _;

use futures_util::stream::{self, Stream, StreamExt as _};
use tokio::time::Instant;
use tokio_util::task::task_tracker::TaskTrackerToken;

use super::super::HttpSettings;
use super::buffer::{EventId, Unread};
use super::homes::Reader;
use super::wire::Denied;
use crate::drain::Phase;
use crate::limits::Permit;

/// The first bytes of a stream: they fill the buffers of proxies, so that the client gets what follows at once.
const PADDING: usize = 2048;

/// A stream that a client reads.
pub(super) struct EventStream {
    reader: Reader,
    settings: HttpSettings,
    phase: Phase,
    is_over: bool,
    /// When a comment is due, so that no proxy takes the stream for dead.
    keepalive_at: Instant,
    /// When it ends because of its age, so that connections spread anew.
    ends_at: Instant,
    /// When it ends because its node drains.
    drains_at: Option<Instant>,
    _held: (Option<Permit>, TaskTrackerToken),
}

impl EventStream {
    /// A stream of what this reader reads; it holds what is `held` until its end.
    pub(super) fn new(
        reader: Reader,
        settings: HttpSettings,
        phase: Phase,
        held: (Option<Permit>, TaskTrackerToken),
    ) -> Self {
        let now = Instant::now();
        Self {
            reader,
            settings,
            phase,
            is_over: false,
            keepalive_at: now + settings.keepalive,
            ends_at: now + settings.stream_age,
            drains_at: None,
            _held: held,
        }
    }

    /// The stream as it is sent.
    pub(super) fn pieces(self) -> impl Stream<Item = Result<String, Infallible>> + Send {
        let padding = " ".repeat(PADDING);
        let first = format!(": ok{padding}\nretry: 1000\n\n");
        let rest = stream::unfold(self, |mut stream| async {
            let piece = stream.next().await?;
            stream.keepalive_at = Instant::now() + stream.settings.keepalive;
            Some((piece, stream))
        });
        stream::iter([first]).chain(rest).map(Ok)
    }

    /// Waits for what the client reads next; `None`: the stream is over.
    async fn next(&mut self) -> Option<String> {
        if self.is_over {
            return None;
        }
        let drain = self.phase.draining();
        loop {
            let next_at = self.keepalive_at.min(self.ends_at);
            let next_at = self.drains_at.map_or(next_at, |at| at.min(next_at));
            let at_most = next_at.saturating_duration_since(Instant::now());
            let read = tokio::select! {
                biased;
                read = self.reader.read(at_most) => read,
                () = drain.cancelled(), if self.drains_at.is_none() => {
                    self.drains_at = Some(Instant::now() + self.phase.departure_delay());
                    continue;
                }
            };
            match read {
                Ok(unread) if unread.is_empty() => {}
                Ok(unread) => return Some(lines(&unread)),
                Err(Denied::Replaced) => return Some(self.end("replaced", "newer stream")),
                Err(Denied::Elsewhere) => return Some(self.end("bye", "moved")),
                // The client has read the last events. When it comes back, it is told that the session is gone.
                Err(_) => return None,
            }
            let now = Instant::now();
            if now >= self.ends_at {
                return Some(self.end("bye", "age"));
            }
            if self.drains_at.is_some_and(|at| now >= at) {
                return Some(self.end("bye", "draining"));
            }
            if now >= self.keepalive_at {
                return Some(": ka\n\n".to_owned());
            }
        }
    }

    fn end(&mut self, event: &str, reason: &str) -> String {
        self.is_over = true;
        // Browsers drop an event without data.
        format!("event: {event}\ndata: {{\"reason\":\"{reason}\"}}\n\n")
    }
}

fn lines(unread: &Unread) -> String {
    let mut lines = String::new();
    if unread.reset {
        lines.push_str("event: reset\ndata: {\"reason\":\"older than what is kept\"}\n\n");
    }
    for (id, text) in &unread.events {
        write_event(&mut lines, *id, text);
    }
    lines
}

/// Line breaks between the tokens of a body become lines of data, which the client joins again.
fn write_event(lines: &mut String, id: EventId, text: &str) {
    // Writing to a String cannot fail.
    let _ = writeln!(lines, "id: {id}\nevent: message");
    let text = text.replace("\r\n", "\n");
    for line in text.split(['\n', '\r']) {
        let _ = writeln!(lines, "data: {line}");
    }
    lines.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_may_have_several_lines() {
        let mut lines = String::new();
        write_event(&mut lines, EventId::default(), "{\"a\":\r\n1,\r2}");
        let expected = "id: 0-0\nevent: message\ndata: {\"a\":\ndata: 1,\ndata: 2}\n\n";
        assert_eq!(lines, expected);
    }
}
