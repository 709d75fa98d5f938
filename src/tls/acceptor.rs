//! TLS towards callers: a listener's certificate, who may connect, and what is in force right now.

use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::crypto::aws_lc_rs::Ticketer;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{RootCertStore, ServerConfig};

use super::{TlsError, certificates, private_key};
use crate::config::ListenerTlsSettings;

/// A listener's TLS: what a new connection is to be greeted with. Files are read by whoever loads it, never by who
/// asks.
pub struct ListenerTls {
    in_force: ArcSwap<ServerConfig>,
}

impl ListenerTls {
    /// Reads the files.
    ///
    /// # Errors
    /// [`TlsError`], which names the file and shows nothing of it.
    pub fn load(files: &ListenerTlsSettings) -> Result<Self, TlsError> {
        Ok(Self { in_force: ArcSwap::from_pointee(server_config(files)?) })
    }

    /// What a new connection is greeted with: an atomic read. A connection keeps what it began with.
    pub fn current(&self) -> Arc<ServerConfig> {
        self.in_force.load_full()
    }

    /// Reads the files again; what is in force stays so if they cannot be used.
    pub(super) fn reload(&self, files: &ListenerTlsSettings) -> Result<(), TlsError> {
        self.in_force.store(Arc::new(server_config(files)?));
        Ok(())
    }
}

impl fmt::Debug for ListenerTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ListenerTls")
    }
}

/// TLS 1.2 and 1.3 with this certificate, HTTP/2 before HTTP/1.1, and without early data, which could be replayed.
fn server_config(files: &ListenerTlsSettings) -> Result<ServerConfig, TlsError> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Setup)?;
    let any_caller = files.client_ca.is_empty();
    let builder = if any_caller {
        builder.with_no_client_auth()
    } else {
        let roots = Arc::new(client_roots(files)?);
        let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider).build();
        builder.with_client_cert_verifier(verifier.map_err(TlsError::Callers)?)
    };
    let (chain, key) = (certificates(&files.cert)?, private_key(&files.key)?);
    let mut config = builder.with_single_cert(chain, key).map_err(|source| TlsError::Identity {
        cert: files.cert.clone(),
        key: files.key.clone(),
        source,
    })?;
    config.alpn_protocols = vec![super::HTTP_2.to_vec(), super::HTTP_1.to_vec()];
    // A cache of sessions would be a lock that all workers share; tickets are the callers' to keep.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    if any_caller {
        // Keys of its own: a ticket is worth nothing at another listener, or once the files have changed.
        config.ticketer = Ticketer::new().map_err(TlsError::Setup)?;
    } else {
        // A session that is taken up again shows no certificate, so that one could outlive it.
        config.send_tls13_tickets = 0;
    }
    Ok(config)
}

/// Whose certificates are accepted: those named and nobody else's, the system's roots least of all.
fn client_roots(files: &ListenerTlsSettings) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for path in &files.client_ca {
        for certificate in certificates(path)? {
            roots.add(certificate).map_err(|source| TlsError::Root { path: path.clone(), source })?;
        }
    }
    Ok(roots)
}
