//! Callers: once one is configured, nobody else gets in, and each goes as far as it may.
#![cfg(feature = "demo")]

use crate::support::running::{Running, aura, aura_route, eventually, private_file, sidekey, sidekey_in};
use crate::support::{Headers, Reply, get, raw_unix};
use sidekey::demo::standins::Aura;

const CI: &str = "ci-token-0123456789";
const WEB: &str = "web-token-0123456789";

const CALLERS: &str = "[caller.ci]\ntoken = { value = \"ci-token-0123456789\" }\n\
                       [caller.web]\ntoken = { value = \"web-token-0123456789\" }\nroutes = [\"other\"]\n";

/// One route by `/`, one by `/other`, both to the same stand-in.
fn two_routes(aura: &Aura) -> String {
    let url = aura.url();
    format!(
        "{}[route.other]\nprovider = \"aura\"\npath = \"/other\"\nupstream = \"{url}\"\ncredential = \"aura\"\n{CALLERS}",
        aura_route(aura, "")
    )
}

async fn two() -> (Aura, Running) {
    let aura = aura().await;
    let running = sidekey(&two_routes(&aura));
    running.settled().await;
    (aura, running)
}

async fn ask(running: &Running, path: &str, headers: Headers<'_>) -> Reply {
    get(running.addr, path, headers).await
}

/// Requests that reached the API, those for tokens left out.
fn arrived(aura: &Aura) -> u64 {
    aura.record().api_requests()
}

#[tokio::test]
async fn nobody_else_gets_in_and_what_is_shown_does_not_go_on() {
    let (aura, running) = two().await;
    let unknown: [Headers<'_>; 5] = [
        &[],
        &[("authorization", "Bearer wrong")],
        &[("sidekey-token", "wrong")],
        &[("sidekey-token", "wrong"), ("authorization", "Bearer ci-token-0123456789")],
        &[("authorization", "Basic Y2k6d3Jvbmc=")],
    ];
    for headers in unknown {
        for path in ["/v1/instances", "/other/v1/instances"] {
            let reply = ask(&running, path, headers).await;
            assert_eq!(
                (reply.status, reply.header("sidekey-error")),
                (401, Some("caller_unknown")),
                "{reply:?}"
            );
            let schemes = reply.headers.iter().filter(|(name, _)| name == "www-authenticate");
            assert_eq!(schemes.count(), 2, "{reply:?}");
            assert!(reply.header("proxy-status").is_some(), "{reply:?}");
        }
    }
    assert_eq!(arrived(&aura), 0);
    let basic = format!("Basic {}", base64(&format!("anything:{CI}")));
    let bearer = format!("Bearer {CI}");
    let known: [Headers<'_>; 3] =
        [&[("sidekey-token", CI)], &[("authorization", &bearer)], &[("authorization", &basic)]];
    for headers in known {
        assert_eq!(ask(&running, "/v1/instances", headers).await.status, 200, "{headers:?}");
    }
    let seen = aura.record().requests();
    for request in seen.iter().filter(|request| !request.token_request) {
        let text = format!("{request:?}");
        assert!(!text.contains(CI) && !text.contains(&basic), "{text}");
        assert!(!text.to_ascii_lowercase().contains("sidekey-token"), "{text}");
    }
    running.stop().await;
}

#[tokio::test]
async fn a_caller_uses_its_routes_and_no_others() {
    let (aura, running) = two().await;
    let own = ask(&running, "/other/v1/instances", &[("sidekey-token", WEB)]).await;
    assert_eq!(own.status, 200);
    for path in ["/v1/instances", "/others", "/", "/%6Fthe"] {
        let reply = ask(&running, path, &[("sidekey-token", WEB)]).await;
        assert_eq!((reply.status, reply.header("sidekey-error")), (403, Some("not_allowed")), "{path}");
    }
    assert_eq!(arrived(&aura), 1);
    running.stop().await;
}

#[tokio::test]
async fn a_token_that_changes_counts_within_seconds() {
    let aura = aura().await;
    let folder = tempfile::tempdir().unwrap();
    let path = private_file(folder.path().join("token"), "first-token-0123456789\n");
    let callers = format!("[caller.ci]\ntoken = {{ file = \"{}\" }}\n", path.display());
    let running = sidekey(&(aura_route(&aura, "") + &callers));
    running.settled().await;
    let status = async |token: &str| ask(&running, "/v1/instances", &[("sidekey-token", token)]).await.status;
    assert_eq!(status("first-token-0123456789").await, 200);
    std::fs::write(&path, "second-token-0123456789\n").unwrap();
    eventually("the new token counts", async || status("second-token-0123456789").await == 200).await;
    assert_eq!(status("first-token-0123456789").await, 401);
    running.stop().await;
}

#[tokio::test]
async fn a_process_is_known_on_a_unix_socket_and_nowhere_else() {
    let aura = aura().await;
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("s");
    let me = rustix::process::geteuid().as_raw();
    let text = |uid: u32| {
        let listen = format!("listen = [\"127.0.0.1:0\", \"unix:{}\"]", socket.display());
        let text = aura_route(&aura, "").replace("listen = \"127.0.0.1:0\"", &listen);
        format!("{text}[caller.me]\nuid = {uid}\n")
    };
    let head = "GET /v1/instances HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    for (uid, want) in [(me, 200), (me + 1, 401)] {
        let running = sidekey(&text(uid));
        running.settled().await;
        assert_eq!(raw_unix(&socket, head).await.status, want, "uid {uid}");
        assert_eq!(ask(&running, "/v1/instances", &[]).await.status, 401, "uid {uid}, over TCP");
        running.stop().await;
    }
    assert_eq!(arrived(&aura), 1);
}

#[tokio::test]
async fn a_token_of_the_environment_is_the_default_callers() {
    let aura = aura().await;
    let folder = tempfile::tempdir().unwrap();
    let path = private_file(folder.path().join("token"), "of-the-environment-0123\n");
    let path = path.to_str().unwrap();
    // The file's own is replaced, its other callers stay.
    let callers = "[caller.default]\ntoken = { value = \"of-the-file-0123456789\" }\n[caller.ci]\n\
                   token = { value = \"ci-token-0123456789\" }\n";
    let variables = [("SIDEKEY_CALLER_TOKEN_FILE", path)];
    let running = sidekey_in(&(aura_route(&aura, "") + callers), &variables);
    running.settled().await;
    for (token, want) in [("of-the-environment-0123", 200), ("of-the-file-0123456789", 401), (CI, 200)] {
        assert_eq!(ask(&running, "/v1/instances", &[("sidekey-token", token)]).await.status, want, "{token}");
    }
    running.stop().await;
}

#[tokio::test]
async fn a_caller_is_limited_to_its_accounts() {
    let aura = Aura::builder().client("a", "s").client("b", "s").start().await.unwrap();
    let url = aura.url();
    let client = |name: &str| {
        format!("{{ name = \"{name}\", client_id = \"{name}\", client_secret = {{ value = \"s\" }} }}")
    };
    let running = sidekey(&format!(
        "[server]\nlisten = \"127.0.0.1:0\"\n[route.aura]\nprovider = \"aura\"\npath = \"/\"\nupstream = \"{url}\"\n\
         credential = \"aura\"\n[credential.aura]\ntype = \"aura\"\ntoken_url = \"{url}/oauth/token\"\n\
         account_header = \"Sidekey-Account\"\nclients = [{}, {}]\n[caller.ci]\naccounts = [\"b\"]\n\
         token = {{ value = \"{CI}\" }}\n[caller.web]\ntoken = {{ value = \"{WEB}\" }}\n",
        client("a"),
        client("b"),
    ));
    running.settled().await;
    for (token, account, want) in
        [(CI, "b", 200), (CI, "a", 403), (CI, "B", 403), (WEB, "a", 200), (WEB, "c", 400)]
    {
        let reply =
            ask(&running, "/v1/instances", &[("sidekey-token", token), ("sidekey-account", account)]).await;
        assert_eq!(reply.status, want, "{token} {account}: {reply:?}");
    }
    assert_eq!(aura.record().api_requests(), 2);
    running.stop().await;
}

fn base64(text: &str) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(text)
}
