use std::sync::Arc;

use super::confirm::{ASK_AFTER, FREE_SILENT};
use super::fields::USER;
use super::*;
use crate::broker::{Confirmed, Flags, Lease, RecordUpdate, Resumed};
use crate::model::{Address, Realm, SessionId};
use crate::router::LocalNode;
use crate::session::state::calls::Calls;
use crate::session::state::dedup::Dedup;

fn name(text: &str) -> UserName {
    UserName::parse(text).unwrap()
}

fn calls() -> Calls {
    Calls::new(
        (SessionId::random(), 0),
        Arc::new(LocalNode::for_tests("n")),
    )
}

fn record() -> Record {
    let secret = Secret::random();
    let hash = secret.hash_for(&Address::new(Realm::default(), name("a")));
    Record::new(Some(secret), hash)
}

fn id(millis: u64) -> Offset {
    Offset {
        millis,
        sequence: 0,
    }
}

/// The record that the next connection restores, if its client has seen everything up to `last`.
fn resumed(notes: &RecordUpdate, last: Offset) -> Record {
    let resumed = Resumed {
        lease: Lease {
            callable_by: None,
            address: Address::new(Realm::default(), name("a")),
            session: SessionId::random(),
            generation: 1,
            flags: Flags::default(),
        },
        confirmed: Confirmed::default(),
        fields: notes.set.clone(),
        missed: false,
    };
    let Record { secret, hash, .. } = record();
    let (mut calls, mut heard) = (calls(), Dedup::default());
    Record::restore(secret, hash, &resumed, Some(last), &mut calls, &mut heard)
}

#[test]
fn a_later_note_says_what_an_earlier_one_may_not_have_said() {
    let (mut record, mut calls, heard) = (record(), calls(), Dedup::default());
    calls.start(&name("b"), 1);
    calls.start(&name("c"), 2);
    let about = |notes: &RecordUpdate, user: &str| {
        let field = format!("{USER}{user}");
        notes.set.iter().any(|(name, _)| *name == field)
    };
    record.change(name("b"));
    let (notes, update) = record.notes(&calls, &heard);
    assert!(about(&notes, "b"));
    let first = record.saving(update);
    record.change(name("c"));
    let (notes, update) = record.notes(&calls, &heard);
    assert!(about(&notes, "b") && about(&notes, "c"));
    let second = record.saving(update);
    record.saved(second, true);
    record.saved(first, false);
    let (notes, update) = record.notes(&calls, &heard);
    assert!(about(&notes, "b"), "it was not written");
    let third = record.saving(update);
    record.saved(third, true);
    let (notes, _) = record.notes(&calls, &heard);
    assert!(!about(&notes, "b") && !about(&notes, "c"), "all is known");
}

#[test]
fn what_was_decided_is_decided_once() {
    let (mut record, calls, heard) = (record(), calls(), Dedup::default());
    for number in 1..=3 {
        record.dealt(id(number), &name("b"), None, number == 2);
    }
    let notes = record.notes(&calls, &heard).0;
    let next = resumed(&notes, id(1));
    let decisions = [1, 2, 3, 4].map(|number| next.decision(id(number)));
    let (tell, silence) = (Decision::Tell, Decision::Silence);
    assert_eq!(decisions, [tell, silence, tell, Decision::None]);
}

#[test]
fn that_something_may_be_missed_is_written_until_the_client_knows() {
    let (mut record, calls, heard) = (record(), calls(), Dedup::default());
    record.has_missed();
    let notes = record.anew(id(1), &calls, &heard).0;
    assert!(resumed(&notes, id(1)).tells_missed());
    assert!(record.tells_missed() && !record.tells_missed());
    let notes = record.notes(&calls, &heard).0;
    assert!(resumed(&notes, id(1)).tells_missed(), "it may not have it");
    record.pinged(7);
    record.ponged(7);
    let notes = record.notes(&calls, &heard).0;
    assert!(!resumed(&notes, id(1)).tells_missed());
}

#[test]
fn whoever_was_heard_is_written_anew_though_there_is_no_call() {
    let (mut record, calls, mut heard) = (record(), calls(), Dedup::default());
    heard.restore(name("b"), SessionId::random(), (0, 7));
    let notes = record.anew(id(1), &calls, &heard).0;
    let about_b = notes.set.iter().find(|(field, _)| field == "u:b");
    assert!(about_b.is_some_and(|(_, value)| value.ends_with(" 0 7")));
}

#[test]
fn what_was_not_written_anew_is_to_be_written_anew() {
    let (mut record, calls, heard) = (record(), calls(), Dedup::default());
    let (_, update) = record.anew(id(1), &calls, &heard);
    let number = record.saving(update);
    record.saved(number, false);
    record.notes(&calls, &heard);
    assert!(record.is_unwritten() && record.has_failed_anew());
    record.anew(id(1), &calls, &heard);
    assert!(!record.is_unwritten());
}

#[test]
fn the_client_is_asked_after_so_many_entries_or_bytes() {
    let mut record = record();
    let mut dealt = 0;
    let mut deal = |record: &mut Record, entries: usize, bytes: usize| {
        for _ in 0..entries {
            dealt += 1;
            record.dealt(id(dealt), &name("b"), None, false);
            record.weighs(bytes);
        }
    };
    deal(&mut record, ASK_AFTER - 1, 10);
    assert!(!record.asks());
    deal(&mut record, 1, 10);
    assert!(record.asks());
    record.pinged(1);
    assert!(!record.asks());
    deal(&mut record, 3, 64 * 1024);
    assert!(!record.asks());
    deal(&mut record, 1, 64 * 1024);
    assert!(record.asks(), "an inbox has room for 16 of them");
    record.pinged(2);
    assert!(!record.asks(), "it is on its way");
}

#[test]
fn once_the_application_confirms_pongs_confirm_nothing() {
    let (mut record, calls, heard) = (record(), calls(), Dedup::default());
    let deal = |record: &mut Record, number| record.dealt(id(number), &name("b"), None, false);
    deal(&mut record, 1);
    record.pinged(1);
    record.app_confirms();
    assert_eq!(record.ponged(1), None);
    deal(&mut record, 2);
    record.pinged(2);
    assert_eq!(record.ponged(2), None);
    let notes = record.notes(&calls, &heard).0;
    let mut next = resumed(&notes, id(1));
    deal(&mut next, 2);
    next.pinged(1);
    assert_eq!(next.ponged(1), None, "the next connection knows");
}

#[test]
fn an_application_that_confirms_something_later_knows_that_it_may_have_missed_something() {
    let mut record = record();
    record.app_confirms();
    record.dealt(id(1), &name("b"), None, false);
    record.has_missed();
    assert!(record.tells_missed());
    record.dealt(id(2), &name("b"), None, false);
    record.confirm(id(1));
    assert_eq!(record.missed, Missed::Told, "that was before");
    record.confirm(id(2));
    assert_eq!(record.missed, Missed::Nothing);
}

/// Otherwise repetitions would fill the inbox of an application that waits for news.
#[test]
fn entries_of_which_no_application_can_know_need_no_confirmation() {
    let mut record = record();
    record.app_confirms();
    record.dealt(id(1), &name("b"), None, false);
    for number in 2..=FREE_SILENT as u64 + 1 {
        record.dealt(id(number), &name("b"), None, true);
    }
    assert!(!record.frees_silent(), "the first one is in the way");
    record.confirm(id(1));
    assert!(record.frees_silent());
    assert!(record.unconfirmed.is_empty());
}
