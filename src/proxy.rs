//! The life of one request, top to bottom: guard → route → sanitize → pace → lease → inject → send → (refused? → replay
//! once) → response.

mod access;
pub mod addresses;
mod answer;
pub mod cors;
mod counting;
mod denial;
mod error;
pub mod exchange;
mod framing;
pub mod headers;
mod hops;
mod incoming;
mod marks;
mod outgoing;
mod pace;
pub mod path;
mod reach;
pub mod read_only;
mod recording;
pub mod refusal;
mod report;
mod request_body;
mod response_body;
pub mod route;
mod rules;
mod shared;
mod token_endpoint;
mod token_request;
pub mod transactions;
mod tunnel;
mod upstream;
mod verdict;

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{ACCEPT_ENCODING, CONNECTION, UPGRADE};
use http::{HeaderValue, Request, Response, StatusCode, Version};
use hyper::body::Incoming;

use self::access::Peer;
use self::counting::Counter;
use self::exchange::{Exchange, Place};
use self::headers::Received;
use self::incoming::Coming;
use self::marks::{Marks, REQUEST_ID};
use self::outgoing::Outgoing;
use self::read_only::Mode;
use self::recording::Recorder;
use self::report::{Reporter, Trouble};
use self::request_body::RequestBody;
use self::transactions::{Foreign, Opening, Step};
use self::upstream::{On, SendError, UpstreamBody, Upstreams};
use crate::clock::ticker::Ticker;
use crate::config::{CallerId, ListenId, Provider, Route};
use crate::credential::Lease;
use crate::telemetry::metrics::RejectionOutcome;
use crate::tls::ListenerTls;

pub use self::denial::{Rule, Whose};
pub use self::error::ProxyError;
pub use self::incoming::CutShort;
pub use self::pace::Paces;
pub use self::response_body::ResponseBody;
pub use self::rules::{Arrival, Entry, Plan, Refusal, Rules};
pub use self::shared::{Claimed, Share, Shared, Slot};
pub use self::tunnel::Tunnel;
pub use self::upstream::UpstreamTls;

/// One worker's proxy.
#[derive(Debug)]
pub struct Proxy {
    shared: Arc<Shared>,
    upstreams: Rc<Upstreams>,
    reporter: Reporter,
    counter: Rc<Counter>,
    /// Keeps the access log, if there is one.
    recorder: Option<Rc<Recorder>>,
    /// Requests that are served now.
    running: Rc<Cell<usize>>,
    /// The most that may be.
    max_running: usize,
}

impl Proxy {
    /// A worker's own proxy, with no upstream connections yet, for so many requests at once.
    ///
    /// `before`: the one that it follows, of which it takes over what stays the same.
    pub fn new(
        shared: Arc<Shared>,
        ticker: &Rc<Ticker>,
        share: Share,
        requests: usize,
        before: Option<&Self>,
    ) -> Self {
        let counter = Counter::new(&shared, share);
        let earlier =
            before.map(|before| (before.shared.rules.routes(), &*before.shared.tls, &*before.upstreams));
        let upstreams = Upstreams::new(shared.rules.routes(), &shared.tls, ticker, share, &counter, earlier);
        let refusals = shared.refusals.sheet(share.number);
        let reporter = Reporter::new(&shared, Rc::clone(ticker), refusals);
        let queue = shared.access_log.clone();
        let recorder = queue.map(|queue| Recorder::new(&shared, queue, ticker));
        let running = before.map(|before| Rc::clone(&before.running)).unwrap_or_default();
        Self { shared, upstreams, reporter, counter, recorder, running, max_running: requests }
    }

    /// What all workers share.
    pub fn shared(&self) -> &Shared {
        &self.shared
    }

    /// TLS towards the callers of a listener, if it has any.
    pub fn listener_tls(&self, listener: ListenId) -> Option<&ListenerTls> {
        self.shared.listener_tls[listener].as_deref()
    }

    /// Does any route that can be reached at an open listener keep the case of header names?
    pub fn keeps_header_case(&self, slot: Slot) -> bool {
        self.shared.listener(slot).is_some_and(|listener| self.shared.rules.keeps_header_case(listener))
    }

    /// Closes upstream connections that have been idle for long, and tells what is still untold; for the worker's tick.
    pub fn sweep(&self) {
        self.upstreams.sweep();
        self.reporter.sweep();
        if let Some(recorder) = &self.recorder {
            recorder.sweep();
        }
    }

    /// Is there anything to sweep?
    pub fn is_pending(&self) -> bool {
        self.upstreams.has_idle()
            || self.reporter.is_pending()
            || self.recorder.as_ref().is_some_and(|recorder| recorder.is_pending())
    }

    /// What still runs is cut off: the drain is over.
    pub fn cuts_off(&self) {
        if let Some(recorder) = &self.recorder {
            recorder.cuts_off();
        }
    }

    /// Answers one request of a caller's connection: with the upstream's answer, or with one of sidekey's own.
    pub async fn serve(
        &self,
        request: Request<Incoming>,
        entry: Entry,
        exchange: &Rc<Exchange>,
    ) -> Response<ResponseBody> {
        let Some(listener) = self.shared.listener(entry.slot) else {
            // Its connection has been told to end, and this came at the same moment.
            let error = ProxyError::Overloaded("the listener has been closed");
            return answer::of(error, Provider::Generic, exchange, self.shared.clock.wall());
        };
        let arrival = Arrival { listener, peer: entry.peer, remote: entry.remote };
        let answer = self.answer(request, arrival, exchange).await;
        exchange.answers_with(answer.status());
        // Until somebody asks for the next piece, it is the caller's turn to take this one.
        exchange.handed();
        answer
    }

    async fn answer(
        &self,
        request: Request<Incoming>,
        arrival: Arrival,
        exchange: &Rc<Exchange>,
    ) -> Response<ResponseBody> {
        let place = Place::among(&self.running, self.max_running);
        let is_too_much = place.is_none();
        exchange.begins(place, !http_body::Body::is_end_stream(request.body()));
        let count = self.counter.begins();
        let (mut head, body) = request.into_parts();
        if head.version == Version::HTTP_2 {
            headers::of_http2(&mut head);
        }
        let peer = peer_of(arrival);
        exchange.is_marked(Marks::of(&head.headers));
        if let Some(recorder) = &self.recorder {
            exchange.records(recorder.begins(&head, peer, count.start(), exchange));
        }
        exchange.counts(count);
        let page = self.shared.rules.page_of(arrival, &head);
        if let Some(page) = page
            && cors::is_preflight(&head)
        {
            exchange.is_of(None, self.shared.rules.route_of(arrival, &head));
            return page.answer_preflight(&head, exchange, self.shared.clock.wall());
        }
        let mut answer = self.attend(head, body, is_too_much, arrival, exchange).await;
        if self.shared.rules.gives_request_ids() && !answer.headers().contains_key(&REQUEST_ID) {
            answer.headers_mut().insert(REQUEST_ID.clone(), exchange.request_id());
        }
        if let Some(page) = page {
            page.show(answer.headers_mut());
        }
        answer
    }

    async fn attend(
        &self,
        head: http::request::Parts,
        body: Incoming,
        is_too_much: bool,
        arrival: Arrival,
        exchange: &Rc<Exchange>,
    ) -> Response<ResponseBody> {
        let peer = peer_of(arrival);
        if is_too_much {
            let error = ProxyError::Overloaded("more requests at once than `max_requests`");
            let (method, path) = (&head.method, head.uri.path());
            let route = self.shared.rules.route_of(arrival, &head);
            exchange.is_of(None, route);
            self.reporter.report(&error, &Trouble { caller: None, route, peer, method, path, exchange });
            let provider = self.shared.rules.provider_of(arrival, &head);
            return answer::of(error, provider, exchange, self.shared.clock.wall());
        }
        let plan = match self.shared.rules.plan(arrival, &head) {
            Ok(plan) => plan,
            Err(Refusal { error, provider, caller, route }) => {
                exchange.is_of(caller, route);
                let (method, path) = (&head.method, head.uri.path());
                self.reporter.report(&error, &Trouble { caller, route, peer, method, path, exchange });
                return answer::of(error, provider, exchange, self.shared.clock.wall());
            }
        };
        let (provider, caller, route) = (plan.route.provider, plan.caller, Some(plan.index));
        exchange.is_of(caller, route);
        let (method, uri) = (head.method.clone(), head.uri.clone());
        let answered = if plan.asks_for_local_token {
            // Rare, and not to make every connection's future larger.
            let (rules, who) = (&self.shared.rules, (plan.caller, plan.index));
            Box::pin(token_endpoint::answer(rules, who, head, body, exchange, &self.shared.clock)).await
        } else {
            self.forward(plan, head, body, exchange).await
        };
        match answered {
            Ok(response) => response,
            Err(error) => {
                let trouble = Trouble { caller, route, peer, method: &method, path: uri.path(), exchange };
                self.reporter.report(&error, &trouble);
                answer::of(error, provider, exchange, self.shared.clock.wall())
            }
        }
    }

    async fn forward(
        &self,
        Plan { route, index, target, account, view, caller, access, .. }: Plan<'_>,
        mut head: http::request::Parts,
        body: Incoming,
        exchange: &Rc<Exchange>,
    ) -> Result<Response<ResponseBody>, ProxyError> {
        match hops::take_hop(&head.method, &mut head.headers) {
            Some(true) => {}
            Some(false) => return Ok(answer::to_last_hop(exchange, self.shared.clock.wall())),
            None => return Err(ProxyError::BadRequest("Max-Forwards is not a number.")),
        }
        let reserved = self.shared.rules.reserved(index);
        let received = Received::of(&head, view.tls, reserved.map(|names| &names[..]).unwrap_or_default());
        headers::to_upstream(&mut head.headers, route.provider, &route.upstream, received);
        if self.shared.rules.gives_request_ids() && !received.reserved.contains(&REQUEST_ID) {
            head.headers.insert(REQUEST_ID.clone(), exchange.request_id());
        }
        let (method, path) = (head.method.clone(), target.clone());
        // Only there is anything to be known by its path; it was judged as it came, and the upstream's own is plain.
        let judged = (route.provider == Provider::Neo4j).then(|| path::judge(path.path()).ok()).flatten();
        let normal = judged.as_ref().map_or(path.path(), |path| path.normal());
        let step = transactions::step(route, &method, normal);
        if let Step::Begins(_) = step {
            // Its answer names the transaction, and must be readable.
            head.headers.remove(ACCEPT_ENCODING);
        }
        let mut body = Coming::new(body, head.version);
        if access.within && !self.is_of_here(route, step, caller) {
            let whose = Whose::Route(Arc::clone(&route.name));
            return Err(ProxyError::Denied { whose, rule: Rule::ForeignTransaction });
        }
        if caller.is_some() && route.provider == Provider::Neo4j {
            self.keep_apart(route, step, caller, normal)?;
        }
        match access.mode {
            Mode::Unsaid => {}
            Mode::InHeader => read_only::set_in_header(&mut head.headers),
            Mode::InBody { begins } => {
                let limit = route.replay_body.max(read_only::MIN_QUERY_BYTES);
                body = read_only::set_in_body(&mut head.headers, body, begins, limit, exchange).await?;
            }
        }
        // Before the lease: it could expire meanwhile.
        self.shared.paces.turn(index).await?;
        let claimed = self.shared.claims[index].as_ref();
        let mut lease = match claimed {
            Some(claimed) => Some(self.lease(claimed, route, step, caller, account.as_ref()).await?),
            None => None,
        };
        exchange.note(|recording| {
            claimed
                .zip(lease.as_ref())
                .iter()
                .for_each(|(claimed, lease)| recording.is_of(claimed.pool().account_of(lease)));
            recording.goes_up();
        });
        let mut outgoing = Outgoing::new(head, target, body, route, reserved, exchange);
        let request = outgoing.first(lease.as_ref());
        let mut answer = self.send(index, route, request, &outgoing, lease.as_ref(), exchange).await?;
        if let Some((claimed, refused)) = claimed.zip(lease.as_ref()) {
            let pool = claimed.pool();
            let can_repeat = step.may_change_token() && outgoing.can_repeat();
            if let Some((newer, mut rejection)) = self.judge(route, pool, refused, &answer, can_repeat).await
                && let Some(again) = outgoing.again(Some(&newer))
            {
                drop(answer);
                self.shared.paces.owe(index);
                rejection.becomes(RejectionOutcome::Failed);
                answer = self.send(index, route, again, &outgoing, Some(&newer), exchange).await?;
                self.judge_replay(route, pool, &newer, &answer, &mut rejection);
                lease = Some(newer);
            }
        }
        exchange.note(recording::Recording::came_back);
        let held = claimed.zip(lease);
        let opening = self.note_transaction(route, step, caller, answer.status(), held);
        let (mut head, body) = answer.into_parts();
        // Ours, not the upstream's (RFC 9112 §2.3); the server adapts it to the caller's.
        head.version = Version::HTTP_11;
        headers::to_caller(&mut head.headers, route.provider);
        if head.status == StatusCode::SWITCHING_PROTOCOLS {
            return self.switch(head, body, exchange).await;
        }
        if body.leaves_request {
            // The connection ends where the body would have begun.
            head.headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        addresses::to_caller(&mut head.headers, &view, route.provider, &route.upstream);
        Ok(Response::from_parts(head, ResponseBody::upstream(body, opening, exchange)))
    }

    /// The answer after which a caller's connection is one end of a WebSocket.
    async fn switch(
        &self,
        mut head: http::response::Parts,
        body: UpstreamBody,
        exchange: &Rc<Exchange>,
    ) -> Result<Response<ResponseBody>, ProxyError> {
        let mut tunnel = body.into_tunnel().await.ok_or(ProxyError::Switched)?;
        exchange.note(|recording| recording.answered(head.status));
        tunnel.is_recorded(exchange.take_recording());
        exchange.becomes(tunnel);
        head.headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        head.headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
        Ok(Response::from_parts(head, ResponseBody::own(Bytes::new(), exchange)))
    }

    /// The lease for a request: that of its transaction, else one of the pool's.
    async fn lease(
        &self,
        claimed: &Claimed,
        route: &Route,
        step: Step<'_>,
        caller: Option<CallerId>,
        account: Option<&HeaderValue>,
    ) -> Result<Lease, ProxyError> {
        let (pool, account) = (claimed.pool(), account.and_then(|account| account.to_str().ok()));
        if let Step::Within { transaction, .. } = step {
            let (name, transactions) = (self.name_of(caller), &self.shared.transactions);
            if let Some(lease) = transactions.lease(&route.name, transaction, name, &claimed.credential)?
                // Somebody else's transaction is none of this caller's.
                && account.is_none_or(|account| pool.account_of(&lease) == account)
            {
                return Ok(lease);
            }
        }
        let claim = match account {
            Some(account) => pool.claim_when_listed(account).await?,
            None => claimed.claim,
        };
        Ok(pool.lease(claim).await?)
    }

    fn name_of(&self, caller: Option<CallerId>) -> Option<&Arc<str>> {
        caller.map(|caller| self.shared.rules.callers().name(caller))
    }

    /// Keeps a caller from others' transactions: to the server, all callers are one, and it finds a transaction by its
    /// number, however the rest of its path is spelled.
    fn keep_apart(
        &self,
        route: &Route,
        step: Step<'_>,
        caller: Option<CallerId>,
        path: &str,
    ) -> Result<(), ProxyError> {
        if transactions::is_disguised(path) {
            let text =
                "The path of a transaction has parameters, escapes or empty segments; send it without.";
            return Err(ProxyError::BadRequest(text));
        }
        let is_within = matches!(step, Step::Within { .. });
        if is_within && !self.is_of_here(route, step, caller) { Err(Foreign.into()) } else { Ok(()) }
    }

    /// Does a request belong to a transaction that its caller began on this route?
    fn is_of_here(&self, route: &Route, step: Step<'_>, caller: Option<CallerId>) -> bool {
        let Step::Within { transaction, .. } = step else { return false };
        self.shared.transactions.knows(&route.name, transaction, self.name_of(caller))
    }

    /// Keeps the record of open transactions by what the upstream answered.
    fn note_transaction(
        &self,
        route: &Route,
        step: Step<'_>,
        caller: Option<CallerId>,
        status: StatusCode,
        held: Option<(&Claimed, Lease)>,
    ) -> Option<Opening> {
        let transactions = &self.shared.transactions;
        match step {
            Step::Begins(path) if status.is_success() => {
                let (claimed, lease) = held?;
                let caller = self.name_of(caller);
                Some(transactions.opening(&route.name, path, caller, lease, &claimed.credential))
            }
            Step::Within { transaction, ends } => {
                if (ends && !status.is_server_error()) || status == StatusCode::NOT_FOUND {
                    transactions.forget(&route.name, transaction);
                }
                None
            }
            Step::Begins(_) | Step::Outside => None,
        }
    }

    /// Sends a request; once more on another connection where the one it was given to turns out to be dead, or it was
    /// refused there, and nothing can have happened upstream (RFC 9110 §9.2.2).
    async fn send(
        &self,
        index: usize,
        route: &Route,
        request: Request<RequestBody>,
        outgoing: &Outgoing,
        lease: Option<&Lease>,
        exchange: &Rc<Exchange>,
    ) -> Result<Response<UpstreamBody>, ProxyError> {
        let tls = self.shared.tls[index].as_deref();
        let (unsent, unprocessed, again, error) =
            match self.upstreams.send(index, route, tls, request, exchange, On::Any).await {
                Ok(answer) => return well_framed(answer),
                Err(SendError::Failed(error)) => return Err(error),
                Err(SendError::Stale { unsent, unprocessed, again, error }) => {
                    (unsent, unprocessed, again, error)
                }
            };
        let unsent = unsent.map(|request| *request);
        let Some(request) = unsent.or_else(|| outgoing.again_if_safe(lease, unprocessed)) else {
            return Err(error);
        };
        self.shared.paces.owe(index);
        let answer = self.upstreams.send(index, route, tls, request, exchange, again).await;
        well_framed(answer.map_err(SendError::into_error)?)
    }
}

/// The other end of the connection that a request came on.
fn peer_of(Arrival { remote, peer, .. }: Arrival) -> Option<Peer> {
    remote.map(Peer::Tcp).or(peer.map(|peer| Peer::Unix(peer.uid)))
}

/// An answer, if it can be framed anew without becoming another one.
fn well_framed(answer: Response<UpstreamBody>) -> Result<Response<UpstreamBody>, ProxyError> {
    if !framing::has_plain_framing(answer.headers()) {
        return Err(ProxyError::Framing("it has a transfer coding other than chunked"));
    }
    if !framing::has_one_length(answer.headers()) {
        return Err(ProxyError::Framing("it has more than one length"));
    }
    Ok(answer)
}
