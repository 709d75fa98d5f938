//! Callers: each compares what it gets with what it asked for.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use fastrand::Rng;
use http::Request;
use http_body_util::Full;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::ledger::{Ask, Ledger};
use crate::support::got::{Got, collect, read_answer};
use crate::support::running::patiently;

/// Keeps a connection while it can, sends some requests at once, and goes away now and then.
pub(crate) async fn http1(addr: SocketAddr, mut rng: Rng, ledger: Arc<Ledger>) {
    let mut connection = None;
    while ledger.takes_one() {
        let (stream, buffer) = match &mut connection {
            Some(connection) => connection,
            none => none.insert((TcpStream::connect(addr).await.expect("connect"), Vec::new())),
        };
        let mut asks = vec![Ask::any(&mut rng)];
        while asks.len() < 4 && rng.u8(..6) == 0 && ledger.takes_one() {
            asks.push(Ask::any(&mut rng));
        }
        let bytes: Vec<u8> = asks.iter().flat_map(bytes_of).collect();
        if rng.u8(..40) == 0 {
            let _ = stream.write_all(&bytes[..rng.usize(..bytes.len())]).await;
            connection = None;
            asks.iter().for_each(|_| ledger.count("went away"));
            continue;
        }
        // It is told by the answer if not all of it was taken.
        let _ = stream.write_all(&bytes).await;
        let mut asks = asks.iter();
        let mut goes_on = true;
        for ask in asks.by_ref() {
            let got = patiently("an answer", read_answer(stream, buffer, false)).await;
            ledger.got(ask, &got);
            ledger.was_made(ask);
            goes_on = matches!(&got, Got::Whole(answer) if answer.header("connection") != Some("close"));
            if !goes_on {
                break;
            }
        }
        asks.for_each(|_| ledger.count("nothing"));
        if !goes_on {
            connection = None;
        }
    }
}

fn bytes_of(ask: &Ask) -> Vec<u8> {
    let (method, target, mark, body) = (&ask.method, ask.target(), &ask.mark, ask.body());
    let head = format!("{method} {target} HTTP/1.1\r\nHost: localhost\r\nMark: {mark}\r\n");
    match (ask.has_body(), ask.chunked) {
        (false, _) => format!("{head}\r\n"),
        (true, true) if body.is_empty() => format!("{head}Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        (true, true) => {
            format!("{head}Transfer-Encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n0\r\n\r\n", body.len())
        }
        (true, false) => format!("{head}Content-Length: {}\r\n\r\n{body}", body.len()),
    }
    .into_bytes()
}

/// Many streams at once on a connection; takes some back.
pub(crate) async fn http2(addr: SocketAddr, mut rng: Rng, ledger: Arc<Ledger>) {
    let mut goes_on = true;
    while goes_on {
        let io = TokioIo::new(TcpStream::connect(addr).await.expect("connect"));
        let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await;
        let (sender, connection) = handshake.expect("a handshake");
        let connection = tokio::spawn(connection);
        // From time to time, another one.
        for _ in 0..rng.usize(1..40) {
            let mut streams = JoinSet::new();
            for _ in 0..rng.usize(1..12) {
                goes_on = ledger.takes_one();
                if !goes_on {
                    break;
                }
                let (mut sender, ledger, ask) = (sender.clone(), Arc::clone(&ledger), Ask::any(&mut rng));
                let patience = (rng.u8(..20) == 0).then(|| rng.usize(..200));
                streams.spawn(async move {
                    let asked = async { collect(sender.send_request(request_of(&ask)).await).await };
                    let taken_back = async {
                        match patience {
                            None => std::future::pending().await,
                            Some(turns) => {
                                for _ in 0..turns {
                                    tokio::task::yield_now().await;
                                }
                            }
                        }
                    };
                    let both = async {
                        tokio::select! {
                            got = asked => Some(got),
                            () = taken_back => None,
                        }
                    };
                    match patiently("an answer", both).await {
                        Some(got) => {
                            ledger.got(&ask, &got);
                            ledger.was_made(&ask);
                        }
                        None => ledger.count("went away"),
                    }
                });
            }
            streams.join_all().await;
            if !goes_on || sender.is_closed() {
                break;
            }
        }
        connection.abort();
    }
}

fn request_of(ask: &Ask) -> Request<Full<Bytes>> {
    let body = if ask.has_body() { ask.body() } else { String::new() };
    let request = Request::builder().method(&ask.method).uri(format!("http://localhost{}", ask.target()));
    request.header("mark", &ask.mark).body(Full::new(body.into())).expect("a request")
}
