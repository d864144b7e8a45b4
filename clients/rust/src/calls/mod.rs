//! Calls, whatever makes their connections: which signal belongs to which call, and who gives way when offers cross.

mod call;
mod hearing;

use std::collections::{HashMap, VecDeque};

use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::Instant;

pub use self::call::CallState;
use self::call::{Call, mark};
use crate::session::{Inbox, Session};
use crate::wire::{Description, Error, Message};

/// How many peers may say at once that they are connected.
const CONNECTED: usize = 256;

/// What a WebRTC library reports.
pub type PeerError = Box<dyn std::error::Error + Send + Sync>;

/// What a call needs of a WebRTC library. Descriptions contain their candidates. Dropping it closes the connection.
pub trait Peer: Send {
    /// Makes an offer.
    fn offer(&mut self) -> impl Future<Output = Result<Description, PeerError>> + Send;
    /// Takes an offer, and makes the answer.
    fn answer(
        &mut self,
        offer: &Description,
    ) -> impl Future<Output = Result<Description, PeerError>> + Send;
    /// Takes the answer to the last offer.
    fn accept(
        &mut self,
        answer: &Description,
    ) -> impl Future<Output = Result<(), PeerError>> + Send;
    /// Takes a candidate. One of an offer that was ignored fits nothing.
    fn candidate(&mut self, candidate: &Value) -> impl Future<Output = ()> + Send;
}

/// What an app is told.
#[derive(Clone, Debug)]
pub enum Event {
    /// This user calls.
    Ringing(String),
    /// The call with this user has a connection.
    Connected(String),
    /// The call with this user is over, and why.
    Ended(String, String),
    /// A message of the session that is not about a call.
    Message(Message),
}

/// For the peer of a call, to say that it has a connection.
#[derive(Clone, Debug)]
pub struct Connected {
    name: String,
    call: u64,
    told: mpsc::Sender<(String, u64)>,
}

impl Connected {
    /// Says so.
    pub fn tell(&self) {
        // Full only if the app does not look at its calls at all.
        drop(self.told.try_send((self.name.clone(), self.call)));
    }
}

/// Something for [`Calls::handle`].
#[derive(Debug)]
pub enum Happening {
    /// A message of the session.
    Message(Message),
    /// A peer is connected.
    Connected(String, u64),
    /// A description was refused.
    Refused(String, u64, Error),
}

/// The calls of one session. Whoever owns it waits, and handles what happens.
pub struct Calls<P, F> {
    session: Session,
    inbox: Inbox,
    new_peer: F,
    open: HashMap<String, Call<P>>,
    /// What the browser's client library says before it leaves.
    byes: HashMap<String, String>,
    /// How many calls there were.
    count: u64,
    outcomes: FuturesUnordered<BoxFuture<'static, Option<Happening>>>,
    connected: mpsc::Receiver<(String, u64)>,
    tell_connected: mpsc::Sender<(String, u64)>,
    events: VecDeque<Event>,
}

impl<P: Peer, F> Calls<P, F>
where
    F: FnMut(&str, Connected) -> Result<P, PeerError>,
{
    /// `new_peer` makes the peer of a call with somebody.
    pub fn new(session: Session, inbox: Inbox, new_peer: F) -> Self {
        let (tell_connected, connected) = mpsc::channel(CONNECTED);
        Self {
            session,
            inbox,
            new_peer,
            open: HashMap::new(),
            byes: HashMap::new(),
            count: 0,
            outcomes: FuturesUnordered::new(),
            connected,
            tell_connected,
            events: VecDeque::new(),
        }
    }

    /// The state of the call with somebody.
    pub fn state(&self, name: &str) -> Option<CallState> {
        self.open.get(name).map(|call| call.state)
    }

    /// The peer of the call with somebody.
    pub fn peer(&mut self, name: &str) -> Option<&mut P> {
        self.open.get_mut(name)?.peer.as_mut()
    }

    /// Waits until something happens. Cancel-safe.
    ///
    /// # Errors
    ///
    /// The session's end.
    pub async fn wait(&mut self) -> Result<Happening, Error> {
        loop {
            tokio::select! {
                message = self.inbox.next() => return message.map(Happening::Message),
                Some((name, call)) = self.connected.recv() => return Ok(Happening::Connected(name, call)),
                Some(outcome) = self.outcomes.next() => if let Some(refused) = outcome {
                    return Ok(refused);
                },
            }
        }
    }

    /// Handles what happened, and says what that means for the app. Not cancel-safe.
    pub async fn handle(&mut self, happening: Happening) -> Vec<Event> {
        match happening {
            Happening::Message(message) => self.hear(message).await,
            Happening::Connected(name, number) => self.is_connected(&name, number),
            Happening::Refused(name, number, error) => {
                let reason = match error.code.as_str() {
                    "user_unavailable" => "unavailable",
                    _ => "failed",
                };
                let is_meant = |call: &Call<P>| call.number == number && call.is_being_set_up();
                if self.open.get(&name).is_some_and(is_meant) {
                    self.end(&name, reason);
                }
            }
        }
        self.events.drain(..).collect()
    }

    /// Calls somebody. Whoever calls somebody who is calling takes that call.
    ///
    /// # Errors
    ///
    /// `already_in_call`; `failed`, if there is no peer or it makes no offer.
    pub async fn call(&mut self, name: &str) -> Result<(), Error> {
        match self.state(name) {
            Some(CallState::Ringing) => return self.accept(name).await,
            Some(_) => {
                return Err(Error::new(
                    "already_in_call",
                    &format!("there is a call with {name}"),
                ));
            }
            None => {}
        }
        self.begin(name, CallState::Calling, None);
        let offered = match self.peer_of(name) {
            Ok(peer) => peer.offer().await,
            Err(error) => Err(error),
        };
        match offered {
            Ok(offer) => self.say(name, offer),
            Err(error) => {
                self.end(name, "failed");
                return Err(Error::new("failed", &error.to_string()));
            }
        }
        Ok(())
    }

    /// Takes an incoming call.
    ///
    /// # Errors
    ///
    /// `failed`, if there is no peer or it makes no answer. The call is over then.
    pub async fn accept(&mut self, name: &str) -> Result<(), Error> {
        let Some(call) = self.open.get_mut(name) else {
            return Ok(());
        };
        if call.state != CallState::Ringing {
            return Ok(());
        }
        call.state = CallState::Connecting;
        match call.theirs.clone() {
            Some(offer) => self.answer(name, offer).await,
            None => Ok(()),
        }
    }

    /// Ends a call, or declines it.
    pub fn hang_up(&mut self, name: &str) {
        self.leave(name, "hangup");
    }

    /// Answers an offer. What cannot be answered ends the call.
    async fn answer(&mut self, name: &str, offer: Description) -> Result<(), Error> {
        let answered = match self.peer_of(name) {
            Ok(peer) => peer.answer(&offer).await,
            Err(error) => Err(error),
        };
        match answered {
            Ok(mut answer) => {
                answer.to = Some(mark(&offer));
                self.say(name, answer);
                if let Some(call) = self.open.get_mut(name) {
                    call.theirs = Some(offer);
                    call.flush().await;
                }
                Ok(())
            }
            Err(error) => {
                self.leave(name, "failed");
                Err(Error::new("failed", &error.to_string()))
            }
        }
    }

    fn is_connected(&mut self, name: &str, number: u64) {
        let Some(call) = self.open.get_mut(name) else {
            return;
        };
        if call.number != number || call.state != CallState::Connecting {
            return;
        }
        call.state = CallState::Connected;
        let ms = u64::try_from(call.begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        let report = json!({"type": "report", "name": name, "state": "connected", "ms": ms});
        self.session.tell(Some(name), report);
        self.events.push_back(Event::Connected(name.to_owned()));
    }

    fn begin(&mut self, name: &str, state: CallState, theirs: Option<Description>) {
        self.count += 1;
        let call = Call {
            number: self.count,
            state,
            peer: None,
            begun: Instant::now(),
            theirs,
            ours: None,
            early: Vec::new(),
            is_ready: false,
        };
        self.open.insert(name.to_owned(), call);
        self.session.set_busy(true);
    }

    fn peer_of(&mut self, name: &str) -> Result<&mut P, PeerError> {
        let call = self.open.get_mut(name).ok_or("the call is over")?;
        let peer = if let Some(peer) = call.peer.take() {
            peer
        } else {
            let connected = Connected {
                name: name.to_owned(),
                call: call.number,
                told: self.tell_connected.clone(),
            };
            (self.new_peer)(name, connected)?
        };
        Ok(call.peer.insert(peer))
    }

    /// Says again what the other may not have heard.
    fn repeat(&mut self, name: &str) {
        let being_set_up = self.open.get(name).filter(|call| call.is_being_set_up());
        if let Some(ours) = being_set_up.and_then(|call| call.ours.clone()) {
            self.say(name, ours);
        }
    }

    fn say(&mut self, name: &str, ours: Description) {
        let Some(call) = self.open.get_mut(name) else {
            return;
        };
        let message = json!({"type": ours.kind, "name": name, (ours.kind.as_str()): ours});
        let answered = self.session.request(Some(name), message);
        let (name, number) = (name.to_owned(), call.number);
        call.ours = Some(ours);
        let outcome = async move {
            let refused = answered.await.err()?;
            Some(Happening::Refused(name, number, refused))
        };
        self.outcomes.push(outcome.boxed());
    }

    fn leave(&mut self, name: &str, reason: &str) {
        if self.open.contains_key(name) {
            self.session
                .tell(Some(name), json!({"type": "leave", "name": name}));
            self.end(name, reason);
        }
    }

    fn end(&mut self, name: &str, reason: &str) {
        if self.open.remove(name).is_some() {
            self.byes.remove(name);
            self.session.set_busy(!self.open.is_empty());
            let ended = Event::Ended(name.to_owned(), reason.to_owned());
            self.events.push_back(ended);
        }
    }
}

impl<P, F> std::fmt::Debug for Calls<P, F> {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names: Vec<_> = self.open.keys().collect();
        out.debug_struct("Calls")
            .field("names", &names)
            .finish_non_exhaustive()
    }
}
