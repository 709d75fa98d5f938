//! A pinned public key, as it is written and shown. Pure.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// The SHA-256 of a public key, of its DER as a certificate holds it (SubjectPublicKeyInfo, RFC 7469 §2.4).
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Pin([u8; 32]);

impl Pin {
    /// Of a digest.
    pub fn new(digest: [u8; 32]) -> Self {
        Self(digest)
    }

    /// `sha256/BASE64`, or curl's `sha256//BASE64`. None: the text is neither.
    pub fn parse(text: &str) -> Option<Self> {
        let rest = text.strip_prefix("sha256/")?;
        // Base64 may itself begin with the sign that curl writes twice.
        [Some(rest), rest.strip_prefix('/')]
            .into_iter()
            .flatten()
            .find_map(|digits| STANDARD.decode(digits).ok()?.try_into().ok())
            .map(Self)
    }
}

impl fmt::Display for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256/{}", STANDARD.encode(self.0))
    }
}

impl fmt::Debug for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pin_is_written_as_http_or_as_curl_writes_it() {
        for byte in [0u8, 0x55, 0xff] {
            let pin = Pin::new([byte; 32]);
            let text = pin.to_string();
            assert_eq!(Pin::parse(&text), Some(pin), "{text}");
            assert_eq!(Pin::parse(&text.replacen('/', "//", 1)), Some(pin), "{text}");
            let digits = text.strip_prefix("sha256/").unwrap();
            for wrong in [
                digits.to_owned(),
                format!("sha1/{digits}"),
                format!("SHA256/{digits}"),
                format!("sha256:{digits}"),
                format!("sha256///{digits}"),
                format!("sha256/{}", digits.trim_end_matches('=')),
                format!("sha256/{digits} "),
                format!("sha256/{}", &digits[4..]),
                format!("sha256/{}", STANDARD.encode([byte; 33])),
                "sha256/".to_owned(),
                String::new(),
            ] {
                assert_eq!(Pin::parse(&wrong), None, "{wrong}");
            }
        }
    }
}
