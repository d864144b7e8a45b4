//! The way into a node's inbox: bounded, and honest about what did not fit.

use std::collections::HashSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, mpsc};

use super::{Entry, Envelope, Inbound, Inbox};
use crate::bugs;
use crate::model::SessionId;

/// How many events may wait for the router; a push beyond that becomes a gap of its session.
const INBOX_EVENTS: usize = 8192;

/// Which connection a push came by, so that a broken one is not listened to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd)]
pub(super) struct Line(pub(super) u64);

/// Where pushes go in. Never waits: it is called from a connection's reader.
#[derive(Debug)]
pub(super) struct InboundQueue {
    inbox: mpsc::Sender<Inbound>,
    /// Held for a set lookup and a try-send, so that a gap and the pushes around it have one order.
    gate: Mutex<Gate>,
    miss: Notify,
}

#[derive(Debug)]
struct Gate {
    /// The line that is listened to; `None` from a break until everything is subscribed again.
    open: Option<Line>,
    /// The last one that was.
    last: Line,
    /// What came to plain sessions by a later line that is not open yet: it is stored nowhere, and its sender was told that it is delivered.
    early: Vec<(SessionId, Inbound)>,
    /// Sessions that missed a push: they get nothing more until their gap was announced.
    missed: HashSet<SessionId>,
}

impl InboundQueue {
    /// An inbound with its inbox.
    pub(super) fn new(open: Option<Line>) -> (Self, Inbox) {
        let (inbox, receiver) = mpsc::channel(INBOX_EVENTS);
        (
            Self {
                inbox,
                gate: Mutex::new(Gate {
                    open,
                    last: open.unwrap_or(Line(0)),
                    early: Vec::new(),
                    missed: HashSet::new(),
                }),
                miss: Notify::new(),
            },
            receiver,
        )
    }

    /// Takes a push from a line. One that comes by another line than the open one is in the inbox of its user, where the gap will find it.
    pub(super) fn push(
        &self,
        line: Line,
        session: SessionId,
        generation: u32,
        entries: Vec<Entry>,
    ) {
        let push = Inbound::Push {
            session,
            generation,
            entries,
        };
        self.take(line, session, push);
    }

    /// Takes a push to a plain session. What is not taken is lost, and the gap says so.
    pub(super) fn direct(&self, line: Line, session: SessionId, envelopes: Vec<Envelope>) {
        let push = Inbound::Direct { session, envelopes };
        let mut gate = self.lock();
        if gate.open.is_none() && line > gate.last {
            if gate.early.len() < INBOX_EVENTS {
                gate.early.push((session, push));
            }
            return;
        }
        drop(gate);
        self.take(line, session, push);
    }

    fn take(&self, line: Line, session: SessionId, push: Inbound) {
        let mut gate = self.lock();
        if gate.open == Some(line) {
            self.enter(&mut gate, session, push);
        }
    }

    fn enter(&self, gate: &mut Gate, session: SessionId, push: Inbound) {
        if gate.missed.contains(&session) {
            return;
        }
        if bugs::drops_push() || self.inbox.try_send(push).is_err() {
            gate.missed.insert(session);
            self.miss.notify_one();
        }
    }

    /// Takes anything else, if there is room.
    pub(super) fn post(&self, inbound: Inbound) -> bool {
        self.inbox.try_send(inbound).is_ok()
    }

    /// Whether this line is listened to.
    pub(super) fn listens(&self, line: Line) -> bool {
        self.lock().open == Some(line)
    }

    /// Stops listening: whatever comes from here on is missed.
    pub(super) fn shut(&self) {
        self.lock().open = None;
    }

    /// Listens to this line from here on; first, everybody is told of the gap, and then what came early.
    pub(super) async fn open(&self, line: Line) {
        // Nobody is left to tell where the inbox is gone.
        let Ok(room) = self.inbox.reserve().await else {
            return;
        };
        let mut gate = self.lock();
        gate.missed.clear();
        (gate.open, gate.last) = (Some(line), line);
        room.send(Inbound::Gap(None));
        for (session, push) in std::mem::take(&mut gate.early) {
            self.enter(&mut gate, session, push);
        }
    }

    /// Announces the gaps of single sessions, for as long as the inbox is read. The room is taken before the session is forgotten as
    /// missed, so that no push can slip in before its gap.
    pub(super) async fn announce(&self) {
        loop {
            self.miss.notified().await;
            loop {
                let Ok(room) = self.inbox.reserve().await else {
                    return;
                };
                let mut gate = self.lock();
                let Some(session) = gate.missed.iter().next().copied() else {
                    break;
                };
                gate.missed.remove(&session);
                room.send(Inbound::Gap(Some(session)));
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
    use crate::broker::{Envelope, Parcel, Sender};
    use crate::model::{Address, LeaveReason, NodeId, Offset, Realm, UserName};

    fn entry(millis: u64) -> Vec<Entry> {
        let address = Address::new(Realm::default(), UserName::parse("a").unwrap());
        let from = Arc::new(Sender::new(
            address,
            SessionId::random(),
            0,
            NodeId::known("n"),
        ));
        let parcel = Parcel::Leave {
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
                once: None,
                trace: None,
                parcel,
            },
        }]
    }

    #[tokio::test]
    async fn what_does_not_fit_is_a_gap_before_anything_newer() {
        let (inbound, mut inbox) = InboundQueue::new(Some(Line(1)));
        let (inbound, session) = (Arc::new(inbound), SessionId::random());
        for millis in 0..INBOX_EVENTS as u64 + 5 {
            inbound.push(Line(1), session, 0, entry(millis));
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
        inbound.push(Line(1), session, 0, entry(1 << 20));
        assert!(matches!(inbox.recv().await, Some(Inbound::Push { .. })));
        announcer.abort();
    }

    #[tokio::test]
    async fn what_comes_to_a_plain_session_before_the_line_is_open_is_heard_behind_the_gap() {
        let (inbound, mut inbox) = InboundQueue::new(Some(Line(1)));
        let session = SessionId::random();
        let envelopes = |millis| entry(millis).into_iter().map(|entry| entry.envelope);
        inbound.shut();
        inbound.direct(Line(1), session, envelopes(1).collect());
        inbound.direct(Line(2), session, envelopes(2).chain(envelopes(2)).collect());
        inbound.open(Line(2)).await;
        inbound.direct(Line(2), session, envelopes(3).collect());
        let mut heard = Vec::new();
        while let Ok(inbound) = inbox.try_recv() {
            heard.push(match inbound {
                Inbound::Gap(None) => 0,
                Inbound::Direct { envelopes, .. } => envelopes.len(),
                other => panic!("{other:?}"),
            });
        }
        assert_eq!(
            heard,
            [0, 2, 1],
            "the gap, what came early, what came later"
        );
    }

    #[tokio::test]
    async fn a_broken_line_is_not_listened_to() {
        let (inbound, mut inbox) = InboundQueue::new(Some(Line(1)));
        inbound.shut();
        inbound.push(Line(1), SessionId::random(), 0, entry(1));
        inbound.open(Line(2)).await;
        inbound.push(Line(1), SessionId::random(), 0, entry(2));
        inbound.push(Line(2), SessionId::random(), 0, entry(3));
        assert!(matches!(inbox.recv().await, Some(Inbound::Gap(None))));
        assert!(
            matches!(inbox.recv().await, Some(Inbound::Push { entries, .. }) if entries[0].id.millis == 3)
        );
    }
}
