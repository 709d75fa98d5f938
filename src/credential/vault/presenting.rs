//! Which refresh tokens are being presented at this moment: none of them may be cut off, and none saved meanwhile.

use std::collections::HashSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::store::Key;

/// Refresh tokens that are being presented at this moment.
#[derive(Default)]
pub(super) struct Presenting {
    state: Mutex<PresentingState>,
    ended: Notify,
}

#[derive(Default)]
struct PresentingState {
    keys: HashSet<Key>,
    closed: bool,
}

impl Presenting {
    /// Begins a presentation, as soon as no other of this grant runs in this process; none: closed.
    pub(super) async fn begin<'a>(&'a self, key: &'a Key) -> Option<Presentation<'a>> {
        loop {
            let ended = self.ended.notified();
            tokio::pin!(ended);
            ended.as_mut().enable();
            // One look at both, so that whoever closes either is seen by this one or sees it.
            let is_free = {
                let mut state = self.state();
                if state.closed {
                    return None;
                }
                state.keys.insert(key.clone())
            };
            if is_free {
                return Some(Presentation { presenting: self, key });
            }
            ended.await;
        }
    }

    /// The turn on a grant, if nobody has it; given after the close as well.
    pub(super) fn turn<'a>(&'a self, key: &'a Key) -> Option<Presentation<'a>> {
        let is_free = self.state().keys.insert(key.clone());
        is_free.then_some(Presentation { presenting: self, key })
    }

    /// Lets those that run come to their end and starts no others.
    pub(super) async fn close(&self) {
        self.state().closed = true;
        loop {
            let ended = self.ended.notified();
            tokio::pin!(ended);
            ended.as_mut().enable();
            if self.state().keys.is_empty() {
                return;
            }
            ended.await;
        }
    }

    fn state(&self) -> MutexGuard<'_, PresentingState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// While it is there, a grant's refresh token is being presented, or the grant is being saved: never both, as what is
/// saved may be presented by others.
pub(in crate::credential) struct Presentation<'a> {
    presenting: &'a Presenting,
    key: &'a Key,
}

impl Drop for Presentation<'_> {
    fn drop(&mut self) {
        self.presenting.state().keys.remove(self.key);
        self.presenting.ended.notify_waiters();
    }
}
