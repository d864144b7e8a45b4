//! How resumable sessions end, and how they survive a drain.

use serde_json::json;
use testing::cluster::Backend;
use testing::{Cluster, eventually};

use super::{SHORT, clusters};

/// Redis executed a resume whose reply was lost, and the client does not try again.
#[tokio::test]
async fn an_unacknowledged_resume_ends_with_the_grace() {
    let cluster = Cluster::over_redis(2, &SHORT).await;
    let Backend::Redis(redis) = &cluster.backend else {
        unreachable!()
    };
    let mut caller = cluster.login(0, "caller").await;
    let mut client = cluster.login_resumable(0, "client").await;
    caller.call(&mut client).await;
    let holder = redis.ask("GET sb:p:{/client}").await;
    let holder: String = redis::from_redis_value(holder).unwrap();
    let session = holder.split(' ').nth(1).unwrap().to_owned();
    client.disconnect();
    let node = &cluster.nodes[1].id;
    let mut connection = redis.connection().await;
    redis::cmd("SET")
        .arg("sb:p:{/client}")
        .arg(format!("{node} {session} 7 r"))
        .arg("PX")
        .arg(60_000)
        .query_async::<()>(&mut connection)
        .await
        .unwrap();
    // The node learns that the session has moved when something is sent to it.
    caller.send_message("client", "1").await;
    let leave = caller.receive().await;
    assert_eq!(leave["type"], "leave", "{leave}");
    caller.expect_silence().await;
    eventually("the name is free", async || {
        (redis.ask("GET sb:p:{/client}").await == redis::Value::Nil).then_some(())
    })
    .await;
}

#[tokio::test]
async fn after_the_grace_peers_get_one_leave_and_the_name_is_free() {
    for cluster in clusters(&SHORT).await {
        let mut caller = cluster.login(1, "caller").await;
        let mut client = cluster.login_resumable(0, "client").await;
        caller.call(&mut client).await;
        let mut late = cluster.login(1, "late").await;
        let token = cluster.disconnect(&mut late, client).await;
        let mut stranger = cluster.connect(1).await;
        let refused = stranger.try_login("client").await;
        assert_eq!(refused["code"], "name_taken");
        let retry_after = refused["retry_after_ms"].as_u64().unwrap();
        assert!(retry_after <= 500, "{refused}");
        // An offer to a session without a connection begins a call as far as the caller knows.
        late.send(&json!({"type": "offer", "name": "client", "offer": 1, "id": "o"}))
            .await;
        assert_eq!(late.receive().await["status"], "queued");
        let lost = json!({"type": "leave", "name": "client", "reason": "lost"});
        assert_eq!(caller.receive().await, lost);
        assert_eq!(late.receive().await, lost);
        caller.expect_silence().await;
        late.expect_silence().await;
        let mut back = cluster.connect(0).await;
        assert_eq!(back.try_resume(&token).await["code"], "resume_failed");
        assert_eq!(stranger.try_login("client").await["success"], true);
    }
}

#[tokio::test]
async fn only_a_clean_close_ends_a_session() {
    for cluster in clusters(&SHORT).await {
        let mut caller = cluster.login(1, "caller").await;
        let mut client = cluster.login_resumable(0, "client").await;
        caller.call(&mut client).await;
        let token = client.token.clone();
        client.close_with(3001).await;
        let client = cluster.resume(1, &token).await;
        caller.expect_silence().await;
        client.close_with(1000).await;
        assert_eq!(caller.receive().await["reason"], "closed");
        let mut back = cluster.connect(0).await;
        assert_eq!(back.try_resume(&token).await["code"], "resume_failed");
    }
}

#[tokio::test]
async fn a_drain_moves_sessions_without_a_leave() {
    for mut cluster in clusters(&[]).await {
        let mut caller = cluster.login(1, "caller").await;
        let mut watcher = cluster.login(1, "watcher").await;
        let mut client = cluster.login_resumable(0, "client").await;
        caller.call(&mut client).await;
        watcher
            .send(&json!({"type": "presence", "names": ["client"], "watch": true}))
            .await;
        assert_eq!(watcher.receive().await["users"]["client"], true);
        cluster.nodes[0].drain();
        assert_eq!(client.receive().await["type"], "goaway");
        assert_eq!(client.closed().await, Some(1012));
        assert!(cluster.nodes[0].stopped().await);
        for number in 0..5 {
            caller.send_candidate("client", number).await;
        }
        let mut client = cluster.resume(1, &client.token).await;
        client.receive_candidates(0..5).await;
        caller.expect_silence().await;
        watcher.expect_silence().await;
    }
}

#[tokio::test]
async fn an_old_connection_gets_goaway() {
    let settings = [("session.max_age", "400ms")];
    let cluster = Cluster::in_memory(2, &settings).await;
    let mut plain = cluster.login(0, "plain").await;
    let mut client = cluster.login_resumable(0, "client").await;
    plain.call(&mut client).await;
    assert_eq!(client.receive().await["type"], "goaway");
    assert_eq!(client.closed().await, Some(1012));
    let _client = cluster.resume(1, &client.token).await;
    plain.expect_silence().await;
}
