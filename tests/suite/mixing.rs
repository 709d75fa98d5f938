//! Callers' answers are never swapped, whatever happens to connections: each request has a mark of its own, and so has
//! everything that comes back.
//!
//! `MIXING_EXCHANGES=100000 cargo test --release --test suite mixing -- --nocapture` makes so many in each of the four ways;
//! `MIXING_SEED` repeats the choices of a run that failed.
#![cfg(feature = "demo")]
#![allow(clippy::print_stdout, reason = "the figures of a run are worth having")]

mod callers;
mod ledger;
mod upstreams;

use std::sync::Arc;

use fastrand::Rng;
use tokio::task::JoinSet;

use crate::support::running::{aura, sidekey};
use crate::support::scripted::Scripted;
use ledger::Ledger;

/// Exchanges of each test, unless the environment says otherwise: what takes a few seconds.
const EXCHANGES: usize = 2000;
/// Callers of HTTP/1.1, each with a connection.
const HTTP1: usize = 12;
/// Connections of HTTP/2, each with many streams.
const HTTP2: usize = 3;

#[tokio::test]
async fn no_two_answers_are_swapped_over_http_1_1_on_one_worker() {
    mix("1.1", 1).await;
}

#[tokio::test]
async fn no_two_answers_are_swapped_over_http_1_1_on_two_workers() {
    mix("1.1", 2).await;
}

#[tokio::test]
async fn no_two_answers_are_swapped_over_http_2_on_one_worker() {
    mix("2", 1).await;
}

#[tokio::test]
async fn no_two_answers_are_swapped_over_http_2_on_two_workers() {
    mix("2", 2).await;
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|value| value.parse().unwrap_or_else(|_| panic!("{variable}={value}")))
}

async fn mix(http: &'static str, workers: usize) {
    let exchanges =
        number("MIXING_EXCHANGES").map_or(EXCHANGES, |count| usize::try_from(count).expect("a number"));
    let seed = number("MIXING_SEED").unwrap_or_else(|| fastrand::u64(..));
    println!("HTTP/{http}, {workers} workers: MIXING_SEED={seed}");
    let ledger = Arc::new(Ledger::new(exchanges));
    let upstream = {
        let ledger = Arc::clone(&ledger);
        Scripted::start(move |number, stream| {
            let (ledger, rng) = (Arc::clone(&ledger), Rng::with_seed(seed ^ (number as u64) << 20));
            async move {
                match http {
                    "2" => upstreams::http2(stream, rng, ledger).await.unwrap_or_default(),
                    _ => upstreams::http1(stream, rng, &ledger).await.unwrap_or_default(),
                }
            }
        })
        .await
    };
    let tokens = aura().await;
    let running = sidekey(&format!(
        "[server]\nlisten = \"127.0.0.1:0\"\nworkers = {workers}\n\
         [route.up]\npath = \"/\"\nupstream = \"http://{}\"\nhttp = \"{http}\"\ncredential = \"key\"\n\
         [credential.key]\ntype = \"client_credentials\"\ntoken_url = \"{}/oauth/token\"\nclient_id = \"id\"\n\
         basic_encoding = \"raw\"\nclient_secret = {{ value = \"s:cret\" }}\n",
        upstream.addr,
        tokens.url()
    ));
    running.settled().await;
    let mut callers = JoinSet::new();
    for number in 0..HTTP1 + HTTP2 {
        let (ledger, rng) = (Arc::clone(&ledger), Rng::with_seed(seed.wrapping_add(number as u64)));
        if number < HTTP1 {
            callers.spawn(callers::http1(running.addr, rng, ledger));
        } else {
            callers.spawn(callers::http2(running.addr, rng, ledger));
        }
    }
    callers.join_all().await;
    running.stop().await;
    println!("HTTP/{http}, {workers} workers, {} connections: {}", upstream.connections(), ledger.figures());
    ledger.check(&format!("MIXING_SEED={seed}"));
}
