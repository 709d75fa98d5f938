//! Every mistake gets one clear line: the table of them is `golden/config_diagnostics.txt`, in which a file as
//! written stands above the lines that it gets. `UPDATE_GOLDEN=1` writes those lines anew, for review.

use std::fmt::Write as _;
use std::path::PathBuf;

use proptest::prelude::*;
use sidekey::config::{Environment, LoadOptions, Report, Source, load};

const UNCHECKED: LoadOptions = LoadOptions { check_secrets: false };

fn errors(text: &str, options: LoadOptions) -> Result<Vec<String>, Report> {
    let source = Source::Text { name: "t.toml".into(), text: text.to_owned() };
    let environment =
        Environment::from_pairs([("EMPTY", ""), ("TWO_LINES", "one\ntwo"), ("SET", "s3cret-canary")]);
    let loaded = load(&source, &environment, options)?;
    Ok(loaded.warnings.iter().map(|warning| format!("warning: {warning}")).collect())
}

#[test]
fn every_mistake_gets_the_line_that_the_golden_table_has() {
    let path: PathBuf =
        [env!("CARGO_MANIFEST_DIR"), "tests", "suite", "golden", "config_diagnostics.txt"].iter().collect();
    let table = std::fs::read_to_string(&path).unwrap();
    let mut written = String::new();
    let mut cases = 0;
    for case in table.split("=== ").skip(1) {
        let (name, rest) = case.split_once('\n').unwrap();
        let (text, _) = rest.split_once("---\n").unwrap_or((rest, ""));
        // What is only checked with the secrets at hand says so in its name.
        let options = LoadOptions { check_secrets: name.contains("(checked)") };
        let lines = match errors(text, options) {
            Ok(warnings) => warnings.join("\n"),
            Err(report) => report.to_string(),
        };
        cases += 1;
        let _ = write!(written, "=== {name}\n{text}---\n{lines}\n");
    }
    assert!(cases >= 40, "{cases} cases");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(path, written).unwrap();
    } else {
        for (is, should) in written.split("=== ").zip(table.split("=== ")) {
            assert_eq!(is, should);
        }
    }
}

#[test]
fn nine_mistakes_in_one_file_are_nine_lines() {
    let text = r#"
[server]
listen = "0.0.0.0:7600"
idel_timeout = "5m"
drain_timeout = "25 seconds"

[route.a]
provider = "aurra"
path = "a"
upstream = "ftp://a.example"
credential = "b"

[credential.c]
type = "basic"
username = "x:y"
password = "hunter2"
"#;
    let report = errors(text, UNCHECKED).unwrap_err();
    let lines: Vec<usize> =
        report.to_string().lines().map(|line| line.split(':').nth(1).unwrap().parse().unwrap()).collect();
    assert_eq!(lines, [3, 4, 5, 8, 9, 10, 11, 15, 16], "{report}");
}

#[test]
fn no_diagnostic_shows_a_secret() {
    let canary = "hunter2-CANARY";
    let route = "[route.a]\nupstream = \"https://a.example\"\n";
    let login = format!("{route}[route.a.credential]\ntype = \"authorization_code\"\nclient_id = \"i\"\n");
    let cases = [
        format!("{route}credential = {{ type = \"basic\", username = \"u\", password = \"{canary}\" }}"),
        format!(
            "{route}credential = {{ type = \"basic\", username = \"u:{canary}\", password = {{ value = \"x\" }} }}"
        ),
        format!("{route}credential = {{ type = \"bearer\", token = \"{canary}\" }}"),
        format!("{route}credential = {{ type = \"bearer\", token = {{ value = \"{canary}\\n{canary}\" }} }}"),
        format!("{route}credential = {{ type = \"bearer\", token = {{ value = \"{canary}\" }} }}"),
        format!("{route}credential = {{ type = \"bearer\", token = {{ env = \"{canary}\" }} }}"),
        format!("{route}credential = {{ type = \"bearer\", token = [\"{canary}\"] }}"),
        format!("{route}credential = {{ type = \"bearer\", token = {{ vlaue = \"{canary}\" }} }}"),
        format!("{route}credential = {{ type = \"bearer\", token = {{ exec = \"{canary}\" }} }}"),
        format!("{route}credential = {{ type = \"bearer\", tokn = \"{canary}\" }}"),
        format!("{route}credential = {{ type = \"{canary}@x\" }}"),
        format!("{route}credential = \"{canary}\""),
        format!("{route}credential = {{ type = \"header\", name = \"X\", value = \"{canary}\" }}"),
        format!("{route}credential = {canary}"),
        format!("{route}credential = \"{canary}"),
        format!("{route}credential = {{ type = \"bearer\", token = \"{canary}\", }}, x"),
        format!("[route.a]\ncredential = false\nupstream = \"https://u:{canary}@a.example\""),
        format!("[route.a]\ncredential = false\nupstream = \"https://{canary}@a.example\""),
        format!("[route.a]\ncredential = false\nupstream = \"ftp://u:{canary}@a.example\""),
        format!("[route.a]\ncredential = false\nupstream = \"u:{canary}@a.example\""),
        format!("[route.a]\ncredential = false\nupstream = \"https://a.example?key={canary}\""),
        format!("[route.a]\ncredential = false\nupstream = \"https://a.example/#{canary}\""),
        format!("[route.a]\ncredential = false\nupstream = \"https://u:{canary}@\""),
        format!("{route}credential = false\nhost = \"u:{canary}@a.example\""),
        format!("{route}credential = false\nhost = \"https://u:{canary}@a.example\""),
        format!("{route}credential = false\npath = \"x?key={canary}\""),
        format!("{route}credential = false\nlisten = \"u:{canary}@127.0.0.1:1\""),
        format!("[caller.a]\ntoken = \"{canary}\"\n{route}credential = false"),
        format!("[store]\ntype = \"redis\"\npassword = \"{canary}\"\n{route}credential = false"),
        format!("[store]\ntype = \"redis\"\nurl = \"redis://u:{canary}@h\"\n{route}credential = false"),
        format!("[store]\ntype = \"redis\"\nurl = \"redis://u:{canary}\"\n{route}credential = false"),
        format!("[store]\ntype = \"redis\"\nurl = \"u:{canary}@h\"\n{route}credential = false"),
        format!(
            "[store]\ntype = \"file\"\npath = \"/s\"\nencryption_key = \"{canary}\"\n{route}credential = false"
        ),
        format!(
            "[store]\ntype = \"file\"\npath = \"/s\"\nencryption_key = {{ value = \"{canary}\" }}\n{route}credential = false"
        ),
        format!("{login}redirect_uri = \"http://u:{canary}@localhost/\""),
        format!("{login}redirect_uri = \"http://localhost/?code={canary}\""),
        format!("{login}redirect_uri = \"http://localhost/\"\nclient_secret = \"{canary}\""),
        format!("{login}redirect_uri = \"http://localhost/\"\nprivate_key = \"{canary}\""),
        format!(
            "{login}redirect_uri = \"http://localhost/\"\nprivate_key = {{ value = \"{canary}\\u0001\" }}"
        ),
        format!("{login}redirect_uri = \"http://localhost/\"\nparams = {{ state = \"{canary}\" }}"),
        format!("{login}redirect_uri = \"http://localhost/\"\nparams = {{ a = \"{canary}\\n\" }}"),
        format!("{login}redirect_uri = \"http://localhost/\"\nparams = {{ a = [\"{canary}\"] }}"),
        format!("{login}redirect_uri = \"http://localhost/\"\nparams = \"{canary}\""),
        format!("{login}redirect_uri = \"http://localhost/\"\nauth_params = {{ \"a b\" = \"{canary}\" }}"),
        format!("{login}redirect_uri = \"http://localhost/\"\nissuer = \"https://u:{canary}@l.example\""),
        format!("[server]\nadmin_token = \"{canary}\"\n{route}credential = false"),
    ];
    for text in cases {
        for options in [UNCHECKED, LoadOptions::default()] {
            let told = match errors(&text, options) {
                Ok(warnings) => warnings.join("\n"),
                Err(report) => format!("{report} {report:?}"),
            };
            assert!(!told.contains(canary), "{text}\n→ {told}");
            assert!(!told.is_empty(), "{text}");
        }
    }
}

#[test]
fn a_text_from_a_file_is_never_shown() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("secret");
    std::fs::write(&path, "CANARY text\n").unwrap();
    let reference = format!("{{ file = \"{}\" }}", path.display());
    for key in
        ["path", "host", "upstream", "connect_timeout", "replay_body", "provider", "listen", "credential"]
    {
        let mut text = String::from("[route.a]\n");
        for (name, value) in [("upstream", "\"https://a.example\""), ("credential", "false")] {
            if name != key {
                let _ = writeln!(text, "{name} = {value}");
            }
        }
        let _ = writeln!(text, "{key} = {reference}");
        let told = errors(&text, LoadOptions::default()).unwrap_err().to_string();
        assert!(!told.contains("CANARY"), "{told}");
    }
}

#[test]
fn a_secret_file_that_others_may_read_is_a_warning() {
    use std::os::unix::fs::PermissionsExt as _;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("key");
    std::fs::write(&path, "s3cret\n").unwrap();
    let text = format!(
        "[route.a]\nupstream = \"https://a.example\"\ncredential = {{ type = \"bearer\", token = {{ file = \"{}\" }} }}\n",
        path.display()
    );
    for (mode, count) in [(0o644, 1), (0o440, 0), (0o600, 0)] {
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        let warnings = errors(&text, LoadOptions::default()).unwrap();
        assert_eq!(warnings.len(), count, "{mode:o}: {warnings:?}");
        assert!(
            warnings.iter().all(|warning| warning.contains("mode 0644") && warning.contains("defaultMode"))
        );
    }
}

proptest! {
    #[test]
    fn no_text_makes_it_panic(cut in 0..9000_usize, length in 0..60_usize, put in "[\\[\\]{}=\",.\\n#a-z0-9:/@é ]{0,12}") {
        let whole = include_str!("../../config/everything.toml");
        let skip = |text: &str, count: usize| text.chars().skip(count).collect::<String>();
        let text: String = whole.chars().take(cut).chain(put.chars()).chain(skip(whole, cut + length).chars()).collect();
        for text in [text, format!("\u{feff}{put}"), whole.replace('\n', "\r\n")] {
            if let Err(report) = errors(&text, UNCHECKED) {
                prop_assert!(!report.errors.is_empty());
                prop_assert!(report.to_string().lines().all(|line| line.starts_with("t.toml:")));
            }
        }
    }
}
