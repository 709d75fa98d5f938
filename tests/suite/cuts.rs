//! Connections cut at every byte of a small exchange: what the caller gets, and what the upstream, is the right one
//! of an answer, a safe retry, a 502 and an aborted body.
#![cfg(feature = "demo")]
#![allow(clippy::print_stdout, reason = "the figures of a run are worth having")]

mod callers;
mod exchanges;
mod http2;
mod oracle;
mod sweep;
mod upstreams;
