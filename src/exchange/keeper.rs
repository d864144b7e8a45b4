//! The lease keeper: renews the node's own lease and those of its users, notices dead nodes, and sets the hold guard after a stall.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::time::{MissedTickBehavior, interval, sleep};
use tracing::{debug, info, warn};

use super::hold::Turn;
use super::mailbox::Mail;
use super::{Exchange, Registry};
use crate::bugs::{self, Bug};
use crate::fabric::{FabricError, Lease, Renewal};
use crate::model::NodeId;
use crate::telemetry::{Metrics, Renewed};

/// Users are renewed in this many groups, so that their renewals spread over the interval.
const GROUPS: usize = 10;
/// How much of the time in which all are renewed after a stall belongs to one user: everybody does so at once, and what they are sent comes with it.
const RENEWED_EACH: Duration = Duration::from_micros(200);
/// How long a node may send again what a store has lost.
const SENT_AGAIN: Duration = Duration::from_secs(10);

impl Exchange {
    /// Takes the node's own lease: nobody can log in before.
    pub async fn first_beat(&self) -> Result<(), FabricError> {
        self.fabric.beat(&[], false).await.map(drop)
    }

    /// Waits until this node, which comes anew, may believe what the store knows of names: one that has lost its data is told of everybody
    /// by the nodes that are here, within about a node lease.
    pub async fn settle(&self) {
        let begun = Instant::now();
        let mut is_told = false;
        while !matches!(self.fabric.is_whole().await, Ok(true))
            && begun.elapsed() < self.terms.node_ttl * 7 / 5
        {
            if !std::mem::replace(&mut is_told, true) {
                info!(
                    "Redis was started lately, or has lost data: the doors open when the other nodes had time to tell it who is here"
                );
            }
            sleep(self.terms.node_ttl / 25).await;
            // Should it fail, the next one says so.
            let _ = self.first_beat().await;
        }
        self.hold.first_beat();
    }

    /// Service: renews the node's own lease, and reads those of the nodes that call peers are on.
    pub async fn keep_node(self: Arc<Self>) {
        if !self.hold.has_begun() {
            while self.first_beat().await.is_err() {
                sleep(self.terms.node_ttl / 50).await;
            }
            self.settle().await;
            info!("Redis answers: logins are accepted");
        }
        let mut beat = interval(self.terms.node_ttl / 5);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut outage: Option<Instant> = None;
        let mut suspects: Vec<NodeId> = Vec::new();
        loop {
            beat.tick().await;
            let watched = self.call_nodes.watched(self.terms.user_ttl);
            let whole = self.hold.holds().is_none();
            match self.fabric.beat(&watched, whole).await {
                Ok(found) => {
                    let turn = self.hold.beat(found.own, found.epoch);
                    if let Some(since) = outage.take() {
                        self.tell_everybody(true);
                        info!(
                            outage_seconds = since.elapsed().as_secs_f32(),
                            "The fabric is back"
                        );
                    }
                    if let Turn::Stalled(gap) = turn {
                        if !found.own {
                            suspects = self.call_nodes.named_within(gap + SENT_AGAIN);
                        }
                        self.stalled(gap, found.own);
                    } else if self.hold.holds().is_none() {
                        let suspects = std::mem::take(&mut suspects);
                        for (node, alive) in watched.into_iter().zip(found.alive) {
                            if !alive && suspects.contains(&node) {
                                self.sent_nothing_again(&node);
                            }
                            self.node_found(&node, alive);
                        }
                    }
                }
                Err(error) => {
                    if self.hold.missed() {
                        outage = Some(Instant::now());
                        self.tell_everybody(false);
                        warn!(%error, "The fabric is away: logins and calls to other nodes are refused until it is back. \
                               If it stays so, check that Redis runs and that redis.url is right");
                    }
                    // Whoever waits for it should not wait for the next beat too.
                    sleep(self.terms.node_ttl / 50).await;
                    beat.reset_immediately();
                }
            }
        }
    }

    fn tell_everybody(&self, reached: bool) {
        for mailbox in self.registry.mailboxes() {
            // One that is full ends its session.
            let _ = mailbox.post(Mail::Fabric { reached });
        }
    }

    fn stalled(&self, gap: Duration, own: bool) {
        let gap_seconds = gap.as_secs_f32();
        if own {
            warn!(
                gap_seconds,
                "The fabric stood still: nobody is believed dead until everybody has renewed"
            );
        } else {
            warn!(
                gap_seconds,
                "The fabric has lost this node's lease: nobody is believed dead until everybody has renewed"
            );
        }
        if bugs::has(Bug::Fearless) {
            return;
        }
        self.store_forgot.fetch_or(!own, Ordering::Relaxed);
        self.renew_all.notify_one();
    }

    /// A node died about when the store lost data: what it had sent in its last seconds is sent again by nobody, and may have been for anybody.
    fn sent_nothing_again(&self, node: &NodeId) {
        warn!(node.lost = %node, "A node died when Redis lost data: resumable users are told that they may have missed something");
        for mailbox in self.registry.mailboxes() {
            // One that is full ends its session.
            let _ = mailbox.post(Mail::Missed);
        }
    }

    fn node_found(&self, node: &NodeId, alive: bool) {
        let sessions = self.call_nodes.found(node, alive);
        if sessions.is_empty() || bugs::has(Bug::DeafToDeadNodes) {
            return;
        }
        info!(node.lost = %node, sessions = sessions.len(), "A node died: its users' calls are over");
        for session in sessions {
            self.registry.post(session, Mail::NodeLost(node.clone()));
        }
    }

    /// Service: renews the leases of all users, a group at a time; all of them soon after a stall.
    pub async fn keep_users(self: Arc<Self>) {
        let every = self.terms.user_ttl / 3 / u32::try_from(GROUPS).unwrap_or(1);
        // After a stall the whole round takes 2 s of a node lease of 5 s, at most.
        let longest = every.min(self.terms.node_ttl * 2 / 5 / u32::try_from(GROUPS).unwrap_or(1));
        let (mut hurried, mut hurry, mut forgot) = (longest, 0, false);
        for group in (0..GROUPS).cycle() {
            if hurry == 0 {
                tokio::select! {
                    () = sleep(every) => {}
                    () = self.renew_all.notified() => {
                        hurry = GROUPS;
                        // A few need not wait for their turn as thousands do.
                        let users = u32::try_from(self.registry.seated()).unwrap_or(u32::MAX);
                        let round = RENEWED_EACH.saturating_mul(users);
                        hurried = longest.min(round / u32::try_from(GROUPS).unwrap_or(1));
                        forgot = self.store_forgot.swap(false, Ordering::Relaxed);
                    }
                }
            } else {
                hurry -= 1;
                sleep(hurried.mul_f32(rand::random_range(0.5..1.0))).await;
            }
            // One that fails is tried again: whoever waits for its turn would wait for a third of a lease.
            while self.renew(group, forgot && hurry > 0).await.is_err() {
                sleep(longest.mul_f32(rand::random_range(0.5..1.0))).await;
            }
        }
    }

    /// Renews a group. What belongs to the sessions of a store that has forgotten some of them is written anew for all.
    async fn renew(&self, group: usize, forgot: bool) -> Result<(), FabricError> {
        let (leases, renewing) = self.registry.with_leases(group, GROUPS, |leases| {
            let renewing = (!leases.is_empty()).then(|| self.fabric.renew(leases.clone()));
            (leases, renewing)
        });
        if let Some(renewing) = renewing {
            let results = renewing.await.inspect_err(|error| {
                self.telemetry
                    .metrics
                    .renewed(Renewed::Failed, leases.len());
                debug!(%error, "Leases were not renewed yet");
            })?;
            count(&self.telemetry.metrics, &results);
            tell_losers(&self.registry, leases, &results, forgot);
        }
        Ok(())
    }
}

fn count(metrics: &Metrics, results: &[Renewal]) {
    for (renewal, renewed) in [
        (Renewal::Mine, Renewed::Renewed),
        (Renewal::Regained, Renewed::Regained),
        (Renewal::Replaced, Renewed::Replaced),
        (Renewal::Lost, Renewed::Lost),
    ] {
        let count = results.iter().filter(|result| **result == renewal).count();
        metrics.renewed(renewed, count);
    }
}

fn tell_losers(registry: &Registry, leases: Vec<Lease>, results: &[Renewal], forgot: bool) {
    let regained = results
        .iter()
        .filter(|result| **result == Renewal::Regained)
        .count();
    if regained > 0 {
        warn!(
            regained,
            "The fabric had lost leases of this node: they are taken back"
        );
    }
    for (lease, result) in leases.into_iter().zip(results) {
        let mail = match result {
            Renewal::Regained if lease.flags.resumable => Mail::Regained,
            Renewal::Mine if lease.flags.resumable && forgot => Mail::Regained,
            Renewal::Mine | Renewal::Regained => continue,
            Renewal::Replaced => Mail::Overtaken(lease.attach + 1),
            Renewal::Lost => Mail::NameLost,
        };
        registry.post(lease.session, mail);
    }
}
