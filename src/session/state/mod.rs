//! The state of one session: what it has received, sent and promised, without socket, broker or clock.
//!
//! [`State::on`] handles one [`Input`] at one [`Moment`]. It leaves the consequences in two lists: [`Action`]s for the
//! client's connection, and [`Effect`]s for the broker and the node. The session's runner executes both, and reports
//! the results of effects as further inputs. So every promise of a session can be tested without a server.

mod call;
mod call_changes;
mod calls;
mod catch_up;
mod dedup;
mod deliver;
mod endings;
mod events;
mod happenings;
mod held_back;
mod io;
mod lost_peers;
mod notice;
mod offline;
mod offline_queue;
mod outbox;
mod outcomes;
mod record;
mod report;
mod save;
mod tell;
mod trace;
mod trace_events;
mod view;
mod watches;

#[cfg(test)]
mod histories;

pub use io::{Action, Effect, FoundPeer, Input, Moment, SessionPolicy};
pub use lost_peers::LostPeer;
pub(super) use outbox::{RETRY_NOTICE, RETRY_SEND};

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use self::calls::Calls;
use self::catch_up::CatchUp;
use self::dedup::Dedup;
use self::lost_peers::LostPeers;
use self::offline_queue::OfflineQueue;
use self::outbox::Outbox;
use self::record::Record;
use crate::broker::{Lease, Question, Resumed, Sender, Verdict};
use crate::bugs::{self, Bug};
use crate::model::{
    AckStatus, Address, Claims, Correlation, Event, LeaveReason, LeaveTarget, NodeId, Offset,
    Secret, SecretHash, UserName,
};
use crate::router::LocalNode;

/// How often a plain session that missed signals asks its call peers whether they still have the call.
const SYNCS: u8 = 3;
/// The pause between two of these rounds.
const SYNC_AGAIN: Duration = Duration::from_millis(500);

/// The state of a logged-in session.
#[derive(Debug)]
pub struct State {
    node: Arc<LocalNode>,
    lease: Lease,
    /// The sender that our envelopes name.
    sender: Arc<Sender>,
    calls: Calls,
    dedup: Dedup,
    catch_up: CatchUp,
    outbox: Outbox,
    lost: LostPeers,
    policy: SessionPolicy,
    /// What the client's token says, if it has one.
    claims: Option<Arc<Claims>>,
    /// Signals to absent users, if the policy lets them wait.
    offline: Option<Box<OfflineQueue>>,
    /// What the next connection must know; `None` for a plain session.
    record: Option<Box<Record>>,
    /// Of an HTTP session: whom its client watches.
    watched: BTreeSet<UserName>,
    is_detached: bool,
    /// The store's epoch when the session began or was last told that it may have missed something.
    epoch: u64,
    /// When to ask each call peer whether it still has the call.
    sync_at: Option<Instant>,
    /// How many more rounds to ask.
    syncs_left: u8,
    /// Challenges that are not answered yet.
    challenges: Vec<Question>,
    moment: Moment,
    actions: Vec<Action>,
    effects: Vec<Effect>,
}

impl State {
    /// Creates the state of a session that has just won its name. With a secret it is resumable.
    pub fn new(
        node: Arc<LocalNode>,
        lease: Lease,
        secret: Option<(Option<Secret>, SecretHash)>,
        epoch: u64,
        moment: Moment,
    ) -> Self {
        let sender = Sender::new(
            lease.address.clone(),
            lease.session,
            lease.generation,
            node.id.clone(),
        );
        let record = secret.map(|(secret, hash)| Box::new(Record::new(secret, hash)));
        Self {
            calls: Calls::new((lease.session, lease.generation), Arc::clone(&node)),
            sender: Arc::new(sender),
            dedup: Dedup::default(),
            catch_up: CatchUp::default(),
            outbox: Outbox::of(lease.generation),
            lost: LostPeers::default(),
            policy: SessionPolicy::default(),
            claims: None,
            offline: None,
            record,
            watched: BTreeSet::new(),
            is_detached: false,
            epoch,
            sync_at: None,
            syncs_left: 0,
            challenges: Vec::new(),
            moment,
            actions: Vec::new(),
            effects: Vec::new(),
            node,
            lease,
        }
    }

    /// Restores the state of a session from what its last holder saved. Tells the call peers where the session is now,
    /// and reads the inbox entries that the client may not have seen. `last` is the last entry that the client has, if
    /// it says so.
    pub fn resume(
        node: Arc<LocalNode>,
        resumed: &Resumed,
        (secret, hash): (Option<Secret>, SecretHash),
        last: Option<Offset>,
        epoch: u64,
        moment: Moment,
    ) -> Self {
        let mut state = Self::new(node, resumed.lease.clone(), None, epoch, moment);
        let (calls, dedup) = (&mut state.calls, &mut state.dedup);
        let record = Record::restore(secret, hash, resumed, last, calls, dedup);
        state.record = Some(Box::new(record));
        state.restore_offline(&resumed.fields);
        state.restore_watches(&resumed.fields);
        let read = state.catch_up.begin(resumed.confirmed.all);
        state.effects.push(read);
        state.leave_again();
        state.sync_all();
        state
    }

    /// Handles one input. The consequences are taken with [`take_actions`](Self::take_actions) and
    /// [`take_effects`](Self::take_effects).
    pub fn on(&mut self, input: Input, moment: Moment) {
        self.moment = moment;
        match input {
            Input::Send {
                to,
                signal,
                trace,
                id,
                if_absent,
            } => self.send(to, signal, trace, id, if_absent),
            Input::Refused { to, id, why } => self.hold_back(&to, id.as_ref(), &why),
            Input::Leave { whom, id } => self.leave(whom, id),
            Input::Report { with, report, id } => self.report(&with, report, id),
            Input::Confirm(last) => self.app_confirms(last),
            Input::Pinged(ping) => self.pinged(ping),
            Input::Ponged(ping) => self.ponged(ping),
            Input::Answer(verdict) => self.answer_challenges(verdict),
            Input::Mail(mail) => self.read_mail(mail),
            Input::Overflow => self.overflow(),
            Input::Outcome(answer) => self.settle(answer),
            Input::InboxRead(result) => self.inbox_read(result),
            Input::Saved(number, result) => self.saved(number, result),
            Input::PeersFound(found) => self.peers_found(found),
            Input::Due => self.do_due(),
            Input::Regained(epoch) => self.regained(epoch),
            Input::Detach => self.detach(),
            Input::Retry => {
                self.retry();
                self.save_again();
            }
            Input::Save => self.save(),
            Input::Entries(entries) => self.deliver_entries(entries),
            Input::End(reason) => self.end(reason),
            Input::GiveUp { absent } => self.outbox.give_up(absent, moment.now),
        }
        if self.is_detached {
            self.save_news();
        }
        if bugs::has(Bug::ConfirmsUnheard) {
            self.confirm(self.catch_up.last());
        }
    }

    /// Takes the actions for the client's connection, in order.
    pub fn take_actions(&mut self) -> Vec<Action> {
        std::mem::take(&mut self.actions)
    }

    /// Takes the effects for the broker and the node, in order.
    pub fn take_effects(&mut self) -> Vec<Effect> {
        std::mem::take(&mut self.effects)
    }

    /// Ends the call with one user, or all calls. A user who is in no call with us is told nothing.
    fn leave(&mut self, whom: LeaveTarget, id: Option<Correlation>) {
        let mut peers = match whom {
            LeaveTarget::Peer(peer) => vec![peer],
            LeaveTarget::All => self.calls.peers(),
            LeaveTarget::None => Vec::new(),
        };
        peers.retain(|peer| self.calls.get(peer).is_some());
        let last = peers.pop();
        for peer in peers {
            self.leave_one(&peer, LeaveReason::Hangup, None);
        }
        match (last, id) {
            (Some(peer), id) => self.leave_one(&peer, LeaveReason::Hangup, id),
            (None, Some(id)) => self.tell_in_order(Event::Ack {
                id,
                status: AckStatus::Delivered,
            }),
            (None, None) => {}
        }
    }

    fn pinged(&mut self, ping: u64) {
        if let Some(record) = &mut self.record {
            record.pinged(ping);
        }
    }

    fn ponged(&mut self, ping: u64) {
        let record = self.record.as_mut();
        if let Some(last) = record.and_then(|record| record.ponged(ping)) {
            self.confirm(last);
        }
    }

    fn app_confirms(&mut self, last: Offset) {
        if let Some(record) = &mut self.record {
            record.app_confirms();
        }
        self.confirm(last);
    }

    fn confirm(&mut self, last: Offset) {
        if let Some(record) = &mut self.record {
            record.confirm(last);
            if record.frees() {
                self.save();
            }
        }
    }

    fn end(&mut self, reason: LeaveReason) {
        // The offline queue ends with the session.
        self.offline = None;
        for peer in self.calls.peers() {
            self.leave_for_good(&peer, reason);
        }
    }

    /// Whether a node waits to hear if this session still answers.
    pub fn is_challenged(&self) -> bool {
        !self.challenges.is_empty()
    }

    fn answer_challenges(&mut self, verdict: Verdict) {
        for question in self.challenges.drain(..) {
            self.effects.push(Effect::Answer(question, verdict));
        }
    }

    fn address_of(&self, name: &UserName) -> Address {
        Address::new(self.lease.address.realm.clone(), name.clone())
    }

    /// Whether this node may be alive. The node monitor reads its lease from now on.
    fn believes_in(&self, node: &NodeId) -> bool {
        *node == self.node.id || !self.node.peers.note(node) || self.moment.guard.is_some()
    }
}
