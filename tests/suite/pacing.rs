//! Routes that are paced: requests are spread, wait for their turn, or are told when to come again. And an upstream's own
//! limits, which pass as they are.
#![cfg(feature = "demo")]

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::support::running::{Running, aura, aura_route, eventually, open_route, sidekey};
use crate::support::scripted::{Scripted, read_head, say};
use crate::support::{Reply, get, post};
use tokio::task::JoinSet;

/// An upstream that notes when each request comes.
async fn watched() -> (Scripted, Arc<Mutex<Vec<Instant>>>) {
    let came = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&came);
    let upstream = Scripted::start(move |_, mut stream| {
        let seen = Arc::clone(&seen);
        async move {
            while !read_head(&mut stream).await.is_empty() {
                seen.lock().expect("not poisoned").push(Instant::now());
                say(&mut stream, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
            }
        }
    })
    .await;
    (upstream, came)
}

fn paced(upstream: SocketAddr, keys: &str) -> Running {
    sidekey(&open_route(upstream, keys))
}

async fn get_owned(addr: SocketAddr) -> Reply {
    get(addr, "/", &[]).await
}

fn assert_rate_limited(reply: &Reply, retry_after: std::ops::RangeInclusive<u64>) {
    assert_eq!((reply.status, reply.header("sidekey-error")), (429, Some("rate_limited")), "{reply:?}");
    assert_eq!(reply.header("proxy-status"), Some("sidekey; error=http_request_denied"));
    let seconds: u64 = reply.header("retry-after").expect("Retry-After").parse().expect("whole seconds");
    assert!(retry_after.contains(&seconds), "{seconds}");
}

#[tokio::test]
async fn many_at_once_are_spread_below_the_rate_by_all_workers_together() {
    let (upstream, came) = watched().await;
    let text = open_route(upstream.addr, "pace = \"50/s\"");
    let running = sidekey(&text.replace("[server]\n", "[server]\nworkers = 3\n"));
    let mut asking = JoinSet::new();
    for _ in 0..70 {
        asking.spawn(get_owned(running.addr));
    }
    for reply in asking.join_all().await {
        assert_eq!((reply.status, reply.text()), (200, "ok"));
    }
    let came = came.lock().unwrap();
    assert_eq!(came.len(), 70);
    // Five at once, then one each 22 ms; a loaded machine may deliver some of them late.
    let whole = *came.last().unwrap() - came[0];
    assert!(whole >= Duration::from_millis(1200), "{whole:?}");
    for (first, next) in came.iter().zip(came.iter().skip(50)) {
        assert!(*next - *first >= Duration::from_millis(800), "{:?}", *next - *first);
    }
}

#[tokio::test]
async fn a_turn_that_would_come_too_late_is_refused_at_once_and_costs_nothing() {
    let (upstream, came) = watched().await;
    for (keys, retry_after) in [
        ("pace = \"1/min\"", 35..=52),
        ("pace = \"1/min\"\npace_wait = \"0s\"", 45..=62),
        ("pace = \"1/min\"\npace_wait = 0", 45..=62),
        ("pace = [\"100/s\", \"1/h\"]\npace_wait = \"1h\"", 55..=72),
    ] {
        came.lock().unwrap().clear();
        let running = paced(upstream.addr, keys);
        assert_eq!(get(running.addr, "/", &[]).await.status, 200);
        let before = Instant::now();
        for _ in 0..50 {
            assert_rate_limited(&get(running.addr, "/", &[]).await, retry_after.clone());
        }
        assert!(before.elapsed() < Duration::from_secs(10));
        assert_eq!(came.lock().unwrap().len(), 1, "{keys}");
    }
}

#[tokio::test]
async fn the_refusal_has_the_error_shape_of_the_provider() {
    let (upstream, _) = watched().await;
    let keys = "provider = \"neo4j\"\npace = \"1/h\"";
    let running = paced(upstream.addr, keys);
    assert_eq!(get(running.addr, "/", &[]).await.status, 200);
    let refused = get(running.addr, "/", &[]).await;
    assert_rate_limited(&refused, 3600..=3662);
    assert_eq!(refused.json()["errors"][0]["code"], "Neo.TransientError.General.SidekeyRateLimited");
}

#[tokio::test]
async fn a_caller_that_goes_away_while_it_waits_gives_its_turn_to_the_next() {
    let (upstream, came) = watched().await;
    let running = paced(upstream.addr, "pace = \"1/min\"\npace_wait = \"90s\"");
    assert_eq!(get(running.addr, "/", &[]).await.status, 200);
    let mut waiting = tokio::net::TcpStream::connect(running.addr).await.unwrap();
    say(&mut waiting, "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    // While it waits, there is no room for another; when it has gone, there is.
    let addr = running.addr;
    let refused =
        async || tokio::time::timeout(Duration::from_millis(300), get(addr, "/", &[])).await.is_ok();
    eventually("the queue to be full", refused).await;
    drop(waiting);
    eventually("the turn to be given back", async || !refused().await).await;
    assert_eq!(came.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn a_replay_with_a_new_token_counts_and_does_not_wait() {
    let aura = aura().await;
    let keys = "pace = \"1/min\"\npace_wait = \"70s\"\n[credential.aura]";
    let running = sidekey(&aura_route(&aura, "").replace("[credential.aura]", keys));
    running.settled().await;
    aura.tokens().revoke_all();
    let reply = post(running.addr, "/v1/echo", &[], "body").await;
    assert_eq!(reply.status, 200);
    assert_eq!(aura.record().api_requests(), 2, "refused, and sent again");
    // Two have gone, so the next is due after two minutes.
    assert_rate_limited(&get(running.addr, "/v1/instances", &[]).await, 35..=53);
}

#[tokio::test]
async fn an_upstreams_own_limit_passes_as_it_is() {
    for (status, reason) in [(429_u16, "Too Many Requests"), (503, "Service Unavailable")] {
        for after in ["7", "Fri, 31 Dec 2027 23:59:59 GMT"] {
            let upstream = Scripted::start(move |_, mut stream| async move {
                read_head(&mut stream).await;
                let body = r#"{"mine":true}"#;
                let answer = format!(
                    "HTTP/1.1 {status} {reason}\r\nRetry-After: {after}\r\nX-RateLimit-Remaining: 0\r\n\
                     Content-Length: {}\r\n\r\n{body}",
                    body.len()
                );
                say(&mut stream, answer).await;
            })
            .await;
            let running = paced(upstream.addr, "pace = \"100/s\"");
            let reply = get(running.addr, "/", &[]).await;
            assert_eq!((reply.status, reply.text()), (status, r#"{"mine":true}"#));
            assert_eq!(reply.header("retry-after"), Some(after));
            assert_eq!(reply.header("x-ratelimit-remaining"), Some("0"));
            assert_eq!((reply.header("sidekey-error"), reply.header("proxy-status")), (None, None));
            assert_eq!(upstream.connections(), 1, "it is not sent again");
        }
    }
}
