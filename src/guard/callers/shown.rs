//! What a request shows to say who it is from. Pure.

use std::ops::Deref;

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderName, HeaderValue};
use zeroize::Zeroizing;

use crate::guard::Refused;

/// sidekey's own header for it, which no tool sends for other reasons.
static OWN_HEADER: HeaderName = HeaderName::from_static("sidekey-token");
/// The longest pair of name and password that is looked at, in bytes; longer ones show nothing.
const LONGEST_PAIR: usize = 3 * 1024;
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// What a request shows.
pub(super) enum Shown<'a> {
    /// Nothing.
    Nothing,
    /// This, in `Sidekey-Token`.
    OwnHeader(&'a [u8]),
    /// This, as the token of a Bearer or the password of a Basic.
    Authorization(Token<'a>),
}

/// A token that is shown.
pub(super) enum Token<'a> {
    /// As it stands in the header.
    Plain(&'a [u8]),
    /// As it came out of base64, its user's name and the colon before it left out.
    Password { pair: Zeroizing<Vec<u8>>, from: usize },
}

impl Deref for Token<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Plain(token) => token,
            Self::Password { pair, from } => &pair[*from..],
        }
    }
}

/// What the header of a request shows.
///
/// # Errors
/// [`Refused::CallerUnknown`] where it shows two things at once.
pub(super) fn by(headers: &HeaderMap) -> Result<Shown<'_>, Refused> {
    let one = |name: &HeaderName| -> Result<Option<&HeaderValue>, Refused> {
        let mut values = headers.get_all(name).iter();
        match (values.next(), values.next()) {
            (_, Some(_)) => Err(Refused::CallerUnknown("it shows more than one token")),
            (first, None) => Ok(first),
        }
    };
    if let Some(token) = one(&OWN_HEADER)? {
        return Ok(Shown::OwnHeader(token.as_bytes()));
    }
    let authorization = one(&AUTHORIZATION)?;
    Ok(authorization
        .and_then(|value| token_of(value.as_bytes()))
        .map_or(Shown::Nothing, Shown::Authorization))
}

/// The token of a Bearer (RFC 6750 §2.1) or the password of a Basic (RFC 7617 §2).
fn token_of(value: &[u8]) -> Option<Token<'_>> {
    let space = value.iter().position(|byte| *byte == b' ')?;
    let (scheme, rest) = (&value[..space], value[space..].trim_ascii());
    if scheme.eq_ignore_ascii_case(b"bearer") {
        return Some(Token::Plain(rest));
    }
    if !scheme.eq_ignore_ascii_case(b"basic") || rest.len() > LONGEST_PAIR / 3 * 4 {
        return None;
    }
    let mut pair = Zeroizing::new(vec![0; LONGEST_PAIR]);
    let length = BASE64.decode_slice(rest, &mut pair).ok()?;
    pair.truncate(length);
    let from = pair.iter().position(|byte| *byte == b':')? + 1;
    Some(Token::Password { pair, from })
}
