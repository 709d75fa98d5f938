//! The admin listener and the commands that ask it, with the real binary.
#![cfg(feature = "demo")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use crate::support::running::eventually;
use crate::support::{free, get, send};
use http::Method;
use sidekey::admin::Readiness;
use sidekey::clock::Clock;
use sidekey::credential::Credentials;
use sidekey::demo::standins::Aura;
use sidekey::demo::standins::Fault;

/// A running binary with its own configuration and runtime folder; killed when dropped.
struct Instance {
    folder: tempfile::TempDir,
    admin: SocketAddr,
    health: SocketAddr,
    child: Child,
}

impl Instance {
    fn start(aura: &Aura, more: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (admin, health) = (free(), free());
        let url = aura.url();
        let text = format!(
            "[server]\nlisten = \"127.0.0.1:0\"\nadmin = \"{admin}\"\nhealth = \"{health}\"\n{more}\n\
             [route.aura]\nprovider = \"aura\"\npath = \"/aura\"\nupstream = \"{url}\"\ncredential = \"aura\"\n\
             [credential.aura]\ntype = \"aura\"\ntoken_url = \"{url}/oauth/token\"\nclient_id = \"id\"\n\
             client_secret = {{ value = \"canary-secret\" }}\n"
        );
        std::fs::write(folder.path().join("sidekey.toml"), text).unwrap();
        let child =
            command(folder.path(), &["run"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        Self { folder, admin, health, child }
    }

    fn ask(&self, arguments: &[&str]) -> Output {
        command(self.folder.path(), arguments).output().unwrap()
    }

    async fn command(&self, arguments: &[&str]) -> Output {
        // Off this thread, on which the stand-in answers.
        let mut command = command(self.folder.path(), arguments);
        let run = move || command.output().unwrap();
        tokio::task::spawn_blocking(run).await.unwrap()
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn command(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sidekey"));
    command.args(arguments).current_dir(folder).env_clear().env("XDG_RUNTIME_DIR", folder);
    command
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

async fn aura() -> Aura {
    Aura::builder().client("id", "canary-secret").start().await.unwrap()
}

#[tokio::test]
async fn an_instance_is_waited_for_looked_at_and_stopped_by_its_configuration() {
    let aura = aura().await;
    let mut instance = Instance::start(&aura, "");
    let waited = instance.command(&["wait", "--for", "ready", "--timeout", "20s"]).await;
    assert!(waited.status.success(), "{}", text(&waited.stderr));
    let status = instance.command(&["status", "--json"]).await;
    let status: serde_json::Value = serde_json::from_slice(&status.stdout).unwrap();
    assert_eq!(status["readiness"], "ready");
    assert_eq!(status["routes"][0]["name"], "aura");
    assert_eq!(status["accounts"][0]["state"], "ready");
    assert!(!status.to_string().contains("canary"));
    let table = text(&instance.command(&["status"]).await.stdout);
    assert!(table.contains("ready") && table.contains("CREDENTIAL"), "{table}");
    let stopped = instance.command(&["stop"]).await;
    assert!(stopped.status.success(), "{}", text(&stopped.stderr));
    let ended =
        tokio::task::spawn_blocking(move || (instance.child.wait().unwrap(), instance)).await.unwrap();
    assert_eq!(ended.0.code(), Some(0));
    let nobody = ended.1.ask(&["status"]);
    assert_eq!(nobody.status.code(), Some(1));
    assert!(text(&nobody.stderr).contains("no instance"), "{}", text(&nobody.stderr));
}

#[tokio::test]
async fn readiness_follows_the_tokens_and_liveness_does_not() {
    let aura =
        Aura::builder().client("id", "canary-secret").token_lifetime(std::time::Duration::from_secs(4));
    let aura = aura.start().await.unwrap();
    aura.token_fault(Fault::Status(500));
    let instance = Instance::start(&aura, "");
    let (admin, health) = (instance.admin, instance.health);
    let live = instance.command(&["wait", "--for", "live", "--timeout", "20s"]).await;
    assert!(live.status.success(), "{}", text(&live.stderr));
    eventually("the first failure", async || get(admin, "/readyz", &[]).await.text().contains("500")).await;
    let unready = get(admin, "/readyz", &[]).await;
    assert_eq!((unready.status, unready.text().lines().next()), (503, Some("not ready")));
    assert_eq!(get(health, "/readyz", &[]).await.text(), "not ready\n", "why is not for everyone");
    let late = instance.command(&["wait", "--timeout", "300ms"]).await;
    assert_eq!(late.status.code(), Some(1));
    assert!(text(&late.stderr).contains("not ready"), "{}", text(&late.stderr));
    aura.token_fault(Fault::None);
    eventually("readiness", async || get(health, "/readyz", &[]).await.status == 200).await;
    aura.token_fault(Fault::Status(500));
    eventually("a failed refresh", async || get(admin, "/readyz", &[]).await.text().starts_with("degraded"))
        .await;
    assert_eq!(get(admin, "/livez", &[]).await.status, 200);
    eventually("the expiry", async || get(admin, "/readyz", &[]).await.status == 503).await;
}

#[tokio::test]
async fn an_instance_that_stops_is_not_ready_whatever_its_tokens() {
    let instance = {
        let clock = Clock::system();
        let vault = sidekey::credential::Vault::in_memory(&clock);
        let (credentials, description) = (Credentials::default(), serde_json::Value::Null);
        let subject = sidekey::admin::Subject { credentials, vault, description };
        sidekey::admin::Instance::new(subject, clock, std::sync::Arc::default(), std::sync::Arc::default())
    };
    assert_eq!(instance.readiness(), Readiness::Ready);
    instance.stops();
    assert_eq!(instance.readiness().word(), "not ready");
    assert_eq!(instance.status()["readiness"], "not ready");
}

#[tokio::test]
async fn only_who_may_gets_in() {
    let aura = aura().await;
    let instance = Instance::start(&aura, "");
    let (admin, health) = (instance.admin, instance.health);
    assert!(instance.command(&["wait", "--timeout", "20s"]).await.status.success());
    let status = |address, method: Method, path: &'static str, headers: Vec<(&'static str, &'static str)>| async move {
        send(address, method, path, &headers, "").await.status
    };
    let (get, post) = (Method::GET, Method::POST);
    assert_eq!(status(admin, get.clone(), "/status", vec![("host", "evil.example")]).await, 403);
    assert_eq!(status(admin, get.clone(), "/status", vec![("origin", "https://evil.example")]).await, 403);
    assert_eq!(status(admin, post.clone(), "/quitquitquit", vec![]).await, 401);
    assert_eq!(status(admin, post.clone(), "/quitquitquit", vec![("sidekey-token", "guess")]).await, 401);
    assert_eq!(status(admin, get.clone(), "/quitquitquit", vec![]).await, 405);
    assert_eq!(status(admin, get.clone(), "/nothing", vec![]).await, 404);
    assert_eq!(status(health, get.clone(), "/livez", vec![("host", "10.1.2.3:7602")]).await, 200);
    assert_eq!(status(health, get, "/status", vec![]).await, 404);
    assert_eq!(status(health, post, "/quitquitquit", vec![]).await, 404);
}

/// What a request says besides its path, and whether it gets past the Host and Origin rules.
const SAID: [(&[(&str, &str)], bool); 16] = [
    (&[], true),
    (&[("host", "localhost:7601")], true),
    (&[("host", "[::1]")], true),
    (&[("sec-fetch-site", "none"), ("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "document")], true),
    (&[("sec-fetch-site", "same-origin")], true),
    (&[("host", "evil.example")], false),
    (&[("host", "127.0.0.1.nip.io")], false),
    (&[("host", "0.0.0.0")], false),
    (&[("host", "localhost:00")], false),
    (&[("origin", "https://evil.example")], false),
    (&[("origin", "null")], false),
    (&[("origin", "http://127.0.0.1:7601")], false),
    (&[("sec-fetch-site", "cross-site")], false),
    (&[("sec-fetch-site", "same-site"), ("referer", "http://localhost:3000/")], false),
    // A whole window: that is for the places of a login alone.
    (
        &[("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "document")],
        false,
    ),
    (&[("origin", "https://app.example.com"), ("sec-fetch-site", "cross-site")], false),
];

#[tokio::test]
async fn each_path_of_the_admin_listener_obeys_the_host_the_origin_and_the_token() {
    let aura = aura().await;
    let instance = Instance::start(&aura, "admin_token = { value = \"the-admin-token-of-a-test\" }");
    assert!(instance.command(&["wait", "--timeout", "20s"]).await.status.success());
    let right = ("sidekey-token", "the-admin-token-of-a-test");
    // With the token, /quitquitquit would end it: the last of all.
    let paths = [
        (Method::GET, "/status", None),
        (Method::GET, "/livez", None),
        (Method::GET, "/readyz", None),
        (Method::GET, "/", None),
        (Method::POST, "/quitquitquit", Some(401)),
        (Method::OPTIONS, "/status", None),
    ];
    for (method, path, unshown) in paths {
        for (said, is_let_in) in SAID {
            let tokens: &[Option<(&str, &str)>] = match unshown {
                Some(_) => &[
                    None,
                    Some(("sidekey-token", "guess")),
                    Some(("authorization", "Bearer the-admin-token-of-a-test")),
                ],
                None => &[None, Some(right)],
            };
            for token in tokens {
                let headers: Vec<_> = said.iter().copied().chain(*token).collect();
                let answer = send(instance.admin, method.clone(), path, &headers, "").await;
                let code = answer.header("sidekey-error");
                let is_refused = matches!(code, Some("forbidden_host" | "cross_site" | "bad_request"));
                assert_eq!(!is_refused, is_let_in, "{method} {path} {headers:?}: {answer:?}");
                if let (Some(unshown), true) = (unshown, is_let_in) {
                    assert_eq!(answer.status, unshown, "{method} {path} {headers:?}");
                }
                let opens = |(name, _): &(String, String)| name.starts_with("access-control-");
                assert!(!answer.headers.iter().any(opens), "{method} {path} {headers:?}: {answer:?}");
            }
        }
    }
    // The right token does not make up for a page or a foreign name.
    for (said, _) in SAID.iter().filter(|(_, is_let_in)| !is_let_in) {
        let headers: Vec<_> = said.iter().copied().chain([right]).collect();
        let answer = send(instance.admin, Method::POST, "/quitquitquit", &headers, "").await;
        assert!(matches!(answer.status, 400 | 403), "{headers:?}: {answer:?}");
    }
    assert_eq!(send(instance.admin, Method::GET, "/livez", &[], "").await.status, 200, "it still runs");
    assert_eq!(send(instance.admin, Method::POST, "/quitquitquit", &[right], "").await.status, 202);
}

#[tokio::test]
async fn a_pod_may_stop_it_without_a_token_if_that_is_open() {
    let aura = aura().await;
    let mut instance = Instance::start(&aura, "quitquitquit = \"open\"");
    assert!(instance.command(&["wait", "--timeout", "20s"]).await.status.success());
    let answer = send(instance.admin, Method::POST, "/quitquitquit", &[], "").await;
    assert_eq!(answer.status, 202);
    let code = tokio::task::spawn_blocking(move || instance.child.wait().unwrap().code()).await.unwrap();
    assert_eq!(code, Some(0));
}
