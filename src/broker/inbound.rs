//! The bounded queue in front of a node's inbox: a push that does not fit becomes a gap.

use std::collections::HashSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, mpsc};

use super::{Entry, Envelope, Inbound, Inbox};
use crate::bugs;
use crate::model::SessionId;

/// How many events may wait for the router. A push beyond that becomes a gap of its session.
const INBOX_EVENTS: usize = 8192;

/// The connection by which a push came, so that pushes of a broken one are ignored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd)]
pub(super) struct ConnectionId(pub(super) u64);

/// The sending end of a node's inbox. Its methods that take pushes never wait, since a connection's reader calls them.
#[derive(Debug)]
pub(super) struct InboundQueue {
    inbox: mpsc::Sender<Inbound>,
    /// Held for a set lookup and a try-send, so that a gap and the pushes around it are ordered.
    gate: Mutex<Gate>,
    miss: Notify,
}

#[derive(Debug)]
struct Gate {
    /// The connection whose pushes are accepted. `None` from a break until every channel is subscribed again.
    open: Option<ConnectionId>,
    /// The last one before.
    last: ConnectionId,
    /// Pushes to plain sessions by a newer connection that is not open yet. No inbox stores them, and their senders
    /// were told that they are delivered.
    early: Vec<(SessionId, Inbound)>,
    /// Sessions that missed a push. They get nothing more until their gap is announced.
    missed: HashSet<SessionId>,
}

impl InboundQueue {
    /// A queue with its inbox.
    pub(super) fn new(open: Option<ConnectionId>) -> (Self, Inbox) {
        let (inbox, receiver) = mpsc::channel(INBOX_EVENTS);
        (
            Self {
                inbox,
                gate: Mutex::new(Gate {
                    open,
                    last: open.unwrap_or(ConnectionId(0)),
                    early: Vec::new(),
                    missed: HashSet::new(),
                }),
                miss: Notify::new(),
            },
            receiver,
        )
    }

    /// Takes entries for a resumable session. Ignored if they come by another connection than the open one: the session
    /// reads them from its inbox after the gap.
    pub(super) fn push(
        &self,
        connection: ConnectionId,
        session: SessionId,
        generation: u32,
        entries: Vec<Entry>,
    ) {
        let push = Inbound::Push {
            session,
            generation,
            entries,
        };
        self.accept(connection, session, push);
    }

    /// Takes envelopes for a plain session. What is not accepted is lost, and the session is told of a gap.
    pub(super) fn direct(
        &self,
        connection: ConnectionId,
        session: SessionId,
        envelopes: Vec<Envelope>,
    ) {
        let push = Inbound::Direct { session, envelopes };
        let mut gate = self.lock();
        if gate.open.is_none() && connection > gate.last {
            if gate.early.len() < INBOX_EVENTS {
                gate.early.push((session, push));
            }
            return;
        }
        drop(gate);
        self.accept(connection, session, push);
    }

    fn accept(&self, connection: ConnectionId, session: SessionId, push: Inbound) {
        let mut gate = self.lock();
        if gate.open == Some(connection) {
            self.enqueue(&mut gate, session, push);
        }
    }

    fn enqueue(&self, gate: &mut Gate, session: SessionId, push: Inbound) {
        if gate.missed.contains(&session) {
            return;
        }
        if bugs::drops_push() || self.inbox.try_send(push).is_err() {
            gate.missed.insert(session);
            self.miss.notify_one();
        }
    }

    /// Takes any other event. False if the inbox is full.
    pub(super) fn post(&self, inbound: Inbound) -> bool {
        self.inbox.try_send(inbound).is_ok()
    }

    /// Whether pushes by this connection are accepted.
    pub(super) fn listens(&self, connection: ConnectionId) -> bool {
        self.lock().open == Some(connection)
    }

    /// The connection broke: pushes from here on are missed.
    pub(super) fn close(&self) {
        self.lock().open = None;
    }

    /// Accepts pushes by this connection from here on. First announces a gap to every session, then delivers what came
    /// early.
    pub(super) async fn open(&self, connection: ConnectionId) {
        // Without a reader of the inbox the node is ending.
        let Ok(permit) = self.inbox.reserve().await else {
            return;
        };
        let mut gate = self.lock();
        gate.missed.clear();
        (gate.open, gate.last) = (Some(connection), connection);
        permit.send(Inbound::Gap(None));
        for (session, push) in std::mem::take(&mut gate.early) {
            self.enqueue(&mut gate, session, push);
        }
    }

    /// Announces the gaps of single sessions for as long as the inbox has a reader. Reserves a place before it takes
    /// the session off the list, so that no push of the session can get in before its gap.
    pub(super) async fn announce(&self) {
        loop {
            self.miss.notified().await;
            loop {
                let Ok(permit) = self.inbox.reserve().await else {
                    return;
                };
                let mut gate = self.lock();
                let Some(session) = gate.missed.iter().next().copied() else {
                    break;
                };
                gate.missed.remove(&session);
                permit.send(Inbound::Gap(Some(session)));
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Gate> {
        self.gate.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::broker::{Envelope, Payload, Sender};
    use crate::model::{Address, LeaveReason, NodeId, Offset, Realm, UserName};

    fn entry(millis: u64) -> Vec<Entry> {
        let address = Address::new(Realm::default(), UserName::parse("a").unwrap());
        let from = Arc::new(Sender::new(
            address,
            SessionId::random(),
            0,
            NodeId::known("n"),
        ));
        let payload = Payload::Leave {
            reason: LeaveReason::Hangup,
            heard: 0,
        };
        vec![Entry {
            id: Offset {
                millis,
                sequence: 0,
            },
            envelope: Envelope {
                from,
                n: 1,
                idempotency_key: None,
                trace: None,
                payload,
            },
        }]
    }

    #[tokio::test]
    async fn a_push_that_does_not_fit_is_a_gap_before_any_newer_push() {
        let (inbound, mut inbox) = InboundQueue::new(Some(ConnectionId(1)));
        let (inbound, session) = (Arc::new(inbound), SessionId::random());
        for millis in 0..INBOX_EVENTS as u64 + 5 {
            inbound.push(ConnectionId(1), session, 0, entry(millis));
        }
        let announcer = tokio::spawn({
            let inbound = Arc::clone(&inbound);
            async move { inbound.announce().await }
        });
        for _ in 0..INBOX_EVENTS {
            assert!(matches!(inbox.recv().await, Some(Inbound::Push { .. })));
        }
        assert!(
            matches!(inbox.recv().await, Some(Inbound::Gap(Some(missed))) if missed == session)
        );
        inbound.push(ConnectionId(1), session, 0, entry(1 << 20));
        assert!(matches!(inbox.recv().await, Some(Inbound::Push { .. })));
        announcer.abort();
    }

    #[tokio::test]
    async fn early_pushes_to_a_plain_session_are_delivered_after_the_gap() {
        let (inbound, mut inbox) = InboundQueue::new(Some(ConnectionId(1)));
        let session = SessionId::random();
        let envelopes = |millis| entry(millis).into_iter().map(|entry| entry.envelope);
        inbound.close();
        inbound.direct(ConnectionId(1), session, envelopes(1).collect());
        inbound.direct(
            ConnectionId(2),
            session,
            envelopes(2).chain(envelopes(2)).collect(),
        );
        inbound.open(ConnectionId(2)).await;
        inbound.direct(ConnectionId(2), session, envelopes(3).collect());
        let mut received = Vec::new();
        while let Ok(inbound) = inbox.try_recv() {
            received.push(match inbound {
                Inbound::Gap(None) => 0,
                Inbound::Direct { envelopes, .. } => envelopes.len(),
                other => panic!("{other:?}"),
            });
        }
        assert_eq!(
            received,
            [0, 2, 1],
            "the gap, the early push, the later push"
        );
    }

    #[tokio::test]
    async fn pushes_by_a_broken_connection_are_ignored() {
        let (inbound, mut inbox) = InboundQueue::new(Some(ConnectionId(1)));
        inbound.close();
        inbound.push(ConnectionId(1), SessionId::random(), 0, entry(1));
        inbound.open(ConnectionId(2)).await;
        inbound.push(ConnectionId(1), SessionId::random(), 0, entry(2));
        inbound.push(ConnectionId(2), SessionId::random(), 0, entry(3));
        assert!(matches!(inbox.recv().await, Some(Inbound::Gap(None))));
        assert!(
            matches!(inbox.recv().await, Some(Inbound::Push { entries, .. }) if entries[0].id.millis == 3)
        );
    }
}
