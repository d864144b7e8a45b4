//! How a session ends: each call with exactly one `leave`, then its name. A resumable one first waits for its client to come back.

use std::sync::Arc;

use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::runner::{Runner, SessionEvent};
use super::state::{Action, Input, RETRY_NOTICE};
use crate::broker::{BrokerError, Entry, Holder, Renewal, Verdict};
use crate::bugs::{self, Bug};
use crate::limits::AddressLimits;
use crate::model::{CloseReason, LeaveReason, Offset};
use crate::router::{BARRIER_WITHIN, Mail};

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

impl Runner {
    /// The connection has ended for this reason. A resumable session waits for its client, if it may come back; `stop` tells it that the node
    /// cannot wait any longer. Returns when nothing is left to do here.
    /// Nor does it wait if `address` has as many sessions without connections as it may.
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
                Wait::Unheld(holder) => {
                    let (router, address) = (Arc::clone(&self.router), self.address().clone());
                    self.depart(reason.leave_reason()).await;
                    // Should it fail, the name runs out.
                    let release = router
                        .broker()
                        .release(&address, &holder, Offset::default());
                    let _ = release.await;
                    return;
                }
            }
        }
        self.depart(reason.leave_reason()).await;
    }

    /// Without a connection, until the grace is over.
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
                    // Nobody is there to be told, and full is no harm: everything is in the inbox.
                    Action::End(_) | Action::Tell(_) | Action::Ping | Action::EndSpan(_) => {}
                    Action::Challenge => self.on(Input::Answer(Verdict::Detached)),
                }
            }
        }
    }

    /// The grace is over. Nobody can resume anywhere while the store is away, and some are put off until it is told everything: then it lasts
    /// longer. Mail is read meanwhile: how soon somebody can resume, once the store is back, depends on what this session tells it.
    async fn grace_is_over(&mut self) -> Result<Instant, Wait> {
        let node_ttl = self.router.local().terms.node_ttl;
        // For those who were put off: no longer than the grace, which others count on.
        let longer = node_ttl.min(self.state.grace());
        let again = match self.router.guard_and(longer) {
            Some(left) => left.min(RETRY_NOTICE),
            // Only the store knows whether somebody has resumed it meanwhile.
            None => match self.renew().await.as_deref() {
                Ok([Renewal::Replaced]) => return Err(self.look_for_successor().await),
                // It has lost data, which the next beat will notice.
                Ok([Renewal::Regained]) => {
                    self.on(Input::Forgotten(self.router.epoch()));
                    node_ttl
                }
                Ok(_) => return Err(Wait::Over),
                Err(_) => RETRY_NOTICE,
            },
        };
        Ok(Instant::now() + again)
    }

    /// The store says that a newer connection has the session. A resume whose answer was lost leaves it to a node that does not know of it,
    /// and only this one can tell its call peers.
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
                // Its node may have won it in this moment.
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

    /// The node stops: what others must know is written before it does.
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

    /// A newer connection has the session: nothing is said to anybody, and nothing is freed.
    fn vanish(mut self) {
        self.router.remove(self.state.lease());
        self.on(Input::Answer(Verdict::Alive));
        self.router.broker().unlisten(self.state.lease());
    }

    /// Ends the session: tells every call peer, then frees the name, then tells whoever called meanwhile. Waits for the broker as long as the
    /// node lives, since nobody else can tell them.
    async fn depart(mut self, reason: LeaveReason) {
        let lease = self.state.lease().clone();
        self.router.release_name(&lease);
        self.read_up().await;
        self.leave_all(reason).await;
        if lease.flags.detached {
            // Should the store not know it yet: only what it knows can be given back. Takes its place before the release.
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
            // What was published before the name was free is on its way, and stored nowhere. What does not come back was lost with it.
            self.router.wait_behind(&lease).await;
        }
        self.router.broker().unlisten(&lease);
        self.read_the_rest(unread);
        self.leave_all(reason).await;
        self.router.remove(&lease);
        self.on(Input::Answer(Verdict::Gone));
    }

    /// Reads what a resumable session was sent without a connection: a peer that has called again meanwhile is left once, not for each call.
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

    /// Who called without our having read it is in a call with us. What came directly is older than what came by the broker: that is the path
    /// since the name was given up.
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
        // The name is not kept waiting for peers that are gone.
        self.deliver_notices(true).await;
    }

    /// Waits until every word that must arrive has arrived, or need not; to somebody absent it need not if the session `ends`.
    async fn deliver_notices(&mut self, ends: bool) {
        self.settle_now();
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
            self.settle_now();
        }
    }

    async fn renew(&mut self) -> Result<Vec<Renewal>, BrokerError> {
        let lease = self.state.lease().clone();
        self.router.broker().renew(vec![lease]).await
    }
}
