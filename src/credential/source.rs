//! Token sources: the things that can fetch a token. Stateless; no caching, no retry.

use std::fmt;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use form_urlencoded::{Serializer, byte_serialize};
use http::{HeaderName, HeaderValue};
use zeroize::Zeroizing;

use super::grant::Why;
use super::header::{AuthHeader, IllegalCharacter};
use super::machine::Span;
use crate::clock::Clock;
use crate::config::{ApiClient, AuthMethod, BasicEncoding, ClientCredentials, Encoding};
use crate::fetch::{CallError, post_form};
use crate::oauth::OAuthError;
use crate::oauth::answer::{self, AnswerError, Given};
use crate::secret::reader::SecretReader;
use crate::secret::{CommandLine, Secret, SecretError, SecretSource};
use crate::store::StoreError;
use crate::tls::Connector;

/// How often a static secret that a command prints is asked for again.
const EXEC_SECRET_REFRESH: Duration = Duration::from_secs(300);

/// What is wanted of a source.
#[derive(Debug, Clone, Default)]
pub struct Wish {
    /// What the pool has given out last: it is refused or about to expire, and any other will do. None: whatever is at
    /// hand. Only sources that share what they fetch look at it.
    pub unlike: Option<AuthHeader>,
}

/// The thing that can fetch a token.
pub trait TokenSource: fmt::Debug + Send + Sync {
    /// Fetches once. Bounded in time and size.
    fn fetch(&self, wish: Wish) -> Pin<Box<dyn Future<Output = Result<Fetched, FetchError>> + Send + '_>>;

    /// Files whose change means that another fetch may bring something else.
    fn watched_files(&self) -> Vec<PathBuf>;
}

/// What a source brings: the ready header, and how long it lasts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetched {
    /// The header to inject.
    pub header: AuthHeader,
    /// How long it lasts.
    pub span: Span,
}

/// Why a source brought nothing. For the log; holds no secret.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The secret itself cannot be read.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// The token endpoint gave no answer.
    #[error("the token endpoint gave no answer")]
    Call(#[from] CallError),
    /// The answer is not a token.
    #[error(transparent)]
    Answer(#[from] AnswerError),
    /// The secret is no header value.
    #[error("the secret cannot be sent")]
    Header(#[from] IllegalCharacter),
    /// The token command failed.
    #[error("the command {command:?} failed: {reason}")]
    Command {
        /// The program, without its arguments.
        command: String,
        /// What happened, without the command's own output.
        reason: String,
    },
    /// The store cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Nothing but a login helps.
    #[error("a login is needed: {why}; run: sidekey login {credential} --account {account}")]
    LoginRequired {
        /// The credential.
        credential: Arc<str>,
        /// Why.
        why: Why,
        /// The account.
        account: Arc<str>,
    },
    /// The refresh token may be used up or not.
    #[error("it is uncertain whether the refresh token was used up; one careful try follows")]
    Uncertain {
        /// Not before this has passed.
        retry_in: Duration,
        /// What happened, where it happened here.
        #[source]
        source: Option<OAuthError>,
    },
    /// What an authorization server said.
    #[error(transparent)]
    OAuth(#[from] OAuthError),
    /// The task that fetched is gone.
    #[error("the fetch was cut short")]
    Cut,
}

impl FetchError {
    /// Will asking again soon not help?
    pub fn is_permanent(&self) -> bool {
        match self {
            Self::Answer(error) => error.is_permanent(),
            Self::OAuth(error) => error.is_permanent(),
            Self::LoginRequired { .. } => true,
            // Files are watched: a mended one is noticed at once, whatever the pause.
            Self::Secret(error) => !matches!(error, SecretError::Command { .. }),
            Self::Header(_) => true,
            Self::Call(CallError::Dial(error)) => error.is_certificate(),
            _ => false,
        }
    }

    /// How long the server asked to be left alone.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Answer(error) => error.retry_after(),
            Self::OAuth(error) => error.retry_after(),
            Self::Uncertain { retry_in, source } => {
                let asked = source.as_ref().and_then(OAuthError::retry_after).unwrap_or_default();
                Some(asked.max(*retry_in))
            }
            _ => None,
        }
    }
}

fn file_of(source: &SecretSource) -> Option<PathBuf> {
    match source {
        SecretSource::File(path) => Some(path.clone()),
        SecretSource::Exec(_) | SecretSource::Env(_) | SecretSource::Value(_) => None,
    }
}

/// Credentials that change only when their secret does: `basic`, `bearer` and `header`.
#[derive(Debug)]
pub struct StaticSource {
    /// What to make of the secret.
    pub form: StaticForm,
    /// The secret.
    pub secret: SecretSource,
    /// Reads it.
    pub reader: SecretReader,
}

/// What a static secret becomes.
#[derive(Debug)]
pub enum StaticForm {
    /// The password of a user (RFC 7617).
    Basic {
        /// The user.
        username: String,
    },
    /// A bearer token (RFC 6750).
    Bearer(Encoding),
    /// The whole value of a header.
    Header(HeaderName),
}

impl TokenSource for StaticSource {
    fn fetch(&self, _: Wish) -> Pin<Box<dyn Future<Output = Result<Fetched, FetchError>> + Send + '_>> {
        Box::pin(async {
            let secret = self.reader.read(&self.secret).await?;
            let header = match &self.form {
                StaticForm::Basic { username } => AuthHeader::basic(username, &secret),
                StaticForm::Bearer(encoding) => AuthHeader::bearer(&secret, *encoding),
                StaticForm::Header(name) => AuthHeader::named(name.clone(), &secret),
            }?;
            let look_again = matches!(self.secret, SecretSource::Exec(_)).then_some(EXEC_SECRET_REFRESH);
            Ok(Fetched { header, span: Span { lifetime: None, look_again } })
        })
    }

    fn watched_files(&self) -> Vec<PathBuf> {
        file_of(&self.secret).into_iter().collect()
    }
}

/// The client credentials grant (RFC 6749 §4.4) of one API client.
#[derive(Debug)]
pub struct ClientCredentialsSource {
    /// The credential; its `clients` are not used here.
    pub grant: Arc<ClientCredentials>,
    /// The client that asks.
    pub client: ApiClient,
    /// How the token stands in the header.
    pub encoding: Encoding,
    /// TLS towards the token endpoint; none for clear text.
    pub tls: Option<Connector>,
    /// Reads the client secret.
    pub reader: SecretReader,
    /// For a JWT's own expiry.
    pub clock: Clock,
}

impl TokenSource for ClientCredentialsSource {
    fn fetch(&self, _: Wish) -> Pin<Box<dyn Future<Output = Result<Fetched, FetchError>> + Send + '_>> {
        Box::pin(async {
            let secret = match &self.client.client_secret {
                Some(source) => Some(self.reader.read(source).await?),
                None => None,
            };
            let (authorization, form) = self.request(secret.as_ref())?;
            let answer = post_form(
                &self.grant.token_url,
                self.tls.as_ref().map(|connector| &connector.0),
                authorization,
                form,
                self.grant.fetch_timeout,
            )
            .await?;
            let sent = secret.map(|secret| forms(&self.client.client_id, &secret)).unwrap_or_default();
            bearer(&answer::read(&answer, self.clock.wall(), &sent)?, self.encoding)
        })
    }

    fn watched_files(&self) -> Vec<PathBuf> {
        self.client.client_secret.as_ref().and_then(file_of).into_iter().collect()
    }
}

impl ClientCredentialsSource {
    /// The Authorization header and the form of a token request (RFC 6749 §2.3.1, §4.4.2).
    fn request(&self, secret: Option<&Secret>) -> Result<(Option<HeaderValue>, String), FetchError> {
        let grant = &self.grant;
        let id = &self.client.client_id;
        let mut form = Serializer::new(String::new());
        form.append_pair("grant_type", "client_credentials");
        if let Some(scope) = &grant.scope {
            form.append_pair("scope", scope);
        }
        if let Some(audience) = &grant.audience {
            form.append_pair("audience", audience);
        }
        let authorization = match (grant.auth_method, secret) {
            (AuthMethod::Basic, Some(secret)) => Some(match grant.basic_encoding {
                BasicEncoding::Raw => AuthHeader::basic(id, secret)?,
                BasicEncoding::Form => {
                    let encoded =
                        Zeroizing::new(byte_serialize(secret.expose().as_bytes()).collect::<String>());
                    let id: String = byte_serialize(id.as_bytes()).collect();
                    AuthHeader::basic(&id, &Secret::new(encoded.as_str()))?
                }
            }),
            (AuthMethod::Post, Some(secret)) => {
                form.append_pair("client_id", id).append_pair("client_secret", secret.expose());
                None
            }
            (AuthMethod::None | AuthMethod::PrivateKeyJwt, _) | (_, None) => {
                form.append_pair("client_id", id);
                None
            }
        };
        Ok((authorization.map(|header| header.value().clone()), form.finish()))
    }
}

/// The forms in which a client's secret travels: as it is, form-encoded, and within Basic.
fn forms(id: &str, secret: &Secret) -> Vec<Secret> {
    let encode = |text: &str| byte_serialize(text.as_bytes()).collect::<String>();
    let basic = |id: &str, secret: &Secret| {
        let plain = Zeroizing::new(format!("{id}:{}", secret.expose()));
        Secret::new(STANDARD.encode(plain.as_bytes()))
    };
    let encoded = Secret::new(encode(secret.expose()));
    vec![basic(id, secret), basic(&encode(id), &encoded), encoded, secret.clone()]
}

/// A command that prints a token as JSON.
#[derive(Debug)]
pub struct ExecSource {
    /// Program and arguments.
    pub command: CommandLine,
    /// How long it may run.
    pub timeout: Duration,
    /// How the token stands in the header.
    pub encoding: Encoding,
    /// Runs it.
    pub reader: SecretReader,
    /// For `expires_at` and a JWT's own expiry.
    pub clock: Clock,
}

impl TokenSource for ExecSource {
    fn fetch(&self, _: Wish) -> Pin<Box<dyn Future<Output = Result<Fetched, FetchError>> + Send + '_>> {
        Box::pin(async {
            let output =
                Zeroizing::new(self.reader.run(&self.command, self.timeout).await.map_err(|reason| {
                    FetchError::Command { command: self.command.program().to_owned(), reason }
                })?);
            bearer(&answer::read_command(&output, self.clock.wall())?, self.encoding)
        })
    }

    fn watched_files(&self) -> Vec<PathBuf> {
        // A helper that is replaced may print something else.
        Some(Path::new(self.command.program()))
            .filter(|path| path.is_absolute())
            .map(Path::to_owned)
            .into_iter()
            .collect()
    }
}

fn bearer(given: &Given, encoding: Encoding) -> Result<Fetched, FetchError> {
    let header = AuthHeader::bearer(&given.token, encoding)?;
    Ok(Fetched { header, span: Span { lifetime: Some(given.lifetime), look_again: None } })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Endpoint, Strategy, TlsSettings, Upstream};

    fn source(auth_method: AuthMethod, basic_encoding: BasicEncoding) -> ClientCredentialsSource {
        let client = ApiClient {
            name: "c".into(),
            client_id: "id with space".into(),
            client_secret: Some(SecretSource::Value(Secret::new("s:e%c+r£t"))),
            signing_key: None,
        };
        let origin = Upstream {
            tls: false,
            host: "127.0.0.1".into(),
            port: 1,
            base_path: String::new(),
            host_header: HeaderValue::from_static("127.0.0.1:1"),
        };
        let grant = ClientCredentials {
            token_url: Endpoint { origin, path_and_query: "/oauth/token".into() },
            clients: vec![client.clone()],
            strategy: Strategy::Failover,
            auth_method,
            basic_encoding,
            scope: Some("a b".into()),
            audience: Some("https://api".into()),
            params: Vec::new(),
            tls: TlsSettings::default(),
            fetch_timeout: Duration::from_secs(1),
        };
        ClientCredentialsSource {
            grant: Arc::new(grant),
            client,
            encoding: Encoding::Plain,
            tls: None,
            reader: SecretReader::new([]),
            clock: Clock::system(),
        }
    }

    #[test]
    fn client_authentication_follows_the_rfc_and_the_provider() {
        let secret = Secret::new("s:e%c+r£t");
        let common = "grant_type=client_credentials&scope=a+b&audience=https%3A%2F%2Fapi";
        let cases = [
            (AuthMethod::Basic, BasicEncoding::Raw, Some("id with space:s:e%c+r£t"), common.to_owned()),
            (
                AuthMethod::Basic,
                BasicEncoding::Form,
                Some("id+with+space:s%3Ae%25c%2Br%C2%A3t"),
                common.to_owned(),
            ),
            (
                AuthMethod::Post,
                BasicEncoding::Form,
                None,
                format!("{common}&client_id=id+with+space&client_secret=s%3Ae%25c%2Br%C2%A3t"),
            ),
            (AuthMethod::None, BasicEncoding::Form, None, format!("{common}&client_id=id+with+space")),
        ];
        for (method, encoding, basic, form) in cases {
            let (authorization, sent) = source(method, encoding).request(Some(&secret)).unwrap();
            let plain = authorization.map(|value| {
                let text = value.to_str().unwrap().strip_prefix("Basic ").unwrap().to_owned();
                let bytes = STANDARD.decode(text).unwrap();
                String::from_utf8(bytes).unwrap()
            });
            assert_eq!(plain.as_deref(), basic, "{method:?} {encoding:?}");
            assert_eq!(sent, form, "{method:?} {encoding:?}");
        }
    }

    #[tokio::test]
    async fn a_command_gives_a_token_and_inherits_no_hidden_variable() {
        let script = r#"printf '{"access_token":"t%s","expires_in":60}' "${PATH:+x}${HOME:+y}""#;
        let source = ExecSource {
            command: vec!["/bin/sh".to_owned(), "-c".to_owned(), script.to_owned()].into(),
            timeout: Duration::from_secs(5),
            encoding: Encoding::Plain,
            reader: SecretReader::new(["HOME".to_owned()]),
            clock: Clock::system(),
        };
        let fetched = source.fetch(Wish::default()).await.unwrap();
        assert_eq!(fetched.header.value(), "Bearer tx");
        assert_eq!(fetched.span.lifetime, Some(Duration::from_secs(60)));
    }
}
