//! Accepted signals arrive once and in order while the connections to Redis are cut repeatedly.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::sleep;

use testing::Client;
use testing::eventually;
use testing::{Node, Redis};

use crate::talker::pairs;

const SENDERS: usize = 50;
const EACH: usize = 2000;
const UNACKNOWLEDGED: usize = 64;
const CUTS: usize = 20;
/// The number of signals that each sends between two cuts.
const STAGE: usize = EACH / CUTS;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn numbered_candidates_arrive_in_order_while_the_subscriber_is_cut() {
    let _alone = crate::alone().await;
    let redis = Redis::start().await;
    let fast = [("limits.signals_per_second", "0")];
    let (here, there) = (
        Node::start(Some(&redis), &fast).await,
        Node::start(Some(&redis), &fast).await,
    );
    let mut receivers = Vec::new();
    for number in 0..SENDERS {
        receivers.push(Client::login_resumable(there.address, &format!("r{number}")).await);
    }
    let (mut running, sent) = (JoinSet::new(), Arc::<AtomicUsize>::default());
    let cuts = watch::Sender::new(0);
    for (number, receiver) in receivers.into_iter().enumerate() {
        let sender = Client::login(here.address, &format!("s{number}")).await;
        let (sent, cuts) = (Arc::clone(&sent), cuts.subscribe());
        running.spawn(async move {
            let (accepted, received) = tokio::join!(
                send_all(sender, receiver.name.clone(), &sent, cuts),
                receive_all(receiver)
            );
            assert!(
                received.is_sorted_by(|a, b| a < b),
                "pair {number}: out of order or twice"
            );
            let missing: Vec<_> = accepted
                .iter()
                .filter(|n| received.binary_search(n).is_err())
                .collect();
            assert!(
                missing.is_empty(),
                "pair {number}: accepted and lost: {missing:?}"
            );
            accepted.len()
        });
    }
    let mut connection = redis.connection().await;
    let mut cut = async || {
        let kill = ["KILL", "TYPE", "pubsub"];
        redis::cmd("CLIENT")
            .arg(&kill)
            .query_async::<usize>(&mut connection)
            .await
            .unwrap()
    };
    for number in 0..CUTS {
        // The cut comes in the middle of a stage; no sender leaves the stage before it.
        let due = SENDERS * STAGE * (2 * number + 1) / 2;
        let so_many = async || (sent.load(Ordering::Relaxed) >= due).then_some(());
        eventually("so many were sent", so_many).await;
        // The node may still be reconnecting after the last cut.
        eventually("a subscriber is cut", async || {
            (cut().await > 0).then_some(())
        })
        .await;
        cuts.send_replace(number + 1);
    }
    let accepted: usize = running.join_all().await.into_iter().sum();
    // The publishers' connections were not cut.
    assert!(accepted > SENDERS * EACH * 9 / 10, "{accepted}");
    println!("{accepted} of {} accepted", SENDERS * EACH);
}

/// Each cut refuses signals, which their senders repeat: none of the later ones may be accepted before them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn repeated_messages_arrive_in_order_while_the_publishers_are_cut() {
    const PAIRS: usize = 30;
    let _alone = crate::alone().await;
    let redis = Redis::start().await;
    let every = Duration::from_millis(10);
    let (_nodes, talkers) = pairs(&redis, PAIRS, every, |_| false).await;
    let mut connection = redis.connection().await;
    for cut in 0..crate::rounds(200) {
        eventually("a connection is cut", async || {
            let mut kill = redis::cmd("CLIENT");
            kill.arg(&["KILL", "TYPE", "normal"]);
            let cut = kill.query_async(&mut connection).await;
            (cut.unwrap_or(0) > 0).then_some(())
        })
        .await;
        // Refused messages are repeated in bursts, and some of these meet the next cut.
        sleep(Duration::from_millis(u64::from(cut % 50))).await;
    }
    let mut repeats = 0;
    for talker in &talkers {
        talker.settle().await;
        let log = talker.log();
        assert!(log.refused.is_empty(), "{}: {:?}", talker.name, log.refused);
        repeats += log.repeats;
        talker.heard_in_order();
    }
    assert!(repeats > 0, "nothing was refused");
    println!("{repeats} messages were refused for now and repeated");
}

/// Sends all numbers with a bounded window of unacknowledged ones; the numbers that were accepted.
async fn send_all(
    mut sender: Client,
    to: String,
    sent: &AtomicUsize,
    mut cuts: watch::Receiver<usize>,
) -> Vec<usize> {
    let (mut next, mut open, mut accepted) = (0, 0, Vec::new());
    while next < EACH || open > 0 {
        while next < EACH && open < UNACKNOWLEDGED {
            cuts.wait_for(|cuts| *cuts >= next / STAGE).await.unwrap();
            sender
                .send(
                    &json!({"type": "candidate", "name": to, "candidate": {"n": next}, "id": next}),
                )
                .await;
            sent.fetch_add(1, Ordering::Relaxed);
            next += 1;
            open += 1;
        }
        let answer = sender.receive().await;
        // Its own node's subscription is cut too, so it gets a status.
        if answer["type"] == "status" {
            continue;
        }
        open -= 1;
        if answer["type"] == "ack" {
            accepted.push(number(&answer["id"]));
        } else {
            // A sender may fill its half of the inbox if the receiver's node takes long to reconnect.
            assert_eq!(answer["code"], "inbox_full", "{answer}");
        }
    }
    sender
        .send(&json!({"type": "message", "name": to, "message": "end", "id": "end"}))
        .await;
    assert_eq!(sender.receive_type("ack").await["status"], "delivered");
    accepted
}

async fn receive_all(mut client: Client) -> Vec<usize> {
    let mut received = Vec::new();
    loop {
        let message = client.receive().await;
        if message["type"] == "message" {
            return received;
        }
        received.push(number(&message["candidate"]["n"]));
    }
}

fn number(value: &Value) -> usize {
    usize::try_from(value.as_u64().unwrap()).unwrap()
}
