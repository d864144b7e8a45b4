//! A resumable client that sends numbered messages at a steady pace, and repeats in order what was refused for now.
//! Until it repeats, it goes on with new ones: the server must hold them back.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use testing::{Client, Node, Redis, eventually};

/// Refusals after which a client repeats.
const FOR_NOW: [&str; 3] = ["unavailable", "inbox_full", "rate_limited"];
/// How many messages may be unanswered.
const WINDOW: usize = 64;
/// The pause between two messages: the server allows 200 a second.
const PACE: Duration = Duration::from_millis(6);

/// What happened to a talker.
#[derive(Clone, Debug, Default)]
pub struct Log {
    /// How many messages were begun and acknowledged.
    pub begun: u64,
    pub acked: u64,
    /// How often a message was refused for now.
    pub repeats: u64,
    /// What was refused for good.
    pub refused: Vec<Value>,
    pub heard: Vec<u64>,
    pub leaves: Vec<Value>,
    pub missed: bool,
}

/// One such client, in a task of its own.
pub struct Talker {
    pub name: String,
    log: Arc<Mutex<Log>>,
    talks: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Drop for Talker {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Task {
    client: Client,
    to: String,
    every: Duration,
    log: Arc<Mutex<Log>>,
    talks: watch::Receiver<bool>,
    /// The numbers that are not acknowledged, and whether they are under way.
    open: BTreeMap<u64, bool>,
    not_before: Instant,
    /// When the pace allows the next one.
    paced_at: Instant,
    /// Something was refused. Before it is repeated, what is under way must be answered.
    is_refused: bool,
    /// The last one that was ever sent.
    newest: u64,
}

/// Two nodes, and pairs of clients who talk to each other across them; each pair is in a call if `calls` says so.
pub async fn pairs(
    redis: &Redis,
    count: usize,
    every: Duration,
    calls: impl Fn(usize) -> bool,
) -> ([Node; 2], Vec<Talker>) {
    let nodes = [
        Node::start(Some(redis), &[]).await,
        Node::start(Some(redis), &[]).await,
    ];
    let at = [nodes[0].address, nodes[1].address];
    let mut talkers = Vec::new();
    for number in 0..count {
        let names = [format!("a{number}"), format!("b{number}")];
        talkers.extend(pair(at, [&names[0], &names[1]], every, calls(number)).await);
    }
    (nodes, talkers)
}

async fn pair(at: [SocketAddr; 2], names: [&str; 2], every: Duration, calls: bool) -> [Talker; 2] {
    let mut one = Client::login_resumable(at[0], names[0]).await;
    let mut other = Client::login_resumable(at[1], names[1]).await;
    if calls {
        one.call(&mut other).await;
    }
    [
        Talker::start(one, names[1], every),
        Talker::start(other, names[0], every),
    ]
}

impl Talker {
    fn start(client: Client, to: &str, every: Duration) -> Self {
        let log = Arc::<Mutex<Log>>::default();
        let (talks, is_talking) = watch::channel(true);
        let name = client.name.clone();
        let task = Task {
            client,
            to: to.to_owned(),
            every,
            log: Arc::clone(&log),
            talks: is_talking,
            open: BTreeMap::new(),
            not_before: Instant::now(),
            paced_at: Instant::now(),
            is_refused: false,
            newest: 0,
        };
        let task = tokio::spawn(task.run());
        Self {
            name,
            log,
            talks,
            task,
        }
    }

    pub fn log(&self) -> Log {
        self.log.lock().unwrap().clone()
    }

    /// What it heard came once and in order.
    pub fn heard_in_order(&self) {
        let heard = self.log().heard;
        let turned = heard.windows(2).find(|pair| pair[0] >= pair[1]);
        assert_eq!(turned, None, "{}: twice, or out of order", self.name);
    }

    /// Begins no more messages, and waits until all are acknowledged.
    pub async fn settle(&self) {
        self.talks.send_replace(false);
        eventually(&format!("{} is acknowledged", self.name), async || {
            let log = self.log();
            (log.acked + log.refused.len() as u64 == log.begun).then_some(())
        })
        .await;
    }

    /// Waits until a message that is begun from now on is acknowledged.
    pub async fn continues(&self) {
        let begun = self.log().begun;
        eventually(&format!("{} continues", self.name), async || {
            (self.log().acked > begun).then_some(())
        })
        .await;
    }
}

impl Task {
    async fn run(mut self) {
        let mut next_at = Instant::now();
        loop {
            let now = Instant::now();
            while now >= next_at {
                next_at += self.every;
                if *self.talks.borrow() {
                    let mut log = self.log.lock().unwrap();
                    log.begun += 1;
                    self.open.insert(log.begun, false);
                }
            }
            self.pump().await;
            let wakes_at = if self.is_refused || self.open.values().all(|sent| *sent) {
                next_at
            } else {
                next_at.min(self.paced_at)
            };
            let left = wakes_at.saturating_duration_since(Instant::now());
            if let Some((text, _)) = self.client.receive_within(left).await {
                self.hear(&serde_json::from_str(&text).unwrap());
            }
        }
    }

    /// Sends what may be sent, in order.
    async fn pump(&mut self) {
        let under_way = self.open.values().filter(|sent| **sent).count();
        let now = Instant::now();
        let repeats = !self.is_refused || (under_way == 0 && now >= self.not_before);
        self.is_refused &= !repeats;
        // Nothing new keeps the answers waiting for when it is time to repeat.
        if !repeats && now >= self.not_before {
            return;
        }
        let after = if repeats { 0 } else { self.newest };
        let room = WINDOW.saturating_sub(under_way);
        // Whoever was held up may send a few at once.
        self.paced_at = self.paced_at.max(now.checked_sub(PACE * 8).unwrap_or(now));
        let unsent = self.open.range_mut(after + 1..).filter(|(_, sent)| !**sent);
        for (number, sent) in unsent.take(room) {
            if self.paced_at > now {
                return;
            }
            self.paced_at += PACE;
            *sent = true;
            self.newest = self.newest.max(*number);
            let message =
                json!({"type": "message", "name": self.to, "message": number, "id": number});
            self.client.send(&message).await;
        }
    }

    fn hear(&mut self, said: &Value) {
        let mut log = self.log.lock().unwrap();
        let id = said["id"].as_u64().unwrap_or_default();
        match said["type"].as_str().unwrap() {
            "ack" => {
                log.acked += 1;
                self.open.remove(&id);
            }
            "error" if FOR_NOW.contains(&said["code"].as_str().unwrap()) => {
                log.repeats += 1;
                let after = Duration::from_millis(said["retry_after_ms"].as_u64().unwrap());
                if !std::mem::replace(&mut self.is_refused, true) {
                    self.not_before = Instant::now() + after;
                }
                self.open.insert(id, false);
            }
            "error" => {
                self.open.remove(&id);
                log.refused.push(said.clone());
            }
            "message" => log.heard.push(said["message"].as_u64().unwrap()),
            "leave" => log.leaves.push(said.clone()),
            "status" => log.missed |= said["missed"] == true,
            other => panic!("{other}: {said}"),
        }
    }
}
