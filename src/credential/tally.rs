//! Each credential in numbers, for metrics: bounded, however many accounts it has.

use std::sync::Arc;
use std::time::SystemTime;

use super::machine::State;
use super::pool::TokenPool;
use crate::telemetry::metrics::CredentialCounts;

/// One credential, as it stands.
#[derive(Debug, Clone)]
pub struct Tally {
    /// Its name.
    pub credential: Arc<str>,
    /// How many of its accounts are in each state, in the order of [`State::ALL`].
    pub states: [usize; State::ALL.len()],
    /// How many have a valid token.
    pub with_token: usize,
    /// When the first of its tokens expires that would be missed; none: none does.
    pub expiry: Option<SystemTime>,
    /// What was counted of it.
    pub counts: Arc<CredentialCounts>,
}

impl TokenPool {
    /// It, as it stands.
    pub fn tally(&self) -> Tally {
        let mut tally = Tally {
            credential: Arc::clone(&self.credential.name),
            states: [0; State::ALL.len()],
            with_token: 0,
            expiry: None,
            counts: self.counts(),
        };
        let now = self.clock.now();
        for (_, account) in self.accounts.iter() {
            let state = self.state_of(account);
            tally.states[state as usize] += 1;
            let machine = account.machine();
            let Some(held) = machine.held().filter(|held| held.expires.is_none_or(|at| now < at)) else {
                continue;
            };
            tally.with_token += 1;
            // That a token runs out which nobody uses is as it should be.
            if !machine.is_let_go() {
                tally.expiry = tally.expiry.into_iter().chain(held.wall_expires).min();
            }
        }
        tally
    }
}
