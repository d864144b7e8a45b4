//! One node among others: the homes that it has, and what it reads, writes and asks to find the others.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, sleep};

use super::super::Settings;
use super::denied::Denied;
use super::home::Home;
use super::token::Token;
use super::wire::{self, Locator, Question, Reply, Request};
use crate::drain::Phase;
use crate::exchange::Exchange;
use crate::fabric::{Fabric, FabricError, Topic};
use crate::model::{NodeId, SessionId};

/// How often a home writes its locator. After the store has lost it, that is within the time that nodes wait for each other.
pub(super) const LOCATED_EVERY: Duration = Duration::from_secs(2);
/// How long to wait before something that has failed is tried again.
pub(super) const RETRY: Duration = Duration::from_millis(250);
/// How long another node may take to answer.
const ANSWER_WITHIN: Duration = Duration::from_millis(2500);

#[derive(Debug)]
pub(super) struct Node {
    pub(super) fabric: Arc<dyn Fabric>,
    pub(super) exchange: Arc<Exchange>,
    pub(super) phase: Phase,
    pub(super) settings: Arc<Settings>,
    /// The sessions that are at home here, or were until lately. Locked for a map operation.
    homes: Mutex<HashMap<SessionId, Arc<Home>>>,
}

impl Node {
    pub(super) fn new(
        fabric: Arc<dyn Fabric>,
        exchange: Arc<Exchange>,
        phase: Phase,
        settings: Arc<Settings>,
    ) -> Self {
        Self {
            fabric,
            exchange,
            phase,
            settings,
            homes: Mutex::default(),
        }
    }

    pub(super) fn id(&self) -> &NodeId {
        self.exchange.node()
    }

    /// The home of a session, if this node has it.
    pub(super) fn home(&self, session: SessionId) -> Option<Arc<Home>> {
        self.homes().get(&session).map(Arc::clone)
    }

    /// Makes a home for a session.
    pub(super) fn settle(&self, token: &Token) -> Arc<Home> {
        let home = Arc::new(Home::new(token.proof(), self.settings.http.session_ttl));
        self.homes().insert(token.session(), Arc::clone(&home));
        home
    }

    /// Forgets this home of a session; a newer one stays.
    pub(super) fn remove(&self, session: SessionId, home: &Arc<Home>) {
        let mut homes = self.homes();
        if homes
            .get(&session)
            .is_some_and(|known| Arc::ptr_eq(known, home))
        {
            homes.remove(&session);
        }
    }

    /// Reads where a session is at home.
    pub(super) async fn locator(&self, token: &Token) -> Result<Locator, Denied> {
        let begun = Instant::now();
        loop {
            if let Some(locator) = self.read_locator(token.session()).await? {
                let is_own = locator.is_proved_by(&token.proof());
                return if is_own {
                    Ok(locator)
                } else {
                    Err(Denied::Wrong)
                };
            }
            if self.exchange.is_intact().await {
                return Err(Denied::Gone);
            }
            // The store has lost its data: the home is about to write the locator again.
            if begun.elapsed() > LOCATED_EVERY + RETRY {
                return Err(Denied::Unavailable);
            }
            sleep(RETRY).await;
        }
    }

    /// Whether the store names no other node as the home of a session.
    pub(super) async fn is_home(&self, session: SessionId) -> Result<bool, FabricError> {
        let locator = self.read_locator(session).await?;
        Ok(locator.is_none_or(|locator| locator.is_at(self.id())))
    }

    pub(super) async fn write_locator(
        &self,
        session: SessionId,
        locator: &Locator,
    ) -> Result<(), FabricError> {
        let ttl = self.settings.http.session_ttl;
        self.fabric.locate(session, wire::write(locator), ttl).await
    }

    /// Deletes the locator of a session that was at home here. If that fails, the locator expires.
    pub(super) async fn delete_locator(&self, session: SessionId) {
        if self.is_home(session).await == Ok(true) {
            let ttl = Duration::from_millis(1);
            let _ = self.fabric.locate(session, Bytes::new(), ttl).await;
        }
    }

    /// Asks another node about a session; `None` if it gives no answer.
    pub(super) async fn ask(
        &self,
        node: &NodeId,
        token: &Token,
        request: Request,
    ) -> Result<Option<Reply>, FabricError> {
        let question = wire::write(&Question {
            session: token.session().to_string(),
            proof: token.proof().as_str().to_owned(),
            request,
        });
        let asking = self.fabric.ask(node, Topic::Http, question, ANSWER_WITHIN);
        Ok(asking.await?.and_then(|reply| wire::read(&reply)))
    }

    async fn read_locator(&self, session: SessionId) -> Result<Option<Locator>, FabricError> {
        let locator = self.fabric.located(session).await?;
        Ok(locator.and_then(|locator| wire::read(&locator)))
    }

    fn homes(&self) -> MutexGuard<'_, HashMap<SessionId, Arc<Home>>> {
        self.homes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
