//! Ends sessions: each call with exactly one `leave`, then the name. A resumable session first waits for its client to
//! resume.

use std::sync::Arc;

use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::runner::{Runner, SessionEvent};
use super::state::{Action, Input, RETRY_NOTICE};
use crate::broker::{BrokerError, Entry, Holder, Renewal, Verdict};
use crate::bugs::{self, Bug};
use crate::limits::AddressLimits;
use crate::model::{CloseReason, LeaveReason, Offset, Secret};
use crate::router::{BARRIER_WITHIN, Mail};

/// How the wait for a resume ended.
enum Wait {
    /// A newer connection has the session.
    Resumed,
    /// The grace is over, or another session holds the name.
    Over,
    /// An operator ended the session, or revoked its token.
    Kicked,
    /// The node stops.
    Stopped,
    /// The store names this newer holder, but its node does not know the session.
    Unheld(Holder),
}

impl Runner {
    /// Ends the session after its connection has ended for `reason`. Waits for the client first if it may resume, and
    /// `address` has fewer sessions without connections than it may; `stop` ends that wait. Returns when nothing is
    /// left to do on this node.
    pub(super) async fn end(
        mut self,
        reason: CloseReason,
        address: &AddressLimits,
        stop: &CancellationToken,
    ) {
        if self.mailbox.has_overflowed() {
            self.router.telemetry().metrics.mailbox_overflowed();
        }
        if reason == CloseReason::Replaced {
            return self.vanish();
        }
        let hangs_up = reason == CloseReason::Draining && bugs::has(Bug::DrainHangsUp);
        if self.state.is_resumable()
            && reason.can_resume()
            && !hangs_up
            && let Ok(_permit) = address.detach()
        {
            match self.wait_for_resume(stop).await {
                Wait::Resumed => return self.vanish(),
                Wait::Stopped => return self.router.leave_behind(),
                Wait::Over => {}
                Wait::Kicked => return self.depart(LeaveReason::Kicked).await,
                Wait::Unheld(holder) => {
                    let (router, address) = (Arc::clone(&self.router), self.address().clone());
                    self.depart(reason.leave_reason()).await;
                    // Best effort: otherwise the lease expires.
                    let release = router
                        .broker()
                        .release(&address, &holder, Offset::default());
                    let _ = release.await;
                    return;
                }
            }
        }
        if reason == CloseReason::TooSlow && !self.state.is_resumable() {
            // Whoever flooded the client must not have its name while it comes back.
            let owner = Secret::of_network(address.network()).hash_for(self.address());
            self.router.broker().reserve(self.address(), &owner);
        }
        self.depart(reason.leave_reason()).await;
    }

    /// Keeps the session without a connection until the grace is over.
    async fn wait_for_resume(&mut self, stop: &CancellationToken) -> Wait {
        let mut until = Instant::now() + self.state.grace();
        self.detach();
        loop {
            let event = tokio::select! {
                event = self.next() => event,
                () = stop.cancelled() => {
                    self.write_down().await;
                    return Wait::Stopped;
                }
                () = sleep_until(until) => match self.grace_is_over().await {
                    Ok(again) => {
                        until = again;
                        continue;
                    }
                    Err(wait) => return wait,
                },
            };
            self.handle(event);
            for action in self.take_actions() {
                match action {
                    Action::End(CloseReason::Replaced) => return Wait::Resumed,
                    Action::End(CloseReason::NameLost) => return Wait::Over,
                    Action::End(CloseReason::Kicked | CloseReason::TokenRevoked) => {
                        return Wait::Kicked;
                    }
                    // No client is connected, and a full mailbox does no harm: everything is in the inbox.
                    Action::End(_) | Action::Tell(_) | Action::Ping | Action::EndSpan(_) => {}
                    Action::Challenge => self.on(Input::Answer(Verdict::Detached)),
                }
            }
        }
    }

    /// Decides what to do when the grace is over. Nobody could resume while the store was away or being rewritten, so
    /// the grace is extended past the expiry guard. The session goes on reading its mail meanwhile: clients can resume
    /// only after it has rewritten its record.
    async fn grace_is_over(&mut self) -> Result<Instant, Wait> {
        let node_ttl = self.router.local().terms.node_ttl;
        // Gives clients whose resume was refused as too early another chance. At most the grace, which other nodes rely
        // on.
        let longer = node_ttl.min(self.state.grace());
        let again = match self.router.guard_and(longer) {
            Some(left) => left.min(RETRY_NOTICE),
            // Only the store knows whether the session was resumed meanwhile.
            None => match self.renew().await.as_deref() {
                Ok([Renewal::Replaced]) => return Err(self.look_for_successor().await),
                // The store lost data, or another node freed the name.
                Ok([Renewal::Regained]) => {
                    self.on(Input::Regained(self.router.epoch()));
                    node_ttl
                }
                // The record may have run out.
                Ok([Renewal::Restored]) => {
                    self.on(Input::Mail(Mail::NewEpoch(self.router.epoch())));
                    node_ttl
                }
                Ok(_) => return Err(Wait::Over),
                Err(_) => RETRY_NOTICE,
            },
        };
        Ok(Instant::now() + again)
    }

    /// Asks the node of the newer connection that the store names. If a resume was lost after the store had accepted
    /// it, that node does not know the session, and only this node can tell the call peers.
    async fn look_for_successor(&mut self) -> Wait {
        let addresses = [self.address().clone()];
        let (session, generation) = (self.session(), self.state.lease().generation);
        let mut unheld = None;
        loop {
            let Ok(holders) = self.router.broker().holders(&addresses).await else {
                sleep(RETRY_NOTICE).await;
                continue;
            };
            let newer =
                |holder: &Holder| holder.session == session && holder.generation > generation;
            let Some(holder) = holders.into_iter().flatten().find(newer) else {
                return Wait::Resumed;
            };
            match self.router.ask(holder.clone()).await {
                Ok(Verdict::Gone) if unheld.as_ref() == Some(&holder) => {
                    return Wait::Unheld(holder);
                }
                // Asked twice, because the resume may be in progress.
                Ok(Verdict::Gone) => unheld = Some(holder),
                Ok(_) => return Wait::Resumed,
                Err(_) => {}
            }
            sleep(BARRIER_WITHIN).await;
        }
    }

    fn detach(&mut self) {
        self.mailbox.reopen();
        self.router.detach(self.state.lease());
        self.on(Input::Detach);
    }

    /// Writes what others need before the node stops.
    async fn write_down(&mut self) {
        self.deliver_notices(false).await;
        let mut renewed = self.renew().await;
        self.on(Input::Save);
        loop {
            if self.is_saving() {
                let saved = self.next_saved().await;
                self.handle(SessionEvent::Input(saved));
            } else if renewed.is_ok() && !self.state.is_unsaved() {
                return;
            } else {
                sleep(RETRY_NOTICE).await;
                self.on(Input::Retry);
                renewed = self.renew().await;
            }
        }
    }

    /// Leaves the session to a newer connection: tells nobody, and frees nothing.
    fn vanish(mut self) {
        self.tell_moved();
        self.router.remove(self.state.lease());
        self.on(Input::Answer(Verdict::Alive));
        self.router.broker().unlisten(self.state.lease());
    }

    /// Ends the session: tells every call peer, frees the name, then tells those who called meanwhile. Waits for the
    /// broker as long as the node lives, because nobody else can tell them.
    async fn depart(mut self, reason: LeaveReason) {
        let lease = self.state.lease().clone();
        self.router.release_name(&lease);
        self.read_up().await;
        self.leave_all(reason).await;
        if lease.flags.detached {
            // The store releases a lease only with the flags it knows, and may not have seen the detach. Ordered before
            // the release.
            drop(self.router.broker().renew(vec![lease.clone()]));
        }
        let unread = loop {
            match self.router.give_back(&lease, self.state.read_to()).await {
                Ok(unread) => break unread,
                Err(error) => debug!(%error, "A name could not be given back yet"),
            }
            sleep(RETRY_NOTICE).await;
        };
        if !self.state.is_resumable() {
            // Envelopes that were published before the name was free are in flight, and stored nowhere. Those that do
            // not arrive are lost.
            self.router.wait_behind(&lease).await;
        }
        self.router.broker().unlisten(&lease);
        self.read_the_rest(unread);
        self.leave_all(reason).await;
        self.tell_end(reason);
        self.router.remove(&lease);
        self.on(Input::Answer(Verdict::Gone));
    }

    /// Reads what a resumable session was sent while it was detached. A peer that has called again then gets one leave,
    /// not one for each call.
    async fn read_up(&mut self) {
        if !self.state.is_resumable() {
            return;
        }
        loop {
            let (broker, lease) = (self.router.broker(), self.state.lease());
            match broker.read(lease, self.state.read_to()).await {
                Ok(entries) if entries.is_empty() => return,
                Ok(entries) => self.on(Input::Entries(entries)),
                Err(error) => {
                    debug!(%error, "An inbox could not be read yet");
                    sleep(RETRY_NOTICE).await;
                }
            }
        }
    }

    /// Handles what arrived unread before the name was free: those who called us are in a call with us. Direct mail
    /// comes first, because it is older: senders have used the broker since the local name was released.
    fn read_the_rest(&mut self, unread: Vec<Entry>) {
        let mut pushed = unread;
        for mail in self.mailbox.close() {
            match mail {
                Mail::Push(entries) => pushed.extend(entries),
                mail @ (Mail::Direct(_) | Mail::Challenge(_)) => self.on(Input::Mail(mail)),
                _ => {}
            }
        }
        self.on(Input::Entries(pushed));
    }

    async fn leave_all(&mut self, reason: LeaveReason) {
        self.on(Input::End(reason));
        // Do not hold the name for peers that are gone.
        self.deliver_notices(true).await;
    }

    /// Waits until every notice has arrived or is given up. If the session `ends`, notices to absent users are given
    /// up.
    async fn deliver_notices(&mut self, ends: bool) {
        self.settle();
        while !self.state.is_settled() {
            if self.state.is_quiet() {
                let absent = ends && self.router.is_intact().await;
                self.on(Input::GiveUp { absent });
                if self.state.is_settled() {
                    break;
                }
                sleep(RETRY_NOTICE).await;
                self.on(Input::Retry);
            }
            self.receipts.ready(true).await;
            self.settle();
        }
    }

    async fn renew(&mut self) -> Result<Vec<Renewal>, BrokerError> {
        let lease = self.state.lease().clone();
        self.router.broker().renew(vec![lease]).await
    }
}
