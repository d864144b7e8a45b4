//! An HTTP session at its home: the conversation on one side, the requests of its client on the other.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Sink, Stream};
use tokio::sync::{oneshot, watch};
use tokio::time::{Instant, Sleep, sleep_until, timeout};

use super::buffer::{Buffer, Looked, Place};
use super::fields::{Reader, Writer};
use super::homes::Denied;
use crate::model::{CloseReason, Correlation, EntryId, Frame, NodeId, SecretHash, UserName};
use crate::session::{Gone, Received, Sending, Standing};

/// How much may wait to be heard.
const MOST_FRAMES: usize = Home::MOST_AT_ONCE;
const MOST_BYTES: usize = 1 << 20;
/// How many idempotency keys are remembered, and how long.
const KEYS: usize = 256;
const KEYS_LIVE: Duration = Duration::from_mins(1);
/// When what was told counts as read by a client that does not say how far it has read. Should its home die later, it may be lost, and a client that
/// had not read it is told of a reset.
const READ_WITHIN: Duration = Duration::from_secs(1);

/// One session at its home.
#[derive(Debug)]
pub(super) struct Home {
    proof: SecretHash,
    session_ttl: Duration,
    /// Held for some operations of memory.
    state: Mutex<State>,
    /// Something has changed that somebody may wait for.
    news: watch::Sender<()>,
}

#[derive(Debug)]
struct State {
    stage: Stage,
    buffer: Buffer,
    standing: Standing,
    /// How often that has changed, and which state of it is written down for other nodes.
    changes: u64,
    written: u64,
    /// The number of the client's latest reader.
    reader: u64,
    /// How many readers wait for news now.
    waiting: usize,
    /// The client's last sign of life.
    sign: Instant,
    /// How much of the buffer the client is known to have read.
    read: u64,
    posts: VecDeque<Post>,
    /// What is left of the post that is being dealt with.
    current: Option<Post>,
    posted: u64,
    settled: u64,
    keys: VecDeque<Key>,
    /// Pings that were not answered yet, each with how much was told before it, and when.
    pings: VecDeque<(u64, u64, Instant)>,
    /// The conversation has asked for a sign of life.
    is_asked: bool,
    /// Who wants to go on with it.
    taker: Option<(NodeId, oneshot::Sender<Bytes>)>,
    wire: Option<Waker>,
}

/// Where the session is.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Stage {
    Here,
    /// The conversation has ended here, and it is not known yet whether it goes on elsewhere.
    Replaced,
    /// This node could not go on: whoever is asked next does.
    Left,
    /// It is at this node, if that is known, perhaps since a newer reader came there.
    Moved(Option<NodeId>, bool),
    /// Only its last words are left.
    Over,
    /// It could not be had.
    Failed(Denied),
}

#[derive(Debug)]
struct Post {
    number: u64,
    /// `None`: the client ends the session.
    frames: Option<VecDeque<Bytes>>,
    /// What the ids of its messages begin with.
    id: Arc<str>,
    /// The number of its next message.
    next: usize,
}

#[derive(Debug)]
struct Key {
    words: Arc<str>,
    number: u64,
    count: usize,
    at: Instant,
}

impl Home {
    /// The most frames that are taken at once.
    pub(super) const MOST_AT_ONCE: usize = 256;

    pub(super) fn new(proof: SecretHash, session_ttl: Duration) -> Self {
        let state = State {
            stage: Stage::Here,
            buffer: Buffer::new(),
            standing: Standing::default(),
            changes: 1,
            written: 0,
            reader: 0,
            waiting: 0,
            sign: Instant::now(),
            read: 0,
            posts: VecDeque::new(),
            current: None,
            posted: 0,
            settled: 0,
            keys: VecDeque::new(),
            pings: VecDeque::new(),
            is_asked: false,
            taker: None,
            wire: None,
        };
        Self {
            proof,
            session_ttl,
            state: Mutex::new(state),
            news: watch::Sender::new(()),
        }
    }

    /// Goes on with what another node has left; where nothing of that is known, with what is written down.
    pub(super) fn begins_with(&self, left: Option<Parted>, standing: Standing, greets: bool) {
        let mut state = self.lock();
        state.standing = standing;
        state.buffer.greets = greets;
        if let Some(Parted {
            buffer,
            keys,
            reader,
            is_over,
            ..
        }) = left
        {
            state.buffer = buffer;
            state.reader += reader;
            let at = Instant::now();
            state.keys = keys
                .into_iter()
                .map(|(words, count)| Key {
                    words,
                    number: 0,
                    count,
                    at,
                })
                .collect();
            if is_over {
                state.stage = Stage::Over;
            }
        }
        drop(state);
        self.news.send_replace(());
    }

    // === For the client ===

    /// The client says this, all of it or nothing, and once for every key; or ends the session. How many were heard, when it is known what
    /// became of them.
    pub(super) async fn post(
        &self,
        said: Option<Vec<Bytes>>,
        key: &str,
        within: Duration,
    ) -> Result<usize, Denied> {
        let (number, count) = self.lock().post(said, key)?;
        self.settles(number, within).await.map(|()| count)
    }

    /// Waits until it is known what became of everything up to this post, and other nodes can know it.
    pub(super) async fn settles(&self, number: u64, within: Duration) -> Result<(), Denied> {
        let mut news = self.news.subscribe();
        let settled = async {
            loop {
                {
                    let state = self.lock();
                    let is_known = state.settled >= number && state.written == state.changes;
                    match &state.stage {
                        Stage::Here | Stage::Replaced if !is_known => {}
                        Stage::Here | Stage::Replaced | Stage::Over => return Ok(()),
                        _ if state.settled >= number => return Ok(()),
                        _ => return Err(state.denied()),
                    }
                }
                // The sender is ours.
                let _ = news.changed().await;
            }
        };
        let settled = timeout(within, settled).await;
        settled.unwrap_or(Err(Denied::Later))
    }

    /// The reader of this number goes on; one that is not known is new, and replaces any earlier one. The number of the reader.
    pub(super) fn reads(&self, number: u64) -> u64 {
        let mut state = self.lock();
        state.sign = Instant::now();
        if (1..=state.reader).contains(&number) {
            return number;
        }
        state.reader += 1;
        self.news.send_replace(());
        state.reader
    }

    /// What there is behind this place for the reader of this number.
    pub(super) fn look(&self, reader: u64, place: &mut Place) -> Result<Looked, Denied> {
        let mut state = self.lock();
        state.sign = Instant::now();
        if matches!(state.stage, Stage::Here | Stage::Replaced | Stage::Over)
            && reader < state.reader
        {
            return Err(Denied::Replaced);
        }
        if let Some(read) = state.buffer.number_of(place) {
            state.read = state.read.max(read);
            state.wake_for_pings();
        }
        let state = &mut *state;
        match &state.stage {
            Stage::Here | Stage::Replaced => Ok(state.buffer.read(place)),
            Stage::Over => {
                let looked = state.buffer.read(place);
                if looked.is_empty() {
                    Err(Denied::Gone)
                } else {
                    Ok(looked)
                }
            }
            Stage::Moved(_, true) => Err(Denied::Replaced),
            _ => Err(state.denied()),
        }
    }

    /// Waits until [`look`](Self::look) finds something, or says no, for so long at most.
    pub(super) async fn wait(&self, reader: u64, place: Place, at_most: Duration) {
        let mut news = self.news.subscribe();
        self.lock().waiting += 1;
        let _waits = Waits(self);
        let found = async {
            while matches!(self.look(reader, &mut place.clone()), Ok(looked) if looked.is_empty()) {
                // The sender is ours.
                let _ = news.changed().await;
            }
        };
        let _ = timeout(at_most, found).await;
    }

    /// Whether this proves that the session is one's own.
    pub(super) fn is_proved_by(&self, proof: &SecretHash) -> bool {
        self.proof == *proof
    }

    /// Who has logged in.
    pub(super) fn user(&self) -> Result<Option<UserName>, Denied> {
        let state = self.lock();
        match &state.stage {
            Stage::Here | Stage::Replaced => {
                let user = state.standing.user.as_ref();
                Ok(user.map(|(name, _)| name.clone()))
            }
            Stage::Over => Err(Denied::Gone),
            _ => Err(state.denied()),
        }
    }

    // === For other nodes, and for this one as a member of the cluster ===

    /// Hands the session over to another node, as it is when nothing is being dealt with; `None`: not now.
    pub(super) async fn take(&self, taker: &NodeId, within: Duration) -> Result<Bytes, Denied> {
        let (sender, parted) = oneshot::channel();
        {
            let mut state = self.lock();
            match &state.stage {
                Stage::Over => return Ok(state.part(&self.news, None)),
                Stage::Left => return Ok(state.part(&self.news, Some(taker))),
                Stage::Here => {
                    state.taker = Some((taker.clone(), sender));
                    state.wake();
                }
                _ => return Err(state.denied()),
            }
        }
        match timeout(within, parted).await {
            Ok(Ok(parted)) => Ok(parted),
            _ => Err(Denied::Later),
        }
    }

    /// Whether requests are to be answered here.
    pub(super) fn is_here(&self) -> bool {
        matches!(
            self.lock().stage,
            Stage::Here | Stage::Replaced | Stage::Over
        )
    }

    /// Whether only its last words are left.
    pub(super) fn is_over(&self) -> bool {
        self.lock().stage == Stage::Over
    }

    /// Where it is, if that is known and not here.
    pub(super) fn moved_to(&self) -> Option<NodeId> {
        match &self.lock().stage {
            Stage::Moved(node, _) => node.clone(),
            _ => None,
        }
    }

    /// The conversation cannot be had here.
    pub(super) fn fails(&self, denied: Denied) {
        self.turns(Stage::Failed(denied));
    }

    /// Its task has ended: whatever is not known to go on elsewhere is over.
    pub(super) fn ends(&self) {
        let mut state = self.lock();
        if matches!(state.stage, Stage::Here | Stage::Replaced) {
            state.stage = Stage::Over;
        }
        drop(state);
        self.news.send_replace(());
    }

    /// Another connection has the session: `by_other_transport`, or else it is an HTTP session still, elsewhere.
    pub(super) fn was_replaced(&self, by_other_transport: bool) {
        let mut state = self.lock();
        if state.stage == Stage::Replaced {
            if by_other_transport {
                state.says_goodbye(CloseReason::Replaced);
            } else {
                state.stage = Stage::Moved(None, false);
            }
        }
        drop(state);
        self.news.send_replace(());
    }

    /// What is to be written down for other nodes, and which state of it that is; `None` if this is not its home any more.
    pub(super) fn locator(&self, node: &NodeId) -> Option<(u64, Locator)> {
        let state = self.lock();
        (state.stage == Stage::Here).then(|| {
            let locator = Locator {
                node: node.clone(),
                proof: self.proof.clone(),
                standing: state.standing.clone(),
            };
            (state.changes, locator)
        })
    }

    /// That state is written down.
    pub(super) fn located(&self, changes: u64) {
        self.lock().written = changes;
        self.news.send_replace(());
    }

    /// Waits until something else is to be written down.
    pub(super) async fn changed(&self) {
        let mut news = self.news.subscribe();
        let is_written = || {
            let state = self.lock();
            state.written == state.changes
        };
        while is_written() {
            // The sender is ours.
            let _ = news.changed().await;
        }
    }

    /// While the store is away, nobody can give a sign of life by another node.
    pub(super) fn forgives(&self) {
        self.lock().sign = Instant::now();
    }

    fn turns(&self, stage: Stage) {
        self.lock().stage = stage;
        self.news.send_replace(());
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A reader that waits: its client is there.
struct Waits<'a>(&'a Home);

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.waiting -= 1;
        state.sign = Instant::now();
    }
}

impl State {
    fn post(&mut self, said: Option<Vec<Bytes>>, key: &str) -> Result<(u64, usize), Denied> {
        self.sign = Instant::now();
        if said.as_ref().is_some_and(Vec::is_empty) {
            return Ok((self.settled, 0));
        }
        if let Some(known) = self.keys.iter().find(|known| *known.words == *key) {
            return Ok((known.number, known.count));
        }
        match self.stage {
            Stage::Here => {}
            Stage::Over => return Err(Denied::Gone),
            _ => return Err(self.denied()),
        }
        let frames = self
            .posts
            .iter()
            .flat_map(|post| post.frames.iter().flatten());
        let (entries, bytes) = frames.fold((0, 0), |(entries, bytes), frame| {
            (entries + 1, bytes + frame.len())
        });
        let count = said.as_ref().map_or(0, Vec::len);
        let size: usize = said.iter().flatten().map(Bytes::len).sum();
        if entries > 0 && (entries + count > MOST_FRAMES || bytes + size > MOST_BYTES) {
            return Err(Denied::Full);
        }
        self.posted += 1;
        let (number, words) = (self.posted, Arc::<str>::from(key));
        let now = Instant::now();
        while self.keys.len() >= KEYS
            || self
                .keys
                .front()
                .is_some_and(|key| now - key.at > KEYS_LIVE)
        {
            self.keys.pop_front();
        }
        self.keys.push_back(Key {
            words: Arc::clone(&words),
            number,
            count,
            at: now,
        });
        self.posts.push_back(Post {
            number,
            frames: said.map(VecDeque::from),
            id: words,
            next: 0,
        });
        self.wake();
        Ok((number, count))
    }

    /// Why nothing is answered here.
    fn denied(&self) -> Denied {
        match &self.stage {
            Stage::Failed(denied) => denied.clone(),
            _ => Denied::Elsewhere,
        }
    }

    /// All that whoever goes on needs.
    fn part(&mut self, news: &watch::Sender<()>, taker: Option<&NodeId>) -> Bytes {
        let mut writer = Writer::default();
        writer.number(taker.is_none().into());
        writer.number(self.reader);
        self.buffer.write(&mut writer);
        write_standing(&self.standing, &mut writer);
        let settled = self.keys.iter().filter(|key| key.number <= self.settled);
        let keys: Vec<&Key> = settled.collect();
        writer.number(keys.len() as u64);
        for key in keys {
            writer.text(&key.words);
            writer.number(key.count as u64);
        }
        if let Some(taker) = taker {
            self.stage = Stage::Moved(Some(taker.clone()), true);
            news.send_replace(());
        }
        writer.into()
    }

    fn says_goodbye(&mut self, reason: CloseReason) {
        // What a WebSocket says by its close code.
        if let Some(code) = reason.code() {
            let words = reason.words();
            let said = format!("{{\"type\":\"close\",\"code\":{code},\"reason\":\"{words}\"}}");
            self.buffer.tell(said.into(), None);
        }
        self.stage = Stage::Over;
    }

    fn wake(&mut self) {
        if let Some(wire) = self.wire.take() {
            wire.wake();
        }
    }

    fn wake_for_pings(&mut self) {
        if self.pings.front().is_some_and(|ping| ping.1 <= self.read) {
            self.wake();
        }
    }
}

/// What another node had of a session.
pub(super) struct Parted {
    is_over: bool,
    reader: u64,
    buffer: Buffer,
    pub(super) standing: Standing,
    keys: Vec<(Arc<str>, usize)>,
}

impl Parted {
    pub(super) fn read(parted: Bytes) -> Option<Self> {
        let mut from = Reader::new(parted);
        Some(Self {
            is_over: from.number()? == 1,
            reader: from.number()?,
            buffer: Buffer::read_from(&mut from)?,
            standing: read_standing(&mut from)?,
            keys: (0..from.number()?)
                .map(|_| {
                    let words = from.parse::<String>()?.into();
                    Some((words, from.number()?.try_into().ok()?))
                })
                .collect::<Option<_>>()?,
        })
    }

    pub(super) fn is_over(&self) -> bool {
        self.is_over
    }

    /// The last of its inbox that the client was told.
    pub(super) fn seq(&self) -> Option<EntryId> {
        self.buffer.seq()
    }
}

/// What is written down of a session for all nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Locator {
    pub(super) node: NodeId,
    pub(super) proof: SecretHash,
    pub(super) standing: Standing,
}

impl Locator {
    pub(super) fn write(&self) -> Bytes {
        let mut to = Writer::default();
        to.text(&self.node);
        to.text(self.proof.as_str());
        write_standing(&self.standing, &mut to);
        to.into()
    }

    pub(super) fn read(locator: Bytes) -> Option<Self> {
        let mut from = Reader::new(locator);
        Some(Self {
            node: NodeId::known(&from.parse::<String>()?),
            proof: SecretHash::known(&from.parse::<String>()?),
            standing: read_standing(&mut from)?,
        })
    }
}

/// Whom it watches, then who it is.
fn write_standing(standing: &Standing, to: &mut Writer) {
    to.number(standing.watched.len() as u64);
    for name in &standing.watched {
        to.text(name);
    }
    let (name, proof) = standing
        .user
        .as_ref()
        .map_or(("", ""), |(name, proof)| (name.as_str(), proof.as_str()));
    to.text(name);
    to.text(proof);
}

fn read_standing(from: &mut Reader) -> Option<Standing> {
    let name = |from: &mut Reader| UserName::parse(&from.parse::<String>()?).ok();
    let watched = (0..from.number()?).map(|_| name(from));
    let watched = watched.collect::<Option<_>>()?;
    let (user, proof) = (name(from), from.parse::<String>()?);
    Some(Standing {
        user: user.map(|user| (user, SecretHash::known(&proof))),
        watched,
        confirmed: EntryId::default(),
    })
}

/// A session at its home as the conversation sees it: a stream of what its client says, a sink for what it is told.
pub(super) struct Wire {
    home: Arc<Home>,
    /// It goes on with what another node had told, and not only with what is in the inbox.
    is_continued: bool,
    timer: Pin<Box<Sleep>>,
}

impl Wire {
    pub(super) fn new(home: Arc<Home>, is_continued: bool) -> Self {
        Self {
            home,
            is_continued,
            timer: Box::pin(sleep_until(Instant::now())),
        }
    }

    /// What there is for the conversation now, or when there may be something.
    fn next(state: &mut State, home: &Home) -> Result<Option<Received>, Instant> {
        if state.stage != Stage::Here {
            return Ok(None);
        }
        if std::mem::take(&mut state.is_asked) {
            // Whether its client is there is told by its requests.
            return Ok(Some(Received::Alive));
        }
        let now = Instant::now();
        let is_read = |told: u64, at: Instant| told <= state.read || now - at >= READ_WITHIN;
        if let Some(&(ping, told, at)) = state.pings.front()
            && is_read(told, at)
        {
            state.pings.pop_front();
            return Ok(Some(Received::Answered(ping)));
        }
        if state.current.is_none() {
            if let Some((taker, sender)) = state.taker.take().filter(|taker| !taker.1.is_closed()) {
                let parted = state.part(&home.news, Some(&taker));
                // Should nobody wait for it any more, it goes on from what is written down.
                let _ = sender.send(parted);
                return Ok(Some(Received::Taken));
            }
            state.current = state.posts.pop_front();
        }
        if let Some(post) = &mut state.current {
            match &mut post.frames {
                None => {
                    state.settled = post.number;
                    return Ok(Some(Received::Closed { for_good: true }));
                }
                Some(frames) => {
                    if let Some(frame) = frames.pop_front() {
                        post.next += 1;
                        let id = Correlation::ours(format_args!("{}.{}", post.id, post.next));
                        return Ok(Some(Received::Posted(Frame::Text(frame), id)));
                    }
                }
            }
        }
        let silent_at = if state.waiting > 0 {
            now + home.session_ttl
        } else {
            state.sign + home.session_ttl
        };
        if now >= silent_at {
            return Ok(Some(Received::Expired));
        }
        let read_at = state.pings.front().map(|ping| ping.2 + READ_WITHIN);
        Err(read_at.map_or(silent_at, |at| at.min(silent_at)))
    }
}

impl Stream for Wire {
    type Item = Received;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Received>> {
        loop {
            let home = Arc::clone(&self.home);
            let mut state = home.lock();
            match Self::next(&mut state, &home) {
                Ok(received) => return Poll::Ready(received),
                Err(at) => {
                    state.wire = Some(context.waker().clone());
                    drop(state);
                    self.timer.as_mut().reset(at);
                    if self.timer.as_mut().poll(context).is_pending() {
                        return Poll::Pending;
                    }
                }
            }
        }
    }
}

impl Sink<Sending> for Wire {
    type Error = Gone;

    /// What does not fit pushes out the oldest: nobody waits for a client.
    fn poll_ready(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<(), Gone>> {
        Poll::Ready(Ok(()))
    }

    fn start_send(self: Pin<&mut Self>, sending: Sending) -> Result<(), Gone> {
        let mut state = self.home.lock();
        match sending {
            Sending::Frame(frame, own) => state.buffer.tell(frame.bytes().clone(), own),
            Sending::Ping(number) => {
                let told = state.buffer.told();
                state.pings.push_back((number, told, Instant::now()));
                state.is_asked = true;
            }
            Sending::Standing(standing) => {
                if standing.user.is_some() {
                    state.buffer.logs_in();
                }
                if !self.is_continued {
                    state.buffer.confirmed = standing.confirmed;
                }
                let is_new = (&standing.user, &standing.watched)
                    != (&state.standing.user, &state.standing.watched);
                state.changes += u64::from(is_new);
                state.standing = *standing;
            }
            Sending::Settled => {
                let is_done = |post: &Post| post.frames.as_ref().is_some_and(VecDeque::is_empty);
                if state.current.as_ref().is_some_and(is_done)
                    && let Some(post) = state.current.take()
                {
                    state.settled = post.number;
                }
            }
            Sending::Close(_) if state.stage != Stage::Here => {}
            Sending::Close(CloseReason::Draining | CloseReason::Overloaded) => {
                state.stage = Stage::Left;
            }
            Sending::Close(CloseReason::Replaced) => state.stage = Stage::Replaced,
            Sending::Close(reason) => state.says_goodbye(reason),
        }
        Ok(())
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<(), Gone>> {
        self.home.news.send_replace(());
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<(), Gone>> {
        self.home.ends();
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Address, Realm, Secret};

    #[test]
    fn a_note_survives_its_text() {
        let name = |text| UserName::parse(text).unwrap();
        let proof = Secret::random().hash_for(&Address::new(Realm::default(), name("a b")));
        let full = Standing {
            user: Some((name("a b/ü"), proof.clone())),
            watched: [name("c d"), name("e")].into(),
            confirmed: EntryId::default(),
        };
        for standing in [full, Standing::default()] {
            let locator = Locator {
                node: NodeId::known("n.1"),
                proof: proof.clone(),
                standing,
            };
            assert_eq!(Locator::read(locator.write()), Some(locator));
        }
        assert_eq!(Locator::read(Bytes::new()), None);
    }
}
