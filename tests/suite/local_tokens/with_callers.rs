//! With callers, a client shows a caller's name and token, and its local token stands for that caller.

use std::time::Duration;

use sidekey::clock::Clock;
use sidekey::demo::standins::Aura;

use super::{FORM, GRANT, ask, assert_refused, token_of};
use crate::support::running::{Running, aura, aura_route, eventually, private_file, sidekey, sidekey_at};
use crate::support::{basic, bearer, get, post, raw, raw_unix};

const CI: &str = "ci-token+%41:0123456789";
const WEB: &str = "web-token-0123456789";

/// Two routes to Aura; `web` may use one of them.
fn two_routes(aura: &Aura) -> String {
    let url = aura.url();
    format!(
        "{}[route.other]\nprovider = \"aura\"\npath = \"/other\"\nupstream = \"{url}\"\ncredential = \"aura\"\n\
         [caller.ci]\ntoken = {{ value = \"{CI}\" }}\n\
         [caller.web]\ntoken = {{ value = \"{WEB}\" }}\nroutes = [\"other\"]\n",
        aura_route(aura, "")
    )
}

async fn guarded() -> (Aura, Running) {
    let aura = aura().await;
    let running = sidekey(&two_routes(&aura));
    running.settled().await;
    (aura, running)
}

/// What a request with this token as its Bearer gets: its status.
async fn status(running: &Running, path: &str, token: &str) -> u16 {
    get(running.addr, path, &[("authorization", &bearer(token))]).await.status
}

/// Checks that a token is refused, in a way that makes clients fetch another.
async fn assert_stale(running: &Running, path: &str, token: &str) {
    for (name, value) in [("authorization", bearer(token)), ("sidekey-token", token.to_owned())] {
        let reply = get(running.addr, path, &[(name, &value)]).await;
        assert_eq!((reply.status, reply.header("sidekey-error")), (401, Some("caller_unknown")), "{reply:?}");
        let told = "Bearer realm=\"sidekey\", error=\"invalid_token\"";
        assert_eq!(reply.header("www-authenticate"), Some(told), "{name}");
        assert!(!reply.text().contains(token), "{reply:?}");
    }
}

#[tokio::test]
async fn with_callers_a_client_shows_a_callers_name_and_token_and_goes_as_far_as_the_caller() {
    let (aura, running) = guarded().await;
    let of_ci = token_of(&ask(&running, "/oauth/token", "ci", CI).await);
    assert!(!of_ci.contains(CI) && of_ci.starts_with("sidekey-local-v1.ci."), "{of_ci}");
    assert_eq!(status(&running, "/v1/instances", &of_ci).await, 200);
    let shown = get(running.addr, "/v1/instances", &[("sidekey-token", &of_ci)]).await;
    assert_eq!(shown.status, 200);
    // In the body, and form-urlencoded in Basic.
    let body = format!("{GRANT}&client_id=ci&client_secret=ci-token%2B%2541%3A0123456789");
    token_of(&post(running.addr, "/oauth/token", &[FORM], body).await);
    token_of(&ask(&running, "/oauth/token", "ci", "ci-token%2B%2541%3A0123456789").await);
    let of_web = token_of(&ask(&running, "/other/oauth/token", "web", WEB).await);
    assert_eq!(status(&running, "/other/v1/instances", &of_web).await, 200);
    assert_eq!((aura.record().token_requests(), aura.record().api_requests()), (1, 3));
    for seen in aura.record().requests() {
        let text = format!("{:?} {seen:?}", seen.headers);
        assert!(
            !text.contains("sidekey-local") && !text.to_ascii_lowercase().contains("sidekey-token"),
            "{text}"
        );
    }
    // Its requests show their token alone, not the caller's name and token in turn.
    assert_eq!(status(&running, "/v1/instances", "ci").await, 401);
    assert_eq!(get(running.addr, "/v1/instances", &[]).await.status, 401);
}

#[tokio::test]
async fn who_shows_no_callers_name_with_its_token_gets_no_local_one() {
    let (aura, running) = guarded().await;
    let wrong = [("ci", "wrong"), ("ci", ""), ("ci", WEB), ("web", CI), ("", CI), ("nobody", CI), ("CI", CI)];
    for (id, secret) in wrong {
        let reply = ask(&running, "/oauth/token", id, secret).await;
        assert_refused(&reply, 401, "invalid_client", "caller_unknown");
        let body = format!("{GRANT}&client_id={id}&client_secret={secret}");
        let reply = post(running.addr, "/oauth/token", &[FORM], body).await;
        assert_refused(&reply, 401, "invalid_client", "caller_unknown");
    }
    let mine = token_of(&ask(&running, "/oauth/token", "ci", CI).await);
    for shown in [bearer(CI), bearer(&mine), basic("ci", &mine), "Negotiate x".to_owned()] {
        let reply = post(running.addr, "/oauth/token", &[FORM, ("authorization", &shown)], GRANT).await;
        assert_refused(&reply, 401, "invalid_client", "caller_unknown");
    }
    assert_refused(
        &post(running.addr, "/oauth/token", &[FORM], GRANT).await,
        401,
        "invalid_client",
        "caller_unknown",
    );
    // It is known who it is, and it may not.
    let reply = ask(&running, "/oauth/token", "web", WEB).await;
    assert_refused(&reply, 400, "unauthorized_client", "not_allowed");
    // What it asks for is said to those alone who may ask.
    let shown = basic("ci", "wrong");
    let other = "grant_type=password";
    let reply = post(running.addr, "/oauth/token", &[FORM, ("authorization", &shown)], other).await;
    assert_refused(&reply, 401, "invalid_client", "caller_unknown");
    assert_eq!((aura.record().token_requests(), aura.record().api_requests()), (1, 0));
}

#[tokio::test]
async fn a_local_token_is_refused_on_another_route_forged_and_on_its_own() {
    let (aura, running) = guarded().await;
    let token = token_of(&ask(&running, "/oauth/token", "ci", CI).await);
    assert_stale(&running, "/other/v1/instances", &token).await;
    let of_other = token_of(&ask(&running, "/other/oauth/token", "ci", CI).await);
    assert_stale(&running, "/v1/instances", &of_other).await;
    let parts: Vec<_> = token.split('.').collect();
    let later = (parts[2].parse::<u64>().unwrap() + 1).to_string();
    let forged = [
        format!("{}.web.{}.{}", parts[0], parts[2], parts[3]),
        format!("{}.ci.{later}.{}", parts[0], parts[3]),
        format!("{}.ci.{}.{}", parts[0], parts[2], "A".repeat(43)),
        format!("{}.ci.{}.", parts[0], parts[2]),
        format!("{}.nobody.{}.{}", parts[0], parts[2], parts[3]),
        token[..token.len() - 1].to_owned(),
        format!("{token}A"),
        "sidekey-local-v1.none".to_owned(),
    ];
    for token in forged {
        assert_stale(&running, "/v1/instances", &token).await;
    }
    // No route, no token that is for it.
    assert_eq!(status(&running, "/v1/instances", &token.to_uppercase()).await, 401);
    assert_eq!(aura.record().api_requests(), 0);
    assert_eq!(status(&running, "/v1/instances", &token).await, 200);
}

#[tokio::test]
async fn a_local_token_ends_after_an_hour() {
    let aura = aura().await;
    let clock = Clock::of_runtime();
    let running = sidekey_at(&two_routes(&aura), &clock);
    running.settled().await;
    let token = token_of(&ask(&running, "/oauth/token", "ci", CI).await);
    clock.step_wall(Duration::from_secs(3590));
    assert_eq!(status(&running, "/v1/instances", &token).await, 200);
    clock.step_wall(Duration::from_secs(10));
    assert_stale(&running, "/v1/instances", &token).await;
    let next = token_of(&ask(&running, "/oauth/token", "ci", CI).await);
    assert_eq!(status(&running, "/v1/instances", &next).await, 200);
}

#[tokio::test]
async fn replicas_and_later_runs_take_each_others_tokens() {
    let aura = aura().await;
    let (one, other) = (sidekey(&two_routes(&aura)), sidekey(&two_routes(&aura)));
    let of_one = token_of(&ask(&one, "/oauth/token", "ci", CI).await);
    let of_other = token_of(&ask(&other, "/oauth/token", "ci", CI).await);
    assert_eq!(status(&one, "/v1/instances", &of_other).await, 200);
    assert_eq!(status(&other, "/v1/instances", &of_one).await, 200);
    one.stop().await;
    let again = sidekey(&two_routes(&aura));
    assert_eq!(status(&again, "/v1/instances", &of_one).await, 200);
    let with_another_token = sidekey(&two_routes(&aura).replace(CI, "ci-token-of-another-day"));
    assert_stale(&with_another_token, "/v1/instances", &of_one).await;
}

#[tokio::test]
async fn a_local_token_is_good_as_long_as_the_callers_token_that_was_shown_for_it() {
    let aura = aura().await;
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, token: &str| private_file(folder.path().join(name), token);
    let (new, old) = (file("new", "first-token-0123456789"), file("old", "second-token-0123456789"));
    let callers = format!(
        "[caller.ci]\ntoken = [{{ file = \"{}\" }}, {{ file = \"{}\" }}]\n",
        new.display(),
        old.display()
    );
    let running = sidekey(&(aura_route(&aura, "") + &callers));
    running.settled().await;
    let of_first = token_of(&ask(&running, "/oauth/token", "ci", "first-token-0123456789").await);
    let of_second = token_of(&ask(&running, "/oauth/token", "ci", "second-token-0123456789").await);
    assert_ne!(of_first, of_second);
    // The first token is moved to the second's place: the one that stood there is gone.
    std::fs::write(&old, "first-token-0123456789").unwrap();
    std::fs::write(&new, "third-token-0123456789").unwrap();
    eventually("the second token is gone", async || {
        status(&running, "/v1/instances", &of_second).await == 401
            && status(&running, "/v1/instances", "third-token-0123456789").await == 200
    })
    .await;
    assert_stale(&running, "/v1/instances", &of_second).await;
    assert_eq!(status(&running, "/v1/instances", &of_first).await, 200);
}

#[tokio::test]
async fn a_client_that_is_known_otherwise_may_show_any_id_and_secret() {
    let aura = aura().await;
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("s");
    let me = rustix::process::geteuid().as_raw();
    let listen = format!("listen = [\"127.0.0.1:0\", \"unix:{}\"]", socket.display());
    let text = two_routes(&aura).replace("listen = \"127.0.0.1:0\"", &listen);
    let running = sidekey(&format!("{text}[caller.me]\nuid = {me}\nroutes = [\"aura\"]\n"));
    running.settled().await;
    let request = |path: &str, more: &str| {
        format!(
            "POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\nAuthorization: Basic YTpi\r\n\
             Content-Type: application/x-www-form-urlencoded\r\n{more}\r\n{GRANT}",
            GRANT.len()
        )
    };
    let token = token_of(&raw_unix(&socket, request("/oauth/token", "")).await);
    let get = |token: &str| {
        format!("GET /v1/instances HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n\r\n")
    };
    assert_eq!(raw_unix(&socket, get(&token)).await.status, 200);
    let of_ci = token_of(&ask(&running, "/oauth/token", "ci", CI).await);
    assert_eq!(raw_unix(&socket, get(&of_ci)).await.status, 200);
    assert_eq!(raw_unix(&socket, get("of somebody else")).await.status, 200);
    // A local token says whose it is: no process stands in for it.
    assert_eq!(raw_unix(&socket, get(&of_ci.replace(".ci.", ".web."))).await.status, 401);
    assert_eq!(raw_unix(&socket, get(&format!("{token}.1.x"))).await.status, 401);
    // It is good for nothing elsewhere, and its owner's reach ends where it did.
    assert_stale(&running, "/v1/instances", &token).await;
    let reply = raw_unix(&socket, request("/other/oauth/token", "")).await;
    assert_refused(&reply, 400, "unauthorized_client", "not_allowed");
    let reply = raw(running.addr, request("/oauth/token", "")).await;
    assert_refused(&reply, 401, "invalid_client", "caller_unknown");
    let shown = format!("Sidekey-Token: {WEB}\r\n");
    token_of(&raw(running.addr, request("/other/oauth/token", &shown)).await);
    let reply = raw(running.addr, request("/oauth/token", &shown)).await;
    assert_refused(&reply, 400, "unauthorized_client", "not_allowed");
    let reply = raw(running.addr, request("/oauth/token", "Sidekey-Token: wrong\r\n")).await;
    assert_refused(&reply, 401, "invalid_client", "caller_unknown");
    assert_eq!(aura.record().token_requests(), 1);
}
