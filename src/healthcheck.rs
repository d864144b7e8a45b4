//! `switchboard healthcheck`: asks the admin listener of a node whether the node is ready.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1;
use hyper::http::request::Builder;
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
    let (node, request) = (address.to_string(), Request::get("/readyz"));
    match send(&node, request, Bytes::new(), WITHIN).await {
        Ok((StatusCode::OK, _)) => Ok(()),
        Ok((status, _)) => Err(Unhealthy::NotReady(status)),
        Err(error) => Err(no_answer(&error)),
    }
}

/// Sends a request to an admin listener. Returns the status and the body of the answer.
pub(crate) async fn send(
    node: &str,
    request: Builder,
    body: Bytes,
    within: Duration,
) -> Result<(StatusCode, Bytes), Box<dyn std::error::Error + Send + Sync>> {
    let sending = async {
        let stream = connect(node).await?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        let request = request.header(header::HOST, node).body(Full::new(body))?;
        let asking = async {
            let answer = sender.send_request(request).await?;
            let status = answer.status();
            Ok((status, answer.into_body().collect().await?.to_bytes()))
        };
        tokio::select! {
            answer = asking => answer,
            broken = connection => Err(broken.err().map_or_else(|| "closed".into(), Into::into)),
        }
    };
    timeout(within, sending).await?
}

/// A container often has no `::1`, but a listener at `[::]` serves IPv4 too.
async fn connect(node: &str) -> std::io::Result<TcpStream> {
    match node.parse::<SocketAddr>() {
        Ok(address) if address.ip() == Ipv6Addr::LOCALHOST => {
            let v4 = SocketAddr::from((Ipv4Addr::LOCALHOST, address.port()));
            TcpStream::connect(&[address, v4][..]).await
        }
        _ => TcpStream::connect(node).await,
    }
}

/// Maps an unspecified listen address to loopback.
pub(crate) fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}
