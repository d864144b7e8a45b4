//! Conversations over HTTP: bound to no connection, and so to no node. What another node must know to go on, and how it does.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::runner::Runner;
use super::state::Action;
use super::{Session, Socket};
use crate::model::{
    Address, CloseReason, Command, Correlation, Event, LoginRequest, Offset, Refusal, Secret,
    SecretHash, UserName,
};
use crate::protocol::Codec;
use crate::router::{Proof, ResumeError};

/// How long the broker may take until somebody else should go on with the conversation.
const RESUME_WITHIN: Duration = Duration::from_secs(30);
/// When a login makes sense again of which only its client knows the secret.
const LOGIN_RETRY: Duration = Duration::from_millis(100);

/// A conversation that any node may go on with.
#[derive(Debug)]
pub struct HttpSession {
    /// Makes the secret of its login, so that whoever goes on makes the same.
    pub secret: Secret,
    /// How far it has come elsewhere; `None` if it begins here.
    pub resume_from: Option<ResumePoint>,
}

/// How far a conversation has come elsewhere.
#[derive(Clone, Debug)]
pub struct ResumePoint {
    /// What that node knew.
    pub progress: Progress,
    /// The last of its inbox that its client has, as far as is known.
    pub last: Option<Offset>,
    /// Its client may not have heard that it is logged in.
    pub greet: bool,
}

/// What whoever goes on with a conversation must know.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Who has logged in, and what is stored of what proves it.
    pub user: Option<(UserName, SecretHash)>,
    /// The users that it watches.
    pub watched: BTreeSet<UserName>,
    /// Everything that its client was told up to here was confirmed before this node went on.
    pub confirmed: Offset,
}

/// What a session keeps of that.
#[derive(Debug)]
pub(super) struct HttpState {
    pub(super) secret: Secret,
    resume_from: Option<ResumePoint>,
    /// A login that may have been answered elsewhere is answered again.
    may_repeat_login: bool,
    current: Progress,
    reported: Progress,
    /// Something was heard that may not be dealt with yet.
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

    /// The secret of a login that brings none.
    pub(super) fn login_secret(&self) -> Secret {
        self.secret.derived("login")
    }

    /// Something was said that the transport waits for.
    pub(super) fn mark_received(&mut self) {
        self.is_unsettled = true;
    }

    /// The client is told of this; what it would not understand is left out.
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

    /// It watches these, or does not any more.
    pub(super) fn update_watched(&mut self, names: &[UserName], watch: Option<bool>) {
        match watch {
            Some(true) => self.current.watched.extend(names.iter().cloned()),
            Some(false) => self.current.watched.retain(|name| !names.contains(name)),
            None => {}
        }
    }

    /// What is to be reported before anything else is told, if there is news.
    pub(super) fn progress(&mut self, runner: Option<&Runner>) -> Option<Progress> {
        let user = runner.and_then(|runner| {
            let hash = runner.state.secret_hash()?;
            Some((runner.name().clone(), hash.clone()))
        });
        self.current.user = user.or_else(|| self.current.user.take());
        (self.current != self.reported).then(|| {
            self.reported.clone_from(&self.current);
            self.current.clone()
        })
    }

    /// Whether something was heard, and it is known what became of it.
    pub(super) fn is_settled(&self, runner: Option<&Runner>) -> bool {
        self.is_unsettled && runner.is_none_or(|runner| runner.state.is_quiet())
    }

    /// The same, once.
    pub(super) fn take_settled(&mut self, runner: Option<&Runner>) -> bool {
        let is_settled = self.is_settled(runner);
        self.is_unsettled &= !is_settled;
        is_settled
    }
}

/// What is done again is delivered once: a signal has an id of ours if its client gave it none.
pub(super) fn set_id(command: &mut Command, generated: Option<Correlation>) {
    if let (Command::Send { id, .. }, Some(generated)) = (command, generated) {
        id.get_or_insert(generated);
    }
}

impl<S: Socket, D: Codec> Session<S, D> {
    /// Goes on with the session that another node had.
    pub(super) async fn resume_elsewhere(&mut self) -> Result<(), CloseReason> {
        let Some(http) = &mut self.http else {
            return Ok(());
        };
        let Some(ResumePoint {
            progress:
                Progress {
                    user: Some((name, hash)),
                    watched,
                    ..
                },
            mut last,
            greet,
        }) = http.resume_from.take()
        else {
            return Ok(());
        };
        let address = Address::new(self.context.realm.clone(), name);
        let secret = http.login_secret();
        let is_generated = secret.hash_for(&address) == hash;
        let begun = Instant::now();
        let router = Arc::clone(&self.context.router);
        let claimed = loop {
            let proof = if is_generated {
                Proof::Secret(secret.clone())
            } else {
                Proof::Hash(hash.clone())
            };
            match router.resume(address.clone(), proof, last).await {
                Ok(claimed) => break claimed,
                Err(ResumeError::Unheard(claimed, reason)) => {
                    self.runner = Some(self.runner_of(*claimed));
                    return Err(reason);
                }
                Err(ResumeError::Refused(Refusal::Unavailable { retry_after })) => {
                    if begun.elapsed() > RESUME_WITHIN || self.context.phase.is_draining() {
                        return Err(CloseReason::Overloaded);
                    }
                    sleep(retry_after).await;
                }
                // Something behind its last is confirmed already: the client is told that it is lost.
                Err(ResumeError::Refused(Refusal::ResumeFailed)) if last.is_some() => last = None,
                Err(_) => return Err(CloseReason::NameLost),
            }
        };
        let metrics = &router.telemetry().metrics;
        self.gauge = Some(metrics.logged_in(self.transport(), D::NAME));
        self.heartbeat.logged_in();
        // When the client was told of ICE servers, only the node before knew.
        let runs_out = self.context.ice.renewed_after();
        self.heartbeat.renews_in(runs_out.map(|_| Duration::ZERO));
        let runner = self.runner_of(claimed);
        if let Some(http) = &mut self.http {
            http.current.confirmed = runner.state.confirmed();
        }
        let runner = self.runner.insert(runner);
        if greet {
            let greeting = match runner.state.secret() {
                Some(secret) => {
                    let secret = Some(secret.clone());
                    let welcome =
                        super::login::welcome(&self.context.ice, runner, false, secret, None);
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
        if !watched.is_empty() {
            let watched = watched.into_iter().collect();
            // Should it fail, nobody is told of changes until it asks again.
            let lease = runner.state.lease().clone();
            let presence = router.presence(&lease, watched, Some(true));
            if let Ok(users) = Box::pin(presence).await {
                self.tell(Event::Presence { users, id: None });
            }
        }
        self.write_actions().await
    }

    /// A login of a session that is logged in: refused, unless its client may not have heard the answer to its first one.
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
                let ice = &self.context.ice;
                let welcome = super::login::welcome(ice, runner, resumed, Some(secret), id);
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
