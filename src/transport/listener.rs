//! Our own accept loop: `axum::serve` leaves hyper's header timeout without a timer, so a slowloris would live for ever.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

use super::Tls;

/// How long what was sent may stay without the other side's acknowledgement.
const UNACKNOWLEDGED: Duration = Duration::from_secs(20);
/// How long a client may take to agree on keys.
const HANDSHAKE_WITHIN: Duration = Duration::from_secs(10);
/// How long a client may take to send the head of its request.
const HEADERS_WITHIN: Duration = Duration::from_secs(10);
/// The largest head, in bytes.
const HEAD_BYTES: usize = 16 * 1024;
/// How long to rest when the process has no file handle left.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(100);

/// Accepts connections for as long as it is driven; with TLS, those that speak it.
pub async fn serve(listener: TcpListener, routes: Router, tls: Option<Tls>) {
    // Ends with the loop that fills it: requests are short, and upgraded sockets are tracked by the drain.
    let connections = TaskTracker::new();
    loop {
        match listener.accept().await {
            Ok((stream, from)) => {
                connections.spawn(accept(stream, from, routes.clone(), tls.clone()));
            }
            Err(error) if is_connection_error(&error) => {
                debug!(%error, "A connection broke before it was accepted");
            }
            Err(error) => {
                warn!(%error, "No connection can be accepted: raise the limit of open files (ulimit -n)");
                sleep(EXHAUSTED_PAUSE).await;
            }
        }
    }
}

fn is_connection_error(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(
        error.kind(),
        ConnectionAborted | ConnectionRefused | ConnectionReset
    )
}

async fn accept(stream: TcpStream, from: SocketAddr, routes: Router, tls: Option<Tls>) {
    // Without it a call set-up takes 44 ms: the delayed acknowledgement of the other side (measured).
    let _ = stream.set_nodelay(true);
    // A stream of events is not answered: without this, a client that vanished would be there for a quarter of an hour.
    let _ = SockRef::from(&stream).set_tcp_user_timeout(Some(UNACKNOWLEDGED));
    let Some(tls) = tls else {
        return serve_connection(stream, from, routes).await;
    };
    match timeout(HANDSHAKE_WITHIN, tls.acceptor().accept(stream)).await {
        Ok(Ok(stream)) => serve_connection(stream, from, routes).await,
        Ok(Err(error)) => debug!(%error, "A client and this node did not agree on TLS"),
        Err(_) => debug!("A client took too long to agree on TLS"),
    }
}

async fn serve_connection(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    from: SocketAddr,
    routes: Router,
) {
    let routes = TowerToHyperService::new(routes);
    let service = service_fn(move |request: hyper::Request<Incoming>| {
        let mut request: Request<Incoming> = request;
        request.extensions_mut().insert(from);
        let answering = hyper::service::Service::call(&routes, request);
        async move { Ok::<_, Infallible>(answering.await.unwrap_or_else(|never| match never {})) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADERS_WITHIN)
        .max_buf_size(HEAD_BYTES)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    if let Err(error) = connection.await {
        debug!(%error, "A connection ended");
    }
}
