//! What may pass by `allow` and `deny`, and by `read_only` where the method says it all: over raw sockets and HTTP/2, to an upstream that keeps what it gets.
#![cfg(feature = "demo")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::process::Command;

use crate::support::http2::Caller;
use crate::support::recorder::Recorder;
use crate::support::running::{Running, open_route, sidekey};
use crate::support::{Reply, raw};
use http::Method;

/// A route with these further keys to an upstream that says `ok`.
async fn ruled(more: &str) -> (Recorder, Running) {
    let upstream = Recorder::start().await;
    let running = sidekey(&open_route(upstream.addr, more));
    (upstream, running)
}

async fn ask(running: &Running, method: &str, target: &str, lines: &str) -> Reply {
    raw(running.addr, format!("{method} {target} HTTP/1.1\r\nHost: localhost\r\n{lines}\r\n")).await
}

/// The first line that an upstream got, if it got any.
fn first_line(upstream: &Recorder) -> Option<String> {
    upstream.take().split_once(" HTTP/1.1\r\n").map(|(line, _)| line.to_owned())
}

fn assert_not_allowed(reply: &Reply, what: &str) {
    assert_eq!(
        (reply.status, reply.header("sidekey-error")),
        (403, Some("not_allowed")),
        "{what}: {reply:?}"
    );
    assert_eq!(reply.header("proxy-status"), Some("sidekey; error=http_request_denied"));
}

#[tokio::test]
async fn only_what_allow_means_reaches_the_upstream_however_it_is_spelled() {
    let (upstream, running) = ruled("allow = [\"GET /v1/instances/*\"]").await;
    let mut caller = Caller::connect(running.addr).await;
    let yes = [
        "/v1/instances/x",
        "/v1/%69nstances/x",
        "/%76%31/instances/%78",
        "/v1/instances/a%20b",
        "/v1/instances/a%3Ab",
        "/v1/instances/x?_methods=1&x=/../y",
        "/v1/instances/x?/v1/other",
    ];
    for target in yes {
        assert_eq!(ask(&running, "GET", target, "").await.status, 200, "{target}");
        assert_eq!(first_line(&upstream), Some(format!("GET {target}")), "as it came");
        assert_eq!(caller.get(target).await.status(), 200, "HTTP/2: {target}");
        assert_eq!(first_line(&upstream), Some(format!("GET {target}")), "as it came");
    }
    let no = [
        "/",
        "/v1/instances",
        "/v1/instances/",
        "/v1/instances/x/",
        "/v1/instances/x/y",
        "/v1/instances//x",
        "//v1/instances/x",
        "/V1/instances/x",
        "/v1/instances/x;a=1",
        "/v1/instances/;x",
        "/v1/instances/a%252Fb",
        "/v1/other?/v1/instances/x",
        "/x/v1/instances/y",
    ];
    for target in no {
        assert_not_allowed(&ask(&running, "GET", target, "").await, target);
        let answer = caller.get(target).await;
        assert_eq!((answer.status(), answer.header("sidekey-error")), (403, Some("not_allowed")), "{target}");
    }
    for target in ["/v1/instances/..", "/v1/instances/%2e%2e/y", "/v1/instances/a%2Fb", "/v1/instances/x%00"]
    {
        assert_eq!(ask(&running, "GET", target, "").await.status, 400, "{target}");
        assert_eq!(caller.get(target).await.status(), 400, "{target}");
    }
    for method in ["POST", "PUT", "DELETE", "OPTIONS", "get", "PROPFIND"] {
        assert_not_allowed(&ask(&running, method, "/v1/instances/x", "Content-Length: 0\r\n").await, method);
    }
    assert_eq!(first_line(&upstream), None);
    let head = caller.send(Method::HEAD, "/v1/instances/x", &[], b"").await;
    assert_eq!((head.status(), head.text()), (200, ""));
    assert_eq!(first_line(&upstream), Some("HEAD /v1/instances/x".to_owned()));
}

#[tokio::test]
async fn what_deny_means_never_reaches_the_upstream_however_it_is_spelled() {
    let (upstream, running) = ruled("deny = [\"DELETE /v1/instances/*\"]\nencoded_slash = \"pass\"").await;
    let mut caller = Caller::connect(running.addr).await;
    let denied = [
        "/v1/instances/x",
        "/v1/instances/x/",
        "/v1//instances/x",
        "//v1/instances//x",
        "/v1/%69nstances/x",
        "/v1/%2569nstances/x",
        "/V1/INSTANCES/x",
        "/v1;a/instances;b/x;c",
        "/;a/v1/instances/x",
        "/v1%2Finstances/x",
        "/v1/instances%2fx",
        "/v1/instances/x?y",
    ];
    for target in denied {
        assert_not_allowed(&ask(&running, "DELETE", target, "").await, target);
        assert_eq!(caller.send(Method::DELETE, target, &[], b"").await.status(), 403, "{target}");
    }
    assert_eq!(first_line(&upstream), None);
    for (method, target) in [
        ("DELETE", "/v1/instances"),
        ("DELETE", "/v1/instances/x/y"),
        ("GET", "/v1/instances/x"),
        ("PATCH", "/x"),
    ] {
        assert_eq!(ask(&running, method, target, "").await.status, 200, "{method} {target}");
        assert_eq!(first_line(&upstream), Some(format!("{method} {target}")));
    }
}

#[tokio::test]
async fn a_request_that_asks_to_be_taken_for_another_one_is_refused_where_there_are_rules() {
    for rules in ["allow = [\"GET,POST /x\"]", "deny = [\"DELETE /**\"]", "read_only = true"] {
        let (upstream, running) = ruled(rules).await;
        let mut caller = Caller::connect(running.addr).await;
        for line in [
            "X-HTTP-Method-Override: DELETE",
            "x-http-method-override: delete",
            "X-HTTP-Method: DELETE",
            "X-Method-Override: DELETE",
            "X_HTTP_METHOD_OVERRIDE: DELETE",
            "X-Original-URL: /admin",
            "X-Rewrite-URL: /admin",
            // Named in Connection, it would not be forwarded; it counts all the same.
            "Connection: x-http-method\r\nX-HTTP-Method: DELETE",
        ] {
            let reply = ask(&running, "GET", "/x", &format!("{line}\r\n")).await;
            assert_not_allowed(&reply, line);
            assert!(reply.text().contains("to be taken for another one"), "{}", reply.text());
        }
        for target in ["/x?_method=DELETE", "/x?a=1&_method=delete", "/x?%5fmethod=DELETE"] {
            assert_not_allowed(&ask(&running, "GET", target, "").await, target);
            assert_eq!(caller.get(target).await.status(), 403);
        }
        let answer = caller.send(Method::GET, "/x", &[("x-http-method-override", "DELETE")], b"").await;
        assert_eq!(answer.status(), 403);
        assert_eq!(first_line(&upstream), None, "{rules}");
        assert_eq!(ask(&running, "GET", "/x?method=DELETE", "").await.status, 200);
    }
    // Without rules there is nothing to circumvent.
    let (upstream, running) = ruled("").await;
    assert_eq!(ask(&running, "GET", "/x?_method=PUT", "X-HTTP-Method-Override: PUT\r\n").await.status, 200);
    assert!(upstream.take().contains("x-http-method-override: PUT"));
}

#[tokio::test]
async fn rules_judge_what_stands_behind_the_prefix_and_not_the_upstreams_own_path() {
    let upstream = Recorder::start().await;
    let running = sidekey(&format!(
        "[server]\nlisten = \"127.0.0.1:0\"\n[route.neon]\nprovider = \"neon\"\npath = \"/neon\"\n\
         host = \"neon.localhost\"\nupstream = \"http://{}/api/v2\"\ncredential = false\n\
         allow = [\"GET /projects/**\", \"POST /projects/*/branches\"]\ndeny = [\"/projects/*/branches/*/roles/**\"]\n",
        upstream.addr
    ));
    let cases = [
        ("GET", "/neon/projects", true),
        ("GET", "/neon/projects/", true),
        ("GET", "/%6Eeon/projects/a/branches", true),
        ("POST", "/neon/projects/a/branches", true),
        ("POST", "/neon/projects", false),
        ("GET", "/neon", false),
        ("GET", "/neon/", false),
        ("GET", "/neon//projects", false),
        ("GET", "/neon/api/v2/projects", false),
        ("GET", "/neon/projects/a/branches/b/roles/c/reveal_password", false),
        ("GET", "/neon/projects/a/branches/b//Roles", false),
    ];
    for (method, target, passes) in cases {
        let reply = ask(&running, method, target, "Content-Length: 0\r\n").await;
        let behind = target.split_once("eon").unwrap().1;
        if passes {
            assert_eq!(first_line(&upstream), Some(format!("{method} /api/v2{behind}")), "{target}");
        } else {
            assert_not_allowed(&reply, target);
            assert_eq!(reply.json()["code"], "not_allowed", "in Neon's shape: {}", reply.text());
            assert_eq!(first_line(&upstream), None, "{target}");
        }
        // By its host, nothing is removed.
        let by_host = raw(
            running.addr,
            format!("{method} {behind} HTTP/1.1\r\nHost: neon.localhost\r\nContent-Length: 0\r\n\r\n"),
        );
        if !behind.is_empty() {
            assert_eq!(by_host.await.status == 200, passes, "{behind}");
            upstream.take();
        }
    }
}

#[tokio::test]
async fn a_caller_may_do_what_its_route_lets_pass_and_its_own_rules_too() {
    let (upstream, running) = ruled(
        "deny = [\"DELETE /**\"]\n[caller.reader]\ntoken = { value = \"reader-0123456789\" }\nallow = [\"GET /v1/**\"]\n\
         [caller.writer]\ntoken = { value = \"writer-0123456789\" }\ndeny = [\"/v1/keys/**\"]\n",
    )
    .await;
    let cases = [
        ("reader", "GET", "/v1/x", true),
        ("reader", "GET", "/v2/x", false),
        ("reader", "POST", "/v1/x", false),
        ("reader", "DELETE", "/v1/x", false),
        ("writer", "POST", "/v2/x", true),
        ("writer", "POST", "/V1//keys/x", false),
        ("writer", "DELETE", "/v2/x", false),
    ];
    for (caller, method, target, passes) in cases {
        let lines = format!("Sidekey-Token: {caller}-0123456789\r\nContent-Length: 0\r\n");
        let reply = ask(&running, method, target, &lines).await;
        if passes {
            assert_eq!(first_line(&upstream), Some(format!("{method} {target}")), "{caller}");
        } else {
            assert_not_allowed(&reply, &format!("{caller}: {method} {target}"));
            assert_eq!(first_line(&upstream), None);
        }
        let overridden = ask(&running, method, target, &format!("{lines}X-HTTP-Method: PUT\r\n")).await;
        assert_not_allowed(&overridden, "an override");
    }
}

#[tokio::test]
async fn a_read_only_route_lets_no_method_pass_that_may_write_and_no_websocket() {
    let (upstream, running) = ruled("read_only = true\nprovider = \"aura\"").await;
    for method in ["POST", "PUT", "PATCH", "DELETE", "QUERY", "get"] {
        let reply = ask(&running, method, "/v1/instances", "Content-Length: 2\r\n\r\n{}").await;
        assert_not_allowed(&reply, method);
        assert!(reply.text().contains("Only reading requests"), "{}", reply.text());
    }
    let websocket =
        "Connection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: a\r\nSec-WebSocket-Version: 13\r\n";
    assert_not_allowed(&ask(&running, "GET", "/v2", websocket).await, "a WebSocket");
    assert_eq!(first_line(&upstream), None);
    for method in ["GET", "OPTIONS"] {
        assert_eq!(ask(&running, method, "/v1/instances", "").await.status, 200, "{method}");
    }
}

#[tokio::test]
async fn explain_names_the_rule_that_refuses() {
    let folder = tempfile::tempdir().unwrap();
    let text = "[route.api]\npath = \"/api\"\nupstream = \"https://a.example/v2\"\ncredential = false\n\
                allow = [\"GET /**\", \"DELETE /instances/*\"]\ndeny = [\"DELETE /instances/*\"]\n\
                [route.graph]\nprovider = \"neo4j\"\nhost = \"graph.localhost\"\nupstream = \"https://g.example\"\n\
                credential = false\nread_only = true\n";
    std::fs::write(folder.path().join("sidekey.toml"), text).unwrap();
    let explain = |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sidekey"));
        let output =
            command.arg("explain").args(args).current_dir(folder.path()).env_clear().output().unwrap();
        (output.status.code().unwrap(), String::from_utf8(output.stdout).unwrap())
    };
    let graph = ["-H", "Host: graph.localhost"];
    let cases: [(&[&str], &str); 5] = [
        (&["DELETE", "/api/instances/x/"], r#"rule        deny "DELETE /instances/*" ([route.api])"#),
        (&["POST", "/api/instances"], "rule        no rule of allow matches ([route.api])"),
        (
            &["GET", "/api/x", "-H", "X-HTTP-Method-Override: PUT"],
            "rule        x-http-method-override could make it",
        ),
        (&["GET", "/api/x?_method=PUT"], "rule        _method could make it"),
        (&["PUT", "/db/neo4j/query/v2", graph[0], graph[1]], "rule        read_only = true ([route.graph])"),
    ];
    for (args, rule) in cases {
        let (status, said) = explain(args);
        assert_eq!(status, 1, "{said}");
        assert!(said.contains("refused     403 not_allowed") && said.contains(rule), "{args:?}: {said}");
    }
    let (status, said) = explain(&["GET", "/api/instances"]);
    assert!(status == 0 && said.contains("upstream    GET https://a.example/v2/instances"), "{said}");
    let (_, said) = explain(&["POST", "/db/neo4j/query/v2", graph[0], graph[1]]);
    assert!(said.contains("body        its accessMode is set to READ (read_only)"), "{said}");
    let (_, said) = explain(&["POST", "/db/neo4j/tx/5", graph[0], graph[1], "-H", "Access-Mode: WRITE"]);
    assert!(
        said.contains("header      access-mode: READ") && said.contains("only if it was begun on this route"),
        "{said}"
    );
}
