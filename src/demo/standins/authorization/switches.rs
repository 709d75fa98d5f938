//! What an authorization server can be told to do, at any time.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::super::oauth::Fault;

/// What the metadata documents say (RFC 8414, OpenID Connect Discovery).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Discovery {
    /// The truth, in both.
    #[default]
    Good,
    /// Another issuer.
    OtherIssuer(String),
    /// No S256 among the code challenge methods.
    NoS256,
    /// Endpoints in clear text on a host that is not loopback.
    HttpEndpoints,
    /// No token endpoint.
    NoTokenEndpoint,
    /// 404 at `/.well-known/openid-configuration`.
    NoOpenId,
    /// 404 at `/.well-known/oauth-authorization-server`.
    NoOAuth,
    /// 404 at both.
    Nothing,
    /// A page of HTML.
    Html,
}

/// What becomes of a login whose request is in order.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Consent {
    /// Back with a code at once.
    #[default]
    AtOnce,
    /// A page with a button "Allow".
    Ask,
    /// Back with `error=access_denied`.
    Deny,
    /// Back with a code and a `state` that nobody sent.
    WrongState,
    /// Back with a code and the `iss` of somebody else.
    WrongIss,
    /// Back without a code.
    NoCode,
}

/// What a refresh does to the refresh token that it presents.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Rotation {
    /// It is used up; the answer has a new one.
    #[default]
    Rotate,
    /// It stays valid, and the answer repeats it.
    Repeat,
    /// It stays valid, and the answer has none.
    Omit,
}

/// On which side of using up a code or a refresh token something happens.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum When {
    /// Nothing is used up.
    #[default]
    Before,
    /// It is used up, and the new tokens exist; only the answer is lost or late.
    After,
}

#[derive(Clone)]
pub(super) struct Switches {
    pub(super) discovery: Discovery,
    pub(super) consent: Consent,
    pub(super) tell_iss: bool,
    pub(super) fault: (When, Fault),
    pub(super) faults_once: VecDeque<(When, Fault)>,
    pub(super) revocation_fault: Fault,
    pub(super) delay_before: Duration,
    pub(super) delay_after: Duration,
    pub(super) rotation: Rotation,
    pub(super) lifetime: Duration,
    pub(super) grace: Duration,
    pub(super) refuse_overlaps: bool,
    pub(super) one_access_token: bool,
}

impl Default for Switches {
    fn default() -> Self {
        Self {
            discovery: Discovery::default(),
            consent: Consent::default(),
            tell_iss: true,
            fault: Default::default(),
            faults_once: VecDeque::new(),
            revocation_fault: Fault::default(),
            delay_before: Duration::ZERO,
            delay_after: Duration::ZERO,
            rotation: Rotation::default(),
            lifetime: Duration::from_secs(3600),
            grace: Duration::ZERO,
            refuse_overlaps: false,
            one_access_token: false,
        }
    }
}

#[derive(Default)]
pub(super) struct Switchboard(Mutex<Switches>);

impl Switchboard {
    pub(super) fn set<T>(&self, with: impl FnOnce(&mut Switches) -> T) -> T {
        with(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// As they stand now.
    pub(super) fn now(&self) -> Switches {
        self.set(|switches| switches.clone())
    }

    /// The same for a token request: `fault` is the one that it meets.
    pub(super) fn for_token_request(&self) -> Switches {
        self.set(|switches| {
            let once = switches.faults_once.pop_front();
            let mut now = switches.clone();
            now.fault = once.unwrap_or(now.fault);
            now
        })
    }
}
