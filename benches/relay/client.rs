//! A WebSocket client that needs little processor time: no masking, no copies, one read and one write for all that is
//! due.

use std::future::poll_fn;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::pin::pin;
use std::task::Poll;

use tokio::net::TcpStream;

use crate::Outcome;
use crate::frame::{self, frame, next_frame};
use crate::message::{Numbered, ZERO};
use crate::server::Subject;
use crate::wrap::{Inside, Wrap};

const INBOX: usize = 64 * 1024;

/// A logged-in connection.
pub(crate) struct Client {
    stream: TcpStream,
    inbox: Box<[u8]>,
    unread: std::ops::Range<usize>,
    outbox: Vec<u8>,
    /// Set in a resumable session.
    resumable: Option<Resumable>,
    wrap: Wrap,
    /// How many bytes of a frame with several lines are unread.
    lines: usize,
}

impl Client {
    pub(crate) async fn login(door: SocketAddr, subject: Subject, name: &str) -> Outcome<Self> {
        let stream = TcpStream::connect(door).await?;
        stream.set_nodelay(true)?;
        let mut client = Self {
            stream,
            inbox: vec![0; INBOX].into_boxed_slice(),
            unread: 0..0,
            outbox: Vec::new(),
            resumable: None,
            wrap: Wrap::None,
            lines: 0,
        };
        if subject.wrap() != Wrap::None {
            subject.wrap().login(&mut client, door, name).await?;
            client.wrap = subject.wrap();
        } else if subject.speaks_peerjs() {
            let path = format!("/peerjs?key=peerjs&id={name}&token=of-{name}");
            client.upgrade(door, &path).await?;
            let answer = client.receive().await?;
            if answer != r#"{"type":"OPEN"}"# {
                return Err(format!("login of {name} was answered {answer}").into());
            }
        } else {
            client.upgrade(door, "/").await?;
            client.login_natively(subject, name).await?;
        }
        Ok(client)
    }

    /// As the tutorial's clients do, or our library.
    async fn login_natively(&mut self, subject: Subject, name: &str) -> Outcome<()> {
        let mut kind = String::new();
        if subject.is_resumable() {
            // Like the client library, checks first that both directions work.
            self.queue(&frame(r#"{"type":"ping"}"#));
            self.flush().await?;
            let answer = self.receive().await?;
            if answer != r#"{"type":"pong"}"# {
                return Err(format!("a ping was answered {answer}").into());
            }
            kind += r#","resumable":true"#;
        }
        if let Some(token) = subject.token() {
            kind = format!(r#"{kind},"token":"{token}""#);
        }
        self.queue(&frame(&format!(
            r#"{{"type":"login","name":"{name}"{kind}}}"#
        )));
        self.flush().await?;
        let mut answer = self.receive().await?;
        if answer == "Hello world" {
            answer = self.receive().await?;
        }
        if !answer.contains(r#""success":true"#) {
            return Err(format!("login of {name} was answered {answer}").into());
        }
        let has_secret = answer.contains(r#","resume":""#);
        if has_secret != subject.is_resumable() {
            // The error does not contain the answer, which may hold a secret.
            return Err(format!(
                "login of {name} was answered with a `resume` secret: {has_secret}, expected: {}",
                subject.is_resumable()
            )
            .into());
        }
        self.resumable = has_secret.then(Resumable::new);
        Ok(())
    }

    pub(crate) async fn upgrade(&mut self, door: SocketAddr, path: &str) -> Outcome<()> {
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: {door}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        );
        self.outbox.extend_from_slice(request.as_bytes());
        self.flush().await?;
        loop {
            self.stream.readable().await?;
            self.fill()?;
            let head = &self.inbox[self.unread.clone()];
            if let Some(end) = head.windows(4).position(|window| window == b"\r\n\r\n") {
                if !head.starts_with(b"HTTP/1.1 101") {
                    return Err(
                        format!("upgrade refused: {}", String::from_utf8_lossy(head)).into(),
                    );
                }
                self.unread.start += end + 4;
                return Ok(());
            }
        }
    }

    /// Waits for a text, and answers pings.
    pub(crate) async fn receive(&mut self) -> Outcome<String> {
        loop {
            if let Some(text) = self.next_text()? {
                return Ok(String::from_utf8_lossy(text).into_owned());
            }
            self.flush().await?;
            self.stream.readable().await?;
            self.fill()?;
        }
    }

    /// Adds a frame to the next flush. In a resumable session it gets the next id.
    pub(crate) fn queue(&mut self, frame: &[u8]) {
        self.outbox.extend_from_slice(frame);
        if let Some(resumable) = &mut self.resumable {
            let end = self.outbox.len() - 1;
            let digits = &mut self.outbox[end - ZERO.len()..end];
            digits.copy_from_slice(resumable.next_id.digits());
            resumable.next_id.advance();
            resumable.unacknowledged += 1;
        }
    }

    /// Whether everything queued is acknowledged. Always true in a plain session, which gets no acks.
    pub(crate) fn is_acknowledged(&self) -> bool {
        let resumable = self.resumable.as_ref();
        resumable.is_none_or(|resumable| resumable.unacknowledged == 0)
    }

    /// Writes what was queued.
    pub(crate) async fn flush(&mut self) -> Outcome<()> {
        while !self.outbox.is_empty() {
            match self.stream.try_write(&self.outbox) {
                Ok(written) => drop(self.outbox.drain(..written)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.stream.writable().await?;
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Reads once, if there is something to read.
    pub(crate) fn fill(&mut self) -> Outcome<()> {
        if self.unread.start > 0 {
            self.inbox.copy_within(self.unread.clone(), 0);
            self.unread = 0..self.unread.len();
        }
        if self.unread.end == self.inbox.len() {
            return Err("a frame over the limit".into());
        }
        match self.stream.try_read(&mut self.inbox[self.unread.end..]) {
            Ok(0) => Err("the server ended the connection".into()),
            Ok(read) => {
                self.unread.end += read;
                Ok(())
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// The next complete text that was read. Pings on the way are answered with the next flush. In a resumable
    /// session, acks on the way are checked, and the text comes without its `seq`.
    pub(crate) fn next_text(&mut self) -> Outcome<Option<&[u8]>> {
        while let Some((kind, mut payload)) = self.next_part() {
            if payload.end > self.unread.end {
                break;
            }
            self.unread.start = payload.end;
            match kind {
                frame::TEXT if self.wrap != Wrap::None => {
                    self.first_line(&mut payload);
                    match self.wrap.inside(&self.inbox[payload.clone()])? {
                        Inside::Said(place) => {
                            let said = payload.start + place.start..payload.start + place.end;
                            return Ok(Some(&self.inbox[said]));
                        }
                        Inside::Question(answer) => self.outbox.extend(frame(answer)),
                        Inside::Nothing => {}
                    }
                }
                frame::TEXT => {
                    let text = &mut self.inbox[payload.clone()];
                    let length = match &mut self.resumable {
                        Some(resumable) => resumable.take(text)?,
                        None => Some(payload.len()),
                    };
                    if let Some(length) = length {
                        return Ok(Some(&self.inbox[payload.start..payload.start + length]));
                    }
                }
                frame::PING => {
                    frame::pong(&self.inbox[payload], &mut self.outbox)?;
                }
                frame::PONG => {}
                frame::CLOSE => {
                    return Err(format!(
                        "closed by the server: {:?}",
                        self.inbox[payload].escape_ascii().to_string()
                    )
                    .into());
                }
                other => return Err(format!("a frame that begins with {other:#x}").into()),
            }
        }
        Ok(None)
    }

    /// The next frame, or what is left of one with several lines.
    fn next_part(&self) -> Option<(u8, std::ops::Range<usize>)> {
        let start = self.unread.start;
        if self.lines > 0 {
            return Some((frame::TEXT, start..start + self.lines));
        }
        let (kind, payload) = next_frame(&self.inbox[self.unread.clone()])?;
        Some((kind, start + payload.start..start + payload.end))
    }

    /// Leaves the other lines for later.
    fn first_line(&mut self, payload: &mut std::ops::Range<usize>) {
        let mut bytes = self.inbox[payload.clone()].iter();
        self.lines = 0;
        if let Some(end) = bytes.position(|byte| *byte == b'\n') {
            self.unread.start = payload.start + end + 1;
            self.lines = payload.end - self.unread.start;
            payload.end = payload.start + end;
        }
    }

    /// Fails if the server said anything but pings.
    pub(crate) fn expect_silence(&mut self) -> Outcome<()> {
        self.fill()?;
        match self.next_text()? {
            Some(text) => Err(format!("unexpected: {}", String::from_utf8_lossy(text)).into()),
            None => Ok(()),
        }
    }
}

/// The state of a resumable session.
struct Resumable {
    next_id: Numbered,
    next_ack: Numbered,
    unacknowledged: usize,
    /// The `seq` of the last signal.
    last: (u64, u64),
}

impl Resumable {
    fn new() -> Self {
        let ack = format!(r#"{{"type":"ack","id":1{ZERO},"status":"delivered"}}"#);
        Self {
            next_id: Numbered::new(ZERO.into()),
            next_ack: Numbered::new(ack.into_bytes()),
            unacknowledged: 0,
            last: (0, 0),
        }
    }

    /// Checks an ack, or cuts the `seq` off a signal; the new length of a signal.
    fn take(&mut self, text: &mut [u8]) -> Outcome<Option<usize>> {
        if text.starts_with(br#"{"type":"ack""#) {
            expect(&mut self.next_ack, text)?;
            let left = self.unacknowledged.checked_sub(1);
            self.unacknowledged = left.ok_or("acknowledged what was not sent")?;
            return Ok(None);
        }
        match cut_seq(text) {
            Some((end, seq)) if seq > self.last => {
                self.last = seq;
                text[end] = b'}';
                Ok(Some(end + 1))
            }
            _ => Err(format!(
                "neither an ack nor a signal with a `seq` after {:?}: {}",
                self.last,
                String::from_utf8_lossy(text)
            )
            .into()),
        }
    }
}

/// The position of the `seq` in a text, and its two numbers.
fn cut_seq(text: &[u8]) -> Option<(usize, (u64, u64))> {
    let (signal, seq) = std::str::from_utf8(text).ok()?.rsplit_once(r#","seq":""#)?;
    let (time, place) = seq.strip_suffix("\"}")?.split_once('-')?;
    Some((signal.len(), (time.parse().ok()?, place.parse().ok()?)))
}

/// Waits for something else; both answer pings until then.
pub(crate) async fn answer_pings_until<T>(
    [one, other]: [&mut Client; 2],
    wait: impl Future<Output = T>,
) -> Outcome<T> {
    let mut wait = pin!(wait);
    loop {
        tokio::select! {
            biased;
            done = &mut wait => return Ok(done),
            () = either_readable(one, other) => {
                for client in [&mut *one, &mut *other] {
                    client.expect_silence()?;
                    client.flush().await?;
                }
            }
        }
    }
}

/// Waits until one of the two is readable.
pub(crate) async fn either_readable(one: &Client, other: &Client) {
    poll_fn(|context| {
        match (
            one.stream.poll_read_ready(context),
            other.stream.poll_read_ready(context),
        ) {
            (Poll::Pending, Poll::Pending) => Poll::Pending,
            _ => Poll::Ready(()),
        }
    })
    .await;
}

/// Fails unless a text is the expected one; then expects the one after it.
pub(crate) fn expect(expected: &mut Numbered, text: &[u8]) -> Outcome<()> {
    if text != expected.bytes() {
        let (expected, text) = (
            String::from_utf8_lossy(expected.bytes()),
            String::from_utf8_lossy(text),
        );
        return Err(format!(
            "lost, repeated, out of order or at the wrong door:\n  expected {expected}\n  received {text}"
        )
        .into());
    }
    expected.advance();
    Ok(())
}
