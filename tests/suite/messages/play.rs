//! Plays the messages of a table through a sidekey, all at once, and tells of those that do not do as they say.

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use super::compare::compare;
use super::strict;
use super::table::{Entry, Step, blanked, bytes};
use crate::support::running::sidekey;
use crate::support::scripted::Scripted;

/// How a table is played.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Manner {
    /// What a step may take at most. Nothing waits for it to pass but what has failed already.
    pub(crate) patience: Duration,
    /// Is each byte sent by itself?
    pub(crate) dribbles: bool,
}

/// Longer pieces are sent at once in any case.
const LONG: usize = 4096;

/// A message that did not do as it says.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) name: String,
    pub(crate) why: String,
}

/// The request that shows that a connection is in step.
const NEXT: [&str; 4] = [
    "GET /next HTTP/1.1\\r\\nHost: localhost\\r\\n\\r\\n",
    "GET /next HTTP/1.1\\r\\n\\{own}\\r\\n\\r\\n",
    "HTTP/1.1 200 OK\\r\\nContent-Length: 4\\r\\n\\r\\nnext",
    "HTTP/1.1 200 OK\\r\\ncontent-length: 4\\r\\n\\r\\nnext",
];

/// Plays all entries at once through one sidekey, in which each has a listener and an upstream of its own.
pub(crate) async fn play(entries: &[Entry], manner: Manner) -> Vec<Failure> {
    let address = address();
    let mut text = "[server]\nlisten = \"127.0.0.1:0\"\ndrain_timeout = \"1s\"\n\
                    [credential.s]\ntype = \"bearer\"\ntoken = { value = \"sesame\" }\n"
        .to_owned();
    let mut upstreams = Vec::new();
    for number in 0..entries.len() {
        let (taken, streams) = unbounded_channel();
        let upstream = Scripted::start_on(address, move |_, stream| {
            let taken = taken.clone();
            async move { drop(taken.send(stream)) }
        })
        .await;
        let addr = upstream.addr;
        let _ = write!(
            text,
            "[route.r{number:03}]\nlisten = \"{address}:0\"\nupstream = \"http://{addr}\"\ncredential = \"s\"\n"
        );
        upstreams.push((upstream, streams));
    }
    let running = sidekey(&text);
    let listeners = running.addrs().split_off(1);
    assert_eq!(listeners.len(), entries.len());
    let stages: Vec<_> = entries
        .iter()
        .zip(listeners)
        .zip(upstreams)
        .map(|((entry, sidekey), (upstream, streams))| {
            let mut stage = Stage::new(manner, sidekey, upstream, streams);
            let steps = entry.steps.clone();
            tokio::spawn(async move {
                let played = stage.play(&steps).await;
                stage.caller = None;
                (stage, played)
            })
        })
        .collect();
    let mut played = Vec::new();
    for stage in stages {
        played.push(stage.await.expect("the stage does not panic"));
    }
    // Every upstream connection ends with it: whatever was on its way has come by then.
    running.stop().await;
    let mut failures = Vec::new();
    for (entry, (mut stage, played)) in entries.iter().zip(played) {
        let judged = match played {
            Ok(()) => stage.judge(entry).await,
            Err(why) => Err(why),
        };
        if let Err(why) = judged {
            failures.push(Failure { name: entry.name.clone(), why });
        }
    }
    failures
}

/// An address of this machine that no other process uses: who looks for a server that is gone must not find one of the
/// hundreds of listeners here, which would take it for a request that was smuggled.
fn address() -> IpAddr {
    let [_, high, middle, low] = std::process::id().to_be_bytes();
    let own = IpAddr::from([127, 64 | (high & 0x3f), middle, low]);
    // Not every system has more of them than one.
    if std::net::TcpListener::bind((own, 0)).is_ok() { own } else { IpAddr::from([127, 0, 0, 1]) }
}

/// One entry's caller and upstream.
struct Stage {
    manner: Manner,
    sidekey: SocketAddr,
    upstream: Scripted,
    caller: Option<TcpStream>,
    /// What the caller has read ahead.
    ahead: Vec<u8>,
    /// Connections that were accepted and not yet looked at.
    streams: UnboundedReceiver<TcpStream>,
    /// All that were looked at.
    links: Vec<Link>,
    /// The one in use is the last of them.
    in_use: bool,
    /// How many requests came that only show that a connection is in step.
    nexts: usize,
}

/// One connection of an upstream.
struct Link {
    /// None: the upstream has ended it.
    stream: Option<TcpStream>,
    received: Vec<u8>,
    /// So many of the received bytes were as they should be.
    expected: Vec<u8>,
}

impl Stage {
    fn new(
        manner: Manner,
        sidekey: SocketAddr,
        upstream: Scripted,
        streams: UnboundedReceiver<TcpStream>,
    ) -> Self {
        Self {
            manner,
            sidekey,
            upstream,
            caller: None,
            ahead: Vec::new(),
            streams,
            links: Vec::new(),
            in_use: false,
            nexts: 0,
        }
    }

    async fn play(&mut self, steps: &[Step]) -> Result<(), String> {
        for (number, step) in steps.iter().enumerate() {
            if let Err(why) = self.step(step).await {
                return Err(format!("step {}: {why}{}", number + 1, self.unread()));
            }
        }
        if self.caller.is_some() && !self.ahead.is_empty() {
            return Err(format!("the caller gets more: {}", self.ahead.escape_ascii()));
        }
        if self.caller.is_some() {
            self.next().await.map_err(|why| format!("the connection is out of step: {why}"))?;
        }
        Ok(())
    }

    /// What the caller has got beside, for whoever looks for the fault.
    fn unread(&mut self) -> String {
        if let Some(caller) = &self.caller {
            let _ = caller.try_read_buf(&mut self.ahead);
        }
        if self.ahead.is_empty() {
            String::new()
        } else {
            format!("\n  the caller has got {}", self.ahead.escape_ascii())
        }
    }

    async fn step(&mut self, step: &Step) -> Result<(), String> {
        match step {
            Step::CallerSends(piece) => {
                let bytes = self.bytes(piece);
                if self.caller.is_none() {
                    let stream = TcpStream::connect(self.sidekey).await.map_err(|error| error.to_string())?;
                    stream.set_nodelay(true).map_err(|error| error.to_string())?;
                    self.caller = Some(stream);
                }
                let caller = self.caller.as_mut().expect("just connected");
                // What is malformed may be refused before all is sent.
                let _ = send(caller, &bytes, self.manner.dribbles).await;
            }
            Step::CallerGets(piece) => {
                let want = self.bytes(piece);
                let caller = self.caller.as_mut().ok_or("the caller has no connection")?;
                read_until(caller, &mut self.ahead, want.len(), self.manner.patience).await;
                let rest = self.ahead.split_off(want.len().min(self.ahead.len()));
                let got = std::mem::replace(&mut self.ahead, rest);
                compare("the caller gets", &want, &blanked(&got))?;
            }
            Step::CallerIsClosed { reset } => {
                let mut caller = self.caller.take().ok_or("the caller has no connection")?;
                let ended = read_until(&mut caller, &mut self.ahead, usize::MAX, self.manner.patience).await;
                compare("behind it the caller gets", b"", &std::mem::take(&mut self.ahead))?;
                match ended {
                    None => return Err("the caller's connection stays open".to_owned()),
                    Some(Ended::InOrder) if *reset => {
                        return Err("the caller's connection ends in order".to_owned());
                    }
                    Some(_) => {}
                }
            }
            Step::CallerEnds { reset } => {
                let caller = self.caller.take().ok_or("the caller has no connection")?;
                end(caller, *reset);
            }
            Step::UpstreamGets(piece) => {
                let (want, patience) = (self.bytes(piece), self.manner.patience);
                let link = self.link().await?;
                link.expect(&want, patience).await?;
            }
            Step::UpstreamSends(piece) => {
                let (bytes, dribbles) = (self.bytes(piece), self.manner.dribbles);
                let link = self.link().await?;
                let stream = link.stream.as_mut().ok_or("the upstream has ended the connection")?;
                // What is malformed may be refused before all is sent.
                let _ = send(stream, &bytes, dribbles).await;
            }
            Step::UpstreamEnds { reset } => {
                let link = self.link().await?;
                end(link.stream.take().ok_or("the upstream has ended the connection")?, *reset);
                self.in_use = false;
            }
            Step::UpstreamIsClosed => {
                let patience = self.manner.patience;
                let link = self.link().await?;
                let stream = link.stream.as_mut().ok_or("the upstream has ended the connection")?;
                if read_until(stream, &mut link.received, usize::MAX, patience).await.is_none() {
                    return Err("the upstream's connection stays open".to_owned());
                }
                compare("behind it the upstream gets", b"", &link.received[link.expected.len()..])?;
                self.in_use = false;
            }
            Step::Reconnects => self.in_use = false,
        }
        Ok(())
    }

    /// One more request on the caller's connection, which may come on any connection of the upstream.
    async fn next(&mut self) -> Result<(), String> {
        self.step(&Step::CallerSends(NEXT[0].to_owned())).await?;
        let (want, patience) = (self.bytes(NEXT[1]), self.manner.patience);
        if let Some(Link { stream: Some(stream), .. }) = self.links.last()
            && self.in_use
        {
            let comes = async {
                tokio::select! {
                    accepted = self.streams.recv() => (accepted, true),
                    more = is_more(stream) => (None, more),
                }
            };
            let came = tokio::time::timeout(self.manner.patience, comes).await;
            let (accepted, in_use) = came.map_err(|_| "the next request does not come")?;
            self.links.extend(accepted.map(Link::new));
            // Else it has ended, and another will come.
            self.in_use = in_use;
        }
        self.link().await?.expect(&want, patience).await?;
        self.nexts += 1;
        self.step(&Step::UpstreamSends(NEXT[2].to_owned())).await?;
        self.step(&Step::CallerGets(NEXT[3].to_owned())).await
    }

    /// The upstream's connection in use; else the next that comes.
    async fn link(&mut self) -> Result<&mut Link, String> {
        if !self.in_use {
            let accepted = tokio::time::timeout(self.manner.patience, self.streams.recv()).await;
            let stream = accepted.ok().flatten().ok_or("the upstream gets no connection")?;
            self.links.push(Link::new(stream));
            self.in_use = true;
        }
        self.links.last_mut().ok_or_else(|| "the upstream gets no connection".to_owned())
    }

    /// When all is over: did the upstream receive exactly what it should, as exactly so many requests?
    async fn judge(&mut self, entry: &Entry) -> Result<(), String> {
        // Connections are accepted in order: all others come before one that is made now.
        let last = TcpStream::connect(self.upstream.addr).await.map_err(|error| error.to_string())?;
        let last = last.local_addr().ok();
        while let Some(stream) = self.streams.recv().await
            && stream.peer_addr().ok() != last
        {
            self.links.push(Link::new(stream));
        }
        let (mut requests, mut wanted, patience) = (0, 0, self.manner.patience);
        for link in &mut self.links {
            if let Some(stream) = &mut link.stream {
                read_until(stream, &mut link.received, usize::MAX, patience).await;
                compare("behind all the upstream gets", b"", &link.received[link.expected.len()..])?;
            }
            let read = strict::requests(&link.received);
            requests += read.map_err(|why| format!("a strict reader sees: {why}"))?.0;
            wanted += strict::requests(&link.expected)?.0;
        }
        if requests != wanted {
            return Err(format!("the upstream reads {requests} requests instead of {wanted}"));
        }
        match entry.requests {
            None if requests > self.nexts + 1 => Err(format!("one message was forwarded as {requests}")),
            Some(count) if requests != count + self.nexts => {
                Err(format!("{requests} requests instead of {}", count + self.nexts))
            }
            _ => Ok(()),
        }
    }

    fn bytes(&self, piece: &str) -> Vec<u8> {
        bytes(piece, &self.upstream.addr.to_string(), &self.sidekey.to_string())
    }
}

impl Link {
    fn new(stream: TcpStream) -> Self {
        let _ = stream.set_nodelay(true);
        Self { stream: Some(stream), received: Vec::new(), expected: Vec::new() }
    }

    /// Exactly this comes next.
    async fn expect(&mut self, want: &[u8], patience: Duration) -> Result<(), String> {
        let from = self.expected.len();
        let stream = self.stream.as_mut().ok_or("the upstream has ended the connection")?;
        read_until(stream, &mut self.received, from + want.len(), patience).await;
        let got = &self.received[from..self.received.len().min(from + want.len())];
        compare("the upstream gets", want, got)?;
        self.expected.extend_from_slice(got);
        Ok(())
    }
}

/// Does more come, rather than the end?
async fn is_more(stream: &TcpStream) -> bool {
    let mut byte = [0];
    stream.peek(&mut byte).await.is_ok_and(|read| read > 0)
}

fn end(stream: TcpStream, reset: bool) {
    if reset {
        let _ = stream.set_zero_linger();
    }
    drop(stream);
}

/// How a peer ended its connection.
#[derive(Debug, Clone, Copy)]
enum Ended {
    InOrder,
    ByReset,
}

/// Reads until there are `length` bytes or the peer ends; says whether it has ended.
async fn read_until(
    stream: &mut TcpStream,
    bytes: &mut Vec<u8>,
    length: usize,
    patience: Duration,
) -> Option<Ended> {
    let reading = async {
        while bytes.len() < length {
            match stream.read_buf(bytes).await {
                Ok(0) => return Some(Ended::InOrder),
                Ok(_) => {}
                Err(_) => return Some(Ended::ByReset),
            }
        }
        None
    };
    tokio::time::timeout(patience, reading).await.ok().flatten()
}

async fn send(stream: &mut TcpStream, bytes: &[u8], dribbles: bool) -> std::io::Result<()> {
    if !dribbles || bytes.len() > LONG {
        return stream.write_all(bytes).await;
    }
    for byte in bytes {
        stream.write_all(&[*byte]).await?;
        tokio::task::yield_now().await;
    }
    Ok(())
}
