//! `Expect: 100-continue` holds end to end: a body is not sent before the upstream wants it, and never to one that has
//! answered without it.
#![cfg(feature = "demo")]

use std::time::Duration;

use crate::support::read_reply;
use crate::support::running::{aura_route, open_route, patiently, sidekey};
use crate::support::scripted::{Scripted, read_head, say};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

fn head(length: usize) -> String {
    format!("PUT /up HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\nExpect: 100-continue\r\n\r\n")
}

/// Reads the interim answer.
async fn continues(caller: &mut TcpStream) {
    let mut bytes = [0; 25];
    patiently("100", caller.read_exact(&mut bytes)).await.expect("an interim answer");
    assert_eq!(&bytes, b"HTTP/1.1 100 Continue\r\n\r\n");
}

#[tokio::test]
async fn a_body_is_asked_for_when_the_upstream_asks_for_it() {
    let (tell, mut told) = mpsc::unbounded_channel();
    let (go, wait) = tokio::sync::oneshot::channel::<()>();
    let wait = std::sync::Mutex::new(Some(wait));
    let upstream = Scripted::start(move |_, mut stream| {
        let (tell, wait) = (tell.clone(), wait.lock().unwrap().take());
        async move {
            let _ = tell.send(read_head(&mut stream).await);
            let _ = wait.unwrap().await;
            say(&mut stream, "HTTP/1.1 100 Continue\r\n\r\n").await;
            let mut body = [0; 5];
            let _ = stream.read_exact(&mut body).await;
            let _ = tell.send(String::from_utf8_lossy(&body).into_owned());
            say(&mut stream, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
        }
    })
    .await;
    let running = sidekey(&open_route(upstream.addr, ""));
    let mut caller = TcpStream::connect(running.addr).await.unwrap();
    caller.write_all(head(5).as_bytes()).await.unwrap();
    let seen = patiently("the head", told.recv()).await.unwrap();
    assert!(seen.contains("\r\nexpect: 100-continue\r\n"), "{seen}");
    // The upstream has not asked, so the caller is not asked.
    let mut byte = [0];
    let early = tokio::time::timeout(Duration::from_millis(300), caller.read(&mut byte)).await;
    assert!(early.is_err(), "{early:?}");
    go.send(()).unwrap();
    continues(&mut caller).await;
    caller.write_all(b"hello").await.unwrap();
    assert_eq!(patiently("the body", told.recv()).await.unwrap(), "hello");
    assert_eq!(read_reply(&mut caller).await.text(), "ok");
}

#[tokio::test]
async fn an_upstream_that_refuses_gets_no_byte_of_the_body() {
    let (tell, mut told) = mpsc::unbounded_channel();
    let upstream = Scripted::start(move |_, mut stream| {
        let tell = tell.clone();
        async move {
            read_head(&mut stream).await;
            say(&mut stream, "HTTP/1.1 413 Content Too Large\r\nContent-Length: 3\r\n\r\nno!").await;
            // Longer than sidekey would wait for a 100: nothing comes, but the end.
            let mut rest = Vec::new();
            let _ = stream.read_to_end(&mut rest).await;
            let _ = tell.send(rest);
        }
    })
    .await;
    let running = sidekey(&open_route(upstream.addr, ""));
    let mut caller = TcpStream::connect(running.addr).await.unwrap();
    caller.write_all(head(10_000_000).as_bytes()).await.unwrap();
    let reply = read_reply(&mut caller).await;
    assert_eq!((reply.status, reply.text()), (413, "no!"), "the answer, and no 100 before it");
    // A caller that sends it all the same is read no further.
    let _ = caller.write_all(&vec![b'x'; 1 << 20]).await;
    assert!(patiently("the end", told.recv()).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_slow_answer_without_a_body_ends_with_it_unsent() {
    let (tell, mut told) = mpsc::unbounded_channel();
    let upstream = Scripted::start(move |_, mut stream| {
        let tell = tell.clone();
        async move {
            read_head(&mut stream).await;
            say(&mut stream, "HTTP/1.1 403 Forbidden\r\nContent-Length: 4\r\n\r\nno").await;
            // The answer takes longer than an upstream may leave it open whether it wants the body.
            tokio::time::sleep(Duration::from_millis(1500)).await;
            say(&mut stream, "pe").await;
            let mut rest = Vec::new();
            let _ = stream.read_to_end(&mut rest).await;
            let _ = tell.send(rest);
        }
    })
    .await;
    let running = sidekey(&open_route(upstream.addr, ""));
    let mut caller = TcpStream::connect(running.addr).await.unwrap();
    caller.write_all(head(5).as_bytes()).await.unwrap();
    assert_eq!(read_reply(&mut caller).await.text(), "nope");
    let _ = caller.write_all(b"hello").await;
    assert!(patiently("the end", told.recv()).await.unwrap().is_empty());
}

#[tokio::test]
async fn an_upstream_that_says_nothing_of_it_gets_the_body_after_a_second() {
    let upstream = Scripted::start(|_, mut stream| async move {
        read_head(&mut stream).await;
        let mut body = [0; 5];
        let _ = stream.read_exact(&mut body).await;
        say(&mut stream, [b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", &body[..]].concat()).await;
    })
    .await;
    let running = sidekey(&open_route(upstream.addr, ""));
    let mut caller = TcpStream::connect(running.addr).await.unwrap();
    caller.write_all(head(5).as_bytes()).await.unwrap();
    continues(&mut caller).await;
    caller.write_all(b"hello").await.unwrap();
    assert_eq!(read_reply(&mut caller).await.text(), "hello");
}

#[tokio::test]
async fn sidekeys_own_refusal_asks_for_no_body() {
    let upstream = Scripted::saying("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
    let running = sidekey(&open_route(upstream.addr, ""));
    let mut caller = TcpStream::connect(running.addr).await.unwrap();
    let text = head(10_000_000).replace("localhost", "evil.example");
    caller.write_all(text.as_bytes()).await.unwrap();
    let mut first = [0; 12];
    patiently("the answer", caller.read_exact(&mut first)).await.unwrap();
    assert_eq!(&first, b"HTTP/1.1 403");
    assert_eq!(upstream.connections(), 0);
}

#[tokio::test]
async fn a_token_that_is_refused_before_the_body_costs_no_body() {
    let aura = crate::support::running::aura().await;
    let running = sidekey(&aura_route(&aura, ""));
    running.settled().await;
    aura.tokens().revoke_all();
    let mut caller = TcpStream::connect(running.addr).await.unwrap();
    let body = r#"{"name":"new"}"#;
    let head = head(body.len())
        .replace("PUT /up", "POST /v1/instances")
        .replace("\r\n\r\n", "\r\nContent-Type: application/json\r\n\r\n");
    caller.write_all(head.as_bytes()).await.unwrap();
    continues(&mut caller).await;
    caller.write_all(body.as_bytes()).await.unwrap();
    assert_eq!(read_reply(&mut caller).await.status, 202);
}
