use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};

use super::*;
use crate::clock::Clock;
use crate::config::{Environment, LoadOptions, Source, load};

const CONFIG: &str = r#"
[server]
listen = "unix:/tmp/sidekey-test.sock"
[route.up]
upstream = "http://127.0.0.1:1"
credential = false
[caller.ci]
token = [{ value = "ci-new-0123456789" }, { value = "ci-old-0123456789" }]
[caller.web]
token = { value = "web:with:colons-0123456789" }
[caller.app]
uid = [1000, 1001]
[caller.staff]
uid = 1002
gid = [50]
"#;

fn config(text: &str) -> Config {
    let source = Source::Text { name: "t.toml".to_owned(), text: text.to_owned() };
    load(&source, &Environment::default(), LoadOptions::default())
        .map(|loaded| loaded.config)
        .unwrap_or_else(|r| panic!("{r}"))
}

fn callers() -> Callers {
    Callers::load(&config(CONFIG), &SecretReader::new([]), &Clock::system()).expect("tokens").0
}

fn basic(pair: &str) -> String {
    format!("Basic {}", STANDARD.encode(pair))
}

/// Whom the headers and the process name, or why nobody.
fn named(headers: &[(&str, &str)], peer: Option<(u32, u32)>) -> Result<Option<String>, Refused> {
    let callers = callers();
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        let name: http::HeaderName = name.parse().expect("name");
        map.append(name, value.parse().expect("value"));
    }
    let peer = peer.map(|(uid, gid)| Peer { uid, gid });
    Ok(callers.identify(&map, peer, None)?.map(|id| callers.name(id).to_string()))
}

#[test]
fn a_caller_is_known_by_its_token_wherever_a_tool_can_put_it() {
    let (new, old, web) = ("ci-new-0123456789", "ci-old-0123456789", "web:with:colons-0123456789");
    let no_pad = format!("Basic {}", STANDARD_NO_PAD.encode(format!("me:{new}")));
    let cases: [(&[(&str, String)], &str); 13] = [
        (&[("sidekey-token", new.into())], "ci"),
        (&[("sidekey-token", old.into())], "ci"),
        (&[("sidekey-token", web.into())], "web"),
        (&[("authorization", format!("Bearer {new}"))], "ci"),
        (&[("authorization", format!("bearer   {old} "))], "ci"),
        (&[("authorization", format!("BEARER {web}"))], "web"),
        (&[("authorization", basic(&format!("neo4j:{new}")))], "ci"),
        (&[("authorization", basic(&format!(":{new}")))], "ci"),
        (&[("authorization", basic(&format!("web:{web}")))], "web"),
        (&[("authorization", basic(&format!("ci:{web}")))], "web"),
        (&[("authorization", no_pad)], "ci"),
        (&[("authorization", format!("Bearer {new}")), ("sidekey-token", web.into())], "web"),
        (&[("authorization", basic("x:wrong")), ("sidekey-token", new.into())], "ci"),
    ];
    for (headers, want) in cases {
        let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        assert_eq!(named(&headers, None), Ok(Some(want.to_owned())), "{headers:?}");
    }
}

#[test]
fn whoever_shows_nothing_or_something_else_is_unknown() {
    let (new, web) = ("ci-new-0123456789", "web:with:colons-0123456789");
    let huge = basic(&format!("x:{}", "y".repeat(5000)));
    let cases: [&[(&str, String)]; 22] = [
        &[],
        &[("sidekey-token", String::new())],
        &[("sidekey-token", "ci-new-012345678".into())],
        &[("sidekey-token", format!("{new}0"))],
        &[("sidekey-token", new.to_uppercase())],
        &[("sidekey-token", format!("Bearer {new}"))],
        &[("sidekey-token", new.into()), ("sidekey-token", new.into())],
        &[("sidekey-token", "wrong".into()), ("authorization", format!("Bearer {new}"))],
        &[("authorization", new.into())],
        &[("authorization", "Bearer".into())],
        &[("authorization", "Bearer ".into())],
        &[("authorization", format!("Bearer{new}"))],
        &[("authorization", format!("Bearer {new}, Bearer {new}"))],
        &[("authorization", format!("Token {new}"))],
        &[("authorization", format!("Basic {new}"))],
        &[("authorization", basic(new))],
        &[("authorization", basic(&format!("{new}:")))],
        &[("authorization", basic(&format!("x:{new}\n")))],
        &[("authorization", huge)],
        &[("authorization", format!("Bearer {new}")), ("authorization", format!("Bearer {new}"))],
        &[("cookie", format!("sidekey-token={new}"))],
        &[("x-api-key", web.into())],
    ];
    for headers in cases {
        let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let got = named(&headers, None);
        assert!(matches!(got, Err(Refused::CallerUnknown(_))), "{headers:?}: {got:?}");
        let debug = format!("{got:?}");
        assert!(!debug.contains("012345"), "{debug}");
    }
}

#[test]
fn a_process_is_known_by_its_user_and_group_unless_its_token_says_otherwise() {
    let wrong = ("authorization", "Bearer something-else");
    let own = ("sidekey-token", "something-else");
    let ci = ("authorization", "Bearer ci-new-0123456789");
    type Case<'a> = (&'a [(&'a str, &'a str)], (u32, u32), Option<&'a str>);
    let cases: [Case<'_>; 12] = [
        (&[], (1000, 1), Some("app")),
        (&[], (1001, 0), Some("app")),
        (&[], (0, 0), None),
        (&[], (1002, 50), Some("staff")),
        (&[], (1002, 51), None),
        (&[], (1003, 50), None),
        // Tools send an Authorization for reasons of their own.
        (&[wrong], (1000, 1), Some("app")),
        (&[wrong], (0, 0), None),
        (&[ci], (1000, 1), Some("ci")),
        (&[ci], (0, 0), Some("ci")),
        // What is meant for sidekey is not overlooked.
        (&[own], (1000, 1), None),
        (&[wrong, wrong], (1000, 1), None),
    ];
    for (headers, peer, want) in cases {
        let got = named(headers, Some(peer)).ok().flatten();
        assert_eq!(got.as_deref(), want, "{headers:?} {peer:?}");
    }
    assert!(named(&[], None).is_err(), "over TCP there is no process");
}

#[test]
fn without_callers_whoever_connects_gets_in() {
    let text = CONFIG.split("[caller.ci]").next().expect("a beginning");
    let (callers, _) =
        Callers::load(&config(text), &SecretReader::new([]), &Clock::system()).expect("nothing to read");
    let mut headers = HeaderMap::new();
    headers.insert("sidekey-token", "anything".parse().expect("value"));
    assert_eq!(callers.identify(&headers, None, None), Ok(None));
}

#[test]
fn a_token_that_its_file_has_no_more_counts_no_more() {
    let folder = tempfile::tempdir().expect("a folder");
    let at = |name: &str| folder.path().join(name);
    let write = |name: &str, text: &str| std::fs::write(at(name), text).expect("write");
    let callers = |watch: &Callers, token: &str| {
        let mut headers = HeaderMap::new();
        headers.insert("sidekey-token", token.parse().expect("value"));
        watch.identify(&headers, None, None).ok().flatten().map(|id| watch.name(id).to_string())
    };
    write("a", "token-of-a-0123456789\n");
    write("b", "token-of-b-0123456789\n");
    let text = format!(
        "[route.up]\nupstream = \"http://127.0.0.1:1\"\ncredential = false\n[caller.a]\ntoken = {{ file = \"{}\" }}\n\
         [caller.b]\ntoken = {{ file = \"{}\" }}\n",
        at("a").display(),
        at("b").display()
    );
    let (known, mut watch) =
        Callers::load(&config(&text), &SecretReader::new([]), &Clock::system()).expect("tokens");
    let name = |token| callers(&known, token);
    assert_eq!(name("token-of-a-0123456789").as_deref(), Some("a"));

    write("a", "another-of-a-0123456789\n");
    watch.look();
    assert_eq!(
        (name("token-of-a-0123456789"), name("another-of-a-0123456789").as_deref()),
        (None, Some("a"))
    );

    // What cannot be used leaves the old one in force, and is taken up once it can be.
    for garbage in ["", "two\nlines", "two words", "\u{f6}"] {
        write("a", garbage);
        watch.look();
        assert_eq!(name("another-of-a-0123456789").as_deref(), Some("a"), "{garbage:?}");
    }
    std::fs::remove_file(at("a")).expect("remove");
    watch.look();
    assert_eq!(name("another-of-a-0123456789").as_deref(), Some("a"));

    // The same as another caller's, it says nothing any more, neither of the one nor of the other.
    write("a", "token-of-b-0123456789\n");
    watch.look();
    assert_eq!((name("token-of-b-0123456789"), name("another-of-a-0123456789")), (None, None));
    // Nor does a caller's name beside it.
    assert_eq!(
        (known.of("a", b"token-of-b-0123456789"), known.of("b", b"token-of-b-0123456789")),
        (None, None)
    );
    assert!(known.tokens(0).is_empty() && known.tokens(1).is_empty());
    write("a", "third-of-a-0123456789\n");
    watch.look();
    assert_eq!(name("token-of-b-0123456789").as_deref(), Some("b"));
    assert_eq!(name("third-of-a-0123456789").as_deref(), Some("a"));
}

#[test]
fn a_token_may_be_what_a_command_prints() {
    let text = "[route.up]\nupstream = \"http://127.0.0.1:1\"\ncredential = false\n[caller.a]\n\
                token = { exec = [\"/bin/echo\", \"printed-0123456789\"] }\n";
    let (known, _) = Callers::load(&config(text), &SecretReader::new([]), &Clock::system()).expect("a token");
    assert_eq!(known.tokens(0).iter().map(Secret::expose).collect::<Vec<_>>(), ["printed-0123456789"]);
    let text = text.replace("printed-", "two words ");
    let refused =
        Callers::load(&config(&text), &SecretReader::new([]), &Clock::system()).expect_err("no word");
    assert!(matches!(refused, SecretError::NotAWord(_)), "{refused:?}");
}

#[test]
fn debug_shows_no_token() {
    let (known, watch) =
        Callers::load(&config(CONFIG), &SecretReader::new([]), &Clock::system()).expect("tokens");
    let debug = format!("{known:?} {watch:?}");
    assert!(!debug.contains("0123456789"), "{debug}");
}
