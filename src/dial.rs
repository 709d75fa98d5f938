//! Connecting to an origin: name look-up, TCP, an egress proxy where one leads out, TLS. Used by upstream connections
//! and token fetches alike.

mod error;
mod race;
mod stream;
mod tunnel;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use rustix::net::sockopt;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsConnector;

use crate::config::{Reserved, Upstream, authority, is_this_machine, reserved_unless};
use crate::tls::OtherKey;

pub use self::error::{DialError, ProxyFault};
pub use self::stream::Stream;

/// Connects to `origin` within `limit`, its egress proxy and the TLS handshake included.
///
/// # Errors
/// [`DialError`]; the origin has seen no request then.
pub async fn dial(
    origin: &Upstream,
    tls: Option<&TlsConnector>,
    limit: Duration,
) -> Result<Stream, DialError> {
    let (host, port) = (|| origin.host.clone(), origin.port);
    let deadline = Instant::now() + limit;
    let timeout = || DialError::Timeout { host: host(), port, limit };
    let tcp = match &origin.via {
        None => {
            let reaching = reach(&origin.host, port, origin.allow_link_local, limit);
            let reached = timeout_at(deadline, reaching).await;
            reached.map_err(|_| timeout())?.map_err(|unreached| match unreached {
                Unreached::Lookup(source) => DialError::Lookup { host: host(), source },
                Unreached::Connect(source) => DialError::Connect { host: host(), port, source },
                Unreached::Reserved(address, why) => DialError::Reserved { host: host(), address, why },
            })?
        }
        Some(proxy) => {
            let opened = timeout_at(deadline, tunnel::open(proxy, origin, limit)).await;
            let opened = opened.unwrap_or(Err(ProxyFault::Timeout(limit)));
            opened.map_err(|source| DialError::Proxy {
                proxy: proxy.authority().into(),
                origin: authority(&origin.host, port).into(),
                source: Box::new(source),
            })?
        }
    };
    let Some(connector) = tls else { return Ok(Stream::Plain(tcp)) };
    let failed = |source: io::Error| match OtherKey::of(&source) {
        Some(source) => DialError::OtherKey { host: host(), source },
        None => DialError::Tls { host: host(), source },
    };
    let name = ServerName::try_from(host())
        .map_err(|error| failed(io::Error::new(io::ErrorKind::InvalidInput, error)))?;
    let secured = timeout_at(deadline, connector.connect(name, tcp)).await.map_err(|_| timeout())?;
    Ok(Stream::Tls(Box::new(secured.map_err(failed)?)))
}

/// Why there is no TCP connection.
#[derive(Debug)]
enum Unreached {
    Lookup(io::Error),
    Connect(io::Error),
    Reserved(IpAddr, Reserved),
}

/// A TCP connection to the first of the name's addresses that takes one; whoever calls sees to it that it ends within
/// `limit`.
async fn reach(
    host: &str,
    port: u16,
    allow_link_local: bool,
    limit: Duration,
) -> Result<TcpStream, Unreached> {
    let addresses = tokio::net::lookup_host((host, port)).await.map_err(Unreached::Lookup)?;
    let addresses = permitted(host, addresses, allow_link_local)
        .map_err(|(address, why)| Unreached::Reserved(address, why))?;
    let addresses = race::order(addresses);
    let head_start = race::head_start(limit, addresses.len());
    let tcp = race::race(addresses, head_start, TcpStream::connect).await.map_err(|error| {
        let none = || io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        Unreached::Connect(error.unwrap_or_else(none))
    })?;
    // Small requests must not wait for the acknowledgement of the previous one; failing to say so is harmless.
    let _ = tcp.set_nodelay(true);
    keep_alive(&tcp);
    Ok(tcp)
}

/// Pure. Those of a name's addresses that may be connected to; an error if there are some, and all of them are reserved.
fn permitted(
    host: &str,
    addresses: impl Iterator<Item = SocketAddr>,
    allow_link_local: bool,
) -> Result<Vec<SocketAddr>, (IpAddr, Reserved)> {
    // A name that counts as this machine's is this machine's, whatever the resolver makes of it.
    let only_loopback = is_this_machine(host);
    let (mut good, mut bad) = (Vec::new(), None);
    for address in addresses {
        let ip = address.ip().to_canonical();
        match reserved_unless(ip, allow_link_local) {
            Some(why) => bad = bad.or(Some((ip, why))),
            None if !only_loopback || ip.is_loopback() => good.push(address),
            None => {}
        }
    }
    match bad {
        Some(bad) if good.is_empty() => Err(bad),
        _ => Ok(good),
    }
}

/// A peer that vanished without a word would else be waited for for ever: some routes have no limit of their own.
fn keep_alive(tcp: &TcpStream) {
    // Where the system knows less of this, it keeps its own times.
    let _ = sockopt::set_socket_keepalive(tcp, true);
    let _ = sockopt::set_tcp_keepidle(tcp, Duration::from_secs(30));
    let _ = sockopt::set_tcp_keepintvl(tcp, Duration::from_secs(10));
    let _ = sockopt::set_tcp_keepcnt(tcp, 3);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_connection_sends_at_once_and_notices_a_peer_that_vanished() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        for host in ["127.0.0.1", "localhost"] {
            let tcp = reach(host, port, false, Duration::from_secs(5)).await.unwrap();
            assert!(tcp.nodelay().unwrap());
            assert!(sockopt::socket_keepalive(&tcp).unwrap());
            assert_eq!(sockopt::tcp_keepidle(&tcp).unwrap(), Duration::from_secs(30));
        }
    }

    #[test]
    fn of_a_names_addresses_the_reserved_ones_are_left_out_and_one_that_has_no_others_is_refused() {
        let (link_local, metadata) = (Reserved::LinkLocal, Reserved::Metadata);
        let cases: [(&str, &[&str], bool, Result<&[&str], (&str, Reserved)>); 12] = [
            ("a.example", &["192.0.2.1", "2001:db8::1"], false, Ok(&["192.0.2.1", "2001:db8::1"])),
            ("a.example", &[], false, Ok(&[])),
            ("a.example", &["169.254.169.254"], false, Err(("169.254.169.254", metadata))),
            ("a.example", &["169.254.169.254"], true, Ok(&["169.254.169.254"])),
            ("a.example", &["fe80::1", "169.254.169.254"], false, Err(("fe80::1", link_local))),
            ("a.example", &["fe80::1", "192.0.2.1"], false, Ok(&["192.0.2.1"])),
            ("a.example", &["::ffff:169.254.169.254"], false, Err(("169.254.169.254", metadata))),
            ("a.example", &["0.0.0.0", "::"], true, Err(("0.0.0.0", Reserved::NoMachine))),
            ("169.254.1.1", &["169.254.1.1"], false, Err(("169.254.1.1", link_local))),
            ("127.0.0.1", &["127.0.0.1"], false, Ok(&["127.0.0.1"])),
            // This machine's names lead nowhere else, with leave or without.
            ("a.localhost", &["192.0.2.1", "::1", "169.254.1.1"], true, Ok(&["::1"])),
            ("localhost", &["192.0.2.1"], false, Ok(&[])),
        ];
        for (host, addresses, leave, want) in cases {
            let parse = |text: &&str| SocketAddr::new(text.parse().unwrap(), 443);
            let want = want
                .map(|good| good.iter().map(parse).collect::<Vec<_>>())
                .map_err(|(address, why)| (address.parse::<IpAddr>().unwrap(), why));
            assert_eq!(
                permitted(host, addresses.iter().map(parse), leave),
                want,
                "{host} {addresses:?} {leave}"
            );
        }
    }

    #[tokio::test]
    async fn a_port_that_nobody_listens_on_is_refused() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        match reach("localhost", port, false, Duration::from_secs(5)).await {
            Err(Unreached::Connect(error)) => assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused),
            other => panic!("{other:?}"),
        }
    }
}
