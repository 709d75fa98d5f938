//! The credentials in force: each has a pool of its own, which outlives a configuration that says the same of it.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::oneshot;
use tokio::task::AbortHandle;

use super::record::AccountRecord;
use super::tally::Tally;
use super::{Keeper, Parts, TokenPool, Vault, roster};
use crate::clock::Clock;
use crate::config::{ApiClient, Config, Credential, CredentialId, CredentialKind};
use crate::secret::SecretSource;
use crate::secret::fingerprint::Fingerprint;
use crate::secret::reader::SecretReader;
use crate::telemetry::metrics::Metrics;
use crate::tls::{TlsError, TlsFactory};

/// The credentials of a configuration, each with its pool. [`CredentialId`] indexes them.
#[derive(Debug, Clone, Default)]
pub struct Credentials(Vec<Arc<InForce>>);

/// One of them. Nobody needs its keeper any more once the last who may use the pool has dropped it.
#[derive(Debug)]
pub struct InForce {
    recipe: Recipe,
    pool: Arc<TokenPool>,
    /// Ends the keeper when it is dropped.
    _needed: oneshot::Sender<()>,
    keeper: Mutex<Option<AbortHandle>>,
}

/// All that decides what tokens a credential yields and for whom: a pool stays for as long as that does.
#[derive(Debug)]
struct Recipe {
    credential: Credential,
    /// The accounts that routes name.
    accounts: Vec<Arc<str>>,
    /// What its `tls` table names, as the files were.
    files: Vec<Option<Fingerprint>>,
    /// What its programs must not inherit; empty where it runs none.
    hidden: Vec<String>,
    vault: Arc<Vault>,
}

/// The keepers of pools that are new; nothing is fetched until they are started.
#[derive(Default)]
pub struct Keepers(Vec<(Arc<InForce>, Keeper, oneshot::Receiver<()>)>);

impl Credentials {
    /// Those of a configuration. Pools are taken over from `before` where nothing changed.
    ///
    /// # Errors
    /// [`TlsError`] when a `tls` table of a credential names files that cannot be used.
    pub fn of(
        config: &Config,
        tls: &TlsFactory,
        clock: &Clock,
        vault: &Arc<Vault>,
        before: &Self,
    ) -> Result<(Self, Keepers), TlsError> {
        let reader = SecretReader::new(config.secret_variables.clone());
        let parts = Parts { config, tls, clock, vault, reader };
        let mut keepers = Keepers::default();
        let in_force = (0..config.credentials.len()).map(|id| {
            let recipe = Recipe::of(config, id, parts.named_accounts(id), vault);
            if let Some(same) = before.0.iter().find(|earlier| earlier.recipe == recipe) {
                return Ok(Arc::clone(same));
            }
            let (pool, keeper) = parts.pool(id)?;
            let (needed, unneeded) = oneshot::channel();
            let new = Arc::new(InForce { recipe, pool, _needed: needed, keeper: Mutex::default() });
            keepers.0.push((Arc::clone(&new), keeper, unneeded));
            Ok(new)
        });
        let in_force = in_force.collect::<Result<_, TlsError>>()?;
        Ok((Self(in_force), keepers))
    }

    /// A credential.
    pub fn get(&self, id: CredentialId) -> &Arc<InForce> {
        &self.0[id]
    }

    /// Every account of every credential, in the order of the configuration. Holds no secret.
    pub fn records(&self) -> Vec<AccountRecord> {
        self.0.iter().flat_map(|one| one.pool.records()).collect()
    }

    /// Every credential in numbers, in the order of the configuration.
    pub fn tallies(&self) -> Vec<Tally> {
        self.0.iter().map(|one| one.pool.tally()).collect()
    }

    /// From here on each is counted there, by its name.
    pub fn are_counted_in(&self, metrics: &Metrics) {
        self.0.iter().for_each(|one| one.pool.is_counted_in(metrics));
    }

    /// Waits until an account of the credential has a token or its first fetch has failed; then its records.
    pub async fn settled(&self, id: CredentialId) -> Vec<AccountRecord> {
        self.0[id].pool.settled().await
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Are there none?
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Cuts the fetches that run, and starts no others.
    pub fn abort(&self) {
        for one in &self.0 {
            one.keeper().iter().for_each(AbortHandle::abort);
        }
    }
}

impl Keepers {
    /// Starts to fetch, on the current runtime.
    pub fn start(self) {
        for (new, keeper, unneeded) in self.0 {
            let run = async move {
                let unneeded = async {
                    // An error is what is waited for: nobody has it any more.
                    let _ = unneeded.await;
                };
                keeper.run_until(unneeded).await;
            };
            *new.keeper() = Some(tokio::spawn(run).abort_handle());
        }
    }
}

impl InForce {
    /// Its pool.
    pub fn pool(&self) -> &Arc<TokenPool> {
        &self.pool
    }

    fn keeper(&self) -> std::sync::MutexGuard<'_, Option<AbortHandle>> {
        self.keeper.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Parts<'_> {
    fn pool(&self, id: CredentialId) -> Result<(Arc<TokenPool>, Keeper), TlsError> {
        let (spec, grants) = self.spec(id)?;
        let (pool, keeper) = Keeper::with_pool(spec, self.clock.clone());
        let Some(grants) = grants else { return Ok((pool, keeper)) };
        let (news, follower) = roster::follow(self.vault, grants);
        Ok((pool, keeper.with_news(news, follower)))
    }
}

impl Recipe {
    fn of(config: &Config, id: CredentialId, accounts: Vec<Arc<str>>, vault: &Arc<Vault>) -> Self {
        let mut accounts = accounts;
        accounts.sort_unstable();
        let credential = config.credentials[id].clone();
        let tls = match &credential.kind {
            CredentialKind::ClientCredentials(grant) => Some(&grant.tls),
            CredentialKind::AuthorizationCode(login) => Some(&login.tls),
            _ => None,
        };
        let files = tls.iter().flat_map(|tls| tls.files()).map(Fingerprint::of).collect();
        let hidden =
            if runs_programs(&credential.kind) { config.secret_variables.clone() } else { Vec::new() };
        Self { credential, accounts, files, hidden, vault: Arc::clone(vault) }
    }
}

impl PartialEq for Recipe {
    fn eq(&self, other: &Self) -> bool {
        self.credential == other.credential
            && self.accounts == other.accounts
            && self.files == other.files
            && self.hidden == other.hidden
            && Arc::ptr_eq(&self.vault, &other.vault)
    }
}

/// Does a credential run programs, for its token or for a secret?
fn runs_programs(kind: &CredentialKind) -> bool {
    let prints = |source: &SecretSource| matches!(source, SecretSource::Exec(_));
    let of_client = |client: &ApiClient| {
        client.client_secret.as_ref().is_some_and(prints)
            || client.signing_key.as_ref().is_some_and(|signing| prints(&signing.key))
    };
    match kind {
        CredentialKind::Exec { .. } => true,
        CredentialKind::Basic { password: secret, .. }
        | CredentialKind::Bearer { token: secret }
        | CredentialKind::Header { value: secret, .. } => prints(secret),
        CredentialKind::ClientCredentials(grant) => grant.clients.iter().any(|client| of_client(client)),
        CredentialKind::AuthorizationCode(login) => of_client(&login.client),
    }
}
