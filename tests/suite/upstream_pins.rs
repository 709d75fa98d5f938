//! Servers that are known by their public key: the key decides, and nothing else of a certificate.
#![cfg(feature = "demo")]

use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use crate::support::running::{aura, config, open_route, sidekey};
use crate::support::tls::{Authority, Identity, TlsServer};
use crate::support::{Reply, get};
use rustls::ServerConfig;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use sidekey::dial::{DialError, dial};
use sidekey::telemetry::chain;
use sidekey::tls::TlsFactory;

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok";

/// One route to `upstream`, with these `tls` settings.
fn route(upstream: &str, tls: &str) -> String {
    let text = open_route(([127, 0, 0, 1], 9).into(), &format!("tls = {tls}"));
    text.replace("http://127.0.0.1:9", upstream)
}

fn pinned(pins: &[String]) -> String {
    format!("{{ pin = {pins:?} }}")
}

fn assert_another_key(reply: &Reply) {
    assert_eq!(
        (reply.status, reply.header("sidekey-error")),
        (502, Some("upstream_unreachable")),
        "{reply:?}"
    );
    assert_eq!(reply.header("proxy-status"), Some("sidekey; error=tls_certificate_error"));
}

/// What the log would say of a connection to the only route's upstream.
async fn failure(text: &str) -> DialError {
    let route = config(text).routes.remove(0);
    let connector = TlsFactory::default().connector(&route.tls).expect("a connector");
    dial(&route.upstream, Some(&connector.0), Duration::from_secs(5)).await.expect_err("it is not the one")
}

#[tokio::test]
async fn a_pinned_key_is_enough_whoever_signed_and_whatever_the_certificate_says() {
    // Nobody signed it, it is for another name, and it ended long ago.
    let identity = Identity::self_signed("other.example");
    let server = TlsServer::start(&identity, None, OK).await;
    let curls = identity.pin().replacen('/', "//", 1);
    let other = Identity::self_signed("localhost").pin();
    for pins in [vec![identity.pin()], vec![curls], vec![other, identity.pin()]] {
        for name in ["localhost", "127.0.0.1"] {
            let running = sidekey(&route(&server.url(name), &pinned(&pins)));
            assert_eq!(get(running.addr, "/", &[]).await.text(), "ok", "{pins:?} {name}");
        }
    }
    assert_eq!(server.visits().len(), 6);
    let running = sidekey(&route(&server.url("localhost"), "{}"));
    assert_another_key(&get(running.addr, "/", &[]).await);
    assert_eq!(server.visits().len(), 6, "without a pin it is not trusted");
}

#[tokio::test]
async fn another_key_than_the_pinned_one_is_refused_and_told_even_if_the_certificate_verifies() {
    let authority = Authority::new();
    let identity = authority.issue(&["localhost"]);
    let server = TlsServer::start(&identity, None, OK).await;
    // The roots that would verify it are there, for all; the route's own pin comes before them.
    let global = format!("\n[tls]\nca = \"{}\"", authority.ca.display());
    let other = authority.issue(&["localhost"]).pin();
    let text = route(&server.url("localhost"), &pinned(&[other])) + &global;
    assert_another_key(&get(sidekey(&text).addr, "/", &[]).await);
    let error = failure(&text).await;
    assert!(matches!(error, DialError::OtherKey { .. }) && error.is_certificate(), "{error:?}");
    let want =
        format!("TLS with localhost failed: its public key is {}, and `pin` has another", identity.pin());
    assert_eq!(chain(&error), want);
    assert!(server.visits().is_empty());
    let running = sidekey(&(route(&server.url("localhost"), "{}") + &global));
    assert_eq!(get(running.addr, "/", &[]).await.status, 200);
}

#[tokio::test]
async fn the_key_of_an_issuer_is_not_the_servers_and_the_error_says_so() {
    let authority = Authority::new();
    let identity = authority.issue(&["localhost"]);
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let chain_of_both = vec![identity.chain().remove(0), authority.root()];
    let server = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain_of_both, identity.key())
        .unwrap();
    let server = TlsServer::serving(server, OK).await;
    let error = failure(&route(&server.url("localhost"), &pinned(&[authority.pin()]))).await;
    let text = chain(&error);
    assert!(text.contains(&identity.pin()) && text.ends_with("where it takes the server's own"), "{text}");
    assert!(server.visits().is_empty());
}

/// Shows somebody's certificate without having its key.
#[derive(Debug)]
struct Impostor(Arc<CertifiedKey>);

impl ResolvesServerCert for Impostor {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }
}

#[tokio::test]
async fn a_pinned_certificate_without_its_private_key_is_refused_in_tls_1_2_and_1_3() {
    let (identity, other) = (Identity::self_signed("localhost"), Identity::self_signed("localhost"));
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        for (key, good) in [(identity.key(), true), (other.key(), false)] {
            let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
            let key = provider.key_provider.load_private_key(key).unwrap();
            let shown = Impostor(Arc::new(CertifiedKey::new(identity.chain(), key)));
            let server = ServerConfig::builder_with_provider(provider)
                .with_protocol_versions(&[version])
                .unwrap()
                .with_no_client_auth()
                .with_cert_resolver(Arc::new(shown));
            let server = TlsServer::serving(server, OK).await;
            let running = sidekey(&route(&server.url("localhost"), &pinned(&[identity.pin()])));
            let reply = get(running.addr, "/", &[]).await;
            assert_eq!(reply.status, if good { 200 } else { 502 }, "{version:?}: {reply:?}");
            assert_eq!(server.visits().len(), usize::from(good), "{version:?}");
        }
    }
}

#[tokio::test]
async fn a_session_is_not_resumed_by_a_route_that_pins_another_key() {
    let identity = Identity::self_signed("localhost");
    let server = TlsServer::start(&identity, None, OK).await;
    let url = server.url("localhost");
    let other = Identity::self_signed("localhost").pin();
    let route = |name: &str, tls: &str| {
        format!(
            "[route.{name}]\npath = \"/{name}\"\ncredential = false\nupstream = \"{url}\"\nmax_connections = 1\n\
             tls = {tls}\n"
        )
    };
    let text = format!(
        "[server]\nlisten = \"127.0.0.1:0\"\n{}{}{}",
        route("good", &pinned(&[identity.pin()])),
        route("bad", &pinned(&[other])),
        route("none", "{}")
    );
    let running = sidekey(&text);
    for _ in 0..2 {
        assert_eq!(get(running.addr, "/good", &[]).await.status, 200);
        assert_another_key(&get(running.addr, "/bad", &[]).await);
        assert_another_key(&get(running.addr, "/none", &[]).await);
    }
    let resumed: Vec<bool> = server.visits().iter().map(|visit| visit.resumed).collect();
    assert_eq!(resumed, [false, true], "the same route resumes its own");
}

#[tokio::test]
async fn a_token_is_asked_for_where_the_pinned_key_is_and_nowhere_else() {
    const GRANT: &str = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 45\r\n\r\n\
                         {\"access_token\":\"over-tls\",\"expires_in\":3600}\n";
    let identity = Identity::self_signed("localhost");
    let server = TlsServer::start(&identity, None, GRANT).await;
    let upstream = aura().await;
    let text = |pin: &str| {
        format!(
            "[server]\nlisten = \"127.0.0.1:0\"\n[route.a]\nupstream = \"{}\"\ncredential = \"a\"\n\
             [credential.a]\ntype = \"client_credentials\"\ntoken_url = \"{}/token\"\nclient_id = \"id\"\n\
             client_secret = {{ value = \"secret\" }}\ntls = {{ pin = \"{pin}\" }}",
            upstream.url(),
            server.url("localhost")
        )
    };
    let running = sidekey(&text(&Identity::self_signed("localhost").pin()));
    let reply = get(running.addr, "/v1/echo", &[]).await;
    assert_eq!((reply.status, reply.header("sidekey-error")), (503, Some("credential_unavailable")));
    assert!(server.visits().is_empty(), "nothing is sent to another key");
    let running = sidekey(&text(&identity.pin()));
    get(running.addr, "/v1/echo", &[]).await;
    assert!(server.visits()[0].head.starts_with("POST /token HTTP/1.1\r\n"));
    assert_eq!(upstream.record().take()[0].header("authorization"), Some("Bearer over-tls"));
}

#[tokio::test]
async fn check_shows_the_key_that_the_server_has() {
    let identity = Identity::self_signed("localhost");
    let server = TlsServer::start(&identity, None, OK).await;
    let folder = tempfile::tempdir().unwrap();
    let check = async |pin: &str| {
        let text = route(&server.url("localhost"), &pinned(&[pin.to_owned()]));
        std::fs::write(folder.path().join("sidekey.toml"), text).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_sidekey"));
        command.args(["check", "--connect"]).current_dir(folder.path()).env_clear();
        let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    let (status, said) = check(&Identity::self_signed("localhost").pin()).await;
    assert!(status == Some(2) && said.contains(&identity.pin()), "{status:?} {said}");
    let (status, said) = check(&identity.pin()).await;
    assert!(status == Some(0) && said.contains("accepts connections"), "{status:?} {said}");
}
