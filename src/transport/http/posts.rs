//! What the client of an HTTP session has posted: what its session must still read, and the keys of the rest.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use crate::model::{Correlation, Frame};
use crate::session::Received;

/// The most messages that one post may have, and that may wait.
pub(super) const MAX_MESSAGES: usize = 256;
const MAX_BYTES: usize = 1 << 20;
/// How many posts are kept for their keys, and how long.
const MAX_POSTS: usize = 256;
const KEEP_KEYS: Duration = Duration::from_mins(1);

/// The posts of one session.
#[derive(Debug, Default)]
pub(super) struct Posts {
    /// Oldest first; those that the session has dealt with come before those that wait.
    kept: VecDeque<Post>,
    /// The numbers of the last post, and of the last that the session has dealt with.
    posted: u64,
    settled: u64,
}

/// A post is taken once, however often a post with its key comes.
#[derive(Debug)]
struct Post {
    number: u64,
    key: String,
    count: usize,
    /// The messages that the session has not read yet; `None` ends the session.
    messages: Option<VecDeque<String>>,
    at: Instant,
}

impl Posts {
    /// The number of the post with this key, and how many messages it had.
    pub(super) fn known(&self, key: &str) -> Option<(u64, usize)> {
        let known = self.kept.iter().find(|post| post.key == key)?;
        Some((known.number, known.count))
    }

    /// Adds a post, and returns its number and how many messages it has; `None` if there is no room.
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

    /// The number of the last post that the session has dealt with.
    pub(super) fn settled(&self) -> u64 {
        self.settled
    }

    /// Whether the session deals with no post now.
    pub(super) fn is_idle(&self) -> bool {
        self.unsettled().next().is_none_or(|post| !post.is_begun())
    }

    /// What the session reads next.
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

    /// The session has dealt with everything that it has read.
    pub(super) fn settle(&mut self) {
        let settled = self.settled;
        let is_read = |post: &Post| post.messages.as_ref().is_some_and(VecDeque::is_empty);
        let post = self.kept.iter_mut().find(|post| post.number > settled);
        if let Some(post) = post.filter(|post| is_read(post)) {
            self.settled = post.number;
            post.messages = None;
        }
    }

    /// The keys of the posts that the session has dealt with, each with the number of messages.
    pub(super) fn keys(&self) -> Vec<(String, usize)> {
        let settled = self.kept.iter().filter(|post| post.number <= self.settled);
        settled.map(|post| (post.key.clone(), post.count)).collect()
    }

    /// Keeps the keys of posts that the session has dealt with at another node.
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
    /// Whether the session has read some of it.
    fn is_begun(&self) -> bool {
        let left = self.messages.as_ref().map(VecDeque::len);
        left.is_some_and(|left| left < self.count)
    }
}
