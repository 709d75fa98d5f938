//! An HTTP/1.1 upstream cuts the connection at every byte of the request and of its answer.

use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, oneshot};

use super::exchanges::{Kind, Sent, Speaks, call, mark};
use super::oracle::{self, Place, Want};
use super::sweep::{Sweepable, configuration, run};
use crate::support::got::Got;
use crate::support::running::{patiently, sidekey};
use crate::support::scripted::{How, Scripted, cut, read_request, say};

#[derive(Debug, Clone, Copy)]
struct Case {
    speaks: Speaks,
    sent: Sent,
    kind: Kind,
    /// After one good exchange on the same connection?
    reused: bool,
    place: Place,
    how: How,
    /// Is the answer sent byte by byte?
    torn: bool,
}

impl Case {
    fn new(speaks: Speaks, sent: Sent, kind: Kind, reused: bool, place: Place, how: How) -> Self {
        Self { speaks, sent, kind, reused, place, how, torn: false }
    }
}

const HOWS: [How; 2] = [How::Close, How::Reset];

#[tokio::test]
async fn a_connection_that_is_cut_while_the_request_is_read_gives_a_safe_retry_or_a_502() {
    use Sent::{Delete, Get, Post, PostChunked, Put, PutOpen};
    let mut cases = Vec::new();
    for sent in [Get, Delete, Put, PutOpen, Post, PostChunked] {
        let length = request_length(sent).await;
        for (how, reused) in each_way() {
            let places = (0..=length).map(Place::Request);
            cases.extend(places.map(|p| Case::new(Speaks::Http11, sent, Kind::Length, reused, p, how)));
        }
    }
    run("request cut upstream, HTTP/1.1", cases).await;
}

#[tokio::test]
async fn an_idle_connection_that_is_cut_costs_no_request_anything() {
    use Sent::{Delete, Get, Head, Post, PostChunked, Put, PutOpen};
    let mut cases = Vec::new();
    for sent in [Get, Head, Delete, Put, PutOpen, Post, PostChunked] {
        for how in HOWS {
            let kind = if sent == Head { Kind::Head } else { Kind::Length };
            for speaks in [Speaks::Http11, Speaks::Http2] {
                cases.push(Case::new(speaks, sent, kind, true, Place::Idle, how));
            }
        }
    }
    run("idle connection cut upstream, HTTP/1.1", cases).await;
}

#[tokio::test]
async fn an_answer_that_is_cut_is_whole_retried_a_502_or_aborted_towards_callers_of_http_1_1() {
    let mut cases = Vec::new();
    for (how, reused) in each_way() {
        for kind in Kind::TO_GET {
            cases.extend(answers(Speaks::Http11, Sent::Get, kind, reused, how));
        }
        cases.extend(answers(Speaks::Http11, Sent::Head, Kind::Head, reused, how));
        for sent in [Sent::Post, Sent::PostChunked] {
            for kind in [Kind::Length, Kind::Chunked] {
                cases.extend(answers(Speaks::Http11, sent, kind, reused, how));
            }
        }
    }
    run("answer cut upstream, HTTP/1.1 → HTTP/1.1", cases).await;
}

#[tokio::test]
async fn an_answer_that_is_cut_never_seems_whole_to_a_caller_of_http_1_0() {
    let mut cases = Vec::new();
    for how in HOWS {
        for kind in Kind::TO_GET {
            cases.extend(answers(Speaks::Http10, Sent::Get, kind, false, how));
        }
    }
    run("answer cut upstream, HTTP/1.1 → HTTP/1.0", cases).await;
}

#[tokio::test]
async fn an_answer_that_is_cut_never_seems_whole_to_a_caller_of_http_2() {
    let mut cases = Vec::new();
    for how in HOWS {
        for kind in Kind::TO_GET {
            cases.extend(answers(Speaks::Http2, Sent::Get, kind, false, how));
        }
        cases.extend(answers(Speaks::Http2, Sent::Head, Kind::Head, true, how));
        cases.extend(answers(Speaks::Http2, Sent::Post, Kind::Chunked, true, how));
    }
    run("answer cut upstream, HTTP/1.1 → HTTP/2", cases).await;
}

#[tokio::test]
async fn what_comes_behind_an_answer_is_not_the_answer_to_the_next_request() {
    const STRAY: &str = "HTTP/1.1 200 OK\r\nMark: stray\r\nContent-Length: 5\r\n\r\nstray";
    for (at_once, sent) in
        [true, false].into_iter().flat_map(|at_once| [(at_once, Sent::Get), (at_once, Sent::Post)])
    {
        let said = Arc::new(Semaphore::new(0));
        let says = Arc::clone(&said);
        let upstream = Scripted::start_apart(move |number, mut stream| {
            let says = Arc::clone(&says);
            async move {
                let is_answered = async |stream: &mut TcpStream, more: &str| {
                    let is_there = read_request(stream).await.is_some();
                    say(stream, Kind::Length.bytes(&mark(number)).0 + more).await;
                    is_there
                };
                is_answered(&mut stream, if number == 0 && at_once { STRAY } else { "" }).await;
                if number == 0 && !at_once {
                    let _ = says.acquire().await;
                    say(&mut stream, STRAY).await;
                }
                says.add_permits(2);
                while is_answered(&mut stream, "").await {}
            }
        })
        .await;
        let running = sidekey(&configuration("1.1", &[(Sent::PutOpen, upstream.addr)]));
        for number in 0..2 {
            let got = call(running.addr, Speaks::Http11, sent, "/c0/next").await;
            let is_its_own =
                matches!(&got, Got::Whole(answer) if answer.header("mark") == Some(&*mark(number)));
            assert!(is_its_own, "{at_once} {sent:?}: {got:?}");
            // It is said, before the next request is sent.
            said.add_permits(1);
            let _ = patiently("the upstream", said.acquire_many(2))
                .await
                .map(tokio::sync::SemaphorePermit::forget);
        }
        assert_eq!(upstream.connections(), 2);
    }
}

fn each_way() -> impl Iterator<Item = (How, bool)> {
    HOWS.into_iter().flat_map(|how| [(how, false), (how, true)])
}

/// A cut at every byte of an answer, in one piece, or byte by byte.
fn answers(speaks: Speaks, sent: Sent, kind: Kind, reused: bool, how: How) -> impl Iterator<Item = Case> {
    (0..=kind.bytes(&mark(0)).0.len()).map(move |seen| {
        // Reset, what is still to leave would be lost.
        let torn = seen % 3 == 0 && how == How::Close;
        Case { torn, ..Case::new(speaks, sent, kind, reused, Place::Answer(seen), how) }
    })
}

/// The length of a request as an upstream receives it.
async fn request_length(sent: Sent) -> usize {
    let (tell, told) = oneshot::channel();
    let tell = Arc::new(Mutex::new(Some(tell)));
    let upstream = Scripted::start_apart(move |_, mut stream| {
        let tell = Arc::clone(&tell);
        async move {
            let request = read_request(&mut stream).await.expect("a request");
            say(&mut stream, Kind::Length.bytes(&mark(0)).0).await;
            tell.lock().expect("no panic").take().expect("one request").send(request.len()).expect("heard");
        }
    })
    .await;
    let running = sidekey(&configuration("1.1", &[(sent, upstream.addr)]));
    running.settled().await;
    call(running.addr, Speaks::Http11, sent, &format!("/c0/{}", mark(0))).await;
    told.await.expect("a length")
}

impl Sweepable for Case {
    const HTTP: &'static str = "1.1";

    fn sent(&self) -> Sent {
        self.sent
    }

    fn speaks(&self) -> Speaks {
        self.speaks
    }

    fn content(&self, mark: &str) -> String {
        self.kind.content(mark)
    }

    fn is_warm(&self) -> bool {
        self.reused
    }

    fn is_cut_before(&self) -> bool {
        self.place == Place::Idle
    }

    fn wants(&self) -> Vec<(Want, usize)> {
        vec![oracle::of(self.sent, self.kind, self.reused, self.place, self.how)]
    }

    async fn serve(self, mark: String, number: usize, stream: TcpStream, is_cut: Arc<Semaphore>) {
        if number > 0 {
            answering(self, &mark, stream).await;
        } else {
            cutting(self, &mark, stream, &is_cut).await;
        }
    }
}

async fn cutting(case: Case, mark: &str, mut stream: TcpStream, cuts: &Semaphore) {
    stream.set_nodelay(true).expect("a socket");
    if case.reused && read_request(&mut stream).await.is_some() {
        say(&mut stream, Kind::Length.bytes(mark).0).await;
    }
    match case.place {
        Place::Idle => {}
        Place::Request(seen) => {
            // With nothing of it there, the connection would be idle.
            let _ = stream.peek(&mut [0]).await;
            let mut request = vec![0; seen];
            let _ = stream.read_exact(&mut request).await;
        }
        Place::Answer(seen) => {
            read_request(&mut stream).await;
            let answer = case.kind.bytes(mark).0;
            if case.torn {
                for byte in &answer.as_bytes()[..seen] {
                    say(&mut stream, [*byte]).await;
                    tokio::task::yield_now().await;
                }
            } else {
                say(&mut stream, &answer[..seen]).await;
            }
        }
    }
    if case.place == Place::Idle && case.how == How::Close {
        stream.shutdown().await.expect("an open connection");
        cuts.add_permits(1);
    }
    cut(stream, case.how).await;
    cuts.add_permits(1);
}

async fn answering(case: Case, mark: &str, mut stream: TcpStream) {
    while read_request(&mut stream).await.is_some() {
        say(&mut stream, case.kind.bytes(mark).0).await;
        if case.kind == Kind::UntilClose {
            return cut(stream, How::Close).await;
        }
    }
}
