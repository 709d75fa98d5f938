//! What a service manager in the manner of systemd is told (sd_notify(3)): ready, how it goes, alive, reloading, stopping.
//! Nothing without one.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::io;
use std::os::unix::net::UnixDatagram;
use std::sync::Arc;
use std::time::Duration;

use sd_notify::NotifyState;
use tracing::debug;

use crate::admin::{Instance, Readiness};

/// How often it is looked whether there is something else to tell.
const LOOK: Duration = Duration::from_secs(1);
/// Bytes of a status at most: it is a line for people.
const LONGEST_STATUS: usize = 200;

/// The line to a service manager.
#[derive(Debug, Clone, Copy)]
pub(super) struct Supervisor;

impl Supervisor {
    /// The one that started this process, if it wants to be told.
    pub(super) fn of_process() -> Option<Self> {
        std::env::var_os("NOTIFY_SOCKET").is_some_and(|socket| !socket.is_empty()).then_some(Self)
    }

    /// The listeners are bound: requests may come.
    pub(super) fn serving(self) {
        tell(&[NotifyState::Ready]);
    }

    /// It reads its configuration again; [`Supervisor::serving`] says that it has, whether it took it or not.
    pub(super) fn reloading(self) {
        tell(&reloading());
    }

    /// It stops, which may take as long as the drain.
    pub(super) fn stopping(self) {
        tell(&[NotifyState::Stopping, NotifyState::Status("stopping")]);
    }

    /// Tells how it goes whenever that changes, and, where a watchdog waits for it, that it lives: as long as
    /// `is_alive`. For ever.
    pub(super) async fn watch(self, instance: Arc<Instance>, is_alive: impl Fn() -> bool) {
        // Twice in its time, as systemd's manual has it.
        let beat = sd_notify::watchdog_enabled().map(|span| span / 2);
        let mut ticks = tokio::time::interval(beat.unwrap_or(LOOK).clamp(Duration::from_millis(10), LOOK));
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut told = String::new();
        loop {
            ticks.tick().await;
            if beat.is_some() && is_alive() {
                tell(&[NotifyState::Watchdog]);
            }
            let now = status(&instance.readiness());
            if now != told {
                tell(&[NotifyState::Status(&now)]);
                told = now;
            }
        }
    }
}

/// With the moment of it: `Type=notify-reload` would take an older READY for the answer.
fn reloading() -> Vec<NotifyState<'static>> {
    std::iter::once(NotifyState::Reloading).chain(NotifyState::monotonic_usec_now()).collect()
}

fn tell(states: &[NotifyState<'_>]) {
    let Some(socket) = std::env::var_os("NOTIFY_SOCKET") else { return };
    if let Err(error) = send(&socket, message(states).as_bytes()) {
        debug!(%error, "the service manager cannot be told");
    }
}

/// A line each.
fn message(states: &[NotifyState<'_>]) -> String {
    states.iter().fold(String::new(), |mut text, state| {
        let _ = writeln!(text, "{state}");
        text
    })
}

/// Sends to a socket's path, or to the abstract name behind an `@`.
fn send(socket: &OsStr, text: &[u8]) -> io::Result<()> {
    let sender = UnixDatagram::unbound()?;
    match socket.as_encoded_bytes().strip_prefix(b"@") {
        None => sender.connect(socket)?,
        Some(name) => connect_abstract(&sender, name)?,
    }
    // Whoever does not read must not keep us waiting.
    sender.set_nonblocking(true)?;
    sender.send(text).map(drop)
}

#[cfg(any(target_os = "linux", target_os = "android"))]
fn connect_abstract(sender: &UnixDatagram, name: &[u8]) -> io::Result<()> {
    use std::os::linux::net::SocketAddrExt as _;
    sender.connect_addr(&std::os::unix::net::SocketAddr::from_abstract_name(name)?)
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn connect_abstract(_: &UnixDatagram, _: &[u8]) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// How it goes, in one line.
fn status(readiness: &Readiness) -> String {
    let mut text = readiness.word().to_owned();
    if let Some(reason) = readiness.reasons().first() {
        text.push_str(": ");
        text.extend(reason.chars().map(|c| if c.is_control() { ' ' } else { c }));
    }
    let end = (0..=text.len().min(LONGEST_STATUS)).rev().find(|at| text.is_char_boundary(*at));
    text.truncate(end.unwrap_or(0));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(target_os = "linux")]
    #[test]
    fn a_socket_has_a_path_or_an_abstract_name() {
        use std::os::linux::net::SocketAddrExt as _;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let by_path = UnixDatagram::bind(&path).unwrap();
        let name = format!("sidekey-test-{}", fastrand::u64(..));
        let address = std::os::unix::net::SocketAddr::from_abstract_name(&name).unwrap();
        let by_name = UnixDatagram::bind_addr(&address).unwrap();
        for (socket, reader) in [(path.into_os_string(), by_path), (format!("@{name}").into(), by_name)] {
            send(&socket, b"READY=1\n").unwrap();
            let mut bytes = [0; 32];
            let length = reader.recv(&mut bytes).unwrap();
            assert_eq!(&bytes[..length], b"READY=1\n");
        }
    }

    #[test]
    fn a_reload_says_when_it_began() {
        let said = |text: &str| -> i128 {
            let rest =
                text.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").and_then(|rest| rest.strip_suffix('\n'));
            rest.unwrap().parse().unwrap()
        };
        let (first, second) = (said(&message(&reloading())), said(&message(&reloading())));
        assert!(first > 0 && second >= first);
    }

    #[test]
    fn a_status_is_one_short_line() {
        let reasons = |text: &str| vec![text.to_owned(), "another".to_owned()];
        assert_eq!(status(&Readiness::Ready), "ready");
        assert_eq!(status(&Readiness::Degraded(reasons("a\nREADY=1\rb"))), "degraded: a READY=1 b");
        let long = status(&Readiness::NotReady(reasons(&"ö".repeat(500))));
        assert!(long.len() <= LONGEST_STATUS && long.starts_with("not ready: ö"), "{long}");
    }
}
