//! What an operator, a load balancer and a curious browser see.

use serde_json::Value;

use crate::support::cluster::Cluster;
use crate::support::http;

#[tokio::test]
async fn the_admin_listener_tells_how_the_node_is() {
    for (cluster, kind) in [
        (Cluster::embedded(1, &[]).await, "embedded"),
        (Cluster::redis(1, &[]).await, "redis"),
    ] {
        let node = &cluster.nodes[0];
        let _one = cluster.login(0, "one").await;
        let _nameless = cluster.connect(0).await;
        assert_eq!(http::status(node.admin, "/livez").await, Some(200));
        assert_eq!(http::status(node.admin, "/readyz").await, Some(200));
        let answer = http::get(node.admin, "/status", "").await.unwrap();
        let status: Value = serde_json::from_str(answer.split("\r\n\r\n").nth(1).unwrap()).unwrap();
        assert_eq!(status["node"], node.id.as_str());
        assert_eq!(status["version"], env!("CARGO_PKG_VERSION"));
        assert_eq!(status["sessions"], 1);
        assert_eq!(status["fabric"]["kind"], kind);
        assert_eq!(status["fabric"]["reached"], true);
        assert_eq!(
            http::status(node.address, "/status").await,
            Some(404),
            "not at the clients' door"
        );
    }
}

#[tokio::test]
async fn who_comes_without_a_websocket_is_told_what_this_is() {
    let cluster = Cluster::embedded(1, &[("peerjs.enabled", "false")]).await;
    let node = &cluster.nodes[0];
    let page = http::get(node.address, "/", "").await.unwrap();
    assert!(
        page.starts_with("HTTP/1.1 200") && page.contains("WebSocket"),
        "{page}"
    );
    assert_eq!(http::status(node.address, "/ws").await, Some(426));
    assert_eq!(http::status(node.address, "/elsewhere").await, Some(404));
    let half = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 8\r\n";
    let refused = http::get(node.address, "/ws", half).await.unwrap();
    assert!(refused.starts_with("HTTP/1.1 400"), "{refused}");
}
