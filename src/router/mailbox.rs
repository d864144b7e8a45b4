//! A session's mailbox: a bounded queue that others post to without waiting, and that only the session reads.
//!
//! Its bounds are counts and bytes. It is full when the client reads slower than others send. Dropping a candidate
//! would produce a call that silently never connects, so nothing is dropped: the session ends with
//! `CloseReason::TooSlow`.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};
use std::time::Instant;

use crate::broker::{Entry, Envelope, Holder, Question};
use crate::bugs::{self, Bug};
use crate::model::{NodeId, UserName};

/// One mail in this many is timed. Two clock reads cost about a hundredth of a relay.
const TIMED_ONE_IN: u8 = 16;

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

/// The mailbox is full, or its reader is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NotPosted;

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
    /// Posts without waiting. A mail that does not fit is refused and marks the mailbox as full, which ends the
    /// session.
    pub(super) fn post(&self, mut mail: Mail) -> Result<(), NotPosted> {
        let mut state = self.shared.lock();
        if state.full || state.closed {
            return Err(NotPosted);
        }
        let bytes = state.bytes + mail.bytes();
        let Bounds {
            events,
            bytes: most,
        } = self.shared.bounds;
        // One push may exceed the byte bound by itself, so an empty mailbox accepts any size.
        let is_bound = !bugs::has(Bug::BottomlessMailbox);
        if is_bound && (state.queue.len() >= events || (bytes > most && !state.queue.is_empty())) {
            state.full = true;
        } else {
            state.bytes = bytes;
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
        if full { Err(NotPosted) } else { Ok(()) }
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
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::broker::{Payload, Sender};
    use crate::model::{Address, Body, Realm, SessionId, Signal, SignalKind};

    #[tokio::test]
    async fn full_is_told_and_stays_so() {
        let (mailbox, receiver) = mailbox(Bounds {
            events: 2,
            bytes: 100,
        });
        mailbox.post(Mail::Gap).unwrap();
        mailbox.post(Mail::Gap).unwrap();
        assert_eq!(mailbox.post(Mail::NameLost), Err(NotPosted));
        receiver.overflowed().await;
        assert_eq!(receiver.take().0.len(), 2);
        receiver.filled().await;
        assert!(
            receiver.has_overflowed(),
            "an empty box that was full is not forgotten"
        );
        assert_eq!(
            mailbox.post(Mail::Gap),
            Err(NotPosted),
            "what was lost cannot be made good"
        );
    }

    #[tokio::test]
    async fn what_waits_does_not_keep_the_frame_that_it_came_in() {
        let (mailbox, _receiver) = mailbox(Bounds {
            events: 1024,
            bytes: 1 << 20,
        });
        let address = Address::new(Realm::default(), UserName::known("a").unwrap());
        let sender = Sender::new(address, SessionId::random(), 0, NodeId::known("n"));
        let from = Arc::new(sender);
        let mut kept = 0;
        for n in 0..100 {
            let frame = Bytes::from(vec![b' '; 65_536]);
            let signal = Signal {
                kind: SignalKind::Message,
                body: Body(frame.slice(100..101)),
            };
            let envelope = Envelope {
                from: Arc::clone(&from),
                n,
                idempotency_key: None,
                trace: None,
                payload: Payload::Signal(signal),
            };
            mailbox.post(Mail::Direct(envelope)).unwrap();
            kept += usize::from(!frame.is_unique());
        }
        assert!(kept <= WAITS_BEHIND, "{kept} frames");
    }

    #[tokio::test]
    async fn a_closed_letterbox_takes_nothing() {
        let (mailbox, receiver) = mailbox(Bounds {
            events: 2,
            bytes: 100,
        });
        mailbox.post(Mail::Gap).unwrap();
        receiver.filled().await;
        assert_eq!(receiver.close().len(), 1);
        assert_eq!(mailbox.post(Mail::Gap), Err(NotPosted));
    }
}
