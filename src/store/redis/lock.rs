//! The lock on an entry, between all who use the server: a key that names its holder and ends by itself.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use ::redis::{Script, Value, cmd};

use super::MAX_MILLIS;
use super::link::{Ask, Link};
use crate::clock::{Clock, Moment};
use crate::store::{Lock, Pending, StoreError, name};

/// Takes the lock; a taking that was sent twice because the connection broke finds its own name and is done.
const TAKE: &str = r"
if redis.call('SET', KEYS[1], ARGV[1], 'NX', 'PX', ARGV[2]) then return 1 end
if redis.call('GET', KEYS[1]) == ARGV[1] then return 1 end
return 0
";

/// Removes the lock if it is still its holder's.
const RELEASE: &str = r"
if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end
return 0
";

static TAKE_SCRIPT: LazyLock<Script> = LazyLock::new(|| Script::new(TAKE));
static RELEASE_SCRIPT: LazyLock<Script> = LazyLock::new(|| Script::new(RELEASE));

/// A lock that this process has, or may have.
#[derive(Debug)]
pub(super) struct RedisLock {
    link: Arc<Link>,
    key: String,
    holder: String,
    ends: Moment,
    clock: Clock,
    /// Is there still something to give back?
    is_ours: bool,
}

impl RedisLock {
    /// Takes it, if nobody has it.
    pub(super) async fn take(
        link: &Arc<Link>,
        key: String,
        span: Duration,
        clock: &Clock,
    ) -> Result<Option<Self>, StoreError> {
        // Counted from before it is sent, and a hundredth less, because the server's clock may be the faster one.
        let ends = clock.now() + (span - span / 100);
        let holder = random()?;
        // Made before anything is sent: if the answer is lost, dropping it gives back what may have been taken.
        let mut lock =
            Self { link: Arc::clone(link), key, holder, ends, clock: clock.clone(), is_ours: true };
        let mut script = TAKE_SCRIPT.prepare_invoke();
        let millis = span.as_millis().clamp(1, MAX_MILLIS).to_string();
        script.key(&lock.key).arg(&lock.holder).arg(millis);
        let taken = link.ask(&Ask::Script(script)).await?;
        lock.is_ours = taken == Value::Int(1);
        Ok(lock.is_ours.then_some(lock))
    }

    async fn give_back(link: &Link, key: &str, holder: &str) -> Result<(), StoreError> {
        let mut script = RELEASE_SCRIPT.prepare_invoke();
        script.key(key).arg(holder);
        link.ask(&Ask::Script(script)).await.map(drop)
    }
}

impl Lock for RedisLock {
    fn left(&self) -> Duration {
        self.ends.since(self.clock.now())
    }

    fn is_held(&self) -> Pending<'_, bool> {
        Box::pin(async {
            let mut command = cmd("GET");
            command.arg(&self.key);
            let found = self.link.ask(&Ask::Command(command)).await?;
            // The time is asked last: the answer may have taken long.
            Ok(found == Value::BulkString(self.holder.clone().into_bytes()) && !self.left().is_zero())
        })
    }

    fn release(mut self: Box<Self>) -> Pending<'static, ()> {
        Box::pin(async move {
            let done = Self::give_back(&self.link, &self.key, &self.holder).await;
            // If that failed, dropping it tries once more.
            self.is_ours = done.is_err();
            done
        })
    }
}

impl Drop for RedisLock {
    fn drop(&mut self) {
        if !self.is_ours {
            return;
        }
        // Without a runtime nothing can be sent; the lock ends by itself then.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let (link, key, holder) = (Arc::clone(&self.link), self.key.clone(), self.holder.clone());
        runtime.spawn(async move {
            if let Err(error) = Self::give_back(&link, &key, &holder).await {
                tracing::debug!(%error, "a lock is not given back; it ends by itself");
            }
        });
    }
}

/// A name that nobody else has.
pub(super) fn random() -> Result<String, StoreError> {
    let mut bytes = [0; 16];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| StoreError::Randomness)?;
    Ok(name::hex(&bytes))
}
