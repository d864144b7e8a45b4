//! The client's address behind proxies. Only what a trusted proxy tells counts: anybody can send its headers.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use axum::http::{HeaderMap, HeaderName, header};
use ipnet::IpNet;
use ppp::v2::{Addresses, Header, PROTOCOL_PREFIX};
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tokio::time::sleep;

/// The fixed part of a PROXY header: signature, version, family, length.
const FIXED: usize = 16;
/// The longest PROXY header: addresses, and a few extensions.
const LONGEST: usize = 4096;
/// How often to look for the rest of a PROXY header.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// The proxies in front of this node, and the header in which they name the client.
#[derive(Clone, Debug)]
pub struct TrustedProxies {
    networks: Vec<IpNet>,
    header: HeaderName,
}

impl Default for TrustedProxies {
    fn default() -> Self {
        Self::new(Vec::new(), false)
    }
}

impl TrustedProxies {
    /// Proxies in these networks. They write `Forwarded` (RFC 7239) or else `X-Forwarded-For`, and leave the other one
    /// as the client sent it.
    pub fn new(networks: Vec<IpNet>, writes_forwarded: bool) -> Self {
        let header = if writes_forwarded {
            header::FORWARDED
        } else {
            HeaderName::from_static("x-forwarded-for")
        };
        Self { networks, header }
    }

    /// Whether this is the address of a proxy.
    fn trusts(&self, address: IpAddr) -> bool {
        self.networks
            .iter()
            .any(|network| network.contains(&address))
    }

    /// The address of who has sent this request. Each proxy appends from whom it got the request, so the last one that
    /// is no proxy is the client; what is before it comes from the client.
    pub(super) fn client(&self, from: SocketAddr, headers: &HeaderMap) -> SocketAddr {
        if !self.trusts(from.ip()) {
            return from;
        }
        let values = headers.get_all(&self.header).iter();
        let values: Vec<&str> = values.filter_map(|value| value.to_str().ok()).collect();
        let mut client = from.ip();
        for hop in values.join(",").rsplit(',') {
            let Some(address) = self.address(hop) else {
                break;
            };
            client = address;
            if !self.trusts(address) {
                break;
            }
        }
        SocketAddr::new(client, from.port())
    }

    /// The address that one proxy has written: `10.0.0.1`, or `for="[2001:db8::1]:4711";proto=https`.
    fn address(&self, hop: &str) -> Option<IpAddr> {
        let text = if self.header == header::FORWARDED {
            let pairs = hop.split(';').filter_map(|pair| pair.split_once('='));
            let mut named = pairs.filter(|(name, _)| name.trim().eq_ignore_ascii_case("for"));
            named.next()?.1
        } else {
            hop
        };
        let text = text.trim().trim_matches('"');
        let address = text.parse().ok();
        let address = address.or_else(|| text.parse().ok().map(|socket: SocketAddr| socket.ip()));
        let bare = || text.strip_prefix('[')?.strip_suffix(']')?.parse().ok();
        address
            .or_else(bare)
            .map(|address: IpAddr| address.to_canonical())
    }

    /// The address of who has connected: that of the PROXY header (version 2) if a trusted proxy sends one, and then
    /// the header is read.
    pub(super) async fn source(
        &self,
        stream: &mut TcpStream,
        from: SocketAddr,
    ) -> io::Result<SocketAddr> {
        let from = SocketAddr::new(from.ip().to_canonical(), from.port());
        if !self.trusts(from.ip()) || !begins_with_header(stream).await? {
            return Ok(from);
        }
        let mut header = vec![0; FIXED];
        stream.read_exact(&mut header).await?;
        let rest = usize::from(u16::from_be_bytes([header[14], header[15]]));
        if rest > LONGEST {
            return Err(invalid("it is too long"));
        }
        header.resize(FIXED + rest, 0);
        stream.read_exact(&mut header[FIXED..]).await?;
        let header =
            Header::try_from(header.as_slice()).map_err(|error| invalid(&format!("{error}")))?;
        Ok(match header.addresses {
            Addresses::IPv4(ip) => SocketAddr::new(ip.source_address.into(), ip.source_port),
            Addresses::IPv6(ip) => {
                let address = IpAddr::from(ip.source_address).to_canonical();
                SocketAddr::new(address, ip.source_port)
            }
            // The proxy's own connection, such as a health check.
            Addresses::Unspecified | Addresses::Unix(_) => from,
        })
    }
}

fn invalid(why: &str) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("the PROXY header cannot be read: {why}"),
    )
}

/// Whether the stream begins with the signature of a PROXY header. No request and no TLS handshake begins so.
async fn begins_with_header(stream: &TcpStream) -> io::Result<bool> {
    let mut start = [0; PROTOCOL_PREFIX.len()];
    loop {
        let length = stream.peek(&mut start).await?;
        if length == 0 || start[..length] != PROTOCOL_PREFIX[..length] {
            return Ok(false);
        }
        if length == PROTOCOL_PREFIX.len() {
            return Ok(true);
        }
        sleep(LOOK_EVERY).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(forwarded: bool, from: &str, headers: &[(&'static str, &str)]) -> String {
        let networks = ["10.0.0.0/8", "fd00::/8"].map(|network| network.parse().unwrap());
        let proxies = TrustedProxies::new(networks.to_vec(), forwarded);
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, value.parse().unwrap());
        }
        let from = SocketAddr::new(from.parse().unwrap(), 1);
        proxies.client(from, &map).ip().to_string()
    }

    #[test]
    fn the_last_address_that_is_no_proxy_is_the_client() {
        let by = |values: &[&str]| {
            let headers: Vec<_> = values
                .iter()
                .map(|value| ("x-forwarded-for", *value))
                .collect();
            client(false, "10.0.0.1", &headers)
        };
        assert_eq!(by(&[]), "10.0.0.1");
        assert_eq!(by(&["192.0.2.1"]), "192.0.2.1");
        assert_eq!(
            by(&["198.51.100.9, 192.0.2.1, 10.0.0.2"]),
            "192.0.2.1",
            "the first is forged"
        );
        assert_eq!(
            by(&["198.51.100.9", "192.0.2.1"]),
            "192.0.2.1",
            "two headers are one list"
        );
        assert_eq!(by(&["10.0.0.3, 10.0.0.2"]), "10.0.0.3", "a client inside");
        assert_eq!(
            by(&["192.0.2.1, unknown, 10.0.0.2"]),
            "10.0.0.2",
            "nobody knows who is before"
        );
        assert_eq!(by(&["192.0.2.1:4711"]), "192.0.2.1");
        assert_eq!(by(&["::ffff:192.0.2.1"]), "192.0.2.1");
        assert_eq!(by(&["[2001:db8::1]:4711, fd00::1"]), "2001:db8::1");
    }

    #[test]
    fn nobody_else_is_believed() {
        let forged = [
            ("x-forwarded-for", "192.0.2.1"),
            ("forwarded", "for=192.0.2.1"),
        ];
        assert_eq!(client(false, "203.0.113.5", &forged), "203.0.113.5");
        assert_eq!(client(true, "203.0.113.5", &forged), "203.0.113.5");
        // A proxy leaves the header that it does not write as the client sent it.
        assert_eq!(client(false, "10.0.0.1", &forged[1..]), "10.0.0.1");
        assert_eq!(client(true, "10.0.0.1", &forged[..1]), "10.0.0.1");
    }

    #[test]
    fn the_standard_header_is_read_too() {
        let by = |value: &str| client(true, "10.0.0.1", &[("forwarded", value)]);
        assert_eq!(by("for=192.0.2.1;proto=https;by=10.0.0.1"), "192.0.2.1");
        assert_eq!(by("For=\"[2001:db8::1]:4711\""), "2001:db8::1");
        assert_eq!(
            by("for=198.51.100.9, for=192.0.2.1, for=10.0.0.7"),
            "192.0.2.1"
        );
        assert_eq!(by("for=_hidden, for=10.0.0.7"), "10.0.0.7");
    }
}
