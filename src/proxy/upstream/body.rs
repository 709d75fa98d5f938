//! An upstream's answer on its way to the caller.

use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::Version;
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;

use super::Upstreams;
use super::http1::Link;
use super::http2::Streaming;
use super::places::Place;
use crate::proxy::incoming::{Coming, CutShort};
use crate::proxy::request_body::Reins;
use crate::proxy::tunnel::Tunnel;

/// The body of an answer. When it has passed whole, its connection can be used again; when it is dropped before, the
/// exchange is cancelled.
#[derive(Debug)]
pub(crate) struct UpstreamBody {
    incoming: Coming,
    via: Via,
    /// The upstream has answered without the request's body, which nobody will read.
    pub(crate) leaves_request: bool,
}

#[derive(Debug)]
enum Via {
    /// Driving the body drives the connection.
    Http1 { link: Option<Box<Link>>, is_open: bool, home: Rc<Upstreams>, index: usize, place: Option<Place> },
    /// The connection drives itself. What is still to come of the request is of no use once its answer is gone.
    Http2 { _streaming: Streaming, reins: Option<Reins> },
}

impl Drop for UpstreamBody {
    fn drop(&mut self) {
        if let Via::Http2 { reins: Some(reins), .. } = &self.via {
            reins.end();
        }
    }
}

impl UpstreamBody {
    pub(super) fn http1(
        incoming: Incoming,
        link: Box<Link>,
        is_open: bool,
        home: &Rc<Upstreams>,
        index: usize,
        place: Option<Place>,
    ) -> Self {
        let home = Rc::clone(home);
        let incoming = Coming::new(incoming, Version::HTTP_11);
        let via = Via::Http1 { link: Some(link), is_open, home, index, place };
        Self { incoming, via, leaves_request: false }
    }

    pub(super) fn http2(incoming: Incoming, streaming: Streaming, reins: Option<Reins>) -> Self {
        let incoming = Coming::new(incoming, Version::HTTP_2);
        Self { incoming, via: Via::Http2 { _streaming: streaming, reins }, leaves_request: false }
    }

    /// The connection as a tunnel, after a 101.
    pub(crate) async fn into_tunnel(mut self) -> Option<Box<Tunnel>> {
        match &mut self.via {
            Via::Http1 { link, is_open, place, .. } => {
                let (is_open, place) = (*is_open, place.take());
                match link.take() {
                    Some(link) => Some(link.into_tunnel(is_open, place).await),
                    None => None,
                }
            }
            Via::Http2 { .. } => None,
        }
    }

    pub(crate) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, CutShort>>> {
        let mut polled = self.incoming.poll_frame(cx);
        if polled.is_pending() && self.drive(cx) {
            polled = self.incoming.poll_frame(cx);
        }
        let ended = match &polled {
            Poll::Ready(None) => true,
            Poll::Ready(Some(Ok(_))) => self.incoming.is_end_stream(),
            Poll::Ready(Some(Err(_))) | Poll::Pending => false,
        };
        if ended {
            self.finish(cx);
        }
        polled
    }

    pub(crate) fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    pub(crate) fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }

    /// Moves an HTTP/1.1 connection on; could something have come by that?
    fn drive(&mut self, cx: &mut Context<'_>) -> bool {
        let Via::Http1 { link: Some(link), is_open, .. } = &mut self.via else { return false };
        *is_open = *is_open && !link.is_closed(cx);
        true
    }

    /// The answer has passed whole: the connection is idle if it can be used again.
    pub(super) fn finish(&mut self, cx: &mut Context<'_>) {
        self.drive(cx);
        let Via::Http1 { link, is_open, home, index, place } = &mut self.via else { return };
        if let Some(link) = link.take()
            && *is_open
            && link.is_ready()
        {
            home.keep(*index, link);
        }
        *place = None;
    }
}
