//! The smallest HTTP client that can look at a node.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// The whole answer to a GET, head and body; `None` if there was none.
pub async fn get(address: SocketAddr, path: &str, headers: &str) -> Option<String> {
    let mut stream = TcpStream::connect(address).await.ok()?;
    let close = if headers.contains("Connection: ") {
        ""
    } else {
        "Connection: close\r\n"
    };
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\n{close}{headers}\r\n");
    stream.write_all(request.as_bytes()).await.ok()?;
    let mut answer = Vec::new();
    // One that stays open has said what it has to say by the end of its body.
    while !ended(&answer) && stream.read_buf(&mut answer).await.ok()? > 0 {}
    String::from_utf8(answer).ok()
}

fn ended(answer: &[u8]) -> bool {
    let text = String::from_utf8_lossy(answer);
    let Some((head, body)) = text.split_once("\r\n\r\n") else {
        return false;
    };
    let length = head.lines().find_map(|line| {
        line.to_lowercase()
            .strip_prefix("content-length: ")?
            .parse()
            .ok()
    });
    length.is_some_and(|length: usize| body.len() >= length)
}

/// The status of a GET.
pub async fn status(address: SocketAddr, path: &str) -> Option<u16> {
    get(address, path, "")
        .await?
        .split(' ')
        .nth(1)?
        .parse()
        .ok()
}

/// The headers of a WebSocket handshake.
pub const UPGRADE: &str = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                           Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
