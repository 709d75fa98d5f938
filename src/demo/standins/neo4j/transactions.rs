//! The Query API and the transactional API, over one ledger of open transactions.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use http::header::{self, HeaderValue};
use http::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::super::serve::{self, Answer};
use super::super::tokens::random_text;
use super::Call;
use super::answers::{
    IDLE, bookmarks, in_a_while, legacy_error, legacy_not_found, legacy_reads, no_such_request, not_found,
    query_answer, query_error, query_reads, run_legacy, run_query, transaction,
};
use super::auth::Presented;

const AFFINITY: &str = "neo4j-cluster-affinity";

#[derive(Default)]
pub(super) struct Transactions {
    pub(super) require_affinity: bool,
    open: Mutex<HashMap<String, Open>>,
}

struct Open {
    api: Api,
    database: String,
    owner: Option<Presented>,
    affinity: String,
    /// Its access mode is READ.
    reads: bool,
    expires: Instant,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Api {
    Query,
    Legacy,
}

impl Transactions {
    pub(super) fn open(&self) -> usize {
        self.ledger().len()
    }

    /// `POST /db/{database}/query/v2…`
    pub(super) fn query_api(&self, call: &Call<'_>, database: &str, rest: &[&str]) -> Answer {
        let post = call.head.method == Method::POST;
        match rest {
            [] if post => {
                run_query(call, query_reads(&call.body), |answer| answer["bookmarks"] = bookmarks())
            }
            ["tx"] if post => {
                let (id, affinity) = self.begin(Api::Query, query_reads(&call.body), call, database);
                let mut answer = self.run_in(&id, call, |answer| answer["transaction"] = transaction(&id));
                match HeaderValue::from_str(&affinity) {
                    Ok(value) => answer.headers_mut().insert(AFFINITY, value),
                    Err(_) => None,
                };
                answer
            }
            ["tx", id] | ["tx", id, "commit"] if !self.touch(Api::Query, id, call, database) => {
                query_error(call, StatusCode::NOT_FOUND, &not_found(id))
            }
            ["tx", id] if post => self.run_in(id, call, |answer| answer["transaction"] = transaction(id)),
            ["tx", id, "commit"] if post => {
                let reads = self.ledger().remove(*id).is_some_and(|open| open.reads);
                run_query(call, reads, |answer| answer["bookmarks"] = bookmarks())
            }
            ["tx", id] if call.head.method == Method::DELETE => {
                self.ledger().remove(*id);
                query_answer(call, StatusCode::OK, &json!({}))
            }
            _ => query_error(call, StatusCode::METHOD_NOT_ALLOWED, &no_such_request()),
        }
    }

    /// `POST /db/{database}/tx…`
    pub(super) fn legacy_api(&self, call: &Call<'_>, database: &str, rest: &[&str]) -> Answer {
        let post = call.head.method == Method::POST;
        let url = |id: &str| format!("{}/db/{database}/tx/{id}", call.base);
        let going_on = |answer: &mut Value, id: &str| {
            answer["commit"] = format!("{}/commit", url(id)).into();
            answer["transaction"] = json!({ "expires": httpdate::fmt_http_date(in_a_while()) });
        };
        match rest {
            [] if post => {
                let (id, _) = self.begin(Api::Legacy, legacy_reads(&call.head.headers), call, database);
                let mut answer =
                    self.run_legacy_in(&id, call, StatusCode::CREATED, |answer| going_on(answer, &id));
                match HeaderValue::from_str(&url(&id)) {
                    Ok(location) => answer.headers_mut().insert(header::LOCATION, location),
                    Err(_) => None,
                };
                answer
            }
            ["commit"] if post => {
                let reads = legacy_reads(&call.head.headers);
                run_legacy(call, reads, StatusCode::OK, |answer| answer["lastBookmarks"] = bookmarks())
            }
            [id] | [id, "commit"] if !self.touch(Api::Legacy, id, call, database) => {
                legacy_error(StatusCode::NOT_FOUND, &legacy_not_found())
            }
            [id] if post => self.run_legacy_in(id, call, StatusCode::OK, |answer| going_on(answer, id)),
            [id, "commit"] if post => {
                let reads = self.ledger().remove(*id).is_some_and(|open| open.reads);
                run_legacy(call, reads, StatusCode::OK, |answer| answer["lastBookmarks"] = bookmarks())
            }
            [id] if call.head.method == Method::DELETE => {
                self.ledger().remove(*id);
                serve::json(StatusCode::OK, &json!({ "results": [], "errors": [] }))
            }
            _ => legacy_error(StatusCode::METHOD_NOT_ALLOWED, &no_such_request()),
        }
    }

    /// Opens a transaction; gives its id and its affinity. `reads`: in the access mode READ.
    fn begin(&self, api: Api, reads: bool, call: &Call<'_>, database: &str) -> (String, String) {
        let (id, affinity) = (random_text(8), random_text(16));
        let open = Open {
            api,
            database: database.to_owned(),
            owner: call.who.clone(),
            affinity: affinity.clone(),
            reads,
            expires: Instant::now() + IDLE,
        };
        self.ledger().insert(id.clone(), open);
        (id, affinity)
    }

    /// Runs a statement in a transaction, which a failure ends.
    fn run_in(&self, id: &str, call: &Call<'_>, add: impl FnOnce(&mut Value)) -> Answer {
        let answer = run_query(call, self.reads(id), add);
        if !answer.status().is_success() {
            self.ledger().remove(id);
        }
        answer
    }

    /// The same for the transactional API, whose failures do not show in the status.
    fn run_legacy_in(
        &self,
        id: &str,
        call: &Call<'_>,
        status: StatusCode,
        add: impl FnOnce(&mut Value),
    ) -> Answer {
        run_legacy(call, self.reads(id), status, |answer| {
            if answer["errors"] == json!([]) {
                add(answer);
            } else {
                self.ledger().remove(id);
            }
        })
    }

    fn reads(&self, id: &str) -> bool {
        self.ledger().get(id).is_some_and(|open| open.reads)
    }

    /// Whether the caller has this transaction open; if so, it stays so for a while.
    fn touch(&self, api: Api, id: &str, call: &Call<'_>, database: &str) -> bool {
        let now = Instant::now();
        let mut ledger = self.ledger();
        ledger.retain(|_, open| open.expires > now);
        let Some(open) = ledger.get_mut(id) else {
            return false;
        };
        let affinity = call.head.headers.get(AFFINITY).is_some_and(|value| *value == open.affinity);
        let elsewhere = self.require_affinity && api == Api::Query && !affinity;
        // The exact credential that opened it, not only the same user.
        let own = open.owner == call.who && open.api == api && open.database == database;
        let found = own && !elsewhere;
        if found {
            open.expires = now + IDLE;
        }
        found
    }

    fn ledger(&self) -> MutexGuard<'_, HashMap<String, Open>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
