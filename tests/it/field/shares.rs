//! Fair shares: what one address sends, on however many connections, leaves room for others.

use std::net::IpAddr;

use serde_json::json;
use testing::http_session::Downlink;
use testing::{Client, Cluster, HttpSession, eventually};

/// How many messages are sent, more than the burst of the address.
const MESSAGES: usize = 200;

#[tokio::test]
async fn the_connections_of_an_address_share_its_rate_and_another_address_has_its_own() {
    let settings = [
        ("limits.signals_per_second", "0"),
        ("limits.signals_per_second_per_ip", "100"),
    ];
    let cluster = Cluster::in_memory(1, &settings).await;
    let address = cluster.nodes[0].address;
    let elsewhere: IpAddr = "127.0.0.2".parse().unwrap();
    let mut other = Client::connect_from(elsewhere, address).await;
    assert_eq!(other.try_login("other").await["success"], true);
    let mut clients = Vec::new();
    for number in 0..5 {
        // A login costs as much as 20 messages, and the burst is 200.
        let name = format!("one{number}");
        let client = eventually("the address may log in", async || {
            let mut client = Client::connect(address).await;
            let reply = client.try_login(&name).await;
            let is_limited = reply["code"] == "rate_limited";
            assert!(reply["success"] == true || is_limited, "{reply}");
            (!is_limited).then_some(client)
        })
        .await;
        clients.push(client);
    }
    let mut refused = 0;
    for number in 0..MESSAGES {
        let client = &mut clients[number % 5];
        let message = json!({"type": "message", "name": "other", "message": 1, "id": number});
        client.send(&message).await;
        let answer = client.receive().await;
        assert_eq!(answer["id"], number);
        if answer["type"] == "error" {
            assert_eq!(answer["code"], "rate_limited", "{answer}");
            assert!(answer["retry_after_ms"].is_u64(), "{answer}");
            refused += 1;
        }
    }
    let mut session = HttpSession::open(address, Downlink::Poll, &json!({})).await;
    session
        .send(&json!({"type": "login", "name": "http", "id": 1}))
        .await;
    let reply = session.receive().await;
    assert!(
        refused > 0 && reply["code"] == "rate_limited",
        "{refused} refused, and over HTTP: {reply}"
    );
    // Nobody else pays.
    other
        .send(&json!({"type": "message", "name": "one0", "message": 1, "id": 1}))
        .await;
    assert_eq!(other.receive_type("ack").await["status"], "delivered");
}
