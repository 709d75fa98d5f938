//! A server that is known by its public key, whoever signed its certificate.

use std::fmt;
use std::io;
use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, OtherError, SignatureScheme};

use crate::config::Pin;

/// Takes a server whose own public key is pinned: its handshake is signed with that key, so nobody else can be it.
/// Who signed the certificate, its names and its dates do not count, for the key alone says who it is.
#[derive(Debug)]
pub(super) struct PinnedKeys {
    pins: Vec<Pin>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl PinnedKeys {
    pub(super) fn new(pins: &[Pin], algorithms: WebPkiSupportedAlgorithms) -> Self {
        Self { pins: pins.to_vec(), algorithms }
    }
}

impl ServerCertVerifier for PinnedKeys {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let seen = pin_of(end_entity)?;
        if self.pins.contains(&seen) {
            return Ok(ServerCertVerified::assertion());
        }
        // Only for the error: what stands above a certificate proves nothing until the chain is verified.
        let issuer_is_pinned = intermediates
            .iter()
            .any(|certificate| pin_of(certificate).is_ok_and(|pin| self.pins.contains(&pin)));
        let other = OtherError(Arc::new(OtherKey { seen, issuer_is_pinned }));
        Err(CertificateError::Other(other).into())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

fn pin_of(certificate: &CertificateDer<'_>) -> Result<Pin, rustls::Error> {
    let key = ParsedCertificate::try_from(certificate)?.subject_public_key_info();
    let mut bytes = [0; 32];
    bytes.copy_from_slice(digest(&SHA256, &key).as_ref());
    Ok(Pin::new(bytes))
}

/// A server showed a public key that is not pinned. Both are public.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OtherKey {
    /// What it showed.
    pub seen: Pin,
    /// Is a key pinned that one of the certificates above the server's has?
    pub issuer_is_pinned: bool,
}

impl OtherKey {
    /// Is that why a handshake failed?
    pub fn of(error: &io::Error) -> Option<Self> {
        match error.get_ref()?.downcast_ref()? {
            rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(other))) => {
                other.downcast_ref().cloned()
            }
            _ => None,
        }
    }
}

impl fmt::Display for OtherKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "its public key is {}, and `pin` has another", self.seen)?;
        if self.issuer_is_pinned {
            write!(f, ": that of a certificate above it, where it takes the server's own")?;
        }
        Ok(())
    }
}

impl std::error::Error for OtherKey {}
