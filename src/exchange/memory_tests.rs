use std::sync::Arc;

use futures_util::future::ready;

use super::*;
use crate::exchange::nodes::NodeWatch;
use crate::fabric::{Confirmed, Flags, Lease};
use crate::model::{Address, NodeId, Realm};

fn name(text: &str) -> UserName {
    UserName::parse(text).unwrap()
}

fn calls() -> Calls {
    let watch = Arc::<NodeWatch>::default();
    Calls::new(SessionId::random(), NodeId::known("n"), watch)
}

fn memory() -> Memory {
    let secret = Secret::random();
    let hash = secret.hash_for(&Address::new(Realm::default(), name("a")));
    Memory::new(Some(secret), hash)
}

fn id(millis: u64) -> EntryId {
    EntryId {
        millis,
        sequence: 0,
    }
}

/// What the next holder makes of these notes, if its client has seen everything up to `last`.
fn resumed(notes: &Notes, last: EntryId) -> Memory {
    let resumed = Resumed {
        lease: Lease {
            address: Address::new(Realm::default(), name("a")),
            session: SessionId::random(),
            attach: 1,
            flags: Flags::default(),
        },
        confirmed: Confirmed::default(),
        notes: notes.set.clone(),
        missed: false,
    };
    let Memory { secret, hash, .. } = memory();
    let (mut calls, mut heard) = (calls(), Heard::default());
    Memory::restore(secret, hash, &resumed, Some(last), &mut calls, &mut heard)
}

#[tokio::test]
async fn a_later_note_says_what_an_earlier_one_may_not_have_said() {
    let (mut memory, mut calls, heard) = (memory(), calls(), Heard::default());
    calls.start(&name("b"), 1);
    calls.start(&name("c"), 2);
    let about = |notes: &Notes, user: &str| {
        let field = format!("{USER}{user}");
        notes.set.iter().any(|(name, _)| *name == field)
    };
    memory.change(name("b"));
    let (first, written) = memory.notes(&calls, &heard);
    assert!(about(&first, "b"));
    memory.noting(written, false, Box::pin(ready(Err(FabricError::TimedOut))));
    memory.change(name("c"));
    let (second, written) = memory.notes(&calls, &heard);
    assert!(about(&second, "b") && about(&second, "c"));
    memory.noting(written, false, Box::pin(ready(Ok(true))));
    memory.noted().await;
    memory.noted().await;
    let (third, _) = memory.notes(&calls, &heard);
    assert!(!about(&third, "b") && !about(&third, "c"), "all is known");
}

#[tokio::test(start_paused = true)]
async fn what_was_told_and_lost_is_told_again_or_missed_by_who_has_not_seen_it() {
    let (mut memory, calls, heard) = (memory(), calls(), Heard::default());
    let told = [said(1), said(2), said(3)];
    for (number, said) in (1..).zip(told) {
        memory.dealt(id(number), said, &name("b"), false);
    }
    // The store loses all three, and gets the first of them again before that is known.
    let whole_at = Instant::now();
    tokio::time::advance(Duration::from_secs(1)).await;
    memory.dealt(id(11), told[0], &name("b"), true);
    let (notes, _) = memory.anew(id(11), whole_at, &calls, &heard);
    assert_eq!(in_doubt(&notes), Some("2-0 3-0"), "the first is there");
    let misses = |mut next: Memory| {
        next.decision(id(11));
        next.tells_missed()
    };
    assert!(misses(resumed(&notes, id(1))), "2 and 3 may be lost");
    assert!(!misses(resumed(&notes, id(3))), "all was seen");
    memory.dealt(id(12), told[1], &name("b"), true);
    memory.dealt(id(13), told[2], &name("b"), true);
    let (notes, _) = memory.notes(&calls, &heard);
    let mut next = resumed(&notes, id(1));
    let decisions = [11, 12, 13, 14].map(|number| next.decision(id(number)));
    let tell = Decision::Tell;
    assert_eq!(decisions, [Decision::Silence, tell, tell, Decision::None]);
    assert!(!next.tells_missed());
    // What the store had not lost after all is told by its own entry.
    let mut next = resumed(&notes, EntryId::default());
    assert_eq!(next.decision(id(2)), tell);
    let decisions = [11, 12, 13].map(|number| next.decision(id(number)));
    assert_eq!(decisions, [tell, Decision::Silence, tell]);
}

fn in_doubt(notes: &Notes) -> Option<&str> {
    let mut fields = notes.set.iter();
    let found = fields.find(|(field, _)| field == IN_DOUBT);
    found.map(|(_, value)| value.as_str())
}

fn said(n: u64) -> Said {
    Said {
        session: SessionId::random(),
        attach: 0,
        n,
        is_signal: true,
    }
}

#[tokio::test]
async fn what_comes_again_twice_is_told_once() {
    let (mut memory, calls, heard) = (memory(), calls(), Heard::default());
    let told = said(1);
    memory.dealt(id(1), told, &name("b"), false);
    memory.anew(id(1), Instant::now(), &calls, &heard);
    memory.dealt(id(11), told, &name("b"), true);
    memory.dealt(id(12), told, &name("b"), true);
    let (notes, _) = memory.notes(&calls, &heard);
    let mut next = resumed(&notes, EntryId::default());
    let decisions = [11, 12].map(|number| next.decision(id(number)));
    assert_eq!(decisions, [Decision::Tell, Decision::Silence]);
}

#[tokio::test]
async fn what_an_earlier_connection_was_told_and_this_one_never_meets_is_missed() {
    let (mut memory, calls, heard) = (memory(), calls(), Heard::default());
    for number in 1..=3 {
        memory.dealt(id(number), said(number), &name("b"), false);
    }
    let (notes, _) = memory.notes(&calls, &heard);
    let misses = |last, is_lost, met: &[u64]| {
        let mut next = resumed(&notes, id(last));
        if is_lost {
            next.anew(id(last), Instant::now(), &calls, &heard);
        }
        for number in met {
            next.decision(id(*number));
        }
        next.tells_missed()
    };
    assert!(!misses(1, false, &[2, 3, 4]));
    assert!(!misses(1, false, &[]), "a newer connection may meet it");
    assert!(!misses(1, true, &[2, 3]));
    assert!(!misses(3, true, &[]), "it had seen all");
    assert!(misses(1, true, &[2]), "the third is lost");
    assert!(misses(1, true, &[11]), "and comes again, unknown");
}

#[tokio::test]
async fn whoever_was_heard_is_written_anew_though_there_is_no_call() {
    let (mut memory, calls, mut heard) = (memory(), calls(), Heard::default());
    heard.restore(name("b"), SessionId::random(), (0, 7));
    let (notes, _) = memory.anew(id(1), Instant::now(), &calls, &heard);
    let about_b = notes.set.iter().find(|(field, _)| field == "u:b");
    assert!(about_b.is_some_and(|(_, value)| value.ends_with(" 0 7")));
}

#[tokio::test]
async fn what_was_not_written_anew_is_to_be_written_anew() {
    let (mut memory, calls, heard) = (memory(), calls(), Heard::default());
    let (_, users) = memory.anew(id(1), Instant::now(), &calls, &heard);
    memory.noting(users, true, Box::pin(ready(Err(FabricError::TimedOut))));
    let noted = memory.noted().await;
    memory.unwritten(noted);
    memory.notes(&calls, &heard);
    assert!(memory.is_unwritten() && memory.has_failed_anew());
    memory.anew(id(1), Instant::now(), &calls, &heard);
    assert!(!memory.is_unwritten());
}

#[tokio::test]
async fn whatever_may_be_lost_is_written_not_only_the_last() {
    let (mut memory, calls, heard) = (memory(), calls(), Heard::default());
    for number in [1, 20] {
        memory.dealt(id(number), said(number), &name("b"), false);
    }
    let (notes, _) = memory.anew(id(20), Instant::now(), &calls, &heard);
    assert_eq!(in_doubt(&notes), Some("1-0 20-0"));
}
