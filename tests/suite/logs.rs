//! The fields of log lines are what collectors rely on: the README has them all, and no others.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::path::Path;

const MACROS: [&str; 5] = ["trace!(", "debug!(", "info!(", "warn!(", "error!("];

fn sources(folder: &Path, out: &mut Vec<String>) {
    for entry in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        if entry.is_dir() {
            sources(&entry, out);
        } else if entry.extension().is_some_and(|extension| extension == "rs") {
            out.push(std::fs::read_to_string(entry).unwrap());
        }
    }
}

/// The arguments of a call, from behind its parenthesis, up to the first that is a text: the message.
fn fields(call: &str) -> Vec<String> {
    let (mut depth, mut found, mut current) = (0, Vec::new(), String::new());
    for letter in call.chars() {
        match letter {
            '"' if depth == 0 && current.trim().is_empty() => return found,
            ')' if depth == 0 => break,
            ',' if depth == 0 => found.push(std::mem::take(&mut current)),
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' => depth -= 1,
            _ => {}
        }
        if !(letter == ',' && depth == 0) {
            current.push(letter);
        }
    }
    panic!("a call without a message: {}", &call[..call.len().min(200)]);
}

fn name(field: &str) -> String {
    let name = field.split('=').next().unwrap().trim().trim_start_matches(['%', '?']);
    assert!(name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'), "{field}");
    name.to_owned()
}

/// The fields that the code's log lines have.
fn written(text: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for call in MACROS {
        let starts = text.match_indices(call).filter(|(at, _)| {
            let before = text[..*at].chars().next_back();
            before.is_none_or(|c| !(c.is_ascii_alphanumeric() || c == '_'))
        });
        starts.for_each(|(at, _)| {
            names.extend(fields(&text[at + call.len()..]).iter().map(|field| name(field)))
        });
    }
    names
}

#[test]
fn the_fields_of_a_call_are_found() {
    let text = r#"x_info!(no); info!("m"); tracing::warn!(%error, a, b = f(1, [2]), peer = %from, "m {x}", y);
                  trace!(?z, u = u64::try_from(p.as_millis()).unwrap_or(u64::MAX), "n")"#;
    let names: Vec<_> = written(text).into_iter().collect();
    assert_eq!(names, ["a", "b", "error", "peer", "u", "z"]);
}

#[test]
fn the_readme_lists_every_field_of_the_log_and_no_others() {
    let mut texts = Vec::new();
    sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut texts);
    let written: BTreeSet<String> = texts.iter().flat_map(|text| written(text)).collect();
    assert!(written.len() > 20, "{written:?}");
    let readme = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap();
    let (_, section) = readme.split_once("\n## Logs\n").unwrap();
    let (section, _) = section.split_once("\n### ").unwrap();
    let rows = section.lines().filter(|line| line.starts_with("| `"));
    let listed: BTreeSet<String> = rows
        .flat_map(|row| row.split('|').nth(1).unwrap().split('`').skip(1).step_by(2))
        .map(str::to_owned)
        .collect();
    assert_eq!(written, listed);
}
