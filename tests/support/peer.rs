//! A person at the other end of a WebSocket: says and hears.

use std::net::SocketAddr;
use std::time::Duration;

use futures_util::stream::SplitSink;
use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

use super::PATIENCE;

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// What came, and when.
#[derive(Debug)]
enum Heard {
    Text(String, Instant),
    /// The close code; `None` for a connection that broke.
    Closed(Option<u16>),
}

/// What a client needs to resume its session.
#[derive(Clone, Debug, Default)]
pub struct Ticket {
    pub name: String,
    pub secret: String,
    /// The last seq that it heard.
    pub last: Option<String>,
}

/// One client. It listens all the time, so it answers pings also while the test looks away.
pub struct Peer {
    pub name: String,
    /// What resumes its session, if it is resumable.
    pub ticket: Ticket,
    sink: SplitSink<Socket, Message>,
    heard: mpsc::UnboundedReceiver<Heard>,
    listener: Listener,
}

/// Ends with the client, so that its connection does.
struct Listener(JoinHandle<()>);

impl Drop for Listener {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Peer {
    pub async fn connect(address: SocketAddr) -> Self {
        Self::try_connect(address, &[])
            .await
            .expect("the node lets a client in")
    }

    /// Connects with further headers; the error is the HTTP status.
    pub async fn try_connect(
        address: SocketAddr,
        headers: &[(&'static str, &str)],
    ) -> Result<Self, u16> {
        let upgraded = Self::upgrade(address, "/", headers).await;
        upgraded.map(|(peer, _)| peer)
    }

    /// Connects at this path; with the subprotocol that the node has chosen.
    pub async fn upgrade(
        address: SocketAddr,
        path: &str,
        headers: &[(&'static str, &str)],
    ) -> Result<(Self, Option<String>), u16> {
        let mut request = format!("ws://{address}{path}")
            .into_client_request()
            .unwrap();
        for (header, value) in headers {
            request
                .headers_mut()
                .insert(*header, value.parse().unwrap());
        }
        match tokio_tungstenite::connect_async_with_config(request, None, true).await {
            Ok((socket, response)) => {
                let chosen = response.headers().get("sec-websocket-protocol");
                let chosen = chosen.map(|chosen| chosen.to_str().unwrap().to_owned());
                Ok((Self::on(socket), chosen))
            }
            Err(tokio_tungstenite::tungstenite::Error::Http(response)) => {
                Err(response.status().as_u16())
            }
            Err(error) => panic!("no connection to {address}: {error}"),
        }
    }

    fn on(socket: Socket) -> Self {
        let (sink, mut stream) = socket.split();
        let (sender, heard) = mpsc::unbounded_channel();
        let listener = tokio::spawn(async move {
            let reason = loop {
                match stream.next().await {
                    Some(Ok(Message::Text(text))) => {
                        let _ = sender.send(Heard::Text(text.as_str().to_owned(), Instant::now()));
                    }
                    Some(Ok(Message::Close(frame))) => break frame.map(|frame| frame.code.into()),
                    Some(Ok(_)) => {}
                    Some(Err(_)) | None => break None,
                }
            };
            let _ = sender.send(Heard::Closed(reason));
            // Answers the close.
            while let Some(Ok(_)) = stream.next().await {}
        });
        Self {
            name: String::new(),
            ticket: Ticket::default(),
            sink,
            heard,
            listener: Listener(listener),
        }
    }

    /// Connects and logs in.
    pub async fn login(address: SocketAddr, name: &str) -> Self {
        let mut peer = Self::connect(address).await;
        let reply = peer.tries_login(name).await;
        assert_eq!(reply["success"], true, "{name} cannot log in: {reply}");
        peer
    }

    /// Logs in and returns the reply.
    pub async fn tries_login(&mut self, name: &str) -> Value {
        self.says(&json!({"type": "login", "name": name})).await;
        name.clone_into(&mut self.name);
        loop {
            let reply = self.hears().await;
            if reply["type"] == "login" {
                return reply;
            }
        }
    }

    /// Connects and logs in with a session that outlives its connection.
    pub async fn login_resumable(address: SocketAddr, name: &str) -> Self {
        let mut peer = Self::connect(address).await;
        peer.says(&json!({"type": "login", "name": name, "resumable": true}))
            .await;
        let reply = peer.hears_of("login").await;
        assert_eq!(reply["success"], true, "{name} cannot log in: {reply}");
        name.clone_into(&mut peer.name);
        peer.ticket = Ticket {
            name: name.to_owned(),
            secret: reply["resume"].as_str().expect("a secret").to_owned(),
            last: None,
        };
        peer
    }

    /// Connects and resumes a session.
    pub async fn resume(address: SocketAddr, ticket: &Ticket) -> Self {
        let mut peer = Self::connect(address).await;
        let reply = peer.tries_to_resume(ticket).await;
        assert_eq!(
            reply["success"], true,
            "{ticket:?} does not resume: {reply}"
        );
        assert_eq!(reply["resumed"], true, "{reply}");
        assert_eq!(reply["resume"], ticket.secret.as_str(), "the secret stays");
        peer
    }

    /// Resumes a session that others want too; false if one of them was later, and this one is told so.
    pub async fn races_to_resume(&mut self, ticket: &Ticket) -> bool {
        let login = json!({"type": "login", "name": ticket.name, "resume": ticket.secret});
        self.says(&login).await;
        let reply = self.hears_or_is_closed(4000).await;
        reply.is_some_and(|reply| {
            assert_eq!(reply["resumed"], true, "{reply}");
            true
        })
    }

    /// Tries to resume a session and returns the reply.
    pub async fn tries_to_resume(&mut self, ticket: &Ticket) -> Value {
        let mut login = json!({"type": "login", "name": ticket.name, "resume": ticket.secret});
        if let Some(last) = &ticket.last {
            login["last"] = last.as_str().into();
        }
        self.says(&login).await;
        self.name.clone_from(&ticket.name);
        self.ticket = ticket.clone();
        loop {
            let reply = self.hears().await;
            if reply["type"] == "login" {
                return reply;
            }
        }
    }

    pub async fn says(&mut self, message: &Value) {
        self.says_text(&message.to_string()).await;
    }

    pub async fn says_text(&mut self, text: &str) {
        self.sends(Message::text(text)).await;
    }

    pub async fn sends(&mut self, message: Message) {
        self.sink
            .send(message)
            .await
            .expect("the connection is open");
    }

    /// The same, where the node may have closed meanwhile.
    pub async fn tries_to_say(&mut self, text: &str) -> bool {
        self.sink.send(Message::text(text)).await.is_ok()
    }

    pub async fn hears(&mut self) -> Value {
        let text = self.hears_text().await;
        let message: Value = serde_json::from_str(&text)
            .unwrap_or_else(|error| panic!("{} heard {text}: {error}", self.name));
        if let Some(seq) = message["seq"].as_str() {
            self.ticket.last = Some(seq.to_owned());
        }
        message
    }

    pub async fn hears_text(&mut self) -> String {
        self.hears_within(PATIENCE)
            .await
            .unwrap_or_else(|| panic!("{} heard nothing", self.name))
            .0
    }

    /// The next message and when it came; `None` if none comes in this time.
    pub async fn hears_within(&mut self, time: Duration) -> Option<(String, Instant)> {
        match timeout(time, self.heard.recv()).await.ok()? {
            Some(Heard::Text(text, at)) => Some((text, at)),
            closed => panic!("{} was closed: {closed:?}", self.name),
        }
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

    /// Everything that comes in this time.
    pub async fn listens(&mut self, time: Duration) -> Vec<Value> {
        let until = Instant::now() + time;
        let mut heard = Vec::new();
        while let Some((text, _)) = self
            .hears_within(until.saturating_duration_since(Instant::now()))
            .await
        {
            heard.push(serde_json::from_str(&text).unwrap());
        }
        heard
    }

    /// Nothing comes: asks for a pong, which everything that was sent before would precede.
    pub async fn hears_nothing_more(&mut self) {
        self.says(&json!({"type": "ping", "id": "nothing-more"}))
            .await;
        let next = self.hears().await;
        assert_eq!(
            next,
            json!({"type": "pong", "id": "nothing-more"}),
            "{} heard something",
            self.name
        );
    }

    /// Passes over messages until the node closes; the code.
    pub async fn is_closed(&mut self) -> Option<u16> {
        loop {
            match timeout(PATIENCE, self.heard.recv())
                .await
                .expect("the node closes")
            {
                Some(Heard::Text(..)) => {}
                Some(Heard::Closed(code)) => return code,
                None => return None,
            }
        }
    }

    /// The next message; `None` if the node closes first, with this code.
    pub async fn hears_or_is_closed(&mut self, code: u16) -> Option<Value> {
        match timeout(PATIENCE, self.heard.recv()).await {
            Ok(Some(Heard::Text(text, _))) => Some(serde_json::from_str(&text).unwrap()),
            Ok(Some(Heard::Closed(closed))) => {
                assert_eq!(closed, Some(code), "{}", self.name);
                None
            }
            _ => panic!("{} neither heard anything nor was closed", self.name),
        }
    }

    pub async fn closes(mut self) {
        self.sink.send(Message::Close(None)).await.unwrap();
        let _ = self.is_closed().await;
    }

    /// Closes with this code and waits until the node has.
    pub async fn closes_with(mut self, code: u16) {
        let frame = tokio_tungstenite::tungstenite::protocol::CloseFrame {
            code: code.into(),
            reason: "".into(),
        };
        self.sink.send(Message::Close(Some(frame))).await.unwrap();
        let _ = self.is_closed().await;
    }

    /// The connection breaks without a goodbye.
    pub fn vanishes(self) {
        drop(self);
    }

    /// Stops reading, and so answering pings, as a host does that vanished without a FIN. The connection stays until this is dropped.
    pub fn goes_deaf(self) -> impl Send + 'static {
        drop(self.listener);
        self.sink
    }

    /// Offers a call, with an id; the other side hears it.
    pub async fn calls(&mut self, other: &mut Peer) {
        let id = format!("call-{}", other.name);
        self.says(&json!({"type": "offer", "name": other.name, "offer": {"sdp": "o"}, "id": id}))
            .await;
        let offer = other.hears_of("offer").await;
        assert_eq!(offer["name"], self.name.as_str());
        loop {
            let ack = self.hears().await;
            if ack["id"] == id.as_str() {
                assert_eq!(ack["status"], "delivered", "{ack}");
                break;
            }
        }
        other
            .says(&json!({"type": "answer", "name": self.name, "answer": {"sdp": "a"}}))
            .await;
        assert_eq!(self.hears_of("answer").await["name"], other.name.as_str());
    }

    /// Sends a message with an id and waits for what becomes of it.
    pub async fn sends_message(&mut self, to: &str, id: &str) -> Value {
        self.says(&json!({"type": "message", "name": to, "message": id, "id": id}))
            .await;
        loop {
            let answer = self.hears().await;
            if answer["id"] == id {
                return answer;
            }
        }
    }
}
