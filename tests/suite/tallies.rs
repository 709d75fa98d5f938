//! Each credential in numbers, as its accounts live and die.
#![cfg(feature = "demo")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use crate::sources::{Act, Script, failing, pool_with, token};
use sidekey::clock::Clock;
use sidekey::credential::machine::State;
use sidekey::credential::tally::Tally;
use sidekey::telemetry::metrics::{FetchOutcome, Metrics};

const HOUR: Duration = Duration::from_secs(3600);
const MINUTE: Duration = Duration::from_secs(60);

fn states(tally: &Tally) -> Vec<(&'static str, usize)> {
    let states = State::ALL.into_iter().map(State::word).zip(tally.states);
    states.filter(|(_, count)| *count > 0).collect()
}

/// Seconds since 1970, to the nearest.
fn expiry(tally: &Tally) -> Option<f64> {
    tally.expiry.map(|at| at.duration_since(UNIX_EPOCH).unwrap().as_secs_f64().round())
}

#[tokio::test(start_paused = true)]
async fn a_credential_counts_its_accounts_by_state_and_tells_the_first_of_their_expiries() {
    let scripts = [
        Script::new(|_| Act::now(token(2 * HOUR))),
        Script::new(|_| Act::now(token(HOUR))),
        Script::new(|_| failing()),
        Script::new(|_| Act::after(HOUR, token(HOUR))),
    ];
    let clock = Clock::of_runtime();
    let (pool, _kept) = pool_with(&scripts.each_ref(), clock.clone(), |_| {});
    tokio::time::sleep(Duration::from_millis(1)).await;
    let tally = pool.tally();
    assert_eq!(&*tally.credential, "scripted");
    assert_eq!(states(&tally), [("fetching", 1), ("ready", 2), ("failing", 1)]);
    assert_eq!(tally.with_token, 2);
    let now = clock.wall().duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
    assert_eq!(expiry(&tally), Some((now + HOUR.as_secs_f64()).round()));
    assert_eq!((tally.counts.fetches(FetchOutcome::Ok), tally.counts.fetches(FetchOutcome::Failed)), (2, 1));
}

#[tokio::test(start_paused = true)]
async fn a_token_that_nobody_uses_may_expire_and_one_that_has_expired_is_none() {
    let script = Script::new(|call| if call == 0 { Act::now(token(HOUR)) } else { failing() });
    let idle = |spec: &mut sidekey::credential::pool::CredentialSpec| spec.idle_account = Some(MINUTE);
    let (pool, _kept) = pool_with(&[&script], Clock::of_runtime(), idle);
    tokio::time::sleep(MINUTE).await;
    assert!(pool.tally().expiry.is_some(), "it is not known yet whether anybody uses it");
    tokio::time::sleep(HOUR - 2 * MINUTE).await;
    let tally = pool.tally();
    assert_eq!((tally.with_token, tally.expiry, script.fetches()), (1, None, 1));
    tokio::time::sleep(HOUR).await;
    let tally = pool.tally();
    assert_eq!((states(&tally), tally.with_token, tally.expiry), (vec![("idle", 1)], 0, None));

    let script = Script::new(|call| if call == 0 { Act::now(token(HOUR)) } else { failing() });
    let (pool, _kept) = pool_with(&[&script], Clock::of_runtime(), |_| {});
    tokio::time::sleep(HOUR - MINUTE).await;
    let tally = pool.tally();
    assert_eq!((states(&tally), tally.with_token), (vec![("failing", 1)], 1));
    assert!(tally.expiry.is_some(), "it is about to expire");
    tokio::time::sleep(2 * MINUTE).await;
    let tally = pool.tally();
    assert_eq!((states(&tally), tally.with_token, tally.expiry), (vec![("failing", 1)], 0, None));
}

#[tokio::test(start_paused = true)]
async fn what_a_credential_has_counted_outlives_its_pool_under_its_name() {
    let metrics = Metrics::default();
    let script = || Script::new(|_| Act::now(token(HOUR)));
    let (first, kept) = pool_with(&[&script()], Clock::of_runtime(), |_| {});
    first.is_counted_in(&metrics);
    tokio::time::sleep(Duration::from_millis(1)).await;
    let (second, _kept) = pool_with(&[&script()], Clock::of_runtime(), |_| {});
    second.is_counted_in(&metrics);
    let (other, _other_kept) =
        pool_with(&[&script()], Clock::of_runtime(), |spec| spec.name = "other".into());
    other.is_counted_in(&metrics);
    drop((first, kept));
    tokio::time::sleep(Duration::from_millis(1)).await;
    let fetches = [&other, &second].map(|pool| pool.tally().counts.fetches(FetchOutcome::Ok));
    assert_eq!(fetches, [1, 2]);
    assert!(Arc::ptr_eq(&other.tally().counts, &metrics.of_credential(&"other".into())));
}
