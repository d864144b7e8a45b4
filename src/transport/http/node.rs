//! This node's homes, the lookup of homes on other nodes, and the questions between nodes.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use tokio::time::{Instant, sleep};

use super::super::Settings;
use super::home::Home;
use super::token::Token;
use super::wire::{self, Denied, Locator, Question, Reply, Request};
use crate::broker::{self, Broker, BrokerError, Questions, Topic};
use crate::drain::Phase;
use crate::limits::{Addresses, ConnectionLimit};
use crate::model::{NodeId, SecretHash, SessionId};
use crate::router::Router;

/// How often a home stores its locator. After a loss of the store the locator is back before other
/// nodes give up.
pub(super) const LOCATOR_EVERY: Duration = Duration::from_secs(2);
/// Pause before a failed operation is repeated.
pub(super) const RETRY: Duration = Duration::from_millis(250);
/// Time limit for the answer of another node.
const ANSWER_WITHIN: Duration = Duration::from_millis(2500);
/// Time limit for processing another node's question; after it the node is told to ask again.
pub(super) const SLICE: Duration = Duration::from_millis(1500);
/// The most questions that are processed at once.
const AT_ONCE: usize = 1024;

/// This node.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) broker: Arc<dyn Broker>,
    pub(super) router: Arc<Router>,
    pub(super) phase: Phase,
    pub(super) settings: Arc<Settings>,
    pub(super) addresses: Addresses,
    /// Sessions whose home is here, counted by client address.
    pub(super) sessions: ConnectionLimit,
    /// The sessions whose home is here, or was until lately. Held for a map operation.
    pub(super) homes: Mutex<HashMap<SessionId, Arc<Home>>>,
}

impl Node {
    pub(super) fn id(&self) -> &NodeId {
        self.router.node()
    }

    /// This node's home of a session, if the caller's proof fits.
    pub(super) fn home(
        &self,
        session: SessionId,
        proof: &SecretHash,
    ) -> Result<Option<Arc<Home>>, Denied> {
        match self.homes().get(&session) {
            Some(home) if home.proof != *proof => Err(Denied::Wrong),
            home => Ok(home.map(Arc::clone)),
        }
    }

    /// Adds a home for a session.
    pub(super) fn add_home(&self, token: &Token) -> Arc<Home> {
        let home = Arc::new(Home::new(token.proof(), self.settings.http.session_ttl));
        self.homes().insert(token.session(), Arc::clone(&home));
        home
    }

    /// Removes this home of a session. A newer home of the same session stays.
    pub(super) fn remove(&self, session: SessionId, home: &Arc<Home>) {
        let mut homes = self.homes();
        let known = homes.get(&session);
        if known.is_some_and(|known| Arc::ptr_eq(known, home)) {
            homes.remove(&session);
        }
    }

    /// Reads the locator of a session.
    pub(super) async fn locator(&self, token: &Token) -> Result<Locator, Denied> {
        let begun = Instant::now();
        loop {
            if let Some(locator) = self.read_locator(token.session()).await? {
                let is_authorized = locator.proof == token.proof().as_str();
                return is_authorized.then_some(locator).ok_or(Denied::Wrong);
            }
            if self.router.is_intact().await {
                return Err(Denied::Gone);
            }
            // The store has lost its data. The home writes the locator again within LOCATOR_EVERY.
            if begun.elapsed() > LOCATOR_EVERY + RETRY {
                return Err(Denied::Unavailable);
            }
            sleep(RETRY).await;
        }
    }

    /// Whether this node may be the session's home: the store names no other node.
    pub(super) async fn is_home(&self, session: SessionId) -> Result<bool, BrokerError> {
        let locator = self.read_locator(session).await?;
        Ok(locator.is_none_or(|locator| locator.is_at(self.id())))
    }

    pub(super) async fn write_locator(
        &self,
        session: SessionId,
        locator: &Locator,
    ) -> Result<(), BrokerError> {
        let ttl = self.settings.http.session_ttl;
        self.broker.locate(session, wire::write(locator), ttl).await
    }

    /// Deletes the locator of a session whose home was here. If that fails, the locator expires by
    /// its TTL.
    pub(super) async fn delete_locator(&self, session: SessionId) {
        if self.is_home(session).await == Ok(true) {
            let ttl = Duration::from_millis(1);
            let _ = self.broker.locate(session, Bytes::new(), ttl).await;
        }
    }

    /// Asks another node about a session; `None` if it does not answer in time.
    pub(super) async fn ask(
        &self,
        node: &NodeId,
        token: &Token,
        request: Request,
    ) -> Result<Option<Reply>, BrokerError> {
        let question = wire::write(&Question {
            session: token.session().to_string(),
            proof: token.proof().as_str().to_owned(),
            request,
        });
        let asking = self.broker.ask(node, Topic::Http, question, ANSWER_WITHIN);
        Ok(asking.await?.and_then(|reply| wire::read(&reply)))
    }

    async fn read_locator(&self, session: SessionId) -> Result<Option<Locator>, BrokerError> {
        let locator = self.broker.located(session).await?;
        Ok(locator.and_then(|locator| wire::read(&locator)))
    }

    fn homes(&self) -> MutexGuard<'_, HashMap<SessionId, Arc<Home>>> {
        self.homes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Service: answers the questions of other nodes.
pub(super) async fn answer_all(node: Arc<Node>, mut questions: Questions) {
    let questions = stream::poll_fn(|context| questions.poll_recv(context));
    let answers = questions.for_each_concurrent(AT_ONCE, |question| answer(&node, question));
    answers.await;
}

/// Processes a request at the session's home.
pub(super) async fn serve(
    home: &Home,
    request: Request,
    asker: &NodeId,
    within: Duration,
) -> Reply {
    let served = match request {
        Request::Post(messages, key) => home.post(messages, &key, within).await.map(Reply::Posted),
        Request::Poll(reader, after, wait) => {
            let reader = home.update(|state| state.reader(reader));
            let unread = home.read(reader, after, wait.min(within)).await;
            unread.map(|unread| Reply::Unread(reader, unread))
        }
        Request::Take => {
            let handover = home.hand_over(asker, within).await;
            handover.map(|handover| Reply::Handover(Box::new(handover)))
        }
    };
    match (served, home.lock().moved_to()) {
        (Ok(reply), _) => reply,
        (Err(Denied::Elsewhere), Some(node)) => Reply::Moved(node.to_string()),
        (Err(denied), _) => Reply::Denied(denied),
    }
}

async fn answer(node: &Node, question: broker::Question) {
    if let Some(reply) = reply(node, &question).await {
        node.broker.answer(&question, wire::write(&reply));
    }
}

/// `None` if the question cannot be decoded: a node of a newer version may have sent it.
async fn reply(node: &Node, question: &broker::Question) -> Option<Reply> {
    let asked: wire::Question = wire::read(&question.body)?;
    let (session, proof) = (asked.session.parse().ok()?, SecretHash::known(&asked.proof));
    Some(match node.home(session, &proof) {
        Ok(Some(home)) => serve(&home, asked.request, &question.asker, SLICE).await,
        Ok(None) => Reply::Denied(Denied::Elsewhere),
        Err(denied) => Reply::Denied(denied),
    })
}
