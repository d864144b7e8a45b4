//! How a caller connects: to any live node, with its secret if it has one, until it succeeds.

use std::time::{Duration, Instant};

use rand::Rng as _;
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::caller::Caller;
use crate::history::What;
use crate::link::Link;

const LOGIN_WITHIN: Duration = Duration::from_secs(4);

impl Caller {
    /// Connects and logs in or resumes, until it succeeds; `None` if it is not to reconnect.
    pub(crate) async fn enter(&mut self) -> Option<Link> {
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

    /// Another node than the one whose connection was lost.
    fn choose(&mut self) -> usize {
        if let Some(home) = self.part.home {
            return home;
        }
        let nodes = self.stage.endpoints.len();
        match self.lost_at {
            None => self.part.first,
            Some(lost) => (lost + self.dice.random_range(1..nodes)) % nodes,
        }
    }

    pub(crate) async fn try_enter(&mut self, node: usize) -> Option<Link> {
        let mut link = Link::open(&self.diary, node, self.stage.endpoints[node]).await?;
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
            self.given_up.drain(..).for_each(Link::lingers);
            self.outcome_is_open();
            return Some(link);
        }
        let code = reply["code"].as_str().unwrap_or_default().to_owned();
        self.refused(&link, &code, resuming);
        if let Some(rest) = reply["retry_after_ms"].as_u64() {
            // Another node may accept it earlier.
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
        // Its outcome will never arrive: ids belong to a session.
        self.under_way = None;
    }

    /// Sends the pending signal of a lost connection again.
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
            self.given_up.clear();
            let mut memory = self.diary.memory();
            memory.secret = None;
            memory.last = None;
        }
    }
}
