//! The OAuth client finds its server by the server's metadata, and believes it only where it may.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::support::authorization_server::{REFRESH, Reply, Server, client, client_at, login, reply, tokens};
use serde_json::{Value, json};
use sidekey::clock::Clock;
use sidekey::config::AuthorizationServer;
use sidekey::oauth::{OAuthError, Sent};
use sidekey::secret::Secret;
use sidekey::telemetry::chain;

/// A server with metadata at this place, made of its own URL; and its issuer.
async fn discovered(
    place: &'static str,
    document: impl Fn(&str) -> Reply + Send + Sync + 'static,
) -> (Server, String) {
    let own = Arc::new(Mutex::new(String::new()));
    let url = Arc::clone(&own);
    let server = Server::start(move |path| match path {
        path if path == place => document(&url.lock().expect("no panic")),
        "/token" => tokens(),
        "/revoke" => reply("200 OK", ""),
        _ => reply("404 Not Found", "<html>"),
    })
    .await;
    *own.lock().expect("no panic") = server.url();
    let issuer = format!("{}/", server.url());
    (server, issuer)
}

fn metadata(url: &str) -> Value {
    json!({
        "issuer": format!("{url}/"),
        "authorization_endpoint": format!("{url}/auth"),
        "token_endpoint": format!("{url}/token"),
        "revocation_endpoint": format!("{url}/revoke"),
        "code_challenge_methods_supported": ["S256"],
        "token_endpoint_auth_methods_supported": ["client_secret_post"],
        "authorization_response_iss_parameter_supported": true,
    })
}

fn paths(server: &Server) -> Vec<String> {
    server.take().iter().map(|seen| seen.line().split(' ').nth(1).expect("a path").to_owned()).collect()
}

const RFC8414: &str = "/.well-known/oauth-authorization-server";
const OPENID: &str = "/.well-known/openid-configuration";

#[tokio::test]
async fn endpoints_are_discovered_in_either_place_and_then_known() {
    for (place, asked) in [(RFC8414, vec![RFC8414]), (OPENID, vec![RFC8414, OPENID])] {
        let (server, issuer) = discovered(place, |url| reply("200 OK", &metadata(url).to_string())).await;
        let client = client(login(AuthorizationServer::Discovered { issuer: issuer.clone() }));
        let endpoints = client.endpoints().await.unwrap();
        assert_eq!(paths(&server), asked);
        assert_eq!(endpoints.issuer.as_deref(), Some(&*issuer));
        assert_eq!(endpoints.auth_url, format!("{issuer}auth"));
        assert_eq!(endpoints.token.to_string(), format!("{issuer}token"));
        assert!(endpoints.iss_required);
        client.refresh(&Secret::new(REFRESH), || true).await.unwrap();
        assert!(client.revoke(&Secret::new(REFRESH)).await.unwrap());
        assert_eq!(paths(&server), ["/token", "/revoke"], "looked up once");
    }
}

#[tokio::test]
async fn metadata_is_read_anew_after_an_hour_and_the_old_serves_where_that_fails() {
    let broken = Arc::new(Mutex::new(false));
    let now = Arc::clone(&broken);
    let (server, issuer) = discovered(RFC8414, move |url| match *now.lock().unwrap() {
        false => reply("200 OK", &metadata(url).to_string()),
        true => reply("500 Internal Server Error", ""),
    })
    .await;
    let clock = Clock::of_runtime();
    let client = client_at(login(AuthorizationServer::Discovered { issuer }), clock.clone());
    let first = client.endpoints().await.unwrap();
    clock.suspend(Duration::from_secs(3500));
    client.endpoints().await.unwrap();
    assert_eq!(paths(&server), [RFC8414], "within the hour");
    clock.suspend(Duration::from_secs(200));
    client.endpoints().await.unwrap();
    assert_eq!(paths(&server), [RFC8414], "after the hour");

    *broken.lock().unwrap() = true;
    clock.suspend(Duration::from_secs(3700));
    for _ in 0..3 {
        assert_eq!(client.endpoints().await.unwrap(), first);
    }
    assert_eq!(paths(&server), [RFC8414], "a failing server is left alone for a while");
    *broken.lock().unwrap() = false;
    clock.suspend(Duration::from_secs(61));
    assert_eq!(client.endpoints().await.unwrap(), first);
    client.endpoints().await.unwrap();
    assert_eq!(paths(&server), [RFC8414], "and asked again");
}

#[tokio::test]
async fn bad_metadata_stops_a_refresh_before_the_token_is_sent() {
    type Change = fn(&mut Value);
    let cases: [(&str, Change); 9] = [
        ("trailing slash", |metadata| {
            let issuer = metadata["issuer"].as_str().unwrap().trim_end_matches('/').to_owned();
            metadata["issuer"] = issuer.into();
        }),
        ("of the issuer \"https://evil.example/\"", |metadata| {
            metadata["issuer"] = "https://evil.example/".into();
        }),
        ("names no issuer", |metadata| metadata["issuer"] = Value::Null),
        ("names no token_endpoint", |metadata| metadata["token_endpoint"] = Value::Null),
        ("names no authorization_endpoint", |metadata| metadata["authorization_endpoint"] = Value::Null),
        ("token_endpoint is http://", |metadata| {
            metadata["token_endpoint"] = "http://evil.example/token".into();
        }),
        ("PKCE with S256", |metadata| metadata["code_challenge_methods_supported"] = json!(["plain"])),
        ("authorization codes", |metadata| metadata["response_types_supported"] = json!(["token"])),
        ("offers \"basic\"", |metadata| {
            metadata["token_endpoint_auth_methods_supported"] = json!(["client_secret_basic"]);
        }),
    ];
    for (want, change) in cases {
        let (server, issuer) = discovered(RFC8414, move |url| {
            let mut metadata = metadata(url);
            change(&mut metadata);
            reply("200 OK", &metadata.to_string())
        })
        .await;
        let client = client(login(AuthorizationServer::Discovered { issuer }));
        let error = client.refresh(&Secret::new(REFRESH), || true).await.unwrap_err();
        assert!(error.to_string().contains(want), "{want}: {error}");
        assert_eq!((error.sent(), error.is_permanent()), (Sent::Not, true), "{error}");
        assert_eq!(paths(&server), [RFC8414], "{want}");
    }
}

#[tokio::test]
async fn metadata_that_is_not_to_be_had_is_told_apart() {
    type Case = (&'static str, fn() -> Reply, bool, usize);
    let cases: [Case; 7] = [
        ("is not JSON", || reply("200 OK", "<html>"), true, 1),
        (
            "redirects (302 Found)",
            || Reply::Bytes("HTTP/1.1 302 Found\r\nLocation: /x\r\n\r\n".into()),
            true,
            1,
        ),
        ("answered 500", || reply("500 Internal Server Error", ""), false, 1),
        ("answered 429", || reply("429 Too Many Requests", ""), false, 1),
        ("has no metadata", || reply("403 Forbidden", ""), true, 2),
        ("larger than", || reply("200 OK", &"x".repeat(70_000)), false, 1),
        ("no whole answer", || Reply::Silence, false, 1),
    ];
    for (want, document, permanent, asked) in cases {
        let (server, issuer) = discovered(RFC8414, move |_| document()).await;
        let mut config = login(AuthorizationServer::Discovered { issuer });
        config.fetch_timeout = Duration::from_millis(500);
        let error = client(config).refresh(&Secret::new(REFRESH), || true).await.unwrap_err();
        assert!(chain(&error).contains(want), "{want}: {}", chain(&error));
        assert!(matches!(error, OAuthError::Discovery(_)), "{error:?}");
        assert_eq!((error.sent(), error.is_permanent()), (Sent::Not, permanent), "{error}");
        assert_eq!(server.take().len(), asked, "{want}");
    }
}
