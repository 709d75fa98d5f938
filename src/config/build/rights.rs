//! `allow` and `deny` of any table → [`Rights`].

use crate::config::context::Context;
use crate::config::document::{Node, Table, Value};
use crate::rights::{Pattern, Rights};

/// Reads both keys; what is malformed is reported and left out.
pub(super) fn rights(table: &Table, context: &mut Context<'_>) -> Rights {
    for key in ["allow", "deny"] {
        let Some(node) = table.get(key) else { continue };
        if matches!(&node.value, Value::List(all) if all.is_empty()) {
            let (message, help) = match key {
                "allow" => (
                    "`allow` is empty, so nothing would pass",
                    "write what may pass, allow = [\"GET /v1/instances/*\"], say, or remove it to let everything pass",
                ),
                _ => {
                    ("`deny` is empty", "write what may not pass, deny = [\"DELETE /**\"], say, or remove it")
                }
            };
            context.out.error(node.at, message, help);
        }
    }
    Rights { allow: patterns(table, "allow", context), deny: patterns(table, "deny", context) }
}

fn patterns(table: &Table, key: &str, context: &mut Context<'_>) -> Vec<Pattern> {
    let mut all: Vec<Pattern> = Vec::new();
    for node in table.items(key) {
        let Some(pattern) = pattern(key, node, context) else { continue };
        if all.iter().any(|other| other.text() == pattern.text()) {
            context.out.error(
                node.at,
                format!("{} stands twice in `{key}`", node.shown()),
                "keep one of the two",
            );
            continue;
        }
        all.push(pattern);
    }
    all
}

fn pattern(key: &str, node: &Node, context: &mut Context<'_>) -> Option<Pattern> {
    match Pattern::parse(node.as_text()?) {
        Ok(pattern) => Some(pattern),
        Err(error) => {
            // What came from elsewhere is not shown, and the help would show parts of it.
            let help = if node.referenced { "write it as \"GET /v1/instances/*\"" } else { &error.help };
            let problem = if node.referenced { "is no rule" } else { &error.problem };
            context.out.error(node.at, format!("`{key}`: {} {problem}", node.shown()), help);
            None
        }
    }
}

/// Warns of rules that begin with what is no part of the path that they judge: `prefix`, the route's own path or the
/// upstream's.
pub(super) fn warn_of_prefix(table: &Table, prefix: &str, whose: &str, context: &mut Context<'_>) {
    if prefix.is_empty() {
        return;
    }
    for node in ["allow", "deny"].into_iter().flat_map(|key| table.items(key)) {
        let Some(pattern) = node.as_text().and_then(|text| Pattern::parse(text).ok()) else { continue };
        let rest = pattern.path().strip_prefix(prefix);
        if !node.referenced && rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/')) {
            let message = format!(
                "{} begins with {whose}, `{prefix}`, which is no part of what rules judge",
                node.shown()
            );
            context.out.warn(
                node.at,
                message,
                "write what stands behind it, unless the upstream has it once more",
            );
        }
    }
}
