//! The tokens of all callers: compared without telling how nearly right a guess is, and kept fresh.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use aws_lc_rs::hmac;
use tokio::time::MissedTickBehavior;
use tracing::{info, warn};

use crate::config::{Caller, CallerId};
use crate::secret::fingerprint::Fingerprint;
use crate::secret::reader::SecretReader;
use crate::secret::{Secret, SecretError, SecretSource};
use crate::telemetry::chain;

/// How often files are looked at.
const LOOK: Duration = Duration::from_secs(1);

/// The tokens that count now.
pub(super) struct Tokens {
    /// Of this process alone, so that nobody can know where in the table a guess would fall.
    key: hmac::Key,
    current: ArcSwap<Table>,
}

/// Whose each token is.
struct Table {
    /// By keyed digest; none: more than one caller has that token, so it tells nothing.
    callers: HashMap<[u8; 32], Option<CallerId>>,
    /// By caller.
    tokens: Vec<Vec<Secret>>,
}

impl Tokens {
    /// No tokens of so many callers.
    pub(super) fn none(callers: usize) -> Self {
        Self::of_table(vec![Vec::new(); callers])
    }

    fn of_table(tokens: Vec<Vec<Secret>>) -> Self {
        let mut key = zeroize::Zeroizing::new([0_u8; 32]);
        // Without random bits the table is as good, and its key no secret.
        let _ = aws_lc_rs::rand::fill(&mut *key);
        let key = hmac::Key::new(hmac::HMAC_SHA256, &*key);
        let table = Table::new(&key, tokens);
        Self { key, current: ArcSwap::from_pointee(table) }
    }

    /// Whose token this is.
    pub(super) fn caller(&self, token: &[u8]) -> Option<CallerId> {
        self.current.load().callers.get(&digest(&self.key, token)).copied().flatten()
    }

    /// The tokens of a caller.
    pub(super) fn of(&self, id: CallerId) -> Vec<Secret> {
        self.current.load().tokens[id].clone()
    }
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let callers = self.current.load().tokens.len();
        f.debug_struct("Tokens").field("callers", &callers).finish_non_exhaustive()
    }
}

impl Table {
    fn new(key: &hmac::Key, tokens: Vec<Vec<Secret>>) -> Self {
        let mut callers = HashMap::new();
        for (id, tokens) in tokens.iter().enumerate() {
            for token in tokens {
                let owner = callers.entry(digest(key, token.expose().as_bytes())).or_insert(Some(id));
                if *owner != Some(id) {
                    *owner = None;
                }
            }
        }
        Self { callers, tokens }
    }

    /// Does any token tell nothing, as several callers have it?
    fn is_ambiguous(&self) -> bool {
        self.callers.values().any(Option::is_none)
    }
}

/// All bits of the digest take part in the comparison, and none can be guessed: how long it takes tells nothing.
fn digest(key: &hmac::Key, token: &[u8]) -> [u8; 32] {
    let tag = hmac::sign(key, token);
    let mut digest = [0; 32];
    digest.copy_from_slice(&tag.as_ref()[..32]);
    digest
}

/// Looks at the files that tokens come from, and takes up what changed.
#[derive(Debug)]
pub struct TokenWatch {
    tokens: Arc<Tokens>,
    watched: Vec<Watched>,
}

/// One token.
#[derive(Debug)]
struct Watched {
    caller: CallerId,
    name: Arc<str>,
    source: SecretSource,
    secret: Secret,
    seen: Option<Fingerprint>,
    /// What was seen last could not be used.
    failing: bool,
}

impl TokenWatch {
    /// Reads all tokens.
    pub(super) fn load(
        callers: &[Caller],
        reader: &SecretReader,
    ) -> Result<(Arc<Tokens>, Self), SecretError> {
        let mut watched = Vec::new();
        for (caller, one) in callers.iter().enumerate() {
            for source in &one.tokens {
                // Before it is read: a change that falls in between is one at the next look.
                let seen = source.file().and_then(Fingerprint::of);
                let secret = reader.read_blocking(source)?;
                if !secret.is_word() {
                    return Err(SecretError::NotAWord(format!("the token of caller {}", one.name)));
                }
                let (name, source) = (Arc::clone(&one.name), source.clone());
                watched.push(Watched { caller, name, source, secret, seen, failing: false });
            }
        }
        let tokens = Arc::new(Tokens::of_table(by_caller(&watched, callers.len())));
        if tokens.current.load().is_ambiguous() {
            warn!("two callers have the same token: it lets nobody in");
        }
        Ok((Arc::clone(&tokens), Self { tokens, watched }))
    }

    /// Looks at all files once, and takes up what changed. A file that cannot be used leaves its old token in force, is
    /// told of once, and tried again at each look.
    pub fn look(&mut self) {
        let mut changed = false;
        for watched in &mut self.watched {
            changed |= watched.look();
        }
        if !changed {
            return;
        }
        let callers = self.tokens.current.load().tokens.len();
        let table = Table::new(&self.tokens.key, by_caller(&self.watched, callers));
        if table.is_ambiguous() {
            warn!("two callers have the same token now: it lets nobody in");
        }
        self.tokens.current.store(Arc::new(table));
    }

    /// Looks every second, for ever.
    pub async fn run(mut self) {
        if self.watched.iter().all(|watched| watched.source.file().is_none()) {
            return;
        }
        let mut ticks = tokio::time::interval(LOOK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            self.look();
        }
    }
}

impl Watched {
    /// Is there another token now?
    fn look(&mut self) -> bool {
        let Some(path) = self.source.file() else { return false };
        let now = Fingerprint::of(path);
        let changed = now != self.seen;
        if !changed && !self.failing {
            return false;
        }
        self.seen = now;
        let caller = &*self.name;
        match crate::secret::read_file(path).and_then(|secret| usable(secret, path)) {
            Ok(secret) => {
                self.failing = false;
                if secret == self.secret {
                    return false;
                }
                info!(caller, "a caller's token changed; the old one counts no more");
                self.secret = secret;
                true
            }
            Err(error) => {
                if changed {
                    let text = chain(&error);
                    warn!(caller, "a caller's token changed and cannot be used, the old one stays: {text}");
                }
                self.failing = true;
                false
            }
        }
    }
}

/// A token must be one word, as the configuration's check says.
fn usable(secret: Secret, path: &std::path::Path) -> Result<Secret, SecretError> {
    match secret.is_word() {
        true => Ok(secret),
        false => Err(SecretError::NotAWord(path.display().to_string())),
    }
}

fn by_caller(watched: &[Watched], callers: usize) -> Vec<Vec<Secret>> {
    let mut tokens = vec![Vec::new(); callers];
    for one in watched {
        tokens[one.caller].push(one.secret.clone());
    }
    tokens
}
