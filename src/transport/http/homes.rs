//! Routes requests of HTTP sessions to their homes. Each session has one home node; a locator in
//! the store names it.
//!
//! A node that gets a POST or a poll for another home forwards it. A stream moves the session: the
//! node at which it arrives becomes the home. If a home does not answer, the next node resumes the
//! session as a WebSocket would.

use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::super::Settings;
use super::buffer::{EventId, Unread};
use super::home::Home;
use super::node::{self, Node, SLICE};
use super::task::{Takeover, Task};
use super::token::Token;
use super::wire::{Denied, Locator, Reply, Request};
use crate::broker::{Broker, Questions};
use crate::bugs::{self, Bug};
use crate::drain::Phase;
use crate::limits::{Addresses, ConnectionLimit, Permit};
use crate::model::{Address, Claims, NodeId, Offset, Secret};
use crate::router::Router;

/// Time limit for a request that waits for the session.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// The HTTP sessions as seen by this node. Clones share the same node.
#[derive(Clone, Debug)]
pub(crate) struct Homes(Arc<Node>);

/// The reader of a session at its home. There is one at a time: a newer reader replaces it.
#[derive(Debug)]
pub(super) struct Reader {
    home: Arc<Home>,
    number: u64,
    after: EventId,
}

impl Reader {
    /// Waits for events that the client has not read, for `at_most`.
    pub(super) async fn read(&mut self, at_most: Duration) -> Result<Unread, Denied> {
        let unread = self.home.read(self.number, self.after, at_most).await?;
        self.after = unread.next;
        Ok(unread)
    }
}

impl Homes {
    pub(crate) fn new(
        broker: Arc<dyn Broker>,
        router: Arc<Router>,
        phase: Phase,
        settings: Arc<Settings>,
        addresses: Addresses,
    ) -> Self {
        Self(Arc::new(Node {
            broker,
            router,
            phase,
            sessions: ConnectionLimit::new(settings.connections_per_ip),
            settings,
            addresses,
            homes: Mutex::default(),
        }))
    }

    /// Service: answers the questions of other nodes.
    pub(crate) fn answer(&self, questions: Questions) -> impl Future<Output = ()> + Send + use<> {
        node::answer_all(Arc::clone(&self.0), questions)
    }

    /// Acquires a permit for a session whose home is here and whose client has this address.
    pub(super) fn acquire(&self, from: IpAddr) -> Result<Option<Permit>, Denied> {
        let permit = self.0.sessions.acquire(from);
        permit.map_err(|_| Denied::TooMany)
    }

    /// Opens a session, with a login if the client sent one. `admitted` is what the token of the request says. The
    /// permit is released when the session ends here.
    pub(super) async fn open(
        &self,
        from: IpAddr,
        login: Option<Bytes>,
        permit: Option<Permit>,
        admitted: Option<Arc<Claims>>,
    ) -> Result<Token, Denied> {
        let token = Token::random();
        let home = self.start_home(&token, from, None, permit, admitted);
        let opened = match login {
            None => home.settled(0, ANSWER_WITHIN).await,
            Some(login) => {
                let posted = home.post(Some(texts(&[login])), "", ANSWER_WITHIN).await;
                posted.map(drop)
            }
        };
        opened.map_err(|_| Denied::Unavailable)?;
        Ok(token)
    }

    /// The user who is logged in with this token, if any, and whether it may relay.
    pub(in crate::transport) async fn verify(
        &self,
        token: &Token,
    ) -> Result<Option<(Address, bool)>, Denied> {
        let progress = match self.home(token)? {
            Some(home) if home.lock().is_over() => return Err(Denied::Gone),
            Some(home) if home.lock().is_here() => home.lock().progress.clone(),
            _ => self.0.locator(token).await?.progress.into(),
        };
        let may_relay = progress.claims.is_none_or(|claims| claims.turn);
        let user = progress
            .user
            .map(|(name, _)| Address::new(progress.realm, name));
        Ok(user.map(|user| (user, may_relay)))
    }

    /// Whether the token is that of a session, which may have ended lately.
    pub(super) async fn authorize(&self, token: &Token) -> Result<(), Denied> {
        if self.home(token)?.is_none() {
            self.0.locator(token).await?;
        }
        Ok(())
    }

    /// Queues all messages or none, once per key. `None` instead of messages ends the session.
    /// Returns the number of messages.
    pub(super) async fn post(
        &self,
        token: &Token,
        from: IpAddr,
        messages: Option<Vec<Bytes>>,
        key: Option<&str>,
    ) -> Result<usize, Denied> {
        // The key becomes the prefix of the message ids, so any node that continues the session
        // derives the same ids and receivers drop repetitions.
        let key = match key {
            Some(key) => token.secret().derived(key),
            None => Secret::random(),
        };
        let messages = messages.as_deref().map(texts);
        let request = Request::Post(messages, key.expose()[..32].to_owned());
        let request = |_| request.clone();
        let until = Instant::now() + ANSWER_WITHIN;
        match self.forward(token, from, None, until, request).await? {
            Reply::Posted(count) => Ok(count),
            _ => Err(Denied::Unavailable),
        }
    }

    /// Opens an event stream after `after`. This node becomes the home of the session.
    pub(super) async fn stream(
        &self,
        token: &Token,
        from: IpAddr,
        after: EventId,
    ) -> Result<Reader, Denied> {
        let home = match self.home(token)? {
            Some(home) if home.lock().is_here() => home,
            _ => {
                let locator = self.0.locator(token).await?;
                if bugs::has(Bug::StreamDoesNotTakeOver) && !locator.is_at(self.0.id()) {
                    return Err(Denied::Unavailable);
                }
                self.take_over(token, from, locator, after.seq, false)?
            }
        };
        // The stream itself reports other errors.
        if let Err(denied @ (Denied::Gone | Denied::Wrong | Denied::Unavailable)) =
            home.settled(0, ANSWER_WITHIN).await
        {
            return Err(denied);
        }
        let number = home.update(|state| state.reader(0));
        Ok(Reader {
            home,
            number,
            after,
        })
    }

    /// Waits for events after `after`, until `until`.
    pub(super) async fn poll(
        &self,
        token: &Token,
        from: IpAddr,
        mut after: EventId,
        until: Instant,
    ) -> Result<Unread, Denied> {
        let mut reader = 0;
        loop {
            let request = |within| {
                let left = until.saturating_duration_since(Instant::now());
                Request::Poll(reader, after, left.min(within))
            };
            let within = Instant::now() + ANSWER_WITHIN;
            let reply = self.forward(token, from, after.seq, within, request);
            let reply = reply.await?;
            let Reply::Unread(number, unread) = reply else {
                return Err(Denied::Unavailable);
            };
            if !unread.is_empty() || Instant::now() >= until {
                return Ok(unread);
            }
            (reader, after) = (number, unread.next);
        }
    }

    /// Sends a request to the session's home, following it if it moves. If the home does not
    /// answer, this node becomes the home.
    async fn forward(
        &self,
        token: &Token,
        from: IpAddr,
        last: Option<Offset>,
        until: Instant,
        request: impl Fn(Duration) -> Request,
    ) -> Result<Reply, Denied> {
        let (own, mut moved_to) = (self.0.id(), None);
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(Denied::Unavailable);
            }
            let home = self.home(token)?;
            let reply = if let Some(home) = home.as_ref().filter(|home| home.lock().is_here()) {
                Some(node::serve(home, request(left), own, left).await)
            } else {
                let hint = moved_to.take().or_else(|| home?.lock().moved_to());
                let node = match hint.filter(|node| node != own) {
                    Some(node) => node,
                    None => NodeId::known(&self.0.locator(token).await?.node),
                };
                let reply = if node == *own {
                    Some(Reply::Denied(Denied::Elsewhere))
                } else {
                    self.0.ask(&node, token, request(SLICE)).await?
                };
                if let None | Some(Reply::Denied(Denied::Elsewhere)) = reply {
                    let locator = self.0.locator(token).await?;
                    if locator.is_at(&node) {
                        self.take_over(token, from, locator, last, reply.is_none())?;
                    } else {
                        // It has moved on. A home that was here only knows where it went first.
                        moved_to = Some(NodeId::known(&locator.node));
                    }
                }
                reply
            };
            match reply {
                Some(Reply::Moved(node)) => moved_to = Some(NodeId::known(&node)),
                None | Some(Reply::Denied(Denied::Elsewhere | Denied::Later)) => {}
                Some(Reply::Denied(denied)) => return Err(denied),
                Some(reply) => return Ok(reply),
            }
        }
    }

    fn home(&self, token: &Token) -> Result<Option<Arc<Home>>, Denied> {
        self.0.home(token.session(), &token.proof())
    }

    /// Makes this node the home of a session. `is_dead`: the previous home did not answer.
    fn take_over(
        &self,
        token: &Token,
        from: IpAddr,
        locator: Locator,
        last: Option<Offset>,
        is_dead: bool,
    ) -> Result<Arc<Home>, Denied> {
        if self.0.phase.is_draining() {
            return Err(Denied::Draining);
        }
        let previous = self.home(token)?;
        if let Some(home) = previous.clone().filter(|home| home.lock().is_here()) {
            return Ok(home);
        }
        let permit = self.acquire(from)?;
        let takeover = Takeover {
            locator,
            previous,
            last,
            is_dead,
        };
        Ok(self.start_home(token, from, Some(takeover), permit, None))
    }

    /// Creates a home on this node and spawns its task.
    fn start_home(
        &self,
        token: &Token,
        from: IpAddr,
        takeover: Option<Takeover>,
        permit: Option<Permit>,
        admitted: Option<Arc<Claims>>,
    ) -> Arc<Home> {
        let home = self.0.add_home(token);
        let task = Task {
            node: Arc::clone(&self.0),
            token: token.clone(),
            home: Arc::clone(&home),
            address: self.0.addresses.of(from),
            admitted,
        };
        tokio::spawn(task.run(takeover, permit));
        home
    }
}

/// Copies the messages, so that a short one does not keep its whole request body alive.
fn texts(messages: &[Bytes]) -> Vec<String> {
    let text = |message: &Bytes| String::from_utf8_lossy(message).into_owned();
    messages.iter().map(text).collect()
}
