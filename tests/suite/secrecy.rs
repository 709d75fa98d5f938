//! No secret is found anywhere but where it must go: not in logs at their most talkative, not in `Debug`, not in what
//! callers get; neither as it is nor encoded.
#![cfg(feature = "demo")]

use std::collections::HashSet;
use std::fmt::Write as _;
use std::io;
use std::path::Path;
use std::sync::{Mutex, Once};
use std::time::Duration;

use crate::support::running::{aura, aura_route, config, open_route, private_file, sidekey};
use crate::support::scripted::{Scripted, read_head, say};
use crate::support::{get, post, raw};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use http::{HeaderMap, HeaderName};
use serde_json::Value;
use sidekey::config::{Encoding, Environment, LoadOptions, Source, load};
use sidekey::credential::Claim;
use sidekey::credential::source::{StaticForm, StaticSource, TokenSource as _};
use sidekey::demo::standins::{Fault, Neo4j};
use sidekey::fetch::Answer;
use sidekey::header::AuthHeader;
use sidekey::secret::reader::SecretReader;
use sidekey::secret::{Secret, SecretSource};

/// Everything logged by this process.
static LOG: Mutex<Vec<u8>> = Mutex::new(Vec::new());

struct ToLog;

impl io::Write for ToLog {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        LOG.lock().expect("no panic").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn log_everything() {
    static STARTED: Once = Once::new();
    STARTED.call_once(|| {
        tracing_subscriber::fmt()
            .with_max_level(tracing::Level::TRACE)
            .with_ansi(false)
            .with_writer(|| ToLog)
            .init();
    });
}

fn logged() -> String {
    String::from_utf8_lossy(&LOG.lock().expect("no panic")).into_owned()
}

/// Ten of a canary's characters in a row are enough to recognise it.
const TELLING: usize = 10;

/// The telling pieces of every form in which `secret` could show.
fn pieces(secret: &str) -> HashSet<Vec<u8>> {
    let encoded: String = form_urlencoded::byte_serialize(secret.as_bytes()).collect();
    let mut forms = vec![secret.to_owned(), encoded.to_ascii_lowercase(), encoded];
    for shift in 0..3 {
        // What stands before it moves it by a byte or two; the outer letters mix with the neighbours.
        let padded = [&vec![b'.'; shift][..], secret.as_bytes()].concat();
        for engine in [&STANDARD, &URL_SAFE] {
            let text = engine.encode(&padded);
            forms.push(text[4..text.len() - 4].to_owned());
        }
    }
    forms.iter().flat_map(|form| form.as_bytes().windows(TELLING)).map(<[u8]>::to_vec).collect()
}

fn assert_silent(text: &str, secrets: &[&str], what: &str) {
    for secret in secrets {
        let telling = pieces(secret);
        if let Some(at) = text.as_bytes().windows(TELLING).position(|piece| telling.contains(piece)) {
            let around = &text.as_bytes()[at.saturating_sub(150)..(at + 150).min(text.len())];
            panic!("{what} shows {secret}: …{}…", String::from_utf8_lossy(around));
        }
    }
}

const CLIENT_SECRET: &str = "canary-client/secret+=&%:xK7pQ2";
const PASSWORD: &str = "canary-password ü:/+&wZ9rT4";
const BEARER: &str = "canary-bearer/token+=vB3nM8";
const HEADER: &str = "canary-header postgres://u:hL5dS1@h/db";
const TOKEN: &str = "canary-access-token/fJ6gY0~+";

#[tokio::test]
async fn a_token_endpoint_that_repeats_the_secret_does_not_get_it_into_the_log() {
    log_everything();
    let folder = tempfile::tempdir().unwrap();
    let file = private_file(folder.path().join("secret"), CLIENT_SECRET);
    let helper = helper(folder.path(), CLIENT_SECRET);
    let basic = STANDARD.encode(format!("id:{CLIENT_SECRET}"));
    let encoded: String = form_urlencoded::byte_serialize(CLIENT_SECRET.as_bytes()).collect();
    let form_basic = STANDARD.encode(format!("id:{encoded}"));
    let filler = "x".repeat(185);
    let bodies = [
        format!(r#"{{"error":"invalid_client","error_description":"bad secret {CLIENT_SECRET}"}}"#),
        format!(r#"{{"error":"invalid_client","error_description":"{filler}{CLIENT_SECRET}"}}"#),
        format!(r#"{{"error":"invalid_client","error_description":"you sent Basic {basic}"}}"#),
        format!(r#"{{"error":"invalid_client","error_description":"you sent Basic {form_basic}"}}"#),
        format!(r#"{{"error":"invalid_client","error_description":"client_secret={encoded}"}}"#),
        format!(r#"{{"error":"{CLIENT_SECRET}"}}"#),
        format!(r#"{{"error":{{"sent":"{CLIENT_SECRET}"}}}}"#),
        format!(r#"{{"access_token":"{TOKEN}","token_type":"{CLIENT_SECRET}"}}"#),
        format!(r#"{{"access_token":"{TOKEN} {TOKEN}"}}"#),
        format!(r#"{{"access_token":"{TOKEN}","expires_in":"{TOKEN}"}}"#),
        format!(r#"{{"access_token":["{TOKEN}"]}}"#),
        format!(r#"<html>{CLIENT_SECRET}"#),
        String::new(),
    ];
    let mut shown = String::new();
    for body in &bodies {
        for secret in [
            format!("{{ value = '{CLIENT_SECRET}' }}"),
            format!("{{ file = \"{}\" }}", file.display()),
            format!("{{ exec = [\"{}\"] }}", helper.display()),
        ] {
            for method in ["basic", "post"] {
                let answer = format!("HTTP/1.1 400 Bad\r\nContent-Length: {}\r\n\r\n{body}", body.len());
                let answer = if body.contains("access_token") {
                    answer.replacen("400 Bad", "200 OK", 1)
                } else {
                    answer
                };
                let endpoint = Scripted::start(move |_, mut stream| {
                    let answer = answer.clone();
                    async move {
                        read_head(&mut stream).await;
                        say(&mut stream, answer).await;
                    }
                })
                .await;
                let running = sidekey(&format!(
                    "[server]\nlisten = \"127.0.0.1:0\"\n[route.r]\nupstream = \"http://127.0.0.1:9\"\n\
                     credential = \"c\"\n[credential.c]\ntype = \"client_credentials\"\nclient_id = \"id\"\n\
                     token_url = \"http://{}/\"\nauth_method = \"{method}\"\nclient_secret = {secret}\n\
                     lease_timeout = \"50ms\"",
                    endpoint.addr
                ));
                let reply = get(running.addr, "/", &[]).await;
                assert_eq!(reply.status, 503, "{body}");
                let records = running.settled().await;
                assert!(records[0].last_error.is_some());
                let _ = write!(shown, "{reply:?}{records:?}{running_debug}", running_debug = running.debug());
            }
        }
    }
    assert_silent(&shown, &[CLIENT_SECRET, TOKEN], "what callers and records get");
    let log = logged();
    assert!(log.contains("no new token") && log.contains("invalid_client"), "there is a log");
    assert_silent(&log, &[CLIENT_SECRET, TOKEN], "the log");
}

/// A command that prints `secret`.
fn helper(folder: &Path, secret: &str) -> std::path::PathBuf {
    use std::os::unix::fs::PermissionsExt as _;
    let data = private_file(folder.join("data"), secret);
    let path = private_file(
        folder.join("helper"),
        &format!("#!/bin/sh\necho \"$(cat {})\" >&2\ncat {0}\n", data.display()),
    );
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o700)).expect("chmod");
    path
}

/// Everything that authenticates statically, as configuration.
fn statics(upstream: &str) -> String {
    format!(
        "[server]\nlisten = \"127.0.0.1:0\"\n\
         [route.basic]\npath = \"/basic\"\nupstream = \"{upstream}\"\n\
         credential = {{ type = \"basic\", username = \"u\", password = {{ value = '{PASSWORD}' }} }}\n\
         [route.bearer]\npath = \"/bearer\"\nupstream = \"{upstream}\"\n\
         credential = {{ type = \"bearer\", token = {{ value = '{BEARER}' }} }}\n\
         [route.base64]\npath = \"/base64\"\nupstream = \"{upstream}\"\n\
         credential = {{ type = \"bearer\", encoding = \"base64\", token = {{ value = '{BEARER}' }} }}\n\
         [route.header]\npath = \"/header\"\nupstream = \"{upstream}\"\n\
         credential = {{ type = \"header\", name = \"X-Key\", value = {{ value = '{HEADER}' }} }}\n"
    )
}

#[tokio::test]
async fn static_secrets_reach_the_upstream_and_nobody_else_whatever_goes_wrong() {
    log_everything();
    let neo4j = Neo4j::builder().basic("u", PASSWORD).bearer(BEARER).start().await.unwrap();
    let garbage = Scripted::saying("SSH-2.0-x\r\n").await;
    let silent = Scripted::start(|_, mut stream| async move {
        read_head(&mut stream).await;
        std::future::pending::<()>().await;
    })
    .await;
    let mut shown = String::new();
    let any: &[&str] = &["any"];
    for (upstream, paths) in [
        (neo4j.url(), &["status/200", "status/401", "status/403", "status/500"][..]),
        (format!("http://{}", garbage.addr), any),
        (format!("http://{}", silent.addr), any),
        (format!("https://{}", garbage.addr), any),
        ("http://127.0.0.1:9".to_owned(), any),
    ] {
        let text = statics(&upstream).replace(
            "credential =",
            "response_timeout = \"100ms\"\nconnect_timeout = \"500ms\"\ncredential =",
        );
        let running = sidekey(&text);
        for route in ["basic", "bearer", "base64", "header"] {
            for path in paths {
                let reply = post(running.addr, &format!("/{route}/{path}"), &[], "body").await;
                let _ = write!(shown, "{reply:?}");
            }
            let origin = [("origin", "null")];
            let _ = write!(shown, "{:?}", get(running.addr, &format!("/{route}"), &origin).await);
        }
        let _ = write!(shown, "{:?}", raw(running.addr, "GET / HTTP/1.1\r\n\r\n").await);
        let _ = write!(shown, "{}{:?}", running.debug(), running.settled().await);
        running.stop().await;
    }
    let sent: String = neo4j.record().take().iter().map(|seen| format!("{:?}", seen.headers)).collect();
    for secret in [BEARER, HEADER] {
        assert!(sent.contains(secret), "{secret} goes where it must");
    }
    let secrets = [PASSWORD, BEARER, HEADER];
    assert_silent(&shown, &secrets, "what callers get");
    assert_silent(&logged(), &secrets, "the log");
}

#[tokio::test]
async fn tokens_are_not_shown_when_they_are_refused_or_replaced() {
    log_everything();
    let aura = aura().await;
    let running = sidekey(&aura_route(&aura, "fetch_timeout = \"200ms\"\nlease_timeout = \"100ms\""));
    let mut shown = String::new();
    for fault in
        [Fault::None, Fault::TokenWithSpace, Fault::TokenTypeMac, Fault::Trickle, Fault::TenMegabytes]
    {
        aura.token_fault(fault);
        aura.tokens().revoke_all();
        let _ = write!(shown, "{:?}", get(running.addr, "/v1/instances", &[]).await);
        let _ = write!(shown, "{:?}", get(running.addr, "/v1/forbidden", &[]).await);
    }
    let _ = write!(shown, "{:?}{}", running.settled().await, running.debug());
    let seen = aura.record().take();
    let tokens: Vec<_> = seen
        .iter()
        .filter(|seen| !seen.token_request)
        .filter_map(|seen| seen.header("authorization"))
        .collect();
    assert!(!tokens.is_empty());
    for token in tokens {
        let token = token.strip_prefix("Bearer ").unwrap();
        assert_silent(&shown, &[token], "what callers get");
        assert_silent(&logged(), &[token], "the log");
    }
}

#[tokio::test]
async fn what_clients_show_for_a_local_token_and_the_token_itself_are_not_shown() {
    log_everything();
    let caller_token = "canary-caller-token/+=&%:qW3eR5tY";
    let aura = aura().await;
    let callers = format!("[caller.ci]\ntoken = {{ value = '{caller_token}' }}\n");
    let running = sidekey(&(aura_route(&aura, "") + &callers));
    running.settled().await;
    let encoded: String = form_urlencoded::byte_serialize(caller_token.as_bytes()).collect();
    let basic = format!("Basic {}", STANDARD.encode(format!("ci:{caller_token}")));
    let form = ("content-type", "application/x-www-form-urlencoded");
    let grant = "grant_type=client_credentials";
    let in_body = format!("{grant}&client_id=ci&client_secret={encoded}");
    let mut shown = String::new();
    let mut local = Vec::new();
    for (authorization, body) in [
        (Some(&*basic), grant),
        (Some(&basic), &in_body),
        (Some(&basic), &encoded),
        (Some(&basic), "grant_type=password"),
        (None, &in_body),
        (None, &format!("{in_body}x")),
        (None, &format!("{in_body}&{in_body}")),
        (None, &format!("grant_type={encoded}&client_id=ci&client_secret={encoded}")),
    ] {
        let mut headers = vec![form];
        headers.extend(authorization.map(|value| ("authorization", value)));
        let reply = post(running.addr, "/oauth/token", &headers, body.to_owned()).await;
        match reply.json()["access_token"].as_str() {
            Some(token) => local.push(token.rsplit('.').next().expect("a MAC").to_owned()),
            None => drop(write!(shown, "{reply:?}")),
        }
        let text = String::from_utf8_lossy(&reply.body).into_owned();
        assert_silent(&text, &[caller_token], "what the client gets");
    }
    assert_eq!(local.len(), 2);
    for path in ["/v1/instances", "/v1/forbidden"] {
        for token in &local {
            let bearer = format!("Bearer sidekey-local-v1.ci.1.{token}");
            let _ = write!(shown, "{:?}", get(running.addr, path, &[("authorization", &bearer)]).await);
        }
    }
    let _ = write!(shown, "{}", running.debug());
    let secrets = [caller_token, &local[0]];
    assert_silent(&shown, &secrets, "what callers and records get");
    assert_silent(&logged(), &secrets, "the log");
}

#[test]
fn a_mistaken_configuration_is_told_of_without_its_secrets() {
    let folder = tempfile::tempdir().unwrap();
    let two_lines = private_file(folder.path().join("two"), &format!("{PASSWORD}\n{BEARER}\n"));
    let base = open_route(([127, 0, 0, 1], 9).into(), "").replace("credential = false\n", "");
    let credentials = [
        format!("credential = {{ type = \"bearer\", token = '{BEARER}' }}"),
        format!("credential = {{ type = \"bearer\", token = {{ env = '{BEARER}' }} }}"),
        format!("credential = {{ type = \"bearer\", token = {{ vlaue = '{BEARER}' }} }}"),
        format!("credential = {{ type = \"bearer\", token = {{ value = '{BEARER}', x = 1 }} }}"),
        format!("credential = {{ type = \"bearer\", token = {{ file = \"{}\" }} }}", two_lines.display()),
        format!(
            "credential = {{ type = \"basic\", username = \"u\", password = {{ value = '{PASSWORD}\t' }} }}"
        ),
        format!(
            "credential = {{ type = \"basic\", username = \"u:{PASSWORD}\", password = {{ value = 'x' }} }}"
        ),
        format!("credential = '{BEARER}'"),
        format!("credential = {{ type = \"header\", name = '{HEADER}', value = {{ value = '{HEADER}' }} }}"),
        format!("credential = {{ type = \"bearer\", token = {{ value = '{BEARER}' }}"),
        format!("credential = false\nupstream = 'https://u:{BEARER}@h.example'"),
    ];
    for credential in credentials {
        let source = Source::Text { name: "t.toml".to_owned(), text: format!("{base}{credential}\n") };
        let environment = Environment::from_pairs([("NEON_API_KEY", BEARER)]);
        let report = load(&source, &environment, LoadOptions::default()).expect_err(&credential);
        let text = format!("{report} {report:?} {source:?} {environment:?}");
        assert_silent(&text, &[PASSWORD, BEARER, HEADER], &credential);
    }
}

#[tokio::test]
async fn no_type_shows_its_secret_in_debug() {
    let mut shown = format!("{:?}", config(&statics("http://127.0.0.1:9")));
    let secret = Secret::new(BEARER);
    let value = SecretSource::Value(secret.clone());
    let reader = SecretReader::new([]);
    let source = StaticSource {
        form: StaticForm::Bearer(Encoding::Plain),
        secret: value.clone(),
        reader: reader.clone(),
    };
    let fetched = source.fetch(Default::default()).await.unwrap();
    let header = AuthHeader::named(HeaderName::from_static("x-key"), &Secret::new(HEADER)).unwrap();
    let basic = AuthHeader::basic("u", &Secret::new(PASSWORD)).unwrap();
    let body = format!(r#"{{"access_token":"{TOKEN}"}}"#);
    let answer = Answer { status: http::StatusCode::OK, headers: HeaderMap::new(), body: body.into() };
    let given = sidekey::oauth::answer::read(&answer, std::time::UNIX_EPOCH, &[]);
    let mut headers = HeaderMap::new();
    headers.insert(header.name.clone(), header.value().clone());
    headers.insert(basic.name.clone(), basic.value().clone());
    let _ = write!(shown, "{secret:?}{value:?}{reader:?}{source:?}{fetched:?}{header:?}{basic:?}{answer:?}");
    let _ = write!(shown, "{given:?}{headers:?}");

    let aura = aura().await;
    let text = aura_route(&aura, &format!("client_secret = {{ value = '{CLIENT_SECRET}' }}"));
    let loaded = config(&text);
    let tls = sidekey::tls::TlsFactory::default();
    let (credentials, keepers) = {
        let clock = sidekey::clock::Clock::system();
        let vault = sidekey::credential::Vault::in_memory(&clock);
        sidekey::credential::Credentials::of(&loaded, &tls, &clock, &vault, &Default::default()).unwrap()
    };
    drop(keepers);
    let _ = write!(shown, "{loaded:?}{credentials:?}{:?}", credentials.records());
    let running = sidekey(&statics("http://127.0.0.1:9"));
    running.settled().await;
    let lease = tokio::time::timeout(Duration::from_secs(5), running.pool().lease(Claim::any()))
        .await
        .unwrap()
        .unwrap();
    let mut request = http::Request::new(());
    lease.apply(request.headers_mut());
    let _ = write!(shown, "{lease:?}{request:?}{}", running.debug());
    assert!(shown.contains("Sensitive") && shown.contains("Secret(…)"));
    assert_silent(&shown, &[PASSWORD, BEARER, HEADER, CLIENT_SECRET, TOKEN], "Debug");
}

/// Every key that takes a secret, as the text of a file in which `SECRET` stands in its place.
fn secret_keys() -> Vec<(String, String)> {
    fn walk(node: &Value, schema: &Value, path: &str, found: &mut Vec<String>) {
        match node["$ref"].as_str() {
            Some("#/$defs/secret") => found.push(path.to_owned()),
            Some("#/$defs/credential") => {
                for kind in schema["$defs"]["credential"]["oneOf"].as_array().expect("types") {
                    let name = kind["properties"]["type"]["const"].as_str().expect("a name");
                    walk(kind, schema, &format!("{path}:{name}"), found);
                }
            }
            _ => {}
        }
        for one in ["anyOf", "oneOf"].iter().filter_map(|key| node[key].as_array()).flatten() {
            walk(one, schema, path, found);
        }
        for (key, value) in node["properties"].as_object().into_iter().flatten() {
            walk(value, schema, format!("{path}.{key}").trim_start_matches('.'), found);
        }
        walk_under(&node["items"], schema, &format!("{path}[]"), found);
        walk_under(&node["additionalProperties"], schema, &format!("{path}.NAME"), found);
    }
    fn walk_under(node: &Value, schema: &Value, path: &str, found: &mut Vec<String>) {
        if node.is_object() {
            walk(node, schema, path, found);
        }
    }
    let schema = sidekey::config::json_schema();
    let mut found = Vec::new();
    walk(&schema, &schema, "", &mut found);
    found.into_iter().map(|path| (written(&path), path)).map(|(text, path)| (path, text)).collect()
}

/// `credential.NAME:aura.clients[].client_secret` as TOML: dotted keys, one table for each list.
fn written(path: &str) -> String {
    let (table, kind) = path.split_once(':').map_or((path, None), |(table, rest)| (table, Some(rest)));
    let (before, keys) = match kind {
        Some(rest) => {
            let (name, keys) = rest.split_once('.').expect("a key");
            (format!("{table}.type = \"{name}\"\n"), format!("{table}.{keys}"))
        }
        None => (String::new(), table.to_owned()),
    };
    match keys.split_once("[]") {
        None => format!("{before}{keys} = SECRET\n"),
        Some((list, "")) => format!("{before}{list} = [SECRET]\n"),
        Some((list, rest)) => format!("{before}{list} = [{{ {} = SECRET }}]\n", rest.trim_start_matches('.')),
    }
}

#[test]
fn no_key_that_takes_a_secret_gives_it_away_however_it_is_mistaken() {
    const SECRET: &str = "q7Zc4Lw9Tb2Xn6Rk8Vd3Hs5Jf1Gy0PmE4uAo7iC";
    let folder = tempfile::tempdir().unwrap();
    let two_lines = private_file(folder.path().join("two"), &format!("{SECRET}\n{SECRET}\n"));
    let mistakes = [
        format!("'{SECRET}'"),
        SECRET.to_owned(),
        format!("\"{SECRET}"),
        format!("['{SECRET}', 1]"),
        format!("{{ value = '{SECRET}' "),
        format!("{{ value = \"{SECRET}\\n{SECRET}\" }}"),
        format!("{{ value = \"{SECRET}\\u0007\" }}"),
        format!("{{ value = '{SECRET}', env = 'X' }}"),
        format!("{{ vlaue = '{SECRET}' }}"),
        format!("{{ {SECRET} = 'x' }}"),
        format!("{{ env = '{SECRET}' }}"),
        format!("{{ env = '${SECRET}' }}"),
        format!("{{ file = '{SECRET}' }}"),
        format!("{{ file = '{}' }}", two_lines.display()),
        format!("{{ exec = 'echo {SECRET}' }}"),
        format!("{{ exec = ['{SECRET}', 1] }}"),
        format!("{{ env = 'NOT_SET' }}\n{SECRET} = true"),
    ];
    let keys = secret_keys();
    assert!(keys.len() > 40, "{keys:?}");
    for (path, text) in &keys {
        for mistake in &mistakes {
            let text = text.replace("SECRET", mistake);
            let source = Source::Text { name: "t.toml".to_owned(), text };
            let report = load(&source, &Environment::default(), LoadOptions::default()).expect_err(path);
            assert_silent(
                &format!("{report}{report:?}{source:?}"),
                &[SECRET],
                &format!("{path} = {mistake}"),
            );
        }
    }
}

#[test]
fn a_secret_that_stands_where_a_name_belongs_is_not_quoted() {
    for secret in [
        "q7Zc4Lw9Tb2Xn6Rk8Vd3Hs5Jf1Gy0PmE4uAo7iC",
        "napi_x8b3k2m9q4w7e1r5t6y0u2i3o4p5a6s7d8f9g0h",
        "0f1e2d3c4b5a69788796a5b4c3d2e1f0",
    ] {
        for text in [
            format!("{secret} = 1"),
            format!("[server]\n{secret} = 1"),
            format!("[server]\nlisten = '{secret}'"),
            format!("[server]\nidle_timeout = '{secret}'"),
            format!("[server]\negress_proxy = '{secret}'"),
            format!("[store]\ntype = '{secret}'"),
            format!("[route.r]\nprovider = '{secret}'"),
            format!("[route.r]\ncredential = '{secret}'\nupstream = 'http://127.0.0.1:9'"),
            format!("[route.r]\ncredential = false\nupstream = '{secret}'"),
            format!("[route.r]\ncredential = false\nupstream = 'http://{secret}'"),
            format!("[route.r]\ncredential = false\nupstream = 'https://h.example'\npath = '{secret}'"),
            format!(
                "[route.r]\ncredential = false\nupstream = 'https://h.example'\nhost = 'http://{secret}'"
            ),
            format!("[credential.c]\ntype = '{secret}'"),
            format!("[credential.c]\ntype = 'header'\nname = '{secret} x'\nvalue = {{ env = 'X' }}"),
            format!("[caller.{secret}]"),
        ] {
            let source = Source::Text { name: "t.toml".to_owned(), text: text.clone() };
            let report = load(&source, &Environment::default(), LoadOptions::default()).expect_err(&text);
            assert_silent(&format!("{report}{report:?}"), &[secret, &secret.to_ascii_lowercase()], &text);
        }
    }
}

#[test]
fn a_panic_with_secrets_at_hand_prints_none() {
    // A process of its own: the words of a panic and its backtrace go to standard error.
    const SECRET: &str = "q7Zc4Lw9Tb2Xn6Rk8Vd3Hs5Jf1Gy0PmE4uAo7iC";
    if std::env::var_os("SIDEKEY_TEST_PANICS").is_some() {
        let secret = Secret::new(SECRET);
        let header = AuthHeader::basic("u", &secret).unwrap();
        let source = SecretSource::Value(secret.clone());
        // As `expect` and `assert_eq!` print their values.
        panic!("it goes wrong with {:?}", (secret, header, source));
    }
    let own = std::env::current_exe().unwrap();
    let ran = std::process::Command::new(own)
        .args(["--exact", "secrecy::a_panic_with_secrets_at_hand_prints_none", "--nocapture"])
        .envs([("SIDEKEY_TEST_PANICS", "1"), ("RUST_BACKTRACE", "full")])
        .output()
        .unwrap();
    let told = [ran.stdout, ran.stderr].concat();
    let told = String::from_utf8_lossy(&told);
    assert!(told.contains("it goes wrong with") && told.contains("stack backtrace"), "{told}");
    assert_silent(&told, &[SECRET], "a panic");
}
