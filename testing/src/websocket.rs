//! A WebSocket client for the native protocol.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use futures_util::stream::SplitSink;
use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::handshake::client::Response;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message};

use crate::PATIENCE;

/// An open connection. Tests use [`Client`]; this is for programs with a loop of their own.
pub type Socket = WebSocketStream<TcpStream>;

/// The read buffer of [`Options::small`], in bytes. Signals are short.
const SMALL_BUFFER: usize = 2048;

/// How a connection is opened.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options<'a> {
    /// Further headers of the handshake.
    pub headers: &'a [(&'static str, &'a str)],
    /// The client's own address, such as 127.0.0.2: limits hold for each address.
    pub from: Option<IpAddr>,
    /// The size of the kernel's receive buffer, in bytes. A small one makes a client that does not read a slow one
    /// sooner.
    pub receive_buffer: Option<u32>,
    /// Whether to use little memory, for thousands of connections.
    pub small: bool,
}

/// Connects over plain TCP without Nagle's delay. The response holds what the server has chosen.
pub async fn connect(
    address: SocketAddr,
    path: &str,
    options: Options<'_>,
) -> Result<(Socket, Response), Error> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    if let Some(bytes) = options.receive_buffer {
        socket.set_recv_buffer_size(bytes)?;
    }
    if let Some(from) = options.from {
        socket.bind((from, 0).into())?;
    }
    let stream = socket.connect(address).await?;
    stream.set_nodelay(true)?;
    let mut request = format!("ws://{address}{path}").into_client_request()?;
    for (header, value) in options.headers {
        request.headers_mut().insert(*header, value.parse()?);
    }
    let config = options.small.then(|| {
        WebSocketConfig::default()
            .read_buffer_size(SMALL_BUFFER)
            .write_buffer_size(0)
    });
    Box::pin(tokio_tungstenite::client_async_with_config(
        request, stream, config,
    ))
    .await
}

/// What arrived, and when.
#[derive(Debug)]
enum Received {
    Text(String, Instant),
    /// The close code; `None` if the connection broke, or closed without a code.
    Closed(Option<u16>),
}

/// What a client needs to resume its session.
#[derive(Clone, Debug, Default)]
pub struct ResumeToken {
    pub name: String,
    pub secret: String,
    /// The `seq` of the last signal that it received.
    pub last: Option<String>,
}

/// One client. A task of its own reads all the time, so pings are answered while the test does something else.
///
/// Dropped, it breaks the connection without a close frame.
pub struct Client {
    pub name: String,
    /// What resumes the session, if it is resumable.
    pub token: ResumeToken,
    sink: SplitSink<Socket, Message>,
    received: mpsc::UnboundedReceiver<Received>,
    reader: Reader,
}

/// Stops the reading task with the client.
struct Reader(JoinHandle<()>);

impl Drop for Reader {
    fn drop(&mut self) {
        self.0.abort();
    }
}

// === Connecting, logging in, resuming ===

impl Client {
    pub async fn connect(address: SocketAddr) -> Self {
        Self::try_connect(address, &[])
            .await
            .expect("the node accepts the connection")
    }

    /// Connects from this address of the machine.
    pub async fn connect_from(from: IpAddr, address: SocketAddr) -> Self {
        let options = Options {
            from: Some(from),
            ..Options::default()
        };
        let (socket, _) = connect(address, "/", options).await.unwrap();
        Self::over(socket)
    }

    /// Connects with further headers; the error is the HTTP status.
    pub async fn try_connect(
        address: SocketAddr,
        headers: &[(&'static str, &str)],
    ) -> Result<Self, u16> {
        let upgraded = Self::upgrade(address, "/", headers).await;
        upgraded.map(|(client, _)| client)
    }

    /// Connects at this path; also returns the subprotocol that the node has chosen. The error is the HTTP status.
    pub async fn upgrade(
        address: SocketAddr,
        path: &str,
        headers: &[(&'static str, &str)],
    ) -> Result<(Self, Option<String>), u16> {
        let options = Options {
            headers,
            ..Options::default()
        };
        match connect(address, path, options).await {
            Ok((socket, response)) => {
                let chosen = response.headers().get("sec-websocket-protocol");
                let chosen = chosen.map(|chosen| chosen.to_str().unwrap().to_owned());
                Ok((Self::over(socket), chosen))
            }
            Err(Error::Http(response)) => Err(response.status().as_u16()),
            Err(error) => panic!("cannot connect to {address}: {error}"),
        }
    }

    fn over(socket: Socket) -> Self {
        let (sink, mut stream) = socket.split();
        let (sender, received) = mpsc::unbounded_channel();
        let reader = tokio::spawn(async move {
            let code = loop {
                match stream.next().await {
                    Some(Ok(Message::Text(text))) => {
                        let text = text.as_str().to_owned();
                        let _ = sender.send(Received::Text(text, Instant::now()));
                    }
                    Some(Ok(Message::Close(frame))) => break frame.map(|frame| frame.code.into()),
                    Some(Ok(_)) => {}
                    Some(Err(_)) | None => break None,
                }
            };
            let _ = sender.send(Received::Closed(code));
            // tungstenite sends the answering close frame on the next read.
            while let Some(Ok(_)) = stream.next().await {}
        });
        Self {
            name: String::new(),
            token: ResumeToken::default(),
            sink,
            received,
            reader: Reader(reader),
        }
    }

    /// Connects and logs in.
    pub async fn login(address: SocketAddr, name: &str) -> Self {
        let mut client = Self::connect(address).await;
        let reply = client.try_login(name).await;
        assert_eq!(reply["success"], true, "{name} cannot log in: {reply}");
        client
    }

    /// Logs in; the reply.
    pub async fn try_login(&mut self, name: &str) -> Value {
        self.send(&json!({"type": "login", "name": name})).await;
        name.clone_into(&mut self.name);
        self.receive_type("login").await
    }

    /// Connects and logs in with a session that outlives its connection.
    pub async fn login_resumable(address: SocketAddr, name: &str) -> Self {
        let mut client = Self::connect(address).await;
        client
            .send(&json!({"type": "login", "name": name, "resumable": true}))
            .await;
        let reply = client.receive_type("login").await;
        assert_eq!(reply["success"], true, "{name} cannot log in: {reply}");
        name.clone_into(&mut client.name);
        client.token = ResumeToken {
            name: name.to_owned(),
            secret: reply["resume"].as_str().expect("a secret").to_owned(),
            last: None,
        };
        client
    }

    /// Connects and resumes a session.
    pub async fn resume(address: SocketAddr, token: &ResumeToken) -> Self {
        let mut client = Self::connect(address).await;
        let reply = client.try_resume(token).await;
        assert_eq!(reply["success"], true, "{token:?} does not resume: {reply}");
        assert_eq!(reply["resumed"], true, "{reply}");
        assert_eq!(reply["resume"], token.secret.as_str(), "the secret stays");
        client
    }

    /// Tries to resume a session; the reply.
    pub async fn try_resume(&mut self, token: &ResumeToken) -> Value {
        let mut login = json!({"type": "login", "name": token.name, "resume": token.secret});
        if let Some(last) = &token.last {
            login["last"] = last.as_str().into();
        }
        self.send(&login).await;
        self.name.clone_from(&token.name);
        self.token = token.clone();
        self.receive_type("login").await
    }

    /// Resumes a session that other clients resume at the same time; false if a later one replaced this one.
    pub async fn race_to_resume(&mut self, token: &ResumeToken) -> bool {
        let login = json!({"type": "login", "name": token.name, "resume": token.secret});
        self.send(&login).await;
        let reply = self.receive_or_closed(4000).await;
        reply.is_some_and(|reply| {
            assert_eq!(reply["resumed"], true, "{reply}");
            true
        })
    }
}

// === Sending and receiving ===

impl Client {
    pub async fn send(&mut self, message: &Value) {
        self.send_text(&message.to_string()).await;
    }

    pub async fn send_text(&mut self, text: &str) {
        self.send_frame(Message::text(text)).await;
    }

    pub async fn send_frame(&mut self, frame: Message) {
        self.sink.send(frame).await.expect("the connection is open");
    }

    /// Sends a text; false if the node has closed the connection.
    pub async fn try_send_text(&mut self, text: &str) -> bool {
        self.sink.send(Message::text(text)).await.is_ok()
    }

    /// The next message.
    pub async fn receive(&mut self) -> Value {
        let text = self.receive_text().await;
        let message: Value = serde_json::from_str(&text)
            .unwrap_or_else(|error| panic!("{} received {text}: {error}", self.name));
        if let Some(seq) = message["seq"].as_str() {
            self.token.last = Some(seq.to_owned());
        }
        message
    }

    pub async fn receive_text(&mut self) -> String {
        self.receive_within(PATIENCE)
            .await
            .unwrap_or_else(|| panic!("{} received nothing", self.name))
            .0
    }

    /// The next message and when it came; `None` if none comes in this time.
    pub async fn receive_within(&mut self, time: Duration) -> Option<(String, Instant)> {
        match timeout(time, self.received.recv()).await.ok()? {
            Some(Received::Text(text, at)) => Some((text, at)),
            closed => panic!("{} was closed: {closed:?}", self.name),
        }
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

    /// Everything that comes in this time.
    pub async fn receive_for(&mut self, time: Duration) -> Vec<Value> {
        let until = Instant::now() + time;
        let mut messages = Vec::new();
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let Some((text, _)) = self.receive_within(left).await else {
                return messages;
            };
            messages.push(serde_json::from_str(&text).unwrap());
        }
    }

    /// Fails if anything was sent to this client: it asks for a pong, which would come after that.
    pub async fn expect_silence(&mut self) {
        let id = "expect-silence";
        self.send(&json!({"type": "ping", "id": id})).await;
        let next = self.receive().await;
        assert_eq!(next, json!({"type": "pong", "id": id}), "{}", self.name);
    }

    /// Waits until the node closes the connection, and skips messages; the close code.
    pub async fn closed(&mut self) -> Option<u16> {
        loop {
            let received = timeout(PATIENCE, self.received.recv()).await;
            match received.expect("the node closes the connection") {
                Some(Received::Text(..)) => {}
                Some(Received::Closed(code)) => return code,
                None => return None,
            }
        }
    }

    /// The next message; `None` if the node closes first, which must be with this code.
    pub async fn receive_or_closed(&mut self, code: u16) -> Option<Value> {
        match timeout(PATIENCE, self.received.recv()).await {
            Ok(Some(Received::Text(text, _))) => Some(serde_json::from_str(&text).unwrap()),
            Ok(Some(Received::Closed(closed))) => {
                assert_eq!(closed, Some(code), "{}", self.name);
                None
            }
            _ => panic!("{} neither received anything nor was closed", self.name),
        }
    }
}

// === Ending ===

impl Client {
    /// Closes without a code and waits until the node has closed too.
    pub async fn close(mut self) {
        self.sink.send(Message::Close(None)).await.unwrap();
        let _ = self.closed().await;
    }

    /// Like [`close`](Self::close), with a code.
    pub async fn close_with(mut self, code: u16) {
        let frame = CloseFrame {
            code: code.into(),
            reason: "".into(),
        };
        self.sink.send(Message::Close(Some(frame))).await.unwrap();
        let _ = self.closed().await;
    }

    /// Breaks the connection without a close frame.
    pub fn disconnect(self) {
        drop(self);
    }

    /// Stops reading, and so answering pings, as a host does that vanished without a FIN. The connection stays until
    /// the value is dropped.
    pub fn stop_reading(self) -> impl Send + 'static {
        drop(self.reader);
        self.sink
    }
}
