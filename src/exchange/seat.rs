//! A seat: the proof that a session has logged in, and the guard of its leaving.
//!
//! Whoever has one may send; whoever gives it up ends its calls, each with exactly one `leave`, and then its name.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::Exchange;
use super::calls::Calls;
use super::catch_up::CatchUp;
use super::heard::Heard;
use super::lost::{Answer, LostPeers};
use super::mailbox::{Letterbox, Mail};
use super::memory::{Memory, Noted};
use super::outbox::{Notice, Outbox};
use super::waits::Waits;
use crate::bugs::{self, Bug};
use crate::fabric::{Entry, FabricError, Lease, Parcel, Question, Resumed, Sender, Verdict};
use crate::model::{
    AckStatus, Address, CloseReason, Correlation, EntryId, Event, LeaveReason, NodeId, Refusal,
    Secret, SecretHash, SessionId, UserName, Whom,
};
use crate::telemetry::CallSpan;

/// How often call peers are asked again whether they still have the call, after signals to a plain session were missed…
const SYNCS: u8 = 3;
/// …and how long to rest between two times.
const SYNC_AGAIN: Duration = Duration::from_millis(500);

/// One session's place at the exchange.
#[derive(Debug)]
pub struct Seat {
    pub(super) exchange: Arc<Exchange>,
    pub(super) lease: Lease,
    /// This session, as what it sends names it.
    pub(super) sender: Arc<Sender>,
    pub(super) letterbox: Letterbox,
    pub(super) calls: Calls,
    pub(super) heard: Heard,
    pub(super) catch_up: CatchUp,
    pub(super) outbox: Outbox,
    pub(super) lost: LostPeers,
    pub(super) manners: Manners,
    /// Of a session that waits for users who are not here.
    pub(super) waits: Option<Box<Waits>>,
    /// Of a resumable session.
    pub(super) memory: Option<Box<Memory>>,
    /// There is no connection any more.
    pub(super) is_detached: bool,
    /// The epoch of the store in which this session was told that it may have missed something, or began.
    pub(super) epoch: u64,
    /// When each call peer is asked whether it still has the call, after the store has lost data.
    pub(super) sync_at: Option<Instant>,
    /// How often they are asked again.
    pub(super) syncs_left: u8,
    /// Who wants to know whether this session still answers.
    pub(super) doubts: Vec<Question>,
    /// Since when the mail waited that is being told, if that is timed.
    pub(super) since: Option<std::time::Instant>,
}

/// Something happened at the exchange; [`Seat::stir`] says what it means.
#[derive(Debug)]
pub enum Stirred {
    /// Mail has come.
    Mail,
    /// An outcome is known.
    Outcome,
    /// The inbox was read.
    Caught(Result<Vec<Entry>, FabricError>),
    /// It is known whether something was written down.
    Noted(Noted),
    /// It is known what became of call peers whose node died.
    Found(Answer),
    /// It is time for something that was put off.
    Due,
}

/// How the sessions of a language differ from native ones.
#[derive(Clone, Copy, Debug, Default)]
pub struct Manners {
    /// How long one survives without a connection; `None`: as long as any. Never longer than that.
    pub grace: Option<Duration>,
    /// How long its signals wait for users who are not here, if they do.
    pub patience: Duration,
    /// Its client cannot tell what it has seen, and minds hearing an offer or an answer twice: each is confirmed at once.
    pub confirms_calls: bool,
}

/// What something that happened means for the conversation.
#[derive(Debug)]
pub enum Turn {
    /// Tell the client.
    Tell(Event),
    /// What was told before was a part of this: it ends when that is written.
    Traced(CallSpan),
    /// Find out whether the client still answers: somebody wants its name.
    Doubted,
    /// Ping the client: its answer confirms what it was told.
    Ask,
    /// The conversation is over.
    End(CloseReason),
}

impl Seat {
    pub(super) fn new(
        exchange: Arc<Exchange>,
        lease: Lease,
        letterbox: Letterbox,
        secret: Option<(Secret, SecretHash)>,
    ) -> Self {
        let calls = Calls::new(
            lease.session,
            exchange.node.clone(),
            Arc::clone(&exchange.call_nodes),
        );
        let sender = Sender::new(
            lease.address.clone(),
            lease.session,
            lease.attach,
            exchange.node.clone(),
        );
        Self {
            sender: Arc::new(sender),
            letterbox,
            calls,
            heard: Heard::default(),
            catch_up: CatchUp::default(),
            outbox: Outbox::of(lease.attach),
            lost: LostPeers::default(),
            manners: Manners::default(),
            waits: None,
            memory: secret.map(|(secret, hash)| Box::new(Memory::new(Some(secret), hash))),
            is_detached: false,
            epoch: *exchange.fabric.epoch().borrow(),
            sync_at: None,
            syncs_left: 0,
            doubts: Vec::new(),
            since: None,
            exchange,
            lease,
        }
    }

    /// Goes on where an earlier connection of the session ended: its call peers are told where it is, and what its client has not seen is read.
    pub(super) fn resume(
        exchange: Arc<Exchange>,
        resumed: &Resumed,
        letterbox: Letterbox,
        (secret, hash): (Option<Secret>, SecretHash),
        last: Option<EntryId>,
    ) -> Self {
        let mut seat = Self::new(exchange, resumed.lease.clone(), letterbox, None);
        let (calls, heard) = (&mut seat.calls, &mut seat.heard);
        let memory = Memory::restore(secret, hash, resumed, last, calls, heard);
        seat.memory = Some(Box::new(memory));
        seat.restore_waits(&resumed.notes);
        seat.catch_up = CatchUp::from(resumed.confirmed.all, &seat.exchange.fabric, &seat.lease);
        seat.sync_all();
        seat
    }

    /// Tells each call peer where this session is. One without that call answers with a leave, so a leave that was lost is made good.
    fn sync_all(&mut self) {
        for peer in self.calls.peers() {
            let only = self.calls.session(&peer);
            let n = self.outbox.next();
            let trace = self.trace_resume(&peer);
            let sync = Notice::new(peer, only, Arc::clone(&self.sender), n, Parcel::Sync);
            self.send_notice(sync.traced(trace), None);
        }
    }

    /// The session.
    pub fn session(&self) -> SessionId {
        self.lease.session
    }

    /// Where the user is reached.
    pub fn address(&self) -> &Address {
        &self.lease.address
    }

    /// The user.
    pub fn name(&self) -> &UserName {
        &self.lease.address.name
    }

    /// The node.
    pub fn node(&self) -> &NodeId {
        &self.exchange.node
    }

    /// The same seat, of a session with these manners.
    #[must_use]
    pub fn with(mut self, manners: Manners) -> Self {
        self.manners = manners;
        self
    }

    /// Whether its signals may wait for users who are not here.
    pub(super) fn is_patient(&self) -> bool {
        !self.manners.patience.is_zero()
    }

    /// How long a resumable session survives without a connection.
    pub fn grace(&self) -> Duration {
        let longest = self.exchange.terms.grace;
        self.manners
            .grace
            .map_or(longest, |grace| grace.min(longest))
    }

    /// What resumes the session, if it is resumable and its client is to be told.
    pub fn secret(&self) -> Option<&Secret> {
        self.memory.as_ref()?.secret()
    }

    /// What its client has confirmed: the last of it that it was told.
    pub fn confirmed(&self) -> EntryId {
        let memory = self.memory.as_ref();
        memory.map_or_else(EntryId::default, |memory| memory.confirmed_told())
    }

    /// What is stored of that secret.
    pub fn proof(&self) -> Option<&SecretHash> {
        self.memory.as_ref().map(|memory| memory.hash())
    }

    /// Whether the session outlives its connection.
    pub fn is_resumable(&self) -> bool {
        self.memory.is_some()
    }

    /// Whether an earlier connection of the session went before.
    pub fn is_resumed(&self) -> bool {
        self.lease.attach > 0
    }

    /// Whether nothing that was sent waits for its outcome.
    pub fn is_quiet(&self) -> bool {
        self.outbox.is_quiet()
    }

    /// Whether the client is not to be heard now: as many sends wait for the fabric as may, or the inbox of a resumed session was not read yet.
    pub fn busy(&self) -> bool {
        let lined_up = self.waits.as_ref().map_or(0, |waits| waits.lined_up());
        // What the client says may be about a call that only the inbox tells of.
        self.outbox.is_busy(lined_up) || self.catch_up.is_beginning()
    }

    // === What the client asks ===

    /// Ends the call with one user, or with all. Somebody who is in no call with us is told nothing.
    pub fn leave(&mut self, whom: Whom, id: Option<Correlation>) {
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

    /// Answers who is here, and watches them or not.
    pub async fn presence(
        &mut self,
        names: Vec<UserName>,
        watch: Option<bool>,
    ) -> Result<Vec<(UserName, bool)>, Refusal> {
        self.exchange.presence(&self.lease, names, watch).await
    }

    /// The client has given a sign of life: whoever doubted it is told.
    pub fn alive(&mut self) {
        self.answer_doubts(Verdict::Alive);
    }

    /// Whether the client should be pinged: its answer confirms what it was told.
    pub fn asks(&self) -> bool {
        self.memory.as_ref().is_some_and(|memory| memory.asks())
    }

    /// This ping was sent behind everything that the client was told.
    pub fn pinged(&mut self, ping: u64) {
        if let Some(memory) = &mut self.memory {
            memory.pinged(ping);
        }
    }

    /// The client answered this ping.
    pub fn ponged(&mut self, ping: u64) {
        let memory = self.memory.as_mut();
        if let Some(last) = memory.and_then(|memory| memory.ponged(ping)) {
            self.confirm(last);
        }
    }

    /// The client has everything up to this.
    pub fn confirm(&mut self, last: EntryId) {
        if let Some(memory) = &mut self.memory {
            memory.confirm(last);
            if memory.frees() {
                self.note();
            }
        }
    }

    // === What happens at the exchange ===

    /// Waits until something happens. Takes nothing away, so it can be given up.
    pub async fn stirred(&mut self) -> Stirred {
        let (busy, next_at) = (self.busy(), self.next_at());
        tokio::select! {
            () = self.letterbox.filled() => Stirred::Mail,
            () = self.outbox.ready(busy), if !self.outbox.is_quiet() => Stirred::Outcome,
            caught = self.catch_up.next() => Stirred::Caught(caught),
            () = due(next_at) => Stirred::Due,
            noted = noted(&mut self.memory) => Stirred::Noted(noted),
            found = self.lost.read(&self.exchange.fabric) => Stirred::Found(found),
        }
    }

    /// When it is time for the first thing that was put off. One timer for all: each would take room in every idle session.
    fn next_at(&self) -> Option<Instant> {
        let look_at = self.waits.as_ref().and_then(|waits| waits.look_at);
        let times = [self.outbox.retry_at, self.sync_at, look_at];
        times.into_iter().flatten().min()
    }

    /// Does what was put off until now.
    fn do_due(&mut self) {
        let now = Instant::now();
        let is_due = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        // Words that must arrive are sent again.
        if is_due(self.outbox.retry_at) {
            self.retry();
            self.note_again();
        }
        // The expiry guard is over since the store has lost data.
        if is_due(self.sync_at) {
            self.sync_at = None;
            self.sync_all();
            if self.syncs_left > 0 {
                self.syncs_left -= 1;
                self.sync_at = Some(now + SYNC_AGAIN);
            }
        }
        if is_due(self.waits.as_ref().and_then(|waits| waits.look_at)) {
            self.look();
        }
    }

    /// Waits until the mailbox is full, which ends the session even while it writes.
    pub async fn overflowed(&mut self) {
        self.letterbox.overflowed().await;
    }

    /// What it means.
    pub fn stir(&mut self, stirred: Stirred, turns: &mut Vec<Turn>) {
        match stirred {
            Stirred::Mail => {
                let (mails, since) = self.letterbox.take();
                for mail in mails {
                    self.read(mail, turns);
                }
                self.since = since.filter(|_| !turns.is_empty());
                if self.letterbox.has_overflowed() {
                    self.overflow(turns);
                }
            }
            Stirred::Outcome => {}
            Stirred::Caught(result) => {
                let entries = self
                    .catch_up
                    .caught(result, &self.exchange.fabric, &self.lease);
                for entry in entries {
                    self.hear_entry(entry, turns);
                }
                self.caught_up(turns);
            }
            Stirred::Due => self.do_due(),
            Stirred::Noted(noted) => self.noted(noted),
            Stirred::Found(found) => {
                for (peer, node_lives, holder) in found {
                    self.found(peer, node_lives, holder, turns);
                }
            }
        }
        self.settle(turns);
        if self.is_detached {
            self.note_news();
        }
        if bugs::has(Bug::ConfirmsUnheard) {
            self.confirm(self.catch_up.last());
        }
    }

    /// More has come than the letterbox holds.
    fn overflow(&mut self, turns: &mut Vec<Turn>) {
        if !self.is_detached {
            turns.push(Turn::End(CloseReason::TooSlow));
            return;
        }
        self.letterbox.reopen();
        if !self.catch_up.is_stopped() {
            self.catch_up.gap(&self.exchange.fabric, &self.lease);
        }
    }

    /// What an earlier connection's client has seen needs no confirmation any more; what it may never see is told it.
    pub(super) fn caught_up(&mut self, turns: &mut Vec<Turn>) {
        let Some(memory) = self.memory.as_mut().filter(|_| !self.is_detached) else {
            return;
        };
        if self.catch_up.level() && memory.tells_missed() {
            tell_missed(turns);
        }
        // Before the client is told the rest: should it come again without a `last`, it is not told what it has said that it has.
        if memory.frees() {
            self.note();
        }
    }

    fn read(&mut self, mail: Mail, turns: &mut Vec<Turn>) {
        match mail {
            Mail::Direct(envelope) => {
                self.hear(envelope, None, turns);
            }
            // Whoever resumes finds it in the inbox.
            Mail::Push(_) | Mail::Gap if self.catch_up.is_stopped() => {}
            Mail::Push(entries) => {
                for entry in entries {
                    if let Some(entry) = self.catch_up.push(entry) {
                        self.hear_entry(entry, turns);
                    }
                }
            }
            // What is not stored is lost.
            Mail::Gap if self.memory.is_none() => {
                tell_missed(turns);
                // What is sent to a plain peer may be missed too.
                self.syncs_left = SYNCS;
                self.sync_at = Some(Instant::now());
            }
            Mail::Gap => self.catch_up.gap(&self.exchange.fabric, &self.lease),
            Mail::NodeLost(node) => self.node_lost(&node),
            Mail::NameLost => turns.push(Turn::End(CloseReason::NameLost)),
            Mail::Replaced(_) | Mail::Overtaken(_) if bugs::has(Bug::ReplacedUntold) => {}
            // At the end of the grace it is seen whether anybody holds it.
            Mail::Overtaken(_) if self.is_detached => {}
            Mail::Replaced(attach) | Mail::Overtaken(attach) if attach > self.lease.attach => {
                turns.push(Turn::End(CloseReason::Replaced));
            }
            Mail::Replaced(_) | Mail::Overtaken(_) => {}
            Mail::Regained => self.regained(turns),
            Mail::Doubt(question) => {
                self.doubts.push(question);
                turns.push(Turn::Doubted);
            }
            Mail::Looked(found) => self.looked(found, turns),
            Mail::Presence(users) => turns.push(Turn::Tell(Event::Presence { users, id: None })),
            Mail::Fabric { reached } => {
                self.mark(if reached {
                    "fabric ok"
                } else {
                    "fabric degraded"
                });
                turns.push(Turn::Tell(Event::Status {
                    reached,
                    missed: false,
                }));
            }
        }
    }

    pub(super) fn address_of(&self, name: &UserName) -> Address {
        Address::new(self.lease.address.realm.clone(), name.clone())
    }
}

/// Waits until then, or for ever.
async fn due(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}

async fn noted(memory: &mut Option<Box<Memory>>) -> Noted {
    match memory {
        Some(memory) => memory.noted().await,
        None => std::future::pending().await,
    }
}

/// Tells the client that signals to it may be lost.
pub(super) fn tell_missed(turns: &mut Vec<Turn>) {
    if !bugs::has(Bug::MissedNotTold) {
        turns.push(Turn::Tell(Event::Status {
            reached: true,
            missed: true,
        }));
    }
}

pub(super) fn left(peer: &UserName, reason: LeaveReason, seq: Option<EntryId>) -> Turn {
    Turn::Tell(Event::Left {
        from: peer.clone(),
        reason,
        seq,
    })
}

pub(super) fn acknowledged(id: Correlation, status: AckStatus) -> Turn {
    Turn::Tell(Event::Ack { id, status })
}
