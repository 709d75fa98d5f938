//! The store on a Redis or Valkey server: for replicas on different machines.
//!
//! An entry is a hash: its revision, its text ([`entry`]), and the name of the write that made it. It is written by one
//! script, which compares and sets. Grants never expire. All keys begin with `{PREFIX}:`, so that a cluster keeps them in
//! one slot. What the user needs there: `~{PREFIX}:*` and the commands that [`RedisFault::Permission`] lists; `INFO` and
//! `CONFIG GET` are asked once and may be refused.
//!
//! A write is as durable as the server's own settings make it. Replicas are not waited for: after a failover, a write
//! that was acknowledged may be missing. With `appendonly yes` and `appendfsync always` a crash of the server loses none.

mod durability;
mod fault;
mod link;
mod lock;

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use ::redis::{FromRedisValue, Script, Value, cmd};
use zeroize::Zeroizing;

use super::{Backend, EntryFault, Key, Kind, Lock, Pending, RedisFault, StoreError, Stored, entry, name};
use crate::clock::Clock;
use crate::config;
use crate::secret::reader::SecretReader;
use crate::tls::TlsFactory;
use link::{Ask, Link};
use lock::RedisLock;

/// Keys: the entry, the accounts. Arguments: the expected revision, the new one, the text, the name of this write, the
/// milliseconds it lives or nothing, `+` and the account to list or nothing. A write that was sent twice because the connection
/// broke finds its own name and is done. The account is listed first: an entry that is not listed would be overlooked.
const WRITE: &str = r"
local found = redis.call('HMGET', KEYS[1], 'revision', 'write')
if found[2] and found[2] == ARGV[4] and found[1] == ARGV[2] then return 1 end
if not found[1] and redis.call('EXISTS', KEYS[1]) == 1 then return -1 end
if (found[1] or '0') ~= ARGV[1] then return 0 end
if ARGV[6] ~= '' then redis.call('SADD', KEYS[2], string.sub(ARGV[6], 2)) end
redis.call('HSET', KEYS[1], 'revision', ARGV[2], 'entry', ARGV[3], 'write', ARGV[4])
if ARGV[5] ~= '' then redis.call('PEXPIRE', KEYS[1], ARGV[5]) else redis.call('PERSIST', KEYS[1]) end
return 1
";

static WRITE_SCRIPT: LazyLock<Script> = LazyLock::new(|| Script::new(WRITE));

/// Entries and locks on a server.
#[derive(Debug)]
pub(super) struct RedisStore {
    link: Arc<Link>,
    prefix: String,
    clock: Clock,
}

impl RedisStore {
    /// Needs no server yet.
    pub(super) fn new(
        server: &config::RedisStore,
        tls: &TlsFactory,
        reader: &SecretReader,
        clock: &Clock,
    ) -> Result<Self, StoreError> {
        let link = Arc::new(Link::new(server, tls, reader)?);
        Ok(Self { link, prefix: server.prefix.clone(), clock: clock.clone() })
    }

    fn key(&self, what: &str, name: &str) -> String {
        format!("{{{}}}:{what}:{name}", self.prefix)
    }

    fn entry_key(&self, key: &Key) -> String {
        self.key("entry", &name::of_entry(key))
    }

    fn epoch_key(&self) -> String {
        format!("{{{}}}:epoch", self.prefix)
    }

    async fn ask<T: FromRedisValue>(&self, ask: Ask<'_>) -> Result<T, StoreError> {
        let value: Value = self.link.ask(&ask).await?;
        ::redis::from_redis_value(value).map_err(|_| self.link.fault(RedisFault::Foreign))
    }
}

impl Backend for RedisStore {
    fn read<'a>(&'a self, key: &'a Key) -> Pending<'a, Option<Stored>> {
        Box::pin(async move {
            let place = self.entry_key(key);
            let mut command = cmd("HMGET");
            command.arg(&place).arg("revision").arg("entry");
            let (revision, text): (Option<u64>, Option<Vec<u8>>) = self.ask(Ask::Command(command)).await?;
            decode(key, revision, text.map(Zeroizing::new))
                .map_err(|fault| StoreError::Entry { place: format!("the Redis key {place}"), fault })
        })
    }

    fn write<'a>(
        &'a self,
        key: &'a Key,
        expected: u64,
        content: &'a [u8],
        lifetime: Option<Duration>,
    ) -> Pending<'a, u64> {
        Box::pin(async move {
            let revision = expected.checked_add(1).ok_or(StoreError::Conflict)?;
            let place = self.entry_key(key);
            let fault = |fault| StoreError::Entry { place: format!("the Redis key {place}"), fault };
            let text = entry::encode(key, revision, content).map_err(fault)?;
            // A lifetime of zero would mean none.
            let lifetime = lifetime.map(|lifetime| lifetime.as_millis().clamp(1, MAX_MILLIS).to_string());
            let account = match key.kind {
                Kind::Grant => format!("+{}", key.account),
                Kind::Token => String::new(),
            };
            let mut script = WRITE_SCRIPT.prepare_invoke();
            script
                .key(&place)
                .key(self.key("accounts", &name::of_accounts(&key.credential, &key.issuer)))
                .arg(expected)
                .arg(revision)
                .arg(text.as_slice())
                .arg(lock::random()?)
                .arg(lifetime.unwrap_or_default())
                .arg(account);
            match self.ask(Ask::Script(script)).await? {
                1 => Ok(revision),
                0 => Err(StoreError::Conflict),
                -1_i64 => Err(fault(EntryFault::Foreign)),
                _ => Err(self.link.fault(RedisFault::Foreign)),
            }
        })
    }

    fn lock<'a>(&'a self, key: &'a Key, span: Duration) -> Pending<'a, Option<Box<dyn Lock>>> {
        Box::pin(async move {
            let place = self.key("lock", &name::of_entry(key));
            let lock = RedisLock::take(&self.link, place, span, &self.clock).await?;
            Ok(lock.map(|lock| Box::new(lock) as Box<dyn Lock>))
        })
    }

    fn accounts<'a>(&'a self, credential: &'a str, issuer: &'a str) -> Pending<'a, Vec<Arc<str>>> {
        Box::pin(async move {
            let mut command = cmd("SMEMBERS");
            command.arg(self.key("accounts", &name::of_accounts(credential, issuer)));
            let names: Vec<String> = self.ask(Ask::Command(command)).await?;
            Ok(names.into_iter().map(Arc::from).collect())
        })
    }

    fn epoch(&self) -> Pending<'_, u64> {
        Box::pin(async {
            let mut command = cmd("GET");
            command.arg(self.epoch_key());
            let epoch: Option<u64> = self.ask(Ask::Command(command)).await?;
            Ok(epoch.unwrap_or(0))
        })
    }

    fn announce(&self) -> Pending<'_, ()> {
        Box::pin(async {
            let mut command = cmd("INCR");
            command.arg(self.epoch_key());
            let _: i64 = self.ask(Ask::Command(command)).await?;
            Ok(())
        })
    }

    fn is_shared(&self) -> bool {
        true
    }
}

/// Pure. What the two fields of an entry amount to.
fn decode(
    key: &Key,
    revision: Option<u64>,
    text: Option<Zeroizing<Vec<u8>>>,
) -> Result<Option<Stored>, EntryFault> {
    match (revision, text) {
        (None, None) => Ok(None),
        (Some(revision), Some(text)) => match entry::decode(key, &text)? {
            stored if stored.revision == revision => Ok(Some(stored)),
            _ => Err(EntryFault::Damaged("its revisions differ")),
        },
        _ => Err(EntryFault::Damaged("half of it is missing")),
    }
}

/// The longest lifetime that is said: ten years.
const MAX_MILLIS: u128 = 10 * 365 * 24 * 3600 * 1000;
