//! Token sources: the things that can fetch a token. Stateless; no caching, no retry.

use std::fmt;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderName;

use super::grant::Why;
use super::machine::Span;
use super::vault::VaultError;
use crate::clock::Clock;
use crate::config::Encoding;
use crate::header::{AuthHeader, IllegalCharacter};
use crate::oauth::answer::{self, AnswerError, Given};
use crate::oauth::{OAuthClient, OAuthError};
use crate::secret::reader::SecretReader;
use crate::secret::{CommandLine, SecretError, SecretSource};

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
    /// The authorization server gave no token.
    #[error(transparent)]
    OAuth(#[from] OAuthError),
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
    /// The grant cannot be had from the store, or not be changed there.
    #[error(transparent)]
    Vault(#[from] VaultError),
    /// Nothing but a login helps.
    #[error(
        "a login is needed: {why}; run: sidekey login {credential} --account {}",
        super::shell_word(account)
    )]
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
    /// The task that fetched is gone.
    #[error("the fetch was cut short")]
    Cut,
}

impl FetchError {
    /// Will asking again soon not help?
    pub fn is_permanent(&self) -> bool {
        match self {
            Self::OAuth(error) => error.is_permanent(),
            Self::Answer(error) => error.is_permanent(),
            Self::LoginRequired { .. } => true,
            // Files are watched: a mended one is noticed at once, whatever the pause.
            Self::Secret(error) => !matches!(error, SecretError::Command { .. }),
            Self::Header(_) => true,
            _ => false,
        }
    }

    /// How long the server asked to be left alone.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::OAuth(error) => error.retry_after(),
            Self::Answer(error) => error.retry_after(),
            Self::Uncertain { retry_in, source } => {
                let asked = source.as_ref().and_then(OAuthError::retry_after).unwrap_or_default();
                Some(asked.max(*retry_in))
            }
            _ => None,
        }
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
        self.secret.file().map(Path::to_owned).into_iter().collect()
    }
}

/// The client credentials grant (RFC 6749 §4.4) of one API client.
#[derive(Debug)]
pub struct ClientCredentialsSource {
    /// Asks for the client.
    pub client: OAuthClient,
    /// How the token stands in the header.
    pub encoding: Encoding,
}

impl TokenSource for ClientCredentialsSource {
    fn fetch(&self, _: Wish) -> Pin<Box<dyn Future<Output = Result<Fetched, FetchError>> + Send + '_>> {
        Box::pin(async { bearer(&self.client.client_credentials().await?.access?, self.encoding) })
    }

    fn watched_files(&self) -> Vec<PathBuf> {
        self.client.watched_files()
    }
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
            let output = self
                .reader
                .run(&self.command, self.timeout)
                .await
                .map_err(|reason| FetchError::Command { command: self.command.shown(), reason })?;
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
