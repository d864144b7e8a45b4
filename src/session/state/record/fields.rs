//! The stored form of the record's fields.

use std::fmt;

use super::super::call::Call;
use super::super::calls::Calls;
use super::super::dedup::Dedup;
use super::Record;
use crate::broker::{Resumed, SINCE};
use crate::model::{Offset, Secret, SecretHash, SessionId, UserName};

/// The last decided entry, the silent entries, and whether something was missed.
pub(super) const DECIDED: &str = "decided";
pub(super) const SILENT: &str = "silent";
pub(super) const MISSED: &str = "missed";
/// Whether the client's application confirms what it has.
pub(super) const APP_CONFIRMS: &str = "app";
/// Prefix of the field of a user: the last signal from it, and the call with it.
pub(super) const USER: &str = "u:";
/// Prefix of the field of a user to whom a leave is under way.
pub(super) const LEAVE: &str = "l:";
/// Prefix of the fields of received ids, which are filled in turn.
pub(super) const IDS: &str = "ids:";
/// How many such fields there are, and how many ids fill one. Together they hold more ids than one sender may repeat.
pub(super) const IDS_FIELDS: u64 = 32;
pub(super) const IDS_A_FIELD: usize = 16;

/// A leave that may not have arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::session::state) struct Leaving {
    /// The session to leave, if it is known.
    pub(in crate::session::state) only: Option<SessionId>,
    /// The last `n` received from it.
    pub(in crate::session::state) heard: u64,
}

impl Record {
    /// Restores the record, the calls and the deduplication state that an earlier connection saved. `last` is the last
    /// entry that the client says it has.
    pub(in crate::session::state) fn restore(
        secret: Option<Secret>,
        hash: SecretHash,
        resumed: &Resumed,
        last: Option<Offset>,
        calls: &mut Calls,
        heard: &mut Dedup,
    ) -> Self {
        let mut record = Self::new(secret, hash);
        record.confirmed = resumed.confirmed;
        record.seen = last.unwrap_or_default().max(resumed.confirmed.all);
        record.asked_at = record.seen;
        if resumed.missed {
            record.has_missed();
        }
        let mut ids = Vec::new();
        for (field, value) in &resumed.fields {
            match field.as_str() {
                DECIDED => record.decided = value.parse().unwrap_or_default(),
                SILENT => {
                    let ids = value.split(' ').filter_map(|id| id.parse().ok());
                    record.silent = ids.collect();
                }
                MISSED if value == "0" => {}
                MISSED => record.has_missed(),
                APP_CONFIRMS => record.app_confirms = true,
                SINCE => record.since = value.parse().unwrap_or_default(),
                field if field.starts_with(IDS) => {
                    let (number, text) = value.split_once(' ').unwrap_or_default();
                    ids.push((number.parse::<u64>().unwrap_or_default(), text));
                }
                field if field.starts_with(LEAVE) => {
                    let name = field.strip_prefix(LEAVE).map(UserName::parse);
                    if let (Some(Ok(name)), Some(leaving)) = (name, Leaving::read(value)) {
                        record.leaves.insert(name, leaving);
                    }
                }
                field => {
                    let name = field.strip_prefix(USER);
                    let name = name.and_then(|name| UserName::parse(name).ok());
                    if let Some(name) = name {
                        read_user(&name, value, calls, heard);
                    }
                }
            }
        }
        ids.sort_unstable();
        record.ids_fields = ids.last().map_or(0, |(number, _)| number.saturating_add(1));
        // Needs the senders, which are restored now.
        heard.restore_ids(ids.into_iter().map(|(_, text)| text));
        record
    }
}

impl fmt::Display for Leaving {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.only {
            Some(session) => write!(f, "{session} {}", self.heard),
            None => write!(f, "- {}", self.heard),
        }
    }
}

impl Leaving {
    fn read(text: &str) -> Option<Self> {
        let (session, heard) = text.split_once(' ')?;
        let only = session.parse().ok();
        let heard = heard.parse().ok()?;
        Some(Self { only, heard })
    }
}

/// The field of a user: `SESSION GENERATION N` of the last signal, then the call, if there is one.
pub(super) fn written(
    call: Option<&Call>,
    heard: Option<(SessionId, (u32, u64))>,
) -> Option<String> {
    let heard = heard.map_or_else(
        || "- 0 0".to_owned(),
        |(session, (generation, n))| format!("{session} {generation} {n}"),
    );
    match call {
        Some(call) => Some(format!("{heard} {call}")),
        None => (!heard.starts_with('-')).then_some(heard),
    }
}

fn read_user(name: &UserName, value: &str, calls: &mut Calls, heard: &mut Dedup) {
    let mut words = value.split(' ');
    let mut word = || words.next().unwrap_or_default();
    let (session, generation, n) = (word().parse(), word().parse(), word().parse());
    if let (Ok(session), Ok(generation), Ok(n)) = (session, generation, n) {
        heard.restore(name.clone(), session, (generation, n));
    }
    if let Some(call) = Call::read(words) {
        calls.restore(name, call);
    }
}
