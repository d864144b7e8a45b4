//! Presence, asked once and watched, on one node and across nodes.

use std::time::{Duration, Instant};

use serde_json::json;

use testing::Cluster;

#[tokio::test]
async fn a_watcher_on_another_node_gets_each_change_once_and_soon() {
    // With the default interval the book promises 3 s.
    for cluster in [
        Cluster::in_memory(2, &[]).await,
        Cluster::over_redis(2, &[]).await,
    ] {
        let mut watcher = cluster.login(0, "watcher").await;
        watcher
            .send(&json!({"type": "presence", "names": ["user"], "watch": true}))
            .await;
        assert_eq!(watcher.receive().await["users"], json!({"user": false}));
        let mut user = None;
        for here in [true, false, true] {
            let changed = Instant::now();
            match user.take() {
                None => user = Some(cluster.login(1, "user").await),
                Some(peer) => testing::Client::close(peer).await,
            }
            assert_eq!(
                watcher.receive().await,
                json!({"type": "presence", "users": {"user": here}})
            );
            assert!(
                changed.elapsed() < Duration::from_secs(3),
                "after {:?}",
                changed.elapsed()
            );
        }
        assert!(
            watcher
                .receive_for(Duration::from_millis(2500))
                .await
                .is_empty(),
            "each change once"
        );
        watcher
            .send(&json!({"type": "presence", "names": ["user"], "watch": false}))
            .await;
        assert_eq!(watcher.receive().await["users"], json!({"user": true}));
        user.take().unwrap().close().await;
        assert!(
            watcher
                .receive_for(Duration::from_millis(2500))
                .await
                .is_empty(),
            "no longer watched"
        );
    }
}

#[tokio::test]
async fn names_are_compared_byte_for_byte() {
    for cluster in [
        Cluster::in_memory(2, &[]).await,
        Cluster::over_redis(2, &[]).await,
    ] {
        let names = [
            "a",
            "A",
            "a ",
            "a/b",
            "%61",
            "{a}",
            "*",
            "ä",
            "a\u{308}",
            "a:b",
            "\u{1f600}",
        ];
        let mut asker = cluster.login(0, "asker").await;
        for (number, name) in names.iter().enumerate() {
            let user = cluster.login(1, name).await;
            asker
                .send(&json!({"type": "presence", "names": names, "id": number}))
                .await;
            let users = asker.receive().await["users"].clone();
            for other in names {
                assert_eq!(users[other], other == *name, "{other} while {name} is here");
            }
            user.close().await;
        }
    }
}
