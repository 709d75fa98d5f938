//! The web pages that a route is open to.

use std::time::Duration;

use http::HeaderName;

/// Who may call from a web page, and what sidekey says of it to browsers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cors {
    /// Origins as browsers write them (RFC 6454 §6.2): lower case, without a default port. At least one.
    pub origins: Vec<Box<str>>,
    /// May pages send what the browser keeps for sidekey's address?
    pub credentials: bool,
    /// Headers that pages may read, besides those that they always may.
    pub expose: Vec<HeaderName>,
    /// How long the answer to a preflight holds.
    pub max_age: Duration,
}
