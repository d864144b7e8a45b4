//! A seat: the proof that a session has logged in, and the guard of its leaving.
//!
//! Whoever has one may send; whoever gives it up ends its calls, each with exactly one `leave`, and then its name.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};
use tracing::debug;

use super::Exchange;
use super::calls::{Calls, Ending};
use super::catch_up::{CatchUp, Overrun};
use super::heard::Heard;
use super::lost::{Answer, Fate, LostPeer, LostPeers};
use super::mailbox::{Letterbox, Mail};
use super::memory::{Decision, Memory, Noted};
use super::outbox::{Notice, Outbox, RETRY_NOTICE};
use crate::bugs::{self, Bug};
use crate::fabric::{
    Challenge, Entry, Envelope, FabricError, Holder, Lease, Parcel, Resumed, Sender, Verdict,
};
use crate::model::{
    AckStatus, Address, CloseReason, Correlation, EntryId, Event, LeaveReason, NodeId, Refusal,
    Secret, SecretHash, SessionId, UserName, Whom,
};

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
    /// Of a resumable session.
    pub(super) memory: Option<Box<Memory>>,
    /// What was just heard has changed a call, which is not written down yet.
    has_changed_calls: bool,
    /// There is no connection any more.
    pub(super) is_detached: bool,
    /// Who wants to know whether this session still answers.
    pub(super) doubts: Vec<Challenge>,
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
    /// It is time to send again what must arrive.
    Retry,
}

/// What something that happened means for the conversation.
#[derive(Debug)]
pub enum Turn {
    /// Tell the client.
    Tell(Event),
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
            memory: secret.map(|(secret, hash)| Box::new(Memory::new(secret, hash))),
            has_changed_calls: false,
            is_detached: false,
            doubts: Vec::new(),
            exchange,
            lease,
        }
    }

    /// Goes on where an earlier connection of the session ended: its call peers are told where it is, and what its client has not seen is read.
    pub(super) fn resume(
        exchange: Arc<Exchange>,
        resumed: &Resumed,
        letterbox: Letterbox,
        (secret, hash): (Secret, SecretHash),
        last: Option<EntryId>,
    ) -> Self {
        let mut seat = Self::new(exchange, resumed.lease.clone(), letterbox, None);
        let (calls, heard) = (&mut seat.calls, &mut seat.heard);
        let memory = Memory::restore(secret, hash, resumed, last, calls, heard);
        seat.memory = Some(Box::new(memory));
        seat.catch_up = CatchUp::from(resumed.confirmed, &seat.exchange.fabric, &seat.lease);
        for peer in seat.calls.peers() {
            let only = seat.calls.session(&peer);
            let n = seat.outbox.next();
            let sync = Notice::new(peer, only, Arc::clone(&seat.sender), n, Parcel::Sync);
            seat.send_notice(sync, None);
        }
        seat
    }

    /// The session.
    pub fn session(&self) -> SessionId {
        self.lease.session
    }

    /// The user.
    pub fn name(&self) -> &UserName {
        &self.lease.address.name
    }

    /// The node.
    pub fn node(&self) -> &NodeId {
        &self.exchange.node
    }

    /// How long a resumable session survives without a connection.
    pub fn grace(&self) -> Duration {
        self.exchange.terms.grace
    }

    /// What resumes the session, if it is resumable.
    pub fn secret(&self) -> Option<&Secret> {
        self.memory.as_ref().map(|memory| memory.secret())
    }

    /// Whether an earlier connection of the session went before.
    pub fn is_resumed(&self) -> bool {
        self.lease.attach > 0
    }

    /// Whether as many sends wait for the fabric as may.
    pub fn busy(&self) -> bool {
        self.outbox.is_busy()
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
        self.exchange
            .presence(self.lease.session, &self.lease.address.realm, names, watch)
            .await
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
            if memory.has_freed() {
                self.note();
            }
        }
    }

    // === What happens at the exchange ===

    /// Waits until something happens. Takes nothing away, so it can be given up.
    pub async fn stirred(&mut self) -> Stirred {
        let busy = self.busy();
        tokio::select! {
            () = self.letterbox.filled() => Stirred::Mail,
            () = self.outbox.ready(busy), if !self.outbox.is_quiet() => Stirred::Outcome,
            caught = self.catch_up.next() => Stirred::Caught(caught),
            () = due(self.outbox.retry_at) => Stirred::Retry,
            noted = noted(&mut self.memory) => Stirred::Noted(noted),
            found = self.lost.read(&self.exchange.fabric) => Stirred::Found(found),
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
                for mail in self.letterbox.take() {
                    self.read(mail, turns);
                }
                if self.letterbox.has_overflowed() && !self.is_detached {
                    turns.push(Turn::End(CloseReason::TooSlow));
                }
            }
            Stirred::Outcome => {}
            Stirred::Caught(result) => {
                match self
                    .catch_up
                    .caught(result, &self.exchange.fabric, &self.lease)
                {
                    Ok(entries) => {
                        for entry in entries {
                            self.hear_entry(entry, turns);
                        }
                        self.caught_up(turns);
                    }
                    Err(Overrun) => turns.push(Turn::End(CloseReason::TooSlow)),
                }
            }
            Stirred::Retry => {
                self.retry();
                if self
                    .memory
                    .as_ref()
                    .is_some_and(|memory| memory.is_unwritten())
                {
                    self.note();
                }
            }
            Stirred::Noted(noted) => self.noted(noted),
            Stirred::Found(found) => {
                for (peer, node_lives, holder) in found {
                    self.found(peer, node_lives, holder, turns);
                }
            }
        }
        self.settle(turns);
        if bugs::has(Bug::ConfirmsUnheard) {
            self.confirm(self.catch_up.last());
        }
    }

    /// What an earlier connection's client has seen needs no confirmation any more; what it may never see is told it.
    fn caught_up(&mut self, turns: &mut Vec<Turn>) {
        let Some(memory) = self.memory.as_mut().filter(|_| self.catch_up.level()) else {
            return;
        };
        if memory.tells_missed() {
            turns.push(Turn::Tell(Event::Status {
                reached: true,
                missed: true,
            }));
        }
        if memory.has_freed() {
            self.note();
        }
    }

    fn read(&mut self, mail: Mail, turns: &mut Vec<Turn>) {
        match mail {
            Mail::Direct(envelope) => {
                self.hear(envelope, None, turns);
            }
            // Whoever resumes finds it in the inbox.
            Mail::Push(_) | Mail::Gap if self.is_detached => {}
            Mail::Push(entries) => {
                for entry in entries {
                    if let Some(entry) = self.catch_up.push(entry) {
                        self.hear_entry(entry, turns);
                    }
                }
            }
            Mail::Gap => self.catch_up.gap(&self.exchange.fabric, &self.lease),
            Mail::NodeLost(node) => self.node_lost(&node),
            Mail::NameLost => turns.push(Turn::End(CloseReason::NameLost)),
            Mail::Replaced(_) if bugs::has(Bug::ReplacedUntold) => {}
            Mail::Replaced(attach) if attach > self.lease.attach => {
                turns.push(Turn::End(CloseReason::Replaced));
            }
            Mail::Replaced(_) => {}
            Mail::Regained => self.regained(turns),
            Mail::Challenge(challenge) => {
                self.doubts.push(challenge);
                turns.push(Turn::Doubted);
            }
            Mail::Presence(users) => turns.push(Turn::Tell(Event::Presence { users, id: None })),
            Mail::Fabric { reached } => turns.push(Turn::Tell(Event::Status {
                reached,
                missed: false,
            })),
        }
    }

    /// Hears an entry of the inbox, whose turn it is.
    pub(super) fn hear_entry(&mut self, entry: Entry, turns: &mut Vec<Turn>) {
        let Some(memory) = &mut self.memory else {
            self.hear(entry.envelope, None, turns);
            return;
        };
        let Entry { id, envelope, size } = entry;
        let from = Arc::clone(&envelope.from);
        let before = turns.len();
        let silent = match memory.decision(id) {
            Decision::None => !self.hear(envelope, Some(id), turns),
            Decision::Silence => true,
            Decision::Tell => {
                turns.extend(told_again(id, envelope));
                false
            }
        };
        let Some(memory) = &mut self.memory else {
            return;
        };
        memory.dealt(id, size, &from, silent);
        if !memory.is_unseen(id) {
            // Its client has seen it: it was heard for the sake of our calls only.
            turns.truncate(before);
            memory.confirm(id);
        }
        // Not before it is known what was decided.
        if std::mem::take(&mut self.has_changed_calls) {
            self.note();
        }
    }

    /// Hears what somebody said. Whether the client is told of it.
    pub(super) fn hear(
        &mut self,
        envelope: Envelope,
        seq: Option<EntryId>,
        turns: &mut Vec<Turn>,
    ) -> bool {
        let Envelope {
            from: sender,
            n,
            once,
            parcel,
        } = envelope;
        let (session, node) = (sender.session, &sender.node);
        // No tenant reaches another: nobody addresses a realm but his own.
        let from = &sender.address.name;
        match parcel {
            Parcel::Signal(signal) => {
                let calls = &self.calls;
                let in_call = |name: &UserName| calls.get(name).is_some();
                if !self.heard.is_news(&sender, n, once.as_ref(), in_call) {
                    return false;
                }
                if signal.kind.starts_call() {
                    if self.calls.join(from, session, node, n) {
                        turns.push(left(from, LeaveReason::Lost, None));
                    }
                    self.change_call(from);
                }
                self.calls.heard(from, session, n);
                let from = if bugs::has(Bug::MislabelsSenders) {
                    &self.lease.address.name
                } else {
                    from
                };
                turns.push(Turn::Tell(Event::Signal {
                    from: from.clone(),
                    signal,
                    seq,
                }));
                true
            }
            // A leave may come late: it is sent again until somebody has it. The call itself knows whether it is meant.
            Parcel::Leave { reason, heard } => {
                let over = self.calls.end(from, session, n, heard) == Ending::Over;
                if over {
                    turns.push(left(from, reason, seq));
                    self.change_call(from);
                }
                over
            }
            Parcel::Sync => {
                if self.calls.moved(from, session, node) {
                    self.change_call(from);
                } else {
                    let (n_of_sync, n) = (n, self.outbox.next());
                    let parcel = Parcel::Leave {
                        reason: LeaveReason::Lost,
                        heard: n_of_sync,
                    };
                    let from = from.clone();
                    let answer =
                        Notice::new(from, Some(session), Arc::clone(&self.sender), n, parcel);
                    self.send_notice(answer, None);
                }
                false
            }
            Parcel::Missed => {
                if let Some(memory) = &mut self.memory {
                    memory.has_missed();
                }
                self.caught_up(turns);
                false
            }
        }
    }

    // === Call peers whose node died ===

    fn node_lost(&mut self, node: &NodeId) {
        for peer in self.calls.on_node(node) {
            if let Some(session) = self.calls.session(&peer) {
                self.lost.miss(self.address_of(&peer), session, node);
            }
        }
    }

    fn found(
        &mut self,
        peer: LostPeer,
        node_lives: bool,
        holder: Option<Holder>,
        turns: &mut Vec<Turn>,
    ) {
        let call = self
            .calls
            .get(peer.name())
            .and_then(|call| call.peer.as_ref());
        if call.is_none_or(|(session, node)| (*session, node) != (peer.session, &peer.node)) {
            // It is over, or goes on elsewhere: whoever said so has told us.
            return;
        }
        if self.exchange.hold.holds().is_some() {
            return self.lost.again(peer);
        }
        match peer.fate(node_lives, holder, self.grace()) {
            Fate::Back => {}
            Fate::Awaited(until) => self.lost.wait(peer, until),
            Fate::Moved(node) => {
                self.calls.moved(peer.name(), peer.session, &node);
                self.note_call(peer.name());
            }
            Fate::Gone(holder) => {
                if let Some(dead) = holder {
                    // Should it fail, the name runs out.
                    drop(self.exchange.fabric.free(&peer.address, &dead));
                }
                if self.memory.is_some() {
                    self.is_gone(peer.name(), LeaveReason::NodeLost);
                } else {
                    turns.push(left(peer.name(), LeaveReason::NodeLost, None));
                    self.leave_one(peer.name(), LeaveReason::Lost, None);
                }
            }
        }
    }

    /// This call peer is gone, which only we know: a resumable session tells itself by its own inbox, so that it is told once, whoever holds
    /// it then. Should the peer live after all, it is told that we have left.
    pub(super) fn is_gone(&mut self, peer: &UserName, reason: LeaveReason) {
        let Some(call) = self.calls.get(peer).cloned() else {
            return;
        };
        let Some((session, node)) = call.peer else {
            return;
        };
        self.calls.give_up(peer);
        let n = self.outbox.next();
        let parcel = Parcel::Leave {
            reason: LeaveReason::Lost,
            heard: call.heard,
        };
        let from = Arc::clone(&self.sender);
        self.send_notice(
            Notice::new(peer.clone(), Some(session), from, n, parcel),
            None,
        );
        let parcel = Parcel::Leave {
            reason,
            heard: call.renewed,
        };
        let its = Sender::new(self.address_of(peer), session, 0, node);
        let own = self.lease.address.name.clone();
        let n = call.heard.max(call.joined);
        let only = Some(self.lease.session);
        self.send_notice(Notice::new(own, only, Arc::new(its), n, parcel), None);
    }

    // === What is written down for whoever holds the session next ===

    /// The call with this user has changed. Takes its place in the address's order now, before whatever is sent next.
    pub(super) fn note_call(&mut self, peer: &UserName) {
        if let Some(memory) = &mut self.memory {
            memory.change(peer.clone());
            self.note();
        }
    }

    /// The same, by something that is being heard.
    fn change_call(&mut self, peer: &UserName) {
        if let Some(memory) = &mut self.memory {
            memory.change(peer.clone());
            self.has_changed_calls = true;
        }
    }

    pub(super) fn note(&mut self) {
        if let Some(memory) = &mut self.memory {
            let (notes, written) = memory.notes(&self.calls, &self.heard);
            let answer = self.exchange.fabric.note(&self.lease, notes);
            memory.noting(written, answer);
        }
    }

    /// The store had forgotten this session, or may have.
    fn regained(&mut self, turns: &mut Vec<Turn>) {
        let Some(memory) = &mut self.memory else {
            return;
        };
        let whole_at = self.exchange.hold.stalled_at();
        let (notes, written) =
            memory.anew(self.catch_up.last(), whole_at, &self.calls, &self.heard);
        let answer = self.exchange.fabric.note(&self.lease, notes);
        memory.noting(written, answer);
        if !self.is_detached {
            // What was sent while the store did not know where we are is in the inbox.
            self.catch_up.gap(&self.exchange.fabric, &self.lease);
            // Its client confirms what the store has lost, as soon as it can.
            turns.push(Turn::Ask);
            self.caught_up(turns);
        }
    }

    /// Something was written down, or was not. That the session is another's by now is told by the next renewal.
    pub(super) fn noted(&mut self, noted: Noted) {
        if let (Err(error), Some(memory)) = (&noted.result, &mut self.memory) {
            debug!(%error, "What is known of a session could not be written down: it is written again");
            memory.unwritten(noted);
            self.outbox
                .retry_at
                .get_or_insert_with(|| Instant::now() + RETRY_NOTICE);
        }
    }

    // === Leaving ===

    pub(super) fn leave_one(
        &mut self,
        peer: &UserName,
        reason: LeaveReason,
        id: Option<Correlation>,
    ) {
        let Some(call) = self.calls.remove(peer) else {
            return;
        };
        let n = self.outbox.next();
        let only = call.peer.map(|(session, _)| session);
        let parcel = Parcel::Leave {
            reason,
            heard: call.heard,
        };
        let leave = Notice::new(peer.clone(), only, Arc::clone(&self.sender), n, parcel);
        self.send_notice(leave, id);
        self.note_call(peer);
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

/// What an earlier connection had told of this entry.
fn told_again(id: EntryId, envelope: Envelope) -> Option<Turn> {
    let (from, seq) = (envelope.from.address.name.clone(), Some(id));
    match envelope.parcel {
        Parcel::Signal(signal) => Some(Turn::Tell(Event::Signal { from, signal, seq })),
        Parcel::Leave { reason, .. } => Some(left(&from, reason, seq)),
        Parcel::Sync | Parcel::Missed => None,
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
