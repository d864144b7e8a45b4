//! Reads the section `[auth]`, and what is limited for the owners of tokens.

use std::net::IpAddr;
use std::path::PathBuf;

use url::{Host, Url};

use super::reader::Reader;
use crate::auth::{KeySource, Mode, Settings};

/// The shortest secret, in bytes (RFC 7518, section 3.2).
const SECRET_BYTES: usize = 32;
/// How many files may be named.
const MOST_KEYS: usize = 16;

/// Reads the section, and refuses what would protect nothing.
pub(super) fn read(reader: &mut Reader) -> Settings {
    let mode = reader.one_of(
        "auth.mode",
        &[
            ("open", Mode::Open),
            ("optional", Mode::Optional),
            ("required", Mode::Required),
        ],
    );
    let sources = read_sources(reader);
    let jwks_url = read_url(reader);
    let has_keys = !sources.is_empty() || jwks_url.is_some();
    if mode == Mode::Open && has_keys {
        reader.mistake(
            "auth.mode",
            "does not check tokens, but auth.jwt has keys for them: use required or optional, or remove the keys",
        );
    }
    if mode != Mode::Open && !has_keys {
        reader.mistake(
            "auth.mode",
            "needs keys: set auth.jwt.hmac_secret, auth.jwt.keys or auth.jwt.jwks_url",
        );
    }
    Settings {
        mode,
        sources,
        jwks_url,
        audience: reader.list("auth.jwt.audience"),
        issuer: reader.list("auth.jwt.issuer"),
        sessions_per_user: reader.number("limits.sessions_per_user", "a number; 0 for no limit"),
    }
}

fn read_sources(reader: &mut Reader) -> Vec<KeySource> {
    let mut sources = Vec::new();
    // Its file is read again when it changes.
    let secret = reader.hidden("auth.jwt.hmac_secret");
    let file = reader.text("auth.jwt.hmac_secret_file");
    if !secret.is_empty() {
        if secret.len() < SECRET_BYTES {
            reader.mistake(
                "auth.jwt.hmac_secret",
                "is shorter than 32 bytes, so that it could be guessed: openssl rand -hex 32 makes one",
            );
        }
        sources.push(KeySource::Secret(secret));
    }
    let check = |reader: &mut Reader, key, path: &str| {
        if let Err(error) = std::fs::read(path) {
            reader.mistake(key, &format!("is wrong: cannot read {path:?}: {error}"));
        }
    };
    if !file.is_empty() {
        check(reader, "auth.jwt.hmac_secret_file", &file);
        sources.push(KeySource::SecretFile(PathBuf::from(file)));
    }
    let files = reader.list("auth.jwt.keys");
    if files.len() > MOST_KEYS {
        reader.mistake("auth.jwt.keys", "must list at most 16 files");
    }
    for file in files {
        check(reader, "auth.jwt.keys", &file);
        sources.push(KeySource::Pem(PathBuf::from(file)));
    }
    sources
}

fn read_url(reader: &mut Reader) -> Option<Url> {
    let text = reader.text("auth.jwt.jwks_url");
    if text.is_empty() {
        return None;
    }
    let url = Url::parse(&text).ok();
    let url = url.filter(|url| match url.scheme() {
        "https" => url.has_host(),
        // Whoever is on the way could replace the keys.
        "http" => is_this_machine(url),
        _ => false,
    });
    if url.is_none() {
        reader.mistake(
            "auth.jwt.jwks_url",
            "must be an https:// URL; http:// only with 127.0.0.1, [::1] or localhost",
        );
    }
    url
}

fn is_this_machine(url: &Url) -> bool {
    match url.host() {
        Some(Host::Ipv4(ip)) => IpAddr::V4(ip).is_loopback(),
        Some(Host::Ipv6(ip)) => IpAddr::V6(ip).is_loopback(),
        Some(Host::Domain(name)) => name == "localhost",
        None => false,
    }
}
