//! The README says what the program does: its reference, its commands, its examples.

use std::path::PathBuf;
use std::process::Command;

use sidekey::config::{Environment, LoadOptions, Source, load, reference_markdown};

const BEGIN: &str = "<!-- reference:begin -->\n";
const END: &str = "<!-- reference:end -->";

fn path(name: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), name].iter().collect()
}

fn text(name: &str) -> String {
    std::fs::read_to_string(path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// `UPDATE_README=1 cargo test readme` writes it anew.
#[test]
fn the_reference_in_the_readme_is_the_programs_own() {
    let readme = text("README.md");
    let (before, rest) = readme.split_once(BEGIN).expect("the marker before the reference");
    let (written, after) = rest.split_once(END).expect("the marker after the reference");
    let wanted = format!("\n{}\n", reference_markdown());
    if written == wanted {
        return;
    }
    if std::env::var_os("UPDATE_README").is_some() {
        std::fs::write(path("README.md"), format!("{before}{BEGIN}{wanted}{END}{after}")).unwrap();
        return;
    }
    let line = written.lines().zip(wanted.lines()).find(|(written, wanted)| written != wanted);
    panic!("README.md is out of date at {line:?}; run: UPDATE_README=1 cargo test readme");
}

#[test]
fn the_readme_has_every_command() {
    let help = Command::new(env!("CARGO_BIN_EXE_sidekey")).arg("--help").output().unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    let (_, list) = help.split_once("Commands:\n").expect("a list of commands");
    let commands: Vec<&str> = list
        .lines()
        .take_while(|line| !line.is_empty())
        .filter_map(|l| l.split_whitespace().next())
        .collect();
    assert!(commands.contains(&"run"), "{commands:?}");
    let readme = text("README.md");
    for command in commands {
        assert!(readme.contains(&format!("`sidekey {command}")), "{command}");
    }
}

#[test]
fn every_file_shown_in_the_readme_loads() {
    let readme = text("README.md");
    let examples: Vec<&str> =
        readme.split("```toml\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    assert!(!examples.is_empty());
    for example in examples {
        let source = Source::Text { name: "README.md".into(), text: example.to_owned() };
        let loaded = load(&source, &Environment::default(), LoadOptions { check_secrets: false });
        assert!(loaded.is_ok_and(|loaded| loaded.warnings.is_empty()), "{example}");
    }
}

/// Links within the repository lead somewhere.
#[test]
fn every_file_that_the_documents_link_to_is_there() {
    for document in ["README.md", "ARCHITECTURE.md", "SECURITY.md", "CHANGELOG.md"] {
        for target in text(document).split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let outside = target.contains("://") || target.starts_with('#');
            let file = target.split('#').next().unwrap_or_default();
            assert!(outside || path(file).exists(), "{document}: {target}");
        }
    }
}

#[test]
fn the_architecture_names_only_files_that_are_there() {
    let architecture = text("ARCHITECTURE.md");
    for file in architecture.split('`').filter(|word| word.ends_with(".rs")) {
        assert!(path("src").join(file).exists(), "src/{file}");
    }
}

/// Each dependency has its reason to be here.
#[test]
fn the_architecture_tells_what_each_dependency_is_for() {
    let architecture = text("ARCHITECTURE.md");
    let manifest = text("Cargo.toml");
    let (_, dependencies) = manifest.split_once("[dependencies]\n").expect("dependencies");
    for line in
        dependencies.lines().take_while(|line| !line.starts_with("[profile") && !line.starts_with("[["))
    {
        let Some((name, _)) = line.split_once(" = ") else { continue };
        if !name.starts_with(['#', '[']) {
            assert!(architecture.contains(&format!("`{name}`")), "{name}");
        }
    }
}

/// Each test that the document on security names is there.
#[test]
fn the_tests_that_back_the_security_claims_are_there() {
    let mut sources = String::new();
    let mut folders = vec![path("src"), path("tests")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            if entry.is_dir() {
                folders.push(entry);
            } else if entry.extension().is_some_and(|extension| extension == "rs") {
                sources.push_str(&std::fs::read_to_string(entry).unwrap());
            }
        }
    }
    let security = text("SECURITY.md");
    let is_a_test = |word: &&str| {
        word.matches('_').count() >= 2 && word.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')
    };
    let named: Vec<&str> = security
        .split('`')
        .filter(is_a_test)
        .filter(|word| *word != "allow_unauthenticated_remote")
        .collect();
    assert!(named.len() > 10, "{named:?}");
    for name in named {
        assert!(sources.contains(&format!("fn {name}(")), "{name}");
    }
}
