//! The desk: begins logins, sends browsers to the authorization server, takes them back, and keeps what they bring.

use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::{HeaderMap, StatusCode};
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tracing::{info, warn};
use zeroize::Zeroizing;

use super::book::{Book, Done, Full, Login, Mark, Outcome, Return, Taken, Useless};
use super::callback::{cookies, pasted_query};
use super::door::Doors;
use super::handout::{cookie_name, is_at, link, random, set_cookie, with_cookie};
use super::pages::{
    self, Page, UNCHANGED, message, not_logged_in, see_other, useless_link, why_no_paste, why_no_return,
};
use super::{LoginError, Logout, Revoked, account_name, credential_of};
use crate::clock::Clock;
use crate::config::{Config, CredentialKind};
use crate::credential::LoginCredential;
use crate::credential::vault::{LoggedOut, Vault};
use crate::oauth::authorize::{Attempt, Callback};
use crate::secret::Secret;
use crate::telemetry::chain;

/// How long logins in their last step are waited for when the desk closes.
const CLOSING: Duration = Duration::from_secs(30);

/// Owns the logins that were begun.
pub struct Desk {
    credentials: Vec<LoginCredential>,
    vault: Arc<Vault>,
    clock: Clock,
    /// What serves links and redirect paths already.
    served: Option<SocketAddr>,
    book: Mutex<Book>,
    doors: Doors,
    /// Logins in their last step: they go on though the browser is gone.
    finishing: Mutex<JoinSet<()>>,
}

/// A login that was begun.
#[derive(Debug)]
pub struct Begun {
    /// Its name for [`Desk::outcome`]; no secret, but it is told to nobody else.
    pub id: Arc<str>,
    /// Where the browser goes, once: the link at the redirect URI's own origin, or for [`Return::Paste`] the
    /// authorization server itself.
    pub link: Secret,
    /// How long it may take.
    pub expires_in: Duration,
}

/// How the last step of a login ended.
struct Ended {
    status: StatusCode,
    outcome: Outcome,
}

impl Desk {
    /// A desk for these credentials.
    pub fn new(credentials: Vec<LoginCredential>, vault: Arc<Vault>, clock: Clock) -> Self {
        Self {
            credentials,
            vault,
            clock,
            served: None,
            book: Mutex::default(),
            doors: Doors::default(),
            finishing: Mutex::default(),
        }
    }

    /// Says that somebody serves links and redirect paths on this address already; all others get doors of their own.
    #[must_use]
    pub fn served_at(mut self, address: SocketAddr) -> Self {
        self.served = Some(address);
        self
    }

    /// Is it the desk for the logins of a configuration, with what they bring going to this vault?
    pub fn is_for(&self, config: &Config, vault: &Arc<Vault>) -> bool {
        let mut logins = config.credentials.iter().filter_map(|credential| match &credential.kind {
            CredentialKind::AuthorizationCode(login) => Some((&credential.name, login)),
            _ => None,
        });
        let mut ours = self.credentials.iter();
        Arc::ptr_eq(&self.vault, vault)
            && ours.all(|own| logins.next().is_some_and(|(name, login)| own.is(name, login)))
            && logins.next().is_none()
    }

    /// Begins a login.
    ///
    /// # Errors
    /// [`LoginError`]: an unknown credential, a bad name, too many logins, a redirect address in use, or a server that
    /// does not say where to log in.
    pub async fn begin(
        self: &Arc<Self>,
        credential: &str,
        account: &str,
        way: Return,
    ) -> Result<Begun, LoginError> {
        let account = account_name(account)?;
        let (index, credential) = self.credential(credential)?;
        // A server that cannot be reached is told to whoever begins, not to the browser later.
        let endpoints = credential.client.endpoints().await.map_err(LoginError::Server)?;
        let (config, redirect) = (&credential.config, &credential.config.redirect_uri);
        let expires_in = config.login_timeout;
        let id: Arc<str> = random::<12>()?.expose().into();
        let now = self.clock.now();
        let (login, link) = match way {
            Return::Redirect => {
                let doors = self.doors.open(redirect, self.served, &Arc::downgrade(self)).await?;
                let ticket = random::<32>()?;
                let link = link(redirect, &credential.name, &ticket);
                let mark = Mark::of(ticket.expose());
                (Login::by_link(Arc::clone(&id), index, account, now + expires_in, mark, doors), link)
            }
            Return::Paste => {
                let attempt = Attempt::new().ok_or(LoginError::Random)?;
                let link = Secret::new(attempt.url(&endpoints, config));
                let mark = Mark::of(attempt.state.expose());
                (
                    Login::by_hand(Arc::clone(&id), index, account, now + expires_in, mark, attempt.verifier),
                    link,
                )
            }
        };
        self.book().add(login, now).map_err(|Full| LoginError::Full)?;
        Ok(Begun { id, link, expires_in })
    }

    /// Answers a browser that follows a link: it is sent to the authorization server, once.
    pub async fn visit(self: &Arc<Self>, credential: &str, ticket: &Secret, host: &str) -> Page {
        let mark = Mark::of(ticket.expose());
        let found = self
            .book()
            .by_ticket(mark, self.clock.now())
            .map(|login| (login.credential, Arc::clone(&login.id)));
        let (index, id) = match found {
            Ok((index, id)) if &*self.credentials[index].name == credential => (index, id),
            Ok(_) => return useless_link(Useless::Unknown),
            Err(useless) => return useless_link(useless),
        };
        let credential = &self.credentials[index];
        let redirect = &credential.config.redirect_uri;
        if !is_at(host, redirect) {
            // The cookie must be of the host that the browser comes back to.
            return see_other(link(redirect, &credential.name, ticket).expose());
        }
        let endpoints = match credential.client.endpoints().await {
            Ok(endpoints) => endpoints,
            Err(error) => {
                let error =
                    format!("the authorization server cannot be asked where to log in: {}", chain(&error));
                let ended = Ended { status: StatusCode::BAD_GATEWAY, outcome: Outcome::Failed { error } };
                self.book().finish(&id, ended.outcome.clone(), self.clock.now());
                return ended.page();
            }
        };
        let (Some(attempt), Ok(cookie)) = (Attempt::new(), random::<32>()) else {
            return message(
                StatusCode::SERVICE_UNAVAILABLE,
                "Not now",
                &["The system gives no random bytes."],
            );
        };
        let onward = attempt.url(&endpoints, &credential.config);
        let set = set_cookie(&id, cookie.expose(), redirect, credential.config.login_timeout);
        let state = Mark::of(attempt.state.expose());
        let departed = self.book().depart(mark, state, attempt.verifier, cookie, self.clock.now());
        if let Err(useless) = departed {
            return useless_link(useless);
        }
        with_cookie(see_other(&onward), &set)
    }

    /// Answers a browser that comes back to a redirect path on this port.
    pub async fn returned(self: &Arc<Self>, path: &str, query: &str, headers: &HeaderMap, port: u16) -> Page {
        let callback = match Callback::parse(query) {
            Ok(callback) => callback,
            Err(error) => {
                return not_logged_in(&format!("What came back cannot be read: {}.", chain(&error)));
            }
        };
        let Some(state) = callback.state.as_ref().map(|state| Mark::of(state.expose())) else {
            return not_logged_in("What came back has no `state`, so it belongs to no login.");
        };
        let now = self.clock.now();
        let found = self.book().by_state(state, now);
        // A state counts only at its own credential's redirect URI.
        let elsewhere = |index: usize| {
            let redirect = &self.credentials[index].config.redirect_uri;
            redirect.path != path || redirect.port != port
        };
        let taken = match found {
            Ok((index, _)) if elsewhere(index) => Err(Useless::Unknown),
            Ok(_) => self.book().take_redirected(state, |id| cookies(headers, &cookie_name(id)), now),
            Err(useless) => Err(useless),
        };
        match taken {
            Ok(taken) => {
                let redirect = &self.credentials[taken.credential].config.redirect_uri;
                let gone = set_cookie(&taken.id, "", redirect, Duration::ZERO);
                with_cookie(self.complete(taken, callback).await.page(), &gone)
            }
            Err(useless) => not_logged_in(why_no_return(useless)),
        }
    }

    /// Takes the URL that a browser was sent back to, or its query, from whoever pasted it. A wrong one may be pasted
    /// again.
    ///
    /// # Errors
    /// [`LoginError::Pasted`] says what is wrong with it; nothing of it is in the text.
    pub async fn paste(self: &Arc<Self>, id: &str, pasted: &str) -> Result<Outcome, LoginError> {
        let index = self.book().outcome(id, self.clock.now()).ok_or(LoginError::UnknownLogin)?.0;
        let redirect = &self.credentials[index].config.redirect_uri;
        let query = Zeroizing::new(pasted_query(pasted, redirect).map_err(LoginError::Pasted)?);
        let wrong = |text: String| LoginError::Pasted(text);
        let callback = Callback::parse(&query)
            .map_err(|error| wrong(format!("the pasted address cannot be read: {}", chain(&error))))?;
        let state = callback.state.as_ref().map(|state| Mark::of(state.expose()));
        let state =
            state.ok_or_else(|| wrong("the pasted address has no `state`; paste all of it".to_owned()))?;
        let taken = self.book().take_pasted(id, state, self.clock.now());
        let taken = taken.map_err(|useless| wrong(why_no_paste(useless).to_owned()))?;
        Ok(self.complete(taken, callback).await.outcome)
    }

    /// What became of a login; none: there was none of this id for this credential, or long ago.
    pub fn outcome(&self, credential: &str, id: &str) -> Option<Outcome> {
        let (index, outcome) = self.book().outcome(id, self.clock.now())?;
        (&*self.credentials[index].name == credential).then_some(outcome)
    }

    /// Ends a login that nobody has come back from yet.
    ///
    /// # Errors
    /// [`LoginError::UnknownLogin`].
    pub fn cancel(&self, credential: &str, id: &str) -> Result<(), LoginError> {
        self.outcome(credential, id).ok_or(LoginError::UnknownLogin)?;
        self.book().cancel(id, self.clock.now());
        Ok(())
    }

    /// Revokes an account's grant and forgets it.
    ///
    /// # Errors
    /// [`LoginError`]: an unknown credential, a bad name, or a store that fails.
    pub async fn log_out(&self, credential: &str, account: &str) -> Result<Logout, LoginError> {
        let account = account_name(account)?;
        let (_, credential) = self.credential(credential)?;
        let done = self.vault.log_out(&credential.key(&account), &credential.client).await?;
        info!(credential = %credential.name, %account, existed = done.existed, "logged out");
        let LoggedOut { existed, revoked } = done;
        let revoked = match revoked {
            Ok(true) => Revoked::Yes,
            Ok(false) => Revoked::Nowhere,
            Err(error) => Revoked::Failed { error: chain(&error) },
        };
        Ok(Logout { existed, revoked })
    }

    /// The credential of this name, and its place.
    ///
    /// # Errors
    /// [`LoginError::UnknownCredential`].
    pub fn credential(&self, name: &str) -> Result<(usize, &LoginCredential), LoginError> {
        credential_of(&self.credentials, name)
    }

    /// Do browsers come back to this path on this port?
    pub fn is_redirect_path(&self, path: &str, port: u16) -> bool {
        self.credentials.iter().any(|credential| {
            let redirect = &credential.config.redirect_uri;
            redirect.port == port && redirect.path == path
        })
    }

    /// Ends what is overdue, and gives the time until something is again.
    pub(super) fn sweep(&self) -> Option<Duration> {
        self.book().sweep(self.clock.now())
    }

    /// Finishes what is in its last step, ends all other logins, and returns when their last pages are out.
    pub async fn close(&self) {
        let mut finishing = std::mem::take(&mut *self.finishing());
        let finished = async { while finishing.join_next().await.is_some() {} };
        if tokio::time::timeout(CLOSING, finished).await.is_err() {
            warn!("a login was cut off in its last step");
        }
        *self.book() = Book::default();
        self.doors.closed().await;
    }

    /// Makes a grant of what came back, in a task of its own: a browser that goes away must not lose it.
    async fn complete(self: &Arc<Self>, taken: Taken, callback: Callback) -> Ended {
        let (sender, receiver) = oneshot::channel();
        let (desk, id) = (Arc::clone(self), Arc::clone(&taken.id));
        self.go_on(async move {
            let last_step = tokio::spawn({
                let desk = Arc::clone(&desk);
                async move { desk.exchange(taken, callback).await }
            });
            let ended = last_step.await.unwrap_or_else(|_| Ended::cut_off());
            desk.book().finish(&id, ended.outcome.clone(), desk.clock.now());
            let _ = sender.send(ended);
        });
        receiver.await.unwrap_or_else(|_| Ended::cut_off())
    }

    fn go_on(&self, work: impl Future<Output = ()> + Send + 'static) {
        let mut finishing = self.finishing();
        while finishing.try_join_next().is_some() {}
        finishing.spawn(work);
    }

    async fn exchange(&self, taken: Taken, callback: Callback) -> Ended {
        let credential = &self.credentials[taken.credential];
        let ended = self.try_exchange(credential, &taken, callback).await;
        let (name, account) = (&credential.name, &taken.account);
        match ended {
            Ok(done) => {
                let scope = done.scope.as_deref().unwrap_or("-");
                info!(credential = %name, %account, scope, has_refresh_token = done.refresh, "logged in");
                Ended { status: StatusCode::OK, outcome: Outcome::Done(done) }
            }
            Err((status, error)) => {
                warn!(credential = %name, %account, %error, "a login failed");
                Ended { status, outcome: Outcome::Failed { error } }
            }
        }
    }

    async fn try_exchange(
        &self,
        credential: &LoginCredential,
        taken: &Taken,
        callback: Callback,
    ) -> Result<Done, (StatusCode, String)> {
        let at_server = |error: &dyn std::error::Error| (StatusCode::BAD_GATEWAY, chain(error));
        let endpoints = credential.client.endpoints().await.map_err(|error| at_server(&error))?;
        let code =
            callback.into_code(&endpoints).map_err(|error| (StatusCode::BAD_REQUEST, chain(&error)))?;
        let granted =
            credential.client.exchange(&code, &taken.verifier).await.map_err(|error| at_server(&error))?;
        let refresh = granted.refresh_token.is_some();
        if let (Err(error), false) = (&granted.access, refresh) {
            return Err(at_server(error));
        }
        // The vault keeps it in memory then, and goes on trying.
        let unsaved = self.vault.log_in(&credential.key(&taken.account), &granted).await.err();
        Ok(Done {
            credential: Arc::clone(&credential.name),
            account: Arc::clone(&taken.account),
            scope: granted.scope.clone(),
            refresh,
            expires_in: granted.access.as_ref().ok().map(|given| given.lifetime.as_secs()),
            unsaved: unsaved.map(|error| chain(&error)),
        })
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn finishing(&self) -> MutexGuard<'_, JoinSet<()>> {
        self.finishing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ended {
    fn cut_off() -> Self {
        let error = "the login was cut off in its last step; begin again".to_owned();
        Self { status: StatusCode::INTERNAL_SERVER_ERROR, outcome: Outcome::Failed { error } }
    }

    fn page(&self) -> Page {
        match &self.outcome {
            Outcome::Done(done) => pages::worked(done),
            Outcome::Failed { error } => {
                message(self.status, "Not logged in", &[&format!("It failed: {error}."), UNCHANGED])
            }
            Outcome::Waiting => message(self.status, "Not logged in", &[UNCHANGED]),
        }
    }
}

impl fmt::Debug for Desk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Desk").field("credentials", &self.credentials.len()).finish_non_exhaustive()
    }
}
