//! A stand-in of the Neon API: projects and branches behind an API key, or behind a session cookie.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use http::header::{self, HeaderMap, HeaderValue};
use http::{Method, Request, StatusCode};
use hyper::body::Incoming;
use serde_json::{Map, Value, json};

use super::body;
use super::helpers::Helper;
use super::record::Record;
use super::serve::{self, Answer, Exchange, Served, Site, bearer, segments};
use super::tokens::{Check, Tokens, random_text};

const COOKIE: &str = "neon_session";

/// A running stand-in of Neon; dropping it stops it.
pub struct Neon {
    served: Served,
    site: Arc<NeonSite>,
}

/// What a [`Neon`] is to be.
pub struct NeonBuilder {
    site: NeonSite,
}

impl Neon {
    /// One that nobody has a key to.
    pub fn builder() -> NeonBuilder {
        NeonBuilder {
            site: NeonSite {
                keys: Vec::new(),
                tokens: Tokens::new(),
                sql: Vec::new(),
                session: random_text(40),
            },
        }
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.served.addr
    }

    /// The base URL of its API, `/api/v2` included.
    pub fn url(&self) -> String {
        format!("{}/api/v2", self.served.url())
    }

    /// What it received.
    pub fn record(&self) -> &Record {
        &self.served.record
    }

    /// Access tokens that it accepts beside its keys.
    pub fn tokens(&self) -> &Tokens {
        &self.site.tokens
    }

    /// The `name=value` of a session cookie: it lets a request in without a key, so a proxy must not pass it on.
    pub fn session_cookie(&self) -> String {
        format!("{COOKIE}={}", self.site.session)
    }
}

impl NeonBuilder {
    /// Accepts an API key.
    pub fn key(mut self, key: impl Into<String>) -> Self {
        self.site.keys.push(key.into());
        self
    }

    /// Accepts the valid tokens of a ledger, too.
    pub fn tokens(mut self, tokens: Tokens) -> Self {
        self.site.tokens = tokens;
        self
    }

    /// Answers `POST /sql` to those who send this `Neon-Connection-String`.
    pub fn connection_string(mut self, text: impl Into<String>) -> Self {
        self.site.sql.push(text.into());
        self
    }

    /// Starts it on a free loopback port. Fails if there is none. Needs a tokio runtime.
    pub async fn start(self) -> io::Result<Neon> {
        let site = Arc::new(self.site);
        Ok(Neon { served: Served::start(Arc::clone(&site)).await?, site })
    }
}

struct NeonSite {
    keys: Vec<String>,
    tokens: Tokens,
    /// Connection strings accepted at `/sql`.
    sql: Vec<String>,
    session: String,
}

impl Site for NeonSite {
    fn is_token_request(&self, _: &Request<Incoming>) -> bool {
        false
    }

    async fn answer(&self, request: Request<Incoming>, _: &Exchange) -> io::Result<Answer> {
        if request.method() == Method::POST && request.uri().path() == "/sql" {
            return self.query(request).await;
        }
        if !self.lets_in(request.headers()) {
            return Ok(error(
                StatusCode::UNAUTHORIZED,
                "",
                "authentication failed: no valid API key or session",
            ));
        }
        let mut answer = match Helper::of(request.uri().path()) {
            Some(helper) => helper.answer(request).await?,
            None => resource(request).await?,
        };
        let cookie = format!("{COOKIE}={}; Path=/; HttpOnly; SameSite=Lax", self.session);
        let cookie = HeaderValue::from_str(&cookie).map_err(io::Error::other)?;
        answer.headers_mut().insert(header::SET_COOKIE, cookie);
        Ok(answer)
    }
}

impl NeonSite {
    fn lets_in(&self, headers: &HeaderMap) -> bool {
        let by_key = bearer(headers).is_some_and(|token| {
            self.keys.iter().any(|key| key == token) || self.tokens.check(token) == Check::Valid
        });
        by_key || self.has_session(headers)
    }

    fn has_session(&self, headers: &HeaderMap) -> bool {
        let lines = headers.get_all(header::COOKIE).iter().filter_map(|line| line.to_str().ok());
        let mut pairs = lines.flat_map(|line| line.split(';')).filter_map(|pair| pair.trim().split_once('='));
        pairs.any(|(name, value)| name == COOKIE && value == self.session)
    }

    /// SQL over HTTP, for the serverless driver: every statement yields one row, `n = 1`.
    async fn query(&self, request: Request<Incoming>) -> io::Result<Answer> {
        let (head, incoming) = request.into_parts();
        body::read(incoming).await?;
        let presented = head.headers.get("neon-connection-string").and_then(|value| value.to_str().ok());
        if !presented.is_some_and(|text| self.sql.iter().any(|known| known == text)) {
            return Ok(error(StatusCode::BAD_REQUEST, "", "connection string is missing or invalid"));
        }
        let row_as_array = head.headers.get("neon-array-mode").is_some_and(|value| value == "true");
        let row = if row_as_array { json!(["1"]) } else { json!({ "n": "1" }) };
        let field = json!({ "name": "n", "dataTypeID": 23, "tableID": 0, "columnID": 0, "format": "text" });
        Ok(serve::json(
            StatusCode::OK,
            &json!({
                "command": "SELECT", "rowCount": 1, "fields": [field], "rows": [row], "rowAsArray": row_as_array,
            }),
        ))
    }
}

async fn resource(request: Request<Incoming>) -> io::Result<Answer> {
    let (head, incoming) = request.into_parts();
    let parts = segments(head.uri.path());
    let ["api", "v2", parts @ ..] = parts.as_slice() else {
        return Ok(not_found("no such endpoint"));
    };
    let post = head.method == Method::POST;
    if !post && head.method != Method::GET {
        return Ok(error(StatusCode::METHOD_NOT_ALLOWED, "METHOD_NOT_ALLOWED", "method not allowed"));
    }
    let changes = if post { body::read(incoming).await? } else { "{}".into() };
    let Ok(changes) = serde_json::from_slice::<Map<String, Value>>(&changes) else {
        return Ok(error(StatusCode::BAD_REQUEST, "INVALID_BODY", "the body is not a JSON object"));
    };
    let changed = |mut thing: Value, key: &str| {
        let wanted = changes.get(key).and_then(Value::as_object).into_iter().flatten();
        wanted.for_each(|(name, value)| thing[name] = value.clone());
        json!({ key: thing })
    };
    let (status, value) = match parts {
        ["projects"] if !post => (StatusCode::OK, json!({ "projects": PROJECTS.map(project) })),
        ["projects"] => (StatusCode::CREATED, changed(project(("new-sky-11223344", "New")), "project")),
        ["projects", id, rest @ ..] => match (PROJECTS.iter().find(|known| known.0 == *id), rest) {
            (None, _) => return Ok(not_found("project not found")),
            (Some(known), []) => (StatusCode::OK, changed(project(*known), "project")),
            (Some(known), ["branches"]) if !post => {
                (StatusCode::OK, json!({ "branches": [branch(known.0, "br-main-00000001", "main")] }))
            }
            (Some(known), ["branches"]) => {
                (StatusCode::CREATED, changed(branch(known.0, "br-new-00000002", "new"), "branch"))
            }
            _ => return Ok(not_found("no such endpoint")),
        },
        _ => return Ok(not_found("no such endpoint")),
    };
    Ok(serve::json(status, &value))
}

/// The id and the name of each project.
const PROJECTS: [(&str, &str); 2] =
    [("quiet-river-12345678", "Production"), ("late-cloud-87654321", "Staging")];

fn project((id, name): (&str, &str)) -> Value {
    json!({ "id": id, "name": name, "platform_id": "aws", "region_id": "aws-eu-central-1", "pg_version": 17 })
}

fn branch(project: &str, id: &str, name: &str) -> Value {
    json!({ "id": id, "project_id": project, "name": name, "current_state": "ready", "default": name == "main" })
}

fn not_found(message: &str) -> Answer {
    error(StatusCode::NOT_FOUND, "NOT_FOUND", message)
}

fn error(status: StatusCode, code: &str, message: &str) -> Answer {
    let id = random_text(32).to_lowercase();
    serve::json(status, &json!({ "request_id": id, "code": code, "message": message }))
}
