//! Tells what happens to a session, if anybody wants to know.

use std::time::SystemTime;

use super::runner::Runner;
use crate::model::{Fact, LeaveReason, What};

impl Runner {
    /// The session began, or goes on here.
    pub(super) fn tell_begin(&self) {
        self.tell(if self.is_resumed() {
            What::Resumed
        } else {
            What::Started
        });
    }

    /// The session goes on elsewhere.
    pub(super) fn tell_moved(&self) {
        self.tell(What::Moved(self.state.call_sessions()));
    }

    /// The session is over.
    pub(super) fn tell_end(&self, reason: LeaveReason) {
        self.tell(What::Ended(reason));
    }

    pub(super) fn tell(&self, what: What) {
        let facts = &self.router.local().facts;
        if facts.are_wanted() {
            let lease = self.state.lease();
            facts.record(Fact {
                session: lease.session,
                generation: lease.generation,
                address: lease.address.clone(),
                at: SystemTime::now(),
                what,
            });
        }
    }
}
