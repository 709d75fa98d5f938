//! The metadata documents.

use std::net::SocketAddr;

use http::StatusCode;
use serde_json::{Value, json};

use super::super::body;
use super::super::serve::{self, Answer};
use super::switches::{Discovery, Switches};
use super::{AUTH, REVOKE, TOKEN, issuer};

/// The document at a path, if there is to be one.
pub(super) fn answer(path: &str, addr: SocketAddr, switches: &Switches) -> Option<Answer> {
    let (hidden, document) = match path {
        "/.well-known/openid-configuration" => (Discovery::NoOpenId, &switches.discovery),
        "/.well-known/oauth-authorization-server" => (Discovery::NoOAuth, &switches.discovery),
        _ => return None,
    };
    if *document == hidden || *document == Discovery::Nothing {
        return None;
    }
    if *document == Discovery::Html {
        let page = body::full("<!doctype html><title>Welcome</title>");
        return Some(serve::answer(StatusCode::OK, "text/html; charset=utf-8", page));
    }
    Some(serve::json(StatusCode::OK, &metadata(addr, switches)))
}

fn metadata(addr: SocketAddr, switches: &Switches) -> Value {
    let own = issuer(addr);
    let base = match switches.discovery {
        Discovery::HttpEndpoints => "http://login.example",
        _ => own.trim_end_matches('/'),
    };
    let mut document = json!({
        "issuer": own,
        "authorization_endpoint": format!("{base}{AUTH}"),
        "token_endpoint": format!("{base}{TOKEN}"),
        "revocation_endpoint": format!("{base}{REVOKE}"),
        "response_types_supported": ["code"],
        "grant_types_supported": ["authorization_code", "refresh_token", "client_credentials"],
        "code_challenge_methods_supported": ["plain", "S256"],
        "token_endpoint_auth_methods_supported":
            ["client_secret_post", "client_secret_basic", "private_key_jwt", "none"],
        "scopes_supported": ["offline_access", "offline", "openid"],
        "authorization_response_iss_parameter_supported": switches.tell_iss,
    });
    match &switches.discovery {
        Discovery::OtherIssuer(other) => document["issuer"] = other.as_str().into(),
        Discovery::NoS256 => document["code_challenge_methods_supported"] = json!(["plain"]),
        Discovery::NoTokenEndpoint => {
            document.as_object_mut().map(|members| members.remove("token_endpoint"));
        }
        _ => {}
    }
    document
}
