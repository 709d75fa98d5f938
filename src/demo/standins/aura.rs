//! A stand-in of the Neo4j Aura API: its token endpoint, some of its resources, its errors and its limits.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::header::{self, HeaderMap, HeaderValue};
use http::{Method, Request, StatusCode};
use hyper::body::Incoming;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::body;
use super::helpers::Helper;
use super::oauth::{Dialect, Fault, TokenEndpoint};
use super::record::Record;
use super::serve::{self, Answer, Exchange, Served, Site, bearer, segments};
use super::tokens::{Check, Tokens, random_text};

/// A running stand-in of Aura; dropping it stops it.
pub struct Aura {
    served: Served,
    site: Arc<AuraSite>,
}

/// What an [`Aura`] is to be.
pub struct AuraBuilder {
    token: TokenEndpoint,
    limit_per_minute: Option<u32>,
}

impl Aura {
    /// One without clients, whose tokens live an hour.
    pub fn builder() -> AuraBuilder {
        AuraBuilder { token: TokenEndpoint::new(Dialect::Aura), limit_per_minute: None }
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

    /// The tokens that it issued; also the way to revoke them.
    pub fn tokens(&self) -> &Tokens {
        &self.site.token.tokens
    }

    /// Makes the token endpoint misbehave, from the next request on.
    pub fn token_fault(&self, fault: Fault) {
        self.site.token.set_fault(fault);
    }

    /// Makes the token endpoint wait before each answer, from the next request on.
    pub fn token_delay(&self, delay: Duration) {
        self.site.token.set_delay(delay);
    }

    /// What a revoked token gets from the next request on: 401, as at first, or 403.
    pub fn answer_revoked_with(&self, status: StatusCode) {
        self.site.revoked.store(status.as_u16(), Ordering::Relaxed);
    }
}

impl AuraBuilder {
    /// Adds an API client.
    pub fn client(mut self, id: impl Into<String>, secret: impl Into<String>) -> Self {
        self.token.clients.push((id.into(), secret.into()));
        self
    }

    /// How long a token lives, and what `expires_in` says unless [`Self::announced_lifetime`] is called: an hour.
    pub fn token_lifetime(mut self, lifetime: Duration) -> Self {
        self.token.lifetime = lifetime;
        self
    }

    /// What `expires_in` says, in whole seconds, whenever the token really expires.
    pub fn announced_lifetime(mut self, lifetime: Duration) -> Self {
        self.token.announced = Some(lifetime);
        self
    }

    /// How many API requests each client may send in a minute before 429: without end, unless this is called.
    pub fn limit_per_minute(mut self, requests: u32) -> Self {
        self.limit_per_minute = Some(requests);
        self
    }

    /// Starts it on a free loopback port. Fails if there is none. Needs a tokio runtime.
    pub async fn start(self) -> io::Result<Aura> {
        let site = Arc::new(AuraSite {
            token: self.token,
            revoked: AtomicU16::new(StatusCode::UNAUTHORIZED.as_u16()),
            limit_per_minute: self.limit_per_minute,
            windows: Mutex::default(),
        });
        Ok(Aura { served: Served::start(Arc::clone(&site)).await?, site })
    }
}

struct AuraSite {
    token: TokenEndpoint,
    revoked: AtomicU16,
    limit_per_minute: Option<u32>,
    /// For each client, when its minute began and how many requests it has sent since.
    windows: Mutex<HashMap<String, (Instant, u32)>>,
}

impl Site for AuraSite {
    fn is_token_request(&self, request: &Request<Incoming>) -> bool {
        request.uri().path() == "/oauth/token"
    }

    async fn answer(&self, request: Request<Incoming>, exchange: &Exchange) -> io::Result<Answer> {
        let mut answer = if self.is_token_request(&request) {
            self.token.answer(request, exchange).await?
        } else {
            match self.refuse(request.headers()) {
                Some(refusal) => refusal,
                None => self.resource(request).await?,
            }
        };
        let id = HeaderValue::from_str(&random_text(32)).map_err(io::Error::other)?;
        answer.headers_mut().insert("x-request-id", id);
        Ok(answer)
    }
}

impl AuraSite {
    /// Why the API does not let a request in, if it does not.
    fn refuse(&self, headers: &HeaderMap) -> Option<Answer> {
        let Some(token) = bearer(headers) else {
            return Some(error(StatusCode::UNAUTHORIZED, "No bearer token in the request.", "unauthorized"));
        };
        match self.token.tokens.check(token) {
            Check::Valid => self.over_limit(&self.token.tokens.client(token).unwrap_or_default()),
            Check::Expired | Check::Unknown => {
                Some(error(StatusCode::FORBIDDEN, "The access token is invalid or expired.", "forbidden"))
            }
            Check::Revoked => {
                let status = StatusCode::from_u16(self.revoked.load(Ordering::Relaxed));
                let status = status.unwrap_or(StatusCode::UNAUTHORIZED);
                Some(error(status, "The access token was revoked.", "revoked"))
            }
        }
    }

    fn over_limit(&self, client: &str) -> Option<Answer> {
        const WINDOW: Duration = Duration::from_secs(60);
        let limit = self.limit_per_minute?;
        let now = Instant::now();
        let mut windows = self.windows.lock().unwrap_or_else(PoisonError::into_inner);
        let (began, sent) = windows.entry(client.to_owned()).or_insert((now, 0));
        if now.duration_since(*began) >= WINDOW {
            (*began, *sent) = (now, 0);
        }
        *sent += 1;
        if *sent <= limit {
            return None;
        }
        let wait = WINDOW.saturating_sub(now.duration_since(*began)).as_secs().max(1);
        let mut answer = error(StatusCode::TOO_MANY_REQUESTS, "Too many requests.", "rate-limit-exceeded");
        answer.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(wait));
        Some(answer)
    }

    async fn resource(&self, request: Request<Incoming>) -> io::Result<Answer> {
        if let Some(helper) = Helper::of(request.uri().path()) {
            return helper.answer(request).await;
        }
        let (head, incoming) = request.into_parts();
        let parts = segments(head.uri.path());
        let family = matches!(parts.first(), Some(&("v1" | "v1beta5" | "v2" | "v2beta1")));
        Ok(match (&head.method, parts.get(1..).unwrap_or_default()) {
            _ if !family => not_found("No such API version."),
            (_, ["forbidden"]) => {
                error(StatusCode::FORBIDDEN, "This client lacks the permission.", "forbidden")
            }
            (&Method::GET, ["tenants"]) => data(&json!([{ "id": TENANT, "name": "Demo project" }])),
            (&Method::GET, ["instances"]) => {
                let list: Vec<Value> = instances().iter().map(summary).collect();
                data(&json!(list))
            }
            (&Method::GET, ["instances", id]) => match instances().iter().find(|known| known["id"] == **id) {
                Some(instance) => data(instance),
                None => not_found("No such instance."),
            },
            (&Method::POST, ["instances"]) => create(&body::read(incoming).await?),
            _ => not_found("No such resource."),
        })
    }
}

const TENANT: &str = "6e6bbbe2-5678-5f8a-1234-b1f62f08b98f";

fn instances() -> [Value; 2] {
    [("0a1b2c3d", "Production", "running"), ("4e5f6a7b", "Staging", "paused")].map(|(id, name, status)| {
        json!({
            "id": id, "name": name, "status": status, "tenant_id": TENANT, "cloud_provider": "gcp",
            "connection_url": format!("neo4j+s://{id}.databases.neo4j.io"), "region": "europe-west1",
            "type": "enterprise-db", "memory": "8GB",
        })
    })
}

/// The part of an instance that the list shows.
fn summary(instance: &Value) -> Value {
    ["id", "name", "tenant_id", "cloud_provider"].iter().map(|&key| (key, instance[key].clone())).collect()
}

fn create(wanted: &[u8]) -> Answer {
    match serde_json::from_slice::<Value>(wanted) {
        Ok(Value::Object(mut instance)) => {
            let id = random_text(8).to_lowercase();
            let url = format!("neo4j+s://{id}.databases.neo4j.io");
            instance.insert("id".to_owned(), id.into());
            instance.insert("connection_url".to_owned(), url.into());
            instance.insert("username".to_owned(), "neo4j".into());
            instance.insert("password".to_owned(), random_text(24).into());
            serve::json(StatusCode::ACCEPTED, &json!({ "data": instance }))
        }
        _ => error(StatusCode::BAD_REQUEST, "The body is not a JSON object.", "bad-request"),
    }
}

fn data(value: &Value) -> Answer {
    serve::json(StatusCode::OK, &json!({ "data": value }))
}

fn not_found(message: &str) -> Answer {
    error(StatusCode::NOT_FOUND, message, "not-found")
}

fn error(status: StatusCode, message: &str, reason: &str) -> Answer {
    serve::json(status, &json!({ "errors": [{ "message": message, "reason": reason }] }))
}
