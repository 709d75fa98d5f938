//! What is sent again to an upstream of HTTP/2, and what is not.
#![cfg(feature = "demo")]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::support::frames::{
    DATA, END_HEADERS, END_STREAM, ENHANCE_YOUR_CALM, HEADERS, INTERNAL_ERROR, NO_ERROR, REFUSED_STREAM,
    await_frame, frame, goaway, greet, reset,
};
use crate::support::http2::{Caller, Upstream, Visit};
use crate::support::running::{Running, open_route, patiently, sidekey};
use crate::support::scripted::{Scripted, say};
use crate::support::{get, post, send};
use http::Method;
use tokio::io::AsyncReadExt as _;
use tokio::sync::mpsc;

/// By prior knowledge, without a credential.
fn in_front_of(upstream: std::net::SocketAddr, more: &str) -> Running {
    sidekey(&open_route(upstream, &format!("http = \"2\"\n{more}")))
}

fn with_credential(upstream: std::net::SocketAddr) -> Running {
    let credential =
        "\n[route.up.credential]\ntype = \"basic\"\nusername = \"u\"\npassword = { value = \"p\" }\n";
    let text = open_route(upstream, "http = \"2\"").replace("credential = false\n", "") + credential;
    sidekey(&text)
}

/// Refuses each connection's first requests, as many as `refused`, with these frames, and answers what comes then.
async fn refusing(
    refusal: impl Fn(u32) -> Vec<u8> + Send + Sync + 'static,
    times: usize,
) -> (Scripted, Arc<AtomicUsize>) {
    let (seen, refusal) = (Arc::new(AtomicUsize::new(0)), Arc::new(refusal));
    let count = Arc::clone(&seen);
    let upstream = Scripted::start(move |_, mut stream| {
        let (seen, refusal) = (Arc::clone(&count), Arc::clone(&refusal));
        async move {
            greet(&mut stream).await;
            while let Some(request) = await_frame(&mut stream, HEADERS).await {
                if seen.fetch_add(1, Ordering::SeqCst) < times {
                    say(&mut stream, refusal(request.stream)).await;
                } else {
                    let ends = END_HEADERS | END_STREAM;
                    // 200, from the static table.
                    say(&mut stream, frame(HEADERS, ends, request.stream, &[0x88])).await;
                }
            }
        }
    })
    .await;
    (upstream, seen)
}

#[tokio::test]
async fn what_an_upstream_did_nothing_for_is_sent_once_more() {
    type Refusal = fn(u32) -> Vec<u8>;
    let refusals: [(&str, Refusal); 3] = [
        ("refused", |stream| reset(stream, REFUSED_STREAM)),
        ("goes away", |_| goaway(0, 0)),
        ("goes away in anger", |_| goaway(0, ENHANCE_YOUR_CALM)),
    ];
    for (name, refusal) in refusals {
        for credential in [true, false] {
            for (method, body) in [(Method::GET, ""), (Method::POST, ""), (Method::POST, "small")] {
                let (upstream, seen) = refusing(refusal, 1).await;
                let running =
                    if credential { with_credential(upstream.addr) } else { in_front_of(upstream.addr, "") };
                let reply = send(running.addr, method.clone(), "/", &[], body).await;
                let case = format!("{name}, {method} {body:?}, credential: {credential}");
                assert_eq!((reply.status, seen.load(Ordering::SeqCst)), (200, 2), "{case}: {reply:?}");
                drop(running);

                let (upstream, seen) = refusing(refusal, 2).await;
                let running =
                    if credential { with_credential(upstream.addr) } else { in_front_of(upstream.addr, "") };
                let reply = send(running.addr, method.clone(), "/", &[], body).await;
                assert_eq!(
                    (reply.status, seen.load(Ordering::SeqCst)),
                    (502, 2),
                    "never twice, {case}: {reply:?}"
                );
            }
        }
    }
}

#[tokio::test]
async fn what_an_upstream_may_have_begun_is_sent_again_only_if_that_is_safe() {
    type Refusal = fn(u32) -> Vec<u8>;
    let refusals: [(&str, Refusal); 2] = [
        ("gives up", |stream| reset(stream, INTERNAL_ERROR)),
        ("goes away with it", |stream| goaway(stream, 0)),
    ];
    for (name, refusal) in refusals {
        let (upstream, seen) = refusing(refusal, 1).await;
        let running = in_front_of(upstream.addr, "response_timeout = \"500ms\"");
        let reply = send(running.addr, Method::POST, "/", &[], "small").await;
        assert!(matches!(reply.status, 502 | 504), "{name}: {reply:?}");
        assert_eq!(seen.load(Ordering::SeqCst), 1, "{name}");
    }
    // The connection breaks under the second request of a connection.
    for (method, status, requests) in
        [(Method::GET, 200, 3), (Method::POST, 502, 2), (Method::DELETE, 200, 3)]
    {
        let seen = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&seen);
        let upstream = Scripted::start(move |_, mut stream| {
            let seen = Arc::clone(&count);
            async move {
                greet(&mut stream).await;
                while let Some(request) = await_frame(&mut stream, HEADERS).await {
                    if seen.fetch_add(1, Ordering::SeqCst) == 1 {
                        return;
                    }
                    say(&mut stream, frame(HEADERS, END_HEADERS | END_STREAM, request.stream, &[0x88])).await;
                }
            }
        })
        .await;
        let running = in_front_of(upstream.addr, "");
        assert_eq!(get(running.addr, "/", &[]).await.status, 200);
        let reply = send(running.addr, method.clone(), "/", &[], "").await;
        assert_eq!((reply.status, seen.load(Ordering::SeqCst)), (status, requests), "{method}: {reply:?}");
    }
}

#[tokio::test]
async fn a_body_that_never_left_a_connection_goes_out_on_the_next() {
    let (signals, mut seen) = mpsc::unbounded_channel();
    let upstream = Scripted::start(move |number, mut stream| {
        let signals = signals.clone();
        async move {
            greet(&mut stream).await;
            let Some(request) = await_frame(&mut stream, HEADERS).await else { return };
            if number == 0 {
                say(&mut stream, frame(HEADERS, END_HEADERS | END_STREAM, request.stream, &[0x88])).await;
                // A stream keeps it open, and yet it goes away.
                await_frame(&mut stream, HEADERS).await.unwrap();
                signals.send("waits".to_owned()).unwrap();
                let other = await_frame(&mut stream, HEADERS).await.unwrap().stream;
                let answer = frame(HEADERS, END_HEADERS | END_STREAM, other, &[0x88]);
                say(&mut stream, [goaway(other, NO_ERROR), answer].concat()).await;
                let _ = stream.read_to_end(&mut Vec::new()).await;
                return;
            }
            let Some(body) = await_frame(&mut stream, DATA).await else { return };
            signals.send(String::from_utf8(body.payload).unwrap()).unwrap();
            say(&mut stream, frame(HEADERS, END_HEADERS | END_STREAM, request.stream, &[0x88])).await;
            let _ = stream.read_to_end(&mut Vec::new()).await;
        }
    })
    .await;
    // None is kept for a replay: it is the request itself that is sent on.
    let running = in_front_of(upstream.addr, "replay_body = 0\nresponse_timeout = \"5s\"");
    let mut caller = Caller::connect(running.addr).await;
    assert_eq!(get(running.addr, "/", &[]).await.status, 200);
    let _waits = caller.begin(Method::GET, "/", &[], true).await;
    assert_eq!(patiently("it to wait", seen.recv()).await.as_deref(), Some("waits"));
    assert_eq!(get(running.addr, "/", &[]).await.status, 200);
    let reply = post(running.addr, "/", &[], "a body").await;
    assert_eq!((reply.status, upstream.connections()), (200, 2), "{reply:?}");
    assert_eq!(seen.recv().await.as_deref(), Some("a body"));
}

#[tokio::test]
async fn many_that_are_refused_at_once_do_not_open_a_connection_each() {
    let refused = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&refused);
    let upstream = Upstream::start(move |mut visit: Visit| {
        let refused = Arc::clone(&count);
        async move {
            if visit.request.uri().path() == "/twice" && refused.fetch_add(1, Ordering::SeqCst) < 40 {
                visit.answer.send_reset(h2::Reason::REFUSED_STREAM);
            } else {
                visit.say(200, "ok");
            }
        }
    })
    .await;
    let running = in_front_of(upstream.addr, "");
    let mut caller = Caller::connect(running.addr).await;
    assert_eq!(caller.get("/").await.status(), 200);
    let mut waiting = Vec::new();
    for _ in 0..40 {
        waiting.push(caller.begin(Method::POST, "/twice", &[], true).await.0);
    }
    for answer in waiting {
        assert_eq!(patiently("an answer", answer).await.unwrap().status(), 200);
    }
    assert!(upstream.connections() <= 2, "{}", upstream.connections());
}
