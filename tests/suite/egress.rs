//! Upstreams and token endpoints behind an egress proxy: what it learns, what it never sees, and what is told when it
//! opens no way.
#![cfg(feature = "demo")]

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::support::egress_proxy::{ConnectProxy, OPEN, Tunnel};
use crate::support::running::{config, patiently, private_file, sidekey, sidekey_in};
use crate::support::scripted::Scripted;
use crate::support::tls::{Authority, TlsServer};
use crate::support::{Reply, get, post};
use sidekey::dial::dial;
use sidekey::telemetry::chain;
use tokio::net::TcpListener;

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok";
const CANARY: &str = "canary-of-a-credential";
const TOKEN: &str = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 45\r\n\r\n\
                     {\"access_token\":\"over-tls\",\"expires_in\":3600}\n";

/// One route to `https://api.example.test`, a name that only the proxy knows. `server` and `route`: further keys.
fn file(authority: &Authority, server: &str, route: &str) -> String {
    format!(
        "[server]\nlisten = \"127.0.0.1:0\"\n{server}\n[tls]\nca = \"{}\"\n[route.up]\npath = \"/\"\n\
         upstream = \"https://api.example.test\"\nconnect_timeout = \"2s\"\n\
         credential = {{ type = \"bearer\", token = {{ value = \"{CANARY}\" }} }}\n{route}\n",
        authority.ca.display()
    )
}

async fn upstream(authority: &Authority) -> TlsServer {
    TlsServer::start(&authority.issue(&["api.example.test"]), None, OK).await
}

/// None of it stands in what the proxy was sent.
fn assert_unseen(tunnels: &[Tunnel], texts: &[&str]) {
    for tunnel in tunnels {
        let all = [tunnel.head.as_bytes(), &tunnel.sent].concat();
        for text in texts {
            assert!(!all.windows(text.len()).any(|piece| piece == text.as_bytes()), "{text} in {tunnel:?}");
        }
    }
}

#[tokio::test]
async fn the_proxy_learns_the_upstreams_name_and_nothing_of_the_request() {
    let authority = Authority::new();
    let server = upstream(&authority).await;
    let proxy = ConnectProxy::leading_to(server.addr).await;
    let running = sidekey(&file(&authority, &format!("egress_proxy = \"{}\"", proxy.url()), ""));
    let reply =
        post(running.addr, "/path-of-it?query-of-it", &[("x-own", "header-of-it")], "body-of-it").await;
    assert_eq!((reply.status, reply.text()), (200, "ok"));

    let visit = server.visits().remove(0);
    assert_eq!(visit.name.as_deref(), Some("api.example.test"));
    assert!(visit.head.starts_with("POST /path-of-it?query-of-it HTTP/1.1\r\n"), "{}", visit.head);
    assert!(visit.head.contains("host: api.example.test\r\n"), "{}", visit.head);
    assert!(visit.head.contains(&format!("authorization: Bearer {CANARY}\r\n")), "{}", visit.head);

    let tunnels = proxy.tunnels();
    let agent = concat!("User-Agent: sidekey/", env!("CARGO_PKG_VERSION"));
    assert_eq!(tunnels.len(), 1);
    assert_eq!(
        tunnels[0].head,
        format!("CONNECT api.example.test:443 HTTP/1.1\r\nHost: api.example.test:443\r\n{agent}\r\n\r\n")
    );
    assert_eq!(tunnels[0].sent.first(), Some(&22), "it begins with a TLS handshake");
    assert_unseen(
        &tunnels,
        &["path-of-it", "query-of-it", "header-of-it", "body-of-it", CANARY, "uthorization"],
    );
}

#[tokio::test]
async fn the_proxy_cannot_stand_in_for_the_upstream() {
    let authority = Authority::new();
    // It has a certificate of the same authority, but for its own name.
    let impostor = TlsServer::start(&authority.issue(&["127.0.0.1", "proxy.example.test"]), None, OK).await;
    let proxy = ConnectProxy::leading_to(impostor.addr).await;
    let running = sidekey(&file(&authority, &format!("egress_proxy = \"{}\"", proxy.url()), ""));
    let reply = get(running.addr, "/", &[]).await;
    assert_eq!(reply.header("proxy-status"), Some("sidekey; error=tls_certificate_error"), "{reply:?}");
    assert!(impostor.visits().is_empty());
}

#[tokio::test]
async fn the_proxys_password_is_for_the_proxy_alone_and_is_read_anew_for_each_connection() {
    let authority = Authority::new();
    let server = upstream(&authority).await;
    let proxy = ConnectProxy::leading_to(server.addr).await;
    let password = private_file(authority.folder().join("password"), "first\n");
    let own = format!(
        "egress_proxy = {{ url = \"{}\", username = \"corp\", password = {{ file = \"{}\" }} }}",
        proxy.url(),
        password.display()
    );
    let running = sidekey(&file(&authority, "", &own));
    assert_eq!(get(running.addr, "/", &[]).await.status, 200);
    private_file(password.clone(), "second\n");
    assert_eq!(get(running.addr, "/", &[("proxy-authorization", "Basic Y2FsbGVy")]).await.status, 200);
    let shown: Vec<_> = proxy
        .tunnels()
        .iter()
        .map(|tunnel| tunnel.header("proxy-authorization").map(str::to_owned))
        .collect();
    // corp:first, corp:second
    let want = ["Basic Y29ycDpmaXJzdA==", "Basic Y29ycDpzZWNvbmQ="];
    assert_eq!(shown, want.map(|value| Some(value.to_owned())));
    for visit in server.visits() {
        assert!(!visit.head.to_ascii_lowercase().contains("proxy-authorization"), "{}", visit.head);
    }

    std::fs::remove_file(password).unwrap();
    assert_unreachable(&get(running.addr, "/", &[]).await, "proxy_configuration_error");
    assert_eq!(proxy.tunnels().len(), 2);
}

#[tokio::test]
async fn the_environments_proxy_is_taken_with_its_login_and_not_for_this_machine() {
    let authority = Authority::new();
    let server = upstream(&authority).await;
    let proxy = ConnectProxy::leading_to(server.addr).await;
    let url = format!("http://corp:p%40ss@{}", proxy.addr);
    let running = sidekey_in(&file(&authority, "", ""), &[("HTTPS_PROXY", &url), ("NO_PROXY", "other.test")]);
    assert_eq!(get(running.addr, "/", &[]).await.status, 200);
    // corp:p@ss
    assert_eq!(proxy.tunnels()[0].header("proxy-authorization"), Some("Basic Y29ycDpwQHNz"));

    let local = TlsServer::start(&authority.issue(&["localhost"]), None, OK).await;
    let text = file(&authority, "", "").replace("https://api.example.test", &local.url("localhost"));
    let running = sidekey_in(&text, &[("HTTPS_PROXY", &url), ("https_proxy", &url)]);
    assert_eq!(get(running.addr, "/", &[]).await.status, 200);
    assert_eq!(proxy.tunnels().len(), 1, "this machine is reached directly");
}

#[tokio::test]
async fn an_upstream_in_clear_text_is_reached_by_connect_too() {
    let server = Scripted::saying(OK).await;
    let proxy = ConnectProxy::leading_to(server.addr).await;
    let text = "[server]\nlisten = \"127.0.0.1:0\"\n[route.up]\npath = \"/\"\ncredential = false\n\
         upstream = \"http://api.example.test:8080\"\nallow_cleartext = true\n";
    let running = sidekey_in(text, &[("http_proxy", &proxy.url())]);
    assert_eq!(get(running.addr, "/x", &[]).await.text(), "ok");
    let tunnel = proxy.tunnels().remove(0);
    assert!(tunnel.head.starts_with("CONNECT api.example.test:8080 HTTP/1.1\r\n"), "{}", tunnel.head);
    assert!(tunnel.sent.starts_with(b"GET /x HTTP/1.1\r\n"));
}

#[tokio::test]
async fn a_token_is_fetched_through_the_proxy_and_the_proxy_sees_no_secret() {
    let authority = Authority::new();
    let login = TlsServer::start(&authority.issue(&["login.example.test"]), None, TOKEN).await;
    let server = upstream(&authority).await;
    let (to_login, to_server) =
        (ConnectProxy::leading_to(login.addr).await, ConnectProxy::leading_to(server.addr).await);
    let credential = format!(
        "credential = {{ type = \"client_credentials\", token_url = \"https://login.example.test/token\", \
         client_id = \"id\", client_secret = {{ value = \"{CANARY}\" }}, egress_proxy = \"{}\" }}",
        to_login.url()
    );
    let text = file(&authority, &format!("egress_proxy = \"{}\"", to_server.url()), "");
    let bearer = format!("credential = {{ type = \"bearer\", token = {{ value = \"{CANARY}\" }} }}");
    let running = sidekey(&text.replace(&bearer, &credential));
    assert_eq!(get(running.addr, "/", &[]).await.status, 200);
    assert!(login.visits()[0].head.starts_with("POST /token HTTP/1.1\r\n"));
    assert!(server.visits()[0].head.contains("authorization: Bearer over-tls\r\n"));
    assert!(to_login.tunnels()[0].head.starts_with("CONNECT login.example.test:443 "));
    assert!(to_server.tunnels()[0].head.starts_with("CONNECT api.example.test:443 "));
    assert_unseen(&[to_login.tunnels(), to_server.tunnels()].concat(), &[CANARY, "over-tls", "uthorization"]);
}

fn assert_unreachable(reply: &Reply, proxy_error: &str) {
    let got = (reply.status, reply.header("sidekey-error"), reply.header("proxy-status"));
    let status = format!("sidekey; error={proxy_error}");
    assert_eq!(got, (502, Some("upstream_unreachable"), Some(status.as_str())), "{reply:?}");
}

#[tokio::test]
async fn a_proxy_that_opens_no_way_is_told_from_an_upstream_that_is_not_there() {
    let authority = Authority::new();
    let cases = [
        (
            "HTTP/1.1 407 Authenticate\r\nProxy-Authenticate: Basic realm=\"canary-realm\"\r\n\r\n",
            "proxy_configuration_error",
            "it wants another user name and password (407)",
        ),
        ("HTTP/1.1 403 canary-reason\r\n\r\n", "destination_unavailable", "it refuses with status 403"),
        ("HTTP/1.1 503 Down\r\n\r\n", "destination_unavailable", "it refuses with status 503"),
        ("SSH-2.0-canary\r\n", "http_protocol_error", "what it answers is not HTTP"),
        ("", "connection_terminated", "ended before it answered"),
    ];
    for (answer, proxy_error, log) in cases {
        let proxy = ConnectProxy::saying(answer).await;
        let text = file(&authority, &format!("egress_proxy = \"{}\"", proxy.url()), "");
        let running = sidekey(&text);
        let reply = get(running.addr, "/", &[]).await;
        assert_unreachable(&reply, proxy_error);
        assert!(reply.text().contains("The egress proxy does not lead to the upstream"), "{}", reply.text());
        assert_unseen(&proxy.tunnels(), &[CANARY]);

        let upstream = &config(&text).routes[0].upstream;
        let error = chain(&dial(upstream, None, Duration::from_secs(5)).await.unwrap_err());
        let begin = format!("the egress proxy {} does not lead to api.example.test:443: ", proxy.addr);
        assert!(error.starts_with(&begin) && error.contains(log) && !error.contains("canary"), "{error}");
    }
}

#[tokio::test]
async fn a_proxy_that_is_silent_or_not_there_is_told_as_such() {
    let authority = Authority::new();
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let own = format!("egress_proxy = \"http://{}\"", silent.local_addr().unwrap());
    let text = file(&authority, "", &own).replace("\"2s\"", "\"300ms\"");
    let running = sidekey(&text);
    let reply = get(running.addr, "/", &[]).await;
    let got = (reply.status, reply.header("sidekey-error"), reply.header("proxy-status"));
    let want = (504, Some("upstream_timeout"), Some("sidekey; error=connection_timeout"));
    assert_eq!(got, want);
    assert!(reply.text().contains("egress proxy"), "{}", reply.text());
    drop(silent);
    assert_unreachable(&get(running.addr, "/", &[]).await, "destination_unavailable");
}

#[tokio::test]
async fn an_origin_that_is_silent_behind_an_open_way_is_a_time_out_of_the_upstream() {
    let authority = Authority::new();
    let silent = Scripted::start(|_, stream| async move {
        let _held = stream;
        std::future::pending::<()>().await;
    })
    .await;
    let proxy = ConnectProxy::leading_to(silent.addr).await;
    let text =
        file(&authority, "", &format!("egress_proxy = \"{}\"", proxy.url())).replace("\"2s\"", "\"300ms\"");
    let reply = patiently("an answer", get(sidekey(&text).addr, "/", &[])).await;
    assert_eq!((reply.status, reply.header("sidekey-error")), (504, Some("upstream_timeout")));
    assert!(!reply.text().contains("egress proxy"), "{}", reply.text());
    assert!(OPEN.starts_with("HTTP/1.1 200") && !proxy.tunnels()[0].sent.is_empty());
}

fn command(folder: &Path, args: &[&str], variables: &[(&str, &str)]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sidekey"));
    command.args(args).current_dir(folder).env_clear().envs(variables.iter().copied());
    let output = command.output().expect("it runs");
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).expect("text")
}

#[test]
fn check_and_explain_name_the_proxy_without_its_password() {
    let folder = tempfile::tempdir().unwrap();
    let text = "[route.a]\nupstream = \"https://api.example.test/v1\"\ncredential = \"c\"\n[credential.c]\n\
                type = \"client_credentials\"\nclient_id = \"i\"\nclient_secret = { env = \"S\" }\n\
                token_url = \"https://login.example.test/token\"\n";
    std::fs::write(folder.path().join("sidekey.toml"), text).unwrap();
    let variables = [("S", "s"), ("HTTPS_PROXY", "http://canary-name:canary-password@proxy.corp:3128")];
    let said = command(folder.path(), &["check"], &variables);
    assert_eq!(
        said,
        "sidekey.toml: valid; routes: 1, credentials: 1\n\
         route a: https://api.example.test/v1 through the egress proxy http://proxy.corp:3128\n\
         credential c: https://login.example.test/token through the egress proxy http://proxy.corp:3128\n"
    );
    let said = command(folder.path(), &["explain", "GET", "/x"], &variables);
    assert!(said.contains("\nthrough     http://proxy.corp:3128 (egress proxy)\n"), "{said}");
    assert!(!said.contains("canary"), "{said}");
    let said = command(folder.path(), &["explain", "GET", "/x"], &variables[..1]);
    assert!(!said.contains("egress"), "{said}");
}
