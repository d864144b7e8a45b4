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
    outcome: Outcome,
}

impl Refusal {
    /// A full inbox and a store that refuses concern whoever is meant. An absent session is not an absent user.
    fn concerns(&self, message: &Publish) -> bool {
        let is_absent = matches!(self.outcome, Ok(Sent::Absent));
        !is_absent || self.meant == message.options.meant()
    }
}

impl Refused {
    pub(super) fn is_empty(&self) -> bool {
        self.destinations.is_empty()
    }

    /// Notes the outcome of an envelope, if its sender may repeat it.
    pub(super) fn note(&mut self, message: &Publish, outcome: &Outcome) {
        let (Ok(Sent::Full(_) | Sent::Absent) | Err(_)) = outcome else {
            return;
        };
        let senders = self.destinations.entry(Arc::clone(&message.to));
        let refusal = senders.or_default().entry(message.sender().to_vec());
        refusal.or_insert_with(|| Refusal {
            meant: message.options.meant(),
            outcome: outcome.clone(),
        });
    }

    /// Refuses a request that is behind a refused one. Otherwise returns it.
    pub(super) fn refuse_behind(&self, request: Request) -> Option<Request> {
        let Request::Publish(message) = request else {
            return Some(request);
        };
        match self.before(&message) {
            Some(refusal) => {
                message.receipt.settle(refusal.outcome.clone());
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::{BrokerError, Receipts, SendOptions};

    fn message(receipts: &Receipts, to: &str, sender: &str, only: Option<SessionId>) -> Publish {
        let to = Destination {
            presence: to.to_owned(),
            inbox: String::new(),
            channel: String::new(),
        };
        Publish {
            to: Arc::new(to),
            options: SendOptions {
                only,
                ..SendOptions::default()
            },
            bytes: format!("1 {sender} body").into_bytes(),
            receipt: receipts.issue(false, false),
        }
    }

    #[test]
    fn what_is_behind_an_envelope_that_the_store_did_not_take_is_refused_too() {
        let (earlier, receipts) = (Receipts::default(), Receipts::default());
        let mut refused = Refused::default();
        let first = message(&earlier, "bob", "alice", Some(SessionId::random()));
        refused.note(&first, &Err(BrokerError::NoMemory));

        let behind = message(&receipts, "bob", "alice", None);
        assert!(refused.refuse_behind(Request::Publish(behind)).is_none());
        let outcome = receipts.take().map(|answer| answer.outcome);
        assert_eq!(outcome, Some(Err(BrokerError::NoMemory)));
    }

    #[test]
    fn what_is_behind_an_envelope_that_found_nobody_is_refused_too() {
        let (earlier, receipts) = (Receipts::default(), Receipts::default());
        let mut refused = Refused::default();
        refused.note(&message(&earlier, "bob", "alice", None), &Ok(Sent::Absent));

        let behind = message(&receipts, "bob", "alice", None);
        assert!(refused.refuse_behind(Request::Publish(behind)).is_none());
        let outcome = receipts.take().map(|answer| answer.outcome);
        assert!(matches!(outcome, Some(Ok(Sent::Absent))), "{outcome:?}");

        let session = Some(SessionId::random());
        for (to, sender, only) in [
            ("carol", "alice", None),
            ("bob", "dave", None),
            // That another session is absent says nothing about this one.
            ("bob", "alice", session),
        ] {
            let other = message(&receipts, to, sender, only);
            assert!(refused.refuse_behind(Request::Publish(other)).is_some());
        }
    }
}
