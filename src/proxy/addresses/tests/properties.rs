//! What holds for every reference.

use http::uri::PathAndQuery;
use proptest::prelude::*;
use url::Url;

use super::*;

const UPSTREAMS: [&str; 4] =
    ["https://api.example", "http://127.0.0.1:8080/base", "https://[2001:db8::1]/a/b", "http://graph:7474"];
const PREFIXES: [&str; 3] = ["", "/up", "/a/b"];

fn any_path() -> impl Strategy<Value = String> {
    "(/[a-z%0-9;=~]{0,4}){0,4}/?".prop_map(|path| path.replace('%', "%41"))
}

fn any_reference() -> impl Strategy<Value = String> {
    let origin = proptest::sample::select(vec![
        "https://api.example",
        "HTTPS://Api.Example:443",
        "https://api.example:444",
        "http://127.0.0.1:8080",
        "http://127.0.0.1",
        "https://[2001:db8::1]",
        "https://[2001:db8:0::1]:443",
        "http://graph:7474",
        "//graph:7474",
        "//api.example",
        "http://sk:1",
        "https://other.example",
        "",
        "",
    ]);
    let base = proptest::sample::select(vec!["", "", "/base", "/a/b", "/a", "/up"]);
    (origin, base, any_path(), "(\\?[a-z=&/:]{0,6})?(#[a-z/?]{0,3})?")
        .prop_map(|(origin, base, path, tail)| format!("{origin}{base}{path}{tail}"))
}

/// The target of a request for a URL.
fn requested(url: &Url) -> PathAndQuery {
    let query = url.query().map(|query| format!("?{query}")).unwrap_or_default();
    PathAndQuery::try_from(format!("{}{query}", url.path())).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn a_client_that_follows_gets_exactly_what_the_upstream_wrote(
        reference in any_reference(),
        at in "(/[a-z]{0,3}){1,3}",
        upstream_url in proptest::sample::select(UPSTREAMS.to_vec()),
        prefix in proptest::sample::select(PREFIXES.to_vec()),
    ) {
        let upstream = upstream(upstream_url);
        let got = location(&reference, &view("sk:1", prefix), Provider::Generic, &upstream);
        // The same request as the caller and as the upstream see it.
        let caller = Url::parse(&format!("http://sk:1{prefix}{at}")).unwrap();
        let behind = Url::parse(&format!("{upstream_url}{at}")).unwrap();
        let Ok(meant) = behind.join(&reference) else {
            prop_assert_eq!(got, reference);
            return Ok(());
        };
        let is_relative = matches!(reference.as_bytes().first(), None | Some(b'?' | b'#'));
        let is_reachable = meant.origin() == behind.origin()
            && begins_with(meant.path().as_bytes(), &upstream.base_path)
            && !(prefix.is_empty() && !upstream.base_path.is_empty() && meant.path() == upstream.base_path);
        if is_relative || !is_reachable {
            prop_assert_eq!(got, reference);
            return Ok(());
        }
        let followed = caller.join(&got).unwrap();
        prop_assert_eq!(followed.origin(), caller.origin(), "{} became {}", reference, got);
        prop_assert_eq!(followed.fragment(), meant.fragment());
        prop_assert!(begins_with(followed.path().as_bytes(), prefix), "{} became {}", reference, got);
        let segments = prefix.matches('/').count();
        let arrived = crate::proxy::route::target(&upstream, &requested(&followed), segments).unwrap();
        prop_assert_eq!(arrived, requested(&meant), "{} became {}", reference, got);
    }

    /// An absolute path has no origin by which to tell that it was rewritten, so this is of those that have one.
    #[test]
    fn rewriting_a_url_twice_is_rewriting_it_once(
        reference in any_reference().prop_filter("has an origin", |reference| {
            reference.starts_with("//") || !reference.starts_with('/')
        }),
        upstream_index in 0..UPSTREAMS.len(),
        prefix in proptest::sample::select(PREFIXES.to_vec()),
        provider in proptest::sample::select(vec![Provider::Generic, Provider::Neo4j]),
    ) {
        let (upstream, view) = (upstream(UPSTREAMS[upstream_index]), view("sk:1", prefix));
        let once = location(&reference, &view, provider, &upstream);
        prop_assert_eq!(&location(&once, &view, provider, &upstream), &once, "{}", reference);
    }

    #[test]
    fn no_value_makes_it_panic(value in proptest::collection::vec(
        proptest::sample::select(b"<>,;\"'\\ =/:?#[]@.%2eurlhtps05\t\xff".to_vec()), 0..24,
    )) {
        let Ok(given) = HeaderValue::from_bytes(&value) else { return Ok(()) };
        for name in [LOCATION, LINK, REFRESH] {
            told(name, given.as_bytes(), &view("sk:1", "/up"), Provider::Neo4j, &upstream("http://h/base"));
        }
    }
}
