//! A killed node: each call peer of its users gets exactly one `leave`, and every name is free again.

use std::time::Duration;

use serde_json::json;
use tokio::time::Instant;

use testing::Client;
use testing::eventually;
use testing::{Node, Redis};

/// A call peer gets the leave within this time…
const LATEST: Duration = Duration::from_secs(7);
/// …and a watcher the presence within this.
const WATCHED_WITHIN: Duration = Duration::from_secs(8);
/// A node with a few users drains within this time, though the leaves reach nobody.
const STOPS_WITHIN: Duration = Duration::from_secs(6);

#[tokio::test]
async fn a_killed_node_causes_leaves_within_seven_seconds() {
    let _alone = crate::alone().await;
    let redis = Redis::start().await;
    let start = async |name: &'static str| Node::start(Some(&redis), &[("node_id", name)]).await;
    let (doomed, second, third) = (start("one").await, start("two").await, start("three").await);

    let (killed, mut left_behind) = hundred_calls(&doomed, &second, &third).await;
    let mut bystanders = Vec::new();
    for number in 0..10 {
        let mut one = Client::login(second.address, &format!("d{number}")).await;
        let mut other = Client::login(third.address, &format!("e{number}")).await;
        one.call(&mut other).await;
        bystanders.extend([one, other]);
    }

    let mut watcher = Client::login(third.address, "watcher").await;
    watcher
        .send(&json!({"type": "presence", "names": ["killed0", "b0"], "watch": true}))
        .await;
    assert_eq!(
        watcher.receive().await["users"],
        json!({"killed0": true, "b0": true})
    );

    doomed.process.signal("KILL");
    let killed_at = Instant::now();
    let restarted = start("one").await;
    let mut latest = Duration::ZERO;
    for (peer, gone) in &mut left_behind {
        let leave = peer.receive_within(LATEST * 2).await;
        let (text, at) = leave.unwrap_or_else(|| panic!("{} got nothing", peer.name));
        let expected = format!(r#"{{"type":"leave","name":"{gone}","reason":"node_lost"}}"#);
        assert_eq!(text, expected);
        latest = latest.max(at - killed_at);
    }
    assert!(latest < LATEST, "the last leave came after {latest:?}");

    let (change, at) = watcher
        .receive_within(WATCHED_WITHIN * 2)
        .await
        .expect("the watcher gets the presence");
    assert_eq!(change, r#"{"type":"presence","users":{"killed0":false}}"#);
    let took = at - killed_at;
    assert!(took < WATCHED_WITHIN, "the presence came after {took:?}");
    cannot_be_sent_anything(&mut bystanders[0], "killed79").await;

    // Each name can be claimed, also on the node that was restarted with the same id.
    let mut again = Vec::new();
    for (number, user) in killed.iter().enumerate() {
        let node = [&second, &third, &restarted][number % 3];
        again.push(Client::login(node.address, &user.name).await);
    }
    for (peer, _) in &mut left_behind {
        peer.expect_silence().await;
    }
    for bystander in &mut bystanders {
        bystander.expect_silence().await;
    }
    println!(
        "the last of {} leaves came {latest:?} after the kill",
        left_behind.len()
    );
}

/// 60 users of the doomed node are in one call and 20 in two, with peers on two other nodes. Returns
/// the users, and each peer with the name of its user.
async fn hundred_calls(
    doomed: &Node,
    second: &Node,
    third: &Node,
) -> (Vec<Client>, Vec<(Client, String)>) {
    let (mut users, mut peers) = (Vec::new(), Vec::new());
    for number in 0..80 {
        let mut user = Client::login(doomed.address, &format!("killed{number}")).await;
        let mut peer = Client::login(second.address, &format!("b{number}")).await;
        user.call(&mut peer).await;
        peers.push((peer, user.name.clone()));
        if number < 20 {
            let mut other = Client::login(third.address, &format!("c{number}")).await;
            other.call(&mut user).await;
            peers.push((other, user.name.clone()));
        }
        users.push(user);
    }
    (users, peers)
}

/// A user on a node that was found dead cannot be sent anything, although the lease still exists.
async fn cannot_be_sent_anything(sender: &mut Client, gone: &str) {
    // The first signal may only make the node look at the dead one.
    let answer = eventually("the node is known to be dead", async || {
        let answer = sender.send_message(gone, "too late").await;
        (answer["type"] == "error").then_some(answer)
    });
    assert_eq!(answer.await["code"], "user_unavailable");
}

#[tokio::test]
async fn a_drain_ends_in_time_though_a_peers_node_has_died() {
    let _alone = crate::alone().await;
    let redis = Redis::start().await;
    let doomed = Node::start(Some(&redis), &[]).await;
    let mut leaving = Node::start(Some(&redis), &[]).await;
    let mut killed = Client::login(doomed.address, "killed").await;
    let mut plain = Client::login(leaving.address, "plain").await;
    let mut resumable = Client::login_resumable(leaving.address, "resumable").await;
    killed.call(&mut plain).await;
    killed.call(&mut resumable).await;

    // Its lease lives for half a minute, and nobody subscribes to its channel.
    doomed.process.signal("KILL");
    leaving.process.signal("TERM");
    let asked = Instant::now();
    assert_eq!(plain.closed().await, Some(1012));
    assert_eq!(leaving.process.ended().await, Some(0));
    let took = asked.elapsed();
    assert!(took < STOPS_WITHIN, "it took {took:?}");
    println!("the node stopped after {took:?}");
}

/// Redis has no record of the call yet: the receiver's next connection finds the offer in the inbox before it
/// processes the client's leave.
#[tokio::test]
async fn an_unrecorded_call_can_be_left_right_after_a_kill() {
    let _alone = crate::alone().await;
    let redis = Redis::start().await;
    let home = Node::start(Some(&redis), &[]).await;
    for number in 0..5 {
        let doomed = Node::start(Some(&redis), &[]).await;
        let mut caller = Client::login(home.address, &format!("caller{number}")).await;
        let mut receiver =
            Client::login_resumable(doomed.address, &format!("receiver{number}")).await;
        caller
            .send(&json!({"type": "offer", "name": receiver.name, "offer": "sdp"}))
            .await;
        receiver.receive_type("offer").await;
        let token = receiver.token.clone();
        doomed.process.signal("KILL");
        let mut again = Client::connect(home.address).await;
        // Both are in the inbox when the session resumes.
        again
            .send(&json!({
                "type": "login", "name": token.name, "resume": token.secret, "last": token.last
            }))
            .await;
        again
            .send(&json!({"type": "leave", "name": caller.name}))
            .await;
        assert_eq!(again.receive_type("login").await["resumed"], true);
        assert_eq!(caller.receive_type("leave").await["reason"], "hangup");
        caller.expect_silence().await;
    }
}
