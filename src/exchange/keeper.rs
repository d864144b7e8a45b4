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

/// Users are renewed in this many groups, so that their renewals spread over the interval.
const GROUPS: usize = 10;

impl Exchange {
    /// Takes the node's own lease: nobody can log in before.
    pub async fn first_beat(&self) -> Result<(), FabricError> {
        self.fabric.beat(&[]).await?;
        self.hold.first_beat();
        Ok(())
    }

    /// Service: renews the node's own lease, and reads those of the nodes that call peers are on.
    pub async fn keep_node(self: Arc<Self>) {
        let mut beat = interval(self.terms.node_ttl / 5);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut outage: Option<Instant> = None;
        loop {
            beat.tick().await;
            let watched = self.call_nodes.watched(self.terms.user_ttl);
            match self.fabric.beat(&watched).await {
                Ok(found) => {
                    let turn = self.hold.beat(found.own);
                    if let Some(since) = outage.take() {
                        self.tell_everybody(true);
                        info!(
                            outage_seconds = since.elapsed().as_secs_f32(),
                            "The fabric is back"
                        );
                    }
                    if let Turn::Stalled(gap) = turn {
                        self.stalled(gap, found.own);
                    } else if self.hold.holds().is_none() {
                        for (node, alive) in watched.into_iter().zip(found.alive) {
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
        let hurried = every.min(self.terms.node_ttl * 2 / 5 / u32::try_from(GROUPS).unwrap_or(1));
        let (mut hurry, mut forgot) = (0, false);
        for group in (0..GROUPS).cycle() {
            if hurry == 0 {
                tokio::select! {
                    () = sleep(every) => {}
                    () = self.renew_all.notified() => {
                        hurry = GROUPS;
                        forgot = self.store_forgot.swap(false, Ordering::Relaxed);
                    }
                }
            } else {
                hurry -= 1;
                sleep(hurried.mul_f32(rand::random_range(0.5..1.0))).await;
            }
            // One that fails is tried again: whoever waits for its turn would wait for a third of a lease.
            while self.renew(group, forgot && hurry > 0).await.is_err() {
                sleep(hurried.mul_f32(rand::random_range(0.5..1.0))).await;
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
                debug!(%error, "Leases were not renewed yet");
            })?;
            tell_losers(&self.registry, leases, &results, forgot);
        }
        Ok(())
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
            Renewal::Replaced => Mail::Replaced(lease.attach + 1),
            Renewal::Lost => Mail::NameLost,
        };
        registry.post(lease.session, mail);
    }
}
