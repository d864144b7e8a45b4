//! How a session ends: each call with exactly one `leave`, then its name. A resumable one first waits for its client to come back.

use std::sync::Arc;

use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::doubt;
use super::login::BARRIER_WITHIN;
use super::mailbox::Mail;
use super::outbox::RETRY_NOTICE;
use super::seat::{Seat, Turn};
use crate::bugs::{self, Bug};
use crate::fabric::{Entry, Holder, Renewal, Verdict};
use crate::model::{CloseReason, EntryId, LeaveReason};

impl Seat {
    /// The connection has ended for this reason. A resumable session waits for its client, if it may come back; `stop` tells it that the node
    /// cannot wait any longer. Returns when nothing is left to do here.
    pub async fn end(mut self, reason: CloseReason, stop: &CancellationToken) {
        if self.letterbox.has_overflowed() {
            self.exchange.telemetry.metrics.mailbox_overflowed();
        }
        if reason == CloseReason::Replaced {
            return self.vanish();
        }
        let hangs_up = reason == CloseReason::Draining && bugs::has(Bug::DrainHangsUp);
        if self.memory.is_some() && reason.can_resume() && !hangs_up {
            match self.wait_for_resume(stop).await {
                Wait::Resumed => return self.vanish(),
                Wait::Stopped => return self.exchange.leave_behind(),
                Wait::Over => {}
                Wait::Unheld(holder) => {
                    let address = self.lease.address.clone();
                    let exchange = Arc::clone(&self.exchange);
                    self.depart(reason.leave_reason()).await;
                    // Should it fail, the name runs out.
                    let fabric = &exchange.fabric;
                    let _ = fabric.release(&address, &holder, EntryId::default()).await;
                    return;
                }
            }
        }
        self.depart(reason.leave_reason()).await;
    }

    /// Without a connection, until the grace is over.
    async fn wait_for_resume(&mut self, stop: &CancellationToken) -> Wait {
        let mut until = Instant::now() + self.grace();
        // For those who were put off: no longer than the grace, which others count on.
        let longer = self.exchange.terms.node_ttl.min(self.grace());
        self.detach();
        let mut turns = Vec::new();
        loop {
            let stirred = tokio::select! {
                stirred = self.stirred() => Some(stirred),
                () = stop.cancelled() => None,
                () = sleep_until(until) => {
                    // Nobody can resume anywhere while the store is away, and some are put off until it is told everything. Mail is read
                    // meanwhile: how soon somebody can, once it is back, depends on what this session tells it.
                    let again = match self.exchange.hold.holds_and(longer) {
                        Some(left) => left.min(RETRY_NOTICE),
                        // Only the store knows whether somebody has resumed it meanwhile.
                        None => match self.exchange.fabric.renew(vec![self.lease.clone()]).await.as_deref() {
                            Ok([Renewal::Replaced]) => return self.look_for_successor().await,
                            // It has lost data, which the next beat will notice.
                            Ok([Renewal::Regained]) => {
                                self.regained(&mut turns);
                                self.exchange.terms.node_ttl
                            }
                            Ok(_) => return Wait::Over,
                            Err(_) => RETRY_NOTICE,
                        },
                    };
                    until = Instant::now() + again;
                    continue;
                }
            };
            let Some(stirred) = stirred else {
                self.write_down().await;
                return Wait::Stopped;
            };
            self.stir(stirred, &mut turns);
            for turn in turns.drain(..) {
                match turn {
                    Turn::End(CloseReason::Replaced) => return Wait::Resumed,
                    Turn::End(CloseReason::NameLost) => return Wait::Over,
                    // Nobody is there to be told, and full is no harm: everything is in the inbox.
                    Turn::End(_) | Turn::Tell(_) | Turn::Ask | Turn::Traced(_) => {}
                    Turn::Doubted => self.answer_doubts(Verdict::Detached),
                }
            }
        }
    }

    /// The store says that a newer connection has the session. A resume whose answer was lost leaves it to a node that does not know of it,
    /// and only this one can tell its call peers.
    async fn look_for_successor(&mut self) -> Wait {
        let fabric = Arc::clone(&self.exchange.fabric);
        let addresses = [self.lease.address.clone()];
        let mut unheld = None;
        loop {
            let Ok(holders) = fabric.holders(&addresses).await else {
                sleep(RETRY_NOTICE).await;
                continue;
            };
            let newer = |holder: &Holder| {
                holder.session == self.lease.session && holder.attach > self.lease.attach
            };
            let Some(holder) = holders.into_iter().flatten().find(newer) else {
                return Wait::Resumed;
            };
            let within = self.exchange.terms.challenge;
            match doubt::ask(Arc::clone(&fabric), holder.clone(), within).await {
                Ok(Verdict::Gone) if unheld.as_ref() == Some(&holder) => {
                    return Wait::Unheld(holder);
                }
                // Its node may have won it in this moment.
                Ok(Verdict::Gone) => unheld = Some(holder),
                Ok(_) => return Wait::Resumed,
                Err(_) => {}
            }
            sleep(BARRIER_WITHIN).await;
        }
    }

    fn detach(&mut self) {
        self.mark("detached");
        self.exchange.watches.forget(&self.lease);
        self.letterbox.reopen();
        self.is_detached = true;
        self.answer_doubts(Verdict::Detached);
        if let Some(memory) = &mut self.memory {
            memory.detached();
        }
        let fabric = &self.exchange.fabric;
        let told = self
            .exchange
            .registry
            .detach(&mut self.lease, |lease| fabric.renew(vec![lease.clone()]));
        // It takes its place in the order of the address now; should it fail, the next renewal says the same.
        drop(told);
        self.catch_up.stop();
        self.note();
    }

    /// The node stops: what others must know is written before it does.
    async fn write_down(&mut self) {
        while !self.outbox.is_settled() {
            if self.outbox.is_quiet() {
                self.outbox.give_up_on_unheard();
                if self.outbox.is_settled() {
                    break;
                }
                sleep(RETRY_NOTICE).await;
                self.retry();
            }
            self.outbox.ready(true).await;
            self.settle(&mut Vec::new());
        }
        let mut renewed = self.exchange.fabric.renew(vec![self.lease.clone()]).await;
        self.note();
        loop {
            let Some(memory) = &mut self.memory else {
                return;
            };
            if memory.is_noting() {
                let noted = memory.noted().await;
                self.noted(noted);
            } else if renewed.is_ok() && !memory.is_unwritten() {
                return;
            } else {
                sleep(RETRY_NOTICE).await;
                self.note_again();
                renewed = self.exchange.fabric.renew(vec![self.lease.clone()]).await;
            }
        }
    }

    /// A newer connection has the session: nothing is said to anybody, and nothing is freed.
    fn vanish(mut self) {
        self.exchange.registry.remove(&self.lease);
        self.answer_doubts(Verdict::Alive);
        self.exchange.fabric.unlisten(&self.lease);
    }

    /// Gives the seat up: tells every call peer, then frees the name, then tells whoever called meanwhile. Waits for the fabric as long as
    /// the node lives, since nobody else can tell them.
    async fn depart(mut self, reason: LeaveReason) {
        self.exchange.watches.forget(&self.lease);
        // Nothing waits for anybody any more.
        self.waits = None;
        self.exchange.registry.unseat(&self.lease);
        self.read_up().await;
        self.leave_all(reason).await;
        if self.is_detached {
            // Should the store not know it yet: only what it knows can be given back. Takes its place before the release.
            drop(self.exchange.fabric.renew(vec![self.lease.clone()]));
        }
        let unread = loop {
            match self
                .exchange
                .give_back(&self.lease, self.catch_up.last())
                .await
            {
                Ok(unread) => break unread,
                Err(error) => debug!(%error, "A name could not be given back yet"),
            }
            sleep(RETRY_NOTICE).await;
        };
        if self.memory.is_none() {
            // What was published before the name was free is on its way, and stored nowhere.
            let back = self.exchange.registry.expect_barrier(&self.lease);
            if self.exchange.fabric.barrier(&self.lease).await.is_ok() {
                // One that does not come back was lost with what came before it.
                let _ = timeout(BARRIER_WITHIN, back).await;
            }
        }
        self.exchange.fabric.unlisten(&self.lease);
        self.hear_the_rest(unread);
        self.leave_all(reason).await;
        self.exchange.registry.remove(&self.lease);
        self.answer_doubts(Verdict::Gone);
    }

    /// Reads what a resumable session was sent without a connection: a peer that has called again meanwhile is left once, not for each call.
    async fn read_up(&mut self) {
        if self.memory.is_none() {
            return;
        }
        loop {
            let read = self.exchange.fabric.read(&self.lease, self.catch_up.last());
            match read.await {
                Ok(entries) if entries.is_empty() => return,
                Ok(entries) => self.hear_all(entries),
                Err(error) => {
                    debug!(%error, "An inbox could not be read yet");
                    sleep(RETRY_NOTICE).await;
                }
            }
        }
    }

    fn hear_all(&mut self, entries: Vec<Entry>) {
        for entry in entries {
            if let Some(entry) = self.catch_up.advance(entry) {
                self.hear_entry(entry, &mut Vec::new());
            }
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
                Mail::Doubt(question) => self.doubts.push(question),
                _ => {}
            }
        }
        for envelope in direct {
            self.hear(envelope, None, &mut Vec::new());
        }
        self.hear_all(pushed);
    }

    async fn leave_all(&mut self, reason: LeaveReason) {
        for peer in self.calls.peers() {
            self.leave_for_good(&peer, reason);
        }
        while !self.outbox.is_settled() {
            if self.outbox.is_quiet() {
                // The name is not kept waiting for peers that are gone.
                self.outbox.give_up_on_unheard();
                if self.exchange.is_intact().await {
                    self.outbox.give_up_on_absent();
                }
                if self.outbox.is_settled() {
                    break;
                }
                sleep(RETRY_NOTICE).await;
                self.retry();
            }
            self.outbox.ready(true).await;
            self.settle(&mut Vec::new());
        }
    }

    pub(super) fn answer_doubts(&mut self, verdict: Verdict) {
        for question in self.doubts.drain(..) {
            doubt::answer(&*self.exchange.fabric, &question, verdict);
        }
    }
}

/// How the wait for a client ended.
enum Wait {
    /// A newer connection has the session.
    Resumed,
    /// The grace is over, or the name is somebody else's.
    Over,
    /// The node cannot wait any longer.
    Stopped,
    /// The store names this holder, who does not know of it.
    Unheld(Holder),
}

/// A session that panicked leaves no zombie: its lease is not renewed, and runs out.
impl Drop for Seat {
    fn drop(&mut self) {
        self.exchange.watches.forget(&self.lease);
        self.exchange.registry.remove(&self.lease);
    }
}
