//! The commands as a person or a supervisor meets them: the real binary, its output, its exit status.
#![cfg(feature = "demo")]

use std::path::Path;
use std::process::Stdio;

use crate::support::get;
use crate::support::running::{aura, aura_route, open_route, patiently, private_file};
use rustix::process::{Pid, Signal, kill_process};
use sidekey::demo::standins::Neo4j;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

const CANARY: &str = "canary-s3cret-of-commands";

fn command(folder: &Path, args: &[&str], environment: &[(&str, &str)]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sidekey"));
    // Not the admin listener's usual port, which several of these would share.
    command.args(args).current_dir(folder).env_clear().env("SIDEKEY_ADMIN", "false");
    command.envs(environment.iter().copied());
    command.env("PATH", "/usr/bin:/bin").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.kill_on_drop(true);
    command
}

/// What a command that ended left behind.
struct Ended {
    status: i32,
    stdout: String,
    stderr: String,
}

async fn sidekey(folder: &Path, args: &[&str], environment: &[(&str, &str)]) -> Ended {
    let output =
        patiently("the command", command(folder, args, environment).output()).await.expect("it runs");
    let text = |bytes| String::from_utf8(bytes).expect("text");
    let ended = Ended {
        status: output.status.code().expect("an exit status"),
        stdout: text(output.stdout),
        stderr: text(output.stderr),
    };
    assert!(
        !ended.stdout.contains(CANARY) && !ended.stderr.contains(CANARY),
        "{}{}",
        ended.stdout,
        ended.stderr
    );
    ended
}

/// A `sidekey run` that has said where it listens.
struct Run {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    addr: std::net::SocketAddr,
}

impl Run {
    async fn start(folder: &Path, args: &[&str], environment: &[(&str, &str)]) -> Self {
        let mut child = command(folder, args, environment).spawn().expect("it starts");
        let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
        let addr = patiently("the banner", async {
            loop {
                let line = lines.next_line().await.expect("text").expect("it says where it listens");
                if let Some(addr) = line.strip_prefix("listening on ") {
                    return addr.parse().expect("an address");
                }
            }
        })
        .await;
        Self { child, lines, addr }
    }

    /// Waits for a line on standard output that holds `what`.
    async fn says(&mut self, what: &str) -> String {
        patiently(what, async {
            loop {
                let line = self.lines.next_line().await.expect("text").expect("it goes on");
                if line.contains(what) {
                    return line;
                }
            }
        })
        .await
    }

    /// Sends a signal and waits; the exit status and what it said on standard error.
    async fn end(mut self, signal: Signal) -> (Option<i32>, String) {
        let pid = Pid::from_raw(i32::try_from(self.child.id().expect("it runs")).expect("small"))
            .expect("positive");
        kill_process(pid, signal).expect("it works");
        let mut stderr = String::new();
        let mut pipe = self.child.stderr.take().expect("a pipe");
        patiently("the end", pipe.read_to_string(&mut stderr)).await.expect("it works");
        (patiently("the end", self.child.wait()).await.expect("it works").code(), stderr)
    }
}

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("a folder")
}

#[tokio::test]
async fn without_any_configuration_it_says_what_to_do_next() {
    for subcommand in ["run", "check"] {
        let ended = sidekey(folder().path(), &[subcommand], &[]).await;
        assert_eq!((ended.status, ended.stdout.as_str()), (2, ""));
        for hint in ["AURA_CLIENT_ID", "NEO4J_URI", "NEON_API_KEY", "sidekey init", "sidekey demo"] {
            assert!(ended.stderr.contains(hint), "{hint}: {}", ended.stderr);
        }
    }
}

#[tokio::test]
async fn each_mistake_is_one_line_on_standard_error_and_exit_2() {
    let folder = folder();
    let two_lines = private_file(folder.path().join("two"), &format!("{CANARY}\nmore\n"));
    let with = |credential: &str| {
        open_route(([127, 0, 0, 1], 9).into(), "")
            .replace("credential = false", &format!("credential = {credential}"))
    };
    let basic = |username: &str| {
        with(&format!("{{ type = \"basic\", username = \"{username}\", password = {{ env = \"SECRET\" }} }}"))
    };
    let cases = [
        ("[server\n".to_owned(), "t.toml:1:"),
        (with("false") + "\n[server2]\n", "server2"),
        (with("false").replace("upstream", "upstraem"), "upstream"),
        (with("{ type = \"bearer\", token = { env = \"NOT_SET\" } }"), "NOT_SET"),
        (
            with(&format!("{{ type = \"bearer\", token = {{ file = \"{}\" }} }}", folder.path().display())),
            "directory",
        ),
        (with(&format!("{{ type = \"bearer\", token = {{ file = \"{}\" }} }}", two_lines.display())), "line"),
        (with("{ type = \"bearer\", token = { file = \"/no/such\" } }"), "/no/such"),
        (with(&format!("{{ type = \"bearer\", token = \"{CANARY}\" }}")), "token"),
        (with("false").replace("http://127.0.0.1:9", "127.0.0.1:9"), "upstream"),
        (
            with("false").replace("http://127.0.0.1:9", &format!("https://user:{CANARY}@h.example")),
            "upstream",
        ),
        (basic(""), "username"),
        (basic("neo:4j"), "username"),
        (with("false").replace("\"127.0.0.1:0\"", "\"0.0.0.0:0\""), "credentials"),
    ];
    for (text, hint) in cases {
        std::fs::write(folder.path().join("t.toml"), &text).unwrap();
        for subcommand in ["run", "check"] {
            let ended = sidekey(folder.path(), &[subcommand, "-c", "t.toml"], &[("SECRET", CANARY)]).await;
            assert_eq!((ended.status, ended.stdout.as_str()), (2, ""), "{text}{}", ended.stderr);
            let lines: Vec<_> = ended.stderr.lines().filter(|line| !line.starts_with("warning: ")).collect();
            assert!(
                !lines.is_empty() && lines.iter().all(|line| line.starts_with("t.toml")),
                "{}",
                ended.stderr
            );
            assert!(lines.iter().any(|line| line.contains(hint)), "{hint}: {}", ended.stderr);
            assert!(lines.len() <= 2, "{}", ended.stderr);
        }
    }
    let missing = sidekey(folder.path(), &["run", "-c", "none.toml"], &[]).await;
    assert!(missing.status == 2 && missing.stderr.contains("none.toml"), "{}", missing.stderr);
    assert_eq!(sidekey(folder.path(), &["rnu"], &[]).await.status, 2);
}

#[tokio::test]
async fn a_port_in_use_is_exit_1() {
    let folder = folder();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = taken.local_addr().unwrap().to_string();
    let text = open_route(([127, 0, 0, 1], 9).into(), "").replace("127.0.0.1:0", &addr);
    std::fs::write(folder.path().join("sidekey.toml"), text).unwrap();
    let ended = sidekey(folder.path(), &["run"], &[]).await;
    assert_eq!((ended.status, ended.stdout.as_str()), (1, ""));
    assert!(ended.stderr.contains(&addr) && ended.stderr.contains("in use"), "{}", ended.stderr);
}

#[tokio::test]
async fn the_environment_alone_runs_it_and_a_signal_ends_it_well() {
    let neo4j = Neo4j::builder().basic("neo4j", CANARY).start().await.unwrap();
    for (signal, format) in [(Signal::TERM, "json"), (Signal::INT, "text")] {
        let folder = folder();
        let password = private_file(folder.path().join("password"), CANARY);
        let mut run = Run::start(
            folder.path(),
            &["run", "--log-format", format, "--log-level", "trace"],
            &[
                ("SIDEKEY_LISTEN", "127.0.0.1:0"),
                ("NEO4J_URI", &neo4j.url()),
                ("NEO4J_USERNAME", "neo4j"),
                ("NEO4J_PASSWORD_FILE", password.to_str().unwrap()),
            ],
        )
        .await;
        let route = run.says("route neo4j: ").await;
        assert!(route.contains(&format!("http://{}", run.addr)) && route.contains(&neo4j.url()), "{route}");
        run.says("credential route.neo4j: ready").await;
        assert_eq!(get(run.addr, "/db/echo", &[]).await.status, 200);
        assert_eq!(get(run.addr, "/neo4j/db/echo", &[]).await.status, 200);
        assert_eq!(get(run.addr, "/", &[("origin", "null")]).await.status, 403);
        let arguments = std::fs::read_to_string(format!("/proc/{}/cmdline", run.child.id().unwrap()));
        assert!(arguments.is_ok_and(|text| text.contains("run") && !text.contains(CANARY)));
        let (status, log) = run.end(signal).await;
        assert_eq!(status, Some(0), "{log}");
        assert!(log.contains("cross_site") && !log.contains(CANARY), "{log}");
        if format == "json" {
            for line in log.lines() {
                let entry: serde_json::Value = serde_json::from_str(line).expect(line);
                assert!(entry["timestamp"].is_string() && entry["level"].is_string(), "{line}");
            }
        }
    }
}

#[tokio::test]
async fn commands_that_give_secrets_inherit_none() {
    let folder = folder();
    let seen = folder.path().join("seen");
    let helper = folder.path().join("helper");
    let script =
        format!("#!/bin/sh\ntr '\\0' '\\n' < /proc/self/environ > {}\necho printed\n", seen.display());
    private_file(helper.clone(), &script);
    std::fs::set_permissions(&helper, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    let text = format!(
        "[server]\nlisten = \"127.0.0.1:0\"\n\
         [route.a]\npath = \"/a\"\nupstream = \"http://127.0.0.1:9\"\n\
         credential = {{ type = \"bearer\", token = {{ exec = [\"{}\"] }} }}\n\
         [route.b]\npath = \"/b\"\nupstream = \"http://127.0.0.1:9\"\n\
         credential = {{ type = \"bearer\", token = {{ env = \"OTHER_SECRET\" }} }}\n",
        helper.display()
    );
    std::fs::write(folder.path().join("sidekey.toml"), text).unwrap();
    let environment = [("OTHER_SECRET", CANARY), ("HARMLESS", "passed-on")];
    let mut run = Run::start(folder.path(), &["run"], &environment).await;
    run.says("credential route.a: ready").await;
    let inherited = std::fs::read_to_string(&seen).unwrap();
    assert!(inherited.contains("HARMLESS=passed-on"), "{inherited}");
    assert!(!inherited.contains(CANARY) && !inherited.contains("OTHER_SECRET"), "{inherited}");
    assert_eq!(run.end(Signal::TERM).await.0, Some(0));
}

#[tokio::test]
async fn check_tells_good_from_bad_and_with_connect_whether_it_would_work() {
    let (aura, folder) = (aura().await, folder());
    let write = |text: String| std::fs::write(folder.path().join("sidekey.toml"), text).unwrap();
    write(aura_route(&aura, "client_secret = { env = \"SECRET\" }"));
    let right = [("SECRET", "s:cret")];
    let plain = sidekey(folder.path(), &["check"], &right).await;
    assert_eq!((plain.status, plain.stderr.as_str()), (0, ""));
    assert!(plain.stdout.contains("sidekey.toml: valid"), "{}", plain.stdout);
    assert_eq!(aura.record().connections(), 0, "it asks nobody");

    assert_eq!(sidekey(folder.path(), &["check"], &[]).await.status, 2);
    assert_eq!(sidekey(folder.path(), &["check", "--no-secrets"], &[]).await.status, 0);
    assert_eq!(sidekey(folder.path(), &["check", "--no-secrets", "--connect"], &right).await.status, 2);

    let connected = sidekey(folder.path(), &["check", "--connect"], &right).await;
    assert_eq!(connected.status, 0, "{}{}", connected.stdout, connected.stderr);
    assert!(connected.stdout.contains("credential aura: ready"), "{}", connected.stdout);
    assert_eq!((aura.record().token_requests(), aura.record().api_requests()), (1, 0));

    let wrong = sidekey(folder.path(), &["check", "--connect"], &[("SECRET", CANARY)]).await;
    assert_eq!(wrong.status, 2);
    assert!(wrong.stdout.contains("invalid_client") && wrong.stderr.contains("failed"), "{}", wrong.stdout);
    drop(aura);
    let gone = sidekey(folder.path(), &["check", "--connect"], &right).await;
    assert!(gone.status == 2 && gone.stdout.contains("cannot connect to 127.0.0.1"), "{}", gone.stdout);
}

#[tokio::test]
async fn explain_shows_where_a_request_goes_or_which_rule_refuses_it() {
    let (aura, folder) = (aura().await, folder());
    let text =
        aura_route(&aura, "client_secret = { env = \"SECRET\" }").replace("path = \"/\"", "path = \"/aura\"");
    std::fs::write(folder.path().join("t.toml"), text).unwrap();
    let explain = async |args: &[&str]| {
        let args = [&["explain", "-c", "t.toml"], args].concat();
        sidekey(folder.path(), &args, &[("SECRET", CANARY)]).await
    };
    let headers = ["-H", "Authorization: Bearer mine", "-H", "X-A: 1"];
    let allowed = explain(&[&["GET", "/aura/v1/instances?x=1"][..], &headers].concat()).await;
    assert_eq!(allowed.status, 0, "{}", allowed.stderr);
    for line in [
        "route       aura".to_owned(),
        format!("upstream    GET {}/v1/instances?x=1", aura.url()),
        "credential  aura (client_credentials)".to_owned(),
        "header      authorization: Bearer (redacted)".to_owned(),
        "header      x-a: 1".to_owned(),
    ] {
        assert!(allowed.stdout.lines().any(|shown| shown == line), "{line}\n{}", allowed.stdout);
    }
    assert!(!allowed.stdout.contains("Bearer mine"), "{}", allowed.stdout);
    let fetched = explain(&["POST", "/aura/oauth/token"]).await;
    assert_eq!(fetched.status, 0, "{}", fetched.stderr);
    assert!(fetched.stdout.contains("route       aura\nanswered    by sidekey itself"), "{}", fetched.stdout);
    assert!(!fetched.stdout.contains("upstream"), "{}", fetched.stdout);
    let refusals: [(&[&str], &str); 10] = [
        (&["GET", "/aura/oauth/token"], "405 method_refused: Tokens are asked for with POST"),
        (&["GET", "/other"], "404 no_route"),
        (&["GET", "/aura/x", "-H", "Origin: https://evil.example"], "403 cross_site"),
        (&["GET", "/aura/x", "-H", "Host: evil.example"], "403 forbidden_host"),
        (&["GET", "/aura/x", "-H", "Host: a", "-H", "Host: b"], "400 bad_request"),
        (&["TRACE", "/aura/x"], "405 method_refused"),
        (&["GET", "/aura/../x"], "400 bad_request: The path has a dot segment"),
        (&["GET", "/aura/a%2fb"], "400 bad_request: The path has an encoded slash (%2F)"),
        (&["GET", "/aura/a\\b"], "400 bad_request: The path has a backslash"),
        (&["GET", "/%61ura/100%"], "400 bad_request: The path has a percent sign"),
    ];
    for (args, refusal) in refusals {
        let ended = explain(args).await;
        assert_eq!((ended.status, ended.stderr.as_str()), (1, ""), "{refusal}");
        assert!(ended.stdout.contains(&format!("refused     {refusal}")), "{refusal}: {}", ended.stdout);
    }
    assert_eq!(explain(&["GET", "http://127.0.0.1:1/aura/x"]).await.status, 2, "nothing listens there");
    assert_eq!(aura.record().connections(), 0);
}

#[tokio::test]
async fn explain_tells_what_a_web_page_would_get() {
    let (aura, folder) = (aura().await, folder());
    let cors = "path = \"/\"\ncors = { origins = [\"https://app.example.com\"] }";
    let text = aura_route(&aura, "client_secret = { env = \"SECRET\" }").replace("path = \"/\"", cors);
    std::fs::write(folder.path().join("t.toml"), text).unwrap();
    let (app, evil) = ("Origin: https://app.example.com", "Origin: https://evil.example");
    let page = "page        of \"https://app.example.com\", which the route is open to";
    let cases: [(&[&str], i32, &[&str]); 4] = [
        (&["GET", "/x", "-H", app], 0, &[page, "route       aura", "removed     origin"]),
        (
            &["OPTIONS", "/x", "-H", app, "-H", "Access-Control-Request-Method: PUT"],
            0,
            &[page, "answered    204"],
        ),
        (&["GET", "/x", "-H", evil], 1, &["refused     403 cross_site"]),
        (&["GET", "/x", "-H", app, "-H", "Host: evil.example"], 1, &["refused     403 forbidden_host"]),
    ];
    for (args, status, shown) in cases {
        let args = [&["explain", "-c", "t.toml"], args].concat();
        let ended = sidekey(folder.path(), &args, &[("SECRET", CANARY)]).await;
        assert_eq!(ended.status, status, "{args:?}: {}{}", ended.stdout, ended.stderr);
        for shown in shown {
            assert!(ended.stdout.contains(shown), "{args:?}: {shown}\n{}", ended.stdout);
        }
    }
}

#[tokio::test]
async fn init_writes_a_valid_file_and_never_over_another() {
    let folder = folder();
    assert_eq!(sidekey(folder.path(), &["init"], &[]).await.status, 0);
    assert_eq!(sidekey(folder.path(), &["check", "--no-secrets"], &[]).await.status, 0);
    let path = private_file(folder.path().join("mine.toml"), "precious");
    let again = sidekey(folder.path(), &["init", "mine.toml"], &[]).await;
    assert!(again.status == 2 && again.stderr.contains("mine.toml"), "{}", again.stderr);
    assert_eq!(std::fs::read_to_string(path).unwrap(), "precious");
    assert_eq!(sidekey(folder.path(), &["init", "no/such/folder.toml"], &[]).await.status, 1);
}

#[tokio::test]
async fn schema_and_completions_are_printed_whole() {
    let folder = folder();
    let schema = sidekey(folder.path(), &["schema"], &[]).await;
    let value: serde_json::Value = serde_json::from_str(&schema.stdout).expect("JSON");
    assert!(schema.status == 0 && value["properties"]["route"].is_object());
    for shell in ["bash", "zsh", "fish"] {
        let script = sidekey(folder.path(), &["completions", shell], &[]).await;
        assert!(script.status == 0 && script.stdout.contains("explain"), "{shell}");
    }
    let version = sidekey(folder.path(), &["--version"], &[]).await;
    assert_eq!((version.status, version.stdout.trim()), (0, concat!("sidekey ", env!("CARGO_PKG_VERSION"))));
    let demo = sidekey(folder.path(), &["demo", "--once"], &[]).await;
    assert_eq!(demo.status, 0, "{}{}", demo.stdout, demo.stderr);
}

#[tokio::test]
async fn a_reader_that_is_gone_is_no_failure() {
    let folder = folder();
    let mut child = command(folder.path(), &["schema"], &[]).spawn().unwrap();
    drop(child.stdout.take());
    assert_eq!(patiently("the end", child.wait()).await.unwrap().code(), Some(0));
}

#[tokio::test]
async fn requests_are_answered_when_nobody_reads_the_log_any_more() {
    let folder = folder();
    let text = open_route(([127, 0, 0, 1], 9).into(), "");
    private_file(folder.path().join("sidekey.toml"), &text);
    let mut run = Run::start(folder.path(), &["run"], &[]).await;
    drop(run.child.stderr.take());
    // Each of these is a line in the log.
    for _ in 0..3 {
        assert_eq!(get(run.addr, "/", &[("origin", "https://evil.example")]).await.status, 403);
        assert_eq!(get(run.addr, "/", &[]).await.status, 502);
    }
}

#[tokio::test]
async fn explain_names_the_account_that_a_request_is_for() {
    let folder = folder();
    let text = "[route.neon]\nprovider = \"neon\"\ncredential = \"neon\"\n[credential.neon]\ntype = \"neon_oauth\"\n\
                client_id = \"app\"\nclient_secret = { value = \"x\" }\nredirect_uri = \"http://localhost:3000/back\"\n";
    private_file(folder.path().join("t.toml"), &format!("{text}account_header = \"X-User\"\n"));
    private_file(folder.path().join("one.toml"), text);
    let explain = async |file: &str, more: &[&str]| {
        let args = [&["explain", "-c", file, "GET", "/projects"], more].concat();
        sidekey(folder.path(), &args, &[]).await
    };
    let named = explain("t.toml", &["--account", "alice", "-H", "X-User: bob"]).await;
    assert_eq!(named.status, 0, "{}", named.stderr);
    assert!(named.stdout.contains("account     alice\n"), "{}", named.stdout);
    assert!(named.stdout.contains("removed     x-user"), "{}", named.stdout);
    let nobody = explain("t.toml", &[]).await;
    assert_eq!(nobody.status, 1);
    assert!(nobody.stdout.contains("refused     400 bad_request"), "{}", nobody.stdout);
    let default = explain("one.toml", &[]).await;
    assert!(default.stdout.contains("account     default\n"), "{}", default.stdout);
    let useless = explain("one.toml", &["--account", "alice"]).await;
    assert_eq!(useless.status, 2);
    assert!(useless.stderr.contains("account_header"), "{}", useless.stderr);
}

#[tokio::test]
async fn a_service_manager_is_told_when_it_serves_that_it_lives_and_when_it_stops() {
    let folder = tempfile::tempdir().unwrap();
    let aura = aura().await;
    private_file(folder.path().join("sidekey.toml"), &aura_route(&aura, ""));
    let socket = folder.path().join("notify");
    let told = tokio::net::UnixDatagram::bind(&socket).unwrap();
    let mut lines = std::collections::VecDeque::<String>::new();
    let mut until = async |word: &str| {
        patiently(word, async {
            loop {
                while let Some(line) = lines.pop_front() {
                    if line == word {
                        return;
                    }
                    let known = ["STATUS=", "WATCHDOG=1"].iter().any(|known| line.starts_with(known));
                    assert!(known, "{line} while waiting for {word}");
                }
                let mut bytes = [0; 1024];
                let length = told.recv(&mut bytes).await.unwrap();
                lines.extend(String::from_utf8(bytes[..length].to_vec()).unwrap().lines().map(str::to_owned));
            }
        })
        .await;
    };
    let variables = [("NOTIFY_SOCKET", socket.to_str().unwrap()), ("WATCHDOG_USEC", "100000")];
    let run = Run::start(folder.path(), &["run"], &variables).await;
    until("READY=1").await;
    until("WATCHDOG=1").await;
    until("WATCHDOG=1").await;
    let ((status, _), ()) = tokio::join!(run.end(Signal::TERM), async {
        until("STOPPING=1").await;
    });
    assert_eq!(status, Some(0));
}

#[tokio::test]
async fn explain_names_the_rule_that_refuses() {
    let folder = tempfile::tempdir().unwrap();
    let text = "[server]\nlisten = \"127.0.0.1:7600\"\nmax_target = \"64B\"\nmax_headers = 3\n\
                [route.a]\npath = \"/a\"\nupstream = \"http://127.0.0.1:1\"\ncredential = false\ndeny = [\"DELETE /**\"]\n\
                [route.b]\npath = \"/b\"\nupstream = \"http://127.0.0.1:1\"\ncredential = false\nread_only = true\n\
                [caller.ci]\ntoken = { env = \"T\" }\nroutes = [\"a\"]\nallow = [\"GET,DELETE /x/*\"]\n\
                [caller.web]\ntoken = { env = \"U\" }\n";
    private_file(folder.path().join("sidekey.toml"), text);
    let long = format!("/a/{}", "x".repeat(64));
    let cases: [(&[&str], &str, &str); 11] = [
        (&["--caller", "web", "DELETE", "/a/x"], "403 not_allowed", "deny \"DELETE /**\" ([route.a])"),
        (&["--caller", "ci", "GET", "/a/y"], "403 not_allowed", "no rule of allow matches ([caller.ci])"),
        (
            &["--caller", "ci", "GET", "/b/x/1"],
            "403 not_allowed",
            "routes does not name this route ([caller.ci])",
        ),
        (&["--caller", "web", "PUT", "/b/x"], "403 not_allowed", "read_only = true ([route.b])"),
        (
            &["--caller", "ci", "GET", "/a/x/1", "-H", "X-HTTP-Method-Override: DELETE"],
            "403 not_allowed",
            "x-http-method-override",
        ),
        (&["GET", "/a/x"], "401 caller_unknown", "there are callers"),
        (&["--caller", "web", "GET", "/c"], "404 no_route", "no `listen`, `host` or `path`"),
        (
            &["--caller", "web", "GET", "/a", "-H", "Host: evil.example"],
            "403 forbidden_host",
            "hosts does not name",
        ),
        (
            &["--caller", "web", "GET", "/a", "-H", "Origin: https://x.example"],
            "403 cross_site",
            "cors does not name this page's origin ([route.a])",
        ),
        (&["--caller", "web", "GET", &long], "414 target_too_long", "max_target ([server])"),
        (
            &["--caller", "web", "GET", "/a", "-H", "a: 1", "-H", "b: 1", "-H", "c: 1"],
            "431 headers_too_large",
            "max_headers ([server])",
        ),
    ];
    for (words, refused, rule) in cases {
        let words = [&["explain"], words].concat();
        let told = sidekey(folder.path(), &words, &[]).await;
        assert_eq!(told.status, 1, "{words:?}: {}{}", told.stdout, told.stderr);
        let line = |begin: &str, rest: &str| {
            told.stdout
                .lines()
                .any(|line| line.strip_prefix(begin).is_some_and(|found| found.trim().contains(rest)))
        };
        assert!(line("refused", refused) && line("rule", rule), "{words:?}: {}", told.stdout);
    }
    let passes = sidekey(folder.path(), &["explain", "--caller", "ci", "GET", "/a/x/1"], &[]).await;
    assert_eq!(passes.status, 0, "{}", passes.stdout);
}
