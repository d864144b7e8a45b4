//! What the client of an HTTP session has posted, until the session has dealt with it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::event::Text;
use crate::model::{Correlation, Frame};
use crate::session::Received;

/// The most messages that one post may have, and that may wait.
pub(super) const MOST_MESSAGES: usize = 256;
const MOST_BYTES: usize = 1 << 20;
/// How many idempotency keys are kept, and how long.
const MOST_KEYS: usize = 256;
const KEY_TTL: Duration = Duration::from_mins(1);

/// The posts of one session, in order.
#[derive(Debug, Default)]
pub(super) struct Posts {
    waiting: VecDeque<Post>,
    /// The post that the session deals with now.
    current: Option<Post>,
    /// The numbers of the last post, and of the last that the session has dealt with.
    posted: u64,
    settled: u64,
    /// Oldest first.
    keys: VecDeque<Key>,
}

#[derive(Debug)]
struct Post {
    number: u64,
    /// The messages that the session has not read yet; `None` ends the session.
    messages: Option<VecDeque<Text>>,
    /// The ids of the messages begin with it.
    key: Arc<str>,
    /// How many messages the session has read.
    read: usize,
}

/// A post that is taken once, however often it comes.
#[derive(Debug)]
struct Key {
    text: Arc<str>,
    number: u64,
    messages: usize,
    at: Instant,
}

impl Posts {
    /// The number of the post with this key, and how many messages it had.
    pub(super) fn known(&self, key: &str) -> Option<(u64, usize)> {
        let known = self.keys.iter().find(|known| *known.text == *key)?;
        Some((known.number, known.messages))
    }

    /// Adds a post, and returns its number and how many messages it has; `None` if there is no room.
    pub(super) fn push(&mut self, messages: Option<Vec<Text>>, key: &str) -> Option<(u64, usize)> {
        let count = messages.as_ref().map_or(0, Vec::len);
        if !self.has_room_for(count, messages.iter().flatten().map(Text::len).sum()) {
            return None;
        }
        self.posted += 1;
        let key = self.keep_key(key, self.posted, count);
        self.waiting.push_back(Post {
            number: self.posted,
            messages: messages.map(VecDeque::from),
            key,
            read: 0,
        });
        Some((self.posted, count))
    }

    /// The number of the last post that the session has dealt with.
    pub(super) fn settled(&self) -> u64 {
        self.settled
    }

    /// Whether the session deals with no post now.
    pub(super) fn is_idle(&self) -> bool {
        self.current.is_none()
    }

    /// What the session reads next.
    pub(super) fn next(&mut self) -> Option<Received> {
        if self.current.is_none() {
            self.current = self.waiting.pop_front();
        }
        let post = self.current.as_mut()?;
        let Some(messages) = &mut post.messages else {
            self.settled = post.number;
            return Some(Received::Closed { for_good: true });
        };
        let Text(message) = messages.pop_front()?;
        post.read += 1;
        let id = Correlation::ours(format_args!("{}.{}", post.key, post.read));
        Some(Received::Posted(Frame::Text(message), id))
    }

    /// The session has dealt with everything that it has read.
    pub(super) fn settle(&mut self) {
        let is_read = |post: &mut Post| post.messages.as_ref().is_some_and(VecDeque::is_empty);
        if let Some(post) = self.current.take_if(is_read) {
            self.settled = post.number;
        }
    }

    /// The keys of the posts that the session has dealt with.
    pub(super) fn settled_keys(&self) -> Vec<(String, usize)> {
        let settled = self.keys.iter().filter(|key| key.number <= self.settled);
        settled
            .map(|key| (key.text.to_string(), key.messages))
            .collect()
    }

    /// Keeps the keys of posts that the session has dealt with at another node.
    pub(super) fn restore_keys(&mut self, keys: Vec<(String, usize)>) {
        for (key, messages) in keys {
            self.keep_key(&key, 0, messages);
        }
    }

    fn has_room_for(&self, count: usize, bytes: usize) -> bool {
        let waiting = self
            .waiting
            .iter()
            .flat_map(|post| post.messages.iter().flatten());
        let (messages, used) = waiting.fold((0, 0), |(messages, used), message| {
            (messages + 1, used + message.len())
        });
        messages == 0 || (messages + count <= MOST_MESSAGES && used + bytes <= MOST_BYTES)
    }

    fn keep_key(&mut self, key: &str, number: u64, messages: usize) -> Arc<str> {
        let (text, at) = (Arc::<str>::from(key), Instant::now());
        let is_old = |key: &Key| at - key.at > KEY_TTL;
        while self.keys.len() >= MOST_KEYS || self.keys.front().is_some_and(is_old) {
            self.keys.pop_front();
        }
        self.keys.push_back(Key {
            text: Arc::clone(&text),
            number,
            messages,
            at,
        });
        text
    }
}
