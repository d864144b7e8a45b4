//! `switchboard revoke`: revokes tokens by the admin API of a node.

use std::net::SocketAddr;
use std::time::{Duration, UNIX_EPOCH};

use clap::Args;
use hyper::{Request, StatusCode, header};
use serde::{Deserialize, Serialize};

use crate::healthcheck::{reachable, send};
use crate::model::Secret;

/// Time limit for the answer: the node asks all others meanwhile.
const WITHIN: Duration = Duration::from_secs(5);

/// Which tokens, and at which node.
#[derive(Debug, Args, Serialize)]
pub struct Tokens {
    /// The tokens with this `sub`, as they write it
    #[arg(long, value_name = "SUB")]
    #[serde(skip_serializing_if = "Option::is_none")]
    sub: Option<String>,
    /// The token with this `jti`
    #[arg(long, value_name = "ID", conflicts_with_all = ["sub", "issued_before"])]
    #[serde(skip_serializing_if = "Option::is_none")]
    jti: Option<String>,
    /// Only tokens of this realm; '' for those that name none
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    realm: Option<String>,
    /// Only tokens that were issued before this time: 2026-01-31T12:00:00Z, or Unix seconds [now, with --sub]
    #[arg(long, value_name = "TIME", value_parser = time, required_unless_present_any = ["sub", "jti"])]
    #[serde(skip_serializing_if = "Option::is_none")]
    issued_before: Option<u64>,
    /// How long the longest of these tokens lasts, such as 12h; 30d if absent
    #[arg(long = "for", value_name = "DURATION", value_parser = seconds)]
    #[serde(skip_serializing_if = "Option::is_none")]
    for_seconds: Option<u64>,
    /// The admin listener of any node, such as `http://10.0.0.5:9091` [admin.listen]
    #[arg(long, value_name = "URL")]
    #[serde(skip)]
    admin: Option<url::Url>,
}

/// Why nothing is known to be revoked.
#[derive(Debug, thiserror::Error)]
pub enum NotRevoked {
    /// There is no key.
    #[error(
        "the key of the admin API is missing: set admin.token or admin.token_file \
         (SWITCHBOARD_ADMIN__TOKEN, SWITCHBOARD_ADMIN__TOKEN_FILE) as for the nodes"
    )]
    NoKey,
    /// The URL names no node.
    #[error("--admin must be http://HOST:PORT, the admin listener of a node")]
    Url,
    /// The node did not answer.
    #[error(
        "no answer from {0}: {1}. Check that the node runs and that this is its admin.listen; it is safe to try again"
    )]
    NoAnswer(String, String),
    /// The node refused.
    #[error("the node answered {0}: {1}")]
    Refused(StatusCode, String),
    /// Some nodes did not answer.
    #[error(
        "revoked, but these nodes did not answer, and end their sessions when they can read Redis: {0}"
    )]
    Unanswered(String),
}

/// The part of the answer that matters.
#[derive(Deserialize)]
struct Revoked {
    sessions: usize,
    unanswered: Vec<String>,
}

impl Tokens {
    /// Revokes them. Returns how many sessions that ends.
    pub async fn revoke(
        &self,
        listen: SocketAddr,
        key: Option<&Secret>,
    ) -> Result<usize, NotRevoked> {
        let key = key.ok_or(NotRevoked::NoKey)?;
        let node = match &self.admin {
            None => reachable(listen).to_string(),
            Some(url) => authority(url).ok_or(NotRevoked::Url)?,
        };
        let no_answer = |cause: String| NotRevoked::NoAnswer(node.clone(), cause);
        let body = serde_json::to_vec(self).map_err(|error| no_answer(error.to_string()))?;
        let request = Request::post("/v1/revocations")
            .header(header::AUTHORIZATION, format!("Bearer {}", key.expose()))
            .header(header::CONTENT_TYPE, "application/json");
        let sent = send(&node, request, body.into(), WITHIN).await;
        let (status, answer) = sent.map_err(|error| no_answer(error.to_string()))?;
        let text = || String::from_utf8_lossy(&answer).trim().to_owned();
        if status != StatusCode::OK {
            return Err(NotRevoked::Refused(status, text()));
        }
        match serde_json::from_slice(&answer) {
            Ok(Revoked {
                sessions,
                unanswered,
            }) if unanswered.is_empty() => Ok(sessions),
            Ok(Revoked { unanswered, .. }) => Err(NotRevoked::Unanswered(unanswered.join(", "))),
            Err(_) => Err(NotRevoked::Refused(status, text())),
        }
    }
}

fn authority(url: &url::Url) -> Option<String> {
    let host = url.host_str().filter(|_| url.scheme() == "http")?;
    Some(format!("{host}:{}", url.port_or_known_default()?))
}

fn time(text: &str) -> Result<u64, String> {
    if let Ok(seconds) = text.parse() {
        return Ok(seconds);
    }
    let time = humantime::parse_rfc3339_weak(text).map_err(|error| error.to_string())?;
    let since = time.duration_since(UNIX_EPOCH);
    since
        .map(|since| since.as_secs())
        .map_err(|error| error.to_string())
}

fn seconds(text: &str) -> Result<u64, String> {
    let duration = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    Ok(duration.as_secs())
}
