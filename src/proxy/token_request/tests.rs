use super::*;

const FORM: &str = "application/x-www-form-urlencoded";

fn headers(lines: &[(&'static str, &str)]) -> HeaderMap {
    lines.iter().map(|(name, value)| (http::HeaderName::from_static(name), value.parse().unwrap())).collect()
}

fn basic_of(plain: &str) -> String {
    format!("Basic {}", STANDARD.encode(plain))
}

/// Who of two callers asks, one of whom has two tokens.
fn asked(authorization: &[&str], body: &str) -> Result<Option<(usize, String)>, TokenRefusal> {
    let mut lines = vec![("content-type", FORM)];
    lines.extend(authorization.iter().map(|value| ("authorization", *value)));
    let request = TokenRequest::read(&headers(&lines), body.as_bytes())?;
    let tokens = [("ci", "new+%41:x"), ("ci", "old"), ("dev", "a b&c=%25")];
    let known = |name: &str, token: &[u8]| {
        let is_it = |known: &(&str, &str)| known.0 == name && known.1.as_bytes() == token;
        tokens.iter().any(is_it).then(|| usize::from(name == "dev"))
    };
    let found = request.caller(known).map(|(caller, token)| (caller, token.expose().to_owned()));
    request.judge_grant_type()?;
    Ok(found)
}

const GRANT: &str = "grant_type=client_credentials";

#[test]
fn a_client_is_known_by_basic_in_both_ways_to_write_it_and_by_the_body() {
    let ci = |token: &str| Ok(Some((0, token.to_owned())));
    let dev = Ok(Some((1, "a b&c=%25".to_owned())));
    let with = |more: &str| format!("{GRANT}&{more}");
    let cases = [
        (basic_of("ci:old"), GRANT.to_owned(), ci("old")),
        (basic_of("ci:new+%41:x"), GRANT.to_owned(), ci("new+%41:x")),
        (basic_of("ci:new%2B%2541%3Ax"), GRANT.to_owned(), ci("new+%41:x")),
        (basic_of("%63i:old"), GRANT.to_owned(), ci("old")),
        (basic_of("dev:a b&c=%25"), GRANT.to_owned(), dev.clone()),
        (basic_of("dev:a+b%26c%3D%2525"), GRANT.to_owned(), dev.clone()),
        (basic_of("ci:old").replace("Basic", "bASIC "), GRANT.to_owned(), ci("old")),
        (basic_of("ci:old"), with("client_id=ci"), ci("old")),
        ("Bearer sidekey-local-v1.ci.1.x".to_owned(), with("client_id=ci&client_secret=old"), ci("old")),
        (String::new(), with("client_id=ci&client_secret=old&scope=&x=1&x=2"), ci("old")),
        (String::new(), with("client_id=dev&client_secret=a+b%26c%3D%2525"), dev),
        (basic_of("ci:wrong"), GRANT.to_owned(), Ok(None)),
        (basic_of("ci:"), GRANT.to_owned(), Ok(None)),
        (basic_of(":old"), GRANT.to_owned(), Ok(None)),
        (basic_of("dev:old"), GRANT.to_owned(), Ok(None)),
        (basic_of("CI:old"), GRANT.to_owned(), Ok(None)),
        (basic_of("ci:old "), GRANT.to_owned(), Ok(None)),
        ("Bearer old".to_owned(), GRANT.to_owned(), Ok(None)),
        (String::new(), with("client_id=ci"), Ok(None)),
        (String::new(), with("client_secret=old"), Ok(None)),
        (String::new(), with("client_id=ci&client_secret=new+%2541:x"), Ok(None)),
        (String::new(), GRANT.to_owned(), Ok(None)),
    ];
    for (authorization, body, want) in cases {
        let lines: &[&str] = if authorization.is_empty() { &[] } else { &[&authorization] };
        assert_eq!(asked(lines, &body), want, "{authorization} {body}");
    }
}

#[test]
fn what_is_no_request_for_client_credentials_gets_the_error_that_says_so() {
    let good = basic_of("ci:old");
    let malformed: &[(&[&str], &str, &str)] = &[
        (&[&good, &good], GRANT, "more than one Authorization"),
        (&[&good], "grant_type=client_credentials&client_secret=old", "twice"),
        (&[&good], "grant_type=client_credentials&client_secret=", "twice"),
        (&[&good], "grant_type=client_credentials&client_id=dev", "not that of"),
        (&[], "grant_type=client_credentials&client_id=ci&client_id=ci", "more than once"),
        (&[], "grant_type=client_credentials&client_secret=a&client_secret=b", "more than once"),
        (&[&good], "grant_type=client_credentials&grant_type=client_credentials", "more than once"),
        (&[&good], "grant_type=client_credentials&scope=a&scope=b", "more than once"),
        (&[&good], "", "missing"),
        (&[&good], "grant_type=", "missing"),
        (&[&good], "{\"grant_type\":\"client_credentials\"}", "missing"),
        (&["Basic"], GRANT, "not Basic"),
        (&["Basic ci:old"], GRANT, "not Basic"),
        (&["Basic Y2k="], GRANT, "not Basic"),
        (&["Basic /zpvbGQ="], GRANT, "not Basic"),
    ];
    for (authorization, body, want) in malformed {
        match asked(authorization, body) {
            Err(TokenRefusal::Malformed(text)) => assert!(text.contains(want), "{body}: {text}"),
            other => panic!("{authorization:?} {body}: {other:?}"),
        }
    }
    for other in
        ["password", "refresh_token", "authorization_code", "Client_Credentials", "client_credentials "]
    {
        assert_eq!(asked(&[&good], &format!("grant_type={other}")), Err(TokenRefusal::GrantType), "{other}");
    }
}

#[test]
fn only_a_form_is_read() {
    let read = |media_type: Option<&str>| {
        let lines: Vec<_> = media_type.map(|value| ("content-type", value)).into_iter().collect();
        TokenRequest::read(&headers(&lines), b"client_id=a&grant_type=client_credentials").is_ok()
    };
    for form in [FORM, "Application/X-WWW-Form-Urlencoded ; charset=utf-8"] {
        assert!(read(Some(form)), "{form}");
    }
    for other in [None, Some("application/json"), Some("multipart/form-data; boundary=x"), Some("text/plain")]
    {
        assert!(!read(other), "{other:?}");
    }
}

#[test]
fn what_a_client_is_told_has_only_what_a_description_may_have() {
    let all = [
        TokenRefusal::Method,
        TokenRefusal::TooLarge,
        TokenRefusal::Malformed("Plain."),
        TokenRefusal::Client,
        TokenRefusal::NotAllowed,
        TokenRefusal::GrantType,
    ];
    for refusal in all {
        let text = refusal.words().text;
        assert!(text.bytes().all(|b| matches!(b, 0x20..=0x7e) && b != b'"' && b != b'\\'), "{text}");
    }
}

#[test]
fn debug_of_a_token_request_shows_no_secret() {
    let lines = [("content-type", FORM), ("authorization", &*basic_of("ci:canary"))];
    let request = TokenRequest::read(&headers(&lines), GRANT.as_bytes()).unwrap();
    assert!(!format!("{request:?}").contains("canary"));
}
