//! The renewal of many leases.

use std::sync::Arc;

use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, try_join_all};
use redis::Value;

use super::broker::RedisBroker;
use super::publisher::Publisher;
use super::reply::renewals;
use crate::broker::{BrokerError, Lease, Renewal};

/// How many leases one script call renews. It blocks Redis for 2 ms (measured).
const LEASES_PER_CALL: usize = 500;

impl RedisBroker {
    /// Renews leases of any number, each through its address's publisher.
    pub(super) fn renew_all(
        &self,
        leases: &[Lease],
    ) -> BoxFuture<'static, Result<Vec<Renewal>, BrokerError>> {
        // Split by publisher, so that a renewal cannot overtake the release of its lease. Each result goes back to the
        // place of its lease.
        let mut by_publisher: Vec<(&Publisher, Vec<usize>)> = self
            .publishers
            .iter()
            .map(|publisher| (publisher, Vec::new()))
            .collect();
        for (place, lease) in leases.iter().enumerate() {
            by_publisher[self.publisher_index(&lease.address)]
                .1
                .push(place);
        }
        let mut pending = Vec::new();
        for (publisher, places) in by_publisher {
            for places in places.chunks(LEASES_PER_CALL) {
                let batch: Vec<&Lease> = places.iter().map(|&place| &leases[place]).collect();
                let (places, reply) =
                    (places.to_vec(), publisher.query(self.renew_command(&batch)));
                pending.push(async move {
                    reply
                        .await
                        .and_then(renewals)
                        .map(|renewed| (places, renewed))
                });
            }
        }
        let count = leases.len();
        let (node_publisher, epoch) = (self.node_publisher.clone(), Arc::clone(&self.epoch));
        let own_lease = redis::cmd("GET").arg(self.keys.node(&self.node)).clone();
        async move {
            let mut results = vec![Renewal::Mine; count];
            for (places, renewed) in try_join_all(pending).await? {
                for (place, renewal) in places.into_iter().zip(renewed) {
                    results[place] = renewal;
                }
            }
            if results.contains(&Renewal::Regained) {
                // If the store has lost this node's lease too, it has lost data: begin a new epoch before the sessions
                // get their results.
                let asked_at = epoch.mark();
                let token = match node_publisher.query(own_lease).await? {
                    Value::BulkString(token) => Some(token),
                    _ => None,
                };
                epoch.compare(token.as_deref(), asked_at);
            }
            Ok(results)
        }
        .boxed()
    }
}
