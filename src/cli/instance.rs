//! `sidekey wait`, `stop` and `reload`: ask the running instance, which is found by the same configuration; for the other
//! commands, how to ask it.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use clap::ValueEnum;
use http::header::HOST;
use http::{HeaderValue, Method, Request, StatusCode};
use http_body_util::Full;
use serde_json::Value;

use super::{ConfigArg, Failure, load, runtime, say};
use crate::admin::{ADMIN_TOKEN_HEADER, read_token};
use crate::config::{Admin, Environment, LoadOptions, Upstream};
use crate::fetch::{self, Answer, CallError};
use crate::header::AuthHeader;
use crate::secret::reader::SecretReader;
use crate::telemetry::chain;

/// How long one question to the instance may take.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a reload may take: secrets may come from commands.
const RELOAD_TIMEOUT: Duration = Duration::from_secs(60);
/// How often `wait` asks.
const POLL: Duration = Duration::from_millis(100);
/// The most that an instance says of itself: some ten thousand accounts.
const MAX_ANSWER_BYTES: usize = 16 * 1024 * 1024;

/// What to wait for.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(super) enum WaitFor {
    /// The process works.
    Live,
    /// Every required credential has a token.
    Ready,
}

/// Returns when the instance is live or ready.
pub(super) fn wait(
    arg: &ConfigArg,
    environment: &Environment,
    what: WaitFor,
    timeout: Duration,
) -> Result<(), Failure> {
    let Found { admin, address, .. } = find(arg, environment)?;
    let path = match what {
        WaitFor::Live => "/livez",
        WaitFor::Ready => "/readyz",
    };
    runtime()?.block_on(async {
        let mut last = String::from("nothing was asked");
        let asked = async {
            loop {
                match ask(address, Method::GET, path, None).await {
                    Ok(answer) if answer.status == StatusCode::OK => return,
                    Ok(answer) => last = String::from_utf8_lossy(&answer.body).trim().replace('\n', "; "),
                    Err(error) => last = said(&admin, &error),
                }
                tokio::time::sleep(POLL).await;
            }
        };
        let in_time = tokio::time::timeout(timeout, asked).await;
        in_time.map_err(|_| Failure::Running(format!("not after {timeout:?}: {last}")))
    })
}

/// Asks the instance to stop.
pub(super) fn stop(arg: &ConfigArg, environment: &Environment) -> Result<(), Failure> {
    let Found { admin, address, hidden, .. } = find(arg, environment)?;
    runtime()?.block_on(async {
        let token = shown_token(&admin, address, hidden, environment).await?;
        let answer = ask(address, Method::POST, "/quitquitquit", Some(token))
            .await
            .map_err(|error| unreached(&admin, &error))?;
        if answer.status == StatusCode::ACCEPTED {
            say("stopping");
            return Ok(());
        }
        Err(Failure::Running(format!("refused: {}", String::from_utf8_lossy(&answer.body).trim())))
    })
}

/// Makes the instance take up its configuration as it is now.
pub(super) fn reload(arg: &ConfigArg, environment: &Environment) -> Result<(), Failure> {
    let Found { admin, address, hidden, .. } = find(arg, environment)?;
    runtime()?.block_on(async {
        let token = shown_token(&admin, address, hidden, environment).await?;
        let mut request = Request::new(Full::new(Bytes::new()));
        (*request.method_mut(), *request.uri_mut()) = (Method::POST, http::Uri::from_static("/reload"));
        request.headers_mut().insert(ADMIN_TOKEN_HEADER, token);
        let answer =
            send(address, request, RELOAD_TIMEOUT).await.map_err(|error| unreached(&admin, &error))?;
        let body: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        let reason = || body["message"].as_str().unwrap_or("it does not say why").to_owned();
        match answer.status {
            StatusCode::OK => {
                say("reloaded");
                Ok(())
            }
            StatusCode::UNPROCESSABLE_ENTITY => Err(Failure::Configuration(reason())),
            _ => Err(Failure::Running(format!("refused: {}", reason()))),
        }
    })
}

/// Where the running instance is asked.
pub(super) struct Found {
    pub(super) admin: Admin,
    pub(super) address: SocketAddr,
    /// Where the configuration comes from.
    pub(super) origin: String,
    /// Variables that a command which prints the admin token must not inherit.
    hidden: Vec<String>,
}

/// The admin listener of the configuration.
pub(super) fn find(arg: &ConfigArg, environment: &Environment) -> Result<Found, Failure> {
    let config = load(arg, environment, LoadOptions { check_secrets: false })?.config;
    let (admin, hidden, origin) = (config.server.admin, config.secret_variables, config.origin);
    match admin.listen {
        Some(address) => Ok(Found { admin, address, origin, hidden }),
        None => Err(Failure::Configuration(
            "server.admin is false in this configuration, so there is nothing to ask; write an address, as \
             \"127.0.0.1:7601\""
                .to_owned(),
        )),
    }
}

/// The admin token of the instance at `address`, as a header shows it.
pub(super) async fn shown_token(
    admin: &Admin,
    address: SocketAddr,
    hidden: Vec<String>,
    environment: &Environment,
) -> Result<HeaderValue, Failure> {
    let token = match &admin.token {
        Some(source) => SecretReader::new(hidden)
            .read(source)
            .await
            .map_err(|error| Failure::Configuration(chain(&error)))?,
        None => read_token(address, environment).map_err(|error| Failure::Running(chain(&error)))?,
    };
    let shown = AuthHeader::named(ADMIN_TOKEN_HEADER, &token)
        .map_err(|_| Failure::Configuration("the admin token is no header value".to_owned()))?;
    Ok(shown.value().clone())
}

/// Asks the instance at `address`.
pub(super) async fn ask(
    address: SocketAddr,
    method: Method,
    path: &'static str,
    token: Option<HeaderValue>,
) -> Result<Answer, CallError> {
    let mut request = Request::new(Full::new(Bytes::new()));
    *request.method_mut() = method;
    *request.uri_mut() = http::Uri::from_static(path);
    if let Some(token) = token {
        request.headers_mut().insert(ADMIN_TOKEN_HEADER, token);
    }
    send(address, request, ANSWER_TIMEOUT).await
}

/// Sends a request to the instance at `address`.
pub(super) async fn send(
    address: SocketAddr,
    mut request: Request<Full<Bytes>>,
    limit: Duration,
) -> Result<Answer, CallError> {
    let text = address.to_string();
    let host = HeaderValue::from_str(&text).unwrap_or_else(|_| HeaderValue::from_static("localhost"));
    request.headers_mut().insert(HOST, host.clone());
    let origin = Upstream {
        tls: false,
        host: address.ip().to_string(),
        port: address.port(),
        base_path: String::new(),
        host_header: host,
        via: None,
        allow_link_local: false,
    };
    fetch::ask(&origin, request, limit, MAX_ANSWER_BYTES).await
}

fn unreached(admin: &Admin, error: &CallError) -> Failure {
    Failure::Running(said(admin, error))
}

/// Why nobody answers.
pub(super) fn said(admin: &Admin, error: &CallError) -> String {
    let address = admin.listen.map(|address| address.to_string()).unwrap_or_default();
    format!("no instance of this configuration answers on {address}: {}", chain(error))
}
