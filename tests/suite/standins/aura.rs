//! Aura's token endpoint and its faults, its resources, errors and limits.

use std::time::{Duration, Instant};

use http::{Method, StatusCode};
use serde_json::json;
use sidekey::demo::standins::{Aura, Fault};

use super::{FORM, GRANT, ask_token, start_aura, token};
use crate::support::{Headers, basic, bearer, get, post, try_send};

#[tokio::test]
async fn aura_grants_a_token_that_opens_the_api() {
    let aura = start_aura().await;
    let reply = ask_token(aura.addr()).await;
    assert_eq!(reply.status, 200);
    let grant = reply.json();
    assert_eq!((&grant["expires_in"], &grant["token_type"]), (&json!(3600), &json!("bearer")));
    let token = bearer(grant["access_token"].as_str().unwrap());
    for path in ["/v1/instances", "/v1/instances/0a1b2c3d", "/v1/tenants", "/v2beta1/instances"] {
        let reply = get(aura.addr(), path, &[("authorization", &token)]).await;
        assert_eq!(reply.status, 200, "{path}");
        assert!(!reply.json()["data"].is_null(), "{path}");
        assert!(reply.header("x-request-id").is_some(), "{path}");
    }
    let made = post(aura.addr(), "/v1/instances", &[("authorization", &token)], r#"{"name":"new"}"#).await;
    assert_eq!((made.status, &made.json()["data"]["name"]), (202, &json!("new")));
    assert_eq!(get(aura.addr(), "/v1/instances/none", &[("authorization", &token)]).await.status, 404);
    assert_eq!(
        (aura.tokens().issued(), aura.record().token_requests(), aura.record().api_requests()),
        (1, 1, 6)
    );
}

#[tokio::test]
async fn aura_refuses_bad_token_requests_each_with_its_own_status() {
    let aura = start_aura().await;
    let good = basic("id", "s:cret");
    let cases: [(Headers<'_>, &str, u16, &str); 8] = [
        (&[FORM], GRANT, 401, "invalid_client"),
        (&[("authorization", &basic("id", "wrong")), FORM], GRANT, 401, "invalid_client"),
        (&[("authorization", "Bearer x"), FORM], GRANT, 401, "invalid_client"),
        (&[("authorization", &good), FORM], "", 404, "invalid_request"),
        (&[("authorization", &good), FORM], "audience=x", 403, "invalid_request"),
        (&[("authorization", &good)], GRANT, 403, "invalid_request"),
        (&[("authorization", &good), ("content-type", "application/json")], "{}", 403, "invalid_request"),
        (&[("authorization", &good), FORM], "grant_type=password", 400, "unsupported_grant_type"),
    ];
    for (headers, body, status, error) in cases {
        let reply = post(aura.addr(), "/oauth/token", headers, body).await;
        assert_eq!(
            (reply.status, reply.json()["error"].as_str()),
            (status, Some(error)),
            "{headers:?} {body}"
        );
    }
    assert_eq!(aura.tokens().issued(), 0);
    assert_eq!(get(aura.addr(), "/oauth/token", &[]).await.status, 405);
}

#[tokio::test]
async fn aura_tells_missing_unknown_expired_revoked_and_forbidden_apart() {
    let aura = Aura::builder()
        .client("id", "s:cret")
        .token_lifetime(Duration::from_millis(300))
        .announced_lifetime(Duration::from_secs(7200))
        .start()
        .await
        .unwrap();
    let grant = ask_token(aura.addr()).await.json();
    assert_eq!(grant["expires_in"], 7200);
    let first = bearer(grant["access_token"].as_str().unwrap());
    let status = async |path: &str, token: &str| {
        let reply = get(aura.addr(), path, &[("authorization", token)]).await;
        assert!(reply.status == 200 || reply.json()["errors"][0]["reason"].is_string());
        reply.status
    };
    assert_eq!(status("/v1/instances", &first).await, 200);
    assert_eq!(status("/v1/forbidden", &first).await, 403);
    assert_eq!(status("/v1/instances", "Bearer unknown").await, 403);
    assert_eq!(get(aura.addr(), "/v1/instances", &[]).await.status, 401);
    tokio::time::sleep(Duration::from_millis(350)).await;
    assert_eq!(status("/v1/instances", &first).await, 403);

    let second = bearer(&token(&aura).await);
    aura.tokens().revoke_all();
    assert_eq!(status("/v1/instances", &second).await, 401);
    aura.answer_revoked_with(StatusCode::FORBIDDEN);
    assert_eq!(status("/v1/instances", &second).await, 403);
}

#[tokio::test]
async fn aura_limits_each_client_by_itself() {
    let aura = Aura::builder().client("a", "s").client("b", "s").limit_per_minute(2).start().await.unwrap();
    let (a, b) = (aura.tokens().issue_to("a", Duration::MAX), aura.tokens().issue_to("b", Duration::MAX));
    let ask = async |token: &str| get(aura.addr(), "/v1/tenants", &[("authorization", &bearer(token))]).await;
    assert_eq!([ask(&a).await.status, ask(&a).await.status], [200, 200]);
    let limited = ask(&a).await;
    assert_eq!(limited.status, 429);
    let wait: u64 = limited.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=60).contains(&wait));
    assert_eq!(ask(&b).await.status, 200);
}

#[tokio::test]
async fn each_token_fault_shows_on_the_wire_and_ends_when_it_is_switched_off() {
    let aura = start_aura().await;
    let with = async |fault: Fault| {
        aura.token_fault(fault);
        ask_token(aura.addr()).await
    };
    assert_eq!(with(Fault::Status(503)).await.status, 503);
    let html = with(Fault::Html).await;
    assert_eq!((html.status, html.header("content-type")), (200, Some("text/html")));
    let empty = with(Fault::EmptyOk).await;
    assert_eq!((empty.status, empty.body.len()), (200, 0));
    assert!(with(Fault::TokenWithSpace).await.json()["access_token"].as_str().unwrap().contains(' '));
    assert!(with(Fault::TokenWithNewline).await.json()["access_token"].as_str().unwrap().contains('\n'));
    let big = with(Fault::TenMegabytes).await;
    assert!(big.body.len() > 10 * 1024 * 1024 && big.json()["access_token"].is_string());
    let moved = with(Fault::Redirect("http://127.0.0.1:1/x".into())).await;
    assert_eq!((moved.status, moved.header("location")), (307, Some("http://127.0.0.1:1/x")));
    let error = with(Fault::ErrorIn200).await;
    assert_eq!((error.status, &error.json()["error"]), (200, &json!("invalid_client")));
    assert_eq!(with(Fault::ExpiresInString).await.json()["expires_in"], "3600");
    assert_eq!(with(Fault::ExpiresInFloat).await.json()["expires_in"], 3600.5);
    assert_eq!(with(Fault::NoExpiresIn).await.json().get("expires_in"), None);
    assert_eq!(with(Fault::TokenTypeMac).await.json()["token_type"], "mac");
    let limited = with(Fault::RateLimited { retry_after: 7 }).await;
    assert_eq!((limited.status, limited.header("retry-after")), (429, Some("7")));
    aura.token_fault(Fault::FailHalf);
    let mut statuses = [ask_token(aura.addr()).await.status, ask_token(aura.addr()).await.status];
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 500]);
    aura.token_fault(Fault::Hangup);
    let headers = [("authorization", &*basic("id", "s:cret")), FORM];
    assert!(try_send(aura.addr(), Method::POST, "/oauth/token", &headers, GRANT).await.is_err());
    assert_eq!(with(Fault::None).await.status, 200);
}

#[tokio::test]
async fn silence_never_answers_and_a_trickle_takes_a_second_for_each_byte() {
    let aura = start_aura().await;
    aura.token_fault(Fault::Silence);
    let waited = tokio::time::timeout(Duration::from_millis(200), ask_token(aura.addr())).await;
    assert!(waited.is_err());
    assert_eq!(aura.record().token_requests(), 1);
    assert_eq!(aura.record().take()[0].status, None);

    aura.token_fault(Fault::Trickle);
    let waited = tokio::time::timeout(Duration::from_millis(1500), ask_token(aura.addr())).await;
    assert!(waited.is_err());
    assert_eq!(aura.record().requests()[0].status, Some(200));

    aura.token_fault(Fault::None);
    aura.token_delay(Duration::from_millis(150));
    let began = Instant::now();
    assert_eq!(ask_token(aura.addr()).await.status, 200);
    assert!(began.elapsed() >= Duration::from_millis(150));
}
