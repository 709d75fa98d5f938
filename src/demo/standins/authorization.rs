//! A stand-in of an authorization server of Neon's kind (Ory Hydra): discovery, logins with PKCE, rotating refresh
//! tokens, revocation, and the ways in which each can go wrong.
//!
//! A client gets a refresh token only if it asks for the scope `offline` or `offline_access`. Everything that can be
//! switched takes effect with the next request.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use http::{Request, StatusCode};
use hyper::body::Incoming;

mod client;
mod consent;
mod discovery;
mod grants;
mod switches;
mod token;

pub use client::Registration;
pub use switches::{Consent, Discovery, Rotation, When};

use super::oauth::{self, Fault};
use super::record::Record;
use super::serve::{Answer, Exchange, Served, Site};
use super::tokens::Tokens;
use client::Clients;
use grants::Grants;
use switches::Switchboard;

/// A running authorization server; dropping it stops it.
pub struct AuthorizationServer {
    served: Served,
    site: Arc<AuthorizationSite>,
}

/// What an [`AuthorizationServer`] is to be.
pub struct AuthorizationServerBuilder {
    site: AuthorizationSite,
}

impl AuthorizationServer {
    /// One without clients, that consents to every login at once and whose access tokens live an hour.
    pub fn builder() -> AuthorizationServerBuilder {
        AuthorizationServerBuilder { site: AuthorizationSite::default() }
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.served.addr
    }

    /// Its base URL, without a slash at the end.
    pub fn url(&self) -> String {
        self.served.url()
    }

    /// Its issuer identifier: its URL with a slash at the end, as Neon's.
    pub fn issuer(&self) -> String {
        issuer(self.addr())
    }

    /// Where logins begin.
    pub fn auth_url(&self) -> String {
        format!("{}{AUTH}", self.url())
    }

    /// Where tokens are asked for.
    pub fn token_url(&self) -> String {
        format!("{}{TOKEN}", self.url())
    }

    /// What it received.
    pub fn record(&self) -> &Record {
        &self.served.record
    }

    /// The access tokens that it issued; `Neon::builder().tokens(…)` takes a clone.
    pub fn tokens(&self) -> &Tokens {
        &self.site.grants.tokens
    }

    /// Registers a client, in place of one with the same id.
    pub fn register(&self, client: Registration) {
        self.site.clients.register(client);
    }

    /// Registers one more redirect URI for a client; false if there is no such client.
    pub fn allow_redirect(&self, client_id: &str, uri: impl Into<String>) -> bool {
        self.site.clients.allow_redirect(client_id, uri.into())
    }

    /// What the metadata documents say.
    pub fn discovery(&self, discovery: Discovery) {
        self.site.switches.set(|switches| switches.discovery = discovery);
    }

    /// What becomes of a login.
    pub fn consent(&self, consent: Consent) {
        self.site.switches.set(|switches| switches.consent = consent);
    }

    /// Does a redirect back carry `iss` (RFC 9207), and do the metadata say so? Yes, unless told otherwise.
    pub fn tell_iss(&self, tell: bool) {
        self.site.switches.set(|switches| switches.tell_iss = tell);
    }

    /// Makes the token endpoint misbehave, before or after the code or refresh token is used up. Faults that distort
    /// a good answer need it used up, whatever `when` says.
    pub fn token_fault(&self, when: When, fault: Fault) {
        self.site.switches.set(|switches| switches.fault = (when, fault));
    }

    /// The same for one request; several calls line up. Goes before [`Self::token_fault`].
    pub fn token_fault_once(&self, when: When, fault: Fault) {
        self.site.switches.set(|switches| switches.faults_once.push_back((when, fault)));
    }

    /// Makes the token endpoint wait before it uses up what a request presents, or between that and the answer. A
    /// request that breaks off in the first wait has used nothing up.
    pub fn token_delay(&self, when: When, delay: Duration) {
        self.site.switches.set(|switches| match when {
            When::Before => switches.delay_before = delay,
            When::After => switches.delay_after = delay,
        });
    }

    /// Makes the revocation endpoint misbehave without revoking anything.
    pub fn revocation_fault(&self, fault: Fault) {
        self.site.switches.set(|switches| switches.revocation_fault = fault);
    }

    /// What a refresh does to the refresh token.
    pub fn rotation(&self, rotation: Rotation) {
        self.site.switches.set(|switches| switches.rotation = rotation);
    }

    /// How long new access tokens live: an hour, unless told otherwise. `expires_in` says it in whole seconds, at
    /// least 1.
    pub fn access_lifetime(&self, lifetime: Duration) {
        self.site.switches.set(|switches| switches.lifetime = lifetime);
    }

    /// For how long after its first use a refresh token may be presented again: not at all, unless told otherwise.
    pub fn grace(&self, grace: Duration) {
        self.site.switches.set(|switches| switches.grace = grace);
    }

    /// Is a request refused with `invalid_request` while another one with the same refresh token is under way? No,
    /// unless told otherwise: then the later one is a reuse.
    pub fn refuse_overlaps(&self, refuse: bool) {
        self.site.switches.set(|switches| switches.refuse_overlaps = refuse);
    }

    /// Does a refresh take the chain's earlier access tokens back, as Hydra does? No, unless told otherwise.
    pub fn one_access_token(&self, one: bool) {
        self.site.switches.set(|switches| switches.one_access_token = one);
    }

    /// How many refreshes went through, those whose answer was lost among them.
    pub fn refreshes(&self) -> u64 {
        self.site.grants.counts().refreshes
    }

    /// How many times a refresh token was presented again after its use. Must stay 0.
    pub fn reuses(&self) -> u64 {
        self.site.grants.counts().reuses
    }

    /// How many requests came while another one with the same refresh token was under way.
    pub fn overlaps(&self) -> u64 {
        self.site.grants.counts().overlaps
    }

    /// For each refresh token, in the order of issue, how many requests presented it, whatever came of them.
    pub fn presented(&self) -> Vec<u64> {
        self.site.grants.presented()
    }

    /// How many tokens were revoked at the revocation endpoint.
    pub fn revocations(&self) -> u64 {
        self.site.grants.counts().revocations
    }

    /// How many codes were exchanged for a grant.
    pub fn logins(&self) -> u64 {
        self.site.grants.counts().logins
    }

    /// How many grants have a refresh token that still works.
    pub fn live_chains(&self) -> usize {
        self.site.grants.live_chains()
    }

    /// Kills the chains of a user, who withdrew the consent; gives their number.
    pub fn withdraw(&self, subject: &str) -> usize {
        self.site.grants.withdraw(subject)
    }

    /// Forgets every code, grant and token, as after a restart with empty storage. Clients and counts stay.
    pub fn forget_everything(&self) {
        self.site.grants.forget();
    }
}

impl AuthorizationServerBuilder {
    /// Registers a client.
    pub fn client(self, client: Registration) -> Self {
        self.site.clients.register(client);
        self
    }

    /// How long access tokens live; see [`AuthorizationServer::access_lifetime`].
    pub fn access_lifetime(self, lifetime: Duration) -> Self {
        self.site.switches.set(|switches| switches.lifetime = lifetime);
        self
    }

    /// Starts it on a free loopback port. Fails if there is none. Needs a tokio runtime.
    pub async fn start(self) -> io::Result<AuthorizationServer> {
        let site = Arc::new(self.site);
        let served = Served::start(Arc::clone(&site)).await?;
        Ok(AuthorizationServer { served, site })
    }
}

const AUTH: &str = "/oauth2/auth";
const TOKEN: &str = "/oauth2/token";
const REVOKE: &str = "/oauth2/revoke";

fn issuer(addr: SocketAddr) -> String {
    format!("http://{addr}/")
}

#[derive(Default)]
struct AuthorizationSite {
    clients: Clients,
    grants: Grants,
    switches: Switchboard,
    /// How many token and revocation requests there were.
    turn: AtomicU64,
}

/// An error of RFC 6749 §5.2: its status, `error` and `error_description`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Refusal(u16, &'static str, &'static str);

impl Refusal {
    fn answer(self) -> Answer {
        oauth::refusal_answer(self.0, self.1, self.2)
    }
}

impl Site for AuthorizationSite {
    fn is_token_request(&self, request: &Request<Incoming>) -> bool {
        request.uri().path() == TOKEN
    }

    async fn answer(&self, request: Request<Incoming>, exchange: &Exchange) -> io::Result<Answer> {
        let addr = exchange.addr;
        match request.uri().path() {
            TOKEN => self.token(request, exchange).await,
            REVOKE => self.revoke(request, exchange).await,
            AUTH => self.authorize(request.uri().query().unwrap_or_default(), addr),
            path => Ok(discovery::answer(path, addr, &self.switches.now())
                .unwrap_or_else(|| oauth::refusal_answer(StatusCode::NOT_FOUND.as_u16(), "not_found", ""))),
        }
    }
}
