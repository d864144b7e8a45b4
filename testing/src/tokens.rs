//! Tokens (JWT) as an issuer signs them, and its keys as a server gets them.

use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ring::hmac;
use ring::rand::SystemRandom;
use ring::rsa::PublicKeyComponents;
use ring::signature::{
    self, EcdsaKeyPair, EcdsaSigningAlgorithm, Ed25519KeyPair, KeyPair as _, RsaEncoding,
    RsaKeyPair,
};
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject as _;
use serde_json::{Value, json};

/// A key for tests only: making one takes seconds.
const RSA: &[u8] = include_bytes!("../keys/rsa.pem");
/// What comes before a public key in its file (RFC 5280, `SubjectPublicKeyInfo`).
const ED25519: &str = "302a300506032b6570032100";
const P256: &str = "3059301306072a8648ce3d020106082a8648ce3d030107034200";
const P384: &str = "3076301006072a8648ce3d020106052b81040022036200";

/// Who signs tokens.
pub struct Issuer {
    pub algorithm: &'static str,
    pub kid: Option<String>,
    key: Key,
}

enum Key {
    Secret(String),
    Ed25519(Ed25519KeyPair),
    Ecdsa(EcdsaKeyPair),
    Rsa(RsaKeyPair, &'static dyn RsaEncoding),
}

/// Seconds since 1970.
pub fn now() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.unwrap_or_default().as_secs()
}

/// The claims of somebody who may take this name for an hour.
pub fn claims(sub: &str) -> Value {
    json!({"sub": sub, "exp": now() + 3600})
}

/// Claims with others added, or replaced; `null` removes one.
#[must_use]
#[allow(clippy::needless_pass_by_value, reason = "tests write it in place")]
pub fn with(mut claims: Value, others: Value) -> Value {
    let all = claims.as_object_mut().unwrap();
    for (name, value) in others.as_object().unwrap() {
        all.insert(name.clone(), value.clone());
    }
    all.retain(|_, value| !value.is_null());
    claims
}

impl Issuer {
    /// One that shares a secret with the server.
    pub fn with_secret(algorithm: &'static str, secret: &str) -> Self {
        Self {
            algorithm,
            kid: None,
            key: Key::Secret(secret.to_owned()),
        }
    }

    /// One with a new key for this algorithm.
    pub fn new(algorithm: &'static str) -> Self {
        let random = SystemRandom::new();
        let ecdsa = |algorithm: &'static EcdsaSigningAlgorithm| {
            let key = EcdsaKeyPair::generate_pkcs8(algorithm, &random).unwrap();
            Key::Ecdsa(EcdsaKeyPair::from_pkcs8(algorithm, key.as_ref(), &random).unwrap())
        };
        let key = match algorithm {
            "EdDSA" => {
                let key = Ed25519KeyPair::generate_pkcs8(&random).unwrap();
                Key::Ed25519(Ed25519KeyPair::from_pkcs8(key.as_ref()).unwrap())
            }
            "ES256" => ecdsa(&signature::ECDSA_P256_SHA256_FIXED_SIGNING),
            "ES384" => ecdsa(&signature::ECDSA_P384_SHA384_FIXED_SIGNING),
            "RS256" => rsa(&signature::RSA_PKCS1_SHA256),
            "RS384" => rsa(&signature::RSA_PKCS1_SHA384),
            "RS512" => rsa(&signature::RSA_PKCS1_SHA512),
            "PS256" => rsa(&signature::RSA_PSS_SHA256),
            "PS384" => rsa(&signature::RSA_PSS_SHA384),
            "PS512" => rsa(&signature::RSA_PSS_SHA512),
            other => panic!("no key for {other}"),
        };
        Self {
            algorithm,
            kid: None,
            key,
        }
    }

    /// The same key with a name.
    #[must_use]
    pub fn named(mut self, kid: &str) -> Self {
        self.kid = Some(kid.to_owned());
        self
    }

    /// A token with these claims.
    pub fn sign(&self, claims: &Value) -> String {
        let mut header = json!({"typ": "JWT", "alg": self.algorithm});
        if let Some(kid) = &self.kid {
            header["kid"] = kid.as_str().into();
        }
        self.sign_as(&header, claims)
    }

    /// A token with this header, whatever it says.
    pub fn sign_as(&self, header: &Value, claims: &Value) -> String {
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let message = format!("{}.{}", part(header), part(claims));
        let signature = URL_SAFE_NO_PAD.encode(self.signature(message.as_bytes()));
        format!("{message}.{signature}")
    }

    fn signature(&self, message: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        match &self.key {
            Key::Secret(secret) => {
                let algorithm = match self.algorithm {
                    "HS384" => hmac::HMAC_SHA384,
                    "HS512" => hmac::HMAC_SHA512,
                    _ => hmac::HMAC_SHA256,
                };
                let key = hmac::Key::new(algorithm, secret.as_bytes());
                hmac::sign(&key, message).as_ref().to_vec()
            }
            Key::Ed25519(key) => key.sign(message).as_ref().to_vec(),
            Key::Ecdsa(key) => key.sign(&random, message).unwrap().as_ref().to_vec(),
            Key::Rsa(key, encoding) => {
                let mut signature = vec![0; key.public().modulus_len()];
                key.sign(*encoding, &random, message, &mut signature)
                    .unwrap();
                signature
            }
        }
    }

    /// The public key as a file.
    pub fn pem(&self) -> String {
        let info = |before: &str, key: &[u8]| {
            let der = [hex::decode(before).unwrap(), key.to_vec()].concat();
            pem("PUBLIC KEY", &der)
        };
        match &self.key {
            Key::Secret(_) => panic!("a secret is no public key"),
            Key::Ed25519(key) => info(ED25519, key.public_key().as_ref()),
            Key::Ecdsa(key) => {
                let before = if self.algorithm == "ES256" {
                    P256
                } else {
                    P384
                };
                info(before, key.public_key().as_ref())
            }
            Key::Rsa(key, _) => pem("RSA PUBLIC KEY", key.public_key().as_ref()),
        }
    }

    /// The public key as part of a JSON Web Key Set.
    pub fn jwk(&self) -> Value {
        let text = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let key = match &self.key {
            Key::Secret(_) => panic!("a secret is no public key"),
            Key::Ed25519(key) => {
                json!({"kty": "OKP", "crv": "Ed25519", "x": text(key.public_key().as_ref())})
            }
            Key::Ecdsa(key) => {
                let point = &key.public_key().as_ref()[1..];
                let (x, y) = point.split_at(point.len() / 2);
                let curve = if self.algorithm == "ES256" {
                    "P-256"
                } else {
                    "P-384"
                };
                json!({"kty": "EC", "crv": curve, "x": text(x), "y": text(y)})
            }
            Key::Rsa(key, _) => {
                let parts = PublicKeyComponents::<Vec<u8>>::from(key.public_key());
                json!({"kty": "RSA", "n": text(&parts.n), "e": text(&parts.e)})
            }
        };
        with(key, json!({"kid": self.kid, "use": "sig"}))
    }
}

fn rsa(encoding: &'static dyn RsaEncoding) -> Key {
    let der = PrivateKeyDer::from_pem_slice(RSA).unwrap();
    Key::Rsa(RsaKeyPair::from_pkcs8(der.secret_der()).unwrap(), encoding)
}

fn pem(kind: &str, der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let lines: Vec<&str> = text
        .as_bytes()
        .chunks(64)
        .map(|line| std::str::from_utf8(line).unwrap())
        .collect();
    format!(
        "-----BEGIN {kind}-----\n{}\n-----END {kind}-----\n",
        lines.join("\n")
    )
}
