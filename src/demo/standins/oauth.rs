//! A token endpoint for client credentials, and the ways in which it can be made to misbehave.

use std::future::pending;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderValue};
use http::{Method, Request, StatusCode};
use hyper::body::Incoming;
use serde_json::{Value, json};

use super::body;
use super::serve::{self, Answer, Exchange};
use super::tokens::Tokens;

/// How a token endpoint misbehaves. Takes effect with the next request.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Fault {
    /// It behaves.
    #[default]
    None,
    /// This status, with an OAuth error in the body.
    Status(u16),
    /// 200 and a page of HTML.
    Html,
    /// 200 and no body.
    EmptyOk,
    /// A token with a space inside.
    TokenWithSpace,
    /// A token with a line feed inside.
    TokenWithNewline,
    /// A good answer, padded to more than ten megabytes.
    TenMegabytes,
    /// The request is read and never answered.
    Silence,
    /// A good answer, one byte a second.
    Trickle,
    /// 307 to this URL.
    Redirect(String),
    /// 200 with an OAuth error in the body.
    ErrorIn200,
    /// `"expires_in": "3600"`.
    ExpiresInString,
    /// `"expires_in": 3600.5`.
    ExpiresInFloat,
    /// No `expires_in`.
    NoExpiresIn,
    /// `"token_type": "mac"`.
    TokenTypeMac,
    /// Every second request fails with 500, beginning with the second.
    FailHalf,
    /// 400: the same refresh token is being presented by somebody else.
    Concurrent,
    /// 429.
    RateLimited {
        /// What Retry-After says, in seconds.
        retry_after: u64,
    },
    /// The connection closes without an answer.
    Hangup,
}

/// Whose habits a token endpoint has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dialect {
    /// Raw id and secret in Basic; Aura's own statuses.
    Aura,
    /// RFC 6749: Basic raw or form-urlencoded, or the body; §5.2's statuses.
    Standard,
}

pub(super) struct TokenEndpoint {
    pub(super) dialect: Dialect,
    /// Id and secret of each client.
    pub(super) clients: Vec<(String, String)>,
    pub(super) tokens: Tokens,
    pub(super) lifetime: Duration,
    /// What `expires_in` says, if not the lifetime.
    pub(super) announced: Option<Duration>,
    switches: Mutex<Switches>,
    requests: AtomicU64,
}

#[derive(Default)]
struct Switches {
    fault: Fault,
    delay: Duration,
}

/// Why a request gets no token.
enum Refusal {
    Client,
    NoBody,
    BadBody,
    GrantType,
}

impl TokenEndpoint {
    pub(super) fn new(dialect: Dialect) -> Self {
        Self {
            dialect,
            clients: Vec::new(),
            tokens: Tokens::new(),
            lifetime: Duration::from_secs(3600),
            announced: None,
            switches: Mutex::default(),
            requests: AtomicU64::new(0),
        }
    }

    pub(super) fn set_fault(&self, fault: Fault) {
        self.switches(|switches| switches.fault = fault);
    }

    pub(super) fn set_delay(&self, delay: Duration) {
        self.switches(|switches| switches.delay = delay);
    }

    fn switches<T>(&self, with: impl FnOnce(&mut Switches) -> T) -> T {
        with(&mut self.switches.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) async fn answer(&self, request: Request<Incoming>, exchange: &Exchange) -> io::Result<Answer> {
        let turn = self.requests.fetch_add(1, Ordering::Relaxed);
        let (head, incoming) = request.into_parts();
        let form = body::read(incoming).await?;
        exchange.keep_body(&form);
        let (fault, delay) = self.switches(|switches| (switches.fault.clone(), switches.delay));
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        if let Some(answer) = instead(&fault, turn).await? {
            return Ok(answer);
        }
        if head.method != Method::POST {
            return Ok(oauth_error(StatusCode::METHOD_NOT_ALLOWED, "invalid_request", "Use POST."));
        }
        match self.client(&head.headers, &form) {
            Ok(client) => {
                let token = self.tokens.issue_to(&client, self.lifetime);
                let seconds = self.announced.unwrap_or(self.lifetime).as_secs();
                Ok(granted(&fault, grant(&token, seconds)))
            }
            Err(refusal) => Ok(self.refused(&refusal)),
        }
    }

    /// Who asks, if it may have a token.
    fn client(&self, headers: &HeaderMap, form: &Bytes) -> Result<String, Refusal> {
        let parameters: Vec<(String, String)> = form_urlencoded::parse(form).into_owned().collect();
        let parameter =
            |name: &str| parameters.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str());
        let (id, secret) = match (basic(headers), self.dialect) {
            (Some(basic), _) => basic,
            (None, Dialect::Standard) => {
                let id = parameter("client_id").ok_or(Refusal::Client)?;
                (id.to_owned(), parameter("client_secret").unwrap_or_default().to_owned())
            }
            (None, Dialect::Aura) => return Err(Refusal::Client),
        };
        let presented = match self.dialect {
            Dialect::Aura => vec![(id, secret)],
            // RFC 6749 §2.3.1 encodes both; many clients do not.
            Dialect::Standard => vec![(form_decoded(&id), form_decoded(&secret)), (id, secret)],
        };
        let known = presented.into_iter().find(|pair| self.clients.contains(pair));
        let (client, _) = known.ok_or(Refusal::Client)?;
        if form.is_empty() {
            return Err(Refusal::NoBody);
        }
        if !is_form(headers) {
            return Err(Refusal::BadBody);
        }
        match parameter("grant_type") {
            Some("client_credentials") => Ok(client),
            Some(_) => Err(Refusal::GrantType),
            None => Err(Refusal::BadBody),
        }
    }

    fn refused(&self, refusal: &Refusal) -> Answer {
        let aura = self.dialect == Dialect::Aura;
        let (status, error, description) = match refusal {
            Refusal::Client => {
                (401, "invalid_client", "The provided credentials are invalid, expired, or revoked.")
            }
            Refusal::NoBody if aura => (404, "invalid_request", "The request body is missing."),
            Refusal::BadBody if aura => (403, "invalid_request", "The request body is invalid."),
            Refusal::NoBody | Refusal::BadBody => (400, "invalid_request", "The request is invalid."),
            Refusal::GrantType => (400, "unsupported_grant_type", "Only client_credentials is supported."),
        };
        refusal_answer(status, error, description)
    }
}

/// What a fault answers without looking at the request.
pub(super) async fn instead(fault: &Fault, turn: u64) -> io::Result<Option<Answer>> {
    Ok(Some(match fault {
        Fault::Status(status) => oauth_error(status_code(*status), "server_error", "Told to fail."),
        Fault::Html => {
            serve::answer(StatusCode::OK, "text/html", body::full("<html><body>Sign in</body></html>"))
        }
        Fault::EmptyOk => serve::answer(StatusCode::OK, "application/json", body::full("")),
        Fault::Silence => pending().await,
        Fault::Redirect(to) => {
            let mut answer = serve::json(StatusCode::TEMPORARY_REDIRECT, &json!({}));
            let location = HeaderValue::from_str(to).map_err(io::Error::other)?;
            answer.headers_mut().insert(header::LOCATION, location);
            answer
        }
        Fault::ErrorIn200 => oauth_error(StatusCode::OK, "invalid_client", "An error under 200."),
        Fault::Concurrent => {
            let text = "multiple concurrent requests using the same token";
            oauth_error(StatusCode::BAD_REQUEST, "invalid_request", text)
        }
        Fault::FailHalf if turn % 2 == 1 => {
            oauth_error(StatusCode::INTERNAL_SERVER_ERROR, "server_error", "Every second request fails.")
        }
        Fault::RateLimited { retry_after } => {
            let mut answer = oauth_error(StatusCode::TOO_MANY_REQUESTS, "rate_limited", "Too many requests.");
            answer.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(*retry_after));
            answer
        }
        Fault::Hangup => return Err(io::ErrorKind::ConnectionAborted.into()),
        _ => return Ok(None),
    }))
}

/// The members of a token answer (RFC 6749 §5.1).
pub(super) fn grant(token: &str, seconds: u64) -> Value {
    json!({ "access_token": token, "expires_in": seconds, "token_type": "bearer" })
}

/// A token answer, distorted as the fault asks.
pub(super) fn granted(fault: &Fault, mut grant: Value) -> Answer {
    let seconds = grant["expires_in"].as_u64().unwrap_or_default();
    let token = grant["access_token"].as_str().unwrap_or_default().to_owned();
    let (start, end) = token.split_at(token.len() / 2);
    match fault {
        Fault::TokenWithSpace => grant["access_token"] = format!("{start} {end}").into(),
        Fault::TokenWithNewline => grant["access_token"] = format!("{start}\n{end}").into(),
        Fault::ExpiresInString => grant["expires_in"] = Value::from(seconds.to_string()),
        Fault::ExpiresInFloat => {
            // Exact up to 2^32 seconds, and no test waits longer.
            grant["expires_in"] = Value::from(f64::from(u32::try_from(seconds).unwrap_or(u32::MAX)) + 0.5);
        }
        Fault::NoExpiresIn => {
            grant.as_object_mut().map(|grant| grant.remove("expires_in"));
        }
        Fault::TokenTypeMac => grant["token_type"] = Value::from("mac"),
        _ => {}
    }
    let text = grant.to_string();
    let body = match fault {
        Fault::Trickle => body::trickle(text.into()),
        Fault::TenMegabytes => {
            let open = format!("{},\"padding\":\"", text.trim_end_matches('}'));
            body::padded(open.into(), 10 * 1024 * 1024, Bytes::from_static(b"\"}"))
        }
        _ => body::full(text),
    };
    let mut answer = serve::answer(StatusCode::OK, "application/json", body);
    answer.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}

/// An error of RFC 6749 §5.2; with 401 it says how to authenticate.
pub(super) fn refusal_answer(status: u16, error: &str, description: &str) -> Answer {
    let mut answer = oauth_error(status_code(status), error, description);
    if status == 401 {
        let scheme = HeaderValue::from_static("Basic realm=\"token\"");
        answer.headers_mut().insert(header::WWW_AUTHENTICATE, scheme);
    }
    answer
}

fn oauth_error(status: StatusCode, error: &str, description: &str) -> Answer {
    serve::json(status, &json!({ "error": error, "error_description": description }))
}

fn status_code(status: u16) -> StatusCode {
    StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

/// Does the body say that it is a form?
pub(super) fn is_form(headers: &HeaderMap) -> bool {
    let media_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("");
    let media_type = media_type.split(';').next().unwrap_or("").trim();
    media_type.eq_ignore_ascii_case("application/x-www-form-urlencoded")
}

/// The two halves of Basic, split at the first colon (RFC 7617 §2).
pub(super) fn basic(headers: &HeaderMap) -> Option<(String, String)> {
    let (scheme, encoded) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let text = String::from_utf8(STANDARD.decode(encoded.trim()).ok()?).ok()?;
    let (id, secret) = text.split_once(':')?;
    Some((id.to_owned(), secret.to_owned()))
}

/// A half of Basic as RFC 6749 §2.3.1 reads it.
pub(super) fn form_decoded(text: &str) -> String {
    // With an `=` in front the whole text is one value, whatever `=` it holds itself; `&` would end it.
    let pair = format!("={}", text.replace('&', "%26"));
    form_urlencoded::parse(pair.as_bytes()).map(|(_, value)| value.into_owned()).next().unwrap_or_default()
}
