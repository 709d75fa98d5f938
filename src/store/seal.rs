//! The seal of entries: AES-256-GCM-SIV (RFC 8452), bound to the key of the entry.
//!
//! An entry on its way to a store begins with four bytes: `open`, and then the content; or `seal`, and then the id of
//! the key (4 bytes), the nonce (12 bytes), the ciphertext and its tag. The revision is not bound: an old entry put
//! back is not noticed.

use std::fmt;

use aws_lc_rs::aead::{AES_256_GCM_SIV, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::alphabet::{STANDARD, URL_SAFE};
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use zeroize::{Zeroize as _, Zeroizing};

use super::{Key, SealFault, StoreError, name};
use crate::secret::Secret;

/// The bytes of an encryption key.
const KEY_LEN: usize = 32;
/// How much of a key's hash names it.
const ID_LEN: usize = 4;
const TAG_LEN: usize = 16;
const OPEN: [u8; 4] = *b"open";
const SEALED: [u8; 4] = *b"seal";
/// What the seal is for; another use of the same key could not be mistaken for this one.
const CONTEXT: &[u8] = b"sidekey store entry 1";

/// Seals entries by its first key and opens them by any. Without keys it leaves them open.
#[derive(Debug)]
pub struct Seal {
    keys: Vec<SealKey>,
}

/// One encryption key.
pub struct SealKey {
    id: [u8; ID_LEN],
    key: RandomizedNonceKey,
}

impl SealKey {
    /// What entries name it by: 8 hexadecimal digits of its SHA-256.
    pub fn id(&self) -> String {
        name::hex(&self.id)
    }
}

impl fmt::Debug for SealKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SealKey({} …)", self.id())
    }
}

/// Why a text is not an encryption key. Holds nothing of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Not hexadecimal and not base64.
    #[error(
        "an encryption key is 32 bytes as base64 or as 64 hexadecimal digits; make one with `openssl rand -base64 32`"
    )]
    Text,
    /// Too short or too long.
    #[error("an encryption key is 32 bytes, and this one is {0}; make one with `openssl rand -base64 32`")]
    Length(usize),
    /// One byte over and over.
    #[error("this encryption key is the same byte over and over; make one with `openssl rand -base64 32`")]
    Guessable,
}

impl Seal {
    /// The first key seals, all open; none: nothing is sealed.
    pub fn new(keys: Vec<SealKey>) -> Self {
        Self { keys }
    }

    /// The key that a text stands for: 32 bytes as 64 hexadecimal digits, or as base64 of either alphabet.
    ///
    /// # Errors
    /// When it is anything else, or one byte over and over.
    pub fn parse_key(text: &Secret) -> Result<SealKey, KeyError> {
        let bytes = decode(text.expose().trim())?;
        if bytes.len() != KEY_LEN {
            return Err(KeyError::Length(bytes.len()));
        }
        if bytes.windows(2).all(|pair| matches!(pair, [one, next] if one == next)) {
            return Err(KeyError::Guessable);
        }
        let mut id = [0; ID_LEN];
        for (to, from) in id.iter_mut().zip(digest(&SHA256, &bytes).as_ref()) {
            *to = *from;
        }
        let key = RandomizedNonceKey::new(&AES_256_GCM_SIV, &bytes).map_err(|_| KeyError::Text)?;
        Ok(SealKey { id, key })
    }

    /// What goes to the store for a content.
    ///
    /// # Errors
    /// When the system has no randomness.
    pub fn close(&self, key: &Key, content: &[u8]) -> Result<Zeroizing<Vec<u8>>, StoreError> {
        let Some(seal) = self.keys.first() else {
            return Ok(Body::Open(content).bytes());
        };
        let mut data = Zeroizing::new(content.to_vec());
        let (nonce, tag) = seal
            .key
            .seal_in_place_separate_tag(Aad::from(bound_to(key)), &mut data)
            .map_err(|_| StoreError::Randomness)?;
        let data = [&data, tag.as_ref()].concat();
        Ok(Body::Sealed { id: &seal.id, nonce: nonce.as_ref(), data: &data }.bytes())
    }

    /// The content of what came from the store.
    ///
    /// # Errors
    /// [`StoreError::Seal`] when it was sealed by another key, was changed, or is not this key's.
    pub fn open(&self, key: &Key, bytes: &[u8]) -> Result<Zeroizing<Vec<u8>>, StoreError> {
        let fail = |fault| StoreError::Seal { place: key.to_string(), fault };
        let (id, nonce, data) = match Body::of(bytes) {
            Some(Body::Open(content)) => return Ok(Zeroizing::new(content.to_vec())),
            Some(Body::Sealed { id, nonce, data }) => (id, nonce, data),
            None => return Err(fail(SealFault::Shapeless)),
        };
        if self.keys.is_empty() {
            return Err(fail(SealFault::NoKey(name::hex(id))));
        }
        let mut known = false;
        // Two keys may share an id: each is tried.
        for seal in self.keys.iter().filter(|seal| seal.id == *id) {
            known = true;
            let mut data = Zeroizing::new(data.to_vec());
            let nonce = Nonce::assume_unique_for_key(*nonce);
            if let Ok(content) = seal.key.open_in_place(nonce, Aad::from(bound_to(key)), &mut data) {
                let len = content.len();
                // The tag and what the content does not need stay no longer than it.
                if let Some(tag) = data.get_mut(len..) {
                    tag.zeroize();
                }
                data.truncate(len);
                return Ok(data);
            }
        }
        Err(fail(if known { SealFault::Broken } else { SealFault::UnknownKey(name::hex(id)) }))
    }
}

/// What the seal is bound to besides the content.
fn bound_to(key: &Key) -> Vec<u8> {
    [CONTEXT, &name::parts(key)].concat()
}

/// The parts of what goes to a store.
pub(super) enum Body<'a> {
    /// The content as it is.
    Open(&'a [u8]),
    /// The content, sealed.
    Sealed {
        /// The id of the key.
        id: &'a [u8; ID_LEN],
        nonce: &'a [u8; NONCE_LEN],
        /// The ciphertext and its tag.
        data: &'a [u8],
    },
}

impl<'a> Body<'a> {
    /// None: it is neither.
    pub(super) fn of(bytes: &'a [u8]) -> Option<Self> {
        match bytes.split_first_chunk()? {
            (&OPEN, content) => Some(Self::Open(content)),
            (&SEALED, rest) => {
                let (id, rest) = rest.split_first_chunk()?;
                let (nonce, data) = rest.split_first_chunk()?;
                (data.len() >= TAG_LEN).then_some(Self::Sealed { id, nonce, data })
            }
            _ => None,
        }
    }

    pub(super) fn bytes(&self) -> Zeroizing<Vec<u8>> {
        Zeroizing::new(match self {
            Self::Open(content) => [&OPEN, *content].concat(),
            Self::Sealed { id, nonce, data } => [&SEALED, id.as_slice(), nonce.as_slice(), data].concat(),
        })
    }
}

fn decode(text: &str) -> Result<Zeroizing<Vec<u8>>, KeyError> {
    if text.len() == 2 * KEY_LEN && text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        // Of its final size from the start: a buffer that grows would leave copies behind.
        let mut bytes = Zeroizing::new(Vec::with_capacity(KEY_LEN));
        for at in 0..KEY_LEN {
            bytes.push(u8::from_str_radix(&text[2 * at..2 * at + 2], 16).map_err(|_| KeyError::Text)?);
        }
        return Ok(bytes);
    }
    let config = GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    let alphabet = if text.contains(['-', '_']) { &URL_SAFE } else { &STANDARD };
    GeneralPurpose::new(alphabet, config).decode(text).map(Zeroizing::new).map_err(|_| KeyError::Text)
}

#[cfg(test)]
mod tests;
