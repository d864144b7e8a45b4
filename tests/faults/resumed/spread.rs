//! New nodes relieve the others: `session.max_age` spreads sessions over them.

use testing::{Redis, eventually};
use tokio::time::Instant;

use super::Scenario;

const CALLS: usize = 150;

#[tokio::test]
async fn sessions_spread_over_new_nodes_and_lose_nothing() {
    let _alone = crate::alone().await;
    let redis = Redis::start().await;
    let mut scenario = Scenario::build(redis.url(), CALLS, &[("session.max_age", "8s")]).await;
    for _ in 0..3 {
        scenario.add_node().await;
    }
    let since = Instant::now();
    let most = 2 * CALLS / scenario.nodes.len() * 13 / 10;
    let spread = eventually("no node has 1.3 times the mean", async || {
        let mut sessions = Vec::new();
        for node in &scenario.nodes {
            sessions.push(node.status().await["sessions"].as_u64().unwrap());
        }
        let is_even = |&count: &u64| count > 0 && count <= most as u64;
        sessions.iter().all(is_even).then_some(sessions)
    })
    .await;
    println!(
        "{spread:?} sessions {:?} after three nodes joined",
        since.elapsed()
    );
    scenario.lost_nothing().await;
    scenario.ends().await;
}
