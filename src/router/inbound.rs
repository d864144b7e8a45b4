//! Delivers what the broker receives to the sessions of this node.

use std::sync::Arc;

use super::Router;
use super::challenge;
use super::mailbox::Mail;
use crate::broker::{Inbound, Inbox, Verdict};

impl Router {
    /// Service: delivers what the broker receives.
    pub async fn listen(self: Arc<Self>, mut inbox: Inbox) {
        while let Some(inbound) = inbox.recv().await {
            self.deliver(inbound);
        }
    }

    /// Delivers without waiting, so that no session can delay another.
    fn deliver(&self, inbound: Inbound) {
        match inbound {
            // If the session is gone, it has read its inbox when it released its name.
            Inbound::Push {
                session,
                generation,
                entries,
            } => self.registry.push(session, generation, entries),
            // Envelopes for a closed session are dropped: its `leave` has told the sender that the call is over.
            Inbound::Direct { session, envelopes } => {
                if let Some(mailbox) = self.registry.mailbox(session) {
                    for envelope in envelopes {
                        if mailbox.post_or_miss(envelope) {
                            self.local.telemetry.metrics.mailbox_overflowed();
                        }
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
                self.revocations.missed();
                for mailbox in self.registry.mailboxes() {
                    // A full mailbox ends its session.
                    let _ = mailbox.post(Mail::Gap);
                }
            }
            Inbound::Challenge(question) => {
                let session = challenge::session(&question);
                match session.and_then(|session| self.registry.mailbox(session)) {
                    None => challenge::answer(&*self.broker, &question, Verdict::Gone),
                    // A session with a full mailbox is about to end; the asking node tries again.
                    Some(mailbox) => drop(mailbox.post(Mail::Challenge(question))),
                }
            }
        }
    }
}
