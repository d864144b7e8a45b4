//! An HTTP client: asks, and reads streams of server-sent events.

use std::net::SocketAddr;

use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::Value;
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
        self.headers
            .get(name)
            .map_or("", |it| it.to_str().expect("text"))
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
    let response = sender
        .send_request(request.expect("a request"))
        .await
        .ok()?;
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
        body: String::from_utf8(body.to_vec()).expect("UTF-8"),
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
                unread.push_str(std::str::from_utf8(&data).expect("UTF-8"));
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
