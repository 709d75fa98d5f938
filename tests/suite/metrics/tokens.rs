//! What metrics tell of credentials: by their names, and no secret or account.

use crate::support::running::aura;
use crate::support::scripted::{Scripted, read_request, say};
use crate::support::{Reply, get, post};
use sidekey::clock::Clock;
use sidekey::demo::standins::{Aura, Fault};

use super::Counting;
use super::page::Page;

/// A route and the credential of an Aura stand-in.
pub(crate) fn of_aura(aura: &Aura, upstream: &str) -> String {
    let url = aura.url();
    format!(
        "[route.aura]\nprovider = \"aura\"\npath = \"/aura\"\nupstream = \"{upstream}\"\ncredential = \"aura-api\"\n\
         replay_body = \"1KiB\"\n[credential.aura-api]\ntype = \"aura\"\ntoken_url = \"{url}/oauth/token\"\n\
         clients = [{{ name = \"canary-account\", client_id = \"id\", client_secret = {{ value = \"s:cret\" }} }}]\n\
         [caller.canary-caller]\ntoken = {{ value = \"canary-token-of-the-caller\" }}\n"
    )
}

const CALLER: (&str, &str) = ("sidekey-token", "canary-token-of-the-caller");

#[tokio::test]
async fn tokens_are_told_of_by_their_credential_and_no_secret_or_account_is() {
    let aura = aura().await;
    aura.token_fault(Fault::Status(500));
    let counting = Counting::start("", &of_aura(&aura, &aura.url())).await;
    let fetches = |page: &Page, outcome| {
        page.value("sidekey_token_fetches_total", &[("credential", "aura-api"), ("outcome", outcome)])
    };
    let state =
        |page: &Page, state| page.value("sidekey_accounts", &[("credential", "aura-api"), ("state", state)]);
    let with_token = |page: &Page| page.value("sidekey_accounts_with_token", &[("credential", "aura-api")]);
    let expiry =
        |page: &Page| page.find("sidekey_token_expiry_timestamp_seconds", &[("credential", "aura-api")]);
    let page = counting.once("a failure", |page| fetches(page, "failed") >= 1.0).await;
    assert_eq!((fetches(&page, "ok"), with_token(&page), expiry(&page)), (0.0, 0.0, None));
    assert_eq!((state(&page, "failing"), state(&page, "ready")), (1.0, 0.0));
    assert_eq!(page.value("sidekey_ready", &[]), 0.0);
    aura.token_fault(Fault::None);
    let page = counting.once("a token", |page| with_token(page) == 1.0).await;
    assert_eq!((fetches(&page, "ok"), state(&page, "ready"), state(&page, "failing")), (1.0, 1.0, 0.0));
    assert_eq!(page.value("sidekey_ready", &[]), 1.0);
    let now = Clock::system().wall().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64();
    let left = expiry(&page).unwrap() - now;
    assert!((3500.0..3601.0).contains(&left), "{left}");
    assert_eq!(expiry(&page), expiry(&counting.page().await), "it moves only with the token");

    let instances = async || get(counting.addr, "/aura/v1/instances", &[CALLER]).await.status;
    assert_eq!(instances().await, 200);
    let rejections = |page: &Page, outcome| {
        page.value("sidekey_token_rejections_total", &[("credential", "aura-api"), ("outcome", outcome)])
    };
    aura.tokens().revoke_all();
    assert_eq!(instances().await, 200);
    let page = counting.once("the replay", |page| rejections(page, "replayed") == 1.0).await;
    assert_eq!((fetches(&page, "ok"), rejections(&page, "passed_on")), (2.0, 0.0));
    aura.tokens().revoke_all();
    let reply = post(counting.addr, "/aura/v1/echo", &[CALLER], "x".repeat(4000)).await;
    assert_eq!(reply.status, 401, "{reply:?}");
    let page = counting.once("the refusal", |page| rejections(page, "passed_on") == 1.0).await;
    assert_eq!((rejections(&page, "replayed"), rejections(&page, "refused_again")), (1.0, 0.0));

    let token =
        aura.record().requests().iter().find_map(|seen| seen.header("authorization").map(str::to_owned));
    let token = token.expect("a token was sent");
    for path in ["/metrics", "/status"] {
        let text = get(counting.admin, path, &[]).await.text().to_owned();
        for secret in ["s:cret", "canary-token", token.trim_start_matches("Bearer ")] {
            assert!(!text.contains(secret), "{secret} in {path}");
        }
        let names = text.contains("canary-account") || text.contains("canary-caller");
        assert!(path == "/status" || !names, "accounts and callers are many: {text}");
    }
}

#[tokio::test]
async fn a_token_that_is_refused_whatever_it_is_counts_once_for_each_request() {
    let aura = aura().await;
    let upstream = Scripted::start(|_, mut stream| async move {
        while read_request(&mut stream).await.is_some() {
            let refusal = "HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Bearer error=\"invalid_token\"\r\n\
                           Content-Length: 0\r\n\r\n";
            say(&mut stream, refusal).await;
        }
    })
    .await;
    let counting = Counting::start("", &of_aura(&aura, &format!("http://{}", upstream.addr))).await;
    let all = |page: &Page| -> f64 {
        page.series("sidekey_token_rejections_total").iter().map(|(_, value)| *value).sum()
    };
    let mut asked = 0.0;
    for _ in 0..4 {
        let reply: Reply = get(counting.addr, "/aura/x", &[CALLER]).await;
        assert_eq!(reply.status, 401);
        asked += 1.0;
        counting.once("one more", |page| all(page) == asked).await;
    }
    let page = counting.page().await;
    let outcome = |outcome| {
        page.value("sidekey_token_rejections_total", &[("credential", "aura-api"), ("outcome", outcome)])
    };
    assert!(outcome("refused_again") >= 1.0 && outcome("passed_on") >= 1.0, "{page:?}");
    assert_eq!((outcome("replayed"), outcome("failed")), (0.0, 0.0));
    assert_eq!(page.requests("aura", "401"), 4.0);
}
