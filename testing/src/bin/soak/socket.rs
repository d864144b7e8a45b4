//! A WebSocket connection to a node that uses little memory, and the reply to a login.

use std::net::SocketAddr;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use serde_json::Value;
use testing::websocket::{self, Options, connect};
use tokio_tungstenite::tungstenite::Message;

pub(crate) struct Socket(websocket::Socket);

/// Why a connection ended.
pub(crate) type Ended = String;

/// The reply to a login.
pub(crate) enum Answer {
    Welcome {
        secret: Option<String>,
        resumed: bool,
    },
    Refused {
        code: String,
        retry_after: Duration,
    },
}

impl Socket {
    pub(crate) async fn open(door: SocketAddr) -> Result<Self, Ended> {
        let options = Options {
            small: true,
            ..Options::default()
        };
        let (socket, _) = connect(door, "/", options).await.map_err(in_words)?;
        Ok(Self(socket))
    }

    pub(crate) async fn send(&mut self, message: &Value) -> Result<(), Ended> {
        let text = Message::text(message.to_string());
        self.0.send(text).await.map_err(in_words)
    }

    /// The next message. Answers pings on the way.
    pub(crate) async fn next(&mut self) -> Result<Value, Ended> {
        loop {
            match self.0.next().await {
                Some(Ok(Message::Text(text))) => {
                    return serde_json::from_str(&text).map_err(in_words);
                }
                Some(Ok(Message::Close(frame))) => {
                    return Err(frame.map_or("closed".to_owned(), |frame| {
                        format!("closed with {}: {}", frame.code, frame.reason)
                    }));
                }
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(in_words(error)),
                None => return Err("closed".to_owned()),
            }
        }
    }

    pub(crate) async fn login(&mut self, request: &Value) -> Result<Answer, Ended> {
        self.send(request).await?;
        let answer = self.next().await?;
        if answer["type"] != "login" {
            return Err(format!("a login was answered {answer}"));
        }
        Ok(if answer["success"] == true {
            Answer::Welcome {
                secret: text(&answer["resume"]),
                resumed: answer["resumed"] == true,
            }
        } else {
            let millis = answer["retry_after_ms"].as_u64().unwrap_or_default();
            Answer::Refused {
                code: text(&answer["code"]).unwrap_or_else(|| answer.to_string()),
                retry_after: Duration::from_millis(millis),
            }
        })
    }
}

/// A string, if it is one.
pub(crate) fn text(value: &Value) -> Option<String> {
    value.as_str().map(str::to_owned)
}

fn in_words(error: impl std::fmt::Display) -> Ended {
    error.to_string()
}
