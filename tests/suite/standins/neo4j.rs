//! Neo4j's authentication, discovery and two query APIs.

use std::net::SocketAddr;
use std::time::Duration;

use http::Method;
use serde_json::json;
use sidekey::demo::standins::{Neo4j, Tokens};

use super::{FORM, GRANT};
use crate::support::{Headers, Reply, basic, bearer, get, post, send};

const TYPED: &str = "application/vnd.neo4j.query";

async fn start_neo4j() -> Neo4j {
    Neo4j::builder()
        .basic("neo4j", "verysecret")
        .bearer("xbhkjnlvianztghqwawxqfe")
        .start()
        .await
        .expect("start")
}

async fn commit(addr: SocketAddr, headers: Headers<'_>) -> Reply {
    post(addr, "/db/neo4j/tx/commit", headers, r#"{"statements":[{"statement":"RETURN 1 AS n"}]}"#).await
}

#[tokio::test]
async fn neo4j_answers_the_authentication_errors_of_the_real_server() {
    let neo4j = start_neo4j().await;
    let unauthorized = "Neo.ClientError.Security.Unauthorized";
    let format = "Neo.ClientError.Request.InvalidFormat";
    let cases: [(Option<&str>, u16, &str, &str); 5] = [
        (None, 401, unauthorized, "No authentication header supplied."),
        (Some("Basic bmVvNGo6aW5jb3JyZWN0"), 401, unauthorized, "Invalid credential."),
        (Some("Bearer wrong"), 401, unauthorized, "Invalid credential."),
        (Some("Basic not-proper-base64"), 400, format, "Invalid authentication header."),
        (Some("Digest x"), 400, format, "Invalid authentication header."),
    ];
    for (header, status, code, message) in cases {
        let headers: Vec<(&str, &str)> = header.iter().map(|value| ("authorization", *value)).collect();
        let reply = commit(neo4j.addr(), &headers).await;
        assert_eq!(reply.status, status, "{header:?}");
        assert_eq!(reply.json(), json!({ "errors": [{ "code": code, "message": message }] }));
        assert_eq!(reply.header("content-type"), Some("application/json;charset=utf-8"));
        assert_eq!(reply.header("access-control-allow-origin"), Some("*"));
        let challenge = (status == 401).then_some("Basic realm=\"Neo4j\", Bearer realm=\"Neo4j\"");
        assert_eq!(reply.header("www-authenticate"), challenge);
    }
    let strict = Neo4j::builder().malformed_as_unauthorized().start().await.unwrap();
    assert_eq!(commit(strict.addr(), &[("authorization", "Basic not-proper-base64")]).await.status, 401);
    let open = Neo4j::builder().without_auth().start().await.unwrap();
    assert_eq!(commit(open.addr(), &[]).await.status, 200);
}

#[tokio::test]
async fn neo4j_takes_a_bearer_token_as_it_is_and_in_base64_only_if_told() {
    let encoded = "Bearer eGJoa2pubHZpYW56dGdocXdhd3hxZmUK";
    let plain = start_neo4j().await;
    let documented =
        Neo4j::builder().bearer("xbhkjnlvianztghqwawxqfe").base64_tokens().start().await.unwrap();
    let status =
        async |server: &Neo4j, header: &str| commit(server.addr(), &[("authorization", header)]).await.status;
    assert_eq!(status(&plain, "bEARER xbhkjnlvianztghqwawxqfe").await, 200);
    assert_eq!(status(&plain, encoded).await, 401);
    assert_eq!(status(&documented, encoded).await, 200);
    assert_eq!(status(&documented, "Bearer eGJoa2pubHZpYW56dGdocXdhd3hxZmU=").await, 200);
    assert_eq!(status(&documented, "Bearer xbhkjnlvianztghqwawxqfe").await, 200);
}

#[tokio::test]
async fn neo4j_locks_a_user_after_three_failures_without_saying_for_how_long() {
    let neo4j = start_neo4j().await;
    for _ in 0..3 {
        assert_eq!(commit(neo4j.addr(), &[("authorization", &basic("neo4j", "wrong"))]).await.status, 401);
    }
    let locked = commit(neo4j.addr(), &[("authorization", &basic("neo4j", "verysecret"))]).await;
    assert_eq!(locked.status, 429);
    assert_eq!(locked.json()["errors"][0]["code"], "Neo.ClientError.Security.AuthenticationRateLimit");
    assert_eq!(locked.header("retry-after"), None);
}

#[tokio::test]
async fn neo4j_lets_preflights_and_discovery_through_and_builds_urls_as_the_client_sees_them() {
    let neo4j = Neo4j::builder().routing().start().await.unwrap();
    let preflight =
        send(neo4j.addr(), Method::OPTIONS, "/db/neo4j/tx", &[("origin", "https://evil.test")], "").await;
    assert_eq!((preflight.status, preflight.header("access-control-allow-origin")), (200, Some("*")));

    let found = get(neo4j.addr(), "/", &[("host", "db.test:7474")]).await.json();
    assert_eq!(found["transaction"], "http://db.test:7474/db/{databaseName}/tx");
    assert_eq!(
        (&found["bolt_direct"], &found["bolt_routing"]),
        (&json!("bolt://db.test:7687"), &json!("neo4j://db.test:7687"))
    );
    assert!(found["neo4j_version"].is_string() && found["neo4j_edition"].is_string());
    assert_eq!(found["auth_config"]["oidc_providers"], json!([]));

    let forwarded = [("x-forwarded-host", "graph.test:7600, other"), ("x-forwarded-proto", "https")];
    let found = get(neo4j.addr(), "/", &forwarded).await.json();
    assert_eq!(found["query"], "https://graph.test:7600/db/{databaseName}/query/v2");
}

#[tokio::test]
async fn neo4j_breaks_on_an_address_in_x_forwarded_host_as_the_real_server_does() {
    let neo4j = start_neo4j().await;
    let auth = basic("neo4j", "verysecret");
    let headers = [("authorization", auth.as_str()), ("x-forwarded-host", "127.0.0.1:7600")];
    let found = get(neo4j.addr(), "/", &headers).await;
    assert_eq!((found.status, found.json()["errors"][0]["message"].clone()), (500, json!("Request failed.")));
    let query = post(neo4j.addr(), "/db/neo4j/query/v2", &headers, r#"{"statement":"RETURN 1"}"#).await;
    let want =
        json!({ "code": "Neo.DatabaseError.General.UnknownError", "message": "An unknown error occurred." });
    assert_eq!((query.status, query.json()["errors"][0].clone()), (500, want));
    let wrong = [("authorization", "Basic bmVvNGo6aW5jb3JyZWN0"), headers[1]];
    assert_eq!(get(neo4j.addr(), "/db/neo4j/query/v2", &wrong).await.status, 401);
}

#[tokio::test]
async fn neo4j_carries_a_transactional_api_transaction_from_begin_to_commit() {
    let neo4j = start_neo4j().await;
    let auth = basic("neo4j", "verysecret");
    let headers = [("authorization", auth.as_str()), ("x-forwarded-host", "graph.test:7600")];
    let statement = r#"{"statements":[{"statement":"RETURN $p AS p","parameters":{"p":[1,"a"]}}]}"#;
    let begun = post(neo4j.addr(), "/db/neo4j/tx", &headers, statement).await;
    assert_eq!(begun.status, 201);
    let location = begun.header("location").unwrap().to_owned();
    assert!(location.starts_with("http://graph.test:7600/db/neo4j/tx/"), "{location}");
    assert_eq!(begun.json()["commit"], format!("{location}/commit"));
    assert_eq!(
        begun.json()["results"],
        json!([{ "columns": ["p"], "data": [{ "row": [[1, "a"]], "meta": [null] }] }])
    );

    let path = location.trim_start_matches("http://graph.test:7600");
    let run = post(neo4j.addr(), path, &headers, statement).await;
    assert_eq!((run.status, &run.json()["errors"]), (200, &json!([])));
    assert_eq!(post(neo4j.addr(), &format!("{path}/commit"), &headers, "").await.status, 200);
    let gone = post(neo4j.addr(), &format!("{path}/commit"), &headers, "").await;
    assert_eq!(gone.status, 404);
    assert_eq!(gone.json()["errors"][0]["code"], "Neo.ClientError.Transaction.TransactionNotFound");

    let failed =
        post(neo4j.addr(), "/db/neo4j/tx", &headers, r#"{"statements":[{"statement":"OOPS"}]}"#).await;
    assert_eq!(failed.json()["errors"][0]["code"], "Neo.ClientError.Statement.SyntaxError");
    assert_eq!(neo4j.open_transactions(), 0);
}

#[tokio::test]
async fn neo4j_answers_queries_in_the_media_type_that_is_asked_for() {
    let neo4j = start_neo4j().await;
    let auth = basic("neo4j", "verysecret");
    let auth = ("authorization", auth.as_str());
    let path = "/db/neo4j/query/v2";
    let plain = post(neo4j.addr(), path, &[auth], r#"{"statement":"RETURN 1 AS n, 'x' AS s"}"#).await;
    assert_eq!((plain.status, plain.header("content-type")), (202, Some("application/json")));
    assert_eq!(plain.json()["data"], json!({ "fields": ["n", "s"], "values": [[1, "x"]] }));
    assert_eq!(plain.json()["bookmarks"].as_array().unwrap().len(), 1);

    let body = r#"{"statement":"RETURN $p AS p","parameters":{"p":{"$type":"Integer","_value":"7"}}}"#;
    let typed = post(neo4j.addr(), path, &[auth, ("accept", TYPED), ("content-type", TYPED)], body).await;
    assert_eq!(typed.header("content-type"), Some(TYPED));
    assert_eq!(typed.json()["data"]["values"], json!([[{ "$type": "Integer", "_value": "7" }]]));
    let wrong = post(neo4j.addr(), path, &[auth], r#"{"statement":"OOPS"}"#).await;
    assert_eq!((wrong.status, wrong.json()["errors"].as_array().unwrap().len()), (400, 1));
}

#[tokio::test]
async fn a_query_api_transaction_belongs_to_the_exact_credential_and_member_that_opened_it() {
    let neo4j = Neo4j::builder().bearer("first").bearer("second").require_affinity().start().await.unwrap();
    let (first, second) = (("authorization", "Bearer first"), ("authorization", "Bearer second"));
    let begun = post(neo4j.addr(), "/db/neo4j/query/v2/tx", &[first], "{}").await;
    assert_eq!(begun.status, 202);
    let transaction = begun.json()["transaction"].clone();
    assert!(transaction["expires"].as_str().unwrap().ends_with('Z'));
    let member = ("neo4j-cluster-affinity", begun.header("neo4j-cluster-affinity").unwrap());
    let path = format!("/db/neo4j/query/v2/tx/{}", transaction["id"].as_str().unwrap());
    let statement = r#"{"statement":"RETURN 1 AS n"}"#;

    let stranger = post(neo4j.addr(), &path, &[second, member], statement).await;
    assert_eq!(stranger.status, 404);
    assert_eq!(stranger.json()["errors"][0]["code"], "Neo.ClientError.Request.Invalid");
    assert_eq!(post(neo4j.addr(), &path, &[first], statement).await.status, 404);
    let run = post(neo4j.addr(), &path, &[first, member], statement).await;
    assert_eq!((run.status, &run.json()["data"]["values"]), (202, &json!([[1]])));
    let done = post(neo4j.addr(), &format!("{path}/commit"), &[first, member], "").await;
    assert_eq!((done.status, done.json()["bookmarks"].as_array().unwrap().len()), (202, 1));

    let begun = post(neo4j.addr(), "/db/neo4j/query/v2/tx", &[first], "").await;
    let member = ("neo4j-cluster-affinity", begun.header("neo4j-cluster-affinity").unwrap());
    let path = format!("/db/neo4j/query/v2/tx/{}", begun.json()["transaction"]["id"].as_str().unwrap());
    assert_eq!(neo4j.open_transactions(), 1);
    assert_eq!(send(neo4j.addr(), Method::DELETE, &path, &[first, member], "").await.status, 200);
    assert_eq!(neo4j.open_transactions(), 0);
}

#[tokio::test]
async fn neo4j_accepts_the_tokens_of_its_sso_endpoint_however_the_client_authenticates() {
    let neo4j = Neo4j::builder().sso_client("app", "a b&c%").start().await.unwrap();
    let form = format!("{GRANT}&client_id=app&client_secret=a+b%26c%25");
    let raw_basic = basic("app", "a b&c%");
    let form_basic = basic("app", "a+b%26c%25");
    let cases: [(Headers<'_>, String); 3] = [
        (&[FORM], form.clone()),
        (&[FORM, ("authorization", &raw_basic)], GRANT.to_owned()),
        (&[FORM, ("authorization", &form_basic)], GRANT.to_owned()),
    ];
    for (headers, body) in cases {
        let grant = post(neo4j.addr(), "/sso/token", headers, body).await.json();
        let token = bearer(grant["access_token"].as_str().unwrap());
        assert_eq!(commit(neo4j.addr(), &[("authorization", &token)]).await.status, 200);
    }
    assert_eq!(post(neo4j.addr(), "/sso/token", &[FORM], GRANT).await.status, 401);
    assert_eq!((neo4j.record().token_requests(), neo4j.tokens().issued()), (4, 3));

    let shared = Tokens::new();
    let other = Neo4j::builder().tokens(shared.clone()).start().await.unwrap();
    let token = bearer(&shared.issue(Duration::from_secs(60)));
    assert_eq!(commit(other.addr(), &[("authorization", &token)]).await.status, 200);
    shared.revoke_all();
    assert_eq!(commit(other.addr(), &[("authorization", &token)]).await.status, 401);
}
