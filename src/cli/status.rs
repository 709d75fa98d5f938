//! `sidekey status`: what the running instance says of itself, once or again and again.

mod table;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use http::{Method, StatusCode};
use tokio::signal::unix::{SignalKind, signal};

use self::table::table;
use super::instance::{Found, ask, find, said};
use super::terminal::{Look, Screen};
use super::{ConfigArg, Failure, complain, runtime, say};
use crate::admin::report::Report;
use crate::admin::words;
use crate::config::{Admin, Environment};

/// How often `--watch` asks.
const WATCH: Duration = Duration::from_secs(1);

/// Prints what the running instance says of itself.
pub(super) fn status(
    arg: &ConfigArg,
    environment: &Environment,
    as_json: bool,
    watch: bool,
) -> Result<(), Failure> {
    let Found { admin, address, origin, .. } = find(arg, environment)?;
    runtime()?.block_on(async {
        let (mut text, mut report) = asked(&admin, address).await?;
        if is_another(&origin, &report.configuration) {
            complain(format_args!(
                "note: the instance on {address} is configured by {}, not by {origin}",
                report.configuration
            ));
        }
        let mut rates = Rates::default();
        loop {
            rates.see(&report);
            let look = Look::of_output(environment);
            if as_json {
                say(text.trim_end());
            } else if watch && look.in_place {
                return in_place(&admin, address, report, rates, environment).await;
            } else {
                say(table(&report, rates.known(watch), look).join("\n"));
            }
            if !watch {
                return Ok(());
            }
            if !as_json {
                say("");
            }
            tokio::time::sleep(WATCH).await;
            (text, report) = asked(&admin, address).await?;
        }
    })
}

/// Shows it on the terminal until somebody ends that. An instance that goes away may come back.
async fn in_place(
    admin: &Admin,
    address: SocketAddr,
    mut report: Report,
    mut rates: Rates,
    environment: &Environment,
) -> Result<(), Failure> {
    let failed = |error: std::io::Error| Failure::Running(format!("cannot wait for signals: {error}"));
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    let mut hang_up = signal(SignalKind::hangup()).map_err(failed)?;
    let screen = Screen::enter();
    let mut gone: Option<(Instant, String)> = None;
    let last = loop {
        let look = Look::of_output(environment);
        let mut lines = table(&report, rates.known(true), look);
        if let Some((since, why)) = &gone {
            let text = format!("not reachable for {}: {why}", words::span(since.elapsed().as_secs_f64()));
            lines.splice(0..0, [table::banner(&text, look), String::new()]);
        }
        screen.show(&lines, look.height);
        tokio::select! {
            () = tokio::time::sleep(WATCH) => {}
            _ = interrupt.recv() => break lines,
            _ = terminate.recv() => break lines,
            _ = hang_up.recv() => break lines,
        }
        match asked(admin, address).await {
            Ok((_, new)) => {
                rates.see(&new);
                (report, gone) = (new, None);
            }
            Err(Failure::Running(why)) => {
                rates = Rates::default();
                gone = Some((gone.map_or_else(Instant::now, |(since, _)| since), why));
            }
            Err(other) => return Err(other),
        }
    };
    drop(screen);
    say(last.join("\n"));
    Ok(())
}

/// What the instance says of itself, as text and as read.
async fn asked(admin: &Admin, address: SocketAddr) -> Result<(String, Report), Failure> {
    let stranger = |what: String| {
        Failure::Running(format!(
            "what answers on {address} is not sidekey ({what}); another program has the address of server.admin"
        ))
    };
    let answer = ask(address, Method::GET, "/status", None)
        .await
        .map_err(|error| Failure::Running(said(admin, &error)))?;
    if answer.status != StatusCode::OK {
        return Err(stranger(format!("it answers {} to GET /status", answer.status)));
    }
    let report = serde_json::from_slice(&answer.body);
    let report = report.map_err(|_| stranger("its /status is something else".to_owned()))?;
    Ok((String::from_utf8_lossy(&answer.body).into_owned(), report))
}

/// Is it surely another configuration? Relative paths may be the same seen from elsewhere.
fn is_another(ours: &str, theirs: &str) -> bool {
    let (ours, theirs) = (Path::new(ours), Path::new(theirs));
    if ours.is_absolute() && theirs.is_absolute() {
        return ours != theirs;
    }
    !theirs.as_os_str().is_empty() && ours.file_name() != theirs.file_name()
}

/// How many requests a second each route gets, from one answer to the next.
#[derive(Debug, Default)]
struct Rates {
    before: Option<(Instant, BTreeMap<String, u64>)>,
    rates: BTreeMap<String, f64>,
}

impl Rates {
    fn see(&mut self, report: &Report) {
        let now = Instant::now();
        let total =
            |route: &crate::admin::report::Route| Some((route.name.clone(), route.requests.as_ref()?.total));
        let totals: BTreeMap<String, u64> = report.routes.iter().filter_map(total).collect();
        if let Some((then, before)) = &self.before {
            let seconds = now.duration_since(*then).as_secs_f64().max(0.001);
            self.rates = rates(before, &totals, seconds);
        }
        self.before = Some((now, totals));
    }

    /// None: nobody asked for them.
    fn known(&self, watch: bool) -> Option<&BTreeMap<String, f64>> {
        watch.then_some(&self.rates)
    }
}

/// Counts that go down are those of another process.
#[expect(clippy::cast_precision_loss, reason = "shown in two digits")]
fn rates(before: &BTreeMap<String, u64>, now: &BTreeMap<String, u64>, seconds: f64) -> BTreeMap<String, f64> {
    let rate = |(name, total): (&String, &u64)| {
        let more = total.checked_sub(*before.get(name)?)?;
        Some((name.clone(), more as f64 / seconds))
    };
    now.iter().filter_map(rate).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_known_once_there_are_two_counts_of_one_process() {
        let counts = |pairs: &[(&str, u64)]| pairs.iter().map(|(name, n)| ((*name).to_owned(), *n)).collect();
        let before = counts(&[("a", 10), ("b", 10), ("c", 0)]);
        let now = counts(&[("a", 14), ("b", 3), ("new", 5), ("c", 0)]);
        let found: Vec<_> = rates(&before, &now, 2.0).into_iter().collect();
        assert_eq!(found, [("a".to_owned(), 2.0), ("c".to_owned(), 0.0)]);
    }

    #[test]
    fn another_configuration_is_told_by_its_file() {
        let cases = [
            ("/a/sidekey.toml", "/a/sidekey.toml", false),
            ("/a/sidekey.toml", "/b/sidekey.toml", true),
            ("sidekey.toml", "/b/sidekey.toml", false),
            ("./sidekey.toml", "sidekey.toml", false),
            ("other.toml", "/b/sidekey.toml", true),
            ("environment", "sidekey.toml", true),
            ("sidekey.toml", "", false),
        ];
        for (ours, theirs, want) in cases {
            assert_eq!(is_another(ours, theirs), want, "{ours} {theirs}");
        }
    }
}
