//! The record of a resumable session: what its next holder restores it from.

use super::Lease;
use crate::model::{Offset, SecretHash};

/// The field of a record that says when the session began, in seconds since 1970. [`claim`](super::Broker::claim)
/// writes it.
pub const SINCE: &str = "since";

/// The result of a resume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resume {
    /// The session is ours.
    Won(Box<Resumed>),
    /// There is no such session any more, or its inbox no longer has the entries that the client needs.
    Gone,
    /// The secret is not that of the session.
    Wrong,
    /// The store lost data, and the session's holder may not have rewritten its record yet: try again later.
    Later,
}

/// A session as its last holder left it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resumed {
    /// The new lease.
    pub lease: Lease,
    /// How far the client has confirmed its inbox. All later entries are still there.
    pub confirmed: Confirmed,
    /// The fields of the record.
    pub fields: Vec<(String, String)>,
    /// The record is of an earlier epoch of the store: entries may be lost.
    pub missed: bool,
}

/// How far a client has confirmed its inbox.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Confirmed {
    /// The client has everything up to here; these entries leave the inbox.
    pub all: Offset,
    /// The last confirmed entry that was delivered to the client. The client cannot name an earlier one when it
    /// resumes, and it knows no later one: the entries between `told` and `all` gave it nothing to see.
    pub told: Offset,
}

/// A change of a session's record. The session defines the fields in `set` and `unset`; the broker interprets none of
/// them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecordUpdate {
    /// Fields to set.
    pub set: Vec<(String, String)>,
    /// Fields to delete.
    pub unset: Vec<String>,
    /// How far the client has confirmed.
    pub confirmed: Option<Confirmed>,
    /// Rewrites the whole record, since the store has lost it. Later inbox entries get offsets above this one.
    pub anew: Option<(SecretHash, Offset)>,
}

impl RecordUpdate {
    /// Sets a field, or deletes it if the value is empty.
    pub fn put(&mut self, field: &str, value: String) {
        if value.is_empty() {
            self.unset.push(field.to_owned());
        } else {
            self.set.push((field.to_owned(), value));
        }
    }
}
