//! TLS at the node: a certificate from two files, reloaded while the node runs.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use futures_util::{SinkExt as _, StreamExt as _};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

use testing::Node;
use testing::eventually;
use testing::http;

/// A self-signed certificate with its key.
struct Certificate {
    pem: String,
    key: String,
    der: CertificateDer<'static>,
}

impl Certificate {
    fn new() -> Self {
        Self::until(2100)
    }

    /// A certificate that expires on the first day of a year.
    fn until(year: i32) -> Self {
        let mut wanted = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        wanted.not_after = rcgen::date_time_ymd(year, 1, 1);
        let key = rcgen::KeyPair::generate().unwrap();
        let made = wanted.self_signed(&key).unwrap();
        Self {
            pem: made.pem(),
            key: key.serialize_pem(),
            der: made.der().clone(),
        }
    }
}

/// Where a node looks for its certificate.
struct Files {
    folder: tempfile::TempDir,
}

impl Files {
    fn with(certificate: &Certificate) -> Self {
        let files = Self {
            folder: tempfile::tempdir().unwrap(),
        };
        files.hold(&certificate.pem, &certificate.key);
        files
    }

    fn paths(&self) -> [PathBuf; 2] {
        ["cert.pem", "key.pem"].map(|name| self.folder.path().join(name))
    }

    fn hold(&self, certificate: &str, key: &str) {
        for (path, text) in self.paths().iter().zip([certificate, key]) {
            std::fs::write(path, text).unwrap();
        }
    }

    async fn node(&self) -> Node {
        let [certificate, key] = self.paths();
        let settings = [
            ("tls.certificate", certificate.to_str().unwrap()),
            ("tls.key", key.to_str().unwrap()),
            // These clients read only when the test does, so they may not answer pings in time.
            ("session.silent_after", "10m"),
        ];
        Node::start(None, &settings).await
    }
}

type Socket = WebSocketStream<TlsStream<TcpStream>>;

/// Connects and trusts only this certificate.
async fn connect(address: SocketAddr, trusted: &Certificate) -> std::io::Result<Socket> {
    let mut roots = RootCertStore::empty();
    roots.add(trusted.der.clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let stream = TcpStream::connect(address).await?;
    let name = ServerName::try_from("localhost").unwrap();
    let stream = TlsConnector::from(Arc::new(config))
        .connect(name, stream)
        .await?;
    let (socket, _) = tokio_tungstenite::client_async("wss://localhost/", stream)
        .await
        .unwrap();
    Ok(socket)
}

async fn send(socket: &mut Socket, message: &Value) {
    socket
        .send(Message::text(message.to_string()))
        .await
        .unwrap();
}

async fn receive(socket: &mut Socket) -> Value {
    loop {
        if let Message::Text(text) = socket.next().await.unwrap().unwrap() {
            return serde_json::from_str(&text).unwrap();
        }
    }
}

async fn login(address: SocketAddr, trusted: &Certificate, name: &str) -> Socket {
    let mut socket = connect(address, trusted).await.unwrap();
    send(&mut socket, &json!({"type": "login", "name": name})).await;
    assert_eq!(receive(&mut socket).await["success"], true);
    socket
}

async fn offer_arrives(from: &mut Socket, to: &mut Socket) {
    send(
        from,
        &json!({"type": "offer", "name": "UserB", "offer": "o"}),
    )
    .await;
    assert_eq!(
        receive(to).await,
        json!({"type": "offer", "offer": "o", "name": "UserA"})
    );
}

#[tokio::test]
async fn with_tls_only_wss_is_served() {
    let certificate = Certificate::new();
    let node = Files::with(&certificate).node().await;
    let mut one = login(node.address, &certificate, "UserA").await;
    let mut other = login(node.address, &certificate, "UserB").await;
    offer_arrives(&mut one, &mut other).await;
    let plain = http::get(node.address, "/").await;
    assert!(plain.is_none(), "plain HTTP gets no response: {plain:?}");
    assert!(connect(node.address, &Certificate::new()).await.is_err());
    assert_eq!(http::status(node.admin, "/readyz").await, Some(200));
}

#[tokio::test]
async fn a_renewed_certificate_is_served_and_a_bad_one_is_not() {
    let (old, new, third) = (Certificate::new(), Certificate::new(), Certificate::new());
    let files = Files::with(&old);
    let node = files.node().await;
    let mut one = login(node.address, &old, "UserA").await;
    let mut other = login(node.address, &old, "UserB").await;

    files.hold(&new.pem, &new.key);
    eventually("the renewed certificate is served", async || {
        connect(node.address, &new).await.ok()
    })
    .await;
    assert!(
        connect(node.address, &old).await.is_err(),
        "and not the old"
    );
    offer_arrives(&mut one, &mut other).await;

    let bad = [
        (
            third.pem.as_str(),
            new.key.as_str(),
            "does not belong to the certificate",
        ),
        (
            "nothing of the kind",
            &new.key,
            "contains no certificate in PEM",
        ),
        (&third.pem, "", "contains no private key in PEM"),
    ];
    for (certificate, key, word) in bad {
        files.hold(certificate, key);
        eventually(&format!("it is logged: {word}"), async || {
            let log = node.log();
            let reply = log.lines().filter(|line| line.contains(word)).count();
            assert!(reply < 2, "logged once: {log}");
            (reply == 1).then_some(())
        })
        .await;
        connect(node.address, &new)
            .await
            .expect("the one before is kept");
    }
    std::fs::remove_file(&files.paths()[1]).unwrap();
    eventually("the missing key is logged", async || {
        node.log().contains("cannot read the file").then_some(())
    })
    .await;
    let log = node.log();
    assert!(!log.contains("PRIVATE KEY"), "{log}");

    files.hold(&third.pem, &third.key);
    eventually("a good one is served again", async || {
        connect(node.address, &third).await.ok()
    })
    .await;
    offer_arrives(&mut one, &mut other).await;
}

#[tokio::test]
async fn an_expired_certificate_is_logged_once() {
    let (ended, good) = (Certificate::until(2020), Certificate::new());
    let files = Files::with(&ended);
    let node = files.node().await;
    let reply = || node.log().matches("tls.certificate has expired").count();
    eventually("the expiry is logged", async || (reply() > 0).then_some(())).await;
    files.hold(&good.pem, &good.key);
    eventually("a good one is served", async || {
        connect(node.address, &good).await.ok()
    })
    .await;
    assert_eq!(reply(), 1, "{}", node.log());
}

#[test]
fn a_node_does_not_start_with_a_certificate_that_it_cannot_serve() {
    let start = |files: &Files, without_key: bool| {
        let [certificate, key] = files.paths();
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_switchboard"));
        command.args(["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"]);
        command.args([
            "--set",
            &format!("tls.certificate={}", certificate.display()),
        ]);
        if !without_key {
            command.args(["--set", &format!("tls.key={}", key.display())]);
        }
        let output = command.output().unwrap();
        let log = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(78), "{log}");
        log
    };
    let (one, other) = (Certificate::new(), Certificate::new());
    let files = Files::with(&one);
    files.hold(&one.pem, &other.key);
    let log = start(&files, false);
    assert!(log.contains("does not belong to the certificate"), "{log}");
    std::fs::remove_file(&files.paths()[0]).unwrap();
    let log = start(&files, false);
    assert!(
        log.contains("tls.certificate = ") && log.contains("cannot read the file"),
        "{log}"
    );
    let log = start(&files, true);
    assert!(log.contains("tls.key = \"\" is missing"), "{log}");
}
