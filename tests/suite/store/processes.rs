//! Processes that share a store and die, stop, or run out of room. Each is this test program, run once more.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use super::{LONG, files, folder};
use crate::conformance::{Opened, World, content, increment, key, take_when_free};
use sidekey::clock::Clock;

/// Where a child finds the folder of its store.
const FOLDER: &str = "SIDEKEY_TEST_FOLDER";
const SPAN: Duration = Duration::from_secs(1);

fn shared(folder: &Path) -> World {
    World { clock: Clock::system(), ..files(folder, vec![]) }
}

/// None: nobody has started this as a process of a test.
async fn own_store() -> Option<Opened> {
    let folder = std::env::var_os(FOLDER)?;
    Some(shared(Path::new(&folder)).open().await)
}

/// Another process, and what it says.
struct Other {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    stdin: ChildStdin,
}

impl Other {
    /// Runs one of the tests below in a process of its own; `shell` runs first.
    fn start(part: &str, folder: &Path, shell: &str) -> Self {
        let program = std::env::current_exe().expect("this program");
        let mut child = Command::new("/bin/sh")
            .args(["-c", &format!("{shell} exec \"$0\" \"$@\"")])
            .arg(program)
            .args([
                &format!("store::processes::{part}"),
                "--exact",
                "--ignored",
                "--nocapture",
                "--test-threads=1",
            ])
            .env(FOLDER, folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("a process");
        let lines = BufReader::new(child.stdout.take().expect("stdout")).lines();
        let stdin = child.stdin.take().expect("stdin");
        Self { child, lines, stdin }
    }

    /// Waits until it says this word.
    async fn says(&mut self, word: &str) {
        let said = async {
            while let Some(line) = self.lines.next_line().await.expect("text") {
                if line.contains(word) {
                    return true;
                }
            }
            false
        };
        let said = tokio::time::timeout(Duration::from_secs(30), said).await;
        assert_eq!(said, Ok(true), "it says {word}");
    }

    async fn go_on(&mut self) {
        self.stdin.write_all(b"go on\n").await.expect("written");
    }

    fn signal(&self, signal: Signal) {
        let id = self.child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        kill_process(id.expect("it runs"), signal).expect("signalled");
    }

    async fn ends_well(mut self) {
        let status = tokio::time::timeout(Duration::from_secs(30), self.child.wait()).await;
        assert!(status.expect("it ends").expect("waited").success());
    }
}

async fn told_to_go_on() {
    let read = tokio::task::spawn_blocking(|| std::io::stdin().read_line(&mut String::new()));
    read.await.expect("read").expect("a line");
}

#[tokio::test]
#[ignore = "run by other tests, in a process of its own"]
async fn holds_the_lock() {
    let Some(store) = own_store().await else { return };
    let lock = store.lock(&key("alice"), SPAN).await.expect("lock").expect("free");
    println!("HELD");
    told_to_go_on().await;
    assert_eq!(lock.left(), Duration::ZERO);
    assert!(!lock.is_held().await.expect("asked"));
    lock.release().await.expect("released");
    println!("LOST");
    told_to_go_on().await;
}

#[tokio::test]
#[ignore = "run by other tests, in a process of its own"]
async fn holds_the_lock_for_long() {
    let Some(store) = own_store().await else { return };
    let _lock = store.lock(&key("alice"), LONG).await.expect("lock").expect("free");
    println!("HELD");
    told_to_go_on().await;
}

#[tokio::test]
#[ignore = "run by other tests, in a process of its own"]
async fn increments() {
    let Some(store) = own_store().await else { return };
    increment(&*store, &key("alice"), 20).await;
}

#[tokio::test]
#[ignore = "run by other tests, in a process of its own"]
async fn writes_more_than_there_is_room_for() {
    let Some(store) = own_store().await else { return };
    let error = store.write(&key("alice"), 1, &[7; 8192], None).await.expect_err("no room");
    assert!(error.to_string().contains("cannot write"), "{error}");
    assert_eq!(content(&*store, &key("alice")).await, Some((1, b"old".to_vec())));
    assert_eq!(store.write(&key("alice"), 1, b"small", None).await.expect("room"), 2);
    println!("REFUSED");
}

#[tokio::test]
async fn the_lock_of_a_killed_process_is_free_at_once() {
    let folder = folder();
    let store = shared(folder.path()).open().await;
    let mut other = Other::start("holds_the_lock_for_long", folder.path(), "");
    other.says("HELD").await;
    assert!(store.lock(&key("alice"), LONG).await.expect("lock").is_none());
    other.signal(Signal::KILL);
    other.child.wait().await.expect("dead");
    assert!(store.lock(&key("alice"), LONG).await.expect("lock").is_some());
}

#[tokio::test]
async fn the_lock_of_a_stopped_process_ends_after_its_span() {
    let folder = folder();
    let store = shared(folder.path()).open().await;
    let mut other = Other::start("holds_the_lock", folder.path(), "");
    other.says("HELD").await;
    other.signal(Signal::STOP);
    assert!(store.lock(&key("alice"), LONG).await.expect("lock").is_none());
    let lock = take_when_free(&*store, &key("alice"), LONG).await;
    // The former holder wakes up, finds that it has lost, and cannot take it back or give it away.
    other.go_on().await;
    other.signal(Signal::CONT);
    other.says("LOST").await;
    assert!(lock.is_held().await.expect("asked"));
    assert!(store.lock(&key("alice"), LONG).await.expect("lock").is_none());
    other.go_on().await;
    other.ends_well().await;
    assert!(lock.is_held().await.expect("asked"));
}

#[tokio::test]
async fn processes_that_write_at_the_same_time_lose_nothing() {
    let folder = folder();
    let others: Vec<_> = (0..3).map(|_| Other::start("increments", folder.path(), "")).collect();
    for other in others {
        other.ends_well().await;
    }
    let store = shared(folder.path()).open().await;
    assert_eq!(content(&*store, &key("alice")).await, Some((60, b"60".to_vec())));
}

#[tokio::test]
async fn a_write_that_finds_no_room_leaves_what_was_there() {
    let folder = folder();
    let store = shared(folder.path()).open().await;
    store.write(&key("alice"), 0, b"old", None).await.expect("write");
    // No file of it may be larger than 4096 bytes (POSIX counts in 512).
    let mut other =
        Other::start("writes_more_than_there_is_room_for", folder.path(), "trap '' XFSZ; ulimit -f 8;");
    other.says("REFUSED").await;
    other.ends_well().await;
    assert_eq!(content(&*store, &key("alice")).await, Some((2, b"small".to_vec())));
    let left = std::fs::read_dir(folder.path().join("store")).expect("list");
    let is_draft = |name: &std::ffi::OsStr| name.to_string_lossy().ends_with(".tmp");
    assert!(left.map(|found| found.expect("a file").file_name()).all(|name| !is_draft(&name)));
}
