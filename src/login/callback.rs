//! What a browser or a person brings back: cookies of requests, and URLs that were pasted. Pure.

use http::HeaderMap;
use http::header::COOKIE;
use url::Url;

use crate::config::RedirectUri;

/// The values that the cookies of this name have. A browser may send an older one of the same name as well.
pub(super) fn cookies(headers: &HeaderMap, name: &str) -> Vec<String> {
    let texts = headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok());
    texts
        .flat_map(|text| text.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .filter(|(known, _)| *known == name)
        .map(|(_, value)| value.to_owned())
        .collect()
}

/// Is the request a guess of the browser's that a person may come here? Such a one uses nothing up.
pub(super) fn is_prefetch(headers: &HeaderMap) -> bool {
    ["sec-purpose", "purpose", "x-moz"].iter().any(|name| {
        headers.get_all(*name).iter().any(|value| {
            let text = value.to_str().unwrap_or_default().to_ascii_lowercase();
            text.contains("prefetch") || text.contains("prerender")
        })
    })
}

/// The query of a pasted text: a whole URL at the redirect URI, with or without its scheme, or the query alone.
///
/// # Errors
/// What is wrong with it, in words that hold nothing of it.
pub(super) fn pasted_query(pasted: &str, redirect: &RedirectUri) -> Result<String, String> {
    let pasted = pasted.trim();
    if pasted.is_empty() {
        return Err("nothing was pasted; paste the address that the browser shows at the end".to_owned());
    }
    let whole = match pasted.split_once('?') {
        // One further on is in a value: some servers leave `iss` as it is.
        _ if pasted.split_once("://").is_some_and(|(before, _)| !before.contains(['?', '=', '&'])) => {
            pasted.to_owned()
        }
        // Browsers hide the scheme.
        Some((before, _)) if !before.is_empty() && !before.contains(['=', '&']) => format!("http://{pasted}"),
        _ => return Ok(pasted.strip_prefix('?').unwrap_or(pasted).to_owned()),
    };
    let wrong = || {
        format!(
            "the pasted address is not one at {}; paste the one that the browser shows at the end",
            redirect.text
        )
    };
    let (given, own) =
        (Url::parse(&whole).map_err(|_| wrong())?, Url::parse(&redirect.text).map_err(|_| wrong())?);
    let same = given.scheme() == own.scheme()
        && given.host_str() == own.host_str()
        && given.port_or_known_default() == own.port_or_known_default()
        && given.path() == own.path()
        && given.username().is_empty()
        && given.password().is_none();
    match given.query() {
        _ if !same => Err(wrong()),
        Some(query) if !query.is_empty() => Ok(query.to_owned()),
        _ => Err(
            "the pasted address has nothing after its `?`; paste the one that the browser shows at the end"
                .to_owned(),
        ),
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn cookies_are_found_among_others_and_in_several_lines() {
        let mut headers = HeaderMap::new();
        assert!(cookies(&headers, "a").is_empty());
        headers.append(COOKIE, HeaderValue::from_static("x=1; a=2;a=3 ; ab=4"));
        headers.append(COOKIE, HeaderValue::from_static("a=5=6; b; =7"));
        assert_eq!(cookies(&headers, "a"), ["2", "3", "5=6"]);
        assert!(cookies(&headers, "A").is_empty());
    }

    #[test]
    fn a_prefetch_is_told_by_its_purpose() {
        let cases = [
            ("sec-purpose", "prefetch", true),
            ("sec-purpose", "prefetch;prerender", true),
            ("purpose", "prefetch", true),
            ("x-moz", "Prefetch", true),
            ("sec-purpose", "", false),
            ("sec-fetch-mode", "navigate", false),
        ];
        for (name, value, want) in cases {
            let mut headers = HeaderMap::new();
            headers.insert(name, HeaderValue::from_static(value));
            assert_eq!(is_prefetch(&headers), want, "{name}: {value}");
        }
    }

    #[test]
    fn a_pasted_url_must_be_the_redirect_uri() {
        let redirect = RedirectUri {
            text: "http://localhost:3000/api/callback".to_owned(),
            host: "localhost".to_owned(),
            port: 3000,
            path: "/api/callback".to_owned(),
        };
        let good = [
            "http://localhost:3000/api/callback?code=c&state=s",
            "  http://LOCALHOST:3000/api/callback?code=c&state=s#x\n",
            "localhost:3000/api/callback?code=c&state=s",
            "?code=c&state=s",
            "code=c&state=s",
        ];
        for pasted in good {
            assert_eq!(pasted_query(pasted, &redirect).as_deref(), Ok("code=c&state=s"), "{pasted}");
        }
        // A `?` within a value is legal.
        assert_eq!(pasted_query("code=a?b", &redirect).as_deref(), Ok("code=a?b"));
        let with_an_address = [
            "localhost:3000/api/callback?code=c&iss=https://a.example",
            "?code=c&iss=https://a.example",
            "code=c&iss=https://a.example",
        ];
        for pasted in with_an_address {
            let query = pasted_query(pasted, &redirect);
            assert_eq!(query.as_deref(), Ok("code=c&iss=https://a.example"), "{pasted}");
        }
        let bad = [
            "",
            "\n",
            "https://localhost:3000/api/callback?code=canary",
            "http://127.0.0.1:3000/api/callback?code=canary",
            "http://localhost:3001/api/callback?code=canary",
            "http://localhost/api/callback?code=canary",
            "http://localhost:3000/api/?code=canary",
            "http://localhost:3000/api/callback/?code=canary",
            "http://localhost:3000@evil.example/api/callback?code=canary",
            "http://user@localhost:3000/api/callback?code=canary",
            "http://localhost:3000/api/callback",
            "http://localhost:3000/api/callback?",
            "https://oauth.example/auth?client_id=canary&redirect_uri=http://localhost:3000/api/callback",
            "http://[canary",
        ];
        for pasted in bad {
            let error = pasted_query(pasted, &redirect).unwrap_err();
            assert!(error.contains("paste") && !error.contains("canary"), "{pasted}: {error}");
        }
    }
}
