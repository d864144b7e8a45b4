//! A person who speaks HTTP: says by POST, and hears by a stream of server-sent events or by polls.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::{Value, json};

pub use super::sse::{Answer, Event, Events, request};

/// How a visitor hears.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    Stream,
    Poll,
}

/// One client of the HTTP door.
pub struct Visitor {
    pub name: String,
    pub session: String,
    pub token: String,
    /// Where it asks next.
    pub address: SocketAddr,
    /// The last event that it has heard.
    pub last: Option<String>,
    by: By,
    events: Option<Events>,
    polled: std::collections::VecDeque<Event>,
}

impl Visitor {
    /// Begins a session.
    pub async fn open(address: SocketAddr, by: By, opening: &Value) -> Self {
        let opened = request(address, "POST", "/v1/sessions", &[], &opening.to_string()).await;
        assert_eq!(opened.status, 201, "{opened:?}");
        Self::of(address, by, &opened.json())
    }

    /// Whoever was given this session.
    pub fn of(address: SocketAddr, by: By, opened: &Value) -> Self {
        let text = |field: &str| opened[field].as_str().unwrap().to_owned();
        Self {
            name: String::new(),
            session: text("session"),
            token: text("token"),
            address,
            last: None,
            by,
            events: None,
            polled: <_>::default(),
        }
    }

    /// Begins a session and logs in.
    pub async fn login(address: SocketAddr, by: By, name: &str) -> Self {
        let mut visitor = Self::open(address, by, &json!({"login": {"name": name}})).await;
        let reply = visitor.hears_of("login").await;
        assert_eq!(reply["success"], true, "{name} cannot log in: {reply}");
        name.clone_into(&mut visitor.name);
        visitor
    }

    /// Goes on at another node.
    pub fn turns_to(&mut self, address: SocketAddr) {
        self.address = address;
        self.events = None;
    }

    pub async fn asks(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Answer {
        let bearer = format!("Bearer {}", self.token);
        let mut headers = headers.to_vec();
        headers.push(("authorization", &bearer));
        request(self.address, method, path, &headers, body).await
    }

    pub async fn says(&self, message: &Value) {
        let kind = [("content-type", "application/json")];
        let answer = self
            .asks("POST", "/v1/messages", &kind, &message.to_string())
            .await;
        assert_eq!(answer.status, 202, "{answer:?}");
    }

    /// Several at once; the answer.
    pub async fn says_all(&self, messages: &[Value], key: &str) -> Answer {
        let lines: Vec<String> = messages.iter().map(Value::to_string).collect();
        let headers = [
            ("content-type", "application/x-ndjson"),
            ("idempotency-key", key),
        ];
        let lines = lines.join("\n");
        self.asks("POST", "/v1/messages", &headers, &lines).await
    }

    /// The next message of its session; panics on anything else.
    pub async fn hears(&mut self) -> Value {
        let event = self.hears_event().await;
        assert_eq!(event.kind, "message", "{}: {event:?}", self.name);
        serde_json::from_str(&event.data).unwrap()
    }

    /// The next message of this type; others before it are passed over.
    pub async fn hears_of(&mut self, kind: &str) -> Value {
        loop {
            let message = self.hears().await;
            if message["type"] == kind {
                return message;
            }
        }
    }

    /// The next event, of a stream that is opened if there is none.
    pub async fn hears_event(&mut self) -> Event {
        let event = match self.by {
            By::Stream => {
                if self.events.is_none() {
                    let opened = Events::open(self.address, &self.token, self.last.as_deref());
                    self.events = Some(opened.await.expect("the stream opens"));
                }
                let next = self.events.as_mut().unwrap().next_event().await;
                next.expect("the stream goes on")
            }
            By::Poll => loop {
                if let Some(event) = self.polled.pop_front() {
                    break event;
                }
                self.polls(25).await;
            },
        };
        if let Some(id) = &event.id {
            self.last = Some(id.clone());
        }
        event
    }

    async fn polls(&mut self, wait: u8) {
        let after = self.last.as_deref().unwrap_or_default();
        let path = format!("/v1/events?mode=poll&after={after}&wait={wait}");
        let answer = self.asks("GET", &path, &[], "").await;
        assert_eq!(answer.status, 200, "{answer:?}");
        let answer = answer.json();
        if answer["reset"] == true {
            let kind = "reset".to_owned();
            self.polled.push_back(Event {
                kind,
                ..Event::default()
            });
        }
        for event in answer["events"].as_array().unwrap() {
            self.polled.push_back(Event {
                kind: "message".to_owned(),
                id: Some(event["id"].as_str().unwrap().to_owned()),
                data: event["data"].to_string(),
            });
        }
    }

    /// Nothing comes: asks for a pong, which everything that was told before would precede.
    pub async fn hears_nothing_more(&mut self) {
        self.says(&json!({"type": "ping", "id": "nothing-more"}))
            .await;
        let next = self.hears().await;
        let pong = json!({"type": "pong", "id": "nothing-more"});
        assert_eq!(next, pong, "{} heard something", self.name);
    }

    /// Ends the session for good.
    pub async fn closes(&self) {
        let path = format!("/v1/sessions/{}", self.session);
        let answer = self.asks("DELETE", &path, &[], "").await;
        assert_eq!(answer.status, 204, "{answer:?}");
    }

    /// Waits until its session is known to be over; the status of the last answer.
    pub async fn is_gone(&mut self) -> Value {
        super::eventually("the session is gone", async || {
            let after = self.last.clone().unwrap_or_default();
            let path = format!("/v1/events?mode=poll&wait=0&after={after}");
            let answer = self.asks("GET", &path, &[], "").await;
            // Its last words come first.
            if answer.status == 200 {
                self.last = answer.json()["next"].as_str().map(str::to_owned);
            }
            (answer.status == 404).then(|| answer.json())
        })
        .await
    }
}

/// A short rest between two tries.
pub const REST: Duration = Duration::from_millis(50);
