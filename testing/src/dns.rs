//! A name server for one name, and for those processes only that are started with its `resolv.conf`.

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::net::UdpSocket;
use tokio::task::JoinHandle;

/// Puts the first argument in the place of `resolv.conf`, then becomes the program with the same pid.
pub(crate) const WITH_RESOLVER: &str = r#"mount --bind "$0" /etc/resolv.conf && exec "$@""#;

/// The name that it knows.
pub const NAME: &str = "collector.switchboard.test";

/// How it answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    NoSuchName,
    ServerFailure,
    Nothing,
    /// The name is this machine's.
    Localhost,
}

/// A running name server. It ends when this value is dropped.
#[derive(Debug)]
pub struct NameServer {
    answer: Arc<Mutex<Answer>>,
    resolver: PathBuf,
    task: JoinHandle<()>,
}

impl Drop for NameServer {
    fn drop(&mut self) {
        self.task.abort();
        drop(std::fs::remove_file(&self.resolver));
    }
}

impl NameServer {
    /// Starts one on port 53 of an address of its own, since resolvers know no other port. An error if this process may
    /// not: it takes root's capabilities.
    pub async fn start(answer: Answer) -> io::Result<Self> {
        let socket = own_address().await?;
        let IpAddr::V4(address) = socket.local_addr()?.ip() else {
            unreachable!("it is bound to IPv4");
        };
        let resolver = std::env::temp_dir().join(format!("resolv-{address}.conf"));
        std::fs::write(&resolver, format!("nameserver {address}\n"))?;
        may_mount(&resolver)?;
        let answer = Arc::new(Mutex::new(answer));
        let task = tokio::spawn(serve(socket, Arc::clone(&answer)));
        Ok(Self {
            answer,
            resolver,
            task,
        })
    }

    /// For [`Launch::resolver`](crate::node::Launch).
    pub fn resolver(&self) -> &Path {
        &self.resolver
    }

    pub fn answer(&self, answer: Answer) {
        *self.answer.lock().unwrap_or_else(PoisonError::into_inner) = answer;
    }
}

/// Tests run at the same time, in more than one process: the first free address.
async fn own_address() -> io::Result<UdpSocket> {
    let mut last = 1;
    loop {
        match UdpSocket::bind((Ipv4Addr::new(127, 53, 0, last), 53)).await {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && last < 250 => last += 1,
            bound => return bound,
        }
    }
}

fn may_mount(resolver: &Path) -> io::Result<()> {
    let status = Command::new("unshare")
        .args(["--mount", "sh", "-c", WITH_RESOLVER])
        .arg(resolver)
        .arg("true")
        .stderr(Stdio::null())
        .status()?;
    let denied = || io::Error::from(io::ErrorKind::PermissionDenied);
    status.success().then_some(()).ok_or_else(denied)
}

async fn serve(socket: UdpSocket, answer: Arc<Mutex<Answer>>) {
    let mut query = [0; 512];
    while let Ok((length, asker)) = socket.recv_from(&mut query).await {
        let how = *answer.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(reply) = reply(&query[..length], how) {
            drop(socket.send_to(&reply, asker).await);
        }
    }
}

/// RFC 1035, section 4: the header and the question again, and an address if one is asked for.
fn reply(query: &[u8], how: Answer) -> Option<Vec<u8>> {
    const HEADER: usize = 12;
    const ADDRESS_OF_IPV4: u8 = 1;
    let name = query.get(HEADER..)?.iter().position(|byte| *byte == 0)?;
    let question = query.get(HEADER..HEADER + name + 5)?;
    let is_known = question.starts_with(b"\x09collector\x0bswitchboard\x04test\x00");
    let code = match how {
        Answer::Nothing => return None,
        Answer::ServerFailure => 2,
        Answer::Localhost if is_known => 0,
        Answer::NoSuchName | Answer::Localhost => 3,
    };
    let has_address = code == 0 && question[name + 2] == ADDRESS_OF_IPV4;
    let mut reply = query[..2].to_vec();
    // A response, recursion desired and available; one question, perhaps one answer.
    reply.extend([
        0x81,
        0x80 | code,
        0,
        1,
        0,
        u8::from(has_address),
        0,
        0,
        0,
        0,
    ]);
    reply.extend(question);
    if has_address {
        // The name of the question, type A, class IN, for no time, 4 bytes.
        reply.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4, 127, 0, 0, 1]);
    }
    Some(reply)
}
