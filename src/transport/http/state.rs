//! The state of an HTTP session at its home: plain values behind the home's lock.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::buffer::{Buffer, EventId, Unread};
use super::posts::Posts;
use super::wire::{Denied, Handover};
use crate::model::{CloseReason, NodeId};
use crate::session::{Progress, ResumePoint};

/// One session at its home.
#[derive(Debug)]
pub(super) struct State {
    pub(super) stage: Stage,
    /// The events for the client.
    pub(super) buffer: Buffer,
    /// The buffer came from another home, so it may contain events from before this home.
    pub(super) is_handed_over: bool,
    /// The client's posts.
    pub(super) posts: Posts,
    pub(super) progress: Progress,
    /// The current version of the locator, and the version that is in the store.
    pub(super) version: u64,
    pub(super) stored_version: u64,
    /// The number of the client's latest reader.
    reader: u64,
    /// The number of waiting readers.
    pub(super) waiting: usize,
    /// When the client's last request came.
    last_seen: Instant,
    /// The number of the last event that the client is known to have read.
    pub(super) read: u64,
    pub(super) pings: VecDeque<Ping>,
    /// The session has sent a ping that needs an `Alive` input.
    pub(super) is_pinged: bool,
    /// The node that wants to take the session over, and where to send it.
    pub(super) takeover: Option<(NodeId, oneshot::Sender<Handover>)>,
}

/// The stage of a session at this home.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Stage {
    Running,
    /// A newer connection replaced it. The task finds out whether the session continues elsewhere.
    Replaced,
    /// This node gave it up. The next node that asks takes it over.
    Released,
    /// It continues on this node, or on the one that the locator names.
    Moved(Option<NodeId>),
    /// It has ended. Its last events can still be read.
    Ended,
    /// It could not be resumed here.
    Failed(Denied),
}

/// A ping without an answer.
#[derive(Debug)]
pub(super) struct Ping {
    pub(super) number: u64,
    /// The last event before the ping, and the time of the ping.
    pub(super) after_event: u64,
    pub(super) at: Instant,
}

impl State {
    pub(super) fn new() -> Self {
        Self {
            stage: Stage::Running,
            buffer: Buffer::new(),
            is_handed_over: false,
            posts: Posts::default(),
            progress: Progress::default(),
            version: 1,
            stored_version: 0,
            reader: 0,
            waiting: 0,
            last_seen: Instant::now(),
            read: 0,
            pings: VecDeque::new(),
            is_pinged: false,
            takeover: None,
        }
    }

    /// Whether the session's task runs here.
    fn is_running(&self) -> bool {
        matches!(self.stage, Stage::Running | Stage::Replaced)
    }

    /// Whether requests are answered here.
    pub(super) fn is_here(&self) -> bool {
        self.is_running() || self.is_over()
    }

    pub(super) fn is_over(&self) -> bool {
        self.stage == Stage::Ended
    }

    /// The node that has taken the session over.
    pub(super) fn moved_to(&self) -> Option<NodeId> {
        match &self.stage {
            Stage::Moved(node) => node.clone(),
            _ => None,
        }
    }

    /// Why requests are not answered here.
    pub(super) fn denied(&self) -> Denied {
        match &self.stage {
            Stage::Failed(denied) => denied.clone(),
            Stage::Ended => Denied::Gone,
            _ => Denied::Elsewhere,
        }
    }

    /// Records that the client is alive.
    pub(super) fn touch(&mut self) {
        self.last_seen = Instant::now();
    }

    /// When the session expires. It does not expire while a reader waits.
    pub(super) fn expires_at(&self, ttl: Duration) -> Instant {
        let last_seen = if self.waiting > 0 {
            Instant::now()
        } else {
            self.last_seen
        };
        last_seen + ttl
    }

    /// Queues a post, once per key. Returns its number and its message count.
    pub(super) fn post(
        &mut self,
        messages: Option<Vec<String>>,
        key: &str,
    ) -> Result<(u64, usize), Denied> {
        self.touch();
        if messages.as_ref().is_some_and(Vec::is_empty) {
            return Ok((self.posts.settled(), 0));
        }
        if let Some(known) = self.posts.known(key) {
            return Ok(known);
        }
        if self.stage != Stage::Running {
            return Err(self.denied());
        }
        self.posts.push(messages, key).ok_or(Denied::Full)
    }

    /// Whether all posts up to `number` are processed and the locator is stored; `None` if not yet.
    pub(super) fn settled(&self, number: u64) -> Option<Result<(), Denied>> {
        let is_settled = self.posts.settled() >= number;
        match &self.stage {
            Stage::Running | Stage::Replaced => {
                (is_settled && self.stored_version == self.version).then_some(Ok(()))
            }
            Stage::Ended => Some(Ok(())),
            _ if is_settled => Some(Ok(())),
            _ => Some(Err(self.denied())),
        }
    }

    /// Returns the number of the reader. An unknown number is a new reader, which replaces earlier
    /// ones.
    pub(super) fn reader(&mut self, number: u64) -> u64 {
        self.touch();
        if (1..=self.reader).contains(&number) {
            return number;
        }
        self.reader += 1;
        self.reader
    }

    /// Records that the client has read up to this event.
    pub(super) fn confirm(&mut self, after: EventId) {
        self.touch();
        let read = self.buffer.number_of(after);
        self.read = self.read.max(read.unwrap_or_default());
    }

    /// The events after `after` for the reader of this number.
    pub(super) fn read(&mut self, reader: u64, after: EventId) -> Result<Unread, Denied> {
        // A newer reader is here, or took the session to another node.
        if self.is_here() && reader < self.reader || self.moved_to().is_some() {
            return Err(Denied::Replaced);
        }
        if !self.is_here() {
            return Err(self.denied());
        }
        let unread = self.buffer.read(after);
        if self.is_over() && unread.is_empty() {
            return Err(Denied::Gone);
        }
        Ok(unread)
    }

    /// Everything that another node needs to continue the session.
    pub(super) fn handover(&self) -> Handover {
        Handover {
            is_over: self.is_over(),
            reader: self.reader,
            buffer: self.buffer.clone(),
            progress: (&self.progress).into(),
            keys: self.posts.keys(),
        }
    }

    /// Hands the session over to `node`.
    pub(super) fn move_to(&mut self, node: NodeId) -> Handover {
        let handover = self.handover();
        self.stage = Stage::Moved(Some(node));
        handover
    }

    /// Continues from a handover; without one, from what the locator says.
    pub(super) fn restore(&mut self, handover: Option<Handover>, point: &ResumePoint) {
        self.progress.clone_from(&point.progress);
        if let Some(handover) = handover {
            self.buffer = handover.buffer;
            self.is_handed_over = true;
            self.reader += handover.reader;
            self.posts.restore(handover.keys);
            if handover.is_over {
                self.stage = Stage::Ended;
            }
        } else {
            self.buffer.greet_next = point.greet;
        }
    }

    /// Ends the session with the event that corresponds to a WebSocket close code.
    pub(super) fn close_with(&mut self, reason: CloseReason) {
        if let Some(code) = reason.code() {
            let text = reason.text();
            let event = format!(r#"{{"type":"close","code":{code},"reason":"{text}"}}"#);
            self.buffer.push(event, None);
        }
        self.stage = Stage::Ended;
    }

    /// Records who replaced this connection: another transport, or a home on another node.
    pub(super) fn replaced(&mut self, by_other_transport: bool) {
        match self.stage {
            Stage::Replaced if by_other_transport => self.close_with(CloseReason::Replaced),
            Stage::Replaced => self.stage = Stage::Moved(None),
            _ => {}
        }
    }

    /// The task has ended. The session is over unless it continues elsewhere.
    pub(super) fn end(&mut self) {
        if self.is_running() {
            self.stage = Stage::Ended;
        }
    }
}
