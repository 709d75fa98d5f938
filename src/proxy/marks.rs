//! By what a request is found again in other logs than ours: its request id and its trace. Nothing is decided by them, as
//! callers may say what they like. Pure, but for the ids that are made.

use http::header::{HeaderMap, HeaderName, HeaderValue};

/// The request's name, by a convention that nobody has written down.
pub(super) static REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
static TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// The longest request id that is taken from a caller, in bytes.
const MAX_ID: usize = 128;

/// What a request is marked with.
#[derive(Debug, Default)]
pub(crate) struct Marks {
    /// The caller's, if it is fit for a log, or one that was made.
    id: Option<HeaderValue>,
    /// As it came.
    traceparent: Option<HeaderValue>,
}

impl Marks {
    /// Those that its header has.
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        Self {
            id: only(headers, &REQUEST_ID).filter(|id| is_plain(id.as_bytes())).cloned(),
            traceparent: only(headers, &TRACEPARENT).cloned(),
        }
    }

    /// The request id; whether it was made now.
    pub(crate) fn id(&mut self) -> (HeaderValue, bool) {
        match &self.id {
            Some(id) => (id.clone(), false),
            None => (self.id.insert(made()).clone(), true),
        }
    }

    /// The request id, if there is one already.
    pub(crate) fn known_id(&self) -> Option<HeaderValue> {
        self.id.clone()
    }

    /// The trace that it belongs to, if the caller says so well.
    pub(crate) fn trace(&self) -> Option<TraceId> {
        TraceId::of(self.traceparent.as_ref()?.as_bytes())
    }
}

/// The field's value, if there is exactly one.
fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a HeaderValue> {
    let first = headers.get(name)?;
    // Several are rare, and to count them is dear.
    (headers.get_all(name).iter().nth(1).is_none()).then_some(first)
}

/// Can it stand in a log, an address or a form without being mistaken for anything else?
fn is_plain(id: &[u8]) -> bool {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.~:/+=@".contains(byte);
    (1..=MAX_ID).contains(&id.len()) && id.iter().all(plain)
}

/// Told from others by its prefix: whoever reports it to a provider is told that it is none of theirs.
fn made() -> HeaderValue {
    let id = format!("sidekey-{:016x}", fastrand::u64(..));
    HeaderValue::try_from(id).unwrap_or(HeaderValue::from_static("sidekey"))
}

/// The id of a trace: 32 digits (W3C Trace Context §3.2.2.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TraceId([u8; 32]);

impl TraceId {
    /// That of a `traceparent`: `VERSION-TRACE-PARENT-FLAGS`, to which later versions may add (§3.2.4).
    fn of(traceparent: &[u8]) -> Option<Self> {
        let dashes = [2, 35, 52].iter().all(|at| traceparent.get(*at) == Some(&b'-'));
        let (version, rest) = (traceparent.get(..2)?, traceparent.get(55..)?);
        let is_whole = rest.is_empty() || (version != b"00" && rest[0] == b'-');
        let digits = |range: std::ops::Range<usize>| {
            let part = &traceparent[range];
            part.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')).then_some(part)
        };
        let says = |part: &&[u8]| part.iter().any(|byte| *byte != b'0');
        let trace = digits(3..35).filter(says)?;
        digits(36..52).filter(says)?;
        digits(53..55)?;
        digits(0..2).filter(|version| *version != b"ff")?;
        if !dashes || !is_whole {
            return None;
        }
        trace.try_into().ok().map(Self)
    }

    pub(crate) fn as_str(&self) -> &str {
        // Digits, as was seen when it was made.
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(fields: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        headers
    }

    #[test]
    fn a_request_id_is_the_callers_if_it_is_fit_for_a_log_and_stays_the_same() {
        for id in [
            "a",
            "5f3a9c21-0b1c-4c57-9d5e-2f1f6f8f0d11",
            "Root=1-67891233-abcdef012345678912345678",
            &"x".repeat(128),
        ] {
            let mut marks = Marks::of(&headers(&[("x-request-id", id)]));
            assert_eq!(marks.known_id().unwrap(), id);
            assert_eq!(marks.id(), (HeaderValue::from_str(id).unwrap(), false));
        }
        for id in ["", " ", "a b", "a\"b", "a,b", "a;b", "<a>", "ü", "a\tb", "{a}", "a\\", &"x".repeat(129)]
        {
            let mut marks = Marks::of(&headers(&[("x-request-id", id)]));
            assert_eq!(marks.known_id(), None, "{id}");
            let (made, is_new) = marks.id();
            assert!(is_new && made.to_str().unwrap().starts_with("sidekey-") && made.len() == 24, "{made:?}");
            assert_eq!(marks.id(), (made, false));
        }
        let twice = Marks::of(&headers(&[("x-request-id", "a"), ("x-request-id", "a")]));
        assert_eq!(twice.known_id(), None);
        assert_ne!(Marks::default().id().0, Marks::default().id().0);
    }

    #[test]
    fn a_trace_is_known_by_a_traceparent_that_is_well_formed() {
        let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
        for (traceparent, is_known) in [
            (format!("00-{trace}-00f067aa0ba902b7-01"), true),
            (format!("00-{trace}-00f067aa0ba902b7-00"), true),
            (format!("cc-{trace}-00f067aa0ba902b7-01"), true),
            (format!("cc-{trace}-00f067aa0ba902b7-01-more"), true),
            (format!("cc-{trace}-00f067aa0ba902b7-01more"), false),
            (format!("00-{trace}-00f067aa0ba902b7-01-more"), false),
            (format!("ff-{trace}-00f067aa0ba902b7-01"), false),
            (format!("0g-{trace}-00f067aa0ba902b7-01"), false),
            (format!("00-{}-00f067aa0ba902b7-01", "0".repeat(32)), false),
            (format!("00-{trace}-{}-01", "0".repeat(16)), false),
            (format!("00-{}-00f067aa0ba902b7-01", trace.to_uppercase()), false),
            (format!("00-{trace}-00f067aa0ba902b7-0G"), false),
            (format!("00-{trace}-00f067aa0ba902b7"), false),
            (format!("00_{trace}-00f067aa0ba902b7-01"), false),
            (format!("00-{trace}x00f067aa0ba902b7-01"), false),
            ("00".to_owned(), false),
            (String::new(), false),
        ] {
            let marks = Marks::of(&headers(&[("traceparent", &traceparent)]));
            let found = marks.trace();
            assert_eq!(found.as_ref().map(TraceId::as_str), is_known.then_some(trace), "{traceparent}");
        }
        let one = format!("00-{trace}-00f067aa0ba902b7-01");
        let twice = Marks::of(&headers(&[("traceparent", &one), ("traceparent", &one)]));
        assert_eq!(twice.trace(), None);
    }
}
