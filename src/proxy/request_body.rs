//! The caller's body on its way up, kept while it passes if a replay may need it.

mod reins;

use std::cell::RefCell;
use std::collections::VecDeque;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::HeaderName;
use http_body::{Body, Frame, SizeHint};
use tokio::time::Sleep;

use super::exchange::Exchange;
use super::headers;
use super::incoming::{Coming, CutShort};

use self::reins::Hold;
pub(crate) use self::reins::{Reins, sending};

/// How long an upstream may leave it open whether it wants a body.
const CONTINUE_PATIENCE: Duration = Duration::from_secs(1);

/// The body of a request to an upstream.
#[derive(Debug)]
pub(crate) enum RequestBody {
    /// None.
    Empty,
    /// The caller's.
    Callers(CallersBody),
}

/// A caller's body: first what had passed of it before, where it is sent again, then what comes.
#[derive(Debug)]
pub(crate) struct CallersBody {
    before: VecDeque<Bytes>,
    source: Source,
    exchange: Rc<Exchange>,
    reins: Option<Reins>,
    reserved: Option<Arc<[HeaderName]>>,
    /// How long an upstream that was asked whether it wants the body may leave that open (RFC 9110 §10.1.1).
    patience: Option<Pin<Box<Sleep>>>,
}

/// Why a body broke off.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BodyError {
    /// The caller's connection did.
    #[error(transparent)]
    Callers(#[from] CutShort),
    /// Its exchange is over.
    #[error("the exchange is over")]
    Over,
}

/// How a body is to be sent, where that is more than one way.
#[derive(Debug, Clone, Default)]
pub(crate) struct Manner {
    /// Not before the upstream asks for it, or has been silent for a second.
    pub(crate) waits: bool,
    /// Perhaps by a task that does not end with the exchange (HTTP/2).
    pub(crate) may_outlive: bool,
    /// Without trailers of these names.
    pub(crate) reserved: Option<Arc<[HeaderName]>>,
}

#[derive(Debug)]
enum Source {
    /// Nothing more comes.
    Dry,
    Own(Coming),
    Kept(Rc<Kept>),
}

/// A caller's body that may be sent again: what has passed of it, as long as it fits its bound, and what is to come.
#[derive(Debug)]
pub(crate) struct Kept {
    limit: usize,
    incoming: RefCell<Coming>,
    passed: RefCell<Passed>,
}

#[derive(Debug, Default)]
struct Passed {
    /// Shared with the read buffer that it came in: most bodies are one piece.
    first: Bytes,
    /// Copied: each small piece would else hold on to a whole read buffer.
    rest: Vec<u8>,
    state: State,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum State {
    #[default]
    Passing,
    Whole,
    /// Too large, or with trailers; a replay would not be the same message.
    Lost,
}

impl RequestBody {
    /// The caller's body, sent once.
    pub(crate) fn once(incoming: Coming, exchange: &Rc<Exchange>, manner: &Manner) -> Self {
        Self::callers(VecDeque::new(), Source::Own(incoming), exchange, manner)
    }

    /// The caller's body; what passes of it is kept.
    pub(crate) fn kept(kept: &Rc<Kept>, exchange: &Rc<Exchange>, manner: &Manner) -> Self {
        Self::callers(VecDeque::new(), Source::Kept(Rc::clone(kept)), exchange, manner)
    }

    /// What holds the body back or ends it, if anything may.
    pub(crate) fn reins(&self) -> Option<Reins> {
        match self {
            Self::Empty => None,
            Self::Callers(body) => body.reins.clone(),
        }
    }

    /// The caller's body from its beginning, if that was kept: an upstream may refuse a request before it has taken
    /// all of its body, so the rest may still be on its way.
    pub(crate) fn again(kept: &Rc<Kept>, exchange: &Rc<Exchange>, manner: &Manner) -> Option<Self> {
        let passed = kept.passed.borrow();
        let source = match passed.state {
            State::Passing => Source::Kept(Rc::clone(kept)),
            State::Whole => Source::Dry,
            State::Lost => return None,
        };
        Some(Self::callers(passed.pieces(), source, exchange, manner))
    }

    fn callers(before: VecDeque<Bytes>, source: Source, exchange: &Rc<Exchange>, manner: &Manner) -> Self {
        let reins = (manner.waits || manner.may_outlive).then(|| Reins::new(manner.waits));
        let patience = manner.waits.then(|| Box::pin(tokio::time::sleep(CONTINUE_PATIENCE)));
        let reserved = manner.reserved.clone();
        Self::Callers(CallersBody {
            before,
            source,
            exchange: Rc::clone(exchange),
            reins,
            reserved,
            patience,
        })
    }
}

impl Kept {
    /// Keeps at most `limit` bytes.
    pub(crate) fn new(incoming: Coming, limit: usize) -> Rc<Self> {
        Rc::new(Self { limit, incoming: RefCell::new(incoming), passed: RefCell::default() })
    }

    /// Can it no longer be sent again?
    pub(crate) fn is_lost(&self) -> bool {
        self.passed.borrow().state == State::Lost
    }

    fn poll_frame(&self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, CutShort>>> {
        let mut incoming = self.incoming.borrow_mut();
        let polled = incoming.poll_frame(cx);
        match &polled {
            Poll::Ready(Some(Ok(frame))) => {
                self.passed.borrow_mut().see(frame, self.limit);
                if incoming.is_end_stream() {
                    self.passed.borrow_mut().end();
                }
            }
            Poll::Ready(None) => self.passed.borrow_mut().end(),
            Poll::Ready(Some(Err(_))) | Poll::Pending => {}
        }
        polled
    }
}

impl Passed {
    /// A piece passes; it is kept if all that has passed fits `limit`.
    fn see(&mut self, frame: &Frame<Bytes>, limit: usize) {
        if self.state != State::Passing {
            return;
        }
        match frame.data_ref() {
            Some(chunk) if self.first.len() + self.rest.len() + chunk.len() <= limit => {
                if self.first.is_empty() {
                    self.first = chunk.clone();
                } else {
                    self.rest.extend_from_slice(chunk);
                }
            }
            _ => *self = Self { state: State::Lost, ..Self::default() },
        }
    }

    fn end(&mut self) {
        if self.state == State::Passing {
            self.state = State::Whole;
        }
    }

    /// What has passed, to be sent again.
    fn pieces(&self) -> VecDeque<Bytes> {
        let pieces = [self.first.clone(), Bytes::copy_from_slice(&self.rest)];
        pieces.into_iter().filter(|piece| !piece.is_empty()).collect()
    }
}

impl Source {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, CutShort>>> {
        match self {
            Self::Dry => Poll::Ready(None),
            Self::Own(incoming) => incoming.poll_frame(cx),
            Self::Kept(kept) => kept.poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Dry => true,
            Self::Own(incoming) => incoming.is_end_stream(),
            Self::Kept(kept) => kept.incoming.borrow().is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Dry => SizeHint::with_exact(0),
            Self::Own(incoming) => incoming.size_hint(),
            Self::Kept(kept) => kept.incoming.borrow().size_hint(),
        }
    }
}

impl CallersBody {
    /// Is it to wait? An error if it is over.
    fn is_held(&mut self, cx: &mut Context<'_>) -> Result<bool, BodyError> {
        let Some(reins) = &self.reins else { return Ok(false) };
        match reins.hold(cx) {
            Hold::Free => Ok(false),
            Hold::Over => Err(BodyError::Over),
            Hold::ForGood => Ok(true),
            Hold::ForNow => {
                let is_up =
                    self.patience.as_mut().is_none_or(|patience| patience.as_mut().poll(cx).is_ready());
                if is_up {
                    reins.let_go();
                }
                Ok(!is_up)
            }
        }
    }

    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self.is_held(cx) {
            Ok(false) => {}
            Ok(true) => return Poll::Pending,
            Err(error) => return Poll::Ready(Some(Err(error))),
        }
        let polled = match self.before.pop_front() {
            Some(chunk) => Poll::Ready(Some(Ok(Frame::data(chunk)))),
            None => {
                let reserved = self.reserved.as_deref().unwrap_or_default();
                let polled = self.source.poll_frame(cx);
                if let Poll::Ready(Some(Ok(frame))) = &polled {
                    let bytes = frame.data_ref().map_or(0, |chunk| chunk.len() as u64);
                    self.exchange.note(|recording| recording.bytes_in += bytes);
                }
                polled.map_ok(|frame| headers::in_frame(frame, reserved))
            }
        };
        match &polled {
            Poll::Ready(Some(Ok(_))) if self.is_end_stream() => self.exchange.request_sent(),
            Poll::Ready(Some(Ok(_))) => self.exchange.request_moves(),
            Poll::Ready(None) => self.exchange.request_sent(),
            Poll::Pending => self.exchange.request_waits(),
            Poll::Ready(Some(Err(_))) => self.exchange.request_breaks(),
        }
        polled.map_err(BodyError::from)
    }

    fn is_end_stream(&self) -> bool {
        self.before.is_empty() && self.source.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let before = self.before.iter().map(|chunk| chunk.len() as u64).sum::<u64>();
        let rest = self.source.size_hint();
        let mut whole = SizeHint::new();
        whole.set_lower(before.saturating_add(rest.lower()));
        if let Some(upper) = rest.upper() {
            whole.set_upper(before.saturating_add(upper));
        }
        whole
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self.get_mut() {
            Self::Empty => Poll::Ready(None),
            Self::Callers(body) => body.poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Callers(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Callers(body) => body.size_hint(),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_has_passed_is_sent_again_exactly_if_it_fits(
            chunks in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 0..8),
            limit in 0usize..200,
            whole in any::<bool>(),
            trailers in any::<bool>(),
        ) {
            let mut passed = Passed::default();
            for chunk in &chunks {
                passed.see(&Frame::data(Bytes::from(chunk.clone())), limit);
                prop_assert!(passed.first.len() + passed.rest.len() <= limit);
            }
            if trailers {
                passed.see(&Frame::trailers(http::HeaderMap::new()), limit);
            }
            if whole {
                passed.end();
            }
            let sent: Vec<u8> = chunks.concat();
            let kept = sent.len() <= limit && !trailers;
            prop_assert_eq!(passed.state == State::Lost, !kept);
            prop_assert_eq!(passed.state == State::Whole, kept && whole);
            let again: Vec<u8> = passed.pieces().iter().flatten().copied().collect();
            prop_assert_eq!(again, if kept { sent } else { Vec::new() });
        }
    }
}
