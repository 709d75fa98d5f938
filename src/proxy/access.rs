//! What the access log says of an exchange, as a line of JSON; pure.

use std::fmt;
use std::time::{Duration, SystemTime};

use serde::{Serialize, Serializer};

/// The most that is told of a path, in bytes.
const MAX_PATH: usize = 2048;
/// The most that is told of a method: those that there are have at most 17.
const MAX_METHOD: usize = 32;

/// One exchange. The names of its fields are what readers rely on. There is no field for a query, a header or a body.
#[derive(Debug, Serialize)]
pub(crate) struct Line<'a> {
    /// When the request's header was whole: RFC 3339, UTC, milliseconds.
    #[serde(serialize_with = "time")]
    pub(crate) time: SystemTime,
    pub(crate) caller: Option<&'a str>,
    /// The other end of the connection: `ADDRESS:PORT`, or `uid:UID` of a Unix socket.
    pub(crate) peer: Option<Peer>,
    /// The caller's, or the one that sidekey made.
    pub(crate) request_id: Option<&'a str>,
    /// Of the caller's `traceparent`.
    pub(crate) trace_id: Option<&'a str>,
    pub(crate) route: Option<&'a str>,
    pub(crate) account: Option<&'a str>,
    #[serde(serialize_with = "method")]
    pub(crate) method: &'a str,
    /// As it came.
    #[serde(serialize_with = "path")]
    pub(crate) path: &'a str,
    /// None: there was no answer.
    pub(crate) status: Option<u16>,
    /// `Sidekey-Error`, of an answer of sidekey's own.
    pub(crate) code: Option<&'a str>,
    #[serde(rename = "duration_ms", serialize_with = "millis")]
    pub(crate) duration: Duration,
    /// From the first byte to the upstream to the header of its answer.
    #[serde(rename = "upstream_ms", serialize_with = "some_millis")]
    pub(crate) upstream: Option<Duration>,
    /// Of bodies.
    pub(crate) bytes_in: u64,
    pub(crate) bytes_out: u64,
    pub(crate) protocol: &'static str,
    pub(crate) ended: Ended,
}

/// How an exchange ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Ended {
    /// All of the answer was passed on.
    Complete,
    /// The caller went away, or stopped sending or taking.
    CallerGone,
    /// The upstream's answer broke off.
    UpstreamCut,
    /// sidekey was stopped and waited no longer.
    Stopped,
}

/// The other end of a caller's connection, as far as it can be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Peer {
    Tcp(std::net::SocketAddr),
    /// The user whose process it is.
    Unix(u32),
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(uid) => write!(f, "uid:{uid}"),
        }
    }
}

impl Serialize for Peer {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A text, cut to so many bytes; an ellipsis stands for the rest.
pub(crate) struct Cut<'a>(pub(crate) &'a str, pub(crate) usize);

impl fmt::Display for Cut<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(text, most) = *self;
        if text.len() <= most {
            return f.write_str(text);
        }
        let end = (0..=most).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
        write!(f, "{}…", &text[..end])
    }
}

impl Line<'_> {
    /// Writes it, without an end of line.
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        let start = out.len();
        // Nothing in it can fail to be JSON, and a vector takes everything.
        if serde_json::to_writer(&mut *out, self).is_err() {
            out.truncate(start);
        }
    }
}

fn time<S: Serializer>(time: &SystemTime, serializer: S) -> Result<S::Ok, S::Error> {
    let time = jiff::Timestamp::try_from(*time).unwrap_or_default();
    serializer.collect_str(&format_args!("{time:.3}"))
}

fn method<S: Serializer>(method: &str, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&Cut(method, MAX_METHOD))
}

fn path<S: Serializer>(path: &str, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&Cut(path, MAX_PATH))
}

/// To the microsecond.
#[allow(clippy::cast_precision_loss)] // not below 285 years
fn millis<S: Serializer>(span: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(span.as_micros() as f64 / 1000.0)
}

fn some_millis<S: Serializer>(span: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
    match span {
        Some(span) => millis(span, serializer),
        None => serializer.serialize_none(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line<'a>(path: &'a str, method: &'a str) -> Line<'a> {
        Line {
            time: SystemTime::UNIX_EPOCH + Duration::from_millis(1_780_000_000_007),
            caller: Some("ci"),
            peer: Some(Peer::Unix(1000)),
            request_id: Some("r-1"),
            trace_id: Some("4bf92f3577b34da6a3ce929d0e0e4736"),
            route: Some("aura"),
            account: Some("al\"ice"),
            method,
            path,
            status: Some(200),
            code: None,
            duration: Duration::from_micros(12_345),
            upstream: Some(Duration::from_millis(9)),
            bytes_in: 0,
            bytes_out: 5,
            protocol: "HTTP/1.1",
            ended: Ended::Complete,
        }
    }

    fn written(line: &Line<'_>) -> String {
        let mut out = b"before\n".to_vec();
        line.write(&mut out);
        String::from_utf8(out).unwrap().strip_prefix("before\n").unwrap().to_owned()
    }

    #[test]
    fn a_line_has_these_fields_in_this_order() {
        assert_eq!(
            written(&line("/v1/a", "GET")),
            r#"{"time":"2026-05-28T20:26:40.007Z","caller":"ci","peer":"uid:1000","request_id":"r-1","trace_id":"4bf92f3577b34da6a3ce929d0e0e4736","route":"aura","account":"al\"ice","method":"GET","path":"/v1/a","status":200,"code":null,"duration_ms":12.345,"upstream_ms":9.0,"bytes_in":0,"bytes_out":5,"protocol":"HTTP/1.1","ended":"complete"}"#
        );
        let nothing = Line {
            caller: None,
            peer: Some(Peer::Tcp("127.0.0.1:5".parse().unwrap())),
            request_id: None,
            trace_id: None,
            route: None,
            account: None,
            status: None,
            code: Some("no_route"),
            upstream: None,
            ended: Ended::CallerGone,
            ..line("", "X")
        };
        assert_eq!(
            written(&nothing),
            r#"{"time":"2026-05-28T20:26:40.007Z","caller":null,"peer":"127.0.0.1:5","request_id":null,"trace_id":null,"route":null,"account":null,"method":"X","path":"","status":null,"code":"no_route","duration_ms":12.345,"upstream_ms":null,"bytes_in":0,"bytes_out":5,"protocol":"HTTP/1.1","ended":"caller_gone"}"#
        );
    }

    #[test]
    fn whatever_stands_in_a_path_is_one_line_of_json_and_reads_as_it_came() {
        for path in ["/a\"b\\c", "/\u{0}\u{1b}[31m\n\r\t\u{7f}", "/ü\u{2028}🦀", "/%00%0a", "/a?b#c"] {
            let text = written(&line(path, "GET"));
            assert!(!text.bytes().any(|byte| byte.is_ascii_control() && byte != 0x7f), "{text:?}");
            let value: serde_json::Value = serde_json::from_str(&text).unwrap();
            assert_eq!(value["path"], path);
        }
    }

    #[test]
    fn what_is_too_long_is_cut_between_characters() {
        let cases = [("abc", 3, "abc"), ("abcd", 3, "abc…"), ("aüü", 4, "aü…"), ("🦀", 3, "…"), ("", 0, "")];
        for (text, most, want) in cases {
            assert_eq!(Cut(text, most).to_string(), want);
        }
        let (path, method) = ("/\"".repeat(20_000), "M".repeat(4000));
        let text = written(&line(&path, &method));
        assert!(text.len() < 4 * MAX_PATH, "{}", text.len());
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["path"].as_str().unwrap().len(), MAX_PATH + '…'.len_utf8());
        assert_eq!(value["method"].as_str().unwrap().len(), MAX_METHOD + '…'.len_utf8());
    }
}
