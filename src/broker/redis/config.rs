//! Where a Redis is, and how to use it.

use std::path::PathBuf;
use std::time::Duration;

use redis::io::tcp::TcpSettings;
use redis::{
    Client, ClientTlsConfig, ConnectionInfo, IntoConnectionInfo as _, RedisError, TlsCertificates,
};

/// How to use a Redis.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where it is; may contain a password.
    pub url: Url,
    /// Whom to trust if the URL asks for TLS, and how to show who this node is.
    pub tls: TlsFiles,
    /// Prefix of every key and channel, so that deployments can share a Redis.
    pub prefix: String,
    /// How many publishers, each with a connection of its own.
    pub publishers: usize,
    /// How long one round trip may take before Redis counts as unreachable.
    pub timeout: Duration,
}

/// PEM files.
#[derive(Clone, Debug, Default)]
pub struct TlsFiles {
    /// The authorities that may have signed the server's certificate; `None` for the public ones.
    pub ca: Option<PathBuf>,
    /// A certificate for this node, and its key.
    pub own: Option<(PathBuf, PathBuf)>,
}

/// Redis cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The URL is not a Redis URL.
    #[error("redis.url is not a Redis URL such as redis://localhost:6379: {0}")]
    Url(RedisError),
    /// A file for TLS cannot be read.
    #[error("cannot read {path:?}, which redis.ca, redis.certificate or redis.key names: {source}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// The files for TLS are not what they should be.
    #[error("cannot use the PEM files of redis.ca, redis.certificate and redis.key: {0}")]
    Tls(RedisError),
    /// The pool cannot be made.
    #[error("cannot create the connection pool for Redis: {0}")]
    Pool(#[from] deadpool_redis::BuildError),
}

impl Config {
    /// What the library needs to connect.
    pub(super) fn connection_info(&self) -> Result<ConnectionInfo, ConnectError> {
        let info = self.url.expose().into_connection_info();
        let tcp = TcpSettings::default().set_nodelay(true);
        let info = info.map_err(ConnectError::Url)?.set_tcp_settings(tcp);
        if self.tls.ca.is_none() && self.tls.own.is_none() {
            return Ok(info);
        }
        // The library keeps in the information what it makes of the files.
        let client = Client::build_with_tls(info, self.tls.read()?).map_err(ConnectError::Tls)?;
        Ok(client.get_connection_info().clone())
    }
}

impl TlsFiles {
    fn read(&self) -> Result<TlsCertificates, ConnectError> {
        let read = |path: &PathBuf| {
            let unreadable = |source| ConnectError::Unreadable {
                path: path.clone(),
                source,
            };
            std::fs::read(path).map_err(unreadable)
        };
        let own = |(certificate, key): &(PathBuf, PathBuf)| {
            Ok::<_, ConnectError>(ClientTlsConfig {
                client_cert: read(certificate)?,
                client_key: read(key)?,
            })
        };
        Ok(TlsCertificates {
            client_tls: self.own.as_ref().map(own).transpose()?,
            root_cert: self.ca.as_ref().map(read).transpose()?,
        })
    }
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
