//! The token pool under paused time: how many fetches, when, and who waits for what. No test here takes wall time.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::sources::{Act, Script, failing, pool, pool_of, pool_with, spec, token};
use sidekey::clock::Clock;
use sidekey::config::Strategy;
use sidekey::credential::Claim;
use sidekey::credential::machine::State;
use sidekey::credential::{Certainty, LeaseError};
use sidekey::oauth::answer::AnswerError;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

const HOUR: Duration = Duration::from_secs(3600);

#[tokio::test(start_paused = true)]
async fn ten_thousand_leases_on_an_empty_pool_make_one_fetch() {
    let script = Script::new(|_| Act::after(Duration::from_secs(1), token(HOUR)));
    let (pool, _keeper) = pool(&script);
    let mut waiting = JoinSet::new();
    for _ in 0..10_000 {
        let pool = Arc::clone(&pool);
        waiting.spawn(async move { pool.lease(Claim::any()).await });
    }
    let leases = waiting.join_all().await;
    assert!(leases.iter().all(|lease| lease.as_ref().is_ok_and(|lease| lease.generation() == 1)));
    assert_eq!(script.fetches(), 1);
}

#[tokio::test(start_paused = true)]
async fn ten_thousand_rejections_of_one_generation_make_one_fetch() {
    let script = Script::new(|_| Act::after(Duration::from_secs(1), token(HOUR)));
    let (pool, _keeper) = pool(&script);
    let first = pool.lease(Claim::any()).await.unwrap();
    let mut waiting = JoinSet::new();
    for _ in 0..10_000 {
        let (pool, first) = (Arc::clone(&pool), first.clone());
        waiting.spawn(async move {
            let verdict = pool.reject(&first, Certainty::Likely, false);
            pool.replacement(&first, verdict).await
        });
    }
    let newer = waiting.join_all().await;
    assert!(newer.iter().all(|lease| lease.as_ref().is_some_and(|lease| lease.generation() == 2)));
    assert_eq!(script.fetches(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_late_rejection_does_not_retire_its_successor() {
    let script = Script::new(|_| Act::now(token(HOUR)));
    let (pool, _keeper) = pool(&script);
    let first = pool.lease(Claim::any()).await.unwrap();
    let verdict = pool.reject(&first, Certainty::Definite, false);
    let second = pool.replacement(&first, verdict).await.unwrap();
    assert_eq!(second.generation(), 2);
    let late = pool.reject(&first, Certainty::Definite, false);
    let again = pool.replacement(&first, late).await.unwrap();
    assert_eq!((again.generation(), script.fetches()), (2, 2));
    assert_eq!(pool.try_lease(Claim::any()).unwrap().generation(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_day_with_tokens_of_an_hour_makes_about_a_fetch_an_hour_at_jittered_moments() {
    let script = Script::new(|_| Act::now(token(HOUR)));
    let (pool, _keeper) = pool(&script);
    let end = Instant::now() + 24 * HOUR;
    while Instant::now() < end {
        sleep(Duration::from_secs(60)).await;
        assert!(pool.try_lease(Claim::any()).is_some());
    }
    assert!((14..=34).contains(&script.fetches()), "{}", script.fetches());
    let gaps: Vec<_> = script.moments().windows(2).map(|pair| pair[1] - pair[0]).collect();
    let (least, most) = (gaps.iter().min().unwrap(), gaps.iter().max().unwrap());
    // Timers have a granularity of a millisecond.
    assert!(
        *least >= Duration::from_secs(2700) && *most <= Duration::from_millis(3_060_010),
        "{least:?} {most:?}"
    );
    assert!(most.saturating_sub(*least) > Duration::from_secs(30), "not jittered: {least:?} {most:?}");
}

#[tokio::test(start_paused = true)]
async fn an_outage_shorter_than_the_margin_is_not_noticed() {
    // Fresh tokens are refreshed after 45–51 min; the endpoint is down from minute 40 to 58.
    let start = Instant::now();
    let down = move || (40 * 60..58 * 60).contains(&start.elapsed().as_secs());
    let script = Script::new(move |_| if down() { failing() } else { Act::now(token(HOUR)) });
    let (pool, _keeper) = pool(&script);
    pool.lease(Claim::any()).await.unwrap();
    for _ in 0..90 * 60 {
        sleep(Duration::from_secs(1)).await;
        assert!(pool.try_lease(Claim::any()).is_some(), "at {:?}", start.elapsed());
    }
    assert!(script.fetches() > 3, "it was tried during the outage");
}

#[tokio::test(start_paused = true)]
async fn a_longer_outage_fails_closed_exactly_at_expiry_and_heals() {
    let start = Instant::now();
    let down = move || (40 * 60..80 * 60).contains(&start.elapsed().as_secs());
    let script = Script::new(move |_| if down() { failing() } else { Act::now(token(HOUR)) });
    let (pool, _keeper) = pool(&script);
    pool.lease(Claim::any()).await.unwrap();
    sleep(HOUR - Duration::from_millis(2) - start.elapsed()).await;
    assert!(pool.try_lease(Claim::any()).is_some(), "the old token serves until it expires");
    sleep(Duration::from_millis(4)).await;
    assert!(pool.try_lease(Claim::any()).is_none(), "and not a moment longer");
    let refused = pool.lease(Claim::any()).await.unwrap_err();
    assert!(
        matches!(refused, LeaseError::Unavailable { retry_after, .. } if retry_after >= Duration::from_secs(1))
    );
    assert_eq!(pool.records()[0].state, State::Failing);
    // A passing error is tried again within half a minute.
    sleep(80 * Duration::from_secs(60) + Duration::from_secs(31) - start.elapsed()).await;
    assert_eq!(pool.try_lease(Claim::any()).unwrap().generation(), 2);
    assert_eq!(pool.records()[0].state, State::Ready);
}

#[tokio::test(start_paused = true)]
async fn no_lifetime_makes_a_busy_loop() {
    let ten_years = 10 * 365 * 24 * HOUR;
    // Lifetime, and the most fetches that an hour may cost.
    let rows = [
        (Duration::from_millis(1), 36_001),
        (Duration::from_millis(100), 36_001),
        (Duration::from_secs(1), 4_801),
        (Duration::from_secs(2), 2_401),
        (Duration::from_secs(60), 81),
        (HOUR, 2),
        (ten_years, 1),
    ];
    for (lifetime, most) in rows {
        let script = Script::new(move |_| Act::now(token(lifetime)));
        let (pool, _keeper) = pool(&script);
        pool.lease(Claim::any()).await.unwrap();
        sleep(HOUR).await;
        assert!(script.fetches() <= most, "{lifetime:?}: {} fetches", script.fetches());
        assert!(script.fetches() >= most / 2, "{lifetime:?}: {} fetches", script.fetches());
    }
}

#[tokio::test(start_paused = true)]
async fn tokens_that_are_dead_on_arrival_are_failures_that_back_off() {
    let script = Script::new(|_| Act::now(Err(AnswerError::ExpiredOnArrival.into())));
    let (pool, _keeper) = pool(&script);
    assert!(pool.lease(Claim::any()).await.is_err());
    sleep(HOUR).await;
    assert!(script.fetches() < 400, "{}", script.fetches());
}

#[tokio::test(start_paused = true)]
async fn a_token_that_spends_its_lifetime_on_the_way_is_not_leased() {
    let script = Script::new(|_| Act::after(Duration::from_secs(3), token(Duration::from_secs(2))));
    let (pool, _keeper) = pool(&script);
    assert!(pool.lease(Claim::any()).await.is_err());
    assert!(script.fetches() <= 5, "{}", script.fetches());
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_goes_away_does_not_cancel_the_fetch_for_the_others() {
    let script = Script::new(|_| Act::after(Duration::from_secs(2), token(HOUR)));
    let (pool, _keeper) = pool(&script);
    let gone = tokio::spawn({
        let pool = Arc::clone(&pool);
        async move { pool.lease(Claim::any()).await }
    });
    let stays = tokio::spawn({
        let pool = Arc::clone(&pool);
        async move { pool.lease(Claim::any()).await }
    });
    sleep(Duration::from_secs(1)).await;
    gone.abort();
    assert_eq!(stays.await.unwrap().unwrap().generation(), 1);
    assert_eq!(script.fetches(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_token_endpoint_that_hangs_does_not_hold_up_another_credential() {
    let hangs = Script::new(|_| Act::after(HOUR, token(HOUR)));
    let answers = Script::new(|_| Act::now(token(HOUR)));
    let (_hanging, _keeper) = pool_of(spec(&vec![&hangs; 100]), Clock::of_runtime());
    let (pool, _other_keeper) = pool_of(spec(&[&answers]), Clock::of_runtime());
    assert_eq!(pool.lease(Claim::any()).await.unwrap().generation(), 1);
    assert_eq!(hangs.fetches(), 32, "as many at once as one credential may have");
}

#[tokio::test(start_paused = true)]
async fn those_who_wait_wait_so_long_and_are_so_many() {
    let script = Script::new(|_| Act::after(Duration::from_secs(60), token(HOUR)));
    let (pool, _keeper) = pool_with(&[&script], Clock::of_runtime(), |spec| spec.lease_queue = 3);
    let begun = Instant::now();
    let full = Arc::new(AtomicUsize::new(0));
    let mut waiting = JoinSet::new();
    for _ in 0..5 {
        let (pool, full) = (Arc::clone(&pool), Arc::clone(&full));
        waiting.spawn(async move {
            if let Err(LeaseError::QueueFull { .. }) = pool.lease(Claim::any()).await {
                full.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    waiting.join_all().await;
    assert_eq!(full.load(Ordering::Relaxed), 2);
    assert_eq!(begun.elapsed().as_secs(), 10, "lease_timeout");
    sleep(Duration::from_secs(60)).await;
    assert!(pool.lease(Claim::any()).await.is_ok(), "places are given back");
}

#[tokio::test(start_paused = true)]
async fn a_permanent_error_fails_at_once_and_is_tried_slowly() {
    let script = Script::new(|_| Act::now(Err(invalid_client().into())));
    let (pool, _keeper) = pool(&script);
    let begun = Instant::now();
    assert!(pool.lease(Claim::any()).await.is_err());
    assert_eq!(begun.elapsed(), Duration::ZERO, "nothing to wait for");
    assert_eq!(pool.records()[0].state, State::Dead);
    sleep(HOUR).await;
    assert!((6..=25).contains(&script.fetches()), "{}", script.fetches());
}

#[tokio::test(start_paused = true)]
async fn a_changed_secret_is_tried_at_once_and_the_old_token_serves_until_the_new_one_is_there() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("secret");
    std::fs::write(&path, "old").unwrap();
    let script = Script::with_file(path.clone(), |_| Act::after(Duration::from_secs(3), token(HOUR)));
    let (pool, _keeper) = pool(&script);
    assert_eq!(pool.lease(Claim::any()).await.unwrap().generation(), 1);
    std::fs::write(&path, "longer").unwrap();
    sleep(Duration::from_secs(2)).await;
    assert_eq!((script.fetches(), pool.try_lease(Claim::any()).unwrap().generation()), (2, 1));
    sleep(Duration::from_secs(3)).await;
    assert_eq!(pool.try_lease(Claim::any()).unwrap().generation(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_mended_secret_ends_the_slow_retries_of_a_permanent_error() {
    let folder = tempfile::tempdir().unwrap();
    let (path, other) = (folder.path().join("secret"), folder.path().join("other"));
    std::fs::write(&path, "wrong").unwrap();
    let mended = other.clone();
    let script = Script::with_file(path.clone(), move |_| {
        if mended.exists() { Act::now(Err(invalid_client().into())) } else { Act::now(token(HOUR)) }
    });
    std::fs::write(&other, "right").unwrap();
    let (pool, _keeper) = pool(&script);
    assert!(pool.lease(Claim::any()).await.is_err());
    sleep(Duration::from_secs(5)).await;
    assert_eq!(script.fetches(), 1, "a permanent error is tried slowly");
    std::fs::rename(&other, &path).unwrap();
    sleep(Duration::from_secs(2)).await;
    assert_eq!(pool.try_lease(Claim::any()).unwrap().generation(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_fails_half_of_the_time_fails_nobody() {
    let script =
        Script::new(|call| if call % 2 == 0 { failing() } else { Act::now(token(Duration::from_secs(2))) });
    let (pool, _keeper) = pool(&script);
    for _ in 0..600 {
        sleep(Duration::from_millis(100)).await;
        pool.lease(Claim::any()).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_machine_that_slept_does_not_send_a_token_that_expired_meanwhile() {
    let script = Script::new(|_| Act::now(token(HOUR)));
    let clock = Clock::of_runtime();
    let (pool, _keeper) = pool_with(&[&script], clock.clone(), |_| {});
    pool.lease(Claim::any()).await.unwrap();
    clock.suspend(2 * HOUR);
    assert!(pool.try_lease(Claim::any()).is_none(), "timers have not moved, but the token is dead");
    assert_eq!(pool.lease(Claim::any()).await.unwrap().generation(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_wall_clock_that_jumps_throws_no_good_token_away() {
    let script = Script::new(|_| Act::now(token(HOUR)));
    let clock = Clock::of_runtime();
    let (pool, _keeper) = pool_with(&[&script], clock.clone(), |_| {});
    pool.lease(Claim::any()).await.unwrap();
    clock.step_wall(365 * 24 * HOUR);
    assert_eq!(pool.try_lease(Claim::any()).unwrap().generation(), 1, "it serves on");
    // It may be the wall clock that is right, after a pause of the whole machine: so a new one is fetched, once.
    sleep(Duration::from_secs(60)).await;
    assert_eq!(pool.try_lease(Claim::any()).unwrap().generation(), 2);
    sleep(Duration::from_secs(600)).await;
    assert_eq!(script.fetches(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_permission_error_does_not_cost_a_fetch_for_each_request() {
    let script = Script::new(|_| Act::now(token(HOUR)));
    let (pool, _keeper) = pool(&script);
    // Every second, one request is refused whatever its token, and another one is accepted.
    for _ in 0..1800 {
        let lease = pool.lease(Claim::any()).await.unwrap();
        pool.accept(&lease, false);
        let verdict = pool.reject(&lease, Certainty::Possible, false);
        if let Some(newer) = pool.replacement(&lease, verdict).await {
            pool.accept(&newer, false);
            assert!(pool.replacement(&newer, pool.reject(&newer, Certainty::Possible, true)).await.is_none());
        }
        sleep(Duration::from_secs(1)).await;
    }
    assert!((2..=12).contains(&script.fetches()), "{}", script.fetches());
}

#[tokio::test(start_paused = true)]
async fn a_refusal_that_may_be_a_permission_leaves_the_token_in_force_for_the_others() {
    let script =
        Script::new(|call| Act::after(Duration::from_secs(if call == 0 { 0 } else { 5 }), token(HOUR)));
    let (pool, _keeper) = pool(&script);
    let lease = pool.lease(Claim::any()).await.unwrap();
    let _ = pool.reject(&lease, Certainty::Possible, false);
    assert_eq!(pool.try_lease(Claim::any()).unwrap().generation(), 1);
    let _ = pool.reject(&lease, Certainty::Likely, false);
    assert!(pool.try_lease(Claim::any()).is_none(), "a 401 retires it");
    assert_eq!(pool.lease(Claim::any()).await.unwrap().generation(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_token_that_is_revoked_again_and_again_is_fetched_again_and_again() {
    let script = Script::new(|_| Act::now(token(HOUR)));
    let (pool, _keeper) = pool(&script);
    for round in 1..=50 {
        let lease = pool.lease(Claim::any()).await.unwrap();
        assert_eq!(lease.generation(), round);
        pool.accept(&lease, round > 1);
        sleep(Duration::from_millis(500)).await;
        let verdict = pool.reject(&lease, Certainty::Likely, false);
        assert!(pool.replacement(&lease, verdict).await.is_some(), "round {round}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_refused_request_outlasts_fetches_that_fail() {
    let script = Script::new(|call| if matches!(call, 1 | 2) { failing() } else { Act::now(token(HOUR)) });
    let (pool, _keeper) = pool(&script);
    let lease = pool.lease(Claim::any()).await.unwrap();
    let verdict = pool.reject(&lease, Certainty::Likely, false);
    assert_eq!(pool.replacement(&lease, verdict).await.unwrap().generation(), 2);
    assert_eq!(script.fetches(), 4);
}

#[tokio::test(start_paused = true)]
async fn a_request_that_is_refused_just_after_a_failed_refresh_waits_for_the_next_try() {
    let script = Script::new(|call| if call == 1 { failing() } else { Act::now(token(HOUR)) });
    let (pool, _keeper) = pool(&script);
    let lease = pool.lease(Claim::any()).await.unwrap();
    while script.fetches() < 2 {
        sleep(Duration::from_millis(10)).await;
    }
    let verdict = pool.reject(&lease, Certainty::Likely, false);
    assert_eq!(pool.replacement(&lease, verdict).await.unwrap().generation(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_takes_no_token_out_of_force_while_its_client_is_unknown_to_the_endpoint() {
    let script =
        Script::new(|call| Act::now(if call == 0 { token(HOUR) } else { Err(invalid_client().into()) }));
    let (pool, _keeper) = pool(&script);
    let lease = pool.lease(Claim::any()).await.unwrap();
    while script.fetches() < 2 {
        sleep(Duration::from_secs(1)).await;
    }
    let verdict = pool.reject(&lease, Certainty::Likely, false);
    assert!(pool.replacement(&lease, verdict).await.is_none());
    assert!(pool.try_lease(Claim::any()).is_some(), "the refusal may be wrong");
}

#[tokio::test(start_paused = true)]
async fn failover_goes_to_the_next_client_and_comes_back() {
    let start = Instant::now();
    let first = Script::new(move |_| {
        let revoked = (2 * 3600..4 * 3600).contains(&start.elapsed().as_secs());
        if revoked { Act::now(Err(invalid_client().into())) } else { Act::now(token(HOUR)) }
    });
    let second = Script::new(|_| Act::now(token(HOUR)));
    let (pool, _keeper) = pool_with(&[&first, &second], Clock::of_runtime(), |_| {});
    sleep(Duration::from_secs(1)).await;
    assert_eq!(pool.account_of(&pool.lease(Claim::any()).await.unwrap()), "client 0");
    sleep(3 * HOUR - start.elapsed()).await;
    assert_eq!(pool.account_of(&pool.lease(Claim::any()).await.unwrap()), "client 1");
    sleep(4 * HOUR + Duration::from_secs(601) - start.elapsed()).await;
    assert_eq!(pool.account_of(&pool.lease(Claim::any()).await.unwrap()), "client 0");
}

#[tokio::test(start_paused = true)]
async fn a_client_that_was_told_to_slow_down_rests_and_comes_back() {
    let scripts = [(); 3].map(|()| Script::new(|_| Act::now(token(HOUR))));
    let (pool, _keeper) =
        pool_with(&scripts.each_ref(), Clock::of_runtime(), |spec| spec.strategy = Strategy::Spread);
    sleep(Duration::from_secs(1)).await;
    let used = |count: usize| {
        let mut names: Vec<_> =
            (0..count).map(|_| pool.account_of(&pool.try_lease(Claim::any()).unwrap()).to_owned()).collect();
        names.sort();
        names.dedup();
        names
    };
    assert_eq!(used(3), ["client 0", "client 1", "client 2"], "in turns");
    let lease = pool.try_lease(Claim::any()).unwrap();
    let resting = pool.account_of(&lease).to_owned();
    pool.rest(&lease, Duration::from_secs(30));
    let of_others: Vec<_> =
        (0..100).map(|_| pool.account_of(&pool.try_lease(Claim::any()).unwrap()).to_owned()).collect();
    for name in ["client 0", "client 1", "client 2"] {
        let share = of_others.iter().filter(|used| *used == name).count();
        assert_eq!(share, if name == resting { 0 } else { 50 }, "{name}: the least recently used goes first");
    }
    sleep(Duration::from_secs(31)).await;
    assert!(used(3).contains(&resting));
}

fn invalid_client() -> AnswerError {
    AnswerError::OAuth {
        status: http::StatusCode::UNAUTHORIZED,
        error: "invalid_client".into(),
        description: None,
        retry_after: None,
    }
}
