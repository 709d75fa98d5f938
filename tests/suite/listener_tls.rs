//! TLS towards callers: the certificate that they see, the one that they must show, and how both are replaced while
//! connections are open.
#![cfg(feature = "demo")]

use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::support::callers::{BOTH, Files, aged, caller, caller_of, seen, shake, talk};
use crate::support::running::{config, private_file, try_sidekey};
use crate::support::tls::{Authority, Identity};
use rustls::client::{ResolvesClientCert, Resumption};
use rustls::sign::CertifiedKey;
use rustls::{HandshakeKind, SignatureScheme};
use sidekey::app::description::{describe, urls};
use sidekey::app::{App, StartError};
use sidekey::clock::Clock;
use sidekey::config::ListenerTlsSettings;
use sidekey::credential::Vault;
use sidekey::tls::ListenerTls;

/// The protocol that both ends agree on, if any; an error: there is no connection.
type Agreed = Result<Option<&'static str>, ()>;

#[tokio::test]
async fn callers_agree_on_http_2_before_http_1_1_over_tls_1_2_and_1_3() {
    let authority = Authority::new();
    let files = Files::new(&authority.issue(&["localhost"]), &[]);
    let (_, tls) = files.load();
    let cases: [(&[&str], Agreed); 5] = [
        (&["h2", "http/1.1"], Ok(Some("h2"))),
        (&["http/1.1", "h2"], Ok(Some("h2"))),
        (&["http/1.1"], Ok(Some("http/1.1"))),
        (&[], Ok(None)),
        (&["http/1.0"], Err(())),
    ];
    for version in BOTH {
        for (offered, want) in cases {
            let mut caller = caller_of(&authority, None, &[version]);
            caller.alpn_protocols = offered.iter().map(|name| name.as_bytes().to_vec()).collect();
            let got = shake(&tls, &Arc::new(caller)).await;
            let listener = got.as_ref().map(|(_, server)| server.get_ref().1).map_err(|_| ());
            let agreed = listener.map(|listener| listener.alpn_protocol());
            assert_eq!(agreed, want.map(|name| name.map(str::as_bytes)), "{version:?} {offered:?}");
            let spoken = listener.map(|listener| listener.protocol_version());
            assert!(spoken.is_err() || spoken == Ok(Some(version.version)), "{spoken:?}");
        }
    }
}

#[tokio::test]
async fn only_callers_with_a_certificate_of_the_named_roots_get_in() {
    let (ours, theirs, more, other) =
        (Authority::new(), Authority::new(), Authority::new(), Authority::new());
    // The authority of the listener's own certificate is none of its callers'.
    let files = Files::new(&ours.issue(&["localhost"]), &[&theirs, &more]);
    let (_, tls) = files.load();
    let cases = [
        ("none", None, false),
        ("another root's", Some(&other), false),
        ("the listener's own root's", Some(&ours), false),
        ("the first root's", Some(&theirs), true),
        ("the second root's", Some(&more), true),
    ];
    for version in BOTH {
        for (what, issuer, gets_in) in cases {
            let identity = issuer.map(|issuer| issuer.issue(&["caller.example"]));
            let caller = Arc::new(caller_of(&ours, identity.as_ref(), &[version]));
            let got = shake(&tls, &caller).await;
            assert_eq!(got.is_ok(), gets_in, "{what}, {version:?}: {:?}", got.err());
            if let Ok((_, server)) = &got {
                let shown = server.get_ref().1.peer_certificates().unwrap();
                assert_eq!(shown, identity.unwrap().chain());
            }
        }
    }
}

/// Notes whose certificates it is asked for, and has none.
#[derive(Debug, Default)]
struct Asked(Mutex<Vec<Vec<u8>>>);

impl ResolvesClientCert for Asked {
    fn resolve(&self, roots: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        *self.0.lock().expect("no panic") = roots.iter().map(|root| root.to_vec()).collect();
        None
    }

    fn has_certs(&self) -> bool {
        true
    }
}

#[tokio::test]
async fn the_systems_roots_are_not_trusted_for_callers() {
    let authority = Authority::new();
    let files = Files::new(&authority.issue(&["localhost"]), &[&authority]);
    let (_, tls) = files.load();
    let asked = Arc::new(Asked::default());
    let mut caller = caller(&authority, None);
    caller.client_auth_cert_resolver = Arc::clone(&asked) as _;
    assert!(shake(&tls, &Arc::new(caller)).await.is_err());
    assert_eq!(asked.0.lock().unwrap().len(), 1, "the only root is the one that is named");
}

#[tokio::test]
async fn sessions_are_taken_up_again_unless_callers_must_show_a_certificate() {
    let authority = Authority::new();
    let (identity, shown) = (authority.issue(&["localhost"]), authority.issue(&["caller.example"]));
    for version in BOTH {
        for (ca, again) in [(vec![], HandshakeKind::Resumed), (vec![&authority], HandshakeKind::Full)] {
            let files = Files::new(&identity, &ca);
            let (mut watch, tls) = files.load();
            let mut caller = caller_of(&authority, Some(&shown), &[version]);
            caller.resumption = Resumption::in_memory_sessions(8);
            let caller = Arc::new(caller);
            let mut kinds = Vec::new();
            for round in 0..3 {
                if round == 2 {
                    // The same certificate in a new file: what was granted before counts no more.
                    std::fs::remove_file(&files.settings.cert).unwrap();
                    files.write(&identity);
                    assert!(matches!(watch.look().as_slice(), [change] if change.outcome.is_ok()));
                }
                let mut ends = shake(&tls, &caller).await.unwrap();
                // Tickets of TLS 1.3 come after the handshake.
                talk(&mut ends, b"hello").await;
                kinds.push(ends.1.get_ref().1.handshake_kind().unwrap());
            }
            assert_eq!(kinds, [HandshakeKind::Full, again, HandshakeKind::Full], "{version:?} {}", ca.len());
        }
    }
}

#[tokio::test]
async fn an_open_connection_goes_on_while_new_ones_get_the_new_certificate() {
    let authority = Authority::new();
    let (old, new) = (authority.issue(&["localhost"]), authority.issue(&["localhost"]));
    let files = Files::new(&old, &[]);
    let (mut watch, tls) = files.load();
    let mut open = shake(&tls, &Arc::new(caller(&authority, None))).await.unwrap();
    talk(&mut open, b"before").await;
    assert!(watch.look().is_empty(), "nothing has changed");
    assert_eq!(seen(&tls, &authority).await, old.chain()[0]);

    files.write(&new);
    assert!(matches!(watch.look().as_slice(), [change] if change.outcome.is_ok()));
    assert_eq!(seen(&tls, &authority).await, new.chain()[0]);
    talk(&mut open, b"after").await;
    assert_eq!(open.0.get_ref().1.peer_certificates().unwrap(), old.chain());
    assert!(watch.look().is_empty(), "told once");
}

#[tokio::test]
async fn files_that_cannot_be_used_leave_the_old_certificate_and_are_told_once() {
    let authority = Authority::new();
    let (old, new) = (authority.issue(&["localhost"]), authority.issue(&["localhost"]));
    let files = Files::new(&old, &[]);
    let (mut watch, tls) = files.load();
    let (cert, key) = (&files.settings.cert, &files.settings.key);
    let cut = &new.cert_pem()[..200];
    let steps: [(&str, &dyn Fn(), &str); 5] = [
        (
            "the new certificate with the old key",
            &|| std::fs::write(cert, new.cert_pem()).unwrap(),
            "together",
        ),
        ("half of a certificate", &|| std::fs::write(cert, cut).unwrap(), "tls.crt"),
        ("an empty one", &|| std::fs::write(cert, "").unwrap(), "no certificate"),
        ("none at all", &|| std::fs::remove_file(cert).unwrap(), "No such file"),
        (
            "a folder for a key",
            &|| {
                std::fs::remove_file(key).unwrap();
                std::fs::create_dir(key).unwrap();
                std::fs::write(cert, new.cert_pem()).unwrap();
            },
            "tls.key",
        ),
    ];
    for (what, step, told) in steps {
        step();
        let changes = watch.look();
        let [change] = changes.as_slice() else { panic!("{what}: {changes:?}") };
        assert_eq!(&change.cert, cert);
        let error = sidekey::telemetry::chain(change.outcome.as_ref().unwrap_err());
        assert!(error.contains(told), "{what}: {error}");
        for _ in 0..3 {
            assert!(watch.look().is_empty(), "{what} is told once");
        }
        assert_eq!(seen(&tls, &authority).await, old.chain()[0], "{what}");
    }
    std::fs::remove_dir(key).unwrap();
    private_file(key.clone(), &new.key_pem());
    assert!(matches!(watch.look().as_slice(), [change] if change.outcome.is_ok()));
    assert_eq!(seen(&tls, &authority).await, new.chain()[0]);
}

/// Replaces a pair of files in the way that the case is about.
type Replace = fn(&Files, &Identity);

#[tokio::test]
async fn every_way_to_replace_the_files_is_noticed() {
    fn place(folder: &Path, name: &str, identity: &Identity) {
        let folder = folder.join(name);
        std::fs::create_dir(&folder).unwrap();
        std::fs::write(folder.join("tls.crt"), identity.cert_pem()).unwrap();
        private_file(folder.join("tls.key"), &identity.key_pem());
    }
    let ways: [(&str, Replace); 3] = [
        ("in place", |files, new| files.write(new)),
        ("renamed over", |files, new| {
            for (path, text) in [(&files.settings.cert, new.cert_pem()), (&files.settings.key, new.key_pem())]
            {
                let fresh = private_file(path.with_extension("fresh"), &text);
                std::fs::rename(fresh, path).unwrap();
            }
        }),
        ("a symlink two folders up, as Kubernetes does", |files, new| {
            place(files.folder.path(), "..2", new);
            symlink("..2", files.folder.path().join("..data_tmp")).unwrap();
            std::fs::rename(files.folder.path().join("..data_tmp"), files.folder.path().join("..data"))
                .unwrap();
        }),
    ];
    let authority = Authority::new();
    for (way, replace) in ways {
        let (old, new) = (authority.issue(&["localhost"]), authority.issue(&["localhost"]));
        let files = Files::new(&old, &[]);
        if way.starts_with("a symlink") {
            place(files.folder.path(), "..1", &old);
            symlink("..1", files.folder.path().join("..data")).unwrap();
            for name in ["tls.crt", "tls.key"] {
                std::fs::remove_file(files.folder.path().join(name)).unwrap();
                symlink(Path::new("..data").join(name), files.folder.path().join(name)).unwrap();
            }
        }
        let (mut watch, tls) = files.load();
        assert!(watch.look().is_empty(), "{way}");
        replace(&files, &new);
        assert!(matches!(watch.look().as_slice(), [change] if change.outcome.is_ok()), "{way}");
        assert_eq!(seen(&tls, &authority).await, new.chain()[0], "{way}");
    }
}

#[tokio::test]
async fn new_roots_of_callers_count_from_the_next_connection_on() {
    let (authority, next) = (Authority::new(), Authority::new());
    let mut files = Files::new(&authority.issue(&["localhost"]), &[]);
    let ca = files.folder.path().join("callers.pem");
    std::fs::copy(&authority.ca, &ca).unwrap();
    aged(&ca);
    files.settings.client_ca = vec![ca.clone()];
    let (mut watch, tls) = files.load();
    let (old, new) = (authority.issue(&["old.example"]), next.issue(&["new.example"]));
    let (old, new) = (Arc::new(caller(&authority, Some(&old))), Arc::new(caller(&authority, Some(&new))));
    assert!(shake(&tls, &old).await.is_ok());
    assert!(shake(&tls, &new).await.is_err());
    std::fs::copy(&next.ca, &ca).unwrap();
    assert!(matches!(watch.look().as_slice(), [change] if change.outcome.is_ok()));
    assert!(shake(&tls, &old).await.is_err());
    assert!(shake(&tls, &new).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn the_watch_looks_by_itself_every_second() {
    let authority = Authority::new();
    let (old, new) = (authority.issue(&["localhost"]), authority.issue(&["localhost"]));
    let files = Files::new(&old, &[]);
    let (watch, tls) = files.load();
    let watching = tokio::spawn(watch.run());
    tokio::time::sleep(Duration::from_millis(2500)).await;
    assert_eq!(seen(&tls, &authority).await, old.chain()[0]);
    files.write(&new);
    tokio::time::sleep(Duration::from_millis(1000)).await;
    assert_eq!(seen(&tls, &authority).await, new.chain()[0]);
    watching.abort();
}

#[test]
fn listeners_with_the_same_files_have_one_certificate_in_common() {
    let authority = Authority::new();
    let files = Files::new(&authority.issue(&["localhost"]), &[]);
    let (mut watch, tls) = files.load();
    assert!(Arc::ptr_eq(&tls, &watch.load(&files.settings).unwrap()));
    let others = ListenerTlsSettings { client_ca: vec![authority.ca.clone()], ..files.settings.clone() };
    assert!(!Arc::ptr_eq(&tls, &watch.load(&others).unwrap()));
}

#[test]
fn files_that_cannot_be_used_are_named_and_nothing_of_them_is_shown() {
    const CANARY: &str = "Q0FOQVJZ";
    let authority = Authority::new();
    let (identity, other) = (authority.issue(&["localhost"]), authority.issue(&["localhost"]));
    let block = |label: &str| format!("-----BEGIN {label}-----\n{CANARY}\n-----END {label}-----\n");
    let cases = [
        ("tls.crt", String::new(), "it holds no certificate"),
        ("tls.crt", identity.key_pem(), "it holds no certificate"),
        ("tls.crt", CANARY.to_owned(), "it holds no certificate"),
        ("tls.crt", block("CERTIFICATE"), "cannot be used together"),
        ("tls.crt", block("CERTIFICATE").replace('Q', "*"), "malformed"),
        ("tls.crt", "x".repeat(2 << 20), "larger than 1 MiB"),
        ("tls.key", String::new(), "it holds no private key"),
        ("tls.key", identity.cert_pem(), "it holds no private key"),
        ("tls.key", block("ENCRYPTED PRIVATE KEY"), "passphrase"),
        ("tls.key", block("PRIVATE KEY"), "cannot be used together"),
        ("tls.key", block("PRIVATE KEY").replace('Q', "*"), "malformed"),
        ("tls.key", other.key_pem(), "cannot be used together"),
        ("ca.pem", block("CERTIFICATE"), "cannot be a trusted root"),
        ("ca.pem", String::new(), "it holds no certificate"),
    ];
    for (name, text, want) in cases {
        let mut files = Files::new(&identity, &[]);
        files.settings.client_ca = vec![files.folder.path().join("ca.pem")];
        std::fs::copy(&authority.ca, &files.settings.client_ca[0]).unwrap();
        assert!(ListenerTls::load(&files.settings).is_ok());
        std::fs::write(files.folder.path().join(name), text).unwrap();
        let told = files.refusal();
        assert!(told.contains(want) && told.contains(name) && !told.contains(CANARY), "{name}: {told}");
    }
    // A pipe that nobody writes to.
    let files = Files::new(&identity, &[]);
    std::fs::remove_file(&files.settings.key).unwrap();
    rustix::fs::mkfifoat(rustix::fs::CWD, &files.settings.key, rustix::fs::Mode::RUSR).unwrap();
    assert!(files.refusal().contains("pipe"));
    let (_, tls) = Files::new(&identity, &[]).load();
    assert_eq!(format!("{tls:?}"), "ListenerTls");
}

/// A configuration with one clear listener and one with TLS, which a route has for itself.
fn two_listeners(cert: &Path, key: &Path, more: &str) -> String {
    format!(
        "[server]\nlisten = [\"127.0.0.1:0\", {{ bind = \"127.0.0.1:0\", tls = {{ cert = \"{}\", key = \"{}\"{more} }} }}]\n\
         [route.a]\npath = \"/a\"\nhost = \"a.localhost\"\ncredential = false\nupstream = \"http://127.0.0.1:9\"\n",
        cert.display(),
        key.display()
    )
}

#[tokio::test]
async fn urls_of_a_listener_with_tls_begin_with_https() {
    let authority = Authority::new();
    let (cert, key) = authority.client_files();
    let config = config(&two_listeners(&cert, &key, ""));
    let clock = Clock::system();
    let app = App::start(&config, &clock, Vault::in_memory(&clock)).unwrap();
    let ports: Vec<u16> = app.addresses().iter().map(|at| at.socket.unwrap().port()).collect();
    assert_eq!(app.addresses()[1].text, format!("https://127.0.0.1:{}", ports[1]));
    let want = [
        format!("http://127.0.0.1:{}/a", ports[0]),
        format!("https://127.0.0.1:{}/a", ports[1]),
        format!("http://a.localhost:{}", ports[0]),
        format!("https://a.localhost:{}", ports[1]),
    ];
    assert_eq!(urls(&config, &config.routes[0], app.addresses()), want);
    let told = describe(&config, app.addresses());
    assert_eq!(told["listeners"][0], format!("127.0.0.1:{}", ports[0]));
    assert_eq!(told["listeners"][1], app.addresses()[1].text);
    let schemes: Vec<_> = config.server.listeners.iter().map(sidekey::config::Listener::scheme).collect();
    assert_eq!(schemes, ["http", "https"]);
    app.stop().await;
}

#[tokio::test]
async fn a_certificate_that_cannot_be_used_is_found_before_anything_listens() {
    let (authority, other) = (Authority::new(), Authority::new());
    let ((cert, _), (_, key)) = (authority.client_files(), other.client_files());
    let refused = try_sidekey(&two_listeners(&cert, &key, "")).err().expect("they do not go together");
    assert!(matches!(refused, StartError::Tls(_)), "{refused:?}");
    let (cert, key) = authority.client_files();
    let no_root = private_file(authority.folder().join("no.pem"), "hello");
    let ca = format!(", ca = [\"{}\"]", no_root.display());
    assert!(matches!(try_sidekey(&two_listeners(&cert, &key, &ca)), Err(StartError::Tls(_))));
    assert!(try_sidekey(&two_listeners(&cert, &key, "")).is_ok());
}
