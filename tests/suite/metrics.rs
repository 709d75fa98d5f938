//! Metrics of a real sidekey, as a scraper gets them: exact, bounded, and without what is nobody's business.
#![cfg(feature = "demo")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(clippy::float_cmp, reason = "counts are whole numbers")]

pub(crate) mod page;
pub(crate) mod tokens;

use std::net::SocketAddr;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use self::page::Page;
use crate::support::http2::Caller;
use crate::support::running::{eventually, patiently, private_file};
use crate::support::scripted::{Scripted, read_head, read_request, say};
use crate::support::{free, get, raw, read_reply, send, try_send};
use http::Method;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::task::JoinSet;

const NO_ROUTE: &str = "(none)";
const ADMIN_TOKEN: &str = "the-admin-token-of-the-metrics-tests";

/// A real sidekey with its metrics.
pub(crate) struct Counting {
    folder: tempfile::TempDir,
    /// The server's keys.
    server: String,
    pub(crate) addr: SocketAddr,
    pub(crate) admin: SocketAddr,
    pub(crate) health: SocketAddr,
    _child: Child,
}

impl Counting {
    /// With these keys of the server, and the rest.
    pub(crate) async fn start(server: &str, rest: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (admin, health) = (free(), free());
        let server = format!(
            "[server]\nlisten = \"127.0.0.1:0\"\nadmin = \"{admin}\"\nhealth = \"{health}\"\n\
             admin_token = {{ value = \"{ADMIN_TOKEN}\" }}\n{server}\n"
        );
        let file = private_file(folder.path().join("sidekey.toml"), &format!("{server}{rest}\n"));
        let mut command = Command::new(env!("CARGO_BIN_EXE_sidekey"));
        command.args(["run", "-c"]).arg(file);
        command.env_clear().env("XDG_RUNTIME_DIR", folder.path()).kill_on_drop(true);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut addr = None;
        while let Some(line) = patiently("the banner", lines.next_line()).await.unwrap() {
            if let Some(address) = line.strip_prefix("listening on ") {
                addr = addr.or(address.parse().ok());
            }
            if line.starts_with("probes on ") {
                break;
            }
        }
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        Self { folder, server, addr: addr.expect("a listener"), admin, health, _child: child }
    }

    /// Has it take up a configuration with the rest as it is here.
    async fn reload(&self, rest: &str) -> u16 {
        private_file(self.folder.path().join("sidekey.toml"), &format!("{}{rest}\n", self.server));
        let token = [("sidekey-token", ADMIN_TOKEN)];
        send(self.admin, Method::POST, "/reload", &token, "").await.status
    }

    pub(crate) async fn page(&self) -> Page {
        Page::read(get(self.admin, "/metrics", &[]).await.text())
    }

    /// The page, once it is so.
    pub(crate) async fn once(&self, what: &str, is_so: impl Fn(&Page) -> bool) -> Page {
        let mut last = Page::default();
        eventually(what, async || {
            last = self.page().await;
            is_so(&last)
        })
        .await;
        last
    }
}

/// A route that takes everything below a path.
fn open(name: &str, path: &str, upstream: SocketAddr) -> String {
    format!("[route.{name}]\npath = \"{path}\"\ncredential = false\nupstream = \"http://{upstream}\"\n")
}

/// An upstream that answers `/…/STATUS` with that status and keeps its connections; `/wait` once the test says so.
async fn answering() -> (Scripted, watch::Sender<bool>) {
    let (go, wait) = watch::channel(false);
    let upstream = Scripted::start(move |_, mut stream| {
        let mut wait = wait.clone();
        async move {
            while let Some(request) = read_request(&mut stream).await {
                let head = String::from_utf8_lossy(&request).into_owned();
                let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
                let last = path.rsplit('/').next().unwrap_or_default().to_owned();
                if last == "wait" {
                    let _ = wait.wait_for(|go| *go).await;
                }
                if last == "begins" {
                    say(&mut stream, "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf").await;
                    let _ = stream.read(&mut [0; 1]).await;
                    return;
                }
                let status: u16 = last.parse().unwrap_or(200);
                let body = if [204, 304].contains(&status) { "" } else { "hello" };
                let length = body.len();
                let framing =
                    if status == 204 { String::new() } else { format!("Content-Length: {length}\r\n") };
                say(&mut stream, format!("HTTP/1.1 {status} Some\r\n{framing}\r\n{body}")).await;
            }
        }
    });
    (upstream.await, go)
}

/// A request on a connection of its own, of which the answer is not awaited.
async fn begin(addr: SocketAddr, path: &str) -> TcpStream {
    let mut stream = TcpStream::connect(addr).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    stream
}

#[tokio::test]
async fn both_listeners_serve_the_page_and_it_is_what_a_scraper_reads() {
    let (upstream, _go) = answering().await;
    let counting = Counting::start("", &open("up", "/", upstream.addr)).await;
    for address in [counting.admin, counting.health] {
        let reply = get(address, "/metrics", &[]).await;
        assert_eq!(reply.status, 200);
        assert_eq!(reply.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
        let page = Page::read(reply.text());
        for (name, kind) in [
            ("sidekey_requests_total", "counter"),
            ("sidekey_request_duration_seconds", "histogram"),
            ("sidekey_upstream_connections", "gauge"),
            ("sidekey_token_fetches_total", "counter"),
            ("sidekey_token_expiry_timestamp_seconds", "gauge"),
            ("sidekey_accounts", "gauge"),
            ("sidekey_token_rejections_total", "counter"),
            ("sidekey_store_writable", "gauge"),
            ("sidekey_guard_refusals_total", "counter"),
            ("sidekey_config_reloads_total", "counter"),
            ("sidekey_build_info", "gauge"),
        ] {
            assert_eq!(page.kinds.get(name).map(String::as_str), Some(kind), "{name}");
        }
        assert_eq!(page.value("sidekey_build_info", &[("version", env!("CARGO_PKG_VERSION"))]), 1.0);
        assert_eq!(page.value("sidekey_ready", &[]), 1.0);
        assert_eq!(page.value("sidekey_store_writable", &[]), 1.0);
        assert_eq!(page.connections("up"), (0.0, 0.0));
        assert_eq!(page.timed("up"), 0.0);
        assert!(page.value("process_start_time_seconds", &[]) > 1.7e9);
        assert_eq!(send(address, Method::POST, "/metrics", &[], "").await.status, 405);
        assert_eq!(send(address, Method::HEAD, "/metrics", &[], "").await.status, 200);
    }
    let foreign = [("host", "evil.example")];
    assert_eq!(get(counting.admin, "/metrics", &foreign).await.status, 403);
    assert_eq!(get(counting.health, "/metrics", &foreign).await.status, 200, "a scraper names the pod");
    let page = [("origin", "https://evil.example")];
    assert_eq!(get(counting.admin, "/metrics", &page).await.status, 403);
}

#[tokio::test]
async fn every_request_of_many_connections_counts_once_by_its_code_while_the_page_is_read() {
    const EACH: usize = 60;
    let (upstream, _go) = answering().await;
    let text = open("one", "/one", upstream.addr) + &open("two", "/two", upstream.addr);
    let counting = Counting::start("workers = 3", &text).await;
    let addr = counting.addr;
    let mut calling = JoinSet::new();
    for caller in 0..8 {
        calling.spawn(async move {
            let (route, status) = (["one", "two"][caller % 2], [200, 201, 404, 503][caller / 2]);
            let path = format!("/{route}/{status}");
            if caller < 4 {
                let mut caller = Caller::connect(addr).await;
                for _ in 0..EACH {
                    assert_eq!(caller.get(&path).await.status(), status);
                }
            } else {
                let mut stream = TcpStream::connect(addr).await.unwrap();
                for _ in 0..EACH {
                    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
                    stream.write_all(request.as_bytes()).await.unwrap();
                    assert_eq!(read_reply(&mut stream).await.status, status);
                }
            }
        });
    }
    let ended = Arc::new(AtomicBool::new(false));
    let reading = {
        let (ended, health) = (Arc::clone(&ended), counting.health);
        tokio::spawn(async move {
            let (mut last, mut pages) = (0.0, 0);
            while !ended.load(Ordering::Relaxed) {
                let page = Page::read(get(health, "/metrics", &[]).await.text());
                let now = page.all_requests("one") + page.all_requests("two");
                assert!(now >= last, "{now} after {last}");
                (last, pages) = (now, pages + 1);
            }
            pages
        })
    };
    calling.join_all().await;
    ended.store(true, Ordering::Relaxed);
    assert!(reading.await.unwrap() > 0);
    let each = f64::from(u32::try_from(EACH).unwrap());
    let page = counting
        .once("all of them", |page| page.all_requests("one") + page.all_requests("two") >= 8.0 * each)
        .await;
    for route in ["one", "two"] {
        for code in ["200", "201", "404", "503"] {
            assert_eq!(page.requests(route, code), each, "{route} {code}");
        }
        assert_eq!((page.all_requests(route), page.timed(route)), (4.0 * each, 4.0 * each));
        let sum = page.value("sidekey_request_duration_seconds_sum", &[("route", route)]);
        assert!(sum > 0.0 && sum < 240.0, "{sum}");
    }
    assert_eq!(page.all_requests(NO_ROUTE), 0.0);
    let status = get(counting.admin, "/status", &[]).await.json();
    let one = status["routes"].as_array().unwrap().iter().find(|route| route["name"] == "one").unwrap();
    let requests = &one["requests"];
    assert_eq!(requests["total"], 4 * EACH);
    assert_eq!(requests["codes"], serde_json::json!({ "200": EACH, "201": EACH, "404": EACH, "503": EACH }));
    assert_eq!(requests["seconds"]["count"], 4 * EACH);
    let [p50, p90, p99] = ["p50", "p90", "p99"].map(|p| requests["seconds"][p].as_f64().unwrap());
    assert!(0.0 < p50 && p50 <= p90 && p90 <= p99 && p99 < 60.0, "{requests}");
    assert!(one["upstream_connections"]["idle"].as_u64().unwrap() > 0, "{one}");
}

#[tokio::test]
async fn what_no_route_takes_counts_apart_from_every_route_and_what_is_refused_by_its_reason() {
    let (upstream, _go) = answering().await;
    // The name that most resembles the label.
    let counting = Counting::start("max_requests = 1000", &open("none", "/none", upstream.addr)).await;
    assert_eq!(get(counting.addr, "/elsewhere", &[]).await.status, 404);
    assert_eq!(get(counting.addr, "/none/200", &[("host", "evil.example")]).await.status, 403);
    assert_eq!(get(counting.addr, "/none/200", &[]).await.status, 200);
    // What would have gone there counts as its own: a foreign host's, and a page's.
    let page = [("origin", "https://evil.example")];
    assert_eq!(get(counting.addr, "/none/200", &page).await.status, 403);
    let page = counting.once("four", |page| page.timed(NO_ROUTE) + page.timed("none") == 4.0).await;
    let counted = |route| ["200", "403", "404"].map(|code| page.requests(route, code));
    assert_eq!((counted(NO_ROUTE), counted("none")), ([0.0, 0.0, 1.0], [1.0, 2.0, 0.0]), "{page:?}");
    let refused = |reason| page.value("sidekey_guard_refusals_total", &[("reason", reason)]);
    assert_eq!((refused("no_route"), refused("forbidden_host"), refused("cross_site")), (1.0, 1.0, 1.0));
    assert!(page.find("sidekey_upstream_connections", &[("route", NO_ROUTE), ("state", "idle")]).is_none());
}

#[tokio::test]
async fn an_exchange_that_is_broken_off_counts_as_what_was_answered_or_as_499() {
    let (upstream, go) = answering().await;
    let counting = Counting::start("", &open("up", "/", upstream.addr)).await;
    let waiting = begin(counting.addr, "/wait").await;
    counting.once("it is with the upstream", |page| page.connections("up") == (1.0, 0.0)).await;
    drop(waiting);
    let page = counting.once("its end", |page| page.timed("up") == 1.0).await;
    assert_eq!(page.requests("up", "499"), 1.0);
    assert_eq!(page.connections("up"), (0.0, 0.0), "what the caller left is not used again");

    let mut half = begin(counting.addr, "/begins").await;
    let mut seen = Vec::new();
    while !seen.ends_with(b"half") {
        assert!(patiently("the half", half.read_buf(&mut seen)).await.unwrap() > 0);
    }
    assert_eq!(counting.page().await.timed("up"), 1.0, "it has not ended");
    drop(half);
    let page = counting.once("its end", |page| page.timed("up") == 2.0).await;
    assert_eq!(page.requests("up", "200"), 1.0);

    // A stream that is taken back.
    let mut caller = Caller::connect(counting.addr).await;
    let (answer, _) = caller.begin(Method::GET, "/wait", &[], true).await;
    counting.once("it is with the upstream", |page| page.connections("up").0 == 1.0).await;
    drop(answer);
    let page = counting.once("its end", |page| page.timed("up") == 3.0).await;
    assert_eq!(page.requests("up", "499"), 2.0);

    // Nobody listens any more.
    drop(upstream);
    let _ = go.send(true);
    eventually("the upstream is gone", async || get(counting.addr, "/200", &[]).await.status == 502).await;
    let page = counting.once("the failures", |page| page.requests("up", "502") > 0.0).await;
    assert_eq!(page.all_requests("up"), page.timed("up"));
}

#[tokio::test]
async fn labels_are_bounded_whatever_callers_and_upstreams_send() {
    let (upstream, _go) = answering().await;
    let counting = Counting::start("workers = 2", &open("up", "/up", upstream.addr)).await;
    let mut stream = TcpStream::connect(counting.addr).await.unwrap();
    let codes = [200, 204, 299, 304, 418, 499, 520, 599, 600, 700, 999];
    for status in codes {
        let request = format!("GET /up/canary-path/{status} HTTP/1.1\r\nHost: localhost\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        assert_eq!(read_reply(&mut stream).await.status, status);
    }
    for number in 0..200 {
        let path = format!("/canary-{number}\"{{}}?canary=\\n");
        let (method, host) = (format!("CANARY{number}"), format!("canary-{number}.localhost"));
        let agent = format!("canary-{number}");
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: {agent}\r\nConnection: close\r\n\r\n"
        );
        let _ = raw(counting.addr, request).await;
    }
    let page = counting.once("all", |page| page.timed("up") == 11.0 && page.timed(NO_ROUTE) == 200.0).await;
    let codes: Vec<_> = page.series("sidekey_requests_total");
    let of_up: Vec<_> = codes.iter().filter(|(labels, _)| labels["route"] == "up").collect();
    assert_eq!(of_up.len(), 9, "{of_up:?}");
    assert_eq!((page.requests("up", "599"), page.requests("up", "other")), (1.0, 3.0));
    let (series, values) = page.label_values();
    assert!(series < 120, "{series}: {values:?}");
    assert!(!values.iter().any(|value| value.to_lowercase().contains("canary")), "{values:?}");
}

#[tokio::test]
async fn a_websocket_counts_when_it_begins_and_is_an_active_connection_until_it_ends() {
    let upstream = Scripted::start(|_, mut stream| async move {
        read_head(&mut stream).await;
        let switching =
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nearly";
        say(&mut stream, switching).await;
        let (mut from, mut to) = stream.split();
        let _ = tokio::io::copy(&mut from, &mut to).await;
    })
    .await;
    let counting = Counting::start("", &open("up", "/", upstream.addr)).await;
    let mut stream = TcpStream::connect(counting.addr).await.unwrap();
    let handshake = "GET /chat HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                     Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";
    stream.write_all(handshake.as_bytes()).await.unwrap();
    let mut seen = Vec::new();
    while !seen.ends_with(b"early") {
        assert!(patiently("the beginning", stream.read_buf(&mut seen)).await.unwrap() > 0);
    }
    let page = counting.once("the upgrade", |page| page.requests("up", "101") == 1.0).await;
    assert_eq!((page.connections("up"), page.timed("up")), ((1.0, 0.0), 1.0));
    drop(stream);
    let page = counting.once("its end", |page| page.connections("up") == (0.0, 0.0)).await;
    assert_eq!(page.all_requests("up"), 1.0, "it counts once");
}

#[tokio::test]
async fn connections_are_active_while_they_are_used_idle_after_and_gone_with_the_upstream() {
    let (upstream, go) = answering().await;
    let counting = Counting::start("", &open("up", "/", upstream.addr)).await;
    let mut waiting = Vec::new();
    for _ in 0..3 {
        waiting.push(begin(counting.addr, "/wait").await);
    }
    counting.once("three at once", |page| page.connections("up") == (3.0, 0.0)).await;
    go.send(true).unwrap();
    for stream in &mut waiting {
        assert_eq!(read_reply(stream).await.status, 200);
    }
    counting.once("three that rest", |page| page.connections("up") == (0.0, 3.0)).await;
    assert_eq!(get(counting.addr, "/200", &[]).await.status, 200);
    assert_eq!(counting.page().await.connections("up"), (0.0, 3.0), "one of them was used");
    drop(upstream);
    counting.once("none", |page| page.connections("up") == (0.0, 0.0)).await;
}

#[tokio::test]
async fn what_a_route_has_counted_stays_with_its_name_whatever_configuration_comes() {
    let (upstream, go) = answering().await;
    let (a, b) = (open("a", "/a", upstream.addr), open("b", "/b", upstream.addr));
    let counting = Counting::start("workers = 2", &format!("{a}{b}")).await;
    for path in ["/a/200", "/a/200", "/b/200", "/elsewhere"] {
        get(counting.addr, path, &[]).await;
    }
    let mut running = begin(counting.addr, "/b/wait").await;
    counting.once("it is with the upstream", |page| page.connections("b").0 == 1.0).await;
    // Another route comes first, and the one that stays has changed.
    let changed = a.replace("[route.a]", "[route.a]\nreplay_body = \"1KiB\"");
    let first = open("first", "/first", upstream.addr);
    assert_eq!(counting.reload(&format!("{first}{changed}")).await, 200);
    let is_taken_up = |page: &Page, outcome, count| {
        page.value("sidekey_config_reloads_total", &[("outcome", outcome)]) == count
    };
    counting.once("the reload", |page| is_taken_up(page, "taken_up", 1.0)).await;
    for path in ["/a/200", "/a/404", "/first/200", "/elsewhere"] {
        get(counting.addr, path, &[]).await;
    }
    let page = counting.once("them all", |page| page.timed("a") == 4.0 && page.timed(NO_ROUTE) == 2.0).await;
    assert_eq!((page.requests("a", "200"), page.requests("a", "404")), (3.0, 1.0));
    assert_eq!(page.timed("first"), 1.0);
    assert_eq!((page.timed("b"), page.connections("b").0), (1.0, 1.0), "a request of it still runs");
    go.send(true).unwrap();
    assert_eq!(read_reply(&mut running).await.status, 200);
    let gone = [("route", "b")];
    drop(running);
    let of_b = |page: &Page| page.find("sidekey_request_duration_seconds_count", &gone);
    counting.once("the end of the route", |page| of_b(page).is_none()).await;

    counting.reload("[route.a]\nnonsense = 1").await;
    let page = counting.once("the refusal", |page| is_taken_up(page, "refused", 1.0)).await;
    assert_eq!(page.value("sidekey_config_last_reload_successful", &[]), 0.0);
    assert_eq!(page.timed("a"), 4.0);
    assert_eq!(get(counting.addr, "/a/200", &[]).await.status, 200);
    let again = open("b", "/b", upstream.addr);
    counting.reload(&format!("{changed}{again}")).await;
    let page = counting.once("the next", |page| is_taken_up(page, "taken_up", 2.0)).await;
    assert_eq!(page.value("sidekey_config_last_reload_successful", &[]), 1.0);
    assert_eq!((page.timed("a"), page.timed("b")), (5.0, 0.0));
}

#[tokio::test]
async fn pages_are_answered_while_every_worker_is_busy_and_its_callers_do_not_read() {
    let (upstream, _go) = answering().await;
    let counting = Counting::start("workers = 2\nmax_requests = 4", &open("up", "/", upstream.addr)).await;
    let mut waiting = Vec::new();
    for _ in 0..4 {
        waiting.push(begin(counting.addr, "/wait").await);
    }
    counting.once("all places are taken", |page| page.connections("up").0 == 4.0).await;
    let over = try_send(counting.addr, Method::GET, "/200", &[], "").await;
    assert_eq!(over.unwrap().status, 503);
    let asked = tokio::time::Instant::now();
    let page = counting.once("the one too many", |page| page.requests("up", "503") == 1.0).await;
    assert!(asked.elapsed() < Duration::from_secs(5));
    assert_eq!(page.value("sidekey_guard_refusals_total", &[("reason", "overloaded")]), 1.0);
    assert_eq!(page.all_requests("up"), 1.0, "none of the others has ended");
}
