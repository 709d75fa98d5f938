//! What all workers share, and which part of what is bounded for all of them is each one's own.

use std::sync::Arc;

use tokio::sync::oneshot;

use super::pace::Paces;
use super::rules::Rules;
use super::transactions::Transactions;
use super::upstream::UpstreamTls;
use crate::config::ListenId;
use crate::credential::{Claim, InForce, TokenPool};
use crate::telemetry::access_log::Queue;
use crate::telemetry::metrics::Traffic;
use crate::telemetry::refusals::Refusals;
use crate::tls::ListenerTls;

/// What all workers share: immutable, but for the tokens in the pool.
#[derive(Debug)]
pub struct Shared {
    /// What may pass, and where it goes.
    pub rules: Rules,
    /// Whose token each route's requests carry; none: they carry none.
    pub claims: Vec<Option<Claimed>>,
    /// TLS towards each route's upstream; none for clear text.
    pub tls: Vec<Option<Arc<UpstreamTls>>>,
    /// Which listener of the configuration each open one is; none: it is none of its.
    pub listeners: Vec<Option<ListenId>>,
    /// TLS towards each listener's callers; none for clear text. [`crate::config::ListenId`] indexes it.
    pub listener_tls: Vec<Option<Arc<ListenerTls>>>,
    /// Which lease each open transaction belongs to.
    pub transactions: Arc<Transactions>,
    /// When requests may go, on routes that are paced.
    pub paces: Arc<Paces>,
    /// Tells when an upstream's `Retry-After` is a date.
    pub clock: crate::clock::Clock,
    /// How many requests were refused: a sheet for each worker, by its number.
    pub refusals: Arc<Refusals>,
    /// What is counted of its routes: a sheet of each for each worker, by its number.
    pub traffic: Traffic,
    /// Where the access log is written; none: it is off.
    pub access_log: Option<Queue>,
    /// Dropped with the last who uses this: a request of an earlier configuration, or a worker.
    pub in_use: oneshot::Sender<()>,
}

/// The number of an open listener, which no other ever has: what [`ListenId`] is within one configuration.
pub type Slot = usize;

impl Shared {
    /// The listener of the configuration that an open one is.
    pub fn listener(&self, slot: Slot) -> Option<ListenId> {
        self.listeners.get(slot).copied().flatten()
    }
}

/// Whose token a route's requests carry.
#[derive(Debug)]
pub struct Claimed {
    /// A credential.
    pub credential: Arc<InForce>,
    /// Which of its accounts, where callers name none.
    pub claim: Claim,
    /// Where its transactions are known: the same in another configuration if they are.
    pub scope: Arc<str>,
}

impl Claimed {
    /// Where its leases come from.
    pub fn pool(&self) -> &Arc<TokenPool> {
        self.credential.pool()
    }
}

/// Which part of what is bounded for all workers is one worker's own, so that nothing need be shared to keep the bound.
#[derive(Debug, Clone, Copy)]
pub struct Share {
    /// The worker's number, from 0.
    pub number: usize,
    /// How many workers there are.
    pub workers: usize,
}

impl Share {
    /// This worker's part of `total`: all parts together are `total`, if it is at least the number of workers.
    pub fn of(self, total: usize) -> usize {
        (total / self.workers + usize::from(self.number < total % self.workers)).max(1)
    }
}
