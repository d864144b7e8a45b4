//! A client that uses the native protocol over HTTP: POSTs one way, server-sent events or polls the other.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use serde_json::{Value, json};

pub use crate::http::{Event, EventStream, Response, request};

/// How long to wait between two attempts.
pub const RETRY_AFTER: Duration = Duration::from_millis(50);

/// How a client gets its messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Downlink {
    Stream,
    Poll,
}

/// One session over HTTP.
pub struct HttpSession {
    pub name: String,
    pub session: String,
    pub token: String,
    /// The node for the next request.
    pub address: SocketAddr,
    /// The id of the last event received.
    pub last: Option<String>,
    downlink: Downlink,
    stream: Option<EventStream>,
    polled: VecDeque<Event>,
}

impl HttpSession {
    /// Begins a session with this body of `POST /v1/sessions`.
    pub async fn open(address: SocketAddr, downlink: Downlink, opening: &Value) -> Self {
        let opened = request(address, "POST", "/v1/sessions", &[], &opening.to_string()).await;
        assert_eq!(opened.status, 201, "{opened:?}");
        Self::from_reply(address, downlink, &opened.json())
    }

    /// The session that this reply to `POST /v1/sessions` describes.
    pub fn from_reply(address: SocketAddr, downlink: Downlink, reply: &Value) -> Self {
        let text = |field: &str| reply[field].as_str().unwrap().to_owned();
        Self {
            name: String::new(),
            session: text("session"),
            token: text("token"),
            address,
            last: None,
            downlink,
            stream: None,
            polled: VecDeque::new(),
        }
    }

    /// Begins a session and logs in.
    pub async fn login(address: SocketAddr, downlink: Downlink, name: &str) -> Self {
        let opening = json!({"login": {"name": name}});
        let mut session = Self::open(address, downlink, &opening).await;
        let reply = session.receive_type("login").await;
        assert_eq!(reply["success"], true, "{name} cannot log in: {reply}");
        name.clone_into(&mut session.name);
        session
    }

    /// Uses another node from here on.
    pub fn move_to(&mut self, address: SocketAddr) {
        self.address = address;
        self.stream = None;
    }

    /// Sends a request with the session's token.
    pub async fn request(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Response {
        let bearer = format!("Bearer {}", self.token);
        let mut headers = headers.to_vec();
        headers.push(("authorization", &bearer));
        request(self.address, method, path, &headers, body).await
    }

    /// POSTs one message, which must be accepted.
    pub async fn send(&self, message: &Value) {
        let headers = [("content-type", "application/json")];
        let response = self
            .request("POST", "/v1/messages", &headers, &message.to_string())
            .await;
        assert_eq!(response.status, 202, "{response:?}");
    }

    /// Sends a message of this number, and returns its answer.
    pub async fn ask(&mut self, to: &str, number: u64) -> Value {
        self.send(&json!({"type": "message", "name": to, "message": number, "id": number}))
            .await;
        let answer = self.receive().await;
        assert_eq!(answer["id"], number, "{answer}");
        answer
    }

    /// Sends numbered messages, faster than it may, until two are refused; the number of the first.
    pub async fn ask_until_refused(&mut self, to: &str) -> u64 {
        for number in 1.. {
            if self.ask(to, number).await["code"] == "rate_limited" {
                assert!(self.ask(to, number + 1).await["retry_after_ms"].is_u64());
                return number;
            }
        }
        unreachable!("the limit is finite")
    }

    /// What follows the message of this number is refused, until it is repeated itself.
    pub async fn is_held_back(&mut self, to: &str, first: u64) {
        let answer = self.ask(to, first + 1).await;
        assert_eq!(answer["code"], "unavailable", "{answer}");
        for number in [first, first + 1] {
            assert_eq!(self.ask(to, number).await["status"], "delivered");
        }
    }

    /// POSTs several messages under this idempotency key.
    pub async fn send_all(&self, messages: &[Value], key: &str) -> Response {
        let lines: Vec<String> = messages.iter().map(Value::to_string).collect();
        let headers = [
            ("content-type", "application/x-ndjson"),
            ("idempotency-key", key),
        ];
        let lines = lines.join("\n");
        self.request("POST", "/v1/messages", &headers, &lines).await
    }

    /// The next message; panics on any other event.
    pub async fn receive(&mut self) -> Value {
        let event = self.receive_event().await;
        assert_eq!(event.kind, "message", "{}: {event:?}", self.name);
        serde_json::from_str(&event.data).unwrap()
    }

    /// The next message of this type; skips others.
    pub async fn receive_type(&mut self, kind: &str) -> Value {
        loop {
            let message = self.receive().await;
            if message["type"] == kind {
                return message;
            }
        }
    }

    /// The next event; opens a stream if there is none.
    pub async fn receive_event(&mut self) -> Event {
        let event = match self.downlink {
            Downlink::Stream => {
                if self.stream.is_none() {
                    let opened = EventStream::open(self.address, &self.token, self.last.as_deref());
                    self.stream = Some(opened.await.expect("the stream opens"));
                }
                let next = self.stream.as_mut().unwrap().next_event().await;
                next.expect("the stream continues")
            }
            Downlink::Poll => loop {
                if let Some(event) = self.polled.pop_front() {
                    break event;
                }
                self.poll(25).await;
            },
        };
        if let Some(id) = &event.id {
            self.last = Some(id.clone());
        }
        event
    }

    /// Polls, and waits so many seconds for an event.
    async fn poll(&mut self, wait: u8) {
        let after = self.last.as_deref().unwrap_or_default();
        let path = format!("/v1/events?mode=poll&after={after}&wait={wait}");
        let response = self.request("GET", &path, &[], "").await;
        assert_eq!(response.status, 200, "{response:?}");
        let polled = response.json();
        if polled["reset"] == true {
            self.polled.push_back(Event {
                kind: "reset".to_owned(),
                ..Event::default()
            });
        }
        for event in polled["events"].as_array().unwrap() {
            self.polled.push_back(Event {
                kind: "message".to_owned(),
                id: Some(event["id"].as_str().unwrap().to_owned()),
                data: event["data"].to_string(),
            });
        }
    }

    /// Fails if anything was sent to this session: it asks for a pong, which would come after that.
    pub async fn expect_silence(&mut self) {
        let id = "expect-silence";
        self.send(&json!({"type": "ping", "id": id})).await;
        let next = self.receive().await;
        assert_eq!(next, json!({"type": "pong", "id": id}), "{}", self.name);
    }

    /// Ends the session.
    pub async fn close(&self) {
        let path = format!("/v1/sessions/{}", self.session);
        let response = self.request("DELETE", &path, &[], "").await;
        assert_eq!(response.status, 204, "{response:?}");
    }

    /// Polls until the session is unknown (404), and reads the last events on the way; the last body.
    pub async fn gone(&mut self) -> Value {
        crate::eventually("the session is gone", async || {
            let after = self.last.clone().unwrap_or_default();
            let path = format!("/v1/events?mode=poll&wait=0&after={after}");
            let response = self.request("GET", &path, &[], "").await;
            if response.status == 200 {
                self.last = response.json()["next"].as_str().map(str::to_owned);
            }
            (response.status == 404).then(|| response.json())
        })
        .await
    }
}
