//! Doors: loopback addresses of redirect URIs that nothing else serves, open for as long as a login needs them.

use std::collections::HashMap;
use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Weak};
use std::time::Duration;

use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Mutex, OwnedMutexGuard, oneshot, watch};
use tokio::task::{JoinHandle, JoinSet};
use tracing::{debug, info};

use super::desk::Desk;
use super::face;
use crate::config::RedirectUri;
use crate::guard::Guard;

/// Connections at once on one door; a browser needs one or two.
const MAX_CONNECTIONS: usize = 32;
/// How long a request's header may take.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the last page may take to get out.
const LINGER: Duration = Duration::from_secs(5);

/// Why a redirect URI cannot be listened on.
#[derive(Debug, thiserror::Error)]
pub enum DoorError {
    /// Somebody else listens there.
    #[error(
        "{address} is in use by another process, so the browser could not come back to {redirect}: stop it for the \
         time of the login (the app itself? another `sidekey login`?), or use `sidekey login --no-browser`"
    )]
    InUse {
        /// The address.
        address: SocketAddr,
        /// The redirect URI.
        redirect: String,
    },
    /// Anything else.
    #[error(
        "cannot listen on {address}, where the browser would come back to {redirect}; use `sidekey login --no-browser`"
    )]
    Io {
        /// The address.
        address: SocketAddr,
        /// The redirect URI.
        redirect: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// An open door. It closes when the last login that needs it is over.
#[derive(Debug)]
pub(super) struct Door {
    _open: oneshot::Sender<Infallible>,
}

/// All doors that are or were open, by their address.
#[derive(Debug, Default)]
pub(super) struct Doors {
    places: Mutex<HashMap<SocketAddr, Place>>,
}

#[derive(Debug)]
struct Place {
    door: Weak<Door>,
    /// Locked while the address is listened on.
    listening: Arc<Mutex<()>>,
    task: JoinHandle<()>,
}

impl Doors {
    /// Opens what the redirect URI needs besides the address that `served` already listens on.
    pub(super) async fn open(
        &self,
        redirect: &RedirectUri,
        served: Option<SocketAddr>,
        desk: &Weak<Desk>,
    ) -> Result<Vec<Arc<Door>>, DoorError> {
        let mut places = self.places.lock().await;
        let mut doors = Vec::new();
        for (address, needed) in addresses(redirect, served) {
            if let Some(door) = places.get(&address).and_then(|place| place.door.upgrade()) {
                doors.push(door);
                continue;
            }
            let listening =
                places.get(&address).map(|place| Arc::clone(&place.listening)).unwrap_or_default();
            // A door that is just closing gives its address back first.
            let held = Arc::clone(&listening).lock_owned().await;
            match TcpListener::bind(address).await {
                Ok(listener) => {
                    let (open, closed) = oneshot::channel();
                    let door = Arc::new(Door { _open: open });
                    let task = tokio::spawn(keep(listener, held, closed, Weak::clone(desk)));
                    info!(%address, "listening for the end of a login");
                    places.insert(address, Place { door: Arc::downgrade(&door), listening, task });
                    doors.push(door);
                }
                // A browser that tries this address first would meet somebody else there.
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                    return Err(DoorError::InUse { address, redirect: redirect.text.clone() });
                }
                Err(source) if needed => {
                    return Err(DoorError::Io { address, redirect: redirect.text.clone(), source });
                }
                Err(error) => debug!(%address, %error, "cannot listen here as well"),
            }
        }
        Ok(doors)
    }

    /// Returns when the doors that nobody needs any more have sent their last page.
    pub(super) async fn closed(&self) {
        let mut places = self.places.lock().await;
        let closing: Vec<Place> =
            places.extract_if(|_, place| place.door.strong_count() == 0).map(|(_, place)| place).collect();
        drop(places);
        for place in closing {
            // It cannot fail but by being cancelled.
            let _ = place.task.await;
        }
    }
}

/// What a redirect URI is reached at, and whether it must be, without what is `served` already.
fn addresses(redirect: &RedirectUri, served: Option<SocketAddr>) -> Vec<(SocketAddr, bool)> {
    let host = redirect.host.trim_start_matches('[').trim_end_matches(']');
    let hosts: Vec<IpAddr> = match host.parse() {
        Ok(address) => vec![address],
        Err(_) => vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()],
    };
    let all: Vec<SocketAddr> = hosts.into_iter().map(|ip| SocketAddr::new(ip, redirect.port)).collect();
    let is_served = |address: &SocketAddr| Some(*address) == served;
    let one_is_served = all.iter().any(is_served);
    let needed = |address: &SocketAddr| !one_is_served && Some(address) == all.first();
    all.iter().filter(|address| !is_served(address)).map(|address| (*address, needed(address))).collect()
}

/// Serves a door until it closes, then lets its last page out.
async fn keep(
    listener: TcpListener,
    held: OwnedMutexGuard<()>,
    mut closed: oneshot::Receiver<Infallible>,
    desk: Weak<Desk>,
) {
    let port = listener.local_addr().map_or(0, |address| address.port());
    let (closing, is_closing) = watch::channel(());
    // Dropped with this task, which ends the connections as well.
    let mut connections = JoinSet::new();
    while let Some(next) = desk.upgrade().map(|desk| desk.sweep()) {
        let has_place = connections.len() < MAX_CONNECTIONS;
        tokio::select! {
            biased;
            _ = &mut closed => break,
            // At least now and then: the timer stands still in suspend, logins do not.
            () = tokio::time::sleep(next.unwrap_or(LINGER).clamp(Duration::from_millis(100), LINGER)) => {}
            Some(_) = connections.join_next() => {}
            accepted = listener.accept(), if has_place => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(serve(stream, Weak::clone(&desk), port, is_closing.clone()));
                }
                Err(error) => {
                    debug!(%error, "cannot accept the browser of a login");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            },
        }
    }
    drop(listener);
    drop(held);
    drop(closing);
    let _ = tokio::time::timeout(LINGER, async { while connections.join_next().await.is_some() {} }).await;
}

async fn serve(stream: TcpStream, desk: Weak<Desk>, port: u16, mut is_closing: watch::Receiver<()>) {
    let guard = Guard::default();
    let service = service_fn(|request: Request<Incoming>| {
        let (desk, guard) = (desk.upgrade(), guard.clone());
        async move {
            let (head, _) = request.into_parts();
            Ok::<_, Infallible>(face::answer(desk.as_ref(), &guard, &head, port).await)
        }
    });
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT).keep_alive(false);
    let connection = builder.serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        _ = is_closing.changed() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        debug!(%error, "the browser of a login broke off");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_redirect_uri_is_reached_where_a_browser_would_go() {
        // An address with a mark behind it may fail to be bound.
        let cases = [
            ("localhost", None, "127.0.0.1:3000 [::1]:3000?"),
            ("localhost", Some("127.0.0.1:7601"), "127.0.0.1:3000 [::1]:3000?"),
            ("localhost", Some("127.0.0.1:3000"), "[::1]:3000?"),
            ("localhost", Some("[::1]:3000"), "127.0.0.1:3000?"),
            ("127.0.0.1", None, "127.0.0.1:3000"),
            ("127.0.0.1", Some("127.0.0.1:3000"), ""),
            ("[::1]", Some("127.0.0.1:3000"), "[::1]:3000"),
            ("[::1]", Some("[::1]:3000"), ""),
        ];
        for (host, served, want) in cases {
            let redirect = RedirectUri {
                text: format!("http://{host}:3000/callback"),
                host: host.to_owned(),
                port: 3000,
                path: "/callback".to_owned(),
            };
            let got = addresses(&redirect, served.map(|text: &str| text.parse().unwrap()));
            let mark = |needed| if needed { "" } else { "?" };
            let got: Vec<String> =
                got.into_iter().map(|(address, needed)| format!("{address}{}", mark(needed))).collect();
            let got = got.join(" ");
            assert_eq!(got, want, "{host} {served:?}");
        }
    }
}
