//! One client: logs in, sends signals if it has a partner, and resumes elsewhere with backoff when its node is killed.

use std::convert::Infallible;
use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::socket::{Answer, Ended, Socket, text};
use crate::wire::{Micros, Report, Stage, Tally};
use crate::worker::{World, tell};

/// The interval of signals of each side of a call.
pub(crate) const TALK_EVERY: Duration = Duration::from_secs(10);
/// All calls begin within this time.
const CALL_WITHIN: Duration = Duration::from_secs(5);
/// The timeout of an attempt to log in.
const PATIENCE: Duration = Duration::from_secs(10);
/// The longest wait before the first attempt to resume. It doubles with each attempt.
const FIRST_WAIT: Duration = Duration::from_secs(2);
const LONGEST_WAIT: Duration = Duration::from_secs(8);
/// About the size of an SDP with audio and video, in bytes.
const DESCRIPTION: usize = 2000;

struct Session {
    number: usize,
    world: Arc<World>,
    name: String,
    partner: Option<Partner>,
    secret: String,
    /// The `seq` of the last signal received.
    last: Option<String>,
    /// When to send the next signal, once that is known.
    speaks_at: Option<Instant>,
    is_back: bool,
}

struct Partner {
    name: String,
    /// Whether it loses its node. What it sends at that moment may be lost.
    is_at_risk: bool,
    has_called: bool,
    sent: u64,
    heard: u64,
}

/// Runs until an error, which it returns.
pub(crate) async fn live(number: usize, world: Arc<World>) -> Ended {
    let share = &world.share;
    let partner = share.partner(number).map(|partner| Partner {
        name: share.name(partner),
        is_at_risk: share.is_at_risk(partner),
        has_called: false,
        sent: 0,
        heard: 0,
    });
    let session = Session {
        number,
        name: share.name(number),
        partner,
        secret: String::new(),
        last: None,
        speaks_at: None,
        is_back: false,
        world,
    };
    let name = session.name.clone();
    let Err(ended) = session.run().await;
    format!("{name}: {ended}")
}

impl Session {
    async fn run(mut self) -> Result<Infallible, Ended> {
        let mut socket = self.log_in().await?;
        tell(&Report::LoggedIn);
        loop {
            let lived = tokio::select! {
                heard = socket.next() => match heard {
                    Ok(heard) => self.hear(&mut socket, &heard).await,
                    Err(ended) => Err(ended),
                },
                () = self.turn() => self.speak(&mut socket).await,
            };
            if let Err(ended) = lived {
                let is_braced = *self.world.stage.borrow() >= Stage::Braced;
                let lost_its_node = self.world.share.is_at_risk(self.number) && is_braced;
                if !lost_its_node || self.is_back {
                    return Err(format!("lost its connection: {ended}"));
                }
                drop(socket);
                socket = self.come_back().await?;
                self.is_back = true;
                tell(&Report::Resumed(Micros::now()));
            }
        }
    }

    async fn log_in(&mut self) -> Result<Socket, Ended> {
        let request = json!({"type": "login", "name": self.name, "resumable": true});
        let door = self.world.share.door(self.number);
        let permit = self.world.logins.acquire().await;
        let (socket, answer) = self.attempt(door, &request).await?;
        drop(permit);
        match answer {
            Answer::Welcome {
                secret: Some(secret),
                ..
            } => self.secret = secret,
            Answer::Welcome { secret: None, .. } => {
                return Err(
                    "its login succeeded but brought no `resume` secret: this server does not know resumable sessions"
                        .to_owned(),
                );
            }
            Answer::Refused { code, .. } => return Err(format!("its login failed: {code}")),
        }
        Ok(socket)
    }

    /// Tries to resume until it succeeds.
    async fn come_back(&mut self) -> Result<Socket, Ended> {
        let mut request =
            json!({"type": "login", "name": self.name, "resumable": true, "resume": self.secret});
        if let Some(last) = &self.last {
            request["last"] = json!(last);
        }
        let survivors = self.world.share.endpoints.len() - 1;
        let mut wait = FIRST_WAIT;
        let mut no_sooner = Duration::ZERO;
        for attempt in 0.. {
            sleep(rand::random_range(Duration::ZERO..wait).max(no_sooner)).await;
            wait = (wait * 2).min(LONGEST_WAIT);
            no_sooner = Duration::ZERO;
            let door = (self.number / (survivors + 1) + attempt) % survivors;
            let permit = self.world.resumes.acquire().await;
            let outcome = self.attempt(door, &request).await;
            drop(permit);
            let reason = match outcome {
                Ok((socket, Answer::Welcome { resumed: true, .. })) => return Ok(socket),
                Ok((_, Answer::Welcome { resumed: false, .. })) => {
                    return Err("it was logged in anew instead of resumed".to_owned());
                }
                Ok((_, Answer::Refused { code, .. })) if code == "resume_failed" => {
                    return Err("resume_failed".to_owned());
                }
                Ok((_, Answer::Refused { code, retry_after })) => {
                    no_sooner = retry_after;
                    code
                }
                Err(ended) => ended,
            };
            let retry = |tally: &mut Tally| *tally.retries.entry(reason).or_default() += 1;
            self.world.count(retry);
        }
        Err("it ran out of attempts".to_owned())
    }

    async fn attempt(&self, door: usize, request: &Value) -> Result<(Socket, Answer), Ended> {
        let login = async {
            let mut socket = Socket::open(self.world.share.endpoints[door]).await?;
            let answer = socket.login(request).await?;
            Ok((socket, answer))
        };
        timeout(PATIENCE, login)
            .await
            .unwrap_or_else(|_| Err(format!("a login took more than {PATIENCE:?}")))
    }

    /// Waits until this session has something to send.
    async fn turn(&mut self) {
        if self.speaks_at.is_none() {
            // The odd ones wait to be called.
            if self.partner.is_none() || self.number % 2 == 1 {
                pending::<()>().await;
            }
            let mut stage = self.world.stage.clone();
            let _ = stage.wait_for(|stage| *stage >= Stage::Calling).await;
            self.speaks_at = Some(Instant::now() + rand::random_range(Duration::ZERO..CALL_WITHIN));
        }
        if let Some(at) = self.speaks_at {
            sleep_until(at).await;
        }
    }

    async fn speak(&mut self, socket: &mut Socket) -> Result<(), Ended> {
        self.speaks_at = Some(Instant::now() + TALK_EVERY);
        let Some(partner) = &mut self.partner else {
            return Ok(());
        };
        let begins = self.number.is_multiple_of(2) && !partner.has_called;
        if begins {
            partner.has_called = true;
            let offer = json!({"type": "offer", "name": partner.name, "offer": description()});
            return socket.send(&offer).await;
        }
        partner.sent += 1;
        let signal = json!({"type": "message", "name": partner.name, "message": partner.sent});
        socket.send(&signal).await
    }

    async fn hear(&mut self, socket: &mut Socket, heard: &Value) -> Result<(), Ended> {
        if let Some(seq) = text(&heard["seq"]) {
            self.last = Some(seq);
        }
        match heard["type"].as_str().unwrap_or_default() {
            "offer" => {
                let caller = &heard["name"];
                self.speaks_at = Some(Instant::now() + TALK_EVERY);
                let answer = json!({"type": "answer", "name": caller, "answer": description()});
                socket.send(&answer).await?;
            }
            "answer" => self.world.count(|tally| tally.calls += 1),
            "message" => self.check(&heard["message"]),
            "leave" => tell(&Report::Leave(format!("{} heard {heard}", self.name))),
            "error" => {
                let code = text(&heard["code"]).unwrap_or_else(|| heard.to_string());
                let refused = |tally: &mut Tally| *tally.refused.entry(code).or_default() += 1;
                self.world.count(refused);
            }
            other => eprintln!("{} heard {other}: {heard}", self.name),
        }
        Ok(())
    }

    /// Counts a signal as new, repeated or missing by its number.
    fn check(&mut self, number: &Value) {
        let (Some(partner), Some(number)) = (&mut self.partner, number.as_u64()) else {
            return;
        };
        let expected = partner.heard + 1;
        self.world.count(|tally| {
            tally.signals += 1;
            if number < expected {
                tally.repeated += 1;
            } else if !partner.is_at_risk {
                tally.missing += usize::try_from(number - expected).unwrap_or(usize::MAX);
            }
        });
        partner.heard = partner.heard.max(number);
    }
}

fn description() -> String {
    "v".repeat(DESCRIPTION)
}
