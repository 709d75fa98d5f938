//! Every mix of HTTP/1.1 and HTTP/2 of caller and upstream: the same message arrives.
#![cfg(feature = "demo")]

use std::collections::VecDeque;
use std::convert::Infallible;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use crate::support::http2::{Caller, Upstream};
use crate::support::running::{Running, patiently, sidekey};
use crate::support::{Headers, basic};
use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, Version};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// A body in pieces, perhaps of a length that is told, perhaps with trailers.
#[derive(Default)]
struct Pieces {
    frames: VecDeque<Frame<Bytes>>,
    length: Option<u64>,
}

impl Pieces {
    fn known(text: &str) -> Self {
        Self { length: Some(text.len() as u64), ..Self::unknown(text) }
    }

    fn unknown(text: &str) -> Self {
        let pieces = text.as_bytes().chunks(7).map(|piece| Frame::data(Bytes::copy_from_slice(piece)));
        Self { frames: pieces.collect(), length: None }
    }

    fn trailed(mut self, name: &'static str, value: &'static str) -> Self {
        let trailers =
            HeaderMap::from_iter([(name.parse().expect("it works"), value.parse().expect("it works"))]);
        self.frames.push_back(Frame::trailers(trailers));
        self
    }
}

impl Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.frames.pop_front().map(Ok))
    }

    fn is_end_stream(&self) -> bool {
        self.frames.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        self.length.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

/// An upstream that tells what it got.
struct Echo {
    addr: SocketAddr,
    accepting: JoinHandle<()>,
}

impl Echo {
    async fn start(version: Version) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("it works");
        let addr = listener.local_addr().expect("it works");
        let accepting = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let io = TokioIo::new(stream);
                tokio::spawn(async move {
                    let _ = if version == Version::HTTP_2 {
                        let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                        builder.serve_connection(io, service_fn(echo)).await
                    } else {
                        hyper::server::conn::http1::Builder::new()
                            .serve_connection(io, service_fn(echo))
                            .await
                    };
                });
            }
        });
        Self { addr, accepting }
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn echo(request: Request<Incoming>) -> Result<Response<Pieces>, hyper::Error> {
    let (head, body) = request.into_parts();
    let body = body.collect().await?;
    let mut told =
        format!("{} {} {:?}\n", head.method, head.uri.path_and_query().expect("it works"), head.version);
    if let Some(authority) = head.uri.authority() {
        let _ = writeln!(told, "host: {authority}");
    }
    for (name, value) in &head.headers {
        let _ = writeln!(told, "{name}: {}", value.to_str().expect("it works"));
    }
    for (name, value) in body.trailers().into_iter().flatten() {
        let _ = writeln!(told, "trailer {name}: {}", value.to_str().expect("it works"));
    }
    let _ = writeln!(told, "body {}", String::from_utf8_lossy(&body.to_bytes()));
    let answer =
        Response::builder().header("set-cookie", "a=1").header("set-cookie", "b=2").header("x-b", "1");
    Ok(match head.uri.path() {
        _ if head.method == Method::HEAD => answer.header("content-length", "77").body(Pieces::default()),
        "/204" => answer.status(204).body(Pieces::default()),
        "/304" => {
            answer.status(304).header("content-length", "77").header("etag", "\"e\"").body(Pieces::default())
        }
        "/trailers" => {
            answer.header("trailer", "x-end").body(Pieces::unknown(&told).trailed("x-end", "well"))
        }
        "/unknown" => answer.body(Pieces::unknown(&told)),
        _ => answer.body(Pieces::known(&told)),
    }
    .expect("an answer"))
}

/// A caller's answer.
struct Got {
    head: http::response::Parts,
    text: String,
    trailers: HeaderMap,
}

async fn call(
    version: Version,
    addr: SocketAddr,
    method: Method,
    path: &str,
    headers: Headers<'_>,
    body: Pieces,
) -> Got {
    let io = TokioIo::new(TcpStream::connect(addr).await.expect("it works"));
    let authority = if version == Version::HTTP_2 { "http://localhost" } else { "" };
    let mut request = Request::builder().method(method).uri(format!("{authority}{path}"));
    if version != Version::HTTP_2 {
        request = request.header("host", "localhost");
    }
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(body).expect("it works");
    let answering = async {
        let answer = if version == Version::HTTP_2 {
            let builder = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
            let (mut sender, connection) = builder.handshake(io).await.expect("it works");
            tokio::spawn(connection);
            sender.send_request(request).await
        } else {
            let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.expect("it works");
            tokio::spawn(connection);
            sender.send_request(request).await
        };
        let (head, body) = answer.unwrap_or_else(|error| panic!("{path}: {error:?}")).into_parts();
        let body = body.collect().await.unwrap_or_else(|error| panic!("{path}: {error:?} {head:?}"));
        let trailers = body.trailers().cloned().unwrap_or_default();
        Got { head, text: String::from_utf8(body.to_bytes().to_vec()).expect("it works"), trailers }
    };
    patiently("an answer", answering).await
}

const BOTH: [Version; 2] = [Version::HTTP_11, Version::HTTP_2];

/// A sidekey in front of `upstream`, which it speaks `http` to, with a credential.
fn in_front_of(upstream: SocketAddr, http: &str) -> Running {
    sidekey(&format!(
        "[server]\nlisten = \"127.0.0.1:0\"\n[route.up]\npath = \"/\"\nupstream = \"http://{upstream}\"\n\
         http = \"{http}\"\n[route.up.credential]\ntype = \"basic\"\nusername = \"u\"\n\
         password = {{ value = \"p\" }}\n"
    ))
}

#[tokio::test]
async fn the_same_message_arrives_whatever_the_two_sides_speak() {
    for theirs in BOTH {
        let upstream = Echo::start(theirs).await;
        let running = in_front_of(upstream.addr, if theirs == Version::HTTP_2 { "2" } else { "1.1" });
        for ours in BOTH {
            let mix = format!("{ours:?} to {theirs:?}");
            let call = async |method, path: &'static str, headers: Headers<'_>, body| {
                call(ours, running.addr, method, path, headers, body).await
            };
            let via = if ours == Version::HTTP_2 { "2.0" } else { "1.1" };
            let always = [
                format!("host: {}\n", upstream.addr),
                format!("via: {via} sidekey\n"),
                format!("authorization: {}\n", basic("u", "p")),
            ];
            let assert_always = |got: &Got| {
                for line in &always {
                    assert!(got.text.contains(line), "{mix}: {line} in {}", got.text);
                }
                assert_eq!(got.text.matches("authorization").count(), 1, "{mix}: {}", got.text);
                let cookies: Vec<_> = got.head.headers.get_all("set-cookie").iter().collect();
                assert_eq!(cookies, ["a=1", "b=2"], "{mix}");
                assert!(!got.head.headers.contains_key("connection"), "{mix}");
            };
            let headers = [("x-a", "1"), ("authorization", "Bearer mine"), ("x-a", "2"), ("x-a", "1")];
            let got = call(Method::GET, "/a%3ab?c=[d]&%20", &headers, Pieces::default()).await;
            assert_always(&got);
            assert!(
                got.text.starts_with(&format!("GET /a%3ab?c=[d]&%20 {theirs:?}\n")),
                "{mix}: {}",
                got.text
            );
            assert!(got.text.contains("x-a: 1\nx-a: 2\nx-a: 1\n"), "{mix}: {}", got.text);
            assert!(!got.text.contains("length") && !got.text.contains("encoding"), "{mix}: {}", got.text);

            let got = call(Method::POST, "/", &[], Pieces::known("a body that is known")).await;
            assert_always(&got);
            assert!(got.text.contains("content-length: 20\n"), "{mix}: {}", got.text);
            assert!(got.text.ends_with("body a body that is known\n"), "{mix}: {}", got.text);
            assert_eq!(got.head.headers["content-length"], got.text.len().to_string(), "{mix}");

            let got = call(Method::POST, "/unknown", &[], Pieces::unknown("a body that is not")).await;
            assert_always(&got);
            assert!(!got.text.contains("content-length"), "{mix}: {}", got.text);
            assert!(got.text.ends_with("body a body that is not\n"), "{mix}: {}", got.text);

            let trailed = Pieces::unknown("a body").trailed("x-sum", "1");
            let got =
                call(Method::PUT, "/trailers", &[("te", "trailers"), ("trailer", "x-sum")], trailed).await;
            assert_always(&got);
            assert!(got.text.contains("te: trailers\n"), "{mix}: {}", got.text);
            assert!(got.text.ends_with("trailer x-sum: 1\nbody a body\n"), "{mix}: {}", got.text);
            assert_eq!(
                got.trailers.get("x-end").map(|end| end.as_bytes()),
                Some(b"well".as_slice()),
                "{mix}"
            );

            let got = call(Method::HEAD, "/", &[], Pieces::default()).await;
            assert_eq!((got.head.status.as_u16(), got.text.as_str()), (200, ""), "{mix}");
            assert_eq!(got.head.headers["content-length"], "77", "{mix}");
            for (status, path) in [(204, "/204"), (304, "/304")] {
                let got = call(Method::GET, path, &[], Pieces::default()).await;
                assert_eq!((got.head.status.as_u16(), got.text.as_str()), (status, ""), "{mix}");
            }
            let got =
                call(Method::GET, "/", &[("cookie", "a=1"), ("cookie", "b=2")], Pieces::default()).await;
            assert_always(&got);
            if ours == Version::HTTP_2 {
                assert!(got.text.contains("cookie: a=1; b=2\n"), "{mix}: {}", got.text);
            }
        }
    }
}

#[tokio::test]
async fn messages_go_back_and_forth_before_either_side_ends() {
    let upstream = Upstream::start(|mut visit| async move {
        assert_eq!(visit.header("te"), Some("trailers"));
        assert_eq!(visit.request.uri().path(), "/pkg.Service/Method");
        let head = Response::builder().header("content-type", "application/grpc").body(()).unwrap();
        let mut sending = visit.answer.send_response(head, false).unwrap();
        while let Some(Ok(message)) = visit.request.body_mut().data().await
            && !message.is_empty()
        {
            let _ = visit.request.body_mut().flow_control().release_capacity(message.len());
            sending.send_data(Bytes::from([b"re: ", &*message].concat()), false).unwrap();
        }
        let trailers = HeaderMap::from_iter([("grpc-status".parse().unwrap(), "0".parse().unwrap())]);
        sending.send_trailers(trailers).unwrap();
    })
    .await;
    let running = in_front_of(upstream.addr, "2");
    let mut caller = Caller::connect(running.addr).await;
    let headers = [("te", "trailers"), ("content-type", "application/grpc")];
    let (answer, mut sending) = caller.begin(Method::POST, "/pkg.Service/Method", &headers, false).await;
    let mut coming = patiently("the head", answer).await.unwrap().into_body();
    for number in 0..20 {
        sending.send_data(Bytes::from(format!("message {number}")), false).unwrap();
        let reply = patiently("a reply", coming.data()).await.unwrap().unwrap();
        assert_eq!(reply, format!("re: message {number}"));
        let _ = coming.flow_control().release_capacity(reply.len());
    }
    sending.send_data(Bytes::new(), true).unwrap();
    assert!(patiently("the end", coming.data()).await.is_none());
    let trailers = patiently("the trailers", coming.trailers()).await.unwrap().unwrap();
    assert_eq!(trailers["grpc-status"], "0");
}
