//! A Redis that speaks TLS only, with an authority of its own, and asks for a certificate.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use serde_json::json;

use testing::ports::free_address;
use testing::{Client, Node, Redis};

/// The files of an authority, and of one certificate that it has signed.
struct Files {
    folder: tempfile::TempDir,
}

impl Files {
    fn of(host: IpAddr) -> Self {
        let mut authority = CertificateParams::new(Vec::new()).unwrap();
        // Certificates with the same name at both ends would count as self-signed.
        authority
            .distinguished_name
            .push(DnType::CommonName, "authority");
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority =
            CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();
        let own = CertificateParams::new(vec![host.to_string()]).unwrap();
        let key = KeyPair::generate().unwrap();
        let certificate = own.signed_by(&key, &authority).unwrap();
        let files = Self {
            folder: tempfile::tempdir().unwrap(),
        };
        std::fs::write(files.path("ca.pem"), authority.pem()).unwrap();
        std::fs::write(files.path("cert.pem"), certificate.pem()).unwrap();
        std::fs::write(files.path("key.pem"), key.serialize_pem()).unwrap();
        files
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[tokio::test]
async fn nodes_talk_to_a_redis_that_wants_a_certificate() {
    let encrypted = free_address().unwrap();
    let files = Files::of(encrypted.ip());
    let [ca, certificate, key, password] =
        ["ca.pem", "cert.pem", "key.pem", "password"].map(|name| files.path(name));
    let options = format!(
        "--tls-port {} --tls-ca-cert-file {} --tls-cert-file {} --tls-key-file {} --tls-auth-clients yes",
        encrypted.port(),
        text(&ca),
        text(&certificate),
        text(&key),
    );
    let redis = Redis::start_with(&options).await.unwrap();
    redis
        .ask("ACL SETUSER other reset on >p#/@ss ~* &* +@all")
        .await;
    std::fs::write(&password, "p#/@ss\n").unwrap();

    let url = format!("rediss://{encrypted}");
    let mut settings = vec![
        ("redis.url", url.as_str()),
        ("redis.username", "other"),
        ("redis.password_file", text(&password)),
        ("redis.certificate", text(&certificate)),
        ("redis.key", text(&key)),
    ];
    let stranger = Node::start_unready(None, &settings).await;
    settings.push(("redis.ca", text(&ca)));
    let nodes = [
        Node::start(None, &settings).await,
        Node::start(None, &settings).await,
    ];
    let mut one = Client::login_resumable(nodes[0].address, "one").await;
    let mut other = Client::login_resumable(nodes[1].address, "other").await;
    one.send(&json!({"type": "message", "name": "other", "message": 1}))
        .await;
    assert_eq!(other.receive_type("message").await["message"], 1);

    // No public authority has signed this certificate.
    testing::eventually("the node says why it does not connect", async || {
        let log = stranger.log().to_lowercase();
        (log.contains("certificate") && log.contains("redis")).then_some(())
    })
    .await;
}
