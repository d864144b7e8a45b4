//! A person who speaks HTTP: says by POST, and hears by a stream of server-sent events or by polls.

use std::net::SocketAddr;
use std::time::Duration;

use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::PATIENCE;

/// An answer, read to its end.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: hyper::HeaderMap,
    pub body: String,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{self:?}: {error}"))
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |it| it.to_str().unwrap())
    }
}

/// Asks; the head of the answer, with the body still to come. `None` if the connection broke.
async fn ask(
    address: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Option<(Response<Incoming>, JoinHandle<()>)> {
    let stream = TcpStream::connect(address).await.ok()?;
    let connecting = hyper::client::conn::http1::handshake(TokioIo::new(stream));
    let (mut sender, connection) = connecting.await.ok()?;
    let connection = tokio::spawn(async move { drop(connection.await) });
    let mut request = Request::builder()
        .method(method)
        .uri(path)
        .header("host", address.to_string());
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(Full::new(Bytes::copy_from_slice(body.as_bytes())));
    let response = sender.send_request(request.unwrap()).await.ok()?;
    Some((response, connection))
}

/// The whole answer; `None` if the connection broke before its end.
pub async fn try_request(
    address: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Option<Answer> {
    let (response, _) = ask(address, method, path, headers, body).await?;
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    let body = response.into_body().collect().await.ok()?.to_bytes();
    Some(Answer {
        status,
        headers,
        body: String::from_utf8(body.to_vec()).unwrap(),
    })
}

pub async fn request(
    address: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Answer {
    let asking = try_request(address, method, path, headers, body);
    let answer = timeout(PATIENCE, asking).await.expect("an answer comes");
    answer.expect("the connection is kept")
}

/// One server-sent event. What has no name of its own is a `message`; a comment is a `comment`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Event {
    pub kind: String,
    pub id: Option<String>,
    pub data: String,
}

/// A stream of events that is being read.
pub struct Events {
    pub headers: hyper::HeaderMap,
    heard: mpsc::UnboundedReceiver<Event>,
    reading: JoinHandle<()>,
    connection: JoinHandle<()>,
}

impl Drop for Events {
    fn drop(&mut self) {
        self.reading.abort();
        self.connection.abort();
    }
}

impl Events {
    /// Opens a stream; the error is the HTTP status, 0 for a connection that broke.
    pub async fn open(address: SocketAddr, token: &str, after: Option<&str>) -> Result<Self, u16> {
        let bearer = format!("Bearer {token}");
        let mut headers = vec![("authorization", bearer.as_str())];
        headers.extend(after.map(|after| ("last-event-id", after)));
        let asked = ask(address, "GET", "/v1/events", &headers, "").await;
        let (response, connection) = asked.ok_or(0_u16)?;
        if response.status() != 200 {
            return Err(response.status().as_u16());
        }
        let headers = response.headers().clone();
        let (sender, heard) = mpsc::unbounded_channel();
        let mut body = response.into_body();
        let reading = tokio::spawn(async move {
            let mut unread = String::new();
            while let Some(Ok(frame)) = body.frame().await {
                let Ok(data) = frame.into_data() else {
                    continue;
                };
                unread.push_str(std::str::from_utf8(&data).unwrap());
                while let Some((event, rest)) = unread.split_once("\n\n") {
                    if let Some(event) = read(event) {
                        let _ = sender.send(event);
                    }
                    unread = rest.to_owned();
                }
            }
        });
        Ok(Self {
            headers,
            heard,
            reading,
            connection,
        })
    }

    /// The next event; `None` at the end of the stream.
    pub async fn next(&mut self) -> Option<Event> {
        timeout(PATIENCE, self.heard.recv())
            .await
            .expect("something comes, or the end")
    }

    /// The next that is no comment.
    pub async fn next_event(&mut self) -> Option<Event> {
        loop {
            let event = self.next().await?;
            if event.kind != "comment" {
                return Some(event);
            }
        }
    }
}

/// `None` for a block without anything to tell, such as `retry:`.
fn read(block: &str) -> Option<Event> {
    let mut event = Event {
        kind: "message".to_owned(),
        ..Event::default()
    };
    let mut data = Vec::new();
    for line in block.lines() {
        match line.split_once(':') {
            Some(("", comment)) => {
                "comment".clone_into(&mut event.kind);
                data.push(comment);
            }
            Some(("event", kind)) => kind.trim().clone_into(&mut event.kind),
            Some(("id", id)) => event.id = Some(id.trim().to_owned()),
            Some(("data", text)) => data.push(text.trim_start()),
            _ => {}
        }
    }
    event.data = data.join("\n");
    (!data.is_empty()).then_some(event)
}

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
