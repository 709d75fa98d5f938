//! Logins over real sockets: at the admin listener and at a redirect port of its own, with a browser that keeps cookies,
//! against a stand-in of an authorization server.
#![cfg(feature = "demo")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use crate::support::browser::Browser;
use crate::support::running::{config, eventually};
use crate::support::{Reply, free, free_at_localhost, get, send};
use http::Method;
use serde_json::Value;
use sidekey::admin::read_token;
use sidekey::app::{App, Control, vault_of};
use sidekey::clock::Clock;
use sidekey::config::Environment;
use sidekey::demo::standins::authorization::When;
use sidekey::demo::standins::authorization::{Consent, Registration};
use sidekey::demo::standins::{AuthorizationServer, Fault, Neon};
use tokio::net::TcpStream;
use url::Url;

const FORM: (&str, &str) = ("content-type", "application/x-www-form-urlencoded");

/// A sidekey in this process, with its admin listener, in front of Neon with an authorization server.
struct Site {
    server: AuthorizationServer,
    _neon: Neon,
    app: App,
    /// Dropped with it: its admin listener and its doors.
    _control: Control,
    admin: SocketAddr,
    redirect: String,
    token: String,
    _folder: tempfile::TempDir,
}

impl Site {
    /// Browsers come back to the admin listener.
    async fn at_admin(more: &str) -> Self {
        let admin = free();
        Self::start(admin, &format!("http://{admin}/callback"), more).await
    }

    /// Browsers come back to a port of the credential's own.
    async fn at_own_port(more: &str) -> Self {
        let redirect = format!("http://localhost:{}/api/auth/callback/neon", free_at_localhost().port());
        Self::start(free(), &redirect, more).await
    }

    async fn start(admin: SocketAddr, redirect: &str, more: &str) -> Self {
        let client = Registration::post("app", "canary-s3cret").redirect(redirect);
        let server = AuthorizationServer::builder().client(client).start().await.unwrap();
        let neon = Neon::builder().tokens(server.tokens().clone()).start().await.unwrap();
        let config =
            config(&configuration(&server, &neon, admin, redirect, more, "[store]\ntype = \"memory\"\n"));
        let folder = tempfile::tempdir().unwrap();
        let environment = Environment::from_pairs([("XDG_RUNTIME_DIR", folder.path())]);
        let clock = Clock::system();
        let vault = vault_of(&config, &clock).await.unwrap();
        let app = App::start(&config, &clock, vault).unwrap();
        let control = Control::start(&app, &config, &environment, &clock).await.unwrap();
        let token = read_token(admin, &environment).unwrap().expose().to_owned();
        let redirect = redirect.to_owned();
        Self { server, _neon: neon, app, _control: control, admin, redirect, token, _folder: folder }
    }

    /// A request to the admin listener with its token.
    async fn ask(&self, method: Method, target: &str, body: &str) -> Reply {
        send(self.admin, method, target, &[("sidekey-token", &self.token)], body.to_owned()).await
    }

    async fn begin(&self, account: &str) -> Begun {
        let reply = self.ask(Method::POST, &format!("/connect/neon?account={account}"), "").await;
        assert_eq!(reply.status, 201, "{reply:?}");
        Begun { id: text(&reply.json()["login"]), link: text(&reply.json()["link"]) }
    }

    async fn outcome(&self, begun: &Begun) -> Value {
        let reply = self.ask(Method::GET, &format!("/connect/neon/outcome?login={}", begun.id), "").await;
        assert_eq!(reply.status, 200, "{reply:?}");
        reply.json()
    }

    /// What a request through the proxy for this account gets.
    async fn proxied(&self, account: &str) -> u16 {
        let addr = self.app.addresses().iter().find_map(|address| address.socket).unwrap();
        get(addr, "/projects", &[("sidekey-account", account)]).await.status
    }
}

struct Begun {
    id: String,
    link: String,
}

fn configuration(
    server: &AuthorizationServer,
    neon: &Neon,
    admin: SocketAddr,
    redirect: &str,
    more: &str,
    store: &str,
) -> String {
    format!(
        "[server]\nlisten = \"127.0.0.1:0\"\nadmin = \"{admin}\"\n\
         [route.neon]\nprovider = \"neon\"\npath = \"/\"\nupstream = \"{}\"\ncredential = \"neon\"\n\
         [credential.neon]\ntype = \"authorization_code\"\nissuer = \"{}\"\nclient_id = \"app\"\n\
         client_secret = {{ value = \"canary-s3cret\" }}\nauth_method = \"post\"\nredirect_uri = \"{redirect}\"\n\
         account_header = \"Sidekey-Account\"\n{}{more}\n{store}",
        neon.url(),
        server.issuer(),
        if more.contains("scope") { "" } else { "scope = [\"openid\", \"offline_access\"]\n" },
    )
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("{value} is no text")).to_owned()
}

/// What every page of a login says to browsers.
fn is_guarded(reply: &Reply) {
    let header =
        |name: &str| reply.header(name).unwrap_or_else(|| panic!("no {name} in {reply:?}")).to_owned();
    assert_eq!(header("cache-control"), "no-store");
    assert!(["no-referrer", "same-origin"].contains(&header("referrer-policy").as_str()));
    assert_eq!(header("x-frame-options"), "DENY");
    let policy = header("content-security-policy");
    assert!(policy.contains("default-src 'none'") && policy.contains("frame-ancestors 'none'"), "{policy}");
}

/// Sends a browser to where the authorization server sends it back to, and stops there.
async fn way_back(browser: &mut Browser, link: &str) -> String {
    let away = browser.go(link).await;
    assert_eq!(away.status, 303, "{away:?}");
    let back = browser.go(away.header("location").unwrap()).await;
    assert_eq!(back.status, 303, "{back:?}");
    back.header("location").unwrap().to_owned()
}

#[tokio::test]
async fn a_person_logs_in_by_the_form_of_the_admin_listener() {
    let site = Site::at_admin("").await;
    let mut browser = Browser::default();
    let url = format!("http://{}/connect/neon?account=alice", site.admin);
    let typed = [("sec-fetch-site", "none")];
    let form = browser.request(Method::GET, &url, &typed, "").await;
    assert_eq!(form.status, 200);
    is_guarded(&form);
    for part in ["neon", "alice", "offline_access", "type=\"password\"", "sidekey login neon"] {
        assert!(form.text().contains(part), "{part}: {}", form.text());
    }
    let origin = format!("http://{}", site.admin);
    let own = [FORM, ("origin", origin.as_str()), ("sec-fetch-site", "same-origin")];
    let wrong = browser.request(Method::POST, &url, &own, "token=guess").await;
    assert_eq!(wrong.status, 401);
    assert!(wrong.text().contains("not the admin token") && !wrong.text().contains("guess"));
    is_guarded(&wrong);

    let onward = browser.request(Method::POST, &url, &own, &format!("token={}", site.token)).await;
    assert_eq!(onward.status, 200, "{onward:?}");
    is_guarded(&onward);
    let (_, link) = onward.text().split_once("<a href=\"").unwrap();
    let link = link.split_once('"').unwrap().0.replace("&amp;", "&");
    let (at, page) = browser.follow(&link).await;
    assert_eq!((page.status, at.path()), (200, "/callback"), "{page:?}");
    is_guarded(&page);
    for part in ["It worked", "neon", "alice", "openid offline_access", "close this window"] {
        assert!(page.text().contains(part), "{part}: {}", page.text());
    }
    assert!(browser.cookies.is_empty(), "the cookie has done its work");
    eventually("the grant in force", async || site.proxied("alice").await == 200).await;
    assert_eq!(site.proxied("bob").await, 503, "nobody else is logged in");
}

#[tokio::test]
async fn a_redirect_port_of_its_own_is_open_while_a_login_needs_it() {
    let site = Site::at_own_port("").await;
    let url = Url::parse(&site.redirect).unwrap();
    let door = SocketAddr::from(([127, 0, 0, 1], url.port().unwrap()));
    assert!(TcpStream::connect(door).await.is_err(), "nothing is begun");
    let (first, second) = (site.begin("default").await, site.begin("bob").await);
    assert!(first.link.starts_with(&format!("http://localhost:{}/connect/neon?ticket=", door.port())));
    assert_eq!(get(door, "/", &[]).await.status, 404);
    assert_eq!(send(door, Method::POST, url.path(), &[], "").await.status, 405);
    assert_eq!(get(door, url.path(), &[("host", "evil.example")]).await.status, 403);
    assert_eq!(site.outcome(&first).await["state"], "waiting");

    let (_, page) = Browser::default().follow(&first.link).await;
    assert_eq!(page.status, 200, "{page:?}");
    let outcome = site.outcome(&first).await;
    assert_eq!(outcome["state"], "done", "{outcome}");
    assert_eq!(
        (&outcome["account"], &outcome["scope"]),
        (&"default".into(), &"openid offline_access".into())
    );
    assert_eq!((&outcome["refresh"], &outcome["unsaved"]), (&true.into(), &Value::Null));
    assert!(TcpStream::connect(door).await.is_ok(), "the second login still needs it");

    let cancelled = site.ask(Method::POST, &format!("/connect/neon/cancel?login={}", second.id), "").await;
    assert_eq!(cancelled.status, 200);
    assert_eq!(site.outcome(&second).await["state"], "failed");
    eventually("a closed door", async || TcpStream::connect(door).await.is_err()).await;
    let third = site.begin("carol").await;
    assert_eq!(Browser::default().follow(&third.link).await.1.status, 200, "and it opens again");
}

#[tokio::test]
async fn the_link_leads_to_the_host_of_the_redirect_uri_before_it_counts() {
    let admin = free_at_localhost();
    let redirect = format!("http://localhost:{}/callback", admin.port());
    let site = Site::start(admin, &redirect, "").await;
    let begun = site.begin("default").await;
    let by_address = begun.link.replace("localhost", "127.0.0.1");
    let mut browser = Browser::default();
    let sent_on = browser.go(&by_address).await;
    assert_eq!((sent_on.status, sent_on.header("location")), (303, Some(begun.link.as_str())));
    assert!(browser.cookies.is_empty());
    assert_eq!(browser.follow(&by_address).await.1.status, 200);
}

#[tokio::test]
async fn a_link_works_once_and_not_in_advance() {
    let site = Site::at_admin("").await;
    let begun = site.begin("default").await;
    let mut browser = Browser::default();
    let early = browser.request(Method::GET, &begun.link, &[("sec-purpose", "prefetch")], "").await;
    assert_eq!((early.status, browser.cookies.len()), (503, 0));
    let other_credential = begun.link.replace("/neon?", "/neon2?");
    assert_eq!(browser.go(&other_credential).await.status, 400);
    let away = browser.go(&begun.link).await;
    assert_eq!(away.status, 303);
    is_guarded(&away);
    let set = away.header("set-cookie").unwrap();
    for part in ["sidekey-login-", "HttpOnly", "SameSite=Lax", "Path=/callback", "Max-Age=600"] {
        assert!(set.contains(part), "{part}: {set}");
    }
    let again = browser.go(&begun.link).await;
    assert_eq!(again.status, 400);
    assert!(again.text().contains("used before"), "{}", again.text());
    is_guarded(&again);
    let guessed = browser.go(&format!("http://{}/connect/neon?ticket=guess", site.admin)).await;
    assert!(guessed.status == 400 && !guessed.text().contains("guess"), "{guessed:?}");
}

#[tokio::test]
async fn a_refusal_by_the_server_ends_the_login_and_is_told() {
    let site = Site::at_admin("").await;
    let cases = [(Consent::Deny, "not granted"), (Consent::NoCode, "code"), (Consent::WrongIss, "iss")];
    for (consent, want) in cases {
        site.server.consent(consent);
        let begun = site.begin("default").await;
        let (_, page) = Browser::default().follow(&begun.link).await;
        assert_eq!(page.status, 400, "{consent:?}: {page:?}");
        is_guarded(&page);
        assert!(page.text().contains(want), "{consent:?}: {}", page.text());
        let outcome = site.outcome(&begun).await;
        assert_eq!(outcome["state"], "failed", "{consent:?}");
        assert!(text(&outcome["error"]).contains(want), "{consent:?}: {outcome}");
    }
    assert_eq!((site.server.logins(), site.server.record().token_requests()), (0, 0), "no code was shown");
}

#[tokio::test]
async fn a_server_that_fails_to_exchange_ends_the_login() {
    let site = Site::at_admin("").await;
    site.server.token_fault_once(When::Before, Fault::Status(500));
    let begun = site.begin("default").await;
    let (_, page) = Browser::default().follow(&begun.link).await;
    assert_eq!(page.status, 502, "{page:?}");
    assert_eq!(site.outcome(&begun).await["state"], "failed");
}

#[tokio::test]
async fn what_comes_back_to_no_login_disturbs_none() {
    let site = Site::at_admin("").await;
    let begun = site.begin("default").await;
    let mut browser = Browser::default();
    let back = way_back(&mut browser, &begun.link).await;
    let changed = |name: &str, value: Option<&str>| {
        let mut url = Url::parse(&back).unwrap();
        let pairs: Vec<(String, String)> =
            url.query_pairs().into_owned().filter(|(key, _)| key != name).collect();
        let more = value.map(|value| (name.to_owned(), value.to_owned()));
        url.query_pairs_mut().clear().extend_pairs(pairs).extend_pairs(more);
        url.to_string()
    };
    let bad = [
        (changed("state", Some("guess")), "no login that was begun"),
        (changed("state", None), "state"),
        (format!("{back}&state=twice"), "cannot be read"),
        (format!("http://{}/callback", site.admin), "state"),
    ];
    for (url, want) in bad {
        let page = browser.go(&url).await;
        assert_eq!(page.status, 400, "{url}: {page:?}");
        assert!(page.text().contains(want) && !page.text().contains("guess"), "{url}: {}", page.text());
        is_guarded(&page);
    }
    let stranger = Browser::default().go(&back).await;
    assert_eq!(stranger.status, 400);
    assert!(stranger.text().contains("not the browser that began"), "{}", stranger.text());
    // Another browser, in the middle of a login of its own.
    let mut other = Browser::default();
    way_back(&mut other, &site.begin("bob").await.link).await;
    assert_eq!(other.cookies.len(), 1);
    assert_eq!(other.go(&back).await.status, 400);
    // Not even if it knows the name of the cookie.
    other.cookies[0].name = browser.cookies[0].name.clone();
    assert_eq!(other.go(&back).await.status, 400);
    assert_eq!(site.outcome(&begun).await["state"], "waiting");
    assert_eq!(site.server.record().token_requests(), 0);

    let page = browser.go(&back).await;
    assert_eq!(page.status, 200, "{page:?}");
    let again = browser.go(&back).await;
    assert_eq!(again.status, 400);
    assert!(again.text().contains("counts once"), "{}", again.text());
    assert_eq!((site.server.logins(), site.server.record().token_requests()), (1, 1));
    assert_eq!(site.outcome(&begun).await["state"], "done");
}

#[tokio::test]
async fn a_login_that_nobody_finishes_expires() {
    let site = Site::at_admin("login_timeout = \"1s\"").await;
    let (left, gone) = (site.begin("default").await, site.begin("bob").await);
    let mut browser = Browser::default();
    let back = way_back(&mut browser, &left.link).await;
    eventually("the expiry", async || site.outcome(&left).await["state"] == "failed").await;
    assert!(text(&site.outcome(&left).await["error"]).contains("in time"));
    let page = browser.go(&back).await;
    assert!(page.status == 400 && page.text().contains("expired"), "{page:?}");
    eventually("the other expiry", async || site.outcome(&gone).await["state"] == "failed").await;
    let page = browser.go(&gone.link).await;
    assert!(page.status == 400 && page.text().contains("expired"), "{page:?}");
    assert_eq!(site.server.record().token_requests(), 0);
}

#[tokio::test]
async fn a_redirect_port_in_use_is_told_to_whoever_begins() {
    let site = Site::at_own_port("").await;
    let port = Url::parse(&site.redirect).unwrap().port().unwrap();
    let taken = TcpListener::bind(("127.0.0.1", port)).unwrap();
    let reply = site.ask(Method::POST, "/connect/neon", "").await;
    assert_eq!(reply.status, 503);
    let message = text(&reply.json()["message"]);
    assert!(message.contains(&format!("127.0.0.1:{port}")) && message.contains("--no-browser"), "{message}");
    drop(taken);
    let begun = site.begin("default").await;
    assert_eq!(Browser::default().follow(&begun.link).await.1.status, 200);
}

#[tokio::test]
async fn a_login_by_hand_comes_back_by_hand_alone() {
    let site = Site::at_admin("").await;
    let reply = site.ask(Method::POST, "/connect/neon?account=alice&paste=true", "").await;
    assert_eq!(reply.status, 201, "{reply:?}");
    let (id, url) = (text(&reply.json()["login"]), text(&reply.json()["authorization_url"]));
    let mut browser = Browser::default();
    let sent = browser.go(&url).await;
    let back = sent.header("location").unwrap().to_owned();
    let page = browser.go(&back).await;
    assert!(page.status == 400 && page.text().contains("terminal"), "{page:?}");

    let paste = async |id: &str, pasted: &str| {
        site.ask(Method::POST, &format!("/connect/neon/redirected?login={id}"), pasted).await
    };
    let mut by_browser = Browser::default();
    let begun = site.begin("bob").await;
    let of_browser = way_back(&mut by_browser, &begun.link).await;
    let bad = [
        (id.as_str(), String::new(), 400),
        (id.as_str(), url.clone(), 400),
        (id.as_str(), back.replace("/callback", "/elsewhere"), 400),
        (id.as_str(), of_browser.clone(), 400),
        (id.as_str(), "x".repeat(40_000), 413),
        (begun.id.as_str(), of_browser.clone(), 400),
        (begun.id.as_str(), back.clone(), 400),
        ("nobody", back.clone(), 404),
    ];
    for (id, pasted, want) in bad {
        let reply = paste(id, &pasted).await;
        assert_eq!(reply.status, want, "{id} {pasted}: {reply:?}");
    }
    let done = paste(&id, &format!("  {back}\n")).await;
    assert_eq!((done.status, &done.json()["state"]), (200, &"done".into()), "{done:?}");
    assert_eq!(done.json()["account"], "alice");
    assert_eq!(paste(&id, &back).await.status, 400, "it counts once");
    assert_eq!(by_browser.go(&of_browser).await.status, 200, "the other one was not disturbed");
}

#[tokio::test]
async fn only_who_may_begins_and_asks() {
    let site = Site::at_admin("").await;
    let begun = site.begin("default").await;
    let outcome = format!("/connect/neon/outcome?login={}", begun.id);
    let status = async |method: Method, target: &str, headers: &[(&str, &str)], body: &str| {
        send(site.admin, method, target, headers, body.to_owned()).await.status
    };
    let (get, post) = (Method::GET, Method::POST);
    let (login, logout) = ("/connect/neon", "/logout/neon");
    let token = ("sidekey-token", site.token.as_str());
    let origin = format!("http://{}", site.admin);
    let evil = ("origin", "http://evil.example");
    let form = format!("token={}", site.token);
    // Without the token, or with a wrong one.
    assert_eq!(status(post.clone(), login, &[], "").await, 401);
    assert_eq!(status(post.clone(), login, &[("sidekey-token", "guess")], "").await, 401);
    assert_eq!(status(get.clone(), &outcome, &[], "").await, 401);
    assert_eq!(
        status(post.clone(), &format!("/connect/neon/redirected?login={}", begun.id), &[], "x").await,
        401
    );
    assert_eq!(status(post.clone(), &format!("/connect/neon/cancel?login={}", begun.id), &[], "").await, 401);
    assert_eq!(status(post.clone(), logout, &[], "").await, 401);
    // From a web page, even with it.
    assert_eq!(status(post.clone(), login, &[token, evil], "").await, 403);
    assert_eq!(status(post.clone(), login, &[token, ("sec-fetch-site", "cross-site")], "").await, 403);
    assert_eq!(
        status(post.clone(), login, &[token, ("origin", &origin)], "").await,
        403,
        "a form alone has one"
    );
    assert_eq!(status(post.clone(), login, &[FORM, evil], &form).await, 403);
    assert_eq!(status(post.clone(), login, &[FORM, ("origin", "null")], &form).await, 403);
    assert_eq!(status(post.clone(), login, &[FORM], &form).await, 403);
    assert_eq!(status(post.clone(), logout, &[token, FORM, ("origin", &origin)], &form).await, 403);
    assert_eq!(status(get.clone(), login, &[("sec-fetch-site", "cross-site")], "").await, 403);
    let window =
        [("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "document")];
    assert_eq!(status(get.clone(), login, &window, "").await, 403, "the form is no place of a login");
    let frame = [window[0], window[1], ("sec-fetch-dest", "iframe")];
    assert_eq!(status(get.clone(), "/callback?state=x&code=y", &frame, "").await, 403);
    assert_eq!(status(get.clone(), "/callback?state=x&code=y", &window, "").await, 400);
    let ticket = &begun.link[begun.link.find("/connect").unwrap()..];
    assert_eq!(status(get.clone(), ticket, &frame, "").await, 403);
    assert_eq!(status(get.clone(), ticket, &[("host", "evil.example")], "").await, 403);
    // What is not there.
    assert_eq!(status(post.clone(), "/connect/nein", &[token], "").await, 404);
    assert_eq!(status(post.clone(), "/connect/neon?account=a%20b", &[token], "").await, 400);
    assert_eq!(status(get.clone(), "/connect/nein", &[], "").await, 404);
    assert_eq!(status(get.clone(), "/connect/neon/outcome?login=nobody", &[token], "").await, 404);
    assert_eq!(status(get.clone(), "/connect/neon/more", &[token], "").await, 404);
    assert_eq!(status(post.clone(), "/callback", &[token], "").await, 405);
    assert_eq!(status(get.clone(), logout, &[token], "").await, 405);
    assert_eq!(Browser::default().follow(&begun.link).await.1.status, 200, "none of it used the link up");
}

#[tokio::test]
async fn logging_out_revokes_and_forgets() {
    let site = Site::at_admin("").await;
    let begun = site.begin("alice").await;
    assert_eq!(Browser::default().follow(&begun.link).await.1.status, 200);
    eventually("the grant in force", async || site.proxied("alice").await == 200).await;
    let done = site.ask(Method::POST, "/logout/neon?account=alice", "").await;
    assert_eq!((done.status, done.json()), (200, serde_json::json!({ "existed": true, "revoked": "yes" })));
    assert_eq!((site.server.revocations(), site.server.live_chains()), (1, 0));
    eventually("the end of it", async || site.proxied("alice").await == 503).await;
    let again = site.ask(Method::POST, "/logout/neon?account=alice", "").await;
    assert_eq!((again.status, &again.json()["existed"]), (200, &false.into()), "{again:?}");
}

#[tokio::test]
async fn a_login_without_a_refresh_token_says_so_and_works_for_now() {
    let site = Site::at_admin("scope = [\"openid\"]").await;
    let begun = site.begin("alice").await;
    let (_, page) = Browser::default().follow(&begun.link).await;
    assert!(page.status == 200 && page.text().contains("offline_access"), "{page:?}");
    assert_eq!(site.outcome(&begun).await["refresh"], false);
    eventually("the grant in force", async || site.proxied("alice").await == 200).await;
}

#[tokio::test]
async fn a_browser_that_goes_away_loses_nothing() {
    let site = Site::at_admin("").await;
    site.server.token_delay(When::Before, Duration::from_millis(300));
    let begun = site.begin("alice").await;
    let mut browser = Browser::default();
    let back = way_back(&mut browser, &begun.link).await;
    let gone = tokio::time::timeout(Duration::from_millis(100), browser.go(&back)).await;
    assert!(gone.is_err(), "it went away before the answer");
    eventually("the outcome", async || site.outcome(&begun).await["state"] == "done").await;
    eventually("the grant in force", async || site.proxied("alice").await == 200).await;
}
