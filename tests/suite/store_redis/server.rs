//! A Redis server of a test, and what stands between it and a store.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use http::HeaderValue;
use redis::{Cmd, FromRedisValue};
use rustix::process::{Pid, Signal, kill_process};
use sidekey::clock::Clock;
use sidekey::config::{RedisStore, StoreKind, TlsSettings, Upstream};
use sidekey::secret::{Secret, SecretSource};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};

use crate::conformance::World;

pub(crate) const PASSWORD: &str = "canary-password";

pub(crate) fn password() -> SecretSource {
    SecretSource::Value(Secret::new(PASSWORD))
}

/// A store on the server at a port.
pub(crate) fn world(port: u16) -> World {
    let server = Upstream {
        tls: false,
        host: "127.0.0.1".to_owned(),
        port,
        base_path: String::new(),
        host_header: HeaderValue::from_static("127.0.0.1"),
        via: None,
        allow_link_local: false,
    };
    let redis = RedisStore {
        server,
        database: 0,
        username: None,
        password: Some(password()),
        prefix: "sidekey".to_owned(),
        tls: TlsSettings::default(),
        timeout: Duration::from_secs(5),
    };
    World { kind: StoreKind::Redis(redis), keys: vec![], clock: Clock::system() }
}

/// A port that nobody has at this moment.
pub(crate) fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("bound").port()
}

/// A running server; it ends with this value.
pub(crate) struct Server {
    pub(crate) port: u16,
    child: Child,
    folder: TempDir,
}

/// PEM files.
pub(crate) struct Certificates {
    pub(crate) ca: PathBuf,
    pub(crate) cert: PathBuf,
    pub(crate) key: PathBuf,
}

impl Server {
    pub(crate) async fn start(more: &[&str]) -> Self {
        Self::start_on(free_port(), more).await
    }

    pub(crate) async fn start_on(port: u16, more: &[&str]) -> Self {
        let text = port.to_string();
        Self::spawn(port, &[&["--port", &text], more].concat()).await
    }

    pub(crate) async fn start_tls(files: &Certificates) -> Self {
        let port = free_port();
        let text = port.to_string();
        let path = |path: &PathBuf| path.to_str().expect("text").to_owned();
        let (ca, cert, key) = (path(&files.ca), path(&files.cert), path(&files.key));
        let tls = ["--port", "0", "--tls-port", &text, "--tls-auth-clients", "no"];
        let files = ["--tls-ca-cert-file", &ca, "--tls-cert-file", &cert, "--tls-key-file", &key];
        Self::spawn(port, &[&tls[..], &files].concat()).await
    }

    async fn spawn(port: u16, arguments: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let child = launch(folder.path(), arguments);
        let mut server = Self { port, child, folder };
        server.is_up().await;
        server
    }

    pub(crate) async fn restart(&mut self, more: &[&str]) {
        self.kill().await;
        let port = self.port.to_string();
        self.child = launch(self.folder.path(), &[&["--port", &port], more].concat());
        self.is_up().await;
    }

    pub(crate) async fn kill(&mut self) {
        self.child.kill().await.expect("killed");
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let id = self.child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        kill_process(id.expect("it runs"), signal).expect("signalled");
    }

    /// What the administrator says to it.
    pub(crate) async fn say<T: FromRedisValue>(&self, command: &Cmd) -> T {
        let client =
            redis::Client::open(format!("redis://:{PASSWORD}@127.0.0.1:{}", self.port)).expect("a URL");
        let mut connection = client.get_multiplexed_async_connection().await.expect("connected");
        command.query_async(&mut connection).await.expect("an answer")
    }

    async fn is_up(&mut self) {
        let up = async {
            while TcpStream::connect(("127.0.0.1", self.port)).await.is_err() {
                if let Some(status) = self.child.try_wait().expect("waited") {
                    panic!("redis-server ended: {status}");
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), up).await.expect("it comes up");
    }
}

fn launch(folder: &Path, arguments: &[&str]) -> Child {
    let program = std::env::var_os("REDIS_SERVER").unwrap_or_else(|| "redis-server".into());
    Command::new(program)
        .args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--loglevel", "warning"])
        .args(["--enable-debug-command", "local"])
        .args(["--requirepass", PASSWORD])
        .arg("--dir")
        .arg(folder)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .expect("redis-server runs; set REDIS_SERVER to its path")
}

/// The files of a server at 127.0.0.1 and of the authority that vouches for it.
pub(crate) fn certificates(folder: &Path) -> Certificates {
    use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
    let root_key = KeyPair::generate().expect("a key");
    let mut root = CertificateParams::default();
    root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let root_pem = root.self_signed(&root_key).expect("a root").pem();
    let issuer = Issuer::new(root, root_key);
    let key = KeyPair::generate().expect("a key");
    let params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).expect("names");
    let cert = params.signed_by(&key, &issuer).expect("a certificate").pem();
    let write = |name: &str, text: &str| {
        let path = folder.join(name);
        std::fs::write(&path, text).expect("write");
        path
    };
    Certificates {
        ca: write("ca.pem", &root_pem),
        cert: write("cert.pem", &cert),
        key: write("key.pem", &key.serialize_pem()),
    }
}

const PASSES: u8 = 0;
const LOSES: u8 = 1;
const LOST: u8 = 2;

/// Stands in between, and on demand closes a connection in place of the next answer.
pub(crate) struct Cutter {
    pub(crate) port: u16,
    state: Arc<AtomicU8>,
}

impl Cutter {
    pub(crate) async fn start(behind: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let port = listener.local_addr().expect("bound").port();
        let state = Arc::new(AtomicU8::new(PASSES));
        let shared = Arc::clone(&state);
        tokio::spawn(async move {
            while let Ok((caller, _)) = listener.accept().await {
                let Ok(server) = TcpStream::connect(("127.0.0.1", behind)).await else { return };
                tokio::spawn(pass(caller, server, Arc::clone(&shared)));
            }
        });
        Self { port, state }
    }

    pub(crate) fn lose_the_next_answer(&self) {
        self.state.store(LOSES, Ordering::SeqCst);
    }

    pub(crate) fn has_lost_it(&self) -> bool {
        self.state.load(Ordering::SeqCst) == LOST
    }
}

async fn pass(mut caller: TcpStream, mut server: TcpStream, state: Arc<AtomicU8>) {
    let (mut up, mut down) = (vec![0; 65536], vec![0; 65536]);
    loop {
        tokio::select! {
            Ok(read @ 1..) = caller.read(&mut up) => {
                if server.write_all(&up[..read]).await.is_err() { return }
            }
            Ok(read @ 1..) = server.read(&mut down) => {
                if state.compare_exchange(LOSES, LOST, Ordering::SeqCst, Ordering::SeqCst).is_ok() { return }
                if caller.write_all(&down[..read]).await.is_err() { return }
            }
            else => return,
        }
    }
}
