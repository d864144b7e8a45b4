//! Dispatches what arrives on channels, and matches answers to this node's questions.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};

use super::channel::ChannelMessage;
use crate::broker::inbound::{ConnectionId, InboundQueue};
use crate::broker::{Inbound, Question, Topic};

/// This node's questions that wait for an answer.
#[derive(Debug)]
pub(super) struct PendingQuestions {
    /// Held for a map operation.
    pending: Mutex<HashMap<u64, oneshot::Sender<Bytes>>>,
    count: AtomicU64,
    /// Receives other nodes' questions about HTTP sessions.
    http: mpsc::Sender<Question>,
    /// Receives what operators ask by other nodes.
    admin: mpsc::Sender<Question>,
}

/// A question that waits for its answer. Dropping it stops waiting.
pub(super) struct PendingQuestion {
    questions: Arc<PendingQuestions>,
    number: u64,
}

impl PendingQuestion {
    pub(super) fn number(&self) -> u64 {
        self.number
    }
}

impl Drop for PendingQuestion {
    fn drop(&mut self) {
        self.questions.lock().remove(&self.number);
    }
}

impl PendingQuestions {
    pub(super) fn new(http: mpsc::Sender<Question>, admin: mpsc::Sender<Question>) -> Self {
        Self {
            pending: Mutex::default(),
            count: AtomicU64::default(),
            http,
            admin,
        }
    }

    /// Opens a question, whose answer the receiver gets.
    pub(super) fn ask(self: &Arc<Self>) -> (PendingQuestion, oneshot::Receiver<Bytes>) {
        let (sender, answer) = oneshot::channel();
        let number = self.count.fetch_add(1, Ordering::Relaxed);
        self.lock().insert(number, sender);
        let questions = Arc::clone(self);
        (PendingQuestion { questions, number }, answer)
    }

    /// Hands a message to the inbound queue, or to whoever waits for it. Must not block: the connection's reader calls
    /// it.
    pub(super) fn dispatch(
        &self,
        message: ChannelMessage,
        inbound: &InboundQueue,
        connection: ConnectionId,
    ) {
        match message {
            ChannelMessage::Push {
                session,
                generation,
                entries,
            } => inbound.push(connection, session, generation, entries),
            ChannelMessage::Direct { session, envelopes } => {
                inbound.direct(connection, session, envelopes);
            }
            // If the queue is full, the session learns it from its next renewal.
            ChannelMessage::Replaced {
                session,
                generation,
            } => {
                let _ = inbound.post(Inbound::Replaced {
                    session,
                    generation,
                });
            }
            // If the queue is full, the login that waits for the barrier fails, and its client tries again.
            ChannelMessage::Barrier(session) => drop(inbound.post(Inbound::Barrier(session))),
            // If the queue is full, the asking node times out.
            ChannelMessage::Question(Topic::Session, question) => {
                let _ = inbound.post(Inbound::Challenge(question));
            }
            ChannelMessage::Question(Topic::Http, question) => drop(self.http.try_send(question)),
            ChannelMessage::Question(Topic::Admin, question) => drop(self.admin.try_send(question)),
            ChannelMessage::Answer(number, body) => {
                let answer = self.lock().remove(&number);
                let _ = answer.map(|answer| answer.send(body));
            }
            ChannelMessage::Probe => {}
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, oneshot::Sender<Bytes>>> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
