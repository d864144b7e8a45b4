//! Whom the client of an HTTP session watches, for the node that continues it.
//!
//! Each watched user is a field of the record: what a client changes costs the store no more than what it says.

use std::collections::BTreeSet;

use super::State;
use crate::broker::RecordUpdate;
use crate::model::UserName;

/// Prefix of the record's field of a watched user.
const WATCHED: &str = "p:";
/// Its value.
const IS_WATCHED: &str = "1";

impl State {
    /// The client watches these users, or no longer. Returns the update of the record.
    pub fn watch<'a>(
        &mut self,
        names: impl IntoIterator<Item = &'a UserName>,
        watch: bool,
    ) -> RecordUpdate {
        let mut update = RecordUpdate::default();
        for name in names {
            let is_new = if watch {
                self.watched.insert(name.clone())
            } else {
                self.watched.remove(name)
            };
            if is_new {
                let value = if watch { IS_WATCHED } else { "" };
                update.put(&field(name), value.to_owned());
            }
        }
        update
    }

    /// Whom the client watches.
    pub fn watched(&self) -> &BTreeSet<UserName> {
        &self.watched
    }

    /// By what an earlier connection has noted.
    pub(super) fn restore_watches(&mut self, fields: &[(String, String)]) {
        let names = fields
            .iter()
            .filter_map(|(field, _)| field.strip_prefix(WATCHED));
        self.watched = names
            .filter_map(|name| UserName::known(name).ok())
            .collect();
    }

    /// All of it, for a record that is written anew.
    pub(super) fn noted_watches(&self) -> impl Iterator<Item = (String, String)> {
        let names = self.watched.iter();
        names.map(|name| (field(name), IS_WATCHED.to_owned()))
    }
}

fn field(name: &UserName) -> String {
    format!("{WATCHED}{name}")
}
