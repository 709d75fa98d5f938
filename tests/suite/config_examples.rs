//! The example files load as they are.

use std::path::PathBuf;

use sidekey::config::{
    Config, CredentialKind, Environment, LoadOptions, Loaded, Provider, Source, json_schema, load,
    reference_markdown, starter_file,
};

const UNCHECKED: LoadOptions = LoadOptions { check_secrets: false };

fn example(name: &str) -> Loaded {
    let path: PathBuf = [env!("CARGO_MANIFEST_DIR"), "config", name].iter().collect();
    let environment = Environment::from_pairs::<&str, &str>([]);
    load(&Source::File(path), &environment, UNCHECKED).unwrap_or_else(|report| panic!("{report}"))
}

fn route_names(config: &Config) -> Vec<&str> {
    config.routes.iter().map(|route| &*route.name).collect()
}

#[test]
fn every_example_loads_without_warnings_but_the_one_that_shows_a_bare_value() {
    for name in ["aura", "neo4j", "neon", "neon-oauth", "generic", "starter"] {
        let loaded = example(&format!("{name}.toml"));
        assert!(loaded.warnings.is_empty(), "{name}: {:?}", loaded.warnings);
        assert!(!loaded.config.routes.is_empty());
    }
    let warnings: Vec<String> = example("everything.toml").warnings.iter().map(ToString::to_string).collect();
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(warnings[0].contains("`value` is written into the file itself"));
}

#[test]
fn the_starter_file_is_the_one_in_the_repository() {
    let source = Source::Text { name: "sidekey.toml".into(), text: starter_file().to_owned() };
    let environment = Environment::from_pairs([("AURA_CLIENT_ID", "id"), ("AURA_CLIENT_SECRET", "s3cret")]);
    let loaded = load(&source, &environment, LoadOptions::default()).unwrap();
    assert_eq!(route_names(&loaded.config), ["aura"]);
    assert_eq!(loaded.config.secret_variables, ["AURA_CLIENT_SECRET"]);
    let CredentialKind::ClientCredentials(credential) = &loaded.config.credentials[0].kind else { panic!() };
    assert_eq!(credential.clients[0].client_id, "id");
}

#[test]
fn everything_has_every_route_in_the_order_of_the_file() {
    let config = example("everything.toml").config;
    assert_eq!(
        route_names(&config),
        ["aura", "graph", "neon", "people", "wiki", "billing", "cloud", "weather", "rest"]
    );
    assert_eq!(config.routes[0].provider, Provider::Aura);
    assert_eq!(config.routes[0].tls.ca, [PathBuf::from("/etc/ssl/private-ca.pem")]);
    assert_eq!(config.routes[1].tls.ca.len(), 2, "the global root and its own");
    assert_eq!(config.routes[1].matches.listeners, [6, 7]);
    assert!(config.server.listeners[..6].iter().all(|listener| listener.shared));
    assert!(config.server.listeners[6..].iter().all(|listener| !listener.shared));
    let tls = config.server.listeners[3].tls.as_ref().unwrap();
    assert_eq!(tls.client_ca, [PathBuf::from("/etc/sidekey/callers.pem")], "nothing global is merged in");
    assert_eq!(config.routes[8].matches.paths, [""]);
}

#[test]
fn everything_names_each_variable_that_may_hold_a_secret() {
    let config = example("everything.toml").config;
    assert_eq!(
        config.secret_variables,
        ["BILLING_A_SECRET", "BILLING_B_SECRET", "BILLING_TENANT", "NEON_API_KEY"]
    );
}

/// Every key of the reference stands in the example that claims to show every key.
#[test]
fn everything_shows_every_key_of_the_reference() {
    let path: PathBuf = [env!("CARGO_MANIFEST_DIR"), "config", "everything.toml"].iter().collect();
    let text = std::fs::read_to_string(path).unwrap();
    let keys = |line: &str| line.strip_prefix("| `")?.split('`').next().map(str::to_owned);
    for key in reference_markdown().lines().filter_map(keys) {
        let there = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').any(|word| word == key);
        assert!(there, "{key}");
    }
}

#[test]
fn the_schema_names_every_table() {
    let schema = json_schema();
    for table in ["server", "route", "credential", "tls", "store", "caller"] {
        assert!(schema["properties"][table].is_object(), "{table}");
    }
}
