//! The sessions of this node: who of them has which name, and the mailbox of each.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

use super::mailbox::{Mail, Mailbox};
use crate::fabric::Lease;
use crate::model::{Address, SessionId};

/// A sync lock: every critical section is a few map operations, and nobody posts or waits inside.
#[derive(Debug, Default)]
pub(super) struct Registry {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    sessions: HashMap<SessionId, Entry>,
    seats: HashMap<Address, Seated>,
}

#[derive(Debug)]
struct Entry {
    lease: Lease,
    mailbox: Mailbox,
    /// Told when the barrier of the login comes back.
    barrier: Option<oneshot::Sender<()>>,
}

#[derive(Debug)]
struct Seated {
    session: SessionId,
    /// From the barrier on; until then the user is not here yet.
    reachable: bool,
    mailbox: Mailbox,
}

/// Where a user is, seen from this node.
#[derive(Debug)]
pub(super) enum Whereabouts {
    /// In this node.
    Here(SessionId, Mailbox),
    /// In this node, but its login is not answered yet.
    Arriving,
    /// Not in this node.
    Elsewhere,
}

impl Registry {
    /// A session that tries to log in: mail can reach it, its name does not point to it yet.
    pub(super) fn arrive(&self, lease: &Lease, mailbox: Mailbox) {
        let entry = Entry {
            lease: lease.clone(),
            mailbox,
            barrier: None,
        };
        self.lock().sessions.insert(lease.session, entry);
    }

    /// The session has won its name, perhaps from one of this node whose lease ran out unnoticed: that one is told. Returns what the barrier
    /// will tell.
    pub(super) fn claimed(&self, lease: &Lease) -> oneshot::Receiver<()> {
        let (sender, back) = oneshot::channel();
        let mut state = self.lock();
        if let Some(entry) = state.sessions.get_mut(&lease.session) {
            entry.barrier = Some(sender);
            let seated = Seated {
                session: lease.session,
                reachable: false,
                mailbox: entry.mailbox.clone(),
            };
            let before = state.seats.insert(lease.address.clone(), seated);
            drop(state);
            if let Some(loser) = before {
                // One that is full ends anyway.
                let _ = loser.mailbox.post(Mail::NameLost);
            }
        }
        back
    }

    /// The barrier came back: from here on users of this node reach it directly.
    pub(super) fn barrier(&self, session: SessionId) {
        let mut state = self.lock();
        let State { sessions, seats } = &mut *state;
        let Some(entry) = sessions.get_mut(&session) else {
            return;
        };
        let Some(waiter) = entry.barrier.take() else {
            return;
        };
        if let Some(seat) = seats.get_mut(&entry.lease.address) {
            seat.reachable = true;
        }
        drop(state);
        // A login that gave up has removed the session, or is about to.
        let _ = waiter.send(());
    }

    /// Nobody reaches the session by its name any more, and its lease is not renewed; mail still does.
    pub(super) fn unseat(&self, lease: &Lease) {
        let mut state = self.lock();
        if state
            .seats
            .get(&lease.address)
            .is_some_and(|seat| seat.session == lease.session)
        {
            state.seats.remove(&lease.address);
        }
    }

    /// The session is no more.
    pub(super) fn remove(&self, lease: &Lease) {
        self.unseat(lease);
        self.lock().sessions.remove(&lease.session);
    }

    pub(super) fn find(&self, address: &Address) -> Whereabouts {
        match self.lock().seats.get(address) {
            Some(seat) if seat.reachable => Whereabouts::Here(seat.session, seat.mailbox.clone()),
            Some(_) => Whereabouts::Arriving,
            None => Whereabouts::Elsewhere,
        }
    }

    pub(super) fn mailbox(&self, session: SessionId) -> Option<Mailbox> {
        self.lock()
            .sessions
            .get(&session)
            .map(|entry| entry.mailbox.clone())
    }

    /// Everybody's mailbox.
    pub(super) fn mailboxes(&self) -> Vec<Mailbox> {
        self.lock()
            .sessions
            .values()
            .map(|entry| entry.mailbox.clone())
            .collect()
    }

    /// Calls `with` on the leases of the seated sessions of one group of `of`, under the lock: a seat that is given back afterwards takes
    /// its place in the fabric's order behind whatever `with` began.
    pub(super) fn with_leases<T>(
        &self,
        group: usize,
        of: usize,
        with: impl FnOnce(Vec<Lease>) -> T,
    ) -> T {
        let state = self.lock();
        let seated = state
            .seats
            .values()
            .filter(|seat| seat.session.group(of) == group);
        with(
            seated
                .filter_map(|seat| state.sessions.get(&seat.session))
                .map(|entry| entry.lease.clone())
                .collect(),
        )
    }

    /// How many sessions are seated.
    pub(super) fn seated(&self) -> usize {
        self.lock().seats.len()
    }

    /// Posts to one session, if it is here.
    pub(super) fn post(&self, session: SessionId, mail: Mail) -> bool {
        self.mailbox(session)
            .is_some_and(|mailbox| mailbox.post(mail).is_ok())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
