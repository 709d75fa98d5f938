//! The book of logins that were begun: which ticket, state and cookie belong together, and for how long. Pure: the time
//! comes in as a value.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};

use super::door::Door;
use crate::clock::Moment;
use crate::secret::Secret;

/// Logins at once, those included that are over and still remembered.
const MAX_LOGINS: usize = 100;
/// How long an outcome is remembered.
const REMEMBERED: Duration = Duration::from_secs(600);

/// What became of a login. Holds no secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "lowercase")]
pub enum Outcome {
    /// Nobody has come back from the authorization server yet.
    Waiting,
    /// It worked.
    Done(Done),
    /// It did not, and it cannot be continued.
    Failed {
        /// Why, for a person.
        error: String,
    },
}

/// What a login yielded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {
    /// The credential's name.
    pub credential: Arc<str>,
    /// The account's name within it.
    pub account: Arc<str>,
    /// The granted scopes, space-separated, where the server names them.
    pub scope: Option<String>,
    /// Did a refresh token come? Without one the login ends with its first access token.
    pub refresh: bool,
    /// Seconds that the access token lives; none: it cannot be used, and another one will be fetched.
    pub expires_in: Option<u64>,
    /// Why the store did not take the grant, which is in memory alone then.
    pub unsaved: Option<String>,
}

/// How the browser's answer comes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Return {
    /// By the redirect URI.
    Redirect,
    /// By hand: the redirected URL is pasted.
    Paste,
}

/// All logins that were begun, oldest first.
#[derive(Debug, Default)]
pub(super) struct Book {
    logins: Vec<Login>,
}

/// A secret as it is looked up: nobody learns it by the time that a comparison takes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Mark([u8; 32]);

/// One login.
#[derive(Debug)]
pub(super) struct Login {
    pub(super) id: Arc<str>,
    /// Index of its credential.
    pub(super) credential: usize,
    pub(super) account: Arc<str>,
    pub(super) expires: Moment,
    /// Of the link; none for a pasted one.
    ticket: Option<Mark>,
    /// Kept when it is over, so that a replay is told from a guess.
    state: Option<Mark>,
    stage: Stage,
    /// What keeps its redirect address open.
    doors: Vec<Arc<Door>>,
}

#[derive(Debug)]
enum Stage {
    /// The link has not been visited.
    Begun,
    /// At the authorization server. No cookie: it comes back by hand.
    Away { verifier: Secret, cookie: Option<Secret> },
    /// Its state was used up, and the code is being exchanged.
    Finishing,
    /// Over, since then.
    Over { outcome: Outcome, since: Moment, expired: bool },
}

/// There are too many logins at once.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Full;

/// Why a ticket or a state is of no use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Useless {
    /// Never given out, or long ago.
    Unknown,
    /// Used before.
    Used,
    /// Too late.
    Expired,
    /// The browser is not the one that began, or keeps no cookies.
    OtherBrowser,
    /// It was begun for the other way to come back.
    OtherWay(Return),
}

/// A login whose state has just been used up.
#[derive(Debug)]
pub(super) struct Taken {
    pub(super) id: Arc<str>,
    pub(super) credential: usize,
    pub(super) account: Arc<str>,
    pub(super) verifier: Secret,
}

impl Mark {
    pub(super) fn of(secret: &str) -> Self {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(digest(&SHA256, secret.as_bytes()).as_ref());
        Self(bytes)
    }
}

impl fmt::Debug for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Mark(…)")
    }
}

impl Login {
    /// One that begins with a link.
    pub(super) fn by_link(
        id: Arc<str>,
        credential: usize,
        account: Arc<str>,
        expires: Moment,
        ticket: Mark,
        doors: Vec<Arc<Door>>,
    ) -> Self {
        let stage = Stage::Begun;
        Self { id, credential, account, expires, ticket: Some(ticket), state: None, stage, doors }
    }

    /// One that is at the authorization server at once and comes back by hand.
    pub(super) fn by_hand(
        id: Arc<str>,
        credential: usize,
        account: Arc<str>,
        expires: Moment,
        state: Mark,
        verifier: Secret,
    ) -> Self {
        let stage = Stage::Away { verifier, cookie: None };
        Self { id, credential, account, expires, ticket: None, state: Some(state), stage, doors: Vec::new() }
    }

    fn end(&mut self, outcome: Outcome, since: Moment, expired: bool) {
        self.stage = Stage::Over { outcome, since, expired };
        self.doors.clear();
    }

    fn useless(&self) -> Useless {
        match self.stage {
            Stage::Over { expired: true, .. } => Useless::Expired,
            _ => Useless::Used,
        }
    }
}

impl Book {
    /// Enters a login. The oldest that is over gives way if there are too many.
    pub(super) fn add(&mut self, login: Login, now: Moment) -> Result<(), Full> {
        self.sweep(now);
        if self.logins.len() >= MAX_LOGINS {
            let over = |login: &Login| matches!(login.stage, Stage::Over { .. });
            let oldest = self.logins.iter().position(over).ok_or(Full)?;
            self.logins.remove(oldest);
        }
        self.logins.push(login);
        Ok(())
    }

    /// Ends what nobody finished in time and forgets what has been over for long. Gives the time until the next is
    /// due; none: nobody is waited for.
    pub(super) fn sweep(&mut self, now: Moment) -> Option<Duration> {
        for login in &mut self.logins {
            if matches!(login.stage, Stage::Begun | Stage::Away { .. }) && login.expires <= now {
                let error = "nobody finished the login in time; begin again".to_owned();
                login.end(Outcome::Failed { error }, now, true);
            }
        }
        self.logins.retain(|login| match &login.stage {
            Stage::Over { since, .. } => now.since(*since) < REMEMBERED,
            _ => true,
        });
        let live =
            self.logins.iter().filter(|login| matches!(login.stage, Stage::Begun | Stage::Away { .. }));
        live.map(|login| login.expires.since(now)).min()
    }

    /// The login that a ticket begins, if it still does.
    pub(super) fn by_ticket(&mut self, ticket: Mark, now: Moment) -> Result<&Login, Useless> {
        self.sweep(now);
        let login = self.logins.iter().find(|login| login.ticket == Some(ticket)).ok_or(Useless::Unknown)?;
        match login.stage {
            Stage::Begun => Ok(login),
            _ => Err(login.useless()),
        }
    }

    /// Uses a ticket up: its browser goes to the authorization server.
    pub(super) fn depart(
        &mut self,
        ticket: Mark,
        state: Mark,
        verifier: Secret,
        cookie: Secret,
        now: Moment,
    ) -> Result<(), Useless> {
        let id = Arc::clone(&self.by_ticket(ticket, now)?.id);
        let login = self.find(&id).ok_or(Useless::Unknown)?;
        login.state = Some(state);
        login.stage = Stage::Away { verifier, cookie: Some(cookie) };
        Ok(())
    }

    /// The credential and id of the login that a state belongs to.
    pub(super) fn by_state(&mut self, state: Mark, now: Moment) -> Result<(usize, Arc<str>), Useless> {
        self.sweep(now);
        let login = self.logins.iter().find(|login| login.state == Some(state)).ok_or(Useless::Unknown)?;
        match login.stage {
            Stage::Away { .. } => Ok((login.credential, Arc::clone(&login.id))),
            _ => Err(login.useless()),
        }
    }

    /// Uses a state up that a redirect brought, if the browser shows this login's cookie. A wrong cookie changes
    /// nothing.
    pub(super) fn take_redirected(
        &mut self,
        state: Mark,
        shown: impl Fn(&str) -> Vec<String>,
        now: Moment,
    ) -> Result<Taken, Useless> {
        let (_, id) = self.by_state(state, now)?;
        let login = self.find(&id).ok_or(Useless::Unknown)?;
        let Stage::Away { cookie, .. } = &login.stage else { return Err(Useless::Used) };
        let Some(cookie) = cookie else { return Err(Useless::OtherWay(Return::Paste)) };
        if !shown(&id).iter().any(|shown| cookie.is(shown.as_bytes())) {
            return Err(Useless::OtherBrowser);
        }
        login.take()
    }

    /// Uses a state up that was pasted for the login `id`.
    pub(super) fn take_pasted(&mut self, id: &str, state: Mark, now: Moment) -> Result<Taken, Useless> {
        self.sweep(now);
        let login = self.find(id).ok_or(Useless::Unknown)?;
        match &login.stage {
            Stage::Begun | Stage::Away { cookie: Some(_), .. } => Err(Useless::OtherWay(Return::Redirect)),
            Stage::Finishing | Stage::Over { .. } => Err(login.useless()),
            Stage::Away { cookie: None, .. } if login.state != Some(state) => Err(Useless::Unknown),
            Stage::Away { cookie: None, .. } => login.take(),
        }
    }

    /// Ends a login.
    pub(super) fn finish(&mut self, id: &str, outcome: Outcome, now: Moment) {
        if let Some(login) = self.find(id) {
            login.end(outcome, now, false);
        }
    }

    /// Ends a login that nobody has come back from yet. False: there is none.
    pub(super) fn cancel(&mut self, id: &str, now: Moment) -> bool {
        self.sweep(now);
        let Some(login) = self.find(id) else { return false };
        if matches!(login.stage, Stage::Begun | Stage::Away { .. }) {
            login.end(Outcome::Failed { error: "the login was cancelled".to_owned() }, now, false);
        }
        true
    }

    /// What became of a login; none: there was none, or long ago.
    pub(super) fn outcome(&mut self, id: &str, now: Moment) -> Option<(usize, Outcome)> {
        self.sweep(now);
        let login = self.find(id)?;
        let outcome = match &login.stage {
            Stage::Over { outcome, .. } => outcome.clone(),
            _ => Outcome::Waiting,
        };
        Some((login.credential, outcome))
    }

    fn find(&mut self, id: &str) -> Option<&mut Login> {
        self.logins.iter_mut().find(|login| &*login.id == id)
    }
}

impl Login {
    fn take(&mut self) -> Result<Taken, Useless> {
        let Stage::Away { verifier, .. } = &self.stage else { return Err(Useless::Used) };
        let verifier = verifier.clone();
        self.stage = Stage::Finishing;
        Ok(Taken {
            id: Arc::clone(&self.id),
            credential: self.credential,
            account: Arc::clone(&self.account),
            verifier,
        })
    }
}

#[cfg(test)]
mod tests;
