//! A sender that repeats a signal with the same id, since no outcome came: the receiver gets it once.

use serde_json::json;

use super::clusters;
use testing::cluster::Backend;
use testing::eventually;

#[tokio::test]
async fn a_repeated_signal_is_delivered_once() {
    for cluster in clusters(&[]).await {
        for resumable in [false, true] {
            let names = [format!("from-{resumable}"), format!("to-{resumable}")];
            let mut receiver = if resumable {
                cluster.login_resumable(0, &names[1]).await
            } else {
                cluster.login(0, &names[1]).await
            };
            let mut sender = cluster.login_resumable(0, &names[0]).await;
            let message = |text: &str| json!({"type": "message", "name": names[1], "message": text, "id": text});
            for text in ["1", "2"] {
                sender.send(&message(text)).await;
                assert_eq!(sender.receive().await["status"], "delivered");
            }
            // The acks were lost with the connection: the sender resumes on another node, then on the same.
            for node in [1, 0] {
                let token = sender.token.clone();
                sender.disconnect();
                sender = cluster.resume(node, &token).await;
                for text in ["1", "2"] {
                    sender.send(&message(text)).await;
                    let ack = sender.receive().await;
                    assert_eq!(
                        (&ack["id"], &ack["status"]),
                        (&json!(text), &json!("delivered"))
                    );
                }
            }
            sender.send(&message("3")).await;
            assert_eq!(sender.receive().await["status"], "delivered");
            for text in ["1", "2", "3"] {
                assert_eq!(receiver.receive().await["message"], text);
            }
            receiver.expect_silence().await;
        }
    }
}

/// What was confirmed is known to the next connection of the session, on any node.
#[tokio::test]
async fn confirmed_entries_do_not_return_after_a_resume() {
    for cluster in clusters(&[("limits.signals_per_second", "0")]).await {
        let mut prober = cluster.login(1, "prober").await;
        let mut sender = cluster.login_resumable(0, "sender").await;
        let mut receiver = cluster.login_resumable(0, "receiver").await;
        for node in [1, 0] {
            for number in 0..256 {
                let answer = sender
                    .send_message("receiver", &format!("{node}-{number}"))
                    .await;
                assert_eq!(answer["status"], "delivered");
                assert_eq!(
                    receiver.receive_no_probe().await["message"],
                    format!("{node}-{number}")
                );
                // Once it has confirmed something, its pongs confirm nothing.
                if number % 32 == 31 {
                    let last = receiver.token.last.clone();
                    receiver.send(&json!({"type": "ack", "seq": last})).await;
                }
            }
            let last = receiver.token.last.clone();
            receiver.send(&json!({"type": "ack", "seq": last})).await;
            receiver.expect_silence().await;
            let token = cluster.disconnect(&mut prober, receiver).await;
            receiver = cluster.resume(node, &token).await;
            for number in 0..256 {
                let answer = sender
                    .send_message("receiver", &format!("{node}-{number}"))
                    .await;
                assert_eq!(answer["status"], "delivered", "{number}: {answer}");
                if number % 32 == 0 {
                    let news = format!("new-{node}-{number}");
                    sender.send_message("receiver", &news).await;
                    assert_eq!(receiver.receive_no_probe().await["message"], news);
                    let last = receiver.token.last.clone();
                    receiver.send(&json!({"type": "ack", "seq": last})).await;
                }
            }
            receiver.expect_silence().await;
        }
    }
}

/// The caller repeats its offer when the call is over, since it never got the outcome.
#[tokio::test]
async fn a_repeated_offer_of_an_ended_call_begins_no_call() {
    for cluster in clusters(&[]).await {
        for resumable in [false, true] {
            let names = [format!("from-{resumable}"), format!("to-{resumable}")];
            let mut other = if resumable {
                cluster.login_resumable(1, &names[1]).await
            } else {
                cluster.login(1, &names[1]).await
            };
            let mut one = cluster.login_resumable(0, &names[0]).await;
            let offer = json!({"type": "offer", "name": names[1], "offer": "sdp", "id": "offer"});
            one.send(&offer).await;
            assert_eq!(one.receive().await["status"], "delivered");
            assert_eq!(other.receive().await["type"], "offer");
            other
                .send(&json!({"type": "leave", "name": names[0]}))
                .await;
            assert_eq!(one.receive().await["type"], "leave");
            one.send(&offer).await;
            assert_eq!(one.receive_type("ack").await["status"], "delivered");
            let leave = one.receive_type("leave").await;
            assert_eq!(leave["reason"], "lost");
            other.expect_silence().await;
        }
    }
}

/// Redis has lost the accepted ids, and the receiver has resumed on another connection.
#[tokio::test]
async fn delivered_signals_do_not_return_after_a_loss_of_data() {
    for cluster in clusters(&[]).await {
        let mut one = cluster.login_resumable(0, "one").await;
        let mut other = cluster.login_resumable(1, "other").await;
        let mut prober = cluster.login(0, "prober").await;
        assert_eq!(
            one.send_message("other", "before").await["status"],
            "delivered"
        );
        assert_eq!(other.receive_no_probe().await["message"], "before");
        let token = cluster.disconnect(&mut prober, other).await;
        let mut other = cluster.resume(0, &token).await;
        match &cluster.backend {
            Backend::Memory(switch) => switch.flush(),
            Backend::Redis(redis) => drop(redis.ask("FLUSHALL").await),
        }
        loop {
            let told = other.receive().await;
            if told["missed"] == true {
                break;
            }
        }
        let token = other.token.clone();
        let mut other = eventually("it is resumed again", async || {
            let mut other = cluster.connect(1).await;
            let reply = other.try_resume(&token).await;
            (reply["success"] == true).then_some(other)
        })
        .await;
        // The sender repeats it: for all it knows the first ack was lost.
        eventually("the repetition is accepted", async || {
            let answer = one.send_message("other", "before").await;
            (answer["status"] == "delivered").then_some(())
        })
        .await;
        eventually("another signal is accepted", async || {
            let answer = one.send_message("other", "after").await;
            (answer["status"] == "delivered").then_some(())
        })
        .await;
        let received = loop {
            let news = other.receive_no_probe().await;
            if news["type"] == "message" {
                break news;
            }
        };
        assert_eq!(received["message"], "after");
    }
}
