//! TLS towards upstreams and token endpoints: always verified, with private roots and client certificates.
#![cfg(feature = "demo")]

use std::time::Duration;

use crate::support::running::{aura, config, open_route, sidekey, try_sidekey};
use crate::support::scripted::Scripted;
use crate::support::tls::{Authority, TlsServer};
use crate::support::{Reply, get, try_send};
use http::Method;
use sidekey::dial::dial;
use sidekey::tls::TlsFactory;
use tokio::io::AsyncWriteExt as _;

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok";

/// One route to `upstream`, with these `tls` settings.
fn route(upstream: &str, tls: &str) -> String {
    let text = open_route(([127, 0, 0, 1], 9).into(), &format!("connect_timeout = \"1s\"\ntls = {tls}"));
    text.replace("http://127.0.0.1:9", upstream)
}

fn trusting(authority: &Authority) -> String {
    format!("{{ ca = \"{}\" }}", authority.ca.display())
}

fn assert_certificate_error(reply: &Reply) {
    assert_eq!(
        (reply.status, reply.header("sidekey-error")),
        (502, Some("upstream_unreachable")),
        "{reply:?}"
    );
    assert_eq!(reply.header("proxy-status"), Some("sidekey; error=tls_certificate_error"));
}

#[tokio::test]
async fn a_private_authority_is_trusted_where_it_is_named_and_only_there() {
    let authority = Authority::new();
    let server = TlsServer::start(&authority.issue(&["localhost", "127.0.0.1"]), None, OK).await;
    for name in ["localhost", "127.0.0.1"] {
        let running = sidekey(&route(&server.url(name), &trusting(&authority)));
        assert_eq!(get(running.addr, "/", &[]).await.text(), "ok", "{name}");
        let head = server.visits().pop().unwrap().head;
        assert!(head.contains(&format!("host: {name}:{}\r\n", server.addr.port())), "{head}");
    }
    let before = server.visits().len();
    let running = sidekey(&route(&server.url("localhost"), "{}"));
    assert_certificate_error(&get(running.addr, "/", &[]).await);
    let other = Authority::new();
    let running = sidekey(&route(&server.url("localhost"), &trusting(&other)));
    assert_certificate_error(&get(running.addr, "/", &[]).await);
    assert_eq!(server.visits().len(), before);

    // Named for all, it holds for this route, too.
    let global =
        route(&server.url("localhost"), "{}") + &format!("\n[tls]\nca = [\"{}\"]", authority.ca.display());
    let running = sidekey(&global);
    assert_eq!(get(running.addr, "/", &[]).await.status, 200);
}

#[tokio::test]
async fn a_certificate_for_another_name_is_refused() {
    let authority = Authority::new();
    let server = TlsServer::start(&authority.issue(&["other.example"]), None, OK).await;
    for name in ["localhost", "127.0.0.1"] {
        let running = sidekey(&route(&server.url(name), &trusting(&authority)));
        assert_certificate_error(&get(running.addr, "/", &[]).await);
    }
    assert!(server.visits().is_empty());
}

#[tokio::test]
async fn a_client_certificate_is_presented_where_one_is_configured() {
    let authority = Authority::new();
    let server = TlsServer::start(&authority.issue(&["localhost"]), Some(&authority), OK).await;
    let (cert, key) = authority.client_files();
    let tls = format!(
        "{{ ca = \"{}\", cert = \"{}\", key = \"{}\" }}",
        authority.ca.display(),
        cert.display(),
        key.display()
    );
    let running = sidekey(&route(&server.url("localhost"), &tls));
    assert_eq!(get(running.addr, "/", &[]).await.status, 200);
    assert!(server.visits()[0].with_certificate);

    let running = sidekey(&route(&server.url("localhost"), &trusting(&authority)));
    let reply = get(running.addr, "/", &[]).await;
    assert_eq!((reply.status, reply.header("sidekey-error")), (502, Some("upstream_unreachable")));
    assert_eq!(server.visits().len(), 1);
}

#[tokio::test]
async fn a_certificate_without_its_own_key_is_found_before_anything_listens() {
    let authority = Authority::new();
    let (cert, _) = authority.client_files();
    let other = Authority::new();
    let (_, key) = other.client_files();
    let tls = format!("{{ cert = \"{}\", key = \"{}\" }}", cert.display(), key.display());
    let error = try_sidekey(&route("https://localhost:9", &tls)).err().expect("they do not go together");
    assert!(error.to_string().contains("cannot be used together"), "{error}");
    let no_pem = authority.folder().join("no.pem");
    std::fs::write(&no_pem, "hello").unwrap();
    let tls = format!("{{ ca = \"{}\" }}", no_pem.display());
    assert!(try_sidekey(&route("https://localhost:9", &tls)).is_err());
}

#[tokio::test]
async fn an_upstream_that_speaks_no_tls_or_nothing_is_told_apart() {
    let plain = Scripted::saying("HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n").await;
    let running = sidekey(&route(&format!("https://{}", plain.addr), "{}"));
    // It waits for the end of a header that a ClientHello has not; its connection ends at the time limit.
    let reply = get(running.addr, "/", &[]).await;
    assert_eq!((reply.status, reply.header("sidekey-error")), (504, Some("upstream_timeout")));
    assert_eq!(reply.header("proxy-status"), Some("sidekey; error=connection_timeout"));

    let eager = Scripted::start(|_, mut stream| async move {
        crate::support::scripted::say(&mut stream, "HTTP/1.1 400 Bad Request\r\n\r\n").await;
        std::future::pending::<()>().await;
    })
    .await;
    let running = sidekey(&route(&format!("https://{}", eager.addr), "{}"));
    let reply = get(running.addr, "/", &[]).await;
    assert_eq!((reply.status, reply.header("sidekey-error")), (502, Some("upstream_unreachable")));
    assert_eq!(reply.header("proxy-status"), Some("sidekey; error=tls_protocol_error"));
}

#[tokio::test]
async fn a_body_that_ends_without_a_tls_goodbye_is_truncated() {
    let authority = Authority::new();
    let identity = authority.issue(&["localhost"]);
    let server = TlsServer::start(&identity, None, "HTTP/1.1 200 OK\r\n\r\nall or part?").await;
    let running = sidekey(&route(&server.url("localhost"), &trusting(&authority)));
    let reply = try_send(running.addr, Method::GET, "/", &[], "").await;
    assert!(reply.is_err(), "{reply:?}");
}

#[tokio::test]
async fn a_token_endpoint_is_verified_as_an_upstream_is() {
    const GRANT: &str = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 45\r\n\r\n\
                         {\"access_token\":\"over-tls\",\"expires_in\":3600}\n";
    let authority = Authority::new();
    let server = TlsServer::start(&authority.issue(&["localhost"]), Some(&authority), GRANT).await;
    let (cert, key) = authority.client_files();
    let upstream = aura().await;
    let text = |tls: &str| {
        format!(
            "[server]\nlisten = \"127.0.0.1:0\"\n[route.a]\nupstream = \"{}\"\ncredential = \"a\"\n\
             [credential.a]\ntype = \"client_credentials\"\ntoken_url = \"{}/token\"\nclient_id = \"id\"\n\
             client_secret = {{ value = \"secret\" }}\ntls = {tls}",
            upstream.url(),
            server.url("localhost")
        )
    };
    let identity = format!("cert = \"{}\", key = \"{}\"", cert.display(), key.display());
    let running = sidekey(&text(&format!("{{ {identity} }}")));
    let reply = get(running.addr, "/v1/echo", &[]).await;
    assert_eq!((reply.status, reply.header("sidekey-error")), (503, Some("credential_unavailable")));
    assert!(server.visits().is_empty(), "nothing is sent to whom it does not trust");

    let running = sidekey(&text(&format!("{{ ca = \"{}\", {identity} }}", authority.ca.display())));
    get(running.addr, "/v1/echo", &[]).await;
    let visit = server.visits().remove(0);
    assert!(visit.with_certificate && visit.head.starts_with("POST /token HTTP/1.1\r\n"), "{visit:?}");
    let seen = upstream.record().take();
    assert_eq!(seen[0].header("authorization"), Some("Bearer over-tls"));
}

#[tokio::test]
async fn a_connection_after_the_first_resumes_its_tls_session_on_every_worker() {
    let authority = Authority::new();
    let server = TlsServer::start(&authority.issue(&["localhost"]), None, OK).await;
    let text = route(&server.url("localhost"), &trusting(&authority))
        .replace("listen = \"127.0.0.1:0\"", "listen = \"127.0.0.1:0\"\nworkers = 2");
    let running = sidekey(&text);
    // Connections that stay open, so that each of the two workers has its share of them.
    let mut callers = Vec::new();
    for _ in 0..4 {
        let mut caller = tokio::net::TcpStream::connect(running.addr).await.unwrap();
        caller.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
        assert_eq!(crate::support::read_reply(&mut caller).await.text(), "ok");
        callers.push(caller);
    }
    let resumed: Vec<bool> = server.visits().iter().map(|visit| visit.resumed).collect();
    assert_eq!(resumed, [false, true, true, true]);
}

#[tokio::test]
async fn a_connection_tells_the_protocol_that_its_handshake_chose() {
    let authority = Authority::new();
    let server = TlsServer::start(&authority.issue(&["localhost"]), None, OK).await;
    let route = config(&route(&server.url("localhost"), &trusting(&authority))).routes.remove(0);
    let connector = TlsFactory::default().connector(&route.tls).unwrap();
    let limit = Duration::from_secs(5);
    let stream = dial(&route.upstream, Some(&connector.0), limit).await.unwrap();
    assert_eq!(stream.alpn_protocol(), Some(&b"http/1.1"[..]));
    let stream = dial(&route.upstream, None, limit).await.unwrap();
    assert_eq!(stream.alpn_protocol(), None, "clear text has none");
}
