//! Answers that are there before a caller of HTTP/1.1 has sent its whole body: they must reach it.
#![cfg(feature = "demo")]

use std::net::SocketAddr;

use crate::support::running::{open_route, patiently, sidekey};
use crate::support::scripted::{Scripted, read_head, say};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

const BODY: usize = 8 << 20;
const ROUNDS: usize = 10;

/// What a caller reads that sends everything first, and gives up where it cannot.
async fn answer_to_upload(addr: SocketAddr, extra: &str) -> String {
    let mut stream = TcpStream::connect(addr).await.expect("connect");
    let head = format!("POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: {BODY}\r\n{extra}\r\n");
    let (mut answer, body) = (Vec::new(), vec![b'x'; BODY]);
    stream.write_all(head.as_bytes()).await.expect("it is read");
    patiently("the body", stream.write_all(&body)).await.expect("it is read as well");
    patiently("the end", stream.read_to_end(&mut answer)).await.expect("it ends well");
    String::from_utf8(answer).expect("text")
}

#[tokio::test]
async fn an_upstream_that_refuses_an_upload_half_way_is_heard() {
    let upstream = Scripted::start(|_, mut stream| async move {
        read_head(&mut stream).await;
        say(&mut stream, "HTTP/1.1 413 Content Too Large\r\nContent-Length: 5\r\n\r\nlarge").await;
        std::future::pending::<()>().await;
    })
    .await;
    let running = sidekey(&open_route(upstream.addr, ""));
    for round in 0..ROUNDS {
        let answer = answer_to_upload(running.addr, "").await;
        assert!(answer.starts_with("HTTP/1.1 413") && answer.ends_with("large"), "{round}: {answer:?}");
    }
}

#[tokio::test]
async fn an_upload_that_the_guard_refuses_is_told_so() {
    let upstream = Scripted::saying("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
    let running = sidekey(&open_route(upstream.addr, ""));
    for round in 0..ROUNDS {
        let answer = answer_to_upload(running.addr, "Origin: https://evil.example\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 403") && answer.contains("cross_site"), "{round}: {answer:?}");
    }
    assert_eq!(upstream.connections(), 0);
}
