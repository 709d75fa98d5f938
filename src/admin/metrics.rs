//! The page of metrics, and the same numbers for `/status`; pure.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value, json};

use crate::credential::machine::State;
use crate::credential::tally::Tally;
use crate::credential::vault::VaultRecord;
use crate::telemetry::metrics::exposition::{Kind, Page};
use crate::telemetry::metrics::sums::{BOUNDS, Sums, seconds};
use crate::telemetry::metrics::{FetchOutcome, RejectionOutcome};

/// What an instance is, at one moment.
pub(super) struct Scrape<'a> {
    pub(super) started: SystemTime,
    pub(super) is_ready: bool,
    pub(super) store: &'a VaultRecord,
    pub(super) credentials: &'a [Tally],
    pub(super) routes: &'a [(Arc<str>, Sums)],
    pub(super) refusals: &'a [(&'static str, u64)],
}

/// The page. Whatever callers and upstreams send, its labels are names of the configuration and words of this source,
/// and status codes.
pub(super) fn page(scrape: &Scrape<'_>) -> String {
    let mut page = Page::default();
    instance(&mut page, scrape);
    requests(&mut page, scrape.routes);
    upstream_connections(&mut page, scrape.routes);
    credentials(&mut page, scrape.credentials);
    page.into_text()
}

fn instance(page: &mut Page, scrape: &Scrape<'_>) {
    page.family("sidekey_build_info", Kind::Gauge, "Always 1; the labels say what runs.");
    page.sample("sidekey_build_info", &[("version", env!("CARGO_PKG_VERSION"))], 1);
    page.single(
        "process_start_time_seconds",
        Kind::Gauge,
        "When it was started, in seconds since 1970.",
        unix(scrape.started).round(),
    );
    page.single(
        "sidekey_ready",
        Kind::Gauge,
        "Is it ready, as /readyz says: 1 or 0.",
        u8::from(scrape.is_ready),
    );
    page.single(
        "sidekey_store_writable",
        Kind::Gauge,
        "Did the last call to the store succeed: 1 or 0.",
        u8::from(scrape.store.writable),
    );
    page.single(
        "sidekey_store_unsaved_grants",
        Kind::Gauge,
        "Logins that are in memory alone, because the store did not take them: they are lost if it ends.",
        scrape.store.unsaved,
    );
    let name = "sidekey_guard_refusals_total";
    page.family(name, Kind::Counter, "Requests refused by sidekey itself, by its Sidekey-Error.");
    for (reason, count) in scrape.refusals {
        page.sample(name, &[("reason", reason)], count);
    }
}

fn requests(page: &mut Page, routes: &[(Arc<str>, Sums)]) {
    let name = "sidekey_requests_total";
    let help = "Requests that have ended, by the status that was answered; 499: the caller went away before.";
    page.family(name, Kind::Counter, help);
    for (route, sums) in routes {
        for (code, count) in sums.by_code() {
            page.sample(name, &[("route", route), ("code", &code)], count);
        }
    }
    let name = "sidekey_request_duration_seconds";
    let help = "From the end of a request's header to the last byte of its answer; of a WebSocket, to its beginning.";
    page.family(name, Kind::Histogram, help);
    let bounds: Vec<_> = BOUNDS.iter().map(|bound| seconds(*bound).to_string()).collect();
    for (route, sums) in routes {
        let mut so_far = 0;
        let bounds = bounds.iter().map(String::as_str).chain(["+Inf"]);
        for (bound, count) in bounds.zip(&sums.buckets) {
            so_far += count;
            let labels = [("route", &**route), ("le", bound)];
            page.sample("sidekey_request_duration_seconds_bucket", &labels, so_far);
        }
        page.sample("sidekey_request_duration_seconds_sum", &[("route", route)], sums.seconds());
        page.sample("sidekey_request_duration_seconds_count", &[("route", route)], so_far);
    }
}

fn upstream_connections(page: &mut Page, routes: &[(Arc<str>, Sums)]) {
    let name = "sidekey_upstream_connections";
    page.family(name, Kind::Gauge, "Connections to a route's upstream, WebSockets among them.");
    // The last are the requests of no route.
    for (route, sums) in routes.split_last().map(|(_, routes)| routes).unwrap_or_default() {
        for (state, count) in [("active", sums.active), ("idle", sums.idle)] {
            page.sample(name, &[("route", route), ("state", state)], count);
        }
    }
}

fn credentials(page: &mut Page, tallies: &[Tally]) {
    let name = "sidekey_token_fetches_total";
    page.family(name, Kind::Counter, "Fetches of tokens and readings of secrets that have ended, by how.");
    for tally in tallies {
        for outcome in FetchOutcome::ALL {
            let labels = [("credential", &*tally.credential), ("outcome", outcome.label())];
            page.sample(name, &labels, tally.counts.fetches(outcome));
        }
    }
    let name = "sidekey_token_expiry_timestamp_seconds";
    let help = "When the first of a credential's tokens expires, in seconds since 1970; none: none does.";
    page.family(name, Kind::Gauge, help);
    for tally in tallies {
        if let Some(expiry) = tally.expiry {
            page.sample(name, &[("credential", &tally.credential)], unix(expiry));
        }
    }
    let name = "sidekey_accounts";
    page.family(name, Kind::Gauge, "Accounts of a credential, by their state.");
    for tally in tallies {
        for (state, count) in State::ALL.into_iter().zip(tally.states) {
            page.sample(name, &[("credential", &*tally.credential), ("state", state.word())], count);
        }
    }
    let name = "sidekey_accounts_with_token";
    page.family(name, Kind::Gauge, "Accounts of a credential that have a valid token.");
    for tally in tallies {
        page.sample(name, &[("credential", &tally.credential)], tally.with_token);
    }
    let name = "sidekey_token_rejections_total";
    let help = "Requests whose token an upstream refused, by what became of them.";
    page.family(name, Kind::Counter, help);
    for tally in tallies {
        for outcome in RejectionOutcome::ALL {
            let labels = [("credential", &*tally.credential), ("outcome", outcome.label())];
            page.sample(name, &labels, tally.counts.rejections(outcome));
        }
    }
}

/// Seconds since 1970.
fn unix(time: SystemTime) -> f64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

/// Adds to each entry of a status's routes what was counted of it.
pub(super) fn add_to(entries: &mut Value, routes: &[(Arc<str>, Sums)]) {
    for entry in entries.as_array_mut().into_iter().flatten() {
        let found = routes.iter().find(|(name, _)| entry["name"] == **name);
        let (Some((_, sums)), Some(entry)) = (found, entry.as_object_mut()) else { continue };
        entry.insert("requests".to_owned(), requests_of(sums));
        let connections = json!({ "active": sums.active, "idle": sums.idle });
        entry.insert("upstream_connections".to_owned(), connections);
    }
}

fn requests_of(sums: &Sums) -> Value {
    let codes: Map<_, _> = sums.by_code().map(|(code, count)| (code, count.into())).collect();
    json!({
        "total": sums.requests(),
        "codes": codes,
        "seconds": {
            "count": sums.timed(),
            "sum": sums.seconds(),
            "p50": sums.quantile(0.5),
            "p90": sums.quantile(0.9),
            "p99": sums.quantile(0.99),
        },
    })
}
