//! Where the servers of a benchmark listen: shared by all of them.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};

/// A loopback address that is this process' own: a port that is free there stays so, whoever else is at work, and however many connections
/// take ports of 127.0.0.1.
pub(crate) fn own_host() -> Ipv4Addr {
    let [.., high, middle, low] = std::process::id().to_be_bytes();
    Ipv4Addr::new(127, 1 | high, middle, low.clamp(1, 254))
}

/// A free port of it.
pub(crate) fn free_address() -> std::io::Result<SocketAddr> {
    TcpListener::bind((own_host(), 0))?.local_addr()
}
