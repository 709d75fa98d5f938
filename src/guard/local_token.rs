//! Local tokens: what a client that insists on fetching a token gets from sidekey, worth nothing anywhere else. Pure.
//!
//! `sidekey-local-v1.CALLER.EXPIRY.MAC`: whose it is, when it ends in seconds since 1970, and HMAC-SHA256 over version,
//! caller, route and expiry under a key that is derived (HKDF, RFC 5869) from the caller's own token. So whoever has the
//! same configuration can check one, and nobody has to remember any; a caller token that is no longer in force takes
//! those that were made with it along.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::{hkdf, hmac};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::secret::Secret;

/// What every local token begins with.
pub const PREFIX: &str = "sidekey-local-v1.";

/// What a client gets where callers are not told apart: nobody will ask for it.
pub const OF_NOBODY: &str = "sidekey-local-v1.none";

/// How long a local token is good.
pub const LIFETIME: Duration = Duration::from_secs(3600);

/// How far the clocks of two replicas may be apart. A token that ends later than one made so far ahead is refused: after
/// a clock was set back it would be good for longer than it was made for.
const SKEW: Duration = Duration::from_secs(300);

/// What the derived key is for; another use of a caller's token could not be mistaken for this one.
const INFO: &[u8] = b"sidekey local token v1";
const VERSION: &str = "v1";

/// Why a local token is not good. The caller is not told which.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// No token of this caller for this route has this form and this MAC.
    #[error("the local token is not one of this caller's for this route")]
    Forged,
    /// It was good.
    #[error("the local token has expired")]
    Expired,
    /// It will be good for longer than any token is made for.
    #[error("the local token is from the future: a clock was set back")]
    Future,
}

/// Makes a token for a caller who showed `secret`, good on one route for [`LIFETIME`].
pub fn mint(secret: &Secret, caller: &str, route: &str, now: SystemTime) -> Secret {
    let expiry = (since_epoch(now) + LIFETIME).as_secs().to_string();
    let mac = hmac::sign(&key(secret), &message(caller, route, &expiry));
    Secret::new(format!("{PREFIX}{caller}.{expiry}.{}", URL_SAFE_NO_PAD.encode(mac)))
}

/// A local token as it was shown; whose it claims to be is not yet proven.
#[derive(Clone, Copy)]
pub struct Shown<'a> {
    caller: &'a str,
    expiry: &'a str,
    mac: &'a str,
}

impl<'a> Shown<'a> {
    /// Takes a token that begins with [`PREFIX`] apart; none where it does not.
    ///
    /// # Errors
    /// [`Invalid::Forged`] where no local token looks like this.
    pub fn parse(token: &'a [u8]) -> Option<Result<Self, Invalid>> {
        let rest = token.strip_prefix(PREFIX.as_bytes())?;
        let parts = || {
            // A name may have dots.
            let (rest, mac) = std::str::from_utf8(rest).ok()?.rsplit_once('.')?;
            let (caller, expiry) = rest.rsplit_once('.')?;
            Some(Self { caller, expiry, mac })
        };
        Some(parts().ok_or(Invalid::Forged))
    }

    /// Whose it claims to be.
    pub fn caller(&self) -> &'a str {
        self.caller
    }

    /// Was it made for this route with one of the caller's tokens that are in force, and is it still good?
    ///
    /// # Errors
    /// Why it is not. That it has expired is said only of one that was good.
    pub fn verify(&self, route: &str, tokens: &[Secret], now: SystemTime) -> Result<(), Invalid> {
        let mac = URL_SAFE_NO_PAD.decode(self.mac).map_err(|_| Invalid::Forged)?;
        let message = message(self.caller, route, self.expiry);
        // `verify` compares in constant time.
        let is_ours = |secret: &Secret| hmac::verify(&key(secret), &message, &mac).is_ok();
        if !tokens.iter().any(is_ours) {
            return Err(Invalid::Forged);
        }
        let expiry = self.expiry.parse().map(Duration::from_secs).map_err(|_| Invalid::Forged)?;
        let now = since_epoch(now);
        if expiry <= now {
            return Err(Invalid::Expired);
        }
        if expiry > now + LIFETIME + SKEW { Err(Invalid::Future) } else { Ok(()) }
    }
}

impl std::fmt::Debug for Shown<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "local token of {:?} until {:?} …", self.caller, self.expiry)
    }
}

fn since_epoch(time: SystemTime) -> Duration {
    time.duration_since(UNIX_EPOCH).unwrap_or_default()
}

fn key(secret: &Secret) -> hmac::Key {
    let salt = hkdf::Salt::new(hkdf::HKDF_SHA256, &[]);
    let prk = salt.extract(secret.expose().as_bytes());
    let derived = prk.expand(&[INFO], hmac::HMAC_SHA256);
    // It fails for keys of more than 255 hashes only.
    derived.expect("32 bytes are not too many").into()
}

/// The fields, each behind its length: no two lists of them are the same bytes.
fn message(caller: &str, route: &str, expiry: &str) -> Vec<u8> {
    let fields = [VERSION, caller, route, expiry];
    let mut message = Vec::with_capacity(fields.iter().map(|field| 8 + field.len()).sum());
    for field in fields {
        message.extend_from_slice(&(field.len() as u64).to_be_bytes());
        message.extend_from_slice(field.as_bytes());
    }
    message
}

#[cfg(test)]
mod tests;
