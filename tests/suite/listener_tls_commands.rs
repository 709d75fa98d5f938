//! TLS towards callers as the commands tell of it: `check`, `explain`, and the banner and the log of `run`.
#![cfg(feature = "demo")]

use std::path::Path;
use std::process::Stdio;

use crate::support::running::{patiently, private_file};
use crate::support::tls::Authority;
use tokio::io::{AsyncBufReadExt as _, AsyncRead, BufReader, Lines};
use tokio::process::Command;

fn command(folder: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sidekey"));
    command.args(args).current_dir(folder).env_clear().env("SIDEKEY_ADMIN", "false");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    command
}

/// Exit status, standard output and standard error.
async fn sidekey(folder: &Path, args: &[&str]) -> (Option<i32>, String, String) {
    let output = patiently("the command", command(folder, args).output()).await.expect("it runs");
    let text = |bytes| String::from_utf8(bytes).expect("text");
    (output.status.code(), text(output.stdout), text(output.stderr))
}

/// An authority whose folder also has `t.toml`: one listener on this port, with `client.pem` and `client.key` of it.
fn authority(port: u16) -> Authority {
    let authority = Authority::new();
    authority.client_files();
    let text = format!(
        "[server]\nlisten = {{ bind = \"127.0.0.1:{port}\", tls = {{ cert = \"client.pem\", key = \"client.key\" }} }}\n\
         [route.up]\npath = \"/\"\ncredential = false\nupstream = \"http://127.0.0.1:9\"\n"
    );
    private_file(authority.folder().join("t.toml"), &text);
    authority
}

#[tokio::test]
async fn check_loads_the_certificate_and_its_key_unless_it_is_told_to_leave_secrets_alone() {
    use std::os::unix::fs::PermissionsExt as _;
    let authority = authority(7643);
    let (folder, key) = (authority.folder(), authority.folder().join("client.key"));
    let (status, stdout, stderr) = sidekey(folder, &["check", "-c", "t.toml"]).await;
    assert_eq!((status, stderr.as_str()), (Some(0), ""), "{stdout}");

    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).unwrap();
    let (status, _, stderr) = sidekey(folder, &["check", "-c", "t.toml"]).await;
    assert!(status == Some(0) && stderr.contains("may read client.key (mode 0644)"), "{stderr}");

    private_file(key.clone(), &authority.issue(&["other.example"]).key_pem());
    let (status, _, stderr) = sidekey(folder, &["check", "-c", "t.toml"]).await;
    assert_eq!(status, Some(2));
    assert!(stderr.contains("client.pem and the key client.key cannot be used together"), "{stderr}");
    let (status, _, stderr) = sidekey(folder, &["check", "-c", "t.toml", "--no-secrets"]).await;
    assert_eq!((status, stderr.as_str()), (Some(0), ""));

    std::fs::remove_file(key).unwrap();
    let (status, _, stderr) = sidekey(folder, &["check", "-c", "t.toml"]).await;
    assert!(status == Some(2) && stderr.contains("t.toml:2:"), "{stderr}");
    assert_eq!(sidekey(folder, &["check", "-c", "t.toml", "--no-secrets"]).await.0, Some(0));
}

#[tokio::test]
async fn explain_takes_the_scheme_that_callers_speak_there() {
    let authority = authority(7643);
    let explain =
        async |url: &str| sidekey(authority.folder(), &["explain", "-c", "t.toml", "GET", url]).await;
    let (status, stdout, stderr) = explain("https://127.0.0.1:7643/x").await;
    assert_eq!(status, Some(0), "{stderr}");
    assert!(stdout.contains("listener    https://127.0.0.1:7643\n"), "{stdout}");
    let (status, _, stderr) = explain("http://127.0.0.1:7643/x").await;
    assert!(status == Some(2) && stderr.contains("write https://127.0.0.1:7643/x"), "{stderr}");
    let (status, _, stderr) = explain("https://127.0.0.1/x").await;
    assert!(status == Some(2) && stderr.contains("port 443"), "{stderr}");
    assert!(stderr.contains("https://127.0.0.1:7643"), "{stderr}");
}

/// The next line that holds `what`; the lines before it are given as well.
async fn until(lines: &mut Lines<BufReader<impl AsyncRead + Unpin>>, what: &str) -> Vec<String> {
    patiently(what, async {
        let mut all = Vec::new();
        loop {
            all.push(lines.next_line().await.expect("text").expect("it goes on"));
            if all.last().is_some_and(|line| line.contains(what)) {
                return all;
            }
        }
    })
    .await
}

#[tokio::test]
async fn run_says_https_and_tells_each_change_of_the_certificate_once() {
    let authority = authority(0);
    let mut child = command(authority.folder(), &["run", "-c", "t.toml"]).spawn().unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut stderr = BufReader::new(child.stderr.take().unwrap()).lines();
    until(&mut stdout, "listening on https://127.0.0.1:").await;
    until(&mut stdout, "route up: https://127.0.0.1:").await;

    let next = authority.issue(&["next.example"]);
    // Renamed over, so that no look falls on half a file.
    let replace = |name: &str, text: &str| {
        let fresh = private_file(authority.folder().join("fresh"), text);
        std::fs::rename(fresh, authority.folder().join(name)).unwrap();
    };
    replace("client.pem", &next.cert_pem());
    until(&mut stderr, "the old one stays").await;
    // Another look or two at what is still wrong.
    tokio::time::sleep(std::time::Duration::from_millis(1500)).await;
    replace("client.key", &next.key_pem());
    let told = until(&mut stderr, "new connections get the new one").await;
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].contains("client.pem"), "{told:?}");
}
