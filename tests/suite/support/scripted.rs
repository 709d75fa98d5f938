//! An upstream that does with each connection exactly what a test says, byte by byte.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

/// It runs until it is dropped, its connections with it.
pub(crate) struct Scripted {
    pub(crate) addr: SocketAddr,
    connections: Arc<AtomicUsize>,
    accepting: JoinHandle<()>,
}

impl Scripted {
    /// Runs `script` with each connection and its number, the first being 0.
    pub(crate) async fn start<F, Fut>(script: F) -> Self
    where
        F: Fn(usize, TcpStream) -> Fut + Send + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        Self::start_on(Ipv4Addr::LOCALHOST.into(), script).await
    }

    /// The same where nobody connects by mistake, to a port that was somebody else's: for tests that count connections.
    pub(crate) async fn start_apart<F, Fut>(script: F) -> Self
    where
        F: Fn(usize, TcpStream) -> Fut + Send + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        // All of 127.0.0.0/8 is loopback on Linux; elsewhere, most often, one address.
        let address =
            if cfg!(target_os = "linux") { Ipv4Addr::new(127, 9, 9, 9) } else { Ipv4Addr::LOCALHOST };
        Self::start_on(address.into(), script).await
    }

    /// The same on another of this machine's addresses.
    pub(crate) async fn start_on<F, Fut>(address: IpAddr, script: F) -> Self
    where
        F: Fn(usize, TcpStream) -> Fut + Send + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind((address, 0)).await.expect("bind");
        let addr = listener.local_addr().expect("an address");
        let connections = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&connections);
        let accepting = tokio::spawn(async move {
            let mut running = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                running.spawn(script(count.fetch_add(1, Ordering::SeqCst), stream));
            }
        });
        Self { addr, connections, accepting }
    }

    /// Reads one request head on each connection, answers with these bytes, and closes.
    pub(crate) async fn saying(answer: &'static str) -> Self {
        Self::start(move |_, mut stream| async move {
            read_head(&mut stream).await;
            say(&mut stream, answer).await;
        })
        .await
    }

    /// How many connections were accepted.
    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

impl Drop for Scripted {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// Reads up to and with the empty line after a request's header; what was read when the peer closed before.
pub(crate) async fn read_head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") && matches!(stream.read(&mut byte).await, Ok(1)) {
        head.push(byte[0]);
    }
    String::from_utf8_lossy(&head).into_owned()
}

/// Sends these bytes; a peer that is gone does not mind.
pub(crate) async fn say(stream: &mut TcpStream, bytes: impl AsRef<[u8]>) {
    let _ = stream.write_all(bytes.as_ref()).await;
}

/// How a connection is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum How {
    /// By FIN: what was sent before arrives, and no more comes.
    Close,
    /// By RST.
    Reset,
}

/// Cuts a connection.
pub(crate) async fn cut(mut stream: TcpStream, how: How) {
    match how {
        How::Close => {
            let _ = stream.shutdown().await;
            // Dropped with something unread, it would be reset.
            let _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
        }
        How::Reset => stream.set_zero_linger().expect("a socket"),
    }
}

/// Reads one request with its body; none when the peer was gone before it was whole. Bytes behind it are lost.
pub(crate) async fn read_request(stream: &mut TcpStream) -> Option<Vec<u8>> {
    let mut request = Vec::new();
    while !is_whole(&request) {
        match stream.read_buf(&mut request).await {
            Ok(read) if read > 0 => {}
            _ => return None,
        }
    }
    Some(request)
}

/// Is it a whole request, of the framings that sidekey sends?
pub(crate) fn is_whole(request: &[u8]) -> bool {
    let Some(end) = super::find(request, b"\r\n\r\n") else { return false };
    let (head, body) = request.split_at(end + 4);
    let head = String::from_utf8_lossy(head).to_ascii_lowercase();
    if head.contains("transfer-encoding: chunked") {
        return super::got::dechunk(body).1.is_some();
    }
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
    body.len() >= length.unwrap_or(0)
}
