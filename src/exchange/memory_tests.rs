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
    let first = memory.notes(&calls, &heard);
    assert!(about(&first.notes, "b"));
    memory.noting(first, |_| Box::pin(ready(Err(FabricError::TimedOut))));
    memory.change(name("c"));
    let second = memory.notes(&calls, &heard);
    assert!(about(&second.notes, "b") && about(&second.notes, "c"));
    memory.noting(second, |_| Box::pin(ready(Ok(true))));
    memory.noted().await;
    memory.noted().await;
    let third = memory.notes(&calls, &heard).notes;
    assert!(!about(&third, "b") && !about(&third, "c"), "all is known");
}

#[tokio::test]
async fn what_was_decided_is_decided_once() {
    let (mut memory, calls, heard) = (memory(), calls(), Heard::default());
    for number in 1..=3 {
        memory.dealt(id(number), &name("b"), None, number == 2);
    }
    let notes = memory.notes(&calls, &heard).notes;
    let next = resumed(&notes, id(1));
    let decisions = [1, 2, 3, 4].map(|number| next.decision(id(number)));
    let (tell, silence) = (Decision::Tell, Decision::Silence);
    assert_eq!(decisions, [tell, silence, tell, Decision::None]);
}

#[tokio::test]
async fn that_something_may_be_missed_is_written_until_the_client_knows() {
    let (mut memory, calls, heard) = (memory(), calls(), Heard::default());
    memory.has_missed();
    let notes = memory.anew(id(1), &calls, &heard).notes;
    assert!(resumed(&notes, id(1)).tells_missed());
    assert!(memory.tells_missed() && !memory.tells_missed());
    let notes = memory.notes(&calls, &heard).notes;
    assert!(resumed(&notes, id(1)).tells_missed(), "it may not have it");
    memory.pinged(7);
    memory.ponged(7);
    let notes = memory.notes(&calls, &heard).notes;
    assert!(!resumed(&notes, id(1)).tells_missed());
}

#[tokio::test]
async fn whoever_was_heard_is_written_anew_though_there_is_no_call() {
    let (mut memory, calls, mut heard) = (memory(), calls(), Heard::default());
    heard.restore(name("b"), SessionId::random(), (0, 7));
    let notes = memory.anew(id(1), &calls, &heard).notes;
    let about_b = notes.set.iter().find(|(field, _)| field == "u:b");
    assert!(about_b.is_some_and(|(_, value)| value.ends_with(" 0 7")));
}

#[tokio::test]
async fn what_was_not_written_anew_is_to_be_written_anew() {
    let (mut memory, calls, heard) = (memory(), calls(), Heard::default());
    let writing = memory.anew(id(1), &calls, &heard);
    memory.noting(writing, |_| Box::pin(ready(Err(FabricError::TimedOut))));
    let noted = memory.noted().await;
    memory.unwritten(noted);
    memory.notes(&calls, &heard);
    assert!(memory.is_unwritten() && memory.has_failed_anew());
    memory.anew(id(1), &calls, &heard);
    assert!(!memory.is_unwritten());
}
