//! The data plane's shell: listeners, one acceptor, and N workers that each serve their own connections.

mod connection;
mod files;
pub mod handed;
mod http2;
mod lingering;
mod listen;
mod opening;
mod service;
mod shed;
mod stream;
mod worker;

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use tokio::sync::{mpsc, oneshot};
use tracing::warn;

use self::listen::Accepted;
use self::worker::Worker;
use crate::config::Limits;
use crate::proxy::exchange::CallerLimits;
use crate::proxy::{Share, Shared};

pub use self::listen::{BindError, Bound, Open, bind};

/// How long to wait after a failed accept: out of file descriptors, most often, so that at once would be in vain.
const ACCEPT_PAUSE: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };

/// How a server is run.
#[derive(Debug, Clone, Copy)]
pub struct ServerSettings {
    /// Threads of the data plane.
    pub workers: usize,
    /// Time limits for callers.
    pub times: CallerLimits,
    /// How much callers may take at once.
    pub limits: Limits,
    /// How long running exchanges may take to finish once the server stops.
    pub drain_timeout: Duration,
}

/// A running data plane. Dropped without [`Server::stop`], it stops as well, but nobody waits for it.
#[derive(Debug)]
pub struct Server {
    /// The ways to the workers, which close with the acceptor.
    gates: Vec<mpsc::WeakUnboundedSender<Order>>,
    /// What is to be accepted from, from here on.
    open: std::sync::mpsc::Sender<(Vec<Open>, usize)>,
    /// A byte on it tells the acceptor to look at `open`; closed, it tells it to stop.
    bell: UnixStream,
    threads: Vec<JoinHandle<()>>,
    finished: Vec<oneshot::Receiver<()>>,
    /// Has any of the threads ended, in whatever way?
    ended: Arc<AtomicBool>,
}

impl Server {
    /// Serves on bound listeners, on threads of its own.
    ///
    /// # Errors
    /// When the system gives no threads or event queues.
    pub fn start(open: Vec<Open>, shared: &Arc<Shared>, settings: ServerSettings) -> std::io::Result<Self> {
        let (bell, rung) = UnixStream::pair()?;
        rung.set_nonblocking(true)?;
        let (news, opened) = std::sync::mpsc::channel();
        let (threads, finished) = (Vec::new(), Vec::new());
        let mut server =
            Self { gates: Vec::new(), open: news, bell, threads, finished, ended: Arc::default() };
        let mut gates = Vec::new();
        for number in 0..settings.workers.max(1) {
            let (gate, orders) = mpsc::unbounded_channel();
            let load = Arc::new(AtomicUsize::new(0));
            server.gates.push(gate.downgrade());
            gates.push(Gate { gate, load: Arc::clone(&load) });
            let share = Share { number, workers: settings.workers.max(1) };
            let worker = Worker { shared: Arc::clone(shared), orders, load, settings, share };
            let (stands, stood) = std::sync::mpsc::channel();
            server.spawn(format!("worker-{number}"), move || worker.run(&stands))?;
            // A worker that cannot start would be handed connections all the same.
            stood.recv().map_err(|_| std::io::Error::other("a worker has no event queue"))?;
        }
        let limit = files::connections(settings.limits.connections);
        let acceptor = Acceptor { open, opened, rung, gates: Gates { gates, limit } };
        server.spawn("acceptor".to_owned(), move || acceptor.accept_all())?;
        Ok(server)
    }

    /// From here on, requests are served as `shared` says, and connections are accepted from `open` alone. Connections
    /// on listeners that `shared` knows go on, and requests that run end as they began.
    pub fn swap(&self, open: Vec<Open>, shared: &Arc<Shared>, settings: ServerSettings) {
        for gate in &self.gates {
            // Before the acceptor hears of it: what it accepts on new listeners comes behind.
            if let Some(gate) = gate.upgrade() {
                let _ = gate.send(Order::Swap(Arc::clone(shared), settings));
            }
        }
        let _ = self.open.send((open, files::connections(settings.limits.connections)));
        // Gone, it has said why.
        let _ = (&self.bell).write_all(b"!");
    }

    /// Tells whether all threads run.
    pub(crate) fn pulse(&self) -> impl Fn() -> bool + Send + 'static {
        let ended = Arc::clone(&self.ended);
        move || !ended.load(Ordering::Relaxed)
    }

    /// The end is near: each connection on which a request is answered ends with that answer, so that no caller sends
    /// another one into its end. New ones are still served.
    pub fn leaves(&self) {
        for gate in self.gates.iter().filter_map(mpsc::WeakUnboundedSender::upgrade) {
            // A worker that is gone serves nobody.
            let _ = gate.send(Order::Leave);
        }
    }

    /// Stops accepting, lets running exchanges finish for at most the drain time-out, and returns when all threads
    /// have ended.
    pub async fn stop(self) {
        drop(self.bell);
        for finished in self.finished {
            // An error means that the thread is gone, which is what is waited for.
            let _ = finished.await;
        }
        for thread in self.threads {
            if thread.join().is_err() {
                warn!("a thread of the data plane had panicked");
            }
        }
    }

    fn spawn(
        &mut self,
        name: String,
        run: impl FnOnce() -> std::io::Result<()> + Send + 'static,
    ) -> std::io::Result<()> {
        let (done, finished) = oneshot::channel();
        let ended = Ended(Arc::clone(&self.ended));
        let thread = std::thread::Builder::new().name(name.clone()).spawn(move || {
            // Dropped last, and when it panics as well.
            let _ended = ended;
            if let Err(error) = run() {
                warn!(thread = name, %error, "a thread of the data plane cannot run");
            }
            drop(done);
        })?;
        self.threads.push(thread);
        self.finished.push(finished);
        Ok(())
    }
}

/// Notes that a thread has ended when it is dropped.
struct Ended(Arc<AtomicBool>);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// What a worker is told.
#[derive(Debug)]
enum Order {
    /// Serve this connection.
    Serve(Accepted),
    /// Serve what comes from here on by another configuration.
    Swap(Arc<Shared>, ServerSettings),
    /// Tell callers to go elsewhere, as the end is near.
    Leave,
}

/// The way to one worker.
struct Gate {
    gate: mpsc::UnboundedSender<Order>,
    /// Connections that it serves.
    load: Arc<AtomicUsize>,
}

/// The ways to all workers.
struct Gates {
    gates: Vec<Gate>,
    /// Connections that all of them may serve.
    limit: usize,
}

impl Gates {
    /// The worker that has the fewest connections; none if there are as many as there may be.
    fn idlest(&self) -> Option<&Gate> {
        let loads = || self.gates.iter().map(|gate| gate.load.load(Ordering::Relaxed));
        let gate = self.gates.iter().zip(loads()).min_by_key(|(_, load)| *load).map(|(gate, _)| gate);
        gate.filter(|_| loads().sum::<usize>() < self.limit)
    }
}

/// Hands each connection to the worker that has the fewest. Ends when the other end of `rung` is closed; the workers'
/// gates close with it.
///
/// It blocks on the listeners themselves: a runtime would register each connection twice.
struct Acceptor {
    open: Vec<Open>,
    /// What it is to accept from next, and how many connections there may be.
    opened: std::sync::mpsc::Receiver<(Vec<Open>, usize)>,
    rung: UnixStream,
    gates: Gates,
}

impl Acceptor {
    fn accept_all(mut self) -> std::io::Result<()> {
        loop {
            let listening = self.open.iter().map(|one| &one.bound.listening);
            let mut ready: Vec<_> = listening.map(|one| PollFd::new(&**one, PollFlags::IN)).collect();
            ready.push(PollFd::new(&self.rung, PollFlags::IN));
            match poll(&mut ready, None) {
                Ok(_) => {}
                Err(Errno::INTR) => continue,
                Err(error) => return Err(error.into()),
            }
            let is_rung = ready.pop().is_some_and(|bell| !bell.revents().is_empty());
            let mut arrived = ready.iter().map(|one| !one.revents().is_empty()).collect::<Vec<_>>();
            let mut is_over = false;
            if is_rung {
                is_over = !self.hears();
                if !is_over {
                    // Nothing is accepted any more from what is not open now: what waits at a socket that was handed
                    // over is for whoever takes it next.
                    continue;
                }
                arrived = vec![true; self.open.len()];
            }
            for (one, _) in self.open.iter().zip(arrived).filter(|(_, arrived)| *arrived) {
                if let Err(error) = accept_ready(one, &self.gates) {
                    warn!(address = one.bound.address, %error, "cannot accept connections");
                    // A pause that the bell cuts short.
                    let _ = poll(&mut [PollFd::new(&self.rung, PollFlags::IN)], Some(&ACCEPT_PAUSE));
                }
            }
            if is_over {
                return Ok(());
            }
        }
    }

    /// Takes up what is to be accepted from; false: it is to stop.
    fn hears(&mut self) -> bool {
        let mut rings = [0; 64];
        let is_over = matches!(self.rung.read(&mut rings), Ok(0));
        if let Some((open, limit)) = self.opened.try_iter().last() {
            (self.open, self.gates.limit) = (open, limit);
        }
        !is_over
    }
}

/// Accepts what has arrived at one listener.
fn accept_ready(one: &Open, gates: &Gates) -> std::io::Result<()> {
    loop {
        match one.bound.listening.accept() {
            Ok((stream, remote)) => {
                match gates.idlest() {
                    Some(Gate { gate, load }) => {
                        load.fetch_add(1, Ordering::Relaxed);
                        // A worker that is gone has said why; the connection closes.
                        let _ = gate.send(Order::Serve(Accepted { stream, slot: one.slot, remote }));
                    }
                    None => shed::turn_away(stream),
                }
            }
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) if is_callers_fault(&error) => {}
            Err(error) => return Err(error),
        }
    }
}

/// The caller went away before it was accepted.
fn is_callers_fault(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionReset | Interrupted)
}
