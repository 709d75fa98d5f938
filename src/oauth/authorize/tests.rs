//! Tables of what is sent to the browser, and of what it brings back.

use std::time::Duration;

use http::HeaderValue;

use super::*;
use crate::config::{
    ApiClient, AuthMethod, AuthorizationServer, BasicEncoding, Endpoint, RedirectUri, TlsSettings, Upstream,
};

fn endpoints(auth_url: &str, issuer: Option<&str>, iss_required: bool) -> Endpoints {
    let origin = Upstream {
        tls: true,
        host: "auth.example".into(),
        port: 443,
        base_path: String::new(),
        host_header: HeaderValue::from_static("auth.example"),
        via: None,
        allow_link_local: false,
    };
    Endpoints {
        issuer: issuer.map(str::to_owned),
        auth_url: auth_url.to_owned(),
        token: Endpoint { origin, path_and_query: "/token".into() },
        revocation: None,
        iss_required,
    }
}

fn config(scope: Option<&str>, auth_params: &[(&str, &str)]) -> AuthorizationCode {
    let endpoints = endpoints("https://auth.example/auth", None, false);
    AuthorizationCode {
        server: AuthorizationServer::Known {
            issuer: None,
            auth_url: endpoints.auth_url,
            token_url: endpoints.token,
            revoke_url: None,
        },
        client: std::sync::Arc::new(ApiClient {
            name: "c".into(),
            client_id: "my app".into(),
            client_secret: None,
            signing_key: None,
        }),
        auth_method: AuthMethod::None,
        basic_encoding: BasicEncoding::Form,
        redirect_uri: RedirectUri {
            text: "http://LOCALHOST:7601/callback".into(),
            host: "localhost".into(),
            port: 7601,
            path: "/callback".into(),
        },
        scope: scope.map(str::to_owned),
        params: Vec::new(),
        auth_params: auth_params.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect(),
        tls: TlsSettings::default(),
        egress: crate::config::Egress::default(),
        allow_cleartext: false,
        allow_link_local: false,
        fetch_timeout: Duration::from_secs(1),
        login_timeout: Duration::from_secs(1),
    }
}

#[test]
fn the_challenge_is_that_of_the_rfc() {
    // RFC 7636 appendix B.
    let verifier = Secret::new("dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk");
    assert_eq!(challenge(&verifier), "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM");
}

#[test]
fn each_attempt_has_its_own_random_state_and_verifier() {
    let (one, two) = (Attempt::new().unwrap(), Attempt::new().unwrap());
    let all = [&one.state, &one.verifier, &two.state, &two.verifier];
    for (at, secret) in all.iter().enumerate() {
        assert_eq!(URL_SAFE_NO_PAD.decode(secret.expose()).unwrap().len(), 32);
        assert!(all[at + 1..].iter().all(|other| other != secret));
    }
    assert!(!format!("{one:?}").contains(one.state.expose()));
}

#[test]
fn the_login_page_keeps_its_own_query_and_gets_ours() {
    let attempt = Attempt {
        state: Secret::new("st"),
        verifier: Secret::new("dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"),
    };
    let fixed = "response_type=code&client_id=my+app&redirect_uri=http%3A%2F%2FLOCALHOST%3A7601%2Fcallback";
    let proof =
        "state=st&code_challenge=E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM&code_challenge_method=S256";
    let cases = [
        ("https://a.example/auth", "https://a.example/auth?"),
        ("https://a.example/auth?", "https://a.example/auth?"),
        ("https://a.example/auth?tenant=a%20b", "https://a.example/auth?tenant=a%20b&"),
        ("https://a.example/auth?tenant=1&", "https://a.example/auth?tenant=1&"),
    ];
    for (auth_url, before) in cases {
        let url = attempt.url(&endpoints(auth_url, None, false), &config(None, &[]));
        assert_eq!(url, format!("{before}{fixed}&{proof}"));
    }
    let more = config(Some("openid urn:x:read"), &[("prompt", "consent")]);
    let url = attempt.url(&endpoints("https://a.example/auth", None, false), &more);
    let want = format!("https://a.example/auth?{fixed}&scope=openid+urn%3Ax%3Aread&{proof}&prompt=consent");
    assert_eq!(url, want);
}

#[test]
fn a_redirect_back_is_read_strictly() {
    let long = "x".repeat(MAX_QUERY_BYTES + 1);
    type Case<'a> = (&'a str, Result<(Option<&'a str>, Option<&'a str>), CallbackError>);
    let cases: [Case<'_>; 14] = [
        ("", Ok((None, None))),
        ("state=a&code=b", Ok((Some("a"), Some("b")))),
        ("code=b%2Bc%2F&state=a%20d", Ok((Some("a d"), Some("b+c/")))),
        ("state=a&code=b&session_state=x&session_state=y", Ok((Some("a"), Some("b")))),
        ("state=&code=", Ok((None, None))),
        ("state=a&state=b", Err(CallbackError::Twice("state"))),
        ("state=a&st%61te=a", Err(CallbackError::Twice("state"))),
        ("code=a&code=", Err(CallbackError::Twice("code"))),
        ("iss=a&iss=a", Err(CallbackError::Twice("iss"))),
        ("error=a&error=a", Err(CallbackError::Twice("error"))),
        ("state=%C3%BC", Err(CallbackError::Damaged("state"))),
        ("state=a&code=%0a", Err(CallbackError::Damaged("code"))),
        ("state=%FF", Err(CallbackError::Damaged("state"))),
        (&long, Err(CallbackError::TooLong)),
    ];
    for (query, want) in cases {
        let got = Callback::parse(query);
        let got = got
            .as_ref()
            .map(|back| (back.state.as_ref().map(Secret::expose), back.code.as_ref().map(Secret::expose)));
        assert_eq!(got, want.as_ref().map(|pair| *pair), "{query:.40}");
    }
}

#[test]
fn only_a_code_of_the_right_server_is_given_out() {
    const ISSUER: &str = "https://auth.example/";
    type Case<'a> = (&'a str, Option<&'a str>, bool, Result<&'a str, &'a str>);
    let cases: [Case<'_>; 18] = [
        ("code=c", None, false, Ok("c")),
        ("code=c", Some(ISSUER), false, Ok("c")),
        ("code=c&iss=https%3A%2F%2Fauth.example%2F", Some(ISSUER), true, Ok("c")),
        (
            "code=c&iss=https%3A%2F%2Fauth.example",
            Some(ISSUER),
            false,
            Err("\"https://auth.example\" answered"),
        ),
        ("code=c&iss=https%3A%2F%2Fevil.example%2F", Some(ISSUER), true, Err("evil.example")),
        ("code=c&iss=anything", None, false, Ok("c")),
        ("code=c", Some(ISSUER), true, Err("does not say which server")),
        ("code=c&iss=", Some(ISSUER), true, Err("does not say which server")),
        // Another server's error is not believed either.
        ("error=access_denied&iss=evil", Some(ISSUER), false, Err("\"evil\" answered")),
        ("error=access_denied", Some(ISSUER), true, Err("does not say which server")),
        ("error=access_denied", Some(ISSUER), false, Err("access was not granted;")),
        (
            "error=access_denied&error_description=The+user+said+no",
            None,
            false,
            Err("access was not granted (The user said no); if that was not meant"),
        ),
        (
            "error=invalid_scope&error_description=a%0Ab",
            None,
            false,
            Err("invalid_scope (a b); correct `scope`"),
        ),
        ("error=odd&code=c", None, false, Err("odd; start the login again")),
        ("error=&code=c", None, false, Ok("c")),
        ("state=s", None, false, Err("without a code")),
        ("code=", None, false, Err("without a code")),
        ("", None, false, Err("without a code")),
    ];
    for (query, issuer, required, want) in cases {
        let endpoints = endpoints("https://auth.example/auth", issuer, required);
        let got = Callback::parse(query).unwrap().into_code(&endpoints);
        match (got, want) {
            (Ok(code), Ok(want)) => assert_eq!(code.expose(), want, "{query}"),
            (Err(error), Err(want)) => assert!(error.to_string().contains(want), "{query}: {error}"),
            (got, want) => panic!("{query}: {got:?}, not {want:?}"),
        }
    }
}

#[test]
fn what_repeats_the_code_or_the_state_is_not_shown() {
    for query in [
        "state=s3cret&code=c0de&error=c0de",
        "state=s3cret&code=c0de&error=x&error_description=you+sent+s3cret",
        "state=s3cret&code=c0de&iss=https%3A%2F%2Fc0de",
    ] {
        let back = Callback::parse(query).unwrap();
        let shown = format!("{:?}{:?}", back.error, back.error_description);
        let error = back.into_code(&endpoints("https://a.example", Some("i"), false)).unwrap_err();
        let shown = format!("{shown}{error}{error:?}");
        assert!(shown.contains("not shown"), "{shown}");
        assert!(!shown.contains("s3cret") && !shown.contains("c0de"), "{shown}");
    }
    let long = format!("error={}", "x".repeat(5000));
    assert_eq!(Callback::parse(&long).unwrap().error.unwrap().len(), 200);
}
