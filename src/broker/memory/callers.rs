//! Who may call users, also while nobody holds their names.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

use crate::broker::{Envelope, SendOptions, Sent};
use crate::model::{Address, Names};

/// How many there are before those that have expired are looked for.
const SOME: usize = 1024;

/// The lists, and when each expires.
#[derive(Debug, Default)]
pub(super) struct Callers {
    lists: HashMap<Address, (Names, Instant)>,
    /// How many there were after the last look.
    kept: usize,
}

impl Callers {
    pub(super) fn set(&mut self, address: &Address, names: Option<&Names>, ttl: Duration) {
        let now = Instant::now();
        let Some(names) = names else {
            self.lists.remove(address);
            return;
        };
        if self.lists.len() >= 2 * self.kept.max(SOME) {
            self.lists.retain(|_, (_, until)| *until > now);
            self.kept = self.lists.len();
        }
        self.lists
            .insert(address.clone(), (names.clone(), now + ttl));
    }

    /// The outcome of an envelope to a name that nobody holds.
    pub(super) fn absent(&self, to: &Address, options: &SendOptions, envelope: &Envelope) -> Sent {
        let known = self
            .lists
            .get(to)
            .filter(|(_, until)| *until > Instant::now());
        let may_know = options.always || options.in_call || options.meant().is_some();
        match known {
            Some((names, _)) if !may_know && !names.cover(&envelope.from.address.name) => {
                Sent::NotCallable
            }
            _ => Sent::Absent,
        }
    }

    pub(super) fn clear(&mut self) {
        self.lists.clear();
    }
}
