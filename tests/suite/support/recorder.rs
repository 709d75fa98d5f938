//! An upstream of HTTP/1.1 that keeps each byte that it gets.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// It answers every request with the same.
pub(crate) struct Recorder {
    pub(crate) addr: SocketAddr,
    bytes: Arc<Mutex<Vec<u8>>>,
    accepting: JoinHandle<()>,
}

impl Recorder {
    pub(crate) async fn start() -> Self {
        Self::answering("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await
    }

    /// Gives this answer to each request, of which it understands both framings.
    pub(crate) async fn answering(answer: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let addr = listener.local_addr().expect("an address");
        let bytes = Arc::new(Mutex::new(Vec::new()));
        let all = Arc::clone(&bytes);
        let accepting = tokio::spawn(async move {
            let mut running = tokio::task::JoinSet::new();
            while let Ok((mut stream, _)) = listener.accept().await {
                let all = Arc::clone(&all);
                running.spawn(async move {
                    let mut unread = Vec::new();
                    let mut some = [0; 4096];
                    while let Ok(read @ 1..) = stream.read(&mut some).await {
                        all.lock().expect("no panic").extend_from_slice(&some[..read]);
                        unread.extend_from_slice(&some[..read]);
                        while let Some(length) = whole_request(&unread) {
                            unread.drain(..length);
                            let _ = stream.write_all(answer.as_bytes()).await;
                        }
                    }
                });
            }
        });
        Self { addr, bytes, accepting }
    }

    /// What has come since the last time.
    pub(crate) fn take(&self) -> String {
        let bytes = std::mem::take(&mut *self.bytes.lock().expect("no panic"));
        bytes.iter().map(|byte| char::from(*byte)).collect()
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// The length of the request that these bytes begin with, if it is whole.
fn whole_request(bytes: &[u8]) -> Option<usize> {
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
    let head = String::from_utf8_lossy(&bytes[..end]).to_ascii_lowercase();
    if head.contains("\r\ntransfer-encoding: chunked\r\n") {
        let rest = &bytes[end..];
        // Bodies of tests hold no such bytes themselves; trailers may follow.
        let last = if rest.starts_with(b"0\r\n") {
            0
        } else {
            rest.windows(5).position(|five| five == b"\r\n0\r\n")? + 2
        };
        let tail = &rest[last + 1..];
        return tail.windows(4).position(|four| four == b"\r\n\r\n").map(|at| end + last + 1 + at + 4);
    }
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.trim().parse().ok());
    let whole = end + length.unwrap_or(0);
    (bytes.len() >= whole).then_some(whole)
}
