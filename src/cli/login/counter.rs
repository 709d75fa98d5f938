//! Where a command logs in: at the running instance, or at a desk of its own.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, StatusCode, Uri};
use http_body_util::Full;
use serde::de::DeserializeOwned;
use serde_json::Value;
use url::Url;

use super::super::instance::{send, shown_token};
use super::super::{ConfigArg, Failure};
use crate::admin::ADMIN_TOKEN_HEADER;
use crate::app::vault_of;
use crate::clock::Clock;
use crate::config::{self, Config, Environment, LoadOptions, Source, StoreKind};
use crate::credential::{Vault, logins_of};
use crate::fetch::Answer;
use crate::guard::is_loopback;
use crate::login::{Begun, Desk, LoginError, Logout, Outcome, Return};
use crate::secret::Secret;
use crate::telemetry::chain;
use crate::tls::TlsFactory;

/// How long the instance may take to say that it is there.
const KNOCK: Duration = Duration::from_secs(2);
/// How long it may take for what asks an authorization server.
const PATIENCE: Duration = Duration::from_secs(120);

/// Where a command logs in and out.
pub(super) enum Counter {
    /// The running instance of this configuration.
    Instance {
        /// Its admin listener.
        address: SocketAddr,
        token: HeaderValue,
    },
    /// A desk in this process, on the same store.
    Own { desk: Arc<Desk>, vault: Arc<Vault> },
}

/// What is left when a command is done.
pub(super) struct Closed {
    /// Is a grant unsaved, and nobody left who has it?
    pub(super) is_lost: bool,
    /// Does an instance go on to look after it?
    pub(super) is_elsewhere: bool,
}

impl Counter {
    /// The running instance if one answers, else a desk of our own.
    pub(super) async fn find(
        arg: &ConfigArg,
        config: &Config,
        environment: &Environment,
    ) -> Result<Self, Failure> {
        let admin = &config.server.admin;
        if let Some(address) = admin.listen.filter(|address| address.port() != 0)
            && let Ok(answer) = send(address, request(Method::GET, "/livez", None)?, KNOCK).await
            && answer.status == StatusCode::OK
        {
            let token = shown_token(admin, address, config.secret_variables.clone(), environment).await;
            let token = token.map_err(|failure| match failure {
                Failure::Running(text) => Failure::Running(format!(
                    "something answers on {address}, where this configuration has its admin listener, but: {text}"
                )),
                other => other,
            })?;
            return Ok(Self::Instance { address, token });
        }
        // From here on the secrets are needed.
        let source = Source::find(arg.config.as_deref(), environment);
        let config = config::load(&source, environment, LoadOptions::default())
            .map_err(|report| Failure::Configuration(report.to_string()))?
            .config;
        if matches!(config.store.kind, StoreKind::Memory) {
            return Err(Failure::Configuration(
                "the store is memory and no instance of this configuration is running, so nothing would keep the \
                 login: run `sidekey run` first, or write [store] type = \"file\""
                    .to_owned(),
            ));
        }
        let clock = Clock::system();
        let vault = vault_of(&config, &clock).await?;
        let logins = logins_of(&config, &TlsFactory::default(), &clock)?;
        Ok(Self::Own { desk: Arc::new(Desk::new(logins, Arc::clone(&vault), clock)), vault })
    }

    pub(super) async fn begin(&self, credential: &str, account: &str, way: Return) -> Result<Begun, Failure> {
        let Self::Instance { .. } = self else {
            return self.desk()?.begin(credential, account, way).await.map_err(|error| failed(&error));
        };
        let paste = if way == Return::Paste { "true" } else { "false" };
        let path = target("/connect/", credential, "", &[("account", account), ("paste", paste)]);
        let told: Value = self.ask(Method::POST, &path, None).await?;
        let text = |name: &str| told[name].as_str();
        let link = match way {
            Return::Redirect => text("link").and_then(one_time_link),
            Return::Paste => text("authorization_url").and_then(web_address),
        };
        match (text("login"), link, told["expires_in"].as_u64()) {
            (Some(id), Some(link), Some(seconds)) => {
                Ok(Begun { id: id.into(), link, expires_in: Duration::from_secs(seconds) })
            }
            _ => Err(not_sidekey()),
        }
    }

    pub(super) async fn outcome(&self, credential: &str, id: &str) -> Result<Outcome, Failure> {
        match self {
            Self::Own { desk, .. } => {
                desk.outcome(credential, id).ok_or_else(|| failed(&LoginError::UnknownLogin))
            }
            Self::Instance { .. } => {
                self.ask(Method::GET, &target("/connect/", credential, "/outcome", &[("login", id)]), None)
                    .await
            }
        }
    }

    pub(super) async fn paste(
        &self,
        credential: &str,
        id: &str,
        pasted: &Secret,
    ) -> Result<Outcome, Failure> {
        match self {
            Self::Own { desk, .. } => desk.paste(id, pasted.expose()).await.map_err(|error| failed(&error)),
            Self::Instance { .. } => {
                let path = target("/connect/", credential, "/redirected", &[("login", id)]);
                self.ask(Method::POST, &path, Some(pasted)).await
            }
        }
    }

    /// Ends a login that nobody finished. If that fails, it expires.
    pub(super) async fn cancel(&self, credential: &str, id: &str) {
        match self {
            Self::Own { desk, .. } => {
                let _ = desk.cancel(credential, id);
            }
            Self::Instance { .. } => {
                let path = target("/connect/", credential, "/cancel", &[("login", id)]);
                let _ = self.ask::<Value>(Method::POST, &path, None).await;
            }
        }
    }

    pub(super) async fn log_out(&self, credential: &str, account: &str) -> Result<Logout, Failure> {
        match self {
            Self::Own { desk, .. } => desk.log_out(credential, account).await.map_err(|error| failed(&error)),
            Self::Instance { .. } => {
                self.ask(Method::POST, &target("/logout/", credential, "", &[("account", account)]), None)
                    .await
            }
        }
    }

    /// Sends the last page and saves what is unsaved.
    pub(super) async fn close(&self) -> Closed {
        match self {
            Self::Instance { .. } => Closed { is_lost: false, is_elsewhere: true },
            Self::Own { desk, vault } => {
                desk.close().await;
                vault.close().await;
                Closed { is_lost: vault.record().unsaved > 0, is_elsewhere: false }
            }
        }
    }

    fn desk(&self) -> Result<&Arc<Desk>, Failure> {
        match self {
            Self::Own { desk, .. } => Ok(desk),
            Self::Instance { .. } => Err(not_sidekey()),
        }
    }

    /// Asks the instance, and reads the JSON of its answer.
    async fn ask<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&Secret>,
    ) -> Result<T, Failure> {
        let Self::Instance { address, token } = self else { return Err(not_sidekey()) };
        let mut request = request(method, path, body)?;
        request.headers_mut().insert(ADMIN_TOKEN_HEADER, token.clone());
        let gone =
            |error| Failure::Running(format!("the instance on {address} does not answer: {}", chain(&error)));
        let answer = send(*address, request, PATIENCE).await.map_err(gone)?;
        if answer.status.is_success() {
            return serde_json::from_value(read(&answer)).map_err(|_| not_sidekey());
        }
        Err(Failure::Running(said(&answer)))
    }
}

fn request(method: Method, path: &str, body: Option<&Secret>) -> Result<Request<Full<Bytes>>, Failure> {
    let body = body.map(|body| body.clone().into_bytes()).unwrap_or_default();
    let mut request = Request::new(Full::new(body));
    *request.method_mut() = method;
    *request.uri_mut() = Uri::try_from(path)
        .map_err(|_| Failure::Configuration("the credential's name is no path".to_owned()))?;
    Ok(request)
}

/// `before` + credential + `after`, with a query.
fn target(before: &str, credential: &str, after: &str, query: &[(&str, &str)]) -> String {
    let query = form_urlencoded::Serializer::new(String::new()).extend_pairs(query).finish();
    format!("{before}{credential}{after}?{query}")
}

/// A one-time link, if it is nothing else: a browser is started with it, and whoever listens on the port may have
/// written an option of the browser's or another program's scheme.
fn one_time_link(text: &str) -> Option<Secret> {
    let url = Url::parse(text).ok()?;
    let is_here = url.host_str().is_some_and(|host| is_loopback(host.trim_matches(['[', ']'])));
    let is_bare = url.username().is_empty() && url.password().is_none();
    let is_link = url.scheme() == "http" && is_here && is_bare && url.path().starts_with("/connect/");
    is_link.then(|| Secret::new(url.as_str()))
}

/// An address that a person may be told to go to.
fn web_address(text: &str) -> Option<Secret> {
    let is_web = Url::parse(text).is_ok_and(|url| matches!(url.scheme(), "http" | "https"));
    (is_web && !text.chars().any(|c| c.is_control() || c.is_whitespace())).then(|| Secret::new(text))
}

/// The JSON of an answer, without what a terminal would obey; null where it is none.
fn read(answer: &Answer) -> Value {
    fn tame(value: &mut Value) {
        match value {
            Value::String(text) => *text = text.replace(char::is_control, " "),
            Value::Array(values) => values.iter_mut().for_each(tame),
            Value::Object(members) => members.values_mut().for_each(tame),
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }
    let mut told = serde_json::from_slice(&answer.body).unwrap_or_default();
    tame(&mut told);
    told
}

/// What the instance said of an error, for a person.
fn said(answer: &Answer) -> String {
    let told = read(answer);
    match told["message"].as_str() {
        Some(message) => format!("the running instance refuses: {message}"),
        None => format!("the running instance answers {}; is it of this version?", answer.status),
    }
}

fn failed(error: &LoginError) -> Failure {
    Failure::Running(chain(error))
}

fn not_sidekey() -> Failure {
    Failure::Running(
        "what the running instance answers makes no sense; is it a sidekey of this version?".to_owned(),
    )
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;

    use super::*;

    #[test]
    fn a_browser_is_started_with_a_one_time_link_and_nothing_else() {
        let links = [
            "http://127.0.0.1:7601/connect/neon?ticket=t",
            "http://localhost:3000/connect/route.neon?ticket=t",
            "http://[::1]:3000/connect/neon?ticket=t",
        ];
        for text in links {
            assert_eq!(one_time_link(text).as_ref().map(Secret::expose), Some(text));
        }
        let others = [
            "",
            "--gpu-launcher=/tmp/x",
            "-P http://localhost:3000/connect/neon",
            "file:///tmp/x.desktop",
            "vscode://x/connect/neon",
            "https://evil.example/connect/neon?ticket=t",
            "http://evil.example/connect/neon?ticket=t",
            "http://localhost@evil.example/connect/neon",
            "http://localhost:3000/elsewhere",
            "http://localhost:3000/connect/../elsewhere",
        ];
        for text in others {
            assert!(one_time_link(text).is_none(), "{text}");
        }
    }

    #[test]
    fn what_an_instance_says_cannot_move_the_cursor() {
        assert!(web_address("https://auth.example/auth?state=s").is_some());
        for text in ["https://auth.example/\u{1b}[2J", "https://auth.example/\nx", "javascript:1", "--x", ""]
        {
            assert!(web_address(text).is_none(), "{text:?}");
        }
        let body = Bytes::from_static(br#"{"message":"a\u001b[2Jb","error":"\u009bc"}"#);
        let answer = Answer { status: StatusCode::BAD_GATEWAY, headers: HeaderMap::new(), body };
        assert!(said(&answer).contains("a [2Jb"), "{}", said(&answer));
        assert_eq!(read(&answer)["error"], " c");
    }
}
