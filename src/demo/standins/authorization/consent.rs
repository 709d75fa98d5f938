//! Where a browser logs in: the checks of an authorization request, the consent, the way back.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;

use http::StatusCode;
use http::header::{self, HeaderValue};

use super::super::body;
use super::super::serve::{self, Answer};
use super::super::tokens::random_text;
use super::grants::Code;
use super::switches::Consent;
use super::{AUTH, AuthorizationSite, Refusal, issuer};

/// The user, where a request has no `login_hint`.
const USER: &str = "user";

impl AuthorizationSite {
    /// An authorization request (RFC 6749 §4.1.1, RFC 7636 §4.3), with the query as it came.
    pub(super) fn authorize(&self, query: &str, addr: SocketAddr) -> io::Result<Answer> {
        let pairs: Vec<(String, String)> = form_urlencoded::parse(query.as_bytes()).into_owned().collect();
        let asked: HashMap<&str, &str> =
            pairs.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let get = |name: &str| asked.get(name).copied().unwrap_or_default();
        let (client, redirect_uri) = (get("client_id"), get("redirect_uri"));
        // Without a client and a redirect URI that are known, there is no way back that may be trusted.
        if asked.len() != pairs.len() {
            return Ok(Refusal(400, "invalid_request", "A parameter is there twice.").answer());
        }
        if !self.clients.has_redirect(client, redirect_uri) {
            let what = "The client_id is unknown, or the redirect_uri is not one that it is registered with.";
            return Ok(Refusal(400, "invalid_request", what).answer());
        }
        let switches = self.switches.now();
        let own = issuer(addr);
        let mut back: Vec<(&str, &str)> = Vec::new();
        let code = format!("ory_ac_{}+/%{}", random_text(20), random_text(20));
        match refused(&get) {
            Some((error, description)) => {
                back.extend([("error", error), ("error_description", description)]);
            }
            None if switches.consent == Consent::Ask && get("allow") != "yes" => {
                return Ok(page(&pairs, client));
            }
            None if switches.consent == Consent::Deny => back.extend([
                ("error", "access_denied"),
                ("error_description", "The resource owner denied the request."),
            ]),
            None if switches.consent == Consent::NoCode => {}
            None => {
                let subject = asked.get("login_hint").copied().unwrap_or(USER);
                self.grants.consented(
                    &code,
                    Code::new(client, redirect_uri, get("code_challenge"), subject, get("scope")),
                );
                back.extend([("code", code.as_str()), ("scope", get("scope"))]);
            }
        }
        back.push(match switches.consent {
            Consent::WrongState => ("state", "a state that nobody sent"),
            _ => ("state", get("state")),
        });
        match switches.consent {
            Consent::WrongIss => back.push(("iss", "https://login.example/")),
            _ if switches.tell_iss => back.push(("iss", own.as_str())),
            _ => {}
        }
        redirect(redirect_uri, &back)
    }
}

/// Why a request gets no consent (RFC 6749 §4.1.2.1).
fn refused<'a>(get: &impl Fn(&str) -> &'a str) -> Option<(&'static str, &'static str)> {
    if get("response_type") != "code" {
        return Some(("unsupported_response_type", "Only the response type code is supported."));
    }
    if get("state").len() < 8 {
        return Some(("invalid_state", "The state is missing or does not have enough characters."));
    }
    if get("code_challenge").len() != 43 || get("code_challenge_method") != "S256" {
        return Some((
            "invalid_request",
            "A code_challenge of 43 characters with the method S256 is required.",
        ));
    }
    None
}

fn redirect(uri: &str, parameters: &[(&str, &str)]) -> io::Result<Answer> {
    let mut url = url::Url::parse(uri).map_err(io::Error::other)?;
    url.query_pairs_mut().extend_pairs(parameters);
    let mut answer = Answer::new(body::full(""));
    *answer.status_mut() = StatusCode::SEE_OTHER;
    let location = HeaderValue::from_str(url.as_str()).map_err(io::Error::other)?;
    answer.headers_mut().insert(header::LOCATION, location);
    answer.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(answer)
}

/// The same request once more, behind a button.
fn page(pairs: &[(String, String)], client: &str) -> Answer {
    let fields: String = pairs
        .iter()
        .map(|(name, value)| {
            format!("<input type=\"hidden\" name=\"{}\" value=\"{}\">", escaped(name), escaped(value))
        })
        .collect();
    let page = format!(
        "<!doctype html><title>Log in</title><form action=\"{AUTH}\"><p>{} asks for access.</p>{fields}\
         <button name=\"allow\" value=\"yes\">Allow</button></form>",
        escaped(client)
    );
    serve::answer(StatusCode::OK, "text/html; charset=utf-8", body::full(page))
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('"', "&quot;")
}
