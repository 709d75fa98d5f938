//! What rules let pass and what they refuse, by how servers resolve what was sent.

use http::HeaderMap;
use proptest::prelude::*;

use super::*;
use crate::proxy::path;

fn rights(allow: &[&str], deny: &[&str]) -> Rights {
    let compiled = |texts: &[&str]| texts.iter().map(|text| Pattern::parse(text).unwrap()).collect();
    Rights { allow: compiled(allow), deny: compiled(deny) }
}

/// Is a request let through by rules? None: its path is refused before any rule is asked. An encoded slash passes, as
/// on a route that says so.
fn passes(rights: &Rights, method: &str, sent: &str) -> Option<bool> {
    let judged = path::judge(sent).ok()?;
    Some(rights.judge(&method.parse().unwrap(), judged.normal()).is_ok())
}

/// What servers may take a path for: each is the list of segments that a handler is looked up by.
///
/// Independent of the matcher: by text replacement, over every combination of what servers are known to do.
fn resolved(sent: &str) -> Vec<Vec<String>> {
    let mut all = Vec::new();
    for bits in 0..32_u8 {
        let does = |bit: u8| bits >> bit & 1 == 1;
        let (decode_first, cut, merge, slash_ends, decode_twice) =
            (does(0), does(1), does(2), does(3), does(4));
        let mut path = sent.to_owned();
        if decode_first {
            path = decoded(&path);
        }
        if cut {
            let kept = |segment: &str| segment.split(';').next().unwrap_or_default().to_owned();
            path = path.split('/').map(kept).collect::<Vec<_>>().join("/");
        }
        while merge && path.contains("//") {
            path = path.replace("//", "/");
        }
        if slash_ends && path.len() > 1 {
            path = path.strip_suffix('/').unwrap_or(&path).to_owned();
        }
        let mut segments: Vec<String> = path.split('/').skip(1).map(str::to_owned).collect();
        for _ in 0..u8::from(!decode_first) + u8::from(decode_twice) {
            segments = segments.iter().map(|segment| decoded(segment)).collect();
        }
        all.push(segments);
    }
    all.sort();
    all.dedup();
    all
}

fn decoded(text: &str) -> String {
    let (mut out, mut rest) = (Vec::new(), text.as_bytes());
    while let Some((&byte, tail)) = rest.split_first() {
        let escape = (byte == b'%' && tail.len() >= 2)
            .then(|| u8::from_str_radix(std::str::from_utf8(&tail[..2]).ok()?, 16).ok())
            .flatten();
        match escape {
            Some(byte) => (out.push(byte), rest = &tail[2..]).1,
            None => (out.push(byte), rest = tail).1,
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// `/v1/instances/*`: an instance, as whoever writes the rule means it.
fn is_an_instance(segments: &[String]) -> bool {
    matches!(segments, [v1, instances, name] if v1 == "v1" && instances == "instances" && !name.is_empty())
}

#[test]
fn spellings_of_a_path_pass_only_if_every_server_resolves_them_to_what_is_allowed() {
    let rights = rights(&["GET /v1/instances/*"], &[]);
    let (yes, no, never) = (Some(true), Some(false), None);
    let cases = [
        ("/v1/instances/x", yes),
        ("/v1/instances/0a1b-2c3d", yes),
        ("/v1/%69nstances/x", yes),
        ("/%76%31/instances/x", yes),
        ("/v1/instances/%78", yes),
        ("/v1/instances/a%20b", yes),
        ("/v1/instances/%C3%A9", yes),
        ("/v1/instances/%c3%a9", yes),
        ("/v1/instances/a:b", yes),
        ("/v1/instances/a%3Ab", yes),
        ("/v1/instances/a+b", yes),
        ("/v1/instances/*", yes),
        ("/v1/instances/%2A", yes),
        ("/v1/instances/x~", yes),
        ("/v1/instances/x%3F", yes),
        // `%2F` as a part of the name, on a route that takes it so.
        ("/v1/instances/a%2Fb", yes),
        ("/v1/instances", no),
        ("/v1/instances/", no),
        ("/v1/instances//", no),
        ("/v1/instances/x/", no),
        ("/v1/instances//x", no),
        ("/v1//instances/x", no),
        ("//v1/instances/x", no),
        ("//instances/x", no),
        ("/v1/instances/x/y", no),
        ("/v1/instances/x/snapshots", no),
        ("/v1/instances/;x", no),
        ("/v1/instances/x;a=1", no),
        ("/v1/instances/x;/y", no),
        ("/v1/instances;x/y", no),
        ("/v1;x/instances/y", no),
        ("/;x/v1/instances/y", no),
        ("/v1/instances/x%3Ba", no),
        ("/v1/instances/a%252Fb", no),
        ("/v1/instances/a%25%32Fb", no),
        ("/v1/%2569nstances/x", no),
        ("/V1/instances/x", no),
        ("/v1/Instances/x", no),
        ("/v1/instancesx", no),
        ("/v1/instances%2Fx", no),
        ("/v1%2Finstances/x", no),
        ("/x/v1/instances/y", no),
        ("/v1", no),
        ("/", no),
        ("/v1/instances/..", never),
        ("/v1/instances/../instances/x", never),
        ("/v1/x/../instances/x", never),
        ("/v1/./instances/x", never),
        ("/v1/instances/%2e%2e", never),
        ("/v1/instances/%252e%252e/x", never),
        ("/v1/instances/..;x/y", never),
        ("/v1/instances/x%5Cy", never),
        ("/v1/instances\\x", never),
        ("/v1/instances/x%00", never),
        ("/v1/instances/%2F..%2Fx", never),
        ("/v1/instances/%C0%AFx", never),
        ("/v1/instances/%", never),
        ("/v1/instances/%zz", never),
    ];
    assert!(cases.len() >= 40);
    for (sent, want) in cases {
        let passed = passes(&rights, "GET", sent);
        assert_eq!(passed, want, "{sent}");
        if passed == Some(true) {
            // A route that lets `%2F` pass says that it separates nothing.
            let sent = sent.replace("%2F", "-");
            for segments in resolved(&sent) {
                assert!(is_an_instance(&segments), "{sent} → {segments:?}");
            }
        }
    }
}

#[test]
fn spellings_of_a_path_are_refused_if_any_server_resolves_them_to_what_is_denied() {
    let rights = rights(&[], &["DELETE /v1/instances/*"]);
    let (denied, other) = (Some(false), Some(true));
    let cases = [
        ("/v1/instances/x", denied),
        ("/v1/instances/x/", denied),
        ("/v1/instances/x//", denied),
        ("/v1/instances//x", denied),
        ("//v1/instances/x", denied),
        ("/v1///instances///x///", denied),
        ("/v1/%69nstances/x", denied),
        ("/v1/%2569nstances/x", denied),
        ("/V1/INSTANCES/x", denied),
        ("/v1/instances/x;a=1", denied),
        ("/v1/instances;a=1/x", denied),
        ("/v1;a/instances;b/x;c", denied),
        ("/;a/v1/instances/x", denied),
        ("/v1/;a/instances/x", denied),
        ("/v1/instances/;x", denied),
        ("/v1/instances/x%3Ba", denied),
        ("/v1/instances/x/;a", denied),
        ("/v1/instances/a%2Fb", denied),
        ("/v1%2Finstances/x", denied),
        ("/v1%2Finstances%2Fx", denied),
        ("/v1%252Finstances/x", denied),
        ("/v1/instances/x%2F", denied),
        ("/v1/instances", other),
        ("/v1/instances/", other),
        ("/v1/instances/x/y", other),
        ("/v1/instances/x/y/", other),
        ("/v1/instancesx", other),
        ("/x/v1/instances/y", other),
        ("/v2/instances/x", other),
        ("/", other),
    ];
    for (sent, want) in cases {
        assert_eq!(passes(&rights, "DELETE", sent), want, "{sent}");
        if resolved(sent).iter().any(|segments| is_an_instance(segments)) {
            assert_eq!(want, denied, "{sent}");
        }
        assert_eq!(passes(&rights, "PATCH", sent), other, "{sent}: another method");
    }
}

#[test]
fn wildcards_stay_within_their_bounds() {
    let cases: [(&str, &[&str], &[&str]); 14] = [
        ("/", &["/"], &["/x", "//"]),
        ("/**", &["/", "/x", "/x/y", "//", "/x//y;z"], &["*"]),
        ("**", &["/", "/x/y"], &["*"]),
        (
            "/projects/**",
            &["/projects", "/projects/", "/projects/a", "/projects/a/b/c"],
            &["/", "/projectsx", "/x"],
        ),
        ("/projects/*", &["/projects/a"], &["/projects", "/projects/", "/projects/a/b", "/projects/a/"]),
        ("/projects/", &["/projects/"], &["/projects", "/projects//"]),
        ("/projects", &["/projects"], &["/projects/", "/project", "/projectss", "/x/projects"]),
        ("/*/*", &["/a/b"], &["/a", "/a/", "//b", "/a/b/c"]),
        ("/**/b", &["/b", "/a/b", "/a/a/b", "/b/b"], &["/a", "/b/a", "/ab"]),
        ("/a/**/b/**/c", &["/a/b/c", "/a/x/b/y/z/c", "/a/b/b/c/c"], &["/a/c", "/a/b", "/a/c/b", "/b/c"]),
        ("/v*/x", &["/v1/x", "/v/x", "/v2beta1/x"], &["/1/x", "/v1/y", "/v1"]),
        ("/*.json", &["/a.json", "/.json", "/a.json.json"], &["/a.jsonx", "/json", "/a/b.json"]),
        ("/a*b*c", &["/abc", "/aXbYc", "/abbcc", "/abcbc"], &["/ab", "/acb", "/abcd"]),
        ("/x;v=1/*", &["/x;v=1/y"], &["/x/y", "/x;v=2/y"]),
    ];
    for (rule, yes, no) in cases {
        let pattern = Pattern::parse(rule).unwrap();
        for path in yes {
            assert!(pattern.allows(&Method::GET, path), "{rule} allows {path}");
            assert!(pattern.denies(&Method::GET, path), "{rule} denies {path}");
        }
        for path in no {
            assert!(!pattern.allows(&Method::GET, path), "{rule} does not allow {path}");
        }
    }
}

#[test]
fn a_rule_is_for_the_methods_that_it_names() {
    let cases = [
        ("GET /x", "GET", true),
        ("GET /x", "HEAD", true),
        ("GET /x", "OPTIONS", false),
        ("GET /x", "POST", false),
        ("GET /x", "get", false),
        ("HEAD /x", "GET", false),
        ("HEAD /x", "HEAD", true),
        ("GET,POST /x", "POST", true),
        ("GET,POST /x", "HEAD", true),
        ("GET,POST /x", "PUT", false),
        ("* /x", "OPTIONS", true),
        ("* /x", "BREW", true),
        ("/x", "DELETE", true),
        ("**", "DELETE", true),
        ("OPTIONS /x", "OPTIONS", true),
    ];
    for (rule, method, want) in cases {
        assert_eq!(passes(&rights(&[rule], &[]), method, "/x"), Some(want), "{rule}: {method}");
        // What a server may take for another method is refused as that.
        let denied = want || method == "get";
        assert_eq!(passes(&rights(&[], &[rule]), method, "/x"), Some(!denied), "deny {rule}: {method}");
    }
    assert!(rights(&["OPTIONS /x"], &[]).judge(&Method::OPTIONS, "*").is_err());
}

#[test]
fn deny_comes_before_allow_and_the_rule_that_refused_is_named() {
    let rights = rights(&["GET /projects/**", "DELETE /**"], &["DELETE /projects/*", "/projects/*/keys"]);
    let judged = |method: &str, path: &str| {
        rights.judge(&method.parse().unwrap(), path).map_err(|denied| denied.to_string())
    };
    assert_eq!(judged("GET", "/projects/a"), Ok(()));
    assert_eq!(judged("DELETE", "/other"), Ok(()));
    assert_eq!(judged("DELETE", "/projects/a"), Err(r#"deny "DELETE /projects/*""#.to_owned()));
    assert_eq!(judged("GET", "/projects/a/keys"), Err(r#"deny "/projects/*/keys""#.to_owned()));
    assert_eq!(judged("POST", "/projects"), Err("no rule of allow matches".to_owned()));
    assert!(rights.are_limited() && !Rights::default().are_limited());
    assert!(Rights::default().judge(&Method::DELETE, "*").is_ok());
}

#[test]
fn a_text_that_is_no_rule_says_what_to_write() {
    let cases = [
        ("", "is empty", "write \"GET /v1/instances/*\", say"),
        ("GET", "has no path", "write \"GET /**\" for every path"),
        ("get /x", "has the method `get` in lower case", "write GET"),
        ("GTE /x", "has the method `GTE`, which is none", "write GET"),
        ("DELET /x", "has the method `DELET`, which is none", "write DELETE"),
        ("PSOT /x", "has the method `PSOT`, which is none", "write POST"),
        ("CONNECT /x", "names CONNECT", "remove it: CONNECT is never forwarded"),
        ("GET x", "has no path that begins with `/`", "write \"GET /x\""),
        ("v1/instances", "has no path that begins with `/`", "write \"GET /v1/instances\""),
        ("GET/x/y", "has no space between method and path", "write \"GET /x/y\""),
        ("GET, POST /x", "has a space in the list of methods", "write \"GET,POST /x\""),
        ("GET ,POST /x", "has a space in the list of methods", "write \"GET,POST /x\""),
        ("GET /x?y=1", "has a query", "remove the `?` and what follows: only the path is judged"),
        ("GET /x#y", "has a fragment", "remove the `#` and what follows: it is never sent"),
        ("GET /a//b", "has an empty segment", "write single slashes"),
        ("GET /a/../b", "has a dot segment", "write it resolved: paths with dot segments never pass"),
        ("GET /%69x", "has a path that is not in its normal form", "write /ix"),
        ("GET /%c3%a9", "has a path that is not in its normal form", "write /%C3%A9"),
        ("GET /é", "has a path that is not in its normal form", "write /%C3%A9"),
        ("GET /x/{id}", "has a brace, which no path has", "write `*` for a part that varies"),
        ("GET /\"x\"", "has a path that is not in its normal form", "write /%22x%22"),
        ("GET /100%", "has a percent sign that begins no escape", "write the sign itself as %25"),
        ("GET /a\\b", "has a backslash", "write slashes: paths with a backslash never pass"),
        (
            "GET /a**",
            "has `**` as a part of a segment",
            "write `*` for any characters of one segment, `**` alone between slashes for any segments",
        ),
    ];
    for (text, problem, help) in cases {
        let want = PatternError { problem: problem.into(), help: help.into() };
        assert_eq!(Pattern::parse(text), Err(want), "{text}");
    }
    for text in ["GET /x ", "  GET   /x", "* /x", "**", "/", "/**", "GET,HEAD /", "PROPFIND /dav/**"] {
        assert!(Pattern::parse(text).is_ok(), "{text}");
    }
}

#[test]
fn what_asks_to_be_taken_for_another_request_is_found() {
    let headers = |name: &'static str| {
        HeaderMap::from_iter([(http::HeaderName::from_static(name), "x".parse().unwrap())])
    };
    for name in
        ["x-http-method-override", "x-http-method", "x-method-override", "x-original-url", "x-rewrite-url"]
    {
        assert_eq!(override_in(&headers(name), None), Some(name));
    }
    assert_eq!(override_in(&headers("x_http_method_override"), None), Some("x-http-method-override"));
    assert_eq!(override_in(&headers("x-http_method-override"), None), Some("x-http-method-override"));
    for name in ["x-http-methods", "http-method", "x-request-id"] {
        assert_eq!(override_in(&headers(name), Some("a=b&method=GET&_methods=1&x_method=1")), None);
    }
    let none = HeaderMap::new();
    for query in [
        "_method=DELETE",
        "a=b&_method=DELETE",
        "a;_METHOD=x",
        "%5Fmethod=x",
        "_%6dethod=x",
        ".method=x",
        "%20_method=x",
        "_method[]=x",
        "_method",
    ] {
        assert_eq!(override_in(&none, Some(query)), Some("_method"), "{query}");
    }
}

/// A matcher by brute force: all ways to cut the path.
fn oracle(rule: &[&str], path: &[&str]) -> bool {
    match rule {
        [] => path.is_empty(),
        ["**", rest @ ..] => (0..=path.len()).any(|taken| oracle(rest, &path[taken..])),
        [one, rest @ ..] => {
            path.first().is_some_and(|segment| {
                segment.is_empty() == one.is_empty() && glob(one.as_bytes(), segment.as_bytes())
            }) && oracle(rest, &path[1..])
        }
    }
}

fn glob(rule: &[u8], text: &[u8]) -> bool {
    match rule {
        [] => text.is_empty(),
        [b'*', rest @ ..] => {
            (0..=text.len()).any(|taken| !text[..taken].contains(&b';') && glob(rest, &text[taken..]))
        }
        [one, rest @ ..] => text.first() == Some(one) && glob(rest, &text[1..]),
    }
}

#[test]
fn what_one_server_takes_for_a_separator_another_takes_for_content() {
    let rule = Pattern::parse("/a/*").unwrap();
    for path in ["/a%2F/%252F", "/a;x/%3B", "/a%3Bx/%253B", "/a%252Fb", "/a/%2F", "/a;/b"] {
        assert!(rule.denies(&Method::GET, path), "{path}");
    }
    for path in ["/b%2F/%252F", "/ab/%3B", "/b;a/c"] {
        assert!(!rule.denies(&Method::GET, path), "{path}");
    }
}

proptest! {
    #[test]
    fn rules_agree_with_a_matcher_by_brute_force(
        rule in proptest::collection::vec("(\\*\\*|[ab;*]{1,4}|a|b)", 0..5),
        path in proptest::collection::vec("[ab;]{0,4}", 1..6),
    ) {
        let rule: Vec<&str> = rule.iter().map(String::as_str).filter(|text| *text == "**" || !text.contains("**")).collect();
        let path: Vec<&str> = path.iter().map(String::as_str).collect();
        let pattern = Pattern::parse(&format!("/{}", rule.join("/"))).unwrap();
        let text = format!("/{}", path.join("/"));
        let rule = if rule.is_empty() { vec![""] } else { rule };
        let allowed = pattern.allows(&Method::GET, &text);
        prop_assert_eq!(allowed, oracle(&rule, &path), "{} {}", pattern.text(), text);
        // What could be allowed could be denied.
        prop_assert!(!allowed || pattern.denies(&Method::GET, &text), "{} {}", pattern.text(), text);
    }

    #[test]
    fn an_allowed_path_is_so_for_every_server_and_a_path_denied_by_none_is_meant_by_none(
        path in "(/[ab%;]{0,3}(%2F|%61|%252F|%3B|;a|/|b)?){1,4}",
    ) {
        let Ok(judged) = path::judge(&path) else { return Ok(()) };
        for rule in ["/a/*", "/*/b", "/a/b", "/a/**", "/**/b"] {
            let pattern = Pattern::parse(rule).unwrap();
            let parts: Vec<&str> = rule.split('/').skip(1).collect();
            // On servers that tell no letters' case apart nothing else differs.
            let is_meant = |segments: &Vec<String>| {
                let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
                oracle(&parts, &segments)
            };
            // On this route an encoded slash is refused.
            if !judged.normal().contains("%2F") && pattern.allows(&Method::GET, judged.normal()) {
                let last = |segments: &Vec<String>| segments.last().is_some_and(String::is_empty);
                for segments in resolved(&path).iter().filter(|segments| !last(segments)) {
                    prop_assert!(is_meant(segments) || rule.contains("**"), "{rule} {path} → {segments:?}");
                }
            }
            if resolved(&path).iter().any(is_meant) {
                prop_assert!(pattern.denies(&Method::GET, judged.normal()), "{rule} {path}");
            }
        }
    }
}
