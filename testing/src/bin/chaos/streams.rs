//! A client over HTTP that moves its stream from node to node, and sends signals to itself.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::time::timeout;

use crate::shared::{Phase, Shared};
use testing::http::{EventStream, Response, try_request};

/// Its name in the list of idle clients.
pub(crate) const NAME: &str = "streamer";
/// How often a stream must continue at another node in the calm phase…
const MOVES: usize = 4;
/// …within this time.
const MOVED_WITHIN: Duration = Duration::from_secs(10);
const ANSWER_WITHIN: Duration = Duration::from_secs(3);
/// How much of what a session did is told with what was found.
const STEPS: usize = 60;

/// Runs until calls are ended.
pub(crate) async fn stream(shared: Arc<Shared>) {
    let mut proof = Proof::default();
    for number in 0.. {
        if shared.phase() >= Phase::Endings {
            break;
        }
        if let Some(mut session) = Session::begin(&shared, number).await {
            session.move_around(&mut proof).await;
        }
        shared.rest(Duration::from_millis(300)).await;
    }
}

/// What the calm phase has shown.
#[derive(Debug, Default)]
struct Proof {
    since: Option<Instant>,
    moves: usize,
}

impl Proof {
    /// Counts moves in the calm phase, which lasts until there were enough of them or the time is over.
    fn count_move(&mut self, shared: &Shared, moved: bool) {
        if shared.phase() < Phase::Calm {
            return;
        }
        let since = *self.since.get_or_insert_with(Instant::now);
        self.moves += usize::from(moved);
        let is_late = since.elapsed() > MOVED_WITHIN;
        if self.moves < MOVES && !is_late {
            return;
        }
        if shared.clients().idle.insert(NAME.to_owned()) && self.moves < MOVES {
            let words = format!(
                "in {MOVED_WITHIN:?} of calm a stream went on at another node {} times",
                self.moves
            );
            shared.history.found(7, words);
        }
    }
}

/// One session, which sends signals to itself.
struct Session<'a> {
    shared: &'a Shared,
    name: String,
    token: String,
    node: usize,
    /// The node of the last stream.
    served: usize,
    /// The last event that was read.
    last: Option<String>,
    /// The last number that was sent, and the last that arrived.
    said: u64,
    /// Whether that one was answered. Until then it is repeated: what is sent behind it could arrive before it.
    is_answered: bool,
    heard: u64,
    /// Whether its login was refused, which its stream tells.
    is_refused: bool,
    /// What it did and got lately.
    steps: VecDeque<String>,
}

impl<'a> Session<'a> {
    async fn begin(shared: &'a Shared, number: usize) -> Option<Self> {
        let node = number % shared.endpoints.len();
        let name = format!("{NAME}{number}");
        let login = json!({"login": {"name": name}}).to_string();
        let asking = try_request(shared.endpoints[node], "POST", "/v1/sessions", &[], &login);
        let answer = timeout(ANSWER_WITHIN, asking).await.ok()??;
        let opened: Value = serde_json::from_str(&answer.body).ok()?;
        Some(Self {
            shared,
            name,
            token: opened["token"].as_str()?.to_owned(),
            node,
            served: node,
            last: None,
            said: 0,
            is_answered: true,
            heard: 0,
            is_refused: false,
            steps: VecDeque::new(),
        })
    }

    /// Moves from node to node until the session or the calm phase ends.
    async fn move_around(&mut self, proof: &mut Proof) {
        while self.shared.phase() < Phase::Endings {
            proof.count_move(self.shared, false);
            self.node = (self.node + 1) % self.shared.endpoints.len();
            let front = self.shared.endpoints[self.node];
            let after = self.last.as_deref().unwrap_or("the start");
            self.note(&format!("stream at node {} after {after}", self.node));
            let opening = EventStream::open(front, &self.token, self.last.as_deref());
            match timeout(ANSWER_WITHIN, opening).await {
                Ok(Ok(mut events)) => {
                    if self.says().await == Some(404) {
                        return;
                    }
                    let went_on = timeout(ANSWER_WITHIN, self.hears(&mut events)).await;
                    if self.is_refused {
                        return;
                    }
                    if went_on == Ok(true) {
                        let moved = std::mem::replace(&mut self.served, self.node) != self.node;
                        proof.count_move(self.shared, moved);
                    }
                }
                Ok(Err(404)) => return,
                failed => self.note(&format!("no stream: {:?}", failed.map(drop))),
            }
            self.shared.rest(Duration::from_millis(100)).await;
        }
    }

    fn note(&mut self, step: &str) {
        if self.steps.len() == STEPS {
            self.steps.pop_front();
        }
        let at = self.shared.history.now().as_secs_f64();
        self.steps.push_back(format!("{at:.3} {step}"));
    }

    /// POSTs the next number until it is accepted; the last status.
    async fn says(&mut self) -> Option<u16> {
        let is_over = self.is_answered || self.heard == self.said;
        self.said += u64::from(is_over);
        let id = self.said.to_string();
        let message = json!({"type": "message", "name": self.name, "message": self.said, "id": id});
        let bearer = format!("Bearer {}", self.token);
        let headers = [
            ("authorization", bearer.as_str()),
            ("content-type", "application/json"),
            ("idempotency-key", id.as_str()),
        ];
        let mut status = None;
        for next in 0..self.shared.endpoints.len() {
            let node = (self.node + next) % self.shared.endpoints.len();
            let body = message.to_string();
            let front = self.shared.endpoints[node];
            let asking = try_request(front, "POST", "/v1/messages", &headers, &body);
            let told = timeout(ANSWER_WITHIN, asking).await.ok().flatten();
            let told = told.map(|Response { status, .. }| status);
            self.note(&format!("post {id} at node {node}: {told:?}"));
            status = told.or(status);
            if matches!(told, Some(202 | 404)) {
                break;
            }
        }
        self.is_answered = status == Some(202);
        status
    }

    /// Reads until its own number arrives; false if the stream ends before.
    async fn hears(&mut self, events: &mut EventStream) -> bool {
        while let Some(event) = events.next().await {
            if event.id.is_some() {
                self.last = event.id;
            }
            let said: Value = serde_json::from_str(&event.data).unwrap_or_default();
            if said["type"] == "login" && said["success"] == false {
                self.is_refused = true;
                return false;
            }
            if said["type"] != "message" {
                continue;
            }
            let number = said["message"].as_u64().unwrap_or_default();
            let event = self.last.clone().unwrap_or_default();
            self.note(&format!("got {number} as {event}"));
            if number <= self.heard {
                let steps = self.steps.make_contiguous().join("\n          ");
                let words = format!(
                    "{} got {number} after {}:\n          {steps}",
                    self.name, self.heard
                );
                self.shared.history.found(7, words);
            }
            self.heard = number;
            if number == self.said {
                return true;
            }
        }
        false
    }
}
