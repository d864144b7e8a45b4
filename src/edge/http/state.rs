//! What a home knows of its session: plain values, under the lock of the home.

use std::collections::VecDeque;
use std::task::Waker;

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::buffer::Buffer;
use super::denied::Denied;
use super::event::{EventId, Text, Unread};
use super::posts::Posts;
use super::wire::Handover;
use crate::model::{CloseReason, NodeId};
use crate::session::Standing;

#[derive(Debug)]
pub(super) struct State {
    pub(super) stage: Stage,
    /// What the client was told.
    pub(super) buffer: Buffer,
    /// What it has posted.
    pub(super) posts: Posts,
    pub(super) standing: Standing,
    /// The version of the locator, and the version that other nodes can read.
    pub(super) version: u64,
    pub(super) located: u64,
    /// The number of the client's latest reader.
    reader: u64,
    /// How many readers wait now.
    pub(super) waiting: usize,
    /// When the client gave its last sign of life.
    pub(super) sign: Instant,
    /// The number of the last event that the client is known to have read.
    pub(super) read: u64,
    pub(super) pings: VecDeque<Ping>,
    /// The session has asked for a sign of life.
    pub(super) is_asked: bool,
    /// The node that wants to take the session over.
    pub(super) taker: Option<(NodeId, oneshot::Sender<Handover>)>,
    /// Wakes the task of the session.
    pub(super) waker: Option<Waker>,
}

/// Where a session is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    Here,
    /// It has ended here, and perhaps goes on elsewhere: its task finds that out.
    Replaced,
    /// This node could not go on with it: the next node that asks takes it.
    Left,
    /// It goes on at this node, or at one that the locator tells.
    Moved(Option<NodeId>),
    /// It has ended: only its last events are left.
    Over,
    /// It could not be resumed here.
    Failed(Denied),
}

/// A ping of the session that is not answered yet.
#[derive(Debug)]
pub(super) struct Ping {
    pub(super) number: u64,
    /// The last event that was told before it, and when.
    pub(super) told: u64,
    pub(super) at: Instant,
}

impl State {
    pub(super) fn new() -> Self {
        Self {
            stage: Stage::Here,
            buffer: Buffer::new(),
            posts: Posts::default(),
            standing: Standing::default(),
            version: 1,
            located: 0,
            reader: 0,
            waiting: 0,
            sign: Instant::now(),
            read: 0,
            pings: VecDeque::new(),
            is_asked: false,
            taker: None,
            waker: None,
        }
    }

    /// Whether the task of the session runs here.
    pub(super) fn is_running(&self) -> bool {
        matches!(self.stage, Stage::Here | Stage::Replaced)
    }

    /// Why nothing is answered here.
    pub(super) fn denied(&self) -> Denied {
        match &self.stage {
            Stage::Failed(denied) => denied.clone(),
            Stage::Over => Denied::Gone,
            _ => Denied::Elsewhere,
        }
    }

    /// Counts a sign of life of the client.
    pub(super) fn renew(&mut self) {
        self.sign = Instant::now();
    }

    pub(super) fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    /// Takes a post once for its key. Returns its number, and how many messages it has.
    pub(super) fn post(
        &mut self,
        messages: Option<Vec<Text>>,
        key: &str,
    ) -> Result<(u64, usize), Denied> {
        self.renew();
        if messages.as_ref().is_some_and(Vec::is_empty) {
            return Ok((self.posts.settled(), 0));
        }
        if let Some(known) = self.posts.known(key) {
            return Ok(known);
        }
        if self.stage != Stage::Here {
            return Err(self.denied());
        }
        let posted = self.posts.push(messages, key).ok_or(Denied::Full)?;
        self.wake();
        Ok(posted)
    }

    /// Whether the session has dealt with every post up to this one, and other nodes can know it; `None`: not yet.
    pub(super) fn settled(&self, number: u64) -> Option<Result<(), Denied>> {
        let is_settled = self.posts.settled() >= number;
        match &self.stage {
            Stage::Here | Stage::Replaced => {
                (is_settled && self.located == self.version).then_some(Ok(()))
            }
            Stage::Over => Some(Ok(())),
            _ if is_settled => Some(Ok(())),
            _ => Some(Err(self.denied())),
        }
    }

    pub(super) fn reader(&mut self, number: u64) -> u64 {
        self.renew();
        if (1..=self.reader).contains(&number) {
            return number;
        }
        self.reader += 1;
        self.reader
    }

    /// What there is behind an event for the reader of this number.
    pub(super) fn read(&mut self, reader: u64, after: EventId) -> Result<Unread, Denied> {
        self.renew();
        let is_here = self.is_running() || self.stage == Stage::Over;
        // A node that took the session over did so for a newer reader.
        let is_replaced = match &self.stage {
            Stage::Moved(node) => node.is_some(),
            _ => is_here && reader < self.reader,
        };
        if is_replaced {
            return Err(Denied::Replaced);
        }
        self.confirm(after);
        if !is_here {
            return Err(self.denied());
        }
        let unread = self.buffer.read(after);
        if self.stage == Stage::Over && unread.is_empty() {
            return Err(Denied::Gone);
        }
        Ok(unread)
    }

    /// The client has read up to this event.
    fn confirm(&mut self, after: EventId) {
        let Some(read) = self.buffer.number_of(after) else {
            return;
        };
        self.read = self.read.max(read);
        if self
            .pings
            .front()
            .is_some_and(|ping| ping.told <= self.read)
        {
            self.wake();
        }
    }

    /// Says what a WebSocket says by its close code, and ends.
    pub(super) fn say_goodbye(&mut self, reason: CloseReason) {
        if let Some(code) = reason.code() {
            let words = reason.words();
            let goodbye = format!(r#"{{"type":"close","code":{code},"reason":"{words}"}}"#);
            self.buffer.tell(Text(goodbye.into()), None);
        }
        self.stage = Stage::Over;
    }

    /// All that another node needs to go on.
    pub(super) fn handover(&self) -> Handover {
        Handover {
            is_over: self.stage == Stage::Over,
            reader: self.reader,
            buffer: self.buffer.clone(),
            standing: (&self.standing).into(),
            keys: self.posts.settled_keys(),
        }
    }

    /// Hands the session over to this node.
    pub(super) fn move_to(&mut self, node: NodeId) -> Handover {
        let handover = self.handover();
        self.stage = Stage::Moved(Some(node));
        handover
    }

    /// Goes on where another home has stopped.
    pub(super) fn restore(&mut self, handover: Handover) {
        self.buffer = handover.buffer;
        self.reader += handover.reader;
        self.posts.restore_keys(handover.keys);
        if handover.is_over {
            self.stage = Stage::Over;
        }
    }
}
