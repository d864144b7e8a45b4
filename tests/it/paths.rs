//! Where native clients may connect, and with which subprotocols: the tutorial's server takes any of either.

use crate::support::cluster::Cluster;
use crate::support::http::{self, UPGRADE};
use crate::support::peer::Peer;

/// Paths that clients of the tutorial's server use, or a proxy makes of them.
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

fn status(answer: &str) -> &str {
    answer.split(' ').nth(1).unwrap()
}

#[tokio::test]
async fn a_websocket_at_any_path_speaks_the_native_protocol() {
    let cluster = Cluster::embedded(1, &[]).await;
    let address = cluster.nodes[0].address;
    let mut other = cluster.login(0, "other").await;
    for path in ELSEWHERE {
        let upgraded = Peer::upgrade(address, path, &[]).await;
        let (mut one, chosen) = upgraded.unwrap_or_else(|status| panic!("{path}: {status}"));
        assert_eq!(chosen, None, "{path}");
        assert_eq!(one.tries_login(path).await["success"], true, "{path}");
        one.calls(&mut other).await;
        one.closes().await;
        assert_eq!(other.hears().await["type"], "leave", "{path}");
        assert_eq!(
            http::get(address, path, "").await.as_deref().map(status),
            Some("404"),
            "{path} without an upgrade"
        );
    }
}

#[tokio::test]
async fn other_doors_keep_their_paths() {
    let cluster = Cluster::embedded(1, &[]).await;
    for (path, expected) in [
        ("/doctor", "200"),
        ("/v1/whoami", "200"),
        ("/v1/events", "401"),
        ("/any/id", "200"),
        ("/any/peers", "401"),
        ("/v1", "404"),
        ("/v1/", "404"),
        ("/v1/else", "404"),
        ("//v1/events", "404"),
        ("/client/else.js", "404"),
        ("/page/else.js", "404"),
        ("/doctor/", "404"),
        ("/peerjs/", "404"),
        ("/peerjs/else", "404"),
        ("/myapp/peerjs?key=peerjs&id=a&token=t", "404"),
    ] {
        let answer = http::get(cluster.nodes[0].address, path, UPGRADE).await;
        assert_eq!(status(&answer.unwrap()), expected, "{path}");
    }
    // A client that asks where PeerJS is not spoken is not to take our silence for a slow server.
    let off = Cluster::embedded(1, &[("peerjs.enabled", "false")]).await;
    let answer = http::get(off.nodes[0].address, "/peerjs?id=a", UPGRADE).await;
    assert_eq!(status(&answer.unwrap()), "404");
}

#[tokio::test]
async fn the_rules_of_the_door_hold_at_any_path() {
    let rules = [
        ("limits.origins", "https://app.example"),
        ("limits.connections_per_ip", "1"),
    ];
    let cluster = Cluster::embedded(1, &rules).await;
    let node = &cluster.nodes[0];
    let strange = [("origin", "https://evil.example")];
    let refused = Peer::upgrade(node.address, "/elsewhere", &strange).await;
    assert_eq!(refused.err(), Some(403));
    let own = [("origin", "https://app.example")];
    let held = Peer::upgrade(node.address, "/elsewhere", &own).await;
    let held = held.unwrap().0.goes_deaf();
    let refused = Peer::upgrade(node.address, "/elsewhere", &own).await;
    assert_eq!(refused.err(), Some(429));
    // One that neither reads nor closes holds the drain up.
    node.drain();
    crate::support::eventually("it turns everybody away", async || {
        let refused = Peer::upgrade(node.address, "/elsewhere", &own).await;
        (refused.err() == Some(503)).then_some(())
    })
    .await;
    drop(held);
}

#[tokio::test]
async fn the_first_subprotocol_that_is_offered_is_chosen() {
    let cluster = Cluster::embedded(1, &[]).await;
    let address = cluster.nodes[0].address;
    for path in ["/", "/ws", "/elsewhere"] {
        for (offered, first) in [
            ("chat", "chat"),
            ("json, chat", "json"),
            (" v1.signalling ,json", "v1.signalling"),
        ] {
            let offers = [("sec-websocket-protocol", offered)];
            let (mut one, chosen) = Peer::upgrade(address, path, &offers).await.unwrap();
            assert_eq!(chosen.as_deref(), Some(first), "{path}: {offered}");
            let name = format!("{offered} at {path}");
            assert_eq!(one.tries_login(&name).await["success"], true, "{path}");
        }
    }
}
