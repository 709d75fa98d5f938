//! A private certificate authority, and a small HTTPS server with a certificate of it.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use rustls::RootCertStore;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::WebPkiClientVerifier;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;

/// A certificate authority of a test, with a folder for its files.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    root: CertificateDer<'static>,
    folder: tempfile::TempDir,
    pub(crate) ca: PathBuf,
}

/// A certificate and its key, in DER.
pub(crate) struct Identity {
    certificate: CertificateDer<'static>,
    key: KeyPair,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        let root = params.self_signed(&key).expect("a root");
        let folder = tempfile::tempdir().expect("a folder");
        let ca = folder.path().join("ca.pem");
        std::fs::write(&ca, root.pem()).expect("write");
        Self { root: root.der().clone(), issuer: Issuer::new(params, key), folder, ca }
    }

    /// A server's or client's certificate for these names.
    pub(crate) fn issue(&self, names: &[&str]) -> Identity {
        let key = KeyPair::generate().expect("a key");
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).expect("names");
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate").der().clone();
        Identity { certificate, key }
    }

    /// The PEM files of a new client certificate and its key.
    pub(crate) fn client_files(&self) -> (PathBuf, PathBuf) {
        let identity = self.issue(&["client.example"]);
        let pem = format!("{}\n", pem("CERTIFICATE", &identity.certificate));
        let (cert, key) = (self.folder.path().join("client.pem"), self.folder.path().join("client.key"));
        std::fs::write(&cert, pem).expect("write");
        super::running::private_file(key.clone(), &identity.key.serialize_pem());
        (cert, key)
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// What pins its key.
    pub(crate) fn pin(&self) -> String {
        pin(self.issuer.key())
    }

    /// The root, in DER.
    pub(crate) fn root(&self) -> CertificateDer<'static> {
        self.root.clone()
    }

    /// A store that trusts this authority.
    pub(crate) fn roots(&self) -> Arc<RootCertStore> {
        let mut roots = RootCertStore::empty();
        roots.add(self.root.clone()).expect("a root");
        Arc::new(roots)
    }
}

impl Identity {
    /// A certificate that nobody else signed, and that ended long ago.
    pub(crate) fn self_signed(name: &str) -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(vec![name.to_owned()]).expect("a name");
        (params.not_before, params.not_after) =
            (rcgen::date_time_ymd(2001, 1, 1), rcgen::date_time_ymd(2002, 1, 1));
        let certificate = params.self_signed(&key).expect("a certificate").der().clone();
        Self { certificate, key }
    }

    /// What pins its key.
    pub(crate) fn pin(&self) -> String {
        pin(&self.key)
    }

    /// The certificate chain, in DER.
    pub(crate) fn chain(&self) -> Vec<CertificateDer<'static>> {
        vec![self.certificate.clone()]
    }

    /// The private key, in DER.
    pub(crate) fn key(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::from(PrivatePkcs8KeyDer::from(self.key.serialize_der()))
    }

    /// The certificate, in PEM.
    pub(crate) fn cert_pem(&self) -> String {
        format!("{}\n", pem("CERTIFICATE", &self.certificate))
    }

    /// The private key, in PEM.
    pub(crate) fn key_pem(&self) -> String {
        self.key.serialize_pem()
    }
}

fn pin(key: &KeyPair) -> String {
    use base64::Engine as _;
    use rcgen::PublicKeyData as _;
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &key.subject_public_key_info());
    format!("sha256/{}", base64::engine::general_purpose::STANDARD.encode(digest))
}

fn pem(label: &str, der: &[u8]) -> String {
    use base64::Engine as _;
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    let lines: Vec<&str> =
        text.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).expect("base64")).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----", lines.join("\n"))
}

/// An HTTPS server; dropping it stops it.
pub(crate) struct TlsServer {
    pub(crate) addr: SocketAddr,
    seen: Arc<Mutex<Vec<Visit>>>,
    accepting: JoinHandle<()>,
}

/// One request that came over TLS.
#[derive(Debug, Clone)]
pub(crate) struct Visit {
    pub(crate) head: String,
    pub(crate) with_certificate: bool,
    /// Did the handshake resume an earlier one?
    pub(crate) resumed: bool,
    /// The name that the handshake asked for (SNI).
    pub(crate) name: Option<String>,
}

impl TlsServer {
    /// Answers each connection's one request with `answer`, `{port}` in it being its own, then breaks off without a
    /// TLS goodbye. With `clients_of`, it wants a certificate of that authority.
    pub(crate) async fn start(
        identity: &Identity,
        clients_of: Option<&Authority>,
        answer: &'static str,
    ) -> Self {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .expect("versions");
        let builder = match clients_of {
            None => builder.with_no_client_auth(),
            Some(authority) => {
                let verifier = WebPkiClientVerifier::builder_with_provider(authority.roots(), provider);
                builder.with_client_cert_verifier(verifier.build().expect("a verifier"))
            }
        };
        let config = builder.with_single_cert(identity.chain(), identity.key()).expect("an identity");
        Self::serving(config, answer).await
    }

    /// The same, with TLS as it is given.
    pub(crate) async fn serving(mut config: rustls::ServerConfig, answer: &'static str) -> Self {
        // It answers in nothing else.
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let addr = listener.local_addr().expect("an address");
        let answer: Arc<str> = answer.replace("{port}", &addr.port().to_string()).into();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let visits = Arc::clone(&seen);
        let accepting = tokio::spawn(async move {
            let mut running = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, visits, answer) = (acceptor.clone(), Arc::clone(&visits), Arc::clone(&answer));
                running.spawn(async move {
                    let Ok(mut stream) = acceptor.accept(stream).await else { return };
                    let mut head = Vec::new();
                    let mut byte = [0];
                    while !head.ends_with(b"\r\n\r\n") && matches!(stream.read(&mut byte).await, Ok(1)) {
                        head.push(byte[0]);
                    }
                    let tls = stream.get_ref().1;
                    let with_certificate = tls.peer_certificates().is_some();
                    let resumed = tls.handshake_kind() == Some(rustls::HandshakeKind::Resumed);
                    let name = tls.server_name().map(str::to_owned);
                    let head = String::from_utf8_lossy(&head).into_owned();
                    visits.lock().expect("no panic").push(Visit { head, with_certificate, resumed, name });
                    let _ = stream.write_all(answer.as_bytes()).await;
                    let _ = stream.flush().await;
                });
            }
        });
        Self { addr, seen, accepting }
    }

    /// The requests so far.
    pub(crate) fn visits(&self) -> Vec<Visit> {
        self.seen.lock().expect("no panic").clone()
    }

    /// Its URL by this name.
    pub(crate) fn url(&self, name: &str) -> String {
        format!("https://{name}:{}", self.addr.port())
    }
}

impl Drop for TlsServer {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}
