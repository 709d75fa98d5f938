//! The protocols of systemd, without systemd: sockets that are handed over to the real binary (sd_listen_fds(3)), and what
//! it tells its service manager (sd_notify(3)).
#![cfg(feature = "demo")]

use std::cell::Cell;
use std::fs::File;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::support::recorder::Recorder;
use crate::support::running::{eventually, patiently, private_file};
use crate::support::tls::Authority;
use crate::support::{get, raw_unix, read_reply};
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixDatagram;
use tokio::process::{Child, Command};

/// Moves what came as standard input, output and error to the descriptors from 3 on, as many as there are, and becomes
/// sidekey: the process keeps its number, so that `$$` is the one that is meant.
const HANDS_OVER: &str = r#"
log=$1; count=$2; shift 2
[ "$count" -ge 1 ] && exec 3<&0
[ "$count" -ge 2 ] && exec 4<&1
[ "$count" -ge 3 ] && exec 5<&2
exec </dev/null >"$log" 2>&1
: "${LISTEN_PID:=$$}"
export LISTEN_PID
exec "$@"
"#;

/// A sidekey that is started as a service manager would.
struct Service {
    folder: tempfile::TempDir,
    notify: UnixDatagram,
    variables: Vec<(&'static str, String)>,
}

impl Service {
    fn new(config: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        private_file(folder.path().join("sidekey.toml"), config);
        let notify = UnixDatagram::bind(folder.path().join("notify")).expect("a socket");
        Self { folder, notify, variables: Vec::new() }
    }

    fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.variables.push((name, value.into()));
        self
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    /// Starts it with these descriptors, three at most, and these names.
    fn start(&self, sockets: Vec<OwnedFd>, names: &str) -> Running {
        let mut command = Command::new("/bin/sh");
        let count = sockets.len();
        command.args(["-c", HANDS_OVER, "sh"]).arg(self.path("log")).arg(count.to_string());
        command.args([env!("CARGO_BIN_EXE_sidekey"), "run", "-c", "sidekey.toml"]);
        command.current_dir(self.folder.path()).env_clear().env("PATH", "/usr/bin:/bin").kill_on_drop(true);
        command.env("NOTIFY_SOCKET", self.path("notify")).env("SIDEKEY_ADMIN", "false");
        command.env("LISTEN_FDS", count.to_string()).env("LISTEN_FDNAMES", names);
        self.variables.iter().for_each(|(name, value)| _ = command.env(name, value));
        let mut sockets = sockets.into_iter().map(Stdio::from);
        let mut next = || sockets.next().unwrap_or_else(Stdio::null);
        command.stdin(next()).stdout(next()).stderr(next());
        Running { child: command.spawn().expect("it starts") }
    }

    /// The next thing that the service manager is told.
    async fn told(&self) -> String {
        let mut bytes = [0; 1024];
        let length = patiently("word from it", self.notify.recv(&mut bytes)).await.expect("a datagram");
        String::from_utf8(bytes[..length].to_vec()).expect("text")
    }

    /// Waits for this line, and returns what was told before it.
    async fn told_until(&self, line: &str) -> Vec<String> {
        let mut before = Vec::new();
        loop {
            let told = self.told().await;
            if told.lines().any(|one| one == line) {
                return before;
            }
            before.push(told);
        }
    }

    /// Starts it with what it must not take, and returns what it says.
    async fn refuses(&self, sockets: Vec<OwnedFd>, names: &str) -> String {
        let status = patiently("its end", self.start(sockets, names).child.wait()).await.expect("waited");
        assert_eq!(status.code(), Some(2), "{}", self.log());
        self.log()
    }
}

struct Running {
    child: Child,
}

impl Running {
    async fn stop(mut self) -> Option<i32> {
        let id = self.child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        kill_process(id.expect("it runs"), Signal::TERM).expect("signalled");
        patiently("the end", self.child.wait()).await.expect("waited").code()
    }
}

fn tcp(address: &str) -> (OwnedFd, SocketAddr) {
    let listener = TcpListener::bind(address).expect("bind");
    let address = listener.local_addr().expect("an address");
    (listener.into(), address)
}

fn unix(path: &Path) -> OwnedFd {
    UnixListener::bind(path).expect("bind").into()
}

fn copy(socket: &OwnedFd) -> OwnedFd {
    socket.try_clone().expect("a copy")
}

/// A route that takes everything. `server`: keys of `[server]`.
fn config(server: &str, upstream: SocketAddr) -> String {
    format!(
        "[server]\n{server}\n[route.up]\npath = \"/\"\ncredential = false\nupstream = \"http://{upstream}\"\n"
    )
}

/// Connects and asks, whether anybody accepts yet or not.
async fn ask(address: SocketAddr) -> tokio::net::TcpStream {
    let mut stream = tokio::net::TcpStream::connect(address).await.expect("it queues");
    let request = format!("GET /queued HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("sent");
    stream
}

#[tokio::test]
async fn what_came_before_the_start_and_between_two_runs_is_served() {
    let upstream = Recorder::start().await;
    let service =
        Service::new(&config("sandbox = true\nlisten = [\"systemd:web\", \"systemd:local\"]", upstream.addr));
    let ((socket, address), path) = (tcp("127.0.0.1:0"), service.path("local.sock"));
    let local = unix(&path);
    for round in 0..2 {
        let mut early = ask(address).await;
        let running = service.start(vec![copy(&socket), copy(&local)], "web:local");
        service.told_until("READY=1").await;
        assert_eq!(patiently("the answer", read_reply(&mut early)).await.status, 200, "{round}");
        // The name of a Unix socket is the file's, so that any Host will do.
        let reply = raw_unix(&path, "GET / HTTP/1.1\r\nHost: any.example\r\nConnection: close\r\n\r\n").await;
        assert_eq!(reply.status, 200);
        let foreign = get(address, "/", &[("Host", "any.example")]).await;
        assert_eq!((foreign.status, foreign.header("sidekey-error")), (403, Some("forbidden_host")));
        assert_eq!(running.stop().await, Some(0), "{}", service.log());
        assert!(path.exists(), "the file is the service manager's");
        let log = service.log();
        assert!(log.contains(&format!("listening on {address}\n")), "{log}");
        assert!(log.contains(&format!("listening on unix:{}\n", path.display())), "{log}");
    }
    assert!(upstream.take().contains("GET /queued"));
}

/// Asks again and again, on a connection of its own each time, until there is no more need; fails if one goes unanswered.
async fn keeps_asking(address: SocketAddr, answered: &Cell<usize>, ends: &Cell<bool>) {
    while !ends.get() {
        let mut stream = ask(address).await;
        let mut answer = Vec::new();
        let read = patiently("an answer", stream.read_to_end(&mut answer)).await;
        let said = String::from_utf8_lossy(&answer);
        assert!(said.starts_with("HTTP/1.1 200 "), "after {}: {read:?} {said:?}", answered.get());
        answered.set(answered.get() + 1);
    }
}

#[tokio::test]
async fn no_caller_goes_unanswered_while_it_restarts_again_and_again() {
    let upstream = Recorder::start().await;
    let service = Service::new(&config("listen = \"systemd:web\"", upstream.addr));
    let (socket, address) = tcp("127.0.0.1:0");
    let (answered, ends) = (Cell::new(0), Cell::new(false));
    let asked = || keeps_asking(address, &answered, &ends);
    let callers = async { tokio::join!(asked(), asked(), asked(), asked(), asked(), asked()) };
    let restarts = async {
        for round in 0..10 {
            let running = service.start(vec![copy(&socket)], "web");
            let before = answered.get();
            // Not in step with them.
            eventually("answers", async || answered.get() >= before + 20 + round).await;
            assert_eq!(running.stop().await, Some(0), "{}", service.log());
        }
        ends.set(true);
        service.start(vec![copy(&socket)], "web")
    };
    let (last, _) = tokio::join!(restarts, callers);
    assert_eq!(last.stop().await, Some(0));
}

#[tokio::test]
async fn the_service_manager_is_told_when_it_is_ready_how_it_goes_that_it_lives_and_that_it_stops() {
    let upstream = Recorder::start().await;
    let service = Service::new(&config("listen = \"systemd:web\"", upstream.addr));
    let service = service.with("WATCHDOG_USEC", "200000");
    let (socket, address) = tcp("127.0.0.1:0");
    let running = service.start(vec![socket], "web");
    assert_eq!(service.told_until("READY=1").await, [""; 0], "nothing comes before it");
    assert_eq!(get(address, "/", &[]).await.status, 200);
    service.told_until("STATUS=ready").await;
    let start = Instant::now();
    for _ in 0..5 {
        service.told_until("WATCHDOG=1").await;
    }
    // Five halves of 200 ms; a machine that is busy may take longer.
    assert!(start.elapsed() >= Duration::from_millis(350), "{:?}", start.elapsed());
    assert_eq!(running.stop().await, Some(0), "{}", service.log());
    service.told_until("STOPPING=1").await;
}

#[tokio::test]
async fn all_sockets_of_one_name_are_listened_on_and_a_route_may_have_one_for_itself() {
    let upstream = Recorder::start().await;
    let up = upstream.addr;
    let text = format!(
        "[server]\nlisten = \"systemd:web\"\n[route.shared]\npath = \"/\"\ncredential = false\nupstream = \"http://{up}/shared\"\n\
         [route.own]\nlisten = \"systemd:own\"\ncredential = false\nupstream = \"http://{up}/own\"\n"
    );
    let service = Service::new(&text);
    let (sockets, addresses): (Vec<_>, Vec<_>) = (0..3).map(|_| tcp("127.0.0.1:0")).unzip();
    let running = service.start(sockets, "web:own:web");
    service.told_until("READY=1").await;
    for (address, begins) in addresses.iter().zip(["/shared/x", "/own/x", "/shared/x"]) {
        assert_eq!(get(*address, "/x", &[]).await.status, 200);
        assert!(upstream.take().starts_with(&format!("GET {begins} ")), "{address}");
    }
    assert_eq!(running.stop().await, Some(0));
}

#[tokio::test]
async fn a_listener_that_was_handed_over_speaks_tls() {
    let (authority, upstream) = (Authority::new(), Recorder::start().await);
    let identity = authority.issue(&["localhost"]);
    let listen = "listen = { bind = \"systemd:web\", tls = { cert = \"cert.pem\", key = \"key.pem\" } }";
    let service = Service::new(&config(listen, upstream.addr));
    private_file(service.path("cert.pem"), &identity.cert_pem());
    private_file(service.path("key.pem"), &identity.key_pem());
    let (socket, address) = tcp("127.0.0.1:0");
    let running = service.start(vec![socket], "web");
    service.told_until("READY=1").await;
    let roots =
        rustls::ClientConfig::builder().with_root_certificates(authority.roots()).with_no_client_auth();
    let connector = tokio_rustls::TlsConnector::from(std::sync::Arc::new(roots));
    let stream = tokio::net::TcpStream::connect(address).await.expect("connected");
    let name = "localhost".try_into().expect("a name");
    let mut stream = connector.connect(name, stream).await.expect("TLS");
    stream.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await.expect("sent");
    assert_eq!(read_reply(&mut stream).await.status, 200);
    assert!(service.log().contains(&format!("listening on https://{address}\n")), "{}", service.log());
    drop(stream);
    assert_eq!(running.stop().await, Some(0));
}

#[tokio::test]
async fn a_process_on_a_unix_socket_that_was_handed_over_is_known_by_its_user() {
    let upstream = Recorder::start().await;
    let own = rustix::process::geteuid().as_raw();
    for (uid, status) in [(own, 200), (own + 1, 401)] {
        let text =
            format!("{}[caller.me]\nuid = {uid}\n", config("listen = \"systemd:local\"", upstream.addr));
        let service = Service::new(&text);
        let path = service.path("local.sock");
        let running = service.start(vec![unix(&path)], "local");
        service.told_until("READY=1").await;
        let reply = raw_unix(&path, "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
        assert_eq!(reply.status, status);
        assert_eq!(running.stop().await, Some(0));
    }
}

#[tokio::test]
async fn what_callers_cannot_connect_to_is_refused_and_told() {
    let config = config("listen = \"systemd:web\"", ([127, 0, 0, 1], 9).into());
    let service = || Service::new(&config);
    let says = |log: String, words: &[&str]| {
        for word in ["sidekey.toml:2:10: "].iter().chain(words) {
            assert!(log.contains(word), "{word}: {log}");
        }
    };
    let datagrams = UdpSocket::bind("127.0.0.1:0").expect("bind").into();
    says(service().refuses(vec![datagrams], "web").await, &["is no stream socket", "ListenStream="]);
    let (connected, _other) = UnixStream::pair().expect("a pair");
    says(service().refuses(vec![connected.into()], "web").await, &["does not listen", "Accept="]);
    let file = File::open("/dev/null").expect("open").into();
    says(service().refuses(vec![file], "web").await, &["is no stream socket"]);
    says(
        service().refuses(vec![], "").await,
        &["no socket was handed over by the name `web`", "FileDescriptorName=web"],
    );
    let (socket, _) = tcp("127.0.0.1:0");
    says(
        service().refuses(vec![copy(&socket)], "other").await,
        &["there is `other`", "FileDescriptorName=web"],
    );
    let foreign = service().with("LISTEN_PID", "1");
    says(
        foreign.refuses(vec![copy(&socket)], "web").await,
        &["for process 1, and this one is", "ExecStart="],
    );
    let many = service().with("LISTEN_FDS", "9");
    says(many.refuses(vec![copy(&socket)], "web").await, &["LISTEN_FDS=9 cannot be true"]);
    let garbage = service().with("LISTEN_FDS", "x");
    says(garbage.refuses(vec![copy(&socket)], "web").await, &["LISTEN_FDS=x cannot be true"]);
    let nameless = service().with("LISTEN_FDNAMES", "web:web");
    says(nameless.refuses(vec![copy(&socket)], "").await, &["invalid LISTEN_FDNAMES"]);
}

#[tokio::test]
async fn a_socket_beyond_loopback_needs_callers_like_a_written_address() {
    let upstream = Recorder::start().await;
    let ((socket, address), plain) = (tcp("0.0.0.0:0"), config("listen = \"systemd:web\"", upstream.addr));
    let log = Service::new(&plain).refuses(vec![copy(&socket)], "web").await;
    for word in [
        format!("anyone who reaches {address} could use the credentials"),
        format!("write ListenStream=127.0.0.1:{} in its socket unit", address.port()),
        "{ bind = \"systemd:web\", allow_unauthenticated_remote = true }".to_owned(),
    ] {
        assert!(log.contains(&word), "{word}: {log}");
    }
    let callers = format!("{plain}[caller.a]\ntoken = {{ value = \"0123456789abcdef\" }}\n");
    let service = Service::new(&callers);
    let running = service.start(vec![copy(&socket)], "web");
    service.told_until("READY=1").await;
    assert!(service.log().contains("callers' tokens pass in clear text"), "{}", service.log());
    let near = SocketAddr::from(([127, 0, 0, 1], address.port()));
    assert_eq!(get(near, "/", &[]).await.status, 401);
    assert_eq!(get(near, "/", &[("Sidekey-Token", "0123456789abcdef")]).await.status, 200);
    assert_eq!(running.stop().await, Some(0));
}

/// What a command says that is no run, and that it ends well.
async fn said(service: &Service, arguments: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sidekey"));
    command.args(arguments).current_dir(service.folder.path()).env_clear().env("PATH", "/usr/bin:/bin");
    let output = patiently("a command", command.stdin(Stdio::null()).output()).await.expect("it runs");
    let text = String::from_utf8([output.stdout, output.stderr].concat()).expect("text");
    assert_eq!(output.status.code(), Some(0), "{text}");
    text
}

#[tokio::test]
async fn commands_that_are_no_run_say_what_they_cannot_see_and_do_without() {
    let upstream = Recorder::start().await;
    let service = Service::new(&config("listen = \"systemd:web\"", upstream.addr));
    let checked = said(&service, &["check", "-c", "sidekey.toml"]).await;
    assert!(checked.contains("\nsystemd:web: seen only where it is handed over"), "{checked}");
    let explained =
        said(&service, &["explain", "-c", "sidekey.toml", "GET", "http://127.0.0.1:7600/x"]).await;
    assert!(explained.contains(&format!("http://{}/x", upstream.addr)), "{explained}");
    let script = ["exec", "-c", "sidekey.toml", "--", "sh", "-c", "echo \"at $SIDEKEY_URL\""];
    let executed = said(&service, &script).await;
    assert!(executed.contains("at http://127.0.0.1:"), "{executed}");
}

#[tokio::test]
async fn a_socket_that_nothing_uses_is_told_and_taken_by_nobody() {
    let upstream = Recorder::start().await;
    let service = Service::new(&config("listen = \"127.0.0.1:0\"", upstream.addr));
    let (socket, _) = tcp("127.0.0.1:0");
    let running = service.start(vec![socket], "idle");
    service.told_until("READY=1").await;
    let log = service.log();
    assert!(
        log.contains("warning: sidekey.toml: the socket that was handed over as `idle` is not used"),
        "{log}"
    );
    assert_eq!(running.stop().await, Some(0));
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn programs_that_it_starts_get_neither_the_sockets_nor_the_variables_that_tell_of_them() {
    let upstream = Recorder::start().await;
    let text = format!(
        "[server]\nlisten = \"systemd:web\"\n[route.up]\nupstream = \"http://{}\"\n\
         [route.up.credential]\ntype = \"exec\"\ncommand = [\"./helper\"]\n",
        upstream.addr
    );
    let service = Service::new(&text);
    // A file is not a socket, and is nobody's business either.
    let helper = "#!/bin/sh\n{ env; ls -l /proc/$$/fd; } >seen.new\nmv seen.new seen\necho '{\"access_token\":\"t\",\"expires_in\":3600}'\n";
    let path = private_file(service.path("helper"), helper);
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o700)).expect("chmod");
    let file = File::open("/etc/hostname").or_else(|_| File::open("/etc/passwd")).expect("open");
    let running = service.start(vec![tcp("127.0.0.1:0").0, file.into()], "web:file");
    eventually("the helper", async || service.path("seen").exists()).await;
    let seen = std::fs::read_to_string(service.path("seen")).expect("text");
    assert!(seen.contains("PATH=") && seen.contains("pipe:"), "{seen}");
    let sockets = seen.matches("socket:").count();
    assert!(!seen.contains("LISTEN_") && !seen.contains("/etc/") && sockets == 0, "{seen}");
    assert_eq!(running.stop().await, Some(0));
}
