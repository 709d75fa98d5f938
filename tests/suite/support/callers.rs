//! Callers of a listener with TLS, over a pipe in memory, and the listener's files.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use rustls::pki_types::CertificateDer;
use rustls::{ClientConfig, SupportedProtocolVersion};
use sidekey::config::ListenerTlsSettings;
use sidekey::tls::{CertificateWatch, ListenerTls};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};

use super::running::private_file;
use super::tls::{Authority, Identity};

/// Both versions of TLS.
pub(crate) const BOTH: [&SupportedProtocolVersion; 2] = [&rustls::version::TLS12, &rustls::version::TLS13];

/// Both ends of a connection.
pub(crate) type Ends = (client::TlsStream<DuplexStream>, server::TlsStream<DuplexStream>);

/// A listener's files in a folder of their own, and what was loaded from them.
pub(crate) struct Files {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) settings: ListenerTlsSettings,
}

impl Files {
    pub(crate) fn new(identity: &Identity, ca: &[&Authority]) -> Self {
        let folder = tempfile::tempdir().expect("it works");
        let settings = ListenerTlsSettings {
            cert: folder.path().join("tls.crt"),
            key: folder.path().join("tls.key"),
            client_ca: ca.iter().map(|authority| authority.ca.clone()).collect(),
        };
        let files = Self { folder, settings };
        files.write(identity);
        files.settings.client_ca.iter().chain([&files.settings.cert, &files.settings.key]).for_each(aged);
        files
    }

    pub(crate) fn write(&self, identity: &Identity) {
        std::fs::write(&self.settings.cert, identity.cert_pem()).expect("it works");
        private_file(self.settings.key.clone(), &identity.key_pem());
    }

    pub(crate) fn load(&self) -> (CertificateWatch, Arc<ListenerTls>) {
        let mut watch = CertificateWatch::default();
        let tls = watch.load(&self.settings).unwrap_or_else(|error| panic!("{error:?}"));
        (watch, tls)
    }

    /// What a load says that must fail; nothing of what the files hold.
    pub(crate) fn refusal(&self) -> String {
        let error = ListenerTls::load(&self.settings).expect_err("they cannot be used");
        sidekey::telemetry::chain(&error)
    }
}

/// Makes a file look old, so that what is written next is not of the same tick of the file system's clock.
pub(crate) fn aged(path: &PathBuf) {
    let file = std::fs::File::open(path).expect("it works");
    file.set_modified(SystemTime::UNIX_EPOCH).expect("it works");
}

/// A caller that trusts `authority` and shows `identity`.
pub(crate) fn caller(authority: &Authority, identity: Option<&Identity>) -> ClientConfig {
    caller_of(authority, identity, &BOTH)
}

pub(crate) fn caller_of(
    authority: &Authority,
    identity: Option<&Identity>,
    versions: &[&'static SupportedProtocolVersion],
) -> ClientConfig {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .expect("it works")
        .with_root_certificates(authority.roots());
    match identity {
        None => builder.with_no_client_auth(),
        Some(identity) => builder.with_client_auth_cert(identity.chain(), identity.key()).expect("it works"),
    }
}

/// Shakes hands over a pipe; the error is the listener's.
pub(crate) async fn shake(tls: &ListenerTls, caller: &Arc<ClientConfig>) -> Result<Ends, std::io::Error> {
    let (near, far) = tokio::io::duplex(64 * 1024);
    let connector = TlsConnector::from(Arc::clone(caller));
    let name = "localhost".try_into().expect("it works");
    let (client, server) =
        tokio::join!(connector.connect(name, near), TlsAcceptor::from(tls.current()).accept(far));
    let server = server?;
    Ok((client.expect("the caller is content where the listener is"), server))
}

/// What a new caller that trusts `authority` sees.
pub(crate) async fn seen(tls: &ListenerTls, authority: &Authority) -> CertificateDer<'static> {
    let (client, _server) = shake(tls, &Arc::new(caller(authority, None))).await.expect("a handshake");
    client.get_ref().1.peer_certificates().expect("it works")[0].clone()
}

pub(crate) async fn talk((client, server): &mut Ends, words: &[u8]) {
    client.write_all(words).await.expect("it works");
    client.flush().await.expect("it works");
    let mut heard = vec![0; words.len()];
    server.read_exact(&mut heard).await.expect("it works");
    assert_eq!(heard, words);
    server.write_all(&heard).await.expect("it works");
    server.flush().await.expect("it works");
    client.read_exact(&mut heard).await.expect("it works");
    assert_eq!(heard, words);
}
