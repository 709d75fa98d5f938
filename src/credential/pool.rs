//! The token pool: owns every account of a credential, hands out leases, believes or doubts refusals.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::{Notify, mpsc};

use super::account::{Account, AccountId};
use super::claim::Claim;
use super::lease::{Lease, LeaseError};
use super::machine::{Certainty, Refusal, Verdict};
use super::roster::Directory;
use super::source::TokenSource;
use crate::clock::{Clock, Moment};
use crate::config::Strategy;
use crate::telemetry::metrics::{CredentialCounts, Metrics};

/// What a pool is made of: a credential with its accounts.
#[derive(Debug)]
pub struct CredentialSpec {
    /// Its name in the configuration.
    pub name: Arc<str>,
    /// Its accounts, each with the source of its tokens; at least one.
    pub accounts: Vec<(Arc<str>, Arc<dyn TokenSource>)>,
    /// How several accounts are used, where nobody chooses one by name.
    pub strategy: Strategy,
    /// Where accounts come from that people log in to; none: there are no others than these. With it, each request is
    /// one account's, and no account ever stands in for another.
    pub logins: Option<Arc<dyn Directory>>,
    /// Does readiness wait for it?
    pub required: bool,
    /// How long a request may wait for a token.
    pub lease_timeout: Duration,
    /// How many requests may wait for a token at once.
    pub lease_queue: usize,
    /// How long before its expiry a token is refreshed at the latest; none: chosen by its lifetime.
    pub margin: Option<Duration>,
    /// How long an account may be unused before its token is let go; none: for ever.
    pub idle_account: Option<Duration>,
}

/// Owns every account of a credential. Shared by all workers; a lease reads one atomic pointer.
pub struct TokenPool {
    pub(super) credential: Credential,
    /// Grows by logins, and never shrinks: an account keeps its place.
    pub(super) accounts: boxcar::Vec<Account>,
    pub(super) clock: Clock,
    kick: mpsc::UnboundedSender<AccountId>,
}

/// A credential as the pool holds it.
pub(super) struct Credential {
    pub(super) name: Arc<str>,
    /// Those of the configuration.
    pub(super) accounts: std::ops::Range<AccountId>,
    /// Every account by its name; changed by the keeper alone.
    pub(super) by_name: ArcSwap<HashMap<Arc<str>, AccountId>>,
    pub(super) logins: Option<Arc<dyn Directory>>,
    /// Is every account known that has logged in? Not for a moment after the start, and while the store does not answer.
    pub(super) listed: AtomicBool,
    strategy: Strategy,
    pub(super) required: bool,
    pub(super) margin: Option<Duration>,
    pub(super) lease_timeout: Duration,
    lease_queue: usize,
    pub(super) idle_account: Option<Duration>,
    waiting: AtomicUsize,
    /// Told when any of its accounts has a new token or an ended fetch.
    pub(super) changed: Notify,
    /// Leases given in turn so far.
    turn: AtomicU64,
    /// What is counted of it.
    pub(super) counts: ArcSwap<CredentialCounts>,
}

impl TokenPool {
    /// A pool, and where it tells which accounts are to be looked at.
    pub(super) fn new(spec: CredentialSpec, clock: Clock) -> (Arc<Self>, mpsc::UnboundedReceiver<AccountId>) {
        let (kick, kicked) = mpsc::unbounded_channel();
        let accounts = boxcar::Vec::new();
        let mut by_name = HashMap::new();
        for (name, source) in spec.accounts {
            let account = accounts.push(Account::new(Arc::clone(&name), source, spec.margin));
            by_name.insert(name, account);
        }
        let credential = Credential {
            name: spec.name,
            accounts: 0..accounts.count(),
            by_name: ArcSwap::from_pointee(by_name),
            listed: AtomicBool::new(spec.logins.is_none()),
            logins: spec.logins,
            margin: spec.margin,
            strategy: spec.strategy,
            required: spec.required,
            lease_timeout: spec.lease_timeout,
            lease_queue: spec.lease_queue,
            idle_account: spec.idle_account,
            waiting: AtomicUsize::new(0),
            changed: Notify::new(),
            turn: AtomicU64::new(0),
            counts: ArcSwap::default(),
        };
        let pool = Arc::new(Self { credential, accounts, clock, kick });
        (pool, kicked)
    }

    /// A lease, at once if a valid token is there, else as soon as one comes.
    ///
    /// # Errors
    /// [`LeaseError`] when none came within the credential's `lease_timeout`, when none can be expected by then,
    /// or when `lease_queue` requests wait already.
    pub async fn lease(&self, claim: Claim) -> Result<Lease, LeaseError> {
        match self.try_lease(claim) {
            Some(lease) => Ok(lease),
            None => self.wait(claim).await,
        }
    }

    /// A lease if a valid token is there.
    pub fn try_lease(&self, claim: Claim) -> Option<Lease> {
        let now = self.clock.now();
        let accounts = self.accounts_of(claim);
        if accounts.len() == 1 {
            return self.lease_of(accounts.start, now);
        }
        let group = &self.credential;
        let rests = |id: &AccountId| self.accounts[*id].resting_until.load(Ordering::Relaxed) > nanos(now);
        self.choose(group, now, |id| !rests(id))
            // All rest: one that was asked to slow down is better than none.
            .or_else(|| self.choose(group, now, |_| true))
    }

    /// A lease of the account whose turn it is, among those that may be used and have a valid token.
    fn choose(
        &self,
        group: &Credential,
        now: Moment,
        may_be_used: impl Fn(&AccountId) -> bool,
    ) -> Option<Lease> {
        let mut candidates = self.accounts_of(Claim::any()).filter(may_be_used);
        match group.strategy {
            Strategy::Failover => candidates.find_map(|id| self.lease_of(id, now)),
            Strategy::Spread => {
                let last_use = |id: &AccountId| self.accounts[*id].last_turn.load(Ordering::Relaxed);
                let id = candidates.filter(|id| self.has_token(*id, now)).min_by_key(last_use)?;
                let turn = group.turn.fetch_add(1, Ordering::Relaxed) + 1;
                self.accounts[id].last_turn.store(turn, Ordering::Relaxed);
                self.lease_of(id, now)
            }
        }
    }

    fn has_token(&self, id: AccountId, now: Moment) -> bool {
        let current = self.accounts[id].current.load();
        current.as_ref().is_some_and(|token| token.expires.is_none_or(|at| now < at))
    }

    /// From here on it is counted there, by its credential's name.
    pub fn is_counted_in(&self, metrics: &Metrics) {
        self.credential.counts.store(metrics.of_credential(&self.credential.name));
    }

    /// What is counted of it.
    pub fn counts(&self) -> Arc<CredentialCounts> {
        self.credential.counts.load_full()
    }

    /// The name of the account that a lease is of.
    pub fn account_of(&self, lease: &Lease) -> &str {
        &self.accounts[lease.account].name
    }

    /// Is a lease's token still alive, whether it is in force or not? Not once somebody has logged out.
    pub fn is_valid(&self, lease: &Lease) -> bool {
        if lease.generation() <= self.accounts[lease.account].void_until.load(Ordering::Relaxed) {
            return false;
        }
        lease.token.expires.is_none_or(|at| self.clock.now() < at)
    }

    fn lease_of(&self, id: AccountId, now: Moment) -> Option<Lease> {
        let token = self.accounts[id].current.load();
        let token = token.as_ref()?;
        // Exact, at each lease: timers stand still while a machine sleeps.
        if token.expires.is_some_and(|at| at <= now) {
            self.kick(id);
            return None;
        }
        let used = &self.accounts[id].used;
        if !used.load(Ordering::Relaxed) {
            used.store(true, Ordering::Relaxed);
            // Once for each look of the keeper: an account that was let go is kept fresh again.
            self.kick(id);
        }
        Some(Lease { token: Arc::clone(token), account: id })
    }

    async fn wait(&self, claim: Claim) -> Result<Lease, LeaseError> {
        let group = &self.credential;
        let _place = Place::take(group)?;
        let accounts = self.accounts_of(claim);
        // Asking is using, whether there is a token or not.
        accounts.clone().for_each(|id| self.accounts[id].used.store(true, Ordering::Relaxed));
        let start = self.clock.now();
        let deadline = tokio::time::Instant::now() + group.lease_timeout;
        loop {
            let changed = group.changed.notified();
            tokio::pin!(changed);
            // Registered before the look, so that no change falls between the two.
            changed.as_mut().enable();
            if let Some(lease) = self.try_lease(claim) {
                return Ok(lease);
            }
            let last_moment = start + group.lease_timeout;
            if accounts.clone().all(|id| self.accounts[id].machine().is_hopeless(last_moment)) {
                return Err(self.unavailable(claim));
            }
            accounts.clone().for_each(|id| self.kick(id));
            if tokio::time::timeout_at(deadline, changed).await.is_err() {
                return Err(self.unavailable(claim));
            }
        }
    }

    /// The upstream refused a lease; `replayed`: of a request that had been refused before. Retires that generation
    /// only, and only where the refusal is surely about the token. Ask [`TokenPool::replacement`] for the next one.
    pub fn reject(&self, lease: &Lease, certainty: Certainty, replayed: bool) -> Verdict {
        let account = &self.accounts[lease.account];
        account.refusals.fetch_add(1, Ordering::Relaxed);
        let refusal = Refusal {
            generation: lease.generation(),
            certainty,
            accepted_before: lease.token.accepted.load(Ordering::Relaxed),
            replayed,
        };
        let verdict = {
            let mut machine = account.machine();
            let verdict = machine.refused(refusal, self.clock.now());
            account.publish(&machine, None);
            verdict
        };
        if matches!(verdict, Verdict::Await { .. }) {
            self.kick(lease.account);
        }
        verdict
    }

    /// The lease to send a refused request again with; none when another token would not help or does not come
    /// within `lease_timeout`.
    pub async fn replacement(&self, refused: &Lease, verdict: Verdict) -> Option<Lease> {
        let account = &self.accounts[refused.account];
        let group = &self.credential;
        let attempts = match verdict {
            Verdict::Pass => return None,
            Verdict::Newer => return self.lease_of(refused.account, self.clock.now()),
            Verdict::Await { attempts } => attempts,
        };
        let _place = Place::take(group).ok()?;
        let last_moment = self.clock.now() + group.lease_timeout;
        let deadline = tokio::time::Instant::now() + group.lease_timeout;
        loop {
            let changed = group.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            // While the refused token is out of force, a failed fetch is not the last word: the next may bring one
            // in time. Asked before the look: a token that comes between the two would be missed.
            let is_over = {
                let machine = account.machine();
                let ended = machine.held().is_some() && machine.attempts() > attempts;
                ended || machine.is_hopeless(last_moment)
            };
            if let Some(newer) = self.lease_of(refused.account, self.clock.now())
                && newer.generation() > refused.generation()
            {
                return Some(newer);
            }
            if is_over {
                return None;
            }
            tokio::time::timeout_at(deadline, changed).await.ok()?;
        }
    }

    /// The upstream accepted a lease; `replayed`: after it had refused another one for the same request.
    pub fn accept(&self, lease: &Lease, replayed: bool) {
        if !lease.token.accepted.load(Ordering::Relaxed) {
            lease.token.accepted.store(true, Ordering::Relaxed);
        }
        if replayed {
            self.accounts[lease.account].machine().replay_accepted();
        }
    }

    /// The upstream asked this lease's client to slow down: others of the credential go first for `span`.
    pub fn rest(&self, lease: &Lease, span: Duration) {
        let until = nanos(self.clock.now() + span.min(super::schedule::MAX_RETRY_AFTER));
        self.accounts[lease.account].resting_until.fetch_max(until, Ordering::Relaxed);
    }

    /// Tells the keeper to look at an account; many times at once count as one.
    pub(super) fn kick(&self, id: AccountId) {
        if !self.accounts[id].kicked.swap(true, Ordering::AcqRel) {
            // The keeper is gone only when the process stops.
            let _ = self.kick.send(id);
        }
    }

    fn unavailable(&self, claim: Claim) -> LeaseError {
        let group = &self.credential;
        let now = self.clock.now();
        let accounts = || self.accounts_of(claim).map(|id| &self.accounts[id]);
        let next = accounts().filter_map(|account| account.machine().next_try()).min();
        let cause = accounts().find_map(Account::last_error);
        let out = accounts().find(|account| account.login_required.load(Ordering::Relaxed));
        if group.logins.is_some() && (out.is_some() || accounts().next().is_none()) {
            return LeaseError::LoginRequired {
                credential: Arc::clone(&group.name),
                account: out
                    .map_or_else(|| super::DEFAULT_ACCOUNT.into(), |account| Arc::clone(&account.name)),
                cause: cause.unwrap_or_else(|| super::grant::Why::Never.to_string().into()),
            };
        }
        LeaseError::Unavailable {
            credential: Arc::clone(&group.name),
            cause: cause.unwrap_or_else(|| "the token endpoint has not answered yet".into()),
            retry_after: next.map_or(Duration::ZERO, |at| at.since(now)).max(Duration::from_secs(1)),
        }
    }
}

impl fmt::Debug for TokenPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenPool").field("credential", &self.credential.name).finish_non_exhaustive()
    }
}

/// A place in the queue of those who wait; given back when dropped.
pub(super) struct Place<'a>(&'a AtomicUsize);

impl<'a> Place<'a> {
    pub(super) fn take(group: &'a Credential) -> Result<Self, LeaseError> {
        let waiting = group.waiting.fetch_add(1, Ordering::Relaxed);
        let place = Self(&group.waiting);
        if waiting >= group.lease_queue {
            return Err(LeaseError::QueueFull { credential: Arc::clone(&group.name), waiting });
        }
        Ok(place)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

fn nanos(moment: Moment) -> u64 {
    u64::try_from(moment.since(Moment::default()).as_nanos()).unwrap_or(u64::MAX)
}
