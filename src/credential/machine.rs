//! The life of one account's token as a state machine: no clock, no lock, no task; every decision is a return value.

use std::time::{Duration, SystemTime};

use super::schedule;
use crate::clock::Moment;

/// What the pool knows of one account, and every decision about it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Machine {
    margin: Option<Duration>,
    /// Generations given so far; the newest token has this number.
    generation: u64,
    held: Option<Held>,
    phase: Phase,
    /// Fetches finished so far, however they ended.
    attempts: u64,
    /// Fetches failed in a row.
    failures: u32,
    /// Did the last failure look permanent?
    permanent: bool,
    /// Not before this; after a failure.
    next_try: Option<Moment>,
    /// Not before this, whatever happens: no chain of events makes a busy loop.
    not_before: Moment,
    /// A fetch is wanted ahead of the schedule: the secret changed, or the token was refused.
    wanted: Option<Wanted>,
    /// Refusals that are no surer than this cost no fetch before this moment.
    quiet: Option<(Moment, Certainty)>,
    /// Futile rounds in a row: a token fetched because of a refusal was refused as well.
    futile: u32,
    /// Nobody uses the account: its token is not refreshed until somebody does.
    let_go: bool,
}

/// The token in force.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Held {
    /// Its generation; the first is 1.
    pub generation: u64,
    /// When it was asked for.
    pub issued: Moment,
    /// When it dies; none: it does not by itself.
    pub expires: Option<Moment>,
    /// The same on the wall clock, for machines whose other clock stood still.
    pub wall_expires: Option<SystemTime>,
    refresh_at: Option<Moment>,
    /// Was it fetched because its predecessor was refused, and how surely?
    of_refusal: Option<Certainty>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Phase {
    Idle,
    Fetching {
        since: Moment,
        /// The secret changed under the fetch, so what it brings may be of the old one.
        stale: bool,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Wanted {
    SecretChanged,
    Refused(Certainty),
}

/// How sure an upstream's refusal is to be about the token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Certainty {
    /// It may as well be a missing permission: 403.
    Possible,
    /// The credentials were not accepted: 401.
    Likely,
    /// `WWW-Authenticate: Bearer error="invalid_token"` (RFC 6750 §3.1).
    Definite,
}

/// A refused lease, as the upstream's answer and the token tell it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Refusal {
    /// The generation that was refused.
    pub generation: u64,
    /// How sure it is about the token.
    pub certainty: Certainty,
    /// Had the upstream accepted this very token before?
    pub accepted_before: bool,
    /// Was it already the second try of the same request?
    pub replayed: bool,
}

/// What a refused request should do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// A newer token is there: take it.
    Newer,
    /// A fetch is wanted or running: wait until more than `attempts` fetches have ended.
    Await {
        /// How many had ended when the request was refused.
        attempts: u64,
    },
    /// Another token would not help: the answer passes through.
    Pass,
}

/// What the account needs next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Next {
    /// A fetch, now; the machine has noted that it runs.
    Fetch,
    /// Nothing before this moment.
    At(Moment),
    /// Nothing until something happens.
    Rest,
}

/// What a fetch brought, in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Span {
    /// How long the token lives from the moment it was asked for; none: it does not expire.
    pub lifetime: Option<Duration>,
    /// When to look again although it does not expire; of static secrets that a command prints.
    pub look_again: Option<Duration>,
}

/// An account's state, in one word of the vocabulary.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// No token yet; a fetch runs or is about to.
    Fetching,
    /// A valid token.
    Ready,
    /// A valid token, and a fetch for its successor.
    Refreshing,
    /// Nobody uses it, so no token is kept for it.
    Idle,
    /// The last fetch failed; a valid token may be left.
    Failing,
    /// The last fetch failed for good, and no token is left.
    Dead,
    /// Nothing but a login helps, and no token is left.
    #[serde(rename = "login_required")]
    LoginRequired,
}

impl State {
    /// Every state.
    pub const ALL: [Self; 7] = [
        Self::Fetching,
        Self::Ready,
        Self::Refreshing,
        Self::Idle,
        Self::Failing,
        Self::Dead,
        Self::LoginRequired,
    ];

    /// In the word by which data names it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Fetching => "fetching",
            Self::Ready => "ready",
            Self::Refreshing => "refreshing",
            Self::Idle => "idle",
            Self::Failing => "failing",
            Self::Dead => "dead",
            Self::LoginRequired => "login_required",
        }
    }
}

impl Machine {
    /// An account without a token. `margin`: see [`schedule::refresh_after`].
    pub fn new(margin: Option<Duration>) -> Self {
        Self {
            margin,
            generation: 0,
            held: None,
            phase: Phase::Idle,
            attempts: 0,
            failures: 0,
            permanent: false,
            next_try: None,
            not_before: Moment::default(),
            wanted: None,
            quiet: None,
            futile: 0,
            let_go: false,
        }
    }

    /// What is to be done now. `Next::Fetch` is given once; the next call comes after the fetch has ended.
    pub fn next(&mut self, now: Moment, wall: SystemTime) -> Next {
        self.drop_expired(now);
        if matches!(self.phase, Phase::Fetching { .. }) || self.let_go {
            return self.expiry();
        }
        let due = match (&self.held, self.wanted) {
            (None, _) | (_, Some(_)) => Some(now),
            (Some(held), None) if held.wall_expires.is_some_and(|at| at <= wall) => Some(now),
            (Some(held), None) => held.refresh_at,
        };
        let Some(due) = due else { return Next::Rest };
        let due = self.next_try.map_or(due, |after| after.max(due)).max(self.not_before);
        if due > now {
            return match self.expiry() {
                Next::At(expiry) => Next::At(expiry.min(due)),
                _ => Next::At(due),
            };
        }
        self.phase = Phase::Fetching { since: now, stale: false };
        self.not_before = now + schedule::MIN_PAUSE;
        Next::Fetch
    }

    /// A fetch brought a token: it is in force from here on, under a new generation.
    pub fn fetched(&mut self, span: Span, now: Moment, wall: SystemTime, draw: f64) -> &Held {
        let (since, stale) = match self.phase {
            Phase::Fetching { since, stale } => (since, stale),
            Phase::Idle => (now, false),
        };
        let lifetime = span.lifetime.map(|lifetime| lifetime.min(schedule::MAX_LIFETIME));
        let of_refusal = match self.wanted {
            Some(Wanted::Refused(certainty)) => Some(certainty),
            Some(Wanted::SecretChanged) | None => None,
        };
        self.end_attempt();
        self.failures = 0;
        self.permanent = false;
        self.next_try = None;
        // What was fetched while the secret changed serves, but its successor is wanted at once.
        self.wanted = stale.then_some(Wanted::SecretChanged);
        self.generation += 1;
        let refresh = match lifetime {
            Some(lifetime) => Some(schedule::refresh_after(lifetime, self.margin, draw)),
            None => span.look_again,
        };
        let refresh_at = refresh.map(|after| since + after);
        let spent = now.since(since);
        self.held.insert(Held {
            generation: self.generation,
            issued: since,
            expires: lifetime.map(|lifetime| since + lifetime),
            wall_expires: lifetime.and_then(|lifetime| wall.checked_add(lifetime.saturating_sub(spent))),
            refresh_at,
            of_refusal,
        })
    }

    /// A secret or a store was read again and says what it said: nothing changes, and refusals are believed for a while.
    pub fn unchanged(&mut self, span: Span, now: Moment) {
        let refused = matches!(self.wanted, Some(Wanted::Refused(_)));
        let stale = matches!(self.phase, Phase::Fetching { stale: true, .. });
        self.end_attempt();
        self.failures = 0;
        self.permanent = false;
        self.next_try = None;
        // What was read while it changed may be what it was before.
        self.wanted = stale.then_some(Wanted::SecretChanged);
        if refused && !stale {
            // However sure a refusal is, there is no other secret to send.
            self.note_futile(Certainty::Definite, now);
        }
        if let Some(held) = &mut self.held
            && held.expires.is_none()
        {
            held.refresh_at = span.look_again.map(|after| now + after);
        }
    }

    /// A fetch failed. The token in force stays.
    pub fn failed(&mut self, permanent: bool, retry_after: Option<Duration>, now: Moment, draw: f64) {
        let stale = matches!(self.phase, Phase::Fetching { stale: true, .. });
        self.end_attempt();
        self.failures = self.failures.saturating_add(1);
        self.permanent = permanent;
        self.next_try = Some(now + schedule::backoff(self.failures, permanent, retry_after, draw));
        if stale {
            self.secret_changed();
        } else if self.held.is_some() && matches!(self.wanted, Some(Wanted::Refused(_))) {
            // The refused requests have been told; whoever is refused next asks again, after the pause.
            self.wanted = None;
        }
    }

    /// The secret changed: a new token is wanted at once, whatever failed before; the old one serves meanwhile.
    pub fn secret_changed(&mut self) {
        if let Phase::Fetching { stale, .. } = &mut self.phase {
            *stale = true;
        }
        self.failures = 0;
        self.permanent = false;
        self.next_try = None;
        self.futile = 0;
        self.quiet = None;
        self.wanted = Some(Wanted::SecretChanged);
    }

    /// An upstream refused a lease.
    pub fn refused(&mut self, refusal: Refusal, now: Moment) -> Verdict {
        // It may have expired on its way.
        self.drop_expired(now);
        if let Some(held) = &self.held
            && refusal.generation < held.generation
        {
            // The successor of what was refused is in force, and nothing was said against it.
            return if refusal.replayed { Verdict::Pass } else { Verdict::Newer };
        }
        let being_replaced = matches!(self.phase, Phase::Fetching { .. }) || self.wanted.is_some();
        if refusal.replayed || self.is_futile(refusal, now) {
            if !being_replaced {
                self.note_futile(refusal.certainty, now);
            }
            return Verdict::Pass;
        }
        if being_replaced || self.held.is_none() {
            if let Some(Wanted::Refused(certainty)) = &mut self.wanted {
                *certainty = refusal.certainty.max(*certainty);
            }
            self.retire(refusal);
            return Verdict::Await { attempts: self.attempts };
        }
        if self.is_quiet_about(refusal.certainty, now) || !self.can_fetch_soon(refusal.certainty, now) {
            return Verdict::Pass;
        }
        self.wanted = Some(Wanted::Refused(refusal.certainty));
        self.retire(refusal);
        Verdict::Await { attempts: self.attempts }
    }

    /// The token in force must not be given out any more, whatever its time: somebody logged out.
    pub fn forget(&mut self) {
        self.held = None;
    }

    /// Nobody has used the account for long: its token may expire.
    pub fn let_go(&mut self) {
        self.let_go = true;
    }

    /// Is it left to expire?
    pub fn is_let_go(&self) -> bool {
        self.let_go
    }

    /// Somebody wants a token.
    pub fn wanted(&mut self) {
        self.let_go = false;
    }

    /// A request that was refused succeeded with the next token: refusals are about tokens after all.
    ///
    /// Only a replay says so: an acceptance elsewhere does not clear a permission error of its suspicion.
    pub fn replay_accepted(&mut self) {
        self.futile = 0;
        self.quiet = None;
    }

    /// The token in force.
    pub fn held(&self) -> Option<&Held> {
        self.held.as_ref()
    }

    /// Generations given so far.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Fetches that have ended so far.
    pub fn attempts(&self) -> u64 {
        self.attempts
    }

    /// The earliest moment of the next fetch after a failure.
    pub fn next_try(&self) -> Option<Moment> {
        self.next_try
    }

    /// Without a token, will none come before `deadline`, as far as is known?
    pub fn is_hopeless(&self, deadline: Moment) -> bool {
        self.held.is_none()
            && !self.let_go
            && self.phase == Phase::Idle
            && self.next_try.is_some_and(|at| at > deadline || self.permanent)
    }

    /// The state in one word, at `now`.
    pub fn state(&self, now: Moment) -> State {
        let valid = self.held.as_ref().is_some_and(|held| held.expires.is_none_or(|at| now < at));
        let fetching = matches!(self.phase, Phase::Fetching { .. });
        match (valid, fetching, self.failures) {
            (false, false, _) if self.let_go => State::Idle,
            (false, _, failures) if failures > 0 && self.permanent => State::Dead,
            (_, _, failures) if failures > 0 => State::Failing,
            (true, true, _) => State::Refreshing,
            (true, false, _) => State::Ready,
            (false, _, _) => State::Fetching,
        }
    }

    fn drop_expired(&mut self, now: Moment) {
        if self.held.as_ref().and_then(|held| held.expires).is_some_and(|at| at <= now) {
            self.held = None;
        }
    }

    /// A definite refusal takes the token out of force; one that may be a matter of permissions leaves it there.
    fn retire(&mut self, refusal: Refusal) {
        let expiring = self.held.as_ref().is_some_and(|held| held.expires.is_some());
        if expiring
            && refusal.certainty >= Certainty::Likely
            && self.held.as_ref().is_some_and(|held| held.generation == refusal.generation)
        {
            self.held = None;
        }
    }

    /// Would a new token surely be refused as well? That the one in force was fetched because of a less sure refusal
    /// says nothing, nor that it was fetched a while ago: it may have been revoked since.
    fn is_futile(&self, refusal: Refusal, now: Moment) -> bool {
        let just_fetched = self.held.as_ref().is_some_and(|held| {
            held.generation == refusal.generation
                && held.of_refusal.is_some_and(|certainty| refusal.certainty <= certainty)
                && now.since(held.issued) < schedule::JUST_FETCHED
        });
        just_fetched && !refusal.accepted_before && refusal.certainty != Certainty::Definite
    }

    /// After a failed fetch a token is not doubted that cannot be replaced soon: it may be good.
    fn can_fetch_soon(&self, certainty: Certainty, now: Moment) -> bool {
        let Some(at) = self.next_try.filter(|at| now < *at) else { return true };
        certainty >= Certainty::Likely && !self.permanent && at.since(now) <= schedule::SOON
    }

    /// A missing permission must not hide that the token is revoked: only refusals as unsure are quiet.
    fn is_quiet_about(&self, certainty: Certainty, now: Moment) -> bool {
        self.quiet.is_some_and(|(until, known)| now < until && certainty <= known)
    }

    fn note_futile(&mut self, certainty: Certainty, now: Moment) {
        if !self.is_quiet_about(certainty, now) {
            self.futile = self.futile.saturating_add(1);
            self.quiet = Some((now + schedule::quiet_time(self.futile), certainty));
        }
    }

    fn end_attempt(&mut self) {
        self.phase = Phase::Idle;
        self.attempts += 1;
    }

    fn expiry(&self) -> Next {
        self.held.as_ref().and_then(|held| held.expires).map_or(Next::Rest, Next::At)
    }
}

#[cfg(test)]
mod tests;
