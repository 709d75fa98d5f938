//! TLS towards upstreams and token endpoints, and towards callers: rustls, verification always on.

mod acceptor;
mod pin;
mod watch;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};
use tokio_rustls::TlsConnector;
use zeroize::Zeroizing;

use self::pin::PinnedKeys;
use crate::config::TlsSettings;
use crate::secret::{SecretError, bytes_of};

pub use self::acceptor::ListenerTls;
pub use self::pin::OtherKey;
pub use self::watch::{CertificateWatch, Change};

/// The most that a PEM file may hold, in bytes: a bundle of all public roots is a fifth of it.
const MAX_PEM_BYTES: usize = 1024 * 1024;

/// HTTP/1.1 in ALPN (RFC 7301 §6).
pub const HTTP_1: &[u8] = b"http/1.1";
/// HTTP/2 in ALPN (RFC 9113 §3.2).
pub const HTTP_2: &[u8] = b"h2";

/// Why a TLS setting cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A PEM file cannot be read or holds something else.
    #[error("cannot use {} as PEM: {reason}", path.display())]
    Pem {
        /// The file.
        path: PathBuf,
        /// What is wrong with it, without its content.
        reason: String,
    },
    /// A root certificate that rustls does not accept.
    #[error("{} holds a certificate that cannot be a trusted root", path.display())]
    Root {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: rustls::Error,
    },
    /// The certificate and the key do not go together, or the key is of an unknown kind.
    #[error("the certificate {} and the key {} cannot be used together", cert.display(), key.display())]
    Identity {
        /// The certificate chain.
        cert: PathBuf,
        /// Its key.
        key: PathBuf,
        /// Why not.
        #[source]
        source: rustls::Error,
    },
    /// The roots that callers' certificates are to be verified with cannot be used.
    #[error("callers' certificates cannot be verified")]
    Callers(#[source] rustls::server::VerifierBuilderError),
    /// No protocol version is usable; cannot happen with the built-in provider.
    #[error("TLS cannot be set up")]
    Setup(#[source] rustls::Error),
}

/// Makes connectors. The system's roots are read once, at the first need.
#[derive(Debug, Default)]
pub struct TlsFactory {
    system: std::sync::OnceLock<Arc<RootCertStore>>,
}

impl TlsFactory {
    /// A connector that verifies against the system's roots and those in `settings`, or by its pins, and shows our certificate
    /// where there is one. Offers HTTP/1.1 alone.
    pub fn connector(&self, settings: &TlsSettings) -> Result<Connector, TlsError> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let algorithms = provider.signature_verification_algorithms;
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(TlsError::Setup)?;
        let builder = match settings.pins.as_slice() {
            [] => builder.with_root_certificates(self.roots(&settings.ca)?),
            pins => {
                let verifier = PinnedKeys::new(pins, algorithms);
                builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier))
            }
        };
        let mut config = match &settings.identity {
            None => builder.with_no_client_auth(),
            Some((cert, key)) => {
                let chain = certificates(cert)?;
                let private = private_key(key)?;
                builder.with_client_auth_cert(chain, private).map_err(|source| TlsError::Identity {
                    cert: cert.clone(),
                    key: key.clone(),
                    source,
                })?
            }
        };
        config.alpn_protocols = vec![HTTP_1.to_vec()];
        Ok(Connector(TlsConnector::from(Arc::new(config))))
    }

    /// The system's roots, and those in these files.
    fn roots(&self, files: &[PathBuf]) -> Result<Arc<RootCertStore>, TlsError> {
        let mut roots = Arc::clone(self.system.get_or_init(|| Arc::new(system_roots())));
        for path in files {
            let store = Arc::make_mut(&mut roots);
            for certificate in certificates(path)? {
                store.add(certificate).map_err(|source| TlsError::Root { path: path.clone(), source })?;
            }
        }
        Ok(roots)
    }
}

/// A TLS connector that can be shown: what it trusts is no secret, but rustls does not say it.
#[derive(Clone)]
pub struct Connector(pub TlsConnector);

impl Connector {
    /// The same, but offering these protocols by ALPN, the first one first.
    pub fn offering(&self, protocols: &[&[u8]]) -> Self {
        let mut config = ClientConfig::clone(self.0.config());
        config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
        Self(TlsConnector::from(Arc::new(config)))
    }
}

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Connector")
    }
}

/// The system's roots, or the built-in ones where it has none (an empty container, say).
fn system_roots() -> RootCertStore {
    let mut store = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    store.add_parsable_certificates(found.certs);
    if store.is_empty() {
        store.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    }
    store
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let text = pem_text(path)?;
    let found = CertificateDer::pem_slice_iter(&text)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| pem_error(path, &error))?;
    if found.is_empty() {
        return Err(unusable(path, "it holds no certificate"));
    }
    Ok(found)
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    let text = pem_text(path)?;
    PrivateKeyDer::from_pem_slice(&text).map_err(|error| match error {
        rustls::pki_types::pem::Error::NoItemsFound if text.windows(9).any(|word| word == b"ENCRYPTED") => {
            unusable(path, "its key is locked with a passphrase; write it without one")
        }
        rustls::pki_types::pem::Error::NoItemsFound => unusable(path, "it holds no private key"),
        error => pem_error(path, &error),
    })
}

/// Wiped when dropped: it may hold a key.
fn pem_text(path: &Path) -> Result<Zeroizing<Vec<u8>>, TlsError> {
    let text = bytes_of(path, MAX_PEM_BYTES).map(Zeroizing::new).map_err(|error| match error {
        SecretError::Unreadable { source, .. } => unusable(path, &source.to_string()),
        SecretError::Directory(_) => unusable(path, "it is a directory"),
        _ => unusable(path, "it is a pipe or a device, not a file"),
    })?;
    if text.len() > MAX_PEM_BYTES {
        return Err(unusable(path, "it is larger than 1 MiB"));
    }
    Ok(text)
}

fn pem_error(path: &Path, error: &rustls::pki_types::pem::Error) -> TlsError {
    use rustls::pki_types::pem::Error;
    let reason = match error {
        Error::Io(io) => io.to_string(),
        Error::NoItemsFound => "it holds no such item".to_owned(),
        _ => "it is malformed".to_owned(),
    };
    unusable(path, &reason)
}

fn unusable(path: &Path, reason: &str) -> TlsError {
    TlsError::Pem { path: path.to_owned(), reason: reason.to_owned() }
}
