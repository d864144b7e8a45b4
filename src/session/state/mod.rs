//! One session as plain state: what it hears, sends, remembers and owes. No socket, no broker, no clock.
//!
//! [`State::on`] takes one [`Input`] and the [`Moment`] at which it comes. What follows is left in two lists: [`Action`]s for the client's
//! connection, and [`Effect`]s for the broker and the node. The session's [runner](super::runner) takes both, and reports the results of
//! effects as further inputs. So every promise of a session can be tested without a server.

mod calls;
mod catch_up;
mod dedup;
mod deliver;
mod endings;
mod lost_peers;
mod offline;
mod outbox;
mod record;
mod save;
mod trace;

pub use lost_peers::LostPeer;
pub(super) use outbox::RETRY_NOTICE;

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use self::calls::Calls;
use self::catch_up::CatchUp;
use self::dedup::Dedup;
use self::lost_peers::LostPeers;
use self::offline::OfflineQueue;
use self::outbox::Outbox;
use self::record::Record;
use crate::broker::{
    Answer, BrokerError, Entry, Envelope, Holder, Lease, Question, RecordUpdate, Resumed,
    SendOptions, Sender, Verdict,
};
use crate::bugs::{self, Bug};
use crate::model::{
    AckStatus, Address, CloseReason, Correlation, Event, IfAbsent, LeaveReason, NodeId, Offset,
    Report, Secret, SecretHash, Signal, TraceContext, UserName, Whom,
};
use crate::router::{LocalNode, Mail};
use crate::telemetry::CallSpan;

/// How often a plain session asks its call peers again whether they still have the call, after it missed signals…
const SYNCS: u8 = 3;
/// …and the pause between two times.
const SYNC_AGAIN: Duration = Duration::from_millis(500);

/// The state of one session that is logged in.
#[derive(Debug)]
pub struct State {
    node: Arc<LocalNode>,
    lease: Lease,
    /// This session, as the envelopes that it sends name it.
    sender: Arc<Sender>,
    calls: Calls,
    dedup: Dedup,
    catch_up: CatchUp,
    outbox: Outbox,
    lost: LostPeers,
    policy: SessionPolicy,
    /// Signals for users who are not here, of a session whose policy lets them wait.
    offline: Option<Box<OfflineQueue>>,
    /// Of a resumable session: what its next connection must know.
    record: Option<Box<Record>>,
    is_detached: bool,
    /// The store's epoch in which the session began, or was last told that it may have missed something.
    epoch: u64,
    /// When to ask each call peer whether it still has the call.
    sync_at: Option<Instant>,
    /// How many more times to ask.
    syncs_left: u8,
    /// Nodes that ask whether this session still answers.
    challenges: Vec<Question>,
    moment: Moment,
    actions: Vec<Action>,
    effects: Vec<Effect>,
}

/// What holds while one input is handled.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// The time.
    pub now: Instant,
    /// While the expiry guard holds, for how much longer: nobody is believed dead.
    pub guard: Option<Duration>,
}

/// How sessions of one protocol differ from native ones.
#[derive(Clone, Copy, Debug, Default)]
pub struct SessionPolicy {
    /// How long a session survives without a connection, at most; `None`: as long as the node allows.
    pub grace: Option<Duration>,
    /// How long its signals wait for users who are not here; zero: not at all.
    pub offline_ttl: Duration,
    /// Whether an offer or an answer is confirmed at once, since its client cannot say what it has seen and minds a repetition.
    pub confirms_calls: bool,
}

/// Something that happens to a session.
#[derive(Debug)]
pub enum Input {
    /// The client sends a signal.
    Send {
        /// To whom.
        to: UserName,
        /// What.
        signal: Signal,
        /// The trace that the client is in.
        trace: Option<TraceContext>,
        /// How the client calls it, if it wants an answer.
        id: Option<Correlation>,
        /// What becomes of it if nobody has the name.
        if_absent: IfAbsent,
    },
    /// The client ends calls.
    Leave {
        /// Which.
        whom: Whom,
        /// How the client calls this, if it wants an answer.
        id: Option<Correlation>,
    },
    /// The client tells how its connection to a call peer is.
    Report {
        /// The peer.
        with: UserName,
        /// How it is.
        report: Report,
        /// How the client calls this, if it wants an answer.
        id: Option<Correlation>,
    },
    /// The client has everything of its inbox up to here.
    Confirm(Offset),
    /// The client was sent this ping, behind everything that it was told.
    Pinged(u64),
    /// The client has answered this ping.
    Ponged(u64),
    /// Whether the session still answers, for the nodes that have asked.
    Answer(Verdict),
    /// Mail from other sessions and from the node.
    Mail(Mail),
    /// More mail came than the mailbox holds.
    Overflow,
    /// The outcome of the earliest send whose outcome is not known.
    Outcome(Answer),
    /// The answer to [`Effect::Read`].
    InboxRead(Result<Vec<Entry>, BrokerError>),
    /// The answer to [`Effect::Save`] of this number: whether the session was still ours.
    Saved(u64, Result<bool, BrokerError>),
    /// The answer to [`Effect::FindPeers`].
    PeersFound(Vec<FoundPeer>),
    /// The time of [`State::next_at`] has come.
    Due,
    /// The store has forgotten the lease, in this epoch.
    Forgotten(u64),
    /// The connection is gone; the session waits for its client to come back.
    Detach,
    /// The node stops, or cannot reach the broker: what is not written or did not arrive is tried again now.
    Retry,
    /// The record is to be updated now.
    Save,
    /// These entries of the inbox were read, from where the session has read to.
    Entries(Vec<Entry>),
    /// The session ends: each call ends, for this reason.
    End(LeaveReason),
    /// Words that must arrive are given up if their receivers' nodes have not listened for a while, and if their receivers are `absent` from a
    /// store that knows everybody.
    GiveUp {
        /// Whether the store knows everybody.
        absent: bool,
    },
}

/// A lost call peer, whether its node lives, and who holds its name.
pub type FoundPeer = (LostPeer, bool, Option<Holder>);

/// What to do with the client's connection, in order.
#[derive(Debug)]
pub enum Action {
    /// Tell the client.
    Tell(Event),
    /// End this span when everything before it is written.
    EndSpan(CallSpan),
    /// Find out whether the client still answers: somebody wants its name.
    Challenge,
    /// Ping the client: its pong confirms what it was told before.
    Ping,
    /// Close the connection.
    End(CloseReason),
}

/// What to do at the broker or the node, in order.
#[derive(Debug)]
pub enum Effect {
    /// Send an envelope; the outcome comes as [`Input::Outcome`].
    Send {
        /// To whom.
        to: Address,
        /// How.
        options: SendOptions,
        /// What.
        envelope: Box<Envelope>,
        /// A success needs no attention of its own.
        is_quiet: bool,
        /// The time of the outcome matters.
        is_timed: bool,
    },
    /// Update the session's record. With a number, the result comes as [`Input::Saved`].
    Save(Option<u64>, Box<RecordUpdate>),
    /// Read the inbox behind this entry after a pause; the result comes as [`Input::InboxRead`]. Replaces a read under way.
    Read(Offset, Duration),
    /// Give up the read under way.
    StopReading,
    /// Look who holds the names of these peers; the result comes as [`Input::PeersFound`].
    FindPeers(Vec<LostPeer>),
    /// Look who holds this name; the result comes as mail.
    LookUp(Address),
    /// Free the name of a holder that is dead. Should it fail, the lease runs out.
    Release(Address, Holder),
    /// Answer a node that asks whether the session still answers.
    Answer(Question, Verdict),
}

impl State {
    /// A session that has just won its name, in this epoch of the store. With a secret it is resumable.
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
            calls: Calls::new(lease.session, Arc::clone(&node)),
            sender: Arc::new(sender),
            dedup: Dedup::default(),
            catch_up: CatchUp::default(),
            outbox: Outbox::of(lease.generation),
            lost: LostPeers::default(),
            policy: SessionPolicy::default(),
            offline: None,
            record,
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

    /// A session that goes on where an earlier connection of it ended: it tells its call peers where it is, and reads what its client may not
    /// have seen. `last` is the last entry that the client has, if it says so.
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
        let read = state.catch_up.begin(resumed.confirmed.all);
        state.effects.push(read);
        state.sync_all();
        state
    }

    /// Handles one input. What follows from it is [taken](Self::take_actions) [afterwards](Self::take_effects).
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
            Input::Leave { whom, id } => self.leave(whom, id),
            Input::Report { with, report, id } => self.report(&with, report, id),
            Input::Confirm(last) => self.confirm(last),
            Input::Pinged(ping) => {
                if let Some(record) = &mut self.record {
                    record.pinged(ping);
                }
            }
            Input::Ponged(ping) => {
                let record = self.record.as_mut();
                if let Some(last) = record.and_then(|record| record.ponged(ping)) {
                    self.confirm(last);
                }
            }
            Input::Answer(verdict) => self.answer_challenges(verdict),
            Input::Mail(mail) => self.read(mail),
            Input::Overflow => self.overflow(),
            Input::Outcome(answer) => self.settle(answer),
            Input::InboxRead(result) => {
                for entry in self.catch_up.caught(result, &mut self.effects) {
                    self.deliver_entry(entry);
                }
                self.caught_up();
            }
            Input::Saved(number, result) => self.saved(number, result),
            Input::PeersFound(found) => {
                self.lost.found();
                for (peer, node_lives, holder) in found {
                    self.found(peer, node_lives, holder);
                }
            }
            Input::Due => self.do_due(),
            Input::Forgotten(epoch) => self.forgotten(epoch),
            Input::Detach => self.detach(),
            Input::Retry => {
                self.retry();
                self.save_again();
            }
            Input::Save => self.save(),
            Input::Entries(entries) => {
                for entry in entries {
                    if let Some(entry) = self.catch_up.advance(entry) {
                        self.deliver_entry(entry);
                    }
                }
            }
            Input::End(reason) => self.end(reason),
            Input::GiveUp { absent } => {
                self.outbox.give_up_on_unheard(moment.now);
                if absent {
                    self.outbox.give_up_on_absent();
                }
            }
        }
        if self.is_detached {
            self.save_news();
        }
        if bugs::has(Bug::ConfirmsUnheard) {
            self.confirm(self.catch_up.last());
        }
    }

    /// What the client's connection is to do, in order.
    pub fn take_actions(&mut self) -> Vec<Action> {
        std::mem::take(&mut self.actions)
    }

    /// What the broker and the node are to do, in order.
    pub fn take_effects(&mut self) -> Vec<Effect> {
        std::mem::take(&mut self.effects)
    }

    /// Whether there are any.
    pub fn has_actions(&self) -> bool {
        !self.actions.is_empty()
    }

    /// Whether there are any.
    pub fn has_effects(&self) -> bool {
        !self.effects.is_empty()
    }

    /// When [`Input::Due`] is due.
    pub fn next_at(&self) -> Option<Instant> {
        let look_at = self.offline.as_ref().and_then(|offline| offline.look_at);
        let times = [
            self.outbox.retry_at,
            self.sync_at,
            look_at,
            self.lost.next_at(),
        ];
        times.into_iter().flatten().min()
    }

    /// Whether the client is not to be heard now: as many sends wait for their outcome as may, or the inbox of a resumed session was not read
    /// yet, which may tell of the call that the client speaks of.
    pub fn is_busy(&self) -> bool {
        let queued = self.offline.as_ref().map_or(0, |offline| offline.queued());
        self.outbox.is_busy(queued) || self.catch_up.is_beginning()
    }

    /// Sets how sessions of its protocol are.
    pub fn set_policy(&mut self, policy: SessionPolicy) {
        self.policy = policy;
    }

    /// The hold on the name.
    pub fn lease(&self) -> &Lease {
        &self.lease
    }

    /// How long the session survives without a connection.
    pub fn grace(&self) -> Duration {
        let longest = self.node.terms.grace;
        let own = self.policy.grace;
        own.map_or(longest, |grace| grace.min(longest))
    }

    /// What resumes the session, if it is resumable and its client is to be told.
    pub fn secret(&self) -> Option<&Secret> {
        self.record.as_ref()?.secret()
    }

    /// What the store keeps of the secret.
    pub fn secret_hash(&self) -> Option<&SecretHash> {
        self.record.as_ref().map(|record| record.hash())
    }

    /// The last entry that the client was told of and has confirmed.
    pub fn confirmed(&self) -> Offset {
        let record = self.record.as_ref();
        record.map_or_else(Offset::default, |record| record.confirmed_told())
    }

    /// Whether the session outlives its connection.
    pub fn is_resumable(&self) -> bool {
        self.record.is_some()
    }

    /// Whether the client should be pinged, so that it confirms what it was told.
    pub fn wants_ping(&self) -> bool {
        self.record.as_ref().is_some_and(|record| record.asks())
    }

    /// Whether everything that was sent has arrived, or need not.
    pub fn is_settled(&self) -> bool {
        self.outbox.is_settled()
    }

    /// The last entry of the inbox that was handled.
    pub fn read_to(&self) -> Offset {
        self.catch_up.last()
    }

    /// Whether nothing that was sent waits for its outcome.
    pub fn is_quiet(&self) -> bool {
        self.outbox.is_quiet()
    }

    /// Ends the call with one user, or with all. Somebody who is in no call with us is told nothing.
    fn leave(&mut self, whom: Whom, id: Option<Correlation>) {
        let mut peers = match whom {
            Whom::One(peer) => vec![peer],
            Whom::Everybody => self.calls.peers(),
            Whom::Nobody => Vec::new(),
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

    fn confirm(&mut self, last: Offset) {
        if let Some(record) = &mut self.record {
            record.confirm(last);
            if record.frees() {
                self.save();
            }
        }
    }

    /// Does what was put off until now.
    fn do_due(&mut self) {
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

    fn read(&mut self, mail: Mail) {
        match mail {
            Mail::Direct(envelope) => {
                self.deliver(envelope, None);
            }
            // Whoever resumes finds it in the inbox.
            Mail::Push(_) | Mail::Gap if self.catch_up.is_stopped() => {}
            Mail::Push(entries) => {
                for entry in entries {
                    if let Some(entry) = self.catch_up.push(entry) {
                        self.deliver_entry(entry);
                    }
                }
            }
            // What is not stored is lost.
            Mail::Gap if self.record.is_none() => {
                self.tell_missed();
                // What is sent to a plain peer may be missed too.
                self.syncs_left = SYNCS;
                self.sync_at = Some(self.moment.now);
            }
            Mail::Gap => self.catch_up.gap(&mut self.effects),
            Mail::NodeLost(node) => self.node_lost(&node),
            Mail::NameLost => self.actions.push(Action::End(CloseReason::NameLost)),
            Mail::Replaced(_) | Mail::Overtaken(_) if bugs::has(Bug::ReplacedUntold) => {}
            // At the end of the grace it is seen whether anybody holds it.
            Mail::Overtaken(_) if self.is_detached => {}
            Mail::Replaced(generation) | Mail::Overtaken(generation)
                if generation > self.lease.generation =>
            {
                self.actions.push(Action::End(CloseReason::Replaced));
            }
            Mail::Replaced(_) | Mail::Overtaken(_) => {}
            Mail::Regained(epoch) => self.forgotten(epoch),
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

    /// More mail came than the mailbox holds. Without a connection that is no harm: everything is in the inbox.
    fn overflow(&mut self) {
        if !self.is_detached {
            self.actions.push(Action::End(CloseReason::TooSlow));
        } else if !self.catch_up.is_stopped() {
            self.catch_up.gap(&mut self.effects);
        }
    }

    fn detach(&mut self) {
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

    fn end(&mut self, reason: LeaveReason) {
        // Nothing waits for anybody any more.
        self.offline = None;
        for peer in self.calls.peers() {
            self.leave_for_good(&peer, reason);
        }
    }

    fn answer_challenges(&mut self, verdict: Verdict) {
        for question in self.challenges.drain(..) {
            self.effects.push(Effect::Answer(question, verdict));
        }
    }

    /// The inbox was read, or need not be: what an earlier connection's client has seen needs no confirmation any more, and the client is told
    /// of what it may never see.
    fn caught_up(&mut self) {
        let Some(record) = self.record.as_mut().filter(|_| !self.is_detached) else {
            return;
        };
        let tells = self.catch_up.is_level() && record.tells_missed();
        let frees = record.frees();
        if tells {
            self.tell_missed();
        }
        // Before the client is told the rest: should it come again without a `last`, it is not told what it has said that it has.
        if frees {
            self.save();
        }
    }

    fn is_patient(&self) -> bool {
        !self.policy.offline_ttl.is_zero()
    }

    fn address_of(&self, name: &UserName) -> Address {
        Address::new(self.lease.address.realm.clone(), name.clone())
    }

    /// Whether this node may live, and its sessions with it. From here on its lease is read with every beat for a while.
    fn believes_in(&self, node: &NodeId) -> bool {
        *node == self.node.id || !self.node.peers.note(node) || self.moment.guard.is_some()
    }

    fn tell(&mut self, event: Event) {
        self.actions.push(Action::Tell(event));
    }

    /// Tells the client that signals to it may be lost.
    fn tell_missed(&mut self) {
        if !bugs::has(Bug::MissedNotTold) {
            self.tell(Event::Status {
                reached: true,
                missed: true,
            });
        }
    }

    fn tell_left(&mut self, peer: &UserName, reason: LeaveReason, seq: Option<Offset>) {
        self.tell(left(peer, reason, seq));
    }
}

fn left(peer: &UserName, reason: LeaveReason, seq: Option<Offset>) -> Event {
    Event::Left {
        from: peer.clone(),
        reason,
        seq,
    }
}

fn acknowledged(id: Correlation, status: AckStatus) -> Event {
    Event::Ack { id, status }
}
