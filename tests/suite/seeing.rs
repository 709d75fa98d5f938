//! One request, found again in every log: the caller's, sidekey's and the upstream's.
#![cfg(feature = "demo")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;

use crate::support::recorder::Recorder;
use crate::support::running::{eventually, open_route, private_file, sidekey};
use crate::support::{Reply, free, get};
use serde_json::Value;
use tokio::process::{Child, Command};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

/// A real sidekey whose access log and log are files.
struct Logged {
    folder: tempfile::TempDir,
    addr: SocketAddr,
    _child: Child,
}

impl Logged {
    async fn start(server: &str, upstream: SocketAddr) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let text = format!(
            "[server]\nlisten = \"127.0.0.1:0\"\nadmin = false\naccess_log = \"stdout\"\n{server}\n\
             [route.up]\nprovider = \"neon\"\npath = \"/\"\nallow_cleartext = true\ncredential = false\nupstream = \"http://{upstream}\"\n"
        );
        let file = private_file(folder.path().join("sidekey.toml"), &text);
        let log = |name: &str| std::fs::File::create(folder.path().join(name)).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_sidekey"));
        command.args(["--log-format", "json", "run", "-c"]).arg(file).env_clear().kill_on_drop(true);
        command.stdin(Stdio::null()).stdout(log("access")).stderr(log("log"));
        let child = command.spawn().unwrap();
        let mut addr = None;
        eventually("the banner", async || {
            let log = read(folder.path(), "log");
            let line = log.lines().find_map(|line| line.strip_prefix("listening on "));
            addr = line.and_then(|line| line.parse().ok());
            addr.is_some() && log.contains("\nroute ")
        })
        .await;
        Self { addr: addr.unwrap(), folder, _child: child }
    }

    /// The lines of one of its logs that are JSON, once there are so many.
    async fn lines(&self, name: &str, count: usize) -> Vec<Value> {
        let lines = || {
            let text = read(self.folder.path(), name);
            text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect::<Vec<Value>>()
        };
        eventually("its lines", async || lines().len() >= count).await;
        lines()
    }
}

fn read(folder: &Path, name: &str) -> String {
    std::fs::read_to_string(folder.join(name)).unwrap()
}

fn id_of(reply: &Reply) -> String {
    reply.header("x-request-id").unwrap_or_default().to_owned()
}

#[tokio::test]
async fn trace_context_and_request_id_travel_as_they_came_and_none_is_made_up() {
    let upstream = Recorder::answering(
        "HTTP/1.1 200 OK\r\nX-Request-Id: theirs\r\ntraceresponse: 00-x\r\nContent-Length: 0\r\n\r\n",
    )
    .await;
    let running = sidekey(&open_route(upstream.addr, ""));
    let odd = "vendor=a,other@b=c;d";
    let sent = [
        ("traceparent", PARENT),
        ("tracestate", odd),
        ("tracestate", "x=1"),
        ("X-Request-Id", "\"odd\" <id>"),
    ];
    let reply = get(running.addr, "/", &sent).await;
    let up = upstream.take().to_lowercase();
    for line in [
        format!("traceparent: {PARENT}\r\n"),
        format!("tracestate: {odd}\r\ntracestate: x=1\r\n"),
        "x-request-id: \"odd\" <id>\r\n".to_owned(),
    ] {
        assert!(up.contains(&line), "{line}{up}");
    }
    assert_eq!((id_of(&reply).as_str(), reply.header("traceresponse")), ("theirs", Some("00-x")));
    get(running.addr, "/", &[]).await;
    let up = upstream.take().to_lowercase();
    assert!(!up.contains("trace") && !up.contains("request-id"), "{up}");
}

#[tokio::test]
async fn an_answer_of_sidekeys_own_and_both_logs_have_the_same_id_and_trace() {
    let logged = Logged::start("", free()).await;
    let own = get(logged.addr, "/a", &[("traceparent", PARENT), ("X-Request-Id", "from-caller_1")]).await;
    let foreign = get(logged.addr, "/b", &[("Host", "elsewhere.example"), ("X-Request-Id", "a b")]).await;
    assert_eq!((own.status, foreign.status), (502, 403));
    assert_eq!(
        (id_of(&own).as_str(), own.json()["request_id"].as_str()),
        ("from-caller_1", Some("from-caller_1"))
    );
    let made = id_of(&foreign);
    assert!(made.starts_with("sidekey-") && made.len() == 24, "{made}");
    for name in ["access", "log"] {
        let lines = logged.lines(name, 2).await;
        let line = |path: &str| lines.iter().find(|line| line["path"] == path).cloned().unwrap();
        let (a, b) = (line("/a"), line("/b"));
        assert_eq!(
            (a["request_id"].as_str(), a["trace_id"].as_str()),
            (Some("from-caller_1"), Some(TRACE)),
            "{name}"
        );
        assert_eq!((b["request_id"].as_str(), b["trace_id"].as_str()), (Some(&*made), None), "{name}: {b}");
    }
}

#[tokio::test]
async fn with_request_id_each_request_has_one_upstream_in_its_answer_and_in_the_access_log() {
    let upstream = Recorder::start().await;
    let logged = Logged::start("request_id = true", upstream.addr).await;
    let mut ids = Vec::new();
    for (number, sent) in ["", "sane-1", "not sane"].into_iter().enumerate() {
        let headers: Vec<_> = Some(("X-Request-Id", sent)).filter(|_| !sent.is_empty()).into_iter().collect();
        let id = id_of(&get(logged.addr, &format!("/{number}"), &headers).await);
        let up = upstream.take().to_lowercase();
        assert_eq!(up.matches("x-request-id").count(), 1, "{up}");
        assert!(up.contains(&format!("x-request-id: {id}\r\n")), "{id}: {up}");
        assert_eq!(id == "sane-1", sent == "sane-1", "{id}");
        ids.push(id);
    }
    assert_ne!(ids[0], ids[2]);
    let lines = logged.lines("access", 3).await;
    for (number, id) in ids.iter().enumerate() {
        let line = lines.iter().find(|line| line["path"] == format!("/{number}")).unwrap();
        assert_eq!(line["request_id"].as_str(), Some(&**id));
    }
}

#[tokio::test]
async fn an_upstreams_own_id_is_not_replaced_and_a_header_that_is_not_for_callers_stays_so() {
    let upstream =
        Recorder::answering("HTTP/1.1 200 OK\r\nX-Request-Id: theirs\r\nContent-Length: 0\r\n\r\n").await;
    let up = upstream.addr;
    let text = format!(
        "[server]\nlisten = \"127.0.0.1:0\"\nrequest_id = true\n[route.up]\npath = \"/\"\nupstream = \"http://{up}\"\n\
         [route.up.credential]\ntype = \"header\"\nname = \"X-Request-Id\"\nvalue = {{ value = \"k-e-y\" }}\n"
    );
    let running = sidekey(&text);
    running.settled().await;
    let reply = get(running.addr, "/", &[("X-Request-Id", "mine")]).await;
    assert_eq!(id_of(&reply), "theirs");
    let up = upstream.take().to_lowercase();
    assert!(up.contains("x-request-id: k-e-y\r\n") && !up.contains("mine"), "{up}");
}
