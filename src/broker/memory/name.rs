//! A name in the in-memory store: its lease, its inbox and the record of its session.

use std::collections::{HashMap, VecDeque};

use tokio::time::Instant;

use crate::broker::{Confirmed, Entry, Holder, InboxLimits, RecordUpdate};
use crate::model::{Offset, SecretHash, SessionId};

#[derive(Debug)]
pub(super) struct Name {
    pub(super) holder: Holder,
    /// When the lease expires.
    pub(super) until: Instant,
    inbox: VecDeque<Stored>,
    /// The record of a resumable session.
    pub(super) record: Option<Record>,
}

/// An entry of an inbox, with its encoded size in bytes.
#[derive(Debug)]
struct Stored {
    entry: Entry,
    size: usize,
}

#[derive(Debug)]
pub(super) struct Record {
    pub(super) hash: SecretHash,
    pub(super) confirmed: Confirmed,
    pub(super) fields: HashMap<String, String>,
}

impl Name {
    /// A name with an empty inbox.
    pub(super) fn new(holder: Holder, until: Instant, record: Option<Record>) -> Self {
        Self {
            holder,
            until,
            inbox: VecDeque::new(),
            record,
        }
    }

    /// Appends an entry of so many encoded bytes.
    pub(super) fn append(&mut self, entry: Entry, size: usize) {
        self.inbox.push_back(Stored { entry, size });
    }

    /// Applies an update. Without a record the store has lost it: the holder learns that by its next renewal, and
    /// rewrites the record.
    pub(super) fn save(&mut self, update: RecordUpdate) {
        if let Some((hash, _)) = update.anew {
            self.record = Some(Record {
                hash,
                confirmed: Confirmed::default(),
                fields: HashMap::new(),
            });
        }
        let Some(record) = &mut self.record else {
            return;
        };
        if let Some(confirmed) = update.confirmed {
            record.confirmed = confirmed;
            self.inbox.retain(|stored| stored.entry.id > confirmed.all);
        }
        record.fields.extend(update.set);
        for field in update.unset {
            record.fields.remove(&field);
        }
    }

    /// The inbox entries after `last`.
    pub(super) fn after(&self, last: Offset) -> Vec<Entry> {
        let entries = self.inbox.iter().map(|stored| &stored.entry);
        entries.filter(|entry| entry.id > last).cloned().collect()
    }

    /// Whether the inbox has room for so many more bytes of this sender. `send.lua` counts in the same way.
    pub(super) fn fits(&self, sender: SessionId, size: usize) -> bool {
        let limits = InboxLimits::DEFAULT;
        let (mut entries, mut bytes) = (1, size);
        let mut all = InboxLimits::weight(size);
        let mut own = all;
        for Stored { entry, size } in &self.inbox {
            let weight = InboxLimits::weight(*size);
            entries += 1;
            bytes += size;
            all += weight;
            if entry.envelope.from.session == sender {
                own += weight;
            }
        }
        entries <= limits.entries && bytes <= limits.bytes && limits.is_fair(own, all)
    }
}
