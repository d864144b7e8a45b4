//! Limits and refusals: frame sizes, rates, silence, foreign origins, malformed messages.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;

use testing::Client;
use testing::Cluster;
use testing::{eventually, http};

#[tokio::test]
async fn a_frame_over_the_limit_closes_with_1009() {
    let cluster = Cluster::in_memory(1, &[]).await;
    let mut one = cluster.login(0, "one").await;
    let mut other = cluster.login(0, "other").await;
    let empty = r#"{"type":"offer","name":"other","offer":""}"#;
    let fits = empty.replace("\"\"", &format!("\"{}\"", "x".repeat(65_536 - empty.len())));
    assert_eq!(fits.len(), 65_536);
    one.send_text(&fits).await;
    assert_eq!(
        other.receive().await["offer"].as_str().unwrap().len(),
        65_536 - empty.len()
    );
    one.send_frame(Message::text("x".repeat(65_537))).await;
    assert_eq!(one.closed().await, Some(1009));
    assert_eq!(
        other.receive().await,
        json!({"type": "leave", "name": "one", "reason": "kicked"})
    );
}

#[tokio::test]
async fn a_silent_client_is_closed_with_4010_and_a_quiet_one_is_not() {
    let settings = [
        ("session.ping_every", "300ms"),
        ("session.silent_after", "900ms"),
    ];
    let cluster = Cluster::in_memory(1, &settings).await;
    let mut quiet = cluster.login(0, "quiet").await;
    let mut silent = cluster.login(0, "silent").await;
    silent.call(&mut quiet).await;
    let silent = silent.stop_reading();
    assert_eq!(
        quiet.receive().await,
        json!({"type": "leave", "name": "silent", "reason": "lost"})
    );
    quiet.expect_silence().await;
    drop(silent);
    assert_eq!(raw_close_code(cluster.nodes[0].address).await, 4010);
}

/// Connects over raw TCP and never answers a ping; the code of the close frame.
async fn raw_close_code(address: SocketAddr) -> u16 {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let mut request = "GET /ws HTTP/1.1\r\nHost: x\r\n".to_owned();
    for (name, value) in http::UPGRADE {
        request.extend([name, ": ", value, "\r\n"]);
    }
    request += "\r\n";
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut received = Vec::new();
    stream.read_to_end(&mut received).await.unwrap();
    // An unmasked close frame (RFC 6455, section 5.5.1): 0x88, the length, the code.
    let at = received
        .windows(2)
        .position(|bytes| bytes[0] == 0x88 && bytes[1] >= 2)
        .unwrap();
    u16::from_be_bytes([received[at + 2], received[at + 3]])
}

#[tokio::test]
async fn a_client_without_login_is_closed_with_4009() {
    let cluster = Cluster::in_memory(1, &[("session.login_within", "300ms")]).await;
    let mut one = cluster.login(0, "one").await;
    let mut idle = cluster.connect(0).await;
    idle.send(&json!({"type": "ping"})).await;
    assert_eq!(idle.closed().await, Some(4009));
    one.expect_silence().await;
}

#[tokio::test]
async fn a_fast_client_is_refused_and_then_closed_with_4029() {
    let cluster = Cluster::in_memory(1, &[("limits.signals_per_second", "20")]).await;
    let mut one = cluster.login(0, "one").await;
    let mut other = cluster.login(0, "other").await;
    for number in 0..60 {
        one.send(&json!({"type": "message", "name": "other", "message": number, "id": number}))
            .await;
    }
    let (mut accepted, mut refused) = (0, 0);
    for _ in 0..60 {
        let answer = one.receive().await;
        if answer["type"] == "ack" {
            accepted += 1;
        } else {
            assert_eq!(answer["code"], "rate_limited", "{answer}");
            assert!(answer["retry_after_ms"].as_u64().unwrap() <= 50, "{answer}");
            assert!(answer["id"].is_u64(), "{answer}");
            refused += 1;
        }
    }
    // The login counts as the first message of a burst of 40.
    assert!(
        (39..=50).contains(&accepted),
        "{accepted} accepted, {refused} refused"
    );
    for _ in 0..accepted {
        assert_eq!(other.receive().await["type"], "message");
    }
    other.expect_silence().await;
    while one.try_send_text(r#"{"type":"ping"}"#).await {}
    assert_eq!(one.closed().await, Some(4029));
}

#[tokio::test]
async fn connections_per_address_are_limited() {
    let cluster = Cluster::in_memory(1, &[("limits.connections_per_ip", "2")]).await;
    let address = cluster.nodes[0].address;
    let (first, _second) = (
        Client::connect(address).await,
        Client::connect(address).await,
    );
    assert_eq!(Client::try_connect(address, &[]).await.err(), Some(429));
    first.close().await;
    eventually("a place is free again", async || {
        Client::try_connect(address, &[]).await.ok()
    })
    .await;
}

#[tokio::test]
async fn only_pages_of_listed_origins_may_connect() {
    let cluster = Cluster::in_memory(
        1,
        &[(
            "limits.origins",
            "https://app.example, http://localhost:3000",
        )],
    )
    .await;
    let address = cluster.nodes[0].address;
    for origin in ["https://app.example", "http://localhost:3000"] {
        assert!(
            Client::try_connect(address, &[("origin", origin)])
                .await
                .is_ok(),
            "{origin}"
        );
    }
    for origin in [
        "null",
        "https://evil-app.example",
        "https://app.example.evil",
        "https://app.example:444",
        "https://APP.example",
    ] {
        assert_eq!(
            Client::try_connect(address, &[("origin", origin)])
                .await
                .err(),
            Some(403),
            "{origin}"
        );
    }
    assert!(
        Client::try_connect(address, &[]).await.is_ok(),
        "a program sends none"
    );
    let open = Cluster::in_memory(1, &[]).await;
    assert!(
        Client::try_connect(open.nodes[0].address, &[("origin", "null")])
            .await
            .is_ok(),
        "off by default"
    );
}

#[tokio::test]
async fn a_slow_request_head_is_cut_off() {
    let cluster = Cluster::in_memory(1, &[]).await;
    let mut stream = TcpStream::connect(cluster.nodes[0].address).await.unwrap();
    stream
        .write_all(b"GET / HTTP/1.1\r\nHost: x\r\n")
        .await
        .unwrap();
    let mut rest = Vec::new();
    let ended = tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut rest)).await;
    assert!(ended.is_ok(), "an unfinished head is waited for, for ever");
}

#[tokio::test]
async fn malformed_messages_harm_nobody() {
    let cluster = Cluster::in_memory(2, &[("limits.signals_per_second", "0")]).await;
    let mut one = cluster.login(0, "one").await;
    let mut other = cluster.login(1, "other").await;
    one.call(&mut other).await;
    let deep = format!("{}1{}", "[".repeat(30_000), "]".repeat(30_000));
    one.send_text(&format!(
        r#"{{"type":"message","name":"other","message":{deep}}}"#
    ))
    .await;
    assert_eq!(
        other.receive_text().await,
        format!(r#"{{"type":"message","message":{deep},"name":"one"}}"#)
    );
    for dirt in [
        deep.clone(),
        deep[..30_000].to_owned(),
        format!(r#"{{"type":"{}"}}"#, "é".repeat(20_000)),
        format!(
            r#"{{"type":"message","name":"{}","message":1}}"#,
            "x".repeat(60_000)
        ),
        r#"{"type":"login","name":"\ud800"}"#.to_owned(),
        r#"{"\ud800":1,"type":"ping"}"#.to_owned(),
        "\u{0}\u{feff}".to_owned(),
        String::new(),
    ] {
        one.send_text(&dirt).await;
        let answer = one.receive().await;
        assert!(
            ["error", "login"].contains(&answer["type"].as_str().unwrap()),
            "{answer}"
        );
        assert!(answer.to_string().len() < 1000, "an answer is short");
    }
    one.send_frame(Message::binary(vec![0xff, 0xfe, 0x00]))
        .await;
    assert_eq!(one.receive().await["code"], "bad_json");
    one.send_frame(Message::binary(
        br#"{"type":"message","name":"other","message":"bin"}"#.to_vec(),
    ))
    .await;
    assert_eq!(other.receive().await["message"], "bin");
}

#[tokio::test]
async fn too_many_presence_names_are_refused() {
    let cluster = Cluster::in_memory(1, &[]).await;
    let mut one = cluster.login(0, "one").await;
    let names: Vec<String> = (0..257).map(|number| format!("n{number}")).collect();
    one.send(&json!({"type": "presence", "names": names, "id": 1}))
        .await;
    assert_eq!(one.receive().await["code"], "too_many");
    one.send(&json!({"type": "presence", "names": names[..256], "watch": true}))
        .await;
    assert_eq!(one.receive().await["users"].as_object().unwrap().len(), 256);
    one.send(&json!({"type": "presence", "names": ["one more"], "watch": true}))
        .await;
    assert_eq!(one.receive().await["code"], "too_many");
    one.send(&json!({"type": "presence", "names": names[..1], "watch": false}))
        .await;
    one.receive().await;
    one.send(&json!({"type": "presence", "names": ["one more"], "watch": true}))
        .await;
    assert_eq!(one.receive().await["users"], json!({"one more": false}));
}

#[tokio::test]
async fn a_full_node_takes_back_its_sessions_and_nobody_new() {
    let cluster = Cluster::in_memory(2, &[("limits.sessions", "2")]).await;
    let first = cluster.login(0, "first").await;
    let _second = cluster.login(0, "second").await;

    let mut newcomer = cluster.connect(0).await;
    let refused = newcomer.try_login("newcomer").await;
    assert_eq!(refused["code"], "draining", "{refused}");
    // It is told to try another node, and finds one.
    let mut newcomer = cluster.login(1, "newcomer").await;

    let elsewhere = cluster.login_resumable(1, "elsewhere").await;
    let lost = cluster.disconnect(&mut newcomer, elsewhere).await;
    let _here = cluster.resume(0, &lost).await;

    // Two of the three must go before there is room again.
    first.close().await;
    let mut third = cluster.connect(0).await;
    assert_eq!(third.try_login("third").await["code"], "draining");
}
