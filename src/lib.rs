//! sidekey: a local HTTP sidecar that authenticates.
pub mod config;
pub mod secret;
