//! Plays clients/transcripts.json, whose `about` says what the steps mean.

#![allow(clippy::unwrap_used, missing_docs, unreachable_pub)]

mod player;

use serde_json::Value;

/// What is played at once: all of it would be late on a busy machine.
const AT_ONCE: usize = 8;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_transcripts_are_played() {
    let text = include_str!("../../transcripts.json");
    let all: serde_json::Map<String, Value> = serde_json::from_str(text).unwrap();
    let of_part = |(part, transcripts): (String, Value)| {
        let transcripts = transcripts.as_object().cloned().unwrap_or_default();
        transcripts
            .into_iter()
            .map(move |(title, steps)| (format!("{part}: {title}"), steps))
    };
    let parts = all.into_iter().filter(|(part, _)| part != "about");
    let mut left: Vec<_> = parts.flat_map(of_part).collect();
    assert!(left.len() > 20, "{} transcripts", left.len());
    let (mut playing, mut faults) = (tokio::task::JoinSet::new(), Vec::new());
    loop {
        while playing.len() < AT_ONCE
            && let Some((title, steps)) = left.pop()
        {
            playing.spawn(async move { (player::play(&steps).await, title) });
        }
        match playing.join_next().await {
            None => break,
            Some(played) => {
                if let (Err(fault), title) = played.unwrap() {
                    faults.push(format!("{title}: {fault}"));
                }
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}
