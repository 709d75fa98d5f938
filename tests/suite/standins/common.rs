//! What all stand-ins share: the helpers, the record, the end.

use std::time::{Duration, Instant};

use http::Method;
use serde_json::json;
use sidekey::demo::standins::Checksum;

use super::{ask_token, start_aura, token};
use crate::support::{basic, bearer, get, post, raw, raw_to_end, send, try_send};

#[tokio::test]
async fn the_helpers_answer_under_any_path_but_only_after_authorization() {
    let aura = start_aura().await;
    assert_eq!(get(aura.addr(), "/x/echo", &[]).await.status, 401);
    let token = bearer(&token(&aura).await);
    let auth = ("authorization", token.as_str());

    let body = vec![7_u8; 300_000];
    let sum = Checksum::of(&body);
    let headers = [auth, ("x-a", "1"), ("x-a", "2")];
    let echo = send(aura.addr(), Method::PUT, "/x/echo?q=1", &headers, body.clone()).await.json();
    assert_eq!((&echo["method"], &echo["path"]), (&json!("PUT"), &json!("/x/echo?q=1")));
    assert_eq!((&echo["body_bytes"], &echo["checksum"]), (&json!(300_000), &json!(sum.hex())));
    let pairs = echo["headers"].as_array().unwrap();
    assert!(pairs.contains(&json!(["x-a", "1"])) && pairs.contains(&json!(["x-a", "2"])));

    let bytes = get(aura.addr(), "/bytes/200000", &[auth]).await;
    assert_eq!((bytes.body.len(), bytes.header("content-length")), (200_000, Some("200000")));
    assert_eq!(post(aura.addr(), "/sink", &[auth], body).await.json(), json!({ "bytes": 300_000 }));
    let began = Instant::now();
    assert_eq!(get(aura.addr(), "/slow/120", &[auth]).await.status, 200);
    assert!(began.elapsed() >= Duration::from_millis(120));
    assert_eq!(get(aura.addr(), "/status/418", &[auth]).await.status, 418);
    assert_eq!(get(aura.addr(), "/v1/status/204", &[auth]).await.status, 204);
    assert!(get(aura.addr(), "/small", &[auth]).await.text().starts_with("small"));
    assert!(try_send(aura.addr(), Method::GET, "/cut/200000", &[auth], "").await.is_err());
    let head =
        format!("HEAD /bytes/5 HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: {token}\r\n\r\n");
    let head = String::from_utf8(raw_to_end(aura.addr(), head).await).unwrap();
    assert!(head.contains("content-length: 5\r\n") && head.ends_with("\r\n\r\n"), "{head}");
}

#[tokio::test]
async fn the_record_keeps_what_came_in_and_shows_no_secret() {
    let aura = start_aura().await;
    ask_token(aura.addr()).await;
    let seen = aura.record().take().remove(0);
    assert!(seen.token_request);
    assert_eq!(
        (seen.method.as_str(), seen.target.as_str(), seen.status),
        ("POST", "/oauth/token", Some(200))
    );
    assert_eq!(seen.form(), [("grant_type".to_owned(), "client_credentials".to_owned())]);
    assert_eq!(seen.header("authorization"), Some(basic("id", "s:cret").as_str()));
    assert!(seen.to_string().contains("authorization: Basic …"), "{seen}");
    assert!(!format!("{seen:?}").contains(&basic("id", "s:cret")));

    aura.record().recording(false);
    get(aura.addr(), "/v1/tenants?a=b", &[]).await;
    assert!(aura.record().requests().is_empty());
    aura.record().recording(true);
    raw(aura.addr(), "GET /v1/tenants?a=b HTTP/1.1\r\nHost: h\r\nX-B: 1\r\nX-A: 2\r\nX-B: 3\r\n\r\n").await;
    let seen = aura.record().requests().remove(0);
    assert_eq!((seen.target.as_str(), seen.status), ("/v1/tenants?a=b", Some(401)));
    assert_eq!(seen.header_all("x-b"), ["1", "3"]);
    assert_eq!((aura.record().api_requests(), aura.record().connections()), (2, 3));
}

#[tokio::test]
async fn a_dropped_stand_in_closes_its_port_and_its_connections() {
    let aura = start_aura().await;
    let addr = aura.addr();
    let mut open = tokio::net::TcpStream::connect(addr).await.unwrap();
    get(addr, "/v1/tenants", &[]).await;
    drop(aura);
    let mut byte = [0];
    let read =
        tokio::time::timeout(Duration::from_secs(5), tokio::io::AsyncReadExt::read(&mut open, &mut byte));
    assert!(matches!(read.await.expect("it closes"), Ok(0) | Err(_)));
    assert!(tokio::net::TcpStream::connect(addr).await.is_err());
}
