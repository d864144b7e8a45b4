//! The messages of the pairs: built once and numbered in place, so that nothing is formatted or parsed under load.

use std::ops::Range;

use crate::frame::frame;
use crate::server::Subject;
use crate::wrap::Wrap;

/// The placeholder of a number.
pub(crate) const ZERO: &str = "0000000000";
const CANDIDATE_BYTES: usize = 300;
const OFFER_BYTES: usize = 2560;
const ANSWER_BYTES: usize = 2048;

/// Bytes with a decimal number in them, or with none (a `leave`).
pub(crate) struct Numbered {
    bytes: Vec<u8>,
    digits: Range<usize>,
}

impl Numbered {
    pub(crate) fn new(bytes: Vec<u8>) -> Self {
        let start = bytes
            .windows(ZERO.len())
            .position(|window| window == ZERO.as_bytes());
        let digits = start.map_or(0..0, |start| start..start + ZERO.len());
        Self { bytes, digits }
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The decimal number.
    pub(crate) fn digits(&self) -> &[u8] {
        &self.bytes[self.digits.clone()]
    }

    /// Increments the number.
    pub(crate) fn advance(&mut self) {
        for digit in self.bytes[self.digits.clone()].iter_mut().rev() {
            if *digit < b'9' {
                *digit += 1;
                return;
            }
            *digit = b'0';
        }
    }
}

/// A message as it is sent, and as it must be received, byte for byte. Each has a number of its own.
pub(crate) struct Message {
    pub(crate) sent: Numbered,
    pub(crate) received: Numbered,
}

/// The sender and the receiver of messages.
pub(crate) struct Route<'a> {
    pub(crate) subject: Subject,
    pub(crate) from: &'a str,
    pub(crate) to: &'a str,
}

impl Route<'_> {
    /// A candidate; `place` distinguishes those of one call.
    pub(crate) fn candidate(&self, place: usize) -> Message {
        let start = format!(
            r#"{{"candidate":"candidate:{ZERO} {place} udp 2122260223 192.0.2.7 61765 typ host generation 0 from {} to {} ufrag "#,
            self.from, self.to
        );
        self.signal(
            "candidate",
            &start,
            r#"","sdpMid":"0","sdpMLineIndex":0}"#,
            CANDIDATE_BYTES,
        )
    }

    pub(crate) fn offer(&self) -> Message {
        self.description("offer", OFFER_BYTES)
    }

    pub(crate) fn answer(&self) -> Message {
        self.description("answer", ANSWER_BYTES)
    }

    fn description(&self, kind: &str, bytes: usize) -> Message {
        let start = format!(
            r#"{{"type":"{kind}","sdp":"v=0\r\no=- {ZERO} 2 IN IP4 127.0.0.1\r\ns={} to {}\r\n"#,
            self.from, self.to
        );
        self.signal(kind, &start, r#"\r\n"}"#, bytes)
    }

    /// A signal whose body is padded until the text that is sent has `bytes`.
    fn signal(&self, kind: &str, start: &str, end: &str, bytes: usize) -> Message {
        let to = self.to;
        if self.subject.speaks_peerjs() {
            return self.payload(kind, start, end, bytes);
        }
        // Nobody but the sender itself could say who it is where the server knows nothing of what is said.
        let first = if self.is_told_by_sender() {
            self.from
        } else {
            to
        };
        let head = format!(r#"{{"type":"{kind}","name":"{first}","{kind}":{start}"#);
        let id = self.id();
        let padding = padding(bytes - head.len() - end.len() - id.len() - 1);
        let sent = format!("{head}{padding}{end}{id}}}");
        let named = match (self.subject, kind) {
            (Subject::Tutorial, "answer" | "candidate") => String::new(),
            _ => format!(r#","name":"{}""#, self.from),
        };
        let received = if self.is_told_by_sender() {
            sent.clone()
        } else {
            format!(r#"{{"type":"{kind}","{kind}":{start}{padding}{end}{named}}}"#)
        };
        self.message(&sent, received)
    }

    fn is_told_by_sender(&self) -> bool {
        self.subject.wrap() == Wrap::Centrifugo
    }

    fn message(&self, sent: &str, received: String) -> Message {
        let (before, after) = self.subject.wrap().around(self.to);
        Message {
            sent: Numbered::new(frame(&format!("{before}{sent}{after}"))),
            received: Numbered::new(received.into_bytes()),
        }
    }

    /// The id of a resumable client's message, at the end of the text as in the client library.
    fn id(&self) -> String {
        if self.subject.is_resumable() {
            format!(r#","id":1{ZERO}"#)
        } else {
            String::new()
        }
    }

    /// The same in the PeerJS protocol.
    fn payload(&self, kind: &str, start: &str, end: &str, bytes: usize) -> Message {
        let (from, to, kind) = (self.from, self.to, kind.to_uppercase());
        let head = format!(r#"{{"type":"{kind}","payload":{start}"#);
        let tail = format!(r#"{end},"dst":"{to}"}}"#);
        let padding = padding(bytes - head.len() - tail.len());
        let sent = format!("{head}{padding}{tail}");
        let received = format!(
            r#"{{"type":"{kind}","src":"{from}","dst":"{to}","payload":{start}{padding}{end}}}"#
        );
        Message {
            sent: Numbered::new(frame(&sent)),
            received: Numbered::new(received.into_bytes()),
        }
    }

    pub(crate) fn leave(&self) -> Message {
        let (from, to) = (self.from, self.to);
        if self.subject.speaks_peerjs() {
            return Message {
                sent: Numbered::new(frame(&format!(r#"{{"type":"LEAVE","dst":"{to}"}}"#))),
                received: Numbered::new(
                    format!(r#"{{"type":"LEAVE","src":"{from}","dst":"{to}"}}"#).into_bytes(),
                ),
            };
        }
        let sender = format!(r#"{{"type":"leave","name":"{from}"}}"#);
        if self.is_told_by_sender() {
            return self.message(&sender.clone(), sender);
        }
        let sent = format!(r#"{{"type":"leave","name":"{to}"{}}}"#, self.id());
        let received = match self.subject {
            Subject::Tutorial => r#"{"type":"leave"}"#.to_owned(),
            Subject::Peer(_) => sender,
            _ => format!(r#"{{"type":"leave","name":"{from}","reason":"hangup"}}"#),
        };
        self.message(&sent, received)
    }
}

/// This many bytes that resemble an SDP.
fn padding(bytes: usize) -> String {
    let padding: String = r"a=rtpmap:111 opus/48000/2\r\n"
        .chars()
        .cycle()
        .take(bytes)
        .collect();
    // An escape sequence that is cut in two would not be JSON.
    padding.replace('\\', "/")
}
