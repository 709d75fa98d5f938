//! Which rule refuses a request: for the log and `explain`, and in the caller's words, which tell no more than it needs.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

/// Whose rules refuse a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Whose {
    /// Those of the route of this name, which it takes.
    Route(Arc<str>),
    /// Those of the caller of this name, whom it comes from.
    Caller(Arc<str>),
}

impl fmt::Display for Whose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Route(name) => write!(f, "[route.{name}]"),
            Self::Caller(name) => write!(f, "[caller.{name}]"),
        }
    }
}

/// Which rule. `Display` is for the log and for `explain`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Rule {
    /// One of `allow` and `deny`, or that none of `allow` matches.
    #[error("{0}")]
    Written(String),
    /// A caller's `routes`.
    #[error("routes does not name this route")]
    Routes,
    /// A caller's `accounts`.
    #[error("accounts does not name this account")]
    Accounts,
    /// A route's `account`.
    #[error("account is another than the request names")]
    Account,
    /// No rule could judge a request that asks with this to be taken for another one.
    #[error("{0} could make it another request than the rules judge")]
    Overridden(&'static str),
    /// `read_only`.
    #[error("read_only = true")]
    ReadOnly,
    /// `read_only`, of a transaction that was not begun on its route.
    #[error("read_only = true, and the transaction was not begun on this route")]
    ForeignTransaction,
}

impl Rule {
    /// What the caller is told: what it may not do, and not what others may.
    pub(super) fn public_text(&self, whose: &Whose) -> Cow<'static, str> {
        Cow::Borrowed(match (self, whose) {
            (Self::Overridden(by), _) => {
                return Cow::Owned(format!(
                    "The request asks with {by} to be taken for another one, which rules cannot judge; send it as \
                     what it is."
                ));
            }
            (Self::Routes, _) => "This caller may not use this route.",
            (Self::Accounts, _) => "This caller may not use this account.",
            (Self::Account, _) => "This route is for another account than the request names.",
            (Self::ReadOnly, _) => "Only reading requests pass on this route.",
            (Self::ForeignTransaction, _) => {
                "The transaction was not begun on this route, on which only reading requests pass; begin one here."
            }
            (Self::Written(_), Whose::Route(_)) => {
                "The rules of this route do not let this method and path pass."
            }
            (Self::Written(_), Whose::Caller(_)) => {
                "The rules for this caller do not let this method and path pass."
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::error::ProxyError;
    use super::*;
    use crate::rights::{Pattern, Rights};

    #[test]
    fn the_log_names_the_rule_and_the_caller_is_not_told_it() {
        let rights = Rights { deny: vec![Pattern::parse("DELETE /canary/*").unwrap()], ..Rights::default() };
        let denied = rights.judge(&http::Method::DELETE, "/canary/x").unwrap_err();
        for (whose, log) in [
            (Whose::Route("api".into()), r#"[route.api]: deny "DELETE /canary/*""#),
            (Whose::Caller("ci".into()), r#"[caller.ci]: deny "DELETE /canary/*""#),
        ] {
            let error = ProxyError::denied(whose, denied);
            assert_eq!(error.to_string(), log);
            assert_eq!((error.status().as_u16(), error.code()), (403, "not_allowed"));
            let text = error.public_text();
            assert!(
                text.contains("do not let this method and path pass") && !text.contains("canary"),
                "{text}"
            );
        }
    }
}
