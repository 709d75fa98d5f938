//! Tables of metadata, good and bad.

use bytes::Bytes;
use http::HeaderMap;
use serde_json::{Value, json};

use super::*;
use crate::config::EgressProxy;

const ISSUER: &str = "https://auth.example/";

fn demands() -> Demands {
    let limit = Duration::from_secs(1);
    Demands {
        issuer: ISSUER.to_owned(),
        auth_method: AuthMethod::Post,
        allow_cleartext: false,
        allow_link_local: false,
        egress: Egress::default(),
        limit,
    }
}

fn document() -> Value {
    json!({
        "issuer": ISSUER,
        "authorization_endpoint": "https://auth.example/oauth2/auth?tenant=1",
        "token_endpoint": "https://auth.example/oauth2/token",
    })
}

fn with(name: &str, value: Value) -> Value {
    let mut document = document();
    document[name] = value;
    document
}

fn judged(status: u16, body: String) -> Result<Endpoints, DiscoveryError> {
    let status = StatusCode::from_u16(status).unwrap();
    let answer = Answer { status, headers: HeaderMap::new(), body: Bytes::from(body) };
    let place = endpoint("https://auth.example/.well-known/openid-configuration", &demands()).unwrap();
    judge(&place, &answer, &demands(), SystemTime::UNIX_EPOCH)
}

#[test]
fn metadata_is_looked_for_in_both_places_of_an_issuer() {
    let cases = [
        (
            "https://auth.example",
            "https://auth.example/.well-known/oauth-authorization-server",
            "https://auth.example/.well-known/openid-configuration",
        ),
        (
            "https://auth.example/",
            "https://auth.example/.well-known/oauth-authorization-server",
            "https://auth.example/.well-known/openid-configuration",
        ),
        (
            "http://localhost:8080/a/b/",
            "http://localhost:8080/.well-known/oauth-authorization-server/a/b",
            "http://localhost:8080/a/b/.well-known/openid-configuration",
        ),
    ];
    for (issuer, first, second) in cases {
        let got = places(&endpoint(issuer, &demands()).unwrap()).map(|place| place.to_string());
        assert_eq!(got, [first, second], "{issuer}");
    }
}

#[test]
fn good_metadata_is_taken_as_it_stands() {
    let endpoints = judged(200, document().to_string()).unwrap();
    assert_eq!(endpoints.issuer.as_deref(), Some(ISSUER));
    assert_eq!(endpoints.auth_url, "https://auth.example/oauth2/auth?tenant=1");
    assert_eq!(endpoints.token.to_string(), "https://auth.example/oauth2/token");
    assert_eq!((endpoints.revocation, endpoints.iss_required), (None, false));

    let mut full = document();
    full["revocation_endpoint"] = json!("https://other.example:8443/revoke");
    full["authorization_response_iss_parameter_supported"] = json!(true);
    full["code_challenge_methods_supported"] = json!(["plain", "S256"]);
    full["response_types_supported"] = json!(["code", "code id_token"]);
    full["token_endpoint_auth_methods_supported"] = json!(["client_secret_post", "private_key_jwt"]);
    let endpoints = judged(200, full.to_string()).unwrap();
    assert_eq!(endpoints.revocation.unwrap().to_string(), "https://other.example:8443/revoke");
    assert!(endpoints.iss_required);
}

#[test]
fn each_bad_metadata_has_an_error_of_its_own() {
    let cases: [(u16, String, &str, bool); 24] = [
        (200, "<html>".into(), "it is not JSON", true),
        (200, "[]".into(), "of the wrong type", true),
        (200, "{}".into(), "names no issuer", true),
        (200, with("token_endpoint", json!(17)).to_string(), "of the wrong type", true),
        (200, with("issuer", json!("https://auth.example")).to_string(), "trailing slash", true),
        (200, with("issuer", json!("https://evil.example/")).to_string(), "\"https://evil.example/\"", true),
        (200, with("token_endpoint", Value::Null).to_string(), "names no token_endpoint", true),
        (
            200,
            with("authorization_endpoint", Value::Null).to_string(),
            "names no authorization_endpoint",
            true,
        ),
        (
            200,
            with("token_endpoint", json!("http://auth.example/t")).to_string(),
            "token_endpoint is http://",
            true,
        ),
        (
            200,
            with("authorization_endpoint", json!("http://auth.example/a")).to_string(),
            "authorization_endpoint is http://",
            true,
        ),
        (
            200,
            with("revocation_endpoint", json!("http://auth.example/r")).to_string(),
            "revocation_endpoint is http://",
            true,
        ),
        (
            200,
            with("token_endpoint", json!("http://127.0.0.1:7600/aura/v1/instances")).to_string(),
            "token_endpoint is http://, though the issuer is https://",
            true,
        ),
        (
            200,
            with("revocation_endpoint", json!("http://localhost:7601/quitquitquit")).to_string(),
            "revocation_endpoint is http://, though the issuer is https://",
            true,
        ),
        (200, with("token_endpoint", json!("/token")).to_string(), "not an absolute URL", true),
        (200, with("token_endpoint", json!("ftp://a.example/")).to_string(), "not an https:// URL", true),
        (
            200,
            with("token_endpoint", json!("https://u:p@a.example/")).to_string(),
            "user name or password",
            true,
        ),
        (
            200,
            with("authorization_endpoint", json!("https://a.example/#x")).to_string(),
            "has a fragment",
            true,
        ),
        (200, with("code_challenge_methods_supported", json!(["plain"])).to_string(), "PKCE with S256", true),
        (200, with("response_types_supported", json!(["token"])).to_string(), "authorization codes", true),
        (
            200,
            with("token_endpoint_auth_methods_supported", json!(["client_secret_basic", "tls_client_auth"]))
                .to_string(),
            "does not take auth_method = \"post\"; \
             https://auth.example/.well-known/openid-configuration offers \"basic\", tls_client_auth",
            true,
        ),
        (200, with("token_endpoint_auth_methods_supported", json!([])).to_string(), "none at all", true),
        (302, String::new(), "redirects (302 Found), which is never followed", true),
        (429, String::new(), "429 Too Many Requests", false),
        (500, String::new(), "500 Internal Server Error", false),
    ];
    for (status, body, want, permanent) in cases {
        let error = judged(status, body.clone()).unwrap_err();
        assert!(error.to_string().contains(want), "{status} {body}: {error}");
        assert_eq!(error.is_permanent(), permanent, "{status} {body}: {error}");
    }
}

#[test]
fn clear_text_is_for_this_machine_or_for_those_who_allow_it() {
    let cases = [
        ("http://127.0.0.1:8080/t", false, true),
        ("http://localhost/t", false, true),
        ("http://[::1]:1/t", false, true),
        ("http://auth.example/t", false, false),
        ("http://auth.example/t", true, true),
        ("http://localhost.example/t", false, false),
        ("https://auth.example/t", false, true),
        ("https://auth.example:0/t", false, false),
        ("https://auth.example/a b", false, false),
    ];
    for (text, allow_cleartext, good) in cases {
        let demands = Demands { allow_cleartext, ..demands() };
        assert_eq!(endpoint(text, &demands).is_ok(), good, "{text} {allow_cleartext}");
    }
}

#[test]
fn metadata_names_no_link_local_address_but_to_those_who_allow_it() {
    let cases = [
        ("https://169.254.169.254/t", false, false),
        ("https://169.254.169.254/t", true, true),
        ("https://0xa9fea9fe/t", false, false),
        ("https://[fe80::1]/t", false, false),
        ("https://[64:ff9b::169.254.169.254]/t", false, false),
        ("https://0.0.0.0/t", true, false),
        ("https://10.0.0.1/t", false, true),
    ];
    for (text, allow_link_local, good) in cases {
        let demands = Demands { allow_link_local, ..demands() };
        assert_eq!(endpoint(text, &demands).is_ok(), good, "{text} {allow_link_local}");
    }
}

#[test]
fn the_egress_proxy_leads_to_what_metadata_names_but_not_to_this_machine() {
    let proxy = Arc::new(EgressProxy {
        host: "proxy.example".into(),
        port: 3128,
        login: None,
        allow_link_local: false,
    });
    let egress = Egress { https: Some(Arc::clone(&proxy)), ..Egress::default() };
    let demands = Demands { egress, ..demands() };
    let cases = [
        ("https://auth.example/t", true),
        ("https://localhost/t", false),
        ("https://[::1]/t", false),
        ("http://127.0.0.1/t", false),
    ];
    for (text, led) in cases {
        let via = endpoint(text, &demands).unwrap().origin.via;
        assert_eq!(via, led.then(|| Arc::clone(&proxy)), "{text}");
    }
}
