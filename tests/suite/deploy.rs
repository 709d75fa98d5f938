//! What stands in `deploy`, and the `Dockerfile`, work with this version. tests/real/run has kustomize, systemd and
//! buildah judge them as well.

use std::path::{Path, PathBuf};

use sidekey::config::{Bind, Config, Environment, Handed, HandedKind, Handover, LoadOptions, Source, load};
use sidekey::secret::SecretSource;

const SIDECAR: &str = "deploy/kubernetes/sidecar/sidecar.yaml";
const HEALTH: u16 = 7602;

fn path(name: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), name].iter().collect()
}

fn text(name: &str) -> String {
    std::fs::read_to_string(path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// Every file below `deploy`, relative to the repository.
fn deployed() -> Vec<String> {
    fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                walk(&path, found);
            } else {
                found.push(path);
            }
        }
    }
    let mut found = Vec::new();
    walk(&path("deploy"), &mut found);
    let root = path("");
    let relative = |path: PathBuf| path.strip_prefix(&root).expect("below it").display().to_string();
    found.into_iter().map(relative).collect()
}

fn named(ending: &str) -> Vec<String> {
    deployed().into_iter().filter(|name| name.ends_with(ending)).collect()
}

fn config(name: &str) -> Config {
    let environment = Environment::from_pairs::<&str, &str>([]);
    let loaded = load(&Source::File(path(name)), &environment, LoadOptions { check_secrets: false })
        .unwrap_or_else(|report| panic!("{report}"));
    assert!(loaded.warnings.is_empty(), "{name}: {:?}", loaded.warnings);
    loaded.config
}

/// The places that a configuration's text names, below one folder.
fn files_below<'a>(configuration: &'a str, folder: &str) -> Vec<&'a str> {
    let lines = configuration.lines().filter(|line| !line.trim_start().starts_with('#'));
    let quoted = lines.flat_map(|line| line.split('"').skip(1).step_by(2));
    quoted.filter_map(|place| place.strip_prefix(folder)).collect()
}

#[test]
fn every_configuration_loads_and_sends_credentials_only() {
    let names = named("sidekey.toml");
    assert_eq!(names.len(), 6, "{names:?}");
    for name in names {
        let config = config(&name);
        assert!(config.routes.iter().all(|route| route.credential.is_some()), "{name}");
        // A value would stand in the file itself, a variable in the manifest.
        for line in text(&name).lines().filter(|line| !line.trim_start().starts_with('#')) {
            assert!(!line.contains("{ value") && !line.contains("{ env"), "{name}: {line}");
        }
    }
}

#[test]
fn every_address_that_others_reach_has_callers_and_tls() {
    let mut remote = 0;
    for name in named("sidekey.toml") {
        let config = config(&name);
        for listener in &config.server.listeners {
            let Bind::Tcp(address) = &listener.bind else { continue };
            if !address.ip().is_loopback() {
                remote += 1;
                assert!(listener.tls.is_some() && !config.callers.is_empty(), "{name}");
                assert!(config.callers.iter().all(|caller| caller.routes.is_some()), "{name}");
            }
        }
    }
    assert_eq!(remote, 1, "the Service");
}

#[test]
fn kubelet_probes_the_port_that_the_configurations_open_for_it() {
    for example in ["app", "job", "replicas", "service"] {
        let health = config(&format!("deploy/kubernetes/{example}/sidekey.toml")).server.admin.health;
        let health = health.expect("a listener for probes");
        assert!(health.ip().is_unspecified() && health.port() == HEALTH, "{example}: {health}");
    }
    for manifest in [SIDECAR, "deploy/kubernetes/service/sidekey.yaml"] {
        let manifest = text(manifest);
        let paths: Vec<&str> =
            manifest.lines().filter_map(|line| line.trim().strip_prefix("httpGet: ")).collect();
        assert_eq!(paths, ["{ path: /livez, port: 7602 }", "{ path: /readyz, port: 7602 }"]);
    }
}

#[test]
fn every_secret_in_kubernetes_is_mounted_for_one_group_and_made_by_the_command_that_is_told() {
    for example in ["app", "job", "replicas", "service"] {
        let folder = format!("deploy/kubernetes/{example}");
        let configuration = text(&format!("{folder}/sidekey.toml"));
        let told = text(&format!("{folder}/kustomization.yaml"));
        let keys = files_below(&configuration, "/run/secrets/sidekey/");
        assert!(keys.len() >= 2, "{example}: {keys:?}");
        for key in keys {
            let made = told.split_whitespace().any(|word| {
                word.strip_prefix("--from-file=").is_some_and(|file| file.split('=').next() == Some(key))
            });
            assert!(made, "{example}: {key}");
        }
    }
    for manifest in [SIDECAR, "deploy/kubernetes/service/sidekey.yaml"] {
        let manifest = text(manifest);
        for line in ["mountPath: /run/secrets/sidekey", "mountPath: /etc/sidekey", "fsGroup: 65532"] {
            assert!(manifest.contains(line), "{line}");
        }
        let secrets = manifest.matches("secretName: ").count();
        assert!(secrets > 0);
        assert_eq!(manifest.matches("defaultMode: 0440").count(), secrets);
    }
}

#[test]
fn every_place_that_the_service_and_the_replicas_name_is_mounted() {
    for (example, manifest, folder) in [
        ("service", "sidekey.yaml", "/etc/sidekey-tls/"),
        ("replicas", "kustomization.yaml", "/etc/redis-ca/"),
    ] {
        let configuration = text(&format!("deploy/kubernetes/{example}/sidekey.toml"));
        assert!(!files_below(&configuration, folder).is_empty(), "{example}");
        let mount = format!("mountPath: {}", folder.trim_end_matches('/'));
        assert!(text(&format!("deploy/kubernetes/{example}/{manifest}")).contains(&mount), "{example}");
    }
}

#[test]
fn the_time_to_stop_is_longer_than_draining_takes() {
    let seconds = |text: &str, key: &str| -> u64 {
        let rest = text.split(key).nth(1).unwrap_or_else(|| panic!("{key}"));
        rest.trim_start().split(|c: char| !c.is_ascii_digit()).next().unwrap().parse().unwrap()
    };
    for (configuration, manifest, key) in [
        ("deploy/kubernetes/app/sidekey.toml", SIDECAR, "terminationGracePeriodSeconds:"),
        ("deploy/kubernetes/job/sidekey.toml", SIDECAR, "terminationGracePeriodSeconds:"),
        ("deploy/kubernetes/replicas/sidekey.toml", SIDECAR, "terminationGracePeriodSeconds:"),
        (
            "deploy/kubernetes/service/sidekey.toml",
            "deploy/kubernetes/service/sidekey.yaml",
            "terminationGracePeriodSeconds:",
        ),
        ("deploy/compose/sidekey.toml", "deploy/compose/compose.yaml", "stop_grace_period:"),
        ("deploy/systemd/sidekey.toml", "deploy/systemd/sidekey.service", "TimeoutStopSec="),
    ] {
        let server = config(configuration).server;
        let needed = (server.drain_delay + server.drain_timeout).as_secs();
        assert!(seconds(&text(manifest), key) > needed, "{configuration}: more than {needed} s");
    }
}

#[test]
fn every_image_has_a_version_and_sidekeys_is_this_one() {
    let ours = format!("sidekey:{}", env!("CARGO_PKG_VERSION"));
    let mut found = 0;
    for name in named(".yaml") {
        for image in text(&name).lines().filter_map(|line| line.trim().strip_prefix("image: ")) {
            let (repository, version) = image.rsplit_once(':').unwrap_or_else(|| panic!("{name}: {image}"));
            assert!(version.starts_with(|c: char| c.is_ascii_digit()), "{name}: {image}");
            if !repository.contains('/') {
                found += 1;
                assert_eq!(image, ours, "{name}");
            }
        }
    }
    assert_eq!(found, 3, "the component, the Service and the Compose file");
}

#[test]
fn systemd_loads_every_secret_that_its_configuration_reads() {
    let unit = text("deploy/systemd/sidekey.service");
    let configuration = text("deploy/systemd/sidekey.toml");
    // That folder has the name of the unit.
    let mut read = files_below(&configuration, "/run/credentials/sidekey.service/");
    let mut loaded: Vec<&str> = unit
        .lines()
        .filter_map(|line| line.strip_prefix("LoadCredential="))
        .map(|line| {
            let (name, file) = line.split_once(':').unwrap();
            assert_eq!(file, format!("/etc/sidekey/credentials/{name}"));
            name
        })
        .collect();
    read.sort_unstable();
    loaded.sort_unstable();
    assert_eq!(read, loaded);
    assert!(unit.contains("-c /etc/sidekey/sidekey.toml"));
    // Other users of the machine reach loopback too.
    let callers = config("deploy/systemd/sidekey.toml").callers;
    assert!(matches!(&callers[0].tokens[..], [SecretSource::File(_)]));
    // Its store and its admin token have a place that it may write to.
    assert!(configuration.contains("\"/var/lib/sidekey\"") && unit.contains("StateDirectory=sidekey\n"));
    assert!(unit.contains("RuntimeDirectory=sidekey\n") && unit.contains("XDG_RUNTIME_DIR=/run/sidekey\n"));
}

/// The words of a unit's lines that begin so.
fn values<'a>(unit: &'a str, key: &str) -> Vec<&'a str> {
    unit.lines().filter_map(|line| line.strip_prefix(key)).collect()
}

#[test]
fn the_socket_unit_hands_over_what_the_configuration_for_it_listens_on() {
    let unit = text("deploy/systemd/sidekey.socket");
    let name = values(&unit, "FileDescriptorName=")[0];
    let addresses = values(&unit, "ListenStream=");
    let written = text("deploy/systemd/sidekey.toml");
    // As the comment in it says.
    let (with_socket, plain) = (format!("# listen = \"systemd:{name}\""), "listen = \"127.0.0.1:7600\"");
    assert!(written.contains(&with_socket) && written.contains(plain), "{written}");
    let written = written.replace(plain, "").replace(&with_socket, &with_socket[2..]);
    let sockets = addresses.iter().enumerate().map(|(number, address)| Handed {
        name: name.to_owned(),
        number,
        kind: HandedKind::Tcp(address.parse().unwrap()),
    });
    let handover = Handover::Seen { sockets: sockets.collect(), fault: None };
    let source = Source::Text { name: "sidekey.toml".into(), text: written };
    let environment = Environment::default().with_handover(handover);
    let loaded = load(&source, &environment, LoadOptions { check_secrets: false }).unwrap();
    assert!(loaded.warnings.is_empty(), "{:?}", loaded.warnings);
    let [listener] = &loaded.config.server.listeners[..] else { panic!("one listener") };
    assert_eq!(listener.bind.tcp(), addresses[0].parse().ok());
    assert_eq!(values(&unit, "RequiredBy="), ["sidekey.service"]);
}

#[test]
fn the_service_is_started_when_it_says_so_and_killed_when_it_is_silent() {
    let unit = text("deploy/systemd/sidekey.service");
    assert_eq!(values(&unit, "Type="), ["notify"]);
    assert_eq!(values(&unit, "WatchdogSec="), ["30s"]);
    // A mistake in the configuration, which no restart mends.
    assert_eq!(values(&unit, "RestartPreventExitStatus="), ["2"]);
}

#[test]
fn compose_has_every_secret_that_its_configuration_reads_and_publishes_no_port() {
    let compose = text("deploy/compose/compose.yaml");
    let configuration = text("deploy/compose/sidekey.toml");
    let read = files_below(&configuration, "/run/secrets/");
    assert!(compose.contains(&format!("secrets: [{}]", read.join(", "))), "{read:?}");
    for secret in read {
        assert!(compose.contains(&format!("  {secret}: {{ file: secrets/{secret} }}")), "{secret}");
    }
    assert!(!compose.contains("ports:"));
    assert!(compose.contains("target: /etc/sidekey/sidekey.toml"));
}

#[test]
fn the_image_is_the_static_binary_without_the_demo_in_an_empty_root() {
    let dockerfile = text("Dockerfile");
    for part in [
        "--locked --no-default-features",
        "-unknown-linux-musl",
        "\nFROM scratch\n",
        "\nUSER 65532:65532\n",
        "CMD [\"/sidekey\", \"wait\", \"--for\", \"live\"",
        "\nENTRYPOINT [\"/sidekey\"]\n",
    ] {
        assert!(dockerfile.contains(part), "{part}");
    }
    let (_, rest) = dockerfile.split_once("FROM rust:").expect("the builder");
    let (version, _) = rest.split_once('-').expect("a version");
    let number = |text: &str| text.split('.').map(|part| part.parse().unwrap()).collect::<Vec<u32>>();
    assert!(number(version) >= number(env!("CARGO_PKG_RUST_VERSION")), "{version}");
    // What is copied in from here is let through, and nothing else is.
    let ignored = text(".dockerignore");
    let passes: Vec<&str> = ignored.lines().filter_map(|line| line.strip_prefix('!')).collect();
    assert!(ignored.lines().any(|line| line == "*"));
    assert_eq!(passes, ["Cargo.toml", "Cargo.lock", "src", "config/starter.toml"]);
}
