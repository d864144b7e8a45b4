//! One stream of server-sent events (WHATWG HTML, section 9.2).

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

/// Padding at the start of a stream. It fills the buffers of proxies, so that they pass later
/// events on at once.
const PADDING: usize = 2048;

/// A stream for one client.
pub(super) struct EventStream {
    reader: Reader,
    settings: HttpSettings,
    phase: Phase,
    is_over: bool,
    /// When the next keepalive comment is due; it stops proxies from closing the stream.
    keepalive_at: Instant,
    /// When the stream ends because of its age.
    ends_at: Instant,
    /// When the stream ends because the node drains.
    drains_at: Option<Instant>,
    _held: (Option<Permit>, TaskTrackerToken),
}

impl EventStream {
    /// A stream of the reader's events. It holds `held` until it ends.
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

    /// The chunks of the response body.
    pub(super) fn chunks(self) -> impl Stream<Item = Result<String, Infallible>> + Send {
        let padding = " ".repeat(PADDING);
        let first = format!(": ok{padding}\nretry: 1000\n\n");
        let rest = stream::unfold(self, |mut stream| async {
            let chunk = stream.next().await?;
            stream.keepalive_at = Instant::now() + stream.settings.keepalive;
            Some((chunk, stream))
        });
        stream::iter([first]).chain(rest).map(Ok)
    }

    /// Waits for the next chunk; `None` ends the stream.
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
                // The client has all events. On its next request it learns that the session is
                // gone.
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
        // Browsers ignore events without data.
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

/// A line break inside the JSON text starts another `data` line; the client joins them with a line
/// break.
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
    fn an_event_with_line_breaks_has_several_data_lines() {
        let mut lines = String::new();
        write_event(&mut lines, EventId::default(), "{\"a\":\r\n1,\r2}");
        let expected = "id: 0-0\nevent: message\ndata: {\"a\":\ndata: 1,\ndata: 2}\n\n";
        assert_eq!(lines, expected);
    }
}
