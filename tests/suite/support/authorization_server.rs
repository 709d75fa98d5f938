//! An authorization server that follows a rule, and an OAuth client for it.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::HeaderValue;
use sidekey::clock::Clock;
use sidekey::config::{
    ApiClient, AuthMethod, AuthorizationCode, AuthorizationServer, BasicEncoding, Endpoint, RedirectUri,
    TlsSettings, Upstream,
};
use sidekey::oauth::OAuthClient;
use sidekey::secret::reader::SecretReader;
use sidekey::secret::{Secret, SecretSource};
use sidekey::tls::{Connector, TlsFactory};
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;

use super::scripted::{Scripted, read_head, say};

pub(crate) const CLIENT_SECRET: &str = "canary/client+secret";
pub(crate) const REFRESH: &str = "canary/refresh+token";

/// A request as the server got it.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    head: String,
    pub(crate) form: Vec<(String, String)>,
}

impl Seen {
    pub(crate) fn line(&self) -> &str {
        self.head.lines().next().unwrap_or_default()
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.filter(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value).next()
    }

    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        let mut values = self.form.iter().filter(|(known, _)| known == name);
        let value = values.next().map(|(_, value)| value.as_str());
        assert!(values.next().is_none(), "{name} is there once");
        value
    }
}

/// What a server does with a request.
pub(crate) enum Reply {
    Bytes(String),
    Hangup,
    Silence,
}

/// A server that answers by a rule and keeps what it saw.
pub(crate) struct Server {
    pub(crate) scripted: Scripted,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Server {
    /// `rule` gets the path of each request.
    pub(crate) async fn start(rule: impl Fn(&str) -> Reply + Send + Sync + 'static) -> Self {
        let (seen, rule) = (Arc::new(Mutex::new(Vec::new())), Arc::new(rule));
        let keep = Arc::clone(&seen);
        let scripted = Scripted::start(move |_, mut stream| {
            let (keep, rule) = (Arc::clone(&keep), Arc::clone(&rule));
            async move {
                let request = read_request(&mut stream).await;
                let path = request.line().split(' ').nth(1).unwrap_or_default().to_owned();
                keep.lock().expect("no panic").push(request);
                match rule(&path) {
                    Reply::Bytes(text) => say(&mut stream, text).await,
                    Reply::Hangup => {}
                    Reply::Silence => std::future::pending().await,
                }
            }
        })
        .await;
        Self { scripted, seen }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.scripted.addr)
    }

    pub(crate) fn take(&self) -> Vec<Seen> {
        std::mem::take(&mut *self.seen.lock().expect("no panic"))
    }

    pub(crate) fn one(&self) -> Seen {
        let mut seen = self.take();
        assert_eq!(seen.len(), 1, "{seen:?}");
        seen.remove(0)
    }

    pub(crate) fn endpoint(&self, path: &str) -> Endpoint {
        let addr = self.scripted.addr;
        let origin = Upstream {
            tls: false,
            host: addr.ip().to_string(),
            port: addr.port(),
            base_path: String::new(),
            host_header: HeaderValue::from_str(&addr.to_string()).expect("an address"),
            via: None,
            allow_link_local: false,
        };
        Endpoint { origin, path_and_query: path.to_owned() }
    }

    /// A login whose endpoints are known.
    pub(crate) fn login(&self) -> AuthorizationCode {
        login(AuthorizationServer::Known {
            issuer: None,
            auth_url: format!("{}/auth", self.url()),
            token_url: self.endpoint("/token?tenant=1"),
            revoke_url: Some(self.endpoint("/revoke")),
        })
    }
}

async fn read_request(stream: &mut TcpStream) -> Seen {
    let head = read_head(stream).await;
    let mut seen = Seen { head, form: Vec::new() };
    let length = seen.header("content-length").map_or(0, |text| text.parse().expect("a length"));
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.expect("the whole form");
    seen.form = form_urlencoded::parse(&body).into_owned().collect();
    seen
}

pub(crate) fn reply(status: &str, body: &str) -> Reply {
    let length = body.len();
    Reply::Bytes(format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\nRetry-After: 7\r\n\r\n{body}"))
}

pub(crate) fn tokens() -> Reply {
    reply("200 OK", r#"{"access_token":"at","refresh_token":"next","expires_in":60,"scope":"a b"}"#)
}

pub(crate) fn login(server: AuthorizationServer) -> AuthorizationCode {
    AuthorizationCode {
        server,
        client: Arc::new(ApiClient {
            name: "c".into(),
            client_id: "my app".into(),
            client_secret: Some(SecretSource::Value(Secret::new(CLIENT_SECRET))),
            signing_key: None,
        }),
        auth_method: AuthMethod::Post,
        basic_encoding: BasicEncoding::Form,
        redirect_uri: RedirectUri {
            text: "http://127.0.0.1:7601/callback".into(),
            host: "127.0.0.1".into(),
            port: 7601,
            path: "/callback".into(),
        },
        scope: Some("openid offline".into()),
        params: vec![("resource".into(), "https://api.example".into())],
        auth_params: Vec::new(),
        tls: TlsSettings::default(),
        egress: Default::default(),
        allow_cleartext: false,
        allow_link_local: false,
        fetch_timeout: Duration::from_secs(10),
        login_timeout: Duration::from_secs(60),
    }
}

fn connector() -> Connector {
    TlsFactory::default().connector(&TlsSettings::default()).expect("TLS")
}

pub(crate) fn client(config: AuthorizationCode) -> OAuthClient {
    client_at(config, Clock::system())
}

pub(crate) fn client_at(config: AuthorizationCode, clock: Clock) -> OAuthClient {
    OAuthClient::for_login(Arc::new(config), connector(), SecretReader::new([]), clock)
}
