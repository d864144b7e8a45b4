//! TLS of the client listener: loads a certificate and its key from two files, and reloads them
//! when they change.

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

/// How often the files are checked. The certificate and its key may be replaced this far apart.
const RELOAD_EVERY: Duration = Duration::from_secs(2);

/// The files of the certificate and its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// PEM: the certificate, followed by its chain.
    pub certificate: PathBuf,
    /// PEM: the private key.
    pub key: PathBuf,
}

/// Why a certificate cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("cannot read the file of {setting} = {path:?}: {source}")]
    Unreadable {
        /// The setting that names the file.
        setting: &'static str,
        /// The file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// A file has no PEM section of the expected kind.
    #[error("the file of {setting} = {path:?} contains no {what} in PEM format (\"-----BEGIN …\")")]
    NotPem {
        /// The setting that names the file.
        setting: &'static str,
        /// The file.
        path: PathBuf,
        /// The expected kind of section.
        what: &'static str,
    },
    /// The key does not belong to the certificate.
    #[error(
        "the key in tls.key does not belong to the certificate in tls.certificate: replace both files"
    )]
    Mismatch,
    /// The certificate or the key cannot be used.
    #[error("cannot use the certificate in tls.certificate or the key in tls.key: {0}")]
    Unusable(rustls::Error),
}

/// The contents of the two files.
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

    /// Changes whenever one of the files changes. The length keeps the two contents apart.
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

/// The certificate of new connections.
#[derive(Debug)]
struct CurrentCertificate(RwLock<Arc<CertifiedKey>>);

impl ResolvesServerCert for CurrentCertificate {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        // A poisoned lock holds a whole value: nothing panics while holding it.
        let served = self.0.read().unwrap_or_else(PoisonError::into_inner);
        Some(Arc::clone(&served))
    }
}

/// The TLS configuration of a listener. Clones share the certificate.
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
    /// Loads the files at startup.
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
        // WebSockets need HTTP/1.1 for their upgrade.
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

    /// Service: reloads the files when they change. New connections get a valid new certificate; an
    /// invalid one is logged, and the previous one stays in use.
    pub async fn watch_files(mut self) {
        let mut throttle = ErrorThrottle::default();
        loop {
            sleep(RELOAD_EVERY).await;
            match self.reload() {
                Ok(renewed) => {
                    if renewed {
                        info!(certificate = ?self.files.certificate, "Loaded a new TLS certificate");
                    }
                    throttle = ErrorThrottle::default();
                }
                Err(found) if throttle.should_log(&found.to_string()) => {
                    error!(
                        "The new TLS certificate is not used, the previous one stays in use: {found}"
                    );
                }
                Err(_) => {}
            }
            if let Some(expiry) = &mut self.expiry {
                expiry.remind();
            }
        }
    }

    /// Returns whether the certificate was replaced.
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

/// Logs an error once, and only when two checks in a row find it: the two files are never replaced
/// at the same instant.
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
