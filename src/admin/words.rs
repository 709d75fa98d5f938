//! A status in words, for the page and for `sidekey status`. What the page's script says of the same is the same. Pure.

use super::report::{Account, Reloads, Requests, Sandbox, Store};

/// How much something matters to who looks at it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tone {
    /// As it should be.
    Good,
    /// Neither good nor bad.
    Plain,
    /// It serves on, but not for ever.
    Warning,
    /// It does not serve.
    Bad,
}

impl Tone {
    /// As a class of the page.
    pub fn class(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Plain => "plain",
            Self::Warning => "warning",
            Self::Bad => "bad",
        }
    }
}

/// What a readiness means, and how much it matters.
pub fn readiness(word: &str) -> (Tone, &'static str) {
    match word {
        "ready" => (Tone::Good, "Every required credential has a valid token."),
        "degraded" => (Tone::Warning, "Every required credential has a valid token, but something fails."),
        _ => (Tone::Bad, "New requests should not come here."),
    }
}

/// How often another configuration was taken up; empty: never.
pub fn reloads(reloads: &Reloads) -> String {
    match reloads.taken_up {
        0 => String::new(),
        1 => ", reloaded once".to_owned(),
        count => format!(", reloaded {} times", number(count)),
    }
}

/// What is said while the configuration in force is not the one that was asked for last.
pub const RELOAD_REFUSED: &str = "The configuration that was to be taken up last was refused, so the one before it is in force. sidekey check says why.";

/// An account's state as people say it.
pub fn state(account: &Account) -> (Tone, &str) {
    match account.state.as_str() {
        "ready" => (Tone::Good, "ready"),
        "login_required" => (Tone::Bad, "login needed"),
        "dead" => (Tone::Bad, "dead"),
        "failing" if account.has_token => (Tone::Warning, "failing"),
        "failing" => (Tone::Bad, "failing"),
        other => (Tone::Plain, other),
    }
}

/// Which accounts come first.
pub fn rank(account: &Account) -> u8 {
    match state(account).0 {
        _ if account.login_required => 0,
        Tone::Bad => 1,
        Tone::Warning => 2,
        Tone::Plain | Tone::Good => 3,
    }
}

/// What there is of a token.
pub fn token(account: &Account) -> String {
    match account.expires_in_seconds {
        _ if !account.has_token => "no token".to_owned(),
        Some(left) => format!("{} left", span(left)),
        None => "does not expire".to_owned(),
    }
}

/// When it is tried again.
pub fn next_try(account: &Account) -> Option<String> {
    let seconds = account.next_try_seconds?;
    Some(if seconds < 1.0 { "next try now".to_owned() } else { format!("next try in {}", span(seconds)) })
}

/// What was fetched and what was not.
pub fn fetches(account: &Account) -> String {
    let mut text = format!("{} fetched", number(account.fetches));
    for (count, what) in [(account.failures, "failed"), (account.refusals, "refused upstream")] {
        if count > 0 {
            text.push_str(&format!(", {} {what}", number(count)));
        }
    }
    text
}

/// How many accounts are in which state: the worst first.
pub fn census<'a>(accounts: impl Iterator<Item = &'a Account>) -> String {
    let mut counts: Vec<(&str, u64)> = Vec::new();
    for account in accounts {
        let (_, word) = state(account);
        match counts.iter_mut().find(|(known, _)| *known == word) {
            Some((_, count)) => *count += 1,
            None => counts.push((word, 1)),
        }
    }
    let parts = counts.iter().map(|(word, count)| format!("{} {word}", number(*count)));
    parts.collect::<Vec<_>>().join(" · ")
}

/// Half and nearly all of a route's requests.
pub fn latency(requests: &Requests) -> Option<String> {
    let (half, most) = (requests.seconds.p50?, requests.seconds.p99?);
    // Each with its unit on one line.
    let part = |name, seconds| format!("{name} {}", short(seconds)).replace(' ', "\u{a0}");
    Some(format!("{} · {}", part("p50", half), part("p99", most)))
}

/// What a reason for refusals means.
pub fn refusal(reason: &str) -> &'static str {
    match reason {
        "bad_request" => "a request that can be read in two ways, or not at all",
        "forbidden_host" => "a Host that sidekey does not answer for",
        "cross_site" => "a web page of another site",
        "method_refused" => "a method that is not for the path",
        "caller_unknown" => "nothing shown that tells who it is from",
        "not_allowed" => "what the caller or the route may not do",
        "no_route" => "nothing at that path",
        "rate_limited" => "more than the pace of the route",
        "overloaded" => "more at once than there is room for",
        "too_large" => "a body beyond the limit",
        "target_too_long" => "a URL beyond the limit",
        "headers_too_large" => "headers beyond the limit",
        _ => "anything else",
    }
}

/// How the store does.
pub fn store(store: &Store) -> (Tone, String) {
    match &store.error {
        Some(error) => {
            (Tone::Warning, format!("It fails: {error}. {} in memory alone.", grants(store.unsaved)))
        }
        None if store.writable => (Tone::Good, "It takes what it is given.".to_owned()),
        None => (Tone::Plain, "Nothing was written yet.".to_owned()),
    }
}

fn grants(count: u64) -> String {
    if count == 1 { "1 grant is".to_owned() } else { format!("{} grants are", number(count)) }
}

/// How far the process is confined.
pub fn sandbox(sandbox: Option<&Sandbox>) -> (Tone, String) {
    match sandbox.map(|sandbox| sandbox.landlock) {
        Some(Some(version)) => (Tone::Good, format!("On: Landlock, version {version}.")),
        Some(None) => (Tone::Warning, "Not confined: the kernel has no Landlock.".to_owned()),
        None => (Tone::Plain, "Off.".to_owned()),
    }
}

/// A time span in its two largest units.
pub fn span(seconds: f64) -> String {
    let whole = whole(seconds);
    let (days, hours, minutes, rest) = (whole / 86_400, whole / 3600 % 24, whole / 60 % 60, whole % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{rest} s"),
        (0, 0, _) => format!("{minutes} min {rest} s"),
        (0, _, _) => format!("{hours} h {minutes} min"),
        _ => format!("{days} d {hours} h"),
    }
}

/// A time that a request takes, in two or three digits.
pub fn short(seconds: f64) -> String {
    match seconds * 1000.0 {
        ms if ms < 10.0 => format!("{ms:.1} ms"),
        ms if ms < 1000.0 => format!("{ms:.0} ms"),
        _ if seconds < 60.0 => format!("{seconds:.1} s"),
        _ => span(seconds),
    }
}

/// A count, its thousands apart.
pub fn number(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Whole seconds of what may be nonsense.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped before")]
fn whole(seconds: f64) -> u64 {
    if seconds.is_finite() { seconds.clamp(0.0, 1e15) as u64 } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_and_counts_are_short_and_say_their_unit() {
        let cases = [
            (0.0, "0 s"),
            (-3.0, "0 s"),
            (f64::NAN, "0 s"),
            (59.9, "59 s"),
            (60.0, "1 min 0 s"),
            (3599.0, "59 min 59 s"),
            (3600.0, "1 h 0 min"),
            (90_000.0, "1 d 1 h"),
        ];
        for (seconds, want) in cases {
            assert_eq!(span(seconds), want);
        }
        let cases =
            [(0.0004, "0.4 ms"), (0.0099, "9.9 ms"), (0.25, "250 ms"), (1.25, "1.2 s"), (61.0, "1 min 1 s")];
        for (seconds, want) in cases {
            assert_eq!(short(seconds), want);
        }
        for (count, want) in [(0, "0"), (999, "999"), (1000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(number(count), want);
        }
    }

    #[test]
    fn an_account_is_told_by_what_it_means_for_requests() {
        let account = |state: &str, has_token, login_required| Account {
            state: state.to_owned(),
            has_token,
            login_required,
            ..Account::default()
        };
        let cases = [
            (account("ready", true, false), Tone::Good, "ready", 3),
            (account("refreshing", true, false), Tone::Plain, "refreshing", 3),
            (account("fetching", false, false), Tone::Plain, "fetching", 3),
            (account("idle", false, false), Tone::Plain, "idle", 3),
            (account("failing", true, false), Tone::Warning, "failing", 2),
            (account("failing", true, true), Tone::Warning, "failing", 0),
            (account("failing", false, false), Tone::Bad, "failing", 1),
            (account("dead", false, false), Tone::Bad, "dead", 1),
            (account("login_required", false, true), Tone::Bad, "login needed", 0),
        ];
        for (account, tone, word, place) in &cases {
            assert_eq!((state(account), rank(account)), ((*tone, *word), *place), "{account:?}");
        }
        let all = cases.iter().map(|(account, ..)| account);
        assert_eq!(
            census(all),
            "1 ready · 1 refreshing · 1 fetching · 1 idle · 3 failing · 1 dead · 1 login needed"
        );
    }

    #[test]
    fn what_is_left_and_when_it_is_tried_again_is_said_in_words() {
        let account = Account {
            has_token: true,
            expires_in_seconds: Some(61.0),
            next_try_seconds: Some(0.2),
            fetches: 1200,
            failures: 1,
            ..Account::default()
        };
        assert_eq!(token(&account), "1 min 1 s left");
        assert_eq!(next_try(&account).as_deref(), Some("next try now"));
        assert_eq!(fetches(&account), "1,200 fetched, 1 failed");
        assert_eq!(token(&Account { expires_in_seconds: None, ..account.clone() }), "does not expire");
        assert_eq!(token(&Account { has_token: false, ..account.clone() }), "no token");
        let later = Account { next_try_seconds: Some(12.0), ..account };
        assert_eq!(next_try(&later).as_deref(), Some("next try in 12 s"));
        let failing = Store { error: Some("full".to_owned()), unsaved: 1, ..Store::default() };
        assert_eq!(store(&failing).1, "It fails: full. 1 grant is in memory alone.");
    }
}
