//! The bounded receiver of one session: posted to without waiting, emptied by the session alone.
//!
//! Bounded by count and by bytes. Full means that the client reads slower than others speak to it: a candidate that is dropped is a call
//! that silently never connects, so nothing is dropped and the session ends (`CloseReason::TooSlow`).

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};
use std::time::Instant;

use crate::broker::{Entry, Envelope, Holder, Question};
use crate::bugs::{self, Bug};
use crate::model::{NodeId, UserName};

/// Of how many one is timed: two looks at the clock cost a hundredth of a relay.
const TIMED_ONE_IN: u8 = 16;

/// Behind how many others a signal counts as one that waits: its body is copied out of its frame, which may be much longer.
const WAITS_BEHIND: usize = 16;

/// How much may wait for one session.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Events.
    pub events: usize,
    /// Bytes of bodies.
    pub bytes: usize,
}

/// What a session finds in its receiver.
#[derive(Debug)]
pub enum Mail {
    /// From a user of this node.
    Direct(Envelope),
    /// By the broker.
    Push(Vec<Entry>),
    /// Pushes were missed.
    Gap,
    /// A node died; call peers may have been on it.
    NodeLost(NodeId),
    /// The name is somebody else's.
    NameLost,
    /// A newer connection of the same session has taken over, which was resumed so often.
    Replaced(u32),
    /// The same, as the store has it: whether anybody holds that connection is not known.
    Overtaken(u32),
    /// The store has lost data, perhaps of this session; its lease is there again, in this epoch.
    Regained(u64),
    /// The broker went away, or is back.
    Broker {
        /// Whether it answers.
        reached: bool,
    },
    /// Somebody wants the name, and doubts that this session lives.
    Challenge(Question),
    /// Watched users came or went.
    Presence(Vec<(UserName, bool)>),
    /// Who has the names that the session looks for.
    Looked(Vec<(UserName, Option<Holder>)>),
}

/// It did not fit, or nobody reads any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NotPosted;

/// The end that others post to.
#[derive(Clone, Debug)]
pub(super) struct MailboxSender {
    shared: Arc<Shared>,
}

/// The end that the session empties.
#[derive(Debug)]
pub struct MailboxReceiver {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    bounds: Bounds,
    /// Held for a push or a swap.
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    queue: VecDeque<Mail>,
    bytes: usize,
    full: bool,
    closed: bool,
    /// The session's task, while it waits.
    waiting: Option<Waker>,
    /// Counts what was posted.
    posted: u8,
    /// When the oldest that waits was posted, if it is one of those that are timed.
    since: Option<Instant>,
}

/// A mailbox with its receiver.
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
    /// Posts without waiting. What does not fit ends the session.
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
        // What came in one push may be more than the bound by itself: whoever has read everything else gets it.
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
    /// Waits until there is something to [`take`](Self::take), or something did not fit.
    pub async fn filled(&self) {
        self.shared
            .wait_until(|state| state.full || !state.queue.is_empty())
            .await;
    }

    /// Everything that has arrived, and since when the oldest waits, if that is timed.
    pub fn take(&self) -> (VecDeque<Mail>, Option<Instant>) {
        let mut state = self.shared.lock();
        state.bytes = 0;
        (std::mem::take(&mut state.queue), state.since.take())
    }

    /// Waits until something did not fit.
    pub async fn overflowed(&self) {
        self.shared.wait_until(|state| state.full).await;
    }

    /// Whether something did not fit: it is lost to this session.
    pub fn has_overflowed(&self) -> bool {
        self.shared.lock().full
    }

    /// Takes mail again, after something did not fit that is not lost: it is in the session's inbox.
    pub fn reopen(&self) {
        self.shared.lock().full = false;
    }

    /// Takes no more mail, and hands out what is left.
    pub fn close(&self) -> VecDeque<Mail> {
        let mut state = self.shared.lock();
        state.closed = true;
        std::mem::take(&mut state.queue)
    }
}

impl Shared {
    /// One task waits for one mailbox, so a waker under the lock will do: a `Notify` costs a registration at every turn of the session.
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
