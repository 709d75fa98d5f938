//! The clients of an authorization server, and how each proves that it is the one.

use std::collections::HashSet;
use std::io;
use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use http::HeaderMap;
use jsonwebtoken::{DecodingKey, Validation};
use serde::Deserialize;

use super::super::oauth::{basic, form_decoded};
use super::token::Form;
use super::{Refusal, TOKEN, issuer};

/// A client as it is registered: one way to authenticate, and no other.
#[derive(Clone)]
pub struct Registration {
    id: String,
    proof: Proof,
    redirects: Vec<String>,
}

#[derive(Clone)]
enum Proof {
    Post(String),
    Basic(String),
    None,
    Key(Box<DecodingKey>),
}

impl Registration {
    /// A client that sends its secret in the form (`client_secret_post`).
    pub fn post(id: impl Into<String>, secret: impl Into<String>) -> Self {
        Self::new(id, Proof::Post(secret.into()))
    }

    /// A client that sends its id and secret in Basic, form-urlencoded first (RFC 6749 §2.3.1).
    pub fn basic(id: impl Into<String>, secret: impl Into<String>) -> Self {
        Self::new(id, Proof::Basic(secret.into()))
    }

    /// A client without a secret.
    pub fn public(id: impl Into<String>) -> Self {
        Self::new(id, Proof::None)
    }

    /// A client that signs an assertion (RFC 7523 §2.2) with the key that belongs to this public one: RSA, EC or
    /// Ed25519, as PEM. Fails if it is none of them.
    pub fn private_key_jwt(id: impl Into<String>, public_key: impl AsRef<[u8]>) -> io::Result<Self> {
        let pem = public_key.as_ref();
        let key = DecodingKey::from_rsa_pem(pem)
            .or_else(|_| DecodingKey::from_ec_pem(pem))
            .or_else(|_| DecodingKey::from_ed_pem(pem));
        Ok(Self::new(id, Proof::Key(Box::new(key.map_err(io::Error::other)?))))
    }

    /// A redirect URI that it may use, exactly as it stands here.
    pub fn redirect(mut self, uri: impl Into<String>) -> Self {
        self.redirects.push(uri.into());
        self
    }

    fn new(id: impl Into<String>, proof: Proof) -> Self {
        Self { id: id.into(), proof, redirects: Vec::new() }
    }
}

/// What is presented to prove an identity.
enum Presented {
    Basic(String, String),
    Post(String, String),
    Assertion(String),
    Nothing(String),
}

const INVALID_CLIENT: Refusal = Refusal(
    401,
    "invalid_client",
    "Client authentication failed (e.g., unknown client, no client authentication included, or unsupported \
     authentication method).",
);
const ASSERTION_TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

#[derive(Default)]
pub(super) struct Clients {
    registered: Mutex<Vec<Registration>>,
    /// The `jti` of each assertion so far.
    assertions: Mutex<HashSet<String>>,
}

impl Clients {
    pub(super) fn register(&self, client: Registration) {
        let mut registered = self.registered();
        registered.retain(|known| known.id != client.id);
        registered.push(client);
    }

    pub(super) fn allow_redirect(&self, id: &str, uri: String) -> bool {
        let mut registered = self.registered();
        registered.iter_mut().find(|known| known.id == id).map(|client| client.redirects.push(uri)).is_some()
    }

    pub(super) fn has_redirect(&self, id: &str, uri: &str) -> bool {
        let registered = self.registered();
        registered
            .iter()
            .any(|known| known.id == id && known.redirects.iter().any(|redirect| redirect == uri))
    }

    /// The id of the client that a request comes from.
    pub(super) fn authenticate(
        &self,
        headers: &HeaderMap,
        form: &Form,
        addr: SocketAddr,
    ) -> Result<String, Refusal> {
        let presented = presented(headers, form)?;
        let id = match &presented {
            Presented::Basic(id, _) | Presented::Post(id, _) | Presented::Nothing(id) => id.clone(),
            Presented::Assertion(jwt) => {
                let claims =
                    jsonwebtoken::dangerous::insecure_decode::<Claims>(jwt).map_err(|_| INVALID_CLIENT)?;
                claims.claims.sub
            }
        };
        if form.get("client_id").is_some_and(|told| told != id) {
            return Err(INVALID_CLIENT);
        }
        let proof = self.registered().iter().find(|known| known.id == id).map(|known| known.proof.clone());
        let proven = match (proof, &presented) {
            (Some(Proof::Post(secret)), Presented::Post(_, shown))
            | (Some(Proof::Basic(secret)), Presented::Basic(_, shown)) => secret == *shown,
            (Some(Proof::None), Presented::Nothing(_)) => true,
            (Some(Proof::Key(key)), Presented::Assertion(jwt)) => self.signed(&id, &key, jwt, addr),
            _ => false,
        };
        if proven { Ok(id) } else { Err(INVALID_CLIENT) }
    }

    /// Is an assertion by this client, for this server, in time, and new (RFC 7523 §3)?
    fn signed(&self, id: &str, key: &DecodingKey, jwt: &str, addr: SocketAddr) -> bool {
        let own = issuer(addr);
        let mut validation = Validation::new_for_family(key.family());
        validation.leeway = 0;
        validation.set_required_spec_claims(&["exp", "iss", "sub", "aud"]);
        validation.set_audience(&[format!("{}{TOKEN}", own.trim_end_matches('/')), own]);
        validation.set_issuer(&[id]);
        validation.sub = Some(id.to_owned());
        let Ok(decoded) = jsonwebtoken::decode::<Claims>(jwt, key, &validation) else {
            return false;
        };
        let jti = decoded.claims.jti.filter(|jti| !jti.is_empty());
        jti.is_some_and(|jti| self.assertions.lock().unwrap_or_else(PoisonError::into_inner).insert(jti))
    }

    fn registered(&self) -> MutexGuard<'_, Vec<Registration>> {
        self.registered.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Deserialize)]
struct Claims {
    sub: String,
    jti: Option<String>,
}

/// The one way in which a request authenticates; two at once are an error (RFC 6749 §2.3).
fn presented(headers: &HeaderMap, form: &Form) -> Result<Presented, Refusal> {
    let id = || form.get("client_id").map(str::to_owned).ok_or(INVALID_CLIENT);
    let in_basic = basic(headers).map(|(id, secret)| (form_decoded(&id), form_decoded(&secret)));
    match (in_basic, form.get("client_secret"), form.get("client_assertion")) {
        (Some((id, secret)), None, None) => Ok(Presented::Basic(id, secret)),
        (None, Some(secret), None) => Ok(Presented::Post(id()?, secret.to_owned())),
        (None, None, Some(jwt)) if form.get("client_assertion_type") == Some(ASSERTION_TYPE) => {
            Ok(Presented::Assertion(jwt.to_owned()))
        }
        (None, None, None) => Ok(Presented::Nothing(id()?)),
        (None, None, Some(_)) => Err(INVALID_CLIENT),
        _ => Err(Refusal(400, "invalid_request", "The client authenticates in more than one way.")),
    }
}
