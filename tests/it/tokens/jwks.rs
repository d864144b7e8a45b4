//! Keys by URL, from an endpoint that is right, away, hanging, slow or bloated.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use testing::Cluster;
use testing::tokens::{Issuer, claims};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::sleep;

use super::try_login;

/// How the endpoint answers.
#[derive(Clone)]
enum Answer {
    Set(Value),
    /// The connection is closed at once.
    Away,
    Hang,
    /// One byte now and then.
    Slow,
    /// So many bytes.
    Huge(usize),
    Error,
}

/// An endpoint for keys.
struct Endpoint {
    address: SocketAddr,
    answer: Arc<Mutex<Answer>>,
    /// The paths that were asked for.
    asked: Arc<Mutex<Vec<String>>>,
}

impl Endpoint {
    async fn start(issuers: &[&Issuer]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = Self {
            address: listener.local_addr().unwrap(),
            answer: Arc::new(Mutex::new(set(issuers))),
            asked: Arc::default(),
        };
        let (answer, asked) = (Arc::clone(&endpoint.answer), Arc::clone(&endpoint.asked));
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let answer = answer.lock().unwrap().clone();
                tokio::spawn(serve(stream, answer, Arc::clone(&asked)));
            }
        });
        endpoint
    }

    fn now(&self, answer: Answer) {
        *self.answer.lock().unwrap() = answer;
    }

    fn requests(&self) -> usize {
        self.asked.lock().unwrap().len()
    }

    /// A node that gets its keys here, and has got them once.
    async fn node(&self) -> Cluster {
        let url = format!("http://{}/jwks.json", self.address);
        let settings = [
            ("auth.mode", "required"),
            ("auth.jwt.jwks_url", url.as_str()),
        ];
        let cluster = Cluster::in_memory(1, &settings).await;
        testing::eventually("the keys are fetched", async || {
            (self.requests() > 0).then_some(())
        })
        .await;
        cluster
    }
}

fn set(issuers: &[&Issuer]) -> Answer {
    let keys: Vec<Value> = issuers.iter().map(|issuer| issuer.jwk()).collect();
    Answer::Set(json!({"keys": keys}))
}

async fn serve(mut stream: TcpStream, answer: Answer, asked: Arc<Mutex<Vec<String>>>) {
    let mut request = [0; 4096];
    let length = stream.read(&mut request).await.unwrap_or_default();
    let request = String::from_utf8_lossy(&request[..length]).into_owned();
    let path = request.split(' ').nth(1).unwrap_or_default();
    asked.lock().unwrap().push(path.to_owned());
    let head = |length: usize| {
        format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n")
            .into_bytes()
    };
    match answer {
        Answer::Set(set) => {
            let body = set.to_string();
            let _ = stream
                .write_all(&[head(body.len()), body.into_bytes()].concat())
                .await;
        }
        Answer::Away => {}
        Answer::Hang => sleep(Duration::from_mins(1)).await,
        Answer::Error => {
            let _ = stream
                .write_all(b"HTTP/1.1 500 X\r\ncontent-length: 0\r\n\r\n")
                .await;
        }
        Answer::Slow => {
            let _ = stream.write_all(&head(10_000)).await;
            for _ in 0..1000 {
                if stream.write_all(b" ").await.is_err() {
                    return;
                }
                sleep(Duration::from_millis(100)).await;
            }
        }
        Answer::Huge(length) => {
            let _ = stream.write_all(&head(length)).await;
            let _ = stream.write_all(&vec![b' '; length]).await;
        }
    }
    let _ = stream.shutdown().await;
}

/// The reply to a login with a token of this issuer, and how long it took.
async fn login(cluster: &Cluster, issuer: &Issuer, name: &str) -> (Value, Duration) {
    let mut client = cluster.connect(0).await;
    let begun = Instant::now();
    let reply = try_login(&mut client, name, &issuer.sign(&claims(name))).await;
    (reply, begun.elapsed())
}

#[tokio::test]
async fn keys_of_every_kind_come_from_a_url_by_their_names() {
    let issuers = [
        Issuer::new("EdDSA").named("one"),
        Issuer::new("ES256").named("../../etc/passwd"),
        Issuer::new("ES384").named("http://127.0.0.1:1/\u{0}?#%2f"),
        Issuer::new("RS256").named("four"),
    ];
    let endpoint = Endpoint::start(&issuers.each_ref()).await;
    let cluster = endpoint.node().await;
    for issuer in &issuers {
        let (reply, _) = login(&cluster, issuer, issuer.algorithm).await;
        assert_eq!(reply["success"], true, "{:?}: {reply}", issuer.kid);
    }
    // A token without a name of its key is of one of them.
    let nameless = issuers[0].sign_as(&json!({"alg": "EdDSA"}), &claims("five"));
    let mut client = cluster.connect(0).await;
    let reply = try_login(&mut client, "five", &nameless).await;
    assert_eq!(reply["success"], true, "{reply}");
    let asked = endpoint.asked.lock().unwrap().clone();
    assert!(asked.iter().all(|path| path == "/jwks.json"), "{asked:?}");
}

#[tokio::test]
async fn an_unknown_key_is_looked_for_now_and_then() {
    let known = Issuer::new("EdDSA").named("known");
    let endpoint = Endpoint::start(&[&known]).await;
    let cluster = endpoint.node().await;
    let stranger = Issuer::new("EdDSA").named("../../known");
    let begun = Instant::now();
    let logins = (0..40).map(|_| login(&cluster, &stranger, "mallory"));
    for (reply, _) in futures_util::future::join_all(logins).await {
        assert_eq!(reply["code"], "unauthorized", "{reply}");
    }
    let fits = 3 + usize::try_from(begun.elapsed().as_secs() / 2).unwrap();
    assert!(
        endpoint.requests() <= fits,
        "{} requests",
        endpoint.requests()
    );
    // The right name does not help a wrong key.
    let forged = Issuer::new("EdDSA").named("known");
    let before = endpoint.requests();
    let (reply, _) = login(&cluster, &forged, "mallory").await;
    assert_eq!(reply["code"], "unauthorized", "{reply}");
    assert_eq!(endpoint.requests(), before);
}

#[tokio::test]
async fn a_new_key_is_found_and_an_old_one_forgotten() {
    let (old, new) = (
        Issuer::new("EdDSA").named("old"),
        Issuer::new("ES256").named("new"),
    );
    let endpoint = Endpoint::start(&[&old]).await;
    let cluster = endpoint.node().await;
    assert_eq!(login(&cluster, &old, "a").await.0["success"], true);
    endpoint.now(set(&[&new]));
    let (reply, _) = login(&cluster, &new, "b").await;
    assert_eq!(reply["success"], true, "{reply}");
    let (reply, _) = login(&cluster, &old, "c").await;
    assert_eq!(reply["code"], "unauthorized", "{reply}");
}

#[tokio::test]
async fn known_keys_stay_good_whatever_the_endpoint_does() {
    let known = Issuer::new("EdDSA").named("known");
    let unknown = Issuer::new("EdDSA").named("unknown");
    let answers = [
        Answer::Away,
        Answer::Error,
        Answer::Huge(10 << 20),
        Answer::Slow,
        Answer::Hang,
        Answer::Set(json!([])),
    ];
    let endpoint = Endpoint::start(&[&known]).await;
    let cluster = endpoint.node().await;
    for (number, answer) in answers.into_iter().enumerate() {
        endpoint.now(answer);
        let before = endpoint.requests();
        let waits = login(&cluster, &unknown, "unknown");
        let goes_on = async {
            testing::eventually("the keys are asked for", async || {
                (endpoint.requests() > before).then_some(())
            })
            .await;
            let (reply, took) = login(&cluster, &known, &format!("known-{number}")).await;
            assert_eq!(reply["success"], true, "{number}: {reply}");
            took
        };
        let ((reply, waited), took) = tokio::join!(waits, goes_on);
        assert_eq!(reply["code"], "unavailable", "{number}: {reply}");
        assert!(reply["retry_after_ms"].as_u64().unwrap() > 0);
        assert!(waited < Duration::from_secs(9), "{number}: {waited:?}");
        assert!(took < Duration::from_secs(1), "{number}: {took:?}");
    }
}

#[tokio::test]
async fn a_node_that_starts_without_its_keys_gets_them_later() {
    let issuer = Issuer::new("EdDSA").named("one");
    let endpoint = Endpoint::start(&[&issuer]).await;
    endpoint.now(Answer::Away);
    let cluster = endpoint.node().await;
    assert_eq!(login(&cluster, &issuer, "a").await.0["code"], "unavailable");
    endpoint.now(set(&[&issuer]));
    testing::eventually("the keys are there", async || {
        let (reply, _) = login(&cluster, &issuer, "a").await;
        (reply["success"] == true).then_some(())
    })
    .await;
}
