//! An OTLP endpoint over HTTP that accepts and forgets spans, refuses them, or never answers.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Mutex;

use crate::Outcome;

/// How it answers an export.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Manner {
    Kind,
    Refusing,
    Slow,
    /// Nobody listens.
    Gone,
}

/// Starts it in threads of this process; its address.
pub(crate) fn start(manner: Manner) -> Outcome<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    if manner == Manner::Gone {
        return Ok(address);
    }
    std::thread::spawn(move || {
        let kept = Mutex::new(Vec::new());
        std::thread::scope(|scope| {
            for stream in listener.incoming().map_while(Result::ok) {
                if manner == Manner::Slow {
                    // Kept open, so that the exporter waits for its own timeout.
                    kept.lock().expect("no thread panics").push(stream);
                } else {
                    scope.spawn(move || serve(stream, manner));
                }
            }
        });
    });
    Ok(address)
}

/// Answers requests until the other side closes.
fn serve(mut stream: TcpStream, manner: Manner) -> Option<()> {
    let answer = match manner {
        Manner::Kind => {
            "HTTP/1.1 200 OK\r\nContent-Type: application/x-protobuf\r\nContent-Length: 0\r\n\r\n"
        }
        _ => "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n",
    };
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    loop {
        let mut length = 0;
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line).ok()? == 0 {
                return None;
            }
            if line == "\r\n" {
                break;
            }
            let line = line.to_ascii_lowercase();
            if let Some(bytes) = line.strip_prefix("content-length:") {
                length = bytes.trim().parse().ok()?;
            }
        }
        std::io::copy(&mut reader.by_ref().take(length), &mut std::io::sink()).ok()?;
        stream.write_all(answer.as_bytes()).ok()?;
    }
}
