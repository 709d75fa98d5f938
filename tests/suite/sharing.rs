//! Tokens that replicas share: many of them make one fetch.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::sync::Arc;
use std::time::Duration;

use crate::sources::{Act, Script, failing, token};
use crate::support::faulty::Faulty;
use sidekey::clock::Clock;
use sidekey::credential::Vault;
use sidekey::credential::sharing::SharedSource;
use sidekey::credential::source::{Fetched, TokenSource, Wish};
use sidekey::store::{Key, Kind};

const LIMIT: Duration = Duration::from_secs(10);
const HOUR: Duration = Duration::from_secs(3600);

/// One replica's source: its own connection to the store, and the endpoint that all ask.
fn replica(store: &Arc<Faulty>, endpoint: &Arc<Script>, account: &str) -> Arc<SharedSource> {
    replica_at(store, endpoint, account, Clock::of_runtime())
}

fn replica_at(store: &Arc<Faulty>, endpoint: &Arc<Script>, account: &str, clock: Clock) -> Arc<SharedSource> {
    let key = Key {
        kind: Kind::Token,
        credential: "aura".into(),
        account: account.into(),
        issuer: "http://127.0.0.1:1/token".into(),
    };
    let vault = Vault::new(Arc::clone(store) as _, clock.clone());
    let inner = Arc::clone(endpoint) as Arc<dyn TokenSource>;
    Arc::new(SharedSource { inner, key, vault, limit: LIMIT, clock })
}

/// All of them fetch at the same time.
async fn at_once(replicas: &[Arc<SharedSource>], wish: &Wish) -> Vec<Fetched> {
    let mut running = tokio::task::JoinSet::new();
    for source in replicas {
        let (source, wish) = (Arc::clone(source), wish.clone());
        running.spawn(async move { source.fetch(wish).await.unwrap() });
    }
    running.join_all().await
}

#[tokio::test(start_paused = true)]
async fn eight_replicas_make_one_fetch_for_each_token() {
    let store = Faulty::new();
    let endpoint = Script::new(|_| Act::after(Duration::from_millis(300), token(HOUR)));
    let clock = Clock::of_runtime();
    let replicas: Vec<_> = (0..8).map(|_| replica_at(&store, &endpoint, "first", clock.clone())).collect();
    let first = at_once(&replicas, &Wish::default()).await;
    assert_eq!(endpoint.fetches(), 1);
    assert!(first.iter().all(|fetched| fetched.header == first[0].header));
    // It is refused, or due: one of them fetches another, and the others take that.
    let second = at_once(&replicas, &Wish { unlike: Some(first[0].header.clone()) }).await;
    assert_eq!(endpoint.fetches(), 2);
    assert!(second.iter().all(|fetched| fetched.header == second[0].header));
    assert_ne!(first[0].header, second[0].header);
    // Whoever starts later takes what is there, for what is left of it.
    tokio::time::sleep(HOUR / 2).await;
    let late = replica_at(&store, &endpoint, "first", clock).fetch(Wish::default()).await.unwrap();
    assert_eq!((endpoint.fetches(), &late.header), (2, &second[0].header));
    let left = late.span.lifetime.unwrap();
    assert!(left <= HOUR / 2 && left > HOUR / 2 - Duration::from_secs(5), "{left:?}");
    // Near its end it is not worth taking any more.
    tokio::time::sleep(HOUR / 2 - Duration::from_secs(60)).await;
    replicas[0].fetch(Wish::default()).await.unwrap();
    assert_eq!(endpoint.fetches(), 3);
}

#[tokio::test(start_paused = true)]
async fn other_clients_have_tokens_of_their_own() {
    let store = Faulty::new();
    let endpoint = Script::new(|_| Act::now(token(HOUR)));
    let first = replica(&store, &endpoint, "first").fetch(Wish::default()).await.unwrap();
    let second = replica(&store, &endpoint, "second").fetch(Wish::default()).await.unwrap();
    assert_eq!(endpoint.fetches(), 2);
    assert_ne!(first.header, second.header);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_fails_costs_no_token() {
    let store = Faulty::new();
    let endpoint = Script::new(|_| Act::now(token(HOUR)));
    store.fail_writes_after(0);
    let one = replica(&store, &endpoint, "first");
    one.fetch(Wish::default()).await.unwrap();
    one.fetch(Wish::default()).await.unwrap();
    assert_eq!(endpoint.fetches(), 2, "each fetches for itself");
}

#[tokio::test(start_paused = true)]
async fn whoever_fails_to_fetch_leaves_the_turn_to_the_next() {
    let store = Faulty::new();
    let endpoint = Script::new(|call| if call == 0 { failing() } else { Act::now(token(HOUR)) });
    let one = replica(&store, &endpoint, "first");
    one.fetch(Wish::default()).await.unwrap_err();
    replica(&store, &endpoint, "first").fetch(Wish::default()).await.unwrap();
    assert_eq!(endpoint.fetches(), 2);
}
