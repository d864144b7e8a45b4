//! Reads the ICE servers, and refuses at startup what browsers would refuse later.

use std::fmt::Write as _;
use std::time::Duration;

use config::{Value, ValueKind};

use super::layers::{list, quoted};
use super::reader::Reader;
use crate::ice::{Ice, Relays, is_relay};
use crate::model::{IceLogin, IceServer};

const SERVERS: &str = "ice.servers";
const RELAY: &str =
    "is a relay without credentials: set ice.turn_secret, or its username and credential";

/// Reads the section `[ice]`.
pub(super) fn read(reader: &mut Reader) -> Ice {
    let entries = reader.secret_entries(SERVERS);
    let secret = reader.secret("ice.turn_secret");
    let ttl = reader.duration("ice.turn_ttl");
    if ttl < Duration::from_secs(1) {
        reader.mistake("ice.turn_ttl", "must be at least 1s");
    }
    let mut servers = Vec::new();
    for (number, entry) in (1..).zip(entries) {
        let read = read_server(entry).and_then(|server| {
            let relays = server.urls.iter().any(|url| is_relay(url));
            if relays && server.login.is_none() && secret.is_empty() {
                return Err(RELAY.to_owned());
            }
            Ok(server)
        });
        match read {
            Ok(server) => servers.push(server),
            Err(what) => reader.mistake(SERVERS, &format!("is invalid: server {number} {what}")),
        }
    }
    reader.show(SERVERS, shown(&servers));
    let relays = (!secret.is_empty()).then_some(Relays { secret, ttl });
    Ice::new(servers, relays)
}

/// Reads one server: a URL, or a table with `urls`, `username` and `credential`, as browsers take
/// it.
fn read_server(entry: Value) -> Result<IceServer, String> {
    const WRONG: &str = "is neither a URL nor a table with urls, username and credential";
    let (mut urls, mut username, mut credential) = (Vec::new(), None, None);
    match entry.kind {
        ValueKind::String(url) => urls.push(url),
        ValueKind::Table(fields) => {
            for (field, value) in fields {
                match (field.as_str(), value.kind) {
                    ("urls", ValueKind::Array(values)) => {
                        for value in values {
                            urls.push(value.into_string().map_err(|_| WRONG)?);
                        }
                    }
                    ("urls", ValueKind::String(url)) => urls.push(url),
                    ("username", ValueKind::String(text)) => username = Some(text),
                    ("credential", ValueKind::String(text)) => credential = Some(text),
                    _ => return Err(WRONG.to_owned()),
                }
            }
        }
        _ => return Err(WRONG.to_owned()),
    }
    if urls.is_empty() {
        return Err("has no urls".to_owned());
    }
    for url in &urls {
        // What is before an @ can be a password.
        let shown = url.rsplit_once('@').map_or(url.as_str(), |(_, host)| host);
        check(url).map_err(|what| format!("has the URL {shown:?}, which {what}"))?;
    }
    let login = match (username, credential) {
        (None, None) => None,
        (Some(username), Some(credential)) => Some(IceLogin {
            username,
            credential,
        }),
        _ => {
            return Err("has only one of username and credential: set both, or neither".to_owned());
        }
    };
    Ok(IceServer {
        urls: urls.into(),
        login,
    })
}

/// Checks a URL (RFC 7064, RFC 7065). One URL that a browser refuses makes its `RTCPeerConnection`
/// constructor throw.
fn check(url: &str) -> Result<(), &'static str> {
    let (scheme, rest) = url.split_once(':').unwrap_or_default();
    if !["stun", "stuns", "turn", "turns"].contains(&scheme) {
        return Err("does not begin with stun:, stuns:, turn: or turns:");
    }
    let (authority, query) = match rest.split_once('?') {
        None => (rest, None),
        Some((authority, query)) => (authority, Some(query)),
    };
    match query {
        None => {}
        Some("transport=udp" | "transport=tcp") if is_relay(url) => {}
        Some(_) => {
            return Err(
                "has a query: only turn: and turns: URLs may end with ?transport=udp or ?transport=tcp",
            );
        }
    }
    let (host, port) = match authority.strip_prefix('[') {
        Some(v6) => v6.split_once(']').unwrap_or_default(),
        None => authority.split_at(authority.find(':').unwrap_or(authority.len())),
    };
    let is_v6 = authority.starts_with('[');
    let fits = |letter: char| letter.is_ascii_alphanumeric() || "._-".contains(letter);
    let is_host = if is_v6 {
        host.parse::<std::net::Ipv6Addr>().is_ok()
    } else {
        !host.is_empty() && host.chars().all(fits)
    };
    if !is_host {
        return Err("has no valid host after the scheme (write turn:host, without //)");
    }
    let is_port = |port: &str| port.parse().is_ok_and(|port: u16| port > 0);
    if !port.is_empty() && !port.strip_prefix(':').is_some_and(is_port) {
        return Err("has an invalid port: use 1 to 65535");
    }
    Ok(())
}

/// The servers as `switchboard config check` prints them: TOML without credentials.
fn shown(servers: &[IceServer]) -> String {
    let servers = servers.iter().map(|server| {
        let mut shown = format!("{{ urls = {}", list(&server.urls));
        if let Some(login) = &server.login {
            // Writing to a String cannot fail.
            let _ = write!(
                shown,
                ", username = {}, credential = \"(hidden)\"",
                quoted(&login.username)
            );
        }
        shown + " }"
    });
    format!("[{}]", servers.collect::<Vec<_>>().join(", "))
}
