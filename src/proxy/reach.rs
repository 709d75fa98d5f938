//! What a caller may use: routes, and accounts of their credentials. Decided once, when the configuration is loaded. Pure.

use std::sync::Arc;

use crate::config::{Caller, Config, CredentialKind, Route};
use crate::credential::DEFAULT_ACCOUNT;
use crate::rights::Rights;

/// What one caller may use.
#[derive(Debug)]
pub(super) struct Reach {
    /// By route: may it use that at all?
    pub(super) routes: Vec<bool>,
    /// The accounts that it may name; none: all.
    accounts: Option<Vec<Arc<str>>>,
    /// What it may do there, by method and path.
    pub(super) rights: Rights,
}

impl Reach {
    /// What a caller of the configuration may use.
    pub(super) fn of(caller: &Caller, config: &Config) -> Self {
        let may_use = |(index, route): (usize, &Route)| {
            let named = caller.routes.as_ref().is_none_or(|routes| routes.contains(&index));
            let accounts = caller.accounts.as_ref();
            named && accounts.is_none_or(|accounts| unnamed(route, config).iter().all(|a| has(accounts, a)))
        };
        let routes = config.routes.iter().enumerate().map(may_use).collect();
        Self { routes, accounts: caller.accounts.clone(), rights: caller.rights.clone() }
    }

    /// May it name this account?
    pub(super) fn may_be(&self, account: &[u8]) -> bool {
        let Some(accounts) = &self.accounts else { return true };
        accounts.iter().any(|known| known.as_bytes() == account)
    }
}

fn has(accounts: &[Arc<str>], account: &str) -> bool {
    accounts.iter().any(|known| **known == *account)
}

/// The accounts that a request on this route may carry though it names none; empty where there are none to choose from.
fn unnamed<'a>(route: &'a Route, config: &'a Config) -> Vec<&'a str> {
    let Some(credential) = route.credential.map(|id| &config.credentials[id]) else { return Vec::new() };
    match (&route.account, &credential.kind) {
        (Some(account), _) => vec![account],
        // It must name one, and that is looked at then.
        (None, _) if credential.account_header.is_some() => Vec::new(),
        (None, CredentialKind::AuthorizationCode(_)) => vec![DEFAULT_ACCOUNT],
        (None, CredentialKind::ClientCredentials(grant)) => {
            let names = grant.clients.iter().map(|client| &*client.name);
            // A sole one without a name is called as its credential is.
            let is_sole = grant.clients.len() == 1;
            names.filter(|name| !is_sole || *name != &*credential.name).collect()
        }
        (None, _) => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Environment, LoadOptions, Source, load};

    const ROUTES: &str = r#"
[server]
listen = "127.0.0.1:0"
[route.plain]
path = "/plain"
upstream = "http://127.0.0.1:1"
credential = false
[route.one]
path = "/one"
upstream = "http://127.0.0.1:1"
credential = { type = "bearer", token = { value = "t" } }
[route.client]
path = "/client"
upstream = "http://127.0.0.1:1"
credential = { type = "client_credentials", token_url = "http://127.0.0.1:1/", client_id = "id", client_secret = { value = "s" } }
[route.either]
path = "/either"
upstream = "http://127.0.0.1:1"
credential = "clients"
[route.a]
path = "/a"
upstream = "http://127.0.0.1:1"
credential = "clients"
account = "a"
[route.login]
path = "/login"
upstream = "http://127.0.0.1:1"
credential = "people"
[route.named]
path = "/named"
upstream = "http://127.0.0.1:1"
credential = "named"
[credential.clients]
type = "client_credentials"
token_url = "http://127.0.0.1:1/"
clients = [{ name = "a", client_id = "a", client_secret = { value = "s" } }, { name = "b", client_id = "b", client_secret = { value = "s" } }]
[route.clash]
path = "/clash"
upstream = "http://127.0.0.1:1"
credential = "clash"
[credential.clash]
type = "client_credentials"
token_url = "http://127.0.0.1:1/"
clients = [{ name = "clash", client_id = "a", client_secret = { value = "s" } }, { name = "b", client_id = "b", client_secret = { value = "s" } }]
[credential.people]
type = "authorization_code"
auth_url = "http://127.0.0.1:1/auth"
token_url = "http://127.0.0.1:1/token"
client_id = "id"
auth_method = "none"
redirect_uri = "http://127.0.0.1:7699/callback"
[credential.named]
type = "authorization_code"
auth_url = "http://127.0.0.1:1/auth"
token_url = "http://127.0.0.1:1/token"
client_id = "id"
auth_method = "none"
redirect_uri = "http://127.0.0.1:7699/callback2"
account_header = "Sidekey-Account"
[store]
type = "memory"
"#;

    #[test]
    fn accounts_bound_what_a_caller_might_carry() {
        let cases: [(&str, &[&str]); 7] = [
            ("", &["plain", "one", "client", "either", "a", "login", "named", "clash"]),
            ("accounts = [\"a\"]", &["plain", "one", "client", "a", "named"]),
            ("accounts = [\"b\"]", &["plain", "one", "client", "named"]),
            ("accounts = [\"b\", \"a\"]", &["plain", "one", "client", "either", "a", "named"]),
            ("accounts = [\"default\"]", &["plain", "one", "client", "login", "named"]),
            ("routes = [\"either\", \"a\"]", &["either", "a"]),
            ("routes = [\"either\", \"a\"]\naccounts = [\"a\"]", &["a"]),
        ];
        for (keys, want) in cases {
            let text = format!("{ROUTES}[caller.c]\ntoken = {{ value = \"0123456789abcdef\" }}\n{keys}\n");
            let source = Source::Text { name: "t.toml".to_owned(), text };
            let loaded = load(&source, &Environment::default(), LoadOptions::default());
            let config = loaded.unwrap_or_else(|report| panic!("{report}")).config;
            let reach = Reach::of(&config.callers[0], &config);
            let may: Vec<_> = config.routes.iter().zip(&reach.routes).filter(|(_, may)| **may).collect();
            let may: Vec<&str> = may.into_iter().map(|(route, _)| &*route.name).collect();
            assert_eq!(may, want, "{keys}");
            assert_eq!(reach.may_be(b"a"), !keys.contains("accounts") || keys.contains("\"a\"]"), "{keys}");
        }
    }
}
