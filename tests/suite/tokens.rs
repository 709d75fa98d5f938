//! The life of tokens, seen from outside: fetched once, kept fresh, and never missed quietly.
#![cfg(feature = "demo")]

use std::time::Duration;

use crate::support::running::{Running, aura, aura_route, eventually, patiently, private_file, sidekey};
use crate::support::scripted::say;
use crate::support::{Reply, get, post, read_reply};
use sidekey::demo::standins::{Aura, Fault, Neon};
use tokio::net::TcpStream;
use tokio::task::{JoinSet, LocalSet};

const PATH: &str = "/v1/instances";

fn assert_unavailable(reply: &Reply, what: &str) {
    let code = reply.header("sidekey-error");
    assert_eq!((reply.status, code), (503, Some("credential_unavailable")), "{what}: {reply:?}");
    let wait: u64 = reply.header("retry-after").expect("Retry-After").parse().expect("whole seconds");
    assert!((1..=600).contains(&wait), "{what}: {wait}");
}

/// Starts with a faulty token endpoint; the client secret is in a file.
async fn faulty(fault: &Fault) -> (Aura, Running, tempfile::TempDir) {
    let folder = tempfile::tempdir().expect("a folder");
    let file = private_file(folder.path().join("secret"), "s:cret");
    let aura = aura().await;
    aura.token_fault(fault.clone());
    let more = format!(
        "client_secret = {{ file = \"{}\" }}\nfetch_timeout = \"300ms\"\nlease_timeout = \"500ms\"",
        file.display()
    );
    let running = sidekey(&aura_route(&aura, &more));
    (aura, running, folder)
}

#[tokio::test]
async fn a_passing_failure_of_the_token_endpoint_is_503_and_heals_by_itself() {
    let (local, mut cases) = (LocalSet::new(), JoinSet::new());
    let _here = local.enter();
    for fault in [
        Fault::Status(401),
        Fault::Status(500),
        Fault::Html,
        Fault::EmptyOk,
        Fault::TokenWithSpace,
        Fault::TokenWithNewline,
        Fault::TenMegabytes,
        Fault::Silence,
        Fault::Trickle,
        Fault::RateLimited { retry_after: 2 },
        Fault::Hangup,
    ] {
        cases.spawn_local(async move {
            let (aura, running, _folder) = faulty(&fault).await;
            assert_unavailable(&get(running.addr, PATH, &[]).await, &format!("{fault:?}"));
            assert_unavailable(&post(running.addr, PATH, &[], "{}").await, &format!("{fault:?}"));
            assert_eq!(aura.record().api_requests(), 0, "{fault:?}");
            aura.token_fault(Fault::None);
            eventually("a token", async || running.account().generation > 0).await;
            assert_eq!(get(running.addr, PATH, &[]).await.status, 200, "{fault:?}");
            assert!(running.account().last_error.is_none());
        });
    }
    local.run_until(cases.join_all()).await;
}

#[tokio::test]
async fn a_lasting_failure_of_the_token_endpoint_is_503_at_once_and_heals_with_the_secret() {
    let other = aura().await;
    let (local, mut cases) = (LocalSet::new(), JoinSet::new());
    let _here = local.enter();
    for fault in
        [Fault::Redirect(format!("{}/oauth/token", other.url())), Fault::ErrorIn200, Fault::TokenTypeMac]
    {
        cases.spawn_local(async move {
            let (aura, running, folder) = faulty(&fault).await;
            for _ in 0..10 {
                assert_unavailable(&get(running.addr, PATH, &[]).await, &format!("{fault:?}"));
            }
            // A client that is refused for good does not hammer.
            assert_eq!((aura.record().token_requests(), aura.record().api_requests()), (1, 0), "{fault:?}");
            aura.token_fault(Fault::None);
            private_file(folder.path().join("new"), "s:cret\n");
            std::fs::rename(folder.path().join("new"), folder.path().join("secret")).unwrap();
            eventually("a token", async || running.account().generation > 0).await;
            assert_eq!(get(running.addr, PATH, &[]).await.status, 200, "{fault:?}");
        });
    }
    local.run_until(cases.join_all()).await;
    assert_eq!(other.record().connections(), 0, "redirects are not followed");
}

#[tokio::test]
async fn a_wrong_client_secret_is_asked_about_once_and_the_right_one_is_taken_up_from_its_file() {
    let (aura, folder) = (aura().await, tempfile::tempdir().unwrap());
    let file = private_file(folder.path().join("secret"), "wrong");
    let running =
        sidekey(&aura_route(&aura, &format!("client_secret = {{ file = \"{}\" }}", file.display())));
    for _ in 0..10 {
        assert_unavailable(&get(running.addr, PATH, &[]).await, "a wrong secret");
    }
    assert_eq!((aura.record().token_requests(), aura.record().api_requests()), (1, 0));
    private_file(file, "s:cret");
    eventually("a token", async || running.account().generation > 0).await;
    assert_eq!(get(running.addr, PATH, &[]).await.status, 200);
}

#[tokio::test]
async fn odd_but_good_token_answers_are_understood() {
    for fault in [Fault::ExpiresInString, Fault::ExpiresInFloat, Fault::NoExpiresIn] {
        let (aura, running, _folder) = faulty(&fault).await;
        assert_eq!(get(running.addr, PATH, &[]).await.status, 200, "{fault:?}");
        let lives = running.account().expires_in_seconds.unwrap();
        assert!(lives > 3500.0 && lives <= 3600.5, "{fault:?}: {lives}");
        assert_eq!(aura.record().token_requests(), 1);
    }
}

#[tokio::test]
async fn a_token_in_force_outlives_a_failing_token_endpoint() {
    let aura =
        Aura::builder().client("id", "s:cret").token_lifetime(Duration::from_secs(4)).start().await.unwrap();
    let running = sidekey(&aura_route(&aura, "margin = \"3s\"\nfetch_timeout = \"300ms\""));
    assert_eq!(get(running.addr, PATH, &[]).await.status, 200);
    aura.token_fault(Fault::Status(500));
    eventually("a refresh to fail", async || running.account().failures > 0).await;
    let reply = get(running.addr, PATH, &[]).await;
    assert_eq!((reply.status, running.account().generation), (200, 1));
}

#[tokio::test]
async fn a_hundred_cold_requests_cost_one_fetch() {
    let aura = aura().await;
    aura.token_delay(Duration::from_millis(200));
    let text = aura_route(&aura, "").replace("[route", "workers = 4\n[route");
    let running = sidekey(&text);
    let mut asking = JoinSet::new();
    for _ in 0..100 {
        asking.spawn(get_owned(running.addr));
    }
    for reply in asking.join_all().await {
        assert_eq!(reply.status, 200);
    }
    assert_eq!((aura.record().token_requests(), aura.record().api_requests()), (1, 100));
}

async fn get_owned(addr: std::net::SocketAddr) -> Reply {
    get(addr, PATH, &[]).await
}

#[tokio::test]
async fn short_lived_tokens_expire_under_load_and_no_request_fails() {
    let aura =
        Aura::builder().client("id", "s:cret").token_lifetime(Duration::from_secs(2)).start().await.unwrap();
    let running = sidekey(&aura_route(&aura, ""));
    let mut requests = 0;
    eventually("four generations", async || {
        let reply = get(running.addr, PATH, &[]).await;
        requests += 1;
        assert_eq!(reply.status, 200, "request {requests}: {reply:?}");
        running.account().generation >= 4
    })
    .await;
    assert_eq!(running.account().refusals, 0, "each was replaced before it expired");
    // Refreshed at three quarters of its life, not all the time.
    assert!(aura.record().token_requests() <= 6, "{}", aura.record().token_requests());
}

fn neon_with_file(neon: &Neon, file: &std::path::Path) -> Running {
    sidekey(&format!(
        "[server]\nlisten = \"127.0.0.1:0\"\n[route.n]\nprovider = \"neon\"\nupstream = \"{}\"\n\
         credential = {{ type = \"bearer\", token = {{ file = \"{}\" }} }}",
        neon.url(),
        file.display()
    ))
}

#[tokio::test]
async fn a_token_file_that_changes_is_noticed_however_it_changes() {
    let neon = Neon::builder().key("one").key("two").key("three").key("four").start().await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    // As Kubernetes lays a volume out: file → data/file, data → version.
    for (version, key) in [("v1", "one"), ("v2", "two")] {
        std::fs::create_dir(at(version)).unwrap();
        private_file(at(version).join("key"), key);
    }
    std::os::unix::fs::symlink("v1", at("data")).unwrap();
    std::os::unix::fs::symlink("data/key", at("key")).unwrap();
    let running = neon_with_file(&neon, &at("key"));
    let sends = async |key: &str| {
        let reply = get(running.addr, "/projects", &[]).await;
        assert_eq!(reply.status, 200);
        neon.record().take().pop().unwrap().header("authorization") == Some(&*format!("Bearer {key}"))
    };
    assert!(sends("one").await);

    std::os::unix::fs::symlink("v2", at("data_new")).unwrap();
    std::fs::rename(at("data_new"), at("data")).unwrap();
    eventually("the swapped symlink", async || sends("two").await).await;

    private_file(at("new"), "three");
    std::fs::rename(at("new"), at("key")).unwrap();
    eventually("the renamed file", async || sends("three").await).await;

    private_file(at("key"), "four\n");
    eventually("the file written in place", async || sends("four").await).await;

    std::fs::remove_file(at("key")).unwrap();
    eventually("the file to be missed", async || running.account().last_error.is_some()).await;
    assert!(sends("four").await, "what was read last serves on");
}

#[tokio::test]
async fn a_callers_leaving_does_not_cancel_the_fetch_for_others() {
    let aura = aura().await;
    aura.token_delay(Duration::from_millis(300));
    let running = sidekey(&aura_route(&aura, ""));
    let request = format!("GET {PATH} HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let mut leaving = TcpStream::connect(running.addr).await.unwrap();
    let mut staying = TcpStream::connect(running.addr).await.unwrap();
    say(&mut leaving, &request).await;
    say(&mut staying, &request).await;
    eventually("the fetch to begin", async || aura.record().token_requests() == 1).await;
    drop(leaving);
    assert_eq!(read_reply(&mut staying).await.status, 200);
    assert_eq!((aura.record().token_requests(), aura.record().api_requests()), (1, 1));
}

#[tokio::test]
async fn more_waiting_requests_than_the_queue_holds_are_overload() {
    let aura = aura().await;
    aura.token_fault(Fault::Silence);
    let running =
        sidekey(&aura_route(&aura, "lease_queue = 3\nlease_timeout = \"20s\"\nfetch_timeout = \"15s\""));
    let mut asking = JoinSet::new();
    for _ in 0..8 {
        asking.spawn(get_owned(running.addr));
    }
    for _ in 0..5 {
        let reply = patiently("a refusal", asking.join_next()).await.unwrap().unwrap();
        assert_eq!((reply.status, reply.header("sidekey-error")), (503, Some("overloaded")), "{reply:?}");
        assert_eq!(reply.header("retry-after"), Some("1"));
    }
    assert_eq!((asking.len(), aura.record().api_requests()), (3, 0));
    // Those who leave make room.
    asking.shutdown().await;
    let mut next = TcpStream::connect(running.addr).await.unwrap();
    eventually("room in the queue", async || {
        say(&mut next, format!("GET {PATH} HTTP/1.1\r\nHost: localhost\r\n\r\n")).await;
        let looked = tokio::time::timeout(Duration::from_millis(200), read_reply(&mut next)).await;
        looked.is_err()
    })
    .await;
}
