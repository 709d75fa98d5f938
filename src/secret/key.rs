//! Keys of 256 bits as they are written down: base64 or hexadecimal.

use base64::Engine as _;
use base64::alphabet::{STANDARD, URL_SAFE};
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use zeroize::Zeroizing;

use super::Secret;

/// The bytes of a key, in octets.
pub const KEY_BYTES: usize = 32;

/// The key that the text writes down: [`KEY_BYTES`] bytes as base64 (standard or URL-safe, padded or not), or as 64
/// hexadecimal digits. None: the text is neither.
pub fn key_bytes(text: &Secret) -> Option<Zeroizing<[u8; KEY_BYTES]>> {
    let text = text.expose();
    if text.len() == 2 * KEY_BYTES {
        return from_hexadecimal(text);
    }
    let alphabet = if text.contains(['-', '_']) { &URL_SAFE } else { &STANDARD };
    let config = GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    // One allocation that surely is enough: a growing buffer would leave copies behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(text.len()));
    GeneralPurpose::new(alphabet, config).decode_vec(text, &mut bytes).ok()?;
    let mut key = Zeroizing::new([0; KEY_BYTES]);
    if bytes.len() != key.len() {
        return None;
    }
    key.copy_from_slice(&bytes);
    Some(key)
}

fn from_hexadecimal(text: &str) -> Option<Zeroizing<[u8; KEY_BYTES]>> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        b'A'..=b'F' => Some(byte - b'A' + 10),
        _ => None,
    };
    let mut key = Zeroizing::new([0; KEY_BYTES]);
    for (byte, pair) in key.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        *byte = (digit(pair[0])? << 4) | digit(pair[1])?;
    }
    Some(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_32_bytes_as_base64_or_hexadecimal() {
        let bytes: Vec<u8> = (0..32).map(|n: u8| n.wrapping_mul(29) ^ 0xfb).collect();
        let hexadecimal: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let standard = base64::engine::general_purpose::STANDARD.encode(&bytes);
        let url_safe = base64::engine::general_purpose::URL_SAFE.encode(&bytes);
        assert_ne!(standard, url_safe, "the two alphabets must differ here");
        let unpadded = |text: &str| text.trim_end_matches('=').to_owned();
        for text in [
            hexadecimal.clone(),
            hexadecimal.to_uppercase(),
            unpadded(&standard),
            unpadded(&url_safe),
            standard.clone(),
            url_safe,
        ] {
            let key = key_bytes(&Secret::new(text.as_str()));
            assert_eq!(key.as_deref().map(|key| &key[..]), Some(&bytes[..]), "{text}");
        }
        for wrong in [
            String::new(),
            "password".to_owned(),
            hexadecimal.replace('f', "g"),
            hexadecimal[..62].to_owned(),
            standard[..40].to_owned(),
            format!("{standard}AAAA"),
            base64::engine::general_purpose::STANDARD.encode(&bytes[..31]),
            format!("+_{}", &unpadded(&standard)[2..]),
        ] {
            assert!(key_bytes(&Secret::new(wrong.as_str())).is_none(), "{wrong}");
        }
    }
}
