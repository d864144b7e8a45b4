//! An HTTP client that opens a connection for each request, and reads streams of server-sent events.

use std::net::SocketAddr;

use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::{HeaderMap, Request};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::PATIENCE;

/// The headers of a WebSocket handshake.
pub const UPGRADE: &[(&str, &str)] = &[
    ("connection", "Upgrade"),
    ("upgrade", "websocket"),
    ("sec-websocket-version", "13"),
    ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
];

/// A complete response.
#[derive(Debug)]
pub struct Response {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: String,
}

impl Response {
    /// The body, which must be JSON.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{self:?}: {error}"))
    }

    /// A header; empty if there is none of this name.
    pub fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .map_or("", |value| value.to_str().expect("the header is text"))
    }
}

/// Sends a request; the head of the response, whose body is still to come. `None` if the connection broke.
async fn send(
    address: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Option<(hyper::Response<Incoming>, JoinHandle<()>)> {
    let stream = TcpStream::connect(address).await.ok()?;
    let connecting = hyper::client::conn::http1::handshake(TokioIo::new(stream));
    let (mut sender, connection) = connecting.await.ok()?;
    let connection = tokio::spawn(async move { drop(connection.await) });
    let mut request = Request::builder().method(method).uri(path);
    if headers.iter().all(|(name, _)| *name != "host") {
        request = request.header("host", address.to_string());
    }
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(Full::new(Bytes::copy_from_slice(body.as_bytes())));
    let response = sender
        .send_request(request.expect("a valid request"))
        .await
        .ok()?;
    Some((response, connection))
}

/// The response; `None` if the connection broke before its end. Waits as long as it takes.
pub async fn try_request(
    address: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Option<Response> {
    let (response, _) = send(address, method, path, headers, body).await?;
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    let body = response.into_body().collect().await.ok()?.to_bytes();
    Some(Response {
        status,
        headers,
        body: String::from_utf8(body.to_vec()).expect("the body is UTF-8"),
    })
}

/// The response; panics if none comes within [`PATIENCE`].
pub async fn request(
    address: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Response {
    let request = try_request(address, method, path, headers, body);
    let response = timeout(PATIENCE, request).await.expect("no response");
    response.expect("the connection broke")
}

/// The response to a GET for this `Host`.
pub async fn request_as(address: SocketAddr, host: &str, path: &str) -> Response {
    request(address, "GET", path, &[("host", host)], "").await
}

/// The response to a GET; `None` if the connection broke.
pub async fn get(address: SocketAddr, path: &str) -> Option<Response> {
    get_with(address, path, &[]).await
}

/// Like [`get`], with headers.
pub async fn get_with(
    address: SocketAddr,
    path: &str,
    headers: &[(&str, &str)],
) -> Option<Response> {
    try_request(address, "GET", path, headers, "").await
}

/// The status of a GET; `None` if the connection broke.
pub async fn status(address: SocketAddr, path: &str) -> Option<u16> {
    Some(get(address, path).await?.status)
}

/// One server-sent event. Its kind is `message` if it names none, and `comment` for a comment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Event {
    pub kind: String,
    pub id: Option<String>,
    pub data: String,
}

/// An open event stream. It is read all the time, so that the server never waits for the test.
pub struct EventStream {
    pub headers: HeaderMap,
    received: mpsc::UnboundedReceiver<Event>,
    reader: JoinHandle<()>,
    connection: JoinHandle<()>,
}

impl Drop for EventStream {
    fn drop(&mut self) {
        self.reader.abort();
        self.connection.abort();
    }
}

impl EventStream {
    /// Opens a stream after this event. The error is the HTTP status, 0 if the connection broke.
    pub async fn open(address: SocketAddr, token: &str, after: Option<&str>) -> Result<Self, u16> {
        let bearer = format!("Bearer {token}");
        let mut headers = vec![("authorization", bearer.as_str())];
        headers.extend(after.map(|after| ("last-event-id", after)));
        let sent = send(address, "GET", "/v1/events", &headers, "").await;
        let (response, connection) = sent.ok_or(0_u16)?;
        if response.status() != 200 {
            return Err(response.status().as_u16());
        }
        let headers = response.headers().clone();
        let (sender, received) = mpsc::unbounded_channel();
        let mut body = response.into_body();
        let reader = tokio::spawn(async move {
            let mut unparsed = String::new();
            while let Some(Ok(frame)) = body.frame().await {
                let Ok(data) = frame.into_data() else {
                    continue;
                };
                unparsed.push_str(std::str::from_utf8(&data).expect("events are UTF-8"));
                while let Some((block, rest)) = unparsed.split_once("\n\n") {
                    if let Some(event) = parse(block) {
                        let _ = sender.send(event);
                    }
                    unparsed = rest.to_owned();
                }
            }
        });
        Ok(Self {
            headers,
            received,
            reader,
            connection,
        })
    }

    /// The next event or comment; `None` at the end of the stream.
    pub async fn next(&mut self) -> Option<Event> {
        timeout(PATIENCE, self.received.recv())
            .await
            .expect("neither an event nor the end of the stream")
    }

    /// The next event that is no comment; `None` at the end of the stream.
    pub async fn next_event(&mut self) -> Option<Event> {
        loop {
            let event = self.next().await?;
            if event.kind != "comment" {
                return Some(event);
            }
        }
    }
}

/// Parses a block of lines (WHATWG HTML, "Interpreting an event stream"); `None` without data, as for `retry:`.
fn parse(block: &str) -> Option<Event> {
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
