//! Keys from settings and files. Files are read again when they change.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use sha2::{Digest as _, Sha256};
use tokio::time::sleep;
use tracing::{error, info};

use super::keys::{Key, KeyError};

/// How often the files are read.
const RELOAD_EVERY: Duration = Duration::from_secs(2);
/// The longest file of a key.
const FILE_BYTES: u64 = 64 * 1024;

/// Where a key comes from.
#[derive(Clone, PartialEq, Eq)]
pub enum KeySource {
    /// A secret.
    Secret(String),
    /// A file with a secret; a line end behind it is ignored.
    SecretFile(PathBuf),
    /// A PEM file with a public key.
    Pem(PathBuf),
}

/// Hides the secret.
impl std::fmt::Debug for KeySource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Secret(_) => f.write_str("Secret(…)"),
            Self::SecretFile(path) => write!(f, "SecretFile({})", path.display()),
            Self::Pem(path) => write!(f, "Pem({})", path.display()),
        }
    }
}

/// Why a key cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The setting itself is wrong.
    #[error("auth.jwt.hmac_secret {0}")]
    Secret(KeyError),
    /// The file cannot be read.
    #[error("cannot read the file of {setting} = {path:?}: {source}")]
    Unreadable {
        /// The setting that names the file.
        setting: &'static str,
        /// The file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// The file has no key.
    #[error("the file of {setting} = {path:?} {what}")]
    NoKey {
        /// The setting that names the file.
        setting: &'static str,
        /// The file.
        path: PathBuf,
        /// The cause.
        what: KeyError,
    },
}

/// The keys of this node.
#[derive(Debug)]
pub(super) struct Files {
    sources: Vec<KeySource>,
    keys: RwLock<Arc<Vec<Key>>>,
}

impl Files {
    /// Reads all keys.
    pub(super) fn read(sources: Vec<KeySource>) -> Result<Self, SourceError> {
        let (keys, _) = read_all(&sources)?;
        let keys = RwLock::new(Arc::new(keys));
        Ok(Self { sources, keys })
    }

    pub(super) fn keys(&self) -> Arc<Vec<Key>> {
        // A poisoned lock holds a whole value: nothing panics while holding it.
        Arc::clone(&self.keys.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Service: reads the files again when they change. If one has no key, all previous keys stay in use.
    pub(super) async fn keep(&self) {
        let mut last = read_all(&self.sources).ok().map(|(_, print)| print);
        let mut told = String::new();
        loop {
            sleep(RELOAD_EVERY).await;
            match read_all(&self.sources) {
                Ok((keys, print)) if last != Some(print) => {
                    info!(keys = keys.len(), "Loaded the keys of auth.jwt anew");
                    *self.keys.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(keys);
                    last = Some(print);
                    told.clear();
                }
                Ok(_) => told.clear(),
                Err(found) if found.to_string() != told => {
                    told = found.to_string();
                    error!(
                        "The keys of auth.jwt are not loaded anew, the previous ones stay in use: {told}"
                    );
                }
                Err(_) => {}
            }
        }
    }
}

/// All keys, and a fingerprint of what they were read from.
fn read_all(sources: &[KeySource]) -> Result<(Vec<Key>, [u8; 32]), SourceError> {
    let mut print = Sha256::new();
    let mut keys = Vec::with_capacity(sources.len());
    for source in sources {
        let key = match source {
            KeySource::Secret(secret) => {
                Key::secret(secret.as_bytes()).map_err(SourceError::Secret)?
            }
            KeySource::SecretFile(path) => {
                let setting = "auth.jwt.hmac_secret_file";
                let secret = read(setting, path, &mut print)?;
                let key = Key::secret(secret.trim_ascii_end());
                key.map_err(|what| no_key(setting, path, what))?
            }
            KeySource::Pem(path) => {
                let setting = "auth.jwt.keys";
                let key = Key::pem(&read(setting, path, &mut print)?);
                key.map_err(|what| no_key(setting, path, what))?
            }
        };
        keys.push(key);
    }
    Ok((keys, print.finalize().into()))
}

fn no_key(setting: &'static str, path: &Path, what: KeyError) -> SourceError {
    SourceError::NoKey {
        setting,
        path: path.to_owned(),
        what,
    }
}

fn read(setting: &'static str, path: &Path, print: &mut Sha256) -> Result<Vec<u8>, SourceError> {
    use std::io::Read as _;
    let mut text = Vec::new();
    let read =
        std::fs::File::open(path).and_then(|file| file.take(FILE_BYTES).read_to_end(&mut text));
    read.map_err(|source| SourceError::Unreadable {
        setting,
        path: path.to_owned(),
        source,
    })?;
    // The length keeps two contents apart.
    print.update(text.len().to_be_bytes());
    print.update(&text);
    Ok(text)
}
