//! What HTTP/2 can say and HTTP/1.1 cannot: each reaches an upstream of HTTP/1.1 as one well-formed request or not at
//! all. The header blocks are written by hand, as no library would write them.
#![cfg(feature = "demo")]

use std::fmt::Write as _;

use crate::support::frames::{CONTINUATION, DATA, END_HEADERS, END_STREAM, HEADERS, fields, frame, outcome};
use crate::support::recorder::Recorder;
use crate::support::running::{open_route, sidekey};

type Field<'a> = (&'a [u8], &'a [u8]);

/// A request that is well, to be spoiled in one place.
const WELL: [Field<'static>; 4] =
    [(b":method", b"GET"), (b":scheme", b"http"), (b":authority", b"localhost"), (b":path", b"/x")];

/// The good request with more fields.
fn with<'a>(more: &[Field<'a>]) -> Vec<Field<'a>> {
    WELL.iter().chain(more).copied().collect()
}

/// The good request with another value of this field.
fn but<'a>(name: &'a str, value: &'a [u8]) -> Vec<Field<'a>> {
    let all = WELL.into_iter();
    all.map(|field| if field.0 == name.as_bytes() { (name.as_bytes(), value) } else { field }).collect()
}

fn without(name: &str) -> Vec<Field<'static>> {
    WELL.into_iter().filter(|field| field.0 != name.as_bytes()).collect()
}

/// A POST of three bytes with more fields.
fn post<'a>(more: &[Field<'a>]) -> Vec<Field<'a>> {
    but(":method", b"POST").into_iter().chain(more.iter().copied()).collect()
}

/// A request's frames: its header alone, or its header and pieces of a body.
fn frames(header: &[Field<'_>], body: &[&[u8]]) -> Vec<Vec<u8>> {
    let ends = if body.is_empty() { END_STREAM } else { 0 };
    let mut frames = vec![frame(HEADERS, END_HEADERS | ends, 1, &fields(header))];
    for (number, piece) in body.iter().enumerate() {
        let ends = if number + 1 == body.len() { END_STREAM } else { 0 };
        frames.push(frame(DATA, ends, 1, piece));
    }
    frames
}

/// Sends each, and holds what came of it and what the upstream got to what is said here.
async fn hold(cases: &[(&str, Vec<Vec<u8>>, &str, &str)]) {
    let upstream = Recorder::start().await;
    let running = sidekey(&open_route(upstream.addr, "replay_body = 0"));
    let mut wrong = String::new();
    for (name, frames, comes, reaches) in cases {
        let came = outcome(running.addr, frames).await;
        // Whatever was sent before it has arrived when its answer has.
        let marker = outcome(running.addr, &[frame(HEADERS, 5, 1, &fields(&but(":path", b"/marker")))]).await;
        let host = format!("host: {}\r\n", upstream.addr);
        let reached = upstream.take().replace(&host, "host: U\r\n");
        let end = "GET /marker HTTP/1.1\r\nhost: U\r\nvia: 2.0 sidekey\r\n\r\n";
        let got = reached.strip_suffix(end).unwrap_or_else(|| panic!("{name}: {reached:?}"));
        assert_eq!(marker, "200", "{name}");
        if (came.as_str(), got) != (*comes, *reaches) {
            let _ = writeln!(wrong, "{name}: {came} {got:?}\n  want {comes} {reaches:?}");
        }
    }
    assert!(wrong.is_empty(), "\n{wrong}");
}

/// What the good request is to the upstream.
const ONE: &str = "GET /x HTTP/1.1\r\nhost: U\r\nvia: 2.0 sidekey\r\n\r\n";

#[tokio::test]
async fn a_field_that_could_end_its_line_ends_its_request() {
    let values: [(&str, &[u8], &str, &str); 9] = [
        ("CR LF", b"a\r\nevil: 1", "ends", ""),
        ("LF", b"a\nevil: 1", "ends", ""),
        ("CR", b"a\revil: 1", "ends", ""),
        ("NUL", b"a\0b", "ends", ""),
        ("DEL", b"a\x7fb", "ends", ""),
        ("a whole request", b"a\r\n\r\nGET /y HTTP/1.1\r\nHost: localhost\r\n\r\n", "ends", ""),
        ("tab", b"a\tb", "200", "GET /x HTTP/1.1\r\nx-a: a\tb\r\nhost: U\r\nvia: 2.0 sidekey\r\n\r\n"),
        (
            "high bytes",
            b"\xe9\xff",
            "200",
            "GET /x HTTP/1.1\r\nx-a: \u{e9}\u{ff}\r\nhost: U\r\nvia: 2.0 sidekey\r\n\r\n",
        ),
        ("nothing", b"", "200", "GET /x HTTP/1.1\r\nx-a: \r\nhost: U\r\nvia: 2.0 sidekey\r\n\r\n"),
    ];
    let names: [(&str, &[u8]); 9] = [
        ("CR LF in a name", b"x-a\r\nevil"),
        ("LF after a name", b"x-a\n"),
        ("NUL in a name", b"x\0a"),
        ("upper case", b"X-A"),
        ("a space in a name", b"x a"),
        ("a space after a name", b"content-length "),
        ("no name", b""),
        ("a colon in a name", b"x:a"),
        ("a high byte in a name", b"x\xff"),
    ];
    let mut cases = Vec::new();
    for (name, value, comes, reaches) in values {
        cases.push((name, frames(&with(&[(b"x-a", value)]), &[]), comes, reaches));
    }
    for (name, field) in names {
        cases.push((name, frames(&with(&[(field, b"1")]), &[]), "ends", ""));
    }
    hold(&cases).await;
}

#[tokio::test]
async fn a_pseudo_header_that_is_no_part_of_a_request_line_ends_its_request() {
    let spoiled: [(&str, &str, &[u8], &str, &str); 30] = [
        ("path: CR LF", ":path", b"/x HTTP/1.1\r\nevil: 1", "ends", ""),
        ("path: LF", ":path", b"/x\nevil: 1", "ends", ""),
        ("path: NUL", ":path", b"/x\0", "ends", ""),
        ("path: space", ":path", b"/x HTTP/1.1", "ends", ""),
        ("path: query with CR LF", ":path", b"/x?a=\r\nb", "ends", ""),
        ("path: empty", ":path", b"", "ends", ""),
        ("path: asterisk", ":path", b"*", "400", ""),
        ("path: no slash", ":path", b"x", "ends", ""),
        ("path: absolute", ":path", b"http://evil.example/x", "ends", ""),
        (
            "path: two slashes",
            ":path",
            b"//evil.example/x",
            "200",
            "GET //evil.example/x HTTP/1.1\r\nhost: U\r\nvia: 2.0 sidekey\r\n\r\n",
        ),
        ("path: fragment", ":path", b"/x#y", "200", ONE),
        (
            "path: query alone",
            ":path",
            b"?a=1",
            "200",
            "GET /?a=1 HTTP/1.1\r\nhost: U\r\nvia: 2.0 sidekey\r\n\r\n",
        ),
        (
            "path: byte for byte",
            ":path",
            b"/x/%61%01%c3?a=%0d%0A&b=%2e[]'",
            "200",
            "GET /x/%61%01%c3?a=%0d%0A&b=%2e[]' HTTP/1.1\r\nhost: U\r\nvia: 2.0 sidekey\r\n\r\n",
        ),
        ("authority: CR LF", ":authority", b"localhost\r\nevil: 1", "ends", ""),
        ("authority: another", ":authority", b"evil.example", "403", ""),
        ("authority: user", ":authority", b"user@localhost", "400", ""),
        ("authority: port", ":authority", b"localhost:99999", "400", ""),
        ("authority: path", ":authority", b"localhost/evil", "ends", ""),
        ("authority: empty", ":authority", b"", "ends", ""),
        ("authority: NUL", ":authority", b"localhost\0", "ends", ""),
        ("method: CR LF", ":method", b"GET / HTTP/1.1\r\nevil: 1\r\n\r\nGET", "ends", ""),
        ("method: space", ":method", b"GE T", "ends", ""),
        ("method: NUL", ":method", b"GET\0", "ends", ""),
        ("method: empty", ":method", b"", "ends", ""),
        (
            "method: lower case",
            ":method",
            b"get",
            "200",
            "get /x HTTP/1.1\r\nhost: U\r\nvia: 2.0 sidekey\r\n\r\n",
        ),
        ("method: TRACE", ":method", b"TRACE", "405", ""),
        ("scheme: CR LF", ":scheme", b"http\r\nevil: 1", "ends", ""),
        ("scheme: space", ":scheme", b"ht tp", "ends", ""),
        ("scheme: another", ":scheme", b"https", "200", ONE),
        ("scheme: NUL", ":scheme", b"http\0", "ends", ""),
    ];
    let mut cases = Vec::new();
    for (name, field, value, comes, reaches) in spoiled {
        cases.push((name, frames(&but(field, value), &[]), comes, reaches));
    }
    let wrong: [(&str, Vec<Field<'_>>, &str); 13] = [
        ("no path", without(":path"), "ends"),
        ("no method", without(":method"), "ends"),
        ("no scheme", without(":scheme"), "ends"),
        ("no authority and no host", without(":authority"), "400"),
        ("two paths", with(&[(b":path", b"/y")]), "ends"),
        ("two methods", with(&[(b":method", b"POST")]), "ends"),
        ("two authorities", with(&[(b":authority", b"evil.example")]), "ends"),
        ("a path after a field", [&[(b"x-a".as_slice(), b"1".as_slice())], &WELL[..]].concat(), "ends"),
        ("an unknown one", with(&[(b":evil", b"1")]), "ends"),
        ("one of an answer", with(&[(b":status", b"200")]), "ends"),
        ("another host", with(&[(b"host", b"evil.example")]), "400"),
        ("two hosts", with(&[(b"host", b"localhost"), (b"host", b"localhost")]), "400"),
        ("another host of ours", with(&[(b"host", b"127.0.0.1")]), "400"),
    ];
    for (name, header, comes) in wrong {
        cases.push((name, frames(&header, &[]), comes, ""));
    }
    let host = without(":authority").into_iter().chain([(b"host".as_slice(), b"localhost".as_slice())]);
    cases.push(("host alone", frames(&host.collect::<Vec<_>>(), &[]), "200", ONE));
    cases.push(("the same host", frames(&with(&[(b"host", b"localhost")]), &[]), "200", ONE));
    hold(&cases).await;
}

#[tokio::test]
async fn what_frames_a_message_of_http_1_1_does_not_come_from_http_2() {
    let connection: [(&str, Field<'_>, &str, &str); 8] = [
        ("connection", (b"connection", b"x-a"), "ends", ""),
        ("transfer-encoding", (b"transfer-encoding", b"chunked"), "ends", ""),
        ("upgrade", (b"upgrade", b"websocket"), "ends", ""),
        ("keep-alive", (b"keep-alive", b"timeout=5"), "ends", ""),
        ("proxy-connection", (b"proxy-connection", b"close"), "ends", ""),
        ("te: gzip", (b"te", b"gzip"), "ends", ""),
        ("te: trailers and more", (b"te", b"trailers, gzip"), "ends", ""),
        (
            "te: trailers",
            (b"te", b"trailers"),
            "200",
            "GET /x HTTP/1.1\r\nhost: U\r\nte: trailers\r\nvia: 2.0 sidekey\r\nconnection: te\r\n\r\n",
        ),
    ];
    let mut cases = Vec::new();
    for (name, field, comes, reaches) in connection {
        cases.push((name, frames(&with(&[field]), &[]), comes, reaches));
    }
    let known = "POST /x HTTP/1.1\r\ncontent-length: 3\r\nhost: U\r\nvia: 2.0 sidekey\r\n\r\nabc";
    let length = |value: &'static [u8]| post(&[(b"content-length", value)]);
    type Posted<'a> = (&'a str, Vec<Field<'a>>, &'a [&'a [u8]], &'a str, &'a str);
    let bodies: [Posted<'_>; 12] = [
        ("as long as it says", length(b"3"), &[b"abc"], "200", known),
        ("in pieces", length(b"3"), &[b"a", b"", b"bc"], "200", known),
        ("longer", length(b"2"), &[b"abc"], "ends", ""),
        ("shorter", length(b"4"), &[b"abc"], "ends", ""),
        ("a length and no body", length(b"3"), &[], "ends", ""),
        ("with a sign", length(b"+3"), &[b"abc"], "ends", ""),
        ("negative", length(b"-3"), &[b"abc"], "ends", ""),
        ("hexadecimal", length(b"0x3"), &[b"abc"], "ends", ""),
        ("a list", length(b"3, 3"), &[b"abc"], "ends", ""),
        ("too large a number", length(b"99999999999999999999"), &[b"abc"], "ends", ""),
        ("two lengths", post(&[(b"content-length", b"3"), (b"content-length", b"4")]), &[b"abc"], "ends", ""),
        (
            "unknown",
            post(&[]),
            &[b"abc"],
            "200",
            "POST /x HTTP/1.1\r\nhost: U\r\nvia: 2.0 sidekey\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        ),
    ];
    for (name, header, body, comes, reaches) in bodies {
        cases.push((name, frames(&header, body), comes, reaches));
    }
    hold(&cases).await;
}

#[tokio::test]
async fn trailers_say_nothing_that_headers_may_not() {
    let trailed = |header: &[Field<'_>], trailers: &[Field<'_>]| {
        let mut all = frames(header, &[b"abc", b""]);
        *all.last_mut().unwrap() = frame(HEADERS, END_HEADERS | END_STREAM, 1, &fields(trailers));
        all
    };
    let announced = post(&[(b"trailer", b"x-sum, authorization, content-length, host")]);
    let head = "POST /x HTTP/1.1\r\ntrailer: x-sum, authorization, content-length, host\r\nhost: U\r\n\
                via: 2.0 sidekey\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n";
    let sum = format!("{head}x-sum: 1\r\n\r\n");
    let wrong: [(&str, Field<'_>); 5] = [
        ("CR LF", (b"x-sum", b"1\r\nevil: 1")),
        ("upper case", (b"X-Sum", b"1")),
        ("connection", (b"connection", b"close")),
        ("transfer-encoding", (b"transfer-encoding", b"chunked")),
        ("a name with CR LF", (b"x\r\ny", b"1")),
    ];
    let none = format!("{head}\r\n");
    let mut cases = vec![
        // Against RFC 9113 §8.1, but nothing comes of it.
        ("a pseudo-header", trailed(&announced, &[(b":path", b"/y")]), "200", none.as_str()),
        ("what may pass", trailed(&announced, &[(b"x-sum", b"1")]), "200", sum.as_str()),
        (
            "what may not",
            trailed(
                &announced,
                &[
                    (b"authorization", b"Bearer mine"),
                    (b"content-length", b"9"),
                    (b"host", b"evil"),
                    (b"x-sum", b"1"),
                ],
            ),
            "200",
            sum.as_str(),
        ),
    ];
    for (name, field) in wrong {
        cases.push((name, trailed(&announced, &[field]), "ends", ""));
    }
    hold(&cases).await;
}

#[tokio::test]
async fn a_header_in_many_pieces_is_one_header() {
    let block = fields(&with(&[(b"x-a", b"1")]));
    let mut pieces = vec![frame(HEADERS, END_STREAM, 1, &block[..5])];
    let chunks: Vec<_> = block[5..].chunks(block.len() / 3).collect();
    for (number, chunk) in chunks.iter().enumerate() {
        let ends = if number + 1 == chunks.len() { END_HEADERS } else { 0 };
        pieces.push(frame(CONTINUATION, ends, 1, chunk));
    }
    let reaches = "GET /x HTTP/1.1\r\nx-a: 1\r\nhost: U\r\nvia: 2.0 sidekey\r\n\r\n";
    hold(&[("in pieces", pieces, "200", reaches)]).await;
}
