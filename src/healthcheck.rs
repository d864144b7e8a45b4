//! `switchboard healthcheck`: asks the admin listener of a node whether the node is ready.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use http_body_util::Empty;
use hyper::client::conn::http1;
use hyper::{Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Time limit for the answer.
const WITHIN: Duration = Duration::from_secs(2);

/// The node is not ready, or did not answer.
#[derive(Debug, thiserror::Error)]
pub enum Unhealthy {
    /// It answered with another status than 200.
    #[error("the node is not ready: /readyz answered {0}. Its log and /status say why")]
    NotReady(StatusCode),
    /// It did not answer.
    #[error(
        "no answer from {address}: {cause}. Check that the node runs and that admin.listen is its address"
    )]
    NoAnswer {
        /// The address that was asked.
        address: SocketAddr,
        /// The cause.
        cause: String,
    },
}

/// Requests `/readyz`.
pub async fn ask(listen: SocketAddr) -> Result<(), Unhealthy> {
    let address = reachable(listen);
    let no_answer = |cause: &dyn std::fmt::Display| Unhealthy::NoAnswer {
        address,
        cause: cause.to_string(),
    };
    match timeout(WITHIN, get_readyz(address)).await {
        Ok(Ok(StatusCode::OK)) => Ok(()),
        Ok(Ok(status)) => Err(Unhealthy::NotReady(status)),
        Ok(Err(error)) => Err(no_answer(&error)),
        Err(elapsed) => Err(no_answer(&elapsed)),
    }
}

async fn get_readyz(
    address: SocketAddr,
) -> Result<StatusCode, Box<dyn std::error::Error + Send + Sync>> {
    let stream = TcpStream::connect(address).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let request = Request::get("/readyz")
        .header(header::HOST, address.to_string())
        .body(Empty::<bytes::Bytes>::new())?;
    let asking = sender.send_request(request);
    tokio::select! {
        response = asking => Ok(response?.status()),
        broken = connection => Err(broken.err().map_or_else(|| "closed".into(), Into::into)),
    }
}

/// Maps an unspecified listen address to loopback.
fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}
