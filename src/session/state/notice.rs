//! A notice: a word to another session that must arrive, and is sent until it has.

use std::sync::Arc;
use std::time::SystemTime;

use tokio::time::Instant;

use super::trace::Traced;
use crate::broker::{Payload, Sender};
use crate::model::{SessionId, UserName};
use crate::telemetry::SignalOutcome;

/// A word that must arrive.
#[derive(Debug)]
pub(super) struct Notice {
    pub(super) to: UserName,
    pub(super) only: Option<SessionId>,
    pub(super) from: Arc<Sender>,
    pub(super) n: u64,
    pub(super) payload: Payload,
    pub(super) traced: Option<Box<Traced>>,
    /// Since when nobody of that name was found.
    pub(super) absent_since: Option<Instant>,
    /// Since when the node of a plain user does not listen.
    pub(super) unheard_since: Option<Instant>,
}

impl Notice {
    pub(super) fn new(
        to: UserName,
        only: Option<SessionId>,
        from: Arc<Sender>,
        n: u64,
        payload: Payload,
    ) -> Self {
        Self {
            to,
            only,
            from,
            n,
            payload,
            traced: None,
            absent_since: None,
            unheard_since: None,
        }
    }

    /// The same, as part of a trace.
    pub(super) fn traced(self, traced: Option<Traced>) -> Self {
        let traced = traced.map(Box::new);
        Self { traced, ..self }
    }

    /// It is not sent again. Its span ends then, or now.
    pub(super) fn ends(self, fate: SignalOutcome, at: Option<SystemTime>) {
        if let Some(traced) = self.traced {
            traced.ends(fate, at);
        }
    }
}
