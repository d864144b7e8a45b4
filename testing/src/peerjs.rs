//! A PeerJS client that sends and compares texts byte for byte.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use futures_util::stream::SplitSink;
use futures_util::{SinkExt as _, StreamExt as _};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;

use crate::websocket::{Options, Socket, connect};
use crate::{PATIENCE, eventually};

/// The first message of a session.
pub const OPEN: &str = r#"{"type":"OPEN"}"#;

/// One client. A task of its own reads all the time, as browsers do: they answer pings whatever the page does.
///
/// Dropped, it breaks the connection without a close frame.
pub struct Client {
    pub id: String,
    pub sink: SplitSink<Socket, Message>,
    received: mpsc::UnboundedReceiver<Result<String, End>>,
    reader: JoinHandle<()>,
}

/// How a connection ended.
#[derive(Debug, PartialEq, Eq)]
pub enum End {
    /// By a close frame with this code.
    Code(u16),
    /// By a close frame without a code; browsers report 1005.
    NoCode,
    /// Without a close frame.
    Broken,
}

impl Drop for Client {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

impl Client {
    /// Connects with this query string.
    pub async fn connect(address: SocketAddr, query: &str) -> Self {
        Self::connect_with(address, query, Options::default()).await
    }

    async fn connect_with(address: SocketAddr, query: &str, options: Options<'_>) -> Self {
        let path = format!("/peerjs?{query}");
        let (socket, _) = connect(address, &path, options).await.unwrap();
        let (sink, mut stream) = socket.split();
        let (sender, received) = mpsc::unbounded_channel();
        let reader = tokio::spawn(async move {
            let end = loop {
                match stream.next().await {
                    Some(Ok(Message::Text(text))) => {
                        let _ = sender.send(Ok(text.as_str().to_owned()));
                    }
                    Some(Ok(Message::Close(Some(frame)))) => break End::Code(frame.code.into()),
                    Some(Ok(Message::Close(None))) => break End::NoCode,
                    Some(Ok(_)) => {}
                    Some(Err(_)) | None => break End::Broken,
                }
            };
            let _ = sender.send(Err(end));
            // tungstenite sends the answering close frame on the next read.
            while let Some(Ok(_)) = stream.next().await {}
        });
        Self {
            id: query.to_owned(),
            sink,
            received,
            reader,
        }
    }

    /// Connects with an id and a token; the node may refuse the id.
    pub async fn claim(address: SocketAddr, id: &str, token: &str) -> Self {
        Self::connect(address, &format!("key=peerjs&id={id}&token={token}")).await
    }

    /// Like [`claim`](Self::claim), from another address of this machine.
    pub async fn claim_from(from: IpAddr, address: SocketAddr, id: &str, token: &str) -> Self {
        let options = Options {
            from: Some(from),
            ..Options::default()
        };
        let query = format!("key=peerjs&id={id}&token={token}");
        Self::connect_with(address, &query, options).await
    }

    /// Connects, and expects `OPEN`.
    pub async fn open(address: SocketAddr, id: &str, token: &str) -> Self {
        let mut client = Self::claim(address, id, token).await;
        assert_eq!(client.receive().await, OPEN, "{id}");
        client
    }

    /// Like [`open`](Self::open), and [`is_served`](Self::is_served) works with it.
    pub async fn named(address: SocketAddr, id: &str) -> Self {
        let mut client = Self::open(address, id, &format!("t{id}")).await;
        id.clone_into(&mut client.id);
        client
    }

    /// Like [`open`](Self::open), and tries again while the node accepts nobody, such as after an outage of Redis.
    pub async fn open_eventually(address: SocketAddr, id: &str) -> Self {
        eventually("the node opens the session", async || {
            let mut client = Self::claim(address, id, "t").await;
            let received = timeout(PATIENCE, client.received.recv()).await;
            let is_open = matches!(&received, Ok(Some(Ok(text))) if text == OPEN);
            is_open.then_some(client)
        })
        .await
    }

    pub async fn send(&mut self, text: &str) {
        self.sink.send(Message::text(text)).await.unwrap();
    }

    pub async fn receive(&mut self) -> String {
        self.receive_within(PATIENCE)
            .await
            .unwrap_or_else(|| panic!("{} received nothing", self.id))
    }

    /// The next message; `None` if none comes in this time.
    pub async fn receive_within(&mut self, time: Duration) -> Option<String> {
        let received = timeout(time, self.received.recv()).await.ok()?;
        match received {
            Some(Ok(text)) => Some(text),
            ended => panic!("{} was closed: {ended:?}", self.id),
        }
    }

    /// Waits until the connection ends; fails on a message.
    pub async fn ended(&mut self) -> End {
        match timeout(PATIENCE, self.received.recv()).await {
            Ok(Some(Err(end))) => end,
            other => panic!("{} was not closed: {other:?}", self.id),
        }
    }

    /// Closes as a browser does.
    pub async fn close(mut self) {
        self.sink.send(Message::Close(None)).await.unwrap();
        assert_eq!(self.ended().await, End::NoCode);
    }

    /// Waits until the node has processed everything sent so far: a candidate for itself comes back.
    pub async fn is_served(&mut self) {
        let id = self.id.clone();
        let text = format!(r#"{{"type":"CANDIDATE","dst":"{id}","payload":"self"}}"#);
        self.send(&text).await;
        let back = format!(r#"{{"type":"CANDIDATE","src":"{id}","dst":"{id}","payload":"self"}}"#);
        assert_eq!(self.receive().await, back);
    }
}
