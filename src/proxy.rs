//! The life of one request, top to bottom: guard → route → sanitize → pace → lease → inject → send → (refused? → replay
//! once) → response.

pub mod addresses;
mod answer;
mod denial;
mod error;
pub mod exchange;
mod framing;
pub mod headers;
mod hops;
mod incoming;
mod outgoing;
mod pace;
pub mod path;
mod reach;
pub mod read_only;
pub mod refusal;
mod report;
mod request_body;
mod response_body;
pub mod route;
mod rules;
mod token_endpoint;
mod token_request;
pub mod transactions;
mod tunnel;
mod upstream;

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{ACCEPT_ENCODING, CONNECTION, UPGRADE};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, Version};
use hyper::body::Incoming;

use self::exchange::{Exchange, Place};
use self::headers::Received;
use self::incoming::Coming;
use self::outgoing::Outgoing;
use self::read_only::Mode;
use self::report::Reporter;
use self::request_body::RequestBody;
use self::transactions::{Opening, Step, Transactions};
use self::upstream::{On, SendError, UpstreamBody, Upstreams};
use crate::clock::ticker::Ticker;
use crate::config::{CallerId, ListenId, Provider, Route};
use crate::credential::{Claim, Lease, TokenPool};
use crate::oauth::answer::retry_after;
use crate::tls::ListenerTls;

pub use self::denial::{Rule, Whose};
pub use self::error::ProxyError;
pub use self::incoming::CutShort;
pub use self::pace::Paces;
pub use self::response_body::ResponseBody;
pub use self::rules::{Arrival, Plan, Refusal, Rules};
pub use self::tunnel::Tunnel;
pub use self::upstream::UpstreamTls;

/// What all workers share: immutable, but for the tokens in the pool.
#[derive(Debug)]
pub struct Shared {
    /// What may pass, and where it goes.
    pub rules: Rules,
    /// Whose tokens it carries.
    pub pool: Arc<TokenPool>,
    /// Each route's claim on them, where its callers name no account; none: it carries none.
    pub claims: Vec<Option<Claim>>,
    /// TLS towards each route's upstream; none for clear text.
    pub tls: Vec<Option<UpstreamTls>>,
    /// TLS towards each listener's callers; none for clear text. [`ListenId`] indexes it.
    pub listener_tls: Vec<Option<Arc<ListenerTls>>>,
    /// Which lease each open transaction belongs to.
    pub transactions: Arc<Transactions>,
    /// When requests may go, on routes that are paced.
    pub paces: Paces,
    /// Tells when an upstream's `Retry-After` is a date.
    pub clock: crate::clock::Clock,
}

/// Which part of what is bounded for all workers is one worker's own, so that nothing need be shared to keep the bound.
#[derive(Debug, Clone, Copy)]
pub struct Share {
    /// The worker's number, from 0.
    pub number: usize,
    /// How many workers there are.
    pub workers: usize,
}

impl Share {
    /// This worker's part of `total`: all parts together are `total`, if it is at least the number of workers.
    pub fn of(self, total: usize) -> usize {
        (total / self.workers + usize::from(self.number < total % self.workers)).max(1)
    }
}

/// One worker's proxy.
#[derive(Debug)]
pub struct Proxy {
    shared: Arc<Shared>,
    upstreams: Rc<Upstreams>,
    reporter: Reporter,
    /// Requests that are served now.
    running: Rc<Cell<usize>>,
    /// The most that may be.
    max_running: usize,
}

impl Proxy {
    /// A worker's own proxy, with no upstream connections yet, for so many requests at once.
    pub fn new(shared: Arc<Shared>, ticker: &Rc<Ticker>, share: Share, requests: usize) -> Self {
        let upstreams = Upstreams::new(shared.rules.routes(), ticker, share);
        let reporter = Reporter::new(Rc::clone(ticker));
        Self { shared, upstreams, reporter, running: Rc::default(), max_running: requests }
    }

    /// TLS towards the callers of a listener, if it has any.
    pub fn listener_tls(&self, listener: ListenId) -> Option<&ListenerTls> {
        self.shared.listener_tls[listener].as_deref()
    }

    /// Is any caller known by its process?
    pub fn knows_peers(&self) -> bool {
        self.shared.rules.callers().know_peers()
    }

    /// Does any route that can be reached at a listener keep the case of header names?
    pub fn keeps_header_case(&self, listener: ListenId) -> bool {
        self.shared.rules.keeps_header_case(listener)
    }

    /// Closes upstream connections that have been idle for long; for the worker's tick.
    pub fn sweep(&self) {
        self.upstreams.sweep();
    }

    /// Are there idle upstream connections to sweep?
    pub fn has_idle(&self) -> bool {
        self.upstreams.has_idle()
    }

    /// Answers one request of a caller's connection: with the upstream's answer, or with one of sidekey's own.
    pub async fn serve(
        &self,
        request: Request<Incoming>,
        arrival: Arrival,
        exchange: &Rc<Exchange>,
    ) -> Response<ResponseBody> {
        let answer = self.answer(request, arrival, exchange).await;
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
        let (mut head, body) = request.into_parts();
        if head.version == Version::HTTP_2 {
            headers::of_http2(&mut head);
        }
        if is_too_much {
            let error = ProxyError::Overloaded("more requests at once than `max_requests`");
            self.reporter.report(&error, None);
            return answer::of(
                error,
                self.shared.rules.provider_of(arrival, &head),
                exchange,
                self.shared.clock.wall(),
            );
        }
        let plan = match self.shared.rules.plan(arrival, &head) {
            Ok(plan) => plan,
            Err(refusal) => {
                self.reporter.report(&refusal.error, None);
                return answer::of(refusal.error, refusal.provider, exchange, self.shared.clock.wall());
            }
        };
        let (route, index) = (plan.route, plan.index);
        let answered = if plan.asks_for_local_token {
            // Rare, and not to make every connection's future larger.
            let (rules, who) = (&self.shared.rules, (plan.caller, index));
            Box::pin(token_endpoint::answer(rules, who, head, body, exchange, &self.shared.clock)).await
        } else {
            self.forward(plan, head, body, exchange).await
        };
        match answered {
            Ok(response) => response,
            Err(error) => {
                self.reporter.report(&error, Some((index, route)));
                answer::of(error, route.provider, exchange, self.shared.clock.wall())
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
        let (method, path) = (head.method.clone(), target.clone());
        // Only there is anything to be known by its path; it was judged as it came, and the upstream's own is plain.
        let judged = (route.provider == Provider::Neo4j).then(|| path::judge(path.path()).ok()).flatten();
        let step =
            transactions::step(route, &method, judged.as_ref().map_or(path.path(), |path| path.normal()));
        if let Step::Begins(_) = step {
            // Its answer names the transaction, and must be readable.
            head.headers.remove(ACCEPT_ENCODING);
        }
        let mut body = Coming::new(body, head.version);
        if access.within && !self.is_of_here(index, step, caller) {
            let whose = Whose::Route(Arc::clone(&route.name));
            return Err(ProxyError::Denied { whose, rule: Rule::ForeignTransaction });
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
        let mut lease = self.lease(index, step, caller, account.as_ref()).await?;
        let mut outgoing = Outgoing::new(head, target, body, route, reserved, exchange);
        let request = outgoing.first(lease.as_ref());
        let mut answer = self.send(index, route, request, &outgoing, lease.as_ref(), exchange).await?;
        if let Some(refused) = &lease {
            let can_repeat = step.may_change_token() && outgoing.can_repeat();
            if let Some(newer) = self.judge(route, refused, &answer, can_repeat).await
                && let Some(again) = outgoing.again(Some(&newer))
            {
                drop(answer);
                self.shared.paces.owe(index);
                answer = self.send(index, route, again, &outgoing, Some(&newer), exchange).await?;
                self.judge_replay(route, &newer, &answer);
                lease = Some(newer);
            }
        }
        let opening = self.note_transaction(index, step, caller, answer.status(), lease);
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
        let tunnel = body.into_tunnel().await.ok_or(ProxyError::Switched)?;
        exchange.becomes(tunnel);
        head.headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        head.headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
        Ok(Response::from_parts(head, ResponseBody::own(Bytes::new(), exchange)))
    }

    /// The lease for a request: that of its transaction, else one of the pool's.
    async fn lease(
        &self,
        index: usize,
        step: Step<'_>,
        caller: Option<CallerId>,
        account: Option<&HeaderValue>,
    ) -> Result<Option<Lease>, ProxyError> {
        let Some(claim) = self.shared.claims[index] else { return Ok(None) };
        let (pool, account) = (&self.shared.pool, account.and_then(|account| account.to_str().ok()));
        if let Step::Within { transaction, .. } = step
            && let Some(lease) = self.shared.transactions.lease(index, transaction, caller, pool)?
            // Somebody else's transaction is none of this caller's.
            && account.is_none_or(|account| pool.account_of(&lease) == account)
        {
            return Ok(Some(lease));
        }
        let claim = match account {
            Some(account) => pool.claim_when_listed(claim.credential(), account).await?,
            None => claim,
        };
        Ok(Some(pool.lease(claim).await?))
    }

    /// Does a request belong to a transaction that its caller began on this route?
    fn is_of_here(&self, index: usize, step: Step<'_>, caller: Option<CallerId>) -> bool {
        let Step::Within { transaction, .. } = step else { return false };
        self.shared.transactions.knows(index, transaction, caller)
    }

    /// Keeps the record of open transactions by what the upstream answered.
    fn note_transaction(
        &self,
        index: usize,
        step: Step<'_>,
        caller: Option<CallerId>,
        status: StatusCode,
        lease: Option<Lease>,
    ) -> Option<Opening> {
        let transactions = &self.shared.transactions;
        match step {
            Step::Begins(path) if status.is_success() => {
                Some(transactions.opening(index, path, caller, lease?))
            }
            Step::Within { transaction, ends } => {
                if (ends && !status.is_server_error()) || status == StatusCode::NOT_FOUND {
                    transactions.forget(index, transaction);
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
        let tls = self.shared.tls[index].as_ref();
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

    /// Believes or doubts the token by the upstream's answer. Gives the lease to send the request again with, where
    /// the token was refused and another one can be had.
    async fn judge(
        &self,
        route: &Route,
        lease: &Lease,
        answer: &Response<UpstreamBody>,
        can_repeat: bool,
    ) -> Option<Lease> {
        let pool = &self.shared.pool;
        let Some(certainty) = refusal::of(answer.status(), answer.headers(), &route.refused_statuses) else {
            self.believe(lease, answer.status(), answer.headers(), false);
            return None;
        };
        let doubt = pool.reject(lease, certainty, false);
        if can_repeat { pool.replacement(lease, doubt).await } else { None }
    }

    /// The same for the answer to a request that was sent again: there is no third time.
    fn judge_replay(&self, route: &Route, lease: &Lease, answer: &Response<UpstreamBody>) {
        match refusal::of(answer.status(), answer.headers(), &route.refused_statuses) {
            Some(certainty) => {
                let _ = self.shared.pool.reject(lease, certainty, true);
            }
            None => self.believe(lease, answer.status(), answer.headers(), true),
        }
    }

    fn believe(&self, lease: &Lease, status: StatusCode, headers: &HeaderMap, replayed: bool) {
        if status.is_success() || status.is_redirection() || status == StatusCode::SWITCHING_PROTOCOLS {
            self.shared.pool.accept(lease, replayed);
        } else if status == StatusCode::TOO_MANY_REQUESTS
            && let Some(span) = retry_after(headers, self.shared.clock.wall())
        {
            self.shared.pool.rest(lease, span);
        }
    }
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
