//! `GET /status` as those read it who show it to people: the page and `sidekey status`. What an instance does not say is
//! left open, so that a command can ask one of another version.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::words;

/// All of it.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct Report {
    /// In a word or two; every instance says it.
    pub readiness: String,
    /// The program's.
    #[serde(default)]
    pub version: String,
    /// Since its start.
    #[serde(default)]
    pub uptime_seconds: f64,
    /// What is wrong, each in words.
    #[serde(default)]
    pub reasons: Vec<String>,
    /// Where the configuration comes from.
    #[serde(default)]
    pub configuration: String,
    /// How other configurations were taken up.
    #[serde(default)]
    pub reloads: Reloads,
    /// Where callers connect.
    #[serde(default)]
    pub listeners: Vec<String>,
    /// In the order of the configuration.
    #[serde(default)]
    pub routes: Vec<Route>,
    /// In the order of the configuration.
    #[serde(default)]
    pub credentials: Vec<Credential>,
    /// In the order of the configuration.
    #[serde(default)]
    pub accounts: Vec<Account>,
    /// The store of grants.
    #[serde(default)]
    pub store: Option<Store>,
    /// None: there is none.
    #[serde(default)]
    pub sandbox: Option<Sandbox>,
    /// By reason.
    #[serde(default)]
    pub refusals: BTreeMap<String, u64>,
}

/// How other configurations were taken up since the start.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct Reloads {
    /// So many were.
    #[serde(default)]
    pub taken_up: u64,
    /// Is the configuration in force not the one that was asked for last?
    #[serde(default)]
    pub last_was_refused: bool,
}

/// A route.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct Route {
    /// Its name.
    pub name: String,
    /// What kind of service it talks to.
    #[serde(default)]
    pub provider: String,
    /// Where it is reached.
    #[serde(default)]
    pub urls: Vec<String>,
    /// Where it leads.
    #[serde(default)]
    pub upstream: String,
    /// Through what.
    #[serde(default)]
    pub egress_proxy: Option<String>,
    /// What it carries; none: nothing.
    #[serde(default)]
    pub credential: Option<String>,
    /// Since the start; none: nobody counts.
    #[serde(default)]
    pub requests: Option<Requests>,
    /// Those of now; none: nobody counts.
    #[serde(default)]
    pub upstream_connections: Option<Connections>,
}

/// A route's requests since the start.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct Requests {
    /// All of them.
    pub total: u64,
    /// By the status of their answer.
    #[serde(default)]
    pub codes: BTreeMap<String, u64>,
    /// How long they took.
    #[serde(default)]
    pub seconds: Seconds,
}

/// How long requests took, in seconds.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct Seconds {
    /// Half of them took no longer.
    #[serde(default)]
    pub p50: Option<f64>,
    /// All but one in a hundred took no longer.
    #[serde(default)]
    pub p99: Option<f64>,
}

/// A route's connections to its upstream.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct Connections {
    /// With a request on them.
    #[serde(default)]
    pub active: u64,
    /// Kept for the next.
    #[serde(default)]
    pub idle: u64,
}

/// A credential.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct Credential {
    /// Its name.
    pub name: String,
    /// Does it come by logins?
    #[serde(default)]
    pub login: bool,
    /// The header in which callers name the account.
    #[serde(default)]
    pub account_header: Option<String>,
}

/// An account.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct Account {
    /// Whose account it is.
    pub credential: String,
    /// Its name within it.
    pub account: String,
    /// In a word of the program's.
    #[serde(default)]
    pub state: String,
    /// Is there a valid token?
    #[serde(default)]
    pub has_token: bool,
    /// Does nothing help but a login?
    #[serde(default)]
    pub login_required: bool,
    /// Since the token in force was asked for.
    #[serde(default)]
    pub age_seconds: Option<f64>,
    /// Until it expires.
    #[serde(default)]
    pub expires_in_seconds: Option<f64>,
    /// Until the next try, after a failure.
    #[serde(default)]
    pub next_try_seconds: Option<f64>,
    /// What the last fetch failed with.
    #[serde(default)]
    pub last_error: Option<String>,
    /// Fetches that brought a token.
    #[serde(default)]
    pub fetches: u64,
    /// Fetches that failed.
    #[serde(default)]
    pub failures: u64,
    /// Leases that upstreams refused.
    #[serde(default)]
    pub refusals: u64,
}

/// The store of grants.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct Store {
    /// Did the last call succeed?
    #[serde(default)]
    pub writable: bool,
    /// What it failed with.
    #[serde(default)]
    pub error: Option<String>,
    /// Grants that are in memory alone.
    #[serde(default)]
    pub unsaved: u64,
    /// Refresh tokens that were presented without a known outcome.
    #[serde(default)]
    pub uncertain: u64,
    /// Those that a second try brought back.
    #[serde(default)]
    pub recovered: u64,
    /// Those that were lost.
    #[serde(default)]
    pub lost: u64,
    /// Grants that the store was given back.
    #[serde(default)]
    pub restored: u64,
}

/// What the kernel keeps the process to.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct Sandbox {
    /// The version of Landlock in force; none: it is not confined.
    #[serde(default)]
    pub landlock: Option<u64>,
    /// What it leaves open.
    #[serde(default)]
    pub not_confined: Vec<String>,
    /// What was not there at the start.
    #[serde(default)]
    pub absent: Vec<String>,
    /// TCP ports.
    #[serde(default)]
    pub connects_to_ports: Vec<u16>,
    /// Paths.
    #[serde(default)]
    pub reads: Vec<String>,
    /// Paths.
    #[serde(default)]
    pub writes: Vec<String>,
}

impl Report {
    /// The accounts as people look for them: what needs somebody first, then what fails, then the rest; otherwise in the
    /// order of the configuration.
    pub fn by_need(&self) -> Vec<&Account> {
        let mut accounts: Vec<&Account> = self.accounts.iter().collect();
        accounts.sort_by_key(|account| words::rank(account));
        accounts
    }

    /// The logins of which nobody has any account yet.
    pub fn untouched_logins(&self) -> impl Iterator<Item = &Credential> {
        let has_account = |name: &str| self.accounts.iter().any(|account| account.credential == name);
        self.credentials.iter().filter(move |credential| credential.login && !has_account(&credential.name))
    }
}

impl Requests {
    /// How many were answered with a status that begins with this digit.
    pub fn of_class(&self, first: char) -> u64 {
        self.codes.iter().filter(|(code, _)| code.starts_with(first)).map(|(_, count)| count).sum()
    }
}

impl Account {
    /// How much of its token's life is left, from 0 to 1; none: it does not expire, or there is none.
    pub fn left(&self) -> Option<f64> {
        let left = self.expires_in_seconds.filter(|_| self.has_token)?;
        let whole = left + self.age_seconds?;
        (whole > 0.0).then(|| (left / whole).clamp(0.0, 1.0))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_status_without_what_other_versions_say_is_read() {
        let bare: Report = serde_json::from_value(json!({ "readiness": "ready" })).unwrap();
        assert!(bare.routes.is_empty() && bare.store.is_none());
        let requests = json!({ "total": 3, "codes": { "200": 2, "404": 1 }, "seconds": { "count": 0, "sum": 0.0, "p50": null, "p90": null, "p99": null } });
        let status = json!({
            "readiness": "ready",
            "routes": [{ "name": "a" }, { "name": "b", "requests": requests, "more": [1] }],
        });
        let full: Report = serde_json::from_value(status).unwrap();
        assert!(full.routes[0].requests.is_none());
        let requests = full.routes[1].requests.as_ref().unwrap();
        assert_eq!((requests.of_class('2'), requests.of_class('4'), requests.of_class('5')), (2, 1, 0));
        assert!(serde_json::from_value::<Report>(json!({ "hello": "world" })).is_err(), "not sidekey's");
    }

    #[test]
    fn what_is_left_of_a_token_is_a_share_of_its_life() {
        let account = |has_token, age, expires| Account {
            has_token,
            age_seconds: age,
            expires_in_seconds: expires,
            ..Account::default()
        };
        let cases = [
            (account(true, Some(25.0), Some(75.0)), Some(0.75)),
            (account(true, Some(100.0), Some(0.0)), Some(0.0)),
            (account(true, Some(100.0), None), None),
            (account(true, Some(0.0), Some(0.0)), None),
            (account(false, Some(100.0), Some(0.0)), None),
        ];
        for (account, want) in cases {
            assert_eq!(account.left(), want, "{account:?}");
        }
    }
}
