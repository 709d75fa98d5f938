//! What is asked of an authorization server, and what it answered.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::answer::{AnswerError, Given};
use crate::clock::Clock;
use crate::config::{ApiClient, AuthorizationCode, ClientCredentials, Endpoint};
use crate::secret::Secret;
use crate::secret::reader::SecretReader;
use crate::tls::Connector;

/// An authorization server, as the configuration or its metadata describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoints {
    /// Its issuer identifier; none: unknown.
    pub issuer: Option<String>,
    /// Where the browser logs in.
    pub auth_url: String,
    /// Where tokens are asked for.
    pub token: Endpoint,
    /// Where grants are revoked; none: nowhere.
    pub revocation: Option<Endpoint>,
    /// Must a redirect back carry `iss` (RFC 9207 §3)?
    pub iss_required: bool,
}

/// One client of one authorization server.
#[derive(Debug)]
pub struct OAuthClient {}

/// What a token request yielded.
#[derive(Debug)]
pub struct Granted {
    /// The access token; an error where the answer is a success all the same and only the token is of no use.
    pub access: Result<Given, AnswerError>,
    /// A new refresh token; none: the old one stays.
    pub refresh_token: Option<Secret>,
    /// `scope`, where it is told; cleaned.
    pub scope: Option<String>,
}

/// Why an authorization server gave nothing. For the log; holds no secret.
#[derive(Debug, thiserror::Error)]
pub enum OAuthError {
    /// TODO
    #[error("todo")]
    Todo,
}

/// What a failed token request means for the refresh token that it presented.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sent {
    /// It surely was not presented.
    Not,
    /// It was presented and surely not used up; the server wants something else, or another time.
    Refused,
    /// It cannot be used any more: `invalid_grant`, `token_inactive`.
    Dead,
    /// Somebody else presented it at the same time ("multiple concurrent requests").
    Concurrent,
    /// It may have been used up or not: a time-out, a broken connection, a 5xx, an answer that cannot be read.
    Unknown,
}

impl OAuthClient {
    /// For a credential of type `client_credentials`. `tls`: none for a token endpoint in clear text.
    pub fn for_client_credentials(
        _config: Arc<ClientCredentials>,
        _client: ApiClient,
        _tls: Option<Connector>,
        _reader: SecretReader,
        _clock: Clock,
    ) -> Self {
        todo!()
    }

    /// For a login.
    pub fn for_login(
        _config: Arc<AuthorizationCode>,
        _tls: Connector,
        _reader: SecretReader,
        _clock: Clock,
    ) -> Self {
        todo!()
    }

    /// The server's endpoints; looked up at the first need, and anew after an hour.
    pub async fn endpoints(&self) -> Result<Arc<Endpoints>, OAuthError> {
        todo!()
    }

    /// RFC 6749 §4.4.2.
    pub async fn client_credentials(&self) -> Result<Granted, OAuthError> {
        todo!()
    }

    /// RFC 6749 §4.1.3 with RFC 7636 §4.5.
    pub async fn exchange(&self, _code: &Secret, _verifier: &Secret) -> Result<Granted, OAuthError> {
        todo!()
    }

    /// RFC 6749 §6.
    pub async fn refresh(&self, _refresh_token: &Secret) -> Result<Granted, OAuthError> {
        todo!()
    }

    /// RFC 7009. False: the server has no place to revoke at.
    pub async fn revoke(&self, _refresh_token: &Secret) -> Result<bool, OAuthError> {
        todo!()
    }

    /// How long one request may take.
    pub fn limit(&self) -> Duration {
        todo!()
    }

    /// Files whose change means that the server may answer otherwise.
    pub fn watched_files(&self) -> Vec<PathBuf> {
        todo!()
    }
}

impl OAuthError {
    /// What it means for the refresh token that was presented.
    pub fn sent(&self) -> Sent {
        todo!()
    }

    /// Will asking again soon not help?
    pub fn is_permanent(&self) -> bool {
        todo!()
    }

    /// How long the server asked to be left alone.
    pub fn retry_after(&self) -> Option<Duration> {
        todo!()
    }
}
