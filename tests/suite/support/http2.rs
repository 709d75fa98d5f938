//! HTTP/2 in tests: a caller and an upstream that are the h2 crate.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use h2::client::SendRequest;
use h2::server::SendResponse;
use h2::{RecvStream, SendStream};
use http::{HeaderMap, Method, Request, Response};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::Headers;
use super::running::patiently;
use super::tls::{Authority, Identity};

/// A caller's connection; dropped, it closes.
pub(crate) struct Caller {
    pub(crate) sender: SendRequest<Bytes>,
    driving: JoinHandle<Result<(), h2::Error>>,
    scheme: &'static str,
}

/// An answer, with how its body ended.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) head: http::response::Parts,
    pub(crate) body: Vec<u8>,
    pub(crate) trailers: Option<HeaderMap>,
    pub(crate) error: Option<h2::Error>,
}

impl Answer {
    pub(crate) fn status(&self) -> u16 {
        self.head.status.as_u16()
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.headers.get(name).map(|value| value.to_str().expect("visible ASCII"))
    }

    pub(crate) fn text(&self) -> &str {
        assert!(self.error.is_none(), "{self:?}");
        std::str::from_utf8(&self.body).expect("a body of text")
    }
}

impl Caller {
    /// By prior knowledge.
    pub(crate) async fn connect(addr: SocketAddr) -> Self {
        Self::connect_as(addr, &h2::client::Builder::new()).await
    }

    pub(crate) async fn connect_as(addr: SocketAddr, builder: &h2::client::Builder) -> Self {
        let stream = TcpStream::connect(addr).await.expect("connect");
        Self::over(stream, builder, "http").await
    }

    /// By agreement in the TLS handshake.
    pub(crate) async fn connect_tls(
        addr: SocketAddr,
        authority: &Authority,
        identity: Option<&Identity>,
    ) -> Self {
        let mut config = super::callers::caller(authority, identity);
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let stream = TcpStream::connect(addr).await.expect("connect");
        let name = "localhost".try_into().expect("a name");
        let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await.expect("TLS");
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(b"h2".as_slice()));
        Self::over(stream, &h2::client::Builder::new(), "https").await
    }

    async fn over(
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        builder: &h2::client::Builder,
        scheme: &'static str,
    ) -> Self {
        let (sender, connection) = builder.handshake(stream).await.expect("a handshake");
        Self { sender, driving: tokio::spawn(connection), scheme }
    }

    pub(crate) fn request(&self, method: Method, path: &str, headers: Headers<'_>) -> Request<()> {
        let mut request = Request::builder().method(method).uri(format!("{}://localhost{path}", self.scheme));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).expect("a request")
    }

    /// Sends a header, and gives what the rest of the exchange needs.
    pub(crate) async fn begin(
        &mut self,
        method: Method,
        path: &str,
        headers: Headers<'_>,
        ends: bool,
    ) -> (h2::client::ResponseFuture, SendStream<Bytes>) {
        let request = self.request(method, path, headers);
        let mut ready = patiently("room for a stream", self.sender.clone().ready()).await.expect("open");
        ready.send_request(request, ends).expect("a request")
    }

    /// A whole exchange; panics if no answer comes.
    pub(crate) async fn send(
        &mut self,
        method: Method,
        path: &str,
        headers: Headers<'_>,
        body: &[u8],
    ) -> Answer {
        self.try_send(method, path, headers, body).await.expect("an answer")
    }

    pub(crate) async fn try_send(
        &mut self,
        method: Method,
        path: &str,
        headers: Headers<'_>,
        body: &[u8],
    ) -> Result<Answer, h2::Error> {
        let (answer, mut sending) = self.begin(method, path, headers, body.is_empty()).await;
        if !body.is_empty() {
            sending.send_data(Bytes::copy_from_slice(body), true)?;
        }
        patiently("an answer", read(answer)).await
    }

    pub(crate) async fn get(&mut self, path: &str) -> Answer {
        self.send(Method::GET, path, &[], b"").await
    }

    /// Waits until the connection is closed.
    pub(crate) async fn closed(mut self) -> Result<(), h2::Error> {
        patiently("the end of the connection", &mut self.driving).await.expect("no panic")
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.driving.is_finished()
    }
}

impl Drop for Caller {
    fn drop(&mut self) {
        self.driving.abort();
    }
}

/// Reads an answer to its end, good or bad.
pub(crate) async fn read(answer: h2::client::ResponseFuture) -> Result<Answer, h2::Error> {
    let (head, mut coming) = answer.await?.into_parts();
    let mut answer = Answer { head, body: Vec::new(), trailers: None, error: None };
    match read_body(&mut coming).await {
        (body, Ok(trailers)) => (answer.body, answer.trailers) = (body, trailers),
        (body, Err(error)) => (answer.body, answer.error) = (body, Some(error)),
    }
    Ok(answer)
}

/// Reads a body, and gives its trailers or how it broke off. The h2 crate makes no end of a reset.
pub(crate) async fn read_body(coming: &mut RecvStream) -> (Vec<u8>, Result<Option<HeaderMap>, h2::Error>) {
    let mut body = Vec::new();
    while let Some(chunk) = coming.data().await {
        match chunk {
            Ok(chunk) => {
                body.extend_from_slice(&chunk);
                let _ = coming.flow_control().release_capacity(chunk.len());
            }
            Err(error) => return (body, Err(error)),
        }
    }
    let trailers = coming.trailers().await;
    (body, trailers)
}

/// One request as an upstream sees it.
pub(crate) struct Visit {
    /// The connection, from 0.
    pub(crate) connection: usize,
    /// The request on it, from 0.
    pub(crate) number: usize,
    pub(crate) request: Request<RecvStream>,
    pub(crate) answer: SendResponse<Bytes>,
}

impl Visit {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.request.headers().get(name).map(|value| value.to_str().expect("visible ASCII"))
    }

    /// Reads the whole request, which must end well.
    pub(crate) async fn body(&mut self) -> (Vec<u8>, Option<HeaderMap>) {
        let (body, trailers) = read_body(self.request.body_mut()).await;
        (body, trailers.expect("a whole body"))
    }

    /// Answers with a status and a body.
    pub(crate) fn say(mut self, status: u16, body: &str) {
        let head = Response::builder().status(status).body(()).expect("an answer");
        // A caller that is gone does not mind.
        if let Ok(mut sending) = self.answer.send_response(head, body.is_empty())
            && !body.is_empty()
        {
            let _ = sending.send_data(Bytes::copy_from_slice(body.as_bytes()), true);
        }
    }
}

/// An upstream; dropped, it stops.
pub(crate) struct Upstream {
    pub(crate) addr: SocketAddr,
    connections: Arc<AtomicUsize>,
    open: Arc<AtomicUsize>,
    requests: Arc<AtomicUsize>,
    leaving: watch::Sender<bool>,
    accepting: JoinHandle<()>,
}

impl Upstream {
    /// By prior knowledge: does with each request what `script` says.
    pub(crate) async fn start<F, Fut>(script: F) -> Self
    where
        F: Fn(Visit) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        Self::start_as(h2::server::Builder::new(), None, script).await
    }

    /// By agreement in the TLS handshake.
    pub(crate) async fn start_tls<F, Fut>(identity: &Identity, script: F) -> Self
    where
        F: Fn(Visit) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        Self::start_as(h2::server::Builder::new(), Some(identity), script).await
    }

    pub(crate) async fn start_as<F, Fut>(
        builder: h2::server::Builder,
        identity: Option<&Identity>,
        script: F,
    ) -> Self
    where
        F: Fn(Visit) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        let acceptor = identity.map(|identity| {
            let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
            let mut config = rustls::ServerConfig::builder_with_provider(provider)
                .with_safe_default_protocol_versions()
                .expect("versions")
                .with_no_client_auth()
                .with_single_cert(identity.chain(), identity.key())
                .expect("an identity");
            config.alpn_protocols = vec![b"h2".to_vec()];
            TlsAcceptor::from(Arc::new(config))
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let addr = listener.local_addr().expect("an address");
        let [connections, open, requests]: [Arc<AtomicUsize>; 3] = Default::default();
        let (leaving, _) = watch::channel(false);
        let counts = (Arc::clone(&connections), Arc::clone(&open), Arc::clone(&requests));
        let (script, leave) = (Arc::new(script), leaving.subscribe());
        let accepting = tokio::spawn(async move {
            let mut running = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let connection = counts.0.fetch_add(1, Ordering::SeqCst);
                let (builder, script, acceptor) = (builder.clone(), Arc::clone(&script), acceptor.clone());
                let (open, requests, leave) = (Arc::clone(&counts.1), Arc::clone(&counts.2), leave.clone());
                running.spawn(async move {
                    open.fetch_add(1, Ordering::SeqCst);
                    match acceptor {
                        Some(acceptor) => {
                            if let Ok(stream) = acceptor.accept(stream).await {
                                serve(connection, stream, &builder, &*script, &requests, leave).await;
                            }
                        }
                        None => serve(connection, stream, &builder, &*script, &requests, leave).await,
                    }
                    open.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        Self { addr, connections, open, requests, leaving, accepting }
    }

    /// How many connections were accepted.
    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    /// How many of them are open.
    pub(crate) fn open(&self) -> usize {
        self.open.load(Ordering::SeqCst)
    }

    /// How many requests came.
    pub(crate) fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }

    /// Says on every connection that it goes away, and lets what runs finish.
    pub(crate) fn leave(&self) {
        self.leaving.send_replace(true);
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn serve<F, Fut>(
    connection: usize,
    stream: impl AsyncRead + AsyncWrite + Unpin,
    builder: &h2::server::Builder,
    script: &F,
    requests: &AtomicUsize,
    mut leave: watch::Receiver<bool>,
) where
    F: Fn(Visit) -> Fut,
    Fut: Future<Output = ()> + Send + 'static,
{
    let Ok(mut serving) = builder.handshake::<_, Bytes>(stream).await else { return };
    let mut number = 0;
    let mut running = tokio::task::JoinSet::new();
    leave.mark_unchanged();
    loop {
        tokio::select! {
            accepted = serving.accept() => match accepted {
                Some(Ok((request, answer))) => {
                    requests.fetch_add(1, Ordering::SeqCst);
                    running.spawn(script(Visit { connection, number, request, answer }));
                    number += 1;
                }
                Some(Err(_)) | None => break,
            },
            Ok(()) = leave.changed() => serving.graceful_shutdown(),
        }
    }
    // What was accepted is done with.
    while running.join_next().await.is_some() {}
}
