//! What a configuration needs of the machine: files, programs and ports. Pure but for following links.

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};

use crate::config::{
    Admin, AuthorizationCode, AuthorizationServer, Bind, Config, CredentialKind, Egress, Endpoint,
    Environment, Server, Source, StoreKind, TlsSettings, Upstream,
};
use crate::secret::{CommandLine, SecretSource};

/// Name look-ups by TCP, where an answer is too long for a datagram.
const DNS: u16 = 53;
const HTTP: u16 = 80;
const HTTPS: u16 = 443;

/// What every process of ours reads besides what its configuration names. `/etc` as a whole: `resolv.conf` and `hosts`
/// are replaced by new files while the process runs. `/usr` and `/lib`: the C library loads parts of name look-up when
/// they are needed. The rest are roots, other places of `resolv.conf`, and what a store's lock tells machines apart by.
const SYSTEM: [&str; 10] = [
    "/etc",
    "/usr",
    "/lib",
    "/lib64",
    "/nix/store",
    "/gnu/store",
    "/var/lib/ca-certificates",
    "/run/systemd/resolve",
    "/run/resolvconf",
    "/proc/sys/kernel/random",
];
/// What programs are found in and load, where a configuration runs any.
const PROGRAMS: [&str; 9] =
    ["/bin", "/sbin", "/usr", "/lib", "/lib64", "/opt", "/nix/store", "/gnu/store", "/run/current-system"];

/// Is it one of those that are open on every system that has them?
pub(super) fn is_usual(path: &Path) -> bool {
    SYSTEM.iter().chain(&PROGRAMS).any(|usual| Path::new(usual) == path)
}

/// What stands around a configuration and is not in it.
#[derive(Debug, Clone, Default)]
pub struct Surroundings {
    /// The file that it came from; none: it came from elsewhere.
    pub config_file: Option<PathBuf>,
    /// The folder of the runtime file with the admin token.
    pub runtime: PathBuf,
    /// The file of roots that the environment names (`SSL_CERT_FILE`).
    pub roots_file: Option<PathBuf>,
    /// Folders of roots that the environment names (`SSL_CERT_DIR`).
    pub roots_folders: Vec<PathBuf>,
    /// Where programs are looked for (`PATH`).
    pub path: Vec<PathBuf>,
    /// Is the service manager told by an abstract Unix socket (`NOTIFY_SOCKET=@…`)?
    pub tells_abstractly: bool,
}

/// What a configuration needs, as it names it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Needs {
    /// Files that are read, and read again when another one takes their name: their folders have to be open as well.
    pub files: BTreeSet<PathBuf>,
    /// Folders that are read.
    pub folders: BTreeSet<PathBuf>,
    /// Folders in which files are made, read and removed.
    pub writes: BTreeSet<PathBuf>,
    /// Folders in which sockets are made and removed.
    pub sockets: BTreeSet<PathBuf>,
    /// Programs that are run.
    pub programs: BTreeSet<PathBuf>,
    /// TCP ports that are connected to.
    pub connect: BTreeSet<u16>,
    /// TCP ports that are listened on; 0: one that the system chooses.
    pub bind: BTreeSet<u16>,
    /// Are abstract Unix sockets of others connected to?
    pub abstract_sockets: bool,
    /// Are processes signalled that were started before the sandbox?
    pub signals: bool,
}

/// What a process may use: folders with everything below them, links followed, and TCP ports.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reach {
    /// Folders that are read.
    pub read: BTreeSet<PathBuf>,
    /// Folders in which files are made, read and removed.
    pub write: BTreeSet<PathBuf>,
    /// Folders in which sockets are made and removed.
    pub sockets: BTreeSet<PathBuf>,
    /// Folders that are read and whose programs are run.
    pub run: BTreeSet<PathBuf>,
    /// TCP ports that are connected to.
    pub connect: BTreeSet<u16>,
    /// TCP ports that are listened on.
    pub bind: BTreeSet<u16>,
    /// Abstract Unix sockets of others.
    pub abstract_sockets: bool,
    /// Signals to processes outside.
    pub signals: bool,
}

/// What a configuration needs and a process may not use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Missing {
    /// Reading what is in a folder.
    Read(PathBuf),
    /// Making files in a folder.
    Write(PathBuf),
    /// Making a socket in a folder.
    Socket(PathBuf),
    /// Running a program in a folder.
    Run(PathBuf),
    /// Connecting to a TCP port.
    Connect(u16),
    /// Listening on a TCP port.
    Bind(u16),
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the sandbox, which cannot be widened, does not allow ")?;
        match self {
            Self::Read(folder) => write!(f, "reading in {}", folder.display()),
            Self::Write(folder) => write!(f, "writing in {}", folder.display()),
            Self::Socket(folder) => write!(f, "making a socket in {}", folder.display()),
            Self::Run(folder) => write!(f, "running programs of {}", folder.display()),
            Self::Connect(port) => write!(f, "connecting to TCP port {port}"),
            Self::Bind(port) => write!(f, "listening on TCP port {port}"),
        }?;
        f.write_str("; restart sidekey")
    }
}

impl Surroundings {
    /// Those of a configuration of this process.
    pub fn of(source: &Source, environment: &Environment, runtime: PathBuf) -> Self {
        let list = |name| {
            let paths = environment.path(name);
            paths.map(|paths| std::env::split_paths(&paths).collect::<Vec<_>>()).unwrap_or_default()
        };
        Self {
            config_file: match source {
                Source::File(path) => Some(path.clone()),
                Source::Text { .. } | Source::Environment => None,
            },
            runtime,
            roots_file: environment.path("SSL_CERT_FILE"),
            roots_folders: list("SSL_CERT_DIR"),
            path: list("PATH"),
            tells_abstractly: environment
                .path("NOTIFY_SOCKET")
                .is_some_and(|socket| socket.as_os_str().as_encoded_bytes().starts_with(b"@")),
        }
    }
}

impl Needs {
    /// What the configuration needs. What is added to it must be looked at here: hence the exhaustive patterns.
    pub fn of(config: &Config, surroundings: &Surroundings) -> Self {
        let Config {
            origin: _,
            server,
            routes,
            credentials,
            callers,
            store,
            secret_variables: _,
            text_files,
        } = config;
        let mut needs = Self::default();
        needs.folders.extend(SYSTEM.iter().map(PathBuf::from));
        needs.files.extend(surroundings.config_file.iter().chain(text_files).cloned());
        needs.files.extend(surroundings.roots_file.iter().cloned());
        needs.folders.extend(surroundings.roots_folders.iter().cloned());
        needs.connect.insert(DNS);
        needs.abstract_sockets = surroundings.tells_abstractly;
        needs.server(server, surroundings);
        for route in routes {
            needs.origin(&route.upstream, surroundings);
            needs.tls(&route.tls);
        }
        for credential in credentials {
            needs.credential(&credential.kind, surroundings);
        }
        let tokens = callers.iter().flat_map(|caller| &caller.tokens);
        tokens.for_each(|token| needs.secret(token, surroundings));
        store.encryption_keys.iter().for_each(|key| needs.secret(key, surroundings));
        match &store.kind {
            StoreKind::Memory => {}
            StoreKind::File { path } => _ = needs.writes.insert(path.clone()),
            StoreKind::Redis(redis) => {
                needs.origin(&redis.server, surroundings);
                needs.tls(&redis.tls);
                redis.password.iter().for_each(|password| needs.secret(password, surroundings));
            }
        }
        needs
    }

    fn server(&mut self, server: &Server, surroundings: &Surroundings) {
        let Admin { listen, token, open_quit: _, health } = &server.admin;
        for listener in &server.listeners {
            match &listener.bind {
                Bind::Tcp(address) => _ = self.bind.insert(address.port()),
                Bind::Unix { path, .. } => _ = self.sockets.insert(folder_of(path)),
                // It is bound, and its file is not ours to remove.
                Bind::Systemd { .. } => {}
            }
            if let Some(tls) = &listener.tls {
                self.files.extend([&tls.cert, &tls.key].into_iter().chain(&tls.client_ca).cloned());
            }
        }
        self.bind.extend([listen, health].into_iter().flatten().map(std::net::SocketAddr::port));
        match token {
            Some(token) => self.secret(token, surroundings),
            None if listen.is_some() => _ = self.writes.insert(surroundings.runtime.clone()),
            None => {}
        }
    }

    fn credential(&mut self, kind: &CredentialKind, surroundings: &Surroundings) {
        match kind {
            CredentialKind::Basic { username: _, password: secret }
            | CredentialKind::Bearer { token: secret }
            | CredentialKind::Header { name: _, value: secret } => self.secret(secret, surroundings),
            CredentialKind::ClientCredentials(grant) => {
                self.endpoint(&grant.token_url, surroundings);
                self.tls(&grant.tls);
                grant.clients.iter().for_each(|client| self.client(client, surroundings));
            }
            CredentialKind::AuthorizationCode(login) => self.login(login, surroundings),
            CredentialKind::Exec { command, timeout: _ } => self.command(command, surroundings),
        }
    }

    fn login(&mut self, login: &AuthorizationCode, surroundings: &Surroundings) {
        self.client(&login.client, surroundings);
        self.tls(&login.tls);
        self.bind.insert(login.redirect_uri.port);
        match &login.server {
            AuthorizationServer::Known { token_url, revoke_url, .. } => {
                [Some(token_url), revoke_url.as_ref()]
                    .into_iter()
                    .flatten()
                    .for_each(|endpoint| self.endpoint(endpoint, surroundings));
            }
            // What it will name is known later: most likely it is where the issuer is, or at the scheme's own port.
            AuthorizationServer::Discovered { issuer } => {
                self.connect.insert(HTTPS);
                if login.allow_cleartext {
                    self.connect.insert(HTTP);
                }
                self.connect.extend(url::Url::parse(issuer).ok().and_then(|url| url.port_or_known_default()));
                let Egress { https, http, except: _ } = &login.egress;
                for proxy in [https, http].into_iter().flatten() {
                    self.connect.insert(proxy.port);
                    proxy.login.iter().for_each(|login| self.secret(&login.password, surroundings));
                }
            }
        }
    }

    fn client(&mut self, client: &crate::config::ApiClient, surroundings: &Surroundings) {
        client.client_secret.iter().for_each(|secret| self.secret(secret, surroundings));
        client.signing_key.iter().for_each(|key| self.secret(&key.key, surroundings));
    }

    fn endpoint(&mut self, endpoint: &Endpoint, surroundings: &Surroundings) {
        self.origin(&endpoint.origin, surroundings);
    }

    fn origin(&mut self, origin: &Upstream, surroundings: &Surroundings) {
        match &origin.via {
            None => _ = self.connect.insert(origin.port),
            Some(proxy) => {
                self.connect.insert(proxy.port);
                proxy.login.iter().for_each(|login| self.secret(&login.password, surroundings));
            }
        }
    }

    fn tls(&mut self, tls: &TlsSettings) {
        self.files.extend(tls.files().map(Path::to_owned));
    }

    fn secret(&mut self, source: &SecretSource, surroundings: &Surroundings) {
        match source {
            SecretSource::File(path) => _ = self.files.insert(path.clone()),
            SecretSource::Exec(command) => self.command(command, surroundings),
            SecretSource::Env(_) | SecretSource::Value(_) => {}
        }
    }

    /// A program is found as the system would find it.
    fn command(&mut self, command: &CommandLine, surroundings: &Surroundings) {
        let program = Path::new(command.program());
        if program.components().count() > 1 {
            self.programs.insert(program.to_owned());
        } else {
            let places = surroundings.path.iter().map(|folder| folder.join(program));
            self.programs.extend(places.filter(|place| place.is_file()));
            // Without any, the usual places are open all the same, and the failure to start it is told.
            self.programs.insert(PathBuf::from("/usr/bin").join(program));
        }
    }

    /// What a process may use that has just this: links are followed, and what is below another folder is left out.
    pub fn reach(&self) -> Reach {
        let mut run: BTreeSet<PathBuf> = self.programs.iter().flat_map(|file| places_of(file)).collect();
        if !run.is_empty() {
            run.extend(PROGRAMS.iter().map(|folder| resolved(Path::new(folder))));
        }
        let read = self.files.iter().flat_map(|file| places_of(file));
        let read: BTreeSet<PathBuf> =
            read.chain(self.folders.iter().map(|folder| resolved(folder))).collect();
        let folders = |folders: &BTreeSet<PathBuf>| folders.iter().map(|folder| resolved(folder)).collect();
        Reach {
            read: outermost(read),
            write: outermost(folders(&self.writes)),
            sockets: outermost(folders(&self.sockets)),
            run: outermost(run),
            connect: self.connect.clone(),
            bind: self.bind.clone(),
            abstract_sockets: self.abstract_sockets,
            signals: self.signals,
        }
    }
}

impl Reach {
    /// What the other one may use and this one may not.
    pub fn lacks(&self, other: &Self) -> Vec<Missing> {
        // Whoever may run or write there may read there.
        let readable = |folder: &Path| {
            [&self.read, &self.run, &self.write].into_iter().any(|folders| is_within(folder, folders))
        };
        let outside = |wanted: &BTreeSet<PathBuf>, open: &dyn Fn(&Path) -> bool| -> Vec<PathBuf> {
            wanted.iter().filter(|folder| !open(folder)).cloned().collect()
        };
        let ports = |wanted: &BTreeSet<u16>, open: &BTreeSet<u16>| -> Vec<u16> {
            wanted.difference(open).copied().collect()
        };
        let mut missing: Vec<Missing> =
            outside(&other.read, &readable).into_iter().map(Missing::Read).collect();
        let writes = outside(&other.write, &|folder| is_within(folder, &self.write));
        missing.extend(writes.into_iter().map(Missing::Write));
        let sockets = outside(&other.sockets, &|folder| is_within(folder, &self.sockets));
        missing.extend(sockets.into_iter().map(Missing::Socket));
        let runs = outside(&other.run, &|folder| is_within(folder, &self.run));
        missing.extend(runs.into_iter().map(Missing::Run));
        missing.extend(ports(&other.connect, &self.connect).into_iter().map(Missing::Connect));
        missing.extend(ports(&other.bind, &self.bind).into_iter().map(Missing::Bind));
        missing
    }
}

fn is_within(folder: &Path, open: &BTreeSet<PathBuf>) -> bool {
    folder.ancestors().any(|above| open.contains(above))
}

/// The folder that the name is in, and the one that the file itself is in: links lead out of folders.
fn places_of(file: &Path) -> [PathBuf; 2] {
    [resolved(&folder_of(file)), folder_of(&resolved(file))]
}

fn folder_of(file: &Path) -> PathBuf {
    let parent = file.parent().unwrap_or(file);
    if parent.as_os_str().is_empty() { PathBuf::from(".") } else { parent.to_owned() }
}

/// Without links. What is not there is left as it is: nothing can be allowed there.
fn resolved(path: &Path) -> PathBuf {
    std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned())
}

fn outermost(folders: BTreeSet<PathBuf>) -> BTreeSet<PathBuf> {
    let is_inner = |folder: &PathBuf| folder.ancestors().skip(1).any(|above| folders.contains(above));
    folders.iter().filter(|folder| !is_inner(folder)).cloned().collect()
}

#[cfg(test)]
mod tests;
