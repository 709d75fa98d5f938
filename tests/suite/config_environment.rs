//! The environment as configuration, and what it overrides in a file.

use sidekey::config::{
    Access, Bind, Config, CredentialKind, Environment, LoadOptions, Loaded, Provider, Report, Source, load,
};
use sidekey::secret::SecretSource;

const AURA: [(&str, &str); 2] = [("AURA_CLIENT_ID", "id"), ("AURA_CLIENT_SECRET", "CANARY-1")];
const NEO4J: [(&str, &str); 3] =
    [("NEO4J_URI", "https://graph.example"), ("NEO4J_USERNAME", "neo4j"), ("NEO4J_PASSWORD", "CANARY-2")];
const NEON: [(&str, &str); 1] = [("NEON_API_KEY", "CANARY-3")];
const FILE: &str = "[route.a]\nupstream = \"https://a.example\"\ncredential = false\n";

fn from(pairs: &[&[(&str, &str)]]) -> Result<Loaded, Report> {
    let environment = Environment::from_pairs(pairs.concat());
    load(&Source::Environment, &environment, LoadOptions::default())
}

fn config(pairs: &[&[(&str, &str)]]) -> Config {
    from(pairs).unwrap_or_else(|report| panic!("{report}")).config
}

fn error(pairs: &[&[(&str, &str)]]) -> String {
    let report = from(pairs).expect_err("these variables are mistaken");
    assert!(!format!("{report} {report:?}").contains("CANARY"), "{report}");
    report.to_string()
}

fn with_file(pairs: &[(&str, &str)]) -> Result<Loaded, Report> {
    let source = Source::Text { name: "t.toml".into(), text: FILE.to_owned() };
    load(&source, &Environment::from_pairs(pairs.to_vec()), LoadOptions::default())
}

#[test]
fn each_provider_gets_its_route_by_path_and_host() {
    let config = config(&[&AURA, &NEO4J, &NEON]);
    assert_eq!(config.origin, "environment");
    assert_eq!(config.secret_variables, ["AURA_CLIENT_SECRET", "NEO4J_PASSWORD", "NEON_API_KEY"]);
    let want = [
        ("aura", Provider::Aura, "api.neo4j.io", ""),
        ("neo4j", Provider::Neo4j, "graph.example", ""),
        ("neon", Provider::Neon, "console.neon.tech", "/api/v2"),
    ];
    assert_eq!(config.routes.len(), want.len());
    for (route, (name, provider, host, base_path)) in config.routes.iter().zip(want) {
        assert_eq!((&*route.name, route.provider), (name, provider));
        assert_eq!((route.upstream.host.as_str(), route.upstream.base_path.as_str()), (host, base_path));
        assert_eq!(route.matches.paths, [format!("/{name}")]);
        assert_eq!(route.matches.hosts, [format!("{name}.localhost")]);
        assert!(route.matches.listeners.is_empty());
    }
    assert_eq!(config.server.listeners.len(), 1);
    assert_eq!(config.server.listeners[0].bind, Bind::Tcp("127.0.0.1:7600".parse().unwrap()));
}

#[test]
fn secrets_stay_references() {
    let config = config(&[&AURA, &NEO4J, &NEON]);
    let CredentialKind::ClientCredentials(aura) = &config.credentials[0].kind else { panic!() };
    assert_eq!(aura.clients[0].client_id, "id");
    assert_eq!(aura.clients[0].client_secret, Some(SecretSource::Env("AURA_CLIENT_SECRET".into())));
    let CredentialKind::Basic { username, password } = &config.credentials[1].kind else { panic!() };
    assert_eq!((username.as_str(), password), ("neo4j", &SecretSource::Env("NEO4J_PASSWORD".into())));
    let CredentialKind::Bearer { token } = &config.credentials[2].kind else { panic!() };
    assert_eq!(token, &SecretSource::Env("NEON_API_KEY".into()));
    assert!(!format!("{config:?}").contains("CANARY"));
}

#[test]
fn a_sole_provider_also_takes_every_path() {
    let all: [(&[(&str, &str)], &str); 3] = [(&AURA, "/aura"), (&NEO4J, "/neo4j"), (&NEON, "/neon")];
    for (pairs, path) in all {
        assert_eq!(config(&[pairs]).routes[0].matches.paths, [path, ""]);
    }
}

#[test]
fn each_variable_may_name_a_file_instead() {
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        use std::os::unix::fs::PermissionsExt as _;
        let path = directory.path().join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        path.display().to_string()
    };
    let pairs: Vec<(String, String)> = [AURA.as_slice(), &NEO4J, &NEON]
        .concat()
        .iter()
        .map(|(name, value)| (format!("{name}_FILE"), file(name, &format!("{value}\n"))))
        .collect();
    let loaded = load(&Source::Environment, &Environment::from_pairs(pairs), LoadOptions::default()).unwrap();
    assert!(loaded.warnings.is_empty(), "{:?}", loaded.warnings);
    let config = loaded.config;
    assert_eq!(config.routes[1].upstream.host, "graph.example");
    let CredentialKind::Basic { username, password } = &config.credentials[1].kind else { panic!() };
    assert_eq!(username, "neo4j");
    assert_eq!(password, &SecretSource::File(directory.path().join("NEO4J_PASSWORD")));
    assert!(config.secret_variables.is_empty());
}

#[test]
fn a_uri_of_the_console_is_read_as_https() {
    let cases = [
        ("neo4j+s://0a1b.databases.neo4j.io", Ok(("0a1b.databases.neo4j.io", 443, true))),
        ("neo4j+s://0a1b.databases.neo4j.io:7687", Ok(("0a1b.databases.neo4j.io", 443, true))),
        ("bolt+s://0a1b.databases.neo4j.io/", Ok(("0a1b.databases.neo4j.io", 443, true))),
        ("https://graph.example:7473", Ok(("graph.example", 7473, true))),
        ("http://localhost:7474", Ok(("localhost", 7474, false))),
        ("http://127.0.0.1:7474/", Ok(("127.0.0.1", 7474, false))),
        (
            "neo4j://db.example:7687",
            Err("neo4j:// is Bolt, and sidekey speaks HTTP; give the HTTP address: http://db.example:7474"),
        ),
        (
            "bolt://localhost",
            Err("bolt:// is Bolt, and sidekey speaks HTTP; give the HTTP address: http://localhost:7474"),
        ),
        (
            "neo4j+ssc://db.example",
            Err("neo4j+ssc:// trusts any certificate, which sidekey never does; give the HTTPS address, \
                 https://HOST:7473, and write a file with its certificate in tls = { ca = \"PATH\" }"),
        ),
        (
            "http://db.example:7474",
            Err(
                "`upstream`: the credential would go over the network to db.example in clear text; give an https:// \
                 address, or write a file with allow_cleartext = true",
            ),
        ),
        (
            "https://neo4j:CANARY@db.example",
            Err(
                "`upstream` must not hold a user name or password (not shown); write the URL without it, and a \
                 credential with type = \"basic\"",
            ),
        ),
        (
            "db.example",
            Err("`upstream`: `db.example` has no scheme; write upstream = \"https://db.example\""),
        ),
    ];
    for (uri, want) in cases {
        let pairs = [("NEO4J_URI", uri), NEO4J[1], NEO4J[2]];
        match want {
            Ok((host, port, tls)) => {
                let upstream = &config(&[&pairs]).routes[0].upstream;
                assert_eq!((upstream.host.as_str(), upstream.port, upstream.tls), (host, port, tls), "{uri}");
            }
            Err(message) => {
                assert_eq!(error(&[&pairs]), format!("environment: NEO4J_URI: {message}"), "{uri}")
            }
        }
    }
}

#[test]
fn a_partial_set_names_the_missing_variable() {
    let cases: [(&[(&str, &str)], &str); 5] = [
        (
            &AURA[..1],
            "environment: AURA_CLIENT_SECRET: is missing or empty, though AURA_CLIENT_ID is set; export \
             AURA_CLIENT_SECRET or AURA_CLIENT_SECRET_FILE",
        ),
        (
            &AURA[1..],
            "environment: AURA_CLIENT_ID: is missing or empty, though AURA_CLIENT_SECRET is set; export \
             AURA_CLIENT_ID or AURA_CLIENT_ID_FILE",
        ),
        (
            &[AURA[0], ("AURA_CLIENT_SECRET", "")],
            "environment: AURA_CLIENT_SECRET: is missing or empty, though AURA_CLIENT_ID is set; export \
             AURA_CLIENT_SECRET or AURA_CLIENT_SECRET_FILE",
        ),
        (
            &NEO4J[..2],
            "environment: NEO4J_PASSWORD: is missing or empty, though NEO4J_URI and NEO4J_USERNAME is set; export \
             NEO4J_PASSWORD or NEO4J_PASSWORD_FILE",
        ),
        (
            &NEO4J[1..],
            "environment: NEO4J_URI: is missing or empty, though NEO4J_USERNAME and NEO4J_PASSWORD is set; export \
             NEO4J_URI or NEO4J_URI_FILE",
        ),
    ];
    for (pairs, want) in cases {
        assert_eq!(error(&[pairs]), want);
    }
}

#[test]
fn a_variable_and_its_file_exclude_each_other() {
    for name in [
        "AURA_CLIENT_ID",
        "AURA_CLIENT_SECRET",
        "NEO4J_URI",
        "NEO4J_USERNAME",
        "NEO4J_PASSWORD",
        "NEON_API_KEY",
    ] {
        let file = format!("{name}_FILE");
        let told = error(&[&AURA, &NEO4J, &NEON, &[(&file, "/nowhere")]]);
        assert_eq!(told, format!("environment: {name}: {file} is set too; unset one of the two"));
    }
}

#[test]
fn a_file_that_is_not_there_is_told_by_its_variable() {
    let told = error(&[&[("NEON_API_KEY_FILE", "/nowhere/key")]]);
    assert_eq!(
        told,
        "environment: NEON_API_KEY_FILE: cannot read /nowhere/key: No such file or directory (os error 2); name a \
         file that sidekey may read"
    );
    let environment = Environment::from_pairs([("NEON_API_KEY_FILE", "/nowhere/key")]);
    assert!(load(&Source::Environment, &environment, LoadOptions { check_secrets: false }).is_ok());
}

#[test]
fn a_provider_may_have_a_listener_of_its_own() {
    let variables = ["SIDEKEY_AURA_LISTEN", "SIDEKEY_NEO4J_LISTEN", "SIDEKEY_NEON_LISTEN"];
    for (index, variable) in variables.into_iter().enumerate() {
        let config = config(&[&AURA, &NEO4J, &NEON, &[(variable, "127.0.0.1:7999,unix:/run/x.sock")]]);
        assert_eq!(config.routes[index].matches.listeners, [1, 2], "{variable}");
        assert_eq!(config.server.listeners.len(), 3);
        assert!(!config.server.listeners[1].shared);
    }
    assert_eq!(
        error(&[&NEON, &[("SIDEKEY_AURA_LISTEN", "127.0.0.1:1")]]),
        "environment: SIDEKEY_AURA_LISTEN: there is nothing to listen for; export AURA_CLIENT_ID and \
         AURA_CLIENT_SECRET too, or remove it"
    );
}

#[test]
fn nothing_at_all_says_what_to_do_next() {
    let told = error(&[]);
    for word in
        ["AURA_CLIENT_ID", "AURA_CLIENT_SECRET", "NEO4J_URI", "NEON_API_KEY", "sidekey init", "sidekey demo"]
    {
        assert!(told.contains(word), "{told}");
    }
}

#[test]
fn listeners_and_hosts_override_a_file() {
    let pairs = [
        ("SIDEKEY_LISTEN", "127.0.0.1:7700, unix:/run/s.sock"),
        ("SIDEKEY_HOSTS", "One.example,two.example"),
        ("SIDEKEY_ADMIN", "false"),
    ];
    let config = with_file(&pairs).unwrap().config;
    let binds: Vec<_> = config.server.listeners.into_iter().map(|listener| listener.bind).collect();
    assert_eq!(
        binds,
        [
            Bind::Tcp("127.0.0.1:7700".parse().unwrap()),
            Bind::Unix { path: "/run/s.sock".into(), access: Access::default() }
        ]
    );
    assert_eq!(config.server.hosts, ["one.example", "two.example"]);
}

#[test]
fn a_mistaken_override_is_told_by_its_variable() {
    let cases = [
        (
            ("SIDEKEY_LISTEN", "7600"),
            "environment: SIDEKEY_LISTEN: `7600` is not an address to listen on; write \"127.0.0.1:7600\", \
             \"[::1]:7600\" or \"unix:PATH\"",
        ),
        (
            ("SIDEKEY_HOSTS", "a.example:1"),
            "environment: SIDEKEY_HOSTS: host `a.example:1` has a port; write the name alone, as \"a.example\"",
        ),
        (
            ("SIDEKEY_ADMIN", "0.0.0.0:7601"),
            "environment: SIDEKEY_ADMIN: the admin listener would be reached from other machines at 0.0.0.0:7601; \
             write admin = \"127.0.0.1:7601\"; for probes there is `health`",
        ),
        (
            ("SIDEKEY_CALLER_TOKEN", ""),
            "environment: SIDEKEY_CALLER_TOKEN: is empty; export a token, or unset it: whoever connects gets in then",
        ),
        (
            ("SIDEKEY_CALLER_TOKEN", "CANARY WORDS"),
            "environment: SIDEKEY_CALLER_TOKEN: `token` is not one word of visible ASCII (not shown); make one with \
             `openssl rand -hex 32`",
        ),
        (
            ("SIDEKEY_CALLER_TOKEN_FILE", "/nowhere/token"),
            "environment: SIDEKEY_CALLER_TOKEN_FILE: cannot read /nowhere/token: No such file or directory (os error 2); \
             name a file that sidekey may read",
        ),
    ];
    for (pair, want) in cases {
        assert_eq!(with_file(&[pair]).unwrap_err().to_string(), want);
    }
}

#[test]
fn a_listener_for_a_provider_has_no_effect_with_a_file_and_says_so() {
    let warnings = with_file(&[("SIDEKEY_NEON_LISTEN", "127.0.0.1:1")]).unwrap().warnings;
    assert_eq!(
        warnings[0].to_string(),
        "environment: SIDEKEY_NEON_LISTEN: has no effect with a configuration file; write `listen` in [route.neon]"
    );
}

#[test]
fn a_file_that_cannot_be_read_is_told_by_its_name() {
    let source = Source::File("/nowhere/sidekey.toml".into());
    let report = load(&source, &Environment::default(), LoadOptions::default()).unwrap_err();
    assert!(
        report.to_string().starts_with("/nowhere/sidekey.toml: cannot read it: No such file"),
        "{report}"
    );
}
