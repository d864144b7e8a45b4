//! Delivers what comes out of the broker to the sessions of this node.

use std::sync::Arc;

use super::Router;
use super::challenge;
use super::mailbox::Mail;
use crate::broker::{Inbound, Inbox, Verdict};

impl Router {
    /// Service: delivers what comes out of the broker.
    pub async fn listen(self: Arc<Self>, mut inbox: Inbox) {
        while let Some(inbound) = inbox.recv().await {
            self.deliver(inbound);
        }
    }

    /// Nothing waits while delivering.
    fn deliver(&self, inbound: Inbound) {
        match inbound {
            // A session that is gone has read its inbox when it gave its name back.
            Inbound::Push {
                session,
                generation,
                entries,
            } => self.registry.push(session, generation, entries),
            // What is for a session that is no more is dropped: its leave says that the call is over.
            Inbound::Direct { session, envelopes } => {
                if let Some(mailbox) = self.registry.mailbox(session) {
                    for envelope in envelopes {
                        // One that is full ends its session.
                        let _ = mailbox.post(Mail::Direct(envelope));
                    }
                }
            }
            Inbound::Replaced {
                session,
                generation,
            } => {
                self.registry.post(session, Mail::Replaced(generation));
            }
            Inbound::Barrier(session) => self.registry.barrier(session),
            Inbound::Gap(Some(session)) => {
                self.local.telemetry.metrics.gap(true);
                self.registry.post(session, Mail::Gap);
            }
            Inbound::Gap(None) => {
                self.local.telemetry.metrics.gap(false);
                for mailbox in self.registry.mailboxes() {
                    // One that is full ends its session.
                    let _ = mailbox.post(Mail::Gap);
                }
            }
            Inbound::Challenge(question) => {
                let session = challenge::session(&question);
                match session.and_then(|session| self.registry.mailbox(session)) {
                    None => challenge::answer(&*self.broker, &question, Verdict::Gone),
                    // One that is full is about to end; the asker tries again.
                    Some(mailbox) => drop(mailbox.post(Mail::Challenge(question))),
                }
            }
        }
    }
}
