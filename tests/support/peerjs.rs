//! A PeerJS client, byte for byte.

use std::net::SocketAddr;
use std::time::Duration;

use futures_util::stream::SplitSink;
use futures_util::{SinkExt as _, StreamExt as _};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

use super::{PATIENCE, eventually};

pub const OPEN: &str = r#"{"type":"OPEN"}"#;

/// A PeerJS client, as it is on the wire. It listens all the time, as browsers do: they answer pings whatever the page does.
pub struct Client {
    pub id: String,
    pub sink: SplitSink<WebSocketStream<MaybeTlsStream<TcpStream>>, Message>,
    heard: mpsc::UnboundedReceiver<Result<String, End>>,
    listener: JoinHandle<()>,
}

/// How a connection ended.
#[derive(Debug, PartialEq, Eq)]
pub enum End {
    /// By a close frame with this code.
    Code(u16),
    /// By one without: browsers say 1005.
    NoCode,
    /// Without a word.
    Broken,
}

/// The connection breaks without a goodbye.
impl Drop for Client {
    fn drop(&mut self) {
        self.listener.abort();
    }
}

impl Client {
    pub async fn connect(address: SocketAddr, query: &str) -> Self {
        let url = format!("ws://{address}/peerjs?{query}");
        let (socket, _) = tokio_tungstenite::connect_async(url).await.unwrap();
        let (sink, mut stream) = socket.split();
        let (sender, heard) = mpsc::unbounded_channel();
        let listener = tokio::spawn(async move {
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
            // Answers the close.
            while let Some(Ok(_)) = stream.next().await {}
        });
        Self {
            id: query.to_owned(),
            sink,
            heard,
            listener,
        }
    }

    pub async fn claim(address: SocketAddr, id: &str, token: &str) -> Self {
        Self::connect(address, &format!("key=peerjs&id={id}&token={token}")).await
    }

    /// Connects and hears that it is open.
    pub async fn open(address: SocketAddr, id: &str, token: &str) -> Self {
        let mut client = Self::claim(address, id, token).await;
        assert_eq!(client.hears().await, OPEN, "{id}");
        client
    }

    /// The same, as often as it takes at a node that lets nobody in for a while.
    pub async fn let_in(address: SocketAddr, id: &str) -> Self {
        eventually("it is let in", async || {
            let mut client = Self::claim(address, id, "t").await;
            let heard = timeout(PATIENCE, client.heard.recv()).await;
            let is_open = matches!(&heard, Ok(Some(Ok(text))) if text == OPEN);
            is_open.then_some(client)
        })
        .await
    }

    pub async fn says(&mut self, text: &str) {
        self.sink.send(Message::text(text)).await.unwrap();
    }

    pub async fn hears(&mut self) -> String {
        self.hears_within(PATIENCE)
            .await
            .unwrap_or_else(|| panic!("{} heard nothing", self.id))
    }

    pub async fn hears_within(&mut self, time: Duration) -> Option<String> {
        let heard = timeout(time, self.heard.recv()).await.ok()?;
        match heard {
            Some(Ok(text)) => Some(text),
            ended => panic!("{} was closed: {ended:?}", self.id),
        }
    }

    pub async fn ends(&mut self) -> End {
        match timeout(PATIENCE, self.heard.recv()).await {
            Ok(Some(Err(end))) => end,
            other => panic!("{} was not closed: {other:?}", self.id),
        }
    }

    /// Closes as a browser does.
    pub async fn closes(mut self) {
        self.sink.send(Message::Close(None)).await.unwrap();
        assert_eq!(self.ends().await, End::NoCode);
    }

    /// Whatever was sent before has been dealt with: something that is sent to itself comes back.
    pub async fn is_heard(&mut self) {
        let id = self.id.clone();
        let text = format!(r#"{{"type":"CANDIDATE","dst":"{id}","payload":"self"}}"#);
        self.says(&text).await;
        let back = format!(r#"{{"type":"CANDIDATE","src":"{id}","dst":"{id}","payload":"self"}}"#);
        assert_eq!(self.hears().await, back);
    }
}

impl Client {
    /// One of this id, that knows it.
    pub async fn named(address: SocketAddr, id: &str) -> Self {
        let mut client = Self::open(address, id, &format!("t{id}")).await;
        id.clone_into(&mut client.id);
        client
    }
}
