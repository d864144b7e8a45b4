//! TLS at the clients' door: a certificate and its key, read from two files and read again whenever they change.

use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{InconsistentKeys, ServerConfig};
use sha2::{Digest as _, Sha256};
use tokio::time::sleep;
use tokio_rustls::TlsAcceptor;
use tracing::{error, info};

use super::expiry::Expiry;

/// How often the files are looked at. Also how long a certificate and its key may take to be replaced, one after the other.
const RELOAD_EVERY: Duration = Duration::from_secs(2);

/// Where the operator keeps the certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// PEM: the certificate, then those that lead to its root.
    pub certificate: PathBuf,
    /// PEM: the private key.
    pub key: PathBuf,
}

/// Why a certificate cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("{setting} = {path:?} cannot be read: {source}")]
    Unreadable {
        /// Which setting names the file.
        setting: &'static str,
        /// Which file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// A file holds something else.
    #[error("{setting} = {path:?} holds no {what} in PEM (\"-----BEGIN …\")")]
    NotPem {
        /// Which setting names the file.
        setting: &'static str,
        /// Which file.
        path: PathBuf,
        /// What it should hold.
        what: &'static str,
    },
    /// Each is fine, but they are not a pair.
    #[error(
        "the key of tls.key does not belong to the certificate of tls.certificate: replace both"
    )]
    Mismatch,
    /// The pair cannot be used.
    #[error("the certificate of tls.certificate, or the key of tls.key, cannot be used: {0}")]
    Unusable(rustls::Error),
}

/// A certificate and its key, as they are in the files.
struct PemFiles {
    certificate: Vec<u8>,
    key: Vec<u8>,
}

impl PemFiles {
    fn read(files: &TlsFiles) -> Result<Self, TlsError> {
        let read = |setting, path: &PathBuf| {
            std::fs::read(path).map_err(|source| TlsError::Unreadable {
                setting,
                path: path.clone(),
                source,
            })
        };
        Ok(Self {
            certificate: read("tls.certificate", &files.certificate)?,
            key: read("tls.key", &files.key)?,
        })
    }

    /// Tells this pair from every other.
    fn fingerprint(&self) -> [u8; 32] {
        let mut hash = Sha256::new();
        hash.update(self.certificate.len().to_be_bytes());
        hash.update(&self.certificate);
        hash.update(&self.key);
        hash.finalize().into()
    }

    fn certified(
        &self,
        files: &TlsFiles,
        provider: &CryptoProvider,
    ) -> Result<CertifiedKey, TlsError> {
        let chain: Vec<_> = CertificateDer::pem_slice_iter(&self.certificate)
            .collect::<Result<_, _>>()
            .unwrap_or_default();
        if chain.is_empty() {
            return Err(TlsError::NotPem {
                setting: "tls.certificate",
                path: files.certificate.clone(),
                what: "certificate",
            });
        }
        let key = PrivateKeyDer::from_pem_slice(&self.key).map_err(|_| TlsError::NotPem {
            setting: "tls.key",
            path: files.key.clone(),
            what: "private key",
        })?;
        CertifiedKey::from_der(chain, key, provider).map_err(|error| match error {
            rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => TlsError::Mismatch,
            error => TlsError::Unusable(error),
        })
    }
}

/// What is served at the moment.
#[derive(Debug)]
struct CurrentCertificate(RwLock<Arc<CertifiedKey>>);

impl ResolvesServerCert for CurrentCertificate {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        // Nothing panics while it holds the lock.
        let served = self.0.read().unwrap_or_else(PoisonError::into_inner);
        Some(Arc::clone(&served))
    }
}

/// A door's TLS. Clones serve the same certificate.
#[derive(Clone)]
pub struct Tls {
    files: TlsFiles,
    provider: Arc<CryptoProvider>,
    served: Arc<CurrentCertificate>,
    fingerprint: [u8; 32],
    expiry: Option<Expiry>,
    acceptor: TlsAcceptor,
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Tls").field(&self.files).finish()
    }
}

impl Tls {
    /// Reads the files for the first time.
    pub fn load(files: TlsFiles) -> Result<Self, TlsError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let pair = PemFiles::read(&files)?;
        let certified = pair.certified(&files, &provider)?;
        let expiry = certified.cert.first().and_then(Expiry::of);
        let served = Arc::new(CurrentCertificate(RwLock::new(Arc::new(certified))));
        let resolver: Arc<dyn ResolvesServerCert> = Arc::<CurrentCertificate>::clone(&served);
        let mut config = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(TlsError::Unusable)?
            .with_no_client_auth()
            .with_cert_resolver(resolver);
        // WebSockets begin as HTTP/1.1.
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self {
            fingerprint: pair.fingerprint(),
            expiry,
            acceptor: TlsAcceptor::from(Arc::new(config)),
            files,
            provider,
            served,
        })
    }

    pub(super) fn acceptor(&self) -> &TlsAcceptor {
        &self.acceptor
    }

    /// Looks at the files for ever. What is new and good is served from the next connection on; what is bad is logged, and not served.
    pub async fn watch_files(mut self) {
        let mut throttle = ErrorThrottle::default();
        loop {
            sleep(RELOAD_EVERY).await;
            match self.reload() {
                Ok(renewed) => {
                    if renewed {
                        info!(certificate = ?self.files.certificate, "A renewed certificate is served");
                    }
                    throttle = ErrorThrottle::default();
                }
                Err(found) if throttle.should_log(&found.to_string()) => {
                    error!("The TLS certificate is not renewed, the one before is kept: {found}");
                }
                Err(_) => {}
            }
            if let Some(expiry) = &mut self.expiry {
                expiry.remind();
            }
        }
    }

    /// True if what is served has changed.
    fn reload(&mut self) -> Result<bool, TlsError> {
        let pair = PemFiles::read(&self.files)?;
        let fingerprint = pair.fingerprint();
        if fingerprint == self.fingerprint {
            return Ok(false);
        }
        let renewed = Arc::new(pair.certified(&self.files, &self.provider)?);
        self.expiry = renewed.cert.first().and_then(Expiry::of);
        *self
            .served
            .0
            .write()
            .unwrap_or_else(PoisonError::into_inner) = renewed;
        self.fingerprint = fingerprint;
        Ok(true)
    }
}

/// An error is logged at its second look, since two files are never replaced at once, and then no more until it is another.
#[derive(Debug, Default)]
struct ErrorThrottle {
    seen: String,
    logged: bool,
}

impl ErrorThrottle {
    fn should_log(&mut self, found: &str) -> bool {
        if self.seen != found {
            found.clone_into(&mut self.seen);
            self.logged = false;
            return false;
        }
        !std::mem::replace(&mut self.logged, true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trouble_is_told_once_and_not_while_files_are_being_replaced() {
        let mut throttle = ErrorThrottle::default();
        let logged = [
            "mismatch",
            "unreadable",
            "unreadable",
            "unreadable",
            "mismatch",
            "mismatch",
        ]
        .map(|found| throttle.should_log(found));
        assert_eq!(logged, [false, false, true, false, false, true]);
    }
}
