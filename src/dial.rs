//! Connecting to an origin: name look-up, TCP, TLS. Used by upstream connections and token fetches alike.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use rustix::net::sockopt;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::config::{Upstream, is_this_machine};

/// Why an origin could not be reached.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// The name has no address.
    #[error("cannot look up {host}")]
    Lookup {
        /// The name.
        host: String,
        /// What the resolver said.
        #[source]
        source: io::Error,
    },
    /// Nobody accepts the connection.
    #[error("cannot connect to {host}:{port}")]
    Connect {
        /// The host.
        host: String,
        /// The port.
        port: u16,
        /// What the system said of the last address tried.
        #[source]
        source: io::Error,
    },
    /// The TLS handshake failed: most often a certificate that does not verify.
    #[error("TLS with {host} failed")]
    Tls {
        /// The host.
        host: String,
        /// What rustls said.
        #[source]
        source: io::Error,
    },
    /// It took too long.
    #[error("connecting to {host}:{port} took longer than {limit:?}")]
    Timeout {
        /// The host.
        host: String,
        /// The port.
        port: u16,
        /// The limit that passed.
        limit: Duration,
    },
}

impl DialError {
    /// Is a certificate the reason, rather than the network?
    pub fn is_certificate(&self) -> bool {
        let Self::Tls { source, .. } = self else { return false };
        let inner = source.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
        matches!(inner, Some(rustls::Error::InvalidCertificate(_)))
    }
}

impl DialError {
    /// Does the peer speak none of the protocols that it was offered (RFC 7301 §3.2)?
    pub fn is_other_protocol(&self) -> bool {
        let Self::Tls { source, .. } = self else { return false };
        let inner = source.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
        let alert = rustls::AlertDescription::NoApplicationProtocol;
        matches!(inner, Some(rustls::Error::AlertReceived(received)) if *received == alert)
    }
}

/// Connects to `origin` within `limit`, TLS handshake included.
pub async fn dial(
    origin: &Upstream,
    tls: Option<&TlsConnector>,
    limit: Duration,
) -> Result<Stream, DialError> {
    match tokio::time::timeout(limit, connect(origin, tls, limit)).await {
        Ok(done) => done,
        Err(_) => Err(DialError::Timeout { host: origin.host.clone(), port: origin.port, limit }),
    }
}

async fn connect(
    origin: &Upstream,
    tls: Option<&TlsConnector>,
    limit: Duration,
) -> Result<Stream, DialError> {
    let host = || origin.host.clone();
    let addresses = tokio::net::lookup_host((origin.host.as_str(), origin.port))
        .await
        .map_err(|source| DialError::Lookup { host: host(), source })?;
    // A name that counts as this machine's is this machine's, whatever the resolver makes of it.
    let only_loopback = is_this_machine(&origin.host);
    let is_allowed = |address: &SocketAddr| !only_loopback || address.ip().to_canonical().is_loopback();
    let addresses: Vec<_> = addresses.filter(is_allowed).collect();
    // An address that swallows connections must not take the time of the others.
    let share = limit / u32::try_from(addresses.len().max(1)).unwrap_or(u32::MAX);
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    let mut connected = None;
    for address in addresses {
        match tokio::time::timeout(share, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => {
                connected = Some(stream);
                break;
            }
            Ok(Err(error)) => last = error,
            Err(_) => last = io::ErrorKind::TimedOut.into(),
        }
    }
    let Some(tcp) = connected else {
        return Err(DialError::Connect { host: host(), port: origin.port, source: last });
    };
    // Small requests must not wait for the acknowledgement of the previous one; failing to say so is harmless.
    let _ = tcp.set_nodelay(true);
    keep_alive(&tcp);
    let Some(connector) = tls else { return Ok(Stream::Plain(tcp)) };
    let name = ServerName::try_from(host()).map_err(|error| DialError::Tls {
        host: host(),
        source: io::Error::new(io::ErrorKind::InvalidInput, error),
    })?;
    let stream =
        connector.connect(name, tcp).await.map_err(|source| DialError::Tls { host: host(), source })?;
    Ok(Stream::Tls(Box::new(stream)))
}

/// A peer that vanished without a word would else be waited for for ever: some routes have no limit of their own.
fn keep_alive(tcp: &TcpStream) {
    // Where the system knows less of this, it keeps its own times.
    let _ = sockopt::set_socket_keepalive(tcp, true);
    let _ = sockopt::set_tcp_keepidle(tcp, Duration::from_secs(30));
    let _ = sockopt::set_tcp_keepintvl(tcp, Duration::from_secs(10));
    let _ = sockopt::set_tcp_keepcnt(tcp, 3);
}

/// A connection to an origin, with TLS or without.
#[derive(Debug)]
pub enum Stream {
    /// Clear text.
    Plain(TcpStream),
    /// TLS.
    Tls(Box<TlsStream<TcpStream>>),
}

impl Stream {
    /// What was agreed on by ALPN (RFC 7301), if anything was.
    pub fn alpn_protocol(&self) -> Option<&[u8]> {
        match self {
            Self::Plain(_) => None,
            Self::Tls(stream) => stream.get_ref().1.alpn_protocol(),
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(stream) => stream.is_write_vectored(),
            Self::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_shutdown(cx),
        }
    }
}
