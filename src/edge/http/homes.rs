//! The HTTP sessions of the cluster: each is at home at one node, which every other finds by a locator in the store.
//!
//! A POST or a poll that comes to another node is forwarded to the home. A stream takes the session with it: the node at which it arrives becomes
//! the home, with what the one before tells of the session, or by the same resume as a WebSocket's if that one does not answer.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::time::{Instant, sleep, timeout};
use tracing::debug;

use super::super::Settings;
use super::buffer::{Looked, Place};
use super::fields::{Reader as Fields, Writer};
use super::home::{Home, Locator, Parted, Wire};
use super::token::Token;
use crate::bugs::{self, Bug};
use crate::dialect::Native;
use crate::drain::Phase;
use crate::exchange::Exchange;
use crate::fabric::{Fabric, FabricError, Question, Questions, Topic};
use crate::limits::{Pace, Place as Room};
use crate::model::{CloseReason, EntryId, NodeId, Realm, SecretHash, SessionId, UserName};
use crate::session::state::SessionPolicy;
use crate::session::{self, Before, Call, Opening, Portable};

/// How long a request waits for the conversation.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long another node may wait for it before it says that it does, and how long its answer may take.
const SLICE: Duration = Duration::from_millis(1500);
const ANSWERED_WITHIN: Duration = Duration::from_millis(2500);
/// How often the locator of a home is written: after a loss of data that is within the time that nodes wait for each other.
const LOCATED_EVERY: Duration = Duration::from_secs(2);
/// How long to rest before something is tried again that has failed.
const RETRY: Duration = Duration::from_millis(250);
/// How long a home remembers a session that is over, or where it has gone.
const REMEMBERS: Duration = Duration::from_secs(30);
/// How many questions of other nodes are dealt with at once.
const AT_ONCE: usize = 1024;

/// Why a client is not let at its session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Denied {
    /// The secret is not that of the session.
    Wrong,
    /// There is no such session any more.
    Gone,
    /// As much waits to be heard as may.
    Full,
    /// A newer reader is the client's.
    Replaced,
    /// It is at another node.
    Elsewhere,
    /// It takes longer.
    Later,
    /// The fabric does not answer.
    Unavailable,
    /// This node goes on with nothing.
    Draining,
}

impl From<FabricError> for Denied {
    fn from(_: FabricError) -> Self {
        Self::Unavailable
    }
}

impl Denied {
    /// The words between nodes.
    const WORDS: [(&str, Self); 6] = [
        ("wrong", Self::Wrong),
        ("gone", Self::Gone),
        ("full", Self::Full),
        ("replaced", Self::Replaced),
        ("later", Self::Later),
        ("elsewhere", Self::Elsewhere),
    ];
}

/// The HTTP sessions, as this node knows them. Clones are of the same node.
#[derive(Clone, Debug)]
pub(crate) struct Homes {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    fabric: Arc<dyn Fabric>,
    exchange: Arc<Exchange>,
    phase: Phase,
    settings: Arc<Settings>,
    /// Those that are at home here, or were until lately. Held for a map operation.
    homes: Mutex<HashMap<SessionId, Arc<Home>>>,
}

/// Where a session is.
enum Found {
    Here(Arc<Home>),
    At(NodeId),
    /// At a home that is no more.
    Homeless(Locator),
}

/// What a home is asked, here or by another node.
enum Request {
    /// The client says this under this key, or ends the session.
    Post(Option<Vec<Bytes>>, String),
    /// What there is behind this place for the reader of this number, 0 for a new one, within this time.
    Poll(u64, Place, Duration),
    /// To hand the session over.
    Take,
}

/// What it replies.
enum Reply {
    /// So many frames were heard.
    Heard(usize),
    /// What the reader of this number was told, and where it has come to.
    Looked(u64, Place, Looked),
    /// The session.
    Parted(Bytes),
    /// It is there.
    Moved(NodeId),
    Denied(Denied),
}

impl Request {
    fn write(&self, to: &mut Writer) {
        match self {
            Self::Post(said, key) => {
                to.text("post");
                to.text(key);
                to.number(said.as_ref().map_or(0, |said| 1 + said.len() as u64));
                said.iter().flatten().for_each(|frame| to.bytes(frame));
            }
            Self::Poll(reader, place, wait) => {
                to.text("poll");
                to.number(*reader);
                to.text(place);
                to.number(u64::try_from(wait.as_millis()).unwrap_or(u64::MAX));
            }
            Self::Take => to.text("take"),
        }
    }

    fn read(from: &mut Fields) -> Option<Self> {
        Some(match from.parse::<String>()?.as_str() {
            "post" => {
                let (key, count) = (from.parse()?, from.number()?);
                let frames = (1..count).map(|_| from.bytes()).collect::<Option<_>>()?;
                Self::Post((count > 0).then_some(frames), key)
            }
            "poll" => {
                let (reader, place) = (from.number()?, from.parse()?);
                Self::Poll(reader, place, Duration::from_millis(from.number()?))
            }
            "take" => Self::Take,
            _ => return None,
        })
    }

    /// Asks a home of this node for another one, or itself.
    async fn of(self, home: &Home, asker: &NodeId, within: Duration) -> Reply {
        let served = match self {
            Self::Post(said, key) => home.post(said, &key, within).await.map(Reply::Heard),
            Self::Poll(reader, mut place, wait) => {
                let reader = home.reads(reader);
                home.wait(reader, place, wait.min(within)).await;
                let looked = home.look(reader, &mut place);
                looked.map(|looked| Reply::Looked(reader, place, looked))
            }
            Self::Take => home.take(asker, within).await.map(Reply::Parted),
        };
        match (served, home.moved_to()) {
            (Ok(reply), _) => reply,
            (Err(Denied::Elsewhere), Some(node)) => Reply::Moved(node),
            (Err(denied), _) => Reply::Denied(denied),
        }
    }
}

impl Reply {
    fn write(&self) -> Bytes {
        let mut to = Writer::default();
        match self {
            Self::Heard(count) => {
                to.text("heard");
                to.number(*count as u64);
            }
            Self::Looked(reader, place, looked) => {
                to.text("looked");
                to.number(*reader);
                to.text(place);
                to.number(looked.reset.into());
                for (place, text) in &looked.events {
                    to.text(place);
                    to.bytes(text);
                }
            }
            Self::Parted(parted) => {
                to.text("parted");
                to.bytes(parted);
            }
            Self::Moved(node) => {
                to.text("moved");
                to.text(node);
            }
            Self::Denied(denied) => {
                let mut words = Denied::WORDS.into_iter();
                let word = words.find(|(_, known)| known == denied);
                to.text(word.map_or("elsewhere", |(word, _)| word));
            }
        }
        to.into()
    }

    fn read(reply: Bytes) -> Option<Self> {
        let mut from = Fields::new(reply);
        let word = from.parse::<String>()?;
        Some(match word.as_str() {
            "heard" => Self::Heard(from.number()?.try_into().ok()?),
            "looked" => {
                let (reader, place) = (from.number()?, from.parse()?);
                let (reset, mut events) = (from.number()? == 1, Vec::new());
                while let Some(place) = from.parse() {
                    events.push((place, from.bytes()?));
                }
                Self::Looked(reader, place, Looked { events, reset })
            }
            "parted" => Self::Parted(from.bytes()?),
            "moved" => Self::Moved(NodeId::known(&from.parse::<String>()?)),
            word => {
                let mut words = Denied::WORDS.into_iter();
                Self::Denied(words.find(|(known, _)| *known == word)?.1)
            }
        })
    }
}

/// The one reader of a session, at its home: a newer one takes its place.
#[derive(Debug)]
pub(super) struct Reader {
    home: Arc<Home>,
    number: u64,
    place: Place,
}

impl Reader {
    /// What there is now.
    pub(super) fn look(&mut self) -> Result<Looked, Denied> {
        self.home.look(self.number, &mut self.place)
    }

    /// Waits for news, for so long at most.
    pub(super) async fn news(&self, at_most: Duration) {
        self.home.wait(self.number, self.place, at_most).await;
    }
}

impl Homes {
    pub(crate) fn new(
        fabric: Arc<dyn Fabric>,
        exchange: Arc<Exchange>,
        phase: Phase,
        settings: Arc<Settings>,
    ) -> Self {
        let inner = Inner {
            fabric,
            exchange,
            phase,
            settings,
            homes: Mutex::default(),
        };
        Self {
            inner: Arc::new(inner),
        }
    }

    /// Begins a session, with what its client says at once; the room is free again when it is over, or goes on elsewhere.
    pub(super) async fn open(
        &self,
        said: Option<Bytes>,
        room: Option<Room>,
    ) -> Result<Token, Denied> {
        let token = Token::random();
        let home = self.settle(&token);
        let carried = self
            .clone()
            .carry(token.clone(), Arc::clone(&home), None, room);
        tokio::spawn(carried);
        let opened = match said {
            None => home.settles(0, PATIENCE).await,
            Some(said) => home.post(Some(vec![said]), "", PATIENCE).await.map(drop),
        };
        opened.map_err(|_| Denied::Unavailable)?;
        Ok(token)
    }

    /// Who has logged in by this token, if anybody has: for whoever else must know that a client is who it says.
    pub(in crate::edge) async fn verify(&self, token: &Token) -> Result<Option<UserName>, Denied> {
        if let Some(home) = self.home(token)?.filter(|home| home.is_here()) {
            return home.user();
        }
        let standing = self.locator(token).await?.standing;
        Ok(standing.user.map(|(name, _)| name))
    }

    /// The client says this, all of it or nothing, and once for every key; or ends the session (`None`). How many were heard.
    pub(super) async fn post(
        &self,
        token: &Token,
        said: Option<Vec<Bytes>>,
        key: Option<&str>,
    ) -> Result<usize, Denied> {
        // Whoever goes on with the session should its home die knows what it has heard.
        let secret = match key {
            Some(key) => token.secret().derived(key),
            None => crate::model::Secret::random(),
        };
        let key = &secret.expose()[..32];
        let until = Instant::now() + PATIENCE;
        let request = |_| Request::Post(said.clone(), key.to_owned());
        match self.reach(token, None, until, request).await? {
            Reply::Heard(count) => Ok(count),
            _ => Err(Denied::Unavailable),
        }
    }

    /// The client begins to read behind this place, from here on at this node.
    pub(super) async fn read(&self, token: &Token, place: Place) -> Result<Reader, Denied> {
        let home = match self.find(token, None).await? {
            Found::Here(home) => home,
            Found::Homeless(locator) => self.arrive(token, locator, place.seq, true)?,
            Found::At(_) if bugs::has(Bug::StreamDoesNotTakeOver) => {
                return Err(Denied::Unavailable);
            }
            Found::At(_) => {
                let locator = self.locator(token).await?;
                self.arrive(token, locator, place.seq, false)?
            }
        };
        // As soon as it is known whether there is such a session.
        if let Err(denied @ (Denied::Gone | Denied::Wrong | Denied::Unavailable)) =
            home.settles(0, PATIENCE).await
        {
            return Err(denied);
        }
        let number = home.reads(0);
        Ok(Reader {
            home,
            number,
            place,
        })
    }

    /// What the client was told behind this place: as soon as there is something, or when the time is over.
    pub(super) async fn poll(
        &self,
        token: &Token,
        mut place: Place,
        until: Instant,
    ) -> Result<(Looked, Place), Denied> {
        let mut reader = 0;
        loop {
            let patience = Instant::now() + PATIENCE;
            let request = |within| {
                let left = until.saturating_duration_since(Instant::now());
                Request::Poll(reader, place, left.min(within))
            };
            let reach = self.reach(token, place.seq, patience, request);
            let Reply::Looked(number, next, looked) = reach.await? else {
                return Err(Denied::Unavailable);
            };
            if !looked.is_empty() || Instant::now() >= until {
                return Ok((looked, next));
            }
            (reader, place) = (number, next);
        }
    }

    /// Asks the home of a session, wherever it is by now. If it is at a node that does not answer, it is here from now on.
    async fn reach(
        &self,
        token: &Token,
        last: Option<EntryId>,
        until: Instant,
        request: impl Fn(Duration) -> Request,
    ) -> Result<Reply, Denied> {
        let own = self.inner.exchange.node();
        let mut hint = None;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(Denied::Unavailable);
            }
            let reply = match self.find(token, hint.take()).await? {
                Found::Here(home) => request(left).of(&home, own, left).await,
                Found::Homeless(locator) => {
                    self.arrive(token, locator, last, true)?;
                    continue;
                }
                Found::At(node) => match self.ask(&node, token, request(SLICE)).await? {
                    reply @ (None | Some(Reply::Denied(Denied::Elsewhere))) => {
                        let locator = self.locator(token).await?;
                        // Or else it has moved meanwhile.
                        if locator.node == node {
                            self.arrive(token, locator, last, reply.is_none())?;
                        }
                        continue;
                    }
                    Some(reply) => reply,
                },
            };
            match reply {
                Reply::Moved(node) => hint = Some(node),
                Reply::Denied(Denied::Elsewhere | Denied::Later) => {}
                Reply::Denied(denied) => return Err(denied),
                reply => return Ok(reply),
            }
        }
    }

    // === Where a session is ===

    fn homes(&self) -> MutexGuard<'_, HashMap<SessionId, Arc<Home>>> {
        let homes = &self.inner.homes;
        homes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What this node knows of a session.
    fn home(&self, token: &Token) -> Result<Option<Arc<Home>>, Denied> {
        let home = self.homes().get(&token.session()).map(Arc::clone);
        match home {
            Some(home) if !home.is_proved_by(&token.proof()) => Err(Denied::Wrong),
            home => Ok(home),
        }
    }

    /// A new home for a session, here.
    fn settle(&self, token: &Token) -> Arc<Home> {
        let ttl = self.inner.settings.http.session_ttl;
        let home = Arc::new(Home::new(token.proof(), ttl));
        self.homes().insert(token.session(), Arc::clone(&home));
        home
    }

    /// Finds a session; `hint` is where it has gone, if anybody has said so.
    async fn find(&self, token: &Token, hint: Option<NodeId>) -> Result<Found, Denied> {
        let home = self.home(token)?;
        if let Some(home) = &home
            && home.is_here()
        {
            return Ok(Found::Here(Arc::clone(home)));
        }
        let own = self.inner.exchange.node();
        let gone_to = hint.or_else(|| home?.moved_to());
        if let Some(node) = gone_to.filter(|node| node != own) {
            return Ok(Found::At(node));
        }
        let locator = self.locator(token).await?;
        Ok(if locator.node == *own {
            Found::Homeless(locator)
        } else {
            Found::At(locator.node)
        })
    }

    /// What is written down of a session.
    async fn locator(&self, token: &Token) -> Result<Locator, Denied> {
        let begun = Instant::now();
        loop {
            let locator = self.inner.fabric.located(token.session()).await?;
            if let Some(locator) = locator.and_then(Locator::read) {
                return if locator.proof == token.proof() {
                    Ok(locator)
                } else {
                    Err(Denied::Wrong)
                };
            }
            if self.inner.exchange.is_intact().await {
                return Err(Denied::Gone);
            }
            // A store that has lost its data is told of it again by its home.
            if begun.elapsed() > LOCATED_EVERY + RETRY {
                return Err(Denied::Unavailable);
            }
            sleep(RETRY).await;
        }
    }

    /// Makes this node the home of a session of which this is written down. `is_dead`: its home does not answer.
    fn arrive(
        &self,
        token: &Token,
        locator: Locator,
        last: Option<EntryId>,
        is_dead: bool,
    ) -> Result<Arc<Home>, Denied> {
        if self.inner.phase.is_draining() {
            return Err(Denied::Draining);
        }
        let before = self.homes().get(&token.session()).map(Arc::clone);
        if let Some(home) = before.clone().filter(|home| home.is_here()) {
            return Ok(home);
        }
        let home = self.settle(token);
        let arrival = Arrival {
            locator,
            before,
            last,
            is_dead,
        };
        let carried = self
            .clone()
            .carry(token.clone(), Arc::clone(&home), Some(arrival), None);
        tokio::spawn(carried);
        Ok(home)
    }

    /// Carries a session on until it is over, or goes on elsewhere.
    async fn carry(
        self,
        token: Token,
        home: Arc<Home>,
        arrival: Option<Arrival>,
        room: Option<Room>,
    ) {
        let Inner {
            exchange,
            phase,
            settings,
            ..
        } = &*self.inner;
        let (session, tracked) = (token.session(), phase.track());
        let carrying = Carrying {
            homes: self.clone(),
            session,
            home: Arc::clone(&home),
        };
        let (before, is_continued) = match arrival {
            None => (None, false),
            Some(arrival) => match self.bring(&token, &home, arrival).await {
                Ok(brought) => brought,
                Err(denied) => return home.fails(denied),
            },
        };
        if home.is_over() {
            drop(tracked);
            sleep(REMEMBERS).await;
            return drop(carrying);
        }
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
            policy: SessionPolicy::default(),
            http: Some(Box::new(Portable {
                secret: token.secret().clone(),
                before,
            })),
        };
        let wire = Wire::new(Arc::clone(&home), is_continued);
        let reason = tokio::select! {
            reason = session::run(wire, Native, call) => reason,
            () = self.keep_located(session, &home) => CloseReason::Dropped,
        };
        if reason == CloseReason::Replaced {
            // Where it is not known by what, its client finds out.
            let is_ours = self.is_located_here(session).await;
            home.was_replaced(matches!(is_ours, Ok(true)));
        }
        drop((room, tracked));
        home.ends();
        if reason == CloseReason::ByClient {
            self.forget(session).await;
        }
        sleep(REMEMBERS).await;
        if home.is_over() {
            self.forget(session).await;
        }
        drop(carrying);
    }

    /// Brings what is known of a session here, from its home if that answers.
    async fn bring(
        &self,
        token: &Token,
        home: &Home,
        arrival: Arrival,
    ) -> Result<(Option<Before>, bool), Denied> {
        let Arrival {
            locator,
            before,
            last,
            is_dead,
        } = arrival;
        let own = self.inner.exchange.node();
        let mut parted = match before {
            Some(before) => before.take(own, Duration::ZERO).await.ok(),
            None => None,
        }
        .and_then(Parted::read);
        let (until, mut node) = (Instant::now() + PATIENCE / 2, locator.node.clone());
        while parted.is_none() && !is_dead && node != *own && Instant::now() < until {
            match self.ask(&node, token, Request::Take).await? {
                Some(Reply::Parted(brought)) => parted = Parted::read(brought),
                Some(Reply::Moved(to)) => node = to,
                Some(Reply::Denied(Denied::Later)) => {}
                Some(Reply::Denied(denied @ (Denied::Gone | Denied::Wrong))) => return Err(denied),
                _ => break,
            }
        }
        let standing = match &parted {
            Some(parted) => parted.standing.clone(),
            None => locator.standing,
        };
        let (is_continued, last) = match &parted {
            Some(parted) => (true, parted.seq()),
            None => (false, last),
        };
        let greets = last.is_none() && !is_continued;
        if parted.as_ref().is_none_or(|parted| !parted.is_over()) {
            debug!(http.session = %token.session(), is_continued, "A session goes on here");
            // Before it is resumed, so that the home before knows that it goes on by HTTP.
            let locator = Locator {
                node: own.clone(),
                proof: token.proof(),
                standing: standing.clone(),
            };
            self.write(token.session(), &locator).await?;
        }
        home.begins_with(parted, standing.clone(), greets);
        let before = Before {
            standing,
            last,
            greets,
        };
        Ok((Some(before), is_continued))
    }

    /// Keeps the locator of a session that is at home here.
    async fn keep_located(&self, session: SessionId, home: &Home) {
        let every = LOCATED_EVERY.min(self.inner.settings.http.session_ttl / 3);
        loop {
            let Some((changes, locator)) = home.locator(self.inner.exchange.node()) else {
                return std::future::pending().await;
            };
            let written = match self.is_located_here(session).await {
                Ok(true) => self.write(session, &locator).await,
                // It is about to hear that it goes on elsewhere.
                Ok(false) => return std::future::pending().await,
                Err(error) => Err(error),
            };
            if written.is_ok() {
                home.located(changes);
                let _ = timeout(every, home.changed()).await;
            } else {
                home.forgives();
                sleep(RETRY).await;
            }
        }
    }

    /// No node finds a session any more that was at home here. Should that fail, its locator runs out.
    async fn forget(&self, session: SessionId) {
        if self.is_located_here(session).await == Ok(true) {
            let at_once = Duration::from_millis(1);
            let _ = self
                .inner
                .fabric
                .locate(session, Bytes::new(), at_once)
                .await;
        }
    }

    /// Whether no other node is known as the home of a session.
    async fn is_located_here(&self, session: SessionId) -> Result<bool, FabricError> {
        let locator = self.inner.fabric.located(session).await?;
        let locator = locator.and_then(Locator::read);
        Ok(locator.is_none_or(|locator| locator.node == *self.inner.exchange.node()))
    }

    async fn write(&self, session: SessionId, locator: &Locator) -> Result<(), FabricError> {
        let lives = self.inner.settings.http.session_ttl;
        self.inner
            .fabric
            .locate(session, locator.write(), lives)
            .await
    }

    // === What nodes ask each other ===

    /// `None`: no answer, or none that is understood.
    async fn ask(
        &self,
        node: &NodeId,
        token: &Token,
        request: Request,
    ) -> Result<Option<Reply>, Denied> {
        let mut question = Writer::default();
        question.text(token.session());
        question.text(token.proof().as_str());
        request.write(&mut question);
        let (fabric, question) = (&self.inner.fabric, question.into());
        let asking = fabric.ask(node, Topic::Http, question, ANSWERED_WITHIN);
        Ok(asking.await?.and_then(Reply::read))
    }

    /// Service: answers what other nodes ask.
    pub(crate) async fn answer(self, mut questions: Questions) {
        let mut answering = FuturesUnordered::new();
        loop {
            tokio::select! {
                question = questions.recv(), if answering.len() < AT_ONCE => match question {
                    Some(question) => answering.push(self.answer_one(question)),
                    None => return,
                },
                Some(()) = answering.next() => {}
            }
        }
    }

    async fn answer_one(&self, question: Question) {
        if let Some(reply) = self.reply_to(&question).await {
            self.inner.fabric.answer(&question, reply.write());
        }
    }

    async fn reply_to(&self, question: &Question) -> Option<Reply> {
        let mut asked = Fields::new(question.body.clone());
        let session = asked.parse()?;
        let proof = SecretHash::known(&asked.parse::<String>()?);
        let request = Request::read(&mut asked)?;
        let home = self.homes().get(&session).map(Arc::clone);
        Some(match home {
            None => Reply::Denied(Denied::Elsewhere),
            Some(home) if !home.is_proved_by(&proof) => Reply::Denied(Denied::Wrong),
            Some(home) => request.of(&home, &question.asker, SLICE).await,
        })
    }
}

/// A session that comes to this node.
struct Arrival {
    locator: Locator,
    /// What this node knew of it.
    before: Option<Arc<Home>>,
    last: Option<EntryId>,
    is_dead: bool,
}

/// A session that this node carries, also if it panics.
struct Carrying {
    homes: Homes,
    session: SessionId,
    home: Arc<Home>,
}

impl Drop for Carrying {
    fn drop(&mut self) {
        self.home.ends();
        let mut homes = self.homes.homes();
        let known = homes.get(&self.session);
        if known.is_some_and(|known| Arc::ptr_eq(known, &self.home)) {
            homes.remove(&self.session);
        }
    }
}
