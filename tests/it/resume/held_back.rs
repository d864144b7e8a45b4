//! Order across a refusal: what follows a signal that was refused for now waits until that one is repeated.

use std::time::Duration;

use serde_json::{Value, json};
use testing::{Client, Cluster, eventually};
use tokio::time::sleep;

use super::clusters;

async fn send(client: &mut Client, to: &str, number: u64) {
    let message = json!({"type": "message", "name": to, "message": number, "id": number});
    client.send(&message).await;
}

/// Sends a message; the answer.
async fn ask(client: &mut Client, to: &str, number: u64) -> Value {
    send(client, to, number).await;
    let answer = client.receive().await;
    assert_eq!(answer["id"], number, "{answer}");
    answer
}

/// The first message is refused with this code. Another to the same user is too, until the first is repeated.
async fn is_held_back(client: &mut Client, code: &str, first: u64) {
    for later in [first + 1, first + 2] {
        let answer = ask(client, "receiver", later).await;
        assert_eq!(answer["code"], code, "{answer}");
        assert!(answer["retry_after_ms"].is_u64(), "{answer}");
    }
    assert_eq!(ask(client, "other", 1000).await["status"], "delivered");
    for number in first..first + 3 {
        assert_eq!(ask(client, "receiver", number).await["status"], "delivered");
    }
}

#[tokio::test]
async fn whoever_was_too_fast_repeats_in_order() {
    let cluster = Cluster::in_memory(2, &[("limits.signals_per_second", "10")]).await;
    let mut sender = cluster.login_resumable(0, "sender").await;
    let mut receiver = cluster.login_resumable(1, "receiver").await;
    let _other = cluster.login(0, "other").await;
    // Bursts may have 20, with the login.
    let mut refused = None;
    for number in 1..=25 {
        let answer = ask(&mut sender, "receiver", number).await;
        if answer["code"] == "rate_limited" {
            refused.get_or_insert(number);
        } else {
            assert_eq!((&answer["status"], refused), (&json!("delivered"), None));
        }
    }
    let first = refused.unwrap();
    // It may send again, all of what follows.
    sleep(Duration::from_millis(1500)).await;
    is_held_back(&mut sender, "rate_limited", first).await;
    for number in 1..first + 3 {
        assert_eq!(receiver.receive().await["message"], number);
    }
}

#[tokio::test]
async fn whoever_found_no_room_repeats_in_order() {
    for cluster in clusters(&[("limits.signals_per_second", "0")]).await {
        let mut sender = cluster.login_resumable(0, "sender").await;
        let mut plain = cluster.login(0, "plain").await;
        let receiver = cluster.login_resumable(1, "receiver").await;
        let _other = cluster.login(0, "other").await;
        let token = cluster.disconnect(&mut plain, receiver).await;
        let mut kept = 0;
        while ask(&mut sender, "receiver", kept + 1).await["status"] == "queued" {
            kept += 1;
        }
        let mut receiver = cluster.resume(1, &token).await;
        for number in 1..=kept {
            assert_eq!(receiver.receive_no_probe().await["message"], number);
        }
        // There is room again as soon as the receiver has confirmed; others are not held back.
        let last = receiver.token.last.clone();
        receiver.send(&json!({"type": "ack", "seq": last})).await;
        eventually("there is room", async || {
            let answer = plain.send_message("receiver", "probe").await;
            (answer["status"] == "delivered").then_some(())
        })
        .await;
        is_held_back(&mut sender, "inbox_full", kept + 1).await;
    }
}

#[tokio::test]
async fn a_plain_session_and_messages_without_ids_are_not_held_back() {
    let cluster = Cluster::in_memory(1, &[("limits.signals_per_second", "10")]).await;
    let mut receiver = cluster.login(0, "receiver").await;
    let plain = cluster.login(0, "plain").await;
    let resumable = cluster.login_resumable(0, "resumable").await;
    for (mut sender, has_id) in [(plain, true), (resumable, false)] {
        for number in 1..=25 {
            send(&mut sender, "receiver", number).await;
        }
        sleep(Duration::from_millis(500)).await;
        let mut later = json!({"type": "message", "name": "receiver", "message": "later"});
        if has_id {
            later["id"] = "later".into();
        }
        sender.send(&later).await;
        while receiver.receive().await["message"] != "later" {}
    }
}
