//! Which egress proxy leads where: decided when the configuration is loaded.

use sidekey::config::{
    AuthorizationServer, Config, CredentialKind, Environment, LoadOptions, Loaded, Report, Source, Upstream,
    load,
};

fn loaded(text: &str, variables: &[(&str, &str)]) -> Result<Loaded, Report> {
    let source = Source::Text { name: "t.toml".into(), text: text.to_owned() };
    let loaded = load(&source, &Environment::from_pairs(variables.to_vec()), LoadOptions::default());
    match &loaded {
        Ok(loaded) => assert!(!format!("{loaded:?}").contains("CANARY"), "{loaded:?}"),
        Err(report) => assert!(!format!("{report} {report:?}").contains("CANARY"), "{report}"),
    }
    loaded
}

fn config(text: &str, variables: &[(&str, &str)]) -> Config {
    loaded(text, variables).unwrap_or_else(|report| panic!("{report}\n{text}")).config
}

fn error(text: &str, variables: &[(&str, &str)]) -> String {
    loaded(text, variables).expect_err(text).to_string()
}

/// A file with one route. `server` and `route`: further keys.
fn file(server: &str, upstream: &str, route: &str) -> String {
    format!(
        "[server]\nlisten = \"127.0.0.1:0\"\n{server}\n[route.a]\nupstream = \"{upstream}\"\ncredential = false\n{route}\n"
    )
}

fn via(upstream: &Upstream) -> Option<String> {
    upstream.via.as_ref().map(ToString::to_string)
}

const SERVER: &str = "egress_proxy = \"http://proxy.corp:3128\"";
const OFF: &str = "egress_proxy = false";
const OWN: &str = "egress_proxy = { url = \"http://[2001:db8::1]\" }";
const FAR: &str = "https://api.example.com";

#[test]
fn a_routes_own_word_comes_before_the_servers_and_that_before_the_environments() {
    let variables = [("https_proxy", "http://env.corp:1")];
    let cases = [
        ("", FAR, "", Some("http://env.corp:1")),
        (OFF, FAR, "", None),
        (SERVER, FAR, "", Some("http://proxy.corp:3128")),
        (SERVER, FAR, OFF, None),
        ("", FAR, OFF, None),
        (SERVER, FAR, OWN, Some("http://[2001:db8::1]:80")),
        (OFF, FAR, OWN, Some("http://[2001:db8::1]:80")),
        (SERVER, "http://api.example.com", "allow_cleartext = true", Some("http://proxy.corp:3128")),
        ("", "http://api.example.com", "allow_cleartext = true", None),
    ];
    for (server, upstream, route, want) in cases {
        let config = config(&file(server, upstream, route), &variables);
        assert_eq!(via(&config.routes[0].upstream).as_deref(), want, "{server} {upstream} {route}");
    }
}

#[test]
fn this_machine_is_never_reached_through_a_proxy() {
    let variables = [("https_proxy", "http://env.corp:1"), ("http_proxy", "http://env.corp:1")];
    for upstream in ["https://localhost:1", "https://db.localhost", "http://127.8.9.1:1", "https://[::1]:1"] {
        for server in ["", SERVER] {
            let config = config(&file(server, upstream, ""), &variables);
            assert_eq!(via(&config.routes[0].upstream), None, "{upstream} {server}");
        }
        assert!(error(&file("", upstream, OWN), &[]).contains("`egress_proxy` has no use"), "{upstream}");
        config(&file(SERVER, upstream, OFF), &[]);
    }
}

#[test]
fn the_environments_variables_are_read_as_curl_reads_them() {
    let far = file("", FAR, "");
    let clear = file("", "http://api.example.com", "allow_cleartext = true");
    let proxy = |host: &str| Some(format!("http://{host}.corp:80"));
    type Variables<'a> = &'a [(&'a str, &'a str)];
    let cases: &[(&str, Variables<'_>, Option<String>)] = &[
        (&far, &[("https_proxy", "http://a.corp")], proxy("a")),
        (&far, &[("HTTPS_PROXY", "http://b.corp")], proxy("b")),
        (&far, &[("https_proxy", "http://a.corp"), ("HTTPS_PROXY", "http://b.corp")], proxy("a")),
        (&far, &[("https_proxy", ""), ("HTTPS_PROXY", "http://b.corp")], proxy("b")),
        (&far, &[("HTTPS_PROXY", "b.corp:80")], proxy("b")),
        (&far, &[("HTTPS_PROXY", "user:CANARY@b.corp:80")], proxy("b")),
        (&far, &[("http_proxy", "http://c.corp"), ("HTTP_PROXY", "http://d.corp")], None),
        (&clear, &[("http_proxy", "http://c.corp")], proxy("c")),
        (&clear, &[("HTTP_PROXY", "http://d.corp")], None),
        (&clear, &[("https_proxy", "http://a.corp")], None),
        (&far, &[("https_proxy", "http://a.corp"), ("no_proxy", "example.com")], None),
        (&far, &[("https_proxy", "http://a.corp"), ("NO_PROXY", ".example.com:443")], None),
        (&far, &[("https_proxy", "http://a.corp"), ("NO_PROXY", "*")], None),
        (&far, &[("https_proxy", "http://a.corp"), ("NO_PROXY", "example.com:80,le.com")], proxy("a")),
        (&far, &[("https_proxy", "http://a.corp"), ("no_proxy", "x.example"), ("NO_PROXY", "*")], proxy("a")),
    ];
    for (text, variables, want) in cases {
        assert_eq!(via(&config(text, variables).routes[0].upstream), *want, "{variables:?}");
    }
}

#[test]
fn no_proxy_holds_for_the_servers_proxy_and_not_for_a_routes_own() {
    let variables = [("NO_PROXY", "example.com")];
    assert_eq!(via(&config(&file(SERVER, FAR, ""), &variables).routes[0].upstream), None);
    assert!(via(&config(&file(SERVER, FAR, OWN), &variables).routes[0].upstream).is_some());
}

#[test]
fn a_variable_that_names_no_usable_proxy_is_an_error_only_where_one_is_needed() {
    let cases = [
        ("socks5://CANARY.corp:1080", "is no HTTP proxy"),
        ("https://CANARY.corp:443", "speaks TLS itself"),
        ("http://u:CANARY%0a@proxy.corp", "cannot be read"),
        ("http://CANARY corp", "is not the address of a proxy"),
        ("two\nCANARY", "is not one line of text"),
    ];
    for (value, want) in cases {
        let variables = [("HTTPS_PROXY", value)];
        let report = error(&file("", FAR, ""), &variables);
        assert!(report.starts_with("environment: HTTPS_PROXY: ") && report.contains(want), "{report}");
        assert!(report.contains("http://HOST:PORT"), "{report}");
        let source = Source::Text { name: "t.toml".into(), text: file("", FAR, "") };
        let options = LoadOptions { check_secrets: false };
        let loaded = load(&source, &Environment::from_pairs(variables), options).unwrap();
        assert!(loaded.warnings[0].to_string().contains(want), "elsewhere it is a warning");
        for (server, upstream, route) in
            [("", "https://localhost", ""), (OFF, FAR, ""), (SERVER, FAR, ""), ("", FAR, OFF), ("", FAR, OWN)]
        {
            config(&file(server, upstream, route), &variables);
        }
    }
    let login = "[route.a]\nupstream = \"http://localhost:1\"\n[route.a.credential]\ntype = \"authorization_code\"\n\
                 client_id = \"i\"\nauth_method = \"none\"\nredirect_uri = \"http://127.0.0.1:7601/callback\"\n";
    let login = |issuer: &str| format!("{login}issuer = \"{issuer}\"\n[store]\ntype = \"memory\"\n");
    let variables = [("HTTPS_PROXY", "socks5://CANARY")];
    assert!(error(&login("https://auth.example"), &variables).contains("is no HTTP proxy"));
    config(&login("http://localhost:9/realm"), &variables);
}

#[test]
fn an_entry_of_no_proxy_that_cannot_be_read_is_a_warning() {
    let variables =
        [("https_proxy", "http://a.corp"), ("NO_PROXY", "x.example, http://CANARY, api.example.com")];
    let loaded = loaded(&file("", FAR, ""), &variables).unwrap();
    assert_eq!(via(&loaded.config.routes[0].upstream), None);
    let [warning] = loaded.warnings.as_slice() else { panic!("{:?}", loaded.warnings) };
    assert!(warning.to_string().starts_with("environment: NO_PROXY: its entry 2 "), "{warning}");
}

#[test]
fn a_token_endpoint_has_its_own_way() {
    let credential = |kind: &str, more: &str| {
        format!(
            "[server]\n{SERVER}\n[route.a]\nupstream = \"{FAR}\"\n{OFF}\n[route.a.credential]\nclient_id = \"i\"\n\
             type = \"{kind}\"\nclient_secret = {{ value = \"s\" }}\n{more}\n[store]\ntype = \"memory\"\n"
        )
    };
    let token_url = "token_url = \"https://login.example.com/token\"";
    let of_client = |more: &str| {
        let config = config(&credential("client_credentials", &format!("{token_url}\n{more}")), &[]);
        assert_eq!(via(&config.routes[0].upstream), None);
        match &config.credentials[0].kind {
            CredentialKind::ClientCredentials(grant) => via(&grant.token_url.origin),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(of_client("").as_deref(), Some("http://proxy.corp:3128"));
    assert_eq!(of_client(OFF), None);
    assert_eq!(of_client(OWN).as_deref(), Some("http://[2001:db8::1]:80"));

    let redirect = "redirect_uri = \"http://127.0.0.1:7601/callback\"";
    let of_login = |more: &str| {
        let config = config(&credential("authorization_code", &format!("{redirect}\n{more}")), &[]);
        match config.credentials.into_iter().next().unwrap().kind {
            CredentialKind::AuthorizationCode(login) => login,
            other => panic!("{other:?}"),
        }
    };
    let known = "auth_url = \"https://login.example.com/auth\"\nrevoke_url = \"http://localhost/revoke\"";
    let login = of_login(&format!("{known}\n{token_url}"));
    let AuthorizationServer::Known { token_url, revoke_url, .. } = login.server else { panic!() };
    assert_eq!(via(&token_url.origin).as_deref(), Some("http://proxy.corp:3128"));
    assert_eq!(via(&revoke_url.unwrap().origin), None);
    let issuer = "issuer = \"https://login.example.com\"";
    assert!(of_login(issuer).egress.https.is_some());
    assert!(of_login(&format!("{issuer}\n{OFF}")).egress.https.is_none());
}
