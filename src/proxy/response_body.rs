//! The body of an answer on its way to the caller: the upstream's as it comes, or one of sidekey's own.

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

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
    type Error = CutShort;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, CutShort>>> {
        let this = self.get_mut();
        match &mut this.kind {
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
