//! Watches the processes during a run: liveness, memory, keys without a time to live, and stalls of this process
//! itself.

use std::net::SocketAddr;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tokio::time::{sleep, timeout};

use testing::process::resident_kib;

use crate::Outcome;
use crate::cluster::{TTL, View, Views, http_status};
use crate::history::{History, Kind};

const TICK: Duration = Duration::from_millis(50);
/// After a longer stall, nothing that depends on time can be checked.
const STALL: Duration = Duration::from_millis(600);
const MEMORY_KIB: u64 = 200 * 1024;
const LONGEST_LIFE: Duration = Duration::from_mins(10);

/// Records when this process gets no CPU.
pub(crate) async fn notice_stalls(history: Arc<History>) {
    loop {
        let before = history.now();
        sleep(TICK).await;
        if history.now().saturating_sub(before) > TICK + STALL {
            history.trouble(Kind::Stall, None, before);
        }
    }
}

fn view(views: &Views, node: usize) -> Option<View> {
    views.lock().unwrap_or_else(PoisonError::into_inner)[node]
}

/// I9 and I8: a running node answers `/livez`, and its memory stays bounded.
pub(crate) async fn watch_node(history: Arc<History>, views: Views, node: usize) {
    let mut failures = 0;
    let mut too_large = 0;
    loop {
        sleep(Duration::from_millis(250)).await;
        let Some(before) = view(&views, node).filter(|view| view.running && !view.frozen) else {
            failures = 0;
            continue;
        };
        let status = http_status(before.admin, "/livez", Duration::from_secs(1)).await;
        let same = view(&views, node).is_some_and(|now| now.pid == before.pid && !now.frozen);
        if !same || status == Some(200) {
            failures = 0;
        } else {
            failures += 1;
        }
        // A single failure may be a busy machine.
        if failures == 3 {
            let words = format!("node {node} answers /livez with {status:?}");
            history.found(9, words);
        }
        let kib = resident_kib(before.pid).unwrap_or_default();
        if kib > MEMORY_KIB {
            too_large += 1;
            if too_large == 1 {
                history.found(8, format!("node {node} takes {} MiB", kib / 1024));
            }
        }
    }
}

/// Keys with a wrong time to live, and the number of presence keys.
pub(crate) async fn look_at_keys(redis: SocketAddr) -> Option<(Vec<String>, usize)> {
    timeout(Duration::from_secs(2), read_keys(redis))
        .await
        .ok()?
        .ok()
}

async fn read_keys(redis: SocketAddr) -> Outcome<(Vec<String>, usize)> {
    let client = redis::Client::open(format!("redis://{redis}"))?;
    let mut connection = client.get_multiplexed_async_connection().await?;
    let keys: Vec<String> = redis::cmd("KEYS")
        .arg("sb:*")
        .query_async(&mut connection)
        .await?;
    let mut pipe = redis::pipe();
    for key in &keys {
        pipe.cmd("PTTL").arg(key);
    }
    let lives: Vec<i64> = pipe.query_async(&mut connection).await?;
    let presences = keys.iter().filter(|key| key.starts_with("sb:p:")).count();
    let mut wrong = Vec::new();
    for (key, life) in keys.iter().zip(lives) {
        let longest = if key.starts_with("sb:p:") {
            TTL
        } else {
            LONGEST_LIFE
        };
        if life == -1 {
            wrong.push(format!("{key} has no end"));
        } else if life > i64::try_from(longest.as_millis())? {
            wrong.push(format!("{key} lives for {life} ms"));
        }
    }
    Ok((wrong, presences))
}

/// Checks I6 repeatedly. The address of Redis may change.
pub(crate) async fn watch_keys(
    history: Arc<History>,
    redis: tokio::sync::watch::Receiver<SocketAddr>,
) {
    let mut known = std::collections::HashSet::new();
    loop {
        sleep(Duration::from_millis(700)).await;
        let address = *redis.borrow();
        for wrong in look_at_keys(address).await.unwrap_or_default().0 {
            if known.insert(wrong.split(" lives").next().unwrap_or_default().to_owned()) {
                history.found(6, wrong);
            }
        }
    }
}
