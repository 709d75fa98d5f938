//! Addresses in answers lead their callers back through sidekey, by whichever way they came.
#![cfg(feature = "demo")]

use std::net::SocketAddr;
use std::process::Command;

use crate::support::running::{private_file, sidekey};
use crate::support::scripted::{Scripted, read_head, say};
use crate::support::tls::{Authority, TlsServer};
use crate::support::{Reply, get, raw_unix, send};
use http::Method;
use serde_json::Value;
use sidekey::app::App;
use sidekey::clock::Clock;
use sidekey::config::{Environment, LoadOptions, Source, load};
use sidekey::credential::Vault;
use sidekey::demo::standins::Neo4j;
use tokio::sync::mpsc;

/// An upstream whose answers have the header lines that requests ask for with `x-answer`; it tells each target that
/// it was asked for.
struct Upstream {
    server: Scripted,
    targets: mpsc::UnboundedReceiver<String>,
}

impl Upstream {
    async fn start() -> Self {
        let (tell, targets) = mpsc::unbounded_channel();
        let server = Scripted::start(move |_, mut stream| {
            let tell = tell.clone();
            async move {
                let head = read_head(&mut stream).await;
                let target = head.split(' ').nth(1).unwrap_or_default().to_owned();
                let _ = tell.send(target);
                let lines: Vec<_> =
                    head.split("\r\n").filter_map(|line| line.strip_prefix("x-answer: ")).collect();
                let lines = if lines.is_empty() { vec!["x-no: 1"] } else { lines };
                let answer = format!(
                    "HTTP/1.1 201 Created\r\n{}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
                    lines.join("\r\n")
                );
                say(&mut stream, answer).await;
            }
        })
        .await;
        Self { server, targets }
    }

    fn addr(&self) -> SocketAddr {
        self.server.addr
    }

    /// The target of the one request that came.
    fn asked(&mut self) -> String {
        let target = self.targets.try_recv().expect("a request came");
        assert!(self.targets.try_recv().is_err(), "only one came");
        target
    }
}

/// Asks for these lines of an answer, and gives back the values of one field in it.
async fn answered(addr: SocketAddr, host: &str, target: &str, field: &str, lines: &[&str]) -> Vec<String> {
    let lines: Vec<String> = lines.iter().map(|line| format!("{field}: {line}")).collect();
    let mut headers = vec![("host", host)];
    headers.extend(lines.iter().map(|line| ("x-answer", line.as_str())));
    let reply = get(addr, target, &headers).await;
    assert_eq!(reply.status, 201, "{reply:?}");
    reply.headers.into_iter().filter(|(name, _)| name == field).map(|(_, value)| value).collect()
}

/// Calls a URL as a client would; names of `.localhost` are this machine.
async fn call(method: Method, url: &str, body: &str) -> Reply {
    let url = url::Url::parse(url).expect("a URL");
    assert_eq!(url.scheme(), "http", "{url}");
    let port = url.port().expect("a port");
    let host = format!("{}:{port}", url.host_str().expect("a host"));
    let target = url[url::Position::BeforePath..url::Position::AfterQuery].to_owned();
    let headers = [("host", host.as_str()), ("content-type", "application/json")];
    send(([127, 0, 0, 1], port).into(), method, &target, &headers, body.to_owned()).await
}

/// The shared listener, and the one of route `one`.
fn two_routes(one: SocketAddr, two: SocketAddr) -> crate::support::running::Running {
    sidekey(&format!(
        "[server]\nlisten = \"127.0.0.1:0\"\n\
         [route.one]\npath = \"/one\"\nhost = \"one.localhost\"\nlisten = \"127.0.0.1:0\"\n\
         upstream = \"http://{one}/base\"\ncredential = false\n\
         [route.two]\npath = \"/two\"\nupstream = \"http://{two}\"\ncredential = false\n"
    ))
}

#[tokio::test]
async fn each_field_leads_back_by_path_by_host_and_by_listener() {
    let (mut one, two) = (Upstream::start().await, Upstream::start().await);
    let running = two_routes(one.addr(), two.addr());
    let (shared, own) = (running.addrs()[0], running.addrs()[1]);
    let ways = [
        (shared, format!("localhost:{}", shared.port()), "/one"),
        (shared, format!("One.localhost:{}", shared.port()), ""),
        (own, own.to_string(), ""),
    ];
    let up = format!("http://{}/base", one.addr());
    for (addr, host, prefix) in ways {
        let here = format!("http://{host}{prefix}");
        let target = format!("{prefix}/a/b");
        let told =
            async |field: &'static str, lines: &[&str]| answered(addr, &host, &target, field, lines).await;

        let location = told("location", &[&format!("{up}/c?d=%2F#e")]).await;
        assert_eq!(location, [format!("{here}/c?d=%2F#e")]);
        assert_eq!(one.asked(), "/base/a/b");
        assert_eq!(call(Method::GET, &location[0], "").await.status, 201);
        assert_eq!(one.asked(), "/base/c?d=%2F", "following it leads where the upstream meant");

        assert_eq!(told("location", &["/base/c"]).await, [format!("{prefix}/c")]);
        assert_eq!(told("content-location", &[&format!("{up}/c")]).await, [format!("{here}/c")]);
        assert_eq!(told("content-location", &["c"]).await, ["c"]);
        let links = [&*format!("<{up}/p?2>; rel=\"next, {up}\", </base/p?9>;rel=last"), "<?p=1>; rel=first"];
        let want = [
            format!("<{here}/p?2>; rel=\"next, {up}\", <{prefix}/p?9>;rel=last"),
            "<?p=1>; rel=first".to_owned(),
        ];
        assert_eq!(told("link", &links).await, want);
        assert_eq!(told("refresh", &[&format!("5; url={up}/c")]).await, [format!("5; url={here}/c")]);
        assert_eq!(told("refresh", &["0;URL='/base/c'"]).await, [format!("0;URL='{prefix}/c'")]);
        // Fields that are for no address, and bodies, are not looked at.
        assert_eq!(told("x-next", &[&format!("{up}/c")]).await, [format!("{up}/c")]);
        while one.targets.try_recv().is_ok() {}
    }
}

#[tokio::test]
async fn two_upstreams_are_never_taken_for_one_another() {
    let (one, two) = (Upstream::start().await, Upstream::start().await);
    let running = two_routes(one.addr(), two.addr());
    let (addr, host) = (running.addr, running.addr.to_string());
    for (target, own, elsewhere) in [("/one/x", one.addr(), two.addr()), ("/two/x", two.addr(), one.addr())] {
        let url = format!("http://{own}/base/c");
        let told = answered(addr, &host, target, "location", &[&url]).await;
        assert!(told[0].starts_with(&format!("http://{host}{}/", &target[..4])), "{told:?}");
        for url in [
            format!("http://{elsewhere}/base/c"),
            format!("//{elsewhere}/base/c"),
            // The same place by another name or scheme is another origin.
            format!("https://{elsewhere}/base/c"),
            format!("http://localhost:{}/base/c", elsewhere.port()),
            format!("http://me@{elsewhere}/base/c"),
        ] {
            assert_eq!(answered(addr, &host, target, "location", &[&url]).await, [url]);
        }
    }
    // Out of reach by this route: outside the upstream's path.
    let outside = format!("http://{}/other", one.addr());
    assert_eq!(answered(addr, &host, "/one/x", "location", &[&outside]).await, [outside]);
    assert_eq!(answered(addr, &host, "/one/x", "location", &["/other"]).await, ["/other"]);
}

#[tokio::test]
async fn an_address_that_another_routes_prefix_would_take_passes_as_it_is() {
    let (one, two) = (Upstream::start().await, Upstream::start().await);
    let running = sidekey(&format!(
        "[server]\nlisten = \"127.0.0.1:0\"\n\
         [route.one]\npath = \"/\"\nupstream = \"http://{}\"\ncredential = false\n\
         [route.two]\npath = \"/two\"\nupstream = \"http://{}\"\ncredential = false\n",
        one.addr(),
        two.addr()
    ));
    let (addr, host) = (running.addr, running.addr.to_string());
    let told = async |url: String| answered(addr, &host, "/x", "location", &[&url]).await;
    assert_eq!(told(format!("http://{}/two", one.addr())).await, [format!("http://{}/two", one.addr())]);
    assert_eq!(told(format!("http://{}/twofold", one.addr())).await, [format!("http://{host}/twofold")]);
}

#[tokio::test]
async fn an_upstream_with_tls_is_told_from_one_without() {
    let authority = Authority::new();
    let answer = "HTTP/1.1 302 Found\r\nLocation: https://localhost:{port}/c\r\n\
                  Content-Location: http://localhost:{port}/c\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    let server = TlsServer::start(&authority.issue(&["localhost"]), None, answer).await;
    let running = sidekey(&format!(
        "[server]\nlisten = \"127.0.0.1:0\"\n[route.up]\npath = \"/up\"\ncredential = false\n\
         upstream = \"{}\"\ntls = {{ ca = \"{}\" }}\n",
        server.url("localhost"),
        authority.ca.display()
    ));
    let reply = get(running.addr, "/up/x", &[]).await;
    assert_eq!(reply.header("location"), Some(&*format!("http://{}/up/c", running.addr)));
    let other = format!("http://localhost:{}/c", server.addr.port());
    assert_eq!(reply.header("content-location"), Some(&*other));
}

#[tokio::test]
async fn over_a_unix_socket_the_address_has_the_host_that_the_caller_wrote() {
    let upstream = Upstream::start().await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("proxy.sock");
    let _running = sidekey(&format!(
        "[server]\nlisten = \"unix:{}\"\n[route.up]\npath = \"/up\"\ncredential = false\nupstream = \"http://{}\"\n",
        path.display(),
        upstream.addr()
    ));
    let head = format!(
        "GET /up/x HTTP/1.1\r\nHost: Whatever.example:99\r\nx-answer: Location: http://{}/c\r\n\r\n",
        upstream.addr()
    );
    let reply = raw_unix(&path, head).await;
    assert_eq!(reply.header("location"), Some("http://Whatever.example:99/up/c"));
}

const STATEMENT: &str = r#"{"statements":[{"statement":"RETURN 1 AS n"}]}"#;

/// Begins a transaction of the older API at this base, runs in it and commits it, by the URLs that come back, exactly
/// as they are. Tells where it began.
async fn transaction(base: &str, neo4j: &Neo4j) {
    let begun = call(Method::POST, &format!("{base}/db/neo4j/tx"), STATEMENT).await;
    assert_eq!(begun.status, 201, "{begun:?}");
    let location = begun.header("location").expect("a Location").to_owned();
    let commit = begun.json()["commit"].as_str().expect("a URL").to_owned();
    assert!(location.starts_with(&format!("{base}/db/neo4j/tx/")), "{location}");
    assert_eq!((format!("{location}/commit"), neo4j.open_transactions()), (commit.clone(), 1));

    let run = call(Method::POST, &location, STATEMENT).await;
    assert_eq!((run.status, run.json()["commit"].as_str()), (200, Some(&*commit)));
    let rows = |reply: &Reply| reply.json()["results"][0]["data"][0]["row"][0].clone();
    assert_eq!(rows(&run), Value::from(1));
    let committed = call(Method::POST, &commit, STATEMENT).await;
    assert_eq!((committed.status, rows(&committed)), (200, Value::from(1)));
    assert_eq!((committed.json()["errors"].clone(), neo4j.open_transactions()), (serde_json::json!([]), 0));

    // A rollback goes to the Location.
    let begun = call(Method::POST, &format!("{base}/db/neo4j/tx"), "{}").await;
    let rolled_back = call(Method::DELETE, begun.header("location").expect("a Location"), "").await;
    assert_eq!((rolled_back.status, neo4j.open_transactions()), (200, 0));
}

/// The URLs of discovery lead back to where it was asked, and work from there.
async fn discovery(base: &str) {
    let found = call(Method::GET, &format!("{base}/"), "").await.json();
    let url = |name: &str| found[name].as_str().expect("a URL").replace("{databaseName}", "neo4j");
    assert_eq!(url("transaction"), format!("{base}/db/neo4j/tx"));
    let query = call(Method::POST, &url("query"), r#"{"statement":"RETURN 1 AS n"}"#).await;
    assert_eq!((query.status, query.json()["data"]["values"][0][0].clone()), (202, Value::from(1)));
    let committed = call(Method::POST, &format!("{}/commit", url("transaction")), STATEMENT).await;
    assert_eq!(committed.status, 200, "{committed:?}");
}

async fn neo4j() -> Neo4j {
    Neo4j::builder().basic("neo4j", "verysecret").start().await.expect("start")
}

fn graph_route(neo4j: &Neo4j, matches: &str) -> String {
    format!(
        "[server]\nlisten = \"127.0.0.1:0\"\n[route.graph]\nprovider = \"neo4j\"\n{matches}\nupstream = \"{}\"\n\
         credential = {{ type = \"basic\", username = \"neo4j\", password = {{ value = \"verysecret\" }} }}\n\
         [route.other]\npath = \"/other\"\nupstream = \"http://127.0.0.1:9\"\ncredential = false\n",
        neo4j.url()
    )
}

#[tokio::test]
async fn neo4js_urls_work_as_they_are_on_a_listener_and_on_a_host() {
    let neo4j = neo4j().await;
    let running = sidekey(&graph_route(&neo4j, "listen = \"127.0.0.1:0\"\nhost = \"graph.localhost\""));
    let (shared, own) = (running.addrs()[0], running.addrs()[1]);
    for base in [format!("http://{own}"), format!("http://graph.localhost:{}", shared.port())] {
        discovery(&base).await;
        transaction(&base, &neo4j).await;
    }
    let seen = neo4j.record().take();
    let hosts: Vec<_> = seen.iter().filter_map(|seen| seen.header("host")).collect();
    assert!(hosts.contains(&&*own.to_string()) && hosts.len() == seen.len(), "{hosts:?}");
}

#[tokio::test]
async fn neo4js_urls_work_as_they_are_with_the_environment_as_configuration() {
    let neo4j = neo4j().await;
    let folder = tempfile::tempdir().unwrap();
    let password = private_file(folder.path().join("password"), "verysecret\n");
    let environment = Environment::from_pairs([
        ("NEO4J_URI", neo4j.url()),
        ("NEO4J_USERNAME", "neo4j".to_owned()),
        ("NEO4J_PASSWORD_FILE", password.display().to_string()),
        ("SIDEKEY_LISTEN", "127.0.0.1:0".to_owned()),
        ("SIDEKEY_ADMIN", "false".to_owned()),
    ]);
    let loaded = load(&Source::Environment, &environment, LoadOptions::default()).unwrap();
    assert_eq!(loaded.warnings, []);
    let clock = Clock::system();
    let app = App::start(&loaded.config, &clock, Vault::in_memory(&clock)).unwrap();
    let port = app.addresses()[0].socket.unwrap().port();
    for base in [format!("http://127.0.0.1:{port}"), format!("http://neo4j.localhost:{port}")] {
        discovery(&base).await;
        transaction(&base, &neo4j).await;
    }
    // Begun under the prefix, `Location` keeps it, and `commit` leads to the same without it.
    let begun = call(Method::POST, &format!("http://127.0.0.1:{port}/neo4j/db/neo4j/tx"), STATEMENT).await;
    let location = begun.header("location").unwrap();
    assert!(location.starts_with(&format!("http://127.0.0.1:{port}/neo4j/db/neo4j/tx/")), "{location}");
    assert_eq!(call(Method::POST, location, STATEMENT).await.status, 200);
    let commit = begun.json()["commit"].as_str().unwrap().to_owned();
    assert_eq!(call(Method::POST, &commit, STATEMENT).await.status, 200);
    assert_eq!(neo4j.open_transactions(), 0);
    app.stop().await;
}

#[tokio::test]
async fn behind_a_prefix_alone_neo4js_location_works_and_check_says_what_does_not() {
    let neo4j = neo4j().await;
    let text = graph_route(&neo4j, "path = \"/graph\"");
    let running = sidekey(&text);
    let base = format!("http://{}", running.addr);
    let begun = call(Method::POST, &format!("{base}/graph/db/neo4j/tx"), STATEMENT).await;
    let location = begun.header("location").unwrap();
    assert!(location.starts_with(&format!("{base}/graph/db/neo4j/tx/")), "{location}");
    assert_eq!(call(Method::POST, location, STATEMENT).await.status, 200);
    // The body passes as it is, and what it says lacks the prefix.
    let commit = begun.json()["commit"].as_str().unwrap().to_owned();
    let lost = call(Method::POST, &commit, STATEMENT).await;
    assert_eq!((lost.status, lost.header("sidekey-error")), (404, Some("no_route")));
    assert_eq!(call(Method::DELETE, location, "").await.status, 200);

    let folder = tempfile::tempdir().unwrap();
    let path = private_file(folder.path().join("sidekey.toml"), &text);
    let check =
        Command::new(env!("CARGO_BIN_EXE_sidekey")).arg("check").arg("-c").arg(&path).output().unwrap();
    let told = String::from_utf8(check.stderr).unwrap();
    let want = format!(
        "warning: {}:5:8: Neo4j writes URLs without this prefix into its answers; a client that follows them needs \
         `host` or `listen` in this route",
        path.display()
    );
    assert!(check.status.success() && told.lines().any(|line| line == want), "{told}");
}
