//! The names of all keys and channels. All keys of one user share a hash tag, so they are in one slot.

use std::sync::{Arc, Mutex, PoisonError};

use hashbrown::HashMap;

use super::request::Destination;
use crate::model::{Address, NodeId, Realm, SessionId};

/// Formats names under one prefix, so that deployments can share a Redis.
#[derive(Clone, Debug)]
pub(super) struct Keys {
    prefix: String,
}

impl Keys {
    pub(super) fn new(prefix: &str) -> Self {
        Self {
            prefix: prefix.to_owned(),
        }
    }

    /// A user's keys as scripts take them: presence lease, inbox, session record, and who last claimed the name over a
    /// dead holder.
    pub(super) fn of(&self, address: &Address) -> [String; 4] {
        let address = address.to_string();
        ['p', 'i', 's', 't'].map(|kind| self.of_user(kind, &address))
    }

    /// For whom a free name is reserved.
    pub(super) fn reservation(&self, address: &Address) -> String {
        self.of_user('r', &address.to_string())
    }

    /// Who may call a user, also while nobody has the name.
    pub(super) fn callers(&self, address: &Address) -> String {
        self.of_user('b', &address.to_string())
    }

    /// The locator of an HTTP session.
    pub(super) fn home(&self, session: SessionId) -> String {
        self.of_user('l', &session.to_string())
    }

    /// A node's lease. The leases of all nodes are in one slot.
    pub(super) fn node(&self, node: &NodeId) -> String {
        format!("{}{{n}}:{node}", self.prefix)
    }

    /// What the nodes report of the store, in the slot of their leases.
    pub(super) fn epoch(&self) -> String {
        format!("{}e:{{n}}", self.prefix)
    }

    /// The nodes that beat lately, in the slot of their leases.
    pub(super) fn members(&self) -> String {
        format!("{}m:{{n}}", self.prefix)
    }

    /// A part of the log of events.
    pub(super) fn events(&self, part: &str) -> String {
        format!("{}{{w}}:{part}", self.prefix)
    }

    /// What is open on a node, for webhooks.
    pub(super) fn opened(&self, node: &NodeId) -> String {
        format!("{}{{w}}:o:{node}", self.prefix)
    }

    /// The end of a session, or the state of a call, for webhooks.
    pub(super) fn happened(&self, of: &str) -> String {
        format!("{}{{w}}:x:{of}", self.prefix)
    }

    /// What is revoked, and when each revocation ends.
    pub(super) fn revocations(&self) -> [String; 2] {
        ["b", "e"].map(|part| format!("{}{{v}}:{part}", self.prefix))
    }

    /// A user's presence lease.
    pub(super) fn presence(&self, address: &Address) -> String {
        self.of_user('p', &address.to_string())
    }

    /// A pattern for the presence leases of a realm, and how many bytes precede the name in each.
    pub(super) fn presences(&self, realm: &Realm) -> (String, usize) {
        let start = format!("{}p:{{{}/", self.prefix, realm.encoded());
        (glob(&start) + "*", start.len())
    }

    /// A user's channel.
    pub(super) fn channel(&self, address: &Address) -> String {
        self.of_user('c', &address.to_string())
    }

    /// The names that a signal needs. Encodes the address once.
    fn destination(&self, address: &Address) -> Destination {
        let address = address.to_string();
        Destination {
            presence: self.of_user('p', &address),
            inbox: self.of_user('i', &address),
            channel: self.of_user('c', &address),
        }
    }

    fn of_user(&self, kind: char, address: &str) -> String {
        let mut name = String::with_capacity(self.prefix.len() + address.len() + 4);
        name.push_str(&self.prefix);
        name.push(kind);
        name.push_str(":{");
        name.push_str(address);
        name.push('}');
        name
    }

    /// A node's own channel.
    pub(super) fn node_channel(&self, node: &NodeId) -> String {
        format!("{}h:{node}", self.prefix)
    }
}

/// A glob pattern that matches exactly this text.
fn glob(text: &str) -> String {
    let is_special = |character| matches!(character, '*' | '?' | '[' | ']' | '^' | '-' | '\\');
    let mut pattern = String::new();
    for character in text.chars() {
        if is_special(character) {
            pattern.push('\\');
        }
        pattern.push(character);
    }
    pattern
}

/// Recently formatted destinations. A receiver of one signal is likely to get the next, and formatting its names costs
/// as much as all the rest.
#[derive(Debug, Default)]
pub(super) struct DestinationCache {
    /// Held for a map operation.
    by_address: Mutex<HashMap<Address, Arc<Destination>>>,
}

impl DestinationCache {
    /// The cache is cleared when it holds so many.
    const CAPACITY: usize = 4096;

    /// The names that a signal to this user needs.
    pub(super) fn find(&self, keys: &Keys, address: &Address) -> Arc<Destination> {
        let mut known = self
            .by_address
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = known.get(address) {
            return Arc::clone(known);
        }
        let destination = Arc::new(keys.destination(address));
        if known.len() >= Self::CAPACITY {
            known.clear();
        }
        known.insert(address.clone(), Arc::clone(&destination));
        destination
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::UserName;

    #[test]
    fn names_are_as_designed() {
        let keys = Keys::new("sb:");
        let user = Address::new(Realm::default(), UserName::parse("UserA").unwrap());
        assert_eq!(keys.presence(&user), "sb:p:{/UserA}");
        assert_eq!(
            keys.of(&user),
            [
                "sb:p:{/UserA}",
                "sb:i:{/UserA}",
                "sb:s:{/UserA}",
                "sb:t:{/UserA}"
            ]
        );
        assert_eq!(keys.channel(&user), "sb:c:{/UserA}");
        assert_eq!(keys.node(&NodeId::known("n.1")), "sb:{n}:n.1");
        assert_eq!(keys.node_channel(&NodeId::known("n.1")), "sb:h:n.1");
    }

    #[test]
    fn user_names_cannot_forge_a_hash_tag() {
        let keys = Keys::new("sb:");
        let user = Address::new(
            Realm::new("a}b"),
            UserName::parse("{x}*:\u{1f600}").unwrap(),
        );
        let key = keys.presence(&user);
        assert_eq!(key.matches(['{', '}', '*', ':']).count(), 4, "{key}");
    }
}
