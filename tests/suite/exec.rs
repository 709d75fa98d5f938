//! `sidekey exec`: a command with a proxy of its own; its status, signals and output are the command's.
#![cfg(feature = "demo")]

use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Output, Stdio};

use crate::support::get;
use crate::support::running::{aura, aura_route, eventually, patiently, private_file};
use sidekey::demo::standins::Aura;
use tokio::io::AsyncBufReadExt as _;
use tokio::process::Command;

/// `sidekey exec` in that folder, with `sidekey.toml` there.
fn exec(folder: &Path, text: &str, command: &[&str]) -> Command {
    let file = private_file(folder.join("sidekey.toml"), text);
    let mut sidekey = Command::new(env!("CARGO_BIN_EXE_sidekey"));
    sidekey.args(["exec", "-c"]).arg(file).arg("--").args(command);
    sidekey.env("TMPDIR", folder).env_remove("XDG_RUNTIME_DIR").env_remove("SIDEKEY_CONFIG");
    sidekey.kill_on_drop(true).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    sidekey
}

async fn output(folder: &Path, text: &str, command: &[&str]) -> Output {
    patiently("the command", exec(folder, text, command).output()).await.expect("a process")
}

/// Routes to a stand-in: one that takes everything, one with a listener of its own, one by its host.
fn routes(aura: &Aura) -> String {
    let url = aura.url();
    let more = |name: &str, keys: &str| {
        format!("[route.{name}]\nprovider = \"aura\"\nupstream = \"{url}\"\ncredential = \"aura\"\n{keys}\n")
    };
    let own = more("my-own", "listen = \"127.0.0.1:7699\"");
    aura_route(aura, "") + &own + &more("hosted", "host = \"hosted.localhost\"")
}

#[tokio::test]
async fn the_command_finds_the_proxy_and_its_output_is_its_own() {
    let (aura, folder) = (aura().await, tempfile::tempdir().unwrap());
    let script = "echo $SIDEKEY_URL; echo $SIDEKEY_AURA_URL; echo $SIDEKEY_MY_OWN_URL; echo $SIDEKEY_HOSTED_URL; \
                  while [ ! -e done ]; do sleep 0.02; done";
    let mut running = exec(folder.path(), &routes(&aura), &["sh", "-c", script]);
    let mut running = running.current_dir(folder.path()).spawn().unwrap();
    let mut lines = tokio::io::BufReader::new(running.stdout.take().unwrap()).lines();
    for host in ["127.0.0.1", "127.0.0.1", "127.0.0.1", "hosted.localhost"] {
        let url = patiently("a line", lines.next_line()).await.unwrap().unwrap();
        let port = url
            .trim_end_matches('/')
            .strip_prefix(&format!("http://{host}:"))
            .unwrap_or_else(|| panic!("{url}"));
        let at = format!("127.0.0.1:{port}").parse().unwrap();
        let reply = get(at, "/v1/instances", &[("host", &format!("{host}:{port}"))]).await;
        assert_eq!(reply.status, 200, "{url}: {reply:?}");
    }
    assert_eq!(aura.record().api_requests(), 4);
    std::fs::write(folder.path().join("done"), "").unwrap();
    assert!(patiently("its end", running.wait()).await.unwrap().success());
    assert_eq!(lines.next_line().await.unwrap(), None, "nothing of sidekey's own");
}

#[tokio::test]
async fn its_status_is_the_commands_also_when_a_signal_ends_it() {
    let (aura, folder) = (aura().await, tempfile::tempdir().unwrap());
    let text = routes(&aura);
    let cases: [(&[&str], i32); 6] = [
        (&["true"], 0),
        (&["sh", "-c", "exit 7"], 7),
        (&["sh", "-c", "kill -9 $$"], 137),
        (&["sh", "-c", "kill -TERM $$"], 143),
        (&["/nowhere/to/be/found"], 127),
        (&["/dev/null"], 126),
    ];
    for (command, want) in cases {
        let ended = output(folder.path(), &text, command).await;
        assert_eq!(
            ended.status.code(),
            Some(want),
            "{command:?}: {}",
            String::from_utf8_lossy(&ended.stderr)
        );
    }
    let ended = output(folder.path(), "nonsense = 1\n", &["true"]).await;
    assert_eq!(ended.status.code(), Some(2));
    let nothing = exec(folder.path(), &text, &[]).output().await.unwrap();
    assert_eq!(nothing.status.code(), Some(2));
}

#[tokio::test]
async fn signals_are_the_commands() {
    let (aura, folder) = (aura().await, tempfile::tempdir().unwrap());
    let traps = "trap 'echo got hup' HUP; trap 'echo got int' INT; trap 'echo got usr1' USR1; \
                 trap 'echo got term; exit 9' TERM; echo ready; while :; do sleep 0.02; done";
    let mut running = exec(folder.path(), &routes(&aura), &["sh", "-c", traps]).spawn().unwrap();
    let mut lines = tokio::io::BufReader::new(running.stdout.take().unwrap()).lines();
    let mut next = async || patiently("a line", lines.next_line()).await.unwrap().unwrap_or_default();
    assert_eq!(next().await, "ready");
    let pid = rustix::process::Pid::from_raw(running.id().unwrap().cast_signed()).unwrap();
    use rustix::process::Signal;
    for (signal, word) in
        [(Signal::HUP, "hup"), (Signal::INT, "int"), (Signal::USR1, "usr1"), (Signal::TERM, "term")]
    {
        rustix::process::kill_process(pid, signal).unwrap();
        assert_eq!(next().await, format!("got {word}"));
    }
    let ended = patiently("its end", running.wait()).await.unwrap();
    assert_eq!((ended.code(), ended.signal()), (Some(9), None));
}

#[tokio::test]
async fn the_commands_environment_holds_none_of_the_configured_secrets() {
    let (aura, folder) = (aura().await, tempfile::tempdir().unwrap());
    let text = aura_route(&aura, "client_secret = { env = \"MY_SECRET\" }")
        + "[caller.ci]\ntoken = { env = \"MY_TOKEN\" }\n";
    let mut command = exec(folder.path(), &text, &["env"]);
    let canaries = [("MY_SECRET", "s:cret"), ("MY_TOKEN", "canary-token-0123456789"), ("KEPT", "kept")];
    command.envs(canaries).env("SIDEKEY_CALLER_TOKEN", "canary-of-caller-0123456789");
    let ended = patiently("the command", command.output()).await.unwrap();
    let out = String::from_utf8_lossy(&ended.stdout);
    assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
    assert!(out.contains("KEPT=kept") && out.contains("SIDEKEY_URL=http://127.0.0.1:"), "{out}");
    for name in ["MY_SECRET", "MY_TOKEN", "SIDEKEY_CALLER_TOKEN", "s:cret", "canary"] {
        assert!(!out.contains(name), "{name}: {out}");
    }
}

#[tokio::test]
async fn two_run_beside_each_other_and_leave_nothing_behind() {
    let (aura, folder) = (aura().await, tempfile::tempdir().unwrap());
    let socket = folder.path().join("configured.sock");
    let text = aura_route(&aura, "")
        .replace("\"127.0.0.1:0\"", &format!("[\"127.0.0.1:0\", \"unix:{}\"]", socket.display()));
    let wait = "echo here; while [ ! -e done ]; do sleep 0.02; done";
    let mut both = Vec::new();
    for _ in 0..2 {
        let mut running = exec(folder.path(), &text, &["sh", "-c", wait]);
        let mut running = running.current_dir(folder.path()).spawn().unwrap();
        let mut lines = tokio::io::BufReader::new(running.stdout.take().unwrap()).lines();
        assert_eq!(patiently("a line", lines.next_line()).await.unwrap().as_deref(), Some("here"));
        both.push((running, lines));
    }
    let sockets = || {
        let folders = std::fs::read_dir(folder.path()).unwrap().flatten();
        folders.filter(|entry| entry.file_name().to_string_lossy().starts_with("sidekey-exec-")).count()
    };
    assert_eq!((sockets(), socket.exists()), (2, false));
    std::fs::write(folder.path().join("done"), "").unwrap();
    for (mut running, _lines) in both {
        assert!(patiently("its end", running.wait()).await.unwrap().success());
    }
    eventually("the sockets to be gone", async || sockets() == 0).await;
}
