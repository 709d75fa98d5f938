//! What each hop on a request's way has to tell and to count. Pure.

use http::header::{HeaderMap, HeaderValue, MAX_FORWARDS};
use http::{Method, Version};

/// Via, with the protocol in which the caller spoke (RFC 9110 §7.6.3).
pub(super) fn via(version: Version) -> &'static str {
    match version {
        Version::HTTP_10 => "1.0 sidekey",
        Version::HTTP_2 => "2.0 sidekey",
        _ => "1.1 sidekey",
    }
}

/// Counts this hop off a request's Max-Forwards. Gives whether it may go on, or none where that cannot be told
/// (RFC 9110 §7.6.2).
pub(super) fn take_hop(method: &Method, headers: &mut HeaderMap) -> Option<bool> {
    // TRACE is not forwarded anyway, and for the others it has no meaning.
    if method != Method::OPTIONS {
        return Some(true);
    }
    let mut lines = headers.get_all(MAX_FORWARDS).iter();
    let Some(line) = lines.next() else { return Some(true) };
    let digits = line.to_str().ok().filter(|line| line.bytes().all(|byte| byte.is_ascii_digit()))?;
    if digits.is_empty() || lines.next().is_some() {
        return None;
    }
    // What is too large for us may be sent on as the largest that is not.
    let left = digits.parse().map_or(u64::MAX, |hops: u64| hops.saturating_sub(1));
    let may_go_on = digits.bytes().any(|digit| digit != b'0');
    headers.insert(MAX_FORWARDS, HeaderValue::from(left));
    Some(may_go_on)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn via_tells_the_version_that_the_caller_spoke() {
        for (version, want) in [
            (Version::HTTP_10, "1.0 sidekey"),
            (Version::HTTP_11, "1.1 sidekey"),
            (Version::HTTP_2, "2.0 sidekey"),
        ] {
            assert_eq!(via(version), want);
        }
    }

    #[test]
    fn a_hop_is_counted_off_the_options_that_count_them() {
        /// Method and Max-Forwards; whether it may go on, and what is left.
        type Case = (&'static str, &'static [&'static str], Option<bool>, Option<&'static str>);
        let cases: [Case; 11] = [
            ("OPTIONS", &[], Some(true), None),
            ("OPTIONS", &["0"], Some(false), Some("0")),
            ("OPTIONS", &["00"], Some(false), Some("0")),
            ("OPTIONS", &["1"], Some(true), Some("0")),
            ("OPTIONS", &["010"], Some(true), Some("9")),
            ("OPTIONS", &["99999999999999999999999"], Some(true), Some("18446744073709551615")),
            ("OPTIONS", &["-1"], None, Some("-1")),
            ("OPTIONS", &[""], None, Some("")),
            ("OPTIONS", &["1", "1"], None, Some("1")),
            ("GET", &["0"], Some(true), Some("0")),
            ("TRACE", &["x"], Some(true), Some("x")),
        ];
        for (method, given, want, left) in cases {
            let mut headers: HeaderMap =
                given.iter().map(|value| (MAX_FORWARDS, value.parse().unwrap())).collect();
            let method = Method::from_bytes(method.as_bytes()).unwrap();
            assert_eq!(take_hop(&method, &mut headers), want, "{method} {given:?}");
            assert_eq!(
                headers.get(MAX_FORWARDS).map(|value| value.to_str().unwrap()),
                left,
                "{method} {given:?}"
            );
        }
    }
}
