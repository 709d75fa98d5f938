//! What is counted of routes and credentials, found by their names: it outlives a configuration for as long as the next
//! one has the same name.

pub mod exposition;
pub mod sheet;
pub mod sums;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use self::sheet::RouteSheet;
use self::sums::Sums;

/// The label of requests that were no route's: it cannot be a route's name, which has no parentheses.
pub const NO_ROUTE: &str = "(none)";

/// What is counted as the status of an exchange whose caller went away before it was answered.
pub const NO_ANSWER: u16 = 499;

/// All that an instance counts, by name.
#[derive(Debug, Default)]
pub struct Metrics {
    routes: Mutex<BTreeMap<Arc<str>, Arc<RouteSheets>>>,
    none: Arc<RouteSheets>,
    credentials: Mutex<BTreeMap<Arc<str>, Arc<CredentialCounts>>>,
}

/// What one configuration's routes are counted on, by their index in it.
#[derive(Debug, Default)]
pub struct Traffic {
    routes: Box<[Arc<RouteSheets>]>,
    none: Arc<RouteSheets>,
}

/// One worker's part of [`Traffic`].
#[derive(Debug)]
pub struct WorkerTraffic {
    routes: Box<[Arc<RouteSheet>]>,
    none: Arc<RouteSheet>,
}

/// One route's sheets, by the numbers of the workers.
#[derive(Debug, Default)]
struct RouteSheets(Mutex<Vec<Arc<RouteSheet>>>);

impl Metrics {
    /// The sheets of a configuration's routes, in its order. A route whose name was there before goes on where it was.
    pub fn of_routes<'a>(&self, names: impl Iterator<Item = &'a Arc<str>>) -> Traffic {
        let mut routes = locked(&self.routes);
        let found = names.map(|name| Arc::clone(routes.entry(Arc::clone(name)).or_default())).collect();
        forget_unused(&mut routes);
        Traffic { routes: found, none: Arc::clone(&self.none) }
    }

    /// What a credential is counted on. One whose name was there before goes on where it was.
    pub fn of_credential(&self, name: &Arc<str>) -> Arc<CredentialCounts> {
        let mut credentials = locked(&self.credentials);
        forget_unused(&mut credentials);
        Arc::clone(credentials.entry(Arc::clone(name)).or_default())
    }

    /// What every route of the running configuration has counted; last, as [`NO_ROUTE`], what no route has.
    pub fn routes(&self) -> Vec<(Arc<str>, Sums)> {
        let mut routes = locked(&self.routes);
        forget_unused(&mut routes);
        let sums = |(name, sheets): (&Arc<str>, &Arc<RouteSheets>)| (Arc::clone(name), sheets.sums());
        routes.iter().map(sums).chain([(NO_ROUTE.into(), self.none.sums())]).collect()
    }
}

/// Drops what nobody but the registry holds: no running configuration has that name.
fn forget_unused<T>(named: &mut BTreeMap<Arc<str>, Arc<T>>) {
    named.retain(|_, counts| Arc::strong_count(counts) > 1);
}

/// A panic leaves nothing half done: each change under it is one call.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Traffic {
    /// The part of the worker of that number, on whose thread alone it is written to.
    pub fn of_worker(&self, number: usize) -> WorkerTraffic {
        WorkerTraffic {
            routes: self.routes.iter().map(|sheets| sheets.of_worker(number)).collect(),
            none: self.none.of_worker(number),
        }
    }
}

impl WorkerTraffic {
    /// A route's sheet, by its index in the configuration; none: that of requests that are no route's.
    pub fn sheet(&self, route: Option<usize>) -> &Arc<RouteSheet> {
        route.and_then(|index| self.routes.get(index)).unwrap_or(&self.none)
    }
}

impl RouteSheets {
    fn of_worker(&self, number: usize) -> Arc<RouteSheet> {
        let mut sheets = locked(&self.0);
        if sheets.len() <= number {
            sheets.resize_with(number + 1, Arc::default);
        }
        Arc::clone(&sheets[number])
    }

    fn sums(&self) -> Sums {
        let mut sums = Sums::default();
        locked(&self.0).iter().for_each(|sheet| sheet.add_to(&mut sums));
        sums
    }
}

/// What became of a fetch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FetchOutcome {
    /// It brought a new token.
    Ok,
    /// A secret or a grant was looked at again, and is what it was.
    Unchanged,
    /// It failed.
    Failed,
    /// Nothing but a login helps.
    LoginRequired,
}

/// What became of a request whose token the upstream had refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RejectionOutcome {
    /// The refusal was passed on: another token would not have helped, or did not come in time, or the request could
    /// not be sent again.
    PassedOn,
    /// It was sent again with another token, which was not refused.
    Replayed,
    /// It was sent again with another token, which was refused as well.
    RefusedAgain,
    /// It was sent again with another token, and got no answer.
    Failed,
}

impl FetchOutcome {
    /// Every one.
    pub const ALL: [Self; 4] = [Self::Ok, Self::Unchanged, Self::Failed, Self::LoginRequired];

    /// As a label.
    pub fn label(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Unchanged => "unchanged",
            Self::Failed => "failed",
            Self::LoginRequired => "login_required",
        }
    }
}

impl RejectionOutcome {
    /// Every one.
    pub const ALL: [Self; 4] = [Self::PassedOn, Self::Replayed, Self::RefusedAgain, Self::Failed];

    /// As a label.
    pub fn label(self) -> &'static str {
        match self {
            Self::PassedOn => "passed_on",
            Self::Replayed => "replayed",
            Self::RefusedAgain => "refused_again",
            Self::Failed => "failed",
        }
    }
}

/// What is counted of one credential. Rare, so that all threads share it.
#[derive(Debug, Default)]
pub struct CredentialCounts {
    fetches: [AtomicU64; FetchOutcome::ALL.len()],
    rejections: [AtomicU64; RejectionOutcome::ALL.len()],
}

impl CredentialCounts {
    /// A fetch has ended.
    pub fn fetched(&self, outcome: FetchOutcome) {
        self.fetches[outcome as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Fetches that ended so.
    pub fn fetches(&self, outcome: FetchOutcome) -> u64 {
        self.fetches[outcome as usize].load(Ordering::Relaxed)
    }

    /// Rejections that ended so.
    pub fn rejections(&self, outcome: RejectionOutcome) -> u64 {
        self.rejections[outcome as usize].load(Ordering::Relaxed)
    }
}

/// A request whose token was refused; counted, when it is dropped, by what has become of it.
#[derive(Debug)]
pub struct Rejection {
    counts: Arc<CredentialCounts>,
    outcome: RejectionOutcome,
}

impl Rejection {
    /// One that is passed on, unless something else is said.
    pub fn new(counts: Arc<CredentialCounts>) -> Self {
        Self { counts, outcome: RejectionOutcome::PassedOn }
    }

    /// What has become of it, as far as is known.
    pub fn becomes(&mut self, outcome: RejectionOutcome) {
        self.outcome = outcome;
    }
}

impl Drop for Rejection {
    fn drop(&mut self) {
        self.counts.rejections[self.outcome as usize].fetch_add(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const MOMENT: Duration = Duration::from_millis(3);

    fn names(names: &[&str]) -> Vec<Arc<str>> {
        names.iter().map(|name| (*name).into()).collect()
    }

    fn total(metrics: &Metrics, name: &str) -> Option<u64> {
        metrics.routes().iter().find(|(route, _)| &**route == name).map(|(_, sums)| sums.requests())
    }

    #[test]
    fn a_route_that_stays_goes_on_counting_wherever_the_next_configuration_has_it() {
        let metrics = Metrics::default();
        let first = metrics.of_routes(names(&["a", "b"]).iter());
        let old = first.of_worker(0);
        old.sheet(Some(0)).count(200, MOMENT);
        old.sheet(Some(1)).count(200, MOMENT);
        old.sheet(None).count(404, MOMENT);
        let second = metrics.of_routes(names(&["c", "a"]).iter());
        let new = second.of_worker(0);
        new.sheet(Some(1)).count(200, MOMENT);
        // What still runs of the first is counted as well.
        old.sheet(Some(0)).count(200, MOMENT);
        assert_eq!(total(&metrics, "a"), Some(3));
        assert_eq!(total(&metrics, "b"), Some(1));
        drop((first, old));
        assert_eq!(total(&metrics, "b"), None, "no configuration has it any more");
        assert_eq!((total(&metrics, "a"), total(&metrics, "c")), (Some(3), Some(0)));
        assert_eq!(total(&metrics, NO_ROUTE), Some(1));
    }

    #[test]
    fn a_credential_that_stays_goes_on_counting_and_one_that_goes_is_forgotten() {
        let metrics = Metrics::default();
        let [aura, neon] = [Arc::from("aura"), Arc::from("neon")];
        let counts = metrics.of_credential(&aura);
        counts.fetched(FetchOutcome::Ok);
        let next = metrics.of_credential(&aura);
        drop(counts);
        next.fetched(FetchOutcome::Failed);
        assert_eq!((next.fetches(FetchOutcome::Ok), next.fetches(FetchOutcome::Failed)), (1, 1));
        drop(next);
        let _neon = metrics.of_credential(&neon);
        assert_eq!(metrics.of_credential(&aura).fetches(FetchOutcome::Ok), 0);
    }

    #[test]
    fn each_rejection_counts_once_by_what_became_of_it() {
        let counts = Arc::new(CredentialCounts::default());
        drop(Rejection::new(Arc::clone(&counts)));
        for outcome in RejectionOutcome::ALL {
            let mut rejection = Rejection::new(Arc::clone(&counts));
            rejection.becomes(RejectionOutcome::Failed);
            rejection.becomes(outcome);
        }
        assert_eq!(RejectionOutcome::ALL.map(|outcome| counts.rejections(outcome)), [2, 1, 1, 1]);
    }

    #[test]
    fn each_outcome_has_its_own_place_and_label() {
        let fetches: std::collections::BTreeSet<_> =
            FetchOutcome::ALL.iter().map(|outcome| outcome.label()).collect();
        let rejections: std::collections::BTreeSet<_> =
            RejectionOutcome::ALL.iter().map(|outcome| outcome.label()).collect();
        assert_eq!((fetches.len(), rejections.len()), (4, 4));
        assert!(FetchOutcome::ALL.iter().enumerate().all(|(place, outcome)| *outcome as usize == place));
        assert!(RejectionOutcome::ALL.iter().enumerate().all(|(place, outcome)| *outcome as usize == place));
    }
}
