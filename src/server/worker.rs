//! A worker: one thread, one runtime, its own callers and its own upstream connections.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::runtime::LocalOptions;
use tokio::sync::{Notify, mpsc};
use tokio::task::spawn_local;

use super::connection;
use super::service::Service;
use super::{Order, ServerSettings};
use crate::clock::ticker::{TICK, Ticker};
use crate::proxy::{Proxy, Share, Shared};

/// Name look-ups at once at most.
const MAX_LOOKUPS: usize = 4;

/// What a worker is started with.
pub(super) struct Worker {
    pub(super) shared: Arc<Shared>,
    pub(super) orders: mpsc::UnboundedReceiver<Order>,
    /// Connections given to it and not ended; the acceptor counts them in.
    pub(super) load: Arc<AtomicUsize>,
    pub(super) settings: ServerSettings,
    /// Which part of what is bounded for all workers is its own.
    pub(super) share: Share,
}

impl Worker {
    /// Serves what arrives until the acceptor is gone, then lets running exchanges finish. Tells `stands` when it is
    /// about to.
    pub(super) fn run(self, stands: &std::sync::mpsc::Sender<()>) -> std::io::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .enable_time()
            // They look up names, one at a time for each new connection.
            .max_blocking_threads(MAX_LOOKUPS)
            .build_local(LocalOptions::default())?;
        // Whoever started it waits for this; gone, it has no use for a worker either.
        let _ = stands.send(());
        runtime.block_on(self.serve());
        // Dropped, it would wait for name look-ups that still run, and they may take longer than the drain.
        runtime.shutdown_background();
        Ok(())
    }

    async fn serve(mut self) {
        let ticker = Ticker::new();
        let ServerSettings { times, limits, .. } = self.settings;
        let requests = self.share.of(limits.requests);
        let proxy = Proxy::new(self.shared, &ticker, self.share, requests, None);
        let service = Rc::new(Service::new(proxy, &ticker, times, limits));
        spawn_local(tick(Rc::clone(&service)));
        let ended = Rc::new(Notify::new());
        while let Some(order) = self.orders.recv().await {
            let accepted = match order {
                Order::Serve(accepted) => accepted,
                Order::Leave => {
                    service.leave();
                    continue;
                }
                Order::Swap(shared, settings) => {
                    self.settings = settings;
                    let ServerSettings { times, limits, .. } = settings;
                    let requests = self.share.of(limits.requests);
                    service.swap(times, limits, |now| {
                        Proxy::new(shared, &service.ticker, self.share, requests, Some(now))
                    });
                    continue;
                }
            };
            let served = connection::serve(accepted, Rc::clone(&service));
            let place = Counted { load: Arc::clone(&self.load), ended: Rc::clone(&ended) };
            spawn_local(async move {
                let _place = place;
                served.await;
            });
        }
        service.drain();
        let drained = async {
            while self.load.load(Ordering::Relaxed) > 0 {
                ended.notified().await;
            }
        };
        // What is left then is cut off.
        let _ = tokio::time::timeout(self.settings.drain_timeout, drained).await;
        service.cuts_off();
    }
}

/// Ticks while there is anything to time or to tell.
async fn tick(service: Rc<Service>) {
    loop {
        if !service.is_pending() {
            service.ticker.wanted().await;
        }
        tokio::time::sleep(TICK).await;
        service.ticker.tick();
        service.sweep();
    }
}

/// A connection that counts as load until it is dropped, panics included.
struct Counted {
    load: Arc<AtomicUsize>,
    ended: Rc<Notify>,
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.load.fetch_sub(1, Ordering::Relaxed);
        self.ended.notify_one();
    }
}
