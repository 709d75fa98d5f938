//! Neo4j transactions keep their token: one belongs to the exact token that opened it, so requests within it carry
//! the lease that its first request had, even when the pool has moved on.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use bytes::Bytes;
use http::Method;
use serde::Deserialize;

use crate::config::{Provider, Route};
use crate::credential::{InForce, Lease};

const SHARDS: usize = 16;
/// Open transactions that are known at most in each shard; the least recently opened one is forgotten first.
const PER_SHARD: usize = 1024;
/// How much of the answer to a begin is looked at: its end, where the transaction is named.
const TAIL_BYTES: usize = 64 * 1024;

/// The open transactions of all routes, shared by all workers. Touched only by requests about transactions.
#[derive(Debug)]
pub struct Transactions {
    shards: [Mutex<Shard>; SHARDS],
    hasher: RandomState,
}

#[derive(Debug, Default)]
struct Shard {
    /// By the route's scope and the path: `/db/neo4j/query/v2/tx/ID`.
    open: HashMap<Key, Open>,
    opened: u64,
}

/// It means the same in the next configuration.
type Key = (Arc<str>, Box<str>);

#[derive(Debug)]
struct Open {
    lease: Lease,
    /// Whose lease it is.
    credential: Weak<InForce>,
    /// Who opened it, where callers are told apart.
    caller: Option<Arc<str>>,
    /// Its number among those opened in the shard.
    order: u64,
}

/// What a request has to do with a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step<'a> {
    /// Nothing.
    Outside,
    /// It opens one, under this path.
    Begins(&'a str),
    /// It belongs to the one with this path.
    Within {
        /// `/db/neo4j/query/v2/tx/ID`.
        transaction: &'a str,
        /// Does it commit it or roll it back?
        ends: bool,
    },
}

/// A transaction is another caller's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Foreign;

impl Step<'_> {
    /// May the request be sent again with another token?
    pub(crate) fn may_change_token(&self) -> bool {
        !matches!(self, Self::Within { .. })
    }
}

/// What a request to `path` (the upstream's) has to do with a transaction, of the Query API or the older HTTP API.
pub(crate) fn step<'a>(route: &Route, method: &Method, path: &'a str) -> Step<'a> {
    if route.provider != Provider::Neo4j || route.credential.is_none() {
        return Step::Outside;
    }
    let Some(end) = end_of_collection(path) else { return Step::Outside };
    let (transactions, rest) = path.split_at(end);
    let mut segments = rest.split('/').filter(|segment| !segment.is_empty());
    match (rest.as_bytes().first(), segments.next(), segments.next(), segments.next()) {
        (None | Some(b'/'), None, ..) if *method == Method::POST => Step::Begins(transactions),
        // Of the older API: opened and committed at once.
        (_, Some("commit"), None, _) => Step::Outside,
        (Some(b'/'), Some(id), last @ (None | Some("commit")), None) => {
            let start = end + rest.find(id).unwrap_or_default();
            let ends = last.is_some() || *method == Method::DELETE;
            Step::Within { transaction: &path[..start + id.len()], ends }
        }
        _ => Step::Outside,
    }
}

/// Where the path of a database's transactions ends: `/db/NAME/query/v2/tx`, `/db/NAME/tx`, or before Neo4j 4
/// `/db/data/transaction`.
fn end_of_collection(path: &str) -> Option<usize> {
    let name = path.find("/db/")? + "/db/".len();
    let end = name + path[name..].find('/')?;
    ["/query/v2/tx", "/tx", "/transaction"]
        .iter()
        .find(|api| path[end..].starts_with(**api))
        .map(|api| end + api.len())
}

/// Could a server read the path as one of a transaction's, though it is not spelled as such a path is? Pure.
pub(crate) fn is_disguised(path: &str) -> bool {
    let lower = path.to_ascii_lowercase();
    let is_about_one = lower.contains("/tx") || lower.contains("/transaction");
    is_about_one && (lower.contains([';', '%']) || lower.contains("//"))
}

impl Transactions {
    /// None open.
    pub fn new() -> Self {
        Self { shards: std::array::from_fn(|_| Mutex::default()), hasher: RandomState::new() }
    }

    /// The lease that opened a transaction, as long as its token is valid and of this credential still.
    ///
    /// # Errors
    /// [`Foreign`] where another caller opened it.
    pub(crate) fn lease(
        &self,
        route: &Arc<str>,
        transaction: &str,
        caller: Option<&Arc<str>>,
        credential: &Arc<InForce>,
    ) -> Result<Option<Lease>, Foreign> {
        let key = (Arc::clone(route), transaction.into());
        let mut shard = self.shard(&key);
        let Some(open) = shard.open.get(&key) else { return Ok(None) };
        if caller.is_some() && open.caller.as_ref() != caller {
            return Err(Foreign);
        }
        // Another configuration may have given the route to another credential.
        let is_its = std::ptr::eq(open.credential.as_ptr(), Arc::as_ptr(credential));
        if is_its && credential.pool().is_valid(&open.lease) {
            return Ok(Some(open.lease.clone()));
        }
        // With its token dead the transaction is lost; the server says so itself.
        shard.open.remove(&key);
        Ok(None)
    }

    /// Was a transaction begun on this route by this caller, and not ended or forgotten since?
    pub(crate) fn knows(&self, route: &Arc<str>, transaction: &str, caller: Option<&Arc<str>>) -> bool {
        let key = (Arc::clone(route), transaction.into());
        self.shard(&key).open.get(&key).is_some_and(|open| open.caller.as_ref() == caller)
    }

    /// A transaction has ended.
    pub(crate) fn forget(&self, route: &Arc<str>, transaction: &str) {
        let key = (Arc::clone(route), transaction.into());
        self.shard(&key).open.remove(&key);
    }

    /// Watches the answer to a request that opened a transaction.
    pub(crate) fn opening(
        self: &Arc<Self>,
        route: &Arc<str>,
        path: &str,
        caller: Option<&Arc<str>>,
        lease: Lease,
        credential: &Arc<InForce>,
    ) -> Opening {
        Opening {
            transactions: Arc::clone(self),
            route: Arc::clone(route),
            path: path.into(),
            caller: caller.cloned(),
            lease,
            credential: Arc::downgrade(credential),
            words: ServersWords::default(),
        }
    }

    fn bind(&self, key: Key, caller: Option<Arc<str>>, lease: Lease, credential: Weak<InForce>) {
        let mut shard = self.shard(&key);
        if shard.open.len() >= PER_SHARD && !shard.open.contains_key(&key) {
            let oldest = shard.open.iter().min_by_key(|(_, open)| open.order).map(|(key, _)| key.clone());
            oldest.and_then(|key| shard.open.remove(&key));
        }
        shard.opened += 1;
        let order = shard.opened;
        shard.open.insert(key, Open { lease, credential, caller, order });
    }

    fn shard(&self, key: &Key) -> MutexGuard<'_, Shard> {
        #[allow(clippy::cast_possible_truncation)] // any bits will do
        let index = self.hasher.hash_one(key) as usize % SHARDS;
        self.shards[index].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Transactions {
    fn default() -> Self {
        Self::new()
    }
}

/// The answer to a request that opened a transaction, watched for the transaction's id while it passes.
#[derive(Debug)]
pub(crate) struct Opening {
    transactions: Arc<Transactions>,
    route: Arc<str>,
    path: Box<str>,
    caller: Option<Arc<str>>,
    lease: Lease,
    credential: Weak<InForce>,
    words: ServersWords,
}

impl Opening {
    /// A piece of the answer is about to pass. The transaction is known before the caller can name it.
    pub(crate) fn see(&mut self, chunk: &Bytes) {
        self.words.see(chunk);
        // What names it ends with a brace or a quote; most pieces of a large answer need no look at all.
        let end = chunk.trim_ascii_end().last();
        if !matches!(end, None | Some(b'}' | b'"')) {
            return;
        }
        if let Some(id) = transaction_id(&self.words.kept) {
            let key = (Arc::clone(&self.route), format!("{}/{id}", self.path).into());
            let (lease, credential) = (self.lease.clone(), Weak::clone(&self.credential));
            self.transactions.bind(key, self.caller.clone(), lease, credential);
        }
    }
}

/// What of an answer in JSON, or in lines of it, the server itself says: all that no array encloses. What a query returns
/// always stands in one, and could else name any transaction.
#[derive(Debug, Default)]
struct ServersWords {
    in_string: bool,
    is_escaped: bool,
    /// Arrays that are open.
    arrays: usize,
    /// The end of what it says.
    kept: Vec<u8>,
}

impl ServersWords {
    fn see(&mut self, chunk: &[u8]) {
        for &byte in chunk {
            if self.arrays == 0 {
                self.kept.push(byte);
            }
            if self.in_string {
                let is_over = byte == b'"' && !self.is_escaped;
                self.is_escaped = byte == b'\\' && !self.is_escaped;
                self.in_string = !is_over;
                continue;
            }
            match byte {
                b'"' => self.in_string = true,
                b'[' => self.arrays += 1,
                b']' if self.arrays == 1 => {
                    self.arrays = 0;
                    self.kept.push(byte);
                }
                b']' => self.arrays = self.arrays.saturating_sub(1),
                _ => {}
            }
        }
        if self.kept.len() > TAIL_BYTES {
            self.kept.drain(..self.kept.len() - TAIL_BYTES);
        }
    }
}

/// The id of the transaction that the server names last: `"transaction":{"id":…}` of the Query API, or the `commit`
/// URL of the older API.
fn transaction_id(tail: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Transaction {
        id: String,
    }
    fn value<'a, T: Deserialize<'a>>(tail: &'a [u8], name: &[u8]) -> Option<T> {
        // Inside a JSON string the quotes would be escaped, so this is a member's name.
        let at = tail.windows(name.len()).rposition(|window| window == name)?;
        let rest = tail[at + name.len()..].trim_ascii_start().strip_prefix(b":")?;
        serde_json::Deserializer::from_slice(rest).into_iter().next()?.ok()
    }
    let of_query_api = value::<Transaction>(tail, b"\"transaction\"").map(|transaction| transaction.id);
    of_query_api.or_else(|| {
        let commit: String = value(tail, b"\"commit\"")?;
        let id = commit.strip_suffix("/commit")?.rsplit('/').next()?;
        Some(id.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_about_transactions_are_told_from_others() {
        let route = neo4j_route();
        let within = |transaction, ends| Step::Within { transaction, ends };
        let query = "/db/neo4j/query/v2/tx";
        let cases = [
            (Method::POST, "/db/neo4j/query/v2", Step::Outside),
            (Method::POST, query, Step::Begins(query)),
            (Method::POST, "/db/neo4j/query/v2/tx/", Step::Begins(query)),
            (Method::GET, query, Step::Outside),
            (Method::POST, "/db/neo4j/query/v2/tx/a1", within("/db/neo4j/query/v2/tx/a1", false)),
            (Method::POST, "/db/neo4j/query/v2/tx/a1/commit", within("/db/neo4j/query/v2/tx/a1", true)),
            (Method::DELETE, "/db/neo4j/query/v2/tx/a1", within("/db/neo4j/query/v2/tx/a1", true)),
            (Method::POST, "/db/neo4j/query/v2/tx/a1/other", Step::Outside),
            (Method::POST, "/db/neo4j/tx", Step::Begins("/db/neo4j/tx")),
            (Method::POST, "/db/neo4j/tx/commit", Step::Outside),
            (Method::POST, "/db/neo4j/tx/50", within("/db/neo4j/tx/50", false)),
            (Method::POST, "/db/neo4j/tx/50/commit", within("/db/neo4j/tx/50", true)),
            (Method::POST, "/db/neo4j/txt", Step::Outside),
            (Method::POST, "/db/txdb/tx/50", within("/db/txdb/tx/50", false)),
            (Method::POST, "/base/db/tx/query/v2/tx", Step::Begins("/base/db/tx/query/v2/tx")),
            (Method::GET, "/", Step::Outside),
        ];
        for (method, path, want) in cases {
            assert_eq!(step(&route, &method, path), want, "{method} {path}");
        }
    }

    #[test]
    fn the_transaction_is_found_in_every_form_of_answer() {
        let cases: [(&str, Option<&str>); 8] = [
            (r#"{"data":{},"transaction":{"id":"a1","expires":"x"}}"#, Some("a1")),
            (r#"{"transaction" : { "expires":"x", "id":"a1" }, "data":{}}"#, Some("a1")),
            (
                r#"{"data":{"values":[["\"transaction\":{\"id\":\"no\"}"]]},"transaction":{"id":"a1"}}"#,
                Some("a1"),
            ),
            ("{\"$event\":\"Summary\",\"_body\":{\"transaction\":{\"id\":\"a1\"}}}\n", Some("a1")),
            (
                r#"{"results":[],"errors":[],"commit":"http://h/db/neo4j/tx/50/commit","transaction":{"expires":"x"}}"#,
                Some("50"),
            ),
            (r#"{"data":{},"transaction":{"id":"a1"#, None),
            (r#"{"errors":[]}"#, None),
            ("", None),
        ];
        for (answer, want) in cases {
            assert_eq!(transaction_id(answer.as_bytes()).as_deref(), want, "{answer}");
        }
    }

    #[test]
    fn what_a_query_returns_names_no_transaction() {
        let cases: [(&str, Option<&str>); 9] = [
            (r#"{"data":{"values":[[{"transaction":{"id":"no"}}]]},"transaction":{"id":"a1"}}"#, Some("a1")),
            (
                r#"{"data":{"values":[[{"transaction":{"id":"no"}}]]},"errors":[{"transaction":{"id":"no"}}]}"#,
                None,
            ),
            (r#"{"data":{"values":[[{"x":"]]","transaction":{"id":"no"}}]]"#, None),
            (r#"{"data":{"values":[[{"x":"\"]]","transaction":{"id":"no"}}"#, None),
            (r#"{"data":{"values":[[{"x":"\\","transaction":{"id":"no"}}"#, None),
            ("{\"$event\":\"Record\",\"_body\":[{\"transaction\":{\"id\":\"no\"}}]}\n", None),
            ("{\"$event\":\"Record\",\"_body\":[{\"transaction\":{\"id\":\"no\"}}", None),
            (r#"{"results":[{"data":[{"row":[{"commit":"x/50/commit"}]}]}],"errors":[]}"#, None),
            (
                r#"{"results":[{"data":[{"row":[{"commit":"x/50/commit"}]}]}],"commit":"h/tx/51/commit"}"#,
                Some("51"),
            ),
        ];
        for (answer, want) in cases {
            for size in [1, 3, answer.len()] {
                let mut words = ServersWords::default();
                let mut seen = None;
                for chunk in answer.as_bytes().chunks(size) {
                    words.see(chunk);
                    seen = transaction_id(&words.kept).or(seen);
                }
                assert_eq!(seen.as_deref(), want, "{answer} in pieces of {size}");
            }
        }
    }

    #[test]
    fn a_path_that_servers_may_take_for_a_transactions_is_spelled_plainly_or_refused() {
        for path in [
            "/db/neo4j/tx/50;x",
            "/db/neo4j/tx/50/commit;x",
            "/db/neo4j//tx/50",
            "//db/neo4j/tx/50",
            "/db/neo4j/TX/5%30;",
        ] {
            assert!(is_disguised(path), "{path}");
        }
        for path in ["/db/neo4j/tx/50", "/db/neo4j/query/v2", "/db/a;b/query/v2", "/", "/db/neo4j/tx/commit"]
        {
            assert!(!is_disguised(path), "{path}");
        }
    }

    fn neo4j_route() -> Route {
        let text = "[route.g]\nprovider = 'neo4j'\nupstream = 'http://localhost:1'\n\
                    credential = { type = 'basic', username = 'u', password = { value = 'p' } }";
        let source = crate::config::Source::Text { name: "test".into(), text: text.into() };
        let options = crate::config::LoadOptions::default();
        let loaded = crate::config::load(&source, &crate::config::Environment::default(), options);
        loaded.unwrap().config.routes.remove(0)
    }
}
