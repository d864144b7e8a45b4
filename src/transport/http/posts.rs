//! Posts of an HTTP session: the messages that its session has not read, and the keys of processed
//! posts.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use crate::model::{Correlation, Frame};
use crate::session::Received;

/// Limit for the messages of one post, and for all waiting messages.
pub(super) const MAX_MESSAGES: usize = 256;
const MAX_BYTES: usize = 1 << 20;
/// Processed posts are kept for their keys: at most this many, for this long.
const MAX_POSTS: usize = 256;
const KEEP_KEYS: Duration = Duration::from_mins(1);

/// The posts of one session.
#[derive(Debug, Default)]
pub(super) struct Posts {
    /// Oldest first: processed posts before waiting ones.
    kept: VecDeque<Post>,
    /// The numbers of the last post, and of the last processed post.
    posted: u64,
    settled: u64,
}

/// One post. A second post with the same key is not queued again.
#[derive(Debug)]
struct Post {
    number: u64,
    key: String,
    count: usize,
    /// The messages that the session has not read; `None` ends the session.
    messages: Option<VecDeque<String>>,
    at: Instant,
}

impl Posts {
    /// The post with this key: its number and its message count.
    pub(super) fn known(&self, key: &str) -> Option<(u64, usize)> {
        let known = self.kept.iter().find(|post| post.key == key)?;
        Some((known.number, known.count))
    }

    /// Queues a post. Returns its number and its message count; `None` if there is no room.
    pub(super) fn push(
        &mut self,
        messages: Option<Vec<String>>,
        key: &str,
    ) -> Option<(u64, usize)> {
        let count = messages.as_ref().map_or(0, Vec::len);
        if !self.has_room_for(count, messages.iter().flatten().map(String::len).sum()) {
            return None;
        }
        self.posted += 1;
        self.keep(self.posted, key.to_owned(), count, messages.map(Into::into));
        Some((self.posted, count))
    }

    /// The number of the last processed post.
    pub(super) fn settled(&self) -> u64 {
        self.settled
    }

    /// Whether no post is being processed.
    pub(super) fn is_idle(&self) -> bool {
        self.unsettled().next().is_none_or(|post| !post.is_begun())
    }

    /// The next message for the session.
    pub(super) fn next(&mut self) -> Option<Received> {
        let settled = self.settled;
        let post = self.kept.iter_mut().find(|post| post.number > settled)?;
        let Some(messages) = &mut post.messages else {
            self.settled = post.number;
            return Some(Received::Closed { for_good: true });
        };
        let message = Frame::from(messages.pop_front()?);
        let number = post.count - messages.len();
        let id = Correlation::generated(format_args!("{}.{number}", post.key));
        Some(Received::Posted(message, id))
    }

    /// Marks as processed what the session has read.
    pub(super) fn settle(&mut self) {
        let settled = self.settled;
        let is_read = |post: &Post| post.messages.as_ref().is_some_and(VecDeque::is_empty);
        let post = self.kept.iter_mut().find(|post| post.number > settled);
        if let Some(post) = post.filter(|post| is_read(post)) {
            self.settled = post.number;
            post.messages = None;
        }
    }

    /// The keys of processed posts, each with its message count.
    pub(super) fn keys(&self) -> Vec<(String, usize)> {
        let settled = self.kept.iter().filter(|post| post.number <= self.settled);
        settled.map(|post| (post.key.clone(), post.count)).collect()
    }

    /// Adds the keys of posts that were processed on another node.
    pub(super) fn restore(&mut self, keys: Vec<(String, usize)>) {
        for (key, count) in keys {
            self.keep(0, key, count, None);
        }
    }

    fn unsettled(&self) -> impl Iterator<Item = &Post> {
        self.kept.iter().filter(|post| post.number > self.settled)
    }

    fn has_room_for(&self, count: usize, bytes: usize) -> bool {
        let waiting = self.unsettled().filter(|post| !post.is_begun());
        let waiting = waiting.flat_map(|post| post.messages.iter().flatten());
        let (messages, used) = waiting.fold((0, 0), |(messages, used), message| {
            (messages + 1, used + message.len())
        });
        messages == 0 || (messages + count <= MAX_MESSAGES && used + bytes <= MAX_BYTES)
    }

    fn keep(&mut self, number: u64, key: String, count: usize, messages: Option<VecDeque<String>>) {
        let at = Instant::now();
        while let Some(oldest) = self.kept.front()
            && oldest.number <= self.settled
            && (self.kept.len() >= MAX_POSTS || at - oldest.at > KEEP_KEYS)
        {
            self.kept.pop_front();
        }
        self.kept.push_back(Post {
            number,
            key,
            count,
            messages,
            at,
        });
    }
}

impl Post {
    /// Whether the session has read a part of it.
    fn is_begun(&self) -> bool {
        let left = self.messages.as_ref().map(VecDeque::len);
        left.is_some_and(|left| left < self.count)
    }
}
