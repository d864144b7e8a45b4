//! One side of a call: signals, repeats what is uncertain, reconnects, resumes, and leaves when it is told to.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::Rng as _;
use rand::rngs::StdRng;
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};

use crate::diary::Diary;
use crate::history::What;
use crate::link::Link;
use crate::listener::Heard;
use crate::stage::{Act, Parting, Stage};

/// A signal every so often.
const PACE: Duration = Duration::from_millis(50);
/// How long the outcome of a signal may take before it is repeated.
const OUTCOME_WITHIN: Duration = Duration::from_secs(3);
const LOGIN_WITHIN: Duration = Duration::from_secs(4);
/// Nodes ping every second: one that was silent for so long is given up.
const SILENT_AFTER: Duration = Duration::from_millis(2500);
/// How long after it was given up a resume may still take effect.
const LATE_RESUMES: Duration = Duration::from_secs(15);
/// How long an offer waits for its answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(3);
/// How often, on average, a resumable client changes its connection without need.
const HOPS_EVERY: Duration = Duration::from_secs(8);

/// Who plays which part.
#[derive(Clone, Debug)]
pub(crate) struct Part {
    pub(crate) name: String,
    pub(crate) peer: String,
    pub(crate) resumable: bool,
    /// Offers, and the other answers.
    pub(crate) calls: bool,
    /// Stays at this node.
    pub(crate) home: Option<usize>,
    /// Where it begins.
    pub(crate) first: usize,
}

#[derive(Clone, Debug)]
struct Signal {
    id: String,
    n: u64,
    kind: &'static str,
    /// When it is to be sent again; `None`: it was, and its outcome is awaited.
    repeat_at: Option<Instant>,
    sent_at: Instant,
}

/// Why a connection is over.
#[derive(Debug)]
enum Over {
    Lost,
    /// Resumed elsewhere already.
    Hopped(Link),
    /// The client has nothing more to do here.
    Done,
}

pub(crate) struct Caller {
    part: Part,
    stage: Arc<Stage>,
    diary: Arc<Diary>,
    dice: StdRng,
    n: u64,
    under_way: Option<Signal>,
    next_at: Instant,
    in_call: bool,
    /// An offer was heard and not answered yet.
    owes_answer: bool,
    offered_at: Option<Instant>,
    lost_at: Option<usize>,
    /// When a resume was last given up whose answer had not come.
    gave_up_at: Option<Instant>,
    parted: bool,
}

impl Caller {
    pub(crate) fn new(part: Part, stage: &Arc<Stage>) -> Self {
        Self {
            diary: Diary::new(&stage.history, &part.name),
            dice: stage.dice(&part.name),
            stage: Arc::clone(stage),
            n: 0,
            under_way: None,
            next_at: Instant::now(),
            in_call: false,
            owes_answer: false,
            offered_at: None,
            lost_at: None,
            gave_up_at: None,
            parted: false,
            part,
        }
    }

    pub(crate) async fn play(mut self) {
        let mut link = None;
        loop {
            let here = match link.take() {
                Some(link) => link,
                None => match self.enter().await {
                    Some(link) => link,
                    None => break,
                },
            };
            self.stage
                .board()
                .at
                .insert(self.part.name.clone(), here.node);
            let node = here.node;
            let over = self.converse(here).await;
            self.stage.board().at.remove(&self.part.name);
            self.show_idle(false);
            match over {
                Over::Lost => self.lost_at = Some(node),
                Over::Hopped(next) => link = Some(next),
                Over::Done => break,
            }
        }
        self.show_idle(true);
    }

    fn is_doomed(&self) -> bool {
        self.stage.act() == Act::Curtain || self.stage.board().doomed.contains(&self.part.name)
    }

    fn show_idle(&self, idle: bool) {
        let mut board = self.stage.board();
        if idle {
            board.idle.insert(self.part.name.clone());
        } else {
            board.idle.remove(&self.part.name);
        }
    }

    // === Coming in ===

    /// Connects and logs in, or resumes, again and again; nothing if it is not to come back.
    async fn enter(&mut self) -> Option<Link> {
        loop {
            if self.is_doomed() {
                let life = self.diary.memory().life;
                let ends = What::Ends("does not come back");
                self.diary.history.note(&self.diary.name, 0, life, ends);
                return None;
            }
            let node = self.choose();
            if let Some(link) = self.try_enter(node).await {
                return Some(link);
            }
            self.lost_at = Some(node);
            let rest = self.dice.random_range(50..250);
            sleep(Duration::from_millis(rest)).await;
        }
    }

    /// Another node than the one that was lost.
    fn choose(&mut self) -> usize {
        if let Some(home) = self.part.home {
            return home;
        }
        let nodes = self.stage.doors.len();
        match self.lost_at {
            None => self.part.first,
            Some(lost) => (lost + self.dice.random_range(1..nodes)) % nodes,
        }
    }

    async fn try_enter(&mut self, node: usize) -> Option<Link> {
        let mut link = Link::open(&self.diary, node, self.stage.doors[node]).await?;
        let resuming = self.diary.memory().secret.is_some();
        let request = self.login_request();
        let Some(reply) = link.login(&request, LOGIN_WITHIN).await else {
            self.gave_up_at = Some(Instant::now());
            return None;
        };
        if reply["success"] == true {
            if reply["resumed"] != true {
                self.begins_life(&link, resuming);
            } else if !resuming {
                link.note(What::Wrong(7, "resumed what was never begun".into()));
            }
            self.outcome_is_open();
            return Some(link);
        }
        let code = reply["code"].as_str().unwrap_or_default().to_owned();
        self.refused(&link, &code, resuming);
        if let Some(rest) = reply["retry_after_ms"].as_u64() {
            // Somewhere else it may be let in earlier.
            sleep(Duration::from_millis(rest.min(300))).await;
        }
        None
    }

    fn login_request(&self) -> Value {
        let memory = self.diary.memory();
        let mut request =
            json!({"type": "login", "name": self.part.name, "resumable": self.part.resumable});
        if let Some(secret) = &memory.secret {
            request["resume"] = json!(secret);
            if let Some(last) = &memory.last {
                request["last"] = json!(last);
            }
        }
        request
    }

    fn begins_life(&mut self, link: &Link, resuming: bool) {
        if resuming {
            link.note(What::Wrong(
                7,
                "a resume was answered with a fresh session".into(),
            ));
        }
        if self.part.resumable && self.diary.memory().secret.is_none() {
            link.note(What::Wrong(7, "no secret for a resumable session".into()));
        }
        self.in_call = false;
        self.owes_answer = false;
        self.offered_at = None;
        // Its outcome will never be known: ids belong to a session.
        self.under_way = None;
    }

    /// What was under way when a connection was lost is sent again.
    fn outcome_is_open(&mut self) {
        match &mut self.under_way {
            Some(signal) if self.part.resumable => signal.repeat_at = Some(Instant::now()),
            other => *other = None,
        }
    }

    fn refused(&mut self, link: &Link, code: &str, resuming: bool) {
        let heard = self.diary.memory().heard;
        let silent_for = heard.map_or(Duration::MAX, |heard| heard.elapsed());
        link.note(What::Refused {
            code: code.to_owned(),
            resuming,
            silent_for,
        });
        if resuming && code == "resume_failed" {
            let mut memory = self.diary.memory();
            memory.secret = None;
            memory.last = None;
        }
    }

    // === Being in ===

    async fn converse(&mut self, mut link: Link) -> Over {
        let mut act = self.stage.act.clone();
        act.mark_unchanged();
        self.next_at = Instant::now() + PACE;
        let hop_at = Instant::now() + HOPS_EVERY.mul_f32(self.dice.random_range(0.5..1.5));
        loop {
            if let Some(over) = self.takes_leave(&mut link).await {
                if over == Leaving::Cleanly {
                    link.close().await;
                }
                return Over::Done;
            }
            let wake = self.wake_at();
            let rest = wake.saturating_duration_since(Instant::now());
            tokio::select! {
                heard = link.heard.recv() => match heard {
                    Some(Heard::Said(said)) => self.hear(&said),
                    Some(Heard::Closed(code)) => return self.closed(&link, code),
                    None => return Over::Lost,
                },
                () = sleep(rest) => {
                    if !self.speak(&mut link).await {
                        self.give_up(link);
                        return Over::Lost;
                    }
                }
                _ = act.changed() => {}
            }
            if link.silent_for() > SILENT_AFTER {
                self.give_up(link);
                return Over::Lost;
            }
            if self.may_hop() && Instant::now() > hop_at {
                return match self.hop(link).await {
                    Some(next) => Over::Hopped(next),
                    None => Over::Lost,
                };
            }
            self.show_idle(self.is_idle());
        }
    }

    fn may_hop(&self) -> bool {
        self.stage.act() == Act::Storm && self.diary.memory().secret.is_some()
    }

    fn is_idle(&self) -> bool {
        self.under_way.is_none() && self.in_call && !self.owes_answer
    }

    /// Listens to what has come already, then leaves the connection as it is.
    fn give_up(&mut self, mut link: Link) {
        link.retire();
        while let Ok(Heard::Said(said)) = link.heard.try_recv() {
            self.hear(&said);
        }
        link.abandon();
    }

    /// Resumes elsewhere while this connection is open: it must be told that it was replaced.
    async fn hop(&mut self, mut link: Link) -> Option<Link> {
        let node = self.dice.random_range(0..self.stage.doors.len());
        link.retire();
        while let Ok(Heard::Said(said)) = link.heard.try_recv() {
            self.hear(&said);
        }
        let next = self.try_enter(node).await;
        link.abandon();
        next
    }

    fn closed(&mut self, link: &Link, code: Option<u16>) -> Over {
        match code {
            // Replaced: the one that replaced us is not us.
            Some(4000) => {
                // A node that was frozen may take up a resume that was given up long ago: that is still us.
                let ours = self
                    .gave_up_at
                    .is_some_and(|at| at.elapsed() < LATE_RESUMES);
                if !ours {
                    let words = "replaced by somebody else's connection";
                    link.note(What::Wrong(2, words.into()));
                }
                Over::Lost
            }
            Some(4001) => {
                let mut memory = self.diary.memory();
                memory.secret = None;
                memory.last = None;
                Over::Lost
            }
            _ => Over::Lost,
        }
    }

    fn hear(&mut self, said: &Value) {
        let from_peer = said["name"] == self.part.peer.as_str();
        match said["type"].as_str().unwrap_or_default() {
            "offer" if from_peer => {
                self.owes_answer = true;
                self.in_call = false;
            }
            "answer" if from_peer => {
                self.in_call = self.part.calls;
                self.offered_at = None;
            }
            "leave" if from_peer => {
                self.in_call = false;
                self.owes_answer = false;
                self.offered_at = None;
            }
            "ack" => self.settled(said, None),
            "error" => self.settled(said, said["code"].as_str()),
            _ => {}
        }
    }

    fn settled(&mut self, said: &Value, refused: Option<&str>) {
        let Some(signal) = &mut self.under_way else {
            return;
        };
        if said["id"] != signal.id.as_str() {
            return;
        }
        let rest = said["retry_after_ms"].as_u64().unwrap_or(200).min(1000);
        let rest = Duration::from_millis(rest);
        let may_pass = ["unavailable", "inbox_full", "rate_limited"];
        match refused {
            Some(code) if self.part.resumable && may_pass.contains(&code) => {
                signal.repeat_at = Some(Instant::now() + rest);
            }
            Some(_) => {
                if signal.kind == "offer" {
                    self.offered_at = None;
                }
                self.under_way = None;
                self.next_at = Instant::now() + rest;
            }
            None => {
                if signal.kind == "answer" {
                    self.owes_answer = false;
                    self.in_call = true;
                }
                self.under_way = None;
            }
        }
    }

    // === Speaking ===

    fn wake_at(&self) -> Instant {
        let silence = Instant::now() + Duration::from_millis(500);
        let next = match &self.under_way {
            Some(signal) => signal.repeat_at.unwrap_or(signal.sent_at + OUTCOME_WITHIN),
            None => self.next_at,
        };
        next.min(silence)
    }

    /// Sends what is due; false if the connection does not take it.
    async fn speak(&mut self, link: &mut Link) -> bool {
        let now = Instant::now();
        if let Some(signal) = &mut self.under_way {
            let due = signal.repeat_at.unwrap_or(signal.sent_at + OUTCOME_WITHIN);
            if now < due {
                return true;
            }
            if !self.part.resumable {
                // Only a resumable sender may repeat without being heard twice.
                self.under_way = None;
                return true;
            }
            signal.sent_at = now;
            signal.repeat_at = None;
        } else {
            if now < self.next_at || self.parted {
                return true;
            }
            self.next_at = now + PACE.mul_f32(self.dice.random_range(0.7..1.3));
            let Some(kind) = self.next_kind() else {
                return true;
            };
            self.n += 1;
            let life = self.diary.memory().life;
            self.under_way = Some(Signal {
                id: format!("{}.{life}.{}", self.part.name, self.n),
                n: self.n,
                kind,
                repeat_at: None,
                sent_at: now,
            });
        }
        self.send(link).await
    }

    fn next_kind(&mut self) -> Option<&'static str> {
        if self.owes_answer {
            return Some("answer");
        }
        let waits = self
            .offered_at
            .is_some_and(|at| at.elapsed() < ANSWER_WITHIN);
        if self.part.calls && !self.in_call && !waits && self.stage.act() <= Act::Calm {
            self.offered_at = Some(Instant::now());
            return Some("offer");
        }
        if self.stage.act() != Act::Storm {
            return None;
        }
        Some(if self.n.is_multiple_of(2) {
            "candidate"
        } else {
            "message"
        })
    }

    async fn send(&mut self, link: &mut Link) -> bool {
        let Some(signal) = self.under_way.clone() else {
            return true;
        };
        let body = json!({
            "id": signal.id, "from": self.part.name, "to": self.part.peer, "n": signal.n,
            "life": self.diary.memory().life,
            "padding": "x".repeat(self.dice.random_range(0..400)),
        });
        let message = json!({"type": signal.kind, "name": self.part.peer, (signal.kind): body, "id": signal.id});
        link.note(What::Sent {
            id: signal.id,
            kind: signal.kind,
            to: self.part.peer.clone(),
        });
        link.say(&message).await
    }

    // === Leaving ===

    /// Ends the call or everything, if that is its part now.
    async fn takes_leave(&mut self, link: &mut Link) -> Option<Leaving> {
        if self.stage.act() == Act::Curtain {
            link.note(What::Ends("closes"));
            return Some(Leaving::Cleanly);
        }
        if self.stage.act() != Act::Partings || self.parted {
            return None;
        }
        let parting = *self.stage.board().partings.get(&self.part.name)?;
        self.parted = true;
        match parting {
            Parting::HangsUp => {
                link.note(What::HangsUp {
                    to: self.part.peer.clone(),
                });
                let _ = link
                    .say(&json!({"type": "leave", "name": self.part.peer}))
                    .await;
                None
            }
            Parting::Closes => {
                link.note(What::Ends("closes"));
                Some(Leaving::Cleanly)
            }
            Parting::Vanishes => {
                link.note(What::Ends("vanishes"));
                Some(Leaving::Silently)
            }
            Parting::DiesWithNode => {
                link.note(What::Ends("dies with its node"));
                None
            }
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Leaving {
    Cleanly,
    Silently,
}

/// Plays all parts until they are over, within this time after the curtain.
pub(crate) async fn finish(tasks: &mut tokio::task::JoinSet<()>, within: Duration) {
    let _ = timeout(within, async { while tasks.join_next().await.is_some() {} }).await;
    tasks.abort_all();
}
