//! Where a Redis is, and how to use it.

use std::time::Duration;

/// How to use a Redis.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where it is; may contain a password.
    pub url: Url,
    /// Prefix of every key and channel, so that deployments can share a Redis.
    pub prefix: String,
    /// How many publishers, each with a connection of its own.
    pub publishers: usize,
    /// How long one round trip may take before Redis counts as unreachable.
    pub timeout: Duration,
}

/// A URL that may contain a password. Displayed without it.
#[derive(Clone, PartialEq, Eq)]
pub struct Url(String);

impl Url {
    /// This URL.
    pub fn new(url: &str) -> Self {
        Self(url.to_owned())
    }

    /// The URL with its password.
    pub(super) fn expose(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Display for Url {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (self.0.split_once("://"), self.0.rsplit_once('@')) {
            (Some((scheme, _)), Some((_, host))) => write!(f, "{scheme}://***@{host}"),
            _ => f.write_str(&self.0),
        }
    }
}

impl std::fmt::Debug for Url {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Url({self})")
    }
}
