//! What a home knows of its session: plain values, under the lock of the home.

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
    /// What the client was told.
    pub(super) buffer: Buffer,
    /// The buffer was handed over: it has more than the inbox.
    pub(super) is_handed_over: bool,
    /// What the client has posted.
    pub(super) posts: Posts,
    pub(super) progress: Progress,
    /// The version of the locator, and the version that other nodes can read.
    pub(super) version: u64,
    pub(super) stored_version: u64,
    /// The number of the client's latest reader.
    reader: u64,
    /// How many readers wait now.
    pub(super) waiting: usize,
    /// When the client gave its last sign of life.
    last_seen: Instant,
    /// The number of the last event that the client is known to have read.
    pub(super) read: u64,
    pub(super) pings: VecDeque<Ping>,
    /// The session has asked for a sign of life.
    pub(super) is_pinged: bool,
    /// The node that wants to take the session over.
    pub(super) takeover: Option<(NodeId, oneshot::Sender<Handover>)>,
}

/// Where a session is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Stage {
    Running,
    /// It has ended here, and perhaps goes on elsewhere: its task finds that out.
    Replaced,
    /// This node could not go on with it: the next node that asks takes it.
    Released,
    /// It goes on at this node, or at one that the locator tells.
    Moved(Option<NodeId>),
    /// It has ended: only its last events are left.
    Ended,
    /// It could not be resumed here.
    Failed(Denied),
}

/// A ping of the session that is not answered yet.
#[derive(Debug)]
pub(super) struct Ping {
    pub(super) number: u64,
    /// The last event that was told before it, and when.
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

    /// Whether the task of the session runs here.
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

    /// Which node has taken the session over.
    pub(super) fn moved_to(&self) -> Option<NodeId> {
        match &self.stage {
            Stage::Moved(node) => node.clone(),
            _ => None,
        }
    }

    /// Why nothing is answered here.
    pub(super) fn denied(&self) -> Denied {
        match &self.stage {
            Stage::Failed(denied) => denied.clone(),
            Stage::Ended => Denied::Gone,
            _ => Denied::Elsewhere,
        }
    }

    /// Counts a sign of life of the client.
    pub(super) fn touch(&mut self) {
        self.last_seen = Instant::now();
    }

    /// When the client has been silent for too long. While it waits for events, it is not.
    pub(super) fn expires_at(&self, ttl: Duration) -> Instant {
        let last_seen = if self.waiting > 0 {
            Instant::now()
        } else {
            self.last_seen
        };
        last_seen + ttl
    }

    /// Takes a post once for its key. Returns its number, and how many messages it has.
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

    /// Whether the session has dealt with every post up to this one, and other nodes can know it; `None`: not yet.
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

    /// Lets the reader of this number go on. Any other number is a new reader, which replaces the earlier ones.
    pub(super) fn reader(&mut self, number: u64) -> u64 {
        self.touch();
        if (1..=self.reader).contains(&number) {
            return number;
        }
        self.reader += 1;
        self.reader
    }

    /// The client has read up to this event.
    pub(super) fn confirm(&mut self, after: EventId) {
        self.touch();
        let read = self.buffer.number_of(after);
        self.read = self.read.max(read.unwrap_or_default());
    }

    /// What there is behind an event for the reader of this number.
    pub(super) fn read(&mut self, reader: u64, after: EventId) -> Result<Unread, Denied> {
        // Another node took the session over for a newer reader.
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

    /// All that another node needs to go on.
    pub(super) fn handover(&self) -> Handover {
        Handover {
            is_over: self.is_over(),
            reader: self.reader,
            buffer: self.buffer.clone(),
            progress: (&self.progress).into(),
            keys: self.posts.keys(),
        }
    }

    /// Hands the session over to this node.
    pub(super) fn move_to(&mut self, node: NodeId) -> Handover {
        let handover = self.handover();
        self.stage = Stage::Moved(Some(node));
        handover
    }

    /// Goes on with what another home has handed over; without that, with what the locator says.
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

    /// Says what a WebSocket says by its close code, and ends.
    pub(super) fn close_with(&mut self, reason: CloseReason) {
        if let Some(code) = reason.code() {
            let text = reason.text();
            let event = format!(r#"{{"type":"close","code":{code},"reason":"{text}"}}"#);
            self.buffer.push(event, None);
        }
        self.stage = Stage::Ended;
    }

    /// Another connection took the session: one of another transport, or a home elsewhere.
    pub(super) fn replaced(&mut self, by_other_transport: bool) {
        match self.stage {
            Stage::Replaced if by_other_transport => self.close_with(CloseReason::Replaced),
            Stage::Replaced => self.stage = Stage::Moved(None),
            _ => {}
        }
    }

    /// Its task has ended: the session is over, unless it is known to go on elsewhere.
    pub(super) fn end(&mut self) {
        if self.is_running() {
            self.stage = Stage::Ended;
        }
    }
}
