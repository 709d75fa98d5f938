//! How the server reads the Authorization header, and what it says of one that it does not like.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use http::StatusCode;
use http::header::{self, HeaderMap, HeaderValue};
use tokio::time::Instant;

use super::super::serve::Answer;
use super::super::tokens::{Check, Tokens};

/// A credential as presented. Two are the same only if every byte is.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Presented {
    Basic { user: String, password: String },
    Bearer(String),
}

pub(super) struct Auth {
    /// Name and password of each user.
    pub(super) users: Vec<(String, String)>,
    pub(super) bearers: Vec<String>,
    pub(super) tokens: Tokens,
    pub(super) base64: bool,
    pub(super) required: bool,
    pub(super) malformed: StatusCode,
    pub(super) lock_after: u32,
    pub(super) lock: Duration,
    /// For each user, the failures in a row and the time of the last.
    failures: Mutex<HashMap<String, (u32, Instant)>>,
}

/// Why a request is not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    Missing,
    Wrong,
    Malformed(StatusCode),
    Locked,
}

impl Auth {
    pub(super) fn new() -> Self {
        Self {
            users: Vec::new(),
            bearers: Vec::new(),
            tokens: Tokens::new(),
            base64: false,
            required: true,
            malformed: StatusCode::BAD_REQUEST,
            lock_after: 3,
            lock: Duration::from_secs(5),
            failures: Mutex::default(),
        }
    }

    /// Who a request comes from; `None` if the server does not ask.
    pub(super) fn admit(&self, headers: &HeaderMap) -> Result<Option<Presented>, Refusal> {
        if !self.required {
            return Ok(None);
        }
        let value = headers.get(header::AUTHORIZATION).ok_or(Refusal::Missing)?;
        let presented = parse(value).ok_or(Refusal::Malformed(self.malformed))?;
        match &presented {
            Presented::Basic { user, password } => self.log_in(user, password)?,
            Presented::Bearer(token) => {
                let decoded = self.base64.then(|| decoded(token)).flatten();
                let known =
                    self.accepts(token) || decoded.is_some_and(|token| self.accepts(token.trim_end()));
                if !known {
                    return Err(Refusal::Wrong);
                }
            }
        }
        Ok(Some(presented))
    }

    fn log_in(&self, user: &str, password: &str) -> Result<(), Refusal> {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        if let Some((count, last)) = failures.get(user)
            && *count >= self.lock_after
            && now.duration_since(*last) < self.lock
        {
            return Err(Refusal::Locked);
        }
        if self.users.iter().any(|(name, secret)| name == user && secret == password) {
            failures.remove(user);
            return Ok(());
        }
        let (count, last) = failures.entry(user.to_owned()).or_insert((0, now));
        *count += 1;
        *last = now;
        Err(Refusal::Wrong)
    }

    fn accepts(&self, token: &str) -> bool {
        self.bearers.iter().any(|known| known == token) || self.tokens.check(token) == Check::Valid
    }
}

/// Two words: the scheme in any case, then base64 of `user:password` or the token as it is.
fn parse(value: &HeaderValue) -> Option<Presented> {
    let mut words = value.to_str().ok()?.split_whitespace();
    let (scheme, word) = (words.next()?, words.next()?);
    if words.next().is_some() {
        return None;
    }
    match scheme.to_ascii_lowercase().as_str() {
        "basic" => {
            let text = decoded(word)?;
            let (user, password) = text.split_once(':')?;
            Some(Presented::Basic { user: user.to_owned(), password: password.to_owned() })
        }
        "bearer" => Some(Presented::Bearer(word.to_owned())),
        _ => None,
    }
}

fn decoded(word: &str) -> Option<String> {
    let bytes = STANDARD.decode(word).or_else(|_| STANDARD_NO_PAD.decode(word)).ok()?;
    String::from_utf8(bytes).ok()
}

impl Refusal {
    pub(super) fn into_answer(self) -> Answer {
        const UNAUTHORIZED: &str = "Neo.ClientError.Security.Unauthorized";
        let (status, code, message) = match self {
            Self::Missing => (StatusCode::UNAUTHORIZED, UNAUTHORIZED, "No authentication header supplied."),
            // The documents say "Invalid username or password." of a password.
            Self::Wrong => (StatusCode::UNAUTHORIZED, UNAUTHORIZED, "Invalid credential."),
            Self::Malformed(status) => {
                (status, "Neo.ClientError.Request.InvalidFormat", "Invalid authentication header.")
            }
            Self::Locked => (
                StatusCode::TOO_MANY_REQUESTS,
                "Neo.ClientError.Security.AuthenticationRateLimit",
                "Too many failed authentication requests. Please wait 5 seconds and try again.",
            ),
        };
        let mut answer = super::error(status, code, message);
        if status == StatusCode::UNAUTHORIZED {
            let challenge = HeaderValue::from_static("Basic realm=\"Neo4j\", Bearer realm=\"Neo4j\"");
            answer.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
        }
        answer
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_two_words_with_a_scheme_in_any_case() {
        let cases = [
            ("Basic bmVvNGo6dmVyeXNlY3JldA==", Some(("neo4j", "verysecret"))),
            ("bASIC  bmVvNGo6dmVyeXNlY3JldA==", Some(("neo4j", "verysecret"))),
            ("Basic bmVvNGo6YTpi", Some(("neo4j", "a:b"))),
            ("Basic not-proper-base64", None),
            ("Basic bmVvNGo=", None),
            ("Basic", None),
            ("Basic a b", None),
            ("Digest bmVvNGo6YTpi", None),
        ];
        for (header, want) in cases {
            let want = want
                .map(|(user, password)| Presented::Basic { user: user.into(), password: password.into() });
            assert!(parse(&HeaderValue::from_static(header)) == want, "{header}");
        }
        assert!(parse(&HeaderValue::from_static("BEARER a=b")) == Some(Presented::Bearer("a=b".into())));
    }

    #[tokio::test(start_paused = true)]
    async fn a_locked_user_may_try_again_when_the_time_is_over() {
        let mut auth = Auth::new();
        auth.users.push(("neo4j".into(), "right".into()));
        for _ in 0..3 {
            assert_eq!(auth.log_in("neo4j", "wrong"), Err(Refusal::Wrong));
        }
        assert_eq!(auth.log_in("neo4j", "right"), Err(Refusal::Locked));
        tokio::time::advance(Duration::from_secs(5)).await;
        assert_eq!(auth.log_in("neo4j", "right"), Ok(()));
        assert_eq!(auth.log_in("neo4j", "wrong"), Err(Refusal::Wrong));
    }
}
