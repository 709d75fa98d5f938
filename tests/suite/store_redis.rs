//! The store on Redis, against servers of its own: `cargo test --test suite store_redis -- --ignored`.
//!
//! The program is `$REDIS_SERVER`, or `redis-server` in the path.

mod server;
use std::sync::Arc;
use std::time::Duration;

use crate::conformance::{World, content, key, sealing};
use redis::cmd;
use rustix::process::Signal;
use server::{Cutter, PASSWORD, Server, password, world};
use sidekey::config::{RedisStore, StoreKind, TlsSettings};
use sidekey::secret::{Secret, SecretSource};
use sidekey::store::{EntryFault, Kind, RedisFault, StoreError};

const LONG: Duration = Duration::from_secs(60);

fn with(world: World, change: impl FnOnce(&mut RedisStore)) -> World {
    let StoreKind::Redis(mut redis) = world.kind else { panic!("a Redis store") };
    change(&mut redis);
    World { kind: StoreKind::Redis(redis), ..world }
}

fn fault(error: StoreError) -> RedisFault {
    assert!(!error.to_string().contains("canary"), "{error}");
    match error {
        StoreError::Redis { fault, .. } => fault,
        other => panic!("{other}"),
    }
}

#[tokio::test]
#[ignore = "needs redis-server"]
async fn redis_does_what_every_store_must() {
    let server = Server::start(&[]).await;
    for (prefix, keys) in [("open", vec![]), ("sealed", vec![sealing('a')])] {
        let world = with(world(server.port), |redis| redis.prefix = prefix.to_owned());
        crate::conformance::all(&World { keys, ..world }).await;
    }
    // One slot of a cluster, and nothing outside the prefix.
    let names: Vec<String> = server.say(cmd("KEYS").arg("*")).await;
    assert!(names.len() > 10);
    for name in names {
        assert!(name.starts_with("{open}:") || name.starts_with("{sealed}:"), "{name}");
    }
}

#[tokio::test]
#[ignore = "needs redis-server"]
async fn a_user_with_the_rights_that_the_error_names_can_do_all() {
    let server = Server::start(&[]).await;
    let text = RedisFault::Permission.to_string();
    let rights = text.split('`').nth(1).expect("the rights").replace("PREFIX", "sidekey");
    let mut create = cmd("ACL");
    create.arg("SETUSER").arg("sidekey").arg("on").arg(">canary-user");
    let _: () = server.say(create.clone().arg(rights.split(' ').collect::<Vec<_>>())).await;
    let as_user = |redis: &mut RedisStore| {
        redis.username = Some("sidekey".to_owned());
        redis.password = Some(SecretSource::Value(Secret::new("canary-user")));
    };
    crate::conformance::all(&with(world(server.port), as_user)).await;
    // With one right less, the error says so.
    let _: () = server.say(create.clone().arg("-hset")).await;
    let store = with(world(server.port), as_user).open().await;
    let refused = store.write(&key("denied"), 0, b"canary", None).await.expect_err("denied");
    assert_eq!(fault(refused), RedisFault::Permission);
    let _: () = server.say(create.arg("-hmget")).await;
    assert_eq!(fault(store.read(&key("denied")).await.err().expect("denied")), RedisFault::Permission);
}

#[tokio::test]
#[ignore = "needs redis-server"]
async fn a_wrong_password_is_named_and_a_rotated_one_picked_up() {
    let mut server = Server::start(&[]).await;
    let wrong = |source: Option<SecretSource>| with(world(server.port), |redis| redis.password = source);
    for source in [None, Some(SecretSource::Value(Secret::new("canary-wrong")))] {
        let store = wrong(source.clone()).open().await;
        assert_eq!(fault(store.epoch().await.expect_err("refused")), RedisFault::Login);
        let elsewhere = with(wrong(source), |redis| redis.database = 3).open().await;
        assert_eq!(fault(elsewhere.epoch().await.expect_err("refused")), RedisFault::Login);
    }
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("password");
    std::fs::write(&path, PASSWORD).expect("write");
    let store = wrong(Some(SecretSource::File(path.clone()))).open().await;
    store.epoch().await.expect("the right password");
    server.restart(&["--requirepass", "canary-rotated"]).await;
    assert_eq!(fault(store.epoch().await.expect_err("refused")), RedisFault::Login);
    std::fs::write(&path, "canary-rotated").expect("write");
    store.epoch().await.expect("the rotated password");
    std::fs::remove_file(&path).expect("remove");
    server.restart(&["--requirepass", "canary-again"]).await;
    let error = store.epoch().await.expect_err("no password");
    assert!(matches!(error, StoreError::Secret { what: "store.password", .. }), "{error}");
}

#[tokio::test]
#[ignore = "needs redis-server"]
async fn a_database_is_chosen_and_a_wrong_one_named() {
    let server = Server::start(&[]).await;
    let store = with(world(server.port), |redis| redis.database = 3).open().await;
    store.write(&key("alice"), 0, b"x", None).await.expect("write");
    assert_eq!(content(&*world(server.port).open().await, &key("alice")).await, None);
    let store = with(world(server.port), |redis| redis.database = 99).open().await;
    assert_eq!(fault(store.epoch().await.expect_err("no such database")), RedisFault::Database);
}

#[tokio::test]
#[ignore = "needs redis-server"]
async fn a_read_only_replica_is_named() {
    let primary = Server::start(&[]).await;
    let port = primary.port.to_string();
    let replicates = ["--replicaof", "127.0.0.1", &port, "--masterauth", PASSWORD];
    let replica = Server::start(&[&replicates[..], &["--replica-serve-stale-data", "no"]].concat()).await;
    let (store, on_replica) = (world(primary.port).open().await, world(replica.port).open().await);
    store.write(&key("alice"), 0, b"x", None).await.expect("write");
    let replicated = async {
        while !matches!(on_replica.read(&key("alice")).await, Ok(Some(_))) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), replicated).await.expect("replicated");
    let refused = on_replica.write(&key("alice"), 1, b"canary", None).await.expect_err("read-only");
    assert_eq!(fault(refused), RedisFault::ReadOnly);
    assert_eq!(
        fault(on_replica.lock(&key("alice"), LONG).await.expect_err("read-only")),
        RedisFault::ReadOnly
    );
    assert_eq!(fault(on_replica.announce().await.expect_err("read-only")), RedisFault::ReadOnly);
    drop(primary);
    let orphaned = async {
        loop {
            match on_replica.read(&key("alice")).await {
                Ok(_) => tokio::time::sleep(Duration::from_millis(20)).await,
                Err(error) => return fault(error),
            }
        }
    };
    let fault = tokio::time::timeout(Duration::from_secs(30), orphaned).await.expect("noticed");
    assert_eq!(fault, RedisFault::MasterDown);
    // It becomes the primary: the same store goes on.
    let _: () = replica.say(cmd("REPLICAOF").arg("NO").arg("ONE")).await;
    assert_eq!(on_replica.write(&key("alice"), 1, b"y", None).await.expect("write"), 2);
}

#[tokio::test]
#[ignore = "needs redis-server"]
async fn a_server_that_is_gone_is_an_error_until_it_is_back() {
    let mut server = Server::start(&[]).await;
    let store = world(server.port).open().await;
    store.write(&key("alice"), 0, b"x", None).await.expect("write");
    let lock = store.lock(&key("alice"), LONG).await.expect("lock").expect("free");
    server.kill().await;
    for _ in 0..2 {
        let error = store.read(&key("alice")).await.err().expect("gone");
        let is_gone = matches!(error, StoreError::Unreachable(_))
            || matches!(error, StoreError::Redis { fault: RedisFault::Lost, .. });
        assert!(is_gone, "{error}");
    }
    assert!(lock.is_held().await.is_err());
    // Back, and empty: nobody is made to believe that something is there, or that a lock is held.
    server.restart(&[]).await;
    assert_eq!(content(&*store, &key("alice")).await, None);
    assert!(!lock.is_held().await.expect("asked"));
    let other = store.lock(&key("alice"), LONG).await.expect("lock").expect("free");
    assert!(!lock.is_held().await.expect("asked"));
    lock.release().await.expect("released");
    assert!(other.is_held().await.expect("asked"));
    assert!(store.write(&key("alice"), 1, b"y", None).await.expect_err("empty").is_conflict());
    assert_eq!(store.write(&key("alice"), 0, b"y", None).await.expect("write"), 1);
    // A connection that died while nobody used it is nobody's error.
    server.restart(&[]).await;
    assert_eq!(store.write(&key("alice"), 0, b"z", None).await.expect("write"), 1);
}

#[tokio::test]
#[ignore = "needs redis-server"]
async fn opening_needs_no_server() {
    let port = server::free_port();
    let store = world(port).open().await;
    let error = store.epoch().await.expect_err("nobody is there");
    assert!(matches!(error, StoreError::Unreachable(_)), "{error}");
    let _server = Server::start_on(port, &[]).await;
    assert_eq!(store.epoch().await.expect("it is there"), 0);
}

#[tokio::test]
#[ignore = "needs redis-server"]
async fn a_stopped_server_costs_no_more_than_the_timeout() {
    let server = Server::start(&[]).await;
    let limit = Duration::from_millis(300);
    let world = with(world(server.port), |redis| redis.timeout = limit);
    let store = world.open().await;
    store.write(&key("alice"), 0, b"x", None).await.expect("write");
    server.signal(Signal::STOP);
    let begun = tokio::time::Instant::now();
    let (read, lock, write) = {
        let (alice, bob) = (key("alice"), key("bob"));
        tokio::join!(store.read(&alice), store.lock(&alice, LONG), store.write(&bob, 0, b"canary", None))
    };
    assert!(begun.elapsed() < 4 * limit, "{:?}", begun.elapsed());
    for error in [read.err(), lock.err(), write.err()] {
        let error = error.expect("no answer");
        assert!(error.is_uncertain(), "{error}");
        assert!(matches!(fault(error), RedisFault::Timeout(_) | RedisFault::Lost));
    }
    let error = store.epoch().await.expect_err("no answer");
    assert_eq!(fault(error), RedisFault::Timeout(limit));
    server.signal(Signal::CONT);
    assert_eq!(content(&*store, &key("alice")).await, Some((1, b"x".to_vec())));
}

#[tokio::test]
#[ignore = "needs redis-server"]
async fn a_write_or_lock_whose_answer_was_lost_is_done_once_and_known_as_ours() {
    let server = Server::start(&[]).await;
    let cutter = Cutter::start(server.port).await;
    let store = world(cutter.port).open().await;
    assert_eq!(store.write(&key("alice"), 0, b"one", None).await.expect("write"), 1);
    cutter.lose_the_next_answer();
    assert_eq!(store.write(&key("alice"), 1, b"two", None).await.expect("ours"), 2);
    assert!(cutter.has_lost_it());
    assert_eq!(content(&*store, &key("alice")).await, Some((2, b"two".to_vec())));
    let warm = store.lock(&key("bob"), LONG).await.expect("lock").expect("free");
    cutter.lose_the_next_answer();
    let lock = store.lock(&key("alice"), LONG).await.expect("lock").expect("ours");
    assert!(cutter.has_lost_it());
    assert!(lock.is_held().await.expect("asked"));
    assert!(store.lock(&key("alice"), LONG).await.expect("lock").is_none());
    drop(warm);
}

#[tokio::test]
#[ignore = "needs redis-server"]
async fn a_lock_whose_taking_was_given_up_is_given_back() {
    let server = Server::start(&[]).await;
    let store = world(server.port).open().await;
    let alice = key("alice");
    // Sent and taken, but nobody waits for the answer.
    for _ in 0..20 {
        let taking = store.lock(&alice, LONG);
        let _ = tokio::time::timeout(Duration::from_micros(fastrand::u64(0..600)), taking).await;
    }
    let lock = crate::conformance::take_when_free(&*store, &alice, LONG).await;
    assert!(lock.is_held().await.expect("asked"));
}

#[tokio::test]
#[ignore = "needs redis-server"]
async fn a_full_server_refuses_and_keeps_what_it_has() {
    let server = Server::start(&[]).await;
    let store = world(server.port).open().await;
    store.write(&key("alice"), 0, b"x", None).await.expect("write");
    let _: () = server.say(cmd("CONFIG").arg("SET").arg("maxmemory").arg("1")).await;
    let refused = store.write(&key("alice"), 1, b"canary", None).await.expect_err("full");
    assert_eq!(fault(refused), RedisFault::OutOfMemory);
    let _: () = server.say(cmd("CONFIG").arg("SET").arg("maxmemory").arg("0")).await;
    assert_eq!(content(&*store, &key("alice")).await, Some((1, b"x".to_vec())));
    assert_eq!(store.write(&key("alice"), 1, b"y", None).await.expect("write"), 2);
}

#[tokio::test]
#[ignore = "needs redis-server"]
async fn what_others_put_under_our_keys_is_named_and_left() {
    let server = Server::start(&[]).await;
    let store = world(server.port).open().await;
    for account in ["alice", "bob"] {
        store.write(&key(account), 0, b"canary", None).await.expect("write");
    }
    let entry = |account: &'static str| {
        let server = &server;
        async move {
            let pattern = format!("{{sidekey}}:entry:neon-{account}-*");
            let mut names: Vec<String> = server.say(cmd("KEYS").arg(pattern)).await;
            names.pop().expect("the entry's key")
        }
    };
    let (alice, bob) = (entry("alice").await, entry("bob").await);
    let _: bool = server.say(cmd("COPY").arg(&bob).arg(&alice).arg("REPLACE")).await;
    let error = store.read(&key("alice")).await.err().expect("bob's");
    assert!(matches!(error, StoreError::Entry { fault: EntryFault::Swapped, .. }), "{error}");
    let _: i64 = server.say(cmd("HSET").arg(&bob).arg("revision").arg("7")).await;
    let error = store.read(&key("bob")).await.err().expect("damaged");
    assert!(matches!(error, StoreError::Entry { fault: EntryFault::Damaged(_), .. }), "{error}");
    let _: () = server.say(cmd("SET").arg(&alice).arg("canary")).await;
    assert_eq!(fault(store.read(&key("alice")).await.err().expect("foreign")), RedisFault::Foreign);
    let refused = store.write(&key("alice"), 0, b"x", None).await.expect_err("foreign");
    assert_eq!(fault(refused), RedisFault::Foreign);
    let _: i64 = server.say(cmd("DEL").arg(&bob)).await;
    let _: i64 = server.say(cmd("HSET").arg(&bob).arg("theirs").arg("canary")).await;
    let refused = store.write(&key("bob"), 0, b"x", None).await.expect_err("foreign");
    assert!(matches!(refused, StoreError::Entry { fault: EntryFault::Foreign, .. }), "{refused}");
}

#[tokio::test]
#[ignore = "needs redis-server"]
async fn a_token_vanishes_after_its_lifetime_and_a_grant_never() {
    let server = Server::start(&[]).await;
    let store = world(server.port).open().await;
    let token = sidekey::store::Key { kind: Kind::Token, ..key("alice") };
    store.write(&token, 0, b"x", Some(Duration::from_millis(300))).await.expect("write");
    store.write(&key("alice"), 0, b"x", None).await.expect("write");
    let gone = async {
        while content(&*store, &token).await.is_some() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), gone).await.expect("it vanishes");
    assert!(store.write(&token, 1, b"x", None).await.expect_err("gone").is_conflict());
    let names: Vec<String> = server.say(cmd("KEYS").arg("{sidekey}:entry:*")).await;
    assert_eq!(names.len(), 1);
    assert_eq!(server.say::<i64>(cmd("PTTL").arg(&names)).await, -1);
}

#[tokio::test]
#[ignore = "needs redis-server"]
async fn tls_is_verified() {
    let folder = tempfile::tempdir().expect("a folder");
    let files = server::certificates(folder.path());
    let server = Server::start_tls(&files).await;
    let over_tls = |ca: Vec<std::path::PathBuf>| {
        with(world(server.port), |redis| {
            redis.server.tls = true;
            redis.tls = TlsSettings { ca, ..redis.tls.clone() };
        })
    };
    crate::conformance::all(&over_tls(vec![files.ca.clone()])).await;
    let error = over_tls(vec![]).open().await.epoch().await.expect_err("unknown authority");
    assert!(matches!(&error, StoreError::Unreachable(dial) if dial.is_certificate()), "{error}");
    // Clear text towards a server that wants TLS.
    let error = world(server.port).open().await.epoch().await.expect_err("TLS");
    assert!(error.to_string().contains("rediss://"), "{error}");
    // A file that is no certificate is found out when the store is opened.
    let error = over_tls(vec![files.key.clone()]).try_open().await.expect_err("a key");
    assert!(matches!(error, StoreError::Tls(_)), "{error}");
}

#[tokio::test]
#[ignore = "needs redis-server"]
async fn nothing_that_can_be_shown_shows_the_password() {
    let server = Server::start(&[]).await;
    let store: Arc<_> = world(server.port).open().await;
    let lock = store.lock(&key("alice"), LONG).await.expect("lock").expect("free");
    let shown = format!("{store:?} {lock:?} {:?}", password());
    assert!(!shown.contains(PASSWORD), "{shown}");
}

#[cfg(feature = "demo")]
#[tokio::test]
#[ignore = "needs redis-server"]
async fn replicas_of_a_client_make_one_fetch() {
    use crate::support::running::{aura, aura_route, eventually, patiently, sidekey_on_store};
    let (server, aura) = (Server::start(&[]).await, aura().await);
    let key = "0123456789abcdef".repeat(4);
    let store = format!(
        "[store]\ntype = \"redis\"\nurl = \"redis://127.0.0.1:{}\"\npassword = {{ value = \"{PASSWORD}\" }}\n\
         encryption_key = {{ value = \"{key}\" }}\n",
        server.port
    );
    let text = format!("{}\n{store}", aura_route(&aura, ""));
    let replicas =
        [sidekey_on_store(&text).await, sidekey_on_store(&text).await, sidekey_on_store(&text).await];
    for replica in &replicas {
        eventually("a token", async || {
            crate::support::get(replica.addr, "/v1/instances", &[]).await.status == 200
        })
        .await;
    }
    assert_eq!(aura.record().token_requests(), 1);
    // It was kept there.
    let names: Vec<String> = server.say(cmd("KEYS").arg("*")).await;
    assert!(names.iter().any(|name| name.contains("token")), "{names:?}");
    for replica in replicas {
        patiently("the end", replica.stop()).await;
    }
}
