//! A server that says what the transcript says.

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::Value;
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::{WebSocketStream, accept_async};

pub struct Server {
    pub url: String,
    listener: TcpListener,
    socket: Option<WebSocketStream<TcpStream>>,
}

pub enum Heard {
    Frame(Value),
    /// The connection has ended, with this code.
    End(Option<u16>),
}

impl Server {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self {
            url: format!("ws://{}", listener.local_addr().unwrap()),
            listener,
            socket: None,
        }
    }

    /// Waits for a connection.
    pub async fn opens(&mut self) {
        let (stream, _) = self.listener.accept().await.unwrap();
        self.socket = Some(accept_async(stream).await.unwrap());
    }

    pub async fn say(&mut self, message: &Value) {
        // The client may be gone.
        if let Some(socket) = &mut self.socket {
            drop(socket.send(Message::text(message.to_string())).await);
        }
    }

    pub async fn hears(&mut self) -> Heard {
        let Some(socket) = &mut self.socket else {
            return Heard::End(None);
        };
        loop {
            match socket.next().await {
                Some(Ok(Message::Text(text))) => {
                    return Heard::Frame(serde_json::from_str(&text).unwrap());
                }
                Some(Ok(Message::Close(frame))) => {
                    return Heard::End(frame.map(|frame| frame.code.into()));
                }
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return Heard::End(None),
            }
        }
    }

    pub async fn close(&mut self, code: u16) {
        let reason = "".into();
        let code = code.into();
        if let Some(socket) = &mut self.socket {
            drop(socket.close(Some(CloseFrame { code, reason })).await);
        }
    }

    pub fn cut(&mut self) {
        self.socket = None;
    }
}
