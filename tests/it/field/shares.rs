//! Fair shares: what one address sends, on however many connections, leaves room for others; and whoever floods a user
//! is refused, not the user or others.

use std::net::IpAddr;

use serde_json::json;
use switchboard::broker::RESERVED_FOR;
use testing::http_session::Downlink;
use testing::proxy::Mode;
use testing::{Client, Cluster, HttpSession, Proxy, eventually};

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

/// Sends the user more than it reads: returns whether some of it was refused.
async fn flood(flooder: &mut Client, user: &str) -> bool {
    let body = "x".repeat(60_000);
    let mut refused = false;
    for number in 0..150 {
        flooder
            .send(&json!({"type": "message", "name": user, "message": body, "id": number}))
            .await;
        let answer = flooder.receive().await;
        match answer["code"].as_str() {
            None => assert_eq!(answer["status"], "delivered", "{answer}"),
            Some("inbox_full") => refused = true,
            Some(_) => panic!("{answer}"),
        }
    }
    refused
}

#[tokio::test]
async fn the_flooder_of_a_plain_user_is_refused_and_others_are_not() {
    for cluster in [
        Cluster::in_memory(2, &[]).await,
        Cluster::over_redis(2, &[]).await,
    ] {
        for node in 0..2 {
            let proxy = Proxy::narrow(cluster.nodes[0].address).await.unwrap();
            let mut user = Client::login(proxy.address, "user").await;
            let mut flooder = cluster.login(node, "flooder").await;
            proxy.set(Mode::Pass, Mode::Blackhole);
            let refused = flood(&mut flooder, "user").await;
            assert_eq!(
                refused,
                node == 0,
                "another node knows only that it has sent it"
            );
            let mut other = cluster.login(1, "other").await;
            other
                .send(&json!({"type": "offer", "name": "user", "offer": 1, "id": 1}))
                .await;
            assert_eq!(other.receive().await["status"], "delivered");
            proxy.set(Mode::Pass, Mode::Pass);
            let (mut missed, mut offered) = (false, false);
            while !offered || (!refused && !missed) {
                let message = user.receive().await;
                missed |= message["missed"] == true;
                offered |= message["type"] == "offer";
            }
            assert!(!(refused && missed), "what was refused is not missed");
            for client in [user, flooder, other] {
                client.close().await;
            }
        }
    }
}

#[tokio::test]
async fn a_name_lost_to_slowness_waits_for_its_client() {
    let settings = [("session.write_timeout", "500ms")];
    let [owner, stranger]: [IpAddr; 2] = ["127.0.0.2", "127.0.0.3"].map(|ip| ip.parse().unwrap());
    for cluster in [
        Cluster::in_memory(2, &settings).await,
        Cluster::over_redis(2, &settings).await,
    ] {
        let mut user = Client::connect_from(owner, cluster.nodes[0].address).await;
        assert_eq!(user.try_login("user").await["success"], true);
        let mut flooder = cluster.login(0, "flooder").await;
        let deaf = user.stop_reading();
        eventually("the user is closed", async || {
            flood_a_little(&mut flooder).await.then_some(())
        })
        .await;
        for node in &cluster.nodes {
            let mut other = Client::connect_from(stranger, node.address).await;
            let refused = other.try_login("user").await;
            assert_eq!(refused["code"], "name_taken", "{refused}");
            let again = refused["retry_after_ms"].as_u64().unwrap();
            assert!(u128::from(again) <= RESERVED_FOR.as_millis(), "{refused}");
        }
        let mut user = Client::connect_from(owner, cluster.nodes[1].address).await;
        assert_eq!(user.try_login("user").await["success"], true);
        user.close().await;
        eventually("a name that is given back is free", async || {
            let mut other = Client::connect_from(stranger, cluster.nodes[0].address).await;
            (other.try_login("user").await["success"] == true).then_some(())
        })
        .await;
        drop(deaf);
    }
}

/// Sends one large message. True if nobody has the name.
async fn flood_a_little(flooder: &mut Client) -> bool {
    let body = "x".repeat(60_000);
    flooder
        .send(&json!({"type": "message", "name": "user", "message": body, "id": 1}))
        .await;
    flooder.receive().await["code"] == "user_unavailable"
}
