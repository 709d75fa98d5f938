//! Time limits, upstreams that misbehave, and stopping.
#![cfg(feature = "demo")]

use std::time::Duration;

use crate::support::running::{aura, aura_route, eventually, open_route, patiently, sidekey};
use crate::support::scripted::{Scripted, read_head, say};
use crate::support::{Reply, free, get, post, raw_to_end, read_reply, try_send};
use http::Method;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tokio::sync::mpsc;

const GET: &str = "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";

fn assert_error(reply: &Reply, status: u16, code: &str, proxy_error: &str) {
    assert_eq!((reply.status, reply.header("sidekey-error")), (status, Some(code)), "{reply:?}");
    assert_eq!(reply.header("proxy-status"), Some(&*format!("sidekey; error={proxy_error}")), "{reply:?}");
}

/// An upstream that reads a request's header and does nothing more.
async fn silent() -> Scripted {
    Scripted::start(|_, mut stream| async move {
        read_head(&mut stream).await;
        std::future::pending::<()>().await;
    })
    .await
}

#[tokio::test]
async fn an_upstream_that_does_not_answer_in_time_is_504() {
    let upstream = silent().await;
    let running = sidekey(&open_route(upstream.addr, "response_timeout = \"300ms\""));
    let reply = get(running.addr, "/", &[]).await;
    assert_error(&reply, 504, "upstream_timeout", "http_response_timeout");
    let reply = post(running.addr, "/", &[], "body").await;
    assert_error(&reply, 504, "upstream_timeout", "http_response_timeout");
}

#[tokio::test]
async fn an_answer_that_has_begun_may_take_longer_than_that() {
    let upstream = Scripted::start(|_, mut stream| async move {
        read_head(&mut stream).await;
        say(&mut stream, "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nsl").await;
        tokio::time::sleep(Duration::from_millis(1200)).await;
        say(&mut stream, "ow").await;
    })
    .await;
    let running = sidekey(&open_route(upstream.addr, "response_timeout = \"300ms\""));
    assert_eq!(get(running.addr, "/", &[]).await.text(), "slow");
}

#[tokio::test]
async fn the_time_for_an_answer_begins_with_the_last_byte_of_the_request() {
    let aura = aura().await;
    let text =
        aura_route(&aura, "").replace("[credential.aura]", "response_timeout = \"500ms\"\n[credential.aura]");
    let running = sidekey(&text);
    let mut stream = TcpStream::connect(running.addr).await.unwrap();
    say(&mut stream, "POST /v1/sink HTTP/1.1\r\nHost: localhost\r\nContent-Length: 6\r\n\r\n").await;
    for _ in 0..6 {
        tokio::time::sleep(Duration::from_millis(250)).await;
        say(&mut stream, "x").await;
    }
    let reply = read_reply(&mut stream).await;
    assert_eq!((reply.status, reply.json()["bytes"].as_u64()), (200, Some(6)));
}

#[tokio::test]
async fn an_upstream_that_cannot_be_reached_is_502() {
    let gone = free();
    let running = sidekey(&open_route(gone, ""));
    assert_error(&get(running.addr, "/", &[]).await, 502, "upstream_unreachable", "destination_unavailable");
}

#[tokio::test]
async fn an_upstream_that_does_not_speak_http_is_502() {
    for garbage in [
        "SSH-2.0-OpenSSH_9.6\r\n",
        "HTTP/1.1 2OO OK\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nx",
        "HTTP/1.1 200 OK\r\nBad Header: 1\r\n\r\n",
        "\u{15}\u{3}\u{3}\u{0}\u{2}\u{2}(\r\n\r\n",
    ] {
        let upstream = Scripted::saying(garbage).await;
        let running = sidekey(&open_route(upstream.addr, ""));
        let reply = get(running.addr, "/", &[]).await;
        assert_error(&reply, 502, "upstream_protocol", "http_protocol_error");
        assert_eq!(upstream.connections(), 1, "{garbage:?}: it is not asked again");
    }
}

#[tokio::test]
async fn an_upstream_that_closes_without_an_answer_is_502_and_not_asked_again() {
    for said in ["", "HTTP/1.1 200 OK\r\nContent-"] {
        let upstream = Scripted::saying(said).await;
        let running = sidekey(&open_route(upstream.addr, ""));
        let reply = get(running.addr, "/", &[]).await;
        assert_error(&reply, 502, "upstream_unreachable", "connection_terminated");
        assert_eq!(upstream.connections(), 1);
    }
}

#[tokio::test]
async fn an_upstream_answer_with_a_header_without_end_is_cut_off() {
    let upstream = Scripted::start(|_, mut stream| async move {
        read_head(&mut stream).await;
        say(&mut stream, "HTTP/1.1 200 OK\r\nX-Long: ").await;
        let chunk = vec![b'x'; 65_536];
        while tokio::io::AsyncWriteExt::write_all(&mut stream, &chunk).await.is_ok() {}
    })
    .await;
    let running = sidekey(&open_route(upstream.addr, ""));
    let reply = get(running.addr, "/", &[]).await;
    assert_error(&reply, 502, "upstream_protocol", "http_protocol_error");
}

#[tokio::test]
async fn a_caller_that_is_slow_with_its_header_is_cut_off() {
    let upstream = silent().await;
    let text = open_route(upstream.addr, "").replace("[route", "header_timeout = \"300ms\"\n[route");
    let running = sidekey(&text);
    for part in ["", "GET / HTTP/1.1\r\nHost: lo"] {
        assert!(raw_to_end(running.addr, part).await.is_empty(), "{part:?}");
    }
    // One byte now and then does not help.
    let mut stream = TcpStream::connect(running.addr).await.unwrap();
    let (mut reading, mut writing) = stream.split();
    let dripping = async {
        loop {
            let _ = tokio::io::AsyncWriteExt::write_all(&mut writing, b"G").await;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let mut rest = Vec::new();
    tokio::select! {
        () = dripping => {}
        read = patiently("the end", reading.read_to_end(&mut rest)) => drop(read),
    }
    assert_eq!(upstream.connections(), 0);
}

#[tokio::test]
async fn a_connection_without_requests_is_closed_after_a_while() {
    let aura = aura().await;
    let text = aura_route(&aura, "").replace("[route", "idle_timeout = \"300ms\"\n[route");
    let running = sidekey(&text);
    let mut stream = TcpStream::connect(running.addr).await.unwrap();
    for _ in 0..2 {
        say(&mut stream, "GET /v1/slow/600 HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
        assert_eq!(read_reply(&mut stream).await.status, 200, "an exchange is not idle");
    }
    let mut rest = Vec::new();
    assert!(matches!(patiently("the end", stream.read_to_end(&mut rest)).await, Ok(0)));
}

#[tokio::test]
async fn a_caller_that_stops_sending_its_body_is_told_so() {
    let upstream = silent().await;
    let text = open_route(upstream.addr, "").replace("[route", "idle_timeout = \"300ms\"\n[route");
    let running = sidekey(&text);
    let part = "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\nhalf";
    let text = String::from_utf8(raw_to_end(running.addr, part).await).unwrap();
    assert!(text.starts_with("HTTP/1.1 400 ") && text.contains("bad_request"), "{text}");
}

#[tokio::test]
async fn an_upstream_that_stops_taking_the_body_is_blamed_and_not_the_caller() {
    let upstream = silent().await;
    let text = open_route(upstream.addr, "").replace("[route", "idle_timeout = \"500ms\"\n[route");
    let running = sidekey(&text);
    let mut stream = TcpStream::connect(running.addr).await.unwrap();
    let (mut reading, mut writing) = stream.split();
    say_all(&mut writing, b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000000\r\n\r\n").await;
    let sending = async {
        let chunk = vec![b'x'; 65_536];
        while tokio::io::AsyncWriteExt::write_all(&mut writing, &chunk).await.is_ok() {}
        std::future::pending::<()>().await;
    };
    let reply = tokio::select! {
        () = sending => unreachable!("it has a body without end"),
        reply = read_reply(&mut reading) => reply,
    };
    assert_error(&reply, 504, "upstream_timeout", "connection_write_timeout");
}

async fn say_all(stream: &mut (impl tokio::io::AsyncWrite + Unpin), bytes: &[u8]) {
    tokio::io::AsyncWriteExt::write_all(stream, bytes).await.expect("send");
}

#[tokio::test]
async fn a_connection_that_the_upstream_closed_meanwhile_costs_no_request() {
    let (closed, mut gone) = mpsc::unbounded_channel();
    let upstream = Scripted::start(move |_, mut stream| {
        let closed = closed.clone();
        async move {
            read_head(&mut stream).await;
            say(&mut stream, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
            drop(stream);
            closed.send(()).unwrap();
        }
    })
    .await;
    let running = sidekey(&open_route(upstream.addr, ""));
    let mut stream = TcpStream::connect(running.addr).await.unwrap();
    for (count, method) in ["GET", "POST", "GET", "POST"].into_iter().enumerate() {
        let request = format!("{method} / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n");
        say(&mut stream, request).await;
        assert_eq!(read_reply(&mut stream).await.status, 200, "{method}, request {count}");
        assert_eq!(upstream.connections(), count + 1);
        patiently("the upstream to close", gone.recv()).await;
    }
}

/// Answers the first request of its first connection, and closes that one on the second without an answer.
async fn forgetful() -> Scripted {
    Scripted::start(|number, mut stream| async move {
        for turn in 0.. {
            let head = read_head(&mut stream).await;
            if head.is_empty() || (number == 0 && turn == 1) {
                return;
            }
            say(&mut stream, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
        }
    })
    .await
}

#[tokio::test]
async fn a_request_that_met_a_closing_connection_is_sent_again_only_if_that_is_safe() {
    for (method, status, connections) in
        [(Method::GET, 200, 2), (Method::DELETE, 200, 2), (Method::POST, 502, 1), (Method::PATCH, 502, 1)]
    {
        let upstream = forgetful().await;
        let running = sidekey(&open_route(upstream.addr, ""));
        assert_eq!(get(running.addr, "/", &[]).await.status, 200);
        let second = try_send(running.addr, method.clone(), "/", &[], "").await.unwrap();
        assert_eq!((second.status, upstream.connections()), (status, connections), "{method}");
    }
}

#[tokio::test]
async fn bytes_that_an_upstream_sends_unasked_are_nobodys_answer() {
    let (sent, mut saw) = mpsc::unbounded_channel();
    let upstream = Scripted::start(move |number, mut stream| {
        let sent = sent.clone();
        async move {
            read_head(&mut stream).await;
            let twice = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ngoodHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil";
            say(&mut stream, if number == 0 { twice } else { "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nnext" }).await;
            sent.send(()).unwrap();
            std::future::pending::<()>().await;
        }
    })
    .await;
    let running = sidekey(&open_route(upstream.addr, ""));
    assert_eq!(get(running.addr, "/", &[]).await.text(), "good");
    patiently("the upstream", saw.recv()).await;
    assert_eq!(get(running.addr, "/", &[]).await.text(), "next");
}

#[tokio::test]
async fn stopping_lets_a_running_exchange_finish_and_takes_no_new_connection() {
    let (go_on, mut told) = mpsc::unbounded_channel::<()>();
    let (begun, mut began) = mpsc::unbounded_channel();
    let told = std::sync::Arc::new(tokio::sync::Mutex::new(std::mem::replace(
        &mut told,
        mpsc::unbounded_channel().1,
    )));
    let upstream = Scripted::start(move |_, mut stream| {
        let (told, begun) = (std::sync::Arc::clone(&told), begun.clone());
        async move {
            read_head(&mut stream).await;
            say(&mut stream, "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nfirst").await;
            begun.send(()).unwrap();
            told.lock().await.recv().await;
            say(&mut stream, "later").await;
        }
    })
    .await;
    let running = sidekey(&open_route(upstream.addr, ""));
    let addr = running.addr;
    let mut idle = TcpStream::connect(addr).await.unwrap();
    let mut busy = TcpStream::connect(addr).await.unwrap();
    say(&mut busy, GET).await;
    patiently("the exchange to begin", began.recv()).await;
    let stopping = tokio::spawn(running.stop());
    eventually("new connections to be refused", async || TcpStream::connect(addr).await.is_err()).await;
    let mut rest = Vec::new();
    let ended = patiently("the idle connection to close", idle.read_to_end(&mut rest)).await;
    assert!(ended.is_err() || rest.is_empty());
    assert!(!stopping.is_finished(), "an exchange still runs");
    go_on.send(()).unwrap();
    assert_eq!(read_reply(&mut busy).await.text(), "firstlater");
    assert!(
        matches!(patiently("the end", busy.read_to_end(&mut rest)).await, Ok(0)),
        "no more requests on it"
    );
    patiently("the stop", stopping).await.unwrap();
}

#[tokio::test]
async fn callers_are_sent_away_by_their_answers_before_anything_is_closed() {
    let upstream = Scripted::saying("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
    let text = open_route(upstream.addr, "").replace("[route", "drain_delay = \"5s\"\n[route");
    let running = sidekey(&text);
    let addr = running.addr;
    let mut kept = TcpStream::connect(addr).await.unwrap();
    say(&mut kept, GET).await;
    assert_eq!(read_reply(&mut kept).await.header("connection"), None);
    let mut second = crate::support::http2::Caller::connect(addr).await;
    assert_eq!(second.get("/").await.status(), 200);
    let stopping = tokio::spawn(running.stop());
    eventually("the caller of HTTP/2 to be sent away", async || second.is_closed()).await;
    say(&mut kept, GET).await;
    let last = read_reply(&mut kept).await;
    assert_eq!((last.status, last.header("connection")), (200, Some("close")), "{last:?}");
    let mut rest = Vec::new();
    assert_eq!(patiently("the end", kept.read_to_end(&mut rest)).await.unwrap(), 0);
    // Others may come until the delay is over.
    let mut new = TcpStream::connect(addr).await.unwrap();
    say(&mut new, GET).await;
    let answer = read_reply(&mut new).await;
    assert_eq!((answer.status, answer.header("connection")), (200, Some("close")), "{answer:?}");
    assert!(!stopping.is_finished());
    stopping.abort();
}

#[tokio::test]
async fn stopping_ends_within_the_drain_time_whatever_still_runs() {
    let upstream = silent().await;
    let text = open_route(upstream.addr, "").replace("[route", "drain_timeout = \"200ms\"\n[route");
    let running = sidekey(&text);
    let mut stream = TcpStream::connect(running.addr).await.unwrap();
    say(&mut stream, GET).await;
    eventually("the exchange to begin", async || upstream.connections() == 1).await;
    patiently("the stop", running.stop()).await;
    let mut rest = Vec::new();
    let ended = patiently("the end", stream.read_to_end(&mut rest)).await;
    assert!(ended.is_err() || rest.is_empty(), "it is cut off without an answer");
}
