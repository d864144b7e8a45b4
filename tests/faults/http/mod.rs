//! HTTP sessions while nodes are killed: a client that reconnects to any node loses nothing and gets nothing twice.

mod frozen;
mod moved;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use testing::Client;
use testing::eventually;
use testing::http::try_request;
use testing::http_session::{Downlink, EventStream, HttpSession, RETRY_AFTER};
use testing::round_robin::RoundRobin;
use testing::{Node, Redis};

/// Reads an event stream and reopens it behind the last event when it ends, as a browser does.
struct StreamReader {
    heard: Arc<Mutex<Vec<Value>>>,
    /// Every event id, in order.
    ids: Arc<Mutex<Vec<String>>>,
    streams: Arc<Mutex<u32>>,
    task: JoinHandle<()>,
}

impl Drop for StreamReader {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl StreamReader {
    /// Starts behind the last event that the session has received.
    fn of(visitor: &HttpSession, door: SocketAddr) -> Self {
        let heard = Arc::<Mutex<Vec<Value>>>::default();
        let ids = Arc::<Mutex<Vec<String>>>::default();
        let streams = Arc::<Mutex<u32>>::default();
        let (token, mut last) = (visitor.token.clone(), visitor.last.clone());
        let task = tokio::spawn({
            let (heard, ids, streams) =
                (Arc::clone(&heard), Arc::clone(&ids), Arc::clone(&streams));
            async move {
                loop {
                    let opening = EventStream::open(door, &token, last.as_deref());
                    // A stream at a frozen node never opens.
                    let Ok(Ok(mut events)) = timeout(Duration::from_secs(5), opening).await else {
                        sleep(RETRY_AFTER).await;
                        continue;
                    };
                    *streams.lock().unwrap() += 1;
                    while let Some(event) = events.next_event().await {
                        match event.kind.as_str() {
                            "message" => {
                                last.clone_from(&event.id);
                                ids.lock().unwrap().push(event.id.unwrap());
                                let reply = serde_json::from_str(&event.data).unwrap();
                                heard.lock().unwrap().push(reply);
                            }
                            "bye" => {}
                            kind => panic!("a {kind} came"),
                        }
                    }
                    sleep(RETRY_AFTER).await;
                }
            }
        });
        Self {
            heard,
            ids,
            streams,
            task,
        }
    }

    fn numbers(&self) -> Vec<u64> {
        let heard = self.heard.lock().unwrap();
        let candidates = heard.iter().filter(|reply| reply["type"] == "candidate");
        candidates
            .map(|reply| reply["candidate"].as_u64().unwrap())
            .collect()
    }

    fn leaves(&self) -> usize {
        let heard = self.heard.lock().unwrap();
        heard
            .iter()
            .filter(|reply| reply["type"] == "leave")
            .count()
    }

    /// Waits for the last number, and checks that all arrived once and in order.
    async fn expect_all(&self, count: u64) {
        eventually("the last number arrives", async || {
            assert!(!self.task.is_finished(), "the reader failed");
            self.numbers().contains(&(count - 1)).then_some(())
        })
        .await;
        let numbers = self.numbers();
        assert_eq!(numbers, (0..count).collect::<Vec<_>>());
        assert_eq!(self.leaves(), 0);
        let ids = self.ids.lock().unwrap();
        let mut once = ids.clone();
        once.sort();
        once.dedup();
        assert_eq!(once.len(), ids.len(), "an event came twice");
    }
}

/// Sends a number until it is acknowledged, and repeats it when the inbox is full; how long that took.
async fn send_number(peer: &mut Client, to: &str, number: u64) -> Duration {
    let begun = Instant::now();
    let say = json!({"type": "candidate", "name": to, "candidate": number, "id": number});
    loop {
        peer.send(&say).await;
        let answer = loop {
            let answer = peer.receive().await;
            if answer["id"] == number {
                break answer;
            }
            assert_ne!(answer["type"], "leave", "{answer}");
        };
        if answer["type"] == "ack" {
            return begun.elapsed();
        }
        let code = answer["code"].as_str().unwrap();
        assert!(["inbox_full", "unavailable"].contains(&code), "{answer}");
        sleep(RETRY_AFTER).await;
    }
}

async fn start(redis: &Redis, name: &str) -> Node {
    Node::start(Some(redis), &[("node_id", name)]).await
}

/// The node with the stream is killed while 50 signals a second arrive; the session's home is another node.
#[tokio::test]
async fn killing_the_node_of_the_stream_loses_nothing() {
    let _alone = crate::alone().await;
    let redis = Redis::start().await;
    let carrier = start(&redis, "carrier").await;
    let mut endpoints = vec![start(&redis, "one").await, start(&redis, "two").await];
    let balancer = RoundRobin::start(&[endpoints[0].address, endpoints[1].address], 0).await;
    let bob = HttpSession::login(carrier.address, Downlink::Poll, "bob").await;
    let mut alice = Client::login(carrier.address, "alice").await;
    alice
        .send(&json!({"type": "offer", "name": "bob", "offer": 1, "id": "o"}))
        .await;
    alice.receive_type("ack").await;
    let reader = StreamReader::of(&bob, balancer.address);
    let at = eventually("the stream is somewhere", async || balancer.stream_at()).await;
    let doomed = endpoints
        .iter()
        .position(|node| node.address == at)
        .unwrap();
    let mut doomed = Some(endpoints.swap_remove(doomed));
    let mut due = Instant::now();
    let (mut killed_at, mut longest) = (None, Duration::ZERO);
    for number in 0..300 {
        tokio::time::sleep_until(due).await;
        due += Duration::from_millis(20);
        let say = json!({"type": "candidate", "name": "bob", "candidate": number, "id": number});
        alice.send(&say).await;
        let answer = alice.receive().await;
        assert_eq!(answer["type"], "ack", "{answer}");
        if number == 75 {
            let doomed = doomed.take().unwrap();
            doomed.process.signal("KILL");
            killed_at = Some(Instant::now());
        }
        if let Some(at) = killed_at
            && longest.is_zero()
            && *reader.streams.lock().unwrap() > 1
        {
            longest = at.elapsed();
        }
    }
    reader.expect_all(300).await;
    alice.expect_silence().await;
    println!(
        "300 signals at 50 a second, all arrived once and in order; \
         the stream was open again {longest:?} after the kill"
    );
}

/// The session's home is killed; the stream is at another node, which becomes the home.
#[tokio::test]
async fn killing_the_home_loses_nothing() {
    let _alone = crate::alone().await;
    let redis = Redis::start().await;
    let staying = start(&redis, "staying").await;
    for round in 0..3 {
        let doomed = start(&redis, "doomed").await;
        let name = format!("bob{round}");
        let mut bob = HttpSession::login(doomed.address, Downlink::Poll, &name).await;
        let mut alice = Client::login(staying.address, &format!("alice{round}")).await;
        alice
            .send(&json!({"type": "offer", "name": name, "offer": 1, "id": "o"}))
            .await;
        alice.receive_type("ack").await;
        bob.receive_type("offer").await;
        bob.move_to(staying.address);
        let reader = StreamReader::of(&bob, staying.address);
        let mut longest = Duration::ZERO;
        for number in 0..400 {
            longest = longest.max(send_number(&mut alice, &name, number).await);
            sleep(Duration::from_millis(15)).await;
            if number == 100 {
                doomed.process.signal("KILL");
            }
            if number % 50 == 0 {
                // POSTs reach the peer, also those that come while the session has no home.
                let say = json!({"type": "message", "name": alice.name, "message": number});
                bob.send(&say).await;
            }
        }
        reader.expect_all(400).await;
        alice.expect_silence().await;
        let path = format!("/v1/sessions/{}", bob.session);
        bob.request("DELETE", &path, &[], "").await;
        let leave = alice.receive().await;
        assert_eq!(leave["reason"], "closed", "{leave}");
        println!(
            "round {round}: 400 signals arrived once and in order; the longest waited {longest:?}"
        );
    }
}

/// POSTs a number under an idempotency key of its own until it is accepted; the number of repetitions.
async fn posts(token: &str, door: SocketAddr, number: u64) -> u64 {
    let say = json!({"type": "candidate", "name": "receiver", "candidate": number}).to_string();
    let (bearer, key) = (format!("Bearer {token}"), format!("key-{number}"));
    let headers = [
        ("authorization", bearer.as_str()),
        ("content-type", "application/json"),
        ("idempotency-key", key.as_str()),
    ];
    let mut again = 0;
    loop {
        let posting = try_request(door, "POST", "/v1/messages", &headers, &say);
        match timeout(Duration::from_secs(5), posting).await {
            Ok(Some(answer)) if answer.status == 202 => return again,
            Ok(Some(answer)) => assert!([429, 503].contains(&answer.status), "{answer:?}"),
            Ok(None) | Err(_) => {}
        }
        again += 1;
        sleep(RETRY_AFTER).await;
    }
}

/// A node is killed and responses are lost on the way: each POST is repeated under its key and delivered once.
#[tokio::test]
async fn posts_in_flight_are_delivered_once() {
    let _alone = crate::alone().await;
    let redis = Redis::start().await;
    let staying = start(&redis, "staying").await;
    for carried_by_the_doomed in [false, true] {
        let doomed = start(&redis, "doomed").await;
        let balancer = RoundRobin::start(&[doomed.address, staying.address], 7).await;
        let mut receiver = Client::login(staying.address, "receiver").await;
        let carrier = if carried_by_the_doomed {
            &doomed
        } else {
            &staying
        };
        let mut sender = HttpSession::login(carrier.address, Downlink::Poll, "sender").await;
        let (token, door) = (sender.token.clone(), balancer.address);
        let posting = tokio::spawn(async move {
            let mut again = 0;
            for number in 0..400 {
                again += posts(&token, door, number).await;
            }
            again
        });
        for number in 0..400_u64 {
            let heard = receiver.receive().await;
            assert_eq!(heard["candidate"], number, "{heard}");
            if number == 120 {
                doomed.process.signal("KILL");
            }
        }
        let again = posting.await.unwrap();
        let lost = balancer.dropped();
        assert!(lost > 40 && again >= lost, "{lost} {again}");
        receiver.expect_silence().await;
        sender.move_to(staying.address);
        sender.close().await;
        receiver.close().await;
        println!(
            "400 POSTs, {again} repeated, {lost} of them since an accepted one got no response: each delivered once"
        );
    }
}
