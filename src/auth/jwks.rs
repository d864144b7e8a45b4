//! Keys by URL: a JSON Web Key Set that is fetched now and then, and when a token names an unknown key.

use std::sync::Arc;
use std::time::Duration;

use reqwest::redirect::Policy;
use reqwest::{Client, Url};
use rustls::{ClientConfig, RootCertStore};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, timeout};
use tracing::{info, warn};

use super::keys::{Key, read_set};

/// How old a set gets: a key that its issuer has withdrawn is good for so long.
const REFRESH: Duration = Duration::from_mins(5);
/// The pause after a fetch, whoever asks for keys that do not exist.
const PAUSE: Duration = Duration::from_secs(2);
/// Time limit of one fetch.
const FETCH_WITHIN: Duration = Duration::from_secs(5);
/// How long a login waits for the key of its token.
const WAIT: Duration = Duration::from_secs(8);
/// The longest set, in bytes.
const SET_BYTES: usize = 1 << 20;

/// What the last fetches gave.
#[derive(Clone, Debug, Default)]
pub(super) struct Fetched {
    /// The last set that could be read.
    pub(super) keys: Arc<Vec<Key>>,
    /// When the last fetch began, and whether it gave a set.
    last: Option<(Instant, bool)>,
}

/// The keys of one URL.
#[derive(Debug)]
pub(super) struct Jwks {
    url: Url,
    client: Client,
    fetched: watch::Sender<Fetched>,
    wanted: Notify,
}

/// The endpoint gave no set that says whether there is such a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Away;

impl Jwks {
    /// Nothing is fetched yet.
    pub(super) fn new(url: Url) -> Result<Self, String> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let roots = webpki_roots::TLS_SERVER_ROOTS.iter().cloned();
        let roots: RootCertStore = roots.collect();
        let tls = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let client = Client::builder()
            .tls_backend_preconfigured(tls)
            .timeout(FETCH_WITHIN)
            // A redirect could lead to another host, or away from TLS.
            .redirect(Policy::none())
            .build()
            .map_err(|error| error.to_string())?;
        Ok(Self {
            url,
            client,
            fetched: watch::Sender::default(),
            wanted: Notify::new(),
        })
    }

    /// The keys of the last set.
    pub(super) fn keys(&self) -> Arc<Vec<Key>> {
        Arc::clone(&self.fetched.borrow().keys)
    }

    /// Waits for a set that is younger than this call, or that has the key. Errs if the endpoint gives none in time.
    pub(super) async fn look_for(&self, key: Option<&str>) -> Result<(), Away> {
        let asked = Instant::now();
        self.wanted.notify_one();
        let mut fetched = self.fetched.subscribe();
        let is_known = |fetched: &Fetched| {
            let has = |known: &Key| key.is_some() && known.id.as_deref() == key;
            fetched.keys.iter().any(has) || fetched.last.is_some_and(|(begun, _)| begun >= asked)
        };
        let found = timeout(WAIT, fetched.wait_for(is_known)).await;
        let last = found.map_err(|_| Away)?.map_err(|_| Away)?.last;
        last.is_some_and(|(_, is_set)| is_set)
            .then_some(())
            .ok_or(Away)
    }

    /// Service: fetches the set.
    pub(super) async fn keep(&self) {
        let mut told = String::new();
        loop {
            let begun = Instant::now();
            let set = self.fetch().await;
            let is_set = set.is_ok();
            match set {
                Ok(keys) => {
                    if !std::mem::take(&mut told).is_empty() {
                        info!(
                            keys = keys.len(),
                            "The keys at auth.jwt.jwks_url can be read again"
                        );
                    }
                    let keys = Arc::new(keys);
                    self.fetched.send_replace(Fetched {
                        keys,
                        last: Some((begun, is_set)),
                    });
                }
                Err(why) => {
                    if told != why {
                        warn!(
                            "Cannot read the keys at auth.jwt.jwks_url, the previous ones stay in use: {why}"
                        );
                        told = why;
                    }
                    self.fetched
                        .send_modify(|fetched| fetched.last = Some((begun, is_set)));
                }
            }
            sleep(PAUSE).await;
            let _ = timeout(REFRESH, self.wanted.notified()).await;
        }
    }

    async fn fetch(&self) -> Result<Vec<Key>, String> {
        let failed = |error: reqwest::Error| error.without_url().to_string();
        let mut answer = self
            .client
            .get(self.url.clone())
            .send()
            .await
            .map_err(failed)?;
        if !answer.status().is_success() {
            return Err(format!("the server answers {}", answer.status()));
        }
        let mut set = Vec::new();
        while let Some(chunk) = answer.chunk().await.map_err(failed)? {
            if set.len() + chunk.len() > SET_BYTES {
                return Err(format!("the answer is longer than {SET_BYTES} bytes"));
            }
            set.extend_from_slice(&chunk);
        }
        read_set(&set).map_err(|error| format!("the answer {error}"))
    }
}
