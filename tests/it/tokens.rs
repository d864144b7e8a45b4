//! Tokens: who gets in with which, what each lets its owner do, and for how long.

mod doors;
mod jwks;
mod life;
mod reach;
mod revoked;

use serde_json::{Value, json};
use tempfile::TempDir;
use testing::tokens::{Issuer, claims, now, with};
use testing::{Client, Cluster};

const SECRET: &str = "a secret of no fewer than 32 bytes";

/// The settings of nodes that need tokens signed with [`SECRET`].
fn required() -> [(&'static str, &'static str); 2] {
    [("auth.mode", "required"), ("auth.jwt.hmac_secret", SECRET)]
}

fn issuer() -> Issuer {
    Issuer::with_secret("HS256", SECRET)
}

/// A token with these claims besides `sub` and `exp`.
fn token(sub: &str, others: Value) -> String {
    issuer().sign(&with(claims(sub), others))
}

/// The reply to a login with this token.
async fn try_login(client: &mut Client, name: &str, token: &str) -> Value {
    client
        .send(&json!({"type": "login", "name": name, "token": token}))
        .await;
    client.receive().await
}

/// Logs in at the node of this number with a token that has these claims too.
async fn login(cluster: &Cluster, node: usize, name: &str, others: Value) -> Client {
    let mut client = cluster.connect(node).await;
    let reply = try_login(&mut client, name, &token(name, others)).await;
    assert_eq!(reply["success"], true, "{reply}");
    client.name = name.to_owned();
    client
}

/// A node with a key of every kind.
struct Keys {
    issuers: Vec<Issuer>,
    paths: String,
    _folder: TempDir,
}

impl Keys {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let algorithms = [
            "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "EdDSA",
        ];
        let issuers: Vec<Issuer> = algorithms.map(Issuer::new).into();
        let mut paths = Vec::new();
        for issuer in &issuers {
            // All of RSA are one key.
            if issuer.algorithm.starts_with("RS") && issuer.algorithm != "RS256"
                || issuer.algorithm.starts_with("PS")
            {
                continue;
            }
            let path = folder.path().join(issuer.algorithm);
            std::fs::write(&path, issuer.pem()).unwrap();
            paths.push(path.to_str().unwrap().to_owned());
        }
        Self {
            issuers,
            paths: paths.join(","),
            _folder: folder,
        }
    }

    fn issuer(&self, algorithm: &str) -> &Issuer {
        let mut issuers = self.issuers.iter();
        issuers
            .find(|issuer| issuer.algorithm == algorithm)
            .unwrap()
    }

    async fn node(&self) -> Cluster {
        let settings = [
            ("auth.jwt.keys", self.paths.as_str()),
            ("auth.jwt.audience", "calls,other"),
            ("auth.jwt.issuer", "https://id.example.org"),
        ];
        Cluster::in_memory(1, &[&required()[..], &settings].concat()).await
    }
}

fn full_claims() -> Value {
    let others = json!({"aud": "calls", "iss": "https://id.example.org", "iat": now()});
    with(claims("alice"), others)
}

#[tokio::test]
async fn a_token_of_every_algorithm_lets_its_owner_in() {
    let keys = Keys::new();
    let cluster = keys.node().await;
    let secrets =
        ["HS256", "HS384", "HS512"].map(|algorithm| Issuer::with_secret(algorithm, SECRET));
    for issuer in keys.issuers.iter().chain(&secrets) {
        let mut client = cluster.connect(0).await;
        let token = issuer.sign(&with(full_claims(), json!({"sub": issuer.algorithm})));
        let reply = try_login(&mut client, issuer.algorithm, &token).await;
        assert_eq!(reply["success"], true, "{reply}");
    }
}

/// Wrong tokens, each with a word of why.
fn wrong_tokens(keys: &Keys) -> Vec<(&'static str, String)> {
    let (full, now) = (full_claims(), now());
    let sign = |others: Value| issuer().sign(&with(full.clone(), others));
    let ed = keys.issuer("EdDSA");
    let none = issuer().sign_as(&json!({"alg": "none"}), &full);
    let unsigned = none.rsplit_once('.').unwrap().0.to_owned() + ".";
    let rsa_as_secret = Issuer::with_secret("HS256", &keys.issuer("RS256").pem());
    let stranger = Issuer::new("EdDSA");
    let mut tampered = ed.sign(&full);
    let middle = tampered.rfind('.').unwrap() + 40;
    let other = if tampered.as_bytes()[middle] == b'A' {
        "B"
    } else {
        "A"
    };
    tampered.replace_range(middle..=middle, other);
    let critical = json!({"alg": "HS256", "crit": ["x"], "x": 1});
    vec![
        ("no JWT", "abc".to_owned()),
        ("no JWT", "a.b.c".to_owned()),
        ("no JWT", "x".repeat(9000)),
        ("no JWT", none),
        ("no JWT", unsigned),
        ("no JWT", ed.sign_as(&json!({"alg": "ES512"}), &full)),
        ("signature", rsa_as_secret.sign(&full)),
        ("signature", ed.sign_as(&json!({"alg": "RS256"}), &full)),
        ("signature", stranger.sign(&full)),
        ("signature", tampered),
        ("no JWT", issuer().sign_as(&critical, &full)),
        ("expired", sign(json!({"exp": now - 31}))),
        ("no exp", sign(json!({"exp": null}))),
        ("wrong type", sign(json!({"exp": "never"}))),
        ("not valid yet", sign(json!({"nbf": now + 60}))),
        ("not valid yet", sign(json!({"iat": now + 60}))),
        ("audience", sign(json!({"aud": "somebody else"}))),
        ("audience", sign(json!({"aud": null}))),
        ("issuer", sign(json!({"iss": "https://evil.example.org"}))),
        ("issuer", sign(json!({"iss": null}))),
        ("no sub", sign(json!({"sub": null}))),
        ("no sub", sign(json!({"sub": ""}))),
        ("wrong type", sign(json!({"call": "bob"}))),
        (
            "callable_by",
            sign(json!({"callable_by": ["x".repeat(1024)]})),
        ),
    ]
}

#[tokio::test]
async fn every_other_token_is_refused_for_the_right_reason() {
    let keys = Keys::new();
    let cluster = keys.node().await;
    let now = now();
    let sign = |others: Value| issuer().sign(&with(full_claims(), others));
    let mut client = cluster.connect(0).await;
    for (why, token) in wrong_tokens(&keys) {
        let reply = try_login(&mut client, "alice", &token).await;
        assert_eq!(reply["code"], "unauthorized", "{why}: {reply}");
        let message = reply["message"].as_str().unwrap();
        assert!(message.contains(why), "{why}: {reply}");
    }
    client
        .send(&json!({"type": "login", "name": "alice"}))
        .await;
    let reply = client.receive().await;
    assert_eq!(reply["code"], "unauthorized", "without a token: {reply}");
    // What is within the skew of 30 s is right.
    let fits =
        sign(json!({"exp": now - 20, "nbf": now + 20, "iat": now + 20, "aud": ["x", "calls"]}));
    let reply = try_login(&mut client, "alice", &fits).await;
    assert_eq!(reply["success"], true, "{reply}");
}

#[tokio::test]
async fn a_token_is_for_its_name_or_pattern() {
    let cluster = Cluster::in_memory(1, &required()).await;
    for (sub, name, fits) in [
        ("alice", "alice", true),
        ("alice", "bob", false),
        ("alice-*", "alice-phone", true),
        ("alice-*", "alicephone", false),
        ("*", "anybody", true),
    ] {
        let mut client = cluster.connect(0).await;
        let reply = try_login(&mut client, name, &token(sub, json!({}))).await;
        assert_eq!(reply["success"], fits, "{sub} as {name}: {reply}");
        if !fits {
            assert_eq!(reply["code"], "forbidden");
        }
    }
}

#[tokio::test]
async fn a_token_is_optional_or_unwanted() {
    let optional = [("auth.mode", "optional"), ("auth.jwt.hmac_secret", SECRET)];
    let cluster = Cluster::in_memory(1, &optional).await;
    let _anybody = cluster.login(0, "anybody").await;
    let mut client = cluster.connect(0).await;
    let reply = try_login(&mut client, "alice", "abc").await;
    assert_eq!(
        reply["code"], "unauthorized",
        "a token that is given counts"
    );
    let reply = try_login(&mut client, "alice", &token("alice", json!({}))).await;
    assert_eq!(reply["success"], true);

    let cluster = Cluster::in_memory(1, &[]).await;
    let mut client = cluster.connect(0).await;
    let reply = try_login(&mut client, "alice", &token("alice", json!({}))).await;
    assert_eq!(reply["code"], "unauthorized");
}

#[tokio::test]
async fn keys_in_files_are_read_again() {
    let folder = tempfile::tempdir().unwrap();
    let (first, second) = (Issuer::new("EdDSA"), Issuer::new("ES256"));
    let path = folder.path().join("key.pem");
    std::fs::write(&path, first.pem()).unwrap();
    let secret = folder.path().join("secret");
    std::fs::write(&secret, format!("{SECRET}\n")).unwrap();
    let settings = [
        ("auth.mode", "required"),
        ("auth.jwt.keys", path.to_str().unwrap()),
        ("auth.jwt.hmac_secret_file", secret.to_str().unwrap()),
    ];
    let cluster = Cluster::in_memory(1, &settings).await;
    let fits = async |issuer: &Issuer| {
        let mut client = cluster.connect(0).await;
        let reply = try_login(&mut client, "a name", &issuer.sign(&claims("b"))).await;
        reply["code"] == "forbidden"
    };
    assert!(fits(&first).await && fits(&issuer()).await && !fits(&second).await);
    std::fs::write(&path, "nothing").unwrap();
    tokio::time::sleep(std::time::Duration::from_secs(3)).await;
    assert!(fits(&first).await, "the previous key stays in use");
    std::fs::write(&path, second.pem()).unwrap();
    testing::eventually("the new key is used", async || {
        fits(&second).await.then_some(())
    })
    .await;
    assert!(!fits(&first).await && fits(&issuer()).await);
}
