//! A sender who repeats a signal under its id, since it had no answer: the receiver hears it once.

use serde_json::json;

use super::grounds;
use crate::support::cluster::Ground;
use crate::support::eventually;

#[tokio::test]
async fn what_is_repeated_under_its_id_is_delivered_once() {
    for cluster in grounds(&[]).await {
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
                sender.says(&message(text)).await;
                assert_eq!(sender.hears().await["status"], "delivered");
            }
            // The acks were lost with the connection: on another node, and on the same.
            for node in [1, 0] {
                let ticket = sender.ticket.clone();
                sender.vanishes();
                sender = cluster.resume(node, &ticket).await;
                for text in ["1", "2"] {
                    sender.says(&message(text)).await;
                    let ack = sender.hears().await;
                    assert_eq!(
                        (&ack["id"], &ack["status"]),
                        (&json!(text), &json!("delivered"))
                    );
                }
            }
            sender.says(&message("3")).await;
            assert_eq!(sender.hears().await["status"], "delivered");
            for text in ["1", "2", "3"] {
                assert_eq!(receiver.hears().await["message"], text);
            }
            receiver.hears_nothing_more().await;
        }
    }
}

/// What has left the inbox is known to whoever holds the session next, on any node.
#[tokio::test]
async fn what_was_confirmed_is_not_heard_again_after_a_resume() {
    for cluster in grounds(&[("limits.signals_per_second", "0")]).await {
        let mut prober = cluster.login(1, "prober").await;
        let mut sender = cluster.login_resumable(0, "sender").await;
        let mut receiver = cluster.login_resumable(0, "receiver").await;
        for node in [1, 0] {
            for number in 0..256 {
                let answer = sender
                    .sends_message("receiver", &format!("{node}-{number}"))
                    .await;
                assert_eq!(answer["status"], "delivered");
                assert_eq!(
                    receiver.hears_news().await["message"],
                    format!("{node}-{number}")
                );
            }
            let last = receiver.ticket.last.clone();
            receiver.says(&json!({"type": "ack", "seq": last})).await;
            receiver.hears_nothing_more().await;
            let ticket = cluster.loses(&mut prober, receiver).await;
            receiver = cluster.resume(node, &ticket).await;
            for number in 0..256 {
                let answer = sender
                    .sends_message("receiver", &format!("{node}-{number}"))
                    .await;
                assert_eq!(answer["status"], "delivered", "{number}: {answer}");
                if number % 32 == 0 {
                    let news = format!("new-{node}-{number}");
                    sender.sends_message("receiver", &news).await;
                    assert_eq!(receiver.hears_news().await["message"], news);
                }
            }
            receiver.hears_nothing_more().await;
        }
    }
}

/// The caller believes that a call begins by what it repeats.
#[tokio::test]
async fn an_offer_that_is_repeated_when_its_call_is_over_begins_none() {
    for cluster in grounds(&[]).await {
        for resumable in [false, true] {
            let names = [format!("from-{resumable}"), format!("to-{resumable}")];
            let mut other = if resumable {
                cluster.login_resumable(1, &names[1]).await
            } else {
                cluster.login(1, &names[1]).await
            };
            let mut one = cluster.login_resumable(0, &names[0]).await;
            let offer = json!({"type": "offer", "name": names[1], "offer": "sdp", "id": "offer"});
            one.says(&offer).await;
            assert_eq!(one.hears().await["status"], "delivered");
            assert_eq!(other.hears().await["type"], "offer");
            other
                .says(&json!({"type": "leave", "name": names[0]}))
                .await;
            assert_eq!(one.hears().await["type"], "leave");
            one.says(&offer).await;
            assert_eq!(one.hears_of("ack").await["status"], "delivered");
            let leave = one.hears_of("leave").await;
            assert_eq!(leave["reason"], "lost");
            other.hears_nothing_more().await;
        }
    }
}

/// Redis has forgotten which ids it has accepted, and the receiver's connection is another.
#[tokio::test]
async fn what_was_heard_before_a_loss_of_data_is_not_heard_again() {
    for cluster in grounds(&[]).await {
        let mut one = cluster.login_resumable(0, "one").await;
        let mut other = cluster.login_resumable(1, "other").await;
        let mut prober = cluster.login(0, "prober").await;
        assert_eq!(
            one.sends_message("other", "before").await["status"],
            "delivered"
        );
        assert_eq!(other.hears_news().await["message"], "before");
        let ticket = cluster.loses(&mut prober, other).await;
        let mut other = cluster.resume(0, &ticket).await;
        match &cluster.ground {
            Ground::MemoryBroker(switch) => switch.flush(),
            Ground::Redis(redis) => drop(redis.ask("FLUSHALL").await),
        }
        loop {
            let told = other.hears().await;
            if told["missed"] == true {
                break;
            }
        }
        let ticket = other.ticket.clone();
        let mut other = eventually("it is resumed again", async || {
            let mut other = cluster.connect(1).await;
            let reply = other.tries_to_resume(&ticket).await;
            (reply["success"] == true).then_some(other)
        })
        .await;
        // The first acknowledgement may have been lost: its sender repeats it.
        eventually("the repetition is accepted", async || {
            let answer = one.sends_message("other", "before").await;
            (answer["status"] == "delivered").then_some(())
        })
        .await;
        eventually("another signal is accepted", async || {
            let answer = one.sends_message("other", "after").await;
            (answer["status"] == "delivered").then_some(())
        })
        .await;
        let heard = loop {
            let news = other.hears_news().await;
            if news["type"] == "message" {
                break news;
            }
        };
        assert_eq!(heard["message"], "after");
    }
}
