//! One configuration at work: everything that is made for it, what it takes over from the one before, and its end.

use std::sync::Arc;

use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::{Address, StartError, addresses_of};
use crate::clock::Clock;
use crate::config::{Bind, Config, Listener, Route, Upstream};
use crate::credential::{Claim, Credentials, Keepers, Vault};
use crate::guard::callers::{Callers, TokenWatch};
use crate::proxy::transactions::Transactions;
use crate::proxy::{Claimed, Paces, Rules, Shared, Slot, UpstreamTls};
use crate::secret::fingerprint::Fingerprint;
use crate::server::handed::HandedSockets;
use crate::server::{self, BindError, Bound, Open};
use crate::telemetry::access_log::Queue;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::refusals::Refusals;
use crate::tls::{CertificateWatch, ListenerTls, TlsError, TlsFactory};

/// What stays, whatever the configuration.
#[derive(Debug)]
pub(super) struct Standing {
    pub(super) clock: Clock,
    pub(super) handed: HandedSockets,
    pub(super) refusals: Arc<Refusals>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) transactions: Arc<Transactions>,
    /// The number of the next listener that is opened.
    pub(super) next_slot: Slot,
}

/// A configuration at work.
#[derive(Debug)]
pub(super) struct Generation {
    parts: Parts,
    certificates: JoinHandle<()>,
    callers: JoinHandle<()>,
}

/// What is looked at later.
#[derive(Debug)]
struct Parts {
    config: Config,
    vault: Arc<Vault>,
    credentials: Credentials,
    open: Vec<Open>,
    addresses: Vec<Address>,
    paces: Arc<Paces>,
    tls: Vec<Option<Arc<UpstreamTls>>>,
    /// The files that each route's TLS is made of, as they were.
    tls_files: Vec<Vec<Option<Fingerprint>>>,
    /// Ends when nothing that runs needs it any more.
    in_use: oneshot::Receiver<()>,
}

/// A configuration that could be put to work at once. Dropped instead, nothing has happened.
pub(super) struct Prepared {
    parts: Parts,
    shared: Arc<Shared>,
    keepers: Keepers,
    certificates: CertificateWatch,
    callers: TokenWatch,
}

impl Prepared {
    /// Makes all that can fail. Takes over from `before` what stays the same; `bound`: listeners that are bound already.
    pub(super) fn of(
        config: &Config,
        (callers, token_watch): (Callers, TokenWatch),
        vault: Arc<Vault>,
        access_log: Option<Queue>,
        standing: &mut Standing,
        before: Option<&Generation>,
        bound: Option<Vec<Bound>>,
    ) -> Result<Self, StartError> {
        let before = before.map(|before| &before.parts);
        let factory = TlsFactory::default();
        let clock = &standing.clock;
        let none = Credentials::default();
        let earlier = before.map_or(&none, |before| &before.credentials);
        let (credentials, keepers) = Credentials::of(config, &factory, clock, &vault, earlier)?;
        credentials.are_counted_in(&standing.metrics);
        let tls_files: Vec<_> = config.routes.iter().map(files_of).collect();
        let tls = tls_of(config, &factory, &tls_files, before)?;
        let mut certificates = CertificateWatch::default();
        let listener_tls = listener_tls(config, &mut certificates)?;
        let paces = before.map(|before| (&*before.paces, &*before.config.routes));
        let paces = Arc::new(Paces::new(&config.routes, paces));
        let open = match bound {
            Some(bound) => numbered(bound, &mut standing.next_slot),
            None => opened(config, before, &standing.handed, &mut standing.next_slot)?,
        };
        let addresses = addresses_of(open.iter().map(|one| &one.bound), config);
        let (in_use, unused) = oneshot::channel();
        let shared = Arc::new(Shared {
            rules: Rules::new(config, callers),
            claims: claims(config, &credentials),
            tls: tls.clone(),
            listeners: listeners(&open),
            listener_tls,
            transactions: Arc::clone(&standing.transactions),
            paces: Arc::clone(&paces),
            clock: standing.clock.clone(),
            refusals: Arc::clone(&standing.refusals),
            traffic: standing.metrics.of_routes(config.routes.iter().map(|route| &route.name)),
            access_log,
            in_use,
        });
        let config = config.clone();
        let parts =
            Parts { config, vault, credentials, open, addresses, paces, tls, tls_files, in_use: unused };
        Ok(Self { parts, shared, keepers, certificates, callers: token_watch })
    }

    /// What is accepted from.
    pub(super) fn open(&self) -> Vec<Open> {
        self.parts.open.clone()
    }

    /// What workers serve by.
    pub(super) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Starts what works for it in the background.
    pub(super) fn start(self) -> Generation {
        self.keepers.start();
        Generation {
            parts: self.parts,
            certificates: tokio::spawn(self.certificates.run()),
            callers: tokio::spawn(self.callers.run()),
        }
    }
}

impl Generation {
    pub(super) fn config(&self) -> &Config {
        &self.parts.config
    }

    pub(super) fn addresses(&self) -> &[Address] {
        &self.parts.addresses
    }

    pub(super) fn credentials(&self) -> &Credentials {
        &self.parts.credentials
    }

    pub(super) fn vault(&self) -> &Arc<Vault> {
        &self.parts.vault
    }

    /// The end of one that another has followed: once the last request that began under it has ended.
    pub(super) async fn retire(self) {
        let Parts { in_use, credentials, open, .. } = self.parts;
        // Whoever still needs them has them.
        drop((credentials, open));
        // An error is what is waited for: nobody has it any more.
        let _ = in_use.await;
        self.certificates.abort();
        self.callers.abort();
    }

    /// Nothing is accepted any more once the server has stopped.
    pub(super) fn closes(&mut self) {
        self.parts.open.clear();
    }

    /// The end of the last one: nothing is served any more.
    pub(super) async fn stop(self) {
        self.certificates.abort();
        self.callers.abort();
        // A refresh token that is being presented must not be cut off: its successor would be lost.
        self.parts.vault.close().await;
        self.parts.credentials.abort();
    }
}

/// Numbers for listeners that were not open before.
fn numbered(bound: Vec<Bound>, next: &mut Slot) -> Vec<Open> {
    let mut number = || {
        *next += 1;
        *next - 1
    };
    bound.into_iter().map(|bound| Open { slot: number(), bound }).collect()
}

/// The listeners of a configuration: those of the one before where they are the same, and new ones. One whose TLS, or
/// whose file's owner, group or mode is another keeps its socket, but not the connections on it: they were let in by other
/// rules.
fn opened(
    config: &Config,
    before: Option<&Parts>,
    handed: &HandedSockets,
    next: &mut Slot,
) -> Result<Vec<Open>, BindError> {
    let mut earlier: Vec<(usize, &Listener)> =
        before.map_or_else(Vec::new, |before| before.config.server.listeners.iter().enumerate().collect());
    let mut open: Vec<Option<Open>> = Vec::new();
    let mut changed = Vec::new();
    for (index, listener) in config.server.listeners.iter().enumerate() {
        let is_same = |(number, one): &(usize, &Listener)| {
            is_same_place(&one.bind, &listener.bind)
                // Several may be on a port that the system chooses: then it is by its routes that one is known.
                && (!is_chosen_by_system(&listener.bind)
                    || before.is_some_and(|before| {
                        one.shared == listener.shared
                            && routes_at(&before.config, *number).eq(routes_at(config, index))
                    }))
        };
        let kept = earlier.iter().position(is_same).map(|at| earlier.remove(at));
        open.push(kept.zip(before).map(|((number, earlier), before)| {
            let one = &before.open[number];
            if earlier.bind != listener.bind {
                changed.push((one.bound.clone(), earlier.clone(), listener));
            }
            match earlier.tls == listener.tls && earlier.bind == listener.bind {
                true => one.clone(),
                false => numbered(vec![one.bound.clone()], next).remove(0),
            }
        }));
    }
    let new: Vec<_> = config.server.listeners.iter().zip(&open).filter(|(_, open)| open.is_none()).collect();
    let new: Vec<_> = new.into_iter().map(|(listener, _)| listener.clone()).collect();
    let mut bound = numbered(server::bind(&new, handed)?, next).into_iter();
    for (done, (one, _, listener)) in changed.iter().enumerate() {
        if let Err(error) = one.give(listener) {
            for (one, earlier, _) in &changed[..=done] {
                // What could be changed can be changed back.
                let _ = one.give(earlier);
            }
            return Err(error);
        }
    }
    Ok(open.into_iter().filter_map(|one| one.or_else(|| bound.next())).collect())
}

fn is_chosen_by_system(bind: &Bind) -> bool {
    matches!(bind, Bind::Tcp(address) if address.port() == 0)
}

/// The names of the routes that have a listener of their own.
fn routes_at(config: &Config, listener: usize) -> impl Iterator<Item = &str> {
    let has = move |route: &&Route| route.matches.listeners.contains(&listener);
    config.routes.iter().filter(has).map(|route| &*route.name)
}

fn is_same_place(a: &Bind, b: &Bind) -> bool {
    match (a, b) {
        (Bind::Unix { path: a, .. }, Bind::Unix { path: b, .. }) => a == b,
        (a, b) => a == b,
    }
}

fn listeners(open: &[Open]) -> Vec<Option<usize>> {
    let mut listeners = vec![None; open.iter().map(|one| one.slot + 1).max().unwrap_or(0)];
    for (listener, one) in open.iter().enumerate() {
        listeners[one.slot] = Some(listener);
    }
    listeners
}

/// Whose token each route's requests carry.
fn claims(config: &Config, credentials: &Credentials) -> Vec<Option<Claimed>> {
    let claim = |route: &Route| {
        let credential = Arc::clone(credentials.get(route.credential?));
        // Enrolled, as the configuration names it.
        let named = route.account.as_ref().and_then(|account| credential.pool().claim(account).ok());
        Some(Claimed { credential, claim: named.unwrap_or(Claim::any()), scope: scope_of(route) })
    };
    config.routes.iter().map(claim).collect()
}

/// Where a route's transactions are known: another upstream has others of the same number, and what began when more was
/// allowed is none of a route that only reads.
fn scope_of(route: &Route) -> Arc<str> {
    let Upstream { tls, host, port, base_path, .. } = &route.upstream;
    format!("{}\n{tls} {host} {port} {base_path}\n{}", route.name, route.read_only).into()
}

fn files_of(route: &Route) -> Vec<Option<Fingerprint>> {
    route.tls.files().map(Fingerprint::of).collect()
}

/// TLS towards each route's upstream; that of the configuration before where nothing changed, with its connections.
fn tls_of(
    config: &Config,
    factory: &TlsFactory,
    files: &[Vec<Option<Fingerprint>>],
    before: Option<&Parts>,
) -> Result<Vec<Option<Arc<UpstreamTls>>>, TlsError> {
    let same = |route: &Route, files: &Vec<Option<Fingerprint>>| {
        let before = before?;
        let alike = |earlier: &Route| {
            (&earlier.name, &earlier.tls, earlier.http, earlier.upstream.tls)
                == (&route.name, &route.tls, route.http, route.upstream.tls)
        };
        let index = before.config.routes.iter().position(alike)?;
        (before.tls_files[index] == *files).then(|| before.tls[index].clone())
    };
    let of_route = |(route, files)| match same(route, files) {
        Some(same) => Ok(same),
        None => upstream_tls(route, factory).map(|tls| tls.map(Arc::new)),
    };
    config.routes.iter().zip(files).map(of_route).collect()
}

/// TLS towards a route's upstream; none for clear text.
///
/// # Errors
/// [`TlsError`] when its `tls` table names files that cannot be used.
pub fn upstream_tls(route: &Route, tls: &TlsFactory) -> Result<Option<UpstreamTls>, TlsError> {
    let of_route = || tls.connector(&route.tls).map(|connector| UpstreamTls::new(connector, route.http));
    route.upstream.tls.then(of_route).transpose()
}

/// TLS towards each listener's callers, kept fresh by `watch` while that runs; none for clear text.
///
/// # Errors
/// [`TlsError`] when a certificate or its key cannot be used.
pub fn listener_tls(
    config: &Config,
    watch: &mut CertificateWatch,
) -> Result<Vec<Option<Arc<ListenerTls>>>, TlsError> {
    let listeners = config.server.listeners.iter();
    listeners.map(|listener| listener.tls.as_ref().map(|files| watch.load(files)).transpose()).collect()
}
