//! What other nodes ask and answer on a node's own channel.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};

use super::wire::Heard;
use crate::broker::inbound::{InboundQueue, Line};
use crate::broker::{Inbound, Question, Topic};

/// The questions that wait for an answer.
#[derive(Debug)]
pub(super) struct Asked {
    /// Held for a map operation.
    open: Mutex<HashMap<u64, oneshot::Sender<Bytes>>>,
    count: AtomicU64,
    /// Those who answer questions about HTTP sessions.
    http: mpsc::Sender<Question>,
}

/// A question that waits for its answer; forgotten when dropped.
pub(super) struct Open {
    asked: Arc<Asked>,
    number: u64,
}

impl Open {
    pub(super) fn number(&self) -> u64 {
        self.number
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.asked.lock().remove(&self.number);
    }
}

impl Asked {
    pub(super) fn new(http: mpsc::Sender<Question>) -> Self {
        Self {
            open: Mutex::default(),
            count: AtomicU64::default(),
            http,
        }
    }

    pub(super) fn ask(self: &Arc<Self>) -> (Open, oneshot::Receiver<Bytes>) {
        let (sender, answer) = oneshot::channel();
        let number = self.count.fetch_add(1, Ordering::Relaxed);
        self.lock().insert(number, sender);
        let asked = Arc::clone(self);
        (Open { asked, number }, answer)
    }

    pub(super) fn hear(&self, heard: Heard, inbound: &InboundQueue, line: Line) {
        match heard {
            Heard::Push {
                session,
                generation,
                entries,
            } => inbound.push(line, session, generation, entries),
            Heard::Direct { session, envelopes } => inbound.direct(line, session, envelopes),
            // One that does not fit is told by the next renewal.
            Heard::Replaced {
                session,
                generation,
            } => {
                let _ = inbound.post(Inbound::Replaced {
                    session,
                    generation,
                });
            }
            // One that does not fit fails the login that waits for it, which is tried again.
            Heard::Barrier(session) => drop(inbound.post(Inbound::Barrier(session))),
            // One that does not fit gets no answer.
            Heard::Question(Topic::Session, question) => {
                let _ = inbound.post(Inbound::Challenge(question));
            }
            Heard::Question(Topic::Http, question) => drop(self.http.try_send(question)),
            Heard::Answer(number, body) => {
                let asker = self.lock().remove(&number);
                let _ = asker.map(|asker| asker.send(body));
            }
            Heard::Probe => {}
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, oneshot::Sender<Bytes>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
