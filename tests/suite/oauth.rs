//! The OAuth client over real sockets: what it sends, what it makes of what comes back, and what a failure means for the
//! refresh token.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::support::authorization_server::{CLIENT_SECRET, REFRESH, Reply, Server, client, reply, tokens};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use sidekey::clock::Clock;
use sidekey::config::{
    AuthMethod, AuthorizationServer, BasicEncoding, ClientCredentials, SigningAlgorithm, SigningKey,
    Strategy, TlsSettings,
};
use sidekey::oauth::answer::AnswerError;
use sidekey::oauth::{OAuthClient, Sent};
use sidekey::secret::reader::SecretReader;
use sidekey::secret::{Secret, SecretSource};
use sidekey::telemetry::chain;

const CODE: &str = "canary/code+code";
const VERIFIER: &str = "canary-verifier-verifier";

fn assert_silent(text: &str) {
    assert!(!text.contains("canary"), "{text}");
    assert!(!text.contains(&STANDARD.encode(format!("my app:{CLIENT_SECRET}"))), "{text}");
}

#[tokio::test]
async fn a_code_is_exchanged_and_refresh_tokens_rotate() {
    let server = Server::start(|_| tokens()).await;
    let client = client(server.login());
    assert_silent(&format!("{client:?}"));
    let granted = client.exchange(&Secret::new(CODE), &Secret::new(VERIFIER)).await.unwrap();
    assert_eq!(granted.access.as_ref().unwrap().token.expose(), "at");
    assert_eq!(granted.access.as_ref().unwrap().lifetime, Duration::from_secs(60));
    assert_eq!(granted.scope.as_deref(), Some("a b"));
    let next = granted.refresh_token.unwrap();
    let seen = server.one();
    assert_eq!(seen.line(), "POST /token?tenant=1 HTTP/1.1");
    assert_eq!(seen.header("content-type"), Some("application/x-www-form-urlencoded"));
    let fields = [
        ("grant_type", "authorization_code"),
        ("code", CODE),
        ("redirect_uri", "http://127.0.0.1:7601/callback"),
        ("code_verifier", VERIFIER),
        ("client_id", "my app"),
        ("client_secret", CLIENT_SECRET),
        ("resource", "https://api.example"),
    ];
    assert_eq!(seen.form, fields.map(|(name, value)| (name.to_owned(), value.to_owned())));

    client.refresh(&next, || true).await.unwrap();
    let seen = server.one();
    let fields = [
        ("grant_type", "refresh_token"),
        ("refresh_token", "next"),
        ("client_id", "my app"),
        ("client_secret", CLIENT_SECRET),
        ("resource", "https://api.example"),
    ];
    assert_eq!(seen.form, fields.map(|(name, value)| (name.to_owned(), value.to_owned())));
}

#[tokio::test]
async fn each_method_of_client_authentication_shows_itself_and_no_other() {
    let server = Server::start(|_| tokens()).await;
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    let form_basic = STANDARD.encode("my+app:canary%2Fclient%2Bsecret");
    let raw_basic = STANDARD.encode(format!("my app:{CLIENT_SECRET}"));
    let cases = [
        (AuthMethod::Basic, BasicEncoding::Form, Some(form_basic)),
        (AuthMethod::Basic, BasicEncoding::Raw, Some(raw_basic)),
        (AuthMethod::Post, BasicEncoding::Form, None),
        (AuthMethod::None, BasicEncoding::Form, None),
        (AuthMethod::PrivateKeyJwt, BasicEncoding::Form, None),
    ];
    for (method, encoding, basic) in cases {
        let mut config = server.login();
        (config.auth_method, config.basic_encoding) = (method, encoding);
        Arc::make_mut(&mut config.client).signing_key = Some(SigningKey {
            key: SecretSource::Value(Secret::new(key.serialize_pem())),
            id: Some("k1".into()),
            algorithm: SigningAlgorithm::EdDsa,
        });
        let client = client(config);
        client.refresh(&Secret::new(REFRESH), || true).await.unwrap();
        let seen = server.one();
        let basic = basic.map(|text| format!("Basic {text}"));
        assert_eq!(seen.header("authorization"), basic.as_deref(), "{method:?} {encoding:?}");
        let in_form = method != AuthMethod::Basic;
        assert_eq!(seen.field("client_id"), in_form.then_some("my app"), "{method:?}");
        let secret = (method == AuthMethod::Post).then_some(CLIENT_SECRET);
        assert_eq!(seen.field("client_secret"), secret, "{method:?}");
        let Some(assertion) = seen.field("client_assertion") else {
            assert_ne!(method, AuthMethod::PrivateKeyJwt);
            continue;
        };
        assert_eq!(method, AuthMethod::PrivateKeyJwt);
        let kind = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
        assert_eq!(seen.field("client_assertion_type"), Some(kind));
        let claims = URL_SAFE_NO_PAD.decode(assertion.split('.').nth(1).unwrap()).unwrap();
        let claims: Value = serde_json::from_slice(&claims).unwrap();
        assert_eq!(claims["aud"], format!("{}/token?tenant=1", server.url()));
        // The same audience at another endpoint, and an assertion of its own.
        assert!(client.revoke(&Secret::new(REFRESH)).await.unwrap());
        let second = server.one();
        assert_ne!(second.field("client_assertion").unwrap(), assertion);
    }
}

#[tokio::test]
async fn client_credentials_are_asked_for_as_configured() {
    let server = Server::start(|_| tokens()).await;
    let config = ClientCredentials {
        token_url: server.endpoint("/token"),
        clients: Vec::new(),
        strategy: Strategy::Failover,
        auth_method: AuthMethod::Post,
        basic_encoding: BasicEncoding::Form,
        scope: Some("a b".into()),
        audience: Some("https://api".into()),
        params: vec![("resource".into(), "r".into())],
        tls: TlsSettings::default(),
        fetch_timeout: Duration::from_secs(10),
    };
    let api_client = server.login().client;
    let client = OAuthClient::for_client_credentials(
        Arc::new(config),
        api_client,
        None,
        SecretReader::new([]),
        Clock::system(),
    );
    let granted = client.client_credentials().await.unwrap();
    assert_eq!(granted.access.unwrap().token.expose(), "at");
    let fields = [
        ("grant_type", "client_credentials"),
        ("scope", "a b"),
        ("audience", "https://api"),
        ("client_id", "my app"),
        ("client_secret", CLIENT_SECRET),
        ("resource", "r"),
    ];
    assert_eq!(server.one().form, fields.map(|(name, value)| (name.to_owned(), value.to_owned())));
    // What it is not made for, it does not try.
    assert_eq!(client.refresh(&Secret::new(REFRESH), || true).await.unwrap_err().sent(), Sent::Not);
    assert!(server.take().is_empty());
}

#[tokio::test]
async fn each_failure_tells_what_became_of_the_refresh_token_and_shows_no_secret() {
    let oauth = |error: &str, text: &str| json!({ "error": error, "error_description": text }).to_string();
    let hydra = "The request is missing a required parameter, includes an invalid parameter value, includes a \
                 parameter more than once, or is otherwise malformed. Failed to refresh token because of multiple \
                 concurrent requests using the same token which is not allowed.";
    let encoded: String = form_urlencoded::byte_serialize(REFRESH.as_bytes()).collect();
    let cases: Vec<(Reply, Sent, bool)> = vec![
        (reply("400 Bad Request", &oauth("invalid_grant", REFRESH)), Sent::Dead, true),
        (reply("401 Unauthorized", &oauth("token_inactive", &encoded)), Sent::Dead, true),
        (reply("400 Bad Request", &oauth("invalid_request", hydra)), Sent::Concurrent, false),
        (reply("401 Unauthorized", &oauth("invalid_client", CLIENT_SECRET)), Sent::Refused, true),
        (reply("429 Too Many Requests", "slow down"), Sent::Refused, false),
        (reply("302 Found", ""), Sent::Refused, true),
        (reply("500 Internal Server Error", REFRESH), Sent::Unknown, false),
        (reply("503 Service Unavailable", &oauth("invalid_grant", "x")), Sent::Unknown, false),
        (reply("200 OK", ""), Sent::Unknown, false),
        (reply("200 OK", "<html>canary"), Sent::Unknown, false),
        (reply("200 OK", "{}"), Sent::Unknown, false),
        (reply("200 OK", &"x".repeat(70_000)), Sent::Unknown, false),
        (Reply::Bytes("HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{".into()), Sent::Unknown, false),
        (Reply::Bytes("SSH-2.0-canary\r\n".into()), Sent::Unknown, false),
        (Reply::Hangup, Sent::Unknown, false),
        (Reply::Silence, Sent::Unknown, false),
    ];
    let mut wanted = Vec::new();
    let mut script = VecDeque::new();
    for (reply, sent, permanent) in cases {
        script.push_back(reply);
        wanted.push((sent, permanent));
    }
    let script = Mutex::new(script);
    let server =
        Server::start(move |_| script.lock().unwrap().pop_front().expect("one request for each")).await;
    let mut config = server.login();
    config.fetch_timeout = Duration::from_millis(500);
    let client = client(config);
    for (case, want) in wanted.iter().enumerate() {
        let error = client.refresh(&Secret::new(REFRESH), || true).await.unwrap_err();
        let text = format!("{} {error:?}", chain(&error));
        assert_eq!((error.sent(), error.is_permanent()), *want, "{case}: {text}");
        assert_silent(&text);
    }
    assert_eq!(server.take().len(), wanted.len(), "each was asked once");
}

#[tokio::test]
async fn what_was_never_sent_is_known_not_to_have_been() {
    let server = Server::start(|_| tokens()).await;
    // Bound, but not listening: nobody else can have the port.
    let held = tokio::net::TcpSocket::new_v4().unwrap();
    held.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let mut config = server.login();
    if let AuthorizationServer::Known { token_url, .. } = &mut config.server {
        token_url.origin.port = held.local_addr().unwrap().port();
    }
    let error = client(config).refresh(&Secret::new(REFRESH), || true).await.unwrap_err();
    assert_eq!((error.sent(), error.is_permanent()), (Sent::Not, false), "{error}");

    let mut config = server.login();
    Arc::make_mut(&mut config.client).client_secret = Some(SecretSource::Env("SIDEKEY_TEST_NOT_SET".into()));
    let error = client(config).refresh(&Secret::new(REFRESH), || true).await.unwrap_err();
    assert_eq!((error.sent(), error.is_permanent()), (Sent::Not, true), "{error}");

    let mut config = server.login();
    config.auth_method = AuthMethod::PrivateKeyJwt;
    Arc::make_mut(&mut config.client).signing_key = Some(SigningKey {
        key: SecretSource::Value(Secret::new("canary")),
        id: None,
        algorithm: SigningAlgorithm::Es256,
    });
    let error = client(config).refresh(&Secret::new(REFRESH), || true).await.unwrap_err();
    let text = format!("{} {error:?}", chain(&error));
    assert_eq!((error.sent(), error.is_permanent()), (Sent::Not, true), "{text}");
    assert!(text.contains("-----BEGIN PRIVATE KEY-----"), "{text}");
    assert_silent(&text);
    assert!(server.take().is_empty());
}

#[tokio::test]
async fn a_refresh_token_survives_an_access_token_that_is_of_no_use() {
    let server = Server::start(|_| {
        reply("200 OK", r#"{"access_token":"at","refresh_token":"next","token_type":"mac"}"#)
    })
    .await;
    let granted = client(server.login()).refresh(&Secret::new(REFRESH), || true).await.unwrap();
    assert_eq!(granted.access.unwrap_err(), AnswerError::WrongType("mac".into()));
    assert_eq!(granted.refresh_token.unwrap().expose(), "next");
}

#[tokio::test]
async fn an_exchange_that_fails_shows_neither_code_nor_verifier() {
    let body =
        json!({ "error": CODE, "error_description": format!("{VERIFIER} does not match") }).to_string();
    let server = Server::start(move |_| reply("400 Bad Request", &body)).await;
    let error =
        client(server.login()).exchange(&Secret::new(CODE), &Secret::new(VERIFIER)).await.unwrap_err();
    let text = format!("{} {error:?}", chain(&error));
    assert!(text.contains("not shown"), "{text}");
    assert_silent(&text);
}

#[tokio::test]
async fn a_grant_is_revoked_where_the_server_has_a_place_for_it() {
    let status = Arc::new(Mutex::new("200 OK"));
    let now = Arc::clone(&status);
    let server = Server::start(move |_| {
        reply(
            *now.lock().unwrap(),
            &format!(r#"{{"error":"unsupported_token_type","error_description":"{REFRESH}"}}"#),
        )
    })
    .await;
    let revoking = client(server.login());
    assert!(revoking.revoke(&Secret::new(REFRESH)).await.unwrap());
    let seen = server.one();
    assert_eq!(seen.line(), "POST /revoke HTTP/1.1");
    let fields = [
        ("token", REFRESH),
        ("token_type_hint", "refresh_token"),
        ("client_id", "my app"),
        ("client_secret", CLIENT_SECRET),
    ];
    assert_eq!(seen.form, fields.map(|(name, value)| (name.to_owned(), value.to_owned())));

    for (code, permanent) in [("400 Bad Request", true), ("503 Service Unavailable", false)] {
        *status.lock().unwrap() = code;
        let error = revoking.revoke(&Secret::new(REFRESH)).await.unwrap_err();
        let text = chain(&error);
        assert!(text.starts_with(&format!("the revocation endpoint answered {code}: unsupported")), "{text}");
        assert_eq!((error.is_permanent(), error.retry_after()), (permanent, Some(Duration::from_secs(7))));
        assert_silent(&text);
    }
    server.take();
    let mut config = server.login();
    if let AuthorizationServer::Known { revoke_url, .. } = &mut config.server {
        *revoke_url = None;
    }
    assert!(!client(config).revoke(&Secret::new(REFRESH)).await.unwrap());
    assert!(server.take().is_empty());
}

#[tokio::test]
async fn a_command_that_prints_the_secret_and_the_look_up_count_in_the_limit() {
    let server = Server::start(|_| tokens()).await;
    let limit = |config| client(config).limit();
    assert_eq!(limit(server.login()), Duration::from_secs(10));
    let mut printed = server.login();
    let command = vec!["helper".to_owned()];
    Arc::make_mut(&mut printed.client).client_secret = Some(SecretSource::Exec(command.into()));
    assert_eq!(limit(printed.clone()), Duration::from_secs(20));
    printed.server = AuthorizationServer::Discovered { issuer: server.url() };
    assert_eq!(limit(printed), Duration::from_secs(30));
}
