//! Who hears of logins and logouts: every pool that is on the vault, for as long as it listens.

use std::sync::{Mutex, PoisonError};

use tokio::sync::{Notify, mpsc};

use crate::store::Key;

/// Which grants somebody has changed by a login or a logout.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// This one.
    One(Key),
    /// Perhaps any.
    Any,
}

/// Tells changes to all who listen.
#[derive(Default)]
pub(super) struct Changes {
    listeners: Mutex<Listeners>,
    /// Told when there is something to save.
    pub(super) unsaved: Notify,
}

#[derive(Default)]
struct Listeners {
    senders: Vec<mpsc::UnboundedSender<Change>>,
    /// Has everything been told once? Whoever comes later hears it at once.
    begun: bool,
}

impl Changes {
    /// Hears of what changes from here on.
    pub(super) fn hear(&self) -> mpsc::UnboundedReceiver<Change> {
        let (sender, receiver) = mpsc::unbounded_channel();
        let mut listeners = self.listeners.lock().unwrap_or_else(PoisonError::into_inner);
        if listeners.begun {
            // The receiver is still here.
            let _ = sender.send(Change::Any);
        }
        listeners.senders.push(sender);
        receiver
    }

    /// Tells a change to all who still listen.
    pub(super) fn tell(&self, change: &Change) {
        let mut listeners = self.listeners.lock().unwrap_or_else(PoisonError::into_inner);
        listeners.begun |= *change == Change::Any;
        listeners.senders.retain(|sender| sender.send(change.clone()).is_ok());
    }
}
