//! The body of an answer on its way to the caller: the upstream's as it comes, or one of sidekey's own.

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::access::Ended;
use super::exchange::Exchange;
use super::headers;
use super::incoming::CutShort;
use super::transactions::Opening;
use super::upstream::UpstreamBody;

/// The body of an answer to a caller. The exchange ends when it has left or is dropped.
#[derive(Debug)]
pub struct ResponseBody {
    kind: Kind,
    exchange: Rc<Exchange>,
    /// How it would end if it were dropped now and had not passed whole.
    otherwise: Ended,
    has_passed: bool,
}

#[derive(Debug)]
enum Kind {
    Own(Option<Bytes>),
    Upstream(UpstreamBody, Option<Box<Opening>>),
}

impl ResponseBody {
    /// An answer of sidekey's own.
    pub(crate) fn own(bytes: Bytes, exchange: &Rc<Exchange>) -> Self {
        Self::of(Kind::Own((!bytes.is_empty()).then_some(bytes)), exchange)
    }

    /// An upstream's answer.
    pub(crate) fn upstream(body: UpstreamBody, opening: Option<Opening>, exchange: &Rc<Exchange>) -> Self {
        Self::of(Kind::Upstream(body, opening.map(Box::new)), exchange)
    }

    fn of(kind: Kind, exchange: &Rc<Exchange>) -> Self {
        Self { kind, exchange: Rc::clone(exchange), otherwise: Ended::CallerGone, has_passed: false }
    }

    /// For the access log.
    fn note(&mut self, polled: &Poll<Option<Result<Frame<Bytes>, CutShort>>>) {
        match polled {
            Poll::Ready(Some(Ok(frame))) => {
                let bytes = frame.data_ref().map_or(0, |chunk| chunk.len() as u64);
                self.exchange.note(|recording| recording.bytes_out += bytes);
            }
            Poll::Ready(None) => self.has_passed = true,
            // What broke it off may be the request's own body.
            Poll::Ready(Some(Err(_))) if !self.exchange.is_broken() => self.otherwise = Ended::UpstreamCut,
            Poll::Ready(Some(Err(_))) | Poll::Pending => {}
        }
    }
}

impl Drop for ResponseBody {
    fn drop(&mut self) {
        let (is_whole, otherwise) = (self.has_passed || self.is_end_stream(), self.otherwise);
        self.exchange.note(|recording| recording.passed(is_whole, otherwise));
        self.exchange.ends();
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = CutShort;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, CutShort>>> {
        let this = self.get_mut();
        let polled = match &mut this.kind {
            Kind::Own(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Kind::Upstream(body, opening) => {
                this.exchange.asked();
                let polled = body.poll_frame(cx).map_ok(|frame| headers::in_frame(frame, &[]));
                if polled.is_ready() {
                    this.exchange.handed();
                }
                if let (Some(opening), Poll::Ready(Some(Ok(frame)))) = (opening, &polled)
                    && let Some(chunk) = frame.data_ref()
                {
                    opening.see(chunk);
                }
                polled
            }
        };
        this.note(&polled);
        polled
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
