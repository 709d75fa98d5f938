//! What stands in `deploy` works with this version.

use std::path::PathBuf;
use std::process::Command;

const MANIFEST: &str = include_str!("../deploy/kubernetes/sidecar.yaml");

/// The text of a block scalar, `KEY: |`, without its indentation.
fn block(key: &str) -> String {
    let opening = format!("{key}: |");
    let mut lines = MANIFEST.lines().skip_while(|line| line.trim() != opening);
    let indent = lines.next().expect("the key").find(|c| c != ' ').unwrap_or(0) + 2;
    let body = lines.take_while(|line| line.is_empty() || line.starts_with(&" ".repeat(indent)));
    body.map(|line| format!("{}\n", line.get(indent..).unwrap_or(""))).collect()
}

#[test]
fn the_configuration_of_the_sidecar_is_valid() {
    let folder = tempfile::tempdir().unwrap();
    let file: PathBuf = folder.path().join("sidekey.toml");
    std::fs::write(&file, block("sidekey.toml")).unwrap();
    let mut check = Command::new(env!("CARGO_BIN_EXE_sidekey"));
    check.args(["check", "--no-secrets", "-c"]).arg(&file).env_clear();
    let output = check.output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    assert_eq!(errors, "", "no warnings");
    assert!(String::from_utf8_lossy(&output.stdout).contains("valid; routes: 2, credentials: 2"));
}

#[test]
fn every_secret_of_the_sidecar_is_a_file_under_its_mount() {
    let configuration = block("sidekey.toml");
    let files: Vec<&str> =
        configuration.split("{ file = \"").skip(1).filter_map(|rest| rest.split('"').next()).collect();
    assert_eq!(files.len(), 3, "{files:?}");
    for file in files {
        let name = file.strip_prefix("/run/secrets/sidekey/").expect("under the mount");
        assert!(MANIFEST.contains(&format!("--from-file={name}")), "{name}");
    }
    for line in ["mountPath: /run/secrets/sidekey", "mountPath: /etc/sidekey", "defaultMode: 0440"] {
        assert!(MANIFEST.contains(line), "{line}");
    }
}
