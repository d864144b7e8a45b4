//! Sessions over HTTP: they have no connection of their own, so any node can continue one from its
//! recorded progress.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::time::{Instant, sleep};

use super::progress::{HttpSession, Progress, ResumePoint};
use super::runner::Runner;
use super::state::Action;
use super::{Session, Socket};
use crate::model::{
    Address, Claims, CloseReason, Command, Correlation, Event, LoginRequest, Names, Offset,
    Refusal, Secret, UserName,
};
use crate::protocol::Codec;
use crate::router::{Claimed, Proof, ResumeError};

/// Time limit for resuming while the broker is away; then another node should try.
const RESUME_WITHIN: Duration = Duration::from_secs(30);
/// Suggested delay before a repeated login. Only the client knows the secret of such a login.
const LOGIN_RETRY: Duration = Duration::from_millis(100);

/// The part of a session that only HTTP sessions have.
#[derive(Debug)]
pub(super) struct HttpState {
    pub(super) secret: Secret,
    resume_from: Option<ResumePoint>,
    /// Another node may have answered the login already, so a repeated login is answered again.
    may_repeat_login: bool,
    current: Progress,
    reported: Progress,
    /// A received message may not be processed yet.
    is_unsettled: bool,
}

impl HttpState {
    pub(super) fn new(http_session: HttpSession) -> Self {
        let resume_from = http_session.resume_from;
        let now = resume_from.as_ref().map(|point| point.progress.clone());
        let now = now.unwrap_or_default();
        Self {
            secret: http_session.secret,
            may_repeat_login: resume_from.as_ref().is_some_and(|point| point.greet),
            resume_from,
            reported: now.clone(),
            current: now,
            is_unsettled: false,
        }
    }

    /// The secret of a login that brings none of its own.
    pub(super) fn login_secret(&self) -> Secret {
        self.secret.derived("login")
    }

    /// Records that a message was received whose processing the transport waits for.
    pub(super) fn mark_received(&mut self) {
        self.is_unsettled = true;
    }

    /// Removes generated ids from an event, because the client does not know them.
    pub(super) fn visible(event: Event) -> Option<Event> {
        match event {
            Event::Ack { id, .. } if id.is_generated() => None,
            Event::Refused { refusal, id, name } => Some(Event::Refused {
                refusal,
                id: id.filter(|id| !id.is_generated()),
                name,
            }),
            event => Some(event),
        }
    }

    /// The progress to record before anything else is sent, if it changed since the last call.
    pub(super) fn progress(&mut self, runner: Option<&Runner>) -> Option<Progress> {
        let user = runner.and_then(|runner| {
            let hash = runner.state.secret_hash()?;
            Some((runner.name().clone(), hash.clone()))
        });
        if let Some(runner) = runner {
            self.current.realm = runner.address().realm.clone();
            self.current.claims = runner.state.claims().cloned();
            self.current.held_back = runner.state.held_back(Instant::now(), since_1970());
        }
        self.current.user = user.or_else(|| self.current.user.take());
        (self.current != self.reported).then(|| {
            self.reported.clone_from(&self.current);
            self.current.clone()
        })
    }

    /// Whether a message has come since the last `Settled`, and the outcome of every send is known.
    pub(super) fn is_settled(&self, runner: Option<&Runner>) -> bool {
        self.is_unsettled && runner.is_none_or(|runner| runner.state.is_quiet())
    }

    /// Like [`is_settled`](Self::is_settled), but true once per received batch.
    pub(super) fn take_settled(&mut self, runner: Option<&Runner>) -> bool {
        let is_settled = self.is_settled(runner);
        self.is_unsettled &= !is_settled;
        is_settled
    }
}

/// Gives a signal without an id a generated one, so that receivers recognise it if a node repeats
/// it.
pub(super) fn set_id(command: &mut Command, generated: Option<Correlation>) {
    if let (Command::Send { id, .. }, Some(generated)) = (command, generated) {
        id.get_or_insert(generated);
    }
}

impl<S: Socket, D: Codec> Session<S, D> {
    /// Resumes the session that another node had.
    pub(super) async fn resume_elsewhere(&mut self) -> Result<(), CloseReason> {
        let Some(http) = &mut self.http else {
            return Ok(());
        };
        let Some(ResumePoint {
            progress:
                Progress {
                    user: Some((name, hash)),
                    realm,
                    claims,
                    ..
                },
            last,
            greet,
        }) = http.resume_from.take()
        else {
            return Ok(());
        };
        let address = Address::new(realm, name);
        let secret = http.login_secret();
        let proof = if secret.hash_for(&address) == hash {
            Proof::Secret(secret)
        } else {
            Proof::Hash(hash)
        };
        let callers = claims
            .as_ref()
            .and_then(|claims| claims.callable_by.clone());
        let claimed = self.claim_again(address, (callers, &claims), &proof, last);
        let claimed = claimed.await?;
        self.go_on_with(claimed, claims)?;
        if greet {
            self.greet();
        }
        self.watch_again().await;
        self.write_actions().await
    }

    /// Claims the session until that is done or refused for good.
    async fn claim_again(
        &mut self,
        address: Address,
        (callers, claims): (Option<Names>, &Option<Arc<Claims>>),
        proof: &Proof,
        mut last: Option<Offset>,
    ) -> Result<Claimed, CloseReason> {
        let begun = Instant::now();
        let router = Arc::clone(&self.context.router);
        loop {
            let resuming = router.resume(address.clone(), callers.clone(), proof.clone(), last);
            match resuming.await {
                Ok(claimed) => return Ok(claimed),
                Err(ResumeError::Unheard(claimed, reason)) => {
                    self.runner = Some(self.runner_of(*claimed));
                    self.grant(claims.clone())?;
                    return Err(reason);
                }
                Err(ResumeError::Refused(Refusal::Unavailable { retry_after })) => {
                    if begun.elapsed() > RESUME_WITHIN || self.context.phase.is_draining() {
                        return Err(CloseReason::Overloaded);
                    }
                    sleep(retry_after).await;
                }
                // Entries after `last` are confirmed already. Resume without it: the client is told
                // that it lost them.
                Err(ResumeError::Refused(Refusal::ResumeFailed)) if last.is_some() => last = None,
                Err(_) => return Err(CloseReason::NameLost),
            }
        }
    }

    /// Goes on with a session that was claimed.
    fn go_on_with(
        &mut self,
        claimed: Claimed,
        claims: Option<Arc<Claims>>,
    ) -> Result<(), CloseReason> {
        let metrics = &self.context.router.telemetry().metrics;
        self.gauge = Some(metrics.logged_in(self.transport(), D::NAME));
        self.heartbeat.logged_in();
        // Only the previous node knew when the client's ICE credentials run out, so send new ones
        // now.
        let runs_out = self.context.ice.renewed_after();
        self.heartbeat.renews_in(runs_out.map(|_| Duration::ZERO));
        let mut runner = self.runner_of(claimed);
        if let Some(http) = &mut self.http {
            http.current.confirmed = runner.state.confirmed();
            let held_back = &http.current.held_back;
            runner
                .state
                .hold_back_again(held_back, Instant::now(), since_1970());
        }
        self.runner = Some(runner);
        self.grant(claims)
    }

    /// Answers a login whose answer the client may not have.
    fn greet(&mut self) {
        let Some(runner) = &self.runner else {
            return;
        };
        let greeting = match runner.state.secret() {
            Some(secret) => {
                let secret = Some(secret.clone());
                let welcome = super::login::welcome(&self.context, runner, false, secret, None);
                Event::Welcome(Box::new(welcome))
            }
            None => Event::LoginRefused {
                refusal: Refusal::Unavailable {
                    retry_after: LOGIN_RETRY,
                },
                id: None,
            },
        };
        self.actions.push(Action::Tell(greeting));
    }

    /// Best effort: if this fails, the client gets no presence changes until it asks again.
    async fn watch_again(&mut self) {
        let Some(runner) = &self.runner else {
            return;
        };
        let names: Vec<UserName> = runner.state.watched().iter().cloned().collect();
        if names.is_empty() {
            return;
        }
        let lease = runner.state.lease().clone();
        let router = Arc::clone(&self.context.router);
        let presence = router.presence(&lease, names, Some(true));
        if let Ok(users) = Box::pin(presence).await {
            self.tell(Event::Presence { users, id: None });
        }
    }

    /// Handles a login of a logged-in session. It is refused, unless the client may not have the
    /// reply to its first login.
    pub(super) fn repeat_login(&mut self, request: &LoginRequest, id: Option<Correlation>) {
        let is_open = |http: &HttpState| http.may_repeat_login;
        let runner = self.runner.as_ref();
        let runner = runner.filter(|_| self.http.as_deref().is_some_and(is_open));
        let secret = runner.and_then(|runner| match &request.resume {
            None => runner.state.secret().cloned(),
            Some(secret) => {
                let secret = Secret::claimed(secret);
                (Some(&secret.hash_for(runner.address())) == runner.state.secret_hash())
                    .then_some(secret)
            }
        });
        let event = match (runner, secret) {
            (Some(runner), Some(secret)) if request.name == runner.name().as_str() => {
                let resumed = request.resume.is_some();
                let context = &self.context;
                let welcome = super::login::welcome(context, runner, resumed, Some(secret), id);
                Event::Welcome(Box::new(welcome))
            }
            _ => Event::LoginRefused {
                refusal: Refusal::AlreadyLoggedIn,
                id,
            },
        };
        self.tell(event);
    }
}

fn since_1970() -> Duration {
    SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default()
}
