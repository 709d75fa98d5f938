//! What an instance is asked to do, by those who may.

use std::fmt;

use tokio::sync::{Mutex, mpsc, oneshot};

/// Something that the instance is asked to do.
#[derive(Debug)]
pub enum Wish {
    /// Stop in order.
    Stop,
    /// Take up the configuration as it is now, and tell how that went: what is wrong with it, if it cannot be.
    Reload(oneshot::Sender<Result<(), String>>),
}

/// From the admin listener to whoever runs the instance.
pub struct Orders {
    sender: mpsc::UnboundedSender<Wish>,
    receiver: Mutex<mpsc::UnboundedReceiver<Wish>>,
}

impl Orders {
    /// Asks for something; whoever runs the instance gets to it when it can.
    pub(super) fn ask(&self, wish: Wish) {
        // Once it is closed, whoever waits for an answer hears that there will be none.
        let _ = self.sender.send(wish);
    }

    /// Takes no more, and drops what was not got to.
    pub fn close(&self) {
        if let Ok(mut receiver) = self.receiver.try_lock() {
            receiver.close();
            while receiver.try_recv().is_ok() {}
        }
    }

    /// Returns when somebody has asked for something.
    pub async fn asked(&self) -> Wish {
        match self.receiver.lock().await.recv().await {
            Some(wish) => wish,
            None => std::future::pending().await,
        }
    }
}

impl Default for Orders {
    fn default() -> Self {
        let (sender, receiver) = mpsc::unbounded_channel();
        Self { sender, receiver: Mutex::new(receiver) }
    }
}

impl fmt::Debug for Orders {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Orders")
    }
}
