//! What is asked of an authorization server, and what it answered.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use form_urlencoded::Serializer;
use http::HeaderValue;
use tokio_rustls::TlsConnector;

use super::answer::{self, AnswerError, Given};
use super::authentication::{ClientAuthentication, plain_forms};
use super::discovery::{Demands, Discovery};
use crate::clock::Clock;
use crate::config::{ApiClient, AuthorizationCode, AuthorizationServer, ClientCredentials, Endpoint};
use crate::fetch::{Answer, CallError, MayGo, post_form};
use crate::secret::reader::{EXEC_SECRET_TIMEOUT, SecretReader};
use crate::secret::{Secret, SecretSource};
use crate::tls::Connector;

pub use super::error::{OAuthError, Sent};

/// An authorization server, as the configuration or its metadata describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoints {
    /// Its issuer identifier; none: unknown.
    pub issuer: Option<String>,
    /// Where the browser logs in; empty with client credentials, which need no browser.
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
pub struct OAuthClient {
    server: Server,
    grant: Grant,
    authentication: ClientAuthentication,
    tls: Option<Connector>,
    reader: SecretReader,
    clock: Clock,
}

/// Where the server is.
#[derive(Debug)]
enum Server {
    /// At the token URL of the client credentials; ten thousand clients share it.
    TokenUrl(Arc<ClientCredentials>),
    Known(Arc<Endpoints>),
    Discovered(Box<Discovery>),
}

/// What is asked for.
#[derive(Debug)]
enum Grant {
    ClientCredentials(Arc<ClientCredentials>),
    Login(Arc<AuthorizationCode>),
}

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

/// A field of a form, and its value.
type Field<'a> = (&'a str, &'a str);

/// A request that is ready to be sent. Without `Debug`: it is all secret.
struct Ready {
    authorization: Option<HeaderValue>,
    form: String,
    /// What is secret in it, in every form in which it travels.
    secrets: Vec<Secret>,
}

impl OAuthClient {
    /// For a credential of type `client_credentials`. `tls`: none for a token endpoint in clear text.
    pub fn for_client_credentials(
        config: Arc<ClientCredentials>,
        client: Arc<ApiClient>,
        tls: Option<Connector>,
        reader: SecretReader,
        clock: Clock,
    ) -> Self {
        let (method, encoding) = (config.auth_method, config.basic_encoding);
        Self {
            server: Server::TokenUrl(Arc::clone(&config)),
            authentication: ClientAuthentication { client, method, encoding },
            grant: Grant::ClientCredentials(config),
            tls,
            reader,
            clock,
        }
    }

    /// For a login.
    pub fn for_login(
        config: Arc<AuthorizationCode>,
        tls: Connector,
        reader: SecretReader,
        clock: Clock,
    ) -> Self {
        let server = match &config.server {
            AuthorizationServer::Known { issuer, auth_url, token_url, revoke_url } => {
                Server::Known(Arc::new(Endpoints {
                    issuer: issuer.clone(),
                    auth_url: auth_url.clone(),
                    token: token_url.clone(),
                    revocation: revoke_url.clone(),
                    iss_required: false,
                }))
            }
            AuthorizationServer::Discovered { issuer } => {
                Server::Discovered(Box::new(Discovery::new(Demands {
                    issuer: issuer.clone(),
                    auth_method: config.auth_method,
                    allow_cleartext: config.allow_cleartext,
                    allow_link_local: config.allow_link_local,
                    egress: config.egress.clone(),
                    limit: config.fetch_timeout,
                })))
            }
        };
        let (client, method, encoding) = (config.client.clone(), config.auth_method, config.basic_encoding);
        Self {
            server,
            authentication: ClientAuthentication { client, method, encoding },
            grant: Grant::Login(config),
            tls: Some(tls),
            reader,
            clock,
        }
    }

    /// The server's endpoints; looked up at the first need, and anew after an hour.
    ///
    /// # Errors
    /// [`OAuthError::Discovery`] when the metadata is not to be had or says what is not acceptable.
    pub async fn endpoints(&self) -> Result<Arc<Endpoints>, OAuthError> {
        match &self.server {
            Server::TokenUrl(config) => Ok(Arc::new(Endpoints {
                issuer: None,
                auth_url: String::new(),
                token: config.token_url.clone(),
                revocation: None,
                iss_required: false,
            })),
            Server::Known(endpoints) => Ok(Arc::clone(endpoints)),
            Server::Discovered(discovery) => {
                let tls = self.tls.as_ref().ok_or(NO_TLS)?;
                Ok(discovery.endpoints(&tls.0, &self.clock).await?)
            }
        }
    }

    /// RFC 6749 §4.4.2.
    ///
    /// # Errors
    /// [`OAuthError`]: everything that is no token answer.
    pub async fn client_credentials(&self) -> Result<Granted, OAuthError> {
        let Grant::ClientCredentials(config) = &self.grant else {
            return Err(OAuthError::Setup("this credential is a login; it has no client credentials grant"));
        };
        let mut fields = vec![("grant_type", "client_credentials")];
        fields.extend(config.scope.as_deref().map(|scope| ("scope", scope)));
        fields.extend(config.audience.as_deref().map(|audience| ("audience", audience)));
        self.ask_for_token(&fields, &[], &|| true).await
    }

    /// RFC 6749 §4.1.3 with RFC 7636 §4.5.
    ///
    /// # Errors
    /// [`OAuthError`]: everything that is no token answer.
    pub async fn exchange(&self, code: &Secret, verifier: &Secret) -> Result<Granted, OAuthError> {
        let Grant::Login(config) = &self.grant else { return Err(NO_LOGIN) };
        let fields = [
            ("grant_type", "authorization_code"),
            ("code", code.expose()),
            ("redirect_uri", &config.redirect_uri.text),
            ("code_verifier", verifier.expose()),
        ];
        self.ask_for_token(&fields, &[code, verifier], &|| true).await
    }

    /// RFC 6749 §6. Presents the refresh token once, or not at all; [`OAuthError::sent`] tells which. `may_go` is asked
    /// immediately before it goes out.
    ///
    /// # Errors
    /// [`OAuthError`]: everything that is no token answer.
    pub async fn refresh(
        &self,
        refresh_token: &Secret,
        may_go: impl Fn() -> bool + Send + Sync,
    ) -> Result<Granted, OAuthError> {
        let Grant::Login(_) = &self.grant else { return Err(NO_LOGIN) };
        let fields = [("grant_type", "refresh_token"), ("refresh_token", refresh_token.expose())];
        self.ask_for_token(&fields, &[refresh_token], &may_go).await
    }

    /// RFC 7009. False: the server has no place to revoke at. A token that the server does not know counts as revoked
    /// (RFC 7009 §2.2).
    ///
    /// # Errors
    /// [`OAuthError`]: the grant may still be in force.
    pub async fn revoke(&self, refresh_token: &Secret) -> Result<bool, OAuthError> {
        let endpoints = self.endpoints().await?;
        let Some(place) = &endpoints.revocation else { return Ok(false) };
        let fields = [("token", refresh_token.expose()), ("token_type_hint", "refresh_token")];
        let ready = self.ready(&endpoints.token, &fields, &[refresh_token], &[]).await?;
        let (answer, secrets) = self.send(place, ready, &|| true).await?;
        let answer = answer.map_err(OAuthError::RevocationCall)?;
        let status = answer.status;
        if status.is_success() {
            return Ok(true);
        }
        Err(OAuthError::Revocation {
            status,
            error: answer::read_refusal(&answer, &secrets),
            retry_after: answer::retry_after(&answer.headers, self.clock.wall()),
        })
    }

    /// How long one call may take at most: with the look-up of the metadata, and the command that prints the secret.
    pub fn limit(&self) -> Duration {
        let look_up = match &self.server {
            Server::TokenUrl(_) | Server::Known(_) => Duration::ZERO,
            Server::Discovered(_) => self.fetch_timeout(),
        };
        let secret = match self.authentication.secret() {
            Some(SecretSource::Exec(_)) => EXEC_SECRET_TIMEOUT,
            _ => Duration::ZERO,
        };
        look_up + secret + self.fetch_timeout()
    }

    /// Files whose change means that the server may answer otherwise.
    pub fn watched_files(&self) -> Vec<PathBuf> {
        self.authentication.watched_files()
    }

    /// One token request. `secrets`: what of the fields is secret.
    async fn ask_for_token(
        &self,
        fields: &[Field<'_>],
        secrets: &[&Secret],
        may_go: MayGo<'_>,
    ) -> Result<Granted, OAuthError> {
        let endpoints = self.endpoints().await?;
        let ready = self.ready(&endpoints.token, fields, secrets, self.params()).await?;
        let (answer, secrets) = self.send(&endpoints.token, ready, may_go).await?;
        let answer = answer.map_err(OAuthError::Call)?;
        Ok(answer::read(&answer, self.clock.wall(), &secrets)?)
    }

    /// The form with the client's authentication and what the configuration adds.
    async fn ready(
        &self,
        token_endpoint: &Endpoint,
        fields: &[Field<'_>],
        secrets: &[&Secret],
        params: &[(String, String)],
    ) -> Result<Ready, OAuthError> {
        let proof = self.authentication.prove(token_endpoint, &self.reader, &self.clock).await?;
        let mut form = Serializer::new(String::new());
        form.extend_pairs(fields);
        form.extend_pairs(proof.fields.iter().map(|(name, value)| (*name, value.expose())));
        form.extend_pairs(params);
        let mut hidden = proof.secrets;
        hidden.extend(secrets.iter().copied().flat_map(plain_forms));
        Ok(Ready { authorization: proof.authorization, form: form.finish(), secrets: hidden })
    }

    /// The outer error: nothing was sent. Gives back what was secret in the request.
    async fn send(
        &self,
        endpoint: &Endpoint,
        ready: Ready,
        may_go: MayGo<'_>,
    ) -> Result<(Result<Answer, CallError>, Vec<Secret>), OAuthError> {
        let Ready { authorization, form, secrets } = ready;
        let tls = self.connector(endpoint)?;
        Ok((post_form(endpoint, tls, authorization, form, self.fetch_timeout(), may_go).await, secrets))
    }

    fn connector(&self, endpoint: &Endpoint) -> Result<Option<&TlsConnector>, OAuthError> {
        match (&self.tls, endpoint.origin.tls) {
            (_, false) => Ok(None),
            (Some(tls), true) => Ok(Some(&tls.0)),
            // Never in clear text instead.
            (None, true) => Err(NO_TLS),
        }
    }

    fn params(&self) -> &[(String, String)] {
        match &self.grant {
            Grant::ClientCredentials(config) => &config.params,
            Grant::Login(config) => &config.params,
        }
    }

    /// How long a request may take once all that it needs is there.
    pub fn fetch_timeout(&self) -> Duration {
        match &self.grant {
            Grant::ClientCredentials(config) => config.fetch_timeout,
            Grant::Login(config) => config.fetch_timeout,
        }
    }
}

const NO_TLS: OAuthError = OAuthError::Setup("TLS is not set up for an https:// endpoint");
const NO_LOGIN: OAuthError = OAuthError::Setup("this credential is not a login; it has no grant");
