//! How many connections to an upstream a worker may have, and who waits for one.

use std::cell::Cell;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::proxy::error::ProxyError;

/// A worker's places at one upstream. First come, first served.
#[derive(Debug)]
pub(super) struct Places {
    free: Arc<Semaphore>,
    waiting: Cell<usize>,
    queue: usize,
}

/// One place; given back when dropped.
#[derive(Debug)]
pub(super) struct Place(OwnedSemaphorePermit);

impl Place {
    /// To be held by what the connection becomes.
    pub(super) fn into_inner(self) -> OwnedSemaphorePermit {
        self.0
    }
}

impl Places {
    pub(super) fn new(places: usize, queue: usize) -> Self {
        Self { free: Arc::new(Semaphore::new(places)), waiting: Cell::new(0), queue }
    }

    /// A place, for which it waits so long at most.
    pub(super) async fn take(&self, patience: Duration) -> Result<Place, ProxyError> {
        if let Ok(place) = Arc::clone(&self.free).try_acquire_owned() {
            return Ok(Place(place));
        }
        if self.waiting.get() >= self.queue {
            return Err(ProxyError::Overloaded("too many requests wait for a connection to the upstream"));
        }
        let _waiter = Waiter::new(&self.waiting);
        match tokio::time::timeout(patience, Arc::clone(&self.free).acquire_owned()).await {
            Ok(Ok(place)) => Ok(Place(place)),
            // Nobody closes it.
            Ok(Err(_)) | Err(_) => {
                Err(ProxyError::Overloaded("no connection to the upstream became free in time"))
            }
        }
    }
}

/// Somebody waits; a caller that goes away waits no longer.
struct Waiter<'a>(&'a Cell<usize>);

impl<'a> Waiter<'a> {
    fn new(waiting: &'a Cell<usize>) -> Self {
        waiting.set(waiting.get() + 1);
        Self(waiting)
    }
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn places_are_given_in_order_and_the_queue_is_bounded() {
        let places = Places::new(1, 1);
        let patience = Duration::from_secs(5);
        let first = places.take(patience).await.unwrap();
        let mut second = Box::pin(places.take(patience));
        assert!(futures_poll(&mut second).await.is_none());
        assert!(matches!(places.take(patience).await, Err(ProxyError::Overloaded(_))), "the queue is full");
        drop(first);
        let second = second.await.unwrap();
        assert!(matches!(places.take(patience).await, Err(ProxyError::Overloaded(_))), "after its patience");
        drop(second);
        assert!(places.take(patience).await.is_ok());
        assert_eq!(places.waiting.get(), 0);
    }

    async fn futures_poll<T>(future: &mut std::pin::Pin<Box<impl Future<Output = T>>>) -> Option<T> {
        std::future::poll_fn(|cx| {
            std::task::Poll::Ready(match future.as_mut().poll(cx) {
                std::task::Poll::Ready(done) => Some(done),
                std::task::Poll::Pending => None,
            })
        })
        .await
    }
}
