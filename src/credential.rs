//! Credentials: the life of one token, in order: a [`source`] fetches it when its [`machine`] says so, the
//! [`keeper`] sees to that, the [`pool`] leases it to requests, and refusals come back to the machine.
//!
//! Knows nothing of HTTP serving. [`schedule`] is pure, [`header`] is the one place where a header
//! that authenticates is made.

pub mod header;
pub mod keeper;
pub mod lease;
pub mod machine;
pub mod pool;
pub mod record;
pub mod schedule;
pub mod source;
pub mod vault;

use std::sync::Arc;

use self::pool::CredentialSpec;
use self::source::{ClientCredentialsSource, ExecSource, StaticForm, StaticSource, TokenSource};
use crate::clock::Clock;
use crate::config::{AuthorizationCode, Config, Credential, CredentialKind, Strategy};
use crate::oauth::OAuthClient;
use crate::secret::SecretSource;
use crate::secret::reader::SecretReader;
use crate::store::{Key, Kind};
use crate::tls::{TlsError, TlsFactory};

pub use self::keeper::Keeper;
pub use self::lease::{Lease, LeaseError};
pub use self::machine::Certainty;
pub use self::pool::TokenPool;

/// A pool for the credentials of a configuration, and its keeper.
///
/// # Errors
/// [`TlsError`] when a `tls` table of a credential names files that cannot be used.
pub fn pool_of(
    config: &Config,
    tls: &TlsFactory,
    clock: &Clock,
) -> Result<(Arc<TokenPool>, Keeper), TlsError> {
    let reader = SecretReader::new(config.secret_variables.clone());
    let specs = config.credentials.iter().map(|credential| spec(credential, tls, clock, &reader));
    Ok(Keeper::with_pool(specs.collect::<Result<_, _>>()?, clock.clone()))
}

fn spec(
    credential: &Credential,
    tls: &TlsFactory,
    clock: &Clock,
    reader: &SecretReader,
) -> Result<CredentialSpec, TlsError> {
    let encoding = credential.encoding;
    let of_secret = |form, secret: &SecretSource| -> Arc<dyn TokenSource> {
        Arc::new(StaticSource { form, secret: secret.clone(), reader: reader.clone() })
    };
    let alone = |source| vec![(Arc::clone(&credential.name), source)];
    let mut strategy = Strategy::Failover;
    let accounts = match &credential.kind {
        CredentialKind::Basic { username, password } => {
            alone(of_secret(StaticForm::Basic { username: username.clone() }, password))
        }
        CredentialKind::Bearer { token } => alone(of_secret(StaticForm::Bearer(encoding), token)),
        CredentialKind::Header { name, value } => alone(of_secret(StaticForm::Header(name.clone()), value)),
        CredentialKind::Exec { command, timeout } => alone(Arc::new(ExecSource {
            command: command.clone(),
            timeout: *timeout,
            encoding,
            reader: reader.clone(),
            clock: clock.clone(),
        }) as Arc<dyn TokenSource>),
        CredentialKind::AuthorizationCode(_) => todo!(),
        CredentialKind::ClientCredentials(grant) => {
            strategy = grant.strategy;
            let tls = grant.token_url.origin.tls.then(|| tls.connector(&grant.tls)).transpose()?;
            let grant = Arc::new(grant.clone());
            let source = |client: &crate::config::ApiClient| -> Arc<dyn TokenSource> {
                let client = OAuthClient::for_client_credentials(
                    Arc::clone(&grant),
                    client.clone(),
                    tls.clone(),
                    reader.clone(),
                    clock.clone(),
                );
                Arc::new(ClientCredentialsSource { client, encoding })
            };
            grant.clients.iter().map(|client| (Arc::clone(&client.name), source(client))).collect()
        }
    };
    Ok(CredentialSpec {
        name: Arc::clone(&credential.name),
        accounts,
        strategy,
        required: credential.required,
        lease_timeout: credential.lease_timeout,
        lease_queue: credential.lease_queue,
        margin: credential.margin,
        idle_account: credential.idle_account,
    })
}

/// A credential that people log in to.
#[derive(Debug)]
pub struct LoginCredential {
    /// Its name in the configuration.
    pub name: Arc<str>,
    /// Its settings.
    pub config: Arc<AuthorizationCode>,
    /// Talks to its authorization server.
    pub client: Arc<OAuthClient>,
}

impl LoginCredential {
    /// Where an account's grant is kept.
    pub fn key(&self, account: &str) -> Key {
        Key {
            kind: Kind::Grant,
            credential: Arc::clone(&self.name),
            account: account.into(),
            issuer: self.config.issuer().into(),
        }
    }
}

/// The account of those who name none.
pub const DEFAULT_ACCOUNT: &str = "default";

/// The credentials of a configuration that people log in to, in its order.
///
/// # Errors
/// [`TlsError`] when a `tls` table of a credential names files that cannot be used.
pub fn logins_of(config: &Config, tls: &TlsFactory, clock: &Clock) -> Result<Vec<LoginCredential>, TlsError> {
    let reader = SecretReader::new(config.secret_variables.clone());
    let logins = config.credentials.iter().filter_map(|credential| match &credential.kind {
        CredentialKind::AuthorizationCode(login) => Some((credential, login)),
        _ => None,
    });
    logins
        .map(|(credential, login)| {
            let config = Arc::new(login.clone());
            let tls = tls.connector(&login.tls)?;
            let client = OAuthClient::for_login(Arc::clone(&config), tls, reader.clone(), clock.clone());
            Ok(LoginCredential { name: Arc::clone(&credential.name), config, client: Arc::new(client) })
        })
        .collect()
}
