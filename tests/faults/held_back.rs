//! Redis is away for longer than messages wait: who repeats in order keeps order, and nothing is lost.

use std::time::Duration;

use tokio::time::sleep;

use testing::{Node, Redis};

use crate::talker::pair;

const PAIRS: usize = 5;
const EVERY: Duration = Duration::from_millis(20);
const AWAY: Duration = Duration::from_secs(12);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_sent_while_redis_is_away_arrives_in_order() {
    let _alone = crate::alone().await;
    let redis = Redis::start().await;
    let nodes = [
        Node::start(Some(&redis), &[]).await,
        Node::start(Some(&redis), &[]).await,
    ];
    let mut talkers = Vec::new();
    for number in 0..PAIRS {
        let names = [format!("a{number}"), format!("b{number}")];
        let at = [nodes[0].address, nodes[1].address];
        talkers.extend(pair(at, [&names[0], &names[1]], EVERY, true).await);
    }
    sleep(Duration::from_secs(2)).await;
    redis.process.signal("STOP");
    sleep(AWAY).await;
    redis.process.signal("CONT");
    for talker in &talkers {
        talker.continues().await;
    }
    for talker in &talkers {
        talker.settle().await;
    }
    let (mut messages, mut repeats, mut late) = (0, 0, 0);
    for (talker, peer) in talkers
        .iter()
        .enumerate()
        .map(|(at, one)| (one, &talkers[at ^ 1]))
    {
        let (log, sent) = (talker.log(), peer.log().begun);
        assert_eq!(
            (&log.refused, &log.leaves),
            (&vec![], &vec![]),
            "{}",
            talker.name
        );
        late += log
            .heard
            .windows(2)
            .filter(|pair| pair[0] > pair[1])
            .count();
        let mut heard = log.heard;
        heard.sort_unstable();
        assert_eq!(heard, (1..=sent).collect::<Vec<_>>(), "{}", talker.name);
        messages += sent;
        repeats += log.repeats;
    }
    println!("{messages} messages, {repeats} refused for now, {late} after later ones");
    assert_eq!(late, 0, "messages arrived after later ones");
    assert!(
        repeats > 0,
        "nothing was refused: Redis was not away for long enough"
    );
}
