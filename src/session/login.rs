//! Logins: a session gets a new name, or takes over from an earlier connection.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};
use tracing::debug;

use super::runner::Runner;
use super::state::Action;
use super::{InitialLogin, Session, SessionContext, Socket};
use crate::model::{
    Address, Claims, CloseReason, Correlation, Event, LoginRequest, Refusal, Secret, UserName,
    Welcome,
};
use crate::protocol::Codec;
use crate::router::{Claimed, Proof, ResumeError};

/// The delay before a wrong secret is refused. After [`WRONG_SECRETS`] of them the connection ends.
const WRONG_SECRET_COSTS: Duration = Duration::from_secs(1);
const WRONG_SECRETS: u32 = 5;

/// The reply to a successful login.
pub(super) fn welcome(
    context: &SessionContext,
    runner: &Runner,
    resumed: bool,
    resume: Option<Secret>,
    id: Option<Correlation>,
) -> Welcome {
    Welcome {
        name: runner.name().clone(),
        session: runner.session(),
        node: runner.node().clone(),
        grace: runner.state.grace(),
        ice: context
            .ice
            .servers_for(runner.address(), runner.state.may_relay()),
        resume,
        resumed,
        pace: runner.state.is_resumable().then_some(context.pace),
        id,
    }
}

impl<S: Socket, D: Codec> Session<S, D> {
    /// Logs the client in, and queues the reply. Returns the refusal, if there is one.
    pub(super) async fn login(
        &mut self,
        request: LoginRequest,
        id: Option<Correlation>,
    ) -> Result<Option<Refusal>, CloseReason> {
        let resumes = request.resume.is_some();
        let metrics = Arc::clone(&self.context.router.telemetry().metrics);
        let count = |result: Result<(), &Refusal>| {
            if resumes {
                metrics.resume(result.map_err(Refusal::code));
            } else {
                metrics.login(result);
            }
        };
        let tried = self.try_login(request).await;
        let mut why_not = None;
        let told = match tried.inspect_err(|reason| metrics.resume(Err(reason.label())))? {
            Ok((runner, claims)) => {
                if !runner.is_resumed() {
                    runner.tell_begin();
                }
                count(Ok(()));
                self.gauge = Some(metrics.logged_in(self.transport(), D::NAME));
                self.runner = Some(runner);
                self.grant(claims)?;
                let Some(runner) = &self.runner else {
                    unreachable!("the session has begun")
                };
                let secret = runner.state.secret().cloned();
                let welcome = welcome(&self.context, runner, resumes, secret, id);
                debug!(session.id = %runner.session(), resumed = resumes, "A user logged in");
                if runner.state.is_resumable() && !self.context.max_age.is_zero() {
                    let age = self.context.max_age.mul_f64(rand::random_range(0.5..1.0));
                    self.goes_at.get_or_insert_with(|| Instant::now() + age);
                }
                self.heartbeat.logged_in();
                self.heartbeat.renews_in(self.context.ice.renewed_after());
                Event::Welcome(Box::new(welcome))
            }
            Err(refusal) => {
                count(Err(&refusal));
                why_not = Some(refusal.clone());
                Event::LoginRefused { refusal, id }
            }
        };
        // Ahead of the events of the state, which the client cannot understand yet.
        self.actions.push(Action::Tell(told));
        Ok(why_not)
    }

    /// Starts a session that has won its name.
    pub(super) fn runner_of(&self, claimed: Claimed) -> Runner {
        Runner::new(
            Arc::clone(&self.context.router),
            claimed,
            self.context.policy,
        )
    }

    async fn try_login(
        &mut self,
        request: LoginRequest,
    ) -> Result<Result<(Runner, Option<Arc<Claims>>), Refusal>, CloseReason> {
        let (address, claims) = match self.allowed(&request).await {
            Ok(allowed) => allowed,
            Err(refusal) => return Ok(Err(refusal)),
        };
        let callers = claims
            .as_ref()
            .and_then(|claims| claims.callable_by.clone());
        let router = Arc::clone(&self.context.router);
        let from = Secret::of_network(self.context.address.network());
        let entering = match (request.own_secret, request.resume) {
            (Some(secret), _) => {
                let secret = Secret::claimed(&secret);
                router
                    .enter(
                        address,
                        callers,
                        secret,
                        &from,
                        self.context.policy.grace,
                        || self.context.address.guesser.wrong(),
                    )
                    .await
            }
            (None, Some(secret)) => {
                let secret = Proof::Secret(Secret::claimed(&secret));
                router.resume(address, callers, secret, request.last).await
            }
            (None, None) => {
                let secret = match &self.http {
                    Some(http) => Some(http.login_secret()),
                    None => request.resumable.then(Secret::random),
                };
                let login = router.login(address, callers, secret, &from).await;
                login.map_err(ResumeError::Refused)
            }
        };
        match entering {
            Ok(claimed) => Ok(Ok((self.runner_of(claimed), claims))),
            Err(ResumeError::Refused(refusal)) => Ok(Err(refusal)),
            Err(ResumeError::Unheard(claimed, reason)) => {
                self.runner = Some(self.runner_of(*claimed));
                self.grant(claims)?;
                Err(reason)
            }
            Err(ResumeError::WrongSecret) => {
                // A client knows its own secret, so this one is guessing: slow it down.
                sleep(WRONG_SECRET_COSTS).await;
                self.wrong_secrets += 1;
                if self.wrong_secrets == WRONG_SECRETS {
                    return Err(CloseReason::TooFast);
                }
                Ok(Err(Refusal::ResumeFailed))
            }
        }
    }

    /// The address that a login asks for, and what its token says, if both fit.
    async fn allowed(
        &mut self,
        request: &LoginRequest,
    ) -> Result<(Address, Option<Arc<Claims>>), Refusal> {
        if self.context.phase.is_draining() {
            return Err(Refusal::Draining);
        }
        // Who resumes may be in a call, and has little time to find another node.
        if request.resume.is_none() {
            if self.context.router.is_full() {
                return Err(Refusal::Draining);
            }
            let checked = self.context.address.check_login();
            checked.map_err(|retry_after| Refusal::RateLimited { retry_after })?;
        }
        let (token, admitted) = (request.token.as_deref(), self.context.admitted.as_ref());
        let claims = self.context.auth.admit(token, admitted).await?;
        if let Some(claims) = &claims {
            self.context.router.check_token(claims)?;
        }
        let name = UserName::parse(&request.name).map_err(Refusal::InvalidName)?;
        let mut realm = self.context.realm.clone();
        if let Some(claims) = &claims {
            claims.may_be(&name)?;
            realm = claims.realm_at(&realm)?;
        }
        let address = Address::new(realm, name);
        if let Some(claims) = &claims {
            // Released first: the login that failed before may have been of the same owner.
            self.owners = None;
            let replaces =
                request.resume.is_some() || self.context.router.is_owned(&address, claims);
            self.owners = self.context.auth.connect(claims, replaces)?;
        }
        Ok((address, claims))
    }

    /// Begins the session as its connection asks: with the login that came with it, or with the first message. A login
    /// that came with the connection has no second try.
    pub(super) async fn open(&mut self, initial_login: InitialLogin) -> Result<(), CloseReason> {
        let request = match initial_login {
            InitialLogin::ByMessage => return Ok(()),
            InitialLogin::Given(request) => Ok(*request),
            InitialLogin::Refused(refusal) => Err(refusal),
        };
        let refusal = match request {
            Ok(request) => self.login(request, None).await?,
            Err(refusal) => {
                self.context.router.telemetry().metrics.login(Err(&refusal));
                self.tell(Event::LoginRefused {
                    refusal: refusal.clone(),
                    id: None,
                });
                Some(refusal)
            }
        };
        self.write_actions().await?;
        match refusal {
            None => Ok(()),
            // Another node, or a later attempt, may succeed.
            Some(Refusal::Draining) => Err(CloseReason::Draining),
            Some(
                Refusal::Unavailable { .. }
                | Refusal::KeysUnavailable { .. }
                | Refusal::RateLimited { .. },
            ) => Err(CloseReason::Overloaded),
            Some(_) => Err(CloseReason::NotAdmitted),
        }
    }
}
