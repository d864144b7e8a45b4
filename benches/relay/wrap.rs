//! How the protocols of other servers wrap what clients say to each other.

use std::net::SocketAddr;
use std::ops::Range;

use crate::Outcome;
use crate::client::Client;
use crate::frame::frame;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wrap {
    None,
    /// An event `signal` with one argument; Engine.IO's pings.
    SocketIo,
    /// Publications to the channel of the receiver, in its JSON protocol: several messages may share a frame, a line
    /// each.
    Centrifugo,
}

/// What is in a text.
pub(crate) enum Inside {
    /// What somebody said, at this place.
    Said(Range<usize>),
    /// Nothing that matters.
    Nothing,
    /// A question, with what it is answered.
    Question(&'static str),
}

impl Wrap {
    /// What is around a message to somebody.
    pub(crate) fn around(self, to: &str) -> (String, &'static str) {
        match self {
            Self::None => (String::new(), ""),
            Self::SocketIo => (r#"42["signal","#.to_owned(), "]"),
            // The library numbers its commands; what it is told is the same for each number.
            Self::Centrifugo => (
                format!(r#"{{"id":1,"publish":{{"channel":"{to}","data":"#),
                "}}",
            ),
        }
    }

    pub(crate) fn inside(self, text: &[u8]) -> Outcome<Inside> {
        let whole = 0..text.len();
        let said = match (self, text) {
            (Self::None, _) => Some(whole),
            (_, b"") => return Ok(Inside::Nothing),
            (Self::SocketIo, b"2") => return Ok(Inside::Question("3")),
            (Self::Centrifugo, b"{}") => return Ok(Inside::Question("{}")),
            (Self::SocketIo, _) => {
                let said = text.strip_prefix(br#"42["signal","#);
                said.map(|said| whole.end - said.len()..whole.end - 1)
            }
            (Self::Centrifugo, _) if text.starts_with(br#"{"id":1,"publish":{}"#) => {
                return Ok(Inside::Nothing);
            }
            (Self::Centrifugo, _) => published(text),
        };
        said.map(Inside::Said)
            .ok_or_else(|| format!("unexpected: {}", String::from_utf8_lossy(text)).into())
    }

    /// Logs in as the client library of that server does.
    pub(crate) async fn login(
        self,
        client: &mut Client,
        door: SocketAddr,
        name: &str,
    ) -> Outcome<()> {
        let (path, steps) = match self {
            Self::None => return Err("it logs in as the tutorial's clients do".into()),
            Self::SocketIo => (
                "/socket.io/?EIO=4&transport=websocket",
                [
                    (String::new(), "0{"),
                    (format!(r#"40{{"name":"{name}"}}"#), "40{"),
                    (String::new(), r#"42["in"]"#),
                ],
            ),
            Self::Centrifugo => (
                "/connection/websocket",
                [
                    (
                        r#"{"id":1,"connect":{}}"#.to_owned(),
                        r#"{"id":1,"connect":{"#,
                    ),
                    (
                        format!(r#"{{"id":2,"subscribe":{{"channel":"{name}"}}}}"#),
                        r#"{"id":2,"subscribe":{"#,
                    ),
                    // Its first ping is an answer, too.
                    (
                        r#"{"id":1,"publish":{"channel":"nobody","data":{}}}"#.to_owned(),
                        r#"{"id":1,"#,
                    ),
                ],
            ),
        };
        client.upgrade(door, path).await?;
        for (sent, expected) in steps {
            if !sent.is_empty() {
                client.queue(&frame(&sent));
                client.flush().await?;
            }
            let answer = client.receive().await?;
            if !answer.starts_with(expected) {
                return Err(format!("login of {name} was answered {answer}").into());
            }
        }
        Ok(())
    }
}

/// The data of a publication; what the server adds comes after it.
fn published(text: &[u8]) -> Option<Range<usize>> {
    let text = std::str::from_utf8(text).ok()?;
    text.strip_prefix(r#"{"push":{"channel":""#)?;
    let (_, rest) = text.split_once(r#"","pub":{"data":"#)?;
    let start = text.len() - rest.len();
    let added = rest
        .rfind(r#","info":"#)
        .or_else(|| rest.rfind(r#","offset":"#));
    Some(start..start + added.unwrap_or(rest.len() - "}}}".len()))
}
