//! What the admin listener refuses: counted, and told to the log, each kind at most once a second.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::request::Parts;
use http::{HeaderMap, StatusCode};
use tokio::time::Instant;
use tracing::info;

use crate::telemetry::limiter::Limiter;
use crate::telemetry::refusals::{Sheet, reason};

/// One kind is told so often at most.
const INTERVAL: Duration = Duration::from_secs(1);
/// The paths that are told; any other may hold what is nobody's business.
const TOLD: [&str; 7] = ["/", "/livez", "/readyz", "/status", "/metrics", "/reload", "/quitquitquit"];

/// A listener's refusals.
#[derive(Debug)]
pub(super) struct Refused {
    sheet: Arc<Sheet>,
    start: Instant,
    limiter: Mutex<Limiter<&'static str>>,
}

impl Refused {
    pub(super) fn new(sheet: Arc<Sheet>) -> Arc<Self> {
        let interval = u64::try_from(INTERVAL.as_millis()).unwrap_or(u64::MAX);
        Arc::new(Self { sheet, start: Instant::now(), limiter: Mutex::new(Limiter::new(interval)) })
    }

    /// An answer goes out: counts and tells it if it is a refusal.
    pub(super) fn see(
        self: &Arc<Self>,
        status: StatusCode,
        answer: &HeaderMap,
        request: &Parts,
        from: SocketAddr,
    ) {
        if !status.is_client_error() {
            return;
        }
        let code = answer.get("sidekey-error").and_then(|code| code.to_str().ok()).unwrap_or_default();
        let code = reason(code);
        self.sheet.count(code);
        let (told, was_quiet) = {
            let mut limiter = self.limiter();
            let was_quiet = !limiter.holds_back();
            (limiter.tells(code, self.now()), was_quiet)
        };
        if let Some(unsaid) = told {
            let path = TOLD.iter().find(|told| **told == request.uri.path());
            let (method, status) = (tracing::field::display(&request.method), status.as_u16());
            info!(code, status, peer = %from, method, path, unsaid, "the admin listener refused a request");
        } else if was_quiet {
            let refused = Arc::clone(self);
            tokio::spawn(async move {
                while refused.limiter().holds_back() {
                    tokio::time::sleep(INTERVAL).await;
                    refused.tell_unsaid();
                }
            });
        }
    }

    fn tell_unsaid(&self) {
        let (due, _) = self.limiter().overdue(self.now());
        for (code, unsaid) in due {
            info!(code, unsaid, "the admin listener refused the same, and no more since");
        }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn limiter(&self) -> MutexGuard<'_, Limiter<&'static str>> {
        self.limiter.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
