//! Tables of answers, good, odd and bad.

use bytes::Bytes;

use super::*;

const NOW: u64 = 1_780_000_000;

fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(NOW)
}

fn answer(status: u16, body: &str) -> Answer {
    Answer {
        status: StatusCode::from_u16(status).unwrap(),
        headers: HeaderMap::new(),
        body: Bytes::from(body.to_owned()),
    }
}

fn lifetime(body: &str) -> Result<f64, AnswerError> {
    read(&answer(200, body), now(), &[])
        .and_then(|granted| granted.access)
        .map(|given| given.lifetime.as_secs_f64())
}

#[test]
fn odd_lifetimes_are_understood_or_named() {
    let ten_years = MAX_LIFETIME.as_secs_f64();
    let cases: [(&str, Result<f64, AnswerError>); 16] = [
        ("1", Ok(1.0)),
        ("3600", Ok(3600.0)),
        ("315360000", Ok(ten_years)),
        ("99999999999999999999999", Ok(ten_years)),
        ("null", Ok(3600.0)),
        ("\"3600\"", Ok(3600.0)),
        ("3599.5", Ok(3599.5)),
        ("\" 60 \"", Ok(60.0)),
        ("0", Err(AnswerError::ExpiredOnArrival)),
        ("-1", Err(AnswerError::ExpiredOnArrival)),
        ("0.0001", Err(AnswerError::ExpiredOnArrival)),
        ("\"soon\"", Err(AnswerError::BadLifetime("expires_in"))),
        ("\"NaN\"", Err(AnswerError::BadLifetime("expires_in"))),
        ("\"inf\"", Err(AnswerError::BadLifetime("expires_in"))),
        ("[60]", Err(AnswerError::BadLifetime("expires_in"))),
        ("true", Err(AnswerError::BadLifetime("expires_in"))),
    ];
    for (given, want) in cases {
        let body = format!(r#"{{"access_token":"t","token_type":"Bearer","expires_in":{given}}}"#);
        assert_eq!(lifetime(&body), want, "expires_in: {given}");
    }
    assert_eq!(lifetime(r#"{"access_token":"t"}"#), Ok(3600.0), "missing");
}

#[test]
fn an_expiry_may_be_a_moment() {
    let at = |text: &str| lifetime(&format!(r#"{{"access_token":"t","expires_at":{text}}}"#));
    assert_eq!(at("1780000060"), Ok(60.0));
    assert_eq!(at("\"2026-05-28T20:27:40Z\""), Ok(60.0));
    assert_eq!(at("\"2026-05-28T22:27:40+02:00\""), Ok(60.0));
    assert_eq!(at("\"2026-05-28\""), Err(AnswerError::BadLifetime("expires_at")));
}

#[test]
fn bad_answers_each_have_a_name() {
    let cases: [(u16, &str, AnswerError); 11] = [
        (200, "", AnswerError::Empty(StatusCode::OK)),
        (200, "<html>hi</html>", AnswerError::NotJson { html: true }),
        (200, "access_token=abc", AnswerError::NotJson { html: false }),
        (200, "[]", AnswerError::NotJson { html: false }),
        (200, "{}", AnswerError::NoToken),
        (200, r#"{"access_token":17}"#, AnswerError::NoToken),
        (200, r#"{"access_token":""}"#, AnswerError::NoToken),
        (200, r#"{"access_token":"a b"}"#, AnswerError::IllegalToken),
        (200, r#"{"access_token":"a\nb"}"#, AnswerError::IllegalToken),
        (200, r#"{"access_token":"t","token_type":"mac"}"#, AnswerError::WrongType("mac".into())),
        (302, "", AnswerError::Redirect(StatusCode::FOUND)),
    ];
    for (status, body, want) in cases {
        let got = read(&answer(status, body), now(), &[]).and_then(|granted| granted.access);
        assert_eq!(got.err(), Some(want), "{status} {body}");
    }
}

#[test]
fn permanent_errors_are_told_from_passing_ones() {
    let cases: [(u16, &str, bool); 9] = [
        (400, r#"{"error":"invalid_client"}"#, true),
        (401, r#"{"error":"invalid_client"}"#, true),
        (400, r#"{"error":"unauthorized_client"}"#, true),
        (200, r#"{"error":"invalid_scope"}"#, true),
        (400, r#"{"error":"temporarily_unavailable"}"#, false),
        (429, r#"{"error":"invalid_request"}"#, false),
        (500, r#"{"error":"server_error"}"#, false),
        (401, "<html>", false),
        (503, "", false),
    ];
    for (status, body, permanent) in cases {
        let error = read(&answer(status, body), now(), &[]).unwrap_err();
        assert_eq!(error.is_permanent(), permanent, "{status} {body}");
    }
}

#[test]
fn the_servers_words_are_cut_and_cleaned() {
    let long = "x".repeat(500);
    let body = format!(r#"{{"error":"invalid_client","error_description":"a\nb{long}"}}"#);
    let Err(AnswerError::OAuth { description: Some(text), .. }) = read(&answer(400, &body), now(), &[])
    else {
        panic!("not an OAuth error")
    };
    assert!(text.starts_with("a b") && text.len() == 200);
}

#[test]
fn what_repeats_the_secret_is_not_shown_not_even_the_half_that_a_cut_would_leave() {
    let sent = [Secret::new("s3cret/s3cret"), Secret::new("aWQ6czNjcmV0")];
    let cases = [
        r#"{"error":"bad","error_description":"you sent s3cret/s3cret"}"#.to_owned(),
        format!(r#"{{"error":"bad","error_description":"{}s3cret/s3cret"}}"#, "x".repeat(195)),
        r#"{"error":"bad","error_description":["Basic aWQ6czNjcmV0"]}"#.to_owned(),
        r#"{"error":"s3cret/s3cret"}"#.to_owned(),
        r#"{"access_token":"t0ken","token_type":"s3cret/s3cret"}"#.to_owned(),
        r#"{"access_token":"t0ken","token_type":"t0ken"}"#.to_owned(),
    ];
    for body in cases {
        let got = read(&answer(200, &body), now(), &sent).and_then(|granted| granted.access);
        let text = got.unwrap_err().to_string();
        assert!(text.contains("not shown"), "{body}: {text}");
        assert!(!text.contains("s3") && !text.contains("czNj") && !text.contains("t0ken"), "{text}");
    }
}

fn jwt(claims: &str) -> String {
    format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(claims))
}

#[test]
fn a_jwts_own_expiry_counts_where_it_is_earlier() {
    let with = |claims: &str, expires_in: u64| {
        lifetime(&format!(r#"{{"access_token":"{}","expires_in":{expires_in}}}"#, jwt(claims)))
    };
    assert_eq!(with(&format!(r#"{{"exp":{}}}"#, NOW + 60), 3600), Ok(60.0));
    assert_eq!(with(&format!(r#"{{"exp":{}}}"#, NOW + 7200), 3600), Ok(3600.0));
    assert_eq!(with(&format!(r#"{{"exp":{}}}"#, NOW - 10), 3600), Err(AnswerError::ExpiredOnArrival));
    // A clock that is a day ahead of the token's own times is itself wrong.
    let day = 86_400;
    let skewed = format!(r#"{{"iat":{},"exp":{}}}"#, NOW - day, NOW - day + 600);
    assert_eq!(with(&skewed, 3600), Ok(600.0));
    assert_eq!(with("not json", 3600), Ok(3600.0));
    // A command may print what it had in its cache: there, the clock is believed.
    let cached = read_command(format!(r#"{{"access_token":"{}"}}"#, jwt(&skewed)).as_bytes(), now());
    assert_eq!(cached, Err(AnswerError::ExpiredOnArrival));
}

#[test]
fn retry_after_is_seconds_or_a_date() {
    let with = |text: &str| {
        let mut headers = HeaderMap::new();
        headers.insert(RETRY_AFTER, text.parse().unwrap());
        retry_after(&headers, now())
    };
    assert_eq!(with("7"), Some(Duration::from_secs(7)));
    let date = httpdate::fmt_http_date(now() + Duration::from_secs(30));
    assert_eq!(with(&date), Some(Duration::from_secs(30)));
    assert_eq!(with("soon"), None);
}

#[test]
fn a_refresh_token_is_kept_whatever_is_wrong_with_the_access_token() {
    type Case = (&'static str, Result<(Option<AnswerError>, Option<&'static str>), AnswerError>);
    let cases: [Case; 12] = [
        (r#"{"access_token":"t","refresh_token":"r"}"#, Ok((None, Some("r")))),
        (r#"{"access_token":"t"}"#, Ok((None, None))),
        (r#"{"access_token":"t","refresh_token":null}"#, Ok((None, None))),
        (r#"{"access_token":"t","refresh_token":""}"#, Ok((None, None))),
        (r#"{"access_token":"t","refresh_token":17}"#, Ok((None, None))),
        (r#"{"access_token":"t","refresh_token":"a b"}"#, Ok((None, None))),
        (r#"{"access_token":"t","refresh_token":"ü"}"#, Ok((None, None))),
        (
            r#"{"access_token":"t","expires_in":0,"refresh_token":"r"}"#,
            Ok((Some(AnswerError::ExpiredOnArrival), Some("r"))),
        ),
        (
            r#"{"access_token":"t","token_type":"mac","refresh_token":"r"}"#,
            Ok((Some(AnswerError::WrongType("mac".into())), Some("r"))),
        ),
        (r#"{"access_token":"a b"}"#, Ok((Some(AnswerError::IllegalToken), None))),
        (r#"{"refresh_token":"r"}"#, Ok((Some(AnswerError::NoToken), Some("r")))),
        (r#"{"refresh_token":""}"#, Err(AnswerError::NoToken)),
    ];
    for (body, want) in cases {
        let got = read(&answer(200, body), now(), &[]);
        let got = got.map(|granted| (granted.access.err(), granted.refresh_token));
        let want = want.map(|(error, token)| (error, token.map(Secret::new)));
        assert_eq!(got, want, "{body}");
    }
}

#[test]
fn a_scope_is_told_where_it_can_be_shown() {
    let cases = [
        (r#""openid offline""#, Some("openid offline")),
        (r#"["openid","offline"]"#, Some("openid offline")),
        (r#""""#, None),
        ("null", None),
        ("17", None),
        (r#""a\nb""#, None),
        (r#""r3fresh""#, None),
    ];
    for (scope, want) in cases {
        let body = format!(r#"{{"access_token":"t0ken","refresh_token":"r3fresh","scope":{scope}}}"#);
        let granted = read(&answer(200, &body), now(), &[]).unwrap();
        assert_eq!(granted.scope.as_deref(), want, "{scope}");
        let shown = format!("{granted:?}");
        assert!(!shown.contains("t0ken") && !shown.contains("r3fresh"), "{shown}");
    }
}

/// As Ory Hydra words it: the telling words stand past what is shown of a description.
const CONCURRENT: &str = "The request is missing a required parameter, includes an invalid parameter value, includes \
     a parameter more than once, or is otherwise malformed. Failed to refresh token because of multiple concurrent \
     requests using the same token which is not allowed.";

/// What it says to one that came a moment later, when the token was used up already.
const RETRY: &str = "The request is missing a required parameter, includes an invalid parameter value, includes a \
     parameter more than once, or is otherwise malformed. Failed to refresh token. Please retry the request.";

#[test]
fn concurrent_requests_are_noticed_however_long_the_text() {
    let cases = [
        (400, format!(r#"{{"error":"invalid_request","error_description":"{CONCURRENT}"}}"#), true),
        (400, format!(r#"{{"error":"invalid_request","error_description":"{RETRY}"}}"#), true),
        (400, r#"{"error":"Concurrent_Request"}"#.to_owned(), true),
        (400, r#"{"error":"invalid_request","error_description":"concurrent update"}"#.to_owned(), false),
        (400, r#"{"error":"invalid_request","error_description":"bad request"}"#.to_owned(), false),
    ];
    for (status, body, want) in cases {
        let error = read(&answer(status, &body), now(), &[]).unwrap_err();
        assert_eq!(matches!(error, AnswerError::Concurrent { .. }), want, "{body}");
        assert_eq!(error.is_permanent(), !want, "{body}");
    }
}

#[test]
fn an_error_does_not_repeat_what_came_with_it() {
    let body = r#"{"error":"odd","error_description":"here is r3fresh","refresh_token":"r3fresh"}"#;
    let text = read(&answer(200, body), now(), &[]).unwrap_err().to_string();
    assert!(text.contains("not shown") && !text.contains("r3fresh"), "{text}");
}

#[test]
fn a_dead_grant_is_known_though_the_secret_is_a_word_of_the_error() {
    let sent = [Secret::new("grant")];
    let body = r#"{"error":"invalid_grant","error_description":"bad grant"}"#;
    let Err(AnswerError::OAuth { error, description, .. }) = read(&answer(400, body), now(), &sent) else {
        panic!("not an OAuth error")
    };
    assert_eq!(error, "invalid_grant");
    assert!(description.unwrap().contains("not shown"));
}
