//! An OAuth 2.0 client: client authentication, discovery, the authorization code grant with PKCE, client
//! credentials, refresh and revocation. Stateless but for the server's metadata; no retry, no caching of tokens.

pub mod answer;
mod assertion;
mod authentication;
pub mod authorize;
pub mod client;
pub mod discovery;
pub mod error;

pub use self::client::{Granted, OAuthClient, OAuthError, Sent};
