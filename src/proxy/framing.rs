//! Is a message framed in one way only? Pure.

use http::header::{CONTENT_LENGTH, HeaderMap, HeaderValue, TRANSFER_ENCODING};

/// Is the body framed in a way that can be framed anew? Any coding but `chunked` would be lost on the way, as it
/// stands in a field that does not pass (RFC 9112 §6.1).
pub(super) fn has_plain_framing(headers: &HeaderMap) -> bool {
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    codings.next().is_none_or(|only| only.as_bytes().trim_ascii().eq_ignore_ascii_case(b"chunked"))
        && codings.next().is_none()
}

/// Do all lengths, in one line or several, say the same? Where a body is none, nobody else asks (RFC 9112 §6.3).
pub(super) fn has_one_length(headers: &HeaderMap) -> bool {
    let mut lengths = headers
        .get_all(CONTENT_LENGTH)
        .iter()
        .flat_map(|line| line.as_bytes().split(|byte| *byte == b','))
        .map(<[u8]>::trim_ascii);
    let Some(first) = lengths.next() else { return true };
    !first.is_empty() && first.iter().all(u8::is_ascii_digit) && lengths.all(|other| other == first)
}

/// Of a length that is said more than once, one is left (RFC 9110 §8.6).
pub(super) fn merge_lengths(headers: &mut HeaderMap) {
    let mut lines = headers.get_all(CONTENT_LENGTH).iter();
    let Some(first) = lines.next() else { return };
    let first = first.as_bytes();
    if lines.next().is_some() || first.contains(&b',') {
        let one = first.split(|byte| *byte == b',').next().unwrap_or_default().trim_ascii();
        if let Ok(one) = HeaderValue::from_bytes(one) {
            headers.insert(CONTENT_LENGTH, one);
        }
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderName;

    use super::*;

    fn lines(name: &HeaderName, values: &[&str]) -> HeaderMap {
        values.iter().map(|value| (name.clone(), value.parse().unwrap())).collect()
    }

    #[test]
    fn only_chunked_alone_is_a_plain_framing() {
        let plain = |codings: &[&str]| has_plain_framing(&lines(&TRANSFER_ENCODING, codings));
        assert!(plain(&[]) && plain(&["chunked"]) && plain(&["Chunked "]));
        for lossy in
            [&["gzip, chunked"][..], &["gzip", "chunked"], &["chunked", "chunked"], &["identity"], &[""]]
        {
            assert!(!plain(lossy), "{lossy:?}");
        }
    }

    #[test]
    fn lengths_that_say_the_same_become_one_and_others_are_none() {
        for (values, one) in
            [(&[][..], None), (&["5"], Some("5")), (&["5", "5"], Some("5")), (&["5, 5", "5"], Some("5"))]
        {
            let mut headers = lines(&CONTENT_LENGTH, values);
            assert!(has_one_length(&headers), "{values:?}");
            merge_lengths(&mut headers);
            let left: Vec<_> = headers.get_all(CONTENT_LENGTH).iter().collect();
            assert_eq!(left, one.into_iter().collect::<Vec<_>>(), "{values:?}");
        }
        for values in [&["5", "6"][..], &["5,6"], &["+5"], &[""], &["5,"], &["5", "05"], &["0x5"], &["5 5"]] {
            assert!(!has_one_length(&lines(&CONTENT_LENGTH, values)), "{values:?}");
        }
    }
}
