//! One stream of server-sent events, from its first byte to its end.

use std::convert::Infallible;
use std::fmt::Write as _;

use axum::body::Bytes;
use tokio::time::Instant;
use tokio_util::task::task_tracker::TaskTrackerToken;

use super::super::HttpSettings;
use super::buffer::{Looked, Place as EventId};
use super::homes::{Denied, Reader};
use crate::drain::Phase;
use crate::limits::Place;

/// What fills the buffers on the way, so that whoever waits for the first byte gets it.
const PADDING: usize = 2048;

/// A stream that is being told.
pub(super) struct Feed {
    reader: Reader,
    settings: HttpSettings,
    phase: Phase,
    stage: Stage,
    /// When something must be said, so that nobody on the way thinks that it is over.
    quiet_until: Instant,
    /// When it ends, so that connections spread anew.
    ends_at: Instant,
    /// When it goes as its node does.
    goes_at: Option<Instant>,
    _kept: (Option<Place>, TaskTrackerToken),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Begins,
    Goes,
    Over,
}

impl Feed {
    /// A stream of what this reader finds; what is kept is let go with it.
    pub(super) fn new(
        reader: Reader,
        settings: HttpSettings,
        phase: Phase,
        kept: (Option<Place>, TaskTrackerToken),
    ) -> Self {
        let now = Instant::now();
        Self {
            reader,
            settings,
            phase,
            stage: Stage::Begins,
            quiet_until: now + settings.keepalive,
            ends_at: now + settings.stream_age,
            goes_at: None,
            _kept: kept,
        }
    }

    /// The next piece of the stream.
    pub(super) async fn next(mut self) -> Option<(Result<Bytes, Infallible>, Self)> {
        let said = match self.stage {
            Stage::Begins => {
                self.stage = Stage::Goes;
                let padding = " ".repeat(PADDING);
                format!(": ok{padding}\nretry: 1000\n\n")
            }
            Stage::Goes => self.goes().await?,
            Stage::Over => return None,
        };
        self.quiet_until = Instant::now() + self.settings.keepalive;
        Some((Ok(said.into()), self))
    }

    /// Waits for what is to be said next; `None`: the stream is over.
    async fn goes(&mut self) -> Option<String> {
        loop {
            match self.reader.look() {
                Ok(found) if found.reset || !found.events.is_empty() => return Some(told(&found)),
                Ok(_) => {}
                Err(Denied::Replaced) => return Some(self.last("replaced", "newer stream")),
                Err(Denied::Elsewhere) => return Some(self.last("bye", "moved")),
                // Its last words were told before. Whoever comes back hears that it is gone.
                Err(_) => return None,
            }
            let now = Instant::now();
            if now >= self.ends_at {
                return Some(self.last("bye", "age"));
            }
            if self.goes_at.is_some_and(|at| now >= at) {
                return Some(self.last("bye", "draining"));
            }
            if now >= self.quiet_until {
                return Some(": ka\n\n".to_owned());
            }
            let until = self.quiet_until.min(self.ends_at);
            let until = self.goes_at.map_or(until, |at| at.min(until));
            let drain = self.phase.draining();
            tokio::select! {
                () = self.reader.news(until.saturating_duration_since(now)) => {}
                () = drain.cancelled(), if self.goes_at.is_none() => {
                    self.goes_at = Some(Instant::now() + self.phase.goes_in());
                }
            }
        }
    }

    fn last(&mut self, event: &str, reason: &str) -> String {
        self.stage = Stage::Over;
        // One without data would not be told to the page.
        format!("event: {event}\ndata: {{\"reason\":\"{reason}\"}}\n\n")
    }
}

fn told(Looked { events, reset }: &Looked) -> String {
    let mut said = String::new();
    if *reset {
        said.push_str("event: reset\ndata: {\"reason\":\"older than what is kept\"}\n\n");
    }
    for (place, event) in events {
        tell(&mut said, *place, &String::from_utf8_lossy(event));
    }
    said
}

/// Line breaks between the tokens of a body become lines of data, which the client joins again.
fn tell(said: &mut String, place: EventId, event: &str) {
    // Writing to a String cannot fail.
    let _ = writeln!(said, "id: {place}\nevent: message");
    let event = event.replace("\r\n", "\n");
    for line in event.split(['\n', '\r']) {
        let _ = writeln!(said, "data: {line}");
    }
    said.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_may_have_several_lines() {
        let mut said = String::new();
        tell(&mut said, EventId::default(), "{\"a\":\r\n1,\r2}");
        let expected = "id: 0-0\nevent: message\ndata: {\"a\":\ndata: 1,\ndata: 2}\n\n";
        assert_eq!(said, expected);
    }
}
