//! The sessions of this node: who of them has which name, and the mailbox of each.

use std::sync::{Mutex, MutexGuard, PoisonError};

use hashbrown::HashMap;
use tokio::sync::oneshot;

use super::mailbox::{Mail, MailboxSender};
use crate::broker::Lease;
use crate::bugs::{self, Bug};
use crate::model::{Address, SessionId};

/// A sync lock: every critical section is a few map operations, and nobody posts or waits inside.
#[derive(Debug, Default)]
pub(super) struct Registry {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    sessions: HashMap<SessionId, Entry>,
    holders: HashMap<Address, LocalHolder>,
}

#[derive(Debug)]
struct Entry {
    lease: Lease,
    mailbox: MailboxSender,
    /// Told when the barrier of the login comes back.
    barrier: Option<oneshot::Sender<()>>,
}

#[derive(Debug)]
struct LocalHolder {
    session: SessionId,
    generation: u32,
    /// Then it is reached by its inbox, and by nothing else.
    resumable: bool,
    /// From the barrier on; until then the user is not here yet.
    reachable: bool,
    mailbox: MailboxSender,
}

/// Where a user is, seen from this node.
#[derive(Debug)]
pub(super) enum LocalRoute {
    /// In this node.
    Here(SessionId, MailboxSender),
    /// In this node, but its login is not answered yet.
    Arriving,
    /// Not in this node, or only to be reached as if it were not.
    Elsewhere,
}

impl Registry {
    /// A session that tries to log in: mail can reach it, its name does not point to it yet. An earlier connection of it is told.
    pub(super) fn arrive(&self, lease: &Lease, mailbox: MailboxSender) {
        let entry = Entry {
            lease: lease.clone(),
            mailbox,
            barrier: None,
        };
        let before = {
            let mut state = self.lock();
            let known = state.sessions.get(&lease.session);
            if known.is_some_and(|known| known.lease.generation > lease.generation) {
                // It was overtaken on its way here.
                let _ = entry.mailbox.post(Mail::Replaced(lease.generation + 1));
                return;
            }
            state.sessions.insert(lease.session, entry)
        };
        if let Some(before) = before {
            // One that is full ends anyway.
            let _ = before.mailbox.post(Mail::Replaced(lease.generation));
        }
    }

    /// The session has won its name, perhaps from one of this node whose lease ran out unnoticed: that one is told. Returns what the barrier
    /// will tell.
    pub(super) fn claimed(&self, lease: &Lease) -> oneshot::Receiver<()> {
        let (sender, back) = oneshot::channel();
        let mut state = self.lock();
        let known = state.sessions.get_mut(&lease.session);
        if let Some(entry) = known.filter(|known| known.lease.generation == lease.generation) {
            entry.barrier = Some(sender);
            let seated = LocalHolder {
                session: lease.session,
                generation: lease.generation,
                resumable: lease.flags.resumable,
                reachable: false,
                mailbox: entry.mailbox.clone(),
            };
            let before = state.holders.insert(lease.address.clone(), seated);
            drop(state);
            if let Some(loser) = before.filter(|before| before.session != lease.session) {
                // One that is full ends anyway.
                let _ = loser.mailbox.post(Mail::NameLost);
            }
        }
        back
    }

    /// What a barrier will tell that is sent to this session.
    pub(super) fn expect_barrier(&self, lease: &Lease) -> oneshot::Receiver<()> {
        let (sender, back) = oneshot::channel();
        if let Some(entry) = self.lock().sessions.get_mut(&lease.session) {
            entry.barrier = Some(sender);
        }
        back
    }

    /// The barrier came back: from here on users of this node reach it directly.
    pub(super) fn barrier(&self, session: SessionId) {
        let mut state = self.lock();
        let State { sessions, holders } = &mut *state;
        let Some(entry) = sessions.get_mut(&session) else {
            return;
        };
        let Some(waiter) = entry.barrier.take() else {
            return;
        };
        // A session that leaves may see the next one of its name here, which waits for its own.
        let holder = holders.get_mut(&entry.lease.address);
        if let Some(holder) = holder.filter(|holder| holder.session == session) {
            holder.reachable = true;
        }
        drop(state);
        // A login that gave up has removed the session, or is about to.
        let _ = waiter.send(());
    }

    /// Nobody reaches the session by its name any more, and its lease is not renewed; mail still does.
    pub(super) fn release_name(&self, lease: &Lease) {
        let mut state = self.lock();
        if state.holders.get(&lease.address).is_some_and(|holder| {
            (holder.session, holder.generation) == (lease.session, lease.generation)
        }) {
            state.holders.remove(&lease.address);
        }
    }

    /// This connection of the session is no more.
    pub(super) fn remove(&self, lease: &Lease) {
        self.release_name(lease);
        let mut state = self.lock();
        let known = state.sessions.get(&lease.session);
        if known.is_some_and(|known| known.lease.generation == lease.generation) {
            state.sessions.remove(&lease.session);
        }
    }

    /// The session has no connection any more. Calls `with` on its lease as it is from now on, under the lock, as [`with_leases`](Self::with_leases)
    /// does: no renewal of the earlier one comes after it.
    pub(super) fn detach<T>(&self, lease: &mut Lease, with: impl FnOnce(&Lease) -> T) -> T {
        let mut state = self.lock();
        lease.flags.detached = true;
        if let Some(entry) = state.sessions.get_mut(&lease.session)
            && entry.lease.generation == lease.generation
        {
            entry.lease = lease.clone();
        }
        with(lease)
    }

    pub(super) fn find(&self, address: &Address) -> LocalRoute {
        match self.lock().holders.get(address) {
            Some(holder) if holder.resumable => LocalRoute::Elsewhere,
            Some(holder) if holder.reachable => {
                LocalRoute::Here(holder.session, holder.mailbox.clone())
            }
            Some(_) => LocalRoute::Arriving,
            None => LocalRoute::Elsewhere,
        }
    }

    pub(super) fn mailbox(&self, session: SessionId) -> Option<MailboxSender> {
        self.lock()
            .sessions
            .get(&session)
            .map(|entry| entry.mailbox.clone())
    }

    /// Everybody's mailbox.
    pub(super) fn mailboxes(&self) -> Vec<MailboxSender> {
        self.lock()
            .sessions
            .values()
            .map(|entry| entry.mailbox.clone())
            .collect()
    }

    /// Calls `with` on the leases of the seated sessions of one group of `of`, under the lock: a holder that is given back afterwards takes
    /// its place in the broker's order behind whatever `with` began.
    pub(super) fn with_leases<T>(
        &self,
        group: usize,
        of: usize,
        with: impl FnOnce(Vec<Lease>) -> T,
    ) -> T {
        let state = self.lock();
        let seated = state
            .holders
            .values()
            .filter(|holder| holder.session.group(of) == group);
        with(
            seated
                .filter_map(|holder| {
                    let entry = state.sessions.get(&holder.session)?;
                    (entry.lease.generation == holder.generation).then(|| entry.lease.clone())
                })
                .collect(),
        )
    }

    /// How many sessions are seated.
    pub(super) fn logged_in(&self) -> usize {
        self.lock().holders.len()
    }

    /// Hands on what was pushed to this connection of a session. A later one than ours has taken over: the entries are its own.
    pub(super) fn push(
        &self,
        session: SessionId,
        generation: u32,
        entries: Vec<crate::broker::Entry>,
    ) {
        let state = self.lock();
        let Some(known) = state.sessions.get(&session) else {
            return;
        };
        let mailbox = known.mailbox.clone();
        let ours = known.lease.generation;
        drop(state);
        let newest = if bugs::has(Bug::ReplacedUntold) {
            ours
        } else {
            generation
        };
        let mail = match newest.cmp(&ours) {
            std::cmp::Ordering::Equal => Mail::Push(entries),
            std::cmp::Ordering::Greater => Mail::Overtaken(generation),
            // It is in the inbox: a session that was just resumed reads that first, and one whose resume the store has lost has to read it now.
            std::cmp::Ordering::Less => Mail::Gap,
        };
        // One that is full ends its session.
        let _ = mailbox.post(mail);
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
