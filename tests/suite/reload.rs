//! A running sidekey takes up another configuration: whole or not at all, and no request fails of it.
#![cfg(feature = "demo")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use crate::support::recorder::Recorder;
use crate::support::running::{aura, aura_route, eventually, open_route, patiently, private_file, sidekey};
use crate::support::scripted::{Scripted, read_request, say};
use crate::support::{get, http2, raw_unix, read_reply};
use crate::transactions::{begin, call};
use http::Method;
use sidekey::app::StartError;
use sidekey::config::{Environment, LoadOptions, Source, load};
use sidekey::demo::standins::Neo4j;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::Notify;

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";

/// An upstream that says who it is.
async fn upstream(answer: &'static str) -> Recorder {
    Recorder::answering(answer).await
}

async fn two_upstreams() -> (Recorder, Recorder) {
    (
        upstream("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\none").await,
        upstream("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\ntwo").await,
    )
}

#[tokio::test]
async fn no_request_fails_while_configurations_come_and_go() {
    let (one, two) = two_upstreams().await;
    let text =
        |upstream: SocketAddr| open_route(upstream, "").replace("[server]\n", "[server]\nworkers = 2\n");
    let mut running = sidekey(&text(one.addr));
    let (over, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let mut callers = tokio::task::JoinSet::new();
    for number in 0..16 {
        let (over, answered, addr) = (Arc::clone(&over), Arc::clone(&answered), running.addr);
        callers.spawn(async move {
            let mut stream = TcpStream::connect(addr).await.unwrap();
            while !over.load(Ordering::Relaxed) {
                if number % 2 == 0 {
                    // Half of them connect anew each time.
                    stream = TcpStream::connect(addr).await.unwrap();
                }
                stream.write_all(GET).await.unwrap();
                let reply = read_reply(&mut stream).await;
                assert_eq!(reply.status, 200, "{reply:?}");
                assert!(["one", "two"].contains(&reply.text()), "{reply:?}");
                answered.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    for round in 0..100 {
        let before = answered.load(Ordering::Relaxed);
        let next = if round % 2 == 0 { two.addr } else { one.addr };
        running.swap(&text(next)).await.unwrap();
        eventually("more answers", async || answered.load(Ordering::Relaxed) > before + 16).await;
    }
    over.store(true, Ordering::Relaxed);
    patiently("the callers", callers.join_all()).await;
    running.stop().await;
}

#[tokio::test]
async fn a_connection_goes_on_and_its_next_request_goes_by_the_new_configuration() {
    let (one, two) = two_upstreams().await;
    let mut running = sidekey(&open_route(one.addr, ""));
    let mut stream = TcpStream::connect(running.addr).await.unwrap();
    let mut second = http2::Caller::connect(running.addr).await;
    stream.write_all(GET).await.unwrap();
    assert_eq!(read_reply(&mut stream).await.text(), "one");
    assert_eq!(second.get("/").await.text(), "one");
    running.swap(&open_route(two.addr, "")).await.unwrap();
    eventually("the new configuration", async || get(running.addr, "/", &[]).await.text() == "two").await;
    stream.write_all(GET).await.unwrap();
    assert_eq!(read_reply(&mut stream).await.text(), "two");
    assert_eq!(second.get("/").await.text(), "two");
    assert!(!second.is_closed());
}

#[tokio::test]
async fn a_request_that_runs_ends_as_it_began() {
    let (begun, goes_on) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let slow = {
        let (begun, goes_on) = (Arc::clone(&begun), Arc::clone(&goes_on));
        Scripted::start(move |_, mut stream| {
            let (begun, goes_on) = (Arc::clone(&begun), Arc::clone(&goes_on));
            async move {
                while read_request(&mut stream).await.is_some() {
                    say(&mut stream, "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nold").await;
                    begun.notify_one();
                    goes_on.notified().await;
                    say(&mut stream, "est").await;
                }
            }
        })
        .await
    };
    let new = upstream(OK).await;
    let mut running = sidekey(&open_route(slow.addr, ""));
    let addr = running.addr;
    let asked = tokio::spawn(async move { get(addr, "/", &[]).await });
    patiently("the request upstream", begun.notified()).await;
    running.swap(&open_route(new.addr, "")).await.unwrap();
    eventually("the new configuration", async || get(addr, "/", &[]).await.text() == "ok").await;
    goes_on.notify_one();
    assert_eq!(patiently("its answer", asked).await.unwrap().text(), "oldest");
    running.stop().await;
}

#[tokio::test]
async fn tokens_that_still_fit_are_kept_and_others_are_fetched() {
    let aura = aura().await;
    let mut running = sidekey(&aura_route(&aura, ""));
    running.settled().await;
    assert_eq!(get(running.addr, "/v1/instances", &[]).await.status, 200);
    assert_eq!(aura.record().token_requests(), 1);
    let other_route =
        aura_route(&aura, "").replace("[credential.aura]", "response_timeout = \"7s\"\n[credential.aura]");
    running.swap(&other_route).await.unwrap();
    assert_eq!(get(running.addr, "/v1/instances", &[]).await.status, 200);
    assert_eq!((aura.record().token_requests(), running.account().generation), (1, 1), "the same token");
    // A wrong secret: the token that the right one got is of no use to it.
    let wrong = aura_route(&aura, "client_secret = { value = \"wrong\" }\nlease_timeout = \"1s\"");
    running.swap(&wrong).await.unwrap();
    eventually("a refusal", async || get(running.addr, "/v1/instances", &[]).await.status == 503).await;
    running.swap(&aura_route(&aura, "")).await.unwrap();
    eventually("a token", async || get(running.addr, "/v1/instances", &[]).await.status == 200).await;
    running.stop().await;
}

#[tokio::test]
async fn a_request_that_waits_for_a_token_gets_it_though_its_credential_is_gone() {
    let aura = aura().await;
    aura.token_delay(Duration::from_millis(300));
    let mut running = sidekey(&aura_route(&aura, ""));
    let addr = running.addr;
    let asked = tokio::spawn(async move { get(addr, "/v1/instances", &[]).await });
    eventually("the token request", async || aura.record().token_requests() == 1).await;
    let elsewhere = upstream(OK).await;
    running.swap(&open_route(elsewhere.addr, "")).await.unwrap();
    assert_eq!(patiently("its answer", asked).await.unwrap().status, 200);
    running.stop().await;
}

#[tokio::test]
async fn a_listener_that_is_gone_is_closed_and_the_others_stay() {
    let one = upstream(OK).await;
    let two = |more: &str| {
        open_route(one.addr, "")
            .replace("listen = \"127.0.0.1:0\"", &format!("listen = [\"127.0.0.1:0\"{more}]"))
    };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s.sock");
    let socket = format!(", {{ bind = \"unix:{}\", mode = \"0600\" }}", path.display());
    let mut running = sidekey(&two(&socket));
    let mut kept = TcpStream::connect(running.addr).await.unwrap();
    let mut gone = tokio::net::UnixStream::connect(&path).await.unwrap();
    for _ in 0..2 {
        gone.write_all(GET).await.unwrap();
        assert_eq!(read_reply(&mut gone).await.status, 200);
    }
    running.swap(&two("")).await.unwrap();
    let mut rest = Vec::new();
    patiently("its end", gone.read_to_end(&mut rest)).await.unwrap();
    assert_eq!(rest, b"", "closed between requests, without a word");
    eventually("the file's end", async || !path.exists()).await;
    kept.write_all(GET).await.unwrap();
    assert_eq!(read_reply(&mut kept).await.status, 200);
    // It comes back, with another mode, which changes again in place; whoever came in by the one before goes.
    let mut let_in = None;
    for mode in [0o660, 0o600] {
        use std::os::unix::fs::PermissionsExt as _;
        running.swap(&two(&socket.replace("0600", &format!("0{mode:o}")))).await.unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, mode);
        eventually("its listener", async || path.exists()).await;
        assert_eq!(raw_unix(&path, GET).await.status, 200);
        let mut stream = tokio::net::UnixStream::connect(&path).await.unwrap();
        stream.write_all(GET).await.unwrap();
        assert_eq!(read_reply(&mut stream).await.status, 200);
        if let Some(mut before) = let_in.replace(stream) {
            patiently("its end", before.read_to_end(&mut rest)).await.unwrap();
            assert_eq!(rest, b"");
        }
    }
    running.stop().await;
    assert!(!path.exists());
}

#[tokio::test]
async fn a_configuration_that_cannot_be_run_changes_nothing() {
    let (one, two) = two_upstreams().await;
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut running = sidekey(&open_route(one.addr, ""));
    let impossible = open_route(two.addr, "").replace(
        "listen = \"127.0.0.1:0\"",
        &format!("listen = [\"127.0.0.1:0\", \"{}\"]", taken.local_addr().unwrap()),
    );
    let refused = running.swap(&impossible).await;
    assert!(matches!(refused, Err(StartError::Bind(_))), "{refused:?}");
    let no_file = open_route(two.addr, "tls = { ca = \"/nowhere.pem\" }").replace("http://", "https://");
    // It may have gone between the check and this.
    let source = Source::Text { name: "test.toml".into(), text: no_file };
    let gone = load(&source, &Environment::default(), LoadOptions { check_secrets: false }).unwrap().config;
    let refused = running.swap_to(&gone).await;
    assert!(matches!(refused, Err(StartError::Tls(_))), "{refused:?}");
    assert_eq!(get(running.addr, "/", &[]).await.text(), "one");
    running.stop().await;
}

#[tokio::test]
async fn listeners_on_ports_that_the_system_chose_stay_their_routes() {
    let (one, two) = two_upstreams().await;
    let route = |name: &str, upstream: SocketAddr| {
        format!(
            "[route.{name}]\nlisten = \"127.0.0.1:0\"\nupstream = \"http://{upstream}\"\ncredential = false\n"
        )
    };
    let (a, b) = (route("a", one.addr), route("b", two.addr));
    let shared = open_route(one.addr, "");
    let mut running = sidekey(&format!("{shared}{a}{b}"));
    let [_, at_a, at_b] = running.addrs()[..] else { panic!("{:?}", running.addrs()) };
    for text in [format!("{shared}{b}{a}"), format!("{shared}{b}"), format!("{shared}{a}{b}")] {
        running.swap(&text).await.unwrap();
        eventually("b", async || get(at_b, "/", &[]).await.text() == "two").await;
        if let Ok(mut stream) = TcpStream::connect(at_a).await {
            let _ = stream.write_all(GET).await;
            let mut said = Vec::new();
            let _ = tokio::time::timeout(Duration::from_millis(50), stream.read_to_end(&mut said)).await;
            assert!(!String::from_utf8_lossy(&said).contains("two"), "a's port never leads to b");
        }
    }
    running.stop().await;
}

#[tokio::test]
async fn the_limit_of_connections_is_the_new_ones() {
    let one = upstream(OK).await;
    let text = open_route(one.addr, "");
    let mut running = sidekey(&text);
    let limited = text.replace("[server]\n", "[server]\nmax_connections = 1\n");
    running.swap(&limited).await.unwrap();
    let mut first = TcpStream::connect(running.addr).await.unwrap();
    first.write_all(GET).await.unwrap();
    assert_eq!(read_reply(&mut first).await.status, 200);
    assert_eq!(crate::support::raw(running.addr, GET).await.status, 503);
    running.swap(&text).await.unwrap();
    eventually("more", async || crate::support::raw(running.addr, GET).await.status == 200).await;
}

#[tokio::test]
async fn what_began_when_more_was_allowed_is_no_part_of_a_route_that_only_reads() {
    let (_neo4j, text) = graph().await;
    let mut running = sidekey(&text(""));
    let (transaction, affinity) = begin(&running).await;
    let only_reads = text("").replace("provider = \"neo4j\"", "provider = \"neo4j\"\nread_only = true");
    running.swap(&only_reads).await.unwrap();
    let refused = call(&running, Method::POST, &transaction, &affinity).await;
    assert_eq!(refused.status, 403, "{}", refused.text());
    let refused = call(&running, Method::POST, &format!("{transaction}/commit"), &affinity).await;
    assert_eq!(refused.status, 403, "{}", refused.text());
}

/// A Neo4j with a login, and a configuration for it.
async fn graph() -> (Neo4j, impl Fn(&str) -> String) {
    let neo4j = Neo4j::builder().sso_client("id", "secret").require_affinity().start().await.unwrap();
    let url = neo4j.url();
    let text = move |more: &str| {
        format!(
            "[server]\nlisten = \"127.0.0.1:0\"\n[route.graph]\nprovider = \"neo4j\"\npath = \"/\"\n\
             upstream = \"{url}\"\ncredential = \"sso\"\n[credential.sso]\ntype = \"client_credentials\"\n\
             token_url = \"{url}/sso/token\"\nclient_id = \"id\"\nclient_secret = {{ value = \"secret\" }}\n{more}\n"
        )
    };
    (neo4j, text)
}

#[tokio::test]
async fn a_transaction_goes_on_with_its_token_over_a_reload() {
    let (neo4j, text) = graph().await;
    let mut running = sidekey(&text(""));
    let (transaction, affinity) = begin(&running).await;
    running
        .swap(&text(
            "[route.other]\npath = \"/other\"\nupstream = \"http://127.0.0.1:9\"\ncredential = false",
        ))
        .await
        .unwrap();
    let committed = call(&running, Method::POST, &format!("{transaction}/commit"), &affinity).await;
    assert!((200..300).contains(&committed.status), "{} {}", committed.status, committed.text());
    assert_eq!(neo4j.open_transactions(), 0);
}

#[tokio::test]
async fn the_token_of_a_credential_that_is_gone_is_never_sent_again() {
    let (neo4j, text) = graph().await;
    let mut running = sidekey(&text(""));
    let (transaction, affinity) = begin(&running).await;
    running.swap(&text("scope = \"other\"")).await.unwrap();
    running.settled().await;
    let _ = call(&running, Method::POST, &transaction, &affinity).await;
    let seen = neo4j.record().requests();
    let token = |target: &str| {
        let of = |seen: &&sidekey::demo::standins::Seen| seen.target.ends_with(target);
        seen.iter().find(of).map(|seen| seen.header("authorization").unwrap().to_owned())
    };
    let (first, second) = (token("/query/v2/tx").unwrap(), token(&transaction));
    if let Some(second) = second {
        assert_ne!(first, second);
    }
}

/// `sidekey run` on a file of the test's, its listener, and what it logs.
struct Process {
    child: tokio::process::Child,
    folder: tempfile::TempDir,
    addr: SocketAddr,
    admin: SocketAddr,
}

impl Process {
    async fn start(text: &str, more: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let admin = crate::support::free();
        let addr = crate::support::free();
        let text = Self::placed(text, addr, admin);
        let file = private_file(folder.path().join("sidekey.toml"), &text);
        let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_sidekey"));
        command.args(["run", "-c"]).arg(&file).args(more).env_clear().env("XDG_RUNTIME_DIR", folder.path());
        command.kill_on_drop(true).stdout(std::fs::File::create(folder.path().join("out")).unwrap());
        command.stderr(std::fs::File::create(folder.path().join("log")).unwrap());
        let child = command.spawn().unwrap();
        // Asking the port would be asking whoever has it meanwhile.
        let out = folder.path().join("out");
        eventually("its start", async || std::fs::read_to_string(&out).unwrap().contains("admin on")).await;
        Self { child, folder, addr, admin }
    }

    fn placed(text: &str, addr: SocketAddr, admin: SocketAddr) -> String {
        text.replace("listen = \"127.0.0.1:0\"", &format!("listen = \"{addr}\"\nadmin = \"{admin}\""))
    }

    fn write(&self, text: &str) {
        let file = self.folder.path().join("sidekey.toml");
        private_file(file, &Self::placed(text, self.addr, self.admin));
    }

    async fn reload(&self) -> (Option<i32>, String) {
        let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_sidekey"));
        command.args(["reload", "-c"]).arg(self.folder.path().join("sidekey.toml"));
        command.env_clear().env("XDG_RUNTIME_DIR", self.folder.path());
        let output = patiently("the command", command.output()).await.unwrap();
        let text = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8(text).unwrap())
    }

    fn hang_up(&self) {
        let pid = rustix::process::Pid::from_raw(self.child.id().unwrap().cast_signed()).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::HUP).unwrap();
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap()
    }

    async fn says(&self, what: &str) {
        eventually(what, async || get(self.addr, "/", &[]).await.text() == what).await;
    }
}

#[tokio::test]
async fn a_signal_and_the_command_make_it_take_up_its_file() {
    let (one, two) = two_upstreams().await;
    let process = Process::start(&open_route(one.addr, ""), &[]).await;
    process.says("one").await;
    process.write(&open_route(two.addr, ""));
    process.hang_up();
    process.says("two").await;
    process.write(&open_route(one.addr, ""));
    assert_eq!(process.reload().await, (Some(0), "reloaded\n".to_owned()));
    process.says("one").await;
    let status = get(process.admin, "/status", &[]).await.json();
    assert_eq!(status["reloads"]["taken_up"], 2, "{status}");
    assert_eq!(status["routes"][0]["upstream"], format!("http://{}", one.addr), "{status}");
}

#[tokio::test]
async fn what_is_refused_is_told_and_the_configuration_before_is_in_force() {
    let one = upstream(OK).await;
    let text = open_route(one.addr, "");
    let process = Process::start(&text, &[]).await;
    process.write(&text.replace("credential = false", "credential = \"nowhere\"\ncolour = 1"));
    process.hang_up();
    eventually("the refusal", async || process.log().contains("not reloaded")).await;
    assert!(process.log().contains("colour") && process.log().contains("nowhere"), "{}", process.log());
    process.says("ok").await;
    process.write(&text.replace("[server]\n", "[server]\nworkers = 3\n"));
    let (status, said) = process.reload().await;
    assert_eq!(status, Some(2), "{said}");
    assert!(said.contains("`server.workers` cannot change while it runs"), "{said}");
    process
        .write(&format!("{text}[store]\ntype = \"file\"\npath = \"{}\"\n", process.folder.path().display()));
    let (status, said) = process.reload().await;
    assert_eq!(status, Some(2), "{said}");
    assert!(said.contains("`store` cannot change while it runs"), "{said}");
    let status = get(process.admin, "/status", &[]).await.json();
    assert_eq!(status["reloads"]["refused"], 3, "{status}");
    assert_eq!(status["reloads"]["last_was_refused"], true, "{status}");
    process.says("ok").await;
}

#[tokio::test]
async fn nobody_without_the_admin_token_reloads() {
    let one = upstream(OK).await;
    let process = Process::start(&open_route(one.addr, ""), &[]).await;
    let reload = async |method: Method, headers: &[(&str, &str)]| {
        crate::support::send(process.admin, method, "/reload", headers, "").await.status
    };
    assert_eq!(reload(Method::POST, &[]).await, 401);
    assert_eq!(reload(Method::POST, &[("sidekey-token", "x")]).await, 401);
    assert_eq!(reload(Method::POST, &[("origin", "http://evil.example")]).await, 403);
    assert_eq!(reload(Method::POST, &[("host", "evil.example")]).await, 403);
    assert_eq!(reload(Method::GET, &[]).await, 405);
    assert_eq!(get(process.admin, "/status", &[]).await.json()["reloads"]["taken_up"], 0);
}

#[tokio::test]
async fn a_changed_file_is_taken_up_by_itself_where_that_is_asked_for() {
    let (one, two) = two_upstreams().await;
    let process = Process::start(&open_route(one.addr, ""), &["--watch"]).await;
    process.says("one").await;
    process.write(&open_route(two.addr, ""));
    process.says("two").await;
    process.write("garbage");
    eventually("the refusal", async || process.log().contains("not reloaded")).await;
    process.says("two").await;
    // What it names is not there yet; once it is, nothing else has to change.
    let named = process.folder.path().join("upstream");
    let text = open_route(one.addr, "");
    let file = format!("upstream = {{ file = \"{}\" }}", named.display());
    process.write(&text.replace(&format!("upstream = \"http://{}\"", one.addr), &file));
    eventually("the refusal", async || process.log().matches("not reloaded").count() == 2).await;
    private_file(named, &format!("http://{}", one.addr));
    process.says("one").await;
}

#[tokio::test]
async fn the_admin_listener_moves_and_goes_by_the_new_rules() {
    let one = upstream(OK).await;
    let process = Process::start(&open_route(one.addr, ""), &[]).await;
    let moved = crate::support::free();
    let text = Process::placed(&open_route(one.addr, ""), process.addr, moved);
    let text = text.replace("[server]\n", "[server]\nhosts = [\"sidekey.internal\"]\n");
    private_file(process.folder.path().join("sidekey.toml"), &text);
    process.hang_up();
    eventually("the new place", async || TcpStream::connect(moved).await.is_ok()).await;
    eventually("the end of the old one", async || TcpStream::connect(process.admin).await.is_err()).await;
    assert_eq!(get(moved, "/livez", &[("host", "sidekey.internal")]).await.status, 200);
    assert_eq!(process.reload().await, (Some(0), "reloaded\n".to_owned()), "the token has moved as well");
}

#[tokio::test]
async fn an_answer_of_a_closed_listener_is_whole() {
    // Some of an answer is on its way when its listener goes: it comes to its end, and the connection with it.
    let goes_on = Arc::new(Notify::new());
    let slow = {
        let goes_on = Arc::clone(&goes_on);
        Scripted::start(move |_, mut stream| {
            let goes_on = Arc::clone(&goes_on);
            async move {
                while read_request(&mut stream).await.is_some() {
                    say(&mut stream, "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nold").await;
                    goes_on.notified().await;
                    say(&mut stream, "est").await;
                }
            }
        })
        .await
    };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s.sock");
    let with = open_route(slow.addr, "").replace(
        "listen = \"127.0.0.1:0\"",
        &format!("listen = [\"127.0.0.1:0\", \"unix:{}\"]", path.display()),
    );
    let mut running = sidekey(&with);
    let mut stream = tokio::net::UnixStream::connect(&path).await.unwrap();
    stream.write_all(GET).await.unwrap();
    eventually("the request upstream", async || slow.connections() == 1).await;
    running.swap(&open_route(slow.addr, "")).await.unwrap();
    eventually("the file's end", async || !path.exists()).await;
    goes_on.notify_one();
    let mut got = Vec::new();
    patiently("its answer", stream.read_to_end(&mut got)).await.unwrap();
    let got = String::from_utf8(got).unwrap();
    assert!(got.ends_with("\r\n\r\noldest"), "{got:?}");
    running.stop().await;
}
