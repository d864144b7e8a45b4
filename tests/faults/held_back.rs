//! Redis is away for longer than messages wait: who repeats in order keeps order, and nothing is lost.

use std::time::Duration;

use tokio::time::sleep;

use testing::Redis;

use crate::talker::pairs;

const PAIRS: usize = 5;
const EVERY: Duration = Duration::from_millis(20);
const AWAY: Duration = Duration::from_secs(12);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_sent_while_redis_is_away_arrives_in_order() {
    let _alone = crate::alone().await;
    let redis = Redis::start().await;
    let (_nodes, talkers) = pairs(&redis, PAIRS, EVERY, |_| true).await;
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
    let (mut messages, mut repeats) = (0, 0);
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
        talker.heard_in_order();
        assert_eq!(log.heard.len() as u64, sent, "{}", talker.name);
        messages += sent;
        repeats += log.repeats;
    }
    println!("{messages} messages, {repeats} refused for now");
    assert!(
        repeats > 0,
        "nothing was refused: Redis was not away for long enough"
    );
}
