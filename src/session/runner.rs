//! Runs one session's [`State`]: waits for inputs, and executes the effects at the broker and the node.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures_util::FutureExt as _;
use tokio::time::{Instant, sleep, sleep_until};

use super::pending::{Pending, find, next_save};
use super::state::{Action, Effect, Input, Moment, SessionPolicy, State};
use crate::broker::Receipts;
use crate::model::{Address, Claims, NodeId, SessionId, UserName, What};
use crate::router::{Claimed, Client, MailboxReceiver, Router};
use crate::telemetry::Transport;

/// A logged-in session. Dropping it removes the session from this node; its lease expires.
#[derive(Debug)]
pub(super) struct Runner {
    pub(super) router: Arc<Router>,
    pub(super) state: State,
    pub(super) mailbox: MailboxReceiver,
    pub(super) receipts: Receipts,
    pending: Pending,
    /// Whether an earlier connection began the session.
    is_resumed: bool,
    /// When the mail that is being written was posted, if it is timed.
    since: Option<std::time::Instant>,
}

/// Something for [`Runner::handle`] to handle.
#[derive(Debug)]
pub(super) enum SessionEvent {
    /// The mailbox is not empty, or overflowed.
    Mail,
    /// The outcome of a send is known.
    Outcome,
    /// Any other input of the state.
    Input(Input),
}

impl Runner {
    /// Starts a session that has won its name.
    pub(super) fn new(router: Arc<Router>, claimed: Claimed, policy: SessionPolicy) -> Self {
        let Claimed {
            lease,
            mailbox,
            secret,
            resumed,
            epoch,
        } = claimed;
        let is_resumed = resumed.is_some();
        let (node, moment) = (Arc::clone(router.local()), moment(&router));
        let mut state = match (resumed, secret) {
            (Some((resumed, last)), Some(secret)) => {
                State::resume(node, &resumed, secret, last, epoch, moment)
            }
            (_, secret) => State::new(node, lease, secret, epoch, moment),
        };
        state.set_policy(policy);
        let mut runner = Self {
            router,
            state,
            mailbox,
            receipts: Receipts::default(),
            pending: Pending::default(),
            is_resumed,
            since: None,
        };
        if is_resumed {
            runner.tell_begin();
        }
        runner.run();
        runner
    }

    /// The session's id.
    pub(super) fn session(&self) -> SessionId {
        self.state.lease().session
    }

    /// The user's address.
    pub(super) fn address(&self) -> &Address {
        &self.state.lease().address
    }

    /// The user's name.
    pub(super) fn name(&self) -> &UserName {
        &self.address().name
    }

    /// This node's id.
    pub(super) fn node(&self) -> &NodeId {
        self.router.node()
    }

    /// Whether an earlier connection began the session.
    pub(super) fn is_resumed(&self) -> bool {
        self.is_resumed
    }

    /// Tells the node how the client is connected, and what its token says.
    pub(super) fn describe(
        &mut self,
        transport: Transport,
        protocol: &'static str,
        claims: Option<Arc<Claims>>,
    ) {
        let now = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
        let since = Duration::from_secs(self.state.since(now.as_secs()));
        let client = Client {
            transport,
            protocol,
            since: SystemTime::UNIX_EPOCH + since,
            claims,
        };
        self.router.describe(self.state.lease(), client);
    }

    /// Waits until something happens. Cancel-safe.
    pub(super) async fn next(&mut self) -> SessionEvent {
        let (busy, next_at) = (self.state.is_busy(), self.state.next_at());
        tokio::select! {
            () = self.mailbox.filled() => SessionEvent::Mail,
            () = self.receipts.ready(busy), if !self.state.is_quiet() => SessionEvent::Outcome,
            input = self.pending.next() => SessionEvent::Input(input),
            () = due(next_at) => SessionEvent::Input(Input::Due),
        }
    }

    /// Handles an event.
    pub(super) fn handle(&mut self, event: SessionEvent) {
        match event {
            SessionEvent::Mail => {
                let moment = moment(&self.router);
                let (mails, since) = self.mailbox.take();
                for mail in mails {
                    self.state.on(Input::Mail(mail), moment);
                }
                self.since = since.filter(|_| self.state.has_actions());
                if self.mailbox.has_overflowed() {
                    self.state.on(Input::Overflow, moment);
                    if self.state.lease().flags.detached {
                        self.mailbox.reopen();
                    }
                }
            }
            SessionEvent::Outcome => {}
            SessionEvent::Input(input) => self.state.on(input, moment(&self.router)),
        }
        self.settle();
    }

    /// Passes an input to the state and executes the effects.
    pub(super) fn on(&mut self, input: Input) {
        self.state.on(input, moment(&self.router));
        self.run();
    }

    /// Takes the actions for the client's connection.
    pub(super) fn take_actions(&mut self) -> Vec<Action> {
        self.state.take_actions()
    }

    /// Records that all actions are written.
    pub(super) fn written(&mut self) {
        if let Some(since) = self.since.take() {
            self.router.telemetry().metrics.delivered(since.elapsed());
        }
    }

    /// Waits until the mailbox overflows, which ends the session even in the middle of a write.
    pub(super) async fn overflowed(&mut self) {
        self.mailbox.overflowed().await;
    }

    /// Executes the effects, and handles all outcomes that are known.
    pub(super) fn settle(&mut self) {
        self.run();
        let mut taken_at = None;
        while let Some(answer) = self.receipts.take() {
            let moment = *taken_at.get_or_insert_with(|| moment(&self.router));
            self.state.on(Input::Outcome(answer), moment);
            self.run();
        }
    }

    /// Whether a record update is in flight.
    pub(super) fn is_saving(&self) -> bool {
        let saves = self.pending.saves.as_ref();
        saves.is_some_and(|saves| !saves.is_empty())
    }

    /// Waits for the result of one record update; forever if none is in flight.
    pub(super) async fn next_saved(&mut self) -> Input {
        let (number, result) = next_save(&mut self.pending.saves).await;
        Input::Saved(number, result)
    }

    /// Executes the effects of the inputs so far.
    fn run(&mut self) {
        if self.state.has_effects() {
            for effect in self.state.take_effects() {
                self.execute(effect);
            }
        }
    }

    fn execute(&mut self, effect: Effect) {
        let broker = self.router.broker();
        match effect {
            Effect::Send {
                to,
                options,
                envelope,
                is_quiet,
                is_timed,
            } => {
                let receipt = self.receipts.issue(is_quiet, is_timed);
                self.router.route(&to, options, *envelope, receipt);
            }
            Effect::Save(number, notes) => {
                let written = broker.save(self.state.lease(), *notes);
                if let Some(number) = number {
                    let saves = self.pending.saves.get_or_insert_default();
                    saves.push(written.map(move |result| (number, result)).boxed());
                }
            }
            Effect::Read(last, pause) => {
                let (broker, lease) = (Arc::clone(broker), self.state.lease().clone());
                let read = async move {
                    sleep(pause).await;
                    broker.read(&lease, last).await
                };
                self.pending.read = Some(read.boxed());
            }
            Effect::StopReading => self.pending.read = None,
            Effect::FindPeers(peers) => {
                self.pending.find = Some(find(Arc::clone(&self.router), peers).boxed());
            }
            Effect::LookUp(address) => self.router.look_up(self.session(), address),
            Effect::Release(address, holder) => {
                drop(broker.release(&address, &holder, <_>::default()));
            }
            Effect::Answer(question, verdict) => self.router.answer(&question, verdict),
            Effect::Tell(fact) => self.tell(What::Call(*fact)),
        }
    }
}

/// Also removes a session whose task panicked.
impl Drop for Runner {
    fn drop(&mut self) {
        self.router.remove(self.state.lease());
    }
}

/// Waits until `at`, or forever.
pub(super) async fn due(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// The current moment.
pub(super) fn moment(router: &Router) -> Moment {
    let now = Instant::now();
    let guard = router.guard(now);
    Moment { now, guard }
}
