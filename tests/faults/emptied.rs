//! Redis is killed and comes back empty within moments: nobody who is present counts as absent, and no call ends.
//!
//! `ROUNDS=20` repeats each outage so often (`make endure`).

use std::time::Duration;

use tokio::time::sleep;

use testing::Redis;

use crate::talker::{Talker, pairs};

const PAIRS: usize = 30;
/// 60 talkers send 1,000 messages a second.
const EVERY: Duration = Duration::from_millis(60);
/// The guard of a new epoch is over, and lost peers are decided about.
const CALM: Duration = Duration::from_secs(7);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_comes_back_empty_at_once_and_everybody_stays_present() {
    let _alone = crate::alone().await;
    let rounds = crate::rounds(1);
    let mut redis = Redis::start().await;
    let (_nodes, talkers) = pairs(&redis, PAIRS, EVERY, |number| number % 3 == 0).await;
    for (round, millis) in (0..rounds).flat_map(|round| [200, 500, 900, 2000].map(|ms| (round, ms)))
    {
        let before = sum(&talkers);
        redis.kill().await;
        sleep(Duration::from_millis(millis)).await;
        redis.restart_empty().await;
        for talker in &talkers {
            talker.continues().await;
        }
        sleep(CALM).await;
        let [begun, repeats, refused, leaves] = sum(&talkers);
        println!(
            "round {round}, {millis} ms: {} messages, {} refused for now, {refused} for good, {leaves} calls ended",
            begun - before[0],
            repeats - before[1]
        );
        assert_eq!([refused, leaves], [0, 0], "{:?}", wrong(&talkers));
    }
    for talker in &talkers {
        talker.settle().await;
        talker.heard_in_order();
    }
}

/// Messages that were begun, refused for now, refused for good, and calls that ended.
fn sum(talkers: &[Talker]) -> [u64; 4] {
    let mut sum = [0; 4];
    for talker in talkers {
        let log = talker.log();
        let of_one = [
            log.begun,
            log.repeats,
            log.refused.len() as u64,
            log.leaves.len() as u64,
        ];
        for (sum, one) in sum.iter_mut().zip(of_one) {
            *sum += one;
        }
    }
    sum
}

fn wrong(talkers: &[Talker]) -> Vec<(String, serde_json::Value)> {
    let of_one = |talker: &Talker| {
        let log = talker.log();
        let first = log.refused.into_iter().chain(log.leaves).next();
        first.map(|first| (talker.name.clone(), first))
    };
    talkers.iter().filter_map(of_one).collect()
}
