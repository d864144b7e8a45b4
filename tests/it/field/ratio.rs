//! Amplification: what one frame of a client costs Redis, in the worst state in which its session can be.
//!
//! No frame costs Redis more than [`FACTOR`] times its own bytes plus [`FLAT`].

use std::fmt::Write as _;

use serde_json::{Value, json};
use testing::cluster::Backend;
use testing::http_session::Downlink;
use testing::{Cluster, HttpSession, PATIENCE, peerjs};
use tokio::time::{Instant, sleep};

/// A name may be encoded threefold, and is in the keys and the channel of a signal.
const FACTOR: u64 = 24;
/// What any frame may cost beside that: the command, and who sends it.
const FLAT: u64 = 1024;
/// How often each frame is sent.
const TIMES: u64 = 40;

/// A name of 128 bytes, each of which takes three in a key.
fn long(number: usize) -> String {
    format!("{}{number:04}", "!".repeat(124))
}

/// The bytes that Redis has read and written.
async fn traffic(cluster: &Cluster) -> u64 {
    let Backend::Redis(redis) = &cluster.backend else {
        unreachable!("over Redis");
    };
    let info = redis.ask("INFO stats").await;
    let info: String = redis::from_redis_value(info).unwrap();
    let field = |name: &str| -> u64 {
        let line = info.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap().trim().parse().unwrap()
    };
    field("total_net_input_bytes:") + field("total_net_output_bytes:")
}

/// What one frame costs, in bytes, without what the nodes cost Redis meanwhile.
struct Ratios {
    told: String,
    worst: u64,
}

impl Ratios {
    async fn measure(
        &mut self,
        cluster: &Cluster,
        what: &str,
        bytes: usize,
        mut send: impl AsyncFnMut(u64),
    ) {
        send(0).await;
        let (before, start) = (traffic(cluster).await, Instant::now());
        for number in 1..=TIMES {
            send(number).await;
        }
        let (after, took) = (traffic(cluster).await, start.elapsed());
        sleep(took).await;
        let idle = traffic(cluster).await - after;
        let cost = (after - before).saturating_sub(idle) / TIMES;
        let bytes = bytes as u64;
        writeln!(self.told, "{what}: {bytes} bytes cost {cost}").unwrap();
        let most = FACTOR * bytes + FLAT;
        self.worst = self.worst.max(cost * 1000 / most);
    }

    fn check(&self) {
        eprintln!("{}", self.told);
        assert!(
            self.worst <= 1000,
            "too dear by {}‰:\n{}",
            self.worst,
            self.told
        );
    }
}

/// Every kind of frame, to a user who is there.
fn frames(to: &str) -> Vec<Value> {
    let mut frames: Vec<Value> = ["offer", "answer", "candidate", "message"]
        .map(|kind| json!({"type": kind, "name": to, kind: 1}))
        .into();
    frames.extend([
        json!({"type": "message", "name": to, "message": "x".repeat(8000)}),
        json!({"type": "message", "name": "nobody", "message": 1}),
        json!({"type": "presence", "names": [to]}),
        json!({"type": "presence", "names": [to], "watch": true}),
        json!({"type": "presence", "names": [to], "watch": false}),
        json!({"type": "report", "name": to, "state": "connected"}),
        json!({"type": "leave", "name": to}),
        json!({"type": "leave"}),
        json!({"type": "ack", "seq": "1-0"}),
        json!({"type": "login", "name": "x"}),
        json!({"type": "nonsense"}),
        json!({}),
        Value::Null,
    ]);
    frames
}

/// Watches as much as one session may.
fn watch_all() -> Value {
    let names: Vec<String> = (0..160).map(long).collect();
    json!({"type": "presence", "names": names, "watch": true, "id": "watch"})
}

/// The message that tells when everything before it has passed Redis: its answer comes after theirs.
fn mark(number: u64) -> String {
    format!(r#"{{"type":"message","name":"nobody","message":1,"id":{number}}}"#)
}

#[tokio::test]
async fn no_frame_costs_redis_more_than_a_constant_times_its_bytes() {
    let settings = [
        ("presence.watch_every", "10m"),
        ("limits.signals_per_second", "0"),
    ];
    let cluster = Cluster::over_redis(2, &settings).await;
    let peer = long(9000);
    let _peer = cluster.login(1, &peer).await;
    let mut ratios = Ratios {
        told: String::new(),
        worst: 0,
    };

    websockets(&cluster, &peer, &mut ratios).await;
    http_sessions(&cluster, &peer, &mut ratios).await;
    peerjs_clients(&cluster, &mut ratios).await;
    ratios.check();
}

async fn websockets(cluster: &Cluster, peer: &str, ratios: &mut Ratios) {
    let mut marks = 0;
    for (kind, mut client) in [
        ("plain", cluster.login(0, &long(9001)).await),
        ("resumable", cluster.login_resumable(0, &long(9002)).await),
    ] {
        client.send(&watch_all()).await;
        assert_eq!(client.receive_type("presence").await["id"], "watch");
        for frame in frames(peer) {
            let text = frame.to_string();
            let what = format!("{kind} {}", &text[..text.len().min(40)]);
            ratios
                .measure(cluster, &what, text.len() + mark(10).len(), async |_| {
                    marks += 1;
                    client.send_text(&text).await;
                    client.send_text(&mark(marks)).await;
                    while client.receive().await["id"] != marks {}
                })
                .await;
        }
    }
}

async fn http_sessions(cluster: &Cluster, peer: &str, ratios: &mut Ratios) {
    let [one, two] = [cluster.nodes[0].address, cluster.nodes[1].address];
    for (kind, address) in [("http", one), ("http at another node", two)] {
        let mut session = HttpSession::login(one, Downlink::Poll, &long(9003)).await;
        session.send(&watch_all()).await;
        assert_eq!(session.receive_type("presence").await["id"], "watch");
        session.move_to(address);
        for frame in frames(peer) {
            let what = format!(
                "{kind} {}",
                &frame.to_string()[..frame.to_string().len().min(40)]
            );
            // Beside the frame, the head of the request with its token.
            let bytes = frame.to_string().len() + 160;
            ratios
                .measure(cluster, &what, bytes, async |_| session.send(&frame).await)
                .await;
        }
        session.send(&json!({"type": "ping"})).await;
        assert_eq!(
            session
                .request(
                    "POST",
                    &format!("/v1/sessions/{}/close", session.session),
                    &[],
                    ""
                )
                .await
                .status,
            204
        );
    }
}

async fn peerjs_clients(cluster: &Cluster, ratios: &mut Ratios) {
    let [one, two] = [cluster.nodes[0].address, cluster.nodes[1].address];
    let mut a = peerjs::Client::named(one, "a").await;
    let mut b = peerjs::Client::named(two, "b").await;
    for kind in [
        "OFFER",
        "ANSWER",
        "CANDIDATE",
        "LEAVE",
        "EXPIRE",
        "HEARTBEAT",
    ] {
        let text = format!(r#"{{"type":"{kind}","dst":"b","payload":1}}"#);
        let mark = r#"{"type":"CANDIDATE","dst":"b","payload":"mark"}"#;
        let bytes = text.len() + mark.len();
        ratios
            .measure(cluster, kind, bytes, async |_| {
                a.send(&text).await;
                a.send(mark).await;
                let until = Instant::now() + PATIENCE;
                while !b.receive().await.contains("mark") {
                    assert!(Instant::now() < until, "the mark does not come");
                }
            })
            .await;
    }
}
