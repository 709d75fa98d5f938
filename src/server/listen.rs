//! Listeners: bound before anything else starts, so that a port in use is found while it can still be said.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use crate::config::{Bind, ListenId, Listener};

/// Connections that may wait to be accepted; the system may have a lower bound of its own.
const BACKLOG: i32 = 4096;

/// A bound listener, not yet accepting.
#[derive(Debug)]
pub struct Bound {
    /// Where it is reached: `127.0.0.1:7600` or `unix:/path`.
    pub address: String,
    /// The socket address, of TCP.
    pub socket_addr: Option<SocketAddr>,
    pub(super) listening: Listening,
}

/// A listening socket.
#[derive(Debug)]
pub(super) enum Listening {
    Tcp(TcpListener),
    Unix { listener: UnixListener, path: PathBuf },
}

/// A connection as it was accepted, not yet bound to a worker's runtime.
#[derive(Debug)]
pub(super) enum RawStream {
    Tcp(std::net::TcpStream),
    Unix(UnixStream),
}

/// A connection and where it came in.
#[derive(Debug)]
pub(super) struct Accepted {
    pub(super) stream: RawStream,
    pub(super) listener: ListenId,
    /// Where it came from, of TCP.
    pub(super) remote: Option<SocketAddr>,
}

/// Why a listener cannot be bound.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Somebody else listens there.
    #[error("{0} is in use by another process; stop it or choose another address for `listen`")]
    InUse(String),
    /// The socket's file is in the way.
    #[error("{} exists and is no socket; remove it or choose another path for `listen`", .0.display())]
    NotASocket(PathBuf),
    /// Anything else.
    #[error("cannot listen on {address}: {source}")]
    Io {
        /// Where.
        address: String,
        /// What the system said.
        source: io::Error,
    },
}

/// Binds all listeners, or none.
pub fn bind(listeners: &[Listener]) -> Result<Vec<Bound>, BindError> {
    listeners.iter().map(bind_one).collect()
}

fn bind_one(listener: &Listener) -> Result<Bound, BindError> {
    match &listener.bind {
        Bind::Tcp(address) => {
            let failed = |source: io::Error| BindError::new(address.to_string(), source);
            // The standard library sets SO_REUSEADDR, so a restart need not wait.
            let socket = TcpListener::bind(address).map_err(failed)?;
            widen(&socket).and_then(|()| socket.set_nonblocking(true)).map_err(failed)?;
            let bound = socket.local_addr().map_err(failed)?;
            Ok(Bound {
                address: bound.to_string(),
                socket_addr: Some(bound),
                listening: Listening::Tcp(socket),
            })
        }
        Bind::Unix { path, mode } => {
            let address = format!("unix:{}", path.display());
            let failed = |source: io::Error| BindError::new(address.clone(), source);
            clear_stale(path, &address)?;
            // Bound under another name and renamed once its permissions are right: nobody can connect in between.
            let mut hidden = path.clone().into_os_string();
            hidden.push(format!(".{}", std::process::id()));
            let hidden = PathBuf::from(hidden);
            let _ = std::fs::remove_file(&hidden);
            let socket = UnixListener::bind(&hidden).map_err(failed)?;
            let placed = std::fs::set_permissions(&hidden, std::fs::Permissions::from_mode(*mode))
                .and_then(|()| std::fs::rename(&hidden, path))
                .and_then(|()| widen(&socket))
                .and_then(|()| socket.set_nonblocking(true));
            if let Err(source) = placed {
                let _ = std::fs::remove_file(&hidden);
                return Err(failed(source));
            }
            let listening = Listening::Unix { listener: socket, path: path.clone() };
            Ok(Bound { address, socket_addr: None, listening })
        }
    }
}

/// Lets a burst of connections wait: the standard library's 128 places would turn some of them away.
fn widen(socket: impl AsFd) -> io::Result<()> {
    rustix::net::listen(socket, BACKLOG).map_err(io::Error::from)
}

/// Removes the socket that a killed process left behind; one that somebody answers on is in use.
fn clear_stale(path: &Path, address: &str) -> Result<(), BindError> {
    let Ok(meta) = std::fs::symlink_metadata(path) else { return Ok(()) };
    if !meta.file_type().is_socket() {
        return Err(BindError::NotASocket(path.to_owned()));
    }
    match UnixStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            std::fs::remove_file(path).map_err(|source| BindError::new(address.to_owned(), source))
        }
        Ok(_) => Err(BindError::InUse(address.to_owned())),
        Err(source) => Err(BindError::new(address.to_owned(), source)),
    }
}

impl BindError {
    /// What a failed attempt to listen on `address` means.
    pub fn new(address: String, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::AddrInUse => Self::InUse(address),
            _ => Self::Io { address, source },
        }
    }
}

impl Listening {
    /// The next connection, and where it came from, of TCP.
    pub(super) fn accept(&self) -> io::Result<(RawStream, Option<SocketAddr>)> {
        match self {
            Self::Tcp(listener) => {
                listener.accept().map(|(stream, remote)| (RawStream::Tcp(stream), Some(remote)))
            }
            Self::Unix { listener, .. } => {
                listener.accept().map(|(stream, _)| (RawStream::Unix(stream), None))
            }
        }
    }
}

impl AsFd for Listening {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(listener) => listener.as_fd(),
            Self::Unix { listener, .. } => listener.as_fd(),
        }
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        if let Self::Unix { path, .. } = self {
            // Its file is ours to remove; already gone is as good.
            let _ = std::fs::remove_file(path);
        }
    }
}
