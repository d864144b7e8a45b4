//! A seat: the proof that a session has logged in, and the guard of its leaving.
//!
//! Whoever has one may send; whoever gives it up ends its calls, each with exactly one `leave`, and then its name.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until};
use tracing::debug;

use super::Exchange;
use super::calls::{Calls, Ending};
use super::catch_up::{CatchUp, Overrun};
use super::mailbox::{Letterbox, Mail};
use crate::fabric::{
    Challenge, Entry, Envelope, FabricError, Holder, Lease, Outcome, Parcel, Receipts, Sender,
    Sent, Verdict,
};
use crate::model::{
    AckStatus, Address, CloseReason, Correlation, Event, LeaveReason, NodeId, Refusal, SessionId,
    Signal, UserName, Whom,
};

/// How many sends of one session may wait for the fabric; until one is known, the session hears nothing more.
const IN_FLIGHT: usize = 32;
/// How long to rest before a `leave` is sent again.
const RETRY_LEAVE: Duration = Duration::from_millis(250);
/// How many senders are remembered that are in no call with us.
const STRANGERS: usize = 1024;
/// When a signal may be repeated whose outcome is unknown.
const RETRY_SEND: Duration = Duration::from_secs(1);

/// One session's place at the exchange.
#[derive(Debug)]
pub struct Seat {
    exchange: Arc<Exchange>,
    lease: Lease,
    /// This session, as what it sends names it.
    sender: Arc<Sender>,
    letterbox: Letterbox,
    calls: Calls,
    /// The last `(session, attach, n)` of each sender: what is not greater was overtaken, or comes twice.
    heard: HashMap<UserName, (SessionId, u32, u64)>,
    catch_up: CatchUp,
    /// Counts what was sent.
    n: u64,
    receipts: Receipts,
    /// What the receipts are for, in their order.
    pending: VecDeque<Pending>,
    /// Leaves whose outcome is unknown: the one thing that is sent again until it is known.
    unsure: Vec<Leaving>,
    retry_at: Option<Instant>,
    /// Who wants to know whether this session still answers.
    doubts: Vec<Challenge>,
}

#[derive(Debug)]
enum Pending {
    Signal {
        to: UserName,
        n: u64,
        starts_call: bool,
        id: Option<Correlation>,
    },
    Leave {
        leaving: Leaving,
        id: Option<Correlation>,
    },
    /// Known without sending anything.
    Told(Event),
}

#[derive(Clone, Debug)]
struct Leaving {
    to: UserName,
    only: Option<SessionId>,
    reason: LeaveReason,
    heard: u64,
    n: u64,
    /// Since when nobody of that name was found.
    absent_since: Option<Instant>,
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
    /// It is time to send a `leave` again.
    Retry,
}

/// What something that happened means for the conversation.
#[derive(Debug)]
pub enum Turn {
    /// Tell the client.
    Tell(Event),
    /// Find out whether the client still answers: somebody wants its name.
    Doubted,
    /// The conversation is over.
    End(CloseReason),
}

impl Seat {
    pub(super) fn new(exchange: Arc<Exchange>, lease: Lease, letterbox: Letterbox) -> Self {
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
            exchange,
            lease,
            sender: Arc::new(sender),
            letterbox,
            calls,
            heard: HashMap::new(),
            catch_up: CatchUp::default(),
            n: 0,
            receipts: Receipts::default(),
            pending: VecDeque::new(),
            unsure: Vec::new(),
            retry_at: None,
            doubts: Vec::new(),
        }
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
        self.exchange.settings.grace
    }

    /// Whether as many sends wait for the fabric as may.
    pub fn busy(&self) -> bool {
        self.pending.len() >= IN_FLIGHT
    }

    // === What the client asks ===

    /// Carries a signal to another user. What became of it is told in the order of sending.
    pub fn send(&mut self, to: UserName, signal: Signal, id: Option<Correlation>) {
        if self
            .unsure
            .iter()
            .any(|leaving| leaving.to == to && leaving.absent_since.is_none())
        {
            // It must not overtake the leave.
            let retry_after = RETRY_SEND;
            return self.tell_in_order(Event::Refused {
                refusal: Refusal::Unavailable { retry_after },
                id,
                name: Some(to),
            });
        }
        self.n += 1;
        let (n, starts_call) = (self.n, signal.kind.starts_call());
        if starts_call {
            self.calls.start(&to, n);
        }
        let receipt = self.receipts.issue(id.is_none() && !starts_call);
        let envelope = self.envelope(n, Parcel::Signal(signal));
        self.exchange
            .route(&self.address_of(&to), None, envelope, receipt);
        self.pending.push_back(Pending::Signal {
            to,
            n,
            starts_call,
            id,
        });
    }

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
            self.leave_one(peer, LeaveReason::Hangup, None);
        }
        match (last, id) {
            (Some(peer), id) => self.leave_one(peer, LeaveReason::Hangup, id),
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
        for challenge in self.doubts.drain(..) {
            self.exchange.fabric.answer(challenge, Verdict::Alive);
        }
    }

    // === What happens at the exchange ===

    /// Waits until something happens. Takes nothing away, so it can be given up.
    pub async fn stirred(&mut self) -> Stirred {
        let busy = self.busy();
        tokio::select! {
            () = self.letterbox.filled() => Stirred::Mail,
            () = self.receipts.ready(busy), if !self.pending.is_empty() => Stirred::Outcome,
            caught = self.catch_up.next() => Stirred::Caught(caught),
            () = due(self.retry_at) => Stirred::Retry,
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
                if self.letterbox.has_overflowed() {
                    turns.push(Turn::End(CloseReason::TooSlow));
                }
            }
            Stirred::Outcome => {}
            Stirred::Caught(result) => {
                match self
                    .catch_up
                    .caught(result, &self.exchange.fabric, &self.lease)
                {
                    Ok(envelopes) => {
                        for envelope in envelopes {
                            self.hear(envelope, turns);
                        }
                    }
                    Err(Overrun) => turns.push(Turn::End(CloseReason::TooSlow)),
                }
            }
            Stirred::Retry => self.retry(),
        }
        self.settle(turns);
    }

    fn read(&mut self, mail: Mail, turns: &mut Vec<Turn>) {
        match mail {
            Mail::Direct(envelope) => self.hear(envelope, turns),
            Mail::Push(entries) => {
                for entry in entries {
                    if let Some(envelope) = self.catch_up.push(entry) {
                        self.hear(envelope, turns);
                    }
                }
            }
            Mail::Gap => self.catch_up.gap(&self.exchange.fabric, &self.lease),
            Mail::NodeLost(node) => self.node_lost(&node, turns),
            Mail::NameLost => turns.push(Turn::End(CloseReason::NameLost)),
            Mail::Challenge(challenge) => {
                self.doubts.push(challenge);
                turns.push(Turn::Doubted);
            }
            Mail::Presence(users) => turns.push(Turn::Tell(Event::Presence { users, id: None })),
        }
    }

    fn hear(&mut self, envelope: Envelope, turns: &mut Vec<Turn>) {
        let Envelope { from, n, parcel } = envelope;
        let Sender {
            address,
            session,
            attach,
            node,
            ..
        } = &*from;
        // No tenant reaches another: nobody addresses a realm but his own.
        let from = &address.name;
        // A leave may come late: it is sent again until somebody has it. The call itself knows whether it is meant.
        let is_news = self.is_news(from, *session, *attach, n);
        match parcel {
            Parcel::Signal(_) if !is_news => {}
            Parcel::Signal(signal) => {
                if signal.kind.starts_call() && self.calls.join(from, *session, node, n) {
                    turns.push(left(from, LeaveReason::Lost));
                }
                self.calls.heard(from, *session, n);
                turns.push(Turn::Tell(Event::Signal {
                    from: from.clone(),
                    signal,
                }));
            }
            Parcel::Leave { reason, heard } => {
                if self.calls.end(from, *session, n, heard) == Ending::Over {
                    turns.push(left(from, reason));
                }
            }
        }
    }

    /// Whether this was not overtaken by, and is no repetition of, something that this sender's session said.
    fn is_news(&mut self, from: &UserName, session: SessionId, attach: u32, n: u64) -> bool {
        match self.heard.get_mut(from) {
            Some(last) if last.0 == session && (last.1, last.2) >= (attach, n) => false,
            Some(last) => {
                *last = (session, attach, n);
                true
            }
            None => {
                if self.heard.len() >= STRANGERS {
                    self.heard.retain(|name, _| self.calls.get(name).is_some());
                }
                self.heard.insert(from.clone(), (session, attach, n));
                true
            }
        }
    }

    /// A node's lease ran out. Should it only have been frozen, its users are told that we have left them.
    fn node_lost(&mut self, node: &NodeId, turns: &mut Vec<Turn>) {
        for peer in self.calls.on_node(node) {
            turns.push(left(&peer, LeaveReason::NodeLost));
            self.leave_one(peer, LeaveReason::Lost, None);
        }
    }

    // === What became of what was sent ===

    fn settle(&mut self, turns: &mut Vec<Turn>) {
        while let Some(outcome) = self.receipts.take() {
            match self.pending.pop_front() {
                Some(Pending::Signal {
                    to,
                    n,
                    starts_call,
                    id,
                }) => {
                    self.signal_settled(to, n, starts_call, id, outcome, turns);
                }
                Some(Pending::Leave { leaving, id }) => {
                    turns.extend(self.leave_settled(leaving, id, &outcome));
                }
                Some(Pending::Told(event)) => turns.push(Turn::Tell(event)),
                None => debug!("An outcome came for nothing that was sent"),
            }
        }
    }

    fn signal_settled(
        &mut self,
        to: UserName,
        n: u64,
        starts_call: bool,
        id: Option<Correlation>,
        outcome: Outcome,
        turns: &mut Vec<Turn>,
    ) {
        let refusal = match outcome {
            Ok(Sent::To(Holder {
                session,
                node,
                flags,
                ..
            })) if self.exchange.believes_in(&node) => {
                if self.calls.reached(&to, session, &node, n, starts_call) {
                    turns.push(left(&to, LeaveReason::Lost));
                }
                let status = if flags.detached {
                    AckStatus::Queued
                } else {
                    AckStatus::Delivered
                };
                return turns.extend(id.map(|id| acknowledged(id, status)));
            }
            // Nobody has the name, or somebody on a node that is known to be dead.
            Ok(_) => {
                if starts_call {
                    self.calls.failed(&to, n);
                }
                // A peer that is gone would have left our call: the fabric may have forgotten it.
                let in_call = self.calls.get(&to).map(|_| RETRY_SEND);
                match self.exchange.hold.holds().or(in_call) {
                    None => Refusal::UserUnavailable,
                    Some(retry_after) => Refusal::Unavailable { retry_after },
                }
            }
            Err(_) => Refusal::Unavailable {
                retry_after: RETRY_SEND,
            },
        };
        turns.push(Turn::Tell(Event::Refused {
            refusal,
            id,
            name: Some(to),
        }));
    }

    /// A leave counts as told when somebody has it, or when its peer is surely gone: a fabric that has just forgotten everybody finds nobody.
    fn leave_settled(
        &mut self,
        mut leaving: Leaving,
        id: Option<Correlation>,
        outcome: &Outcome,
    ) -> Option<Turn> {
        let done = match outcome {
            Ok(Sent::To(_)) => true,
            Ok(Sent::Absent) => {
                let since = *leaving.absent_since.get_or_insert_with(Instant::now);
                self.exchange.hold.is_noticed_since(since)
            }
            Err(error) => {
                debug!(%error, "The outcome of a leave is unknown: it is sent again");
                leaving.absent_since = None;
                false
            }
        };
        if !done {
            self.unsure.push(leaving);
            self.retry_at
                .get_or_insert_with(|| Instant::now() + RETRY_LEAVE);
        }
        let refusal = Refusal::Unavailable {
            retry_after: RETRY_SEND,
        };
        id.map(|id| match outcome {
            Ok(_) => acknowledged(id, AckStatus::Delivered),
            Err(_) => Turn::Tell(Event::Refused {
                refusal,
                id: Some(id),
                name: None,
            }),
        })
    }

    /// Tells the client something that must not overtake the outcomes before it.
    fn tell_in_order(&mut self, event: Event) {
        let receipt = self.receipts.issue(false);
        self.pending.push_back(Pending::Told(event));
        receipt.settle(Ok(Sent::Absent));
    }

    // === Leaving ===

    fn leave_one(&mut self, peer: UserName, reason: LeaveReason, id: Option<Correlation>) {
        let Some(call) = self.calls.remove(&peer) else {
            return;
        };
        self.n += 1;
        let only = call.peer.map(|(session, _)| session);
        let leaving = Leaving {
            to: peer,
            only,
            reason,
            heard: call.heard,
            n: self.n,
            absent_since: None,
        };
        self.send_leave(leaving, id);
    }

    fn send_leave(&mut self, leaving: Leaving, id: Option<Correlation>) {
        let receipt = self.receipts.issue(false);
        let parcel = Parcel::Leave {
            reason: leaving.reason,
            heard: leaving.heard,
        };
        let envelope = self.envelope(leaving.n, parcel);
        self.exchange.route(
            &self.address_of(&leaving.to),
            leaving.only,
            envelope,
            receipt,
        );
        self.pending.push_back(Pending::Leave { leaving, id });
    }

    /// Sends every unsure leave again, under its old number: whoever had it drops the repetition.
    fn retry(&mut self) {
        self.retry_at = None;
        for leaving in std::mem::take(&mut self.unsure) {
            self.send_leave(leaving, None);
        }
    }

    /// Gives the seat up: tells every call peer, then frees the name, then tells whoever called meanwhile. Waits for the fabric as long as
    /// the node lives, since nobody else can tell them.
    pub async fn depart(mut self, reason: LeaveReason) {
        self.exchange.watches.forget(self.lease.session);
        self.exchange.registry.unseat(&self.lease);
        self.leave_all(reason).await;
        let unread = loop {
            match self
                .exchange
                .fabric
                .release(&self.lease, self.catch_up.last())
                .await
            {
                Ok(unread) => break unread,
                Err(error) => debug!(%error, "A name could not be given back yet"),
            }
            sleep(RETRY_LEAVE).await;
        };
        self.hear_the_rest(unread);
        self.leave_all(reason).await;
        self.exchange.registry.remove(&self.lease);
        for challenge in self.doubts.drain(..) {
            self.exchange.fabric.answer(challenge, Verdict::Gone);
        }
    }

    /// Who called without our having read it is in a call with us. What came directly is older than what came by the fabric: that is the path
    /// since the seat was given up.
    fn hear_the_rest(&mut self, unread: Vec<Entry>) {
        let (mut direct, mut pushed) = (Vec::new(), unread);
        for mail in self.letterbox.close() {
            match mail {
                Mail::Direct(envelope) => direct.push(envelope),
                Mail::Push(entries) => pushed.extend(entries),
                Mail::Challenge(challenge) => self.doubts.push(challenge),
                _ => {}
            }
        }
        for envelope in direct
            .into_iter()
            .chain(pushed.into_iter().map(|entry| entry.envelope))
        {
            self.hear(envelope, &mut Vec::new());
        }
    }

    async fn leave_all(&mut self, reason: LeaveReason) {
        for peer in self.calls.peers() {
            self.leave_one(peer, reason, None);
        }
        while !self.pending.is_empty() || !self.unsure.is_empty() {
            if self.pending.is_empty() {
                // The name is not kept waiting for peers that are gone.
                if self.exchange.is_intact().await {
                    self.unsure.retain(|leaving| leaving.absent_since.is_none());
                    if self.unsure.is_empty() {
                        break;
                    }
                }
                sleep(RETRY_LEAVE).await;
                self.retry();
            }
            self.receipts.ready(true).await;
            self.settle(&mut Vec::new());
        }
    }

    fn envelope(&self, n: u64, parcel: Parcel) -> Envelope {
        Envelope {
            from: Arc::clone(&self.sender),
            n,
            parcel,
        }
    }

    fn address_of(&self, name: &UserName) -> Address {
        Address::new(self.lease.address.realm.clone(), name.clone())
    }
}

/// A session that panicked leaves no zombie: its lease is not renewed, and runs out.
impl Drop for Seat {
    fn drop(&mut self) {
        self.exchange.watches.forget(self.lease.session);
        self.exchange.registry.remove(&self.lease);
    }
}

/// Waits until then, or for ever.
async fn due(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}

fn left(peer: &UserName, reason: LeaveReason) -> Turn {
    Turn::Tell(Event::Left {
        from: peer.clone(),
        reason,
    })
}

fn acknowledged(id: Correlation, status: AckStatus) -> Turn {
    Turn::Tell(Event::Ack { id, status })
}
