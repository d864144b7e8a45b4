//! What keeps this node from using Redis: what its connections and its probe found, as one answer.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tracing::{info, warn};

use super::diagnosis::explain;
use crate::broker::StoreHealth;
use crate::broker::health::Health;

/// Collects troubles, and tells the operator of each change of their cause.
#[derive(Debug, Default)]
pub(super) struct HealthMonitor {
    troubles: Mutex<Troubles>,
    told: watch::Sender<StoreHealth>,
    /// Wakes the probe early.
    doubted: Notify,
}

/// What is wrong. The first one explains those after it.
#[derive(Debug, Default)]
struct Troubles {
    connection: Option<String>,
    subscription: Option<String>,
    probe: Option<String>,
}

impl HealthMonitor {
    pub(super) fn watch(&self) -> Health {
        self.told.subscribe()
    }

    /// A connection for commands was made (`None`), or could not be.
    pub(super) fn connected(&self, trouble: Option<&str>) {
        self.change(|troubles| troubles.connection = trouble.map(explain));
    }

    /// The channels were subscribed (`None`), or could not be.
    pub(super) fn subscribed(&self, trouble: Option<&str>) {
        self.change(|troubles| troubles.subscription = trouble.map(explain));
    }

    /// The probe did everything that the node needs (`None`), or failed.
    pub(super) fn probed(&self, trouble: Option<&str>) {
        self.change(|troubles| troubles.probe = trouble.map(explain));
        if trouble.is_none() {
            self.told.send_modify(|health| health.has_worked = true);
        }
    }

    /// What does no harm yet. Each is logged when it is new.
    pub(super) fn warned(&self, warnings: Vec<Arc<str>>) {
        self.told.send_if_modified(|health| {
            let is_new = health.warnings != warnings;
            for warning in warnings.iter().filter(|new| !health.warnings.contains(new)) {
                warn!("{warning}");
            }
            health.warnings = warnings;
            is_new
        });
    }

    /// Redis refused a command: the probe is to find out why.
    pub(super) fn doubt(&self) {
        self.doubted.notify_one();
    }

    /// Waits until Redis is doubted.
    pub(super) async fn is_doubted(&self) {
        self.doubted.notified().await;
    }

    fn change(&self, change: impl FnOnce(&mut Troubles)) {
        let mut troubles = self.troubles.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut troubles);
        let Troubles {
            connection,
            subscription,
            probe,
        } = &*troubles;
        let first = connection
            .as_ref()
            .or(subscription.as_ref())
            .or(probe.as_ref());
        self.told.send_if_modified(|health| {
            if health.trouble.as_deref() == first.map(String::as_str) {
                return false;
            }
            if let Some(cause) = first {
                warn!(
                    cause,
                    "Redis cannot be used: this node keeps trying, and is not ready if it stays so"
                );
            } else {
                info!("Redis can be used again");
            }
            health.trouble = first.map(|trouble| trouble.as_str().into());
            // Another cause does not begin the time anew.
            health.since = first.and(health.since.or_else(|| Some(Instant::now())));
            true
        });
    }
}
