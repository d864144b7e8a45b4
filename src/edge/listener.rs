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
use tokio::net::{TcpListener, TcpStream};
use tokio::time::sleep;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

/// How long a client may take to send the head of its request.
const HEADERS_WITHIN: Duration = Duration::from_secs(10);
/// The largest head, in bytes.
const HEAD_BYTES: usize = 16 * 1024;
/// How long to rest when the process has no file handle left.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(100);

/// Accepts connections for as long as it is driven.
pub async fn serve(listener: TcpListener, routes: Router) {
    // Ends with the loop that fills it: requests are short, and upgraded sockets are tracked by the drain.
    let connections = TaskTracker::new();
    loop {
        match listener.accept().await {
            Ok((stream, from)) => drop(connections.spawn(converse(stream, from, routes.clone()))),
            Err(error) if is_of_one_connection(&error) => {
                debug!(%error, "A connection broke before it was accepted");
            }
            Err(error) => {
                warn!(%error, "No connection can be accepted: raise the limit of open files (ulimit -n)");
                sleep(EXHAUSTED_PAUSE).await;
            }
        }
    }
}

fn is_of_one_connection(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(
        error.kind(),
        ConnectionAborted | ConnectionRefused | ConnectionReset
    )
}

async fn converse(stream: TcpStream, from: SocketAddr, routes: Router) {
    // Without it a call set-up takes 44 ms: the delayed acknowledgement of the other side (measured).
    let _ = stream.set_nodelay(true);
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
