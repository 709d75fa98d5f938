//! What a file without mistakes means: logins, client keys, accounts, stores.

use std::path::PathBuf;
use std::time::Duration;

use sidekey::config::{
    AuthMethod, AuthorizationCode, AuthorizationServer, BasicEncoding, ClientCredentials, Config,
    CredentialKind, Environment, LoadOptions, RedirectUri, Report, SigningAlgorithm, Source, StoreKind, load,
};
use sidekey::secret::SecretSource;

const LOGIN: &str = "[route.a]\nupstream = \"https://a.example\"\n[route.a.credential]\n\
    type = \"authorization_code\"\nclient_id = \"id\"\nclient_secret = { env = \"S\" }\n\
    redirect_uri = \"http://127.0.0.1:7601/callback\"\n";
const NEON: &str = "[route.a]\nprovider = \"neon\"\n[route.a.credential]\ntype = \"neon_oauth\"\n\
    client_id = \"id\"\nclient_secret = { env = \"S\" }\nredirect_uri = \"http://localhost:9999\"\n";
const CLIENT: &str = "[route.a]\nupstream = \"https://a.example\"\n[route.a.credential]\n\
    type = \"client_credentials\"\ntoken_url = \"https://l.example/token\"\n";
const PLAIN: &str = "[route.a]\nupstream = \"https://a.example\"\ncredential = false\n";

fn try_load(text: &str, variables: &[(&str, &str)], check_secrets: bool) -> Result<Config, Report> {
    let source = Source::Text { name: "t.toml".into(), text: text.to_owned() };
    let environment = Environment::from_pairs(variables.iter().copied());
    load(&source, &environment, LoadOptions { check_secrets }).map(|loaded| loaded.config)
}

fn config(text: &str) -> Config {
    try_load(text, &[], false).unwrap_or_else(|report| panic!("{report}\n{text}"))
}

fn login(text: &str) -> AuthorizationCode {
    match config(text).credentials.remove(0).kind {
        CredentialKind::AuthorizationCode(login) => login,
        other => panic!("{other:?}"),
    }
}

fn grant(text: &str) -> ClientCredentials {
    match config(text).credentials.remove(0).kind {
        CredentialKind::ClientCredentials(grant) => grant,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_login_has_the_defaults_of_the_rfcs_and_is_not_waited_for() {
    let config = config(&format!("{LOGIN}issuer = \"https://l.example/x/\"\n"));
    let credential = &config.credentials[0];
    assert!(!credential.required);
    assert_eq!((config.routes[0].account.as_deref(), &credential.account_header), (None, &None));
    let CredentialKind::AuthorizationCode(login) = &credential.kind else { panic!() };
    assert_eq!(login.server, AuthorizationServer::Discovered { issuer: "https://l.example/x/".into() });
    assert_eq!((login.auth_method, login.basic_encoding), (AuthMethod::Basic, BasicEncoding::Form));
    let redirect = RedirectUri {
        text: "http://127.0.0.1:7601/callback".into(),
        host: "127.0.0.1".into(),
        port: 7601,
        path: "/callback".into(),
    };
    assert_eq!(login.redirect_uri, redirect);
    assert_eq!((&*login.client.name, login.client.client_id.as_str()), ("route.a", "id"));
    assert_eq!(login.scope, None);
    assert_eq!(
        (login.fetch_timeout, login.login_timeout),
        (Duration::from_secs(10), Duration::from_secs(600))
    );
    assert!(!login.allow_cleartext);
}

#[test]
fn an_issuer_beside_endpoints_is_only_compared() {
    let endpoints = "auth_url = \"https://l.example/auth?x=1\"\ntoken_url = \"https://l.example/token\"\n";
    for (more, issuer, revoke) in [
        ("", None, None),
        ("issuer = \"https://l.example\"\n", Some("https://l.example"), None),
        ("revoke_url = \"https://l.example/revoke\"\n", None, Some("https://l.example/revoke")),
    ] {
        // Nothing of a preset may go with endpoints of one's own.
        for (base, hosts) in [(LOGIN, ""), (NEON, "hosts = [\"console.neon.tech\", \"l.example\"]\n")] {
            let login = login(&format!("{base}{endpoints}{more}{hosts}"));
            let AuthorizationServer::Known { issuer: known, auth_url, token_url, revoke_url } = login.server
            else {
                panic!()
            };
            assert_eq!(known.as_deref(), issuer);
            assert_eq!(auth_url, "https://l.example/auth?x=1");
            assert_eq!(token_url.to_string(), "https://l.example/token");
            assert_eq!(revoke_url.map(|url| url.to_string()).as_deref(), revoke);
        }
    }
}

#[test]
fn the_neon_preset_is_a_login_at_neon_and_each_part_can_be_written() {
    let preset = login(NEON);
    assert_eq!(preset.auth_method, AuthMethod::Post);
    assert_eq!(preset.scope.as_deref(), Some("openid offline offline_access"));
    assert_eq!(preset.issuer(), "https://oauth2.neon.tech/");
    let AuthorizationServer::Known { auth_url, token_url, revoke_url, .. } = &preset.server else { panic!() };
    assert_eq!(auth_url, "https://oauth2.neon.tech/oauth2/auth");
    assert_eq!(token_url.to_string(), "https://oauth2.neon.tech/oauth2/token");
    let revoke_url = revoke_url.as_ref().map(ToString::to_string);
    assert_eq!(revoke_url.as_deref(), Some("https://oauth2.neon.tech/oauth2/revoke"));
    assert_eq!((preset.redirect_uri.port, preset.redirect_uri.path.as_str()), (9999, "/"));

    let discovered =
        login(&format!("{NEON}issuer = \"https://oauth2.neon.tech/\"\nscope = \"openid offline\"\n"));
    assert_eq!(
        discovered.server,
        AuthorizationServer::Discovered { issuer: "https://oauth2.neon.tech/".into() }
    );
    assert_eq!(discovered.scope.as_deref(), Some("openid offline"));

    let local = login(&format!(
        "{NEON}auth_url = \"http://127.0.0.1:1/auth\"\ntoken_url = \"http://127.0.0.1:1/token\"\n"
    ));
    assert_eq!(local.issuer(), "http://127.0.0.1:1/token");
}

#[test]
fn a_client_may_sign_in_every_grant() {
    let key = "private_key = { file = \"/k.pem\" }\n";
    let signed = login(
        &format!(
            "{LOGIN}issuer = \"https://l.example\"\nauth_method = \"private_key_jwt\"\n{key}key_id = \"1\"\n"
        )
        .replace("client_secret = { env = \"S\" }\n", ""),
    );
    let signing = signed.client.signing_key.clone().unwrap();
    assert_eq!((signing.id.as_deref(), signing.algorithm), (Some("1"), SigningAlgorithm::Rs256));
    assert_eq!(signing.key, SecretSource::File("/k.pem".into()));
    assert!(signed.client.client_secret.is_none());

    let algorithms = [
        ("RS256", SigningAlgorithm::Rs256),
        ("PS256", SigningAlgorithm::Ps256),
        ("ES256", SigningAlgorithm::Es256),
        ("EdDSA", SigningAlgorithm::EdDsa),
    ];
    for (word, algorithm) in algorithms {
        let method = "auth_method = \"private_key_jwt\"\n";
        let one = grant(&format!("{CLIENT}{method}client_id = \"i\"\n{key}key_algorithm = \"{word}\"\n"));
        assert_eq!(one.clients[0].signing_key.as_ref().unwrap().algorithm, algorithm);
        let several = grant(&format!(
            "{CLIENT}{method}clients = [{{ name = \"n\", client_id = \"i\", key_algorithm = \"{word}\", \
             private_key = {{ env = \"K\" }} }}]\n"
        ));
        assert_eq!(several.clients[0].signing_key.as_ref().unwrap().algorithm, algorithm);
    }
}

#[test]
fn a_private_key_of_several_lines_is_read_from_everywhere_and_hidden_from_children() {
    let pem = "-----BEGIN PRIVATE KEY-----\nMIIE\n-----END PRIVATE KEY-----\n";
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("key.pem");
    std::fs::write(&path, pem).unwrap();
    let file = format!("{{ file = \"{}\" }}", path.display());
    for source in [file.as_str(), "{ env = \"KEY\" }", "{ value = '''\nBEGIN\nEND\n''' }"] {
        let text =
            format!("{CLIENT}auth_method = \"private_key_jwt\"\nclient_id = \"i\"\nprivate_key = {source}\n");
        let config = try_load(&text, &[("KEY", pem)], true).unwrap_or_else(|report| panic!("{report}"));
        assert_eq!(config.secret_variables.contains(&"KEY".to_owned()), source.contains("env"), "{source}");
    }
}

#[test]
fn more_fields_keep_their_order_and_their_values_to_themselves() {
    let text = format!(
        "{LOGIN}issuer = \"https://l.example\"\nparams = {{ z = \"CANARY-1\", a = {{ env = \"P\" }} }}\n\
         auth_params = {{ prompt = \"CANARY-2\", audience = \"x\" }}\n[store]\ntype = \"memory\"\n"
    );
    let config = try_load(&text, &[("S", "s"), ("P", "CANARY-3")], true).unwrap();
    assert!(!format!("{config:?}").contains("CANARY"), "{config:?}");
    assert_eq!(config.secret_variables, ["P", "S"]);
    let CredentialKind::AuthorizationCode(login) = &config.credentials[0].kind else { panic!() };
    let pairs = |fields: &[(&str, &str)]| -> Vec<(String, String)> {
        fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    };
    assert_eq!(login.params, pairs(&[("z", "CANARY-1"), ("a", "CANARY-3")]));
    assert_eq!(login.auth_params, pairs(&[("prompt", "CANARY-2"), ("audience", "x")]));

    let grant = grant(&format!(
        "{CLIENT}client_id = \"i\"\nclient_secret = {{ env = \"S\" }}\nparams = {{ resource = \"CANARY-4\" }}\n"
    ));
    assert_eq!(grant.params, pairs(&[("resource", "CANARY-4")]));
    assert!(!format!("{grant:?}").contains("CANARY"));
}

#[test]
fn a_route_and_its_callers_may_name_the_account() {
    let accounts = format!("{LOGIN}issuer = \"https://l.example\"\naccount_header = \"Sidekey-Account\"\n")
        .replace("upstream", "account = \"alice@a.example\"\nupstream");
    let with_login = config(&accounts);
    assert_eq!(with_login.routes[0].account.as_deref(), Some("alice@a.example"));
    let header = with_login.credentials[0].account_header.as_ref().map(|name| name.as_str());
    assert_eq!(header, Some("sidekey-account"));

    let client =
        |name| format!("{{ name = \"{name}\", client_id = \"i\", client_secret = {{ env = \"S\" }} }}");
    let clients = format!(
        "{CLIENT}clients = [{}, {}]\naccount_header = \"X-Client\"\nstrategy = \"spread\"\n",
        client("a"),
        client("b")
    )
    .replace("upstream", "account = \"b\"\nupstream");
    let with_clients = config(&clients);
    assert_eq!(with_clients.routes[0].account.as_deref(), Some("b"));
    assert!(with_clients.credentials[0].account_header.is_some());
}

#[test]
fn logins_are_kept_in_files_unless_something_else_is_written() {
    let login = format!("{LOGIN}issuer = \"https://l.example\"\n");
    let both: &[(&str, &str)] = &[("S", "s"), ("HOME", "/home/u"), ("XDG_STATE_HOME", "/state")];
    let home: &[(&str, &str)] = &[("S", "s"), ("HOME", "/home/u"), ("XDG_STATE_HOME", "")];
    let cases = [
        (PLAIN.to_owned(), both, None),
        (login.clone(), both, Some("/state/sidekey")),
        (login.clone(), home, Some("/home/u/.local/state/sidekey")),
        (format!("{login}[store]\ntype = \"memory\"\n"), both, None),
        (format!("{login}[store]\npath = \"/var/lib/sidekey\"\n"), both, Some("/var/lib/sidekey")),
        (format!("{PLAIN}[store]\ntype = \"file\"\n"), home, Some("/home/u/.local/state/sidekey")),
    ];
    for (text, variables, want) in cases {
        let store = try_load(&text, variables, true).unwrap_or_else(|report| panic!("{report}")).store;
        assert!(store.encryption_keys.is_empty());
        let path = match store.kind {
            StoreKind::Memory => None,
            StoreKind::File { path } => Some(path),
            StoreKind::Redis(redis) => panic!("{redis:?}"),
        };
        assert_eq!(path, want.map(PathBuf::from), "{text}");
    }
    for (variable, value) in [("XDG_STATE_HOME", "state"), ("HOME", "~")] {
        let report = try_load(&login, &[("S", "s"), (variable, value)], true).unwrap_err().to_string();
        assert!(report.starts_with(&format!("environment: {variable}: ")), "{report}");
        assert!(report.contains("path = \"/var/lib/sidekey\""), "{report}");
    }
}

#[test]
fn a_store_in_redis_has_a_server_a_database_and_keys() {
    let text = format!(
        "{PLAIN}[store]\ntype = \"redis\"\nurl = \"rediss://Cache.example.com:6380/3\"\nusername = \"u\"\n\
         password = {{ env = \"PASS\" }}\ntls = {{ ca = \"/ca.pem\" }}\n\
         encryption_key = [{{ env = \"NEW\" }}, {{ env = \"OLD\" }}]\n"
    );
    let loaded = config(&text);
    assert_eq!(loaded.secret_variables, ["NEW", "OLD", "PASS"]);
    let of_variable = |name: &str| SecretSource::Env(name.to_owned());
    assert_eq!(loaded.store.encryption_keys, [of_variable("NEW"), of_variable("OLD")]);
    let StoreKind::Redis(redis) = loaded.store.kind else { panic!() };
    assert_eq!(
        (redis.server.tls, redis.server.host.as_str(), redis.server.port),
        (true, "cache.example.com", 6380)
    );
    assert_eq!(redis.server.host_header, "cache.example.com:6380");
    assert_eq!((redis.database, redis.username.as_deref()), (3, Some("u")));
    assert_eq!(redis.password, Some(of_variable("PASS")));
    assert_eq!((redis.prefix.as_str(), redis.timeout), ("sidekey", Duration::from_secs(2)));
    assert_eq!(redis.tls.ca, [PathBuf::from("/ca.pem")]);

    for (url, cleartext) in [("redis://127.0.0.1", "false"), ("redis://cache", "true")] {
        let text = format!(
            "{PLAIN}[store]\ntype = \"redis\"\nurl = \"{url}\"\nallow_cleartext = {cleartext}\n\
             encryption_key = {{ env = \"K\" }}\n"
        );
        let StoreKind::Redis(redis) = config(&text).store.kind else { panic!() };
        assert_eq!((redis.server.tls, redis.server.port, redis.database), (false, 6379, 0));
    }
}

#[test]
fn an_encryption_key_is_looked_at_where_it_is_at_hand() {
    let text =
        format!("{PLAIN}[store]\ntype = \"file\"\npath = \"/s\"\nencryption_key = {{ env = \"K\" }}\n");
    let cases = [
        ("AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=", true),
        ("AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8", true),
        ("000102030405060708090a0b0c0d0e0f101112131415161718191A1B1C1D1E1F", true),
        ("AAECAwQFBgcICQoLDA0ODw==", false),
        ("correct horse battery staple", false),
    ];
    for (key, good) in cases {
        let checked = try_load(&text, &[("K", key)], true);
        assert_eq!(checked.is_ok(), good, "{key}");
        if let Err(report) = checked {
            assert!(report.to_string().contains("openssl rand -base64 32"), "{report}");
            assert!(!report.to_string().contains(key), "{report}");
        }
        assert!(try_load(&text, &[("K", key)], false).is_ok(), "{key}");
    }
}

#[test]
fn what_stands_elsewhere_and_is_not_at_hand_is_no_mistake() {
    let login = "[route.a]\nupstream = \"https://a.example\"\naccount = { env = \"A\" }\n[route.a.credential]\n\
        type = \"authorization_code\"\nclient_id = { env = \"B\" }\nauth_method = { env = \"C\" }\n\
        private_key = { env = \"D\" }\nkey_id = { env = \"E\" }\nkey_algorithm = { env = \"F\" }\n\
        redirect_uri = { env = \"G\" }\nscope = { env = \"H\" }\nissuer = { env = \"I\" }\n\
        params = { x = { env = \"J\" } }\naccount_header = { env = \"K\" }\n\
        [store]\ntype = { env = \"L\" }\nurl = { env = \"M\" }\nusername = { env = \"N\" }\n\
        password = { env = \"O\" }\nprefix = { env = \"P\" }\nencryption_key = { env = \"Q\" }\n";
    assert!(matches!(config(login).store.kind, StoreKind::Redis(_)));
    let clients = format!(
        "{CLIENT}clients = [{{ name = {{ env = \"A\" }}, client_id = \"i\", client_secret = {{ env = \"S\" }} }}]\n\
         auth_method = {{ env = \"B\" }}\n[store]\ntype = {{ env = \"C\" }}\npath = {{ env = \"D\" }}\n"
    )
    .replace("upstream", "account = { env = \"E\" }\nupstream");
    assert!(matches!(config(&clients).store.kind, StoreKind::File { .. }));
}
