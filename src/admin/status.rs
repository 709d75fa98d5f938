//! What an instance says of itself: readiness in words, and everything as data.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::SystemTime;

use arc_swap::ArcSwap;
use serde_json::{Value, json};

use super::metrics::{self, Scrape};
use crate::clock::{Clock, Moment};
use crate::confinement::{Sandbox, sandbox};
use crate::credential::machine::State;
use crate::credential::record::AccountRecord;
use crate::credential::vault::VaultRecord;
use crate::credential::{Credentials, Vault};
use crate::telemetry::metrics::Metrics;
use crate::telemetry::refusals::{Refusals, Sheet};

/// A running instance, as its admin listener sees it.
pub struct Instance {
    subject: ArcSwap<Subject>,
    clock: Clock,
    started: Moment,
    started_at: SystemTime,
    /// Set once it has been told to stop.
    stopping: AtomicBool,
    /// By all listeners, this one included.
    refusals: Arc<Refusals>,
    /// Of routes and credentials.
    metrics: Arc<Metrics>,
    reloads: Reloads,
}

/// How reloads went.
#[derive(Debug, Default)]
struct Reloads {
    /// Configurations that were taken up, the first one aside.
    taken_up: AtomicU64,
    /// Those that were refused.
    refused: AtomicU64,
    /// Is the configuration in force not the one that was asked for last?
    last_was_refused: AtomicBool,
}

/// What of an instance another configuration changes.
#[derive(Debug)]
pub struct Subject {
    /// The credentials in force.
    pub credentials: Credentials,
    /// The grants.
    pub vault: Arc<Vault>,
    /// The configuration, listeners, routes, as data: part of the status.
    pub description: Value,
}

/// Should requests be sent here?
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Readiness {
    /// Every required credential has a valid token.
    Ready,
    /// It has, but some credential fails; each in words.
    Degraded(Vec<String>),
    /// A required credential has no valid token; each in words.
    NotReady(Vec<String>),
}

impl Instance {
    /// An instance that starts now.
    pub fn new(subject: Subject, clock: Clock, refusals: Arc<Refusals>, metrics: Arc<Metrics>) -> Self {
        let (started, started_at) = (clock.now(), clock.wall());
        let subject = ArcSwap::from_pointee(subject);
        let (stopping, reloads) = (AtomicBool::new(false), Reloads::default());
        Self { subject, clock, started, started_at, stopping, refusals, metrics, reloads }
    }

    /// Another configuration is in force.
    pub fn is_now(&self, subject: Subject) {
        self.subject.store(Arc::new(subject));
    }

    /// Where the admin listener counts what it refuses: the last sheet.
    pub(super) fn sheet(&self) -> Arc<Sheet> {
        self.refusals.sheet(usize::MAX)
    }

    /// Somebody had it take up a configuration: did it?
    pub fn reloaded(&self, is_taken_up: bool) {
        let count = if is_taken_up { &self.reloads.taken_up } else { &self.reloads.refused };
        count.fetch_add(1, Ordering::Relaxed);
        self.reloads.last_was_refused.store(!is_taken_up, Ordering::Relaxed);
    }

    /// From here on it is not ready: no new requests should come.
    pub fn stops(&self) {
        self.stopping.store(true, Ordering::Relaxed);
    }

    /// Should requests be sent here? Never depends on upstreams.
    pub fn readiness(&self) -> Readiness {
        let subject = self.subject.load();
        self.judge(&subject.credentials.records(), &subject.vault.record())
    }

    /// What `/metrics` says. Holds no secret, no name of an account and nothing that a caller has sent.
    pub fn metrics(&self) -> String {
        let subject = self.subject.load();
        let records = subject.credentials.records();
        let store = subject.vault.record();
        let is_ready = !matches!(self.judge(&records, &store), Readiness::NotReady(_));
        metrics::page(&Scrape {
            started: self.started_at,
            is_ready,
            store: &store,
            credentials: &subject.credentials.tallies(),
            routes: &self.metrics.routes(),
            refusals: &self.refusals.sums().collect::<Vec<_>>(),
        })
    }

    fn judge(&self, records: &[AccountRecord], store: &VaultRecord) -> Readiness {
        if self.stopping.load(Ordering::Relaxed) {
            return Readiness::NotReady(vec!["it is stopping".to_owned()]);
        }
        judge(records, store)
    }

    /// Everything, as data. Holds no secret.
    pub fn status(&self) -> Value {
        let subject = self.subject.load();
        let records = subject.credentials.records();
        let store = subject.vault.record();
        let readiness = self.judge(&records, &store);
        let mut status = json!({
            "version": env!("CARGO_PKG_VERSION"),
            "uptime_seconds": self.clock.now().since(self.started).as_secs(),
            "readiness": readiness.word(),
            "reasons": readiness.reasons(),
            "accounts": records,
            "store": store,
            "sandbox": sandbox().map(Sandbox::record),
            "reloads": {
                "taken_up": self.reloads.taken_up.load(Ordering::Relaxed),
                "refused": self.reloads.refused.load(Ordering::Relaxed),
                "last_was_refused": self.reloads.last_was_refused.load(Ordering::Relaxed),
            },
            "refusals": self.refusals.sums().collect::<BTreeMap<_, _>>(),
        });
        if let (Some(status), Some(description)) = (status.as_object_mut(), subject.description.as_object()) {
            status.extend(description.clone());
        }
        if let Some(routes) = status.get_mut("routes") {
            metrics::add_to(routes, &self.metrics.routes());
        }
        status
    }
}

/// A required credential needs one account with a valid token; whatever else fails is told.
fn judge(records: &[AccountRecord], store: &VaultRecord) -> Readiness {
    let valid = |record: &AccountRecord| record.has_token || record.state == State::Idle;
    let mut missing = Vec::new();
    let mut failing = Vec::new();
    for record in records {
        let of_same = || records.iter().filter(|other| other.credential == record.credential);
        let reason = || {
            let cause = record.last_error.as_deref().unwrap_or("its first token has not come yet");
            format!("credential {}, account {}: {cause}", record.credential, record.account)
        };
        if record.required && !of_same().any(valid) {
            missing.push(reason());
        } else if record.last_error.is_some() {
            failing.push(reason());
        }
    }
    if let Some(error) = &store.error {
        failing.push(format!("store, {} grants in memory alone: {error}", store.unsaved));
    }
    match (missing.is_empty(), failing.is_empty()) {
        (false, _) => Readiness::NotReady(missing.into_iter().chain(failing).collect()),
        (true, false) => Readiness::Degraded(failing),
        (true, true) => Readiness::Ready,
    }
}

impl Readiness {
    /// In a word or two.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Degraded(_) => "degraded",
            Self::NotReady(_) => "not ready",
        }
    }

    /// What is wrong, each in words; for those who run it.
    pub fn reasons(&self) -> &[String] {
        match self {
            Self::Ready => &[],
            Self::Degraded(reasons) | Self::NotReady(reasons) => reasons,
        }
    }
}

impl fmt::Display for Readiness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.word())?;
        self.reasons().iter().try_for_each(|reason| writeln!(f, "{reason}"))
    }
}

impl fmt::Debug for Instance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Instance")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(
        credential: &str,
        required: bool,
        state: State,
        has_token: bool,
        error: Option<&str>,
    ) -> AccountRecord {
        AccountRecord {
            credential: credential.into(),
            account: "a".into(),
            required,
            state,
            has_token,
            login_required: state == State::LoginRequired,
            generation: 0,
            age_seconds: None,
            expires_in_seconds: None,
            next_try_seconds: None,
            last_error: error.map(Into::into),
            fetches: 0,
            failures: 0,
            refusals: 0,
        }
    }

    #[test]
    fn readiness_waits_for_required_credentials_and_tells_what_fails() {
        let store = VaultRecord { writable: true, ..VaultRecord::default() };
        let word =
            |records: &[AccountRecord]| judge(records, &store).to_string().lines().next().unwrap().to_owned();
        let broken = VaultRecord { error: Some("full".into()), unsaved: 1, ..VaultRecord::default() };
        assert_eq!(judge(&[], &broken).reasons(), ["store, 1 grants in memory alone: full"]);
        assert_eq!(judge(&[], &broken).word(), "degraded", "tokens serve on from memory");
        let ready = record("a", true, State::Ready, true, None);
        assert_eq!(word(&[]), "ready");
        assert_eq!(word(std::slice::from_ref(&ready)), "ready");
        assert_eq!(word(&[record("a", true, State::Fetching, false, None)]), "not ready");
        assert_eq!(word(&[record("a", false, State::Fetching, false, None)]), "ready", "not required");
        assert_eq!(
            word(&[record("a", true, State::Failing, true, Some("x"))]),
            "degraded",
            "a token is left"
        );
        assert_eq!(word(&[record("a", true, State::Dead, false, Some("x"))]), "not ready");
        assert_eq!(word(&[record("b", false, State::Dead, false, Some("x")), ready.clone()]), "degraded");
        assert_eq!(
            word(&[record("a", true, State::Dead, false, Some("x")), ready]),
            "degraded",
            "one client is enough"
        );
        assert_eq!(word(&[record("a", true, State::Idle, false, None)]), "ready", "nobody wants it");
    }
}
