//! WebSockets pass, authorized and untouched; no other upgrade opens a tunnel.
#![cfg(feature = "demo")]

use std::net::SocketAddr;

use crate::support::running::{Running, open_route, patiently, sidekey};
use crate::support::scripted::{Scripted, read_head, say};
use crate::support::{basic, raw, read_reply};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

const HANDSHAKE: &str = "GET /chat?x=1 HTTP/1.1\r\nHost: localhost\r\nConnection: keep-alive, Upgrade\r\n\
                         Upgrade: WebSocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
                         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: chat\r\nAuthorization: Bearer mine\r\n\r\n";
const SWITCHING: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                         Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nSec-WebSocket-Protocol: chat\r\n\r\n";

/// An upstream that switches and then says back what it hears; tells the heads that it got.
async fn echo() -> (Scripted, mpsc::UnboundedReceiver<String>) {
    let (heads, seen) = mpsc::unbounded_channel();
    let upstream = Scripted::start(move |_, mut stream| {
        let heads = heads.clone();
        async move {
            let _ = heads.send(read_head(&mut stream).await);
            // The first words come in the same segment as the answer.
            say(&mut stream, format!("{SWITCHING}early")).await;
            let (mut from, mut to) = stream.split();
            let _ = tokio::io::copy(&mut from, &mut to).await;
        }
    });
    (upstream.await, seen)
}

fn with_password(upstream: SocketAddr, server: &str) -> Running {
    let text = open_route(upstream, "").replace(
        "credential = false",
        "credential = { type = \"basic\", username = \"u\", password = { value = \"p\" } }",
    );
    sidekey(&text.replace("[route", &format!("{server}\n[route")))
}

async fn read_some(stream: &mut TcpStream, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    patiently("bytes", stream.read_exact(&mut bytes)).await.expect("so many bytes");
    bytes
}

#[tokio::test]
async fn a_websocket_passes_authorized_and_its_bytes_are_untouched() {
    let (upstream, mut heads) = echo().await;
    let running = with_password(upstream.addr, "");
    let mut caller = TcpStream::connect(running.addr).await.unwrap();
    // Bytes right behind the handshake belong to the tunnel: the server sees them, and not as a request.
    let odd = "GET /smuggled HTTP/1.1\r\nHost: localhost\r\n\r\n";
    caller.write_all(format!("{HANDSHAKE}{odd}").as_bytes()).await.unwrap();

    let mut answer = read_some(&mut caller, 12).await;
    assert_eq!(answer, b"HTTP/1.1 101");
    while !answer.ends_with(b"\r\n\r\n") {
        answer.extend(read_some(&mut caller, 1).await);
    }
    let answer = String::from_utf8(answer).unwrap().to_ascii_lowercase();
    for line in [
        "\r\nconnection: upgrade\r\n",
        "\r\nupgrade: websocket\r\n",
        "\r\nsec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo=\r\n",
        "\r\nsec-websocket-protocol: chat\r\n",
    ] {
        assert!(answer.contains(line), "{line:?} in {answer:?}");
    }
    assert!(!answer.contains("content-length") && !answer.contains("transfer-encoding"), "{answer:?}");
    assert_eq!(read_some(&mut caller, 5).await, b"early");
    assert_eq!(read_some(&mut caller, odd.len()).await, odd.as_bytes());

    let head = heads.recv().await.unwrap();
    assert!(head.starts_with("GET /chat?x=1 HTTP/1.1\r\n"), "{head}");
    let lower = head.to_ascii_lowercase();
    for line in ["\r\nconnection: upgrade\r\n", "\r\nupgrade: websocket\r\n", "\r\nsec-websocket-key: "] {
        assert_eq!(lower.matches(line).count(), 1, "{line:?} in {head}");
    }
    let authorization = format!("authorization: {}\r\n", basic("u", "p"));
    assert!(head.contains(&authorization) && !head.contains("mine"), "{head}");

    let mut bytes = vec![0; 300_000];
    fastrand::Rng::with_seed(7).fill(&mut bytes);
    let (mut from, mut to) = caller.split();
    let sent = bytes.clone();
    let (_, back) = tokio::join!(
        async {
            to.write_all(&sent).await.unwrap();
            to.shutdown().await.unwrap();
        },
        async {
            let mut back = Vec::new();
            // The upstream's end comes through as well.
            patiently("the end", from.read_to_end(&mut back)).await.unwrap();
            back
        }
    );
    assert_eq!(back, bytes);
    assert_eq!(upstream.connections(), 1);
}

#[tokio::test]
async fn a_silent_websocket_is_not_cut() {
    let (upstream, _heads) = echo().await;
    let running = with_password(upstream.addr, "idle_timeout = \"300ms\"\nheader_timeout = \"300ms\"");
    let mut caller = TcpStream::connect(running.addr).await.unwrap();
    caller.write_all(HANDSHAKE.as_bytes()).await.unwrap();
    let mut seen = Vec::new();
    while !seen.ends_with(b"early") {
        seen.extend(read_some(&mut caller, 1).await);
    }
    // Longer than both, and two ticks of the clock that rings them.
    tokio::time::sleep(std::time::Duration::from_millis(1200)).await;
    caller.write_all(b"still there").await.unwrap();
    assert_eq!(read_some(&mut caller, 11).await, b"still there");
}

#[tokio::test]
async fn what_is_no_websocket_handshake_opens_no_tunnel_and_goes_on_without_its_upgrade() {
    let (heads, mut seen) = mpsc::unbounded_channel();
    let upstream = Scripted::start(move |_, mut stream| {
        let heads = heads.clone();
        async move {
            let _ = heads.send(read_head(&mut stream).await);
            say(&mut stream, "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok").await;
        }
    })
    .await;
    let running = with_password(upstream.addr, "");
    let websocket = "Connection: upgrade\r\nUpgrade: websocket\r\n";
    let rest = "Sec-WebSocket-Key: k\r\nSec-WebSocket-Version: 13\r\n";
    let cases = [
        (
            "GET / HTTP/1.1",
            "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n".to_owned(),
        ),
        ("GET / HTTP/1.1", format!("Connection: upgrade\r\nUpgrade: foo\r\n{rest}")),
        ("GET / HTTP/1.1", format!("Connection: upgrade\r\nUpgrade: websocket, h2c\r\n{rest}")),
        ("GET / HTTP/1.1", format!("Connection: upgrade\r\nUpgrade: h2c\r\nUpgrade: websocket\r\n{rest}")),
        ("GET / HTTP/1.1", format!("Upgrade: websocket\r\n{rest}")),
        ("GET / HTTP/1.1", websocket.to_owned()),
        ("GET / HTTP/1.1", format!("{websocket}Sec-WebSocket-Key: k\r\n")),
        ("GET / HTTP/1.1", format!("{websocket}{rest}Content-Length: 0\r\n")),
        ("POST / HTTP/1.1", format!("{websocket}{rest}Content-Length: 0\r\n")),
        ("GET / HTTP/1.0", format!("{websocket}{rest}")),
    ];
    for (line, headers) in cases {
        let reply = raw(running.addr, format!("{line}\r\nHost: localhost\r\n{headers}\r\n")).await;
        assert_eq!((reply.status, reply.text()), (200, "ok"), "{headers}");
        let head = seen.recv().await.unwrap().to_ascii_lowercase();
        assert!(!head.contains("\r\nupgrade") && !head.contains("\r\nconnection"), "{headers}: {head}");
        assert!(!head.contains("http2-settings"), "{head}");
    }
}

#[tokio::test]
async fn an_upstream_cannot_switch_to_what_was_not_asked_for() {
    let answers = [
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n\r\n",
    ];
    for answer in answers {
        let upstream = Scripted::saying(answer).await;
        let running = with_password(upstream.addr, "");
        let reply = raw(running.addr, HANDSHAKE).await;
        assert_eq!(
            (reply.status, reply.header("sidekey-error")),
            (502, Some("upstream_protocol")),
            "{answer}"
        );
    }
}

#[tokio::test]
async fn a_refused_handshake_is_an_answer_like_any_other() {
    let upstream = Scripted::start(|_, mut stream| async move {
        read_head(&mut stream).await;
        say(&mut stream, "HTTP/1.1 426 Upgrade Required\r\nContent-Length: 3\r\n\r\nno!").await;
        read_head(&mut stream).await;
        say(&mut stream, "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nnext").await;
    })
    .await;
    let running = sidekey(&open_route(upstream.addr, ""));
    let mut caller = TcpStream::connect(running.addr).await.unwrap();
    caller.write_all(HANDSHAKE.as_bytes()).await.unwrap();
    let reply = read_reply(&mut caller).await;
    assert_eq!((reply.status, reply.text()), (426, "no!"));
    caller.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    assert_eq!(read_reply(&mut caller).await.text(), "next");
    assert_eq!(upstream.connections(), 1);
}

#[tokio::test]
async fn a_caller_that_leaves_ends_the_tunnel_upstream() {
    let (ended, mut end) = mpsc::unbounded_channel();
    let upstream = Scripted::start(move |_, mut stream| {
        let ended = ended.clone();
        async move {
            read_head(&mut stream).await;
            say(&mut stream, SWITCHING).await;
            let mut rest = Vec::new();
            let _ = stream.read_to_end(&mut rest).await;
            let _ = ended.send(rest);
        }
    })
    .await;
    let running = sidekey(&open_route(upstream.addr, ""));
    let mut caller = TcpStream::connect(running.addr).await.unwrap();
    caller.write_all(HANDSHAKE.as_bytes()).await.unwrap();
    read_some(&mut caller, 12).await;
    caller.write_all(b"bye").await.unwrap();
    drop(caller);
    assert_eq!(patiently("the end", end.recv()).await.unwrap(), b"bye");
}
