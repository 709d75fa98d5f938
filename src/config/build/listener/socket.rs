//! Who may connect to a Unix socket: the mode, owner and group of its file.

use std::path::Path;

use crate::config::context::Context;
use crate::config::document::{Node, Table, Value};
use crate::config::{Access, Bind};

/// The keys that only a Unix socket has.
const KEYS: [&str; 3] = ["mode", "owner", "group"];

/// What kind of name is looked up.
struct Names {
    key: &'static str,
    file: &'static str,
    what: &'static str,
}

const USERS: Names = Names { key: "owner", file: "/etc/passwd", what: "user" };
const GROUPS: Names = Names { key: "group", file: "/etc/group", what: "group" };

/// What the table says; none if anything in it is wrong, which is reported.
pub(super) fn access(table: Option<&Table>, context: &mut Context<'_>) -> Option<Access> {
    let Some(table) = table else { return Some(Access::default()) };
    let owner = id(table, &USERS, context);
    let group = id(table, &GROUPS, context);
    let mode = match table.get("mode") {
        Some(node) => permission_bits(node, context)?,
        // A group that is named is meant to connect.
        None if table.has("group") => 0o660,
        None => Access::default().mode,
    };
    Some(Access { mode, owner: owner?, group: group? })
}

/// The keys that the table has.
pub(super) fn given(table: Option<&Table>) -> Vec<&'static str> {
    KEYS.into_iter().filter(|key| table.is_some_and(|table| table.has(key))).collect()
}

/// The first of these keys that says something else here than there.
pub(super) fn difference(keys: &[&'static str], here: &Bind, there: &Bind) -> Option<&'static str> {
    let (Bind::Unix { access: here, .. }, Bind::Unix { access: there, .. }) = (here, there) else {
        return None;
    };
    let differs = [here.mode != there.mode, here.owner != there.owner, here.group != there.group];
    KEYS.into_iter().zip(differs).find_map(|(key, differs)| (differs && keys.contains(&key)).then_some(key))
}

/// `Some(None)` if it is not given; none if it is wrong.
fn id(table: &Table, names: &Names, context: &mut Context<'_>) -> Option<Option<u32>> {
    let Some(node) = table.get(names.key) else { return Some(None) };
    match &node.value {
        Value::Integer(Some(number)) => u32::try_from(*number).ok().map(Some),
        Value::Text(text) => named(text, node, names, context).map(Some),
        _ => None,
    }
}

fn named(text: &str, node: &Node, names: &Names, context: &mut Context<'_>) -> Option<u32> {
    let Names { key, file, what } = names;
    // An environment variable holds a number as text.
    if let Some(id) = number(text) {
        return Some(id);
    }
    let found =
        std::fs::read(Path::new(file)).ok().and_then(|list| id_of(text, &String::from_utf8_lossy(&list)));
    match found {
        Some(id) => Some(id),
        // It is another machine's name.
        None if !context.check_secrets => Some(0),
        None => {
            let message = format!("`{key}`: there is no {what} {} in {file}", node.shown());
            context.out.error(node.at, message, format!("write its number, as {key} = 1000"));
            None
        }
    }
}

/// Pure. A user's or group's number. The last one of all means none at all to the system.
fn number(text: &str) -> Option<u32> {
    let digits = text.bytes().all(|b| b.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten().filter(|id| *id != u32::MAX)
}

/// Pure. The number of a name in the lines of `/etc/passwd` or `/etc/group` (passwd(5), group(5)).
fn id_of(name: &str, list: &str) -> Option<u32> {
    list.lines().find_map(|line| {
        let mut fields = line.split(':');
        let is_it = !name.is_empty() && fields.next() == Some(name);
        is_it.then(|| fields.nth(1).and_then(number)).flatten()
    })
}

fn permission_bits(node: &Node, context: &mut Context<'_>) -> Option<u32> {
    let text = node.as_text()?;
    let bits = u32::from_str_radix(text, 8).ok().filter(|bits| *bits <= 0o777 && matches!(text.len(), 3 | 4));
    if bits.is_none() {
        let message = format!("`mode`: {} is not permission bits", node.shown());
        context.out.error(node.at, message, "write three octal digits after a 0, as mode = \"0660\"");
    }
    bits
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_found_in_the_systems_lists() {
        let users = "# comment\nroot:x:0:0:root:/root:/bin/sh\napp:x:1000:1001::/:/bin/false\nbroken\nempty:x::1::\n\
                     last:x:4294967295:1::\n";
        let groups = "root:x:0:\nweb:x:33:app,root\n+::::\n";
        let cases = [
            ("root", users, Some(0)),
            ("app", users, Some(1000)),
            ("ap", users, None),
            ("app:x", users, None),
            ("broken", users, None),
            ("empty", users, None),
            ("last", users, None),
            ("", users, None),
            ("#", users, None),
            ("web", groups, Some(33)),
            ("app", groups, None),
            ("+", groups, None),
        ];
        for (name, list, want) in cases {
            assert_eq!(id_of(name, list), want, "{name:?}");
        }
    }

    #[test]
    fn a_number_is_digits_and_not_the_one_that_means_none() {
        for (text, want) in
            [("0", Some(0)), ("1000", Some(1000)), ("4294967294", Some(u32::MAX - 1)), ("4294967295", None)]
        {
            assert_eq!(number(text), want, "{text}");
        }
        for text in ["", "-1", "+1", "1 ", "0x10", "99999999999"] {
            assert_eq!(number(text), None, "{text:?}");
        }
    }
}
