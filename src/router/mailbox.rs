//! A session's mailbox: a bounded queue that others post to without waiting, and that only the session reads.
//!
//! Its bounds are counts and bytes. It fills when the client reads slower than others send. A sender's signals may take
//! as much of it as they leave free, so a flood leaves room for others, and for the mail of the node; what is beyond
//! that is refused. Other mail that does not fit ends the session with `CloseReason::TooSlow`.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use crate::broker::{Entry, Envelope, Holder, Payload, Question};
use crate::bugs::{self, Bug};
use crate::model::{CloseReason, NodeId, UserName};

/// One mail in this many is timed. Two clock reads cost about a hundredth of a relay.
const TIMED_ONE_IN: u8 = 16;

/// How often a client is told that it may have missed something. Whoever floods it makes it miss something all the
/// time.
const TOLD_EVERY: Duration = Duration::from_secs(10);

/// Behind how many others a signal counts as one that waits: its body is then copied out of its frame, which may be
/// much longer.
const WAITS_BEHIND: usize = 16;

/// Bounds of one mailbox.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Mails.
    pub events: usize,
    /// Bytes of signal bodies.
    pub bytes: usize,
}

/// What a session receives in its mailbox.
#[derive(Debug)]
pub enum Mail {
    /// A signal for a plain session, from this node or another.
    Direct(Envelope),
    /// Inbox entries of a resumable session.
    Push(Vec<Entry>),
    /// Pushes may have been missed.
    Gap,
    /// A node died that call peers of this session are on.
    NodeLost(NodeId),
    /// Another session holds the name now.
    NameLost,
    /// An operator ends the session, for this reason.
    Ended(CloseReason),
    /// A newer connection has taken the session over. Carries its generation.
    Replaced(u32),
    /// The same, read from the store: that connection may be gone again.
    Overtaken(u32),
    /// The store may have lost data of this session, in this new epoch.
    NewEpoch(u64),
    /// The store had lost the lease, the inbox and the record. The lease is restored, in this epoch.
    Regained(u64),
    /// The broker became unreachable, or is back.
    Broker {
        /// Whether it answers.
        reached: bool,
    },
    /// Another session wants the name: answer if this one is alive.
    Challenge(Question),
    /// Watched users came (true) or left.
    Presence(Vec<(UserName, bool)>),
    /// The holders of the names that the session asked for.
    Looked(Vec<(UserName, Option<Holder>)>),
}

/// Why a mail was not posted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NotPosted {
    /// The mailbox is full, or its reader is gone.
    Closed,
    /// The sender has as much of the mailbox as it may.
    Share,
}

/// The sending end.
#[derive(Clone, Debug)]
pub(super) struct MailboxSender {
    shared: Arc<Shared>,
}

/// The session's end.
#[derive(Debug)]
pub struct MailboxReceiver {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    bounds: Bounds,
    /// Held for one queue operation.
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    queue: VecDeque<Mail>,
    bytes: usize,
    full: bool,
    closed: bool,
    /// The waker of the session's task, while it waits.
    waiting: Option<Waker>,
    /// Counts posts, to choose those that are timed.
    posted: u8,
    /// When the oldest waiting mail was posted, if it is timed.
    since: Option<Instant>,
    /// A signal was refused, and its sender does not know.
    missed: bool,
    /// When the session was last told that it had missed one.
    told_at: Option<Instant>,
}

/// Creates a mailbox.
pub(super) fn mailbox(bounds: Bounds) -> (MailboxSender, MailboxReceiver) {
    let shared = Arc::new(Shared {
        bounds,
        state: Mutex::default(),
    });
    (
        MailboxSender {
            shared: Arc::clone(&shared),
        },
        MailboxReceiver { shared },
    )
}

impl MailboxSender {
    /// Posts without waiting. A signal that does not fit is refused; other mail marks the mailbox as full, which ends
    /// the session.
    pub(super) fn post(&self, mut mail: Mail) -> Result<(), NotPosted> {
        let mut state = self.shared.lock();
        if state.full || state.closed {
            return Err(NotPosted::Closed);
        }
        if !bugs::has(Bug::BottomlessMailbox) {
            match &mail {
                Mail::Direct(envelope) if matches!(envelope.payload, Payload::Signal(_)) => {
                    if !state.is_fair(envelope, self.shared.bounds) {
                        return Err(NotPosted::Share);
                    }
                }
                mail => state.full = !state.fits(mail, self.shared.bounds),
            }
        }
        if !state.full {
            state.bytes += mail.bytes();
            if state.queue.len() >= WAITS_BEHIND
                && let Mail::Direct(envelope) = &mut mail
            {
                envelope.unshare();
            }
            state.posted = state.posted.wrapping_add(1);
            if state.posted.is_multiple_of(TIMED_ONE_IN) && state.queue.is_empty() {
                state.since = Some(Instant::now());
            }
            state.queue.push_back(mail);
        }
        let (full, waiting) = (state.full, state.waiting.take());
        drop(state);
        if let Some(session) = waiting {
            session.wake();
        }
        if full { Err(NotPosted::Closed) } else { Ok(()) }
    }

    /// Posts a signal whose sender was told that it is delivered: if it is refused, the session is told that it may
    /// have missed something. True if it is refused.
    pub(super) fn post_or_miss(&self, envelope: Envelope) -> bool {
        let missed = self.post(Mail::Direct(envelope)) == Err(NotPosted::Share);
        if missed {
            self.shared.lock().missed = true;
        }
        missed
    }
}

impl State {
    /// One push may exceed the byte bound by itself, so an empty mailbox accepts any size.
    fn fits(&self, mail: &Mail, bounds: Bounds) -> bool {
        let bytes = self.bytes + mail.bytes();
        self.queue.len() < bounds.events && (bytes <= bounds.bytes || self.queue.is_empty())
    }

    /// Whether the sender would have no more than what is free, as in an inbox: see `InboxLimits`. This is so while all
    /// mail fills at most half, and else its part is counted.
    fn is_fair(&self, envelope: &Envelope, bounds: Bounds) -> bool {
        let size = envelope.body_len();
        let (events, bytes) = (self.queue.len() + 1, self.bytes + size);
        if events == 1 || (2 * events <= bounds.events && 2 * bytes <= bounds.bytes) {
            return true;
        }
        let (mut own, mut own_bytes) = (1, size);
        for mail in &self.queue {
            if let Mail::Direct(other) = mail
                && other.from.session == envelope.from.session
            {
                own += 1;
                own_bytes += other.body_len();
            }
        }
        own + events <= bounds.events && own_bytes + bytes <= bounds.bytes
    }
}

impl MailboxReceiver {
    /// Waits until there is mail to [`take`](Self::take), or the mailbox is full.
    pub async fn filled(&self) {
        self.shared
            .wait_until(|state| state.full || !state.queue.is_empty())
            .await;
    }

    /// Takes everything that has arrived, and when the oldest of it was posted, if that was timed.
    pub fn take(&self) -> (VecDeque<Mail>, Option<Instant>) {
        let mut state = self.shared.lock();
        state.bytes = 0;
        let is_long_ago = |at: Instant| at.elapsed() >= TOLD_EVERY;
        if state.missed && state.told_at.is_none_or(is_long_ago) {
            state.missed = false;
            state.told_at = Some(Instant::now());
            state.queue.push_back(Mail::Gap);
        }
        (std::mem::take(&mut state.queue), state.since.take())
    }

    /// Waits until a mail did not fit.
    pub async fn overflowed(&self) {
        self.shared.wait_until(|state| state.full).await;
    }

    /// Whether a mail did not fit. It is lost to this mailbox.
    pub fn has_overflowed(&self) -> bool {
        self.shared.lock().full
    }

    /// Accepts mail again. For a resumable session, which reads what did not fit from its inbox.
    pub fn reopen(&self) {
        self.shared.lock().full = false;
    }

    /// Closes the mailbox and returns what is left in it.
    pub fn close(&self) -> VecDeque<Mail> {
        let mut state = self.shared.lock();
        state.closed = true;
        std::mem::take(&mut state.queue)
    }
}

impl Shared {
    /// A mailbox has one waiting task, so one waker under the lock suffices. A `Notify` would cost a registration at
    /// every wake-up of the session.
    async fn wait_until(&self, so: impl Fn(&State) -> bool) {
        poll_fn(|context| {
            let mut state = self.lock();
            if so(&state) {
                return Poll::Ready(());
            }
            state.waiting = Some(context.waker().clone());
            Poll::Pending
        })
        .await;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Mail {
    fn bytes(&self) -> usize {
        match self {
            Self::Direct(envelope) => envelope.body_len(),
            Self::Push(entries) => entries.iter().map(|entry| entry.envelope.body_len()).sum(),
            _ => 0,
        }
    }
}

#[cfg(test)]
#[path = "mailbox_tests.rs"]
mod tests;
