//! sidekey: a local HTTP sidecar that puts the right `Authorization` header on every request.
//!
//! Two halves that meet in one call, [`credential::TokenPool::lease`].
//!
//! The life of a request: [`server`] accepts it, [`proxy`] asks the [`guard`], finds the route, cleans the headers,
//! takes a lease, and sends it upstream; the answer streams back the same way.
//!
//! The life of a token: [`credential`] fetches it through [`fetch`] before it is needed, keeps it while it lasts,
//! and gives it out as a lease; an upstream that refuses it sends it back.
//!
//! Top down, each module imports only what stands below it: [`cli`] ▸ [`app`] ▸ [`server`], [`admin`] and [`demo`] ▸ [`proxy`] ▸
//! [`guard`] and [`credential`] ▸ [`oauth`] and [`store`] ▸ [`fetch`] ▸ [`dial`] ▸ [`header`], [`config`] and [`tls`] ▸ [`rights`], [`secret`], [`clock`], [`telemetry`].

pub mod admin;
pub mod app;
pub mod cli;
pub mod clock;
pub mod config;
pub mod credential;
#[cfg(feature = "demo")]
pub mod demo;
pub mod dial;
pub mod fetch;
pub mod guard;
pub mod header;
pub mod login;
pub mod oauth;
pub mod proxy;
pub mod rights;
pub mod secret;
pub mod server;
pub mod store;
pub mod telemetry;
pub mod tls;
