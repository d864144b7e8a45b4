//! Notices: messages to other sessions that are sent again until they have arrived.

use std::sync::Arc;
use std::time::SystemTime;

use tokio::time::Instant;

use super::trace::Traced;
use crate::broker::{Payload, Sender};
use crate::model::{SessionId, UserName};
use crate::telemetry::SignalOutcome;

/// A message that must arrive: a `leave` or a sync.
#[derive(Debug)]
pub(super) struct Notice {
    pub(super) to: UserName,
    pub(super) only: Option<SessionId>,
    pub(super) from: Arc<Sender>,
    pub(super) n: u64,
    pub(super) payload: Payload,
    pub(super) traced: Option<Box<Traced>>,
    /// Since when the receiver is absent.
    pub(super) absent_since: Option<Instant>,
    /// Since when the node of a plain receiver is not subscribed.
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

    /// Adds the notice to a trace.
    pub(super) fn traced(self, traced: Option<Traced>) -> Self {
        let traced = traced.map(Box::new);
        Self { traced, ..self }
    }

    /// Drops the notice, and ends its span at `at`, or now.
    pub(super) fn ends(self, fate: SignalOutcome, at: Option<SystemTime>) {
        if let Some(traced) = self.traced {
            traced.ends(fate, at);
        }
    }
}
