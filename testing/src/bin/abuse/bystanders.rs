//! Two users who have nothing to do with an abuse.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use serde_json::json;
use testing::http_session::Downlink;
use testing::{Client, HttpSession, Node, peerjs};
use tokio::task::JoinSet;
use tokio::time::{interval, sleep};

use super::{Abuse, HOLDERS, LARGE, Rig, long, watch_all};

/// How long bystanders are watched during an abuse.
const WATCHED_FOR: Duration = Duration::from_secs(4);

/// The p99 of messages between two bystanders while so many tasks do something again and again.
pub(super) async fn p99(rig: Arc<Rig>, abusers: usize, abuse: Abuse) -> f64 {
    let mut one = bystander(&rig.nodes[0], "one").await;
    let mut other = bystander(&rig.nodes[1], "other").await;
    let mut tasks = JoinSet::new();
    for number in 0..abusers {
        tasks.spawn(abuse(Arc::clone(&rig), number));
    }
    sleep(Duration::from_secs(1)).await;
    let mut times = Vec::new();
    let (mut ticks, start) = (interval(Duration::from_millis(10)), Instant::now());
    while start.elapsed() < WATCHED_FOR {
        ticks.tick().await;
        let sent = Instant::now();
        one.send(&json!({"type": "message", "name": "other", "message": 1}))
            .await;
        other.receive_type("message").await;
        times.push(sent.elapsed());
    }
    times.sort();
    times[times.len() * 99 / 100].as_secs_f64() * 1000.0
}

async fn bystander(node: &Node, name: &str) -> Client {
    let from: IpAddr = "127.0.0.9".parse().unwrap();
    let mut client = Client::connect_from(from, node.address).await;
    assert_eq!(client.try_login(name).await["success"], true);
    client
}

macro_rules! abuse {
    ($what:expr, $tasks:expr, $run:expr) => {
        (
            $what,
            $tasks,
            (|rig, number| $run(rig, number).boxed()) as Abuse,
        )
    };
}

pub(super) fn abuses() -> Vec<(&'static str, usize, Abuse)> {
    vec![
        abuse!("nothing", 0, full_rate),
        abuse!(
            "200 connections at 50 messages a second",
            HOLDERS,
            full_rate
        ),
        abuse!("20 clients that send oversized frames", 20, oversized),
        abuse!(
            "20 HTTP sessions that watch 160 long names and ping",
            20,
            pings_over_http
        ),
        abuse!(
            "4 senders of 60 KB messages to one who does not read",
            4,
            large_messages
        ),
        abuse!("20 clients that log in and go", 20, logins),
        abuse!("20 PeerJS clients that call ids that nobody has", 20, waits),
    ]
}

async fn full_rate(rig: Arc<Rig>, number: usize) {
    let mut client = Client::login(rig.nodes[number % 2].address, &format!("f{number}")).await;
    let to = format!("f{}", (number + 1) % HOLDERS);
    let mut ticks = interval(Duration::from_millis(20));
    loop {
        ticks.tick().await;
        client
            .send(&json!({"type": "message", "name": to, "message": 1}))
            .await;
    }
}

async fn oversized(rig: Arc<Rig>, _: usize) {
    let text = "x".repeat(70_000);
    loop {
        let mut client = Client::connect(rig.nodes[0].address).await;
        client.try_send_text(&text).await;
        client.closed().await;
    }
}

async fn pings_over_http(rig: Arc<Rig>, number: usize) {
    let session = HttpSession::login(rig.nodes[0].address, Downlink::Poll, &long(number)).await;
    session.send(&watch_all()).await;
    loop {
        session.send(&json!({"type": "ping"})).await;
    }
}

async fn large_messages(rig: Arc<Rig>, number: usize) {
    let _deaf = match number {
        0 => Some(
            Client::login(rig.nodes[0].address, "deaf")
                .await
                .stop_reading(),
        ),
        _ => None,
    };
    let mut sender = Client::login(rig.nodes[1].address, &format!("l{number}")).await;
    let body = "x".repeat(LARGE);
    loop {
        let message = json!({"type": "message", "name": "deaf", "message": body, "id": 1});
        sender.send(&message).await;
        sender.receive().await;
    }
}

async fn logins(rig: Arc<Rig>, number: usize) {
    loop {
        let mut client = Client::connect(rig.nodes[0].address).await;
        client.try_login(&format!("g{number}")).await;
        client.close().await;
    }
}

async fn waits(rig: Arc<Rig>, number: usize) {
    let mut peer = peerjs::Client::named(rig.nodes[0].address, &format!("p{number}")).await;
    let payload = "x".repeat(8000);
    let mut ticks = interval(Duration::from_millis(10));
    for call in 0.. {
        ticks.tick().await;
        let to = format!("nobody{number}-{call}");
        peer.send(&json!({"type": "OFFER", "dst": to, "payload": payload}).to_string())
            .await;
    }
}
