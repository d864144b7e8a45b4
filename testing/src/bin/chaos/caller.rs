//! One side of a call: sends signals, repeats uncertain ones, reconnects, resumes, and leaves on command.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::Rng as _;
use rand::rngs::StdRng;
use serde_json::json;
use tokio::time::{sleep, timeout};

use crate::diary::Diary;
use crate::history::What;
use crate::link::Link;
use crate::listener::Heard;
use crate::stage::{Act, Parting, Stage};

/// Nodes ping every second: a connection that is silent for so long is abandoned.
const SILENT_AFTER: Duration = Duration::from_millis(2500);
/// How long an abandoned resume may still take effect.
const LATE_RESUMES: Duration = Duration::from_secs(15);
/// The average interval at which a resumable client changes its connection without need.
const HOPS_EVERY: Duration = Duration::from_secs(8);

/// The role of a client.
#[derive(Clone, Debug)]
pub(crate) struct Part {
    pub(crate) name: String,
    pub(crate) peer: String,
    pub(crate) resumable: bool,
    /// Sends the offer; the other side answers.
    pub(crate) calls: bool,
    /// The only node that it connects to, if there is one.
    pub(crate) home: Option<usize>,
    /// The node of its first connection.
    pub(crate) first: usize,
}

#[derive(Clone, Debug)]
pub(crate) struct Signal {
    pub(crate) id: String,
    pub(crate) n: u64,
    pub(crate) kind: &'static str,
    /// When to send it again; `None`: it was sent, and its outcome is pending.
    pub(crate) repeat_at: Option<Instant>,
    pub(crate) sent_at: Instant,
}

/// Why a connection ended.
#[derive(Debug)]
enum Over {
    Lost,
    /// The session was resumed on another connection already.
    Hopped(Link),
    /// The client is done.
    Done,
}

pub(crate) struct Caller {
    pub(crate) part: Part,
    pub(crate) stage: Arc<Stage>,
    pub(crate) diary: Arc<Diary>,
    pub(crate) dice: StdRng,
    pub(crate) n: u64,
    pub(crate) under_way: Option<Signal>,
    pub(crate) next_at: Instant,
    pub(crate) in_call: bool,
    /// It received an offer that it has not answered yet.
    pub(crate) owes_answer: bool,
    pub(crate) offered_at: Option<Instant>,
    pub(crate) lost_at: Option<usize>,
    /// Abandoned connections, not read until another has replaced them.
    pub(crate) given_up: Vec<Link>,
    /// When it last abandoned a resume whose reply had not come.
    pub(crate) gave_up_at: Option<Instant>,
    pub(crate) parted: bool,
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
            given_up: Vec::new(),
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

    pub(crate) fn is_doomed(&self) -> bool {
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

    // === Connected ===

    async fn converse(&mut self, mut link: Link) -> Over {
        let mut act = self.stage.act.clone();
        act.mark_unchanged();
        self.next_at = Instant::now();
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

    /// Processes what has arrived already, then abandons the connection.
    fn give_up(&mut self, mut link: Link) {
        link.retire();
        while let Ok(Heard::Said(said)) = link.heard.try_recv() {
            self.hear(&said);
        }
        // A client that cannot resume drops it at once: the old connection would only block the name.
        if self.diary.memory().secret.is_some() {
            self.given_up.push(link);
        }
    }

    /// Resumes elsewhere while this connection is open: the server must close it as replaced.
    async fn hop(&mut self, link: Link) -> Option<Link> {
        let node = self.dice.random_range(0..self.stage.endpoints.len());
        self.give_up(link);
        self.try_enter(node).await
    }

    fn closed(&mut self, link: &Link, code: Option<u16>) -> Over {
        match code {
            // Replaced, and not by a connection of this client.
            Some(4000) => {
                // A thawed node may execute a resume that this client abandoned long ago.
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

    // === Leaving ===

    /// Ends the call or the client, if that is its role now.
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
            Parting::DiesWithNode => None,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Leaving {
    Cleanly,
    Silently,
}

/// Waits until all client tasks have ended, at most this long.
pub(crate) async fn finish(tasks: &mut tokio::task::JoinSet<()>, within: Duration) {
    let _ = timeout(within, async { while tasks.join_next().await.is_some() {} }).await;
    tasks.abort_all();
}
