//! What a file without mistakes means: defaults, listeners, upstreams.

use std::time::Duration;

use sidekey::config::{
    Access, AuthMethod, BasicEncoding, Bind, Config, CredentialKind, Encoding, Environment, LoadOptions,
    Source, load,
};

fn config(text: &str) -> Config {
    let source = Source::Text { name: "t.toml".into(), text: text.to_owned() };
    let loaded = load(&source, &Environment::default(), LoadOptions { check_secrets: false });
    loaded.unwrap_or_else(|report| panic!("{report}\n{text}")).config
}

#[test]
fn a_route_alone_with_nothing_to_match_takes_everything() {
    let config = config("[route.a]\nprovider = \"aura\"\ncredential = false\n");
    assert_eq!(config.routes[0].matches.paths, [""]);
    assert_eq!(config.routes[0].credential, None);
    assert_eq!(config.server.listeners.len(), 1);
    assert_eq!(config.server.workers, 1);
}

#[test]
fn defaults_depend_on_the_provider() {
    let minute = Some(Duration::from_secs(60));
    let cases = [
        ("aura", "", "api.neo4j.io", minute, vec![401, 403]),
        ("neon", "", "console.neon.tech", minute, vec![401]),
        ("neo4j", "https://g.example", "g.example", None, vec![401]),
        ("generic", "https://a.example", "a.example", minute, vec![401]),
    ];
    for (provider, upstream, host, response_timeout, refused) in cases {
        let upstream =
            if upstream.is_empty() { String::new() } else { format!("upstream = \"{upstream}\"\n") };
        let route = &config(&format!("[route.a]\nprovider = \"{provider}\"\n{upstream}credential = false\n"))
            .routes[0];
        assert_eq!(route.upstream.host, host);
        assert_eq!(route.response_timeout, response_timeout, "{provider}");
        assert_eq!(route.refused_statuses, refused, "{provider}");
        assert_eq!(route.connect_timeout, Duration::from_secs(5));
        assert_eq!(route.replay_body, 65_536);
    }
}

#[test]
fn an_upstream_is_an_origin_and_a_base_path() {
    let cases = [
        ("https://API.example.com", ("api.example.com", 443, true, "", "api.example.com")),
        ("https://api.example.com./v2/", ("api.example.com", 443, true, "/v2", "api.example.com")),
        ("https://api.example.com:8443/a/b", ("api.example.com", 8443, true, "/a/b", "api.example.com:8443")),
        ("http://localhost", ("localhost", 80, false, "", "localhost")),
        ("http://db.localhost:7474/", ("db.localhost", 7474, false, "", "db.localhost:7474")),
        ("http://[::1]:7474", ("::1", 7474, false, "", "[::1]:7474")),
        ("http://127.8.9.1:1", ("127.8.9.1", 1, false, "", "127.8.9.1:1")),
    ];
    for (url, (host, port, tls, base_path, header)) in cases {
        let upstream =
            &config(&format!("[route.a]\nupstream = \"{url}\"\ncredential = false\n")).routes[0].upstream;
        assert_eq!((upstream.host.as_str(), upstream.port, upstream.tls), (host, port, tls), "{url}");
        assert_eq!(
            (upstream.base_path.as_str(), upstream.host_header.as_bytes()),
            (base_path, header.as_bytes())
        );
    }
}

#[test]
fn a_listener_of_the_server_that_a_route_claims_is_the_same_one() {
    let config = config(
        "[server]\nlisten = [\"127.0.0.1:1\", { bind = \"unix:/run/a.sock\", mode = \"0660\" }]\n\
         [route.a]\nupstream = \"https://a.example\"\ncredential = false\n\
         listen = [\"unix:/run/a.sock\", \"127.0.0.1:2\"]\n\
         [route.b]\nupstream = \"https://b.example\"\ncredential = false\npath = \"/b/\"\n",
    );
    assert_eq!(config.routes[0].matches.listeners, [1, 2]);
    assert_eq!(config.routes[1].matches.paths, ["/b"]);
    let shared: Vec<bool> = config.server.listeners.iter().map(|listener| listener.shared).collect();
    assert_eq!(shared, [true, false, false]);
    assert_eq!(
        config.server.listeners[1].bind,
        Bind::Unix { path: "/run/a.sock".into(), access: Access { mode: 0o660, ..Access::default() } }
    );
}

#[test]
fn no_default_listener_is_opened_that_no_route_could_match_on() {
    let config =
        config("[route.a]\nupstream = \"https://a.example\"\ncredential = false\nlisten = \"127.0.0.1:0\"\n");
    assert_eq!(config.server.listeners.len(), 1);
    assert_eq!(config.routes[0].matches.listeners, [0]);
}

#[test]
fn the_aura_preset_is_client_credentials_with_raw_basic() {
    let config = config(
        "[route.a]\nprovider = \"aura\"\n[route.a.credential]\ntype = \"aura\"\nclient_id = \"id\"\n\
         client_secret = { file = \"/s\" }\nencoding = \"base64\"\nrequired = false\n",
    );
    let credential = &config.credentials[0];
    assert_eq!(
        (&*credential.name, credential.encoding, credential.required),
        ("route.a", Encoding::Base64, false)
    );
    let CredentialKind::ClientCredentials(grant) = &credential.kind else { panic!() };
    assert_eq!((grant.auth_method, grant.basic_encoding), (AuthMethod::Basic, BasicEncoding::Raw));
    assert_eq!(grant.token_url.origin.host, "api.neo4j.io");
    assert_eq!(grant.token_url.path_and_query, "/oauth/token");
}

#[test]
fn texts_that_are_not_at_hand_get_placeholders_without_secrets() {
    let config = config(
        "[route.a]\nprovider = \"aura\"\nupstream = { env = \"U\" }\npath = { env = \"P\" }\nhost = { env = \"H\" }\n\
         listen = { env = \"L\" }\nconnect_timeout = { env = \"T\" }\ncredential = \"a\"\n\
         [route.b]\nprovider = { env = \"V\" }\npath = { env = \"Q\" }\nlisten = { env = \"M\" }\n\
         credential = { env = \"C\" }\n\
         [credential.a]\ntype = \"aura\"\nclient_id = { env = \"I\" }\nclient_secret = { env = \"S\" }\n",
    );
    assert_eq!(config.routes.len(), 2);
}
