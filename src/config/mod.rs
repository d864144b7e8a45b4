//! The configuration: `default.toml`, then a file, then the environment, then flags. All mistakes
//! are reported together.

mod ice;
mod otel;
mod peerjs;
mod reader;
#[cfg(test)]
mod tests;

pub use reader::{Mistakes, Sources};

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use self::reader::Reader;
use crate::broker::{Terms, redis};
use crate::ice::Ice;
use crate::router::Bounds;
use crate::session::Clocks;
use crate::telemetry::{self, LogFormat};
use crate::transport::{HttpSettings, TlsFiles};
use crate::{router, transport};

/// Every setting with its default and its explanation: the operator's manual.
pub const DEFAULTS: &str = include_str!("default.toml");

/// The longest `http.session_ttl`.
const SESSION_MOST: Duration = Duration::from_mins(5);
/// Time limit for a client to prove that it is alive when somebody else wants its name…
const DOUBT: Duration = Duration::from_secs(2);
/// …and for its node to report the result.
const CHALLENGE: Duration = Duration::from_millis(2600);

/// A valid configuration: a value of this type can run.
#[derive(Clone, Debug)]
pub struct Config {
    /// The address of the client listener.
    pub listen: SocketAddr,
    /// The certificate files; `None` for plain connections.
    pub tls: Option<TlsFiles>,
    /// The configured name of the node.
    pub node_id: String,
    /// Worker threads; 0 for one per two cores.
    pub workers: usize,
    /// The address of the admin listener.
    pub admin_listen: SocketAddr,
    /// Public names for which the admin listener answers.
    pub admin_hosts: Vec<String>,
    /// The broker.
    pub backend: Backend,
    /// A draining node asks its sessions to leave over this long.
    pub drain_window: Duration,
    /// After this long a drain ends, even if sessions are left.
    pub drain_deadline: Duration,
    /// Logs, metrics and traces.
    pub telemetry: telemetry::Settings,
    presence: Presence,
    session: Session,
    limits: Limits,
    http: HttpSettings,
    peerjs: Option<transport::peerjs::Settings>,
    ice: Arc<Ice>,
    pages: bool,
}

/// The kind of broker.
#[derive(Clone, Debug)]
pub enum Backend {
    /// In memory, for one node alone.
    Embedded,
    /// Redis, for one or more nodes.
    Redis(redis::Config),
}

impl Backend {
    /// The `messaging.system` of spans.
    fn system(&self) -> &'static str {
        match self {
            Self::Embedded => "memory",
            Self::Redis(_) => "redis",
        }
    }
}

#[derive(Clone, Debug)]
struct Presence {
    ttl: Duration,
    grace: Duration,
    node_ttl: Duration,
    watch_every: Duration,
}

#[derive(Clone, Debug)]
struct Session {
    clocks: Clocks,
    write_timeout: Duration,
    max_age: Duration,
    frame_bytes: usize,
    mailbox: Bounds,
}

#[derive(Clone, Debug)]
struct Limits {
    signals_per_second: u32,
    signals_per_second_per_ip: u32,
    connections_per_ip: u32,
    origins: Vec<String>,
}

impl Config {
    /// Reads all sources. Also returns the effective settings as text, with secrets hidden.
    pub fn load(sources: Sources) -> Result<(Self, String), Mistakes> {
        let mut reader = Reader::new(sources)?;
        let config = Self::read(&mut reader);
        config.check(&mut reader);
        reader.finish().map(|effective| (config, effective))
    }

    fn read(reader: &mut Reader) -> Self {
        let backend = read_backend(reader);
        let log_format = reader.one_of(
            "log.format",
            &[
                ("auto", LogFormat::Auto),
                ("human", LogFormat::Human),
                ("json", LogFormat::Json),
            ],
        );
        let log_level = reader.text("log.level");
        Self {
            telemetry: otel::read(reader, log_format, log_level, backend.system()),
            backend,
            listen: reader.parsed("listen", "an address such as 0.0.0.0:9090"),
            tls: read_tls(reader),
            node_id: reader.text("node_id"),
            workers: reader.parsed(
                "workers",
                "a number of threads; 0 for one for every two cores",
            ),
            admin_listen: reader.parsed("admin.listen", "an address such as 127.0.0.1:9091"),
            admin_hosts: reader.list("admin.hosts"),
            drain_window: reader.duration("drain.window"),
            drain_deadline: reader.duration("drain.deadline"),
            presence: Presence {
                ttl: reader.duration("presence.ttl"),
                grace: reader.duration("presence.grace"),
                node_ttl: reader.duration("presence.node_ttl"),
                watch_every: reader.duration("presence.watch_every"),
            },
            session: read_session(reader),
            limits: Limits {
                signals_per_second: reader
                    .parsed("limits.signals_per_second", "a number; 0 for no limit"),
                signals_per_second_per_ip: reader.parsed(
                    "limits.signals_per_second_per_ip",
                    "a number; 0 for no limit",
                ),
                connections_per_ip: reader
                    .parsed("limits.connections_per_ip", "a number; 0 for no limit"),
                origins: reader.list("limits.origins"),
            },
            http: HttpSettings {
                session_ttl: reader.duration("http.session_ttl"),
                keepalive: reader.duration("http.keepalive"),
                stream_age: reader.duration("http.stream_age"),
            },
            peerjs: peerjs::read(reader),
            ice: Arc::new(ice::read(reader)),
            pages: reader.parsed("pages.enabled", "true or false"),
        }
    }

    /// Checks settings against each other.
    fn check(&self, reader: &mut Reader) {
        let Presence {
            ttl,
            grace,
            node_ttl,
            watch_every,
        } = self.presence;
        let id_fits = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        if self.node_id.is_empty() || self.node_id.len() > 64 || !self.node_id.bytes().all(id_fits)
        {
            reader.mistake(
                "node_id",
                "must have 1 to 64 letters, digits, dots, underscores or hyphens",
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
        if let Err(error) = tracing_subscriber::EnvFilter::try_new(&self.telemetry.log_level) {
            reader.mistake(
                "log.level",
                &format!("is not a log filter such as info or switchboard=debug: {error}"),
            );
        }
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

    /// The lifetimes of leases.
    pub fn terms(&self) -> Terms {
        Terms {
            user_ttl: self.presence.ttl,
            node_ttl: self.presence.node_ttl,
            challenge: CHALLENGE,
            grace: self.presence.grace,
        }
    }

    /// The settings of the router.
    pub fn router(&self) -> router::Settings {
        router::Settings {
            mailbox: self.session.mailbox,
            watch_every: self.presence.watch_every,
        }
    }

    /// The settings of the transport.
    pub fn transport(&self) -> transport::Settings {
        transport::Settings {
            clocks: self.session.clocks,
            write_timeout: self.session.write_timeout,
            max_age: self.session.max_age,
            frame_bytes: self.session.frame_bytes,
            signals_per_second: self.limits.signals_per_second,
            signals_per_second_per_ip: self.limits.signals_per_second_per_ip,
            connections_per_ip: self.limits.connections_per_ip,
            origins: self.limits.origins.clone(),
            http: self.http,
            peerjs: self.peerjs.clone(),
            ice: Arc::clone(&self.ice),
            pages: self.pages,
            tls: self.tls.is_some(),
        }
    }
}

fn read_session(reader: &mut Reader) -> Session {
    Session {
        clocks: Clocks {
            ping_every: reader.duration("session.ping_every"),
            silent_after: reader.duration("session.silent_after"),
            login_within: reader.duration("session.login_within"),
            doubt: DOUBT,
            beats_within: None,
        },
        write_timeout: reader.duration("session.write_timeout"),
        max_age: reader.duration("session.max_age"),
        frame_bytes: reader.parsed("session.frame_bytes", "a number of bytes"),
        mailbox: Bounds {
            events: reader.parsed("session.mailbox_events", "a number"),
            bytes: reader.parsed("session.mailbox_bytes", "a number of bytes"),
        },
    }
}

fn read_tls(reader: &mut Reader) -> Option<TlsFiles> {
    let (certificate, key) = (reader.text("tls.certificate"), reader.text("tls.key"));
    match (certificate.is_empty(), key.is_empty()) {
        (true, true) => return None,
        (false, false) => {}
        (true, false) => reader.mistake(
            "tls.certificate",
            "is missing, but tls.key is set: set both, or neither",
        ),
        (false, true) => reader.mistake(
            "tls.key",
            "is missing, but tls.certificate is set: set both, or neither",
        ),
    }
    Some(TlsFiles {
        certificate: certificate.into(),
        key: key.into(),
    })
}

fn read_backend(reader: &mut Reader) -> Backend {
    let url = reader.secret("redis.url");
    let mode = reader.one_of(
        "redis.mode",
        &[
            ("standalone", true),
            ("sentinel", false),
            ("cluster", false),
        ],
    );
    let prefix = reader.text("redis.prefix");
    let publishers = reader.parsed("redis.lanes", "a number from 1 to 64");
    let timeout = reader.duration("redis.timeout");
    if !mode || url.contains(',') {
        reader.mistake(
            "redis.mode",
            "sentinel and cluster are not supported yet: use standalone and one URL",
        );
    }
    if prefix.contains(['{', '}']) || prefix.len() > 64 {
        reader.mistake("redis.prefix", "must have at most 64 bytes and no braces");
    }
    if !(1..=64).contains(&publishers) {
        reader.mistake("redis.lanes", "must be a number from 1 to 64");
    }
    if timeout.is_zero() {
        reader.mistake("redis.timeout", "must be longer than 0s");
    }
    if url.is_empty() {
        return Backend::Embedded;
    }
    Backend::Redis(redis::Config {
        url: redis::Url::new(&url),
        prefix,
        publishers,
        timeout,
    })
}
