//! What may pass: rules about a request's method and path. Pure.
//!
//! A rule that lets something pass is read strictly and one that refuses something generously: where servers read a
//! path in more ways than one, an `allow` holds for none that its author may not have meant, a `deny` for all of them.

mod overrides;
mod pattern;
mod walk;

use std::fmt;

use http::Method;

pub use self::overrides::{override_in, override_of};
pub use self::pattern::{Pattern, PatternError};

/// What a route or a caller may do. `Default`: everything.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rights {
    /// The only requests that pass; empty: all do that `deny` lets.
    pub allow: Vec<Pattern>,
    /// Requests that do not pass, whatever `allow` says.
    pub deny: Vec<Pattern>,
}

/// Which rule refused a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Denied<'a> {
    /// This one of `deny`.
    By(&'a Pattern),
    /// None of `allow` matches.
    NotAllowed,
}

impl Rights {
    /// Are there any rules?
    pub fn are_limited(&self) -> bool {
        !(self.allow.is_empty() && self.deny.is_empty())
    }

    /// May a request pass? `path`: normalized, without the route's prefix and without the query.
    ///
    /// # Errors
    /// The rule that refuses it.
    pub fn judge(&self, method: &Method, path: &str) -> Result<(), Denied<'_>> {
        if let Some(rule) = self.deny.iter().find(|rule| rule.denies(method, path)) {
            return Err(Denied::By(rule));
        }
        if self.allow.is_empty() || self.allow.iter().any(|rule| rule.allows(method, path)) {
            Ok(())
        } else {
            Err(Denied::NotAllowed)
        }
    }
}

impl fmt::Display for Denied<'_> {
    /// For the log and for whoever asks why: `deny "DELETE /instances/*"`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::By(rule) => write!(f, "deny {:?}", rule.text()),
            Self::NotAllowed => f.write_str("no rule of allow matches"),
        }
    }
}

#[cfg(test)]
mod tests;
