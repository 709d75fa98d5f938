//! Client assertions: a JWT that a client signs to show who it is (RFC 7523 §2.2, §3).

use std::time::{Duration, SystemTime};

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject as _;
use serde::Serialize;

use super::error::KeyError;
use crate::config::SigningAlgorithm;
use crate::secret::Secret;

/// How long an assertion may be used; it is used at once.
const LIFETIME: Duration = Duration::from_secs(60);

/// Signs an assertion of `client_id` for the token endpoint `audience`, issued at `now`.
pub(super) fn sign(
    client_id: &str,
    audience: &str,
    pem: &Secret,
    key_id: Option<&str>,
    algorithm: SigningAlgorithm,
    now: SystemTime,
) -> Result<Secret, KeyError> {
    #[derive(Serialize)]
    struct Claims<'a> {
        iss: &'a str,
        sub: &'a str,
        aud: &'a str,
        jti: String,
        iat: u64,
        exp: u64,
    }
    let mut random = [0; 16];
    aws_lc_rs::rand::fill(&mut random).map_err(|_| KeyError::NoRandom)?;
    let since = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let claims = Claims {
        iss: client_id,
        sub: client_id,
        aud: audience,
        jti: URL_SAFE_NO_PAD.encode(random),
        iat: since.as_secs(),
        exp: (since + LIFETIME).as_secs(),
    };
    let mut header = Header::new(match algorithm {
        SigningAlgorithm::Rs256 => Algorithm::RS256,
        SigningAlgorithm::Ps256 => Algorithm::PS256,
        SigningAlgorithm::Es256 => Algorithm::ES256,
        SigningAlgorithm::EdDsa => Algorithm::EdDSA,
    });
    header.kid = key_id.map(str::to_owned);
    let key = key_of(pem, algorithm)?;
    // Its own errors may show a piece of the key.
    let signed = jsonwebtoken::encode(&header, &claims, &key);
    signed.map(Secret::new).map_err(|_| KeyError::Unusable { wanted: wanted(algorithm) })
}

fn key_of(pem: &Secret, algorithm: SigningAlgorithm) -> Result<EncodingKey, KeyError> {
    let text = pem.expose();
    let unusable = || KeyError::Unusable { wanted: wanted(algorithm) };
    let key = PrivateKeyDer::from_pem_slice(text.as_bytes()).map_err(|_| {
        if text.contains("ENCRYPTED") {
            KeyError::Encrypted
        } else {
            KeyError::NotPem { wanted: wanted(algorithm) }
        }
    })?;
    match (algorithm, &key) {
        (SigningAlgorithm::Rs256 | SigningAlgorithm::Ps256, PrivateKeyDer::Pkcs1(der)) => {
            Ok(EncodingKey::from_rsa_der(der.secret_pkcs1_der()))
        }
        (SigningAlgorithm::Rs256 | SigningAlgorithm::Ps256, PrivateKeyDer::Pkcs8(_)) => {
            // The same section that was found above, though others stand before it.
            let at = text.find("-----BEGIN PRIVATE KEY-----").unwrap_or(0);
            EncodingKey::from_rsa_pem(&text.as_bytes()[at..]).map_err(|_| unusable())
        }
        (SigningAlgorithm::Es256, PrivateKeyDer::Pkcs8(der)) => {
            Ok(EncodingKey::from_ec_der(der.secret_pkcs8_der()))
        }
        (SigningAlgorithm::Es256, PrivateKeyDer::Sec1(der)) => {
            let curve = &ECDSA_P256_SHA256_FIXED_SIGNING;
            let pair = EcdsaKeyPair::from_private_key_der(curve, der.secret_sec1_der());
            let pkcs8 = pair.map_err(|_| unusable())?.to_pkcs8v1().map_err(|_| unusable())?;
            Ok(EncodingKey::from_ec_der(pkcs8.as_ref()))
        }
        (SigningAlgorithm::EdDsa, PrivateKeyDer::Pkcs8(der)) => {
            Ok(EncodingKey::from_ed_der(der.secret_pkcs8_der()))
        }
        _ => Err(unusable()),
    }
}

/// What key an algorithm needs, for errors.
fn wanted(algorithm: SigningAlgorithm) -> &'static str {
    match algorithm {
        SigningAlgorithm::Rs256 => "RS256 needs an RSA key of at least 2048 bits",
        SigningAlgorithm::Ps256 => "PS256 needs an RSA key of at least 2048 bits",
        SigningAlgorithm::Es256 => "ES256 needs a key on the curve P-256",
        SigningAlgorithm::EdDsa => "EdDSA needs an Ed25519 key",
    }
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::encoding::{AsDer as _, EcPrivateKeyRfc5915Der};
    use base64::engine::general_purpose::STANDARD;
    use jsonwebtoken::{DecodingKey, Validation};
    use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519, PKCS_RSA_SHA256};
    use serde_json::Value;

    use super::*;

    const NOW: u64 = 1_780_000_000;

    fn pem(label: &str, der: &[u8]) -> String {
        let text = STANDARD.encode(der);
        let lines: Vec<&str> =
            text.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap()).collect();
        format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
    }

    fn signed(pem: &str, algorithm: SigningAlgorithm) -> Result<Secret, KeyError> {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(NOW);
        sign("me", "https://auth.example/token", &Secret::new(pem), Some("k1"), algorithm, now)
    }

    /// Header and claims, if the signature is right.
    fn verified(assertion: &Secret, public: &KeyPair, algorithm: Algorithm) -> (Header, Value) {
        let pem = public.public_key_pem();
        let key = match algorithm {
            Algorithm::ES256 => DecodingKey::from_ec_pem(pem.as_bytes()),
            Algorithm::EdDSA => DecodingKey::from_ed_pem(pem.as_bytes()),
            _ => DecodingKey::from_rsa_pem(pem.as_bytes()),
        };
        let mut validation = Validation::new(algorithm);
        validation.set_audience(&["https://auth.example/token"]);
        validation.set_issuer(&["me"]);
        // The moment of the test is fixed.
        validation.validate_exp = false;
        let token = jsonwebtoken::decode::<Value>(assertion.expose(), &key.unwrap(), &validation).unwrap();
        (token.header, token.claims)
    }

    #[test]
    fn an_assertion_verifies_whatever_the_kind_of_key_and_its_form() {
        let rsa = KeyPair::generate_for(&PKCS_RSA_SHA256).unwrap();
        let ec = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        let ed = KeyPair::generate_for(&PKCS_ED25519).unwrap();
        // In PKCS #8, what is PKCS #1 follows 26 bytes of header.
        let pkcs1 = pem("RSA PRIVATE KEY", &rsa.serialize_der()[26..]);
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &ec.serialize_der()).unwrap();
        let sec1: EcPrivateKeyRfc5915Der<'_> = pair.private_key().as_der().unwrap();
        let sec1 = pem("EC PRIVATE KEY", sec1.as_ref());
        let behind_another = format!("{}{}", rsa.public_key_pem(), rsa.serialize_pem());
        let cases = [
            (rsa.serialize_pem(), SigningAlgorithm::Rs256, Algorithm::RS256, &rsa),
            (rsa.serialize_pem(), SigningAlgorithm::Ps256, Algorithm::PS256, &rsa),
            (behind_another, SigningAlgorithm::Rs256, Algorithm::RS256, &rsa),
            (pkcs1, SigningAlgorithm::Rs256, Algorithm::RS256, &rsa),
            (ec.serialize_pem(), SigningAlgorithm::Es256, Algorithm::ES256, &ec),
            (sec1, SigningAlgorithm::Es256, Algorithm::ES256, &ec),
            (ed.serialize_pem(), SigningAlgorithm::EdDsa, Algorithm::EdDSA, &ed),
        ];
        let mut seen = Vec::new();
        for (pem, ours, algorithm, public) in cases {
            let assertion = signed(&pem, ours).unwrap();
            let (header, claims) = verified(&assertion, public, algorithm);
            assert_eq!(header.kid.as_deref(), Some("k1"));
            assert_eq!((&claims["iss"], &claims["sub"]), (&"me".into(), &"me".into()));
            assert_eq!((&claims["iat"], &claims["exp"]), (&NOW.into(), &(NOW + 60).into()));
            seen.push(claims["jti"].as_str().unwrap().to_owned());
        }
        seen.sort();
        seen.dedup();
        assert_eq!(seen.len(), 7, "each jti is used once");
    }

    #[test]
    fn a_key_that_cannot_sign_says_what_is_expected() {
        let ec = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        let other_curve = KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).unwrap();
        let garbage = pem("PRIVATE KEY", b"canary");
        let encrypted = pem("ENCRYPTED PRIVATE KEY", b"canary");
        use SigningAlgorithm::{EdDsa, Es256, Ps256, Rs256};
        let cases = [
            ("canary".to_owned(), Rs256, "-----BEGIN PRIVATE KEY-----"),
            (ec.public_key_pem(), Es256, "-----BEGIN PRIVATE KEY-----"),
            (encrypted, Rs256, "decrypt it"),
            (garbage.clone(), Rs256, "RSA key"),
            (garbage.clone(), Es256, "P-256"),
            (garbage.clone(), EdDsa, "Ed25519"),
            (pem("RSA PRIVATE KEY", b"canary"), Ps256, "RSA key"),
            (pem("RSA PRIVATE KEY", b"canary"), Es256, "P-256"),
            (pem("EC PRIVATE KEY", b"canary"), Es256, "P-256"),
            (ec.serialize_pem(), Rs256, "RS256 needs an RSA key"),
            (ec.serialize_pem(), EdDsa, "EdDSA needs an Ed25519 key"),
            (other_curve.serialize_pem(), Es256, "ES256 needs a key on the curve P-256"),
        ];
        for (pem, algorithm, want) in cases {
            let error = signed(&pem, algorithm).unwrap_err();
            let text = format!("{error} {error:?}");
            assert!(text.contains(want), "{algorithm:?}: {text}");
            assert!(!text.contains("canary") && !text.contains("Y2FuYXJ5"), "{text}");
        }
    }
}
