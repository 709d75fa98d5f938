//! What a browser is given: the one-time link, the cookie that it must bring back, and the random bits in both.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::header::{HeaderValue, SET_COOKIE};
use zeroize::Zeroizing;

use super::LoginError;
use super::pages::Page;
use crate::config::RedirectUri;
use crate::secret::Secret;

/// The one-time link, at the redirect URI's own origin.
pub(super) fn link(redirect: &RedirectUri, credential: &str, ticket: &Secret) -> Secret {
    let RedirectUri { host, port, .. } = redirect;
    Secret::new(format!("http://{host}:{port}/connect/{credential}?ticket={}", ticket.expose()))
}

/// Does the request name the redirect URI's own host and port?
pub(super) fn is_at(host: &str, redirect: &RedirectUri) -> bool {
    let own = format!("{}:{}", redirect.host, redirect.port);
    host.eq_ignore_ascii_case(&own) || (redirect.port == 80 && host.eq_ignore_ascii_case(&redirect.host))
}

pub(super) fn cookie_name(id: &str) -> String {
    format!("sidekey-login-{id}")
}

pub(super) fn set_cookie(
    id: &str,
    value: &str,
    redirect: &RedirectUri,
    lifetime: Duration,
) -> Zeroizing<String> {
    // A semicolon would end the attribute.
    let path = if redirect.path.contains(';') { "/" } else { &redirect.path };
    let (name, seconds) = (cookie_name(id), lifetime.as_secs());
    Zeroizing::new(format!("{name}={value}; HttpOnly; SameSite=Lax; Path={path}; Max-Age={seconds}"))
}

pub(super) fn with_cookie(mut page: Page, cookie: &str) -> Page {
    if let Ok(mut value) = HeaderValue::from_str(cookie) {
        value.set_sensitive(true);
        page.headers_mut().append(SET_COOKIE, value);
    }
    page
}

/// So many random bytes as text.
pub(super) fn random<const BYTES: usize>() -> Result<Secret, LoginError> {
    let mut bytes = Zeroizing::new([0_u8; BYTES]);
    aws_lc_rs::rand::fill(bytes.as_mut()).map_err(|_| LoginError::Random)?;
    Ok(Secret::new(URL_SAFE_NO_PAD.encode(bytes.as_slice())))
}
