//! What other nodes ask and answer on a node's own channel.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

use super::wire::Heard;
use crate::fabric::intake::{Intake, Line};
use crate::fabric::{Inbound, Verdict};

/// The questions that wait for an answer.
#[derive(Debug, Default)]
pub(super) struct Questions {
    /// Held for a map operation.
    open: Mutex<HashMap<u64, oneshot::Sender<Verdict>>>,
    asked: AtomicU64,
}

impl Questions {
    pub(super) fn ask(&self) -> (u64, oneshot::Receiver<Verdict>) {
        let (sender, verdict) = oneshot::channel();
        let token = self.asked.fetch_add(1, Ordering::Relaxed);
        self.lock().insert(token, sender);
        (token, verdict)
    }

    pub(super) fn hear(&self, heard: Heard, intake: &Intake, line: Line) {
        match heard {
            Heard::Push {
                session,
                attach,
                entries,
            } => intake.push(line, session, attach, entries),
            Heard::Direct { session, envelopes } => intake.direct(line, session, envelopes),
            // One that does not fit is told by the next renewal.
            Heard::Replaced { session, attach } => {
                let _ = intake.post(Inbound::Replaced { session, attach });
            }
            // One that does not fit fails the login that questions for it, or is a holder that did not answer: both are tried again.
            Heard::Barrier(session) => drop(intake.post(Inbound::Barrier(session))),
            Heard::Question(challenge) => drop(intake.post(Inbound::Challenge(challenge))),
            Heard::Answer { token, verdict } => {
                let asker = self.lock().remove(&token);
                let _ = asker.map(|asker| asker.send(verdict));
            }
            // Whoever sleeps at a letterbox asks no question.
            Heard::Wake(_) | Heard::Probe => {}
        }
    }

    /// Nobody waits for this answer any more.
    pub(super) fn forget(&self, token: u64) {
        self.lock().remove(&token);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, oneshot::Sender<Verdict>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
