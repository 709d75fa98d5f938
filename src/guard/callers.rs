//! Callers: who a request is from, by the token that it shows or by the process at the other end of a Unix socket.

mod shown;
mod tokens;

use std::sync::Arc;

use http::HeaderMap;

use self::shown::Shown;
use self::tokens::Tokens;
use super::Refused;
use super::local_token::{Invalid, OF_NOBODY, Shown as LocalToken};
use crate::clock::Clock;
use crate::config::{CallerId, Config, Peer, PeerRule};
use crate::secret::reader::SecretReader;
use crate::secret::{Secret, SecretError};

pub use self::tokens::TokenWatch;

/// The callers of a configuration. Without any, whoever connects gets in.
#[derive(Debug)]
pub struct Callers {
    names: Vec<Arc<str>>,
    tokens: Arc<Tokens>,
    /// The callers that are known by their process.
    peers: Vec<(PeerRule, CallerId)>,
    /// Tells whether a local token has expired.
    clock: Clock,
}

impl Callers {
    /// Reads the tokens of all callers, and gives what keeps them fresh.
    ///
    /// # Errors
    /// [`SecretError`] when one cannot be read.
    pub fn load(
        config: &Config,
        reader: &SecretReader,
        clock: &Clock,
    ) -> Result<(Self, TokenWatch), SecretError> {
        let (tokens, watch) = TokenWatch::load(&config.callers, reader)?;
        Ok((Self::with(config, tokens, clock.clone()), watch))
    }

    /// The same without any token: nobody can show who they are. For what only explains.
    pub fn unread(config: &Config) -> Self {
        Self::with(config, Arc::new(Tokens::none(config.callers.len())), Clock::system())
    }

    fn with(config: &Config, tokens: Arc<Tokens>, clock: Clock) -> Self {
        let names = config.callers.iter().map(|caller| Arc::clone(&caller.name)).collect();
        let peer = |(id, rule): (CallerId, &Option<PeerRule>)| Some((rule.clone()?, id));
        let rules = config.callers.iter().map(|caller| &caller.peer).enumerate();
        Self { names, tokens, peers: rules.filter_map(peer).collect(), clock }
    }

    /// Are there none, so that whoever connects gets in?
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// A caller's name in the configuration.
    pub fn name(&self, id: CallerId) -> &Arc<str> {
        &self.names[id]
    }

    /// The caller of that name.
    pub fn find(&self, name: &str) -> Option<CallerId> {
        self.names.iter().position(|known| **known == *name)
    }

    /// The tokens of a caller that count now.
    pub fn tokens(&self, id: CallerId) -> Vec<Secret> {
        let mut tokens = self.tokens.of(id);
        tokens.retain(|token| self.tokens.caller(token.expose().as_bytes()) == Some(id));
        tokens
    }

    /// Is any of them known by its process?
    pub fn know_peers(&self) -> bool {
        !self.peers.is_empty()
    }

    /// The caller of that name, if that is one of its tokens.
    pub fn of(&self, name: &str, token: &[u8]) -> Option<CallerId> {
        self.tokens.caller(token).filter(|id| *self.names[*id] == *name)
    }

    /// Who a request on a route is from; none where there are no callers to tell apart. What it shows in `Sidekey-Token`
    /// decides alone; else its Authorization, which may be there for other reasons unless it is a local token; else its
    /// process. `route`: the route's name, for local tokens.
    ///
    /// # Errors
    /// [`Refused::CallerUnknown`], [`Refused::LocalToken`].
    pub fn identify(
        &self,
        headers: &HeaderMap,
        peer: Option<Peer>,
        route: Option<&str>,
    ) -> Result<Option<CallerId>, Refused> {
        if self.is_empty() {
            return Ok(None);
        }
        let by_token = match shown::by(headers)? {
            Shown::Nothing => Err(Refused::CallerUnknown("it shows no token")),
            Shown::OwnHeader(token) => return self.by_token(token, route).map(Some),
            Shown::Authorization(token) => match self.by_token(&token, route) {
                // It is there for sidekey alone, and says itself who it is from.
                Err(stale @ Refused::LocalToken(_)) if *token != *OF_NOBODY.as_bytes() => return Err(stale),
                judged => judged,
            },
        };
        by_token.or_else(|refused| self.by_peer(peer).ok_or(refused)).map(Some)
    }

    /// Who a token request is from, its Authorization left out: the client's id and secret are no caller's there but by
    /// their names.
    pub fn identify_otherwise(&self, headers: &HeaderMap, peer: Option<Peer>) -> Option<CallerId> {
        match shown::by(headers) {
            Ok(Shown::OwnHeader(token)) => self.tokens.caller(token),
            Ok(_) => self.by_peer(peer),
            Err(_) => None,
        }
    }

    /// Whose token it is: a caller's own, or a local one that was made for this route.
    fn by_token(&self, token: &[u8], route: Option<&str>) -> Result<CallerId, Refused> {
        if let Some(caller) = self.tokens.caller(token) {
            return Ok(caller);
        }
        let Some(local) = LocalToken::parse(token) else {
            return Err(Refused::CallerUnknown("its token is no caller's"));
        };
        let local = local?;
        let (caller, route) = self.find(local.caller()).zip(route).ok_or(Invalid::Forged)?;
        local.verify(route, &self.tokens(caller), self.clock.wall())?;
        Ok(caller)
    }

    fn by_peer(&self, peer: Option<Peer>) -> Option<CallerId> {
        let peer = peer?;
        self.peers.iter().find(|(rule, _)| rule.is(peer)).map(|(_, id)| *id)
    }
}

#[cfg(test)]
mod tests;
