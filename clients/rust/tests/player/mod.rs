//! Plays one transcript: the server's side, the app's, and peer connections that are made up.

mod app;
mod server;

use std::collections::HashMap;
use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};
use tokio::time::timeout;

use app::App;
use server::{Heard, Server};

/// It never takes so long, except on a machine that is busy.
const WITHIN: Duration = Duration::from_secs(15);
/// So long nothing must come.
const SILENCE: Duration = Duration::from_millis(150);

type Played = Result<(), String>;

/// What a transcript refers to.
struct Play {
    servers: [Server; 2],
    /// The server that the client is connected to.
    at: usize,
    /// The values of `$x`.
    known: HashMap<String, Value>,
    app: App,
    refused_at: Instant,
}

pub async fn play(steps: &Value) -> Played {
    let servers = [Server::start().await, Server::start().await];
    let urls = [servers[0].url.clone(), servers[1].url.clone()];
    let mut play = Play {
        servers,
        at: 0,
        known: HashMap::new(),
        app: App::start(urls),
        refused_at: Instant::now(),
    };
    for (number, step) in steps.as_array().unwrap().iter().enumerate() {
        let played = play.step_of(step).await;
        played.map_err(|fault| format!("step {}, {step}: {fault}", number + 1))?;
    }
    Ok(())
}

impl Play {
    async fn step_of(&mut self, step: &Value) -> Played {
        let times = step["times"].as_u64().unwrap_or(1);
        let after = Duration::from_millis(step["after_ms"].as_u64().unwrap_or(0));
        for repetition in 1..=times {
            for (kind, what) in step.as_object().unwrap() {
                if kind == "times" || kind == "after_ms" {
                    continue;
                }
                self.step(kind, filled(what, repetition)).await?;
                if self.refused_at.elapsed() < after {
                    return Err("too soon".to_owned());
                }
            }
        }
        Ok(())
    }

    async fn step(&mut self, kind: &str, what: Value) -> Played {
        match kind {
            "connects" => self.connects(what.as_str().unwrap()).await,
            "logs_in" => self.logs_in(&what).await,
            "sends" => self.sends(&what).await,
            "server" => {
                if !what["retry_after_ms"].is_null() {
                    self.refused_at = Instant::now();
                }
                self.say(&what).await;
                Ok(())
            }
            "closes" => {
                let code = u16::try_from(what.as_u64().unwrap()).unwrap();
                self.servers[self.at].close(code).await;
                Ok(())
            }
            "breaks" => {
                self.servers[self.at].cut();
                Ok(())
            }
            "silent" => match self.next(SILENCE, true).await {
                None => Ok(()),
                Some(frame) => Err(format!("it sent {frame}")),
            },
            "gone" => self.is_gone(what.as_u64()).await,
            _ => self.app.step(kind, &what).await,
        }
    }

    async fn connects(&mut self, address: &str) -> Played {
        self.at = usize::from(address == "B");
        let opened = timeout(WITHIN, self.servers[self.at].opens()).await;
        opened.map_err(|_| "it does not".to_owned())
    }

    async fn logs_in(&mut self, fields: &Value) -> Played {
        self.connects("A").await?;
        self.sends(&json!({"type": "login", "name": "alice", "resumable": true}))
            .await?;
        let mut reply = json!({
            "type": "login", "success": true, "name": "alice", "session": "00000000000000000000000000000001",
            "node": "one", "iceServers": [], "resumed": false, "grace_ms": 10_000, "resume": "secret",
        });
        let reply_fields = reply.as_object_mut().unwrap();
        reply_fields.extend(fields.as_object().cloned().unwrap_or_default());
        self.say(&reply).await;
        self.app.is_open().await
    }

    async fn sends(&mut self, expected: &Value) -> Played {
        let frame = self.next(WITHIN, expected["type"] != "ping").await;
        let frame = frame.ok_or("it sent nothing")?;
        if self.matches(expected, &frame) {
            Ok(())
        } else {
            Err(format!("it sent {frame}"))
        }
    }

    async fn is_gone(&mut self, code: Option<u64>) -> Played {
        loop {
            match timeout(WITHIN, self.servers[self.at].hears()).await {
                Err(_) => return Err("it is not".to_owned()),
                Ok(Heard::Frame(_)) => {}
                Ok(Heard::End(heard)) if code.is_none() || heard.map(u64::from) == code => {
                    return Ok(());
                }
                Ok(Heard::End(heard)) => return Err(format!("with {heard:?}")),
            }
        }
    }

    /// The next frame, but no ping, if these are to be answered.
    async fn next(&mut self, within: Duration, answers_pings: bool) -> Option<Value> {
        let until = tokio::time::Instant::now() + within;
        loop {
            let heard = tokio::time::timeout_at(until, self.servers[self.at].hears()).await;
            let Ok(Heard::Frame(frame)) = heard else {
                return None;
            };
            if frame["type"] == "ping" && answers_pings {
                self.say(&json!({"type": "pong"})).await;
            } else if frame["type"] == "report" {
                self.say(&json!({"type": "ack", "id": frame["id"], "status": "delivered"}))
                    .await;
            } else {
                return Some(frame);
            }
        }
    }

    async fn say(&mut self, message: &Value) {
        let message = self.replaced(message);
        self.servers[self.at].say(&message).await;
    }

    /// With the values that are known.
    fn replaced(&self, value: &Value) -> Value {
        match value {
            Value::String(text) => self.known.get(text).unwrap_or(value).clone(),
            Value::Object(fields) => {
                let replaced =
                    |(key, value): (&String, &Value)| (key.clone(), self.replaced(value));
                Value::Object(fields.iter().map(replaced).collect())
            }
            _ => value.clone(),
        }
    }

    fn matches(&mut self, expected: &Value, heard: &Value) -> bool {
        match expected {
            Value::Object(fields) => {
                let heard = heard.as_object().cloned();
                let matches = |heard: Map<String, Value>| {
                    let mut fields = fields.iter();
                    fields.all(|(key, value)| {
                        self.matches(value, heard.get(key).unwrap_or(&Value::Null))
                    })
                };
                heard.is_some_and(matches)
            }
            Value::String(text) if text == "*" => !heard.is_null(),
            Value::String(text) if text.starts_with('$') => {
                let known = self
                    .known
                    .entry(text.clone())
                    .or_insert_with(|| heard.clone());
                !heard.is_null() && known == heard
            }
            _ => expected == heard,
        }
    }
}

/// With the number of the repetition in place of `#`.
fn filled(what: &Value, repetition: u64) -> Value {
    match what {
        Value::String(text) if text == "#" => json!(repetition),
        Value::String(text) => json!(text.replace('#', &repetition.to_string())),
        Value::Object(fields) => {
            let filled = |(key, value): (&String, &Value)| (key.clone(), filled(value, repetition));
            Value::Object(fields.iter().map(filled).collect())
        }
        _ => what.clone(),
    }
}
