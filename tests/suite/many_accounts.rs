//! Ten thousand accounts in one pool: spread refreshes, small memory, and no token for those that nobody uses.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use crate::sources::{Act, Script, pool_with, token};
use sidekey::clock::Clock;
use sidekey::config::{Environment, LoadOptions, Source, Strategy, load};
use sidekey::credential::Claim;
use sidekey::credential::machine::State;
use sidekey::credential::{Credentials, Vault};
use sidekey::header::IllegalCharacter;
use sidekey::tls::TlsFactory;
use tokio::time::{Instant, sleep};

const ACCOUNTS: usize = 10_000;
const HOUR: Duration = Duration::from_secs(3600);

#[tokio::test(start_paused = true)]
async fn refreshes_are_spread_and_there_are_no_more_than_needed() {
    let script = Script::new(|_| Act::after(Duration::from_millis(50), token(HOUR)));
    let (pool, _keeper) = pool_with(&vec![&script; ACCOUNTS], Clock::of_runtime(), |_| {});
    let start = Instant::now();
    sleep(6 * HOUR).await;
    assert!(pool.records().iter().all(|record| record.state == State::Ready));
    let mut by_second = BTreeMap::<u64, usize>::new();
    for moment in script.moments() {
        *by_second.entry((moment - start).as_secs()).or_default() += 1;
    }
    // Six hours at one refresh in 45–51 minutes: seven or eight each, after the first.
    let total = script.fetches();
    assert!((8 * ACCOUNTS..=9 * ACCOUNTS).contains(&total), "{total}");
    let busiest = by_second.range(60..).map(|(_, fetches)| *fetches).max().unwrap();
    // 10,000 over the six minutes between 75 % and 85 % of an hour are 28 a second.
    assert!(busiest <= 3 * 28, "{busiest} fetches in one second");
    assert!(
        by_second.values().all(|fetches| *fetches <= 700),
        "at most 32 at once, 50 ms each, even when all are cold"
    );
}

#[tokio::test(start_paused = true)]
async fn accounts_that_nobody_uses_are_let_go_and_come_back_when_wanted() {
    let script = Script::new(|_| Act::now(token(HOUR)));
    let (pool, _keeper) = pool_with(&[&script; 3], Clock::of_runtime(), |spec| {
        spec.idle_account = Some(2 * HOUR);
        spec.strategy = Strategy::Failover;
    });
    for _ in 0..10 * 60 {
        sleep(Duration::from_secs(60)).await;
        assert_eq!(pool.account_of(&pool.lease(Claim::any()).await.unwrap()), "client 0");
    }
    let states: Vec<_> = pool.records().iter().map(|record| record.state).collect();
    assert_eq!(states, [State::Ready, State::Idle, State::Idle]);
    let before = script.fetches();
    sleep(10 * HOUR).await;
    assert!(pool.records().iter().all(|record| record.state == State::Idle));
    assert!(script.fetches() <= before + 4, "{} after {before}", script.fetches());
    assert!(pool.lease(Claim::any()).await.is_ok(), "it comes back when it is wanted");
}

#[tokio::test(start_paused = true)]
async fn an_account_that_was_let_go_while_it_failed_comes_back_when_it_is_wanted() {
    let start = Instant::now();
    let script = Script::new(move |_| {
        let revoked = start.elapsed() < 6 * HOUR;
        if revoked { Act::now(Err(IllegalCharacter.into())) } else { Act::now(token(HOUR)) }
    });
    let (pool, _keeper) =
        pool_with(&[&script], Clock::of_runtime(), |spec| spec.idle_account = Some(2 * HOUR));
    assert!(pool.lease(Claim::any()).await.is_err());
    sleep(5 * HOUR).await;
    assert_eq!(pool.records()[0].state, State::Idle, "nobody asked for hours");
    assert!(pool.lease(Claim::any()).await.is_err(), "still refused");
    sleep(2 * HOUR).await;
    assert!(pool.lease(Claim::any()).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn an_account_in_use_again_is_refreshed_ahead_again() {
    let script = Script::new(|_| Act::now(token(HOUR)));
    let (pool, _keeper) =
        pool_with(&[&script], Clock::of_runtime(), |spec| spec.idle_account = Some(HOUR / 2));
    sleep(Duration::from_secs(52 * 60)).await;
    assert_eq!(script.fetches(), 1, "nobody used it, so it was not refreshed");
    for _ in 0..3 * 60 {
        sleep(Duration::from_secs(60)).await;
        assert!(
            pool.try_lease(Claim::any()).is_some(),
            "its token serves on, and the next is there before it ends"
        );
    }
}

#[test]
fn an_account_takes_less_than_a_kibibyte_beyond_its_token() {
    let per_account = |bytes: i64| usize::try_from(bytes).unwrap() / ACCOUNTS;
    // With real sources, before the first token.
    let mut text = String::from(
        "[route.r]\nupstream = 'http://localhost:1'\n[route.r.credential]\ntype = 'client_credentials'\n\
         token_url = 'http://localhost:1/token'\nclients = [\n",
    );
    for number in 0..ACCOUNTS {
        let _ = writeln!(
            text,
            "{{ name = 'client-{number}', client_id = 'id-{number}', client_secret = {{ file = '/run/secrets/client-{number}' }} }},"
        );
    }
    text.push(']');
    let source = Source::Text { name: "test".into(), text };
    let options = LoadOptions { check_secrets: false };
    let config = load(&source, &Environment::default(), options).unwrap().config;
    let mut kept = None;
    let cold = allocation_counter::measure(|| {
        kept = Some({
            let clock = Clock::system();
            let (tls, vault) = (TlsFactory::default(), Vault::in_memory(&clock));
            Credentials::of(&config, &tls, &clock, &vault, &Credentials::default()).unwrap()
        });
    });
    drop(kept);
    // With tokens, and everything that keeps them fresh.
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    let script = Script::new(|_| Act::now(token(HOUR)));
    let mut kept = None;
    let warm = allocation_counter::measure(|| {
        runtime.block_on(async {
            kept = Some(pool_with(&vec![&script; ACCOUNTS], Clock::of_runtime(), |_| {}));
            sleep(2 * HOUR).await;
        });
    });
    let pool = Arc::clone(&kept.as_ref().unwrap().0);
    assert!(pool.records().iter().all(|record| record.state == State::Ready));
    let (cold, warm) = (per_account(cold.bytes_current), per_account(warm.bytes_current));
    println!("bytes for each account: {cold} cold with its source, {warm} warm with its token");
    assert!(cold <= 1024, "{cold} bytes");
    assert!(warm <= 1024, "{warm} bytes");
}
