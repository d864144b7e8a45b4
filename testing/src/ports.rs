//! Loopback addresses for servers under test.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};

/// A loopback host of this process alone, made of its pid.
///
/// A port that is free on it stays free: other processes use other hosts, and outgoing connections take their ports
/// on 127.0.0.1.
pub fn own_host() -> Ipv4Addr {
    let [.., high, middle, low] = std::process::id().to_be_bytes();
    Ipv4Addr::new(127, 1 | high, middle, low.clamp(1, 254))
}

/// A free port on [`own_host`].
pub fn free_address() -> std::io::Result<SocketAddr> {
    TcpListener::bind((own_host(), 0))?.local_addr()
}
