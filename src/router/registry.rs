//! The sessions of this node: the names they hold, and their mailboxes.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hashbrown::HashMap;
use tokio::sync::oneshot;

use super::Client;
use super::mailbox::{Mail, MailboxSender};
use crate::broker::Lease;
use crate::bugs::{self, Bug};
use crate::model::{Address, Claims, Names, SessionId};

/// Behind a sync lock: every critical section is a few map operations. Nobody posts or waits while holding it.
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
    /// Known once the login is complete.
    client: Option<Client>,
    /// Notified when the session's barrier comes back.
    barrier: Option<oneshot::Sender<()>>,
}

#[derive(Debug)]
struct LocalHolder {
    session: SessionId,
    generation: u32,
    /// Who may call the user; `None` for everybody.
    callable_by: Option<Names>,
    /// A resumable session is reached through its inbox only.
    resumable: bool,
    /// Set when the barrier has come back. Until then the login is not complete, and the user counts as absent.
    reachable: bool,
    mailbox: MailboxSender,
}

/// Where to deliver to a user.
#[derive(Debug)]
pub(super) enum LocalRoute {
    /// To this plain session of this node, which only these may call.
    Here(SessionId, Option<Names>, MailboxSender),
    /// Nowhere yet: the user's login on this node is not complete.
    Arriving,
    /// Through the broker: the user is elsewhere, or has an inbox.
    Elsewhere,
}

impl Registry {
    /// Registers a session that tries to log in. Its mailbox can receive, but its name does not point to it yet. An
    /// earlier connection of the same session is told that it is replaced.
    pub(super) fn arrive(&self, lease: &Lease, mailbox: MailboxSender) {
        let entry = Entry {
            lease: lease.clone(),
            mailbox,
            client: None,
            barrier: None,
        };
        let before = {
            let mut state = self.lock();
            let known = state.sessions.get(&lease.session);
            if known.is_some_and(|known| known.lease.generation > lease.generation) {
                // A newer connection of the session arrived first.
                let _ = entry.mailbox.post(Mail::Replaced(lease.generation + 1));
                return;
            }
            state.sessions.insert(lease.session, entry)
        };
        if let Some(before) = before {
            // A session with a full mailbox ends anyway.
            let _ = before.mailbox.post(Mail::Replaced(lease.generation));
        }
    }

    /// Points the name to the session that has won it. If another session of this node held the name, its lease expired
    /// unnoticed: it is told. Returns the receiver for the session's barrier.
    pub(super) fn claimed(&self, lease: &Lease) -> oneshot::Receiver<()> {
        let (sender, back) = oneshot::channel();
        let mut state = self.lock();
        let known = state.sessions.get_mut(&lease.session);
        if let Some(entry) = known.filter(|known| known.lease.generation == lease.generation) {
            entry.barrier = Some(sender);
            let seated = LocalHolder {
                session: lease.session,
                generation: lease.generation,
                callable_by: lease.callable_by.clone(),
                resumable: lease.flags.resumable,
                reachable: false,
                mailbox: entry.mailbox.clone(),
            };
            let before = state.holders.insert(lease.address.clone(), seated);
            drop(state);
            if let Some(loser) = before.filter(|before| before.session != lease.session) {
                // A session with a full mailbox ends anyway.
                let _ = loser.mailbox.post(Mail::NameLost);
            }
        }
        back
    }

    /// The receiver for a barrier of this session.
    pub(super) fn expect_barrier(&self, lease: &Lease) -> oneshot::Receiver<()> {
        let (sender, back) = oneshot::channel();
        if let Some(entry) = self.lock().sessions.get_mut(&lease.session) {
            entry.barrier = Some(sender);
        }
        back
    }

    /// The session's barrier came back. From now on sessions of this node reach it directly.
    pub(super) fn barrier(&self, session: SessionId) {
        let mut state = self.lock();
        let State { sessions, holders } = &mut *state;
        let Some(entry) = sessions.get_mut(&session) else {
            return;
        };
        let Some(waiter) = entry.barrier.take() else {
            return;
        };
        // The name may have gone to the next session meanwhile, which waits for its own barrier.
        let holder = holders.get_mut(&entry.lease.address);
        if let Some(holder) = holder.filter(|holder| holder.session == session) {
            holder.reachable = true;
        }
        drop(state);
        // If the login has given up, nobody waits any more.
        let _ = waiter.send(());
    }

    /// Stops local delivery by name and the renewal of the lease. The mailbox still receives what is addressed to the
    /// session.
    pub(super) fn release_name(&self, lease: &Lease) {
        let mut state = self.lock();
        if state.holders.get(&lease.address).is_some_and(|holder| {
            (holder.session, holder.generation) == (lease.session, lease.generation)
        }) {
            state.holders.remove(&lease.address);
        }
    }

    /// Removes this connection of the session.
    pub(super) fn remove(&self, lease: &Lease) {
        self.release_name(lease);
        let mut state = self.lock();
        let known = state.sessions.get(&lease.session);
        if known.is_some_and(|known| known.lease.generation == lease.generation) {
            state.sessions.remove(&lease.session);
        }
    }

    /// Records how the client of a session is connected. What was recorded first says since when.
    pub(super) fn describe(&self, lease: &Lease, client: Client) {
        let mut state = self.lock();
        let entry = state.sessions.get_mut(&lease.session);
        if let Some(entry) = entry.filter(|entry| entry.lease.generation == lease.generation) {
            let since = entry.client.as_ref().map(|known| known.since);
            entry.client = Some(Client {
                since: since.unwrap_or(client.since),
                ..client
            });
        }
    }

    /// Calls `with` on each session that is logged in.
    pub(super) fn each(&self, mut with: impl FnMut(&Lease, &Client)) {
        for entry in self.lock().sessions.values() {
            if let Some(client) = &entry.client {
                with(&entry.lease, client);
            }
        }
    }

    /// The lease of a session that is logged in, and how its client is connected.
    pub(super) fn described(&self, session: SessionId) -> Option<(Lease, Client)> {
        let state = self.lock();
        let entry = state.sessions.get(&session)?;
        Some((entry.lease.clone(), entry.client.clone()?))
    }

    /// Marks the session as detached and calls `with` on the changed lease. The lock is held meanwhile, as in
    /// [`with_leases`](Self::with_leases), so no renewal of the attached lease can follow.
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
                let callable_by = holder.callable_by.clone();
                LocalRoute::Here(holder.session, callable_by, holder.mailbox.clone())
            }
            Some(_) => LocalRoute::Arriving,
            None => LocalRoute::Elsewhere,
        }
    }

    /// What the token of the session says that has this name on this node.
    pub(super) fn claims_of(&self, address: &Address) -> Option<Arc<Claims>> {
        let state = self.lock();
        let entry = state.sessions.get(&state.holders.get(address)?.session)?;
        entry.client.as_ref()?.claims.clone()
    }

    pub(super) fn mailbox(&self, session: SessionId) -> Option<MailboxSender> {
        let state = self.lock();
        Some(state.sessions.get(&session)?.mailbox.clone())
    }

    /// The mailboxes of all sessions.
    pub(super) fn mailboxes(&self) -> Vec<MailboxSender> {
        let state = self.lock();
        let entries = state.sessions.values();
        entries.map(|entry| entry.mailbox.clone()).collect()
    }

    /// Calls `with` on the leases of the sessions in one group of `of` that hold a name. The lock is held meanwhile:
    /// the release of a name that follows takes its place in the broker's order behind whatever `with` began.
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
        let leases = seated.filter_map(|holder| {
            let entry = state.sessions.get(&holder.session)?;
            (entry.lease.generation == holder.generation).then(|| entry.lease.clone())
        });
        with(leases.collect())
    }

    /// How many sessions hold a name.
    pub(super) fn logged_in(&self) -> usize {
        self.lock().holders.len()
    }

    /// Delivers inbox entries that were pushed to a generation of the session. If that generation is newer than the one
    /// on this node, another node has taken the session over, and the entries are its.
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
            // The entries are in the inbox. A session that was just resumed reads it anyway; one whose resume the store
            // has lost must read it now.
            std::cmp::Ordering::Less => Mail::Gap,
        };
        // A full mailbox ends its session.
        let _ = mailbox.post(mail);
    }

    /// Posts to a session. True if it is here and accepts the mail.
    pub(super) fn post(&self, session: SessionId, mail: Mail) -> bool {
        self.mailbox(session)
            .is_some_and(|mailbox| mailbox.post(mail).is_ok())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
