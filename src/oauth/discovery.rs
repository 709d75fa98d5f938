//! What an authorization server says of itself: its metadata (RFC 8414, OpenID Connect Discovery 1.0), read and judged.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwapOption;
use http::{HeaderValue, StatusCode};
use serde::Deserialize;
use tokio_rustls::TlsConnector;
use url::{Host, Url};

use super::answer::{clean, retry_after};
use super::client::Endpoints;
use super::error::{is_lasting, is_passing};
use crate::clock::{Clock, Moment};
use crate::config::{AuthMethod, Egress, Endpoint, Upstream, is_this_machine, reserved_unless};
use crate::fetch::{Answer, CallError, get};
use crate::telemetry::chain;

/// How long metadata is taken to be true.
const LIFETIME: Duration = Duration::from_secs(3600);
/// How long the old metadata stays in use after a renewal that failed.
const AFTER_FAILURE: Duration = Duration::from_secs(60);

/// Why a server's metadata is not to be had or not to be used. Holds no secret: metadata is public.
#[derive(Debug, thiserror::Error)]
pub enum DiscoveryError {
    /// No answer.
    #[error("the authorization server's metadata at {url} is not to be had")]
    Call {
        /// Where it should be.
        url: String,
        /// Why not.
        #[source]
        source: CallError,
    },
    /// Neither where RFC 8414 puts it nor where OpenID does.
    #[error(
        "{issuer} has no metadata: {url} answered {status}, as did its RFC 8414 place; correct `issuer`, or write auth_url and token_url in its place"
    )]
    Nowhere {
        /// The issuer.
        issuer: String,
        /// Where it was looked for last.
        url: String,
        /// What stood there.
        status: StatusCode,
    },
    /// Another status than success.
    #[error("the authorization server's metadata at {url} is not to be had: it answered {status}")]
    Status {
        /// Where it should be.
        url: String,
        /// What it answered.
        status: StatusCode,
        /// `Retry-After`.
        retry_after: Option<Duration>,
    },
    /// A redirect.
    #[error(
        "{url} redirects ({status}), which is never followed; write the issuer that the server has now, or auth_url and token_url"
    )]
    Redirect {
        /// Where it should be.
        url: String,
        /// What it answered.
        status: StatusCode,
    },
    /// Not a metadata document.
    #[error("{url} is no metadata of an authorization server: {problem}; is `issuer` right?")]
    Malformed {
        /// Where it is.
        url: String,
        /// What is wrong.
        problem: &'static str,
    },
    /// The metadata of somebody else (RFC 8414 §3.3).
    #[error(
        "{url} says that it is of the issuer {found:?}, the configuration says {expected:?}; they must be the same to the last character, a trailing slash included"
    )]
    WrongIssuer {
        /// Where it is.
        url: String,
        /// Its `issuer`, cut.
        found: String,
        /// The configured one.
        expected: String,
    },
    /// An endpoint that is not named.
    #[error("{url} names no {endpoint}; write auth_url and token_url in place of `issuer`")]
    Missing {
        /// Where it is.
        url: String,
        /// The member.
        endpoint: &'static str,
    },
    /// An endpoint that cannot be called.
    #[error("{url}: {endpoint} {problem}")]
    BadEndpoint {
        /// Where it is.
        url: String,
        /// The member.
        endpoint: &'static str,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// `code_challenge_methods_supported` without S256 (RFC 7636 §4.2).
    #[error("{url} says that the server does not take PKCE with S256, which every login needs")]
    NoPkce {
        /// Where it is.
        url: String,
    },
    /// `response_types_supported` without `code`.
    #[error("{url} says that the server does not give authorization codes (response type `code`)")]
    NoCode {
        /// Where it is.
        url: String,
    },
    /// `token_endpoint_auth_methods_supported` without the configured one.
    #[error(
        "the server does not take auth_method = {configured:?}; {url} offers {offered}; write the one that the client is registered with"
    )]
    AuthMethod {
        /// Where it is.
        url: String,
        /// As in the configuration.
        configured: &'static str,
        /// What the server takes, in the words of the configuration where it has some.
        offered: String,
    },
}

impl DiscoveryError {
    /// Will asking again soon not help?
    pub fn is_permanent(&self) -> bool {
        match self {
            Self::Call { source, .. } => is_lasting(source),
            Self::Status { status, .. } => status.is_client_error() && !is_passing(*status),
            _ => true,
        }
    }

    /// How long the server asked to be left alone.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Status { retry_after, .. } => *retry_after,
            _ => None,
        }
    }
}

/// What the configuration demands of a server's metadata.
#[derive(Debug)]
pub(super) struct Demands {
    pub(super) issuer: String,
    pub(super) auth_method: AuthMethod,
    pub(super) allow_cleartext: bool,
    pub(super) allow_link_local: bool,
    /// The way to whatever the metadata names.
    pub(super) egress: Egress,
    /// How long one look-up may take.
    pub(super) limit: Duration,
}

/// The metadata of one server, looked up at need.
#[derive(Debug)]
pub(super) struct Discovery {
    demands: Demands,
    held: ArcSwapOption<Held>,
}

#[derive(Debug)]
struct Held {
    endpoints: Arc<Endpoints>,
    until: Moment,
}

impl Discovery {
    pub(super) fn new(demands: Demands) -> Self {
        Self { demands, held: ArcSwapOption::empty() }
    }

    /// What is held, or looked up now. When a renewal fails, the old one stays in use.
    pub(super) async fn endpoints(
        &self,
        tls: &TlsConnector,
        clock: &Clock,
    ) -> Result<Arc<Endpoints>, DiscoveryError> {
        let held = self.held.load_full();
        if let Some(held) = held.as_ref().filter(|held| clock.now() < held.until) {
            return Ok(Arc::clone(&held.endpoints));
        }
        let (endpoints, span) = match (look_up(&self.demands, tls, clock).await, held) {
            (Ok(endpoints), _) => (Arc::new(endpoints), LIFETIME),
            (Err(error), Some(held)) => {
                tracing::warn!(
                    issuer = self.demands.issuer,
                    "the old metadata stays in use: {}",
                    chain(&error)
                );
                (Arc::clone(&held.endpoints), AFTER_FAILURE)
            }
            (Err(error), None) => return Err(error),
        };
        let until = clock.now() + span;
        self.held.store(Some(Arc::new(Held { endpoints: Arc::clone(&endpoints), until })));
        Ok(endpoints)
    }
}

async fn look_up(demands: &Demands, tls: &TlsConnector, clock: &Clock) -> Result<Endpoints, DiscoveryError> {
    let url = demands.issuer.clone();
    let issuer = endpoint(&demands.issuer, demands).map_err(|problem| DiscoveryError::BadEndpoint {
        url,
        endpoint: "issuer",
        problem,
    })?;
    let deadline = tokio::time::Instant::now() + demands.limit;
    let [first, second] = places(&issuer);
    let answer = ask(&first, tls, deadline, demands.limit).await?;
    if !answer.status.is_client_error() || is_passing(answer.status) {
        return judge(&first, &answer, demands, clock.wall());
    }
    let answer = ask(&second, tls, deadline, demands.limit).await?;
    if answer.status.is_client_error() && !is_passing(answer.status) {
        let (issuer, url) = (demands.issuer.clone(), second.to_string());
        return Err(DiscoveryError::Nowhere { issuer, url, status: answer.status });
    }
    judge(&second, &answer, demands, clock.wall())
}

async fn ask(
    place: &Endpoint,
    tls: &TlsConnector,
    deadline: tokio::time::Instant,
    limit: Duration,
) -> Result<Answer, DiscoveryError> {
    let asked = get(place, place.origin.tls.then_some(tls), limit);
    let answer = tokio::time::timeout_at(deadline, asked).await.unwrap_or(Err(CallError::Timeout(limit)));
    answer.map_err(|source| DiscoveryError::Call { url: place.to_string(), source })
}

/// Where metadata may be: RFC 8414 §3.1 puts the well-known part before the issuer's path, OpenID behind it.
fn places(issuer: &Endpoint) -> [Endpoint; 2] {
    let path = issuer.path_and_query.trim_end_matches('/');
    let at = |path_and_query| Endpoint { origin: issuer.origin.clone(), path_and_query };
    [
        at(format!("/.well-known/oauth-authorization-server{path}")),
        at(format!("{path}/.well-known/openid-configuration")),
    ]
}

/// The members that matter (RFC 8414 §2, RFC 9207 §3).
#[derive(Deserialize)]
struct Metadata {
    issuer: Option<String>,
    authorization_endpoint: Option<String>,
    token_endpoint: Option<String>,
    revocation_endpoint: Option<String>,
    response_types_supported: Option<Vec<String>>,
    code_challenge_methods_supported: Option<Vec<String>>,
    token_endpoint_auth_methods_supported: Option<Vec<String>>,
    authorization_response_iss_parameter_supported: Option<bool>,
}

/// What an answer says, if it is what the configuration demands.
fn judge(
    place: &Endpoint,
    answer: &Answer,
    demands: &Demands,
    now: SystemTime,
) -> Result<Endpoints, DiscoveryError> {
    let url = place.to_string();
    let status = answer.status;
    if status.is_redirection() {
        return Err(DiscoveryError::Redirect { url, status });
    }
    if !status.is_success() {
        return Err(DiscoveryError::Status { url, status, retry_after: retry_after(&answer.headers, now) });
    }
    let Ok(metadata) = serde_json::from_slice::<Metadata>(&answer.body) else {
        let is_json = serde_json::from_slice::<serde_json::Value>(&answer.body).is_ok();
        let problem = if is_json { "a member is of the wrong type" } else { "it is not JSON" };
        return Err(DiscoveryError::Malformed { url, problem });
    };
    let Some(issuer) = metadata.issuer else {
        return Err(DiscoveryError::Malformed { url, problem: "it names no issuer" });
    };
    if issuer != demands.issuer {
        let (found, expected) = (clean(&issuer, &[]), demands.issuer.clone());
        return Err(DiscoveryError::WrongIssuer { url, found, expected });
    }
    let read = |text: Option<String>, name| match text {
        None => Ok(None),
        Some(text) => match endpoint(&text, demands) {
            // A distant server may not choose a local port, where anybody may listen.
            Ok(endpoint) if place.origin.tls && !endpoint.origin.tls && !demands.allow_cleartext => {
                let problem = "is http://, though the issuer is https://; the server must name https://";
                Err(DiscoveryError::BadEndpoint { url: url.clone(), endpoint: name, problem })
            }
            Ok(endpoint) => Ok(Some((text, endpoint))),
            Err(problem) => Err(DiscoveryError::BadEndpoint { url: url.clone(), endpoint: name, problem }),
        },
    };
    let needed = |text, name| {
        let missing = || DiscoveryError::Missing { url: url.clone(), endpoint: name };
        read(text, name)?.ok_or_else(missing)
    };
    let (auth_url, _) = needed(metadata.authorization_endpoint, "authorization_endpoint")?;
    let (_, token) = needed(metadata.token_endpoint, "token_endpoint")?;
    let revocation = read(metadata.revocation_endpoint, "revocation_endpoint")?.map(|(_, endpoint)| endpoint);
    let lacks = |offered: &Option<Vec<String>>, wanted: &str| {
        offered.as_ref().is_some_and(|offered| !offered.iter().any(|one| one == wanted))
    };
    if lacks(&metadata.code_challenge_methods_supported, "S256") {
        return Err(DiscoveryError::NoPkce { url });
    }
    if lacks(&metadata.response_types_supported, "code") {
        return Err(DiscoveryError::NoCode { url });
    }
    let (registered, configured) = names_of(demands.auth_method);
    let methods = &metadata.token_endpoint_auth_methods_supported;
    if lacks(methods, registered) {
        let offered = offered(methods.as_deref().unwrap_or_default());
        return Err(DiscoveryError::AuthMethod { url, configured, offered });
    }
    let iss_required = metadata.authorization_response_iss_parameter_supported.unwrap_or(false);
    Ok(Endpoints { issuer: Some(issuer), auth_url, token, revocation, iss_required })
}

const METHODS: [AuthMethod; 4] =
    [AuthMethod::Basic, AuthMethod::Post, AuthMethod::None, AuthMethod::PrivateKeyJwt];

/// What a method is called in metadata, and in the configuration.
fn names_of(method: AuthMethod) -> (&'static str, &'static str) {
    match method {
        AuthMethod::Basic => ("client_secret_basic", "basic"),
        AuthMethod::Post => ("client_secret_post", "post"),
        AuthMethod::None => ("none", "none"),
        AuthMethod::PrivateKeyJwt => ("private_key_jwt", "private_key_jwt"),
    }
}

fn offered(methods: &[String]) -> String {
    let ours = METHODS.map(names_of);
    let word = |method: &String| {
        let known = ours.iter().find(|(registered, _)| registered == method);
        known.map_or_else(|| clean(method, &[]), |(_, configured)| format!("{configured:?}"))
    };
    match methods {
        [] => "none at all".to_owned(),
        // More than a handful is no honest list.
        some => some.iter().take(8).map(word).collect::<Vec<_>>().join(", "),
    }
}

/// An absolute URL that may be called, or what is wrong with it.
fn endpoint(text: &str, demands: &Demands) -> Result<Endpoint, &'static str> {
    let url = Url::parse(text).map_err(|_| "is not an absolute URL")?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err("is not an https:// URL");
    }
    if text.chars().any(|c| c.is_control() || c.is_whitespace() || c == '\\') {
        return Err("holds a space, a backslash or a control character");
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("holds a user name or password");
    }
    if url.fragment().is_some() {
        return Err("has a fragment");
    }
    let tls = url.scheme() == "https";
    let (host, in_header) = match url.host().ok_or("has no host")? {
        Host::Domain(name) => {
            let name = name.strip_suffix('.').unwrap_or(name).to_owned();
            (name.clone(), name)
        }
        Host::Ipv4(address) => (address.to_string(), address.to_string()),
        Host::Ipv6(address) => (address.to_string(), format!("[{address}]")),
    };
    if !tls && !demands.allow_cleartext && !is_this_machine(&host) {
        return Err(
            "is http://, in clear text over the network; the server must name https:// (or, knowingly, \
                    write allow_cleartext = true)",
        );
    }
    if host.parse().is_ok_and(|address| reserved_unless(address, demands.allow_link_local).is_some()) {
        return Err(
            "is a link-local address, one of a metadata service or no machine's; the server must name its own",
        );
    }
    let port =
        url.port_or_known_default().filter(|port| *port != 0).ok_or("has no port that can be called")?;
    let host_header = match url.port() {
        Some(port) => format!("{in_header}:{port}"),
        None => in_header,
    };
    let host_header = HeaderValue::try_from(host_header).map_err(|_| "has no host name that can be sent")?;
    let path_and_query = match url.query() {
        Some(query) => format!("{}?{query}", url.path()),
        None => url.path().to_owned(),
    };
    let allow_link_local = demands.allow_link_local;
    let base_path = String::new();
    let mut origin = Upstream { tls, host, port, base_path, host_header, via: None, allow_link_local };
    origin.via = demands.egress.way_to(&origin);
    Ok(Endpoint { origin, path_and_query })
}

#[cfg(test)]
mod tests;
