//! The admin listener: probes, status, a page for people, logins, and stopping, for commands, browsers and orchestrators.
//! Not on the request path.

mod access;
mod connect;
mod metrics;
mod orders;
mod page;
mod refused;
pub mod report;
mod status;
pub mod words;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue};
use http::request::Parts;
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, Semaphore, oneshot};
use tokio::task::{JoinHandle, JoinSet};
use tracing::{debug, warn};

use self::connect::Connect;
use crate::guard::{Guard, Refused};
use crate::login::Desk;
use crate::secret::Secret;
use crate::telemetry::metrics::exposition;

pub use self::access::{AccessError, TokenFile, read_token, runtime_folder};
pub use self::orders::{Orders, Wish};
pub use self::status::{Instance, Readiness, Subject};

/// The header that shows the admin token.
pub const ADMIN_TOKEN_HEADER: HeaderName = HeaderName::from_static("sidekey-token");
/// Connections at once; probes and commands need a few.
const MAX_CONNECTIONS: usize = 64;
/// What it has of its own, which no redirect path can be.
const OWN: [&str; 6] = ["/livez", "/readyz", "/status", "/metrics", "/reload", "/quitquitquit"];
/// What is said to who shows no admin token, or a wrong one.
const TOKEN_HINT: &str =
    "This needs the admin token in Sidekey-Token; the commands of sidekey know where it is.";
/// How long a request's header may take.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);

/// Who may do what on the admin listener.
#[derive(Debug)]
pub struct AdminRules {
    /// What a POST must show; none: there is nothing that opens it.
    pub token: Option<Secret>,
    /// May anybody who reaches the listener stop the instance?
    pub open_quit: bool,
    /// Names other than loopback's that a Host may have.
    pub hosts: Vec<String>,
}

impl AdminRules {
    /// Does the request show the admin token?
    fn is_shown_by(&self, head: &Parts) -> bool {
        let shown = head.headers.get(ADMIN_TOKEN_HEADER).zip(self.token.as_ref());
        shown.is_some_and(|(shown, token)| token.is(shown.as_bytes()))
    }
}

impl Face {
    fn admin(rules: AdminRules, desk: Option<Arc<Desk>>) -> Self {
        let guard = Guard::new(rules.hosts.iter().map(String::as_str));
        Self::Admin { guard, rules, desk }
    }
}

/// A running listener for administration or for probes alone; dropped, it stops.
#[derive(Debug)]
pub struct Admin {
    address: SocketAddr,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

/// What a listener serves.
#[derive(Debug)]
enum Face {
    /// Everything, to those whom the guard lets in.
    Admin { guard: Guard, rules: AdminRules, desk: Option<Arc<Desk>> },
    /// Probes and metrics alone, to anyone, by whatever name: kubelet and Prometheus come from outside the pod.
    Probes,
}

#[derive(Debug)]
struct Shared {
    face: ArcSwap<Face>,
    instance: Arc<Instance>,
    orders: Arc<Orders>,
    /// Told when nobody else is to be let in.
    left: Notify,
    port: u16,
    refused: Arc<refused::Refused>,
}

impl Admin {
    /// Serves administration on a listener on loopback. What it is asked to do goes to `orders`; `desk` is where
    /// people log in.
    ///
    /// # Errors
    /// When the listener is no longer one.
    pub fn start(
        listener: TcpListener,
        rules: AdminRules,
        instance: Arc<Instance>,
        desk: Option<Arc<Desk>>,
        orders: Arc<Orders>,
    ) -> std::io::Result<Self> {
        Self::serve(listener, Face::admin(rules, desk), instance, orders)
    }

    /// From here on, these rules hold on it.
    pub fn goes_by(&self, rules: AdminRules, desk: Option<Arc<Desk>>) {
        self.shared.face.store(Arc::new(Face::admin(rules, desk)));
    }

    /// Serves `/livez`, `/readyz` and `/metrics` and nothing else, whatever the Host.
    ///
    /// # Errors
    /// When the listener is no longer one.
    pub fn start_probes(listener: TcpListener, instance: Arc<Instance>) -> std::io::Result<Self> {
        Self::serve(listener, Face::Probes, instance, Arc::default())
    }

    /// Lets nobody else in; who is there goes on until it is dropped.
    pub fn accepts_no_more(&self) {
        self.shared.left.notify_one();
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    fn serve(
        listener: TcpListener,
        face: Face,
        instance: Arc<Instance>,
        orders: Arc<Orders>,
    ) -> std::io::Result<Self> {
        let address = listener.local_addr()?;
        let refused = refused::Refused::new(instance.sheet());
        let face = ArcSwap::from_pointee(face);
        let shared =
            Arc::new(Shared { face, instance, orders, left: Notify::new(), port: address.port(), refused });
        let task = tokio::spawn(accept(listener, Arc::clone(&shared)));
        Ok(Self { address, shared, task })
    }
}

impl Drop for Admin {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    // Dropped with this task, which ends the connections as well.
    let mut connections = JoinSet::new();
    loop {
        // The semaphore is never closed.
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = shared.left.notified() => break,
        };
        match accepted {
            Ok((stream, from)) => {
                let shared = Arc::clone(&shared);
                connections.spawn(async move {
                    let _place = place;
                    connection(stream, from, shared).await;
                });
            }
            Err(error) => {
                warn!(%error, "the admin listener cannot accept");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
        while connections.try_join_next().is_some() {}
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

async fn connection(stream: TcpStream, from: SocketAddr, shared: Arc<Shared>) {
    let service = service_fn(|request: Request<Incoming>| {
        let shared = Arc::clone(&shared);
        async move { Ok::<_, std::convert::Infallible>(shared.answer(request, from).await) }
    });
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT);
    if let Err(error) = builder.serve_connection(TokioIo::new(stream), service).await {
        debug!(%error, "an admin connection broke off");
    }
}

impl Shared {
    async fn answer(&self, request: Request<Incoming>, from: SocketAddr) -> Response<Full<Bytes>> {
        let (head, body) = request.into_parts();
        let answer = self.answer_to(&head, body).await;
        self.refused.see(answer.status(), answer.headers(), &head, from);
        answer
    }

    async fn answer_to(&self, head: &Parts, body: Incoming) -> Response<Full<Bytes>> {
        let face = self.face.load_full();
        if let Face::Admin { guard, rules, desk: Some(desk) } = &*face {
            let connect = Connect { desk, guard, rules, port: self.port };
            // On the heap: most connections never log in.
            let answer = Box::pin(connect.answer(head, body, OWN.contains(&head.uri.path())));
            if let Some(answer) = answer.await {
                return answer;
            }
        }
        if let Face::Admin { guard, rules, .. } = &*face
            && (&head.method, head.uri.path()) == (&Method::POST, "/reload")
            && guard.admit(head, true).is_ok()
        {
            return self.reload(head, rules).await;
        }
        self.answer_at_once(head, &face)
    }

    fn answer_at_once(&self, head: &Parts, face: &Face) -> Response<Full<Bytes>> {
        if let Face::Admin { guard, .. } = face
            && let Err(refused) = guard.admit(head, true)
        {
            return refusal(&refused);
        }
        match (&head.method, head.uri.path(), face) {
            (&Method::GET | &Method::HEAD, "/livez", _) => text(StatusCode::OK, "alive\n"),
            (&Method::GET | &Method::HEAD, "/readyz", _) => self.readiness(face),
            (&Method::GET | &Method::HEAD, "/metrics", _) => {
                plain(StatusCode::OK, exposition::CONTENT_TYPE, self.instance.metrics())
            }
            (&Method::GET | &Method::HEAD, "/status", Face::Admin { .. }) => {
                json_answer(StatusCode::OK, &self.instance.status())
            }
            (&Method::GET | &Method::HEAD, "/", Face::Admin { .. }) => page::page(&self.instance.status()),
            (&Method::POST, "/quitquitquit", Face::Admin { rules, .. }) => self.quit(head, rules),
            (_, "/quitquitquit" | "/reload", Face::Admin { .. }) => wrong_method("POST"),
            (_, "/" | "/status", Face::Admin { .. }) | (_, "/livez" | "/readyz" | "/metrics", _) => {
                wrong_method("GET, HEAD")
            }
            _ => error(StatusCode::NOT_FOUND, "no_route", "There is nothing at this path."),
        }
    }

    fn readiness(&self, face: &Face) -> Response<Full<Bytes>> {
        let readiness = self.instance.readiness();
        let status = match readiness {
            Readiness::Ready | Readiness::Degraded(_) => StatusCode::OK,
            Readiness::NotReady(_) => StatusCode::SERVICE_UNAVAILABLE,
        };
        // Probes come from anywhere; why a credential fails is for those who run it.
        let answer = match face {
            Face::Admin { .. } => readiness.to_string(),
            Face::Probes => format!("{}\n", readiness.word()),
        };
        text(status, answer)
    }

    fn quit(&self, head: &Parts, rules: &AdminRules) -> Response<Full<Bytes>> {
        if !rules.open_quit && !rules.is_shown_by(head) {
            return error(StatusCode::UNAUTHORIZED, "caller_unknown", TOKEN_HINT);
        }
        self.orders.ask(Wish::Stop);
        text(StatusCode::ACCEPTED, "stopping\n")
    }

    async fn reload(&self, head: &Parts, rules: &AdminRules) -> Response<Full<Bytes>> {
        if !rules.is_shown_by(head) {
            return error(StatusCode::UNAUTHORIZED, "caller_unknown", TOKEN_HINT);
        }
        let (told, ended) = oneshot::channel();
        self.orders.ask(Wish::Reload(told));
        match ended.await {
            Ok(Ok(())) => text(StatusCode::OK, "reloaded\n"),
            Ok(Err(reason)) => error(StatusCode::UNPROCESSABLE_ENTITY, "bad_request", &reason),
            // It stops, and reloads nothing any more.
            Err(_) => error(StatusCode::SERVICE_UNAVAILABLE, "overloaded", "The instance is stopping."),
        }
    }
}

fn refusal(refused: &Refused) -> Response<Full<Bytes>> {
    match refused {
        Refused::BadHost(text) => error(StatusCode::BAD_REQUEST, "bad_request", text),
        Refused::ForbiddenHost => error(
            StatusCode::FORBIDDEN,
            "forbidden_host",
            "The Host is not one that this listener answers for.",
        ),
        Refused::CrossSite(_) => {
            error(StatusCode::FORBIDDEN, "cross_site", "Requests from web pages are refused.")
        }
        Refused::Method => wrong_method("GET, HEAD, POST"),
        // It never tells callers apart.
        Refused::CallerUnknown(_) | Refused::LocalToken(_) => {
            error(StatusCode::UNAUTHORIZED, "caller_unknown", TOKEN_HINT)
        }
    }
}

fn wrong_method(allowed: &'static str) -> Response<Full<Bytes>> {
    let mut response =
        error(StatusCode::METHOD_NOT_ALLOWED, "method_refused", "The method is not for this path.");
    response.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
    response
}

fn error(status: StatusCode, code: &'static str, message: &str) -> Response<Full<Bytes>> {
    let mut response = json_answer(status, &json!({ "error": code, "message": message }));
    response.headers_mut().insert(HeaderName::from_static("sidekey-error"), HeaderValue::from_static(code));
    response
}

fn json_answer(status: StatusCode, value: &serde_json::Value) -> Response<Full<Bytes>> {
    plain(status, "application/json", format!("{value}\n"))
}

fn text(status: StatusCode, text: impl Into<String>) -> Response<Full<Bytes>> {
    plain(status, "text/plain; charset=utf-8", text.into())
}

fn plain(status: StatusCode, kind: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(HeaderName::from_static("x-content-type-options"), HeaderValue::from_static("nosniff"));
    response
}
