//! Logins on the admin listener: the form for people, JSON for commands, and the two places that browsers come to.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::request::Parts;
use http::{Method, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use serde_json::json;
use tracing::warn;
use zeroize::Zeroizing;

use super::{AdminRules, TOKEN_HINT, error, json_answer, refusal, wrong_method};
use crate::credential::DEFAULT_ACCOUNT;
use crate::guard::Guard;
use crate::login::face::{self, parameter, place_of};
use crate::login::{Begun, Desk, LoginError, Return, account_name, pages};
use crate::secret::Secret;
use crate::telemetry::chain;

/// The most that a form or a pasted URL may hold, in bytes.
const MAX_BODY: usize = 32 * 1024;
/// How long it may take.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

type Answer = Response<Full<Bytes>>;

/// What of this listener belongs to logins.
pub(super) struct Connect<'a> {
    pub(super) desk: &'a Arc<Desk>,
    pub(super) guard: &'a Guard,
    pub(super) rules: &'a AdminRules,
    /// The listener's own.
    pub(super) port: u16,
}

/// A request to a path of logins.
enum Asked<'a> {
    /// One of the places that browsers come to from other sites.
    Place(face::Place<'a>),
    /// `/connect/CREDENTIAL`.
    Login(&'a str),
    /// `/connect/CREDENTIAL/outcome`.
    Outcome(&'a str),
    /// `/connect/CREDENTIAL/redirected`.
    Redirected(&'a str),
    /// `/connect/CREDENTIAL/cancel`.
    Cancel(&'a str),
    /// `/logout/CREDENTIAL`.
    Logout(&'a str),
}

impl Connect<'_> {
    /// Answers what belongs to logins; gives everything else back, unasked. `is_own`: does the path belong to the
    /// listener itself? A redirect path gives way to those.
    pub(super) async fn answer(&self, head: &Parts, body: Incoming, is_own: bool) -> Option<Answer> {
        let asked = self.asked(head, is_own)?;
        let admitted = match (&asked, &head.method) {
            (Asked::Place(_), _) => self.guard.admit_navigation(head),
            (Asked::Login(_), &Method::POST) if is_form(head) => self.guard.admit_own_form(head),
            _ => self.guard.admit(head, true),
        };
        if let Err(refused) = admitted {
            return Some(refusal(&refused));
        }
        Some(match (asked, &head.method) {
            (Asked::Place(place), &Method::GET) => face::serve(self.desk, place, head, self.port).await,
            (Asked::Place(_), _) => wrong_method("GET"),
            (Asked::Login(credential), &Method::GET) => self.form(credential, head, None),
            (Asked::Login(credential), &Method::POST) if is_form(head) => {
                self.begin_by_form(credential, head, body).await
            }
            (Asked::Login(_), &Method::POST)
            | (Asked::Outcome(_), &Method::GET)
            | (Asked::Redirected(_) | Asked::Cancel(_) | Asked::Logout(_), &Method::POST)
                if !self.rules.is_shown_by(head) =>
            {
                error(StatusCode::UNAUTHORIZED, "caller_unknown", TOKEN_HINT)
            }
            (Asked::Login(credential), &Method::POST) => self.begin(credential, head).await,
            (Asked::Outcome(credential), &Method::GET) => self.outcome(credential, head),
            (Asked::Redirected(credential), &Method::POST) => self.redirected(credential, head, body).await,
            (Asked::Cancel(credential), &Method::POST) => {
                let cancelled = self.desk.cancel(credential, &login_of(head));
                cancelled.map_or_else(|failed| failure(&failed), |()| json_answer(StatusCode::OK, &json!({})))
            }
            (Asked::Logout(credential), &Method::POST) => self.logout(credential, head).await,
            (Asked::Login(_), _) => wrong_method("GET, POST"),
            (Asked::Outcome(_), _) => wrong_method("GET"),
            (Asked::Redirected(_) | Asked::Cancel(_) | Asked::Logout(_), _) => wrong_method("POST"),
        })
    }

    fn asked<'a>(&self, head: &'a Parts, is_own: bool) -> Option<Asked<'a>> {
        let path = head.uri.path();
        // The bare root is a page of the listener's own.
        let may_be_back = !is_own && (path != "/" || head.uri.query().is_some());
        let is_back = |path: &str| may_be_back && self.desk.is_redirect_path(path, self.port);
        if let Some(place) = place_of(head, is_back) {
            return Some(Asked::Place(place));
        }
        if let Some(credential) = path.strip_prefix("/logout/") {
            return Some(Asked::Logout(credential));
        }
        let rest = path.strip_prefix("/connect/")?;
        Some(match rest.split_once('/') {
            None => Asked::Login(rest),
            Some((credential, "outcome")) => Asked::Outcome(credential),
            Some((credential, "redirected")) => Asked::Redirected(credential),
            Some((credential, "cancel")) => Asked::Cancel(credential),
            Some(_) => return None,
        })
    }

    /// The page that asks for the admin token.
    fn form(&self, credential: &str, head: &Parts, refused: Option<(StatusCode, &str)>) -> Answer {
        let account = account_of(head);
        let known = self.desk.credential(credential).and_then(|found| account_name(&account).map(|_| found));
        match known {
            Ok((_, found)) => pages::form(&found.name, &account, found.config.scope.as_deref(), refused),
            Err(failed) => {
                pages::message(failed.status(), "No such login", &[&format!("{}.", chain(&failed))])
            }
        }
    }

    async fn begin_by_form(&self, credential: &str, head: &Parts, body: Incoming) -> Answer {
        let token = match read(body).await {
            Ok(form) => token_of(&form),
            Err(status) => return error(status, "bad_request", "The form cannot be read."),
        };
        let Some(rule) = &self.rules.token else {
            let why = "This sidekey has no admin token (its log says why), so nobody can begin a login here.";
            return self.form(credential, head, Some((StatusCode::UNAUTHORIZED, why)));
        };
        if !token.is_some_and(|token| rule.is(token.expose().as_bytes())) {
            warn!("somebody gave a wrong admin token on the page of a login");
            let why = "This is not the admin token: it is in the runtime file of the running sidekey, or what server.admin_token says.";
            return self.form(credential, head, Some((StatusCode::UNAUTHORIZED, why)));
        }
        match self.desk.begin(credential, &account_of(head), Return::Redirect).await {
            Ok(begun) => pages::onward(begun.link.expose()),
            Err(failed) => pages::message(
                failed.status(),
                "Not logged in",
                &[&format!("It failed: {}.", chain(&failed))],
            ),
        }
    }

    async fn begin(&self, credential: &str, head: &Parts) -> Answer {
        let pasted = head.uri.query().and_then(|query| parameter(query, "paste"));
        let (way, name) = match pasted.as_deref() {
            Some("true") => (Return::Paste, "authorization_url"),
            _ => (Return::Redirect, "link"),
        };
        match self.desk.begin(credential, &account_of(head), way).await {
            Ok(Begun { id, link, expires_in }) => {
                let told = json!({ "login": id, name: link.expose(), "expires_in": expires_in.as_secs() });
                json_answer(StatusCode::CREATED, &told)
            }
            Err(failed) => failure(&failed),
        }
    }

    fn outcome(&self, credential: &str, head: &Parts) -> Answer {
        match self.desk.outcome(credential, &login_of(head)) {
            Some(outcome) => json_answer(StatusCode::OK, &json!(outcome)),
            None => failure(&LoginError::UnknownLogin),
        }
    }

    async fn redirected(&self, credential: &str, head: &Parts, body: Incoming) -> Answer {
        let id = login_of(head);
        if self.desk.outcome(credential, &id).is_none() {
            return failure(&LoginError::UnknownLogin);
        }
        let pasted = match read(body).await {
            Ok(pasted) => pasted,
            Err(status) => return error(status, "bad_request", "The body cannot be read."),
        };
        let Ok(pasted) = std::str::from_utf8(&pasted) else {
            return error(StatusCode::BAD_REQUEST, "bad_request", "The body is not text.");
        };
        match self.desk.paste(&id, pasted).await {
            Ok(outcome) => json_answer(StatusCode::OK, &json!(outcome)),
            Err(failed) => failure(&failed),
        }
    }

    async fn logout(&self, credential: &str, head: &Parts) -> Answer {
        match self.desk.log_out(credential, &account_of(head)).await {
            Ok(done) => json_answer(StatusCode::OK, &json!(done)),
            Err(failed) => failure(&failed),
        }
    }
}

fn failure(failed: &LoginError) -> Answer {
    let status = failed.status();
    let code = match status {
        StatusCode::NOT_FOUND => "no_route",
        StatusCode::BAD_REQUEST => "bad_request",
        StatusCode::BAD_GATEWAY => "upstream_unreachable",
        _ => "credential_unavailable",
    };
    error(status, code, &chain(failed))
}

fn account_of(head: &Parts) -> String {
    let named = head.uri.query().and_then(|query| parameter(query, "account"));
    named.unwrap_or_else(|| DEFAULT_ACCOUNT.to_owned())
}

fn login_of(head: &Parts) -> String {
    head.uri.query().and_then(|query| parameter(query, "login")).unwrap_or_default()
}

fn is_form(head: &Parts) -> bool {
    let kind = head.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    kind.split(';')
        .next()
        .unwrap_or_default()
        .trim()
        .eq_ignore_ascii_case("application/x-www-form-urlencoded")
}

/// The token that a person typed, without the space that came along when it was copied.
fn token_of(form: &[u8]) -> Option<Secret> {
    let mut fields = form_urlencoded::parse(form);
    fields.find(|(name, _)| name == "token").map(|(_, value)| Secret::new(Secret::new(value).expose().trim()))
}

/// A small body, or the status of what is wrong with it.
async fn read(body: Incoming) -> Result<Zeroizing<Vec<u8>>, StatusCode> {
    let collected = Limited::new(body, MAX_BODY).collect();
    match tokio::time::timeout(BODY_TIMEOUT, collected).await {
        Ok(Ok(collected)) => Ok(Zeroizing::new(collected.to_bytes().to_vec())),
        Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => {
            Err(StatusCode::PAYLOAD_TOO_LARGE)
        }
        Ok(Err(_)) => Err(StatusCode::BAD_REQUEST),
        Err(_) => Err(StatusCode::REQUEST_TIMEOUT),
    }
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    #[test]
    fn a_form_is_told_by_its_content_type() {
        let cases = [
            (Some("application/x-www-form-urlencoded"), true),
            (Some("Application/X-WWW-Form-Urlencoded; charset=utf-8"), true),
            (Some("text/plain"), false),
            (Some("multipart/form-data; boundary=x"), false),
            (None, false),
        ];
        for (kind, want) in cases {
            let mut head = Request::post("/connect/neon").body(()).unwrap().into_parts().0;
            if let Some(kind) = kind {
                head.headers.insert(CONTENT_TYPE, kind.parse().unwrap());
            }
            assert_eq!(is_form(&head), want, "{kind:?}");
        }
    }

    #[test]
    fn the_typed_token_is_found() {
        let cases =
            [("token=a%2Bb", Some("a+b")), ("x=1&token=+t%0A", Some("t")), ("x=token", None), ("", None)];
        for (form, want) in cases {
            assert_eq!(token_of(form.as_bytes()).as_ref().map(Secret::expose), want, "{form}");
        }
    }
}
