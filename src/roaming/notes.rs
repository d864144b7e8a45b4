//! How the standing of a conversation is written down in its letterbox.

use std::collections::BTreeSet;

use crate::model::{Address, Realm, SecretHash, UserName};
use crate::session::Standing;

/// Fields of a note.
const TOLD: &str = "told";
const USER: &str = "user";
const PROOF: &str = "proof";
const WATCHED: &str = "watched";

/// What is written; where it has been heard to is the letterbox's own business.
pub(super) fn write(standing: &Standing) -> Vec<(String, String)> {
    let mut notes = Vec::new();
    let mut note = |field: &str, value: String| notes.push((field.to_owned(), value));
    if let Some(told) = standing.told {
        note(TOLD, told.to_string());
    }
    if let Some((name, proof)) = &standing.user {
        note(USER, encoded(name));
        note(PROOF, proof.as_str().to_owned());
    }
    let watched: Vec<String> = standing.watched.iter().map(encoded).collect();
    note(WATCHED, watched.join(" "));
    notes
}

/// What was written.
pub(super) fn standing(notes: &[(String, String)]) -> Standing {
    let watched = find(notes, WATCHED).unwrap_or_default().split(' ');
    let watched: BTreeSet<UserName> = watched.filter_map(decoded).collect();
    let proof = find(notes, PROOF).map(SecretHash::known);
    Standing {
        heard: None,
        told: find(notes, TOLD).and_then(|told| told.parse().ok()),
        user: user(notes).zip(proof),
        watched,
    }
}

/// Who has logged in.
pub(super) fn user(notes: &[(String, String)]) -> Option<UserName> {
    find(notes, USER).and_then(decoded)
}

fn find<'a>(notes: &'a [(String, String)], wanted: &str) -> Option<&'a str> {
    let mut notes = notes.iter();
    let note = notes.find(|(field, _)| field == wanted);
    note.map(|(_, value)| value.as_str())
}

/// Without spaces, as an address.
fn encoded(name: &UserName) -> String {
    Address::new(Realm::default(), name.clone()).to_string()
}

fn decoded(text: &str) -> Option<UserName> {
    text.parse().ok().map(|address: Address| address.name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{EntryId, Secret};

    #[test]
    fn a_standing_survives_its_notes() {
        let name = |text| UserName::parse(text).unwrap();
        let proof = Secret::random().hash_for(&Address::new(Realm::default(), name("a b")));
        let full = Standing {
            heard: None,
            told: Some(EntryId::default().next()),
            user: Some((name("a b/ü"), proof)),
            watched: [name("c d"), name("e")].into(),
        };
        for known in [full, Standing::default()] {
            assert_eq!(standing(&write(&known)), known);
        }
    }
}
