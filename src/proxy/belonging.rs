//! Which lease a request gets: its transaction's or one of the pool's; and whose transactions are.

use std::sync::Arc;

use http::{HeaderValue, StatusCode};

use super::error::ProxyError;
use super::transactions::{self, Foreign, Opening, Step};
use super::{Claimed, Proxy};
use crate::config::CallerId;
use crate::credential::Lease;

impl Proxy {
    /// The lease for a request: that of its transaction, else one of the pool's.
    pub(super) async fn lease(
        &self,
        claimed: &Claimed,
        step: Step<'_>,
        caller: Option<CallerId>,
        account: Option<&HeaderValue>,
    ) -> Result<Lease, ProxyError> {
        let (pool, account) = (claimed.pool(), account.and_then(|account| account.to_str().ok()));
        if let Step::Within { transaction, .. } = step {
            let (name, transactions) = (self.name_of(caller), &self.shared.transactions);
            if let Some(lease) = transactions.lease(&claimed.scope, transaction, name, &claimed.credential)?
                // Somebody else's transaction is none of this caller's.
                && account.is_none_or(|account| pool.account_of(&lease) == account)
            {
                return Ok(lease);
            }
        }
        let claim = match account {
            Some(account) => pool.claim_when_listed(account).await?,
            None => claimed.claim,
        };
        Ok(pool.lease(claim).await?)
    }

    fn name_of(&self, caller: Option<CallerId>) -> Option<&Arc<str>> {
        caller.map(|caller| self.shared.rules.callers().name(caller))
    }

    /// Keeps a caller from others' transactions: to the server, all callers are one, and it finds a transaction by its
    /// number, however the rest of its path is spelled.
    pub(super) fn keep_apart(
        &self,
        claimed: Option<&Claimed>,
        step: Step<'_>,
        caller: Option<CallerId>,
        path: &str,
    ) -> Result<(), ProxyError> {
        if transactions::is_disguised(path) {
            let text =
                "The path of a transaction has parameters, escapes or empty segments; send it without.";
            return Err(ProxyError::BadRequest(text));
        }
        let is_within = matches!(step, Step::Within { .. });
        if is_within && !self.is_of_here(claimed, step, caller) { Err(Foreign.into()) } else { Ok(()) }
    }

    /// Does a request belong to a transaction that its caller began on this route?
    pub(super) fn is_of_here(
        &self,
        claimed: Option<&Claimed>,
        step: Step<'_>,
        caller: Option<CallerId>,
    ) -> bool {
        let (Step::Within { transaction, .. }, Some(claimed)) = (step, claimed) else { return false };
        self.shared.transactions.knows(&claimed.scope, transaction, self.name_of(caller))
    }

    /// Keeps the record of open transactions by what the upstream answered.
    pub(super) fn note_transaction(
        &self,
        step: Step<'_>,
        caller: Option<CallerId>,
        status: StatusCode,
        held: Option<(&Claimed, Option<Lease>)>,
    ) -> Option<Opening> {
        let (claimed, lease) = held?;
        let transactions = &self.shared.transactions;
        match step {
            Step::Begins(path) if status.is_success() => {
                let caller = self.name_of(caller);
                Some(transactions.opening(&claimed.scope, path, caller, lease?, &claimed.credential))
            }
            Step::Within { transaction, ends } => {
                if (ends && !status.is_server_error()) || status == StatusCode::NOT_FOUND {
                    transactions.forget(&claimed.scope, transaction);
                }
                None
            }
            Step::Begins(_) | Step::Outside => None,
        }
    }
}
