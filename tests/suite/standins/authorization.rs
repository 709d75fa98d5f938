//! Logins, rotation, revocation and client authentication at the authorization server, and its faults.

use std::time::Duration;

use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::Method;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};
use sidekey::demo::standins::authorization::{Consent, Discovery, Registration, Rotation, When};
use sidekey::demo::standins::tokens::Check;
use sidekey::demo::standins::{AuthorizationServer, Fault, Neon};
use url::Url;
use url::form_urlencoded::Serializer;

use super::FORM;
use crate::support::{Reply, basic, bearer, get, post, try_send};

const BACK: &str = "http://127.0.0.1:7601/callback";
const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
const STATE: &str = "a state & more +/=";

type Pairs<'a> = &'a [(&'a str, &'a str)];

async fn start() -> AuthorizationServer {
    let client = Registration::post("app", "s:cret&").redirect(BACK);
    AuthorizationServer::builder().client(client).start().await.expect("start")
}

fn form(pairs: Pairs<'_>) -> String {
    Serializer::new(String::new()).extend_pairs(pairs).finish()
}

fn challenge() -> String {
    URL_SAFE_NO_PAD.encode(digest::digest(&digest::SHA256, VERIFIER.as_bytes()))
}

/// A login request with some parameters changed; an empty value leaves one out.
async fn login(server: &AuthorizationServer, changes: Pairs<'_>) -> Reply {
    let challenge = challenge();
    let mut pairs = vec![
        ("response_type", "code"),
        ("client_id", "app"),
        ("redirect_uri", BACK),
        ("scope", "openid offline_access"),
        ("state", STATE),
        ("code_challenge", challenge.as_str()),
        ("code_challenge_method", "S256"),
    ];
    pairs.retain(|(name, _)| changes.iter().all(|(changed, _)| changed != name));
    pairs.extend(changes.iter().filter(|(_, value)| !value.is_empty()));
    get(server.addr(), &format!("/oauth2/auth?{}", form(&pairs)), &[]).await
}

/// The parameters that a redirect brings back.
fn brought(reply: &Reply) -> Value {
    assert_eq!(reply.status, 303, "{reply:?}");
    let url = Url::parse(reply.header("location").expect("a location")).expect("a URL");
    assert!(url.as_str().starts_with(&format!("{BACK}?")), "{url}");
    url.query_pairs().map(|(name, value)| (name.into_owned(), Value::from(value.into_owned()))).collect()
}

async fn code(server: &AuthorizationServer, changes: Pairs<'_>) -> String {
    text(&brought(&login(server, changes).await)["code"])
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("{value} is no text")).to_owned()
}

async fn ask(server: &AuthorizationServer, pairs: Pairs<'_>) -> Reply {
    post(server.addr(), "/oauth2/token", &[FORM], form(pairs)).await
}

const APP: [(&str, &str); 2] = [("client_id", "app"), ("client_secret", "s:cret&")];

async fn exchange(server: &AuthorizationServer, code: &str) -> Reply {
    let mut pairs = vec![("grant_type", "authorization_code"), ("code", code), ("redirect_uri", BACK)];
    pairs.push(("code_verifier", VERIFIER));
    pairs.extend(APP);
    ask(server, &pairs).await
}

fn refresh_form(token: &str) -> String {
    form(&[&APP[..], &[("grant_type", "refresh_token"), ("refresh_token", token)]].concat())
}

async fn refresh(server: &AuthorizationServer, token: &str) -> Reply {
    post(server.addr(), "/oauth2/token", &[FORM], refresh_form(token)).await
}

/// Logs in; gives the access token and the refresh token.
async fn grant(server: &AuthorizationServer) -> (String, String) {
    pair(&exchange(server, &code(server, &[]).await).await)
}

fn pair(reply: &Reply) -> (String, String) {
    assert_eq!(reply.status, 200, "{reply:?}");
    (text(&reply.json()["access_token"]), text(&reply.json()["refresh_token"]))
}

fn refused(reply: &Reply, status: u16, error: &str) {
    assert_eq!((reply.status, &reply.json()["error"]), (status, &json!(error)), "{reply:?}");
}

#[tokio::test]
async fn a_login_yields_a_grant_that_rotates_and_whose_tokens_neon_accepts() {
    let server = start().await;
    let neon = Neon::builder().tokens(server.tokens().clone()).start().await.unwrap();
    let back = brought(&login(&server, &[("login_hint", "alice")]).await);
    assert_eq!((&back["state"], &back["iss"]), (&json!(STATE), &json!(server.issuer())));
    let reply = exchange(&server, &text(&back["code"])).await;
    assert_eq!(reply.json()["expires_in"], 3600);
    let (access, first) = pair(&reply);
    let project = get(neon.addr(), "/api/v2/projects", &[("authorization", &bearer(&access))]).await;
    assert_eq!(project.status, 200);
    assert_eq!(server.tokens().subject_of(&access).as_deref(), Some("alice"));

    let (_, second) = pair(&refresh(&server, &first).await);
    let (_, third) = pair(&refresh(&server, &second).await);
    assert!(first != second && second != third);
    assert_eq!((server.logins(), server.refreshes(), server.reuses(), server.live_chains()), (1, 2, 0, 1));
    assert_eq!(server.presented(), [1, 1, 0]);
    assert_eq!(server.tokens().check(&access), Check::Valid);

    server.one_access_token(true);
    let (_, fourth) = pair(&refresh(&server, &third).await);
    assert_eq!(server.tokens().check(&access), Check::Revoked);
    server.forget_everything();
    refused(&refresh(&server, &fourth).await, 400, "invalid_grant");
    assert_eq!((server.tokens().check(&access), server.live_chains()), (Check::Unknown, 0));
}

#[tokio::test]
async fn a_refresh_token_that_comes_twice_kills_its_chain_and_no_other() {
    let server = start().await;
    let (_, other) = grant(&server).await;
    let (old_access, first) = grant(&server).await;
    let (access, second) = pair(&refresh(&server, &first).await);
    refused(&refresh(&server, &first).await, 401, "token_inactive");
    assert_eq!((server.reuses(), server.live_chains()), (1, 1));
    for token in [&old_access, &access] {
        assert_eq!(server.tokens().check(token), Check::Revoked);
    }
    refused(&refresh(&server, &second).await, 400, "invalid_grant");
    assert_eq!(
        (server.reuses(), server.presented()),
        (1, vec![0, 2, 1]),
        "the dead one was used for the first time"
    );
    pair(&refresh(&server, &other).await);
}

#[tokio::test]
async fn a_code_is_good_once_and_only_for_who_asked() {
    let server = start().await;
    server.register(Registration::public("other").redirect(BACK));
    let right = [
        ("code_verifier", VERIFIER),
        ("redirect_uri", BACK),
        ("client_id", "app"),
        ("client_secret", "s:cret&"),
    ];
    let wrong_verifier = "x".repeat(43);
    let wrong: [Pairs<'_>; 3] = [
        &[("code_verifier", wrong_verifier.as_str()), right[1], right[2], right[3]],
        &[right[0], ("redirect_uri", "http://127.0.0.1:7601/callback/"), right[2], right[3]],
        &[right[0], right[1], ("client_id", "other")],
    ];
    for pairs in wrong {
        let code = code(&server, &[]).await;
        let given = [("grant_type", "authorization_code"), ("code", code.as_str())];
        refused(&ask(&server, &[&given, pairs].concat()).await, 400, "invalid_grant");
        refused(&exchange(&server, &code).await, 400, "invalid_grant");
    }
    let code = code(&server, &[]).await;
    let (access, token) = pair(&exchange(&server, &code).await);
    refused(&exchange(&server, &code).await, 400, "invalid_grant");
    assert_eq!(server.tokens().check(&access), Check::Revoked);
    refused(&refresh(&server, &token).await, 400, "invalid_grant");
    assert_eq!(server.logins(), 1);
}

#[tokio::test]
async fn a_login_that_is_not_in_order_gets_no_code() {
    let server = start().await;
    for changes in [("client_id", "nobody"), ("redirect_uri", "http://127.0.0.1:7601/other")] {
        assert_eq!(login(&server, &[changes]).await.status, 400, "never back to where it is not registered");
    }
    let cases = [
        ("response_type", "token", "unsupported_response_type"),
        ("state", "", "invalid_state"),
        ("code_challenge", "", "invalid_request"),
        ("code_challenge_method", "plain", "invalid_request"),
    ];
    for (name, value, error) in cases {
        let back = brought(&login(&server, &[(name, value)]).await);
        assert_eq!((&back["error"], &back["code"]), (&json!(error), &Value::Null), "{name}");
    }
    assert!(server.allow_redirect("app", "http://127.0.0.1:7601/callback?more=1"));
    let more = brought(&login(&server, &[("redirect_uri", "http://127.0.0.1:7601/callback?more=1")]).await);
    assert!(more["code"].is_string() && more["more"] == "1");

    for (consent, name, value) in [
        (Consent::Deny, "error", json!("access_denied")),
        (Consent::NoCode, "code", Value::Null),
        (Consent::WrongState, "state", json!("a state that nobody sent")),
        (Consent::WrongIss, "iss", json!("https://login.example/")),
    ] {
        server.consent(consent);
        assert_eq!(brought(&login(&server, &[]).await)[name], value, "{consent:?}");
    }
    server.consent(Consent::Ask);
    let page = login(&server, &[]).await;
    assert!(
        page.status == 200 && page.text().contains("value=\"a state &amp; more +/=\""),
        "{}",
        page.text()
    );
    server.tell_iss(false);
    let back = brought(&login(&server, &[("allow", "yes")]).await);
    assert!(back["code"].is_string() && back["iss"].is_null());
}

fn assertion(key: &rcgen::KeyPair, algorithm: Algorithm, audience: &str, jti: &str, lifetime: u64) -> String {
    let expires = jsonwebtoken::get_current_timestamp() + lifetime - 60;
    let claims = json!({ "iss": "signer", "sub": "signer", "aud": audience, "jti": jti, "exp": expires });
    let pem = key.serialize_pem();
    let key = match algorithm {
        Algorithm::EdDSA => EncodingKey::from_ed_pem(pem.as_bytes()),
        _ => EncodingKey::from_ec_pem(pem.as_bytes()),
    };
    jsonwebtoken::encode(&Header::new(algorithm), &claims, &key.expect("a key")).expect("an assertion")
}

#[tokio::test]
async fn a_client_authenticates_as_it_is_registered_and_in_no_other_way() {
    let server = start().await;
    server.register(Registration::basic("b:id", "s:cret&%"));
    server.register(Registration::public("public"));
    let encoded = basic("b%3Aid", "s%3Acret%26%25");
    let raw = basic("b:id", "s:cret&%");
    let as_app = basic("app", "s%3Acret%26");
    let cases: [(Option<&str>, Pairs<'_>, u16); 9] = [
        (None, &APP, 200),
        (None, &[APP[0], ("client_secret", "wrong")], 401),
        (Some(&as_app), &[], 401),
        (Some(&as_app), &APP, 400),
        (Some(&encoded), &[], 200),
        (Some(&raw), &[], 401),
        (None, &[("client_id", "b:id"), ("client_secret", "s:cret&%")], 401),
        (None, &[("client_id", "public")], 200),
        (None, &[("client_id", "public"), ("client_secret", "any")], 401),
    ];
    for (at, (authorization, pairs, status)) in cases.into_iter().enumerate() {
        let body = form(&[&[("grant_type", "client_credentials")], pairs].concat());
        let mut headers = vec![FORM];
        headers.extend(authorization.map(|value| ("authorization", value)));
        let reply = post(server.addr(), "/oauth2/token", &headers, body).await;
        assert_eq!(reply.status, status, "case {at}: {reply:?}");
    }
}

#[tokio::test]
async fn an_assertion_is_good_once_for_this_server_and_in_time() {
    let server = start().await;
    for (algorithm, kind) in
        [(Algorithm::ES256, &rcgen::PKCS_ECDSA_P256_SHA256), (Algorithm::EdDSA, &rcgen::PKCS_ED25519)]
    {
        let key = rcgen::KeyPair::generate_for(kind).unwrap();
        let stranger = rcgen::KeyPair::generate_for(kind).unwrap();
        server.register(Registration::private_key_jwt("signer", key.public_key_pem()).unwrap());
        let id = |name: &str| format!("{name} {algorithm:?}");
        let cases = [
            (assertion(&key, algorithm, &server.token_url(), &id("1"), 120), 200),
            (assertion(&key, algorithm, &server.issuer(), &id("2"), 120), 200),
            (assertion(&key, algorithm, &server.issuer(), &id("2"), 121), 401),
            (assertion(&key, algorithm, "https://login.example/", &id("3"), 120), 401),
            (assertion(&key, algorithm, &server.issuer(), &id("4"), 50), 401),
            (assertion(&key, algorithm, &server.issuer(), "", 120), 401),
            (assertion(&stranger, algorithm, &server.issuer(), &id("5"), 120), 401),
        ];
        for (at, (jwt, status)) in cases.iter().enumerate() {
            let kind = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
            let pairs = [
                ("grant_type", "client_credentials"),
                ("client_assertion_type", kind),
                ("client_assertion", jwt),
            ];
            assert_eq!(ask(&server, &pairs).await.status, *status, "{algorithm:?}, case {at}");
        }
    }
    assert!(Registration::private_key_jwt("signer", "no key").is_err());
}

#[tokio::test]
async fn a_fault_falls_before_or_after_the_refresh_token_is_used_up() {
    let server = start().await;
    for (when, fault, survives) in [
        (When::Before, Fault::Status(503), true),
        (When::Before, Fault::Hangup, true),
        (When::After, Fault::Status(503), false),
        (When::After, Fault::Hangup, false),
    ] {
        let (_, token) = grant(&server).await;
        server.token_fault_once(when, fault.clone());
        let (url, form) = ("/oauth2/token", refresh_form(&token));
        let reply = try_send(server.addr(), Method::POST, url, &[FORM], form).await;
        assert_eq!(reply.ok().map(|reply| reply.status), (fault != Fault::Hangup).then_some(503));
        let status = if survives { 200 } else { 401 };
        assert_eq!(refresh(&server, &token).await.status, status, "{when:?} {fault:?}");
    }
    assert_eq!((server.refreshes(), server.reuses()), (4, 2));

    let (_, token) = grant(&server).await;
    server.token_fault(When::After, Fault::Silence);
    let silent = refresh(&server, &token);
    let used = async {
        while server.refreshes() < 5 {
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        reply = silent => panic!("{reply:?}"),
        () = used => {}
    }
    server.token_fault(When::Before, Fault::NoExpiresIn);
    let (_, token) = grant(&server).await;
    assert_eq!(refresh(&server, &token).await.json().get("expires_in"), None);
}

#[tokio::test]
async fn a_refresh_token_stays_good_where_nothing_rotates_and_for_the_time_of_grace() {
    let server = start().await;
    let (_, token) = grant(&server).await;
    server.rotation(Rotation::Omit);
    assert_eq!(refresh(&server, &token).await.json().get("refresh_token"), None);
    server.rotation(Rotation::Repeat);
    assert_eq!(pair(&refresh(&server, &token).await).1, token);
    server.rotation(Rotation::Rotate);
    server.grace(Duration::from_secs(60));
    let (_, next) = pair(&refresh(&server, &token).await);
    assert_ne!(pair(&refresh(&server, &token).await).1, next);
    assert_eq!((server.reuses(), server.presented()[0]), (0, 4));
    server.grace(Duration::ZERO);
    refused(&refresh(&server, &token).await, 401, "token_inactive");

    server.access_lifetime(Duration::from_millis(1));
    let reply = exchange(&server, &code(&server, &[("scope", "openid")]).await).await;
    assert_eq!((reply.json()["expires_in"].as_u64(), reply.json().get("refresh_token")), (Some(1), None));
}

#[tokio::test]
async fn two_requests_with_one_refresh_token_at_once_are_told_apart_from_a_reuse() {
    let server = start().await;
    let (_, token) = grant(&server).await;
    server.refuse_overlaps(true);
    server.token_fault_once(When::Before, Fault::Silence);
    let first = refresh(&server, &token);
    let second = async {
        while server.presented() != [1] {
            tokio::task::yield_now().await;
        }
        refresh(&server, &token).await
    };
    tokio::select! {
        reply = first => panic!("{reply:?}"),
        reply = second => {
            refused(&reply, 400, "invalid_request");
            assert!(reply.text().contains("multiple concurrent requests"));
        }
    }
    assert_eq!((server.overlaps(), server.reuses(), server.refreshes(), server.live_chains()), (1, 0, 0, 1));
}

#[tokio::test]
async fn a_revocation_kills_the_chain_of_who_may_ask_for_it() {
    let server = start().await;
    server.register(Registration::public("other"));
    let revoke = async |pairs: Pairs<'_>| post(server.addr(), "/oauth2/revoke", &[FORM], form(pairs)).await;
    let (access, token) = grant(&server).await;
    refused(&revoke(&[("client_id", "other"), ("token", &token)]).await, 400, "unauthorized_client");
    refused(&revoke(&[("client_id", "app"), ("token", &token)]).await, 401, "invalid_client");
    server.revocation_fault(Fault::Status(503));
    assert_eq!(revoke(&[APP[0], APP[1], ("token", &token)]).await.status, 503);
    server.revocation_fault(Fault::None);
    assert_eq!((server.revocations(), server.live_chains()), (0, 1));
    assert_eq!(revoke(&[APP[0], APP[1], ("token", &token)]).await.status, 200);
    assert_eq!(revoke(&[APP[0], APP[1], ("token", "unknown")]).await.status, 200);
    assert_eq!((server.revocations(), server.live_chains()), (1, 0));
    assert_eq!(server.tokens().check(&access), Check::Revoked);
    refused(&refresh(&server, &token).await, 400, "invalid_grant");
    grant(&server).await;
    assert_eq!((server.withdraw("user"), server.live_chains()), (1, 0));
}

#[tokio::test]
async fn the_metadata_say_what_they_are_told_to() {
    let server = start().await;
    let paths = ["/.well-known/openid-configuration", "/.well-known/oauth-authorization-server"];
    for path in paths {
        let document = get(server.addr(), path, &[]).await.json();
        assert_eq!(document["issuer"], json!(format!("{}/", server.url())));
        assert_eq!(document["token_endpoint"], json!(server.token_url()));
        assert_eq!(document["authorization_endpoint"], json!(server.auth_url()));
    }
    for (discovery, statuses) in [
        (Discovery::NoOpenId, [404, 200]),
        (Discovery::NoOAuth, [200, 404]),
        (Discovery::Nothing, [404, 404]),
    ] {
        server.discovery(discovery);
        for (path, status) in paths.into_iter().zip(statuses) {
            assert_eq!(get(server.addr(), path, &[]).await.status, status, "{path}");
        }
    }
    let other = "https://login.example/".to_owned();
    for (discovery, member, value) in [
        (Discovery::OtherIssuer(other.clone()), "issuer", json!(other)),
        (Discovery::NoS256, "code_challenge_methods_supported", json!(["plain"])),
        (Discovery::HttpEndpoints, "token_endpoint", json!("http://login.example/oauth2/token")),
        (Discovery::NoTokenEndpoint, "token_endpoint", Value::Null),
    ] {
        server.discovery(discovery);
        assert_eq!(get(server.addr(), paths[0], &[]).await.json()[member], value);
    }
    server.discovery(Discovery::Html);
    assert!(get(server.addr(), paths[0], &[]).await.text().starts_with("<!doctype html>"));
}
