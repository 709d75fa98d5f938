//! The keeper: one task that fetches for a whole pool, each account when its machine says so.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet, VecDeque};
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::sync::mpsc;
use tokio::task::{JoinError, JoinSet};
use tracing::{debug, info, warn};

use super::account::{Account, AccountId};
use super::grant::Why;
use super::machine::Next;
use super::pool::{CredentialSpec, TokenPool};
use super::roster::News;
use super::source::{FetchError, Fetched, Wish};
use crate::clock::{Clock, Moment};
use crate::secret::fingerprint::Fingerprint;
use crate::telemetry::chain;
use crate::telemetry::metrics::FetchOutcome;

/// Fetches at once at most: ten thousand cold accounts must not be ten thousand connections.
const MAX_FETCHES: usize = 32;
/// How often the files of secrets are looked at. Looking, unlike being told, misses neither a renamed file nor a
/// volume that swaps a symlink two folders up.
const FILE_CHECK: Duration = Duration::from_secs(1);
/// How far the wall clock may get ahead between two looks before it is called a jump.
const CLOCK_TOLERANCE: Duration = Duration::from_secs(5);
/// The longest sleep. Timers stand still while a machine does; the clock that tokens expire by does not.
const LONGEST_SLEEP: Duration = Duration::from_secs(30);

/// Fetches for a [`TokenPool`]; leases work for as long as their tokens do whether it runs or not.
pub struct Keeper {
    pool: Arc<TokenPool>,
    kicked: mpsc::UnboundedReceiver<AccountId>,
    /// Logins and logouts; none: there can be none.
    news: Option<mpsc::UnboundedReceiver<News>>,
    /// What tells them.
    follower: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    fetches: JoinSet<Result<Fetched, FetchError>>,
    /// Which account a running fetch is for, and whether it only looks what is there.
    fetching: HashMap<tokio::task::Id, (AccountId, bool)>,
    /// Accounts whose grant somebody may have changed: the next fetch takes whatever is there.
    changed: HashSet<AccountId>,
    /// Whose turn is next when [`MAX_FETCHES`] run.
    waiting: VecDeque<AccountId>,
    /// When to look at which account. Entries that `scheduled` does not confirm are out of date.
    due: BinaryHeap<Reverse<(Moment, AccountId)>>,
    scheduled: Vec<Option<Moment>>,
    /// When each account was last seen to have been used; only as exact as `idle_account` needs.
    last_used: Vec<Moment>,
    files: Vec<WatchedFile>,
    /// Both clocks at the last look, to notice when one of them leaves the other behind.
    clocks: (Moment, SystemTime),
}

struct WatchedFile {
    account: AccountId,
    path: PathBuf,
    seen: Option<Fingerprint>,
}

impl Keeper {
    /// A pool and its keeper; nothing is fetched until the keeper runs.
    pub fn with_pool(spec: CredentialSpec, clock: Clock) -> (Arc<TokenPool>, Self) {
        let (pool, kicked) = TokenPool::new(spec, clock);
        (Arc::clone(&pool), Self::new(pool, kicked))
    }

    /// Hears of logins and logouts, too, for as long as `follower` is run, which it sees to.
    pub fn with_news(
        mut self,
        news: mpsc::UnboundedReceiver<News>,
        follower: impl Future<Output = ()> + Send + 'static,
    ) -> Self {
        self.news = Some(news);
        self.follower = Some(Box::pin(follower));
        self
    }

    fn new(pool: Arc<TokenPool>, kicked: mpsc::UnboundedReceiver<AccountId>) -> Self {
        let mut files = Vec::new();
        for (account, entry) in pool.accounts.iter() {
            for path in entry.source.watched_files() {
                let seen = Fingerprint::of(&path);
                files.push(WatchedFile { account, path, seen });
            }
        }
        let clocks = (pool.clock.now(), pool.clock.wall());
        Self {
            waiting: VecDeque::new(),
            clocks,
            scheduled: vec![None; pool.accounts.count()],
            last_used: vec![clocks.0; pool.accounts.count()],
            pool,
            kicked,
            news: None,
            follower: None,
            changed: HashSet::new(),
            fetches: JoinSet::new(),
            fetching: HashMap::new(),
            due: BinaryHeap::new(),
            files,
        }
    }

    /// Keeps every account fresh, for ever. Dropped, it cuts the fetches that run.
    pub async fn run(self) {
        self.run_until(std::future::pending()).await;
    }

    /// The same until nobody needs it any more; then the fetches that run come to their end, as a refresh token that is
    /// being presented must not be cut off.
    pub async fn run_until(mut self, unneeded: impl Future<Output = ()>) {
        tokio::pin!(unneeded);
        let mut followers = JoinSet::new();
        if let Some(follower) = self.follower.take() {
            followers.spawn(follower);
        }
        for id in 0..self.pool.accounts.count() {
            self.look(id);
        }
        let mut file_check = tokio::time::interval(FILE_CHECK);
        file_check.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let sleep = self.until_next();
            tokio::select! {
                Some(id) = self.kicked.recv() => {
                    self.pool.accounts[id].kicked.store(false, Ordering::Release);
                    self.pool.accounts[id].machine().wanted();
                    self.look(id);
                }
                Some(news) = next_of(&mut self.news) => self.heard(&news),
                Some(done) = self.fetches.join_next_with_id() => self.ended(done),
                _ = file_check.tick(), if !self.files.is_empty() => self.check_files(),
                () = tokio::time::sleep(sleep) => {}
                () = &mut unneeded => break,
            }
            self.look_at_due();
            self.compare_clocks();
        }
        while self.fetches.join_next().await.is_some() {}
    }

    /// A machine that was paused as a whole finds both its timers and its boot-time clock behind the wall clock:
    /// tokens may be dead that do not look it, so every account is looked at.
    fn compare_clocks(&mut self) {
        let (now, wall) = (self.pool.clock.now(), self.pool.clock.wall());
        let passed = wall.duration_since(self.clocks.1).unwrap_or_default();
        if passed > now.since(self.clocks.0) + CLOCK_TOLERANCE {
            info!("the wall clock jumped ahead; tokens that would be dead by it are fetched anew");
            (0..self.pool.accounts.count()).for_each(|id| self.look(id));
        }
        self.clocks = (now, wall);
    }

    /// Asks an account's machine what it needs, and sees to it.
    fn look(&mut self, id: AccountId) {
        let account = &self.pool.accounts[id];
        let next = {
            let mut machine = account.machine();
            let next = machine.next(self.pool.clock.now(), self.pool.clock.wall());
            account.publish(&machine, None);
            next
        };
        match next {
            Next::Fetch => {
                if self.fetching.len() < MAX_FETCHES {
                    self.fetch(id);
                } else {
                    self.waiting.push_back(id);
                }
            }
            Next::At(at) => self.schedule(id, at),
            Next::Rest => {}
        }
    }

    fn fetch(&mut self, id: AccountId) {
        let account = &self.pool.accounts[id];
        let source = Arc::clone(&account.source);
        // Somebody logged in or out: what is there now counts, even if it is what is held. A token that was refused is
        // not held, and must not come back.
        let only_looks = self.changed.remove(&id) && account.machine().held().is_some();
        let wish = Wish { unlike: if only_looks { None } else { account.newest() } };
        let task = self.fetches.spawn(async move { source.fetch(wish).await });
        self.fetching.insert(task.id(), (id, only_looks));
        // The token in force may expire while the fetch runs.
        let expiry = self.pool.accounts[id].machine().held().and_then(|held| held.expires);
        if let Some(at) = expiry {
            self.schedule(id, at);
        }
    }

    fn ended(&mut self, done: Result<(tokio::task::Id, Result<Fetched, FetchError>), JoinError>) {
        // A source that panicked is a failed fetch like any other.
        let (task, result) = done.unwrap_or_else(|error| (error.id(), Err(FetchError::Cut)));
        let Some((id, only_looks)) = self.fetching.remove(&task) else { return };
        if let Some(next) = self.waiting.pop_front() {
            self.fetch(next);
        }
        // What it was to look for has not been seen yet.
        if only_looks && matches!(&result, Err(error) if !matches!(error, FetchError::LoginRequired { .. })) {
            self.changed.insert(id);
        }
        self.settle(id, only_looks, result);
        self.look(id);
    }

    /// Enters what a fetch brought into the account and tells those who wait.
    fn settle(&self, id: AccountId, only_looks: bool, result: Result<Fetched, FetchError>) {
        let account = &self.pool.accounts[id];
        let credential = &self.pool.credential;
        let (now, wall) = (self.pool.clock.now(), self.pool.clock.wall());
        let counts = credential.counts.load();
        let mut machine = account.machine();
        match result {
            Ok(fetched)
                if (only_looks || fetched.span.lifetime.is_none()) && account.holds(&fetched.header) =>
            {
                machine.unchanged(fetched.span, now);
                account.login_required.store(false, Ordering::Relaxed);
                account.set_last_error(None);
                counts.fetched(FetchOutcome::Unchanged);
            }
            Ok(fetched) => {
                let generation = machine.fetched(fetched.span, now, wall, fastrand::f64()).generation;
                account.publish(&machine, Some(fetched.header));
                account.set_last_error(None);
                account.login_required.store(false, Ordering::Relaxed);
                account.fetches.fetch_add(1, Ordering::Relaxed);
                counts.fetched(FetchOutcome::Ok);
                let lifetime_s = fetched.span.lifetime.map(|span| span.as_secs());
                if generation == 1 {
                    info!(credential = %credential.name, account = %account.name, lifetime_s, "credential ready");
                } else {
                    debug!(credential = %credential.name, account = %account.name, generation, lifetime_s, "token refreshed");
                }
            }
            Err(error) => {
                let permanent = error.is_permanent();
                machine.failed(permanent, error.retry_after(), now, fastrand::f64());
                let text = chain(&error);
                let mut is_news = true;
                let mut outcome = FetchOutcome::Failed;
                if let FetchError::LoginRequired { why, .. } = &error {
                    outcome = FetchOutcome::LoginRequired;
                    is_news = !account.login_required.swap(true, Ordering::Relaxed);
                    if matches!(why, Why::LoggedOut | Why::Never) {
                        machine.forget();
                        account.void(machine.generation());
                        account.publish(&machine, None);
                    }
                }
                let pause = machine.next_try().map_or(Duration::ZERO, |at| at.since(now));
                let left = machine.held().and_then(|held| held.expires).map(|at| at.since(now).as_secs());
                // That a login is needed is said once; it stays so until somebody does it.
                if is_news {
                    warn!(
                        credential = %credential.name, account = %account.name, permanent, token_left_s = left,
                        next_try_ms = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX), "no new token: {text}"
                    );
                }
                account.set_last_error(Some(text.into()));
                account.failures.fetch_add(1, Ordering::Relaxed);
                counts.fetched(outcome);
            }
        }
        drop(machine);
        credential.changed.notify_waiters();
    }

    /// Somebody logged in or out: new accounts are enrolled, and what is known of the others is looked at anew.
    fn heard(&mut self, news: &News) {
        let pool = Arc::clone(&self.pool);
        let mut ids: Vec<_> = news.accounts.iter().filter_map(|name| pool.enrol(name)).collect();
        if news.all {
            ids.extend(0..pool.accounts.count());
            ids.sort_unstable();
            ids.dedup();
        }
        let credential = &pool.credential;
        if news.listed && !credential.listed.swap(true, Ordering::AcqRel) {
            credential.changed.notify_waiters();
        }
        for id in ids {
            if id >= self.scheduled.len() {
                self.scheduled.resize(id + 1, None);
                self.last_used.resize(id + 1, pool.clock.now());
                let watched = pool.accounts[id].source.watched_files().into_iter();
                self.files.extend(watched.map(|path| WatchedFile {
                    account: id,
                    seen: Fingerprint::of(&path),
                    path,
                }));
            }
            self.changed.insert(id);
            {
                let mut machine = pool.accounts[id].machine();
                if machine.held().is_some() {
                    // Nobody uses it, but its token is there for whoever asks next.
                    machine.wanted();
                }
                machine.secret_changed();
            }
            self.look(id);
        }
    }

    fn check_files(&mut self) {
        let mut changed = Vec::new();
        for file in &mut self.files {
            let now = Fingerprint::of(&file.path);
            if now != file.seen {
                file.seen = now;
                changed.push(file.account);
            }
        }
        for id in changed {
            let account = &self.pool.accounts[id];
            info!(credential = %self.pool.credential.name, account = %account.name, "secret changed");
            account.machine().secret_changed();
            self.look(id);
        }
    }

    fn schedule(&mut self, id: AccountId, at: Moment) {
        if self.scheduled[id].is_none_or(|earlier| at < earlier) {
            self.scheduled[id] = Some(at);
            self.due.push(Reverse((at, id)));
        }
    }

    fn look_at_due(&mut self) {
        let now = self.pool.clock.now();
        while let Some(&Reverse((at, id))) = self.due.peek()
            && at <= now
        {
            self.due.pop();
            if self.scheduled[id] == Some(at) {
                self.scheduled[id] = None;
                self.let_go_if_idle(id, now);
                self.look(id);
            }
        }
    }

    /// An account that nobody used for its credential's `idle_account` is not refreshed any more.
    fn let_go_if_idle(&mut self, id: AccountId, now: Moment) {
        let account = &self.pool.accounts[id];
        let credential = &self.pool.credential;
        let Some(limit) = credential.idle_account else { return };
        if account.used.swap(false, Ordering::Relaxed) {
            self.last_used[id] = now;
        } else if now.since(self.last_used[id]) >= limit {
            debug!(credential = %credential.name, account = %account.name, "nobody uses the account; let go");
            account.machine().let_go();
        }
    }

    fn until_next(&self) -> Duration {
        let now = self.pool.clock.now();
        self.due.peek().map_or(LONGEST_SLEEP, |Reverse((at, _))| at.since(now).min(LONGEST_SLEEP))
    }
}

async fn next_of(news: &mut Option<mpsc::UnboundedReceiver<News>>) -> Option<News> {
    match news {
        Some(news) => news.recv().await,
        None => None,
    }
}

impl Account {
    fn set_last_error(&self, text: Option<Arc<str>>) {
        *self.last_error.lock().unwrap_or_else(PoisonError::into_inner) = text;
    }
}
