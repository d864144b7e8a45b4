//! Lease renewal: renews the leases of this node and its users, notices dead nodes, and sets the expiry guard after a
//! stall.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::time::{MissedTickBehavior, interval, sleep};
use tracing::{debug, info, warn};

use super::expiry_guard::BeatResult;
use super::mailbox::Mail;
use super::{Registry, Router};
use crate::broker::{BrokerError, Lease, Renewal, StoreReport};
use crate::bugs::{self, Bug};
use crate::model::NodeId;
use crate::telemetry::{Metrics, Renewed};

/// Leases are renewed in this many groups, so that the renewals spread over the interval.
const GROUPS: usize = 10;
/// The share of one user in a round of renewals after a stall. All nodes renew all their leases then, and the store
/// also has to carry what was sent meanwhile.
const RENEWED_EACH: Duration = Duration::from_micros(200);

impl Router {
    /// Takes the node's own lease. Nobody can log in before.
    pub async fn first_beat(&self) -> Result<(), BrokerError> {
        self.broker
            .heartbeat(&[], StoreReport::Nothing)
            .await
            .map(drop)
    }

    /// Waits until a starting node may rely on the store to know every live user: until a node that has been here says
    /// so, or no node says anything. After a loss of data, the other nodes restore their users within about one node
    /// lease.
    pub async fn settle(&self) {
        let begun = Instant::now();
        let mut is_told = false;
        while begun.elapsed() < self.local.terms.node_ttl * 7 / 5 {
            match self.broker.nodes(&[]).await.map(|nodes| nodes.report) {
                Ok(Some(StoreReport::Known)) => break,
                Ok(None) if begun.elapsed() >= self.local.terms.node_ttl * 3 / 10 => break,
                _ => {}
            }
            if !std::mem::replace(&mut is_told, true) {
                info!(
                    "Waiting until another node reports that all live users are in Redis, or until none is found: \
                     logins are refused until then"
                );
            }
            sleep(self.local.terms.node_ttl / 50).await;
            // If this beat fails, the next one sends the same.
            let _ = self.first_beat().await;
        }
        // Whoever was revoked before must not get in.
        while self.read_revocations().await.is_err() {
            sleep(self.local.terms.node_ttl / 50).await;
        }
        self.expiry_guard.first_beat();
    }

    /// Service: renews the node's own lease, and reads the leases of the nodes that call peers are on.
    pub async fn keep_node(self: Arc<Self>) {
        if !self.expiry_guard.has_begun() {
            while self.first_beat().await.is_err() {
                sleep(self.local.terms.node_ttl / 50).await;
            }
            self.settle().await;
            info!("Redis answers: logins are accepted");
        }
        let mut beat = interval(self.local.terms.node_ttl / 5);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut outage: Option<Instant> = None;
        let mut epoch = self.epoch.clone();
        loop {
            beat.tick().await;
            let watched = self.local.peers.watched(self.local.terms.user_ttl);
            let says = match self.expiry_guard.remaining() {
                Some(_) => StoreReport::Guarded,
                None => StoreReport::Known,
            };
            match self.broker.heartbeat(&watched, says).await {
                Ok(found) => {
                    let turn = self.expiry_guard.beat(found.own, found.epoch);
                    if let Some(since) = outage.take() {
                        self.tell_everybody(true);
                        info!(
                            outage_seconds = since.elapsed().as_secs_f32(),
                            "Redis is back"
                        );
                    }
                    if let BeatResult::Stalled(gap) = turn {
                        let is_new_epoch = epoch.has_changed().unwrap_or_default();
                        epoch.mark_unchanged();
                        self.stalled(gap, is_new_epoch);
                    } else if self.expiry_guard.remaining().is_none() {
                        for (node, alive) in watched.into_iter().zip(found.alive) {
                            self.node_found(&node, alive);
                        }
                    }
                }
                Err(error) => {
                    if self.expiry_guard.missed() {
                        outage = Some(Instant::now());
                        self.tell_everybody(false);
                        warn!(
                            %error,
                            "Redis is away: logins and calls to other nodes are refused until it is back. \
                             If it stays so, check that Redis runs and that redis.url is right"
                        );
                    }
                    // Retry sooner than the next beat: clients are waiting for the broker.
                    sleep(self.local.terms.node_ttl / 50).await;
                    beat.reset_immediately();
                }
            }
        }
    }

    fn tell_everybody(&self, reached: bool) {
        for mailbox in self.registry.mailboxes() {
            // A full mailbox ends its session.
            let _ = mailbox.post(Mail::Broker { reached });
        }
    }

    fn stalled(&self, gap: Duration, is_new_epoch: bool) {
        let gap_seconds = gap.as_secs_f32();
        if is_new_epoch {
            warn!(
                gap_seconds,
                "Redis has lost data: for presence.node_ttl no lease counts as expired and nobody new logs in, \
                 so that the nodes can renew their leases"
            );
        } else {
            warn!(
                gap_seconds,
                "Redis stood still: for presence.node_ttl no lease counts as expired and nobody new logs in, \
                 so that the nodes can renew their leases"
            );
        }
        if bugs::has(Bug::Fearless) {
            return;
        }
        self.is_new_epoch.fetch_or(is_new_epoch, Ordering::Relaxed);
        self.renew_all.notify_one();
    }

    fn node_found(&self, node: &NodeId, alive: bool) {
        let (sessions, is_news) = self.local.peers.found(node, alive);
        if sessions.is_empty() || bugs::has(Bug::DeafToDeadNodes) {
            return;
        }
        // Its lease is read each second.
        if is_news {
            info!(
                node.lost = %node,
                sessions = sessions.len(),
                "A node died: calls with its plain users are over, resumable users may come back"
            );
        }
        for session in sessions {
            self.registry.post(session, Mail::NodeLost(node.clone()));
        }
    }

    /// Service: renews the leases of all users, one group at a time. After a stall it renews all groups in
    /// one quick round.
    pub async fn keep_users(self: Arc<Self>) {
        let every = self.local.terms.user_ttl / 3 / u32::try_from(GROUPS).unwrap_or(1);
        // A round after a stall takes at most two fifths of a node lease: 2 s of 5 s.
        let longest =
            every.min(self.local.terms.node_ttl * 2 / 5 / u32::try_from(GROUPS).unwrap_or(1));
        let (mut hurried, mut hurry, mut is_new_epoch) = (longest, 0, false);
        for group in (0..GROUPS).cycle() {
            if hurry == 0 {
                tokio::select! {
                    () = sleep(every) => {}
                    () = self.renew_all.notified() => {
                        hurry = GROUPS;
                        // With few users the round is shorter.
                        let users = u32::try_from(self.registry.logged_in()).unwrap_or(u32::MAX);
                        let round = RENEWED_EACH.saturating_mul(users);
                        hurried = longest.min(round / u32::try_from(GROUPS).unwrap_or(1));
                        is_new_epoch = self.is_new_epoch.swap(false, Ordering::Relaxed);
                    }
                }
            } else {
                hurry -= 1;
                sleep(hurried.mul_f32(rand::random_range(0.5..1.0))).await;
            }
            // Retry a failed group at once: its next turn would come after a third of a lease.
            while self.renew(group, is_new_epoch && hurry > 0).await.is_err() {
                sleep(longest.mul_f32(rand::random_range(0.5..1.0))).await;
            }
        }
    }

    /// Renews a group. After a loss of data, every session of the group is told to rewrite its record.
    async fn renew(&self, group: usize, is_new_epoch: bool) -> Result<(), BrokerError> {
        let (leases, renewing) = self.registry.with_leases(group, GROUPS, |leases| {
            let renewing = (!leases.is_empty()).then(|| self.broker.renew(leases.clone()));
            (leases, renewing)
        });
        if let Some(renewing) = renewing {
            let results = renewing.await.inspect_err(|error| {
                self.local
                    .telemetry
                    .metrics
                    .renewed(Renewed::Failed, leases.len());
                debug!(%error, "Leases were not renewed yet");
            })?;
            count(&self.local.telemetry.metrics, &results);
            tell_sessions(&self.registry, leases, &results, self.epoch(), is_new_epoch);
        }
        Ok(())
    }
}

fn count(metrics: &Metrics, results: &[Renewal]) {
    for (renewal, renewed) in [
        (Renewal::Mine, Renewed::Renewed),
        (Renewal::Regained, Renewed::Regained),
        (Renewal::Restored, Renewed::Regained),
        (Renewal::Replaced, Renewed::Replaced),
        (Renewal::Lost, Renewed::Lost),
    ] {
        let count = results.iter().filter(|result| **result == renewal).count();
        metrics.renewed(renewed, count);
    }
}

fn tell_sessions(
    registry: &Registry,
    leases: Vec<Lease>,
    results: &[Renewal],
    epoch: u64,
    is_new_epoch: bool,
) {
    let regained = results
        .iter()
        .filter(|result| **result == Renewal::Regained)
        .count();
    if regained > 0 {
        warn!(
            regained,
            "Redis had lost leases of this node: they are taken back"
        );
    }
    for (lease, result) in leases.into_iter().zip(results) {
        let mail = match result {
            Renewal::Mine if !is_new_epoch => continue,
            Renewal::Mine | Renewal::Restored => Mail::NewEpoch(epoch),
            Renewal::Regained => Mail::Regained(epoch),
            Renewal::Replaced => Mail::Overtaken(lease.generation + 1),
            Renewal::Lost => Mail::NameLost,
        };
        registry.post(lease.session, mail);
    }
}
