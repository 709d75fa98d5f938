//! The stores in memory and in files: what every store must do, what only files can suffer, and processes that die.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::conformance::{World, content, key, sealing, take_when_free};
use sidekey::clock::Clock;
use sidekey::config::StoreKind;
use sidekey::secret::SecretSource;
use sidekey::store::{Backend, EntryFault, Flaw, Kind, SealFault, StoreError};
use tempfile::TempDir;

mod processes;

const LONG: Duration = Duration::from_secs(60);

fn files(folder: &Path, keys: Vec<SecretSource>) -> World {
    World { kind: StoreKind::File { path: folder.join("store") }, keys, clock: Clock::of_runtime() }
}

fn folder() -> TempDir {
    tempfile::tempdir().expect("a folder")
}

/// The file of an entry, by its ending.
fn file(folder: &Path, account: &str, ending: &str) -> PathBuf {
    let found = std::fs::read_dir(folder.join("store")).expect("the store");
    let mut paths = found.map(|found| found.expect("a file").path()).filter(|path| {
        let name = path.file_name().and_then(|name| name.to_str()).expect("text");
        name.starts_with(&format!("neon-{account}-")) && name.ends_with(ending)
    });
    let path = paths.next().expect("the entry's file");
    assert!(paths.next().is_none());
    path
}

#[tokio::test(start_paused = true)]
async fn memory_does_what_every_store_must() {
    for keys in [vec![], vec![sealing('a')]] {
        let world = World { kind: StoreKind::Memory, keys, clock: Clock::of_runtime() };
        crate::conformance::all(&world).await;
        assert!(!world.open().await.is_shared());
    }
}

#[tokio::test(start_paused = true)]
async fn files_do_what_every_store_must() {
    for keys in [vec![], vec![sealing('a'), sealing('b')]] {
        let folder = folder();
        let world = files(folder.path(), keys);
        crate::conformance::all(&world).await;
        assert!(world.open().await.is_shared());
    }
}

#[tokio::test(start_paused = true)]
async fn a_token_in_memory_vanishes_after_its_lifetime() {
    let world = World { kind: StoreKind::Memory, keys: vec![], clock: Clock::of_runtime() };
    let store = world.open().await;
    store.write(&key("alice"), 0, b"token", Some(LONG)).await.expect("write");
    world.clock.suspend(LONG - Duration::from_nanos(1));
    assert!(content(&*store, &key("alice")).await.is_some());
    world.clock.suspend(Duration::from_nanos(1));
    assert!(content(&*store, &key("alice")).await.is_none());
    assert!(store.write(&key("alice"), 1, b"x", None).await.expect_err("gone").is_conflict());
    assert_eq!(store.write(&key("alice"), 0, b"x", None).await.expect("write"), 1);
}

#[tokio::test]
async fn the_directory_and_its_files_are_for_us_alone() {
    let folder = folder();
    let world = World {
        kind: StoreKind::File { path: folder.path().join("some/where/store") },
        ..files(folder.path(), vec![])
    };
    let store = world.open().await;
    store.write(&key("alice"), 0, b"x", None).await.expect("write");
    store.announce().await.expect("announced");
    let _lock = store.lock(&key("alice"), LONG).await.expect("lock");
    let directory = folder.path().join("some/where/store");
    assert_eq!(directory.metadata().expect("made").mode() & 0o777, 0o700);
    let files: Vec<_> = std::fs::read_dir(&directory).expect("list").collect();
    assert!(files.len() >= 4, "{files:?}");
    for file in files {
        let file = file.expect("a file");
        assert_eq!(file.metadata().expect("a file").mode() & 0o777, 0o600, "{:?}", file.path());
    }
}

#[tokio::test]
async fn a_directory_that_others_may_enter_is_refused() {
    let folder = folder();
    let world = files(folder.path(), vec![]);
    let path = folder.path().join("store");
    std::fs::create_dir(&path).expect("make");
    for mode in [0o755, 0o750, 0o701, 0o1777] {
        std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).expect("chmod");
        let error = world.try_open().await.expect_err("open to others");
        assert!(matches!(&error, StoreError::Unfit { flaw: Flaw::OpenDirectory { .. }, .. }), "{error}");
        assert!(error.to_string().contains("chmod 700"), "{error}");
        assert_eq!(std::fs::read_dir(&path).expect("list").count(), 0);
    }
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o700)).expect("chmod");
    world.open().await;
}

#[tokio::test]
async fn what_belongs_to_another_user_is_refused() {
    let folder = folder();
    let world = files(folder.path(), vec![]);
    let store = world.open().await;
    store.write(&key("alice"), 0, b"x", None).await.expect("write");
    let (directory, entry) = (folder.path().join("store"), file(folder.path(), "alice", ".json"));
    if let Err(error) = std::os::unix::fs::chown(&entry, Some(12345), None) {
        // The judgement itself is tested as a pure function.
        assert_eq!(error.kind(), std::io::ErrorKind::PermissionDenied, "{error}");
        eprintln!("skipped: only root can give files away");
        return;
    }
    let is_owner = |error: &StoreError| {
        let text = error.to_string();
        matches!(error, StoreError::Unfit { flaw: Flaw::Owner { owner: 12345, .. }, .. })
            && text.contains("run it as user 12345")
    };
    assert!(is_owner(&store.read(&key("alice")).await.err().expect("not ours")));
    assert!(is_owner(&store.write(&key("alice"), 1, b"y", None).await.expect_err("not ours")));
    std::os::unix::fs::chown(&directory, Some(12345), None).expect("chown");
    assert!(is_owner(&world.try_open().await.expect_err("not ours")));
}

#[tokio::test]
async fn a_linked_directory_of_ours_is_taken_and_a_linked_file_is_not() {
    let folder = folder();
    let world = files(folder.path(), vec![]);
    world.open().await.write(&key("alice"), 0, b"x", None).await.expect("write");
    std::os::unix::fs::symlink(folder.path().join("store"), folder.path().join("link")).expect("link");
    let linked =
        World { kind: StoreKind::File { path: folder.path().join("link") }, ..files(folder.path(), vec![]) };
    let store = linked.open().await;
    assert_eq!(content(&*store, &key("alice")).await, Some((1, b"x".to_vec())));
    let entry = file(folder.path(), "alice", ".json");
    std::fs::rename(&entry, folder.path().join("moved")).expect("rename");
    std::os::unix::fs::symlink(folder.path().join("moved"), &entry).expect("link");
    let error = store.read(&key("alice")).await.err().expect("a link");
    assert!(matches!(error, StoreError::Io { .. }), "{error}");
}

#[tokio::test]
async fn a_place_that_cannot_be_a_directory_is_named() {
    let folder = folder();
    std::fs::write(folder.path().join("file"), b"x").expect("write");
    let cases = [
        (folder.path().join("file"), "is not a directory"),
        (folder.path().join("file/store"), "a part of store.path is not a directory"),
        (PathBuf::from("/proc/sidekey"), "cannot make /proc/sidekey"),
    ];
    for (path, want) in cases {
        let world = World { kind: StoreKind::File { path }, ..files(folder.path(), vec![]) };
        let error = world.try_open().await.expect_err("no directory").to_string();
        assert!(error.contains(want), "{error}");
    }
}

#[tokio::test]
async fn a_directory_that_went_away_is_not_an_empty_store() {
    let folder = folder();
    let store = files(folder.path(), vec![]).open().await;
    store.write(&key("alice"), 0, b"x", None).await.expect("write");
    std::fs::rename(folder.path().join("store"), folder.path().join("elsewhere")).expect("rename");
    for error in [
        store.read(&key("alice")).await.err().expect("gone"),
        store.write(&key("alice"), 0, b"y", None).await.expect_err("gone"),
        store.epoch().await.expect_err("gone"),
        store.lock(&key("alice"), LONG).await.expect_err("gone"),
        store.accounts("neon", "https://a").await.expect_err("gone"),
    ] {
        assert!(matches!(error, StoreError::Io { .. }), "{error}");
        assert!(error.to_string().contains("unmounted"), "{error}");
    }
}

#[tokio::test]
async fn an_entry_that_others_may_read_is_refused_and_not_listed() {
    let folder = folder();
    let store = files(folder.path(), vec![]).open().await;
    for account in ["alice", "bob"] {
        store.write(&key(account), 0, b"x", None).await.expect("write");
    }
    let entry = file(folder.path(), "alice", ".json");
    std::fs::set_permissions(&entry, PermissionsExt::from_mode(0o644)).expect("chmod");
    let error = store.read(&key("alice")).await.err().expect("open to others");
    assert!(matches!(&error, StoreError::Unfit { flaw: Flaw::OpenFile { .. }, .. }), "{error}");
    assert_eq!(store.accounts("neon", "https://a").await.expect("accounts"), [Arc::<str>::from("bob")]);
    std::fs::set_permissions(&entry, PermissionsExt::from_mode(0o600)).expect("chmod");
    assert!(content(&*store, &key("alice")).await.is_some());
}

/// Puts a text in place of an entry, and asserts that it is refused with this fault and left as it is.
async fn assert_refused(store: &dyn Backend, path: &Path, text: &[u8]) -> StoreError {
    std::fs::write(path, text).expect("write");
    let error = store.read(&key("alice")).await.err().expect("unreadable");
    for expected in [0, 1] {
        let refused = store.write(&key("alice"), expected, b"new", None).await.expect_err("unreadable");
        assert_eq!(refused.to_string(), error.to_string());
    }
    assert_eq!(std::fs::read(path).expect("read"), text, "nothing on the disk is lost");
    assert!(!error.to_string().contains("canary"), "{error}");
    error
}

#[tokio::test]
async fn an_unreadable_entry_is_told_apart_and_never_written_over() {
    let folder = folder();
    let store = files(folder.path(), vec![]).open().await;
    store.write(&key("alice"), 0, b"canary", None).await.expect("write");
    let path = file(folder.path(), "alice", ".json");
    let good = std::fs::read(&path).expect("read");
    for length in 0..good.len() {
        let error = assert_refused(&*store, &path, &good[..length]).await;
        assert!(
            matches!(error, StoreError::Entry { fault: EntryFault::Damaged(_), .. }),
            "{length}: {error}"
        );
    }
    let error = assert_refused(&*store, &path, b"canary: true\n").await;
    assert!(matches!(error, StoreError::Entry { fault: EntryFault::Foreign, .. }), "{error}");
    let error = assert_refused(&*store, &path, br#"{"sidekey":2,"canary":1}"#).await;
    assert!(matches!(error, StoreError::Entry { fault: EntryFault::Newer(2), .. }), "{error}");
    std::fs::write(&path, &good).expect("write");
    assert_eq!(content(&*store, &key("alice")).await, Some((1, b"canary".to_vec())));
}

#[tokio::test]
async fn entries_that_changed_places_are_noticed() {
    for keys in [vec![], vec![sealing('a')]] {
        let folder = folder();
        let store = files(folder.path(), keys).open().await;
        for account in ["alice", "bob"] {
            store.write(&key(account), 0, account.as_bytes(), None).await.expect("write");
        }
        let bob = file(folder.path(), "bob", ".json");
        std::fs::copy(&bob, file(folder.path(), "alice", ".json")).expect("copy");
        let error = store.read(&key("alice")).await.err().expect("bob's");
        assert!(matches!(error, StoreError::Entry { fault: EntryFault::Swapped, .. }), "{error}");
        assert_eq!(store.accounts("neon", "https://a").await.expect("accounts"), [Arc::<str>::from("bob")]);
        // Relabelled, it is still bob's to the seal.
        let text = std::fs::read_to_string(&bob).expect("read").replace("bob", "alice");
        std::fs::write(file(folder.path(), "alice", ".json"), &text).expect("write");
        let relabelled = store.read(&key("alice")).await;
        if text.contains("sealed") {
            let error = relabelled.err().expect("bob's");
            assert!(matches!(error, StoreError::Seal { fault: SealFault::Broken, .. }), "{error}");
        }
    }
}

#[tokio::test]
async fn a_flipped_bit_never_yields_another_content() {
    let folder = folder();
    let store = files(folder.path(), vec![sealing('a')]).open().await;
    store.write(&key("alice"), 0, b"canary", None).await.expect("write");
    let path = file(folder.path(), "alice", ".json");
    let good = std::fs::read(&path).expect("read");
    assert!(!String::from_utf8_lossy(&good).contains("canary"));
    let mut refused = 0;
    for bit in 0..8 * good.len() {
        let mut changed = good.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        std::fs::write(&path, &changed).expect("write");
        match store.read(&key("alice")).await {
            Ok(stored) => assert_eq!(*stored.expect("there").content, *b"canary", "bit {bit}"),
            Err(error) => {
                refused += 1;
                assert!(!error.to_string().contains("canary"), "{error}");
            }
        }
    }
    assert!(refused > 7 * good.len(), "{refused} of {}", 8 * good.len());
}

#[tokio::test]
async fn keys_can_be_introduced_changed_and_not_left_out() {
    let folder = folder();
    let (old, new) = (sealing('a'), sealing('b'));
    let with = |keys: &[&SecretSource]| files(folder.path(), keys.iter().map(|key| (*key).clone()).collect());
    let alice = key("alice");
    with(&[]).open().await.write(&alice, 0, b"canary", None).await.expect("write");
    let text = || std::fs::read_to_string(file(folder.path(), "alice", ".json")).expect("read");
    assert!(text().contains(r#""content":"#));
    // Introduced: what is open is read, and sealed at the next write.
    let store = with(&[&old]).open().await;
    assert_eq!(content(&*store, &alice).await, Some((1, b"canary".to_vec())));
    store.write(&alice, 1, b"canary", None).await.expect("write");
    let by_old = text();
    assert!(by_old.contains(r#""sealed":"#) && !by_old.contains("Y2FuYXJ5"), "{by_old}");
    // Left out: an error each, that says so.
    let error = with(&[]).open().await.read(&alice).await.err().expect("sealed").to_string();
    assert!(error.contains("set store.encryption_key"), "{error}");
    let error = with(&[&new]).open().await.read(&alice).await.err().expect("sealed").to_string();
    assert!(error.contains("add the older key to store.encryption_key"), "{error}");
    // Changed: the new one seals, both open.
    let store = with(&[&new, &old]).open().await;
    assert_eq!(content(&*store, &alice).await, Some((2, b"canary".to_vec())));
    store.write(&alice, 2, b"canary", None).await.expect("write");
    assert_eq!(content(&*with(&[&new]).open().await, &alice).await, Some((3, b"canary".to_vec())));
}

#[tokio::test]
async fn an_encryption_key_that_cannot_be_used_is_named() {
    let folder = folder();
    let short = SecretSource::Value(sidekey::secret::Secret::new("Y2FuYXJ5"));
    let error =
        files(folder.path(), vec![sealing('a'), short]).try_open().await.expect_err("short").to_string();
    assert!(error.contains("number 2") && error.contains("32 bytes") && !error.contains("Y2Fu"), "{error}");
    let gone = SecretSource::File(folder.path().join("gone"));
    let error = files(folder.path(), vec![gone]).try_open().await.expect_err("gone");
    assert!(matches!(error, StoreError::Secret { what: "store.encryption_key", .. }), "{error}");
}

#[tokio::test(start_paused = true)]
async fn what_a_killed_writer_left_is_removed_but_not_what_is_being_written() {
    let folder = folder();
    let world = files(folder.path(), vec![]);
    let store = world.open().await;
    store.write(&key("alice"), 0, b"old", None).await.expect("write");
    let guard = file(folder.path(), "alice", ".guard");
    let draft = guard.with_extension("tmp");
    std::fs::write(&draft, b"half").expect("write");
    let holder = std::fs::File::open(&guard).expect("open");
    rustix::fs::flock(&holder, rustix::fs::FlockOperation::LockExclusive).expect("flock");
    world.open().await;
    assert!(draft.exists());
    // Nor is it written over meanwhile, and nobody waits for ever.
    let error = store.write(&key("alice"), 1, b"new", None).await.expect_err("guarded");
    assert!(matches!(error, StoreError::Busy { .. }), "{error}");
    assert_eq!(content(&*store, &key("alice")).await, Some((1, b"old".to_vec())));
    drop(holder);
    world.open().await;
    assert!(!draft.exists());
    std::fs::write(&draft, b"half").expect("write");
    store.write(&key("alice"), 1, b"new", None).await.expect("write");
    assert!(!draft.exists());
    assert_eq!(content(&*store, &key("alice")).await, Some((2, b"new".to_vec())));
}

#[tokio::test(start_paused = true)]
async fn what_a_killed_writer_had_written_whole_is_kept() {
    let folder = folder();
    let world = files(folder.path(), vec![]);
    let store = world.open().await;
    let alice = key("alice");
    store.write(&alice, 0, b"first", None).await.expect("write");
    let entry = file(folder.path(), "alice", ".json");
    let draft = entry.with_extension("tmp");
    let first = std::fs::read(&entry).expect("read");
    store.write(&alice, 1, b"second", None).await.expect("write");
    let second = std::fs::read(&entry).expect("read");
    let killed_before_renaming = || {
        std::fs::write(&entry, &first).expect("write");
        std::fs::copy(&entry, &draft).expect("copy");
        std::fs::write(&draft, &second).expect("write");
    };
    // Whoever comes next finds it: by starting, by locking, or by trying to write.
    killed_before_renaming();
    world.open().await;
    assert_eq!(content(&*store, &alice).await, Some((2, b"second".to_vec())));
    killed_before_renaming();
    let lock = store.lock(&alice, LONG).await.expect("lock").expect("free");
    assert_eq!(content(&*store, &alice).await, Some((2, b"second".to_vec())));
    lock.release().await.expect("release");
    killed_before_renaming();
    let error = store.write(&alice, 1, b"other", None).await.expect_err("somebody was there");
    assert!(error.is_conflict(), "{error}");
    assert_eq!(content(&*store, &alice).await, Some((2, b"second".to_vec())));
    assert!(!draft.exists());
    // Not the next one, or another account's: of no use.
    for (of, text) in [("alice", &first), ("alice", &second), ("bob", &second)] {
        let text = String::from_utf8(text.clone()).expect("text").replace("\"alice\"", &format!("\"{of}\""));
        std::fs::copy(&entry, &draft).expect("copy");
        std::fs::write(&draft, text).expect("write");
        world.open().await;
        assert!(!draft.exists());
        assert_eq!(content(&*store, &alice).await, Some((2, b"second".to_vec())), "{of}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_lock_of_another_machine_is_waited_for_by_our_own_clock() {
    let folder = folder();
    let world = files(folder.path(), vec![]);
    let store = world.open().await;
    let lock = store.lock(&key("alice"), LONG).await.expect("lock").expect("free");
    let path = file(folder.path(), "alice", ".lock");
    let text = std::fs::read_to_string(&path).expect("read");
    let mut record: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    record["machine"] = "another".into();
    record["until"] = 0.into();
    std::fs::write(&path, record.to_string()).expect("write");
    assert!(store.lock(&key("alice"), LONG).await.expect("lock").is_none(), "its clock says nothing to us");
    world.clock.suspend(LONG - Duration::from_secs(1));
    assert!(store.lock(&key("alice"), LONG).await.expect("lock").is_none());
    world.clock.suspend(Duration::from_secs(1));
    let present = take_when_free(&*store, &key("alice"), LONG).await;
    assert!(!lock.is_held().await.expect("asked"));
    assert!(present.is_held().await.expect("asked"));
}

#[tokio::test]
async fn a_lock_that_somebody_else_has_is_not_held_though_its_time_is_not_over() {
    let folder = folder();
    let store = files(folder.path(), vec![]).open().await;
    let lock = store.lock(&key("alice"), LONG).await.expect("lock").expect("free");
    std::fs::remove_file(file(folder.path(), "alice", ".lock")).expect("remove");
    assert!(!lock.is_held().await.expect("asked"));
    let other = store.lock(&key("alice"), LONG).await.expect("lock").expect("nobody's");
    assert!(!lock.is_held().await.expect("asked"));
    assert!(!lock.left().is_zero());
    lock.release().await.expect("released");
    assert!(other.is_held().await.expect("asked"));
    assert!(store.lock(&key("alice"), LONG).await.expect("lock").is_none());
}

#[tokio::test]
async fn a_damaged_epoch_is_an_error_that_says_what_to_do() {
    let folder = folder();
    let store = files(folder.path(), vec![]).open().await;
    std::fs::write(folder.path().join("store/epoch"), b"canary").expect("write");
    let denied =
        std::fs::set_permissions(folder.path().join("store/epoch"), PermissionsExt::from_mode(0o600));
    denied.expect("chmod");
    for error in [store.epoch().await.expect_err("damaged"), store.announce().await.expect_err("damaged")] {
        let text = error.to_string();
        assert!(text.contains("removing it is harmless") && !text.contains("canary"), "{text}");
    }
}

#[tokio::test]
async fn nothing_that_can_be_shown_shows_a_content_or_a_key() {
    let folder = folder();
    for world in [
        files(folder.path(), vec![sealing('a')]),
        World { kind: StoreKind::Memory, ..files(folder.path(), vec![sealing('a')]) },
    ] {
        let store = world.open().await;
        let grant = key("shown");
        store.write(&grant, 0, b"canary", None).await.expect("write");
        let lock = store.lock(&grant, LONG).await.expect("lock").expect("free");
        let shown = format!("{store:?} {lock:?} {:?} {}", Kind::Grant, grant);
        assert!(!shown.contains("canary") && !shown.contains(&"a".repeat(62)), "{shown}");
        assert!(!shown.contains("[99, 97, 110"), "{shown}");
    }
}
