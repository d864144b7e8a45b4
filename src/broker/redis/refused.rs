//! Order across a refusal: what a sender has queued behind an envelope that was refused gets the same outcome.
//! Otherwise it could be accepted, and overtake the one before it when its sender repeats that.

use std::collections::HashMap;
use std::sync::Arc;

use super::request::{Destination, Publish, Request};
use crate::broker::{Outcome, Sent};
use crate::model::SessionId;

/// The senders whose envelopes a pipeline refused, for each destination.
#[derive(Debug, Default)]
pub(super) struct Refused {
    destinations: HashMap<Arc<Destination>, HashMap<Vec<u8>, Refusal>>,
}

/// What the first refused envelope of a sender got.
#[derive(Debug)]
struct Refusal {
    /// The only session that could receive it, if there was one.
    meant: Option<SessionId>,
    sent: Sent,
}

impl Refusal {
    /// A full inbox has no room for whoever is meant. An absent session is not an absent user.
    fn concerns(&self, message: &Publish) -> bool {
        let is_general = matches!(self.sent, Sent::Full(_));
        is_general || self.meant == message.options.meant()
    }
}

impl Refused {
    pub(super) fn is_empty(&self) -> bool {
        self.destinations.is_empty()
    }

    /// Notes the outcome of an envelope, if its sender may repeat it.
    pub(super) fn note(&mut self, message: &Publish, outcome: &Outcome) {
        let Ok(sent @ (Sent::Full(_) | Sent::Absent)) = outcome else {
            return;
        };
        let senders = self.destinations.entry(Arc::clone(&message.to));
        let refusal = senders.or_default().entry(message.sender().to_vec());
        refusal.or_insert_with(|| Refusal {
            meant: message.options.meant(),
            sent: sent.clone(),
        });
    }

    /// Refuses a request that is behind a refused one. Otherwise returns it.
    pub(super) fn refuse_behind(&self, request: Request) -> Option<Request> {
        let Request::Publish(message) = request else {
            return Some(request);
        };
        match self.before(&message) {
            Some(refusal) => {
                message.receipt.settle(Ok(refusal.sent.clone()));
                None
            }
            None => Some(Request::Publish(message)),
        }
    }

    fn before(&self, message: &Publish) -> Option<&Refusal> {
        if message.options.always {
            return None;
        }
        let senders = self.destinations.get(&message.to)?;
        let refusal = senders.get(message.sender())?;
        refusal.concerns(message).then_some(refusal)
    }
}
