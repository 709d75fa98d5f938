//! A message's body as it comes in, from either side; one that is cut short never ends well.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

/// A body.
#[derive(Debug)]
pub(crate) struct Coming {
    incoming: From,
    by_http2: bool,
    is_broken: bool,
}

#[derive(Debug)]
enum From {
    Wire(Incoming),
    /// What sidekey made of a body, until it is taken.
    Own(Option<Bytes>),
}

/// Why a body broke off. What came of HTTP/2 is no source of it: hyper would reset the other side's stream with the same
/// code, and there that would say something else, such as that the request was not processed.
#[derive(Debug, thiserror::Error)]
pub enum CutShort {
    /// Its connection or its framing did.
    #[error("{0}")]
    Broke(hyper::Error),
    /// Its stream was reset without an error, but before its end.
    #[error("the stream was reset before its end")]
    Reset,
    /// It did so before.
    #[error("the body has broken off")]
    Before,
}

impl Coming {
    pub(crate) fn new(incoming: Incoming, version: http::Version) -> Self {
        Self { incoming: From::Wire(incoming), by_http2: version == http::Version::HTTP_2, is_broken: false }
    }

    /// One that is at hand.
    pub(crate) fn own(whole: Bytes) -> Self {
        let whole = Some(whole).filter(|whole| !whole.is_empty());
        Self { incoming: From::Own(whole), by_http2: false, is_broken: false }
    }

    /// hyper takes RST_STREAM with NO_ERROR for an end, wherever it comes; only one after the end is (RFC 9113 §8.1).
    /// Of a body that broke off it says, asked again, that it has ended.
    pub(crate) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, CutShort>>> {
        if self.is_broken {
            return Poll::Ready(Some(Err(CutShort::Before)));
        }
        let incoming = match &mut self.incoming {
            From::Wire(incoming) => incoming,
            From::Own(whole) => return Poll::Ready(whole.take().map(|whole| Ok(Frame::data(whole)))),
        };
        let polled = match Pin::new(&mut *incoming).poll_frame(cx) {
            Poll::Ready(None) if self.by_http2 && !incoming.is_end_stream() => {
                Poll::Ready(Some(Err(CutShort::Reset)))
            }
            polled => polled.map_err(CutShort::Broke),
        };
        self.is_broken = matches!(polled, Poll::Ready(Some(Err(_))));
        polled
    }

    pub(crate) fn is_end_stream(&self) -> bool {
        !self.is_broken
            && match &self.incoming {
                From::Wire(incoming) => incoming.is_end_stream(),
                From::Own(whole) => whole.is_none(),
            }
    }

    pub(crate) fn size_hint(&self) -> SizeHint {
        match &self.incoming {
            From::Wire(incoming) => incoming.size_hint(),
            From::Own(whole) => SizeHint::with_exact(whole.as_ref().map_or(0, |whole| whole.len() as u64)),
        }
    }
}
