//! Reads the section `[redis]`.

use super::reader::Reader;
use crate::broker::redis;

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
    pub(super) fn system(&self) -> &'static str {
        match self {
            Self::Embedded => "memory",
            Self::Redis(_) => "redis",
        }
    }
}

pub(super) fn read(reader: &mut Reader) -> Backend {
    let url = read_url(reader);
    let tls = read_tls(reader, url.as_ref());
    let mode = reader.one_of(
        "redis.mode",
        &[
            ("standalone", true),
            ("sentinel", false),
            ("cluster", false),
        ],
    );
    let prefix = reader.text("redis.prefix");
    let publishers = reader.number("redis.lanes", "a number from 1 to 64");
    let timeout = reader.duration("redis.timeout");
    if !mode {
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
    let Some(url) = url else {
        return Backend::Embedded;
    };
    Backend::Redis(redis::Config {
        url,
        tls,
        prefix,
        publishers,
        timeout,
    })
}

fn read_url(reader: &mut Reader) -> Option<redis::Url> {
    let url = reader.secret("redis.url");
    let (username, password) = (
        reader.text("redis.username"),
        reader.secret("redis.password"),
    );
    if url.is_empty() {
        return None;
    }
    if password.is_empty() && !username.is_empty() {
        reader.mistake("redis.username", "is without a redis.password: set both");
    }
    let login = (!password.is_empty()).then_some((username.as_str(), password.as_str()));
    match redis::Url::parse(&url).and_then(|url| url.with_login(login)) {
        Ok(url) => {
            reader.show("redis.url", format!("\"{url}\""));
            Some(url)
        }
        Err(what) => {
            reader.mistake("redis.url", &what);
            None
        }
    }
}

fn read_tls(reader: &mut Reader, url: Option<&redis::Url>) -> redis::TlsFiles {
    let keys = ["redis.ca", "redis.certificate", "redis.key"];
    let paths = keys.map(|key| {
        let path = reader.text(key);
        if path.is_empty() {
            return None;
        }
        if url.is_some_and(|url| !url.is_tls()) {
            reader.mistake(key, "is of no use: redis.url must begin with rediss://");
        }
        if let Err(error) = std::fs::File::open(&path) {
            reader.mistake(key, &format!("cannot be read: {error}"));
        }
        Some(path.into())
    });
    let [ca, certificate, key] = paths;
    if certificate.is_some() != key.is_some() {
        reader.mistake(
            "redis.certificate",
            "and redis.key belong together: set both, or neither",
        );
    }
    redis::TlsFiles {
        ca,
        own: certificate.zip(key),
    }
}
