//! What a frame costs Redis, and what a connection holds in the memory of a node.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use serde_json::json;
use testing::http_session::Downlink;
use testing::{Client, HttpSession, Redis, peerjs};
use tokio::time::sleep;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::frame::Frame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};

use super::{HOLDERS, LARGE, Measure, Rig, long, watch_all};

/// How often a frame is sent to measure its cost.
const TIMES: u64 = 40;

macro_rules! row {
    ($what:expr, $run:expr) => {
        ($what, (|rig| $run(rig).boxed_local()) as Measure)
    };
}

async fn traffic(redis: &Redis) -> u64 {
    let info: String = redis::from_redis_value(redis.ask("INFO stats").await).unwrap();
    let fields = info.lines().filter(|line| {
        line.starts_with("total_net_input_bytes:") || line.starts_with("total_net_output_bytes:")
    });
    let numbers = fields.filter_map(|line| line.split_once(':')?.1.trim().parse::<u64>().ok());
    numbers.sum()
}

/// Bytes at Redis for each byte that is sent, without what the nodes cost Redis meanwhile.
async fn ratio(rig: &Rig, bytes: usize, mut send: impl AsyncFnMut(u64)) -> f64 {
    let (before, start) = (traffic(&rig.redis).await, Instant::now());
    for number in 1..=TIMES {
        send(number).await;
    }
    let (after, took) = (traffic(&rig.redis).await, start.elapsed());
    sleep(took).await;
    let idle = traffic(&rig.redis).await - after;
    let cost = (after - before).saturating_sub(idle);
    #[expect(clippy::cast_precision_loss, reason = "a ratio")]
    let ratio = cost as f64 / (TIMES * bytes as u64) as f64;
    ratio
}

/// The ratio of a frame of a session that watches much, to a user at the other node.
async fn frame_ratio(rig: Arc<Rig>, resumable: bool, frame: serde_json::Value) -> f64 {
    let _peer = Client::login(rig.nodes[1].address, "peer").await;
    let address = rig.nodes[0].address;
    let mut client = if resumable {
        Client::login_resumable(address, &long(9001)).await
    } else {
        Client::login(address, &long(9001)).await
    };
    client.send(&watch_all()).await;
    client.receive_type("presence").await;
    let text = frame.to_string();
    // Its answer comes when everything before it has passed Redis.
    let mark = |number| {
        json!({"type": "message", "name": "nobody", "message": 1, "id": number}).to_string()
    };
    ratio(&rig, text.len() + mark(10).len(), async |number| {
        client.send_text(&text).await;
        client.send_text(&mark(number)).await;
        while client.receive().await["id"] != number {}
    })
    .await
}

pub(super) fn ratios() -> Vec<(&'static str, Measure)> {
    vec![
        row!("offer, plain", |rig| frame_ratio(
            rig,
            false,
            json!({"type": "offer", "name": "peer", "offer": 1})
        )),
        row!("candidate, plain", |rig| frame_ratio(
            rig,
            false,
            json!({"type": "candidate", "name": "peer", "candidate": 1})
        )),
        row!("message of 8 KB, plain", |rig| frame_ratio(
            rig,
            false,
            json!({"type": "message", "name": "peer", "message": "x".repeat(8000)})
        )),
        row!("presence of one name, plain", |rig| frame_ratio(
            rig,
            false,
            json!({"type": "presence", "names": ["peer"]})
        )),
        row!("watch of one name, plain", |rig| frame_ratio(
            rig,
            false,
            json!({"type": "presence", "names": ["peer"], "watch": true})
        )),
        row!("offer, resumable", |rig| frame_ratio(
            rig,
            true,
            json!({"type": "offer", "name": "peer", "offer": 1})
        )),
        row!("leave, resumable", |rig| frame_ratio(
            rig,
            true,
            json!({"type": "leave", "name": "peer"})
        )),
        row!("ack, resumable", |rig| frame_ratio(
            rig,
            true,
            json!({"type": "ack", "seq": "1-0"})
        )),
        row!(
            "ping over HTTP of a session that watches 160 long names",
            http_ratio
        ),
    ]
}

async fn http_ratio(rig: Arc<Rig>) -> f64 {
    let mut session = HttpSession::login(rig.nodes[0].address, Downlink::Poll, &long(9002)).await;
    session.send(&watch_all()).await;
    session.receive_type("presence").await;
    let frame = json!({"type": "ping"});
    ratio(&rig, frame.to_string().len(), async |_| {
        session.send(&frame).await;
    })
    .await
}

/// How much the first node grows while this is done, for each byte of the bound. What is returned is held meanwhile.
async fn growth<T>(rig: &Rig, bound: usize, held: impl Future<Output = T>) -> f64 {
    // Its pools are filled first.
    Client::login(rig.nodes[0].address, "first")
        .await
        .close()
        .await;
    let before = rig.nodes[0].process.resident_kib();
    let held = held.await;
    sleep(Duration::from_secs(1)).await;
    let after = rig.nodes[0].process.resident_kib();
    drop(held);
    #[expect(clippy::cast_precision_loss, reason = "a ratio")]
    let ratio = (after.saturating_sub(before) * 1024) as f64 / bound as f64;
    ratio
}

pub(super) fn held() -> Vec<(&'static str, Measure)> {
    vec![
        row!("unfinished messages of 64 KiB", unfinished),
        row!("connections that watch 160 long names", watchers),
        row!(
            "one-byte offers in large frames, to PeerJS ids that wait",
            tiny_bodies
        ),
    ]
}

async fn unfinished(rig: Arc<Rig>) -> f64 {
    let held = async {
        let mut clients = Vec::new();
        for _ in 0..HOLDERS {
            let mut client = Client::connect(rig.nodes[0].address).await;
            let part = Frame::message("x".repeat(LARGE), OpCode::Data(Data::Text), false);
            client.send_frame(Message::Frame(part)).await;
            clients.push(client);
        }
        clients
    };
    growth(&rig, HOLDERS * 65_536, held).await
}

async fn watchers(rig: Arc<Rig>) -> f64 {
    let held = async {
        let mut clients = Vec::new();
        for number in 0..HOLDERS {
            let mut client = Client::login(rig.nodes[0].address, &format!("w{number}")).await;
            client.send(&watch_all()).await;
            client.receive_type("presence").await;
            clients.push(client);
        }
        clients
    };
    growth(&rig, HOLDERS * 160 * 128, held).await
}

/// They wait for five seconds.
async fn tiny_bodies(rig: Arc<Rig>) -> f64 {
    let mut peer = peerjs::Client::named(rig.nodes[0].address, "p").await;
    let pad = "x".repeat(LARGE);
    let held = async {
        for number in 0..HOLDERS {
            let to = format!("nobody{number}");
            let offer = json!({"type": "OFFER", "dst": to, "payload": 1, "pad": pad});
            peer.send(&offer.to_string()).await;
        }
    };
    growth(&rig, 1 << 20, held).await
}
