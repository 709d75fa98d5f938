//! A grant as it is kept, and every decision about one. Pure.
//!
//! Refresh tokens rotate: each may be presented once, and a second use kills the whole chain. So each step is written
//! down before the next: an [`Intent`] before the token is presented, the outcome after it. Whoever finds an intent
//! without an outcome knows that the token may be used up.

use std::time::{Duration, SystemTime};

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use zeroize::Zeroizing;

use crate::config::Encoding;
use crate::header::AuthHeader;
use crate::oauth::Granted;
use crate::secret::Secret;

/// What is kept of one account's login.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// The format of this record.
    version: u32,
    /// When the login or logout was that it stems from, in Unix milliseconds, but later than the one before in any case.
    /// Whatever stems from an earlier one is out of date, however often that was refreshed.
    pub era: u64,
    /// Counts what logins, refreshes and ends have made of the account's grant; a lower one is out of date.
    pub generation: u64,
    /// Can it be refreshed?
    pub life: Life,
    /// The access token that came with it.
    pub access: Option<Access>,
    /// What was granted, as the server tells it.
    pub scope: Option<String>,
    /// Someone is about to present the refresh token, or has and does not know the outcome.
    pub intent: Option<Intent>,
}

/// Can a grant be refreshed?
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Life {
    /// With this refresh token.
    Live(Token),
    /// No: the server gave no refresh token. The access token serves for as long as it lasts.
    Unrenewable,
    /// No: the server said that it is over.
    Ended {
        /// Had its refresh token been presented before without a known outcome?
        uncertain: bool,
    },
    /// No: somebody logged out. Its access token is of no use any more either.
    LoggedOut,
}

/// An access token with its span on the wall clock: other processes read it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Access {
    token: Token,
    /// Unix milliseconds.
    issued: u64,
    /// Unix milliseconds.
    expires: u64,
}

/// A refresh token is about to be presented, or was, and nothing is known of what came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Intent {
    /// How often it was presented in this generation without a known outcome, this time included.
    pub tries: u32,
    /// When, in Unix milliseconds.
    at: u64,
    /// Is it over, though nobody knows how it ended?
    over: bool,
    /// Is whoever wrote it alive, but stuck past its time? What it brings, if it goes on, is worth waiting for.
    #[serde(default)]
    stuck: bool,
}

/// A secret within a record: kept as text, never shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token(pub Secret);

impl Serialize for Token {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.0.expose())
    }
}

impl<'de> Deserialize<'de> for Token {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(|text| Self(Secret::new(text)))
    }
}

/// What to do for somebody who wants a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Use the access token at hand.
    Take(Access),
    /// Present the refresh token.
    Refresh(Secret),
    /// Present it not before this has passed: somebody may be about to.
    Wait(Duration),
    /// Nothing helps but a login.
    LogIn(Why),
}

/// Why a login is needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Why {
    /// Nobody has logged in.
    #[error("nobody has logged in to it yet")]
    Never,
    /// Somebody has logged out.
    #[error("somebody logged out of it")]
    LoggedOut,
    /// The server ended it.
    #[error("the authorization server has ended the grant")]
    Ended,
    /// The server ended it after its refresh token had been presented without a known outcome.
    #[error("the grant was lost: the refresh token had been presented, and the answer to that never arrived")]
    Lost,
    /// The grant cannot be renewed.
    #[error(
        "its token has run out and there is no refresh token; ask for the scope that gives one (offline_access, mostly)"
    )]
    Unrenewable,
}

const VERSION: u32 = 1;
/// A token of which more than this has passed is not worth taking in place of one that is due.
const WORTH_TAKING: f64 = 0.75;
/// The same where there is no other.
const BETTER_THAN_NONE: f64 = 0.95;
/// How long somebody is waited for who was stopped while it presented a refresh token. Its successor may lie unread.
const STUCK: Duration = Duration::from_secs(300);

impl Grant {
    /// What a login yielded, following `earlier`.
    pub fn of_login(granted: &Granted, earlier: Option<&Self>, now: SystemTime) -> Self {
        let life = match &granted.refresh_token {
            Some(token) => Life::Live(Token(token.clone())),
            None => Life::Unrenewable,
        };
        Self {
            version: VERSION,
            era: era(earlier, now),
            generation: earlier.map_or(0, |earlier| earlier.generation) + 1,
            life,
            access: access(granted, now),
            scope: granted.scope.clone(),
            intent: None,
        }
    }

    /// What a refresh yielded. Without a new refresh token, the old one stays (RFC 6749 §6).
    pub fn refreshed(&self, granted: &Granted, now: SystemTime) -> Self {
        let life = match &granted.refresh_token {
            Some(token) => Life::Live(Token(token.clone())),
            None => self.life.clone(),
        };
        Self {
            generation: self.generation + 1,
            life,
            access: access(granted, now),
            scope: granted.scope.clone().or_else(|| self.scope.clone()),
            intent: None,
            ..self.clone()
        }
    }

    /// The server said that it is over. The access token may serve on.
    pub fn ended(&self) -> Self {
        let uncertain = self.intent.is_some_and(|intent| intent.tries > 1);
        Self {
            generation: self.generation + 1,
            life: Life::Ended { uncertain },
            intent: None,
            ..self.clone()
        }
    }

    /// Somebody logs out: nothing secret is left. Kept, so that its absence is never taken for a store that forgot.
    pub fn logged_out(&self, now: SystemTime) -> Self {
        Self {
            version: VERSION,
            era: era(Some(self), now),
            generation: self.generation + 1,
            life: Life::LoggedOut,
            access: None,
            scope: None,
            intent: None,
        }
    }

    /// Its refresh token is about to be presented.
    pub fn intending(&self, now: SystemTime) -> Self {
        let tries = self.intent.map_or(0, |intent| intent.tries) + 1;
        Self {
            intent: Some(Intent { tries, at: unix_millis(now), over: false, stuck: false }),
            ..self.clone()
        }
    }

    /// The presentation came to an end, and nobody knows to which.
    pub fn uncertain(&self) -> Self {
        let intent = self.intent.map(|intent| Intent { over: true, ..intent });
        Self { intent, ..self.clone() }
    }

    /// Whoever is about to present it is alive, but stuck. None: nobody is about to, or it is known already.
    pub fn stuck(&self) -> Option<Self> {
        let intent = self.intent.filter(|intent| !intent.over && !intent.stuck)?;
        Some(Self { intent: Some(Intent { stuck: true, ..intent }), ..self.clone() })
    }

    /// Is this the same step of the same grant as `other`, whatever has been noted on it since?
    pub fn is_same_attempt(&self, other: &Self) -> bool {
        let step = |grant: &Self| {
            (grant.era, grant.generation, grant.intent.map(|intent| (intent.tries, intent.at)))
        };
        step(self) == step(other)
    }

    /// Has its refresh token been presented without a known outcome?
    pub fn is_uncertain(&self) -> bool {
        self.intent.is_some()
    }

    /// The refresh token, where there is one.
    pub fn refresh_token(&self) -> Option<&Secret> {
        match &self.life {
            Life::Live(token) => Some(&token.0),
            Life::Unrenewable | Life::Ended { .. } | Life::LoggedOut => None,
        }
    }

    /// Is it newer than `other`? The later login or logout counts first. Of two of one generation, the one that can be refreshed is: the other's end was told
    /// to somebody who presented the token a second time.
    pub fn is_newer_than(&self, other: &Self) -> bool {
        let rank = |grant: &Self| (grant.era, grant.generation, matches!(grant.life, Life::Live(_)));
        rank(self) > rank(other)
    }

    /// From the bytes in the store. None: they are no grant that this version knows.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        serde_json::from_slice(bytes).ok().filter(|grant: &Self| grant.version == VERSION)
    }

    /// The bytes for the store.
    pub fn to_bytes(&self) -> Zeroizing<Vec<u8>> {
        // A buffer of the final size: a growing one would leave copies behind.
        let mut bytes = Zeroizing::new(Vec::with_capacity(64 * 1024));
        // Numbers and texts: there is nothing that could fail.
        let _ = serde_json::to_writer(&mut *bytes, self);
        bytes
    }
}

/// What to do for somebody who wants a token other than `unlike`. `limit`: how long one presentation may take.
pub fn step(
    grant: Option<&Grant>,
    unlike: Option<&AuthHeader>,
    encoding: Encoding,
    now: SystemTime,
    limit: Duration,
) -> Step {
    let Some(grant) = grant else { return Step::LogIn(Why::Never) };
    if let Some(access) = &grant.access {
        let is_other = unlike.map(|unlike| access.header(encoding).is_ok_and(|header| header != *unlike));
        if access.is_worth_taking(is_other, now) {
            return Step::Take(access.clone());
        }
    }
    let token = match &grant.life {
        Life::Live(token) => &token.0,
        Life::Unrenewable => return Step::LogIn(Why::Unrenewable),
        Life::Ended { uncertain: false } => return Step::LogIn(Why::Ended),
        Life::Ended { uncertain: true } => return Step::LogIn(Why::Lost),
        Life::LoggedOut => return Step::LogIn(Why::LoggedOut),
    };
    if let Some(intent) = grant.intent.filter(|intent| !intent.over) {
        // Whoever was about to present it has given up when its time limit is over, on whatever machine it is, unless it
        // is stopped.
        let limit = if intent.stuck { STUCK.max(limit) } else { limit };
        let passed = Duration::from_millis(unix_millis(now).saturating_sub(intent.at));
        if intent.at <= unix_millis(now) && passed < limit {
            return Step::Wait(limit - passed);
        }
    }
    Step::Refresh(token.clone())
}

impl Access {
    /// The header that it makes.
    ///
    /// # Errors
    /// When it holds a character that no header may carry.
    pub fn header(&self, encoding: Encoding) -> Result<AuthHeader, crate::header::IllegalCharacter> {
        AuthHeader::bearer(&self.token.0, encoding)
    }

    /// How long it lives from `now` on; none: it is dead.
    pub fn left(&self, now: SystemTime) -> Option<Duration> {
        // A clock that is behind the issuer's must not make a token live longer than it was given.
        let span = self.expires.saturating_sub(self.issued);
        let left = self.expires.checked_sub(unix_millis(now)).filter(|left| *left > 0)?;
        Some(Duration::from_millis(left.min(span)))
    }

    /// Is it worth taking instead of a fetch? `is_other`: is it another than the one that is to be replaced; none: there
    /// is no such.
    pub fn is_worth_taking(&self, is_other: Option<bool>, now: SystemTime) -> bool {
        let Some(left) = self.left(now) else { return false };
        let span = Duration::from_millis(self.expires.saturating_sub(self.issued));
        let passed = 1.0 - left.as_secs_f64() / span.as_secs_f64();
        match is_other {
            Some(is_other) => is_other && passed < WORTH_TAKING,
            None => passed < BETTER_THAN_NONE,
        }
    }

    /// The token.
    pub fn token(&self) -> &Secret {
        &self.token.0
    }

    /// A token that was asked for at `asked`.
    pub fn new(token: Secret, lifetime: Duration, asked: SystemTime) -> Self {
        let issued = unix_millis(asked);
        let lifetime = u64::try_from(lifetime.as_millis()).unwrap_or(u64::MAX);
        Self { token: Token(token), issued, expires: issued.saturating_add(lifetime) }
    }
}

fn era(earlier: Option<&Grant>, now: SystemTime) -> u64 {
    earlier.map_or(0, |earlier| earlier.era.saturating_add(1)).max(unix_millis(now))
}

fn access(granted: &Granted, now: SystemTime) -> Option<Access> {
    let given = granted.access.as_ref().ok()?;
    Some(Access::new(given.token.clone(), given.lifetime, now))
}

fn unix_millis(time: SystemTime) -> u64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
