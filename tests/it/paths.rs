//! Paths and subprotocols of native clients: like the tutorial's server, a node accepts any.

use testing::Client;
use testing::Cluster;
use testing::http::{self, UPGRADE};

/// Paths that clients of the tutorial's server use, or that proxies rewrite them to.
const ELSEWHERE: [&str; 9] = [
    "/ws/",
    "//ws",
    "//",
    "/ws/?room=1",
    "//ws/?room=1",
    "/elsewhere",
    "/elsewhere/?token=x",
    "/api/signalling/ws",
    "/socket%20io",
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
        assert_eq!(
            http::status(address, path).await,
            Some(404),
            "{path} without an upgrade"
        );
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
        ("/v1", 404),
        ("/v1/", 404),
        ("/v1/else", 404),
        ("//v1/events", 404),
        ("/client/else.js", 404),
        ("/page/else.js", 404),
        ("/doctor/", 404),
        ("/peerjs/", 404),
        ("/peerjs/else", 404),
        ("/myapp/peerjs?key=peerjs&id=a&token=t", 404),
    ] {
        let response = http::get_with(cluster.nodes[0].address, path, UPGRADE).await;
        assert_eq!(response.unwrap().status, expected, "{path}");
    }
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
    testing::eventually("it turns everybody away", async || {
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
    for path in ["/", "/ws", "/elsewhere"] {
        for (offered, first) in [
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
