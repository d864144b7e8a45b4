//! The task of an HTTP session at its home: takes the session over, runs it, and then remembers for
//! a while where it went.

use std::convert::Infallible;
use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};
use tracing::debug;

use super::home::Home;
use super::node::{LOCATOR_EVERY, Node, RETRY};
use super::socket::HomeSocket;
use super::state::{Stage, State};
use super::token::Token;
use super::wire::{Denied, Handover, Locator, Reply, Request};
use crate::limits::{AddressLimits, Permit, RateLimit};
use crate::model::{Claims, CloseReason, NodeId, Offset, Realm};
use crate::protocol::Native;
use crate::session::state::SessionPolicy;
use crate::session::{self, HttpSession, InitialLogin, Progress, ResumePoint, SessionContext};

/// Time limit for the handover from the previous home.
const HANDOVER_WITHIN: Duration = Duration::from_secs(5);
/// How long a home remembers that a session is over, or where it went.
const REMEMBER_FOR: Duration = Duration::from_secs(30);

/// A session that this node runs.
pub(super) struct Task {
    pub(super) node: Arc<Node>,
    pub(super) token: Token,
    pub(super) home: Arc<Home>,
    /// The limits of the address from which the session was opened, or moved here.
    pub(super) address: AddressLimits,
    /// What the token of the request says that opened the session.
    pub(super) admitted: Option<Arc<Claims>>,
}

/// A session whose home was another node, or this node earlier.
pub(super) struct Takeover {
    pub(super) locator: Locator,
    /// This node's previous home of the session.
    pub(super) previous: Option<Arc<Home>>,
    /// The last inbox entry that the client has, if it reported one.
    pub(super) last: Option<Offset>,
    /// The previous home does not answer.
    pub(super) is_dead: bool,
}

impl Task {
    /// Runs the session until it ends or continues elsewhere.
    pub(super) async fn run(self, takeover: Option<Takeover>, permit: Option<Permit>) {
        let (node, session) = (&self.node, self.token.session());
        let tracked = node.phase.track();
        let point = match takeover {
            None => None,
            Some(takeover) => match self.resume(takeover).await {
                Ok(point) => Some(point),
                Err(denied) => {
                    let failed = Stage::Failed(denied);
                    return self.home.update(|state| state.stage = failed);
                }
            },
        };
        let is_over = self.home.lock().is_over();
        let reason = if is_over {
            None
        } else {
            Some(self.run_session(point).await)
        };
        if reason == Some(CloseReason::Replaced) {
            // If the store does not answer, assume another home: the client's next request finds
            // out.
            let is_home = node.is_home(session).await == Ok(true);
            self.home.update(|state| state.replaced(is_home));
        }
        drop((permit, tracked));
        self.home.update(State::end);
        if reason == Some(CloseReason::ByClient) {
            node.delete_locator(session).await;
        }
        sleep(REMEMBER_FOR).await;
        if self.home.lock().is_over() {
            node.delete_locator(session).await;
        }
    }

    /// Takes the session over and returns the point at which to resume it.
    async fn resume(&self, takeover: Takeover) -> Result<ResumePoint, Denied> {
        let handover = self.take(&takeover).await?;
        let (progress, last): (Progress, _) = match &handover {
            Some(handover) => {
                let last = handover.buffer.last().seq.max(takeover.last);
                (handover.progress.clone().into(), last)
            }
            None => (takeover.locator.progress.into(), takeover.last),
        };
        if handover.as_ref().is_none_or(|handover| !handover.is_over) {
            let session = self.token.session();
            let is_handed_over = handover.is_some();
            debug!(http.session = %session, is_handed_over, "An HTTP session continues on this node");
            // Stored before the resume, so that the previous home sees that another home replaced
            // it, and not a WebSocket.
            let locator = Locator::new(self.node.id(), &self.token.proof(), &progress);
            self.node.write_locator(session, &locator).await?;
        }
        let point = ResumePoint {
            greet: last.is_none() && handover.is_none(),
            progress,
            last,
        };
        self.home.update(|state| state.restore(handover, &point));
        Ok(point)
    }

    /// Asks the previous home for a handover; `None` if it does not give one.
    async fn take(&self, takeover: &Takeover) -> Result<Option<Handover>, Denied> {
        let own = self.node.id();
        if let Some(previous) = &takeover.previous
            && let Ok(handover) = previous.hand_over(own, Duration::ZERO).await
        {
            return Ok(Some(handover));
        }
        let until = Instant::now() + HANDOVER_WITHIN;
        let mut home = NodeId::known(&takeover.locator.node);
        while !takeover.is_dead && home != *own && Instant::now() < until {
            match self.node.ask(&home, &self.token, Request::Take).await? {
                Some(Reply::Handover(handover)) => return Ok(Some(*handover)),
                Some(Reply::Moved(to)) => home = NodeId::known(&to),
                Some(Reply::Denied(Denied::Later)) => {}
                Some(Reply::Denied(denied @ (Denied::Gone | Denied::Wrong))) => return Err(denied),
                _ => break,
            }
        }
        Ok(None)
    }

    /// Runs the session and keeps its locator current meanwhile.
    async fn run_session(&self, point: Option<ResumePoint>) -> CloseReason {
        let settings = &self.node.settings;
        let context = SessionContext {
            router: Arc::clone(&self.node.router),
            realm: Realm::default(),
            clocks: settings.clocks,
            write_timeout: settings.write_timeout,
            rate: RateLimit::new(settings.signals_per_second),
            pace: settings.pace(self.node.router.local().terms),
            address: self.address.clone(),
            phase: self.node.phase.clone(),
            max_age: Duration::ZERO,
            ice: Arc::clone(&settings.ice),
            auth: Arc::clone(&settings.auth),
            admitted: self.admitted.clone(),
            initial_login: InitialLogin::ByMessage,
            policy: SessionPolicy::default(),
            http: Some(Box::new(HttpSession {
                secret: self.token.secret().clone(),
                resume_from: point,
            })),
        };
        let socket = HomeSocket::new(Arc::clone(&self.home));
        tokio::select! {
            reason = session::run(socket, Native, context) => reason,
            never = self.keep_locator_current() => match never {},
        }
    }

    /// Stores the locator periodically and whenever it changes.
    async fn keep_locator_current(&self) -> Infallible {
        let (node, session) = (&self.node, self.token.session());
        let every = LOCATOR_EVERY.min(node.settings.http.session_ttl / 3);
        loop {
            let Some((version, locator)) = self.home.locator(node.id()) else {
                return pending().await;
            };
            let written = match node.is_home(session).await {
                Ok(true) => node.write_locator(session, &locator).await,
                // The session is about to learn that it continues elsewhere.
                Ok(false) => return pending().await,
                Err(error) => Err(error),
            };
            if written.is_ok() {
                self.home.update(|state| state.stored_version = version);
                self.home.outdated(every).await;
            } else {
                // While the store is away, the client cannot reach its session through other nodes:
                // do not let it expire.
                self.home.lock().touch();
                sleep(RETRY).await;
            }
        }
    }
}

/// Runs on a panic too, so that nobody waits for this session.
impl Drop for Task {
    fn drop(&mut self) {
        self.home.update(State::end);
        self.node.remove(self.token.session(), &self.home);
    }
}
