//! Every spelling of a host and of an origin that the guard has to tell apart, over HTTP/1.1 and HTTP/2, each written by
//! hand: what is refused never arrives at the upstream.
#![cfg(feature = "demo")]

use std::fmt::Write as _;
use std::net::SocketAddr;

use crate::support::frames::{END_HEADERS, END_STREAM, HEADERS, fields, frame, outcome};
use crate::support::raw_to_end;
use crate::support::recorder::Recorder;
use crate::support::running::{Running, open_route, sidekey};

const OURS: &str = "200";
const FORBIDDEN: &str = "403";
/// Malformed: 400, or, over HTTP/2, an end of the stream.
const MALFORMED: &str = "400";

const HOSTS: [(&str, &str); 55] = [
    ("localhost", OURS),
    ("localhost:7600", OURS),
    ("localhost:1", OURS),
    ("localhost:0", OURS),
    ("localhost:65535", OURS),
    ("LOCALHOST", OURS),
    ("LocalHost:80", OURS),
    ("localhost.", OURS),
    ("LOCALHOST.:443", OURS),
    ("127.0.0.1", OURS),
    ("127.0.0.1.", OURS),
    ("127.0.0.1:7600", OURS),
    ("127.255.255.254", OURS),
    ("[::1]", OURS),
    ("[::1]:7600", OURS),
    ("[0:0:0:0:0:0:0:1]", OURS),
    ("named.example", OURS),
    ("Named.Example.:80", OURS),
    ("evil.example", FORBIDDEN),
    ("evil.example:7600", FORBIDDEN),
    ("localhost.evil.example", FORBIDDEN),
    ("127.0.0.1.nip.io", FORBIDDEN),
    ("evil.localhost", FORBIDDEN),
    ("x.named.example", FORBIDDEN),
    ("xn--lclhost-90a5d", FORBIDDEN),
    ("localhost..", FORBIDDEN),
    (".localhost", FORBIDDEN),
    ("127.1", FORBIDDEN),
    ("127.0.0.1..", FORBIDDEN),
    ("127.0.0.01", FORBIDDEN),
    ("0x7f000001", FORBIDDEN),
    ("2130706433", FORBIDDEN),
    ("0177.0.0.1", FORBIDDEN),
    ("0.0.0.0", FORBIDDEN),
    ("169.254.169.254", FORBIDDEN),
    ("[::]", FORBIDDEN),
    ("[::ffff:127.0.0.1]", FORBIDDEN),
    ("[::ffff:7f00:1]", FORBIDDEN),
    ("[fe80::1]", FORBIDDEN),
    ("localhost:", MALFORMED),
    ("localhost:00", MALFORMED),
    ("localhost:00080", MALFORMED),
    ("localhost:65536", MALFORMED),
    ("localhost:80x", MALFORMED),
    ("localhost:80:80", MALFORMED),
    ("user@localhost", MALFORMED),
    ("user:password@localhost:80", MALFORMED),
    ("localhost@evil.example", MALFORMED),
    ("local%68ost", MALFORMED),
    ("localh\u{f6}st", MALFORMED),
    ("localhost\\evil", MALFORMED),
    ("[::1", MALFORMED),
    ("::1", MALFORMED),
    ("[::1%25lo]", MALFORMED),
    ("[127.0.0.1]", MALFORMED),
];

/// What the target names, what Host does.
const PAIRS: [(&str, &str, &str); 12] = [
    ("localhost", "localhost", OURS),
    ("LOCALHOST:7600", "localhost:7600", OURS),
    ("evil.example", "evil.example", FORBIDDEN),
    ("localhost", "evil.example", MALFORMED),
    ("evil.example", "localhost", MALFORMED),
    ("localhost", "localhost:80", MALFORMED),
    ("localhost:7600", "localhost", MALFORMED),
    ("localhost", "127.0.0.1", MALFORMED),
    ("localhost", "localhost.", MALFORMED),
    ("user@localhost", "localhost", MALFORMED),
    ("user@localhost", "user@localhost", MALFORMED),
    ("localhost", "", MALFORMED),
];

const APP: &str = "https://app.example.com";
/// The values of one header's lines.
type Values = &'static [&'static str];
/// What `Origin`, `Sec-Fetch-Site` and `Referer` say; may it call a route that is open to [`APP`] and to
/// `http://localhost:3000`? It may call none that is open to nobody, but for what is no page's.
const ORIGINS: [(Values, Values, Values, bool); 46] = [
    (&[], &[], &[], true),
    (&[], &["none"], &[], true),
    (&[], &["same-origin"], &[], true),
    (&[], &[], &["https://evil.example/"], true),
    (&[APP], &[], &[], true),
    (&[APP], &["cross-site"], &[], true),
    (&[APP], &["same-site"], &["https://evil.example/"], true),
    (&["http://localhost:3000"], &["same-site"], &[], true),
    (&[], &["cross-site"], &["https://app.example.com/"], true),
    (&[], &["same-site"], &["http://localhost:3000/a?b#c"], true),
    (&["null"], &[], &[], false),
    (&["null"], &["cross-site"], &["https://app.example.com/"], false),
    (&[""], &[], &[], false),
    (&["https://evil.example"], &[], &[], false),
    (&["https://evil.example"], &["same-origin"], &["https://app.example.com/"], false),
    (&["https://app.example.com/"], &[], &[], false),
    (&["https://app.example.com/x"], &[], &[], false),
    (&["https://app.example.com?x"], &[], &[], false),
    (&["https://app.example.com:443"], &[], &[], false),
    (&["https://app.example.com:8443"], &[], &[], false),
    (&["https://app.example.com."], &[], &[], false),
    (&["https://APP.example.com"], &[], &[], false),
    (&["HTTPS://app.example.com"], &[], &[], false),
    (&["http://app.example.com"], &[], &[], false),
    (&["wss://app.example.com"], &[], &[], false),
    (&["https://x.app.example.com"], &[], &[], false),
    (&["https://app.example.com.evil.example"], &[], &[], false),
    (&["https://app.example.com@evil.example"], &[], &[], false),
    (&["https://user@app.example.com"], &[], &[], false),
    (&["https://app.example.com https://evil.example"], &[], &[], false),
    (&["https://app.example.com, https://app.example.com"], &[], &[], false),
    (&["app.example.com"], &[], &[], false),
    (&["//app.example.com"], &[], &[], false),
    (&["*"], &[], &[], false),
    (&["http://localhost"], &["same-origin"], &[], false),
    (&["http://127.0.0.1:3000"], &[], &[], false),
    (&["http://localhost:7600"], &["same-origin"], &[], false),
    (&[APP, APP], &[], &[], false),
    (&[APP, "https://evil.example"], &[], &[], false),
    (&["https://evil.example", APP], &[], &[], false),
    (&[APP], &["cross-site", "cross-site"], &[], false),
    (&[], &["cross-site"], &[], false),
    (&[], &["cross-site"], &["https://app.example.com"], false),
    (&[], &["cross-site"], &["https://app.example.com.evil.example/"], false),
    (&[], &["none", "cross-site"], &["https://app.example.com/"], false),
    (&[], &["None"], &["https://app.example.com/"], false),
];

struct Table {
    upstream: Recorder,
    running: Running,
    wrong: String,
}

impl Table {
    async fn of(text: impl FnOnce(SocketAddr) -> String) -> Self {
        let upstream = Recorder::start().await;
        let running = sidekey(&text(upstream.addr));
        Self { upstream, running, wrong: String::new() }
    }

    /// One request over HTTP/1.1: its target, then its lines.
    async fn http1(&mut self, target: &str, lines: &[(&str, &str)], want: &str) {
        let mut head = format!("GET {target} HTTP/1.1\r\nConnection: close\r\n");
        for (name, value) in lines {
            let _ = write!(head, "{name}: {value}\r\n");
        }
        let answer = raw_to_end(self.running.addr, head + "\r\n").await;
        let status = String::from_utf8_lossy(&answer).get(9..12).unwrap_or("ends").to_owned();
        self.note(format!("HTTP/1.1 {target} {lines:?}"), &status, want);
    }

    /// The same over HTTP/2.
    async fn http2(&mut self, authority: Option<&str>, path: &str, lines: &[(&str, &str)], want: &str) {
        let mut all = vec![(":method", "GET"), (":scheme", "http"), (":path", path)];
        all.extend(authority.map(|authority| (":authority", authority)));
        all.extend(lines);
        let bytes: Vec<_> = all.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())).collect();
        let frame = frame(HEADERS, END_HEADERS | END_STREAM, 1, &fields(&bytes));
        let status = outcome(self.running.addr, &[frame]).await;
        let status = if status == "ends" && want == MALFORMED { MALFORMED.to_owned() } else { status };
        self.note(format!("HTTP/2 {authority:?} {lines:?}"), &status, want);
    }

    fn note(&mut self, what: String, status: &str, want: &str) {
        // It has been answered, so what it sent has arrived.
        let arrived = !self.upstream.take().is_empty();
        if status != want || arrived != (want == OURS) {
            let _ = writeln!(self.wrong, "{what}: {status}, not {want}; arrived: {arrived}");
        }
    }

    fn holds(self) {
        assert!(self.wrong.is_empty(), "\n{}", self.wrong);
    }
}

#[tokio::test]
async fn each_spelling_of_a_host_has_its_verdict_wherever_it_stands() {
    let text = |upstream| open_route(upstream, "").replace("[route", "hosts = [\"named.example\"]\n[route");
    let mut table = Table::of(text).await;
    for (host, want) in HOSTS {
        table.http1("/x", &[("Host", host)], want).await;
        table.http1(&format!("http://{host}/x"), &[("Host", host)], want).await;
        table.http2(Some(host), "/x", &[], want).await;
        table.http2(None, "/x", &[("host", host)], want).await;
    }
    table.holds();
}

#[tokio::test]
async fn a_target_and_a_host_that_differ_are_no_host() {
    let mut table = Table::of(|upstream| open_route(upstream, "")).await;
    for (target, host, want) in PAIRS {
        table.http1(&format!("http://{target}/x"), &[("Host", host)], want).await;
        table.http2(Some(target), "/x", &[("host", host)], want).await;
    }
    let twice: [&[(&str, &str)]; 2] =
        [&[("host", "localhost"), ("host", "localhost")], &[("host", "localhost"), ("host", "evil.example")]];
    for lines in twice {
        table.http1("/x", lines, MALFORMED).await;
        table.http2(None, "/x", lines, MALFORMED).await;
        table.http2(Some("localhost"), "/x", lines, MALFORMED).await;
    }
    table.http1("/x", &[], MALFORMED).await;
    table.http2(None, "/x", &[], MALFORMED).await;
    for target in ["https://evil.example/x", "ftp://localhost/x", "localhost", "//evil.example/x"] {
        // The last is a path, and names no host.
        let want = if target.starts_with("//") { OURS } else { MALFORMED };
        table.http1(target, &[("Host", "localhost")], want).await;
    }
    table.holds();
}

#[tokio::test]
async fn each_spelling_of_an_origin_has_its_verdict_on_a_route_that_is_open_to_some_and_on_one_that_is_not() {
    let text = |upstream| {
        let open = "cors = { origins = [\"https://app.example.com\", \"http://localhost:3000\"] }";
        let more = "[route.shut]\npath = \"/shut\"\ncredential = false";
        open_route(upstream, &format!("{open}\n{more}\nupstream = \"http://{upstream}\""))
    };
    let mut table = Table::of(text).await;
    for (origins, sites, referers, is_let_in) in ORIGINS {
        let mut lines = vec![];
        lines.extend(origins.iter().map(|value| ("origin", *value)));
        lines.extend(sites.iter().map(|value| ("sec-fetch-site", *value)));
        lines.extend(referers.iter().map(|value| ("referer", *value)));
        let is_no_page = origins.is_empty() && matches!(sites, [] | ["none" | "same-origin"]);
        for (path, is_let_in) in [("/x", is_let_in), ("/shut/x", is_no_page)] {
            let want = if is_let_in { OURS } else { FORBIDDEN };
            let mut with_host = lines.clone();
            with_host.push(("host", "localhost"));
            table.http1(path, &with_host, want).await;
            table.http2(Some("localhost"), path, &lines, want).await;
        }
    }
    table.holds();
}
