//! What an app holds of a session.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value, json};
use tokio::sync::{mpsc, oneshot, watch};

use crate::driver::Driver;
use crate::entry::Answer;
use crate::request::{Request, Status, Taken};
use crate::wire::{Error, Frame, Message};

/// How many requests may wait for the session's task.
const REQUESTS: usize = 256;
/// How many messages may wait for the app; then nothing more is read.
const INBOX: usize = 256;

/// How a session behaves; the default is good.
#[derive(Clone)]
pub struct Options {
    /// Gives the token for each login, if the server wants one.
    pub token: Option<Arc<dyn Fn() -> String + Send + Sync>>,
    /// The wait before a new connection is a random time up to this, doubled with each failure, …
    pub reconnect_min: Duration,
    /// … up to this.
    pub reconnect_max: Duration,
}

/// The sending half of a resumable session of one user. Its clones are the same session, which ends with the last.
#[derive(Clone, Debug)]
pub struct Session {
    name: Arc<str>,
    requests: mpsc::Sender<Request>,
    status: watch::Receiver<Status>,
}

/// The receiving half.
#[derive(Debug)]
pub struct Inbox {
    messages: mpsc::Receiver<Message>,
    taken: watch::Sender<Taken>,
    status: watch::Receiver<Status>,
}

impl Session {
    /// Connects and logs in. The addresses (`ws://…`) are used in turn.
    ///
    /// # Errors
    ///
    /// What the server refuses for good, such as `name_taken`. It tries for ever while no server answers.
    pub async fn open(urls: &[&str], name: &str, options: Options) -> Result<(Self, Inbox), Error> {
        if urls.is_empty() {
            return Err(Error::new("closed", "a session needs an address"));
        }
        let (requests, requested) = mpsc::channel(REQUESTS);
        let (inbox, messages) = mpsc::channel(INBOX);
        let (taken, taking) = watch::channel(Taken::default());
        let (told, mut status) = watch::channel(Status::default());
        let urls = urls.iter().map(|url| (*url).to_owned()).collect();
        let driver = Driver::new(
            urls,
            name.to_owned(),
            options,
            requested,
            inbox,
            taking,
            told,
        );
        tokio::spawn(driver.run());
        let is_open = |status: &Status| status.node.is_some() || status.ended.is_some();
        let opened = status.wait_for(is_open).await;
        let ended = opened.map_or_else(|_| Some(closed()), |status| status.ended.clone());
        if let Some(error) = ended {
            return Err(error);
        }
        let session = Self {
            name: name.into(),
            requests,
            status: status.clone(),
        };
        let inbox = Inbox {
            messages,
            taken,
            status,
        };
        Ok((session, inbox))
    }

    /// Ends the session: whoever is in a call with it gets `leave`.
    pub async fn close(&self) {
        if self.requests.send(Request::Close).await.is_ok() {
            self.requests.closed().await;
        }
    }

    /// The user.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The public id of the session.
    #[must_use]
    pub fn id(&self) -> Option<String> {
        self.status.borrow().session.clone()
    }

    /// The node that the session is connected to, if it is.
    #[must_use]
    pub fn node(&self) -> Option<String> {
        self.status.borrow().node.clone()
    }

    /// Waits until the session is connected to another node than this one, or, if it was, to none. Cancel-safe.
    pub async fn node_other_than(&self, known: Option<String>) -> Option<String> {
        let mut status = self.status.clone();
        match status.wait_for(|status| status.node != known).await {
            Ok(status) => status.node.clone(),
            // The session has ended; its inbox says so.
            Err(_) => std::future::pending().await,
        }
    }

    /// The ICE servers that the server offers now, as `RTCPeerConnection` takes them.
    #[must_use]
    pub fn ice_servers(&self) -> Value {
        self.status.borrow().ice_servers.clone()
    }

    /// Sends anything that is JSON to somebody, call or not: `delivered`, or `queued` for who is between connections.
    ///
    /// # Errors
    ///
    /// See [`signal`](Self::signal).
    pub async fn send(&self, name: &str, message: impl Into<Value>) -> Result<String, Error> {
        self.signal("message", name, message).await
    }

    /// Sends an `offer`, `answer`, `candidate` or `message`. What is begun first is sent first: the request is queued
    /// before the future is polled.
    ///
    /// # Errors
    ///
    /// What the server refuses for good, such as `user_unavailable`; the end of the session; `too_large`;
    /// `overloaded`, if too much waits.
    pub fn signal<B: Into<Value>>(
        &self,
        kind: &str,
        name: &str,
        body: B,
    ) -> impl Future<Output = Result<String, Error>> + Send + use<B> {
        let message = json!({"type": kind, "name": name, kind: body.into()});
        let answered = self.request(Some(name), message);
        async move { Ok(answered.await?.status.unwrap_or_default()) }
    }

    /// Tells who of these is here.
    ///
    /// # Errors
    ///
    /// The end of the session.
    pub async fn presence(&self, names: &[&str]) -> Result<Map<String, Value>, Error> {
        let mut reply = self
            .request(None, json!({"type": "presence", "names": names}))
            .await?;
        match reply.body() {
            Value::Object(users) => Ok(users),
            _ => Ok(Map::new()),
        }
    }

    /// Says whether there is a call: then silence is noticed sooner.
    pub(crate) fn set_busy(&self, is_busy: bool) {
        // A full queue means that an answer is awaited, and then it is so anyway.
        drop(self.requests.try_send(Request::Busy(is_busy)));
    }

    /// Sends something whose answer nobody needs.
    pub(crate) fn tell(&self, name: Option<&str>, message: Value) {
        drop(self.request(name, message));
    }

    pub(crate) fn request(
        &self,
        name: Option<&str>,
        message: Value,
    ) -> impl Future<Output = Result<Frame, Error>> + Send + use<> {
        let (answer, answered): (Answer, _) = oneshot::channel();
        let request = Request::Send {
            name: name.map(str::to_owned),
            message,
            answer,
        };
        let queued = self.requests.try_send(request);
        let is_full = matches!(queued, Err(mpsc::error::TrySendError::Full(_)));
        let status = self.status.clone();
        async move {
            if is_full {
                return Err(Error::new("overloaded", "too much waits to be sent"));
            }
            match answered.await {
                Ok(outcome) => outcome,
                Err(_) => Err(status.borrow().ended.clone().unwrap_or_else(closed)),
            }
        }
    }
}

impl Inbox {
    /// Waits for the next message. Cancel-safe.
    ///
    /// # Errors
    ///
    /// The session's end: `closed` after [`Session::close`], `replaced`, `forbidden`, `kicked`, …
    pub async fn next(&mut self) -> Result<Message, Error> {
        let Some(message) = self.messages.recv().await else {
            return Err(self.status.borrow().ended.clone().unwrap_or_else(closed));
        };
        if let Some(receipt) = &message.receipt {
            self.taken.send_modify(|taken| taken.take(receipt));
        }
        Ok(message)
    }
}

impl Default for Options {
    fn default() -> Self {
        Self {
            token: None,
            reconnect_min: Duration::from_millis(500),
            reconnect_max: Duration::from_secs(20),
        }
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Options")
            .field("reconnect_min", &self.reconnect_min)
            .field("reconnect_max", &self.reconnect_max)
            .finish_non_exhaustive()
    }
}

pub(crate) fn closed() -> Error {
    Error::new("closed", "the session was closed")
}
