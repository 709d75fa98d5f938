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
use crate::config::{Limits, ListenId};
use crate::proxy::exchange::CallerLimits;
use crate::proxy::{Share, Shared};

pub use self::listen::{BindError, Bound, bind};

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
    /// Closed, it tells the acceptor to stop.
    stop: UnixStream,
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
    pub fn start(bound: Vec<Bound>, shared: &Arc<Shared>, settings: ServerSettings) -> std::io::Result<Self> {
        let (stop, stopped) = UnixStream::pair()?;
        let mut server = Self { stop, threads: Vec::new(), finished: Vec::new(), ended: Arc::default() };
        let mut gates = Vec::new();
        for number in 0..settings.workers.max(1) {
            let (gate, arrivals) = mpsc::unbounded_channel();
            let load = Arc::new(AtomicUsize::new(0));
            gates.push(Gate { gate, load: Arc::clone(&load) });
            let share = Share { number, workers: settings.workers.max(1) };
            let worker = Worker { shared: Arc::clone(shared), arrivals, load, settings, share };
            let (stands, stood) = std::sync::mpsc::channel();
            server.spawn(format!("worker-{number}"), move || worker.run(&stands))?;
            // A worker that cannot start would be handed connections all the same.
            stood.recv().map_err(|_| std::io::Error::other("a worker has no event queue"))?;
        }
        let limit = files::connections(settings.limits.connections);
        server.spawn("acceptor".to_owned(), move || accept_all(&bound, &Gates { gates, limit }, &stopped))?;
        Ok(server)
    }

    /// Tells whether all threads run.
    pub(crate) fn pulse(&self) -> impl Fn() -> bool + Send + 'static {
        let ended = Arc::clone(&self.ended);
        move || !ended.load(Ordering::Relaxed)
    }

    /// Stops accepting, lets running exchanges finish for at most the drain time-out, and returns when all threads
    /// have ended.
    pub async fn stop(self) {
        drop(self.stop);
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

/// The way to one worker.
struct Gate {
    gate: mpsc::UnboundedSender<Accepted>,
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

/// The acceptor: hands each connection to the worker that has the fewest. Ends when the other end of `stopped` is
/// closed; the workers' gates close with it.
///
/// It blocks on the listeners themselves: a runtime would register each connection twice.
fn accept_all(bound: &[Bound], gates: &Gates, stopped: &UnixStream) -> std::io::Result<()> {
    loop {
        let mut ready: Vec<_> = bound.iter().map(|one| PollFd::new(&one.listening, PollFlags::IN)).collect();
        ready.push(PollFd::new(stopped, PollFlags::IN));
        match poll(&mut ready, None) {
            Ok(_) => {}
            Err(Errno::INTR) => continue,
            Err(error) => return Err(error.into()),
        }
        if ready.pop().is_some_and(|stop| !stop.revents().is_empty()) {
            return Ok(());
        }
        let arrived = ready.iter().map(|one| !one.revents().is_empty()).collect::<Vec<_>>();
        for listener in (0..bound.len()).filter(|listener| arrived[*listener]) {
            if let Err(error) = accept_ready(&bound[listener], listener, gates) {
                warn!(address = bound[listener].address, %error, "cannot accept connections");
                // A pause that the signal to stop cuts short.
                let _ = poll(&mut [PollFd::new(stopped, PollFlags::IN)], Some(&ACCEPT_PAUSE));
            }
        }
    }
}

/// Accepts what has arrived at one listener.
fn accept_ready(bound: &Bound, listener: ListenId, gates: &Gates) -> std::io::Result<()> {
    loop {
        match bound.listening.accept() {
            Ok((stream, remote)) => {
                match gates.idlest() {
                    Some(Gate { gate, load }) => {
                        load.fetch_add(1, Ordering::Relaxed);
                        // A worker that is gone has said why; the connection closes.
                        let _ = gate.send(Accepted { stream, listener, remote });
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
