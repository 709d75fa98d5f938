//! A stand-in of a Neo4j server's HTTP APIs: discovery, the Query API, the transactional API, their authentication.

mod answers;
mod auth;
mod toy;
mod transactions;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderValue};
use http::{Method, Request, StatusCode, request};
use hyper::body::Incoming;
use serde_json::json;

use super::body;
use super::helpers::Helper;
use super::oauth::{Dialect, Fault, TokenEndpoint};
use super::record::Record;
use super::serve::{self, Answer, Exchange, Served, Site, segments};
use super::tokens::Tokens;
use auth::{Auth, Presented};
use transactions::Transactions;

const VERSION: &str = "5.26.0";

/// A running stand-in of a Neo4j server; dropping it stops it.
pub struct Neo4j {
    served: Served,
    site: Arc<Neo4jSite>,
}

/// What a [`Neo4j`] is to be.
pub struct Neo4jBuilder {
    auth: Auth,
    sso: TokenEndpoint,
    transactions: Transactions,
    routing: bool,
}

impl Neo4j {
    /// A server that nobody can log in to, and that locks a user for five seconds after three failures.
    pub fn builder() -> Neo4jBuilder {
        Neo4jBuilder {
            auth: Auth::new(),
            sso: TokenEndpoint::new(Dialect::Standard),
            transactions: Transactions::default(),
            routing: false,
        }
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.served.addr
    }

    /// Its base URL, without a slash at the end.
    pub fn url(&self) -> String {
        self.served.url()
    }

    /// What it received.
    pub fn record(&self) -> &Record {
        &self.served.record
    }

    /// The tokens that it accepts beside the fixed ones: those that its `POST /sso/token` issues.
    pub fn tokens(&self) -> &Tokens {
        &self.site.sso.tokens
    }

    /// Makes `/sso/token` misbehave, from the next request on.
    pub fn token_fault(&self, fault: Fault) {
        self.site.sso.set_fault(fault);
    }

    /// Makes `/sso/token` wait before each answer, from the next request on.
    pub fn token_delay(&self, delay: Duration) {
        self.site.sso.set_delay(delay);
    }

    /// How many transactions are open.
    pub fn open_transactions(&self) -> usize {
        self.site.transactions.open()
    }
}

impl Neo4jBuilder {
    /// Lets a user in by name and password.
    pub fn basic(mut self, user: impl Into<String>, password: impl Into<String>) -> Self {
        self.auth.users.push((user.into(), password.into()));
        self
    }

    /// Lets in whoever shows this token.
    pub fn bearer(mut self, token: impl Into<String>) -> Self {
        self.auth.bearers.push(token.into());
        self
    }

    /// Lets in whoever shows a valid token of this ledger; `/sso/token` issues into it.
    pub fn tokens(mut self, tokens: Tokens) -> Self {
        self.sso.tokens = tokens;
        self
    }

    /// Adds a client to `POST /sso/token`, which grants client_credentials: by Basic or in the body.
    pub fn sso_client(mut self, id: impl Into<String>, secret: impl Into<String>) -> Self {
        self.sso.clients.push((id.into(), secret.into()));
        self
    }

    /// How long a token of `/sso/token` lives: an hour, unless this is called.
    pub fn token_lifetime(mut self, lifetime: Duration) -> Self {
        self.sso.lifetime = lifetime;
        self
    }

    /// Accepts a bearer token in base64, too, as Neo4j's documents have it.
    pub fn base64_tokens(mut self) -> Self {
        self.auth.base64 = true;
        self
    }

    /// Lets everyone in, as with authentication disabled.
    pub fn without_auth(mut self) -> Self {
        self.auth.required = false;
        self
    }

    /// Answers a malformed header with 401, as the documents say, in place of 400, as the server does.
    pub fn malformed_as_unauthorized(mut self) -> Self {
        self.auth.malformed = StatusCode::UNAUTHORIZED;
        self
    }

    /// How many failures in a row lock a user, and for how long.
    pub fn lock_after(mut self, failures: u32, lock: Duration) -> Self {
        (self.auth.lock_after, self.auth.lock) = (failures, lock);
        self
    }

    /// Finds a Query API transaction only if `neo4j-cluster-affinity` comes back with it, as a cluster would.
    pub fn require_affinity(mut self) -> Self {
        self.transactions.require_affinity = true;
        self
    }

    /// Shows `bolt_routing` in discovery, as a cluster does.
    pub fn routing(mut self) -> Self {
        self.routing = true;
        self
    }

    /// Starts it on a free loopback port. Fails if there is none. Needs a tokio runtime.
    pub async fn start(mut self) -> io::Result<Neo4j> {
        self.auth.tokens = self.sso.tokens.clone();
        let Self { auth, sso, transactions, routing } = self;
        let site = Arc::new(Neo4jSite { auth, sso, transactions, routing });
        Ok(Neo4j { served: Served::start(Arc::clone(&site)).await?, site })
    }
}

struct Neo4jSite {
    auth: Auth,
    sso: TokenEndpoint,
    transactions: Transactions,
    routing: bool,
}

/// One authenticated request, its body read.
struct Call<'a> {
    head: &'a request::Parts,
    body: Bytes,
    /// Who asks; `None` without authentication.
    who: Option<Presented>,
    /// What absolute URLs begin with.
    base: String,
}

impl Site for Neo4jSite {
    fn is_token_request(&self, request: &Request<Incoming>) -> bool {
        request.uri().path() == "/sso/token"
    }

    async fn answer(&self, request: Request<Incoming>, exchange: &Exchange) -> io::Result<Answer> {
        let mut answer = if self.is_token_request(&request) {
            self.sso.answer(request, exchange).await?
        } else if request.method() == Method::OPTIONS {
            preflight()
        } else if request.uri().path() == "/" {
            match base_url(request.headers()) {
                Some(base) => self.discovery(&base),
                None => error(
                    StatusCode::INTERNAL_SERVER_ERROR,
                    "Neo.ClientError.Request.Invalid",
                    "Request failed.",
                ),
            }
        } else {
            match self.auth.admit(request.headers()) {
                Ok(who) => self.resource(request, who).await?,
                Err(refusal) => refusal.into_answer(),
            }
        };
        answer.headers_mut().insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
        Ok(answer)
    }
}

impl Neo4jSite {
    /// What the server is and where its APIs are; needs no authentication.
    fn discovery(&self, base: &str) -> Answer {
        let host = base.split_once("://").map_or("localhost", |(_, authority)| authority);
        let host = host
            .rsplit_once(':')
            .filter(|(_, port)| port.parse::<u16>().is_ok())
            .map_or(host, |(host, _)| host);
        let mut found = json!({
            "bolt_direct": format!("bolt://{host}:7687"),
            "query": format!("{base}/db/{{databaseName}}/query/v2"),
            "transaction": format!("{base}/db/{{databaseName}}/tx"),
            "neo4j_version": VERSION,
            "neo4j_edition": "enterprise",
            "auth_config": { "oidc_providers": [] },
        });
        if self.routing {
            found["bolt_routing"] = format!("neo4j://{host}:7687").into();
        }
        serve::json(StatusCode::OK, &found)
    }

    async fn resource(&self, request: Request<Incoming>, who: Option<Presented>) -> io::Result<Answer> {
        if let Some(helper) = Helper::of(request.uri().path()) {
            return helper.answer(request).await;
        }
        let (head, incoming) = request.into_parts();
        let body = body::read(incoming).await?;
        let Some(base) = base_url(&head.headers) else {
            return Ok(error(
                StatusCode::INTERNAL_SERVER_ERROR,
                "Neo.DatabaseError.General.UnknownError",
                "An unknown error occurred.",
            ));
        };
        let call = Call { head: &head, body, who, base };
        // The server decodes what it routes by.
        let judged = crate::proxy::path::judge(head.uri.path()).ok();
        let parts = segments(judged.as_ref().map_or(head.uri.path(), |path| path.normal()));
        Ok(match parts.as_slice() {
            ["db", database, "query", "v2", rest @ ..] => self.transactions.query_api(&call, database, rest),
            ["db", database, "tx", rest @ ..] => self.transactions.legacy_api(&call, database, rest),
            _ => error(StatusCode::NOT_FOUND, "Neo.ClientError.Request.Invalid", "Not Found"),
        })
    }
}

/// Scheme and authority as the client sees them: as a proxy says, or else as the request itself does. None where the
/// server breaks: it takes what a proxy says for a URI, and an address with a port is none, as a scheme begins with a
/// letter. (So does 5.26; versions since 2026 ignore such an `X-Forwarded-Host`, which would help a caller as little.)
fn base_url(headers: &HeaderMap) -> Option<String> {
    let first = |name: &str| {
        let text = headers.get(name)?.to_str().ok()?.split(',').next()?.trim();
        (!text.is_empty()).then_some(text)
    };
    let forwarded = first("x-forwarded-host");
    if let Some((name, _)) = forwarded.and_then(|host| host.rsplit_once(':'))
        && !name.starts_with(|first: char| first.is_ascii_alphabetic())
    {
        return None;
    }
    let host = forwarded.or_else(|| first("host")).unwrap_or("localhost");
    let scheme = first("x-forwarded-proto").unwrap_or("http");
    Some(format!("{scheme}://{host}"))
}

fn preflight() -> Answer {
    let mut answer = serve::answer(StatusCode::OK, "text/plain", body::full(""));
    for (name, value) in [
        (header::ALLOW, "GET, POST, DELETE, OPTIONS"),
        (header::ACCESS_CONTROL_ALLOW_METHODS, "GET, POST, DELETE, OPTIONS"),
        (header::ACCESS_CONTROL_ALLOW_HEADERS, "authorization, content-type, accept"),
    ] {
        answer.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    answer
}

fn error(status: StatusCode, code: &str, message: &str) -> Answer {
    let body = json!({ "errors": [{ "code": code, "message": message }] });
    serve::answer(status, "application/json;charset=utf-8", body::full(body.to_string()))
}
