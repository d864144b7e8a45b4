//! Conversations that are bound to no connection and no node: a letterbox is their wire, and one node at a time carries each on.

mod notes;
mod reader;
mod token;
mod wire;

pub use reader::{Looked, Reader};
pub use token::{InvalidToken, Token};

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tracing::debug;

use self::wire::{Carried, Wire};
use crate::dialect::Native;
use crate::drain::Phase;
use crate::exchange::{Exchange, Manners};
use crate::fabric::letterbox::{Carrier, Entered, Post, Posted, Taken, UPLINK};
use crate::fabric::{FabricError, Letterboxes};
use crate::ice::Ice;
use crate::limits::{Pace, Place};
use crate::model::{Realm, SessionId, UserName};
use crate::session::{self, Call, Clocks, Kept, Opening};

/// What the operator decides about them.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How patient they are.
    pub clocks: Clocks,
    /// How long one write may take.
    pub write_timeout: Duration,
    /// Messages a second; 0 for no limit.
    pub signals_per_second: u32,
    /// How long they live without a sign of their client.
    pub session_ttl: Duration,
    /// The ICE servers that they tell of.
    pub ice: Arc<Ice>,
}

/// The conversations that this node may carry on. Clones are of the same node.
#[derive(Clone, Debug)]
pub struct Roaming {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    letterboxes: Arc<dyn Letterboxes>,
    exchange: Arc<Exchange>,
    phase: Phase,
    settings: Settings,
    /// Which epoch of which conversation this node carries. Held for a map operation.
    carried: Mutex<HashMap<SessionId, u64>>,
}

/// Why a client is not let at its conversation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Denied {
    /// The secret is not that of the conversation.
    Wrong,
    /// There is no such conversation any more.
    Gone,
    /// As much waits to be heard as may.
    Full,
    /// A newer reader is the client's.
    Replaced,
    /// The fabric does not answer.
    Unavailable,
}

impl From<FabricError> for Denied {
    fn from(_: FabricError) -> Self {
        Self::Unavailable
    }
}

impl Roaming {
    /// The most frames that are taken at once.
    pub const MOST_AT_ONCE: usize = UPLINK.entries;

    /// The conversations of this exchange's node.
    pub fn new(
        letterboxes: Arc<dyn Letterboxes>,
        exchange: Arc<Exchange>,
        phase: Phase,
        settings: Settings,
    ) -> Self {
        let inner = Inner {
            letterboxes,
            exchange,
            phase,
            settings,
            carried: Mutex::default(),
        };
        Self {
            inner: Arc::new(inner),
        }
    }

    /// Begins a conversation, with what its client says at once; the place is free again when it is over, or goes on elsewhere.
    pub async fn open(&self, said: Option<Bytes>, place: Option<Place>) -> Result<Token, Denied> {
        let token = Token::random();
        let said = said.into_iter().collect();
        self.inner.letterboxes.open(&token.key(), said).await?;
        self.carry(&token, None, place);
        Ok(token)
    }

    /// Who has logged in by this token, if anybody has: for whoever else must know that a client is who it says.
    pub async fn verify(&self, token: &Token) -> Result<Option<UserName>, Denied> {
        let look = entered(self.inner.letterboxes.look(&token.key()).await?)?;
        Ok(notes::user(&look.notes))
    }

    /// The client says this, all of it or nothing, and once for every key. How many were taken.
    pub async fn post(
        &self,
        token: &Token,
        said: Vec<Bytes>,
        once: Option<String>,
    ) -> Result<usize, Denied> {
        let said = Some(said);
        self.give(token, Post { said, once }).await
    }

    /// The client ends the conversation for good.
    pub async fn close(&self, token: &Token) -> Result<(), Denied> {
        let closes = Post::default();
        self.give(token, closes).await.map(drop)
    }

    async fn give(&self, token: &Token, post: Post) -> Result<usize, Denied> {
        match entered(self.inner.letterboxes.post(&token.key(), post).await?)? {
            Posted::Accepted(count, carrier) => {
                self.keep_carried(token, &carrier).await;
                Ok(count)
            }
            Posted::Full(carrier) => {
                self.keep_carried(token, &carrier).await;
                Err(Denied::Full)
            }
        }
    }

    /// Somebody must carry the conversation on: this node does, if nobody else can.
    async fn keep_carried(&self, token: &Token, carrier: &Carrier) {
        let Inner {
            exchange, phase, ..
        } = &*self.inner;
        if phase.is_draining() {
            return;
        }
        let is_carried = match &carrier.node {
            None => false,
            Some(node) if node == exchange.node() => self.carries(token.session()),
            Some(node) => exchange.believes_in(node),
        };
        if is_carried {
            return;
        }
        let (session, epoch) = (token.session(), carrier.epoch);
        match self.inner.letterboxes.take(session, epoch).await {
            Ok(Some(before)) => {
                debug!(http.session = %session, "A conversation goes on here");
                self.carry(token, Some(before), None);
            }
            Ok(None) => {}
            // Whoever asks next tries again.
            Err(error) => debug!(%error, "A conversation could not be taken"),
        }
    }

    /// Carries a conversation on until it is over, or goes on elsewhere.
    fn carry(&self, token: &Token, before: Option<Taken>, place: Option<Place>) {
        let Inner {
            exchange,
            phase,
            settings,
            ..
        } = &*self.inner;
        let session = token.session();
        let epoch = before.as_ref().map_or(1, |before| before.epoch);
        let cursor = before.as_ref().map(|before| before.cursor);
        let before = before.map(|before| notes::standing(&before.notes));
        let call = Call {
            exchange: Arc::clone(exchange),
            realm: Realm::default(),
            clocks: settings.clocks,
            write_timeout: settings.write_timeout,
            pace: Pace::new(settings.signals_per_second),
            phase: phase.clone(),
            max_age: Duration::ZERO,
            ice: Arc::clone(&settings.ice),
            opening: Opening::Frame,
            manners: Manners::default(),
            kept: Some(Box::new(Kept {
                secret: token.secret().clone(),
                before,
            })),
        };
        let carried = Carried {
            letterboxes: Arc::clone(&self.inner.letterboxes),
            session,
            epoch,
        };
        let wire = Wire::new(carried, cursor, settings.session_ttl);
        let (tracked, roaming) = (phase.track(), self.clone());
        self.carried().insert(session, epoch);
        tokio::spawn(async move {
            let carrying = Carrying {
                roaming,
                session,
                epoch,
            };
            session::run(wire, Native, call).await;
            drop((carrying, place, tracked));
        });
    }

    fn carries(&self, session: SessionId) -> bool {
        self.carried().contains_key(&session)
    }

    fn carried(&self) -> MutexGuard<'_, HashMap<SessionId, u64>> {
        let carried = &self.inner.carried;
        carried.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A conversation that this node carries, also if it panics.
struct Carrying {
    roaming: Roaming,
    session: SessionId,
    epoch: u64,
}

impl Drop for Carrying {
    fn drop(&mut self) {
        let mut carried = self.roaming.carried();
        if carried.get(&self.session) == Some(&self.epoch) {
            carried.remove(&self.session);
        }
    }
}

fn entered<T>(entered: Entered<T>) -> Result<T, Denied> {
    match entered {
        Entered::In(found) => Ok(found),
        Entered::Gone => Err(Denied::Gone),
        Entered::Wrong => Err(Denied::Wrong),
    }
}
