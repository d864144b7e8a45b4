//! Records the facts of this node in the log of events, in order, however long the store is away.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::sleep;
use tracing::warn;

use crate::broker::EventLog;
use crate::router::ToldFacts;
use crate::telemetry::{Metrics, Webhook};

/// How many facts are recorded at once.
const AT_ONCE: usize = 64;
/// The pause before a fact is recorded again whose outcome is not known.
const AGAIN: Duration = Duration::from_millis(250);

/// Service: records facts. One whose outcome is not known is recorded again, with those behind it: that changes
/// nothing.
pub(super) async fn record_all(
    mut facts: ToldFacts,
    log: Arc<dyn EventLog>,
    metrics: Arc<Metrics>,
) {
    let mut some = Vec::new();
    while facts.take(AT_ONCE, &mut some).await {
        while !some.is_empty() {
            let recorded = join_all(some.iter().map(|fact| log.record(fact))).await;
            let lost: usize = recorded.iter().flatten().sum();
            if lost > 0 {
                warn!(
                    lost,
                    "Too many events wait for the receiver of webhooks: the oldest are lost"
                );
                metrics.webhooks(Webhook::Lost, lost as u64);
            }
            let done = recorded
                .iter()
                .take_while(|outcome| outcome.is_ok())
                .count();
            some.drain(..done);
            facts.recorded(done);
            if !some.is_empty() {
                sleep(AGAIN).await;
            }
        }
    }
    // The senders live as long as the node.
    std::future::pending::<()>().await;
}
