//! Keys that verify tokens. The kind of a key decides which algorithms it is for; a token never does.

use jsonwebtoken::{Algorithm, DecodingKey};
use serde::Deserialize;
use serde_json::Value;

/// The shortest secret: RFC 7518, section 3.2.
pub(super) const SECRET_BYTES: usize = 32;
/// How many keys of one set are used.
const MOST: usize = 64;

/// A key that verifies tokens.
#[derive(Debug)]
pub(super) struct Key {
    /// Its `kid`, if it has one.
    pub(super) id: Option<String>,
    pub(super) algorithms: Vec<Algorithm>,
    pub(super) verifies: DecodingKey,
}

/// Why a key cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The secret is too short.
    #[error("is shorter than {SECRET_BYTES} bytes, so that it could be guessed")]
    Short,
    /// A private key.
    #[error("is a private key: give the server the public key only (openssl pkey -pubout)")]
    Private,
    /// Anything else.
    #[error(
        "is no public key in PEM format (\"-----BEGIN PUBLIC KEY-----\") of RSA, P-256, P-384 or Ed25519"
    )]
    Unknown,
    /// The answer is no set.
    #[error("is no JSON Web Key Set (RFC 7517, section 5)")]
    NoSet,
}

impl Key {
    /// A secret that the issuer of the tokens has too.
    pub(super) fn secret(secret: &[u8]) -> Result<Self, KeyError> {
        if secret.len() < SECRET_BYTES {
            return Err(KeyError::Short);
        }
        let key = DecodingKey::from_secret(secret).map_err(|_| KeyError::Short)?;
        Ok(Self::new(None, key))
    }

    /// A public key from a PEM file.
    pub(super) fn pem(text: &[u8]) -> Result<Self, KeyError> {
        if memchr::memmem::find(text, b"PRIVATE KEY-----").is_some() {
            return Err(KeyError::Private);
        }
        let key = DecodingKey::from_rsa_pem(text)
            .or_else(|_| DecodingKey::from_ec_pem(text))
            .or_else(|_| DecodingKey::from_ed_pem(text));
        let key = Self::new(None, key.map_err(|_| KeyError::Unknown)?);
        if key.algorithms.is_empty() {
            return Err(KeyError::Unknown);
        }
        Ok(key)
    }

    fn new(id: Option<String>, key: DecodingKey) -> Self {
        use jsonwebtoken::AlgorithmFamily as Family;
        let algorithms = match (key.family(), key.try_get_as_bytes().map(<[u8]>::len)) {
            // The uncompressed point of a curve: its two coordinates behind one byte.
            (Family::Ec, Ok(65)) => vec![Algorithm::ES256],
            (Family::Ec, Ok(97)) => vec![Algorithm::ES384],
            (Family::Ec, _) => Vec::new(),
            (family, _) => family.algorithms().to_vec(),
        };
        Self {
            id,
            algorithms,
            verifies: key,
        }
    }
}

/// One key of a set (RFC 7517, section 4). Unknown kinds are skipped, and so are secrets: a set is public.
#[derive(Deserialize)]
struct Jwk {
    kty: String,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
    kid: Option<String>,
    alg: Option<String>,
    r#use: Option<String>,
}

impl Jwk {
    fn key(self) -> Option<Key> {
        if self.r#use.is_some_and(|r#use| r#use != "sig") {
            return None;
        }
        let key = match (&*self.kty, self.crv.as_deref()) {
            ("RSA", _) => DecodingKey::from_rsa_components(&self.n?, &self.e?),
            ("EC", Some("P-256" | "P-384")) => DecodingKey::from_ec_components(&self.x?, &self.y?),
            ("OKP", Some("Ed25519")) => DecodingKey::from_ed_components(&self.x?),
            _ => return None,
        };
        let mut key = Key::new(self.kid, key.ok()?);
        if let Some(only) = self.alg {
            let only = only.parse().ok()?;
            key.algorithms.retain(|algorithm| *algorithm == only);
        }
        (!key.algorithms.is_empty()).then_some(key)
    }
}

/// Reads a JSON Web Key Set.
pub(super) fn read_set(text: &[u8]) -> Result<Vec<Key>, KeyError> {
    #[derive(Deserialize)]
    struct Set {
        keys: Vec<Value>,
    }
    let set: Set = serde_json::from_slice(text).map_err(|_| KeyError::NoSet)?;
    let keys = set.keys.into_iter().take(MOST);
    let read = |key| serde_json::from_value::<Jwk>(key).ok()?.key();
    Ok(keys.filter_map(read).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_gives_the_keys_that_can_verify_tokens() {
        let (ed, p256) = ("A".repeat(43), "A".repeat(43));
        let set = format!(
            r#"{{"keys":[
                {{"kty":"OKP","crv":"Ed25519","x":"{ed}","kid":"../../etc/passwd"}},
                {{"kty":"EC","crv":"P-256","x":"{p256}","y":"{p256}","alg":"ES256","use":"sig"}},
                {{"kty":"EC","crv":"P-256","x":"{p256}","y":"{p256}","alg":"ES384"}},
                {{"kty":"EC","crv":"P-521","x":"{p256}","y":"{p256}"}},
                {{"kty":"OKP","crv":"Ed25519","x":"{ed}","use":"enc"}},
                {{"kty":"oct","k":"{ed}"}},
                {{"kty":"new"}}, 7
            ]}}"#
        );
        let keys = read_set(set.as_bytes()).unwrap();
        let found: Vec<_> = keys
            .iter()
            .map(|key| (key.id.as_deref(), &*key.algorithms))
            .collect();
        assert_eq!(
            found,
            [
                (Some("../../etc/passwd"), &[Algorithm::EdDSA][..]),
                (None, &[Algorithm::ES256][..]),
            ]
        );
        for no_set in ["", "[]", "{}", r#"{"keys":{}}"#] {
            assert_eq!(read_set(no_set.as_bytes()).unwrap_err(), KeyError::NoSet);
        }
    }

    #[test]
    fn a_key_that_must_not_be_here_is_refused() {
        assert_eq!(Key::secret(&[7; 31]).unwrap_err(), KeyError::Short);
        let private = b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
        assert_eq!(Key::pem(private).unwrap_err(), KeyError::Private);
        assert_eq!(
            Key::pem(b"ssh-ed25519 AAAA").unwrap_err(),
            KeyError::Unknown
        );
    }
}
