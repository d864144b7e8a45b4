//! The receiver: signs events as Standard Webhooks says, and posts them.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use hmac::{Hmac, Mac as _};
use reqwest::redirect::Policy;
use rustls::{ClientConfig, RootCertStore};
use sha2::Sha256;

use super::payload;
use crate::broker::Event;

/// What a secret begins with.
const PREFIX: &str = "whsec_";
/// How long a secret is, in bytes.
const SECRET_BYTES: std::ops::RangeInclusive<usize> = 24..=64;
/// Time limit for one answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(15);

/// Where events are told, and the key that signs them.
pub struct Receiver {
    client: reqwest::Client,
    url: reqwest::Url,
    key: Vec<u8>,
}

/// Why events cannot be told.
#[derive(Debug, thiserror::Error)]
pub enum WrongReceiver {
    /// The address is none.
    #[error("is not a URL such as https://app.example.org/webhooks")]
    Url,
    /// The secret is none.
    #[error(
        "must be whsec_ and the Base64 of 24 to 64 random bytes: echo whsec_$(openssl rand -base64 32)"
    )]
    Secret,
    /// The client cannot be made.
    #[error("cannot be used: {0}")]
    Client(String),
}

/// The key in a secret.
fn key(secret: &str) -> Result<Vec<u8>, WrongReceiver> {
    let key = secret
        .strip_prefix(PREFIX)
        .and_then(|key| BASE64_STANDARD.decode(key).ok());
    key.filter(|key| SECRET_BYTES.contains(&key.len()))
        .ok_or(WrongReceiver::Secret)
}

impl Receiver {
    /// A receiver at this URL.
    pub fn new(url: &str, secret: &str) -> Result<Self, WrongReceiver> {
        let url: reqwest::Url = url.parse().map_err(|_| WrongReceiver::Url)?;
        if !["http", "https"].contains(&url.scheme()) || url.host().is_none() {
            return Err(WrongReceiver::Url);
        }
        let key = key(secret)?;
        let wrong = |error: &dyn fmt::Display| WrongReceiver::Client(error.to_string());
        let mut roots = RootCertStore::empty();
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| wrong(&error))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let client = reqwest::Client::builder()
            .tls_backend_preconfigured(tls)
            .redirect(Policy::none())
            .timeout(ANSWER_WITHIN)
            .user_agent(concat!("switchboard/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| wrong(&error))?;
        Ok(Self { client, url, key })
    }

    /// Tells an event. The error says what went wrong, without what the receiver wrote.
    pub(super) async fn tell(&self, event: &Event) -> Result<(), String> {
        // One that a newer release wrote waits for a node of that release.
        let body = payload::body(event).ok_or("this release does not know the event")?;
        let now = SystemTime::UNIX_EPOCH
            .elapsed()
            .unwrap_or_default()
            .as_secs();
        let asked = self
            .client
            .post(self.url.clone())
            .header("content-type", "application/json")
            .header("webhook-id", &event.id)
            .header("webhook-timestamp", now)
            .header("webhook-signature", self.sign(&event.id, now, &body))
            .body(body)
            .send();
        match asked.await {
            Ok(answer) if answer.status().is_success() => Ok(()),
            Ok(answer) => Err(format!("it answers {}", answer.status())),
            // Without the URL, which may have a password in it.
            Err(error) => Err(reason(&error.without_url())),
        }
    }

    fn sign(&self, id: &str, now: u64, body: &str) -> String {
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(&self.key) else {
            unreachable!("HMAC takes keys of any length")
        };
        mac.update(format!("{id}.{now}.{body}").as_bytes());
        format!("v1,{}", BASE64_STANDARD.encode(mac.finalize().into_bytes()))
    }
}

/// The error with what caused it.
fn reason(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

impl fmt::Debug for Receiver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Receiver(…)")
    }
}
