//! Runs the statements of a request and writes the answer as its API would.

use std::time::Duration;

use std::time::SystemTime;

use http::StatusCode;
use http::header::{self, HeaderMap};
use serde_json::{Map, Value, json};

use super::super::body;
use super::super::serve::{self, Answer};
use super::super::tokens::random_text;
use super::Call;
use super::toy::{self, Failure};

/// How long a transaction stays open without a request.
pub(super) const IDLE: Duration = Duration::from_secs(60);

const TYPED: &str = "application/vnd.neo4j.query";

/// Does a Query API request ask for the access mode READ? The default is WRITE.
pub(super) fn query_reads(body: &[u8]) -> bool {
    let mode = object(body).and_then(|request| Some(request.get("accessMode")?.as_str()?.to_owned()));
    mode.is_some_and(|mode| mode.eq_ignore_ascii_case("read"))
}

/// Does a request of the transactional API? The default is WRITE.
pub(super) fn legacy_reads(headers: &HeaderMap) -> bool {
    headers.get("access-mode").is_some_and(|mode| mode.as_bytes().eq_ignore_ascii_case(b"read"))
}

/// Runs the statement of a Query API request, if it has one, and adds to the answer. `reads`: the transaction's access
/// mode is READ.
pub(super) fn run_query(call: &Call<'_>, reads: bool, add: impl FnOnce(&mut Value)) -> Answer {
    let Some(request) = object(&call.body) else {
        return query_error(call, StatusCode::BAD_REQUEST, &invalid("Bad Request"));
    };
    let mut answer = json!({});
    if let Some(statement) = request.get("statement").and_then(Value::as_str) {
        if reads && toy::writes(statement) {
            return query_error(call, StatusCode::BAD_REQUEST, &read_only());
        }
        let table =
            match toy::evaluate(statement, &parameters(&request, mentions(call, header::CONTENT_TYPE))) {
                Ok(table) => table,
                Err(failure) => return query_error(call, StatusCode::BAD_REQUEST, &failure),
            };
        let row =
            table.row.map(|row| if wants_typed(call) { row } else { row.iter().map(toy::plain).collect() });
        let rows: Vec<Vec<Value>> = row.into_iter().collect();
        answer["data"] = json!({ "fields": table.fields, "values": rows });
        if request.get("includeCounters") == Some(&Value::Bool(true)) {
            answer["counters"] = json!({ "containsUpdates": false, "nodesCreated": 0, "propertiesSet": 0 });
        }
    }
    add(&mut answer);
    query_answer(call, StatusCode::ACCEPTED, &answer)
}

/// Runs the statements of a transactional request, the first failure last, and adds to the answer. `reads`: the
/// transaction's access mode is READ.
pub(super) fn run_legacy(
    call: &Call<'_>,
    reads: bool,
    status: StatusCode,
    add: impl FnOnce(&mut Value),
) -> Answer {
    let Some(request) = object(&call.body) else {
        // Like every failure of a statement, it does not show in the status.
        return legacy_error(StatusCode::OK, &bad_body());
    };
    let (mut results, mut errors) = (Vec::new(), Vec::new());
    for statement in request.get("statements").and_then(Value::as_array).into_iter().flatten() {
        let text = statement["statement"].as_str().unwrap_or_default();
        let given = statement.as_object().map(|statement| parameters(statement, false)).unwrap_or_default();
        let ran = if reads && toy::writes(text) { Err(read_only()) } else { toy::evaluate(text, &given) };
        match ran {
            Ok(table) => {
                let row = table.row.map(|row| row.iter().map(toy::plain).collect::<Vec<_>>());
                let rows: Vec<Value> = row
                    .into_iter()
                    .map(|row| json!({ "row": row, "meta": vec![Value::Null; row.len()] }))
                    .collect();
                results.push(json!({ "columns": table.fields, "data": rows }));
            }
            Err(failure) => {
                errors.push(json!({ "code": failure.code, "message": failure.message }));
                break;
            }
        }
    }
    let mut answer = json!({ "results": results, "errors": errors });
    add(&mut answer);
    serve::json(status, &answer)
}

/// A body that is a JSON object, or nothing.
fn object(body: &[u8]) -> Option<Map<String, Value>> {
    if body.is_empty() { Some(Map::new()) } else { serde_json::from_slice(body).ok() }
}

/// The parameters of a statement, in the typed form.
fn parameters(statement: &Map<String, Value>, typed: bool) -> Map<String, Value> {
    let given = statement.get("parameters").and_then(Value::as_object);
    let convert = |value: &Value| if typed { value.clone() } else { toy::typed(value) };
    given.into_iter().flatten().map(|(name, value)| (name.clone(), convert(value))).collect()
}

fn mentions(call: &Call<'_>, name: header::HeaderName) -> bool {
    let lines = |headers: &HeaderMap| {
        headers.get_all(&name).iter().any(|line| line.to_str().is_ok_and(|line| line.contains(TYPED)))
    };
    lines(&call.head.headers)
}

fn wants_typed(call: &Call<'_>) -> bool {
    mentions(call, header::ACCEPT)
}

pub(super) fn query_answer(call: &Call<'_>, status: StatusCode, value: &Value) -> Answer {
    let media_type = if wants_typed(call) { TYPED } else { "application/json" };
    serve::answer(status, media_type, body::full(value.to_string()))
}

pub(super) fn query_error(call: &Call<'_>, status: StatusCode, failure: &Failure) -> Answer {
    query_answer(call, status, &json!({ "errors": [{ "code": failure.code, "message": failure.message }] }))
}

pub(super) fn legacy_error(status: StatusCode, failure: &Failure) -> Answer {
    let error = json!({ "code": failure.code, "message": failure.message });
    serve::json(status, &json!({ "results": [], "errors": [error] }))
}

/// What the Query API says of a transaction that is not open, or not to this credential.
pub(super) fn not_found(id: &str) -> Failure {
    invalid(&format!(
        "Transaction with Id: \"{id}\" was not found. It may have timed out and therefore rolled back or the routing \
         header 'neo4j-cluster-affinity' was not provided."
    ))
}

/// What the older API says of one.
pub(super) fn legacy_not_found() -> Failure {
    Failure {
        code: "Neo.ClientError.Transaction.TransactionNotFound",
        message: "Unrecognized transaction id. Transaction may have timed out and been rolled back."
            .to_owned(),
    }
}

fn read_only() -> Failure {
    Failure {
        code: "Neo.ClientError.Statement.AccessMode",
        message: "Writing in read access mode not allowed. Attempted write to neo4j".to_owned(),
    }
}

fn bad_body() -> Failure {
    Failure {
        code: "Neo.ClientError.Request.InvalidFormat",
        message: "Could not parse the incoming JSON".to_owned(),
    }
}

pub(super) fn no_such_request() -> Failure {
    invalid("Method Not Allowed")
}

fn invalid(message: &str) -> Failure {
    Failure { code: "Neo.ClientError.Request.Invalid", message: message.to_owned() }
}

pub(super) fn bookmarks() -> Value {
    json!([format!("FB:{}", random_text(20))])
}

/// How the Query API shows an open transaction.
pub(super) fn transaction(id: &str) -> Value {
    json!({ "id": id, "expires": iso_date(&httpdate::fmt_http_date(in_a_while())) })
}

#[expect(clippy::disallowed_methods, reason = "a stand-in is the outside, whose clock a test does not turn")]
pub(super) fn in_a_while() -> SystemTime {
    SystemTime::now() + IDLE
}

/// `Sun, 06 Nov 1994 08:49:37 GMT` → `1994-11-06T08:49:37Z`.
fn iso_date(imf: &str) -> String {
    const MONTHS: &str = "JanFebMarAprMayJunJulAugSepOctNovDec";
    let words: Vec<&str> = imf.split(' ').collect();
    let [_, day, month, year, time, _] = words.as_slice() else {
        return imf.to_owned();
    };
    let month = MONTHS.find(month).map_or(1, |at| at / 3 + 1);
    format!("{year}-{month:02}-{day}T{time}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_query_api_writes_dates_as_iso_8601() {
        assert_eq!(iso_date("Sun, 06 Nov 1994 08:49:37 GMT"), "1994-11-06T08:49:37Z");
    }
}
