//! The HTTP sessions of the cluster: each is at home at one node, which every other finds by a note in the store.
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
use super::home::{Home, Note, Parted, Wire};
use super::token::Token;
use crate::dialect::Native;
use crate::drain::Phase;
use crate::exchange::{Exchange, Manners};
use crate::fabric::{Fabric, FabricError, Question, Questions, Topic};
use crate::limits::{Pace, Place as Room};
use crate::model::{CloseReason, EntryId, NodeId, Realm, SecretHash, SessionId, UserName};
use crate::session::{self, Before, Call, Opening, Portable};

/// How long a request waits for the conversation.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long another node may wait for it before it says that it does, and how long its answer may take.
const SLICE: Duration = Duration::from_millis(1500);
const ANSWERED_WITHIN: Duration = Duration::from_millis(2500);
/// How often the note of a home is written: after a loss of data that is within the time that nodes wait for each other.
const NOTED_EVERY: Duration = Duration::from_secs(2);
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
    const WORDS: [(&str, Self); 5] = [
        ("wrong", Self::Wrong),
        ("gone", Self::Gone),
        ("full", Self::Full),
        ("replaced", Self::Replaced),
        ("later", Self::Later),
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
    Homeless(Note),
}

/// What another node answers.
enum Answer {
    Accepted(usize),
    Looked(u64, Place, Looked),
    Parted(Parted),
    Moved(NodeId),
    /// It is not there.
    Away,
    Denied(Denied),
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
        let standing = self.note(token).await?.standing;
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
        let (until, mut hint) = (Instant::now() + PATIENCE, None);
        while Instant::now() < until {
            let home = match self.find(token, hint.take()).await? {
                Found::Here(home) => home,
                Found::Homeless(note) => self.arrive(token, note, None, true)?,
                Found::At(node) => {
                    let mut question = self.question("post", token);
                    question.text(key);
                    question.number(said.as_ref().map_or(0, |said| 1 + said.len() as u64));
                    for frame in said.iter().flatten() {
                        question.bytes(frame);
                    }
                    match self.ask(&node, question).await? {
                        Some(Answer::Accepted(count)) => return Ok(count),
                        Some(Answer::Moved(node)) => {
                            hint = Some(node);
                            continue;
                        }
                        Some(Answer::Denied(Denied::Later)) => continue,
                        Some(Answer::Denied(denied)) => return Err(denied),
                        answer => {
                            let note = self.note(token).await?;
                            if note.node != node {
                                continue;
                            }
                            self.arrive(token, note, None, answer.is_none())?
                        }
                    }
                }
            };
            let left = until.saturating_duration_since(Instant::now());
            match home.post(said.clone(), key, left).await {
                // It has moved meanwhile.
                Err(Denied::Elsewhere | Denied::Replaced) => hint = home.moved_to(),
                Err(Denied::Later) => break,
                heard => return heard,
            }
        }
        Err(Denied::Unavailable)
    }

    /// The client begins to read behind this place, from here on at this node.
    pub(super) async fn read(&self, token: &Token, place: Place) -> Result<Reader, Denied> {
        let home = match self.find(token, None).await? {
            Found::Here(home) => home,
            Found::Homeless(note) => self.arrive(token, note, place.seq, true)?,
            Found::At(_) => {
                let note = self.note(token).await?;
                self.arrive(token, note, place.seq, false)?
            }
        };
        // As soon as it is known whether there is such a session.
        if let Err(denied @ (Denied::Gone | Denied::Wrong | Denied::Unavailable)) =
            home.settles(0, PATIENCE).await
        {
            return Err(denied);
        }
        let number = home.reads();
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
        let (mut reader, mut hint) = (None, None);
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let home = match self.find(token, hint.take()).await? {
                Found::Here(home) => home,
                Found::Homeless(note) => {
                    reader = None;
                    self.arrive(token, note, place.seq, true)?
                }
                Found::At(node) => {
                    let mut question = self.question("poll", token);
                    question.number(reader.unwrap_or_default());
                    question.text(place);
                    question.number(millis(left.min(SLICE)));
                    match self.ask(&node, question).await? {
                        Some(Answer::Looked(number, next, looked)) => {
                            if !looked.is_empty() || left.is_zero() {
                                return Ok((looked, next));
                            }
                            reader = Some(number);
                            continue;
                        }
                        Some(Answer::Moved(node)) => {
                            hint = Some(node);
                            continue;
                        }
                        Some(Answer::Denied(Denied::Later)) => continue,
                        Some(Answer::Denied(denied)) => return Err(denied),
                        answer => {
                            let note = self.note(token).await?;
                            if note.node != node {
                                continue;
                            }
                            reader = None;
                            self.arrive(token, note, place.seq, answer.is_none())?
                        }
                    }
                }
            };
            let number = *reader.get_or_insert_with(|| home.reads());
            home.wait(number, place, left).await;
            match home.look(number, &mut place) {
                // It has moved meanwhile.
                Err(Denied::Elsewhere) => (reader, hint) = (None, home.moved_to()),
                looked => return Ok((looked?, place)),
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
        let note = self.note(token).await?;
        Ok(if note.node == *own {
            Found::Homeless(note)
        } else {
            Found::At(note.node)
        })
    }

    /// What is written down of a session.
    async fn note(&self, token: &Token) -> Result<Note, Denied> {
        let begun = Instant::now();
        loop {
            let note = self.inner.fabric.located(token.session()).await?;
            if let Some(note) = note.and_then(|note| Note::read(&note)) {
                return if note.proof == token.proof() {
                    Ok(note)
                } else {
                    Err(Denied::Wrong)
                };
            }
            if self.inner.exchange.is_intact().await {
                return Err(Denied::Gone);
            }
            // A store that has lost its data is told of it again by its home.
            if begun.elapsed() > NOTED_EVERY + RETRY {
                return Err(Denied::Unavailable);
            }
            sleep(RETRY).await;
        }
    }

    /// Makes this node the home of a session of which this is written down. `is_dead`: its home does not answer.
    fn arrive(
        &self,
        token: &Token,
        note: Note,
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
            note,
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
            fabric,
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
            manners: Manners::default(),
            http: Some(Box::new(Portable {
                secret: token.secret().clone(),
                before,
            })),
        };
        let wire = Wire::new(Arc::clone(&home), is_continued);
        let reason = tokio::select! {
            reason = session::run(wire, Native, call) => reason,
            () = self.keep_noted(session, &home) => CloseReason::Dropped,
        };
        if reason == CloseReason::Replaced {
            // Where it is not known by what, its client finds out.
            let is_ours = self.is_noted_here(session).await;
            home.was_replaced(matches!(is_ours, Ok(true)));
        }
        if reason == CloseReason::ByClient {
            // Should it fail, it runs out.
            let at_once = Duration::from_millis(1);
            let _ = fabric.locate(session, Bytes::new(), at_once).await;
        }
        drop((room, tracked));
        home.ends();
        sleep(REMEMBERS).await;
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
            note,
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
        let (until, mut node) = (Instant::now() + PATIENCE / 2, note.node.clone());
        while parted.is_none() && !is_dead && node != *own && Instant::now() < until {
            match self.ask(&node, self.question("take", token)).await? {
                Some(Answer::Parted(brought)) => parted = Some(brought),
                Some(Answer::Moved(to)) => node = to,
                Some(Answer::Denied(Denied::Later)) => {}
                Some(Answer::Denied(denied @ (Denied::Gone | Denied::Wrong))) => {
                    return Err(denied);
                }
                _ => break,
            }
        }
        let standing = match &parted {
            Some(parted) => parted.standing.clone(),
            None => note.standing,
        };
        let (is_continued, last) = match &parted {
            Some(parted) => (true, parted.seq()),
            None => (false, last),
        };
        let greets = last.is_none() && !is_continued;
        if parted.as_ref().is_none_or(|parted| !parted.is_over()) {
            debug!(http.session = %token.session(), is_continued, "A session goes on here");
            // Before it is resumed, so that the home before knows that it goes on by HTTP.
            let note = Note {
                node: own.clone(),
                proof: token.proof(),
                standing: standing.clone(),
            };
            self.write(token.session(), &note.to_string()).await?;
        }
        home.begins_with(parted, standing.clone(), greets);
        let before = Before {
            standing,
            last,
            greets,
        };
        Ok((Some(before), is_continued))
    }

    /// Keeps the note of where a session is at home.
    async fn keep_noted(&self, session: SessionId, home: &Home) {
        let every = NOTED_EVERY.min(self.inner.settings.http.session_ttl / 3);
        loop {
            let Some((changes, note)) = home.note(self.inner.exchange.node()) else {
                return std::future::pending().await;
            };
            let noted = match self.is_noted_here(session).await {
                Ok(true) => self.write(session, &note).await,
                // It is about to hear that it goes on elsewhere.
                Ok(false) => return std::future::pending().await,
                Err(error) => Err(error),
            };
            if noted.is_ok() {
                home.noted(changes);
                let _ = timeout(every, home.changed()).await;
            } else {
                home.forgives();
                sleep(RETRY).await;
            }
        }
    }

    /// Whether no other node is noted as the home of a session.
    async fn is_noted_here(&self, session: SessionId) -> Result<bool, FabricError> {
        let note = self.inner.fabric.located(session).await?;
        let note = note.and_then(|note| Note::read(&note));
        Ok(note.is_none_or(|note| note.node == *self.inner.exchange.node()))
    }

    async fn write(&self, session: SessionId, note: &str) -> Result<(), FabricError> {
        let lives = self.inner.settings.http.session_ttl;
        let note = Bytes::copy_from_slice(note.as_bytes());
        self.inner.fabric.locate(session, note, lives).await
    }

    // === What nodes ask each other ===

    fn question(&self, what: &str, token: &Token) -> Writer {
        let mut question = Writer::default();
        question.text(what);
        question.text(token.session());
        question.text(token.proof().as_str());
        question
    }

    async fn ask(&self, node: &NodeId, question: Writer) -> Result<Option<Answer>, Denied> {
        let asking = self
            .inner
            .fabric
            .ask(node, Topic::Http, question.into(), ANSWERED_WITHIN);
        Ok(asking.await?.and_then(Answer::read))
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
        if let Some(answer) = self.deal_with(&question).await {
            self.inner.fabric.answer(&question, answer.into());
        }
    }

    async fn deal_with(&self, question: &Question) -> Option<Writer> {
        let mut asked = Fields::new(question.body.clone());
        let what = asked.parse::<String>()?;
        let session = asked.parse()?;
        let proof = SecretHash::known(&asked.parse::<String>()?);
        let home = self.homes().get(&session).map(Arc::clone);
        let mut answer = Writer::default();
        let Some(home) = home else {
            answer.text("away");
            return Some(answer);
        };
        if !home.is_proved_by(&proof) {
            answer.text("wrong");
            return Some(answer);
        }
        let denied = match what.as_str() {
            "post" => {
                let key = asked.parse::<String>()?;
                let frames = match asked.number()? {
                    0 => None,
                    count => Some((1..count).map(|_| asked.bytes()).collect::<Option<_>>()?),
                };
                match home.post(frames, &key, SLICE).await {
                    Ok(count) => {
                        answer.text("accepted");
                        answer.number(count as u64);
                        return Some(answer);
                    }
                    Err(Denied::Replaced) => Denied::Elsewhere,
                    Err(denied) => denied,
                }
            }
            "poll" => {
                let number = match asked.number()? {
                    0 => home.reads(),
                    number => number,
                };
                let (mut place, wait) = (asked.parse()?, asked.number()?);
                let wait = Duration::from_millis(wait).min(SLICE);
                home.wait(number, place, wait).await;
                match home.look(number, &mut place) {
                    Ok(looked) => {
                        answer.text("looked");
                        answer.number(number);
                        answer.text(place);
                        answer.number(looked.reset.into());
                        for (place, text) in &looked.events {
                            answer.text(place);
                            answer.bytes(text);
                        }
                        return Some(answer);
                    }
                    Err(denied) => denied,
                }
            }
            "take" => match home.take(&question.asker, SLICE).await {
                Ok(parted) => {
                    answer.text("parted");
                    answer.bytes(&parted);
                    return Some(answer);
                }
                Err(Denied::Replaced) => Denied::Elsewhere,
                Err(denied) => denied,
            },
            _ => return None,
        };
        let word = Denied::WORDS
            .into_iter()
            .find(|(_, known)| *known == denied);
        match (word, home.moved_to()) {
            (Some((word, _)), _) => answer.text(word),
            (None, Some(node)) => {
                answer.text("moved");
                answer.text(node);
            }
            (None, None) => answer.text("away"),
        }
        Some(answer)
    }
}

impl Answer {
    fn read(answer: Bytes) -> Option<Self> {
        let mut answer = Fields::new(answer);
        let word = answer.parse::<String>()?;
        Some(match word.as_str() {
            "accepted" => Self::Accepted(answer.number()?.try_into().ok()?),
            "looked" => {
                let (number, place) = (answer.number()?, answer.parse()?);
                let mut looked = Looked {
                    reset: answer.number()? == 1,
                    events: Vec::new(),
                };
                while let Some(place) = answer.parse() {
                    looked.events.push((place, answer.bytes()?));
                }
                Self::Looked(number, place, looked)
            }
            "parted" => Self::Parted(Parted::read(answer.bytes()?)?),
            "away" => Self::Away,
            "moved" => Self::Moved(NodeId::known(&answer.parse::<String>()?)),
            word => {
                let mut words = Denied::WORDS.into_iter();
                Self::Denied(words.find(|(known, _)| *known == word)?.1)
            }
        })
    }
}

/// A session that comes to this node.
struct Arrival {
    note: Note,
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

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
