//! The runbook says what is so: its codes are the source's, its words those of a sidekey that does not start, and its steps
//! lead where it says.
#![cfg(feature = "demo")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use crate::support::logins::{Lab, ask};
use crate::support::running::{eventually, patiently, private_file, sidekey_on_store};
use crate::support::tls::Authority;
use tokio::process::Command;

fn text(name: &str) -> String {
    let path: PathBuf = [env!("CARGO_MANIFEST_DIR"), name].iter().collect();
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// A section of a document, without those below it.
fn section(document: &str, heading: &str) -> String {
    let text = text(document);
    let (_, rest) = text.split_once(&format!("\n## {heading}\n")).unwrap_or_else(|| panic!("{heading}"));
    rest.split("\n## ").next().unwrap().to_owned()
}

/// The cells of each row of the tables in a section.
fn rows(section: &str) -> Vec<Vec<String>> {
    let rows = section.lines().filter(|line| line.starts_with("| "));
    rows.map(|row| row.trim_matches('|').split(" | ").map(|cell| cell.trim().to_owned()).collect()).collect()
}

/// What stands first in each row, if it is a code.
fn codes(section: &str) -> BTreeSet<String> {
    let first = rows(section).into_iter().map(|row| row[0].clone());
    first.filter_map(|cell| Some(cell.strip_prefix('`')?.strip_suffix('`')?.to_owned())).collect()
}

/// The text that stands in quotes next.
fn quoted(text: &str) -> Option<&str> {
    text.trim_start().strip_prefix('"')?.split('"').next()
}

/// Every code that the source gives to an answer.
fn codes_of_source() -> BTreeSet<String> {
    let mut codes = BTreeSet::new();
    for name in ["src/proxy/error.rs", "src/admin.rs", "src/admin/connect.rs", "src/proxy/token_request.rs"] {
        let text = text(name);
        let code = text.split("#[cfg(test)]").next().unwrap();
        // Behind a status, or named as such.
        let behind =
            code.match_indices("StatusCode::").chain(code.match_indices("of(bad")).filter_map(|(at, _)| {
                let arguments = code[at..].split_once(',')?.1;
                let first = quoted(arguments)?;
                // A token endpoint's answers have an error of OAuth's before it.
                if name.ends_with("token_request.rs") {
                    quoted(arguments.split_once(',')?.1)
                } else {
                    Some(first)
                }
            });
        let named = code.match_indices(" code: ").filter_map(|(at, key)| quoted(&code[at + key.len()..]));
        let is_code = |word: &&str| word.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
        codes.extend(behind.chain(named).filter(is_code).map(str::to_owned));
    }
    let shed = text("src/server/shed.rs");
    let shed = shed.split_once("sidekey-error: ").unwrap().1;
    codes.insert(shed.split('\\').next().unwrap().to_owned());
    codes
}

#[test]
fn each_code_that_the_source_knows_is_in_the_runbook_and_in_the_readme_and_no_others() {
    let source = codes_of_source();
    assert!(source.len() >= 17, "{source:?}");
    let errors = section("docs/RUNBOOK.md", "Error codes");
    assert_eq!(codes(&errors), source);
    for row in rows(&errors).iter().filter(|row| row[0].starts_with('`')) {
        assert!(row.len() == 5 && row.iter().all(|cell| !cell.is_empty()), "{row:?}");
    }
    let readme = section("README.md", "sidekey's own answers");
    let table = readme.split("| `error` |").next().unwrap();
    let listed: BTreeSet<String> = codes(table);
    assert_eq!(listed, source);
}

#[test]
fn the_runbook_links_to_what_is_there() {
    let runbook = text("docs/RUNBOOK.md");
    let anchors: Vec<String> = runbook
        .lines()
        .filter(|line| line.starts_with('#'))
        .map(|line| line.trim_start_matches('#').trim())
        .map(|title| title.to_lowercase().replace(' ', "-").replace(',', ""))
        .collect();
    for target in runbook.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
        match target.strip_prefix('#') {
            Some(anchor) => assert!(anchors.iter().any(|known| known == anchor), "{target}"),
            None => {
                let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs").join(target);
                assert!(path.exists(), "{target}");
            }
        }
    }
}

/// What a `sidekey run` says that does not start, and its status. `prepare` makes what the configuration needs.
async fn fails(config: Option<&str>, prepare: impl FnOnce(&Path)) -> (String, i32) {
    let folder = tempfile::tempdir().unwrap();
    prepare(folder.path());
    if let Some(config) = config {
        let config = config.replace("FOLDER", folder.path().to_str().unwrap());
        private_file(folder.path().join("sidekey.toml"), &config);
    }
    let mut command = Command::new(env!("CARGO_BIN_EXE_sidekey"));
    command.arg("run").current_dir(folder.path()).env_clear().env("SIDEKEY_ADMIN", "false");
    command.stdin(Stdio::null()).kill_on_drop(true);
    let output = patiently("its end", command.output()).await.unwrap();
    (String::from_utf8(output.stderr).unwrap(), output.status.code().unwrap())
}

#[tokio::test]
async fn what_a_sidekey_says_that_does_not_start_is_in_the_runbook_with_its_status() {
    let route = "[route.a]\ncredential = false\nupstream = \"http://127.0.0.1:9\"\n";
    let listen = |what: &str| format!("[server]\nlisten = {what}\n{route}");
    let secret = |source: &str| {
        format!(
            "[route.a]\nupstream = \"http://127.0.0.1:9\"\ncredential = {{ type = \"bearer\", token = {source} }}\n"
        )
    };
    let free = "[server]\nlisten = \"127.0.0.1:0\"\n";
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let in_use = listen(&format!("\"{}\"", taken.local_addr().unwrap()));
    let (one, other) = (Authority::new(), Authority::new());
    let pair = |folder: &Path| {
        private_file(folder.join("cert.pem"), &one.issue(&["localhost"]).cert_pem());
        private_file(folder.join("key.pem"), &other.issue(&["localhost"]).key_pem());
    };
    let open = |folder: &Path| {
        std::fs::create_dir(folder.join("store")).unwrap();
        let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(folder.join("store"), open).unwrap();
    };
    let tls = "{ bind = \"127.0.0.1:0\", tls = { cert = \"cert.pem\", key = \"key.pem\" } }";
    let said = [
        fails(Some(&listen("\"7600\"")), |_| {}).await,
        fails(Some(&secret("{ env = \"NOT_THERE\" }")), |_| {}).await,
        fails(Some(&secret("{ file = \"not-there\" }")), |_| {}).await,
        fails(None, |_| {}).await,
        fails(Some(&listen(tls)), pair).await,
        fails(Some(&listen("\"systemd:web\"")), |_| {}).await,
        fails(Some(&in_use), |_| {}).await,
        // An address for documentation, which no machine has (RFC 5737).
        fails(Some(&listen("{ bind = \"192.0.2.1:7600\", allow_unauthenticated_remote = true }")), |_| {}).await,
        fails(Some(&format!("{free}{route}[store]\ntype = \"file\"\npath = \"FOLDER/store\"\n")), open).await,
        fails(
            Some(&format!(
                "{free}{route}[store]\ntype = \"file\"\npath = \"FOLDER/s\"\nencryption_key = {{ file = \"short\" }}\n"
            )),
            |folder| _ = private_file(folder.join("short"), "dG9vIHNob3J0"),
        )
        .await,
    ];
    let table = rows(&section("docs/RUNBOOK.md", "When it does not start"));
    let table: Vec<_> = table.iter().filter(|row| row[0].starts_with('`')).collect();
    assert_eq!(said.len(), table.len(), "{table:?}");
    for ((text, status), row) in said.iter().zip(table) {
        let words = row[0].trim_matches('`');
        assert!(text.contains(words), "{words}: {text}");
        assert_eq!(row[1], status.to_string(), "{text}");
    }
}

fn copy(from: &Path, to: &Path) {
    let ended = std::process::Command::new("cp").arg("-a").args([from, to]).status().unwrap();
    assert!(ended.success());
}

#[tokio::test]
async fn a_store_that_moves_needs_no_login_and_an_old_copy_of_it_does() {
    let lab = Lab::start(Duration::from_secs(2)).await;
    let folder = tempfile::tempdir().unwrap();
    let key = private_file(folder.path().join("key"), "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=");
    let place = |name: &str| folder.path().join(name);
    let text = |name: &str| {
        let store = format!(
            "[store]\ntype = \"file\"\npath = \"{}\"\nencryption_key = {{ file = \"{}\" }}\n",
            place(name).display(),
            key.display()
        );
        lab.text("", "", &store)
    };
    let old = sidekey_on_store(&text("old")).await;
    let login = lab.login(&text("old"));
    lab.log_in(old.vault(), &login, "default").await;
    eventually("the login to count", async || ask(old.addr, None).await.status == 200).await;
    copy(&place("old"), &place("backup"));
    let first = old.account().fetches;
    eventually("a refresh", async || old.account().fetches > first).await;
    old.stop().await;

    copy(&place("old"), &place("new"));
    let new = sidekey_on_store(&text("new")).await;
    assert_eq!(ask(new.addr, None).await.status, 200);
    new.stop().await;

    let restored = sidekey_on_store(&text("backup")).await;
    eventually("the end of what the old copy holds", async || {
        let reply = ask(restored.addr, None).await;
        reply.header("sidekey-error") == Some("login_required")
    })
    .await;
    restored.stop().await;
}

#[tokio::test]
async fn an_encryption_key_is_replaced_by_two_restarts_without_a_login() {
    let lab = Lab::start(Duration::from_secs(2)).await;
    let folder = tempfile::tempdir().unwrap();
    let (store, old, new) =
        (folder.path().join("store"), folder.path().join("old"), folder.path().join("new"));
    private_file(old.clone(), "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=");
    private_file(new.clone(), "ZmVkY2JhOTg3NjU0MzIxMGZlZGNiYTk4NzY1NDMyMTA=");
    let text = |keys: &[&Path]| {
        let keys: Vec<_> = keys.iter().map(|key| format!("{{ file = \"{}\" }}", key.display())).collect();
        let keys = keys.join(", ");
        let store = store.display();
        lab.text(
            "",
            "",
            &format!("[store]\ntype = \"file\"\npath = \"{store}\"\nencryption_key = [{keys}]\n"),
        )
    };
    let running = sidekey_on_store(&text(&[&old])).await;
    let login = lab.login(&text(&[&old]));
    lab.log_in(running.vault(), &login, "default").await;
    eventually("the login to count", async || ask(running.addr, None).await.status == 200).await;
    running.stop().await;
    let running = sidekey_on_store(&text(&[&new, &old])).await;
    eventually("the account", async || ask(running.addr, None).await.status == 200).await;
    let first = running.account().fetches;
    eventually("a refresh", async || running.account().fetches > first).await;
    running.stop().await;
    let only_new = sidekey_on_store(&text(&[&new])).await;
    eventually("the account", async || ask(only_new.addr, None).await.status == 200).await;
    only_new.stop().await;
    let only_old = sidekey_on_store(&text(&[&old])).await;
    let reply = ask(only_old.addr, None).await;
    assert_eq!((reply.status, reply.header("sidekey-error").is_some()), (503, true), "{reply:?}");
    only_old.stop().await;
}
