//! What a service manager handed over, as a value: the sockets' names and addresses, without the sockets.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

/// The variables that tell of them. Programs that we start have no use for them.
pub(super) const HANDOVER_VARIABLES: [&str; 4] =
    ["LISTEN_PID", "LISTEN_PIDFDID", "LISTEN_FDS", "LISTEN_FDNAMES"];

/// What is known of sockets handed over (sd_listen_fds(3)) while a configuration is loaded.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Handover {
    /// Nobody looked: they are for a run, and this is none.
    #[default]
    Unseen,
    /// What there is.
    Seen {
        /// In the order in which they were handed over.
        sockets: Vec<Handed>,
        /// Why there are none although somebody meant to hand some over.
        fault: Option<String>,
    },
}

/// One socket that was handed over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Handed {
    /// Its name: `FileDescriptorName=` of the socket unit.
    pub name: String,
    /// Its place among those of the same name, from 0.
    pub number: usize,
    /// What it is.
    pub kind: HandedKind,
}

/// What was handed over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HandedKind {
    /// A TCP socket that listens there.
    Tcp(SocketAddr),
    /// A Unix socket that listens; its path, if it has one.
    Unix(Option<PathBuf>),
    /// Nothing that callers can connect to.
    Unfit(Unfit),
}

/// Why callers cannot connect to what was handed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unfit {
    /// It is something else than a stream socket of TCP or Unix.
    Kind,
    /// It is a stream socket that does not listen.
    Deaf,
}

impl Unfit {
    /// What to write instead, in the socket's unit.
    pub(super) fn help(self) -> &'static str {
        match self {
            Self::Kind => "write ListenStream= with an address or a path in its socket unit",
            Self::Deaf => "leave Accept= out of its socket unit: sidekey accepts the connections itself",
        }
    }
}

impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Kind => "is no stream socket of TCP or Unix",
            Self::Deaf => "does not listen",
        })
    }
}
