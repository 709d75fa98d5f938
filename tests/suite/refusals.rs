//! Tokens that an upstream refuses: replaced where that helps, and otherwise the refusal passes through.
#![cfg(feature = "demo")]

use std::time::Duration;

use crate::support::running::{aura, aura_route, eventually, sidekey};
use crate::support::scripted::say;
use crate::support::{Reply, get, post, read_reply};
use http::StatusCode;
use sidekey::demo::standins::{Checksum, Neo4j};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

const PATH: &str = "/v1/instances";

async fn get_owned(addr: std::net::SocketAddr) -> Reply {
    get(addr, PATH, &[]).await
}

#[tokio::test]
async fn a_revoked_token_costs_one_fetch_and_one_replay_and_the_caller_sees_nothing_of_it() {
    for status in [StatusCode::UNAUTHORIZED, StatusCode::FORBIDDEN] {
        let aura = aura().await;
        aura.answer_revoked_with(status);
        let running = sidekey(&aura_route(&aura, ""));
        assert_eq!(get(running.addr, PATH, &[]).await.status, 200);
        for (round, body) in ["", "small", &"x".repeat(60_000)].into_iter().enumerate() {
            aura.tokens().revoke_all();
            aura.record().take();
            let reply = post(running.addr, "/v1/echo", &[("x-a", "1"), ("x-a", "2")], body.to_owned()).await;
            assert_eq!((reply.status, reply.json()["body_bytes"].as_u64()), (200, Some(body.len() as u64)));
            let seen = aura.record().take();
            let statuses: Vec<_> =
                seen.iter().map(|seen| (seen.token_request, seen.status.unwrap())).collect();
            assert_eq!(
                statuses,
                [(false, status.as_u16()), (true, 200), (false, 200)],
                "{status} round {round}"
            );
            assert_eq!(seen[2].header_all("x-a"), ["1", "2"]);
            assert_ne!(seen[0].header("authorization"), seen[2].header("authorization"));
        }
    }
}

#[tokio::test]
async fn a_refusal_that_comes_before_the_body_does_is_replayed_with_all_of_it() {
    let aura = aura().await;
    let running = sidekey(&aura_route(&aura, ""));
    for framing in ["Content-Length: 10", "Transfer-Encoding: chunked"] {
        assert_eq!(get(running.addr, PATH, &[]).await.status, 200);
        aura.tokens().revoke_all();
        aura.record().take();
        let parts = match framing {
            "Content-Length: 10" => ["01234", "56789"],
            _ => ["5\r\n01234\r\n", "5\r\n56789\r\n0\r\n\r\n"],
        };
        let mut stream = TcpStream::connect(running.addr).await.unwrap();
        say(
            &mut stream,
            format!("POST /v1/echo HTTP/1.1\r\nHost: localhost\r\n{framing}\r\n\r\n{}", parts[0]),
        )
        .await;
        eventually("the replay", async || aura.record().requests().len() == 3).await;
        say(&mut stream, parts[1]).await;
        let echo = read_reply(&mut stream).await;
        assert_eq!((echo.status, &echo.json()["checksum"]), (200, &Checksum::of(b"0123456789").hex().into()));
    }
}

#[tokio::test]
async fn a_replay_has_the_same_time_for_its_answer() {
    let aura = aura().await;
    let text =
        aura_route(&aura, "").replace("[credential.aura]", "response_timeout = \"300ms\"\n[credential.aura]");
    let running = sidekey(&text);
    for body in ["", "body"] {
        assert_eq!(get(running.addr, PATH, &[]).await.status, 200);
        aura.tokens().revoke_all();
        let reply = post(running.addr, "/v1/slow/15000", &[], body).await;
        assert_eq!(
            (reply.status, reply.header("sidekey-error")),
            (504, Some("upstream_timeout")),
            "{body:?}"
        );
    }
}

#[tokio::test]
async fn many_requests_with_a_revoked_token_cost_one_fetch() {
    let aura = aura().await;
    let running = sidekey(&aura_route(&aura, ""));
    assert_eq!(get(running.addr, PATH, &[]).await.status, 200);
    aura.tokens().revoke_all();
    aura.token_delay(Duration::from_millis(200));
    let mut asking = JoinSet::new();
    for _ in 0..50 {
        asking.spawn(get_owned(running.addr));
    }
    for reply in asking.join_all().await {
        assert_eq!(reply.status, 200);
    }
    assert_eq!(aura.record().token_requests(), 2);
}

#[tokio::test]
async fn a_body_too_large_for_a_replay_gets_the_upstreams_own_401_and_the_next_request_works() {
    let aura = aura().await;
    let text =
        aura_route(&aura, "").replace("[credential.aura]", "replay_body = \"1KiB\"\n[credential.aura]");
    let running = sidekey(&text);
    assert_eq!(get(running.addr, PATH, &[]).await.status, 200);
    aura.tokens().revoke_all();
    let reply = post(running.addr, "/v1/echo", &[], "x".repeat(1025)).await;
    assert_eq!((reply.status, reply.header("sidekey-error")), (401, None));
    assert_eq!(reply.json()["errors"][0]["reason"], "revoked");
    assert_eq!(post(running.addr, "/v1/echo", &[], "x".repeat(1025)).await.status, 200);
    assert_eq!((aura.record().token_requests(), aura.record().api_requests()), (2, 3));
}

#[tokio::test]
async fn a_missing_permission_passes_through_and_costs_no_fetch_each_time() {
    let aura = aura().await;
    let running = sidekey(&aura_route(&aura, ""));
    for _ in 0..50 {
        let reply = get(running.addr, "/v1/forbidden", &[]).await;
        assert_eq!((reply.status, reply.json()["errors"][0]["reason"].as_str()), (403, Some("forbidden")));
        assert_eq!(get(running.addr, PATH, &[]).await.status, 200);
    }
    assert!(aura.record().token_requests() <= 3, "{}", aura.record().token_requests());
}

#[tokio::test]
async fn missing_permissions_do_not_hide_a_revoked_token() {
    let aura = aura().await;
    let running = sidekey(&aura_route(&aura, ""));
    for _ in 0..5 {
        assert_eq!(get(running.addr, "/v1/forbidden", &[]).await.status, 403);
    }
    aura.tokens().revoke_all();
    assert_eq!(get(running.addr, PATH, &[]).await.status, 200);
}

#[tokio::test]
async fn a_wrong_password_passes_through_and_is_not_tried_twice() {
    let neo4j =
        Neo4j::builder().basic("neo4j", "right").lock_after(100, Duration::ZERO).start().await.unwrap();
    let running = sidekey(&format!(
        "[server]\nlisten = \"127.0.0.1:0\"\n[route.g]\nprovider = \"neo4j\"\nupstream = \"{}\"\n\
         credential = {{ type = \"basic\", username = \"neo4j\", password = {{ value = \"wrong\" }} }}",
        neo4j.url()
    ));
    for count in 1..=5 {
        let reply = get(running.addr, "/db/x", &[]).await;
        assert_eq!((reply.status, reply.header("sidekey-error")), (401, None));
        assert_eq!(reply.json()["errors"][0]["code"], "Neo.ClientError.Security.Unauthorized");
        assert!(reply.header("www-authenticate").is_some());
        assert_eq!(neo4j.record().api_requests(), count);
    }
}

#[tokio::test]
async fn a_new_token_is_never_missed_however_the_moments_fall() {
    let aura = aura().await;
    let running = sidekey(&aura_route(&aura, ""));
    for round in 0..200 {
        aura.tokens().revoke_all();
        assert_eq!(get(running.addr, PATH, &[]).await.status, 200, "round {round}");
    }
}
