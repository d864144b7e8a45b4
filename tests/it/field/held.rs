//! What is counted is what is held: unfinished messages, bodies of requests, and sessions without a connection.

use std::net::SocketAddr;

use serde_json::json;
use testing::http_session::{Downlink, EventStream};
use testing::{Client, Cluster, HttpSession, eventually, http};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::frame::Frame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};

/// A part of a text message.
fn fragment(text: &'static str, is_first: bool, is_last: bool) -> Message {
    let opcode = if is_first { Data::Text } else { Data::Continue };
    Message::Frame(Frame::message(text, OpCode::Data(opcode), is_last))
}

#[tokio::test]
async fn a_message_that_is_never_finished_ends_its_connection_although_pings_are_answered() {
    let settings = [
        ("session.ping_every", "200ms"),
        ("session.silent_after", "1s"),
    ];
    let cluster = Cluster::in_memory(1, &settings).await;
    let mut slow = cluster.connect(0).await;
    slow.send_frame(fragment(r#"{"type":"#, true, false)).await;
    slow.send_frame(fragment(r#""login""#, false, false)).await;
    slow.send_frame(fragment(r#","name":"slow"}"#, false, true))
        .await;
    assert_eq!(slow.receive().await["success"], true, "it is finished");
    let mut nameless = cluster.connect(0).await;
    let mut named = cluster.login(0, "named").await;
    for client in [&mut nameless, &mut named] {
        client
            .send_frame(fragment(r#"{"type":"#, true, false))
            .await;
    }
    assert_eq!(nameless.closed().await, None);
    assert_eq!(named.closed().await, None);
    slow.send(&json!({"type": "ping"})).await;
    assert_eq!(slow.receive().await["type"], "pong");
}

/// Begins a POST whose body does not come.
async fn begin_post(address: SocketAddr, token: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let head = format!(
        "POST /v1/messages HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\n\
         content-type: application/x-ndjson\r\ncontent-length: 200000\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    stream
}

/// The status of the response; there must be one.
async fn status(stream: &mut TcpStream) -> String {
    let mut head = [0; 12];
    stream.read_exact(&mut head).await.unwrap();
    String::from_utf8_lossy(&head[9..]).into_owned()
}

#[tokio::test]
async fn the_body_of_a_stranger_is_not_waited_for() {
    for cluster in [
        Cluster::in_memory(2, &[]).await,
        Cluster::over_redis(2, &[]).await,
    ] {
        let session = HttpSession::login(cluster.nodes[0].address, Downlink::Poll, "a").await;
        let (id, secret) = session.token.split_once('.').unwrap();
        let other = "0".repeat(64);
        for (token, expected) in [
            (String::new(), "401"),
            ("x".to_owned(), "401"),
            (format!("{id}.{other}"), "401"),
            (format!("{}.{secret}", "0".repeat(32)), "404"),
        ] {
            for node in &cluster.nodes {
                let mut stranger = begin_post(node.address, &token).await;
                assert_eq!(status(&mut stranger).await, expected, "{token}");
            }
        }
    }
}

#[tokio::test]
async fn posts_of_an_address_are_limited() {
    let cluster = Cluster::in_memory(1, &[("limits.connections_per_ip", "2")]).await;
    let address = cluster.nodes[0].address;
    let session = HttpSession::login(address, Downlink::Poll, "a").await;
    let mut waiting = Vec::new();
    eventually("two posts are received at once", async || {
        waiting.push(begin_post(address, &session.token).await);
        let headers = [("content-type", "application/json")];
        let further = session
            .request("POST", "/v1/messages", &headers, "{}")
            .await;
        (further.status == 429).then_some(())
    })
    .await;
    assert!(waiting.len() >= 2);
    drop(waiting);
    eventually("there is room again", async || {
        let headers = [("content-type", "application/json")];
        let further = session
            .request("POST", "/v1/messages", &headers, "{}")
            .await;
        (further.status == 202).then_some(())
    })
    .await;
}

#[tokio::test]
async fn sessions_without_a_connection_count_for_their_address() {
    let settings = [
        ("limits.connections_per_ip", "3"),
        ("presence.ttl", "20m"),
        ("presence.grace", "5m"),
    ];
    let cluster = Cluster::in_memory(1, &settings).await;
    let address = cluster.nodes[0].address;
    let mut observer = Client::connect(address).await;
    observer.try_login("observer").await;
    let names: Vec<String> = (0..9).map(|number| format!("n{number}")).collect();
    let mut last = None;
    for name in &names {
        let mut client = eventually("there is a place", async || {
            Client::try_connect(address, &[]).await.ok()
        })
        .await;
        client
            .send(&json!({"type": "login", "name": name, "resumable": true}))
            .await;
        let reply = client.receive().await;
        assert_eq!(reply["success"], true, "{reply}");
        last = Some(reply["resume"].clone());
        client.disconnect();
    }
    eventually("three are kept", async || {
        let asked = json!({"type": "presence", "names": names});
        observer.send(&asked).await;
        let here = observer.receive_type("presence").await;
        let here = here["users"].as_object().unwrap();
        let kept = here.values().filter(|here| **here == true).count();
        (kept == 3).then_some(())
    })
    .await;
    assert!(last.is_some_and(|secret| secret.is_string()));
}

#[tokio::test]
async fn http_sessions_count_at_the_node_to_which_they_move() {
    let settings = [("limits.connections_per_ip", "2")];
    let cluster = Cluster::in_memory(2, &settings).await;
    let [one, two] = [cluster.nodes[0].address, cluster.nodes[1].address];
    let mut statuses = Vec::new();
    for number in 0..3 {
        let opened = eventually("the node at which they opened has room", async || {
            let opened = http::request(one, "POST", "/v1/sessions", &[], "").await;
            (opened.status == 201).then_some(opened)
        })
        .await;
        let session = HttpSession::from_reply(one, Downlink::Stream, &opened.json());
        let moved = EventStream::open(two, &session.token, None).await;
        statuses.push((number, moved.map(drop).err()));
    }
    assert_eq!(statuses, [(0, None), (1, None), (2, Some(429))]);
}
