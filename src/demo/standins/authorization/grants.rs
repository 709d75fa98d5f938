//! Codes, chains of refresh tokens, and what became of them.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;
use tokio::time::Instant;

use super::super::oauth;
use super::super::tokens::{Tokens, random_text};
use super::Refusal;
use super::switches::{Rotation, Switches};

pub(super) const INVALID_GRANT: Refusal = Refusal(
    400,
    "invalid_grant",
    "The provided authorization grant (e.g., authorization code, resource owner credentials) or refresh token is \
     invalid, expired, revoked, does not match the redirection URI used in the authorization request, or was issued \
     to another client.",
);
const INACTIVE: Refusal = Refusal(
    401,
    "token_inactive",
    "Token is inactive because it is malformed, expired or otherwise invalid. Token validation failed.",
);
const OVERLAP: Refusal = Refusal(
    400,
    "invalid_request",
    "Failed to refresh token because of multiple concurrent requests using the same token which is not allowed.",
);

/// A login that a user consented to.
pub(super) struct Code {
    redirect_uri: String,
    challenge: String,
    chain: Chain,
    /// The chain that it was exchanged for; an exchange that failed has none.
    used: Option<Option<usize>>,
}

impl Code {
    pub(super) fn new(client: &str, redirect_uri: &str, challenge: &str, subject: &str, scope: &str) -> Self {
        let chain = Chain {
            client: client.to_owned(),
            subject: subject.to_owned(),
            scope: scope.to_owned(),
            access: Vec::new(),
            live: true,
        };
        Self { redirect_uri: redirect_uri.to_owned(), challenge: challenge.to_owned(), chain, used: None }
    }
}

/// A grant: what all refresh tokens that follow from one login have in common.
#[derive(Clone)]
struct Chain {
    client: String,
    subject: String,
    scope: String,
    access: Vec<String>,
    live: bool,
}

impl Chain {
    fn is_offline(&self) -> bool {
        self.scope.split(' ').any(|scope| matches!(scope, "offline" | "offline_access"))
    }
}

/// One refresh token.
struct Issued {
    chain: usize,
    used: Option<Instant>,
    presented: u64,
    under_way: u64,
}

/// What tests ask for.
#[derive(Clone, Copy, Default)]
pub(super) struct Counts {
    pub(super) logins: u64,
    pub(super) refreshes: u64,
    pub(super) reuses: u64,
    pub(super) overlaps: u64,
    pub(super) revocations: u64,
}

#[derive(Default)]
pub(super) struct Grants {
    pub(super) tokens: Tokens,
    books: Mutex<Books>,
}

#[derive(Default)]
struct Books {
    codes: HashMap<String, Code>,
    /// Forgotten chains stay here, dead.
    chains: Vec<Chain>,
    /// In the order of issue; forgotten ones stay here, and are no longer in `refresh`.
    issued: Vec<Issued>,
    /// Where in `issued` each refresh token is.
    refresh: HashMap<String, usize>,
    counts: Counts,
}

impl Grants {
    pub(super) fn consented(&self, text: &str, code: Code) {
        self.books().codes.insert(text.to_owned(), code);
    }

    /// Exchanges a code (RFC 6749 §4.1.3, RFC 7636 §4.6). Whoever presents it, it is used up.
    pub(super) fn exchange(
        &self,
        text: &str,
        client: &str,
        redirect_uri: &str,
        verifier: &str,
        switches: &Switches,
    ) -> Result<Value, Refusal> {
        let mut books = self.books();
        let books = &mut *books;
        let code = books.codes.get_mut(text).ok_or(INVALID_GRANT)?;
        if let Some(chain) = code.used {
            // RFC 6749 §4.1.2: what was issued for it may be in the wrong hands.
            chain.into_iter().for_each(|chain| self.kill(&mut books.chains[chain]));
            return Err(INVALID_GRANT);
        }
        code.used = Some(None);
        let right = code.chain.client == client && code.redirect_uri == redirect_uri;
        if !right || !(43..=128).contains(&verifier.len()) || challenge(verifier) != code.challenge {
            return Err(INVALID_GRANT);
        }
        let chain = books.chains.len();
        code.used = Some(Some(chain));
        books.chains.push(code.chain.clone());
        books.counts.logins += 1;
        let refresh_token = books.chains[chain].is_offline().then(|| books.next(chain));
        Ok(self.grant(&mut books.chains[chain], refresh_token, switches))
    }

    /// Notes that a refresh token was presented; fails if it may not be while another request with it is under way.
    pub(super) fn present(&self, text: &str, switches: &Switches) -> Result<Option<UnderWay<'_>>, Refusal> {
        let mut books = self.books();
        let books = &mut *books;
        let Some(&at) = books.refresh.get(text) else {
            return Ok(None);
        };
        let issued = &mut books.issued[at];
        issued.presented += 1;
        if issued.under_way > 0 {
            books.counts.overlaps += 1;
            if switches.refuse_overlaps {
                return Err(OVERLAP);
            }
        }
        issued.under_way += 1;
        Ok(Some(UnderWay { grants: self, at }))
    }

    /// Refreshes (RFC 6749 §6). A token that was used before kills its chain (RFC 9700 §4.14.2).
    pub(super) fn refresh(&self, text: &str, client: &str, switches: &Switches) -> Result<Value, Refusal> {
        let mut books = self.books();
        let books = &mut *books;
        let &at = books.refresh.get(text).ok_or(INVALID_GRANT)?;
        let issued = &mut books.issued[at];
        let chain = issued.chain;
        if books.chains[chain].client != client {
            return Err(INVALID_GRANT);
        }
        let grace = switches.grace;
        if issued.used.is_some_and(|used| grace.is_zero() || used.elapsed() > grace) {
            books.counts.reuses += 1;
            self.kill(&mut books.chains[chain]);
            return Err(INACTIVE);
        }
        if !books.chains[chain].live {
            return Err(INVALID_GRANT);
        }
        books.counts.refreshes += 1;
        let refresh_token = match switches.rotation {
            Rotation::Rotate => {
                issued.used.get_or_insert_with(Instant::now);
                Some(books.next(chain))
            }
            Rotation::Repeat => Some(text.to_owned()),
            Rotation::Omit => None,
        };
        let chain = &mut books.chains[chain];
        if switches.one_access_token {
            self.revoke_access(chain);
        }
        Ok(self.grant(chain, refresh_token, switches))
    }

    /// A token for the client itself (RFC 6749 §4.4).
    pub(super) fn for_client(&self, client: &str, switches: &Switches) -> Value {
        oauth::grant(&self.tokens.issue_to(client, switches.lifetime), announced(switches))
    }

    /// Kills the chain of an access or refresh token (RFC 7009 §2.1). One that is unknown is no error (§2.2).
    pub(super) fn revoke(&self, text: &str, client: &str) -> Result<(), Refusal> {
        let mut books = self.books();
        let books = &mut *books;
        let by_refresh = books.refresh.get(text).map(|&at| books.issued[at].chain);
        let holds = |chain: &Chain| chain.access.iter().any(|token| token == text);
        let Some(chain) = by_refresh.or_else(|| books.chains.iter().position(holds)) else {
            return Ok(());
        };
        let chain = &mut books.chains[chain];
        if chain.client != client {
            return Err(Refusal(400, "unauthorized_client", "The token was issued to another client."));
        }
        self.kill(chain);
        books.counts.revocations += 1;
        Ok(())
    }

    pub(super) fn withdraw(&self, subject: &str) -> usize {
        let mut books = self.books();
        let mut killed = 0;
        for chain in books.chains.iter_mut().filter(|chain| chain.live && chain.subject == subject) {
            self.kill(chain);
            killed += 1;
        }
        killed
    }

    pub(super) fn forget(&self) {
        let mut books = self.books();
        books.chains.iter_mut().for_each(|chain| self.kill(chain));
        books.codes.clear();
        books.refresh.clear();
        self.tokens.forget_all();
    }

    pub(super) fn counts(&self) -> Counts {
        self.books().counts
    }

    pub(super) fn presented(&self) -> Vec<u64> {
        self.books().issued.iter().map(|issued| issued.presented).collect()
    }

    pub(super) fn live_chains(&self) -> usize {
        self.books().chains.iter().filter(|chain| chain.live && chain.is_offline()).count()
    }

    fn grant(&self, chain: &mut Chain, refresh_token: Option<String>, switches: &Switches) -> Value {
        let token = self.tokens.issue_for(&chain.client, &chain.subject, switches.lifetime);
        let mut grant = oauth::grant(&token, announced(switches));
        grant["scope"] = chain.scope.as_str().into();
        chain.access.push(token);
        if let Some(refresh_token) = refresh_token {
            grant["refresh_token"] = refresh_token.into();
        }
        grant
    }

    fn kill(&self, chain: &mut Chain) {
        chain.live = false;
        self.revoke_access(chain);
    }

    fn revoke_access(&self, chain: &Chain) {
        for token in &chain.access {
            self.tokens.revoke(token);
        }
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Books {
    /// Issues the next refresh token of a chain.
    fn next(&mut self, chain: usize) -> String {
        let text = format!("ory_rt_{}.{}", random_text(22), random_text(21));
        self.refresh.insert(text.clone(), self.issued.len());
        self.issued.push(Issued { chain, used: None, presented: 0, under_way: 0 });
        text
    }
}

/// A request that presents a refresh token, until it is answered or broken off.
pub(super) struct UnderWay<'a> {
    grants: &'a Grants,
    at: usize,
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.grants.books().issued[self.at].under_way -= 1;
    }
}

/// Whole seconds; 0 would say that the token is dead on arrival.
fn announced(switches: &Switches) -> u64 {
    switches.lifetime.as_secs().max(1)
}

/// RFC 7636 §4.2, S256.
fn challenge(verifier: &str) -> String {
    URL_SAFE_NO_PAD.encode(digest::digest(&digest::SHA256, verifier.as_bytes()))
}
