//! `sidekey login` and `logout` as a person meets them: the real binary, with and without a running instance.
#![cfg(feature = "demo")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Output, Stdio};

use crate::support::browser::Browser;
use crate::support::running::{eventually, patiently};
use crate::support::{free, free_at_localhost, get};
use sidekey::demo::standins::authorization::{Consent, Registration};
use sidekey::demo::standins::{AuthorizationServer, Fault, Neon};
use tokio::io::AsyncWriteExt as _;
use tokio::process::{Child, Command};

/// A folder with a configuration, and what it talks to.
struct Place {
    server: AuthorizationServer,
    _neon: Neon,
    folder: tempfile::TempDir,
    admin: SocketAddr,
    listen: SocketAddr,
}

impl Place {
    async fn new(store: &str, more: &str) -> Self {
        let (admin, listen) = (free(), free());
        let redirect = format!("http://{}/callback", free());
        Self::with_redirect(admin, listen, &redirect, store, more).await
    }

    async fn with_redirect(
        admin: SocketAddr,
        listen: SocketAddr,
        redirect: &str,
        store: &str,
        more: &str,
    ) -> Self {
        let client = Registration::post("app", "canary-s3cret").redirect(redirect);
        let server = AuthorizationServer::builder().client(client).start().await.unwrap();
        let neon = Neon::builder().tokens(server.tokens().clone()).start().await.unwrap();
        let folder = tempfile::tempdir().unwrap();
        let at = server.url();
        let text = format!(
            "[server]\nlisten = \"{listen}\"\nadmin = \"{admin}\"\n\
             [route.neon]\nprovider = \"neon\"\npath = \"/\"\nupstream = \"{}\"\ncredential = \"neon\"\n\
             [route.open]\npath = \"/open\"\nupstream = \"{}\"\ncredential = {{ type = \"bearer\", token = {{ value = \"canary-static\" }} }}\n\
             [credential.neon]\ntype = \"authorization_code\"\nissuer = \"{}\"\nauth_url = \"{}\"\n\
             token_url = \"{}\"\nrevoke_url = \"{at}/oauth2/revoke\"\nclient_id = \"app\"\n\
             client_secret = {{ value = \"canary-s3cret\" }}\nauth_method = \"post\"\n\
             redirect_uri = \"{redirect}\"\nscope = [\"openid\", \"offline_access\"]\n{more}\n\
             [store]\n{}\n",
            neon.url(),
            neon.url(),
            server.issuer(),
            server.auth_url(),
            server.token_url(),
            store.replace("FOLDER", &folder.path().join("store").display().to_string()),
        );
        std::fs::write(folder.path().join("sidekey.toml"), text).unwrap();
        // A browser that writes down where it is sent.
        let browser = folder.path().join("browser");
        let script = "#!/bin/sh\nprintf %s \"$1\" > link.new && mv link.new link\n";
        std::fs::write(&browser, script).unwrap();
        std::fs::set_permissions(&browser, std::fs::Permissions::from_mode(0o700)).unwrap();
        Self { server, _neon: neon, folder, admin, listen }
    }

    fn spawn(&self, arguments: &[&str]) -> Child {
        self.prepare(arguments).spawn().unwrap()
    }

    fn prepare(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sidekey"));
        command.args(["--log-level", "trace"]).args(arguments).current_dir(self.folder.path()).env_clear();
        command.env("PATH", "/usr/bin:/bin").env("XDG_RUNTIME_DIR", self.folder.path());
        command.env("BROWSER", self.folder.path().join("browser"));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        command
    }

    async fn ended(&self, child: Child) -> Ended {
        Ended::new(patiently("the command", child.wait_with_output()).await.unwrap())
    }

    async fn command(&self, arguments: &[&str]) -> Ended {
        self.ended(self.spawn(arguments)).await
    }

    /// The link that the browser was opened with, once it was.
    async fn link(&self) -> String {
        let file = self.folder.path().join("link");
        eventually("an opened browser", async || file.exists()).await;
        let link = std::fs::read_to_string(&file).unwrap();
        std::fs::remove_file(file).unwrap();
        link
    }

    /// Logs in as a person who opens a browser and agrees.
    async fn log_in(&self, more: &[&str]) -> Ended {
        let child = self.spawn(&[&["login", "neon"], more].concat());
        let link = self.link().await;
        let mut browser = Browser::default();
        let (at, page) = browser.follow(&link).await;
        assert_eq!(page.status, 200, "{page:?}");
        let ended = self.ended(child).await;
        // Nothing of it is in a log, however much that says.
        let log = self.log() + &ended.stderr;
        assert!(log.contains("logged in"), "{log}");
        let secrets = at.query_pairs().filter(|(name, _)| name == "code" || name == "state");
        for (name, value) in secrets {
            assert!(!log.contains(&*value), "{name} in {log}");
        }
        let ticket = link.split_once("ticket=").unwrap().1;
        assert!(!log.contains(ticket) && !log.contains("canary"), "a secret in {log}");
        ended
    }

    /// A running instance; killed when dropped.
    async fn run(&self) -> Child {
        let log = std::fs::File::create(self.folder.path().join("log")).unwrap();
        let child = self.prepare(&["run"]).stdout(Stdio::null()).stderr(log).spawn().unwrap();
        let waited = self.command(&["wait", "--for", "live", "--timeout", "20s"]).await;
        assert_eq!(waited.status, 0, "{}", waited.stderr);
        child
    }

    /// What the instance has logged; nothing without one.
    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    async fn proxied(&self) -> u16 {
        get(self.listen, "/projects", &[]).await.status
    }
}

struct Ended {
    status: i32,
    stdout: String,
    stderr: String,
}

impl Ended {
    fn new(output: Output) -> Self {
        let text = |bytes| String::from_utf8(bytes).unwrap();
        let (stdout, stderr) = (text(output.stdout), text(output.stderr));
        assert!(!stdout.contains("canary") && !stderr.contains("canary"), "{stdout}{stderr}");
        Self { status: output.status.code().unwrap(), stdout, stderr }
    }
}

const FILE: &str = "type = \"file\"\npath = \"FOLDER\"";
const MEMORY: &str = "type = \"memory\"";

#[tokio::test]
async fn a_login_without_an_instance_is_there_when_one_starts() {
    let place = Place::new(FILE, "").await;
    let ended = place.log_in(&[]).await;
    assert_eq!(ended.status, 0, "{}", ended.stderr);
    assert!(ended.stdout.contains("Opening neon in the browser"), "{}", ended.stdout);
    assert!(
        ended.stdout.contains("logged in: credential neon, account default; granted: openid offline_access")
    );
    assert_eq!(place.server.logins(), 1);

    let _instance = place.run().await;
    eventually("the grant in force", async || place.proxied().await == 200).await;

    let out = place.command(&["logout", "neon"]).await;
    assert_eq!(out.status, 0, "{}", out.stderr);
    assert!(out.stdout.contains("revoked at the authorization server and forgotten"), "{}", out.stdout);
    assert_eq!((place.server.revocations(), place.server.reuses(), place.server.live_chains()), (1, 0, 0));
    eventually("the end of it", async || place.proxied().await == 503).await;
}

#[tokio::test]
async fn a_login_through_the_running_instance_counts_at_once() {
    let admin = free_at_localhost();
    let redirect = format!("http://localhost:{}/callback", admin.port());
    let place = Place::with_redirect(admin, free(), &redirect, MEMORY, "").await;
    let _instance = place.run().await;
    assert_eq!(place.proxied().await, 503);
    let ended = place.log_in(&["--account", "default"]).await;
    assert_eq!(ended.status, 0, "{}", ended.stderr);
    assert!(ended.stdout.contains("logged in: credential neon"), "{}", ended.stdout);
    eventually("the grant in force", async || place.proxied().await == 200).await;
    let _ = place.admin;
}

#[tokio::test]
async fn a_login_by_hand_needs_no_browser_here() {
    for with_instance in [false, true] {
        let place = Place::new(FILE, "").await;
        let _instance = if with_instance { Some(place.run().await) } else { None };
        let mut child = place.spawn(&["login", "neon", "--account", "alice", "--no-browser"]);
        let mut said = String::new();
        let mut stdout = child.stdout.take().unwrap();
        let url = patiently("the address", async {
            loop {
                let mut bytes = [0; 4096];
                let read = tokio::io::AsyncReadExt::read(&mut stdout, &mut bytes).await.unwrap();
                assert!(read > 0, "{said}");
                said.push_str(std::str::from_utf8(&bytes[..read]).unwrap());
                if said.contains("paste it here") {
                    return said.lines().find(|line| line.starts_with("http")).unwrap().to_owned();
                }
            }
        })
        .await;
        assert!(url.starts_with(&place.server.auth_url()), "{url}");
        let back = Browser::default().go(&url).await.header("location").unwrap().to_owned();
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(format!("{back}\n").as_bytes()).await.unwrap();
        let mut rest = String::new();
        patiently("its end", tokio::io::AsyncReadExt::read_to_string(&mut stdout, &mut rest)).await.unwrap();
        let ended = place.ended(child).await;
        assert_eq!(ended.status, 0, "{}", ended.stderr);
        assert!(rest.contains("logged in: credential neon, account alice"), "{rest}");
        assert!(!place.folder.path().join("link").exists(), "no browser was opened");
        assert!(!ended.stderr.contains(back.split_once("code=").unwrap().1), "the code in {}", ended.stderr);
    }
}

#[tokio::test]
async fn a_refused_login_says_why() {
    let place = Place::new(FILE, "").await;
    place.server.consent(Consent::Deny);
    let child = place.spawn(&["login", "neon"]);
    let (_, page) = Browser::default().follow(&place.link().await).await;
    assert_eq!(page.status, 400, "{page:?}");
    let ended = place.ended(child).await;
    assert_eq!(ended.status, 1);
    assert!(ended.stderr.contains("not granted"), "{}", ended.stderr);
}

#[tokio::test]
async fn a_login_that_nobody_finishes_ends() {
    for with_instance in [false, true] {
        let place = Place::new(FILE, "login_timeout = \"1s\"").await;
        let _instance = if with_instance { Some(place.run().await) } else { None };
        for arguments in [["login", "neon"].as_slice(), &["login", "neon", "--no-browser"]] {
            let ended = place.command(arguments).await;
            assert_eq!(ended.status, 1, "{arguments:?}");
        }
        let mut child = place.spawn(&["login", "neon", "--no-browser"]);
        let _open = child.stdin.take();
        let ended = place.ended(child).await;
        assert!(ended.status == 1 && ended.stderr.contains("begin again"), "{}", ended.stderr);
    }
}

#[tokio::test]
async fn ctrl_c_cancels() {
    let place = Place::new(FILE, "").await;
    let child = place.spawn(&["login", "neon"]);
    place.link().await;
    let pid = rustix::process::Pid::from_raw(child.id().unwrap().try_into().unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let ended = place.ended(child).await;
    assert!(ended.status == 1 && ended.stderr.contains("cancelled"), "{}", ended.stderr);
}

#[tokio::test]
async fn bad_usage_says_what_would_do() {
    let place = Place::new(MEMORY, "").await;
    let cases: [(&[&str], &str); 5] = [
        (&["login", "nein"], "those to log in to: neon"),
        (&["login", "route.open"], "those to log in to: neon"),
        (&["logout", "nein"], "those to log in to: neon"),
        (&["login", "neon", "--account", "a b"], "visible ASCII"),
        (&["login", "neon"], "sidekey run"),
    ];
    for (arguments, want) in cases {
        let ended = place.command(arguments).await;
        assert_eq!(ended.status, 2, "{arguments:?}: {}", ended.stderr);
        assert!(ended.stderr.contains(want), "{arguments:?}: {}", ended.stderr);
    }
}

#[tokio::test]
async fn a_port_in_use_is_told() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = taken.local_addr().unwrap();
    let redirect = format!("http://127.0.0.1:{}/callback", at.port());
    let place = Place::with_redirect(free(), free(), &redirect, FILE, "").await;
    let ended = place.command(&["login", "neon"]).await;
    assert_eq!(ended.status, 1);
    assert!(
        ended.stderr.contains(&at.to_string()) && ended.stderr.contains("--no-browser"),
        "{}",
        ended.stderr
    );
}

#[tokio::test]
async fn a_logout_forgets_though_the_server_does_not_answer() {
    let place = Place::new(FILE, "").await;
    assert_eq!(place.log_in(&[]).await.status, 0);
    place.server.revocation_fault(Fault::Status(500));
    let ended = place.command(&["logout", "neon"]).await;
    assert_eq!(ended.status, 1);
    assert!(
        ended.stdout.contains("forgotten here") && ended.stderr.contains("not revoked"),
        "{}",
        ended.stderr
    );
    let again = place.command(&["logout", "neon"]).await;
    assert_eq!(again.status, 0, "{}", again.stderr);
    assert!(again.stdout.contains("nobody was logged in"), "{}", again.stdout);
}
