//! Where clients come from, behind proxies: limits hold for the client's address, and nobody evades them by forging it.

use std::net::{IpAddr, SocketAddr};

use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};

use testing::{Client, Node};

const PROXY: &str = "127.0.0.1";
const STRANGER: &str = "127.0.0.9";

async fn node(settings: &[(&str, &str)]) -> Node {
    let settings = [settings, &[("limits.trusted_proxies", PROXY)]].concat();
    Node::start(None, &settings).await
}

/// Sends these bytes from an address, and returns the status and what follows the head of the answer.
async fn exchange(from: &str, to: SocketAddr, request: &[u8]) -> (u16, String) {
    let socket = TcpSocket::new_v4().unwrap();
    let from = SocketAddr::new(from.parse().unwrap(), 0);
    socket.bind(from).unwrap();
    let mut stream: TcpStream = socket.connect(to).await.unwrap();
    stream.write_all(request).await.unwrap();
    let mut answer = Vec::new();
    // A connection that is refused may be reset.
    drop(stream.read_to_end(&mut answer).await);
    let answer = String::from_utf8(answer).unwrap();
    let status = answer.split(' ').nth(1).and_then(|word| word.parse().ok());
    let body = answer.split_once("\r\n\r\n").unwrap_or_default().1;
    (status.unwrap_or_default(), body.to_owned())
}

/// A PROXY header of version 2: this client, over TCP and IPv4.
fn header(client: [u8; 4]) -> Vec<u8> {
    let mut header = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c".to_vec();
    header.extend(client);
    header.extend([127, 0, 0, 1, 0x12, 0x67, 0x23, 0x82]);
    header
}

fn get(path: &str, headers: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{headers}\r\n").into()
}

/// The address that the node sees.
async fn seen(from: &str, node: &Node, request: &[u8]) -> String {
    let (status, body) = exchange(from, node.address, request).await;
    assert_eq!(status, 200);
    let seen: Value = serde_json::from_str(&body).unwrap();
    seen["address"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_proxy_tells_where_a_client_comes_from() {
    let node = node(&[]).await;
    let forwarded = get("/v1/whoami", "X-Forwarded-For: 198.51.100.9, 192.0.2.1\r\n");
    let plain = get("/v1/whoami", "");
    let with_header = [header([192, 0, 2, 7]), plain.clone()].concat();
    assert_eq!(seen(PROXY, &node, &plain).await, PROXY);
    assert_eq!(seen(PROXY, &node, &forwarded).await, "192.0.2.1");
    assert_eq!(seen(PROXY, &node, &with_header).await, "192.0.2.7");
    let both = [header([192, 0, 2, 7]), forwarded.clone()].concat();
    assert_eq!(
        seen(PROXY, &node, &both).await,
        "192.0.2.7",
        "what the client writes does not count"
    );

    assert_eq!(seen(STRANGER, &node, &forwarded).await, STRANGER);
    let (status, _) = exchange(STRANGER, node.address, &with_header).await;
    assert_eq!(status, 400, "a stranger's header is no request");
}

#[tokio::test]
async fn a_proxy_that_sends_half_a_header_holds_up_nobody() {
    let node = node(&[]).await;
    let mut half = TcpStream::connect(node.address).await.unwrap();
    half.write_all(&header([192, 0, 2, 7])[..9]).await.unwrap();
    let mut long = TcpStream::connect(node.address).await.unwrap();
    long.write_all(b"\r\n\r\n\0\r\nQUIT\n\x21\x11\xff\xff")
        .await
        .unwrap();
    let mut answer = Vec::new();
    // One that is too long is refused at once.
    drop(long.read_to_end(&mut answer).await);
    assert_eq!(answer, b"");
    assert_eq!(seen(PROXY, &node, &get("/v1/whoami", "")).await, PROXY);
}

#[tokio::test]
async fn limits_are_for_the_client_behind_the_proxy() {
    let node = node(&[("limits.connections_per_ip", "1")]).await;
    let upgrade = |client: &str| {
        let upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                       Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
        format!("GET /ws HTTP/1.1\r\nHost: localhost\r\n{upgrade}X-Forwarded-For: {client}\r\n\r\n")
    };
    let mut held = Vec::new();
    let mut open = async |client: &str| {
        let mut stream = TcpStream::connect(node.address).await.unwrap();
        stream.write_all(upgrade(client).as_bytes()).await.unwrap();
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).await.unwrap();
        held.push(stream);
        String::from_utf8_lossy(&answer[9..]).into_owned()
    };
    assert_eq!(open("192.0.2.1").await, "101");
    assert_eq!(open("192.0.2.1").await, "429");
    assert_eq!(open("192.0.2.2").await, "101");
    // The proxy appends, so whatever the client writes comes before.
    assert_eq!(open("203.0.113.1, 192.0.2.1").await, "429");
    assert_eq!(open("203.0.113.2, 192.0.2.2").await, "429");
}

#[tokio::test]
async fn logins_of_an_address_are_limited_and_resumes_are_not() {
    let node = Node::start(None, &[("limits.logins_per_minute_per_ip", "2")]).await;
    let mut one = Client::login_resumable(node.address, "one").await;
    let _two = Client::login(node.address, "two").await;
    let mut three = Client::connect(node.address).await;
    let refused = three.try_login("three").await;
    assert_eq!(refused["code"], "rate_limited", "{refused}");
    let retry_after = refused["retry_after_ms"].as_u64().unwrap();
    assert!((1..=30_000).contains(&retry_after), "{retry_after}");
    let other: IpAddr = STRANGER.parse().unwrap();
    let mut four = Client::connect_from(other, node.address).await;
    assert_eq!(four.try_login("four").await["success"], true);
    let token = one.token.clone();
    Client::resume(node.address, &token).await;
    assert_eq!(one.closed().await, Some(4000));
}
