//! Handles mail, deadlines, and the loss of the connection.

use tokio::time::Instant;

use super::{Action, Effect, SYNC_AGAIN, SYNCS, State};
use crate::broker::{BrokerError, Entry, Verdict};
use crate::bugs::{self, Bug};
use crate::model::{CloseReason, Event};
use crate::router::Mail;

impl State {
    /// Does everything that is due.
    pub(super) fn do_due(&mut self) {
        let now = self.moment.now;
        let is_due = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        if is_due(self.outbox.retry_at) {
            self.retry();
            self.save_again();
        }
        if is_due(self.sync_at) {
            self.sync_at = None;
            self.sync_all();
            if self.syncs_left > 0 {
                self.syncs_left -= 1;
                self.sync_at = Some(now + SYNC_AGAIN);
            }
        }
        if is_due(self.offline.as_ref().and_then(|offline| offline.look_at)) {
            self.look_up();
        }
        if is_due(self.lost.next_at()) {
            let peers = self.lost.take_due(now);
            self.effects.push(Effect::FindPeers(peers));
        }
    }

    pub(super) fn read_mail(&mut self, mail: Mail) {
        match mail {
            Mail::Direct(envelope) => {
                self.deliver(envelope, None);
            }
            // The next connection finds it in the inbox.
            Mail::Push(_) | Mail::Gap if self.catch_up.is_stopped() => {}
            Mail::Push(entries) => {
                for entry in entries {
                    if let Some(entry) = self.catch_up.push(entry) {
                        self.deliver_entry(entry);
                    }
                }
            }
            // A plain session has no inbox: what it missed is lost.
            Mail::Gap if self.record.is_none() => {
                self.tell_missed();
                // A `leave` may be among it, so ask the call peers.
                self.syncs_left = SYNCS;
                self.sync_at = Some(self.moment.now);
            }
            Mail::Gap => self.catch_up.gap(&mut self.effects),
            Mail::NodeLost(node) => self.node_lost(&node),
            Mail::NameLost => self.actions.push(Action::End(CloseReason::NameLost)),
            Mail::Ended(reason) => self.actions.push(Action::End(reason)),
            Mail::Replaced(_) | Mail::Overtaken(_) if bugs::has(Bug::ReplacedUntold) => {}
            // Checked at the end of the grace, when it matters whether that connection exists.
            Mail::Overtaken(_) if self.is_detached => {}
            Mail::Replaced(generation) | Mail::Overtaken(generation)
                if generation > self.lease.generation =>
            {
                self.actions.push(Action::End(CloseReason::Replaced));
            }
            Mail::Replaced(_) | Mail::Overtaken(_) => {}
            Mail::NewEpoch(epoch) => self.new_epoch(epoch),
            Mail::Regained(epoch) => self.regained(epoch),
            Mail::Challenge(question) => {
                self.challenges.push(question);
                self.actions.push(Action::Challenge);
            }
            Mail::Looked(found) => self.looked_up(found),
            Mail::Presence(users) => self.tell(Event::Presence { users, id: None }),
            Mail::Broker { reached } => {
                self.mark(if reached {
                    "broker ok"
                } else {
                    "broker degraded"
                });
                self.tell(Event::Status {
                    reached,
                    missed: false,
                });
            }
        }
    }

    /// Handles a mailbox overflow. It does no harm to a detached session: everything is in the inbox.
    pub(super) fn overflow(&mut self) {
        if !self.is_detached {
            self.actions.push(Action::End(CloseReason::TooSlow));
        } else if !self.catch_up.is_stopped() {
            self.catch_up.gap(&mut self.effects);
        }
    }

    pub(super) fn detach(&mut self) {
        self.mark("detached");
        self.lease.flags.detached = true;
        self.is_detached = true;
        self.answer_challenges(Verdict::Detached);
        if let Some(record) = &mut self.record {
            record.detached();
        }
        self.catch_up.stop();
        self.effects.push(Effect::StopReading);
        self.save();
    }

    /// The inbox was read, or could not be.
    pub(super) fn inbox_read(&mut self, result: Result<Vec<Entry>, BrokerError>) {
        for entry in self.catch_up.caught(result, &mut self.effects) {
            self.deliver_entry(entry);
        }
        self.caught_up();
    }

    /// Called when the inbox was read or need not be. Tells the client if it may have missed something, and saves the
    /// confirmation of entries that the client saw on an earlier connection.
    pub(super) fn caught_up(&mut self) {
        let Some(record) = self.record.as_mut().filter(|_| !self.is_detached) else {
            return;
        };
        let tells = self.catch_up.is_level() && record.tells_missed();
        let frees = record.frees();
        if tells {
            self.tell_missed();
        }
        // Saved before the client is told the rest: if it resumes without a `last`, it must not be told again what it
        // has confirmed.
        if frees {
            self.save();
        }
    }
}
