//! The configuration: `default.toml`, then a file, then the environment, then flags. All mistakes
//! are reported together.

mod auth;
mod backend;
mod check;
mod effective;
mod ice;
mod layers;
mod names;
mod otel;
mod otel_variables;
mod peerjs;
mod reader;
#[cfg(test)]
mod tests;
mod values;
mod webhooks;

pub use backend::Backend;
pub use effective::Mistakes;
pub use layers::Sources;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

use self::reader::Reader;
use crate::auth::{self as tokens, Auth};
use crate::broker::Terms;
use crate::ice::Ice;
use crate::model::Secret;
use crate::router::Bounds;
use crate::session::Clocks;
use crate::telemetry::{self, LogFormat};
use crate::transport::{HttpSettings, Origins, TlsFiles, TrustedProxies};
use crate::{limits, router, transport};

/// Every setting with its default and its explanation: the operator's manual.
pub const DEFAULTS: &str = include_str!("default.toml");

/// The shortest key of the admin API.
const ADMIN_TOKEN_LEAST: usize = 16;

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
    /// The key of the admin API; `None` if it is not served.
    pub admin_token: Option<Secret>,
    /// Public names for which the admin listener answers.
    pub admin_hosts: Vec<String>,
    /// The broker.
    pub backend: Backend,
    /// The receiver of webhooks: its URL and the secret; `None` if there is none.
    pub webhooks: Option<(String, Secret)>,
    /// A draining node asks its sessions to leave over this long.
    pub drain_window: Duration,
    /// After this long a drain ends, even if sessions are left.
    pub drain_deadline: Duration,
    /// Who needs a token, and the keys that verify tokens.
    pub auth: tokens::Settings,
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
    logins_per_minute_per_ip: u32,
    connections_per_ip: u32,
    sessions: usize,
    proxies: TrustedProxies,
    origins: Origins,
}

impl Config {
    /// Reads all sources.
    pub fn load(sources: Sources) -> Result<Self, Mistakes> {
        Self::check(sources).1
    }

    /// Like [`load`](Self::load), with the effective settings as text: each with where it comes from, secrets hidden.
    pub fn check(sources: Sources) -> (String, Result<Self, Mistakes>) {
        let mut reader = Reader::new(sources);
        let config = Self::read(&mut reader);
        config.cross_check(&mut reader);
        let (effective, result) = reader.finish();
        (effective, result.map(|()| config))
    }

    fn read(reader: &mut Reader) -> Self {
        let backend = backend::read(reader);
        let log_format = reader.one_of(
            "log.format",
            &[
                ("auto", LogFormat::Auto),
                ("human", LogFormat::Human),
                ("json", LogFormat::Json),
            ],
        );
        let log_level = reader.converted("log.level", values::log_level);
        reader.show("log.level", layers::quoted(&log_level));
        Self {
            telemetry: otel::read(reader, log_format, log_level, backend.system()),
            backend,
            listen: reader.address("listen"),
            tls: read_tls(reader),
            node_id: reader.text("node_id"),
            workers: reader.number(
                "workers",
                "a number of threads; 0 for one for every two cores",
            ),
            admin_listen: reader.address("admin.listen"),
            admin_hosts: reader.list("admin.hosts"),
            admin_token: read_admin_token(reader),
            webhooks: webhooks::read(reader),
            drain_window: reader.duration("drain.window"),
            drain_deadline: reader.duration("drain.deadline"),
            presence: Presence {
                ttl: reader.duration("presence.ttl"),
                grace: reader.duration("presence.grace"),
                node_ttl: reader.duration("presence.node_ttl"),
                watch_every: reader.duration("presence.watch_every"),
            },
            session: read_session(reader),
            limits: read_limits(reader),
            http: HttpSettings {
                session_ttl: reader.duration("http.session_ttl"),
                keepalive: reader.duration("http.keepalive"),
                stream_age: reader.duration("http.stream_age"),
            },
            peerjs: peerjs::read(reader),
            auth: auth::read(reader),
            ice: Arc::new(ice::read(reader)),
            pages: reader.boolean("pages.enabled"),
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
            sessions: match self.limits.sessions {
                0 => limits::sessions_that_fit().unwrap_or(usize::MAX),
                sessions => sessions,
            },
        }
    }

    /// The proxies that may say where a client comes from.
    pub fn proxies(&self) -> TrustedProxies {
        self.limits.proxies.clone()
    }

    /// The settings of the transport.
    pub fn transport(&self, auth: Arc<Auth>) -> transport::Settings {
        transport::Settings {
            clocks: self.session.clocks,
            write_timeout: self.session.write_timeout,
            max_age: self.session.max_age,
            frame_bytes: self.session.frame_bytes,
            signals_per_second: self.limits.signals_per_second,
            signals_per_second_per_ip: self.limits.signals_per_second_per_ip,
            logins_per_minute_per_ip: self.limits.logins_per_minute_per_ip,
            connections_per_ip: self.limits.connections_per_ip,
            origins: self.limits.origins.clone(),
            http: self.http,
            peerjs: self.peerjs.clone(),
            ice: Arc::clone(&self.ice),
            auth,
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
        frame_bytes: reader.size("session.frame_bytes"),
        mailbox: Bounds {
            events: reader.number("session.mailbox_events", "a number"),
            bytes: reader.size("session.mailbox_bytes"),
        },
    }
}

fn read_limits(reader: &mut Reader) -> Limits {
    Limits {
        signals_per_second: reader.number("limits.signals_per_second", "a number; 0 for no limit"),
        signals_per_second_per_ip: reader.number(
            "limits.signals_per_second_per_ip",
            "a number; 0 for no limit",
        ),
        logins_per_minute_per_ip: reader.number(
            "limits.logins_per_minute_per_ip",
            "a number; 0 for no limit",
        ),
        connections_per_ip: reader.number("limits.connections_per_ip", "a number; 0 for no limit"),
        sessions: reader.number("limits.sessions", "a number; 0 for as many as fit"),
        origins: read_origins(reader),
        proxies: read_proxies(reader),
    }
}

fn read_origins(reader: &mut Reader) -> Origins {
    let words = reader.list("limits.origins");
    match Origins::parse(&words) {
        Ok(origins) => {
            reader.show("limits.origins", format!("{:?}", origins.as_slice()));
            origins
        }
        Err(mistakes) => {
            for what in mistakes {
                reader.mistake("limits.origins", &format!("is wrong: {what}"));
            }
            Origins::default()
        }
    }
}

fn read_proxies(reader: &mut Reader) -> TrustedProxies {
    let mut networks = Vec::new();
    for word in reader.list("limits.trusted_proxies") {
        let address = word.parse::<IpAddr>().map(IpNet::from).ok();
        if let Some(network) = address.or_else(|| word.parse().ok()) {
            networks.push(network);
        } else {
            let what = "is neither an address nor a network such as 10.0.0.0/8";
            let key = "limits.trusted_proxies";
            reader.mistake(key, &format!("is wrong: {word:?} {what}"));
        }
    }
    let headers = [("X-Forwarded-For", false), ("Forwarded", true)];
    TrustedProxies::new(networks, reader.one_of("limits.forwarded_header", &headers))
}

fn read_admin_token(reader: &mut Reader) -> Option<Secret> {
    let token = reader.secret("admin.token");
    if token.is_empty() {
        return None;
    }
    let is_visible = token.bytes().all(|byte| byte.is_ascii_graphic());
    if token.len() < ADMIN_TOKEN_LEAST || !is_visible {
        let wrong =
            "must have at least 16 visible ASCII characters, as `openssl rand -hex 32` prints";
        reader.mistake("admin.token", wrong);
    }
    Some(Secret::claimed(&token))
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
