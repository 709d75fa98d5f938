//! Callers: the programs that may use the proxy, and how far.

use std::sync::Arc;

use crate::rights::Rights;
use crate::secret::SecretSource;

/// Index into [`super::Config::callers`].
pub type CallerId = usize;

/// A program that may use the proxy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// Its name in the file: ASCII letters, digits, `.`, `-` and `_`.
    pub name: Arc<str>,
    /// What it shows; each of them counts.
    pub tokens: Vec<SecretSource>,
    /// Without a token: who it is on a Unix socket.
    pub peer: Option<PeerRule>,
    /// The routes that it may use, as indices into [`super::Config::routes`]; none: all.
    pub routes: Option<Vec<usize>>,
    /// The accounts that it may use, where a credential has several; none: all.
    pub accounts: Option<Vec<Arc<str>>>,
    /// What it may do on any route, by method and path behind the route's prefix.
    pub rights: Rights,
}

/// Who is at the other end of a Unix socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    /// The process's effective user when it connected.
    pub uid: u32,
    /// Its effective group then; supplementary groups do not count.
    pub gid: u32,
}

/// Which processes a caller is, by their user and group.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PeerRule {
    /// One of these users; empty: any.
    pub uids: Vec<u32>,
    /// And one of these groups; empty: any.
    pub gids: Vec<u32>,
}

impl PeerRule {
    /// Is it this process?
    pub fn is(&self, peer: Peer) -> bool {
        (self.uids.is_empty() || self.uids.contains(&peer.uid))
            && (self.gids.is_empty() || self.gids.contains(&peer.gid))
    }

    /// Is there a process that is both?
    pub fn meets(&self, other: &Self) -> bool {
        let meet = |a: &[u32], b: &[u32]| a.is_empty() || b.is_empty() || a.iter().any(|id| b.contains(id));
        meet(&self.uids, &other.uids) && meet(&self.gids, &other.gids)
    }
}
