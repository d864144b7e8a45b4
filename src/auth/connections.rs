//! Counts the connections of each owner of tokens on this node.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::model::{Claims, Realm};

/// The owner of a token.
type Owner = (Option<Realm>, String);

/// How many connections each owner has whose tokens limit them. Clones share the counts.
#[derive(Clone, Debug, Default)]
pub(super) struct Connections(Arc<Mutex<HashMap<Owner, u32>>>);

/// One connection of an owner; released when dropped.
#[derive(Debug)]
pub struct OwnersPermit {
    connections: Connections,
    owner: Owner,
}

impl Connections {
    /// Counts one connection; `None` if the owner has as many as it may.
    pub(super) fn acquire(&self, claims: &Claims, most: u32) -> Option<OwnersPermit> {
        let owner = (claims.realm.clone(), claims.subject.to_string());
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if counts.get(&owner).copied().unwrap_or_default() >= most {
            return None;
        }
        *counts.entry(owner.clone()).or_default() += 1;
        Some(OwnersPermit {
            connections: self.clone(),
            owner,
        })
    }
}

impl Drop for OwnersPermit {
    fn drop(&mut self) {
        let counts = &self.connections.0;
        let mut counts = counts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.owner) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.owner);
            }
        }
    }
}
