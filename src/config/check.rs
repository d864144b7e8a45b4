//! Checks settings against each other.

use std::time::Duration;

use super::reader::Reader;
use super::{Config, Presence};

/// The longest `http.session_ttl`.
const SESSION_MOST: Duration = Duration::from_mins(5);
/// The longest name of a Kubernetes pod.
const NODE_ID_MOST: usize = 253;

impl Config {
    pub(super) fn cross_check(&self, reader: &mut Reader) {
        let Presence {
            ttl,
            grace,
            node_ttl,
            watch_every,
        } = self.presence;
        let id_fits = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        if self.node_id.is_empty()
            || self.node_id.len() > NODE_ID_MOST
            || !self.node_id.bytes().all(id_fits)
        {
            reader.mistake(
                "node_id",
                "must have 1 to 253 letters, digits, dots, underscores or hyphens",
            );
        }
        for (key, time) in [
            ("presence.ttl", ttl),
            ("presence.node_ttl", node_ttl),
            ("presence.watch_every", watch_every),
            ("session.ping_every", self.session.clocks.ping_every),
            ("session.write_timeout", self.session.write_timeout),
            ("http.keepalive", self.http.keepalive),
            ("http.stream_age", self.http.stream_age),
        ] {
            if time.is_zero() {
                reader.mistake(key, "must be longer than 0s");
            }
        }
        if (grace + node_ttl * 7 / 5) * 3 > ttl * 2 {
            reader.mistake(
                "presence.ttl",
                "is too short: presence.grace + 7/5 of presence.node_ttl must fit into 2/3 of it, \
                 or a name could expire before its session",
            );
        }
        self.check_session(reader);
        self.check_tls(reader);
    }

    fn check_session(&self, reader: &mut Reader) {
        if self.session.clocks.silent_after <= self.session.clocks.ping_every {
            reader.mistake(
                "session.silent_after",
                "must be longer than session.ping_every",
            );
        }
        if self.http.session_ttl < Duration::from_secs(5) || self.http.session_ttl > SESSION_MOST {
            reader.mistake(
                "http.session_ttl",
                "must be from 5s, so that a client has time to reconnect, to 5m",
            );
        }
        if self.session.frame_bytes < 1024 {
            reader.mistake(
                "session.frame_bytes",
                "must be at least 1024, so that an offer fits",
            );
        }
        if self.session.mailbox.bytes < self.session.frame_bytes || self.session.mailbox.events == 0
        {
            reader.mistake(
                "session.mailbox_bytes",
                "must be at least session.frame_bytes, and session.mailbox_events at least 1",
            );
        }
    }

    fn check_tls(&self, reader: &mut Reader) {
        let Some(files) = &self.tls else { return };
        for (key, path) in [
            ("tls.certificate", &files.certificate),
            ("tls.key", &files.key),
        ] {
            // One of the two that is missing has been reported.
            if !path.as_os_str().is_empty()
                && let Err(error) = std::fs::read(path)
            {
                reader.mistake(key, &format!("is wrong: cannot read the file: {error}"));
            }
        }
    }
}
