//! What holds a body back until its upstream asks for it, and ends it once nobody wants it any more.

use std::cell::RefCell;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};

/// Held by the exchange. Shared with hyper's own tasks, which is why it is made for other threads as well; only bodies
/// that are asked about or go out by HTTP/2 have it.
#[derive(Debug, Clone)]
pub(crate) struct Reins(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    hold: Hold,
    /// Whoever sends the body.
    sender: Option<Waker>,
    /// Ends the task that sends it, if it is one that does nothing else.
    task: Option<Arc<AtomicBool>>,
}

thread_local! {
    /// In a task of [`sending`]: what ends it, once somebody may.
    static TASK: RefCell<Option<Option<Arc<AtomicBool>>>> = const { RefCell::new(None) };
}

/// Runs what may be the sender of a body until the exchange of that is over. The sender itself would not notice while
/// it waits for an upstream that takes nothing.
pub(crate) async fn sending(sender: impl Future<Output = ()>) {
    let mut sender = pin!(sender);
    let mut task: Option<Arc<AtomicBool>> = None;
    std::future::poll_fn(|cx| {
        if task.as_ref().is_some_and(|is_over| is_over.load(Ordering::Relaxed)) {
            return Poll::Ready(());
        }
        let outer = TASK.replace(Some(task.take()));
        let polled = sender.as_mut().poll(cx);
        task = TASK.replace(outer).flatten();
        polled
    })
    .await;
}

/// May the body go?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hold {
    Free,
    /// Until the upstream asks for it.
    ForNow,
    /// The upstream has answered without it.
    ForGood,
    /// The exchange is over.
    Over,
}

impl Reins {
    pub(super) fn new(waits: bool) -> Self {
        let hold = if waits { Hold::ForNow } else { Hold::Free };
        Self(Arc::new(Mutex::new(State { hold, sender: None, task: None })))
    }

    /// May the body go? The task of `cx` is woken when that changes.
    pub(super) fn hold(&self, cx: &Context<'_>) -> Hold {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.sender = Some(cx.waker().clone());
        if state.task.is_none() {
            state.task = TASK
                .with_borrow_mut(|task| task.as_mut().map(|task| Arc::clone(task.get_or_insert_default())));
        }
        state.hold
    }

    /// Does it wait for the upstream?
    pub(crate) fn is_held(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).hold == Hold::ForNow
    }

    /// The body may go.
    pub(crate) fn let_go(&self) {
        self.turn(|hold| if hold == Hold::ForNow { Hold::Free } else { hold });
    }

    /// If the body still waits, it need not go any more. Tells whether it waited.
    pub(crate) fn hold_for_good(&self) -> bool {
        self.turn(|hold| if hold == Hold::ForNow { Hold::ForGood } else { hold }) == Hold::ForNow
    }

    /// The exchange is over; what sends the body is to end.
    pub(crate) fn end(&self) {
        let task = self.0.lock().unwrap_or_else(PoisonError::into_inner).task.take();
        if let Some(task) = task {
            task.store(true, Ordering::Relaxed);
        }
        self.turn(|_| Hold::Over);
    }

    /// Gives what held before.
    fn turn(&self, next: impl Fn(Hold) -> Hold) -> Hold {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let before = state.hold;
        state.hold = next(before);
        let woken = if state.hold == before { None } else { state.sender.take() };
        drop(state);
        if let Some(sender) = woken {
            sender.wake();
        }
        before
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now(reins: &Reins) -> Hold {
        reins.hold(&Context::from_waker(Waker::noop()))
    }

    #[test]
    fn a_body_that_was_not_asked_for_before_the_answer_never_goes() {
        let reins = Reins::new(true);
        assert_eq!(now(&reins), Hold::ForNow);
        reins.hold_for_good();
        reins.let_go();
        assert_eq!(now(&reins), Hold::ForGood);
        reins.end();
        assert_eq!(now(&reins), Hold::Over);
    }

    #[test]
    fn a_body_that_goes_already_is_held_no_more_but_can_end() {
        for reins in [Reins::new(false), Reins::new(true)] {
            reins.let_go();
            reins.hold_for_good();
            assert_eq!(now(&reins), Hold::Free);
            reins.end();
            reins.let_go();
            assert_eq!(now(&reins), Hold::Over);
        }
    }
}
