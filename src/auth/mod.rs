//! Who a client is: verifies tokens (JWT, RFC 7519) with keys from settings, from files or from a URL.

mod connections;
mod crypto;
mod files;
mod jwks;
mod keys;
mod verify;

pub use connections::OwnersPermit;
pub use files::{KeySource, SourceError};
pub use keys::KeyError;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;

use self::connections::Connections;
use self::files::Files;
use self::jwks::{Away, Jwks};
use self::verify::{Expected, Fault, Unverified};
use crate::model::{Claims, Refusal};

/// When to try again while the keys cannot be fetched.
const RETRY_KEYS: Duration = Duration::from_secs(2);

/// Who needs a token.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// Nobody; tokens are not checked. Names are first come.
    #[default]
    Open,
    /// Nobody, but a token that is given counts.
    Optional,
    /// Everybody.
    Required,
}

impl Mode {
    /// The value of the setting.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Optional => "optional",
            Self::Required => "required",
        }
    }
}

/// The settings (section `[auth]`).
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// Who needs a token.
    pub mode: Mode,
    /// The keys.
    pub sources: Vec<KeySource>,
    /// A set of more keys.
    pub jwks_url: Option<url::Url>,
    /// Accepted `aud`; empty if tokens name none.
    pub audience: Vec<String>,
    /// Accepted `iss`; empty for any.
    pub issuer: Vec<String>,
    /// Connections of one `sub`, if its token does not say; 0 for no limit.
    pub sessions_per_user: u32,
}

/// Why tokens cannot be checked.
#[derive(Debug, thiserror::Error)]
pub enum AuthError {
    /// A key cannot be read.
    #[error(transparent)]
    Key(#[from] SourceError),
    /// The client for the URL cannot be made.
    #[error("cannot fetch auth.jwt.jwks_url: {0}")]
    Client(String),
}

/// Checks tokens.
#[derive(Debug)]
pub struct Auth {
    mode: Mode,
    files: Files,
    jwks: Option<Jwks>,
    expected: Expected,
    sessions_per_user: u32,
    connections: Connections,
}

impl Auth {
    /// Reads the keys of files; those of the URL come with [`services`](Self::services).
    pub fn new(settings: Settings) -> Result<Self, AuthError> {
        crypto::install();
        let jwks = settings.jwks_url.map(Jwks::new).transpose();
        Ok(Self {
            mode: settings.mode,
            files: Files::read(settings.sources)?,
            jwks: jwks.map_err(AuthError::Client)?,
            expected: Expected {
                audience: settings.audience,
                issuer: settings.issuer,
            },
            sessions_per_user: settings.sessions_per_user,
            connections: Connections::default(),
        })
    }

    /// Who needs a token.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// What must run for keys to be current.
    pub fn services(self: &Arc<Self>) -> Vec<(&'static str, BoxFuture<'static, ()>)> {
        let mut services = Vec::new();
        if self.mode != Mode::Open {
            let auth = Arc::clone(self);
            let keep = async move { auth.files.keep().await };
            services.push(("key files", keep.boxed()));
        }
        if self.jwks.is_some() {
            let auth = Arc::clone(self);
            let keep = async move {
                if let Some(jwks) = &auth.jwks {
                    jwks.keep().await;
                }
            };
            services.push(("key set", keep.boxed()));
        }
        services
    }

    /// What a login may do that comes with this token, or over a connection whose request came with a valid one.
    /// `None` if nobody needs a token.
    pub async fn admit(
        &self,
        token: Option<&str>,
        admitted: Option<&Arc<Claims>>,
    ) -> Result<Option<Arc<Claims>>, Refusal> {
        match (self.mode, token, admitted) {
            (Mode::Open, Some(_), _) => Err(Refusal::Unauthorized(
                "This server does not check tokens: log in without one",
            )),
            (Mode::Open, None, _) | (Mode::Optional, None, None) => Ok(None),
            (_, Some(token), _) => self.verify(token).await.map(Some),
            (_, None, Some(claims)) if claims.valid_for(SystemTime::now()).is_zero() => {
                Err(Refusal::Unauthorized(Fault::Expired.text()))
            }
            (_, None, Some(claims)) => Ok(Some(Arc::clone(claims))),
            (Mode::Required, None, None) => Err(Refusal::Unauthorized(
                "This server needs a token: send it in the login, as ?token= or as Authorization: Bearer",
            )),
        }
    }

    /// Verifies a token. Waits only if its key is unknown and there is a URL for keys.
    pub async fn verify(&self, token: &str) -> Result<Arc<Claims>, Refusal> {
        let refused = |fault: Fault| Refusal::Unauthorized(fault.text());
        let token = Unverified::read(token).map_err(refused)?;
        match self.try_keys(&token) {
            Err(Fault::UnknownKey | Fault::Signature | Fault::Algorithm)
                if self.may_find(&token) => {}
            tried => return tried.map(Arc::new).map_err(refused),
        }
        let looked = match &self.jwks {
            Some(jwks) => jwks.look_for(token.key.as_deref()).await,
            None => Ok(()),
        };
        match (self.try_keys(&token), looked) {
            (Ok(claims), _) => Ok(Arc::new(claims)),
            (Err(_), Err(Away)) => Err(Refusal::KeysUnavailable {
                retry_after: RETRY_KEYS,
            }),
            (Err(fault), _) => Err(refused(fault)),
        }
    }

    /// Counts one connection of the token's owner, if they are limited. One that `replaces` another is never too many:
    /// it may not have been noticed yet that the other one was lost.
    pub fn connect(
        &self,
        claims: &Claims,
        replaces: bool,
    ) -> Result<Option<OwnersPermit>, Refusal> {
        let limit = (self.sessions_per_user > 0).then_some(self.sessions_per_user);
        let Some(most) = claims.connections.or(limit) else {
            return Ok(None);
        };
        let most = if replaces { u32::MAX } else { most };
        let permit = self.connections.acquire(claims, most);
        let refused = Refusal::TooMany("Too many connections with this token: close some");
        permit.map(Some).ok_or(refused)
    }

    /// Whether the URL may have the key of the token. A token without a `kid` is of a key that is known, once there
    /// are any.
    fn may_find(&self, token: &Unverified<'_>) -> bool {
        let Some(jwks) = &self.jwks else {
            return false;
        };
        let fetched = jwks.keys();
        match &token.key {
            Some(id) => !fetched.iter().any(|key| key.id.as_ref() == Some(id)),
            None => fetched.is_empty(),
        }
    }

    fn try_keys(&self, token: &Unverified<'_>) -> Result<Claims, Fault> {
        let fetched = self.jwks.as_ref().map(Jwks::keys).unwrap_or_default();
        let own = self.files.keys();
        let now = SystemTime::now();
        let is_meant = |id: &Option<String>| token.key.is_some() && *id == token.key;
        if fetched.iter().any(|key| is_meant(&key.id)) {
            let meant = fetched.iter().filter(|key| is_meant(&key.id));
            return token.verify(meant, &self.expected, now);
        }
        let nameless = |key: &&keys::Key| key.id.is_none() || token.key.is_none();
        let may = own.iter().chain(fetched.iter().filter(nameless));
        token.verify(may, &self.expected, now)
    }
}
