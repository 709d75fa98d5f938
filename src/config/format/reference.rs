//! The reference of every key, as Markdown.

use std::fmt::Write as _;

use super::credential_keys::COMMON;
use super::{CREDENTIALS, Key, Kind, ROOT, TableFormat};

const INTRODUCTION: &str = "\
Any string may be `{ env = \"NAME\" }` or `{ file = \"PATH\" }`. A secret must be one of these, \
`{ exec = [\"helper\", \"argument\"] }` or, knowingly, `{ value = \"…\" }`. A duration is one number and one unit \
(`\"250ms\"`, `\"30s\"`, `\"5m\"`, `\"1h\"`), and so is a size (`\"512B\"`, `\"64KiB\"`, `\"1MiB\"`).\n\n";

/// Every table and key of the file, as Markdown tables; what is not there yet is left out.
pub fn reference_markdown() -> String {
    let mut out = String::from(INTRODUCTION);
    let mut tables = Vec::new();
    for key in ROOT.all_keys().filter(|key| key.later.is_none()) {
        collect(&key.kind, &mut tables);
    }
    for format in tables {
        section(&mut out, "###", format, format.all_keys());
    }
    out.push_str("### [credential.NAME], or credential = { … } on a route\n\n");
    out.push_str("`type` decides the other keys; those in the first table go with every type.\n\n");
    rows(&mut out, COMMON.iter());
    let types = || CREDENTIALS.iter().filter(|format| format.later.is_none());
    for format in types() {
        let common = |key: &&Key| COMMON.iter().any(|common| common.name == key.name);
        section(&mut out, "####", format, format.all_keys().filter(|key| !common(key)));
    }
    let mut nested = Vec::new();
    for key in types().flat_map(TableFormat::all_keys).filter(|key| key.later.is_none()) {
        collect(&key.kind, &mut nested);
    }
    for format in nested.into_iter().filter(|format| format.name == "client") {
        section(&mut out, "####", format, format.all_keys());
    }
    out.truncate(out.trim_end().len());
    out.push('\n');
    out
}

/// The tables that a kind leads to, outer ones first, each once.
fn collect(kind: &Kind, tables: &mut Vec<&'static TableFormat>) {
    match kind {
        Kind::Table(format) | Kind::Named(format) if tables.iter().all(|known| known.name != format.name) => {
            tables.push(format);
            for key in format.all_keys().filter(|key| key.later.is_none()) {
                collect(&key.kind, tables);
            }
        }
        Kind::List(item) => collect(item, tables),
        Kind::AnyOf(kinds) => kinds.iter().for_each(|kind| collect(kind, tables)),
        _ => {}
    }
}

fn section<'k>(out: &mut String, level: &str, format: &TableFormat, keys: impl Iterator<Item = &'k Key>) {
    // Writing to a String cannot fail.
    let _ = write!(out, "{level} {}\n\n{}\n\n", code(format.heading), format.doc);
    rows(out, keys);
}

fn rows<'k>(out: &mut String, keys: impl Iterator<Item = &'k Key>) {
    out.push_str("| key | value | default | what |\n|---|---|---|---|\n");
    for key in keys.filter(|key| key.later.is_none()) {
        let default = match key.default {
            "" if key.required => "required".to_owned(),
            "" => String::new(),
            text if text == "required" || text.contains(['`', ' ']) => text.to_owned(),
            text => format!("`{text}`"),
        };
        let _ = writeln!(out, "| `{}` | {} | {default} | {} |", key.name, value(&key.kind), key.doc);
    }
    out.push('\n');
}

fn code(heading: &str) -> String {
    if heading.contains(", ") { heading.to_owned() } else { format!("`{heading}`") }
}

fn value(kind: &Kind) -> String {
    match kind {
        Kind::AnyOf(kinds) => kinds.iter().map(value).collect::<Vec<_>>().join(", or "),
        Kind::List(item) => format!("list of: {}", value(item)),
        Kind::Text(_) => "string".into(),
        Kind::OneOf(_) | Kind::Off => {
            format!("`{}`", kind.describe().replace(", ", "`, `").replace(" or ", "` or `"))
        }
        _ => kind.describe().trim_start_matches("a ").to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reference_holds_every_key_that_is_there_and_none_that_is_not() {
        let text = reference_markdown();
        let credentials = CREDENTIALS.iter().filter(|format| format.later.is_none());
        for format in credentials {
            assert!(text.contains(format.heading), "{}", format.heading);
            for key in format.all_keys().filter(|key| key.later.is_none()) {
                assert!(text.contains(&format!("| `{}` |", key.name)), "{}", key.name);
            }
        }
        let mut tables = Vec::new();
        ROOT.all_keys().for_each(|key| collect(&key.kind, &mut tables));
        let keys: Vec<&Key> = tables.iter().flat_map(|format| format.all_keys()).collect();
        let is_there = |name: &str| keys.iter().any(|key| key.name == name && key.later.is_none());
        for key in &keys {
            assert_eq!(text.contains(&format!("| `{}` |", key.name)), is_there(key.name), "{}", key.name);
        }
    }
}
