//! What every kind of store must do, whichever it is.

use std::sync::Arc;
use std::time::Duration;

use sidekey::clock::Clock;
use sidekey::config::{Store, StoreKind};
use sidekey::secret::reader::SecretReader;
use sidekey::secret::{Secret, SecretSource};
use sidekey::store::{self, Backend, Key, Kind, Lock, StoreError};
use sidekey::tls::TlsFactory;
use tokio::task::JoinSet;

/// A store of a kind, and the time it goes by.
pub(crate) struct World {
    pub(crate) kind: StoreKind,
    pub(crate) keys: Vec<SecretSource>,
    pub(crate) clock: Clock,
}

pub(crate) type Opened = Arc<dyn Backend>;

/// An encryption key.
pub(crate) fn sealing(digit: char) -> SecretSource {
    SecretSource::Value(Secret::new(format!("{}0f", digit.to_string().repeat(62))))
}

impl World {
    pub(crate) async fn open(&self) -> Opened {
        self.try_open().await.expect("a store")
    }

    pub(crate) async fn try_open(&self) -> Result<Opened, StoreError> {
        let config = Store { kind: self.kind.clone(), encryption_keys: self.keys.clone() };
        store::open(&config, &TlsFactory::default(), &SecretReader::new([]), &self.clock).await
    }
}

/// All of it, each part on accounts of its own.
pub(crate) async fn all(world: &World) {
    entries_count_their_writes(&*world.open().await).await;
    keys_that_differ_share_nothing(&*world.open().await).await;
    one_of_many_writers_wins(&world.open().await).await;
    no_increment_is_lost(&world.open().await).await;
    one_has_the_lock(&*world.open().await).await;
    a_lock_ends_after_its_span(world, &*world.open().await).await;
    one_of_many_gets_the_lock(&world.open().await).await;
    an_announcement_changes_the_epoch(&*world.open().await).await;
    accounts_are_those_with_grants(&*world.open().await).await;
    a_lifetime_is_at_least_kept(&*world.open().await).await;
    if world.open().await.is_shared() {
        two_instances_share_everything(&*world.open().await, &*world.open().await).await;
    }
}

pub(crate) fn key(account: &str) -> Key {
    Key { kind: Kind::Grant, credential: "neon".into(), account: account.into(), issuer: "https://a".into() }
}

pub(crate) async fn content(store: &dyn Backend, key: &Key) -> Option<(u64, Vec<u8>)> {
    store.read(key).await.expect("read").map(|stored| (stored.revision, stored.content.to_vec()))
}

async fn write(store: &dyn Backend, key: &Key, expected: u64, content: &[u8]) -> Result<u64, StoreError> {
    store.write(key, expected, content, None).await
}

async fn take(store: &dyn Backend, key: &Key, span: Duration) -> Option<Box<dyn Lock>> {
    store.lock(key, span).await.expect("lock")
}

/// Tries until the lock is free.
pub(crate) async fn take_when_free(store: &dyn Backend, key: &Key, span: Duration) -> Box<dyn Lock> {
    let taken = async {
        loop {
            match take(store, key, span).await {
                Some(lock) => return lock,
                None => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(20), taken).await.expect("the lock gets free")
}

const LONG: Duration = Duration::from_secs(60);

async fn entries_count_their_writes(store: &dyn Backend) {
    let key = key("counted");
    assert_eq!(content(store, &key).await, None);
    for revision in [1, 5] {
        let refused = write(store, &key, revision, b"x").await;
        assert!(refused.expect_err("no entry").is_conflict());
    }
    assert_eq!(content(store, &key).await, None);
    let all_bytes: Vec<u8> = (0..=255).collect();
    let large = vec![7; store::MAX_CONTENT_BYTES];
    let contents: [&[u8]; 5] = [b"first", b"", &all_bytes, &large, b"last"];
    for (before, written) in (0..).zip(contents) {
        assert_eq!(write(store, &key, before, written).await.expect("write"), before + 1);
        assert_eq!(content(store, &key).await, Some((before + 1, written.to_vec())));
        for expected in [0, before, before + 2, u64::MAX].into_iter().filter(|it| *it != before + 1) {
            let refused = write(store, &key, expected, b"canary").await;
            assert!(refused.expect_err("stale").is_conflict(), "{expected}");
        }
        assert_eq!(content(store, &key).await, Some((before + 1, written.to_vec())));
    }
    let refused = write(store, &key, 5, &vec![0; store::MAX_CONTENT_BYTES + 1]).await;
    assert!(matches!(refused, Err(StoreError::TooLarge(_))));
    assert_eq!(content(store, &key).await, Some((5, b"last".to_vec())));
}

async fn keys_that_differ_share_nothing(store: &dyn Backend) {
    let one = key("shared");
    let keys = [
        one.clone(),
        Key { kind: Kind::Token, ..one.clone() },
        Key { issuer: "https://b".into(), ..one.clone() },
        Key { credential: "neo".into(), account: "nshared".into(), ..one.clone() },
        Key { account: "Shared".into(), ..one.clone() },
        Key { account: "../shared".into(), ..one.clone() },
        Key { account: "shared\n\"é".into(), ..one },
    ];
    for (index, key) in keys.iter().enumerate() {
        assert_eq!(write(store, key, 0, index.to_string().as_bytes()).await.expect("write"), 1, "{key}");
    }
    for (index, key) in keys.iter().enumerate() {
        assert_eq!(content(store, key).await, Some((1, index.to_string().into_bytes())), "{key}");
    }
}

async fn one_of_many_writers_wins(store: &Opened) {
    let mut writers = JoinSet::new();
    for writer in 0..8_u8 {
        let store = Arc::clone(store);
        writers.spawn(async move { (writer, write(&*store, &key("raced"), 0, &[writer]).await) });
    }
    let mut winners = Vec::new();
    for (writer, done) in writers.join_all().await {
        match done {
            Ok(revision) => winners.push((revision, vec![writer])),
            Err(error) => assert!(error.is_conflict(), "{error}"),
        }
    }
    assert_eq!(winners.len(), 1);
    assert_eq!(content(&**store, &key("raced")).await, winners.pop());
}

async fn no_increment_is_lost(store: &Opened) {
    let mut writers = JoinSet::new();
    for _ in 0..4 {
        let store = Arc::clone(store);
        writers.spawn(async move { increment(&*store, &key("incremented"), 5).await });
    }
    writers.join_all().await;
    assert_eq!(content(&**store, &key("incremented")).await, Some((20, b"20".to_vec())));
}

/// Adds one to the number in an entry, so many times.
pub(crate) async fn increment(store: &dyn Backend, key: &Key, times: u32) {
    let mut done = 0;
    while done < times {
        let (revision, text) = content(store, key).await.unwrap_or((0, b"0".to_vec()));
        let number: u64 = std::str::from_utf8(&text).expect("text").parse().expect("a number");
        match write(store, key, revision, (number + 1).to_string().as_bytes()).await {
            Ok(_) => done += 1,
            Err(error) => assert!(error.is_conflict(), "{error}"),
        }
    }
}

async fn one_has_the_lock(store: &dyn Backend) {
    let key = key("locked");
    let lock = take(store, &key, LONG).await.expect("free");
    assert!(lock.is_held().await.expect("asked"));
    assert!(lock.left() <= LONG && lock.left() > LONG / 2, "{:?}", lock.left());
    assert!(take(store, &key, LONG).await.is_none());
    // It guards neither another entry nor the entry itself.
    let other = take(store, &Key { issuer: "https://b".into(), ..key.clone() }, LONG).await.expect("free");
    write(store, &key, 0, b"x").await.expect("write");
    assert!(other.is_held().await.expect("asked"));
    lock.release().await.expect("released");
    let again = take(store, &key, LONG).await.expect("free at once");
    assert!(again.is_held().await.expect("asked"));
    drop(again);
    take_when_free(store, &key, LONG).await.release().await.expect("released");
    other.release().await.expect("released");
}

async fn a_lock_ends_after_its_span(world: &World, store: &dyn Backend) {
    let key = key("expiring");
    let span = Duration::from_millis(500);
    let former = take(store, &key, span).await.expect("free");
    assert!(take(store, &key, span).await.is_none());
    world.clock.suspend(span);
    let present = take_when_free(store, &key, LONG).await;
    assert_eq!(former.left(), Duration::ZERO);
    assert!(!former.is_held().await.expect("asked"));
    assert!(present.is_held().await.expect("asked"));
    former.release().await.expect("nothing to release is no error");
    assert!(present.is_held().await.expect("asked"));
    assert!(take(store, &key, LONG).await.is_none());
    // One that is dropped late does no harm either.
    let third = Key { account: "expiring, dropped".into(), ..key };
    let former = take(store, &third, span).await.expect("free");
    world.clock.suspend(span);
    let present = take_when_free(store, &third, LONG).await;
    drop(former);
    tokio::task::yield_now().await;
    assert!(present.is_held().await.expect("asked"));
    assert!(take(store, &third, LONG).await.is_none());
}

async fn one_of_many_gets_the_lock(store: &Opened) {
    let mut takers = JoinSet::new();
    for _ in 0..8 {
        let store = Arc::clone(store);
        takers.spawn(async move { take(&*store, &key("contended"), LONG).await });
    }
    let taken: Vec<_> = takers.join_all().await.into_iter().flatten().collect();
    assert_eq!(taken.len(), 1);
}

async fn an_announcement_changes_the_epoch(store: &dyn Backend) {
    let before = store.epoch().await.expect("epoch");
    assert_eq!(store.epoch().await.expect("epoch"), before);
    store.announce().await.expect("announced");
    let after = store.epoch().await.expect("epoch");
    assert_ne!(after, before);
    store.announce().await.expect("announced");
    assert!(![before, after].contains(&store.epoch().await.expect("epoch")));
}

async fn accounts_are_those_with_grants(store: &dyn Backend) {
    let of = |kind, account: &str, issuer: &str| Key {
        kind,
        credential: "listed".into(),
        account: account.into(),
        issuer: issuer.into(),
    };
    assert!(store.accounts("listed", "https://a").await.expect("accounts").is_empty());
    let keys = [
        of(Kind::Grant, "alice", "https://a"),
        of(Kind::Grant, "", "https://a"),
        of(Kind::Grant, "bob é", "https://a"),
        of(Kind::Token, "carol", "https://a"),
        of(Kind::Grant, "dave", "https://b"),
    ];
    for key in &keys {
        write(store, key, 0, b"x").await.expect("write");
        write(store, key, 1, b"y").await.expect("write");
    }
    let mut accounts = store.accounts("listed", "https://a").await.expect("accounts");
    accounts.sort();
    assert_eq!(accounts, ["", "alice", "bob é"].map(Arc::from));
    assert!(store.accounts("unlisted", "https://a").await.expect("accounts").is_empty());
}

async fn a_lifetime_is_at_least_kept(store: &dyn Backend) {
    let key = Key { kind: Kind::Token, ..key("lived") };
    assert_eq!(store.write(&key, 0, b"token", Some(LONG)).await.expect("write"), 1);
    assert_eq!(content(store, &key).await, Some((1, b"token".to_vec())));
    // Written without one, it stays.
    assert_eq!(write(store, &key, 1, b"kept").await.expect("write"), 2);
    assert_eq!(content(store, &key).await, Some((2, b"kept".to_vec())));
}

async fn two_instances_share_everything(one: &dyn Backend, two: &dyn Backend) {
    let key = key("instances");
    write(one, &key, 0, b"x").await.expect("write");
    assert_eq!(content(two, &key).await, Some((1, b"x".to_vec())));
    assert!(write(two, &key, 0, b"y").await.expect_err("stale").is_conflict());
    let lock = take(one, &key, LONG).await.expect("free");
    assert!(take(two, &key, LONG).await.is_none());
    lock.release().await.expect("released");
    assert!(take(two, &key, LONG).await.is_some());
    let before = two.epoch().await.expect("epoch");
    one.announce().await.expect("announced");
    assert_ne!(two.epoch().await.expect("epoch"), before);
}
