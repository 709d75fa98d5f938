//! The small HTTPS client that talks to token endpoints: one request, one bounded answer, no redirects.

use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE, HOST, USER_AGENT};
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper_util::rt::TokioIo;
use tokio_rustls::TlsConnector;

use crate::config::{Endpoint, Upstream};
use crate::dial::{DialError, Stream, dial};
use crate::secret::Secret;

/// The most that an answer may hold, in bytes.
pub const MAX_ANSWER_BYTES: usize = 64 * 1024;

/// What an endpoint answered.
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// Its header.
    pub headers: HeaderMap,
    /// Its body, at most [`MAX_ANSWER_BYTES`]. May hold secrets: not in Debug.
    pub body: Bytes,
}

impl std::fmt::Debug for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Answer").field("status", &self.status).finish_non_exhaustive()
    }
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// Not reached.
    #[error(transparent)]
    Dial(#[from] DialError),
    /// Reached, but no HTTP answer came.
    #[error("the exchange broke off")]
    Broken(#[source] hyper::Error),
    /// The answer's body broke off.
    #[error("the answer broke off")]
    Body(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// It was not sent: when the connection was there at last, it might not go any more.
    #[error("connecting took so long that the request could not be sent any more")]
    Withheld,
    /// The answer is larger than any token answer is.
    #[error("the answer is larger than {0} bytes")]
    TooLarge(usize),
    /// Reached, but no whole answer came in time. The request may have arrived.
    #[error("no whole answer within {0:?}")]
    Timeout(Duration),
}

/// How long what has arrived may take to be read when the time is over.
const LAST_LOOK: Duration = Duration::from_millis(250);

/// Asked when the connection is there, immediately before a request goes out: may it still?
pub type MayGo<'a> = &'a (dyn Fn() -> bool + Send + Sync);

/// Posts a form to an endpoint and reads its answer, all within `limit`.
///
/// The connection is used once: token endpoints are asked about once an hour.
pub async fn post_form(
    endpoint: &Endpoint,
    tls: Option<&TlsConnector>,
    authorization: Option<HeaderValue>,
    form: Secret,
    limit: Duration,
    may_go: MayGo<'_>,
) -> Result<Answer, CallError> {
    let mut request = request_to(endpoint, form.into_bytes());
    *request.method_mut() = Method::POST;
    let headers = request.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"));
    if let Some(value) = authorization {
        headers.insert(http::header::AUTHORIZATION, value);
    }
    call_if(&endpoint.origin, tls, request, limit, MAX_ANSWER_BYTES, may_go).await
}

/// Gets a public document and reads the answer, all within `limit`.
pub async fn get(
    endpoint: &Endpoint,
    tls: Option<&TlsConnector>,
    limit: Duration,
) -> Result<Answer, CallError> {
    call(&endpoint.origin, tls, request_to(endpoint, Bytes::new()), limit).await
}

fn request_to(endpoint: &Endpoint, body: Bytes) -> Request<Full<Bytes>> {
    let mut request = Request::new(Full::new(body));
    // Checked when the configuration was loaded; a path that is not one gets the origin's own 404.
    *request.uri_mut() = endpoint.path_and_query.parse().unwrap_or_default();
    let headers = request.headers_mut();
    headers.insert(HOST, endpoint.origin.host_header.clone());
    headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
    headers.insert(USER_AGENT, HeaderValue::from_static(concat!("sidekey/", env!("CARGO_PKG_VERSION"))));
    request
}

/// Sends one request and reads its answer, all within `limit`.
pub async fn call(
    origin: &Upstream,
    tls: Option<&TlsConnector>,
    request: Request<Full<Bytes>>,
    limit: Duration,
) -> Result<Answer, CallError> {
    call_if(origin, tls, request, limit, MAX_ANSWER_BYTES, &|| true).await
}

/// The same in clear text for answers of up to `most` bytes: an instance may have much to say of itself.
pub async fn ask(
    origin: &Upstream,
    request: Request<Full<Bytes>>,
    limit: Duration,
    most: usize,
) -> Result<Answer, CallError> {
    call_if(origin, None, request, limit, most, &|| true).await
}

async fn call_if(
    origin: &Upstream,
    tls: Option<&TlsConnector>,
    request: Request<Full<Bytes>>,
    limit: Duration,
    most: usize,
    may_go: MayGo<'_>,
) -> Result<Answer, CallError> {
    let deadline = tokio::time::Instant::now() + limit;
    // Its own limit, so that a time-out tells whether anything was sent.
    let stream = dial(origin, tls, limit).await?;
    if !may_go() {
        return Err(CallError::Withheld);
    }
    let exchange = exchange(stream, request, most);
    tokio::pin!(exchange);
    if let Ok(done) = tokio::time::timeout_at(deadline, &mut exchange).await {
        return done;
    }
    // A process that was stopped finds its time over and its answer lying there. It may be a refresh token's successor:
    // it is read before it is given up.
    match tokio::time::timeout(LAST_LOOK, exchange).await {
        Ok(done) => done,
        Err(_) => Err(CallError::Timeout(limit)),
    }
}

async fn exchange(stream: Stream, request: Request<Full<Bytes>>, most: usize) -> Result<Answer, CallError> {
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(CallError::Broken)?;
    let answered = async {
        let response = sender.send_request(request).await.map_err(CallError::Broken)?;
        let (head, body) = response.into_parts();
        let body = Limited::new(body, most).collect().await.map_err(|error| {
            if error.is::<LengthLimitError>() { CallError::TooLarge(most) } else { CallError::Body(error) }
        })?;
        Ok(Answer { status: head.status, headers: head.headers, body: body.to_bytes() })
    };
    tokio::pin!(answered, connection);
    // Driven here rather than in a task of its own: dropped with the caller, nothing stays behind.
    tokio::select! {
        done = &mut answered => done,
        _ = &mut connection => answered.await,
    }
}
