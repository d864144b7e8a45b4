//! Accepts connections. `axum::serve` is not used: it sets no timer for hyper's header timeout, so
//! a slowloris connection would stay open for ever.

use std::convert::Infallible;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::Arc;
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
use tracing::{debug, info, warn};

use super::Tls;
use super::progress::Counted;
use super::proxies::TrustedProxies;
use crate::telemetry::Repeats;

/// How much the kernel takes that it cannot send yet (`TCP_NOTSENT_LOWAT`).
const UNSENT_BYTES: u32 = 64 * 1024;
/// Unacknowledged data closes the connection after this long (`TCP_USER_TIMEOUT`).
const UNACKNOWLEDGED_TIMEOUT: Duration = Duration::from_secs(20);
/// Time limit for the TLS handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Time limit for a request's headers.
const HEADERS_TIMEOUT: Duration = Duration::from_secs(10);
/// Limit for a request's headers, in bytes.
const HEAD_BYTES: usize = 16 * 1024;
/// Pause before the next `accept` when the process has no file descriptor left.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(100);

/// What is in front of the routes. The default is nothing.
#[derive(Clone, Debug, Default)]
pub struct Front {
    /// If set, only TLS connections are accepted.
    pub tls: Option<Tls>,
    /// Who may say where a connection or a request comes from.
    pub proxies: Arc<TrustedProxies>,
}

/// Accepts connections until the future is dropped.
pub async fn serve(listener: TcpListener, routes: Router, front: Front, repeats: Arc<Repeats>) {
    // Dropped with this loop. No wait is needed: requests are short, and the drain tracks upgraded
    // connections.
    let connections = TaskTracker::new();
    loop {
        match listener.accept().await {
            Ok((stream, from)) => {
                let (routes, front, repeats) =
                    (routes.clone(), front.clone(), Arc::clone(&repeats));
                connections.spawn(accept(stream, from, routes, front, repeats));
            }
            Err(error) if is_connection_error(&error) => {
                debug!(%error, "A client closed its connection before it was accepted");
            }
            Err(error) => {
                if repeats.is_first("cannot accept connections") {
                    warn!(
                        %error,
                        "Cannot accept connections: raise the limit of open files of \
                         this process (ulimit -n)"
                    );
                }
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

async fn accept(
    mut stream: TcpStream,
    from: SocketAddr,
    routes: Router,
    Front { tls, proxies }: Front,
    repeats: Arc<Repeats>,
) {
    // Nagle's algorithm with the client's delayed acknowledgement adds 44 ms to a call setup
    // (measured).
    let _ = stream.set_nodelay(true);
    // The client never answers on an event stream. Without this timeout a vanished client would
    // stay connected for a quarter of an hour.
    let _ = SockRef::from(&stream).set_tcp_user_timeout(Some(UNACKNOWLEDGED_TIMEOUT));
    // What waits for a slow link then waits in our queues, whose bounds hold; and how fast it goes shows how fast the
    // link is. The kernel would take megabytes, and a ping behind them would come too late.
    let _ = SockRef::from(&stream).set_tcp_notsent_lowat(UNSENT_BYTES);
    let from = match timeout(HEADERS_TIMEOUT, proxies.source(&mut stream, from)).await {
        Ok(Ok(from)) => from,
        Ok(Err(error)) => return debug!(%error, "A connection of a proxy ended"),
        Err(_) => return debug!("A proxy did not send its header in time"),
    };
    let Some(tls) = tls else {
        return serve_connection(stream, from, routes, proxies).await;
    };
    match timeout(HANDSHAKE_TIMEOUT, tls.acceptor().accept(stream)).await {
        Ok(Ok(stream)) => serve_connection(stream, from, routes, proxies).await,
        // Such as a client that does not trust the certificate. One that only connects and goes is a probe.
        Ok(Err(error)) if error.kind() == ErrorKind::InvalidData => {
            if repeats.is_first("a TLS handshake failed") {
                info!(%error, "A TLS handshake failed");
            }
        }
        Ok(Err(error)) => debug!(%error, "The TLS handshake failed"),
        Err(_) => debug!("The TLS handshake timed out"),
    }
}

async fn serve_connection(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    from: SocketAddr,
    routes: Router,
    proxies: Arc<TrustedProxies>,
) {
    let routes = TowerToHyperService::new(routes);
    let (stream, received) = Counted::new(stream);
    let service = service_fn(move |request: hyper::Request<Incoming>| {
        let mut request: Request<Incoming> = request;
        let client = proxies.client(from, request.headers());
        request.extensions_mut().insert(client);
        request.extensions_mut().insert(received.clone());
        let response = hyper::service::Service::call(&routes, request);
        async move { Ok::<_, Infallible>(response.await.unwrap_or_else(|never| match never {})) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADERS_TIMEOUT)
        .max_buf_size(HEAD_BYTES)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    if let Err(error) = connection.await {
        debug!(%error, "A connection ended");
    }
}
