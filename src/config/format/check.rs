//! Checks a tree against the format: unknown keys, wrong kinds of value, missing keys, keys not there yet.
//! What it reports it marks as broken, so that nothing after it says the same again.

use super::{CREDENTIALS, Key, Kind, ROOT, TableFormat, quoted, secret_help};
use crate::config::context::Context;
use crate::config::diagnostic::{At, alternatives, nearest};
use crate::config::document::{Entry, Node, Table, Value};
use crate::config::units::{self, UnitError};

/// The value of a field with a free name.
const FIELD: Kind = Kind::Text("value");

/// Checks the whole file and puts the text in the place of each `{ env }` or `{ file }` that stands for one.
pub(crate) fn check(root: &mut Table, context: &mut Context<'_>) {
    check_table(root, &ROOT, "", context);
}

fn check_table(table: &mut Table, format: &'static TableFormat, path: &str, context: &mut Context<'_>) {
    for entry in &mut table.entries {
        match format.key(&entry.key) {
            Some(key) => {
                let path = if path.is_empty() { entry.key.clone() } else { format!("{path}.{}", entry.key) };
                check_key(&mut entry.node, entry.at, key, &path, context);
            }
            None if is_credential(format) && entry.key == "type" => {}
            None => unknown_key(&entry.key, entry.at, format, path, context),
        }
    }
    for key in format.all_keys().filter(|key| key.required && !table.has(key.name)) {
        let message = format!("`{}` is missing{}", key.name, within(path));
        context.out.error(table.at, message, key.kind.example(key.name));
    }
}

fn check_key(node: &mut Node, at: At, key: &Key, path: &str, context: &mut Context<'_>) {
    check_value(node, &key.kind, key.name, path, context);
    if let Some(what) = key.later {
        not_there_yet(node, at, key.name, what, context);
    }
}

fn not_there_yet(node: &mut Node, at: At, name: &str, what: &str, context: &mut Context<'_>) {
    if !matches!(node.value, Value::Broken) {
        context.out.error(at, format!("`{name}` is not there yet: {what}"), "remove it");
        node.value = Value::Broken;
    }
}

fn unknown_key(given: &str, at: At, format: &'static TableFormat, path: &str, context: &mut Context<'_>) {
    let shown = given.chars().take(40).collect::<String>();
    let message = format!("unknown key `{}`{}", shown.escape_debug(), within(path));
    let own_type = is_credential(format).then_some("type");
    let here = || format.all_keys().filter(|key| key.later.is_none()).map(|key| key.name).chain(own_type);
    let elsewhere: Vec<&str> = if is_credential(format) {
        CREDENTIALS
            .iter()
            .filter(|other| other.later.is_none() && other.key(given).is_some())
            .map(|other| other.heading)
            .collect()
    } else {
        tables_with(given)
    };
    let help = if let Some(near) = nearest(given, here()) {
        format!("write `{near}`")
    } else if elsewhere.is_empty() {
        format!("here may stand {}", alternatives(here()))
    } else {
        format!("it belongs to {}", elsewhere.join(" or "))
    };
    context.out.error(at, message, help);
}

fn is_credential(format: &TableFormat) -> bool {
    CREDENTIALS.iter().any(|credential| std::ptr::eq(credential, format))
}

/// The tables of the file's first level that have such a key.
fn tables_with(name: &str) -> Vec<&'static str> {
    let mut headings = Vec::new();
    for key in ROOT.all_keys().filter(|key| key.later.is_none()) {
        if let Kind::Table(format) | Kind::Named(format) = &key.kind
            && format.key(name).is_some_and(|key| key.later.is_none())
        {
            headings.push(format.heading);
        }
    }
    if CREDENTIALS.iter().any(|format| format.later.is_none() && format.key(name).is_some()) {
        headings.push("[credential.NAME]");
    }
    headings
}

fn within(path: &str) -> String {
    if path.is_empty() { String::new() } else { format!(" in [{path}]") }
}

fn check_value(node: &mut Node, kind: &Kind, key: &str, path: &str, context: &mut Context<'_>) {
    if matches!(node.value, Value::Broken) {
        return;
    }
    if stands_for_text(kind) && is_reference(node) {
        context.resolve(node, kind);
    }
    let wrong = match (kind, &mut node.value) {
        (_, Value::Broken) => None,
        (Kind::AnyOf(kinds), _) => match choose(node, kinds) {
            Some(kind) => return check_value(node, kind, key, path, context),
            None => Some(mistyped(node, kind, key)),
        },
        (Kind::Secret, _) => return check_secret(node, key, context),
        (Kind::Text(_) | Kind::Url, Value::Text(text)) => text
            .chars()
            .any(char::is_control)
            .then(|| (format!("`{key}` holds a control character"), "write one line of text".to_owned())),
        (Kind::Flag, Value::Flag(_)) | (Kind::Off, Value::Flag(false)) => None,
        (Kind::Integer { min, max }, Value::Integer(number)) => {
            let inside = number.is_some_and(|number| (min..=max).contains(&&number));
            (!inside).then(|| (format!("{} is out of range for `{key}`", node.shown()), kind.example(key)))
        }
        (Kind::Duration { zero }, Value::Text(text)) => {
            let error = match units::duration(text) {
                Ok(duration) if duration.is_zero() && !zero => Some("may not be 0"),
                Ok(_) => None,
                Err(UnitError::Malformed) => Some("is not a duration"),
                Err(UnitError::TooLarge) => Some("is longer than a year"),
            };
            error.map(|error| (format!("`{key}`: {} {error}", node.shown()), kind.example(key)))
        }
        (Kind::Size { zero }, Value::Text(text)) => {
            let error = match units::size(text) {
                Ok(0) if !zero => Some("may not be 0"),
                Ok(_) => None,
                Err(UnitError::Malformed) => Some("is not a size"),
                Err(UnitError::TooLarge) => Some("is too large"),
            };
            error.map(|error| (format!("`{key}`: {} {error}", node.shown()), kind.example(key)))
        }
        (Kind::Rate, Value::Text(text)) => {
            let error = match units::rate(text) {
                Ok(rate) if rate.requests == 0 => Some("may not be 0"),
                Ok(_) => None,
                Err(UnitError::Malformed) => Some("is not a rate"),
                Err(UnitError::TooLarge) => Some("is more than a million"),
            };
            error.map(|error| (format!("`{key}`: {} {error}", node.shown()), kind.example(key)))
        }
        (Kind::Duration { zero: true } | Kind::Size { zero: true }, Value::Integer(Some(0))) => None,
        (Kind::Duration { .. } | Kind::Size { .. } | Kind::Rate, Value::Integer(Some(_))) => {
            Some((format!("`{key}`: {} has no unit", node.shown()), kind.example(key)))
        }
        (Kind::OneOf(choices), Value::Text(text)) => {
            let words = || choices.iter().map(|choice| choice.word);
            if words().any(|word| word == text) {
                None
            } else {
                let near = nearest(text, words());
                let help = near.map_or_else(|| kind.example(key), |near| format!("write {key} = \"{near}\""));
                Some((format!("{} is not {}", node.shown(), quoted(choices)), help))
            }
        }
        (Kind::List(item), Value::List(items)) => {
            for node in items {
                check_value(node, item, key, path, context);
            }
            None
        }
        (Kind::Table(format), Value::Table(table)) => {
            if format.later.is_none() {
                check_table(table, format, path, context);
            }
            None
        }
        (Kind::Named(format), Value::Table(table)) => {
            for entry in &mut table.entries {
                let path = format!("{path}.{}", entry.key);
                check_name(&entry.key, entry.at, context);
                check_value(&mut entry.node, &Kind::Table(format), &entry.key, &path, context);
            }
            None
        }
        (Kind::Credentials, Value::Table(table)) => {
            for entry in &mut table.entries {
                let path = format!("{path}.{}", entry.key);
                check_name(&entry.key, entry.at, context);
                check_value(&mut entry.node, &Kind::Credential, &entry.key, &path, context);
            }
            None
        }
        (Kind::Fields, Value::Table(table)) => {
            for entry in &mut table.entries {
                check_field(entry, path, context);
            }
            None
        }
        (Kind::Credential, Value::Table(_)) => return check_credential(node, path, context),
        _ => Some(mistyped(node, kind, key)),
    };
    if let Some((message, help)) = wrong {
        context.out.error(node.at, message, help);
        node.value = Value::Broken;
    }
}

fn mistyped(node: &Node, kind: &Kind, key: &str) -> (String, String) {
    (format!("`{key}` must be {}, not {}", kind.describe(), node.what()), kind.example(key))
}

/// A field's value may be a secret: it is never shown, and the variable that it stands in is not inherited.
fn check_field(entry: &mut Entry, path: &str, context: &mut Context<'_>) {
    let name = &entry.key;
    if name.is_empty() || name.len() > 128 || !name.bytes().all(|b| b.is_ascii_graphic()) {
        let message = format!("this is no name of a field{}", within(path));
        context.out.error(entry.at, message, "use up to 128 visible ASCII characters, and no spaces");
    }
    if is_reference(&entry.node)
        && let Some(variable) = entry.node.as_table().and_then(|table| table.text("env"))
    {
        context.secret_variables.push(variable.to_owned());
    }
    check_value(&mut entry.node, &FIELD, &entry.key, path, context);
}

/// Names become parts of log lines, metrics and variable names.
fn check_name(name: &str, at: At, context: &mut Context<'_>) {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if name.is_empty() || name.len() > 64 || !name.chars().all(plain) {
        context.out.error(
            at,
            "this name has characters that a name may not have",
            "use up to 64 letters, digits, `-` and `_`",
        );
    }
}

/// The alternative that the value's own type speaks for.
fn choose<'k>(node: &Node, kinds: &'k [Kind]) -> Option<&'k Kind> {
    let fitting = || kinds.iter().filter(|kind| fits(node, kind));
    let word = |kind: &&Kind| match (kind, node.as_text()) {
        (Kind::OneOf(choices), Some(text)) => choices.iter().any(|choice| choice.word == text),
        _ => false,
    };
    fitting().find(word).or_else(|| fitting().next())
}

fn fits(node: &Node, kind: &Kind) -> bool {
    match (kind, &node.value) {
        (Kind::AnyOf(kinds), _) => choose(node, kinds).is_some(),
        (kind, Value::Table(_)) if is_reference(node) && stands_for_text(kind) => true,
        (Kind::Text(_) | Kind::Url | Kind::OneOf(_), Value::Text(_))
        | (Kind::Duration { .. } | Kind::Size { .. } | Kind::Rate, Value::Text(_) | Value::Integer(_))
        | (Kind::Flag, Value::Flag(_))
        | (Kind::Off, Value::Flag(false))
        | (Kind::Integer { .. }, Value::Integer(_))
        | (Kind::List(_), Value::List(_))
        | (
            Kind::Table(_) | Kind::Named(_) | Kind::Fields | Kind::Credential | Kind::Credentials,
            Value::Table(_),
        ) => true,
        // Anything: what is wrong with a secret is told without looking at it.
        (Kind::Secret, value) => !matches!(value, Value::List(_)),
        _ => false,
    }
}

fn stands_for_text(kind: &Kind) -> bool {
    let measure = matches!(kind, Kind::Duration { .. } | Kind::Size { .. } | Kind::Rate);
    measure || matches!(kind, Kind::Text(_) | Kind::Url | Kind::OneOf(_))
}

/// `{ env = … }` or `{ file = … }`
fn is_reference(node: &Node) -> bool {
    node.as_table().is_some_and(|table| {
        !table.entries.is_empty()
            && table.entries.iter().all(|entry| matches!(entry.key.as_str(), "env" | "file"))
    })
}

fn check_secret(node: &mut Node, key: &str, context: &mut Context<'_>) {
    let problem = match &node.value {
        Value::Text(_) => Some((node.at, format!("`{key}` must not be a bare string"))),
        Value::Table(table) => match table.entries.as_slice() {
            [entry] => match (entry.key.as_str(), &entry.node.value) {
                ("env" | "file" | "value", Value::Text(_)) => None,
                ("exec", Value::List(words)) => {
                    let runs =
                        words.first().and_then(Node::as_text).is_some_and(|program| !program.is_empty());
                    let texts = words.iter().all(|word| word.as_text().is_some());
                    (!runs || !texts).then(|| {
                        (
                            entry.node.at,
                            format!("`{key}`: `exec` must be a list of strings, the program first"),
                        )
                    })
                }
                ("env" | "file" | "value", _) => {
                    Some((entry.node.at, format!("`{key}`: `{}` must be a string", entry.key)))
                }
                ("exec", _) => Some((
                    entry.node.at,
                    format!("`{key}`: `exec` must be a list of strings, the program first"),
                )),
                _ => Some((entry.at, format!("`{key}`: this is no place that a secret can come from"))),
            },
            [] => Some((node.at, format!("`{key}` says nothing"))),
            [_, second, ..] => Some((second.at, format!("`{key}` must come from one place only"))),
        },
        _ => Some((node.at, format!("`{key}` must not be {}", node.what()))),
    };
    if let Some((at, message)) = problem {
        context.out.error(at, message, secret_help(key));
        node.value = Value::Broken;
    }
}

fn check_credential(node: &mut Node, path: &str, context: &mut Context<'_>) {
    let Value::Table(table) = &mut node.value else {
        return;
    };
    let types = || CREDENTIALS.iter().filter(|format| format.later.is_none()).map(|format| format.name);
    let Some(kind) = table.entry("type") else {
        let message = format!("`type` is missing{}", within(path));
        context.out.error(table.at, message, format!("write type = one of {}", alternatives(types())));
        node.value = Value::Broken;
        return;
    };
    let (at, place) = (kind.at, kind.node.at);
    let format = CREDENTIALS.iter().find(|format| kind.node.as_text() == Some(format.name));
    if let Some(format) = format {
        check_table(table, format, path, context);
        if let Some(what) = format.later {
            let message = format!("type = \"{}\" is not there yet: {what}", format.name);
            context.out.error(at, message, format!("use {}", alternatives(types())));
            node.value = Value::Broken;
        }
        return;
    }
    let near = kind.node.as_text().and_then(|text| nearest(text, types()));
    let help = near.map_or_else(
        || format!("write type = one of {}", alternatives(types())),
        |near| format!("write type = \"{near}\""),
    );
    context.out.error(place, format!("{} is not a type of credential", kind.node.shown()), help);
    node.value = Value::Broken;
}
