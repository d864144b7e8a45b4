//! Paths and subprotocols of native clients: like the tutorial's server, a node accepts any.

use testing::Client;
use testing::Cluster;
use testing::http::{self, UPGRADE};

/// Paths that clients of the tutorial's server use, or that proxies rewrite them to.
const ELSEWHERE: [&str; 16] = [
    "/ws/",
    "//ws",
    "//",
    "/ws/?room=1",
    "//ws/?room=1",
    "/elsewhere",
    "/elsewhere/?token=x",
    "/api/signalling/ws",
    "/socket%20io",
    "/v1",
    "/v1/ws",
    "/client/",
    "/page/ws",
    "/doctor/",
    "//v1/events",
    "/socket.io/?EIO=4&transport=websocket",
];

#[tokio::test]
async fn a_websocket_at_any_path_speaks_the_native_protocol() {
    let cluster = Cluster::in_memory(1, &[]).await;
    let address = cluster.nodes[0].address;
    let mut other = cluster.login(0, "other").await;
    for path in ELSEWHERE {
        let upgraded = Client::upgrade(address, path, &[]).await;
        let (mut one, chosen) = upgraded.unwrap_or_else(|status| panic!("{path}: {status}"));
        assert_eq!(chosen, None, "{path}");
        assert_eq!(one.try_login(path).await["success"], true, "{path}");
        one.call(&mut other).await;
        one.close().await;
        assert_eq!(other.receive().await["type"], "leave", "{path}");
        // `curl --http2` asks for another upgrade.
        for upgrade in [&[][..], &[("connection", "upgrade"), ("upgrade", "h2c")]] {
            let plain = http::get_with(address, path, upgrade).await.unwrap();
            assert_eq!(plain.status, 404, "{path} without an upgrade");
            assert_eq!(plain.json()["code"], "not_found", "{path}");
            assert!(plain.body.contains("WebSockets may use any path"), "{path}");
        }
        let old = [("upgrade", "WebSocket"), ("sec-websocket-version", "8")];
        let refused = http::get_with(address, path, &old).await.unwrap();
        assert_eq!(refused.status, 400, "{path} with an old handshake");
    }
}

#[tokio::test]
async fn other_routes_keep_their_paths() {
    let cluster = Cluster::in_memory(1, &[]).await;
    for (path, expected) in [
        ("/doctor", 200),
        ("/v1/whoami", 200),
        ("/v1/events", 401),
        ("/any/id", 200),
        ("/any/peers", 401),
        ("/peerjs/", 404),
        ("/peerjs/else", 404),
        ("/myapp/peerjs?key=peerjs&id=a&token=t", 404),
    ] {
        let response = http::get_with(cluster.nodes[0].address, path, UPGRADE).await;
        assert_eq!(response.unwrap().status, expected, "{path}");
    }
    let other = [("connection", "upgrade"), ("upgrade", "h2c")];
    let root = http::get_with(cluster.nodes[0].address, "/", &other).await;
    assert_eq!(root.unwrap().status, 200);
    // A PeerJS client gets an error when PeerJS is off; without one it would wait for `OPEN`.
    let off = Cluster::in_memory(1, &[("peerjs.enabled", "false")]).await;
    let response = http::get_with(off.nodes[0].address, "/peerjs?id=a", UPGRADE).await;
    assert_eq!(response.unwrap().status, 404);
}

#[tokio::test]
async fn connection_limits_hold_at_any_path() {
    let rules = [
        ("limits.origins", "https://app.example"),
        ("limits.connections_per_ip", "1"),
    ];
    let cluster = Cluster::in_memory(1, &rules).await;
    let node = &cluster.nodes[0];
    let strange = [("origin", "https://evil.example")];
    let refused = Client::upgrade(node.address, "/elsewhere", &strange).await;
    assert_eq!(refused.err(), Some(403));
    let own = [("origin", "https://app.example")];
    let held = Client::upgrade(node.address, "/elsewhere", &own).await;
    let held = held.unwrap().0.stop_reading();
    let refused = Client::upgrade(node.address, "/elsewhere", &own).await;
    assert_eq!(refused.err(), Some(429));
    // A client that neither reads nor closes keeps the node draining.
    node.drain();
    testing::eventually("it refuses connections", async || {
        let refused = Client::upgrade(node.address, "/elsewhere", &own).await;
        (refused.err() == Some(503)).then_some(())
    })
    .await;
    drop(held);
}

#[tokio::test]
async fn the_first_offered_subprotocol_is_chosen() {
    let cluster = Cluster::in_memory(1, &[]).await;
    let address = cluster.nodes[0].address;
    let peerjs = "/peerjs?key=peerjs&token=t&id=";
    for (number, offered) in ["chat", "json, chat"].into_iter().enumerate() {
        let offers = [("sec-websocket-protocol", offered)];
        let path = format!("{peerjs}{number}");
        let (mut one, chosen) = Client::upgrade(address, &path, &offers).await.unwrap();
        assert_eq!(chosen.as_deref(), offered.split(',').next(), "{path}");
        assert_eq!(one.receive().await["type"], "OPEN");
    }
    for path in ["/", "/ws", "/elsewhere"] {
        for (offered, first) in [
            ("graphql-ws, graphql-transport-ws", "graphql-ws"),
            (",, access_token , abc.def-_~", "access_token"),
            ("chat", "chat"),
            ("json, chat", "json"),
            (" v1.signalling ,json", "v1.signalling"),
        ] {
            let offers = [("sec-websocket-protocol", offered)];
            let (mut one, chosen) = Client::upgrade(address, path, &offers).await.unwrap();
            assert_eq!(chosen.as_deref(), Some(first), "{path}: {offered}");
            let name = format!("{offered} at {path}");
            assert_eq!(one.try_login(&name).await["success"], true, "{path}");
        }
    }
}
