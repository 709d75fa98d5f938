//! Listening sockets that a service manager hands over (sd_listen_fds(3)): taken once, at the very start, and kept for as
//! long as the process runs, so that each configuration finds them by their names.

use std::io;
use std::net::TcpListener;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixListener;

use listenfd::ListenFd;

use crate::config::{Handed, HandedKind, Handover, Unfit};

/// What was handed over.
#[derive(Debug, Default)]
pub struct HandedSockets {
    sockets: Vec<(Handed, Option<Socket>)>,
    fault: Option<String>,
}

/// A listening socket.
#[derive(Debug)]
pub(super) enum Socket {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl HandedSockets {
    /// Takes what was handed over to this process. To be called before anything opens a file or starts a thread: the
    /// descriptors are found by their numbers, and the variables that tell of them are removed.
    pub fn take() -> Self {
        match Self::try_take() {
            Ok(sockets) => Self { sockets, fault: None },
            Err(fault) => Self { sockets: Vec::new(), fault: Some(fault) },
        }
    }

    fn try_take() -> Result<Vec<(Handed, Option<Socket>)>, String> {
        let variable = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
        let Some(count) = variable("LISTEN_FDS").filter(|count| count != "0") else { return Ok(Vec::new()) };
        if let Some(fault) = fault_of(variable("LISTEN_PID").as_deref(), std::process::id()) {
            return Err(fault);
        }
        if variable("LISTEN_FDS_FIRST_FD").is_some_and(|first| first != "3") {
            return Err("sockets are handed over from descriptor 3 on; unset LISTEN_FDS_FIRST_FD".to_owned());
        }
        // From here on no program that we start has them.
        let names = sd_notify::listen_fds_with_names()
            .map_err(|error| format!("LISTEN_FDS={count} cannot be true: {error}"))?;
        let mut given = ListenFd::from_env();
        let mut sockets: Vec<(Handed, Option<Socket>)> = Vec::new();
        for (index, (_, name)) in names.enumerate() {
            let (kind, socket) = identified(&mut given, index);
            let number = sockets.iter().filter(|(other, _)| other.name == name).count();
            sockets.push((Handed { name, number, kind }, socket));
        }
        Ok(sockets)
    }

    /// What is known of them, for whoever loads a configuration.
    pub fn seen(&self) -> Handover {
        let sockets = self.sockets.iter().map(|(handed, _)| handed.clone()).collect();
        Handover::Seen { sockets, fault: self.fault.clone() }
    }

    /// Another handle of a socket; none if there is none. It stays with us: a later configuration may want it again.
    pub(super) fn get(&self, name: &str, number: usize) -> io::Result<Option<Socket>> {
        let is_it = |handed: &Handed| handed.name == name && handed.number == number;
        let found = self.sockets.iter().find(|(handed, _)| is_it(handed));
        match found.and_then(|(_, socket)| socket.as_ref()) {
            None => Ok(None),
            Some(Socket::Tcp(listener)) => listener.try_clone().map(|one| Some(Socket::Tcp(one))),
            Some(Socket::Unix(listener)) => listener.try_clone().map(|one| Some(Socket::Unix(one))),
        }
    }
}

/// Why what the variables tell of is not for this process, `own`. Pure.
fn fault_of(pid: Option<&str>, own: u32) -> Option<String> {
    match pid {
        Some(pid) if pid.parse() == Ok(own) => None,
        Some(pid) => Some(format!(
            "the sockets are for process {}, and this one is {own}; start sidekey itself in ExecStart=, without a shell around \
             it, or with `exec`",
            pid.escape_debug()
        )),
        None => Some(format!(
            "LISTEN_FDS is set without LISTEN_PID={own}; sidekey takes no other process's sockets"
        )),
    }
}

/// Finds out what a descriptor is.
fn identified(given: &mut ListenFd, index: usize) -> (HandedKind, Option<Socket>) {
    let unfit = |unfit| (HandedKind::Unfit(unfit), None);
    if let Ok(Some(listener)) = given.take_tcp_listener(index) {
        return match listener.local_addr() {
            Ok(address) if listens(listener.as_fd()) => {
                (HandedKind::Tcp(address), Some(Socket::Tcp(listener)))
            }
            _ => unfit(Unfit::Deaf),
        };
    }
    if let Ok(Some(listener)) = given.take_unix_listener(index) {
        return match listener.local_addr() {
            Ok(address) if listens(listener.as_fd()) => {
                let path = address.as_pathname().map(std::path::Path::to_owned);
                (HandedKind::Unix(path), Some(Socket::Unix(listener)))
            }
            _ => unfit(Unfit::Deaf),
        };
    }
    unfit(Unfit::Kind)
}

/// Does a stream socket accept connections?
#[cfg(not(target_vendor = "apple"))]
fn listens(socket: BorrowedFd<'_>) -> bool {
    rustix::net::sockopt::socket_acceptconn(socket).unwrap_or(false)
}

/// Does a stream socket accept connections? This system does not tell.
#[cfg(target_vendor = "apple")]
fn listens(_: BorrowedFd<'_>) -> bool {
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_for_another_process_is_not_taken() {
        assert_eq!(fault_of(Some("42"), 42), None);
        for (pid, says) in [
            (Some("41"), "for process 41, and this one is 42"),
            (Some("x\n"), r"for process x\n, and"),
            (Some("-42"), "for process -42"),
            (None, "without LISTEN_PID=42"),
        ] {
            let fault = fault_of(pid, 42).unwrap_or_default();
            assert!(fault.contains(says), "{fault}");
        }
    }
}
