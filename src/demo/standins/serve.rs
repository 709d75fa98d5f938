//! What all stand-ins share: the accept loop, the record around each exchange, and answers in JSON.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use bytes::Bytes;
use http::header::{self, HeaderMap};
use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

use super::body::{self, Body};
use super::record::Record;

/// An answer of a stand-in.
pub(super) type Answer = Response<Body>;

/// What a stand-in answers. An error closes the connection without an answer.
pub(super) trait Site: Send + Sync + 'static {
    fn is_token_request(&self, request: &Request<Incoming>) -> bool;

    fn answer(
        &self,
        request: Request<Incoming>,
        exchange: &Exchange,
    ) -> impl Future<Output = io::Result<Answer>> + Send;
}

/// One exchange in the record.
pub(super) struct Exchange {
    /// Where the stand-in listens.
    pub(super) addr: SocketAddr,
    record: Arc<Record>,
    number: Option<u64>,
}

impl Exchange {
    /// Adds the body to the record.
    pub(super) fn keep_body(&self, body: &Bytes) {
        self.record.body(self.number, body);
    }
}

/// A stand-in that runs until this is dropped, its connections with it.
#[derive(Debug)]
pub(super) struct Served {
    pub(super) addr: SocketAddr,
    pub(super) record: Arc<Record>,
    accepting: JoinHandle<()>,
}

impl Served {
    /// Listens on a free loopback port.
    pub(super) async fn start<S: Site>(site: Arc<S>) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let addr = listener.local_addr()?;
        let record = Arc::new(Record::new());
        let accepting = tokio::spawn(accept(listener, site, Arc::clone(&record)));
        Ok(Self { addr, record, accepting })
    }

    pub(super) fn url(&self) -> String {
        format!("http://{}", self.addr)
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept<S: Site>(listener: TcpListener, site: Arc<S>, record: Arc<Record>) {
    // Dropping the set aborts its tasks, so aborting this one ends every connection.
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    record.connected();
                    connections.spawn(serve(stream, Arc::clone(&site), Arc::clone(&record)));
                }
                // Out of file descriptors, most likely: some will come back.
                Err(_) => tokio::time::sleep(std::time::Duration::from_millis(20)).await,
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn serve<S: Site>(stream: TcpStream, site: Arc<S>, record: Arc<Record>) {
    let _ = stream.set_nodelay(true);
    let Ok(addr) = stream.local_addr() else { return };
    let service = service_fn(|request: Request<Incoming>| {
        let (site, record) = (Arc::clone(&site), Arc::clone(&record));
        async move {
            let token_request = site.is_token_request(&request);
            let number = record.arrived(&request, token_request);
            let exchange = Exchange { addr, record, number };
            let answer = site.answer(request, &exchange).await?;
            exchange.record.answered(number, token_request, answer.status());
            Ok::<_, io::Error>(answer)
        }
    });
    // The client broke off, or the stand-in was told to: there is nobody to tell.
    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

/// An answer with a body.
pub(super) fn answer(status: StatusCode, media_type: &'static str, body: Body) -> Answer {
    let mut answer = Response::new(body);
    *answer.status_mut() = status;
    answer.headers_mut().insert(header::CONTENT_TYPE, http::HeaderValue::from_static(media_type));
    answer
}

/// An answer in JSON.
pub(super) fn json(status: StatusCode, value: &Value) -> Answer {
    answer(status, "application/json", body::full(value.to_string()))
}

/// The parts of a path between its slashes.
pub(super) fn segments(path: &str) -> Vec<&str> {
    path.split('/').filter(|segment| !segment.is_empty()).collect()
}

/// The token of `Authorization: Bearer`, the scheme in any case.
pub(super) fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(token.trim())
}
