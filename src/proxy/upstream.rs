//! A worker's own upstream connections: which one a request takes, and how many there may be.

mod body;
mod http1;
mod http2;
mod places;
mod stream;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use http::header::UPGRADE;
use http::uri::{Authority, Scheme};
use http::{Request, Response, StatusCode};
use tokio_rustls::TlsConnector;

use self::http1::Link;
use self::http2::Shared;
use self::places::{Place, Places};
use super::Share;
use super::counting::Counter;
use super::error::ProxyError;
use super::exchange::{Exchange, Phase};
use super::request_body::RequestBody;
use crate::clock::ticker::Ticker;
use crate::config::{HttpVersion, Route};
use crate::dial::{Stream, dial};
use crate::telemetry::metrics::sheet::{Connected, RouteSheet};
use crate::tls::{Connector, HTTP_1, HTTP_2};

pub(crate) use self::body::UpstreamBody;

/// No connection is used for longer: a name may lead elsewhere by then.
const MAX_AGE: Duration = Duration::from_secs(5 * 60);

/// A worker's connections to all upstreams.
#[derive(Debug)]
pub(crate) struct Upstreams {
    /// By route; shared with an earlier configuration's where nothing changed.
    pools: Box<[Rc<Pool>]>,
    ticker: Rc<Ticker>,
}

/// The connections of one route.
#[derive(Debug)]
struct Pool {
    /// HTTP/1.1; the last used is the first taken.
    idle: RefCell<Vec<Idle>>,
    http2: RefCell<Vec<Rc<Shared>>>,
    /// Was HTTP/2 agreed on the last time? If so, or if it is not known yet, one connection may be enough for many who
    /// wait for it.
    speaks_http2: Cell<Option<bool>>,
    /// HTTP/2 connections that were made.
    made: Cell<u64>,
    /// Held by the one who connects.
    connecting: tokio::sync::Mutex<()>,
    places: Option<Places>,
    max_connections: usize,
    keep: Duration,
    /// The upstream's own `:authority` of HTTP/2, which Host is to HTTP/1.1.
    authority: Authority,
    /// Where its connections are counted.
    sheet: Arc<RouteSheet>,
}

#[derive(Debug)]
struct Idle {
    link: Box<Link>,
    /// The ticker's milliseconds.
    since: u64,
}

/// TLS towards an upstream: with every version of HTTP that its route allows, and with HTTP/1.1 alone.
#[derive(Debug)]
pub struct UpstreamTls {
    /// As the route says.
    pub any: Connector,
    /// For what needs HTTP/1.1.
    pub http1: Connector,
}

impl UpstreamTls {
    /// What a route's upstream is offered.
    pub fn new(connector: Connector, http: HttpVersion) -> Self {
        let any = match http {
            HttpVersion::Auto => connector.offering(&[HTTP_2, HTTP_1]),
            HttpVersion::Http1 => connector.clone(),
            HttpVersion::Http2 => connector.offering(&[HTTP_2]),
        };
        Self { any, http1: connector }
    }
}

/// An earlier configuration's routes, their TLS, and a worker's connections for them.
pub(crate) type Earlier<'a> = (&'a [Route], &'a [Option<Arc<UpstreamTls>>], &'a Upstreams);

/// Do two routes of the same name make and keep their connections in the same way? TLS aside.
fn is_reached_alike(a: &Route, b: &Route) -> bool {
    (&a.name, &a.upstream, a.http, a.preserve_header_case)
        == (&b.name, &b.upstream, b.http, b.preserve_header_case)
        && (a.max_connections, a.max_queue, a.idle_timeout)
            == (b.max_connections, b.max_queue, b.idle_timeout)
}

/// Why a request got no answer.
pub(crate) enum SendError {
    /// Its connection was dead, or the upstream did nothing for it: it may be sent again.
    Stale {
        /// The request, if it never left.
        unsent: Option<Box<Request<RequestBody>>>,
        /// Does the upstream say that it did nothing for it?
        unprocessed: bool,
        /// Where it may be sent again.
        again: On,
        /// What to answer if it cannot be sent again.
        error: ProxyError,
    },
    /// It failed.
    Failed(ProxyError),
}

impl SendError {
    /// Whatever the connection says of it, a request whose body broke off failed by that.
    fn told_by(self, exchange: &Exchange) -> Self {
        if exchange.is_broken() { Self::Failed(ProxyError::CallerBroke) } else { self }
    }

    fn is_unsent(&self) -> bool {
        matches!(self, Self::Stale { unsent: Some(_), .. })
    }

    pub(crate) fn into_error(self) -> ProxyError {
        match self {
            Self::Stale { error, .. } | Self::Failed(error) => error,
        }
    }
}

/// On which connections a request may be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum On {
    /// On any that is there.
    Any,
    /// On one that was made after so many others, or on a new one: those before may be dead as well.
    After(u64),
}

/// A connection that a request may take.
enum Way {
    Http1(Box<Link>, Option<Place>),
    Http2(http2::Streaming),
}

impl Upstreams {
    /// Connections for these routes, whose TLS is `tls`. Those of `before`, of an earlier configuration, go on where
    /// nothing changed that has to do with them.
    pub(crate) fn new(
        routes: &[Route],
        tls: &[Option<Arc<UpstreamTls>>],
        ticker: &Rc<Ticker>,
        share: Share,
        counter: &Counter,
        before: Option<Earlier<'_>>,
    ) -> Rc<Self> {
        let same = |route: &Route, tls: Option<&Arc<UpstreamTls>>| {
            let (routes, earlier_tls, upstreams) = before?;
            let goes_on = |(earlier, earlier_tls): (&Route, &Option<Arc<UpstreamTls>>)| {
                let same_tls = match (tls, earlier_tls) {
                    (Some(tls), Some(earlier)) => Arc::ptr_eq(tls, earlier),
                    (None, None) => true,
                    _ => false,
                };
                same_tls && is_reached_alike(route, earlier)
            };
            let index = routes.iter().zip(earlier_tls).position(goes_on)?;
            Some(Rc::clone(&upstreams.pools[index]))
        };
        let pools = routes.iter().zip(tls).enumerate().map(|(index, (route, tls))| {
            let new = || Rc::new(Pool::new(route, share, Arc::clone(counter.sheet(index))));
            same(route, tls.as_ref()).unwrap_or_else(new)
        });
        Rc::new(Self { pools: pools.collect(), ticker: Rc::clone(ticker) })
    }

    /// Sends a request on a connection that is there, or on a new one where there is none, as far as `on` allows.
    pub(crate) async fn send(
        self: &Rc<Self>,
        index: usize,
        route: &Route,
        tls: Option<&UpstreamTls>,
        mut request: Request<RequestBody>,
        exchange: &Rc<Exchange>,
        on: On,
    ) -> Result<Response<UpstreamBody>, SendError> {
        let asks_to_switch = request.headers().contains_key(UPGRADE);
        let made = self.pools[index].made.get();
        let way = self.way(index, route, tls, asks_to_switch, on).await.map_err(SendError::Failed)?;
        exchange.forwarding(route.response_timeout, !http_body::Body::is_end_stream(request.body()));
        let reins = request.body().reins();
        if let Some(reins) = reins.clone().filter(|reins| reins.is_held()) {
            hyper::ext::on_informational(&mut request, move |answer| {
                if answer.status() == StatusCode::CONTINUE {
                    reins.let_go();
                }
            });
        }
        let (head, mut body) = match way {
            Way::Http1(mut link, place) => {
                http1::dress(&mut request);
                let sent = link.send(request, route, exchange, made).await;
                let (answer, is_open) = sent.map_err(|error| error.told_by(exchange))?;
                if answer.status() == StatusCode::SWITCHING_PROTOCOLS
                    && !(asks_to_switch && http1::switches_to_websocket(&answer))
                {
                    return Err(SendError::Failed(ProxyError::Switched));
                }
                let (head, incoming) = answer.into_parts();
                (head, UpstreamBody::http1(incoming, link, is_open, self, index, place))
            }
            Way::Http2(streaming) => {
                let scheme = if tls.is_some() { Scheme::HTTPS } else { Scheme::HTTP };
                http2::dress(&mut request, scheme, &self.pools[index].authority);
                let answer = match streaming.send(request, route, exchange, made).await {
                    Ok(answer) => answer,
                    Err(error) => {
                        // A request that is given back unsent still has its body to send.
                        if !error.is_unsent() {
                            reins.as_ref().inspect(|reins| reins.end());
                        }
                        return Err(error.told_by(exchange));
                    }
                };
                let (head, incoming) = answer.into_parts();
                (head, UpstreamBody::http2(incoming, streaming, reins.clone()))
            }
        };
        // It answered without having seen the body that it was asked about; now it need not see it any more.
        body.leaves_request = reins.is_some_and(|reins| reins.hold_for_good());
        exchange.answered();
        if body.is_end_stream() && head.status != StatusCode::SWITCHING_PROTOCOLS {
            std::future::poll_fn(|cx| {
                body.finish(cx);
                Poll::Ready(())
            })
            .await;
        }
        Ok(Response::from_parts(head, body))
    }

    /// Drops connections that were closed, have been idle for long, or are old. For the worker's tick.
    pub(crate) fn sweep(&self) {
        let now = self.ticker.millis();
        let mut cx = Context::from_waker(Waker::noop());
        for pool in &self.pools {
            let mut idle = pool.idle.borrow_mut();
            idle.retain_mut(|idle| {
                now < idle.since.saturating_add(millis(idle.link.keep)) && !idle.link.is_closed(&mut cx)
            });
            if idle.is_empty() {
                idle.shrink_to_fit();
            }
            pool.http2.borrow_mut().retain(|shared| {
                let is_kept =
                    !shared.is_idle() || now < shared.idle_since.get().saturating_add(millis(pool.keep));
                is_kept && !shared.is_closed() && !is_old(shared.born, now)
            });
        }
    }

    /// Are there connections to sweep?
    pub(crate) fn has_idle(&self) -> bool {
        self.pools.iter().any(|pool| !pool.idle.borrow().is_empty() || !pool.http2.borrow().is_empty())
    }

    /// The connection that a request takes.
    async fn way(
        &self,
        index: usize,
        route: &Route,
        tls: Option<&UpstreamTls>,
        asks_to_switch: bool,
        on: On,
    ) -> Result<Way, ProxyError> {
        let pool = &self.pools[index];
        let may_speak_http2 = !asks_to_switch
            && match route.http {
                HttpVersion::Auto => tls.is_some(),
                HttpVersion::Http1 => false,
                HttpVersion::Http2 => true,
            };
        if may_speak_http2 && let Some(shared) = pool.shared(on) {
            return Ok(Way::Http2(shared.place(&self.ticker)));
        }
        let expects_http2 = may_speak_http2 && pool.speaks_http2.get() == Some(true);
        let mut place = match &pool.places {
            Some(places) if !expects_http2 => Some(places.take(route.connect_timeout).await?),
            _ => None,
        };
        // Whoever had the place before may have found out that HTTP/2 is spoken.
        if may_speak_http2 && let Some(shared) = pool.shared(on) {
            return Ok(Way::Http2(shared.place(&self.ticker)));
        }
        if on == On::Any
            && !expects_http2
            && let Some(link) = pool.take_idle().await
        {
            return Ok(Way::Http1(link, place));
        }
        let connector = tls.map(|tls| if may_speak_http2 { &tls.any.0 } else { &tls.http1.0 });
        let limit = route.connect_timeout;
        if !may_speak_http2 || pool.speaks_http2.get() == Some(false) {
            return self.connect(pool, route, connector, may_speak_http2, place, limit).await;
        }
        let begun = tokio::time::Instant::now();
        let Ok(connecting) = tokio::time::timeout(limit, pool.connecting.lock()).await else {
            return Err(ProxyError::Unreachable(crate::dial::DialError::Timeout {
                host: route.upstream.host.clone(),
                port: route.upstream.port,
                limit,
            }));
        };
        // Somebody else may have connected meanwhile.
        if let Some(shared) = pool.shared(on) {
            return Ok(Way::Http2(shared.place(&self.ticker)));
        }
        if pool.speaks_http2.get() == Some(false) {
            // And found out that everyone needs a connection.
            drop(connecting);
            if let (Some(places), None) = (&pool.places, &place) {
                place = Some(places.take(limit.saturating_sub(begun.elapsed())).await?);
            }
        }
        let left = limit.saturating_sub(begun.elapsed());
        self.connect(pool, route, connector, may_speak_http2, place, left).await
    }

    async fn connect(
        &self,
        pool: &Pool,
        route: &Route,
        connector: Option<&TlsConnector>,
        may_speak_http2: bool,
        place: Option<Place>,
        limit: Duration,
    ) -> Result<Way, ProxyError> {
        let dialled = dial(&route.upstream, connector, limit).await;
        let stream: Stream = dialled.map_err(|error| match error {
            error if error.is_other_protocol() => ProxyError::NotHttp2,
            error => ProxyError::Unreachable(error),
        })?;
        let (born, connected) = (self.ticker.millis(), Connected::new(&pool.sheet));
        let agreed = match connector {
            Some(_) => stream.alpn_protocol() == Some(HTTP_2),
            None => route.http == HttpVersion::Http2,
        };
        if may_speak_http2 {
            pool.speaks_http2.set(Some(agreed));
        }
        if !(agreed && may_speak_http2) {
            if route.http == HttpVersion::Http2 && may_speak_http2 {
                return Err(ProxyError::NotHttp2);
            }
            return Ok(Way::Http1(Link::new(stream, route, born, connected).await?, place));
        }
        pool.made.set(pool.made.get() + 1);
        let shared = Shared::new(stream, born, pool.made.get(), connected).await?;
        pool.http2.borrow_mut().push(Rc::clone(&shared));
        Ok(Way::Http2(shared.place(&self.ticker)))
    }

    /// A connection is idle.
    fn keep(&self, index: usize, mut link: Box<Link>) {
        let since = self.ticker.millis();
        if !is_old(link.born, since) && !link.keep.is_zero() {
            link.rests();
            self.pools[index].idle.borrow_mut().push(Idle { link, since });
        }
    }
}

impl Pool {
    fn new(route: &Route, share: Share, sheet: Arc<RouteSheet>) -> Self {
        let max_connections = route.max_connections.map(|count| share.of(count));
        Self {
            idle: RefCell::default(),
            http2: RefCell::default(),
            speaks_http2: Cell::new((route.http == HttpVersion::Http2).then_some(true)),
            made: Cell::new(0),
            connecting: tokio::sync::Mutex::default(),
            places: max_connections.map(|count| Places::new(count, share.of(route.max_queue))),
            max_connections: max_connections.unwrap_or(usize::MAX),
            keep: route.idle_timeout,
            // Checked when the configuration was loaded.
            authority: Authority::try_from(route.upstream.host_header.as_bytes())
                .unwrap_or_else(|_| Authority::from_static("upstream.invalid")),
            sheet,
        }
    }

    /// An HTTP/2 connection with room for one more exchange; the least busy one if no other may be made.
    fn shared(&self, on: On) -> Option<Rc<Shared>> {
        let http2 = self.http2.borrow();
        let may_take = |shared: &&Rc<Shared>| match on {
            On::Any => true,
            On::After(made) => shared.number > made,
        };
        let with_room = http2.iter().filter(may_take).find(|shared| shared.has_room());
        let open = || http2.iter().filter(may_take).filter(|shared| !shared.is_closed());
        let any = || {
            open().min_by_key(|shared| shared.streams()).filter(|_| open().count() >= self.max_connections)
        };
        with_room.or_else(any).cloned()
    }

    async fn take_idle(&self) -> Option<Box<Link>> {
        std::future::poll_fn(|cx| {
            loop {
                let Some(mut idle) = self.idle.borrow_mut().pop() else { return Poll::Ready(None) };
                // Has the upstream closed it meanwhile?
                if !idle.link.is_closed(cx) && idle.link.is_ready() {
                    idle.link.works();
                    return Poll::Ready(Some(idle.link));
                }
            }
        })
        .await
    }
}

fn overdue(exchange: &Exchange, route: &Route) -> ProxyError {
    match (exchange.phase(), route.response_timeout) {
        (Phase::Waiting, Some(limit)) => ProxyError::Timeout(limit),
        _ if exchange.awaits_caller() => ProxyError::CallerStalled(exchange.idle_limit()),
        _ => ProxyError::UpstreamStalled(exchange.idle_limit()),
    }
}

fn is_old(born: u64, now: u64) -> bool {
    now.saturating_sub(born) > millis(MAX_AGE)
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}
