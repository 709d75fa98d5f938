//! The life of one request, top to bottom: guard → route → sanitize → pace → lease → inject → send → (refused? → replay
//! once) → response.

mod access;
pub mod addresses;
mod answer;
mod belonging;
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
mod worker;

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{ACCEPT_ENCODING, CONNECTION, UPGRADE};
use http::request::Parts;
use http::{HeaderValue, Request, Response, StatusCode, Version};
use hyper::body::Incoming;

use self::access::Peer;
use self::cors::Page;
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
use self::transactions::Step;
use self::upstream::{On, SendError, UpstreamBody, Upstreams};
use crate::config::{CallerId, Provider, Route};
use crate::credential::Lease;
use crate::telemetry::metrics::RejectionOutcome;

pub use self::denial::{Rule, Whose};
pub use self::error::ProxyError;
pub use self::incoming::CutShort;
pub use self::pace::Paces;
pub use self::response_body::ResponseBody;
pub use self::rules::{Arrival, Entry, Plan, Refusal, Rules};
pub use self::shared::{Claimed, Share, Shared, Slot};
pub use self::tunnel::Tunnel;
pub use self::upstream::UpstreamTls;
pub use self::worker::Remains;

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
    /// Answers one request of a caller's connection: with the upstream's answer, or with one of sidekey's own.
    pub async fn serve(
        &self,
        request: Request<Incoming>,
        entry: Entry,
        exchange: &Rc<Exchange>,
    ) -> Response<ResponseBody> {
        let (mut head, body) = request.into_parts();
        let (page, begun) = self.begin(&mut head, &body, entry, exchange);
        let mut answer = match begun {
            Ok(plan) => {
                let who = (plan.caller, plan.index);
                let answered = if plan.asks_for_local_token {
                    // Rare, and not to make every connection's future larger.
                    let (rules, clock) = (&self.shared.rules, &self.shared.clock);
                    Box::pin(token_endpoint::answer(rules, who, &head, body, exchange, clock)).await
                } else {
                    self.forward(plan, &mut head, body, exchange).await
                };
                match answered {
                    Ok(answer) => answer,
                    Err(error) => self.fail(error, who, &head, entry, exchange),
                }
            }
            Err(answer) => *answer,
        };
        if self.shared.rules.gives_request_ids() && !answer.headers().contains_key(&REQUEST_ID) {
            answer.headers_mut().insert(REQUEST_ID.clone(), exchange.request_id());
        }
        if let Some(page) = page {
            page.show(answer.headers_mut());
        }
        exchange.answers_with(answer.status());
        // Until somebody asks for the next piece, it is the caller's turn to take this one.
        exchange.handed();
        answer
    }

    /// What is to be done with a request, or the answer to one that goes no further. With it, the web page that it comes
    /// from, which may read the answer.
    ///
    /// Nothing here waits, so that none of it is part of every connection's future.
    fn begin(
        &self,
        head: &mut Parts,
        body: &Incoming,
        entry: Entry,
        exchange: &Rc<Exchange>,
    ) -> (Option<Page<'_>>, Result<Plan<'_>, Box<Response<ResponseBody>>>) {
        let place = Place::among(&self.running, self.max_running);
        let is_too_much = place.is_none();
        exchange.begins(place, !http_body::Body::is_end_stream(body));
        let count = self.counter.begins();
        if head.version == Version::HTTP_2 {
            headers::of_http2(head);
        }
        exchange.is_marked(Marks::of(&head.headers));
        if let Some(recorder) = &self.recorder {
            exchange.records(recorder.begins(head, peer_of(entry), count.start(), exchange));
        }
        exchange.counts(count);
        let Some(listener) = self.shared.listener(entry.slot) else {
            // Its connection has been told to end, and this came at the same moment.
            let error = ProxyError::Overloaded("the listener has been closed");
            let answer = answer::of(error, Provider::Generic, exchange, self.shared.clock.wall());
            return (None, Err(Box::new(answer)));
        };
        let (rules, arrival) =
            (&self.shared.rules, Arrival { listener, peer: entry.peer, remote: entry.remote });
        let page = rules.page_of(arrival, head);
        if let Some(page) = &page
            && cors::is_preflight(head)
        {
            exchange.is_of(None, rules.route_of(arrival, head));
            let answer = page.answer_preflight(head, exchange, self.shared.clock.wall());
            return (None, Err(Box::new(answer)));
        }
        let planned = if is_too_much {
            let error = ProxyError::Overloaded("more requests at once than `max_requests`");
            let route = rules.route_of(arrival, head);
            Err(Refusal { error, provider: rules.provider_of(arrival, head), caller: None, route })
        } else {
            rules.plan(arrival, head)
        };
        let plan = planned.map_err(|Refusal { error, provider, caller, route }| {
            exchange.is_of(caller, route);
            let (method, path, peer) = (&head.method, head.uri.path(), peer_of(entry));
            self.reporter.report(&error, &Trouble { caller, route, peer, method, path, exchange });
            Box::new(answer::of(error, provider, exchange, self.shared.clock.wall()))
        });
        if let Ok(plan) = &plan {
            exchange.is_of(plan.caller, Some(plan.index));
        }
        (page, plan)
    }

    /// The answer to a request that went wrong on its way.
    fn fail(
        &self,
        error: ProxyError,
        (caller, index): (Option<CallerId>, usize),
        head: &Parts,
        entry: Entry,
        exchange: &Rc<Exchange>,
    ) -> Response<ResponseBody> {
        let (method, path, peer) = (&head.method, head.uri.path(), peer_of(entry));
        let trouble = Trouble { caller, route: Some(index), peer, method, path, exchange };
        self.reporter.report(&error, &trouble);
        let provider = self.shared.rules.routes()[index].provider;
        answer::of(error, provider, exchange, self.shared.clock.wall())
    }

    async fn forward(
        &self,
        Plan { route, index, target, account, view, caller, access, .. }: Plan<'_>,
        head: &mut Parts,
        body: Incoming,
        exchange: &Rc<Exchange>,
    ) -> Result<Response<ResponseBody>, ProxyError> {
        match hops::take_hop(&head.method, &mut head.headers) {
            Some(true) => {}
            Some(false) => return Ok(answer::to_last_hop(exchange, self.shared.clock.wall())),
            None => return Err(ProxyError::BadRequest("Max-Forwards is not a number.")),
        }
        let reserved = self.shared.rules.reserved(index);
        let received = Received::of(head, view.tls, reserved.map(|names| &names[..]).unwrap_or_default());
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
        let claimed = self.shared.claims[index].as_ref();
        if access.within && !self.is_of_here(claimed, step, caller) {
            let whose = Whose::Route(Arc::clone(&route.name));
            return Err(ProxyError::Denied { whose, rule: Rule::ForeignTransaction });
        }
        if caller.is_some() && route.provider == Provider::Neo4j {
            self.keep_apart(claimed, step, caller, normal)?;
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
        let mut lease = match claimed {
            Some(claimed) => Some(self.lease(claimed, step, caller, account.as_ref()).await?),
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
        let held = claimed.map(|claimed| (claimed, lease));
        let opening = self.note_transaction(step, caller, answer.status(), held);
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
fn peer_of(Entry { remote, peer, .. }: Entry) -> Option<Peer> {
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
