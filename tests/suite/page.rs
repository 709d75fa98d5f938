//! The page for people on the admin listener, and `sidekey status`, with the real binary.
#![cfg(feature = "demo")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::Method;
use serde_json::{Value, json};

use crate::support::running::eventually;
use crate::support::scripted::Scripted;
use crate::support::{Reply, free, get, send};

/// What a token endpoint may say to do harm to who reads it.
const HOSTILE: &str = "</p><script>alert(1)</script><img src=x onerror=alert(2)>\\\"'\\u001b[2J";
const ADMIN_TOKEN: &str = "canary-admin-token-of-a-test";

/// A running binary with its own configuration and runtime folder; killed when dropped.
struct Instance {
    folder: tempfile::TempDir,
    admin: SocketAddr,
    health: SocketAddr,
    child: Child,
}

impl Instance {
    /// `tables`: routes and credentials.
    async fn start(tables: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (admin, health) = (free(), free());
        let text = format!(
            "[server]\nlisten = \"127.0.0.1:0\"\nadmin = \"{admin}\"\nhealth = \"{health}\"\n\
             admin_token = {{ value = \"{ADMIN_TOKEN}\" }}\n[store]\ntype = \"memory\"\n{tables}"
        );
        std::fs::write(folder.path().join("sidekey.toml"), text).unwrap();
        let log = std::fs::File::create(folder.path().join("log")).unwrap();
        let child = command(folder.path(), &["run"]).stdout(Stdio::null()).stderr(log).spawn().unwrap();
        let instance = Self { folder, admin, health, child };
        let waited = instance.command(&["wait", "--for", "live", "--timeout", "20s"]).await;
        assert!(waited.status.success(), "{}", text_of(&waited.stderr));
        instance
    }

    async fn page(&self) -> Reply {
        let page = get(self.admin, "/", &[]).await;
        assert_eq!(page.status, 200, "{}", page.text());
        page
    }

    async fn status(&self) -> Value {
        get(self.admin, "/status", &[]).await.json()
    }

    /// Off this thread, on which the peers answer.
    async fn command(&self, arguments: &[&str]) -> Output {
        run(command(self.folder.path(), arguments)).await
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

async fn run(mut command: Command) -> Output {
    tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
}

fn command(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sidekey"));
    command
        .args(arguments)
        .current_dir(folder)
        .env_clear()
        .env("XDG_RUNTIME_DIR", folder)
        .env("TERM", "xterm");
    command
}

fn text_of(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn route(name: &str, credential: &str) -> String {
    format!(
        "[route.{name}]\npath = \"/{name}\"\nupstream = \"http://127.0.0.1:9\"\ncredential = \"{credential}\"\n"
    )
}

fn static_tables() -> String {
    let bearer = "[credential.key]\ntype = \"bearer\"\ntoken = { value = \"canary-bearer-token\" }\n";
    format!("{}{bearer}", route("api", "key"))
}

fn client(name: &str, token_endpoint: SocketAddr) -> String {
    format!(
        "[credential.{name}]\ntype = \"client_credentials\"\ntoken_url = \"http://{token_endpoint}/token\"\n\
         client_id = \"id\"\nclient_secret = {{ value = \"canary-client-secret\" }}\n"
    )
}

/// A token endpoint that answers each request with this status line and JSON.
async fn endpoint(status: &'static str, body: String) -> Scripted {
    let length = body.len();
    let answer = format!(
        "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
    );
    Scripted::saying(answer.leak()).await
}

#[tokio::test]
async fn the_page_is_one_answer_that_lets_in_nothing_but_its_own_style_and_script() {
    let instance = Instance::start(&static_tables()).await;
    let page = instance.page().await;
    let header = |name: &str| page.header(name).unwrap_or_default();
    assert_eq!(header("content-type"), "text/html; charset=utf-8");
    assert_eq!(header("cache-control"), "no-store");
    assert_eq!(header("x-content-type-options"), "nosniff");
    assert_eq!(header("referrer-policy"), "no-referrer");
    assert_eq!(header("x-frame-options"), "DENY");
    let html = page.text();
    let inner = |open: &str, close: &str| {
        let (_, rest) = html.split_once(open).unwrap();
        rest.split_once(close).unwrap().0.to_owned()
    };
    let hash = |text: &str| format!("'sha256-{}'", STANDARD.encode(digest(&SHA256, text.as_bytes())));
    let policy: Vec<&str> = header("content-security-policy").split("; ").collect();
    let script = format!("script-src {}", hash(&inner("<script type=\"module\">", "</script>")));
    let style = format!("style-src {}", hash(&inner("<style>", "</style>")));
    for part in [
        "default-src 'none'",
        &script,
        &style,
        "connect-src 'self'",
        "form-action 'self'",
        "frame-ancestors 'none'",
        "base-uri 'none'",
    ] {
        assert!(policy.contains(&part), "{part}: {policy:?}");
    }
    assert_eq!((html.matches("<script").count(), html.matches("<style").count()), (1, 1));
    // Neither the markup nor the script brings in anything from elsewhere.
    let markup = html.replace(&inner("<script type=\"module\">", "</script>"), "");
    for outside in ["src=", "style=\"", " onclick", "url(", "@import", "<link rel=\"stylesheet"] {
        assert!(!markup.contains(outside), "{outside}");
    }
    assert_eq!(markup.matches("href=\"http").count(), 0, "{markup}");
}

#[tokio::test]
async fn the_page_takes_get_and_head_from_those_whom_the_guard_lets_in() {
    let instance = Instance::start(&static_tables()).await;
    let admin = instance.admin;
    let head = send(admin, Method::HEAD, "/", &[], "").await;
    assert_eq!((head.status, head.body.len()), (200, 0));
    assert!(head.header("content-security-policy").is_some());
    for method in [Method::POST, Method::PUT, Method::DELETE, Method::OPTIONS, Method::PATCH] {
        let answer = send(admin, method.clone(), "/", &[], "").await;
        assert_eq!((answer.status, answer.header("allow")), (405, Some("GET, HEAD")), "{method}");
    }
    let refused: [&[(&str, &str)]; 5] = [
        &[("host", "evil.example")],
        &[("origin", "https://evil.example")],
        &[("origin", "null")],
        &[("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "document")],
        &[("sec-fetch-site", "same-site")],
    ];
    for headers in refused {
        let answer = get(admin, "/", headers).await;
        assert_eq!(answer.status, 403, "{headers:?}");
        assert!(!answer.text().contains("api"), "nothing is told: {}", answer.text());
    }
    for headers in [&[("sec-fetch-site", "none")][..], &[("sec-fetch-site", "same-origin")][..]] {
        assert_eq!(get(admin, "/", headers).await.status, 200, "{headers:?}");
    }
    assert_eq!(get(instance.health, "/", &[]).await.status, 404, "the one for probes has no page");
    assert_eq!(get(admin, "/?any=query", &[]).await.status, 200);
    assert_eq!(get(admin, "/index.html", &[]).await.status, 404);
}

#[tokio::test]
async fn what_a_token_endpoint_says_is_shown_as_text_and_no_secret_is_shown_at_all() {
    let dead = endpoint(
        "400 Bad Request",
        format!("{{\"error\":\"invalid_client\",\"error_description\":\"{HOSTILE}\"}}"),
    )
    .await;
    let well = endpoint(
        "200 OK",
        "{\"access_token\":\"canary-access-token\",\"token_type\":\"Bearer\",\"expires_in\":3600}".to_owned(),
    )
    .await;
    let tables = format!(
        "{}{}{}{}",
        route("bad", "lost"),
        client("lost", dead.addr),
        route("good", "well"),
        client("well", well.addr)
    );
    let instance = Instance::start(&tables).await;
    let settled = async || {
        let status = instance.status().await;
        let accounts = status["accounts"].as_array().unwrap().clone();
        accounts[0]["last_error"].is_string() && accounts[1]["state"] == "ready"
    };
    eventually("both fetches", settled).await;
    let page = instance.page().await;
    let html = page.text();
    assert!(
        html.contains("&lt;/p&gt;&lt;script&gt;alert(1)&lt;/script&gt;&lt;img src=x onerror=alert(2)&gt;"),
        "{html}"
    );
    assert_eq!(html.matches("<script").count(), 1);
    assert!(!html.contains("<img") && !html.contains('\u{1b}'));
    assert!(html.contains("invalid_client") && html.contains("min") && html.contains("left"), "{html}");
    // Tokens, secrets, and what opens the POSTs.
    assert!(!html.contains("canary"), "{html}");
    for arguments in [&["status"][..], &["status", "--json"][..]] {
        let said = instance.command(arguments).await;
        let (out, err) = (text_of(&said.stdout), text_of(&said.stderr));
        assert!(said.status.success() && !out.contains("canary") && !err.contains("canary"), "{out} {err}");
        assert!(!out.contains('\u{1b}'), "it does not steer the terminal: {out}");
        assert!(out.contains("invalid_client"), "{out}");
    }
}

#[tokio::test]
async fn a_login_that_is_needed_leads_to_the_page_that_asks_for_the_admin_token() {
    let more = "[credential.wiki]\ntype = \"authorization_code\"\nissuer = \"http://127.0.0.1:9\"\n\
         auth_url = \"http://127.0.0.1:9/auth\"\ntoken_url = \"http://127.0.0.1:9/token\"\nclient_id = \"app\"\n\
         auth_method = \"none\"\nredirect_uri = \"http://127.0.0.1:9/callback\"\n";
    let instance = Instance::start(&format!("{}{more}", route("wiki", "wiki"))).await;
    let asks = async || instance.status().await["accounts"][0]["state"] == "login_required";
    eventually("the account that needs a login", asks).await;
    let page = instance.page().await;
    let link = "/connect/wiki?account=default";
    assert!(page.text().contains(&format!("href=\"{link}\"")), "{}", page.text());
    // As a browser goes there from the page.
    let form =
        get(instance.admin, link, &[("sec-fetch-site", "same-origin"), ("sec-fetch-mode", "navigate")]).await;
    assert_eq!(form.status, 200);
    assert!(form.text().contains("name=\"token\"") && !form.text().contains(ADMIN_TOKEN), "{}", form.text());
    let status = instance.status().await;
    assert_eq!(
        status["credentials"],
        json!([{ "name": "wiki", "type": "authorization_code", "login": true, "account_header": null }])
    );
    let table = text_of(&instance.command(&["status"]).await.stdout);
    assert!(table.contains("login needed") && table.contains("sidekey login wiki"), "{table}");
}

#[tokio::test]
async fn a_page_that_is_looked_at_refuses_and_counts_nothing() {
    let instance = Instance::start(&static_tables()).await;
    for path in ["/", "/status", "/", "/status"] {
        assert_eq!(get(instance.admin, path, &[("sec-fetch-site", "same-origin")]).await.status, 200);
    }
    let refusals = instance.status().await["refusals"].clone();
    assert!(refusals.as_object().unwrap().values().all(|count| count == 0), "{refusals}");
    get(instance.admin, "/", &[("origin", "https://evil.example")]).await;
    let page = instance.page().await;
    assert!(page.text().contains("<code>cross_site</code>"), "{}", page.text());
}

#[tokio::test]
async fn hundreds_of_accounts_are_told_by_the_command_and_the_page() {
    let well = endpoint(
        "200 OK",
        "{\"access_token\":\"t\",\"token_type\":\"Bearer\",\"expires_in\":3600}".to_owned(),
    )
    .await;
    let one = |n: usize| {
        format!("{{ name = \"client-{n}\", client_id = \"{n}\", client_secret = {{ value = \"s\" }} }}")
    };
    let clients: Vec<String> = (0..400).map(one).collect();
    let credential = format!(
        "[credential.crowd]\ntype = \"client_credentials\"\ntoken_url = \"http://{}/token\"\nclients = [{}]\n",
        well.addr,
        clients.join(", ")
    );
    let instance = Instance::start(&format!("{}{credential}", route("api", "crowd"))).await;
    assert!(get(instance.admin, "/status", &[]).await.body.len() > 64 * 1024);
    let table = instance.command(&["status"]).await;
    assert!(table.status.success(), "{}", text_of(&table.stderr));
    assert!(text_of(&table.stdout).contains("client-399"));
    let page = instance.page().await;
    assert!(page.text().contains("and 200 more, as data"));
}

#[tokio::test]
async fn a_watched_status_is_plain_blocks_where_there_is_no_terminal_and_ends_with_the_instance() {
    let instance = Instance::start(&static_tables()).await;
    let mut watch = command(instance.folder.path(), &["status", "--watch"]);
    let mut watch = watch.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(watch.stdout.take().unwrap()).lines();
    let blocks = tokio::task::spawn_blocking(move || {
        let mut seen = Vec::new();
        for line in lines.map(Result::unwrap) {
            seen.push(line);
            if seen.iter().filter(|line| line.starts_with("sidekey ")).count() == 2 {
                break;
            }
        }
        seen
    });
    let blocks = blocks.await.unwrap();
    assert!(blocks.iter().all(|line| !line.contains('\u{1b}')), "{blocks:?}");
    assert!(blocks.iter().any(|line| line.starts_with("ROUTE")), "{blocks:?}");
    drop(instance);
    let ended = tokio::task::spawn_blocking(move || watch.wait_with_output().unwrap()).await.unwrap();
    // What it prints after the reader is gone is lost; that the instance is gone is said.
    assert_eq!(ended.status.code(), Some(1));
    assert!(
        text_of(&ended.stderr).contains("no instance of this configuration answers"),
        "{}",
        text_of(&ended.stderr)
    );
}

#[tokio::test]
async fn a_status_that_cannot_be_had_says_why() {
    let folder = tempfile::tempdir().unwrap();
    let ask = async |admin: &str| {
        let text = format!("[server]\nlisten = \"127.0.0.1:0\"\nadmin = {admin}\n{}", static_tables());
        std::fs::write(folder.path().join("sidekey.toml"), text).unwrap();
        let said = run(command(folder.path(), &["status"])).await;
        assert!(said.stdout.is_empty(), "{}", text_of(&said.stdout));
        (said.status.code(), text_of(&said.stderr))
    };
    let (code, said) = ask(&format!("\"{}\"", free())).await;
    assert!(code == Some(1) && said.contains("no instance of this configuration answers on 127."), "{said}");
    let (code, said) = ask("false").await;
    assert!(
        code == Some(2) && said.contains("server.admin is false") && said.contains("127.0.0.1:7601"),
        "{said}"
    );
    let page = "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello";
    let none = "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n";
    let json = "HTTP/1.1 200 OK\r\ncontent-length: 15\r\n\r\n{\"status\":\"up\"}";
    for (answer, why) in [(page, "something else"), (none, "404"), (json, "something else")] {
        let other = Scripted::saying(answer).await;
        let (code, said) = ask(&format!("\"{}\"", other.addr)).await;
        let is_clear = said.contains("is not sidekey") && said.contains(why) && said.contains("server.admin");
        assert!(code == Some(1) && is_clear, "{said}");
    }
    let silent = Scripted::saying("SSH-2.0-OpenSSH_9.9\r\n").await;
    let (code, said) = ask(&format!("\"{}\"", silent.addr)).await;
    assert!(code == Some(1) && said.contains("no instance"), "{said}");
}

#[tokio::test]
async fn a_status_of_an_instance_with_another_configuration_says_so() {
    let instance = Instance::start(&static_tables()).await;
    let file = instance.folder.path().join("other.toml");
    std::fs::copy(instance.folder.path().join("sidekey.toml"), &file).unwrap();
    let said = instance.command(&["status", "-c", "other.toml"]).await;
    assert!(said.status.success());
    assert!(
        text_of(&said.stderr).contains("is configured by sidekey.toml, not by other.toml"),
        "{}",
        text_of(&said.stderr)
    );
}
