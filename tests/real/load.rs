//! A small load generator, for `tests/real/run`: keeps connections busy, and tells what they were answered.
//!
//! Arguments: `--connections N (--requests N | --seconds N | --until FILE) [--balance] URL…`; the connections take the URLs in turn.
//! Every request is a GET on a connection that is kept alive; one that breaks counts, and is opened again. With
//! `--balance`, a connection that was closed in order goes to the next URL, and a URL at which nobody listens is passed
//! over, as a balancer would. At the end it waits for the answers that are on their way, and prints one line of JSON.
#![allow(clippy::print_stdout, reason = "its answer is what it is for")]

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::error::Error;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt as _, Empty};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::task::LocalSet;

/// Nothing that is asked for here takes so long.
const PATIENCE: Duration = Duration::from_secs(30);
/// So many different bodies of failures are shown.
const BODIES: usize = 20;

struct Plan {
    connections: usize,
    /// Requests to send in all.
    requests: u64,
    until: Option<Duration>,
    /// It goes on until this file is there.
    file: Option<PathBuf>,
    balances: bool,
    targets: Vec<Target>,
}

struct Target {
    authority: String,
    path: String,
}

#[derive(Default)]
struct Tally {
    begun: Cell<u64>,
    is_over: Cell<bool>,
    statuses: RefCell<BTreeMap<u16, u64>>,
    /// What was answered with other statuses than 200.
    bodies: RefCell<BTreeMap<String, u64>>,
    /// Requests without a whole answer, by reason.
    broken: RefCell<BTreeMap<String, u64>>,
    micros: RefCell<Vec<u32>>,
}

fn main() -> Result<(), Box<dyn Error>> {
    let plan = Rc::new(Plan::of_arguments()?);
    let tally = Rc::new(Tally::default());
    let began = Instant::now();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, async {
        let busy =
            |number| tokio::task::spawn_local(keep_busy(Rc::clone(&plan), Rc::clone(&tally), number, began));
        let all: Vec<_> = (0..plan.connections).map(busy).collect();
        if let Some(file) = &plan.file {
            while !file.exists() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            tally.is_over.set(true);
        }
        for one in all {
            one.await?;
        }
        Ok::<_, tokio::task::JoinError>(())
    })?;
    println!("{}", tally.report(began.elapsed()));
    Ok(())
}

impl Plan {
    fn of_arguments() -> Result<Self, Box<dyn Error>> {
        let mut plan = Self {
            connections: 1,
            requests: u64::MAX,
            until: None,
            file: None,
            balances: false,
            targets: Vec::new(),
        };
        let mut arguments = std::env::args().skip(1);
        while let Some(argument) = arguments.next() {
            let mut number = || {
                arguments.next().ok_or("a number is missing")?.parse::<u32>().map_err(Box::<dyn Error>::from)
            };
            match argument.as_str() {
                "--connections" => plan.connections = number()? as usize,
                "--until" => plan.file = Some(arguments.next().ok_or("a file is missing")?.into()),
                "--balance" => plan.balances = true,
                "--requests" => plan.requests = number()?.into(),
                "--seconds" => plan.until = Some(Duration::from_secs(number()?.into())),
                url => {
                    let rest = url.strip_prefix("http://").ok_or("a URL begins with http://")?;
                    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
                    let path = if path.is_empty() { "/" } else { path };
                    plan.targets.push(Target { authority: authority.to_owned(), path: path.to_owned() });
                }
            }
        }
        if plan.targets.is_empty()
            || (plan.requests == u64::MAX && plan.until.is_none() && plan.file.is_none())
        {
            return Err(
                "load --connections N (--requests N | --seconds N | --until FILE) [--balance] URL…".into()
            );
        }
        Ok(plan)
    }

    /// May another request begin?
    fn goes_on(&self, tally: &Tally, began: Instant) -> bool {
        let begun = tally.begun.get();
        let is_over = || self.until.is_some_and(|until| began.elapsed() >= until);
        if begun >= self.requests || is_over() || tally.is_over.get() {
            return false;
        }
        tally.begun.set(begun + 1);
        true
    }
}

async fn keep_busy(plan: Rc<Plan>, tally: Rc<Tally>, number: usize, began: Instant) {
    let (mut turn, mut connection) = (number, None);
    while plan.goes_on(&tally, began) {
        let sent = Instant::now();
        match tokio::time::timeout(PATIENCE, ask(&mut connection, &plan, &mut turn)).await {
            Ok(Ok((status, body))) => {
                tally.answered(status, &body);
                tally.micros.borrow_mut().push(u32::try_from(sent.elapsed().as_micros()).unwrap_or(u32::MAX));
            }
            Ok(Err(error)) => {
                tally.broke(&*error);
                connection = None;
                // Nobody listens, perhaps: not at once again.
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            Err(late) => {
                tally.broke(&late);
                connection = None;
            }
        }
    }
}

/// One request on the connection, or on a new one; a connection that is to be closed is gone afterwards.
async fn ask(
    connection: &mut Option<SendRequest<Empty<Bytes>>>,
    plan: &Plan,
    turn: &mut usize,
) -> Result<(u16, Bytes), Box<dyn Error>> {
    let mut sender = match connection.take().filter(|sender| !(plan.balances && sender.is_closed())) {
        Some(sender) => sender,
        None => {
            let stream = connected(plan, turn).await?;
            stream.set_nodelay(true)?;
            let (sender, driver) = handshake(TokioIo::new(stream)).await?;
            tokio::task::spawn_local(driver);
            sender
        }
    };
    let target = &plan.targets[*turn % plan.targets.len()];
    let request = Request::get(&target.path).header("host", &target.authority).body(Empty::new())?;
    let (head, body) = sender.send_request(request).await?.into_parts();
    let body = body.collect().await?.to_bytes();
    if sender.ready().await.is_ok() {
        *connection = Some(sender);
    }
    Ok((head.status.as_u16(), body))
}

/// A connection to the target whose turn it is, or to the next at which somebody listens.
async fn connected(plan: &Plan, turn: &mut usize) -> std::io::Result<TcpStream> {
    if plan.balances {
        for _ in 1..plan.targets.len() {
            *turn += 1;
            let there = TcpStream::connect(&plan.targets[*turn % plan.targets.len()].authority).await;
            if !matches!(&there, Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused) {
                return there;
            }
        }
        *turn += 1;
    }
    TcpStream::connect(&plan.targets[*turn % plan.targets.len()].authority).await
}

impl Tally {
    fn answered(&self, status: u16, body: &Bytes) {
        *self.statuses.borrow_mut().entry(status).or_default() += 1;
        if status != 200 {
            let mut bodies = self.bodies.borrow_mut();
            let text = format!("{status} {}", String::from_utf8_lossy(body));
            if bodies.len() < BODIES || bodies.contains_key(&text) {
                *bodies.entry(text).or_default() += 1;
            }
        }
    }

    fn broke(&self, error: &dyn Error) {
        let mut text = error.to_string();
        let mut source = error.source();
        while let Some(error) = source {
            text = format!("{text}: {error}");
            source = error.source();
        }
        *self.broken.borrow_mut().entry(text).or_default() += 1;
    }

    fn report(&self, elapsed: Duration) -> Value {
        let mut micros = self.micros.take();
        micros.sort_unstable();
        let at = |percent: usize| match micros.len() {
            0 => 0.0,
            length => f64::from(micros[(length * percent / 100).min(length - 1)]) / 1000.0,
        };
        json!({
            "requests": self.begun.get(),
            "seconds": elapsed.as_secs_f64(),
            "statuses": self.statuses.take(),
            "bodies": self.bodies.take(),
            "broken": self.broken.take(),
            "milliseconds": { "p50": at(50), "p99": at(99), "max": at(100) },
        })
    }
}
