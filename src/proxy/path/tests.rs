//! Spellings and what becomes of them, and what holds for every path that is taken.

use http::HeaderValue;
use http::uri::PathAndQuery;
use proptest::prelude::*;

use super::*;
use crate::config::Upstream;
use crate::proxy::route;

fn normal(path: &str) -> Result<String, Ambiguous> {
    let judged = judge(path)?;
    judged.on_route(false)?;
    Ok(judged.normal().to_owned())
}

#[test]
fn a_path_that_reads_in_one_way_has_one_normal_form() {
    let cases = [
        ("/", "/"),
        ("", ""),
        ("*", "*"),
        ("/v1/instances", "/v1/instances"),
        ("//a///b//", "//a///b//"),
        ("/a.b/..c/d../.e/...", "/a.b/..c/d../.e/..."),
        ("/.well-known/x", "/.well-known/x"),
        ("/a;v=1/b;../;./x", "/a;v=1/b;../;./x"),
        ("/!$&'()*+,;=:@-._~", "/!$&'()*+,;=:@-._~"),
        // Unreserved characters are the same encoded or not; reserved ones are not.
        ("/%61ur%61/%7e%2D%5f%2e1", "/aura/~-_.1"),
        ("/%41%5A%30%39", "/AZ09"),
        ("/a%2cb,c", "/a%2Cb,c"),
        ("/a%3bb;c", "/a%3Bb;c"),
        ("/a+b%2b%20", "/a+b%2B%20"),
        ("/%3f%23", "/%3F%23"),
        ("/a%2Eb/%2e%2e%2e", "/a.b/..."),
        // A percent sign of its own stays one: what follows it is not decoded.
        ("/%25", "/%25"),
        ("/%2541", "/%2541"),
        ("/%25%34%31", "/%2541"),
        ("/a%252e%252e", "/a%252e%252e"),
        // Non-ASCII: UTF-8 plain or encoded is the same, Latin-1 is legal.
        ("/grüße", "/gr%C3%BC%C3%9Fe"),
        ("/gr%c3%bc%C3%9fe", "/gr%C3%BC%C3%9Fe"),
        ("/caf%e9/x", "/caf%E9/x"),
        ("/caf%E9", "/caf%E9"),
        ("/%C0%20la/%c1rea", "/%C0%20la/%C1rea"),
        ("/%e0%a0%80/%f0%90%80%80/\u{10ffff}", "/%E0%A0%80/%F0%90%80%80/%F4%8F%BF%BF"),
        ("/%ff%fe", "/%FF%FE"),
        // What no URI has plain, and clients send so nonetheless.
        ("/{id}|\"x\"<y>^`", "/%7Bid%7D%7C%22x%22%3Cy%3E%5E%60"),
        ("/%0a%09%7f", "/%0A%09%7F"),
    ];
    for (path, want) in cases {
        assert_eq!(normal(path).as_deref(), Ok(want), "{path}");
    }
}

#[test]
fn a_plain_path_is_not_copied() {
    for path in ["/db/neo4j/query/v2", "/v1.0/a..b", "/a%2Cb", "/a%25", "*"] {
        assert!(matches!(judge(path).map(|judged| judged.normal), Ok(Cow::Borrowed(_))), "{path}");
    }
}

#[test]
fn a_path_that_could_be_read_in_two_ways_is_refused_for_its_reason() {
    use Ambiguous::{Backslash, Control, DotSegment, EncodedSlash, Escape, Null, Overlong};
    let cases = [
        (
            DotSegment,
            &[
                "/..",
                "/../x",
                "..",
                ".",
                "/.",
                "/./a",
                "/a/.",
                "/a/..",
                "/a/../b",
                "//../b",
                "/%2e",
                "/a/%2e%2e/b",
                "/a/%2E./b",
                "/a/.%2e",
                // An encoded slash parts segments for some, even where a route lets it pass.
                "/a/..%2fb",
                "/a/%2f..%2f",
                "/a%2f%2e%2e",
                "/a%2F.%2Fb",
                // Parameters are cut by some before dots are resolved.
                "/a/..;/b",
                "/a/..;x=y",
                "/a/.%3B/b",
                "/..;%2fb",
                "/.;a;b",
                // Decoded more than once.
                "/a/%252e%252e/b",
                "/a/%25252E./b",
                "/a/%25%32%65.",
                "/a/..%252fb",
                "/a/..%255cb",
                "/a/%252e;x",
                "/a/..%253bx",
            ][..],
        ),
        (Backslash, &["/a\\b", "/a%5cb", "/a%5C..", "\\", "/..\\x"]),
        (EncodedSlash, &["/a/b%2Fc", "/a/b%2fc", "%2f", "/%2F%2f", "/a%2f..b"]),
        (Null, &["/a%00", "/%00/b", "/..%00/"]),
        (Escape, &["/%", "/a%4", "/a%zz", "/%4g/x", "/%%41", "/%2%65", "/%u002e", "/%+1", "/a% 1"]),
        (
            Overlong,
            &[
                "/%c0%ae%c0%ae/x",
                "/a%C0%AFb",
                "/%c1%9c",
                "/%c1%81",
                "/%e0%80%af",
                "/%E0%9F%BF",
                "/%f0%80%80%af",
                "/%f8%80%80%80%af",
                "/%fc%80%80%80%80%af",
                "/%c0%80",
                "/\u{e9}%c0%ae",
            ],
        ),
        (Control, &["/a b", "/a\tb", "/\0", "/a\r\nHost: x", "/\x7f", "/\x1b["]),
    ];
    for (reason, paths) in cases {
        for path in paths {
            assert_eq!(normal(path), Err(reason), "{path:?}");
        }
        assert!(reason.text().contains("; send "), "{reason:?} says what to send");
    }
}

#[test]
fn a_route_may_let_encoded_slashes_pass_and_nothing_else() {
    for (path, want) in [("/a%2fb/c", "/a%2Fb/c"), ("/%2f", "/%2F"), ("/..a%2f...", "/..a%2F...")] {
        let judged = judge(path).unwrap();
        assert_eq!((judged.normal(), judged.on_route(true)), (want, Ok(())), "{path}");
    }
    for path in ["/a%2f../b", "/a%2f%2e/b", "/a%5cb", "/%c0%af"] {
        assert!(judge(path).is_err(), "{path}");
    }
}

/// Decoded once, in a way of its own.
fn decoded(path: &str) -> Vec<u8> {
    let mut parts = path.as_bytes().split(|byte| *byte == b'%');
    let mut all = parts.next().unwrap_or_default().to_vec();
    for part in parts {
        let digits = std::str::from_utf8(&part[..2]).unwrap();
        all.push(u8::from_str_radix(digits, 16).unwrap());
        all.extend(&part[2..]);
    }
    all
}

/// The segments that an upstream sees which decodes once and then removes dot segments (RFC 3986 §5.2.4).
fn resolved(path: &str) -> Vec<Vec<u8>> {
    let decoded = decoded(path);
    let mut segments: Vec<Vec<u8>> = Vec::new();
    let mut given = decoded.split(|byte| *byte == b'/').skip(1).peekable();
    while let Some(segment) = given.next() {
        let is_last = given.peek().is_none();
        match segment {
            b"." | b".." => {
                if segment == b".." {
                    segments.pop();
                }
                if is_last {
                    segments.push(Vec::new());
                }
            }
            _ => segments.push(segment.to_vec()),
        }
    }
    segments
}

fn upstream(base_path: &str) -> Upstream {
    Upstream {
        tls: true,
        host: "h".into(),
        port: 443,
        base_path: base_path.into(),
        host_header: HeaderValue::from_static("h"),
        via: None,
        allow_link_local: false,
    }
}

/// Paths that come close to everything that is looked for.
fn paths() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        8 => prop::sample::select(vec![
            "/", "/", "/", ".", "..", "%2e", "%2E", "%252e", "%2f", "%2F", "%252f", "%5c", "%255c", "%25", "%", ";",
            "%3b", "a", "%61", "%7E", "x=1", "\\", "%00", "%c0", "%ae", "%80", "%e0", "%f0", "%C3%BC", "ü", "+", "2e",
        ]).prop_map(str::to_owned),
        1 => any::<u8>().prop_map(|byte| format!("%{byte:02x}")),
        1 => "[ -~]{1,3}",
        1 => "\\PC",
    ];
    prop::collection::vec(piece, 0..12).prop_map(|pieces| format!("/{}", pieces.concat()))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn the_normal_form_is_read_as_the_path_is(path in paths()) {
        if let Ok(judged) = judge(&path) {
            prop_assert_eq!(resolved(judged.normal()), resolved(&path));
            prop_assert_eq!(judged.normal().matches('/').count(), path.matches('/').count());
            prop_assert!(judged.normal().is_ascii());
        }
    }

    #[test]
    fn the_normal_form_of_the_normal_form_is_itself(path in paths()) {
        if let Ok(judged) = judge(&path) {
            let again = judge(judged.normal());
            prop_assert_eq!(again.as_ref().map(Judged::normal), Ok(judged.normal()));
            prop_assert_eq!(again.unwrap().on_route(false), judged.on_route(false));
        }
    }

    #[test]
    fn what_is_forwarded_is_what_came_and_stays_below_the_upstreams_path(
        path in paths(), query in "(\\?[!-~&&[^#]]{0,8})?", segments in 0..4_usize, base in prop::sample::select(vec!["", "/api", "/api/v2"]),
    ) {
        let Ok(given) = format!("{path}{query}").parse::<PathAndQuery>() else { return Ok(()) };
        // The path as the parser cuts it: a question or number sign ends it.
        if judge(given.path()).is_err() {
            return Ok(());
        }
        let Some(forwarded) = route::target(&upstream(base), &given, segments) else {
            return Err(TestCaseError::fail("a path is a path"));
        };
        let rest = forwarded.as_str().strip_prefix(base).unwrap();
        // Byte for byte: the end of what came, from the slash behind the prefix.
        let whole = given.as_str();
        if let Some((at, _)) = given.path().match_indices('/').nth(segments) {
            prop_assert_eq!(rest, &whole[at..]);
        } else {
            let root = if base.is_empty() { "/" } else { "" };
            prop_assert_eq!(rest, format!("{root}{}", &whole[given.path().len()..]));
        }
        let below = resolved(forwarded.path());
        let root: Vec<Vec<u8>> = resolved(base);
        prop_assert!(below.starts_with(&root), "{:?} is not below {}", forwarded, base);
        // Nothing was climbed: it is the base, and then what the segments behind the prefix say.
        if base.is_empty() {
            prop_assert_eq!(below.len(), decoded(forwarded.path()).iter().filter(|byte| **byte == b'/').count());
        }
    }

    #[test]
    fn any_name_can_be_said_in_a_segment(names in prop::collection::vec("\\PC{1,6}", 1..4)) {
        let plain = |name: &String| match name.replace(['/', '\\', '%'], "_") {
            dots if matches!(dots.split(';').next(), Some("." | "..")) => "...".to_owned(),
            other => other,
        };
        let names: Vec<String> = names.iter().map(plain).collect();
        let mut path = String::new();
        for name in &names {
            path.push('/');
            path.extend(name.bytes().map(|byte| format!("%{byte:02x}")));
        }
        let judged = judge(&path);
        prop_assert!(judged.is_ok(), "{path}: {:?}", judged);
        let said: Vec<Vec<u8>> = names.iter().map(|name| name.as_bytes().to_vec()).collect();
        prop_assert_eq!(resolved(judged.unwrap().normal()), said);
    }

    #[test]
    fn any_text_gets_a_judgement(text in "\\PC*|[\\x00-\\x7f]*") {
        let _ = judge(&text);
    }
}
