//! What an upstream's answer says of the token that its request carried.

use http::{HeaderMap, Response, StatusCode};

use super::Proxy;
use super::refusal;
use super::upstream::UpstreamBody;
use crate::config::Route;
use crate::credential::{Lease, TokenPool};
use crate::oauth::answer::retry_after;
use crate::telemetry::metrics::{Rejection, RejectionOutcome};

impl Proxy {
    /// Believes or doubts the token by the upstream's answer. Gives the lease to send the request again with, where
    /// the token was refused and another one can be had; with it, what is counted of the refusal.
    pub(super) async fn judge(
        &self,
        route: &Route,
        pool: &TokenPool,
        lease: &Lease,
        answer: &Response<UpstreamBody>,
        can_repeat: bool,
    ) -> Option<(Lease, Rejection)> {
        let Some(certainty) = refusal::of(answer.status(), answer.headers(), &route.refused_statuses) else {
            self.believe(pool, lease, answer.status(), answer.headers(), false);
            return None;
        };
        let rejection = Rejection::new(pool.counts());
        let doubt = pool.reject(lease, certainty, false);
        let newer = if can_repeat { pool.replacement(lease, doubt).await } else { None };
        newer.map(|newer| (newer, rejection))
    }

    /// The same for the answer to a request that was sent again: there is no third time.
    pub(super) fn judge_replay(
        &self,
        route: &Route,
        pool: &TokenPool,
        lease: &Lease,
        answer: &Response<UpstreamBody>,
        rejection: &mut Rejection,
    ) {
        match refusal::of(answer.status(), answer.headers(), &route.refused_statuses) {
            Some(certainty) => {
                let _ = pool.reject(lease, certainty, true);
                rejection.becomes(RejectionOutcome::RefusedAgain);
            }
            None => {
                self.believe(pool, lease, answer.status(), answer.headers(), true);
                rejection.becomes(RejectionOutcome::Replayed);
            }
        }
    }

    fn believe(
        &self,
        pool: &TokenPool,
        lease: &Lease,
        status: StatusCode,
        headers: &HeaderMap,
        replayed: bool,
    ) {
        if status.is_success() || status.is_redirection() || status == StatusCode::SWITCHING_PROTOCOLS {
            pool.accept(lease, replayed);
        } else if status == StatusCode::TOO_MANY_REQUESTS
            && let Some(span) = retry_after(headers, self.shared.clock.wall())
        {
            pool.rest(lease, span);
        }
    }
}
