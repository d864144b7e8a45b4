//! What the switch knows: who holds which name, what is in the inboxes, and which nodes are plugged in.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use crate::broker::inbound::{InboundQueue, Line};
use crate::broker::{
    Confirmed, Entry, Envelope, Holder, Lease, Question, RecordUpdate, Renewal, Room, SendOptions,
    Sent, Terms,
};
use crate::model::{Address, NodeId, Offset, SecretHash, SessionId};

#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) names: HashMap<Address, Name>,
    pub(super) nodes: HashMap<NodeId, Plug>,
    /// Counts how often everything was forgotten.
    pub(super) epoch: watch::Sender<u64>,
    pub(super) entries: u64,
    /// Names that were taken over from a holder who was believed dead, by which session.
    pub(super) taken: HashMap<Address, SessionId>,
    pub(super) questions: HashMap<u64, oneshot::Sender<Bytes>>,
    /// Where sessions that are bound to no connection are at home, and until when that is believed.
    pub(super) homes: HashMap<SessionId, (Bytes, Instant)>,
    pub(super) asked: u64,
    pub(super) away: bool,
}

#[derive(Debug)]
pub(super) struct Name {
    pub(super) holder: Holder,
    pub(super) until: Instant,
    pub(super) inbox: VecDeque<Kept>,
    /// What the next holder of a resumable session must know.
    pub(super) record: Option<Record>,
}

/// An entry, and how many bytes it takes where it is kept.
#[derive(Debug)]
pub(super) struct Kept {
    pub(super) entry: Entry,
    pub(super) size: usize,
}

#[derive(Debug)]
pub(super) struct Record {
    pub(super) hash: SecretHash,
    pub(super) confirmed: Confirmed,
    pub(super) notes: HashMap<String, String>,
}

#[derive(Debug)]
pub(super) struct Plug {
    pub(super) inbound: Arc<InboundQueue>,
    pub(super) http: mpsc::Sender<Question>,
    pub(super) until: Instant,
}

/// A node hangs on its switch by one line, which never breaks.
pub(super) const LINE: Line = Line(0);

impl State {
    pub(super) fn live(&self, address: &Address) -> Option<&Name> {
        self.names
            .get(address)
            .filter(|name| name.until > Instant::now())
    }

    pub(super) fn alive(&self, node: &NodeId, now: Instant) -> bool {
        self.nodes.get(node).is_some_and(|plug| plug.until > now)
    }

    pub(super) fn put(
        &mut self,
        lease: &Lease,
        node: &NodeId,
        terms: Terms,
        record: Option<Record>,
    ) {
        let until = Instant::now() + terms.user_ttl;
        let name = Name {
            holder: lease.held_by(node),
            until,
            inbox: VecDeque::new(),
            record,
        };
        self.names.insert(lease.address.clone(), name);
    }

    pub(super) fn renew(&mut self, lease: &Lease, node: &NodeId, terms: Terms) -> Renewal {
        let (now, ours) = (Instant::now(), lease.held_by(node));
        let live = self.names.get_mut(&lease.address);
        let Some(name) = live.filter(|name| name.until > now) else {
            let taken = self.taken.get(&lease.address);
            if taken.is_some_and(|taken| *taken != lease.session) {
                return Renewal::Lost;
            }
            self.put(lease, node, terms, None);
            return Renewal::Regained;
        };
        if name.holder.session != ours.session {
            return Renewal::Lost;
        }
        if name.holder.generation > ours.generation {
            return Renewal::Replaced;
        }
        // The same connection, perhaps with other flags.
        name.holder = ours;
        name.until = now + terms.user_ttl;
        if lease.flags.resumable && name.record.is_none() {
            Renewal::Regained
        } else {
            Renewal::Mine
        }
    }

    pub(super) fn send(&mut self, to: &Address, options: &SendOptions, envelope: Envelope) -> Sent {
        let now = Instant::now();
        let Some(name) = self.names.get_mut(to).filter(|name| name.until > now) else {
            return Sent::Absent;
        };
        let holder = name.holder.clone();
        if options
            .meant()
            .is_some_and(|session| session != holder.session)
        {
            return Sent::Absent;
        }
        let size = envelope.encode().len();
        let is_full = holder.flags.resumable
            && !options.always
            && !fits(&name.inbox, envelope.from.session, size);
        if is_full {
            return Sent::Full(holder);
        }
        let plug = self.nodes.get(&holder.node);
        if !holder.flags.resumable && plug.is_none_or(|plug| !plug.inbound.listens(LINE)) {
            return Sent::Unheard(holder);
        }
        if !holder.flags.resumable {
            if let Some(plug) = plug {
                plug.inbound.direct(LINE, holder.session, vec![envelope]);
            }
            return Sent::To(holder);
        }
        self.entries += 1;
        let entry = Entry {
            id: Offset {
                millis: self.entries,
                sequence: 0,
            },
            envelope,
        };
        name.inbox.push_back(Kept {
            entry: entry.clone(),
            size,
        });
        if let Some(plug) = plug {
            plug.inbound
                .push(LINE, holder.session, holder.generation, vec![entry]);
        }
        Sent::To(holder)
    }
}

impl Name {
    pub(super) fn note(&mut self, notes: RecordUpdate) {
        if let Some((hash, _)) = notes.anew {
            self.record = Some(Record {
                hash,
                confirmed: Confirmed::default(),
                notes: HashMap::new(),
            });
        }
        let Some(record) = &mut self.record else {
            return;
        };
        if let Some(confirmed) = notes.confirmed {
            record.confirmed = confirmed;
            self.inbox.retain(|kept| kept.entry.id > confirmed.all);
        }
        record.notes.extend(notes.set);
        for field in notes.unset {
            record.notes.remove(&field);
        }
    }

    pub(super) fn after(&self, last: Offset) -> Vec<Entry> {
        let entries = self.inbox.iter().map(|kept| &kept.entry);
        entries.filter(|entry| entry.id > last).cloned().collect()
    }
}

/// Whether there is room for so many bytes of this sender beside what is kept.
fn fits(inbox: &VecDeque<Kept>, sender: SessionId, size: usize) -> bool {
    let room = Room::INBOX;
    let (mut entries, mut bytes, mut share) = (1, size, Room::weight(size));
    for Kept { entry, size } in inbox {
        entries += 1;
        bytes += size;
        if entry.envelope.from.session == sender {
            share += Room::weight(*size);
        }
    }
    entries <= room.entries && bytes <= room.bytes && share <= room.share
}
