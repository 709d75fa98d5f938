//! Credentials: the life of one token, in order: a [`source`] fetches it when its [`machine`] says so, the
//! [`keeper`] sees to that, the [`pool`] leases it to requests, and refusals come back to the machine.
//!
//! What people log in to is a [`grant`] in the [`vault`]; its tokens come by [`rotation`]. Knows nothing of HTTP
//! serving. [`schedule`] and [`grant`] are pure.

mod account;
pub mod claim;
pub mod force;
pub mod grant;
pub mod keeper;
pub mod lease;
pub mod machine;
pub mod pool;
pub mod record;
pub mod roster;
pub mod rotation;
pub mod schedule;
pub mod sharing;
pub mod source;
pub mod tally;
pub mod vault;

use std::borrow::Cow;
use std::sync::Arc;

use aws_lc_rs::digest;

use self::pool::CredentialSpec;
use self::roster::{Directory, Grants};
use self::sharing::SharedSource;
use self::source::{ClientCredentialsSource, ExecSource, StaticForm, StaticSource, TokenSource};
use crate::clock::Clock;
use crate::config::{
    ApiClient, AuthorizationCode, ClientCredentials, Config, Credential, CredentialId, CredentialKind,
    Encoding, StoreKind, Strategy,
};
use crate::oauth::OAuthClient;
use crate::secret::SecretSource;
use crate::secret::fingerprint::Fingerprint;
use crate::secret::reader::SecretReader;
use crate::store::{Key, Kind};
use crate::tls::{TlsError, TlsFactory};

pub use self::claim::Claim;
pub use self::force::{Credentials, InForce, Keepers};
pub use self::keeper::Keeper;
pub use self::lease::{Lease, LeaseError};
pub use self::machine::Certainty;
pub use self::pool::TokenPool;
pub use self::vault::Vault;

/// What credentials are made of.
struct Parts<'a> {
    config: &'a Config,
    tls: &'a TlsFactory,
    clock: &'a Clock,
    vault: &'a Arc<Vault>,
    reader: SecretReader,
}

impl Parts<'_> {
    fn spec(&self, id: CredentialId) -> Result<(CredentialSpec, Option<Arc<Grants>>), TlsError> {
        let credential = &self.config.credentials[id];
        let CredentialKind::AuthorizationCode(login) = &credential.kind else {
            // Replicas on one machine are few; replicas on one server are what it is for.
            let remote = matches!(self.config.store.kind, StoreKind::Redis(_));
            let shared_by = remote.then_some(self.vault);
            return Ok((spec(credential, self.tls, self.clock, &self.reader, shared_by)?, None));
        };
        let grants = Arc::new(Grants {
            login: login_credential(credential, login, self.tls, self.clock, &self.reader)?,
            vault: Arc::clone(self.vault),
            encoding: credential.encoding,
            clock: self.clock.clone(),
        });
        let accounts = self.named_accounts(id).into_iter().map(|name| {
            let source = grants.source(&name);
            (name, source)
        });
        let spec = CredentialSpec {
            logins: Some(Arc::clone(&grants) as Arc<dyn Directory>),
            ..spec_of(credential, accounts.collect(), Strategy::Failover)
        };
        Ok((spec, Some(grants)))
    }

    /// The accounts of a login that the configuration itself tells of.
    fn named_accounts(&self, id: CredentialId) -> Vec<Arc<str>> {
        let chosen_by_callers = self.config.credentials[id].account_header.is_some();
        let routes = self.config.routes.iter().filter(|route| route.credential == Some(id));
        let mut names: Vec<Arc<str>> = Vec::new();
        for route in routes {
            let name = match &route.account {
                Some(name) => Arc::clone(name),
                None if chosen_by_callers => continue,
                None => DEFAULT_ACCOUNT.into(),
            };
            if !names.contains(&name) {
                names.push(name);
            }
        }
        names
    }
}

fn spec(
    credential: &Credential,
    tls: &TlsFactory,
    clock: &Clock,
    reader: &SecretReader,
    shared_by: Option<&Arc<Vault>>,
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
        // Its accounts are those who log in.
        CredentialKind::AuthorizationCode(_) => Vec::new(),
        CredentialKind::ClientCredentials(grant) => {
            strategy = grant.strategy;
            let tls = grant.token_url.origin.tls.then(|| tls.connector(&grant.tls)).transpose()?;
            let grant = Arc::new(grant.clone());
            let source = |client: &Arc<ApiClient>| -> Arc<dyn TokenSource> {
                let client = OAuthClient::for_client_credentials(
                    Arc::clone(&grant),
                    Arc::clone(client),
                    tls.clone(),
                    reader.clone(),
                    clock.clone(),
                );
                Arc::new(ClientCredentialsSource { client, encoding })
            };
            let shared = |client: &Arc<ApiClient>| match shared_by {
                None => source(client),
                Some(vault) => Arc::new(SharedSource {
                    inner: source(client),
                    key: token_key(credential, &grant, client),
                    vault: Arc::clone(vault),
                    limit: grant.fetch_timeout,
                    clock: clock.clone(),
                }),
            };
            grant.clients.iter().map(|client| (Arc::clone(&client.name), shared(client))).collect()
        }
    };
    Ok(spec_of(credential, accounts, strategy))
}

fn spec_of(
    credential: &Credential,
    accounts: Vec<(Arc<str>, Arc<dyn TokenSource>)>,
    strategy: Strategy,
) -> CredentialSpec {
    CredentialSpec {
        name: Arc::clone(&credential.name),
        accounts,
        strategy,
        logins: None,
        required: credential.required,
        lease_timeout: credential.lease_timeout,
        lease_queue: credential.lease_queue,
        margin: credential.margin,
        idle_account: credential.idle_account,
    }
}

/// Where a client's token is shared: under all that decides what token it is.
fn token_key(credential: &Credential, grant: &ClientCredentials, client: &ApiClient) -> Key {
    let mut digest = digest::Context::new(&digest::SHA256);
    let texts = [Some(client.client_id.as_str()), grant.scope.as_deref(), grant.audience.as_deref()];
    let params = grant.params.iter().flat_map(|(name, value)| [Some(name.as_str()), Some(value.as_str())]);
    for text in texts.into_iter().chain(params) {
        let text = text.unwrap_or_default();
        digest.update(&text.len().to_be_bytes());
        digest.update(text.as_bytes());
    }
    digest.update(&[u8::from(credential.encoding == Encoding::Base64)]);
    let digest = digest.finish();
    let short: String = digest.as_ref().iter().take(16).map(|byte| format!("{byte:02x}")).collect();
    Key {
        kind: Kind::Token,
        credential: Arc::clone(&credential.name),
        account: Arc::clone(&client.name),
        issuer: format!("{} {short}", grant.token_url).into(),
    }
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
    /// The files that its `tls` names, as they were.
    files: Vec<Option<Fingerprint>>,
}

impl LoginCredential {
    /// Is it what a configuration says of a login?
    pub fn is(&self, name: &str, config: &AuthorizationCode) -> bool {
        *self.name == *name && *self.config == *config && self.files.iter().eq(&files_of(config))
    }

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

/// The text as one word of a shell's command line, for people who copy it.
pub fn shell_word(text: &str) -> Cow<'_, str> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"@%_+=:,./-".contains(&byte);
    match !text.is_empty() && text.bytes().all(is_plain) {
        true => Cow::Borrowed(text),
        false => Cow::Owned(format!("'{}'", text.replace('\'', r"'\''"))),
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
    logins.map(|(credential, login)| login_credential(credential, login, tls, clock, &reader)).collect()
}

fn login_credential(
    credential: &Credential,
    login: &AuthorizationCode,
    tls: &TlsFactory,
    clock: &Clock,
    reader: &SecretReader,
) -> Result<LoginCredential, TlsError> {
    let config = Arc::new(login.clone());
    let tls = tls.connector(&login.tls)?;
    let client = OAuthClient::for_login(Arc::clone(&config), tls, reader.clone(), clock.clone());
    let (name, files) = (Arc::clone(&credential.name), files_of(&config));
    Ok(LoginCredential { name, config, client: Arc::new(client), files })
}

fn files_of(login: &AuthorizationCode) -> Vec<Option<Fingerprint>> {
    login.tls.files().map(Fingerprint::of).collect()
}
