//! What waits in the inbox of a session without a connection.

use serde_json::{Value, json};
use testing::cluster::Backend;
use testing::websocket::ResumeToken;
use testing::{Cluster, eventually};

use super::{SHORT, clusters};

#[tokio::test]
async fn a_full_inbox_refuses_and_one_sender_fills_only_half() {
    for cluster in clusters(&[]).await {
        let mut greedy = cluster.login(0, "greedy").await;
        let client = cluster.login_resumable(0, "client").await;
        let token = cluster.disconnect(&mut greedy, client).await;
        let mut kept = 0;
        let refused = loop {
            let message = json!({"type": "message", "name": "client", "message": kept, "id": kept});
            greedy.send(&message).await;
            let answer = greedy.receive().await;
            if answer["status"] != "queued" {
                break answer;
            }
            kept += 1;
        };
        assert_eq!(refused["code"], "inbox_full");
        assert!(refused["retry_after_ms"].as_u64().is_some(), "{refused}");
        assert!((64..=128).contains(&kept), "{kept}");
        let mut other = cluster.login(1, "other").await;
        assert_eq!(
            other.send_message("client", "room").await["status"],
            "queued"
        );
        // An inbox always has room for a leave.
        let mut client = cluster.resume(1, &token).await;
        for number in 0..kept {
            assert_eq!(client.receive_no_probe().await["message"], number);
        }
        assert_eq!(client.receive().await["message"], "room");
        eventually("there is room again", async || {
            let answer = greedy.send_message("client", "again").await;
            (answer["status"] == "delivered").then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn a_leave_in_the_inbox_arrives_once() {
    for cluster in clusters(&[]).await {
        let mut one = cluster.login(0, "one").await;
        let mut other = cluster.login_resumable(1, "other").await;
        let mut prober = cluster.login(0, "prober").await;
        let mut client = cluster.login_resumable(0, "client").await;
        one.call(&mut client).await;
        other.call(&mut client).await;
        let token = cluster.disconnect(&mut prober, client).await;
        one.close().await;
        other
            .send(&json!({"type": "leave", "name": "client", "id": 1}))
            .await;
        assert_eq!(other.receive().await["status"], "delivered");
        let mut client = cluster.resume(1, &token).await;
        let heard = [
            client.receive_no_probe().await,
            client.receive_no_probe().await,
        ];
        for (name, reason) in [("one", "closed"), ("other", "hangup")] {
            let leave = |message: &&Value| message["name"] == name && message["reason"] == reason;
            assert_eq!(heard.iter().filter(leave).count(), 1, "{heard:?}");
        }
        client.expect_silence().await;
        // The client received it without confirming it: the next connection gets it again, once.
        let token = ResumeToken {
            last: None,
            ..client.token.clone()
        };
        let mut again = cluster.resume(0, &token).await;
        for _ in 0..2 {
            assert_eq!(again.receive_no_probe().await["type"], "leave");
        }
        again.expect_silence().await;
        again.close().await;
        other.expect_silence().await;
    }
}

#[tokio::test]
async fn clients_get_the_state_of_the_broker() {
    let cluster = Cluster::in_memory(1, &SHORT).await;
    let Backend::Memory(switch) = &cluster.backend else {
        unreachable!()
    };
    let mut client = cluster.login_resumable(0, "client").await;
    let mut plain = cluster.login(0, "plain").await;
    for (away, word) in [(true, "degraded"), (false, "ok")] {
        switch.set_unreachable(away);
        for peer in [&mut client, &mut plain] {
            assert_eq!(
                peer.receive().await,
                json!({"type": "status", "fabric": word})
            );
        }
    }
}

#[tokio::test]
async fn a_peer_that_died_after_both_moved_gets_a_leave() {
    for mut cluster in clusters(&SHORT).await {
        cluster.add_node();
        let mut one = cluster.login_resumable(0, "one").await;
        let mut other = cluster.login_resumable(1, "other").await;
        one.call(&mut other).await;
        // Each node learns where the other side has moved to.
        for node in [2, 0, 2] {
            one = cluster.resume(node, &one.token).await;
            one.send_candidate("other", node).await;
            other.receive_candidates([node]).await;
            other = cluster.resume(2 - node, &other.token).await;
            other.send_candidate("one", node).await;
            one.receive_candidates([node]).await;
        }
        one.disconnect();
        drop(cluster.nodes.remove(2));
        assert_eq!(
            other.receive().await["reason"],
            "node_lost",
            "the node of its peer died"
        );
        other.expect_silence().await;
    }
}
