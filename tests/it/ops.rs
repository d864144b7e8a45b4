//! The admin routes, and what a plain HTTP request gets at the public address.

use testing::Cluster;
use testing::http;

#[tokio::test]
async fn the_admin_listener_reports_the_state_of_the_node() {
    for (cluster, kind) in [
        (Cluster::in_memory(1, &[]).await, "embedded"),
        (Cluster::over_redis(1, &[]).await, "redis"),
    ] {
        let node = &cluster.nodes[0];
        let _one = cluster.login(0, "one").await;
        let _nameless = cluster.connect(0).await;
        assert_eq!(http::status(node.admin, "/livez").await, Some(200));
        assert_eq!(http::status(node.admin, "/readyz").await, Some(200));
        let status = http::get(node.admin, "/status").await.unwrap().json();
        assert_eq!(status["node"], node.id.as_str());
        assert_eq!(status["version"], env!("CARGO_PKG_VERSION"));
        assert_eq!(status["sessions"], 1);
        assert_eq!(status["fabric"]["kind"], kind);
        assert_eq!(status["fabric"]["reached"], true);
        assert_eq!(
            http::status(node.address, "/status").await,
            Some(404),
            "only the admin listener has it"
        );
    }
}

#[tokio::test]
async fn a_plain_http_request_gets_an_explanation() {
    let cluster = Cluster::in_memory(1, &[("peerjs.enabled", "false")]).await;
    let node = &cluster.nodes[0];
    let page = http::get(node.address, "/").await.unwrap();
    assert_eq!(page.status, 200);
    assert!(page.body.contains("WebSocket"), "{page:?}");
    assert_eq!(http::status(node.address, "/ws").await, Some(426));
    assert_eq!(http::status(node.address, "/elsewhere").await, Some(404));
    let old_version = [
        ("connection", "Upgrade"),
        ("upgrade", "websocket"),
        ("sec-websocket-version", "8"),
    ];
    let refused = http::get_with(node.address, "/ws", &old_version).await;
    assert_eq!(refused.unwrap().status, 400);
}
