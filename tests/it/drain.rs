//! How a node drains: it closes its sessions, refuses new ones, and leaves no keys behind.

use serde_json::json;

use testing::Cluster;
use testing::http;

#[tokio::test]
async fn a_drain_closes_all_sessions_and_frees_their_names() {
    for mut cluster in [
        Cluster::in_memory(2, &[]).await,
        Cluster::over_redis(2, &[]).await,
    ] {
        let mut staying = cluster.login(1, "staying").await;
        let mut leaving = cluster.login(0, "leaving").await;
        let mut nameless = cluster.connect(0).await;
        leaving.call(&mut staying).await;
        cluster.nodes[0].drain();
        let goaway = leaving.receive().await;
        assert_eq!(
            (&goaway["type"], &goaway["reason"]),
            (&json!("goaway"), &json!("draining"))
        );
        assert!(
            goaway["reconnect_in_ms"].as_u64().unwrap() < 100,
            "{goaway}"
        );
        assert_eq!(leaving.closed().await, Some(1012));
        assert_eq!(nameless.closed().await, Some(1012));
        assert_eq!(
            staying.receive().await,
            json!({"type": "leave", "name": "leaving", "reason": "closed"})
        );
        assert!(
            cluster.nodes[0].stopped().await,
            "it drained before the deadline"
        );
        let mut again = cluster.login(1, "leaving").await;
        staying.call(&mut again).await;
        again.expect_silence().await;
    }
}

/// A client that neither reads nor closes keeps the node draining; meanwhile the node refuses new clients.
#[tokio::test]
async fn a_draining_node_is_unready_and_refuses_connections() {
    let mut cluster = Cluster::in_memory(1, &[]).await;
    let held = cluster.login(0, "held").await.stop_reading();
    let node = &cluster.nodes[0];
    assert_eq!(http::status(node.admin, "/readyz").await, Some(200));
    node.drain();
    let unready = async || (http::status(node.admin, "/readyz").await == Some(503)).then_some(());
    testing::eventually("it is unready", unready).await;
    assert_eq!(http::status(node.admin, "/livez").await, Some(200));
    let refused = http::get_with(node.address, "/ws", http::UPGRADE).await;
    let refused = refused.unwrap();
    assert_eq!(refused.status, 503);
    assert!(
        refused.header("retry-after").starts_with('1'),
        "{refused:?}"
    );
    assert!(cluster.nodes[0].stopped().await);
    drop(held);
}
