//! An egress proxy of a test: takes CONNECT, leads every name to one address, and writes down all that it is sent.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

use super::scripted::{read_head, say};

/// What a proxy says to whom it opens the way.
pub(crate) const OPEN: &str = "HTTP/1.1 200 Connection established\r\n\r\n";

/// It runs until it is dropped, its tunnels with it.
pub(crate) struct ConnectProxy {
    pub(crate) addr: SocketAddr,
    seen: Arc<Mutex<Vec<Tunnel>>>,
    accepting: JoinHandle<()>,
}

/// One connection to the proxy.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tunnel {
    /// The head of the CONNECT request.
    pub(crate) head: String,
    /// What came after it.
    pub(crate) sent: Vec<u8>,
}

impl Tunnel {
    /// The value of a header of the CONNECT request.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.filter(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value).next()
    }
}

impl ConnectProxy {
    /// Opens a way to `to` for whoever asks.
    pub(crate) async fn leading_to(to: SocketAddr) -> Self {
        Self::start(Some(to), OPEN).await
    }

    /// Says this to each CONNECT, and closes.
    pub(crate) async fn saying(answer: &'static str) -> Self {
        Self::start(None, answer).await
    }

    async fn start(to: Option<SocketAddr>, answer: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let addr = listener.local_addr().expect("an address");
        let seen = Arc::new(Mutex::new(Vec::new()));
        let tunnels = Arc::clone(&seen);
        let accepting = tokio::spawn(async move {
            let mut running = JoinSet::new();
            while let Ok((mut stream, _)) = listener.accept().await {
                let tunnels = Arc::clone(&tunnels);
                running.spawn(async move {
                    let head = read_head(&mut stream).await;
                    let number = {
                        let mut tunnels = tunnels.lock().expect("no panic");
                        tunnels.push(Tunnel { head, sent: Vec::new() });
                        tunnels.len() - 1
                    };
                    say(&mut stream, answer).await;
                    let Some(to) = to else { return };
                    let origin = TcpStream::connect(to).await.expect("the origin is there");
                    let (mut from_caller, mut to_caller) = stream.into_split();
                    let (mut from_origin, mut to_origin) = origin.into_split();
                    let up = async {
                        let mut bytes = [0; 4096];
                        while let Ok(read @ 1..) = from_caller.read(&mut bytes).await {
                            tunnels.lock().expect("no panic")[number].sent.extend_from_slice(&bytes[..read]);
                            if to_origin.write_all(&bytes[..read]).await.is_err() {
                                break;
                            }
                        }
                        let _ = to_origin.shutdown().await;
                    };
                    let down = async {
                        let _ = tokio::io::copy(&mut from_origin, &mut to_caller).await;
                        let _ = to_caller.shutdown().await;
                    };
                    tokio::join!(up, down);
                });
            }
        });
        Self { addr, seen, accepting }
    }

    /// The connections so far.
    pub(crate) fn tunnels(&self) -> Vec<Tunnel> {
        self.seen.lock().expect("no panic").clone()
    }

    /// Its URL.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.addr)
    }
}

impl Drop for ConnectProxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}
