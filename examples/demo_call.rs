//! Two users in a call that outlives nodes: `make demo-call`, and then kill one.
//!
//! Both users log in, call each other, and then send each other a number each second, in a candidate. They print what
//! they receive. After a lost connection they resume on whichever node the load balancer picks, and nothing is lost or
//! repeated: the last lines say so. The client library (`clients/rust`) does all of it.
//!
//! `cargo run --example demo-call -- [URL,…] [SECONDS]`: without SECONDS, until Ctrl-C.

#![allow(clippy::print_stdout)]

use std::pin::Pin;
use std::process::ExitCode;
use std::time::Duration;

use futures_util::future::OptionFuture;
use serde_json::json;
use switchboard_client::{Error, Inbox, Message, Options, Session};
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};

/// How long to try to log in.
const LOG_IN_WITHIN: Duration = Duration::from_secs(15);
/// How long to wait for what the other has sent.
const END_WITHIN: Duration = Duration::from_mins(1);

#[tokio::main]
async fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let url = arguments
        .next()
        .unwrap_or_else(|| "ws://localhost:9090".to_owned());
    let seconds = arguments.next().and_then(|seconds| seconds.parse().ok());
    let (stop, stopped) = watch::channel(false);
    tokio::spawn(async move {
        match seconds {
            Some(seconds) => sleep(Duration::from_secs(seconds)).await,
            None => drop(tokio::signal::ctrl_c().await),
        }
        stop.send_replace(true);
    });
    match call(&url, stopped).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{url}: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Whether each side has heard all that the other has said.
async fn call(url: &str, stopped: watch::Receiver<bool>) -> Result<bool, Error> {
    let begun = Instant::now();
    let (one, other) = tokio::join!(
        User::log_in(url, "UserA", "UserB", begun),
        User::log_in(url, "UserB", "UserA", begun)
    );
    let (mut one, mut other) = (one?, other?);
    let (said_one, said_other) =
        tokio::join!(one.talk(true, stopped.clone()), other.talk(false, stopped));
    let (said_one, said_other) = (said_one?, said_other?);
    let (one_fine, other_fine) = tokio::join!(one.hears_all(said_other), other.hears_all(said_one));
    tokio::join!(one.session.close(), other.session.close());
    Ok(one_fine && other_fine)
}

struct User {
    session: Session,
    inbox: Inbox,
    peer: &'static str,
    begun: Instant,
    /// Which node it is at, and on how many others it has resumed.
    node: Option<String>,
    resumes: usize,
    heard: Vec<u64>,
}

fn no_answer() -> Error {
    Error {
        code: "unavailable".to_owned(),
        message: "no node answers".to_owned(),
        retry_after: None,
    }
}

/// The outcome of a signal that is sent.
type Sending = Pin<Box<dyn Future<Output = Result<String, Error>>>>;

impl User {
    async fn log_in(
        url: &str,
        name: &str,
        peer: &'static str,
        begun: Instant,
    ) -> Result<Self, Error> {
        let urls: Vec<&str> = url.split(',').collect();
        let opening = Session::open(&urls, name, Options::default());
        let opened = timeout(LOG_IN_WITHIN, opening).await;
        let (session, inbox) = opened.map_err(|_| no_answer())??;
        let user = Self {
            node: session.node(),
            session,
            inbox,
            peer,
            begun,
            resumes: 0,
            heard: Vec::new(),
        };
        user.tell("has logged in");
        Ok(user)
    }

    /// Says a number each second until it is stopped: how many there were.
    async fn talk(&mut self, calls: bool, stopped: watch::Receiver<bool>) -> Result<u64, Error> {
        let mut second = interval(Duration::from_secs(1));
        second.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut said, mut sending) = (0, None::<Sending>);
        loop {
            tokio::select! {
                _ = second.tick(), if sending.is_none() => {
                    if *stopped.borrow() {
                        return Ok(said);
                    }
                    // Who is called answers first.
                    if calls || !self.heard.is_empty() {
                        said += 1;
                        sending = Some(self.say(said, calls));
                    }
                }
                Some(sent) = OptionFuture::from(sending.as_mut()) => {
                    sent?;
                    sending = None;
                }
                message = self.inbox.next() => self.hear(&message?),
                node = self.session.node_other_than(self.node.clone()) => self.move_to(node),
            }
        }
    }

    fn say(&self, number: u64, calls: bool) -> Sending {
        let kind = match (number, calls) {
            (1, true) => "offer",
            (1, false) => "answer",
            _ => "candidate",
        };
        Box::pin(
            self.session
                .signal(kind, self.peer, json!({"number": number})),
        )
    }

    fn hear(&mut self, message: &Message) {
        match message.kind.as_str() {
            kind @ ("offer" | "answer" | "candidate") => {
                let number = message.body["number"].as_u64().unwrap_or_default();
                self.heard.push(number);
                self.tell(&format!("hears {kind} {number} of {}", self.peer));
            }
            "leave" => self.tell(&format!(
                "hears that {} has left: {}",
                self.peer, message.body
            )),
            "missed" => self.tell("hears that something may be lost"),
            _ => {}
        }
    }

    fn move_to(&mut self, node: Option<String>) {
        self.node = node;
        if self.node.is_some() {
            self.resumes += 1;
            self.tell("is back: its session is resumed");
        } else {
            self.tell("has lost its connection");
        }
    }

    /// Whether it hears all that the other has said, once and in order; says so.
    async fn hears_all(&mut self, said: u64) -> bool {
        let all = async {
            while (self.heard.len() as u64) < said {
                match self.inbox.next().await {
                    Ok(message) => self.hear(&message),
                    Err(_) => return,
                }
            }
        };
        drop(timeout(END_WITHIN, all).await);
        let is_fine = (1..=said).eq(self.heard.iter().copied());
        let verdict = if is_fine {
            "all of it, once and in order"
        } else {
            "NOT ALL OF IT, ONCE AND IN ORDER"
        };
        println!(
            "{} said {said} signals; {}, who resumed {} times, heard {}: {verdict}",
            self.peer,
            self.session.name(),
            self.resumes,
            self.heard.len()
        );
        is_fine
    }

    fn tell(&self, what: &str) {
        let seconds = self.begun.elapsed().as_secs_f32();
        let node = self.node.as_deref().unwrap_or("no node");
        println!("{seconds:6.1} s  {} at {node}  {what}", self.session.name());
    }
}
