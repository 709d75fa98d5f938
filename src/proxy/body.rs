//! The bodies of an exchange: the caller's on its way up, kept while it passes if a replay may need it, and the
//! upstream's on its way down.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use super::exchange::Exchange;
use super::transactions::Opening;
use super::upstream::UpstreamBody;

/// The body of a request to an upstream.
#[derive(Debug)]
pub(crate) enum RequestBody {
    /// None.
    Empty,
    /// The caller's, as it comes.
    Streaming(Streaming),
    /// What was kept of it, once more.
    Again(VecDeque<Bytes>),
}

/// A caller's body as it comes.
#[derive(Debug)]
pub(crate) struct Streaming {
    incoming: Incoming,
    kept: Option<Rc<Kept>>,
    exchange: Rc<Exchange>,
}

/// What has passed of a body, as long as it fits its bound.
#[derive(Debug)]
pub(crate) struct Kept {
    limit: usize,
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
    /// The caller's body; what passes of it is kept in `kept`.
    pub(crate) fn streaming(incoming: Incoming, kept: Option<Rc<Kept>>, exchange: Rc<Exchange>) -> Self {
        Self::Streaming(Streaming { incoming, kept, exchange })
    }
}

impl Kept {
    /// Keeps at most `limit` bytes.
    pub(crate) fn new(limit: usize) -> Rc<Self> {
        Rc::new(Self { limit, passed: RefCell::default() })
    }

    /// The body once more, if it has passed whole and was kept whole.
    pub(crate) fn again(&self) -> Option<RequestBody> {
        let passed = self.passed.borrow();
        (passed.state == State::Whole).then(|| {
            let pieces = [passed.first.clone(), Bytes::copy_from_slice(&passed.rest)];
            RequestBody::Again(pieces.into_iter().filter(|piece| !piece.is_empty()).collect())
        })
    }

    /// Has the body passed whole, and was it kept whole?
    pub(crate) fn is_whole(&self) -> bool {
        self.passed.borrow().state == State::Whole
    }

    fn see(&self, frame: &Frame<Bytes>) {
        let mut passed = self.passed.borrow_mut();
        if passed.state != State::Passing {
            return;
        }
        match frame.data_ref() {
            Some(chunk) if passed.first.len() + passed.rest.len() + chunk.len() <= self.limit => {
                if passed.first.is_empty() {
                    passed.first = chunk.clone();
                } else {
                    passed.rest.extend_from_slice(chunk);
                }
            }
            _ => {
                *passed = Passed { state: State::Lost, ..Passed::default() };
            }
        }
    }

    fn end(&self) {
        let mut passed = self.passed.borrow_mut();
        if passed.state == State::Passing {
            passed.state = State::Whole;
        }
    }
}

impl Streaming {
    fn ended(&self) {
        if let Some(kept) = &self.kept {
            kept.end();
        }
        self.exchange.request_sent();
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match self.get_mut() {
            Self::Empty => Poll::Ready(None),
            Self::Again(chunks) => Poll::Ready(chunks.pop_front().map(|chunk| Ok(Frame::data(chunk)))),
            Self::Streaming(body) => {
                let polled = Pin::new(&mut body.incoming).poll_frame(cx);
                match &polled {
                    Poll::Ready(Some(Ok(frame))) => {
                        body.exchange.request_moves();
                        if let Some(kept) = &body.kept {
                            kept.see(frame);
                        }
                        if body.incoming.is_end_stream() {
                            body.ended();
                        }
                    }
                    Poll::Ready(None) => body.ended(),
                    Poll::Ready(Some(Err(_))) | Poll::Pending => {}
                }
                polled
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Again(chunks) => chunks.is_empty(),
            Self::Streaming(body) => body.incoming.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Again(chunks) => SizeHint::with_exact(chunks.iter().map(|chunk| chunk.len() as u64).sum()),
            Self::Streaming(body) => body.incoming.size_hint(),
        }
    }
}

/// The body of an answer to a caller. The exchange ends when it has left or is dropped.
#[derive(Debug)]
pub struct ResponseBody {
    kind: Kind,
    exchange: Rc<Exchange>,
}

#[derive(Debug)]
enum Kind {
    Own(Option<Bytes>),
    Upstream(UpstreamBody, Option<Box<Opening>>),
}

impl ResponseBody {
    /// An answer of sidekey's own.
    pub(crate) fn own(bytes: Bytes, exchange: &Rc<Exchange>) -> Self {
        Self { kind: Kind::Own((!bytes.is_empty()).then_some(bytes)), exchange: Rc::clone(exchange) }
    }

    /// An upstream's answer.
    pub(crate) fn upstream(body: UpstreamBody, opening: Option<Opening>, exchange: &Rc<Exchange>) -> Self {
        Self { kind: Kind::Upstream(body, opening.map(Box::new)), exchange: Rc::clone(exchange) }
    }
}

impl Drop for ResponseBody {
    fn drop(&mut self) {
        self.exchange.ends();
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match &mut self.get_mut().kind {
            Kind::Own(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Kind::Upstream(body, opening) => {
                let polled = body.poll_frame(cx);
                if let (Some(opening), Poll::Ready(Some(Ok(frame)))) = (opening, &polled)
                    && let Some(chunk) = frame.data_ref()
                {
                    opening.see(chunk);
                }
                polled
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            Kind::Own(bytes) => bytes.is_none(),
            Kind::Upstream(body, _) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Own(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            Kind::Upstream(body, _) => body.size_hint(),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_body_is_sent_again_exactly_if_all_of_it_passed_and_fits(
            chunks in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 0..8),
            limit in 0usize..200,
            whole in any::<bool>(),
            trailers in any::<bool>(),
        ) {
            let kept = Kept::new(limit);
            for chunk in &chunks {
                kept.see(&Frame::data(Bytes::from(chunk.clone())));
            }
            if trailers {
                kept.see(&Frame::trailers(http::HeaderMap::new()));
            }
            if whole {
                kept.end();
            }
            let sent: Vec<u8> = chunks.concat();
            let fits = sent.len() <= limit;
            let again = kept.again();
            prop_assert_eq!(again.is_some(), whole && fits && !trailers);
            prop_assert_eq!(kept.is_whole(), again.is_some());
            if let Some(RequestBody::Again(chunks)) = again {
                prop_assert_eq!(chunks.iter().flatten().copied().collect::<Vec<_>>(), sent);
            }
            let passed = kept.passed.borrow();
            prop_assert!(passed.first.len() + passed.rest.len() <= limit);
        }
    }
}
