//! What the process gives up: the real binary, with and without `sandbox`, and what it cannot do any more.
#![cfg(all(feature = "demo", target_os = "linux"))]

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use crate::support::recorder::Recorder;
use crate::support::running::{aura, eventually, patiently, private_file};
use crate::support::tls::{Authority, TlsServer};
use crate::support::{get, raw_unix};
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

/// A folder with a place for each thing, none of which lies within another.
struct Places {
    folder: tempfile::TempDir,
}

impl Places {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        for place in ["conf", "secrets", "outside", "runtime", "sockets", "helpers"] {
            std::fs::create_dir(folder.path().join(place)).expect("a folder");
        }
        Self { folder }
    }

    fn at(&self, path: &str) -> PathBuf {
        self.folder.path().join(path)
    }

    /// Gives `name` the content by renaming another file over it.
    fn swap(&self, name: &str, content: &str) {
        let fresh = private_file(self.at("secrets/fresh"), content);
        std::fs::rename(fresh, self.at(name)).expect("renamed");
    }

    fn text(&self, path: &str) -> String {
        std::fs::read_to_string(self.at(path)).unwrap_or_default()
    }
}

/// A `sidekey run` that has said where it listens.
struct Run {
    child: Child,
    addr: SocketAddr,
    admin: Option<SocketAddr>,
    log: PathBuf,
}

impl Run {
    async fn start(places: &Places, text: &str) -> Self {
        private_file(places.at("conf/sidekey.toml"), text);
        let log = places.at("log");
        let mut command = Command::new(env!("CARGO_BIN_EXE_sidekey"));
        command.args(["run", "-c", "conf/sidekey.toml"]).current_dir(places.folder.path()).env_clear();
        command.env("PATH", "/usr/bin:/bin").env("XDG_RUNTIME_DIR", places.at("runtime"));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true);
        command.stderr(std::fs::File::create(&log).expect("a log"));
        let mut child = command.spawn().expect("it starts");
        let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
        let (mut addr, mut admin) = (None, None);
        patiently("what it says", async {
            loop {
                let Some(line) = lines.next_line().await.expect("text") else {
                    panic!("it ended: {}", std::fs::read_to_string(&log).unwrap_or_default());
                };
                if let Some(found) = line.strip_prefix("listening on ") {
                    addr = addr.or(found.parse().ok());
                } else if let Some(found) = line.strip_prefix("admin on http://") {
                    admin = found.parse().ok();
                } else if line.starts_with("credential") {
                    break;
                }
            }
        })
        .await;
        // What it says from here on has a reader, or it would be told that it has none.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        Self { child, addr: addr.expect("an address"), admin, log }
    }

    fn log(&self) -> String {
        std::fs::read_to_string(&self.log).expect("a log")
    }

    async fn end(mut self) -> Option<i32> {
        let id = self.child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        kill_process(id.expect("it runs"), Signal::TERM).expect("signalled");
        patiently("the end", self.child.wait()).await.expect("waited").code()
    }
}

/// Does the kernel have Landlock with rules for TCP? Where it has not, there is nothing to be seen, which is said.
#[expect(clippy::print_stderr, reason = "a test that skips says so")]
async fn kernel_confines() -> bool {
    let places = Places::new();
    let text = "[server]\nlisten = \"127.0.0.1:0\"\nadmin = \"127.0.0.1:0\"\nsandbox = true\n\
                [route.a]\nupstream = \"http://127.0.0.1:9\"\n\
                credential = { type = \"bearer\", token = { value = \"t\" } }\n";
    let run = Run::start(&places, text).await;
    let status = get(run.admin.expect("an admin listener"), "/status", &[]).await;
    let status: serde_json::Value = serde_json::from_slice(&status.body).expect("JSON");
    let version = status["sandbox"]["landlock"].as_u64();
    assert_eq!(run.log().contains("NOT CONFINED"), version.is_none(), "{}", run.log());
    assert!(!status["sandbox"]["not_confined"].as_array().expect("a list").is_empty(), "{status}");
    if version.is_none_or(|version| version < 4) {
        eprintln!("skipped: the kernel's Landlock is {version:?}, and 4 is needed for ports");
        return false;
    }
    true
}

#[tokio::test]
async fn a_confined_process_does_all_that_it_is_configured_for() {
    if !kernel_confines().await {
        return;
    }
    let (places, aura, authority) = (Places::new(), aura().await, Authority::new());
    let identity = authority.issue(&["localhost"]);
    let secure = TlsServer::start(&identity, None, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
    // As Kubernetes mounts a secret.
    for version in ["..1", "..2"] {
        std::fs::create_dir(places.at("secrets").join(version)).unwrap();
    }
    private_file(places.at("secrets/..1/token"), "first-token");
    private_file(places.at("secrets/..2/token"), "second-token");
    std::os::unix::fs::symlink("..1", places.at("secrets/..data")).unwrap();
    std::os::unix::fs::symlink("..data/token", places.at("secrets/token")).unwrap();
    places.swap("secrets/client", "s:cret");
    let text = format!(
        "[server]\nlisten = [\"127.0.0.1:0\", \"unix:{sockets}/proxy.sock\"]\nadmin = \"127.0.0.1:0\"\n\
         sandbox = true\n\
         [store]\ntype = \"file\"\npath = \"{store}\"\n\
         [route.aura]\nprovider = \"aura\"\npath = \"/aura\"\nupstream = \"http://localhost:{aura}\"\n\
         credential = \"aura\"\n\
         [route.tls]\npath = \"/tls\"\nupstream = \"https://localhost:{secure}\"\ntls = {{ ca = \"{ca}\" }}\n\
         credential = {{ type = \"bearer\", token = {{ file = \"{secrets}/token\" }} }}\n\
         [credential.aura]\ntype = \"aura\"\ntoken_url = \"http://localhost:{aura}/oauth/token\"\n\
         client_id = \"id\"\nclient_secret = {{ file = \"{secrets}/client\" }}\nhosts = [\"localhost\"]\n",
        sockets = places.at("sockets").display(),
        store = places.at("state/deep/store").display(),
        aura = aura.addr().port(),
        secure = secure.addr.port(),
        ca = authority.ca.display(),
        secrets = places.at("secrets").display(),
    );
    let run = Run::start(&places, &text).await;
    eventually("tokens", async || get(run.addr, "/aura/v1/instances", &[]).await.status == 200).await;
    let socket = places.at("sockets/proxy.sock");
    let head = "GET /aura/v1/instances HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    assert_eq!(raw_unix(&socket, head).await.status, 200, "{}", run.log());
    let seen = async |token: &str| {
        assert_eq!(get(run.addr, "/tls/x", &[]).await.status, 200, "{}", run.log());
        secure.visits().last().expect("a visit").head.contains(&format!("Bearer {token}"))
    };
    eventually("the first token", async || seen("first-token").await).await;
    std::os::unix::fs::symlink("..2", places.at("secrets/..new")).unwrap();
    std::fs::rename(places.at("secrets/..new"), places.at("secrets/..data")).unwrap();
    eventually("the second token", async || seen("second-token").await).await;
    places.swap("secrets/token", "third-token");
    eventually("the third token", async || seen("third-token").await).await;
    // A secret that was replaced is read for the next fetch.
    let fetches = aura.record().token_requests();
    places.swap("secrets/client", "s:cret");
    eventually("a refresh", async || aura.record().token_requests() > fetches).await;
    assert!(places.at("state/deep/store").is_dir());
    assert_eq!(std::fs::read_dir(places.at("runtime/sidekey")).unwrap().count(), 1);
    let log = run.log();
    assert!(log.contains("sandbox: on") && !log.to_lowercase().contains("permission denied"), "{log}");
    assert_eq!(run.end().await, Some(0), "{log}");
    // What it made it could remove.
    assert!(!socket.exists());
    assert_eq!(std::fs::read_dir(places.at("runtime/sidekey")).unwrap().count(), 0);
}

#[tokio::test]
async fn a_secret_that_comes_to_lie_elsewhere_is_read_only_without_a_sandbox() {
    if !kernel_confines().await {
        return;
    }
    for confined in [false, true] {
        let (places, upstream) = (Places::new(), Recorder::start().await);
        private_file(places.at("secrets/token"), "inside-token");
        private_file(places.at("outside/token"), "outside-token");
        let text = format!(
            "[server]\nlisten = \"127.0.0.1:0\"\nadmin = \"127.0.0.1:0\"\nsandbox = {confined}\n\
             [route.a]\nupstream = \"http://{}\"\n\
             credential = {{ type = \"bearer\", token = {{ file = \"{}\" }} }}\n",
            upstream.addr,
            places.at("secrets/token").display(),
        );
        let run = Run::start(&places, &text).await;
        std::os::unix::fs::symlink(places.at("outside/token"), places.at("secrets/new")).unwrap();
        std::fs::rename(places.at("secrets/new"), places.at("secrets/token")).unwrap();
        let admin = run.admin.expect("an admin listener");
        if confined {
            eventually("the failure", async || {
                get(admin, "/status", &[]).await.text().contains("Permission denied")
            })
            .await;
            get(run.addr, "/", &[]).await;
            assert!(!upstream.take().contains("outside-token"));
            // It recovers once the secret is back where it belongs.
            places.swap("secrets/token", "back-again");
        }
        let wanted = if confined { "back-again" } else { "outside-token" };
        eventually("a new token", async || {
            get(run.addr, "/", &[]).await;
            upstream.take().contains(wanted)
        })
        .await;
        let status: serde_json::Value =
            serde_json::from_slice(&get(admin, "/status", &[]).await.body).expect("JSON");
        assert_eq!(status["sandbox"].is_object(), confined, "{status}");
        assert_eq!(run.end().await, Some(0));
    }
}

#[tokio::test]
async fn a_command_runs_within_the_sandbox() {
    if !kernel_confines().await || !Path::new("/bin/bash").exists() {
        return;
    }
    for confined in [false, true] {
        let (places, upstream) = (Places::new(), Recorder::start().await);
        let elsewhere = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        private_file(places.at("outside/secret"), "outside");
        // What it may do, by a letter for each that it did: read outside, connect to a port of nobody's, write, read its own.
        let script = format!(
            "#!/bin/bash\ndid=did-\n\
             cat {places}/outside/secret > /dev/null && did+=r\n\
             (exec 3<>/dev/tcp/127.0.0.1/{port}) && did+=c\n\
             echo x > {places}/helpers/made && did+=w\n\
             cat {places}/helpers/own > /dev/null && did+=o\n\
             echo $did\n",
            places = places.folder.path().display(),
            port = elsewhere.local_addr().unwrap().port(),
        );
        private_file(places.at("helpers/own"), "own");
        let helper = private_file(places.at("helpers/token"), &script);
        std::fs::set_permissions(&helper, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
        let text = format!(
            "[server]\nlisten = \"127.0.0.1:0\"\nadmin = false\nsandbox = {confined}\n\
             [route.a]\nupstream = \"http://{}\"\n\
             credential = {{ type = \"bearer\", token = {{ exec = [\"{}\"] }} }}\n",
            upstream.addr,
            helper.display(),
        );
        let run = Run::start(&places, &text).await;
        assert_eq!(get(run.addr, "/", &[]).await.status, 200, "{}", run.log());
        let sent = upstream.take();
        let want = if confined { "Bearer did-o\r\n" } else { "Bearer did-rcwo\r\n" };
        assert!(sent.contains(want), "{confined}: {sent}");
        assert_eq!(places.text("helpers/made").is_empty(), confined);
        assert_eq!(run.end().await, Some(0));
    }
}

#[tokio::test]
async fn a_command_of_exec_is_not_confined_and_gets_its_signals() {
    if !kernel_confines().await {
        return;
    }
    let (places, upstream) = (Places::new(), Recorder::start().await);
    private_file(places.at("outside/secret"), "outside");
    private_file(places.at("secrets/token"), "inside-token");
    let text = format!(
        "[server]\nsandbox = true\n[route.a]\nupstream = \"http://{}\"\n\
         credential = {{ type = \"bearer\", token = {{ file = \"{}\" }} }}\n",
        upstream.addr,
        places.at("secrets/token").display(),
    );
    private_file(places.at("conf/sidekey.toml"), &text);
    let script = "trap 'exit 7' TERM; cat outside/secret > seen; echo $SIDEKEY_URL > url; \
                  while :; do sleep 0.05; done";
    let mut command = Command::new(env!("CARGO_BIN_EXE_sidekey"));
    command.args(["exec", "-c", "conf/sidekey.toml", "--", "/bin/sh", "-c", script]);
    command.current_dir(places.folder.path()).env_clear().env("PATH", "/usr/bin:/bin").kill_on_drop(true);
    command.env("XDG_RUNTIME_DIR", places.at("runtime")).stdin(Stdio::null());
    command.stderr(std::fs::File::create(places.at("log")).expect("a log"));
    let mut child = command.spawn().expect("it starts");
    eventually("what the command writes", async || places.text("url").ends_with('\n')).await;
    assert_eq!(places.text("seen"), "outside", "{}", places.text("log"));
    let url = places.text("url");
    let addr = url.trim().strip_prefix("http://").and_then(|addr| addr.parse().ok()).expect(&url);
    eventually("a token", async || get(addr, "/", &[]).await.status == 200).await;
    assert!(upstream.take().contains("Bearer inside-token"));
    assert!(places.text("log").contains("sandbox: on"), "{}", places.text("log"));
    // The proxy itself is confined.
    std::fs::remove_file(places.at("secrets/token")).expect("removed");
    private_file(places.at("outside/token"), "outside-token");
    std::os::unix::fs::symlink(places.at("outside/token"), places.at("secrets/token")).expect("a link");
    eventually("the failure", async || places.text("log").contains("Permission denied")).await;
    let id = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
    kill_process(id.expect("it runs"), Signal::TERM).expect("signalled");
    let status = patiently("the end", child.wait()).await.expect("waited");
    assert_eq!(status.code(), Some(7), "{}", places.text("log"));
}

#[tokio::test]
async fn it_leaves_no_core_dump_and_gains_no_privileges_and_no_debugger_gets_in() {
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
    let folder = tempfile::tempdir().unwrap();
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let program = folder.path().join("sidekey");
    std::fs::copy(env!("CARGO_BIN_EXE_sidekey"), &program).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    let mut command = Command::new(&program);
    command.arg("run").current_dir("/").env_clear().env("NEON_API_KEY", "key");
    command.env("SIDEKEY_LISTEN", "127.0.0.1:0").env("SIDEKEY_ADMIN", "false");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true);
    if rustix::process::geteuid().is_root() {
        // The kernel's files of a process of root's are root's in any case.
        command.uid(65534).gid(65534);
    }
    let mut child = command.spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    patiently("the banner", async {
        while !lines.next_line().await.unwrap().expect("it goes on").starts_with("listening on ") {}
    })
    .await;
    let of_process = |name: &str| PathBuf::from(format!("/proc/{}/{name}", child.id().unwrap()));
    let status = std::fs::read_to_string(of_process("status")).unwrap();
    assert!(status.lines().any(|line| line == "NoNewPrivs:\t1"), "{status}");
    let limits = std::fs::read_to_string(of_process("limits")).unwrap();
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    let core: Vec<_> = core.split_whitespace().skip(4).take(2).collect();
    assert_eq!(core, ["0", "0"], "{limits}");
    // Of a process that could be dumped and debugged, they would be its user's (proc(5)).
    for name in ["environ", "mem"] {
        assert_eq!(std::fs::metadata(of_process(name)).unwrap().uid(), 0, "{name}");
    }
}
