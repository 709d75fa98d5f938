//! Listeners: bound before anything else starts, so that a port in use is found while it can still be said.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _, lchown};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tracing::info;

use super::handed::{HandedSockets, Socket};
use crate::config::{Access, Bind, Listener};
use crate::proxy::Slot;

/// Connections that may wait to be accepted; the system may have a lower bound of its own.
const BACKLOG: i32 = 4096;

/// A bound listener that is accepted from, under a number that no other of the process ever has.
#[derive(Debug, Clone)]
pub struct Open {
    /// The number.
    pub slot: Slot,
    /// The listener.
    pub bound: Bound,
}

/// A bound listener; closed with the last that has it.
#[derive(Debug, Clone)]
pub struct Bound {
    /// Where it is reached: `127.0.0.1:7600` or `unix:/path`.
    pub address: String,
    /// The socket address, of TCP.
    pub socket_addr: Option<SocketAddr>,
    pub(super) listening: Arc<Listening>,
}

/// A listening socket.
#[derive(Debug)]
pub(super) enum Listening {
    Tcp(TcpListener),
    Unix {
        listener: UnixListener,
        /// Its file, with device and inode, where that is ours to remove as long as it is the same.
        file: Option<(PathBuf, Option<(u64, u64)>)>,
    },
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
    pub(super) slot: Slot,
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
    /// Its file cannot be given to whom the configuration says.
    #[error(
        "cannot give {address} to {to}: {source}; only root gives a file to another user, and others only to a group that they are in: correct `owner` and `group`, or run sidekey as that user"
    )]
    NotGiven {
        /// Where.
        address: String,
        /// To whom.
        to: String,
        /// What the system said.
        source: io::Error,
    },
    /// There is no such socket.
    #[error("no socket was handed over by the name `{0}`; start sidekey by its socket unit")]
    NotHandedOver(String),
    /// Anything else.
    #[error("cannot listen on {address}: {source}")]
    Io {
        /// Where.
        address: String,
        /// What the system said.
        source: io::Error,
    },
}

impl Bound {
    /// Gives a Unix socket's file the mode, owner and group that a listener at its place is to have.
    ///
    /// # Errors
    /// [`BindError`] where the system does not let us.
    pub fn give(&self, listener: &Listener) -> Result<(), BindError> {
        let Bind::Unix { path, access } = &listener.bind else { return Ok(()) };
        let Listening::Unix { file: Some((_, file)), .. } = &*self.listening else { return Ok(()) };
        if identity(path) != *file {
            // Somebody has removed it, or put something else there, which is none of ours.
            return Ok(());
        }
        let failed = |source: io::Error| BindError::new(self.address.clone(), source);
        give(path, access, &self.address)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(access.mode)).map_err(failed)
    }
}

/// Binds all listeners, or none; those that were handed over are bound already.
pub fn bind(listeners: &[Listener], handed: &HandedSockets) -> Result<Vec<Bound>, BindError> {
    listeners.iter().map(|listener| bind_one(listener, handed)).collect()
}

fn bind_one(listener: &Listener, handed: &HandedSockets) -> Result<Bound, BindError> {
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
                listening: Arc::new(Listening::Tcp(socket)),
            })
        }
        Bind::Unix { path, access } => bind_unix(path, access),
        Bind::Systemd { name, number, .. } => take(name, *number, handed),
    }
}

/// A socket that was handed over. How many connections may wait there is its unit's to say.
fn take(name: &str, number: usize, handed: &HandedSockets) -> Result<Bound, BindError> {
    let failed = |source: io::Error| BindError::new(format!("systemd:{name}"), source);
    let bound = match handed.get(name, number).map_err(failed)? {
        None => return Err(BindError::NotHandedOver(name.to_owned())),
        Some(Socket::Tcp(listener)) => {
            listener.set_nonblocking(true).map_err(failed)?;
            let address = listener.local_addr().map_err(failed)?;
            let listening = Arc::new(Listening::Tcp(listener));
            Bound { address: address.to_string(), socket_addr: Some(address), listening }
        }
        Some(Socket::Unix(listener)) => {
            listener.set_nonblocking(true).map_err(failed)?;
            let own = listener.local_addr().map_err(failed)?;
            let address = match own.as_pathname() {
                Some(path) => format!("unix:{}", path.display()),
                None => format!("systemd:{name}"),
            };
            let listening = Arc::new(Listening::Unix { listener, file: None });
            Bound { address, socket_addr: None, listening }
        }
    };
    info!(socket = name, address = bound.address, "listening on a socket that was handed over");
    Ok(bound)
}

fn bind_unix(path: &Path, access: &Access) -> Result<Bound, BindError> {
    let address = format!("unix:{}", path.display());
    let failed = |source: io::Error| BindError::new(address.clone(), source);
    clear_stale(path, &address)?;
    // Bound under another name, which it loses once all is right; and nobody can connect before it listens.
    let hidden = hidden_name(path);
    let _ = std::fs::remove_file(&hidden);
    let socket = unheard(&hidden).map_err(failed)?;
    let placed = give(&hidden, access, &address).and_then(|()| {
        std::fs::set_permissions(&hidden, std::fs::Permissions::from_mode(access.mode))
            .and_then(|()| widen(&socket))
            .and_then(|()| socket.set_nonblocking(true))
            .and_then(|()| std::fs::rename(&hidden, path))
            .map_err(failed)
    });
    if let Err(error) = placed {
        let _ = std::fs::remove_file(&hidden);
        return Err(error);
    }
    let file = Some((path.to_owned(), identity(path)));
    Ok(Bound { address, socket_addr: None, listening: Arc::new(Listening::Unix { listener: socket, file }) })
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    std::fs::symlink_metadata(path).ok().map(|meta| (meta.dev(), meta.ino()))
}

/// A name beside the socket's own that is no longer than the system takes (`sun_path`, 107 bytes on Linux).
fn hidden_name(path: &Path) -> PathBuf {
    let mut hidden = path.as_os_str().to_owned();
    hidden.push(format!(".{}", std::process::id()));
    match hidden.len() {
        0..=103 => PathBuf::from(hidden),
        _ => path.with_file_name(format!(".{:x}", std::process::id())),
    }
}

/// A Unix socket with its file, on which nobody can connect yet.
fn unheard(path: &Path) -> io::Result<UnixListener> {
    use rustix::io::{FdFlags, fcntl_setfd};
    use rustix::net::{AddressFamily, SocketAddrUnix, SocketType, bind, socket};
    let socket = socket(AddressFamily::UNIX, SocketType::STREAM, None)?;
    fcntl_setfd(&socket, FdFlags::CLOEXEC)?;
    bind(&socket, &SocketAddrUnix::new(path)?)?;
    Ok(UnixListener::from(socket))
}

/// Gives the socket's file to the configured owner and group.
fn give(file: &Path, access: &Access, address: &str) -> Result<(), BindError> {
    let Access { owner, group, .. } = *access;
    if (owner, group) == (None, None) {
        return Ok(());
    }
    lchown(file, owner, group).map_err(|source| {
        let whose = [("user", owner), ("group", group)];
        let whose = whose.iter().filter_map(|(what, id)| id.map(|id| format!("{what} {id}")));
        let (address, to) = (address.to_owned(), whose.collect::<Vec<_>>().join(" and "));
        BindError::NotGiven { address, to, source }
    })
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
        if let Self::Unix { file: Some((path, file)), .. } = self
            && identity(path) == *file
        {
            // Already gone is as good.
            let _ = std::fs::remove_file(path);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    fn listener(path: &Path, access: Access) -> Listener {
        Listener { bind: Bind::Unix { path: path.to_owned(), access }, shared: true, tls: None }
    }

    /// The numbers of whoever runs the test.
    fn own(folder: &Path) -> (u32, u32) {
        let meta = folder.metadata().unwrap();
        (meta.uid(), meta.gid())
    }

    #[test]
    fn a_socket_has_its_mode_owner_and_group_when_it_gets_its_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s.sock");
        let (uid, gid) = own(folder.path());
        // Only root gives files away.
        let (owner, group) = if uid == 0 { (Some(12_345), Some(23_456)) } else { (Some(uid), Some(gid)) };
        for access in [
            Access::default(),
            Access { mode: 0o666, ..Access::default() },
            Access { mode: 0o660, group, owner: None },
            Access { mode: 0o640, group, owner },
        ] {
            let bound = bind(&[listener(&path, access)], &HandedSockets::default()).unwrap();
            let meta = path.symlink_metadata().unwrap();
            let want = (access.mode, access.owner.unwrap_or(uid), access.group.unwrap_or(gid));
            assert_eq!((meta.mode() & 0o7777, meta.uid(), meta.gid()), want);
            assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "no other name is left");
            UnixStream::connect(&path).unwrap();
            drop(bound);
            assert!(!path.exists());
        }
    }

    #[test]
    fn a_socket_that_cannot_be_given_away_is_told_with_the_reason_and_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        if own(folder.path()).0 == 0 {
            // Nothing is refused to root.
            return;
        }
        let access = Access { mode: 0o660, owner: Some(0), group: Some(0) };
        let listener = listener(&folder.path().join("s.sock"), access);
        let error = bind(&[listener], &HandedSockets::default()).unwrap_err();
        assert!(error.to_string().contains("to user 0 and group 0: "), "{error}");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn the_longest_path_that_the_configuration_takes_can_be_bound() {
        let folder = tempfile::tempdir().unwrap();
        let room = 103 - folder.path().as_os_str().len() - 1;
        for length in [room, room - 4, room - 8, 5] {
            let path = folder.path().join("s".repeat(length));
            let bound = bind(&[listener(&path, Access::default())], &HandedSockets::default()).unwrap();
            UnixStream::connect(&path).unwrap();
            drop(bound);
        }
    }
}
