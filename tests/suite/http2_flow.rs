//! HTTP/2's flow control on both sides: who does not read stops whoever sends, and nobody else.
#![cfg(feature = "demo")]

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::support::http2::{Caller, Upstream, Visit, read, read_body};
use crate::support::running::{aura, eventually, open_route, patiently, sidekey};
use crate::support::scripted::{Scripted, read_head, say};
use bytes::Bytes;
use h2::SendStream;
use http::{Method, Response};
use tokio::io::AsyncWriteExt as _;
use tokio::sync::mpsc;

const CHUNK: usize = 16 * 1024;

/// Sends without end, as far as it may, and counts; gives why it could not go on.
async fn pour(mut sending: SendStream<Bytes>, sent: &AtomicUsize) -> Option<h2::Reason> {
    loop {
        sending.reserve_capacity(CHUNK);
        let capacity = match std::future::poll_fn(|cx| match sending.poll_reset(cx) {
            std::task::Poll::Ready(reason) => std::task::Poll::Ready(Err(reason.ok())),
            std::task::Poll::Pending => sending.poll_capacity(cx).map(Ok),
        })
        .await
        {
            Ok(Some(Ok(capacity))) => capacity.min(CHUNK),
            Ok(Some(Err(error))) => return error.reason(),
            Ok(None) => return None,
            Err(reason) => return reason,
        };
        if capacity > 0 && sending.send_data(Bytes::from(vec![b'x'; capacity]), false).is_err() {
            return None;
        }
        sent.fetch_add(capacity, Ordering::SeqCst);
    }
}

/// Waits until no more is sent, and says how much that was.
async fn stalled(sent: &AtomicUsize) -> usize {
    patiently("it to stall", async {
        loop {
            let before = sent.load(Ordering::SeqCst);
            tokio::time::sleep(Duration::from_millis(200)).await;
            if before > 0 && sent.load(Ordering::SeqCst) == before {
                return before;
            }
        }
    })
    .await
}

/// An upstream that pours at `/pour`, takes nothing at `/deaf` (where `/deaf/answered` answers first), and is well
/// otherwise. It tells when a stream of the former two is over, and counts what it pours.
async fn upstream() -> (Upstream, Arc<AtomicUsize>, mpsc::UnboundedReceiver<Option<h2::Reason>>) {
    let sent = Arc::new(AtomicUsize::new(0));
    let (over, ends) = mpsc::unbounded_channel();
    let count = Arc::clone(&sent);
    let mut builder = h2::server::Builder::new();
    builder.initial_connection_window_size(1 << 20);
    let upstream = Upstream::start_as(builder, None, move |mut visit: Visit| {
        let (sent, over) = (Arc::clone(&count), over.clone());
        async move {
            match visit.request.uri().path() {
                "/pour" => {
                    let sending = visit.answer.send_response(Response::new(()), false).expect("it works");
                    let _ = over.send(pour(sending, &sent).await);
                }
                "/deaf" => {
                    let reason = std::future::poll_fn(|cx| visit.answer.poll_reset(cx)).await;
                    let _ = over.send(reason.ok());
                }
                "/deaf/answered" => {
                    let mut sending = visit.answer.send_response(Response::new(()), false).expect("it works");
                    let reason = std::future::poll_fn(|cx| sending.poll_reset(cx)).await;
                    let _ = over.send(reason.ok());
                }
                _ => {
                    visit.body().await;
                    visit.say(200, &"well".repeat(100_000));
                }
            }
        }
    })
    .await;
    (upstream, sent, ends)
}

fn roomy() -> h2::client::Builder {
    let mut builder = h2::client::Builder::new();
    builder.initial_connection_window_size(1 << 20);
    builder
}

#[tokio::test]
async fn a_caller_that_does_not_read_stops_its_upstream_and_no_other_stream() {
    let (upstream, sent, mut ends) = upstream().await;
    let running = sidekey(&open_route(upstream.addr, "http = \"2\""));
    let mut caller = Caller::connect_as(running.addr, &roomy()).await;
    let (answer, mut sending) = caller.begin(Method::GET, "/pour", &[], true).await;
    let body = patiently("the head", answer).await.unwrap().into_body();
    let most = stalled(&sent).await;
    assert!(most < 1 << 20, "{most}");
    let mut other = Caller::connect(running.addr).await;
    for _ in 0..5 {
        assert_eq!(caller.get("/").await.text().len(), 400_000, "on the caller's own connection");
        assert_eq!(other.get("/").await.text().len(), 400_000, "on the upstream's");
    }
    assert_eq!((upstream.connections(), stalled(&sent).await), (1, most));
    sending.send_reset(h2::Reason::CANCEL);
    drop(body);
    assert!(patiently("the pouring to end", ends.recv()).await.is_some());

    // The same in front of HTTP/1.1, whose sockets hold more.
    let poured = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&poured);
    let upstream = Scripted::start(move |_, mut stream| {
        let poured = Arc::clone(&count);
        async move {
            read_head(&mut stream).await;
            say(&mut stream, "HTTP/1.1 200 OK\r\n\r\n").await;
            let chunk = vec![b'x'; CHUNK];
            while stream.write_all(&chunk).await.is_ok() {
                poured.fetch_add(CHUNK, Ordering::SeqCst);
            }
            poured.store(usize::MAX, Ordering::SeqCst);
        }
    })
    .await;
    let running = sidekey(&open_route(upstream.addr, ""));
    let mut caller = Caller::connect(running.addr).await;
    let (answer, _sending) = caller.begin(Method::GET, "/", &[], true).await;
    let body = patiently("the head", answer).await.unwrap().into_body();
    let most = stalled(&poured).await;
    assert!(most < 16 << 20, "{most}");
    drop((body, _sending));
    eventually("its connection to close", async || poured.load(Ordering::SeqCst) == usize::MAX).await;
}

#[tokio::test]
async fn a_caller_that_does_not_read_for_long_is_cut_off() {
    let (upstream, _, mut ends) = upstream().await;
    let text =
        open_route(upstream.addr, "http = \"2\"").replace("[route", "idle_timeout = \"500ms\"\n[route");
    let running = sidekey(&text);
    let mut caller = Caller::connect_as(running.addr, &roomy()).await;
    let (answer, _) = caller.begin(Method::GET, "/pour", &[], true).await;
    let mut body = patiently("the head", answer).await.unwrap().into_body();
    assert!(patiently("the pouring to end", ends.recv()).await.is_some());
    let (_, ended) = patiently("the reset", read_body(&mut body)).await;
    assert!(ended.is_err(), "it does not end well");
}

#[tokio::test]
async fn an_upstream_that_does_not_read_stops_its_caller_and_no_other_stream() {
    let (upstream, _, mut ends) = upstream().await;
    let running = sidekey(&open_route(upstream.addr, "http = \"2\""));
    for path in ["/deaf", "/deaf/answered"] {
        let mut caller = Caller::connect_as(running.addr, &roomy()).await;
        let (answer, sending) = caller.begin(Method::POST, path, &[], false).await;
        let sent = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&sent);
        let pouring = tokio::spawn(async move { pour(sending, &count).await });
        let most = stalled(&sent).await;
        assert!(most < 1 << 20, "{path}: {most}");
        let mut other = Caller::connect(running.addr).await;
        for _ in 0..5 {
            assert_eq!(caller.send(Method::POST, "/", &[], &[b'x'; 100]).await.text().len(), 400_000);
            assert_eq!(other.send(Method::POST, "/", &[], &[b'x'; 100]).await.text().len(), 400_000);
        }
        let answer =
            if path == "/deaf" { Err(answer) } else { Ok(patiently("the head", answer).await.unwrap()) };
        pouring.abort();
        let _ = pouring.await;
        drop(answer);
        assert!(patiently("the reset of what is not read", ends.recv()).await.is_some(), "{path}");
    }
    assert_eq!(upstream.connections(), 1);
}

#[tokio::test]
async fn a_request_that_is_sent_again_with_a_new_token_is_sent_once() {
    let aura = aura().await;
    let (signals, mut seen) = mpsc::unbounded_channel();
    let first = Arc::new(Mutex::new(None));
    let (of_first, tokens) = (Arc::clone(&first), Arc::new(Mutex::new(Vec::new())));
    let all = Arc::clone(&tokens);
    let upstream = Upstream::start(move |mut visit: Visit| {
        let (signals, first) = (signals.clone(), Arc::clone(&of_first));
        all.lock().unwrap().push(visit.header("authorization").unwrap().to_owned());
        let number = all.lock().unwrap().len();
        async move {
            if number == 1 {
                let part = visit.request.body_mut().data().await.unwrap().unwrap();
                let mut got = part.to_vec();
                let head = Response::builder().status(401).body(()).unwrap();
                let _answer = visit.answer.send_response(head, true).unwrap();
                let (rest, ended) = read_body(visit.request.body_mut()).await;
                got.extend_from_slice(&rest);
                *first.lock().unwrap() = Some((got, ended.is_err()));
            } else {
                signals.send(()).unwrap();
                let (body, _) = visit.body().await;
                visit.say(200, &String::from_utf8(body).unwrap());
            }
        }
    })
    .await;
    let url = aura.url();
    let running = sidekey(&format!(
        "[server]\nlisten = \"127.0.0.1:0\"\n[route.up]\npath = \"/\"\nhttp = \"2\"\n\
         upstream = \"http://{}\"\ncredential = \"c\"\n[credential.c]\ntype = \"aura\"\n\
         token_url = \"{url}/oauth/token\"\nclient_id = \"id\"\nclient_secret = {{ value = \"s:cret\" }}\n",
        upstream.addr
    ));
    let mut caller = Caller::connect(running.addr).await;
    let (answer, mut sending) = caller.begin(Method::POST, "/", &[], false).await;
    sending.send_data(Bytes::from_static(b"part one, "), false).unwrap();
    patiently("the replay", seen.recv()).await.unwrap();
    sending.send_data(Bytes::from_static(b"part two"), true).unwrap();
    let answer = patiently("an answer", read(answer)).await.unwrap();
    assert_eq!((answer.status(), answer.text()), (200, "part one, part two"));
    eventually("the end of the first", async || first.lock().unwrap().is_some()).await;
    assert_eq!(first.lock().unwrap().take(), Some((b"part one, ".to_vec(), true)), "and a reset");
    let tokens = tokens.lock().unwrap();
    assert!(tokens.len() == 2 && tokens[0] != tokens[1], "{}", tokens.len());
    assert_eq!(upstream.connections(), 1);
}

#[tokio::test]
async fn an_answer_of_sidekeys_own_waits_for_no_window_for_ever() {
    let upstream = Scripted::saying("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
    let server = "idle_timeout = \"500ms\"\nmax_requests = 1\n[route";
    let running = sidekey(&open_route(upstream.addr, "").replace("[route", server));
    let mut builder = h2::client::Builder::new();
    builder.initial_window_size(0);
    let mut caller = Caller::connect_as(running.addr, &builder).await;
    // Refused by the guard, with a body that the caller does not take.
    let answer = caller.begin(Method::GET, "/", &[("origin", "https://evil.example")], true).await.0;
    let (head, mut body) = patiently("the head", answer).await.unwrap().into_parts();
    assert_eq!(head.status, 403);
    let cut = patiently("the end", std::future::poll_fn(|cx| body.poll_data(cx))).await;
    assert!(cut.is_none_or(|data| data.is_err()), "nothing may be sent");
    let is_served = async || crate::support::get(running.addr, "/", &[]).await.status == 200;
    eventually("its place", is_served).await;
}
