//! Token sources that do as a test says, and pools of them.
#![allow(dead_code, reason = "each test uses some of it")]

use std::fmt;
use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sidekey::clock::Clock;
use sidekey::config::{Encoding, Strategy};
use sidekey::credential::machine::Span;
use sidekey::credential::pool::CredentialSpec;
use sidekey::credential::source::{FetchError, Fetched, TokenSource, Wish};
use sidekey::credential::{Keeper, TokenPool};
use sidekey::header::AuthHeader;
use sidekey::oauth::answer::AnswerError;
use sidekey::secret::Secret;
use tokio::time::Instant;

/// What a source does when it is asked.
pub(crate) struct Act {
    delay: Duration,
    result: Result<Span, FetchError>,
}

impl Act {
    pub(crate) fn now(result: Result<Span, FetchError>) -> Self {
        Self::after(Duration::ZERO, result)
    }

    pub(crate) fn after(delay: Duration, result: Result<Span, FetchError>) -> Self {
        Self { delay, result }
    }
}

/// A token that lives so long.
pub(crate) fn token(lifetime: Duration) -> Result<Span, FetchError> {
    Ok(Span { lifetime: Some(lifetime), look_again: None })
}

/// A passing error.
pub(crate) fn failing() -> Act {
    let status = http::StatusCode::INTERNAL_SERVER_ERROR;
    Act::now(Err(AnswerError::Status { status, json: false, retry_after: None }.into()))
}

/// A source that follows a script: the number of the call, from 0, tells what it does.
pub(crate) struct Script {
    plan: Box<dyn Fn(usize) -> Act + Send + Sync>,
    calls: Mutex<Vec<Instant>>,
    secret_file: Option<PathBuf>,
}

impl Script {
    pub(crate) fn new(plan: impl Fn(usize) -> Act + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self { plan: Box::new(plan), calls: Mutex::default(), secret_file: None })
    }

    /// One whose secret is in a file.
    pub(crate) fn with_file(path: PathBuf, plan: impl Fn(usize) -> Act + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self { plan: Box::new(plan), calls: Mutex::default(), secret_file: Some(path) })
    }

    /// How often it was asked.
    pub(crate) fn fetches(&self) -> usize {
        self.calls.lock().expect("no test panics while it holds this").len()
    }

    /// When it was asked.
    pub(crate) fn moments(&self) -> Vec<Instant> {
        self.calls.lock().expect("no test panics while it holds this").clone()
    }
}

impl fmt::Debug for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Script")
    }
}

impl TokenSource for Script {
    fn fetch(&self, _: Wish) -> Pin<Box<dyn Future<Output = Result<Fetched, FetchError>> + Send + '_>> {
        let call = {
            let mut calls = self.calls.lock().expect("no test panics while it holds this");
            calls.push(Instant::now());
            calls.len() - 1
        };
        let Act { delay, result } = (self.plan)(call);
        Box::pin(async move {
            tokio::time::sleep(delay).await;
            let header = AuthHeader::bearer(&Secret::new(format!("token-{call}")), Encoding::Plain)?;
            Ok(Fetched { header, span: result? })
        })
    }

    fn watched_files(&self) -> Vec<PathBuf> {
        self.secret_file.iter().cloned().collect()
    }
}

/// The keeper's task; ends with the test.
pub(crate) struct Kept(tokio::task::JoinHandle<()>);

impl Drop for Kept {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A pool of one credential with one account, on the runtime's clock.
pub(crate) fn pool(script: &Arc<Script>) -> (Arc<TokenPool>, Kept) {
    pool_with(&[script], Clock::of_runtime(), |_| {})
}

/// A pool of one credential with an account for each script.
pub(crate) fn pool_with(
    scripts: &[&Arc<Script>],
    clock: Clock,
    change: impl FnOnce(&mut CredentialSpec),
) -> (Arc<TokenPool>, Kept) {
    let mut spec = spec(scripts);
    change(&mut spec);
    pool_of(spec, clock)
}

/// A pool of a credential.
pub(crate) fn pool_of(spec: CredentialSpec, clock: Clock) -> (Arc<TokenPool>, Kept) {
    let (pool, keeper) = Keeper::with_pool(spec, clock);
    (pool, Kept(tokio::spawn(keeper.run())))
}

/// A credential with an account for each script.
pub(crate) fn spec(scripts: &[&Arc<Script>]) -> CredentialSpec {
    let account = |(number, script): (usize, &&Arc<Script>)| {
        (format!("client {number}").into(), Arc::clone(script) as Arc<dyn TokenSource>)
    };
    CredentialSpec {
        name: "scripted".into(),
        accounts: scripts.iter().enumerate().map(account).collect(),
        strategy: Strategy::Failover,
        logins: None,
        required: true,
        lease_timeout: Duration::from_secs(10),
        lease_queue: 100_000,
        margin: None,
        idle_account: None,
    }
}
