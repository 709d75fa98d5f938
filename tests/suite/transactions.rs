//! Neo4j transactions under bearer tokens that rotate, against a stand-in that binds each to its exact token.
#![cfg(feature = "demo")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

use crate::support::running::{Running, eventually, sidekey};
use crate::support::{Reply, send};
use http::Method;
use sidekey::demo::standins::Neo4j;

const QUERY: &str = r#"{"statement":"RETURN 1 AS n"}"#;

/// A Neo4j whose tokens come of its own token endpoint and live so long, behind a listener of its own.
async fn graph(lifetime: Duration) -> (Neo4j, Running) {
    let neo4j = Neo4j::builder().sso_client("id", "secret").token_lifetime(lifetime).require_affinity();
    let neo4j = neo4j.start().await.unwrap();
    let url = neo4j.url();
    let running = sidekey(&format!(
        "[server]\nlisten = \"127.0.0.1:0\"\nworkers = 2\n[route.graph]\nprovider = \"neo4j\"\npath = \"/\"\n\
         upstream = \"{url}\"\ncredential = \"sso\"\n[credential.sso]\ntype = \"client_credentials\"\n\
         token_url = \"{url}/sso/token\"\nclient_id = \"id\"\nclient_secret = {{ value = \"secret\" }}\n"
    ));
    (neo4j, running)
}

pub(crate) async fn call(running: &Running, method: Method, path: &str, affinity: &str) -> Reply {
    let headers = [
        ("content-type", "application/json"),
        ("accept-encoding", "gzip"),
        ("neo4j-cluster-affinity", affinity),
    ];
    let body = if method == Method::POST { QUERY } else { "" };
    send(running.addr, method, path, &headers, body).await
}

/// Opens a transaction; its path and its affinity.
pub(crate) async fn begin(running: &Running) -> (String, String) {
    let begun = call(running, Method::POST, "/db/neo4j/query/v2/tx", "").await;
    assert_eq!(begun.status, 202, "{}", begun.text());
    let id = begun.json()["transaction"]["id"].as_str().unwrap().to_owned();
    let affinity = begun.header("neo4j-cluster-affinity").unwrap().to_owned();
    (format!("/db/neo4j/query/v2/tx/{id}"), affinity)
}

#[tokio::test]
async fn a_transaction_outlives_the_rotation_of_its_token() {
    let (neo4j, running) = graph(Duration::from_secs(2)).await;
    let (transaction, affinity) = begin(&running).await;
    let first = running.account().generation;
    // The pool moves on at 75–85 % of the lifetime; the old token is valid until its end.
    eventually("the next generation", async || running.account().generation > first).await;
    let outside = call(&running, Method::POST, "/db/neo4j/query/v2", "").await;
    assert_eq!(outside.status, 202);
    let run = call(&running, Method::POST, &transaction, &affinity).await;
    assert_eq!(run.status, 202, "{}", run.text());
    // The server reads both as the same, so it is the same transaction.
    let respelled = transaction.replace("/tx/", "/%74x/");
    assert_eq!(call(&running, Method::POST, &respelled, &affinity).await.status, 202);
    let committed = call(&running, Method::POST, &format!("{transaction}/commit"), &affinity).await;
    assert!((200..300).contains(&committed.status), "{} {}", committed.status, committed.text());
    assert_eq!(neo4j.open_transactions(), 0);
    let seen = neo4j.record().requests();
    let of = |part: &str| {
        let with = seen.iter().filter(|seen| seen.target.contains(part));
        with.map(|seen| seen.header("authorization").unwrap().to_owned()).collect::<Vec<_>>()
    };
    let within = of("/query/v2/tx");
    assert_eq!(within.len(), 3);
    assert!(within.iter().all(|token| *token == within[0]), "one token for the whole transaction");
    let single = seen.iter().find(|seen| seen.target.ends_with("/query/v2")).unwrap();
    assert_ne!(single.header("authorization").unwrap(), within[0], "the others have moved on");
}

#[tokio::test]
async fn a_request_within_a_transaction_is_never_sent_again_with_another_token() {
    let (neo4j, running) = graph(Duration::from_secs(3600)).await;
    let (transaction, affinity) = begin(&running).await;
    neo4j.tokens().revoke_all();
    let run = call(&running, Method::POST, &transaction, &affinity).await;
    assert_eq!(run.status, 401, "the server's own answer: {}", run.text());
    let sent = neo4j.record().requests();
    assert_eq!(sent.iter().filter(|seen| seen.target == transaction).count(), 1);
    // What is not bound to the dead token goes on.
    let outside = call(&running, Method::POST, "/db/neo4j/query/v2", "").await;
    assert_eq!(outside.status, 202);
}

#[tokio::test]
async fn a_rolled_back_transaction_is_forgotten() {
    let (neo4j, running) = graph(Duration::from_secs(3600)).await;
    let (transaction, affinity) = begin(&running).await;
    let rolled_back = call(&running, Method::DELETE, &transaction, &affinity).await;
    assert!((200..300).contains(&rolled_back.status), "{} {}", rolled_back.status, rolled_back.text());
    assert_eq!(neo4j.open_transactions(), 0);
    let late = call(&running, Method::POST, &transaction, &affinity).await;
    assert_eq!(late.status, 404);
}

#[tokio::test]
async fn the_older_api_keeps_its_token_too_and_its_urls_lead_back_here() {
    let (_neo4j, running) = graph(Duration::from_secs(2)).await;
    let body = r#"{"statements":[{"statement":"RETURN 1 AS n"}]}"#;
    let headers = [("content-type", "application/json")];
    let begun = send(running.addr, Method::POST, "/db/neo4j/tx", &headers, body).await;
    assert_eq!(begun.status, 201, "{}", begun.text());
    let base = format!("http://{}", running.addr);
    let commit = begun.json()["commit"].as_str().unwrap().to_owned();
    let path =
        commit.strip_prefix(&base).unwrap_or_else(|| panic!("{commit} does not lead to {base}")).to_owned();
    let first = running.account().generation;
    eventually("the next generation", async || running.account().generation > first).await;
    let committed = send(running.addr, Method::POST, &path, &headers, body).await;
    assert_eq!(committed.status, 200, "{}", committed.text());
    assert_eq!(committed.json()["errors"].as_array().unwrap().len(), 0, "{}", committed.text());
}

#[tokio::test]
async fn a_callers_transaction_is_no_other_callers() {
    let neo4j = Neo4j::builder().basic("neo4j", "p").start().await.unwrap();
    let running = sidekey(&format!(
        "[server]\nlisten = \"127.0.0.1:0\"\nworkers = 2\n[route.graph]\nprovider = \"neo4j\"\npath = \"/\"\n\
         upstream = \"{}\"\ncredential = {{ type = \"basic\", username = \"neo4j\", password = {{ value = \"p\" }} }}\n\
         [caller.a]\ntoken = {{ value = \"token-of-a-0123456789\" }}\n[caller.b]\ntoken = {{ value = \"token-of-b-0123456789\" }}\n",
        neo4j.url()
    ));
    let call = async |caller: &str, method: Method, path: &str| {
        let token = format!("token-of-{caller}-0123456789");
        let headers = [("content-type", "application/json"), ("sidekey-token", &*token)];
        let body = if method == Method::POST { QUERY } else { "" };
        send(running.addr, method, path, &headers, body).await
    };
    for collection in ["/db/neo4j/query/v2/tx", "/db/neo4j/tx"] {
        let begun = call("a", Method::POST, collection).await.json();
        let id = begun["transaction"]["id"].as_str().or_else(|| begun["commit"].as_str()?.rsplit('/').nth(1));
        let transaction = format!("{collection}/{}", id.unwrap());
        let respelled = transaction.replace("/tx/", "/%74x/");
        let before = neo4j.record().api_requests();
        for path in [transaction.clone(), format!("{transaction}/commit"), respelled] {
            for method in [Method::POST, Method::DELETE] {
                let refused = call("b", method, &path).await;
                let code = (refused.status, refused.header("sidekey-error"));
                assert_eq!(code, (403, Some("not_allowed")), "{path}: {}", refused.text());
            }
        }
        // As servers find it: by its number, whatever the rest looks like.
        let number = transaction.rsplit('/').next().unwrap();
        for path in [
            format!("{collection}/0{number}/commit"),
            format!("{collection}/{number};x"),
            format!("{collection}/{number}/commit;x"),
            format!("{collection}//{number}"),
            format!("/{transaction}"),
            transaction.replace("/neo4j/", "/NEO4J/"),
            transaction.replace("/neo4j/", "/system/"),
            transaction.replace("/neo4j/", "/neo4j//").replace("tx/", "%74x/"),
            format!("/db/data/transaction/{number}"),
        ] {
            let refused = call("b", Method::POST, &path).await;
            assert!(matches!(refused.status, 400 | 403), "{path}: {}", refused.text());
            assert!(refused.header("sidekey-error").is_some(), "{path}");
        }
        assert_eq!(neo4j.record().api_requests(), before);
        let committed = call("a", Method::POST, &format!("{transaction}/commit")).await;
        assert!(committed.status < 300, "{}", committed.text());
    }
    running.stop().await;
}
