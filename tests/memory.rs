//! Our own copies of secrets are gone from the process's memory once they are dropped: the test reads all of it.
#![cfg(target_os = "linux")]

use std::fs::File;
use std::hint::black_box;
use std::os::unix::fs::FileExt as _;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, HeaderName};
use sidekey::config::{Encoding, Environment};
use sidekey::credential::grant::Grant;
use sidekey::header::AuthHeader;
use sidekey::oauth::Granted;
use sidekey::oauth::answer::Given;
use sidekey::secret::key::key_bytes;
use sidekey::secret::reader::SecretReader;
use sidekey::secret::{Secret, SecretSource, read_file};
use zeroize::Zeroizing;

/// The length of a canary, in bytes: what an allocator writes into freed memory leaves most of it.
const LENGTH: usize = 48;
const MASK: u8 = 0x55;

/// A random text that is kept in another form, so that the test itself does not hold it.
struct Canary {
    masked: Vec<u8>,
}

impl Canary {
    fn new() -> Self {
        Self { masked: (0..LENGTH).map(|_| fastrand::alphanumeric() as u8 ^ MASK).collect() }
    }

    /// The text, built in its place: no copy of it is moved about.
    fn text(&self) -> Zeroizing<String> {
        let mut text = Zeroizing::new(String::with_capacity(LENGTH));
        for byte in &self.masked {
            text.push(char::from(byte ^ MASK));
        }
        text
    }

    /// Another text as a canary: this one in another form.
    fn of(text: Zeroizing<String>) -> Self {
        Self { masked: text.bytes().map(|byte| byte ^ MASK).collect() }
    }

    /// How often its second half is anywhere in this process's memory. Freed memory begins with an allocator's own.
    fn found(&self) -> usize {
        let needle = &self.masked[self.masked.len() / 2..];
        let memory = File::open("/proc/self/mem").expect("our own memory");
        let maps = std::fs::read_to_string("/proc/self/maps").expect("a list of it");
        let mut chunk = vec![0_u8; 1 << 20];
        let mut found = 0;
        for line in
            maps.lines().filter(|line| line.split(' ').nth(1).is_some_and(|mode| mode.starts_with("rw")))
        {
            let (from, to) = line.split(' ').next().and_then(|range| range.split_once('-')).expect("a range");
            let number = |text| u64::from_str_radix(text, 16).expect("an address");
            let (mut at, end) = (number(from), number(to));
            while at < end {
                // Two chunks overlap, so that nothing is cut in two. What cannot be read is not ours.
                let length = usize::try_from(end - at).unwrap_or(usize::MAX).min(chunk.len());
                let Ok(read) = memory.read_at(&mut chunk[..length], at) else { break };
                found += occurrences(&chunk[..read], needle);
                // The buffer is memory as well.
                chunk[..read].fill(0);
                if read < length || at + read as u64 >= end {
                    break;
                }
                at += (read - needle.len()) as u64;
            }
        }
        found
    }
}

/// How often the masked needle is there. Most memory is pages of zeros, which are passed over.
fn occurrences(memory: &[u8], needle: &[u8]) -> usize {
    const PAGE: usize = 4096;
    let is_here = |window: &[u8]| window.iter().zip(needle).all(|(byte, want)| byte ^ MASK == *want);
    let starts = (0..memory.len()).step_by(PAGE);
    let pages = starts.map(|at| (at, &memory[at..memory.len().min(at + PAGE)]));
    let of_page = |(at, page): (usize, &[u8])| {
        if page == &[0; PAGE][..page.len()] {
            return 0;
        }
        // One that begins in a page may end in the next.
        let end = memory.len().min(at + PAGE + needle.len() - 1);
        memory[at..end].windows(needle.len()).filter(|window| is_here(window)).count()
    };
    // One that begins within a page of zeros holds a zero, and no canary does.
    pages.map(of_page).sum()
}

/// One test at a time: what one searches through, it holds a copy of, and another's text may be in it.
fn alone() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// In its own function, so that nothing is left of it on the way back.
#[inline(never)]
fn use_up<T>(make: impl FnOnce(Zeroizing<String>) -> T, canary: &Canary) {
    drop(black_box(make(canary.text())));
}

fn secret(text: &str) -> Secret {
    Secret::new(text)
}

#[test]
fn what_is_there_is_found_and_what_was_never_there_is_not() {
    let _alone = alone();
    let canary = Canary::new();
    assert_eq!(canary.found(), 0);
    let text = canary.text();
    assert!(canary.found() >= 1);
    drop(text);
    assert_eq!(canary.found(), 0);
    // What nobody wipes stays.
    let plain = String::from(canary.text().as_str());
    drop(black_box(plain));
    assert!(canary.found() >= 1, "an allocator that wipes would make this test worthless");
}

#[test]
fn a_secret_leaves_nothing_behind() {
    let _alone = alone();
    type Make = fn(Zeroizing<String>) -> Box<dyn std::any::Any>;
    let cases: [(&str, Make); 7] = [
        ("a secret and its clones", |text| {
            let one = secret(&text);
            Box::new((one.clone(), one))
        }),
        ("bytes that are shared", |text| {
            let bytes = secret(&text).into_bytes();
            Box::new((bytes.clone(), bytes.slice(3..), bytes))
        }),
        ("a bearer header in requests", |text| {
            let header = AuthHeader::bearer(&secret(&text), Encoding::Plain).expect("a header");
            let mut requests = vec![HeaderMap::new(); 3];
            for request in &mut requests {
                request.insert(header.name.clone(), header.value().clone());
            }
            Box::new((header, requests))
        }),
        ("a header of any name", |text| {
            let name = HeaderName::from_static("x-key");
            Box::new(AuthHeader::named(name, &secret(&text)).expect("a header"))
        }),
        ("a header that is refused", |text| {
            let text = Zeroizing::new(format!("\u{1}{}", text.as_str()));
            Box::new(AuthHeader::named(HeaderName::from_static("x-key"), &secret(&text)).is_err())
        }),
        ("a grant, and what the store is given of it", |text| {
            let granted = Granted {
                access: Ok(Given { token: secret(&text), lifetime: Duration::from_secs(60) }),
                refresh_token: Some(secret(&text)),
                scope: None,
            };
            let grant = Grant::of_login(&granted, None, SystemTime::UNIX_EPOCH);
            let bytes = grant.to_bytes();
            let read = Grant::from_bytes(&bytes).expect("a grant");
            Box::new((granted, grant, bytes, read))
        }),
        ("the environment as it was read", |mut text| {
            Box::new(Environment::from_pairs([("KEY", std::mem::take(&mut *text))]))
        }),
    ];
    for (what, make) in cases {
        let canary = Canary::new();
        use_up(make, &canary);
        assert_eq!(canary.found(), 0, "{what}");
    }
}

#[test]
fn another_form_of_a_secret_leaves_nothing_behind_either() {
    let _alone = alone();
    let canary = Canary::new();
    let plain = Zeroizing::new(format!("neo4j:{}", canary.text().as_str()));
    let in_base64 = Canary::of(Zeroizing::new(STANDARD.encode(plain.as_bytes())));
    drop(plain);
    use_up(|text| AuthHeader::basic("neo4j", &secret(&text)).expect("a header"), &canary);
    assert_eq!((canary.found(), in_base64.found()), (0, 0));

    let canary = Canary::new();
    let in_base64 = Canary::of(Zeroizing::new(STANDARD.encode(canary.text().as_bytes())));
    use_up(|text| AuthHeader::bearer(&secret(&text), Encoding::Base64).expect("a header"), &canary);
    assert_eq!((canary.found(), in_base64.found()), (0, 0));

    // 32 bytes, written down in base64.
    let key = Canary { masked: (0..32).map(|_| fastrand::alphanumeric() as u8 ^ MASK).collect() };
    let written = || Zeroizing::new(STANDARD.encode(key.text().as_bytes()));
    let in_base64 = Canary::of(written());
    use_up(|_| key_bytes(&Secret::new(written().as_str())).expect("a key"), &key);
    assert_eq!((key.found(), in_base64.found()), (0, 0));
}

#[test]
fn a_secret_that_was_read_leaves_nothing_behind() {
    let _alone = alone();
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("secret");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let canary = Canary::new();
    std::fs::write(&path, canary.text().as_bytes()).expect("written");
    use_up(|_| read_file(&path).expect("a secret"), &canary);
    assert_eq!(canary.found(), 0, "a file");
    let command = vec!["/bin/cat".to_owned(), path.display().to_string()];
    let source = SecretSource::Exec(command.into());
    let read = || runtime.block_on(SecretReader::new([]).read(&source)).expect("a secret");
    use_up(|_| read(), &canary);
    assert_eq!(canary.found(), 0, "a command");
}
