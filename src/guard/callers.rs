//! Callers: who a request is from, by the token that it shows or by the process at the other end of a Unix socket.

mod shown;
mod tokens;

use std::sync::Arc;

use http::HeaderMap;

use self::shown::Shown;
use self::tokens::Tokens;
use super::Refused;
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
}

impl Callers {
    /// Reads the tokens of all callers, and gives what keeps them fresh.
    ///
    /// # Errors
    /// [`SecretError`] when one cannot be read.
    pub fn load(config: &Config, reader: &SecretReader) -> Result<(Self, TokenWatch), SecretError> {
        let (tokens, watch) = TokenWatch::load(&config.callers, reader)?;
        Ok((Self::with(config, tokens), watch))
    }

    /// The same without any token: nobody can show who they are. For what only explains.
    pub fn unread(config: &Config) -> Self {
        Self::with(config, Arc::new(Tokens::none(config.callers.len())))
    }

    fn with(config: &Config, tokens: Arc<Tokens>) -> Self {
        let names = config.callers.iter().map(|caller| Arc::clone(&caller.name)).collect();
        let peer = |(id, rule): (CallerId, &Option<PeerRule>)| Some((rule.clone()?, id));
        let rules = config.callers.iter().map(|caller| &caller.peer).enumerate();
        Self { names, tokens, peers: rules.filter_map(peer).collect() }
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
        self.tokens.of(id)
    }

    /// Who a request is from; none where there are no callers to tell apart. What it shows in `Sidekey-Token` decides
    /// alone; else its Authorization, which may be there for other reasons; else its process.
    ///
    /// # Errors
    /// [`Refused::CallerUnknown`].
    pub fn identify(&self, headers: &HeaderMap, peer: Option<Peer>) -> Result<Option<CallerId>, Refused> {
        if self.is_empty() {
            return Ok(None);
        }
        let shown = shown::by(headers)?;
        let by_token = match &shown {
            Shown::Nothing => None,
            Shown::OwnHeader(token) => {
                let caller = self.tokens.caller(token);
                return caller.map(Some).ok_or(Refused::CallerUnknown("its token is no caller's"));
            }
            Shown::Authorization(token) => self.tokens.caller(token),
        };
        let by_peer = || {
            let peer = peer?;
            self.peers.iter().find(|(rule, _)| rule.is(peer)).map(|(_, id)| *id)
        };
        let why = match shown {
            Shown::Nothing => "it shows no token",
            _ => "its token is no caller's",
        };
        by_token.or_else(by_peer).map(Some).ok_or(Refused::CallerUnknown(why))
    }
}

#[cfg(test)]
mod tests;
