//! Runs many cases, each against an upstream of its own, and compares what came of them with what was to come.

use std::collections::BTreeMap;
use std::fmt::{Debug, Write as _};
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::exchanges::{Sent, Speaks, call, mark};
use super::oracle::{Want, compare};
use crate::support::running::{patiently, sidekey};
use crate::support::scripted::Scripted;

/// Cases that share a sidekey: each has a route and an upstream of its own.
const TOGETHER: usize = 96;
/// Of which so many run at once.
const AT_ONCE: usize = 8;

/// A case of a sweep.
pub(crate) trait Sweepable: Debug + Copy + Send + Sync + 'static {
    /// What the upstream speaks.
    const HTTP: &'static str;

    fn sent(&self) -> Sent;

    fn speaks(&self) -> Speaks;

    /// What the body of the whole answer holds.
    fn content(&self, mark: &str) -> String;

    /// Is there a good exchange before?
    fn is_warm(&self) -> bool;

    /// Is the connection cut after that one, before the request is sent?
    fn is_cut_before(&self) -> bool {
        false
    }

    /// What may come of it, and with how many connections.
    fn wants(&self) -> Vec<(Want, usize)>;

    /// The upstream's part; `number` counts its connections, from 0. A permit for `is_cut` says that it has cut.
    fn serve(
        self,
        mark: String,
        number: usize,
        stream: TcpStream,
        is_cut: Arc<Semaphore>,
    ) -> impl Future<Output = ()> + Send;
}

/// A route for each upstream.
pub(crate) fn configuration(http: &str, routes: &[(Sent, SocketAddr)]) -> String {
    let mut text = "[server]\nlisten = \"127.0.0.1:0\"\n".to_owned();
    if routes.iter().any(|(sent, _)| sent.credential() != "false") {
        text += "[credential.key]\ntype = \"bearer\"\ntoken = { value = \"t0ken\" }\n";
    }
    for (number, (sent, addr)) in routes.iter().enumerate() {
        let credential = sent.credential();
        let _ = write!(
            text,
            "[route.c{number}]\npath = \"/c{number}\"\nupstream = \"http://{addr}\"\nhttp = \"{http}\"\n\
             credential = {credential}\n"
        );
    }
    text
}

/// Runs all cases; says what came of them, or which went wrong.
pub(crate) async fn run(name: &str, cases: Vec<impl Sweepable>) {
    let (mut outcomes, mut wrong, count) = (BTreeMap::<&str, usize>::new(), Vec::new(), cases.len());
    for together in cases.chunks(TOGETHER) {
        for (case, outcome) in run_together(together).await {
            match outcome {
                Ok(outcome) => *outcomes.entry(outcome).or_default() += 1,
                Err(error) => wrong.push(format!("{case:?}: {error}")),
            }
        }
    }
    println!("{name}: {count} cases, {outcomes:?}");
    wrong.truncate(40);
    assert!(wrong.is_empty(), "went wrong, the first of them:\n{}", wrong.join("\n"));
}

async fn run_together<C: Sweepable>(cases: &[C]) -> Vec<(C, Result<&'static str, String>)> {
    let mut upstreams = Vec::new();
    for (number, case) in cases.iter().copied().enumerate() {
        let is_cut = Arc::new(Semaphore::new(0));
        let cuts = Arc::clone(&is_cut);
        let serve = move |connection, stream| case.serve(mark(number), connection, stream, Arc::clone(&cuts));
        upstreams.push((Scripted::start_apart(serve).await, is_cut));
    }
    let routes: Vec<_> =
        cases.iter().zip(&upstreams).map(|(case, (upstream, _))| (case.sent(), upstream.addr)).collect();
    let running = sidekey(&configuration(C::HTTP, &routes));
    running.settled().await;
    let (addr, places) = (running.addr, Arc::new(Semaphore::new(AT_ONCE)));
    let mut tasks = JoinSet::new();
    for (number, (case, (upstream, is_cut))) in cases.iter().copied().zip(upstreams).enumerate() {
        let places = Arc::clone(&places);
        tasks.spawn(async move {
            let _place = places.acquire().await;
            let outcome = outcome(case, number, addr, &upstream, &is_cut);
            (case, patiently(&format!("{case:?}"), outcome).await)
        });
    }
    let outcomes = tasks.join_all().await;
    running.stop().await;
    outcomes
}

async fn outcome(
    case: impl Sweepable,
    number: usize,
    addr: SocketAddr,
    upstream: &Scripted,
    is_cut: &Semaphore,
) -> Result<&'static str, String> {
    let mark = mark(number);
    if case.is_warm() {
        call(addr, Speaks::Http11, Sent::Get, &format!("/c{number}/warm")).await;
    }
    if case.is_cut_before() {
        let _ = is_cut.acquire().await;
    }
    let got = call(addr, case.speaks(), case.sent(), &format!("/c{number}/{mark}")).await;
    let wants = case.wants();
    let connections = upstream.connections();
    let is_met = |(want, wanted): &&(Want, usize)| {
        *wanted == connections && compare(&got, *want, &case.content(&mark), &mark)
    };
    match wants.iter().find(is_met) {
        None => Err(format!("wanted one of {wants:?}, got {got:?} with {connections} connections")),
        Some((Want::Whole(_), 1)) => Ok("whole"),
        Some((Want::Whole(_), _)) => Ok("answered by a second connection"),
        Some((Want::Aborted, _)) => Ok("aborted"),
        Some((Want::BadGateway, _)) => Ok("502"),
    }
}
