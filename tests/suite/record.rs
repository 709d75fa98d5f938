//! The record: the access log and the log of refusals of a real sidekey, as whoever collects them gets them.
#![cfg(feature = "demo")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::net::SocketAddr;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use crate::support::http2::Caller;
use crate::support::running::{aura, eventually, patiently, private_file};
use crate::support::scripted::{Scripted, read_head, read_request, say};
use crate::support::{bearer, free, get, raw, send};
use http::Method;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, ChildStdout, Command};
use tokio::sync::mpsc;

/// Lines that something said so far.
type Said = Arc<Mutex<Vec<String>>>;

/// A real sidekey whose log and access log are read.
struct Recorded {
    _folder: tempfile::TempDir,
    addr: SocketAddr,
    admin: SocketAddr,
    child: Child,
    log: Said,
    access: Said,
    /// Not read yet.
    stdout: Option<ChildStdout>,
}

impl Recorded {
    /// With these keys of the server and routes to the upstream; its standard output is not read.
    async fn start_unread(server: &str, rest: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let admin = free();
        let text = format!(
            "[server]\nlisten = \"127.0.0.1:0\"\nadmin = \"{admin}\"\naccess_log = \"stdout\"\n{server}\n{rest}\n"
        );
        let file = private_file(folder.path().join("sidekey.toml"), &text);
        let mut command = Command::new(env!("CARGO_BIN_EXE_sidekey"));
        command.args(["--log-level", "trace", "run", "-c"]).arg(file);
        command.env_clear().env("XDG_RUNTIME_DIR", folder.path()).kill_on_drop(true);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let (log, access) = (Said::default(), Said::default());
        follow(child.stderr.take().unwrap(), &log);
        let stdout = child.stdout.take();
        let listening = || find(&log, "listening on ").map(|line| line["listening on ".len()..].to_owned());
        eventually("the banner", async || find(&log, "admin on ").is_some()).await;
        let addr = listening().unwrap().parse().unwrap();
        Self { _folder: folder, addr, admin, child, log, access, stdout }
    }

    async fn start(server: &str, rest: &str) -> Self {
        let mut started = Self::start_unread(server, rest).await;
        started.read();
        started
    }

    fn read(&mut self) {
        follow(self.stdout.take().unwrap(), &self.access);
    }

    /// The lines of the access log, once there are so many.
    async fn lines(&self, count: usize) -> Vec<Value> {
        let so_many = async || self.access.lock().unwrap().len() >= count;
        eventually(&format!("{count} lines"), so_many).await;
        self.parsed()
    }

    fn parsed(&self) -> Vec<Value> {
        let access = self.access.lock().unwrap();
        access
            .iter()
            .map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}")))
            .collect()
    }

    /// The only line, once it is there.
    async fn line(&self) -> Value {
        self.lines(1).await.pop().unwrap()
    }

    /// The lines of the log with this in them.
    fn logged(&self, what: &str) -> Vec<String> {
        self.log.lock().unwrap().iter().filter(|line| line.contains(what)).cloned().collect()
    }

    async fn refusals(&self) -> Value {
        get(self.admin, "/status", &[]).await.json()["refusals"].clone()
    }

    fn signal(&self, signal: Signal) {
        let id = self.child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        kill_process(id.unwrap(), signal).unwrap();
    }

    async fn stop(&mut self) {
        self.signal(Signal::TERM);
        assert!(patiently("the end", self.child.wait()).await.unwrap().success());
    }
}

fn assert_has(line: &Value, fields: &Value) {
    for (name, value) in fields.as_object().unwrap() {
        assert_eq!(&line[name], value, "{name} of {line}");
    }
}

fn follow(from: impl tokio::io::AsyncRead + Unpin + Send + 'static, said: &Said) {
    let said = Arc::clone(said);
    tokio::spawn(async move {
        let mut lines = BufReader::new(from).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            said.lock().unwrap().push(line);
        }
    });
}

fn find(said: &Said, beginning: &str) -> Option<String> {
    said.lock().unwrap().iter().find(|line| line.starts_with(beginning)).cloned()
}

/// A route that takes everything.
fn open(upstream: SocketAddr) -> String {
    format!("[route.up]\npath = \"/\"\ncredential = false\nupstream = \"http://{upstream}\"")
}

/// An upstream that answers each request of a connection with five bytes.
async fn hello() -> Scripted {
    Scripted::start(|_, mut stream| async move {
        while read_request(&mut stream).await.is_some() {
            say(&mut stream, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello").await;
        }
    })
    .await
}

#[tokio::test]
async fn each_exchange_is_one_line_that_says_who_what_and_how_much_and_shows_no_secret() {
    let aura = aura().await;
    let url = aura.url();
    let recorded = Recorded::start(
        "",
        &format!(
            "[route.aura]\nprovider = \"aura\"\npath = \"/aura\"\nupstream = \"{url}\"\ncredential = \"aura\"\n\
             [credential.aura]\ntype = \"aura\"\ntoken_url = \"{url}/oauth/token\"\nclient_id = \"id\"\n\
             client_secret = {{ value = \"s:cret\" }}\n\
             [caller.ci]\ntoken = {{ value = \"canary-token-of-the-caller\" }}"
        ),
    )
    .await;
    let token = [("sidekey-token", "canary-token-of-the-caller"), ("cookie", "canary=cookie")];
    let reply = get(recorded.addr, "/aura/v1/instances?key=canary-query", &token).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    let line = recorded.line().await;
    assert_has(
        &line,
        &json!({ "caller": "ci", "route": "aura", "account": "aura", "method": "GET", "path": "/aura/v1/instances", "status": 200, "code": null, "bytes_in": 0, "bytes_out": reply.body.len(), "protocol": "HTTP/1.1", "ended": "complete" }),
    );
    let (duration, upstream) = (line["duration_ms"].as_f64().unwrap(), line["upstream_ms"].as_f64().unwrap());
    assert!(upstream > 0.0 && duration >= upstream, "{line}");
    assert!(line["time"].as_str().unwrap().parse::<jiff::Timestamp>().is_ok(), "{line}");
    assert!(line["peer"].as_str().unwrap().starts_with("127.0.0.1:"), "{line}");

    // Nobody's token, and one that another header shows; a path that somebody writes a line break into.
    let wrong = bearer("canary-of-somebody-else");
    let request = format!(
        "GET http://127.0.0.1/aura/a%0a\"b?c=canary-query HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: {wrong}\r\n\r\n"
    );
    assert_eq!(raw(recorded.addr, request).await.status, 401);
    let userinfo = "GET http://u:canary-pw@127.0.0.1/ HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n";
    assert_eq!(raw(recorded.addr, userinfo).await.status, 400);
    let lines = recorded.lines(3).await;
    assert_eq!(lines[1]["path"], "/aura/a%0a\"b");
    assert_has(&lines[1], &json!({ "caller": null, "status": 401, "code": "caller_unknown" }));
    assert_eq!((&lines[2]["code"], &lines[2]["path"]), (&"bad_request".into(), &"/".into()));
    let told = recorded.logged("caller_unknown");
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].contains("peer=127.0.0.1:") && told[0].contains("method=GET"), "{told:?}");
    for said in [&recorded.log, &recorded.access] {
        let said = said.lock().unwrap().join("\n");
        for secret in ["canary", "s:cret", "Y2FuYXJ5", "Bearer"] {
            assert!(!said.contains(secret), "{secret} in {said}");
        }
    }
}

#[tokio::test]
async fn how_an_exchange_ended_is_told_apart() {
    let (arrives, mut arrived) = mpsc::unbounded_channel();
    let upstream = Scripted::start(move |_, mut stream| {
        let arrives = arrives.clone();
        async move {
            while let Some(request) = read_request(&mut stream).await {
                let head = String::from_utf8_lossy(&request).into_owned();
                let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n";
                match head.split(' ').nth(1).unwrap_or_default() {
                    "/streams" => say(&mut stream, format!("{chunked}3\r\nabc\r\n0\r\n\r\n")).await,
                    "/cut" => {
                        say(&mut stream, chunked).await;
                        return;
                    }
                    "/stays" => {
                        say(&mut stream, chunked).await;
                        // Until the proxy goes away.
                        let _ = stream.read(&mut [0; 1]).await;
                        return;
                    }
                    "/silent" => {
                        arrives.send(()).unwrap();
                        let _ = stream.read(&mut [0; 1]).await;
                        return;
                    }
                    "/hints" => {
                        say(&mut stream, "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n").await;
                        say(&mut stream, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
                    }
                    "/nothing" => say(&mut stream, "HTTP/1.1 204 No Content\r\n\r\n").await,
                    _ if head.starts_with("HEAD") => {
                        say(&mut stream, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n").await;
                    }
                    _ => say(&mut stream, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello").await,
                }
            }
        }
    })
    .await;
    let recorded = Recorded::start("", &open(upstream.addr)).await;
    let addr = recorded.addr;
    let mut count = 0;
    let mut next = async |path: &str| {
        count += 1;
        let line = recorded.lines(count).await.pop().unwrap();
        assert_eq!(line["path"], path, "{line}");
        (line["status"].as_u64(), line["bytes_in"].clone(), line["bytes_out"].clone(), line["ended"].clone())
    };
    let mut cases = vec![
        ("GET", "/streams", "", Some(200), 0, 8, "complete"),
        ("POST", "/", "four", Some(200), 4, 5, "complete"),
        ("HEAD", "/", "", Some(200), 0, 0, "complete"),
        ("GET", "/nothing", "", Some(204), 0, 0, "complete"),
        ("GET", "/hints", "", Some(200), 0, 2, "complete"),
        ("HEAD", "//a/../..", "", Some(400), 0, 0, "complete"),
    ];
    for (method, path, body, status, bytes_in, bytes_out, ended) in cases.drain(..) {
        let length = body.len();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
        );
        let mut stream = TcpStream::connect(addr).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        patiently("the end", stream.read_to_end(&mut Vec::new())).await.unwrap();
        assert_eq!(
            next(path).await,
            (status, bytes_in.into(), bytes_out.into(), ended.into()),
            "{method} {path}"
        );
    }

    let begun = async |path: &str, until: &str| {
        let mut stream = TcpStream::connect(addr).await.unwrap();
        stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes()).await.unwrap();
        let mut seen = Vec::new();
        while !String::from_utf8_lossy(&seen).contains(until) {
            assert!(patiently(path, stream.read_buf(&mut seen)).await.unwrap() > 0);
        }
        stream
    };
    let mut cut = begun("/cut", "").await;
    let _ = cut.read_to_end(&mut Vec::new()).await;
    assert_eq!(next("/cut").await, (Some(200), 0.into(), 5.into(), "upstream_cut".into()));
    drop(begun("/stays", "hello").await);
    assert_eq!(next("/stays").await, (Some(200), 0.into(), 5.into(), "caller_gone".into()));
    let silent = begun("/silent", "").await;
    patiently("its arrival", arrived.recv()).await;
    drop(silent);
    assert_eq!(next("/silent").await, (None, 0.into(), 0.into(), "caller_gone".into()));
    // A body that breaks off.
    let mut stream = TcpStream::connect(addr).await.unwrap();
    stream
        .write_all(b"POST /half HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\nhalf")
        .await
        .unwrap();
    stream.shutdown().await.unwrap();
    drop(stream);
    // It was told so, and may have read it.
    let (status, bytes_in, _, ended) = next("/half").await;
    assert_eq!((status, bytes_in, ended), (Some(400), 4.into(), "complete".into()));
}

#[tokio::test]
async fn http2_and_websockets_have_their_line_when_they_are_over() {
    let upstream = Scripted::start(|_, mut stream| async move {
        let head = read_head(&mut stream).await;
        if head.starts_with("GET /chat") {
            say(
                &mut stream,
                "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nearly",
            )
            .await;
            let (mut from, mut to) = stream.split();
            let _ = tokio::io::copy(&mut from, &mut to).await;
        } else {
            say(&mut stream, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello").await;
        }
    })
    .await;
    let recorded = Recorded::start("", &open(upstream.addr)).await;
    let mut caller = Caller::connect(recorded.addr).await;
    assert_eq!(caller.get("/one?query").await.status(), 200);
    let line = recorded.line().await;
    assert_has(&line, &json!({ "protocol": "HTTP/2", "path": "/one", "bytes_out": 5, "ended": "complete" }));
    let mut stream = TcpStream::connect(recorded.addr).await.unwrap();
    let handshake = "GET /chat HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                     Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";
    stream.write_all(handshake.as_bytes()).await.unwrap();
    stream.write_all(b"words").await.unwrap();
    let mut seen = Vec::new();
    while !seen.ends_with(b"earlywords") {
        assert!(patiently("an echo", stream.read_buf(&mut seen)).await.unwrap() > 0);
    }
    assert_eq!(recorded.parsed().len(), 1, "it is not over");
    stream.shutdown().await.unwrap();
    let _ = stream.read_to_end(&mut seen).await;
    let line = recorded.lines(2).await.pop().unwrap();
    assert_has(&line, &json!({ "status": 101, "bytes_in": 5, "bytes_out": 10, "ended": "complete" }));
}

#[tokio::test]
async fn refusals_are_counted_exactly_and_told_in_a_few_lines() {
    let upstream = hello().await;
    let recorded = Recorded::start("workers = 2", &open(upstream.addr)).await;
    let addr = recorded.addr;
    const CONNECTIONS: usize = 20;
    const EACH: usize = 500;
    let flood = (0..CONNECTIONS).map(|_| {
        tokio::spawn(async move {
            let mut stream = TcpStream::connect(addr).await.unwrap();
            let (mut from, mut to) = stream.split();
            let all = "GET /a?q HTTP/1.1\r\nHost: evil.example\r\n\r\n".repeat(EACH);
            let read = async {
                let (mut seen, mut count) = (Vec::new(), 0);
                while count < EACH {
                    assert!(from.read_buf(&mut seen).await.unwrap() > 0);
                    let text = String::from_utf8_lossy(&seen);
                    count = text.matches("forbidden_host\r\n").count();
                }
            };
            let (_, written) =
                patiently("answers", async { tokio::join!(read, to.write_all(all.as_bytes())) }).await;
            written.unwrap();
        })
    });
    for one in flood.collect::<Vec<_>>() {
        one.await.unwrap();
    }
    assert_eq!(get(addr, "/", &[("origin", "http://evil.example")]).await.status, 403);
    assert_eq!(raw(addr, "TRACE / HTTP/1.1\r\nHost: localhost\r\n\r\n").await.status, 405);
    let refusals = recorded.refusals().await;
    assert_eq!(refusals["forbidden_host"], CONNECTIONS * EACH);
    assert_eq!((&refusals["cross_site"], &refusals["method_refused"]), (&1.into(), &1.into()));
    assert_eq!(refusals["no_route"], 0);
    // Every one of them is in the access log, and the log counts what it does not say.
    let lines = recorded.lines(CONNECTIONS * EACH + 2).await;
    assert_eq!(lines.iter().filter(|line| line["code"] == "forbidden_host").count(), CONNECTIONS * EACH);
    let told = || {
        let lines = recorded.logged("code=\"forbidden_host\"");
        let unsaid = |line: &String| {
            let number = line.split("unsaid=").nth(1).unwrap().split(' ').next().unwrap();
            number.trim_end_matches(|c: char| !c.is_ascii_digit()).parse::<usize>().unwrap()
        };
        let first = lines.iter().filter(|line| line.contains("refused: ")).count();
        (lines.len(), first + lines.iter().map(unsaid).sum::<usize>())
    };
    eventually("what was held back", async || told().1 == CONNECTIONS * EACH).await;
    assert!(told().0 <= 60, "{} lines", told().0);
    assert!(recorded.logged("cross_site")[0].contains("path=\"/\""), "{:?}", recorded.logged("cross_site"));
}

#[tokio::test]
async fn the_admin_listeners_refusals_are_counted_and_told() {
    let upstream = hello().await;
    let recorded = Recorded::start("", &open(upstream.addr)).await;
    for _ in 0..50 {
        let reply = send(recorded.admin, Method::POST, "/quitquitquit?canary", &[], "").await;
        assert_eq!(reply.status, 401);
        assert_eq!(get(recorded.admin, "/canary", &[("host", "evil.example")]).await.status, 403);
    }
    let refusals = recorded.refusals().await;
    assert_eq!((&refusals["caller_unknown"], &refusals["forbidden_host"]), (&50.into(), &50.into()));
    let told = recorded.logged("the admin listener refused");
    assert!((2..20).contains(&told.len()), "{told:?}");
    let first = recorded.logged("code=\"caller_unknown\"");
    assert!(first[0].contains("method=POST") && first[0].contains("path=\"/quitquitquit\""), "{first:?}");
    assert!(!told.join("").contains("canary"), "{told:?}");
    eventually("what was held back", async || recorded.logged("and no more since").len() >= 2).await;
    assert!(recorded.parsed().is_empty(), "the access log is the proxy's");
}

#[tokio::test]
async fn nobody_who_reads_holds_up_nobody_who_asks() {
    let upstream = hello().await;
    let mut recorded = Recorded::start_unread("workers = 2", &open(upstream.addr)).await;
    // Far more than a pipe and the queue hold: 4 MiB in batches, of lines of about 2.3 KiB.
    let path = format!("/{}", "a".repeat(2000));
    const CONNECTIONS: usize = 8;
    const EACH: usize = 500;
    let addr = recorded.addr;
    let busy = (0..CONNECTIONS).map(|_| {
        let path = path.clone();
        tokio::spawn(async move {
            let mut stream = TcpStream::connect(addr).await.unwrap();
            for _ in 0..EACH {
                stream
                    .write_all(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes())
                    .await
                    .unwrap();
                let reply = patiently("an answer", crate::support::read_reply(&mut stream)).await;
                assert_eq!(reply.status, 200);
            }
        })
    });
    for one in busy.collect::<Vec<_>>() {
        one.await.unwrap();
    }
    eventually("the loss is told", async || !recorded.logged("lines of the access log were lost").is_empty())
        .await;
    assert_eq!(get(recorded.admin, "/livez", &[]).await.status, 200);
    recorded.read();
    recorded.stop().await;
    let lines = recorded.parsed().len();
    assert!(lines > 1000 && lines < CONNECTIONS * EACH, "{lines}");
}

#[tokio::test]
async fn a_reader_that_is_gone_is_told_once_and_requests_go_on() {
    let upstream = hello().await;
    let mut recorded = Recorded::start_unread("", &open(upstream.addr)).await;
    drop(recorded.stdout.take());
    eventually("the end of the log", async || {
        assert_eq!(get(recorded.addr, "/", &[]).await.status, 200);
        !recorded.logged("the access log ends").is_empty()
    })
    .await;
    for _ in 0..20 {
        assert_eq!(get(recorded.addr, "/", &[]).await.status, 200);
    }
    recorded.stop().await;
    assert_eq!(recorded.logged("the access log ends").len(), 1);
}

#[tokio::test]
async fn many_connections_make_whole_lines_and_a_stop_loses_none() {
    let arrived = Arc::new(AtomicBool::new(false));
    let arrives = Arc::clone(&arrived);
    let upstream = Scripted::start(move |_, mut stream| {
        let arrives = Arc::clone(&arrives);
        async move {
            while let Some(request) = read_request(&mut stream).await {
                if request.starts_with(b"GET /stays") {
                    arrives.store(true, Ordering::Relaxed);
                    let _ = stream.read(&mut [0; 1]).await;
                    return;
                }
                say(&mut stream, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello").await;
            }
        }
    })
    .await;
    let server = "workers = 2\ndrain_timeout = \"200ms\"";
    let mut recorded = Recorded::start(server, &open(upstream.addr)).await;
    let addr = recorded.addr;
    const CONNECTIONS: usize = 64;
    const EACH: usize = 30;
    let busy = (0..CONNECTIONS).map(|connection| {
        tokio::spawn(async move {
            let mut stream = TcpStream::connect(addr).await.unwrap();
            for number in 0..EACH {
                let request = format!("GET /{connection}/{number}?q HTTP/1.1\r\nHost: localhost\r\n\r\n");
                stream.write_all(request.as_bytes()).await.unwrap();
                assert_eq!(patiently("an answer", crate::support::read_reply(&mut stream)).await.status, 200);
            }
        })
    });
    for one in busy.collect::<Vec<_>>() {
        one.await.unwrap();
    }
    let mut stays = TcpStream::connect(addr).await.unwrap();
    stays.write_all(b"GET /stays HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    eventually("the last request", async || arrived.load(Ordering::Relaxed)).await;
    recorded.stop().await;
    let lines = recorded.lines(CONNECTIONS * EACH + 1).await;
    assert_eq!(lines.len(), CONNECTIONS * EACH + 1);
    for connection in 0..CONNECTIONS {
        let own = format!("/{connection}/");
        let numbers: Vec<usize> = lines
            .iter()
            .filter_map(|line| line["path"].as_str().unwrap().strip_prefix(&own)?.parse().ok())
            .collect();
        assert!(numbers.iter().copied().eq(0..EACH), "{connection}: {numbers:?}");
    }
    let last = lines.iter().find(|line| line["path"] == "/stays").unwrap();
    assert_eq!((&last["ended"], &last["status"]), (&"stopped".into(), &Value::Null));
}
