//! The file as a tree that knows where each piece stands, and typed readers for it.

use std::time::Duration;

use toml::Spanned;
use toml::de::{DeInteger, DeTable, DeValue};

use super::diagnostic::{At, Collector};
use super::units;

/// A value and where it stands. Without `Debug`: it may hold a secret.
#[derive(Clone)]
pub(crate) struct Node {
    pub(crate) at: At,
    pub(crate) value: Value,
    /// Came from a variable or a file by reference: its text is never shown.
    pub(crate) referenced: bool,
}

/// What a value can be.
#[derive(Clone)]
pub(crate) enum Value {
    Text(String),
    /// None: too large for any use.
    Integer(Option<i64>),
    Flag(bool),
    List(Vec<Node>),
    Table(Table),
    /// A float, date or time: nothing in the format takes one.
    Other(&'static str),
    /// Wrong, and already reported.
    Broken,
}

/// A table's entries in the order of the file.
#[derive(Clone)]
pub(crate) struct Table {
    pub(crate) at: At,
    pub(crate) entries: Vec<Entry>,
}

/// A key, where it stands, and its value.
#[derive(Clone)]
pub(crate) struct Entry {
    pub(crate) key: String,
    pub(crate) at: At,
    pub(crate) node: Node,
}

/// Reads TOML, with best effort: syntax errors are recorded without the line's content, which may hold a
/// secret. Says whether the tree is whole: a duplicate key leaves it so, any other syntax error does not.
pub(crate) fn parse(text: &str, out: &mut Collector) -> (Table, bool) {
    let (root, errors) = DeTable::parse_recoverable(text);
    let mut whole = true;
    for error in errors {
        let at = At::Byte(error.span().map_or(0, |span| span.start));
        if error.message() == "duplicate key" {
            out.error(at, "this key is already there", "keep one of the two");
        } else {
            whole = false;
            out.error(at, format!("not TOML: {}", error.message()), "");
        }
    }
    (table(At::Byte(0), root.get_ref()), whole)
}

fn table(at: At, entries: &DeTable<'_>) -> Table {
    let mut ordered: Vec<_> = entries.iter().collect();
    ordered.sort_by_key(|(key, _)| key.span().start);
    let entries = ordered.into_iter().map(|(key, value)| {
        let at = At::Byte(key.span().start);
        Entry { key: key.get_ref().to_string(), at, node: node(at, value) }
    });
    Table { at, entries: entries.collect() }
}

fn node(key: At, spanned: &Spanned<DeValue<'_>>) -> Node {
    let at = At::Byte(spanned.span().start);
    let value = match spanned.get_ref() {
        DeValue::String(text) => Value::Text(text.to_string()),
        DeValue::Integer(number) => Value::Integer(integer(number)),
        DeValue::Boolean(flag) => Value::Flag(*flag),
        DeValue::Array(items) => Value::List(items.iter().map(|item| node(at, item)).collect()),
        DeValue::Table(entries) => Value::Table(table(key, entries)),
        DeValue::Float(_) => Value::Other("a number with a fraction"),
        DeValue::Datetime(_) => Value::Other("a date or time"),
    };
    // A `[header]`'s own span begins at its bracket, and an implied table has none: its name is the place.
    let at = if matches!(value, Value::Table(_)) { key } else { at };
    Node { at, value, referenced: false }
}

fn integer(number: &DeInteger<'_>) -> Option<i64> {
    i64::from_str_radix(number.as_str(), number.radix()).ok()
}

impl Node {
    pub(crate) fn text(at: At, text: impl Into<String>) -> Self {
        Self { at, value: Value::Text(text.into()), referenced: false }
    }

    pub(crate) fn flag(at: At, flag: bool) -> Self {
        Self { at, value: Value::Flag(flag), referenced: false }
    }

    pub(crate) fn list(at: At, items: Vec<Node>) -> Self {
        Self { at, value: Value::List(items), referenced: false }
    }

    pub(crate) fn table(at: At, entries: Vec<(&str, Node)>) -> Self {
        let entries =
            entries.into_iter().map(|(key, node)| Entry { key: key.to_owned(), at: node.at, node }).collect();
        Self { at, value: Value::Table(Table { at, entries }), referenced: false }
    }

    pub(crate) fn as_text(&self) -> Option<&str> {
        match &self.value {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    pub(crate) fn as_table(&self) -> Option<&Table> {
        match &self.value {
            Value::Table(table) => Some(table),
            _ => None,
        }
    }

    /// One, or each of a list.
    pub(crate) fn items(&self) -> Vec<&Node> {
        match &self.value {
            Value::List(items) => items.iter().collect(),
            Value::Broken => Vec::new(),
            _ => vec![self],
        }
    }

    /// What kind of value it is, as a person would say.
    pub(crate) fn what(&self) -> &'static str {
        match &self.value {
            Value::Text(_) => "a string",
            Value::Integer(_) => "a number",
            Value::Flag(true) => "true",
            Value::Flag(false) => "false",
            Value::List(_) => "a list",
            Value::Table(_) => "a table",
            Value::Other(what) => what,
            Value::Broken => "broken",
        }
    }

    /// The offending text for a message; what might hold a secret is only described.
    pub(crate) fn shown(&self) -> String {
        match &self.value {
            Value::Text(text) if self.referenced || text.contains(['@', '?', '#']) => {
                "this value (not shown)".to_owned()
            }
            Value::Text(text) if text.chars().count() > 60 => {
                format!("`{}…`", text.chars().take(40).collect::<String>().escape_debug())
            }
            Value::Text(text) => format!("`{}`", text.escape_debug()),
            Value::Integer(Some(number)) => format!("`{number}`"),
            _ => self.what().to_owned(),
        }
    }
}

impl Table {
    pub(crate) fn entry(&self, key: &str) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.key == key)
    }

    pub(crate) fn get(&self, key: &str) -> Option<&Node> {
        self.entry(key).map(|entry| &entry.node)
    }

    pub(crate) fn has(&self, key: &str) -> bool {
        self.entry(key).is_some()
    }

    /// Where the key stands, or the table if it is not there.
    pub(crate) fn place_of(&self, key: &str) -> At {
        self.entry(key).map_or(self.at, |entry| entry.at)
    }

    /// Puts a value in the place of what was there.
    pub(crate) fn set(&mut self, key: &str, node: Node) {
        self.entries.retain(|entry| entry.key != key);
        self.entries.push(Entry { key: key.to_owned(), at: node.at, node });
    }

    /// The table of that name, made if there is none.
    pub(crate) fn table_mut(&mut self, key: &str) -> Option<&mut Table> {
        if !self.has(key) {
            self.set(key, Node::table(self.at, Vec::new()));
        }
        let entry = self.entries.iter_mut().find(|entry| entry.key == key)?;
        match &mut entry.node.value {
            Value::Table(table) => Some(table),
            _ => None,
        }
    }

    // The readers: what is malformed was reported when the format was checked, so they need say nothing.

    pub(crate) fn text(&self, key: &str) -> Option<&str> {
        self.get(key)?.as_text()
    }

    pub(crate) fn table(&self, key: &str) -> Option<&Table> {
        self.get(key)?.as_table()
    }

    pub(crate) fn flag(&self, key: &str, default: bool) -> bool {
        match self.get(key).map(|node| &node.value) {
            Some(Value::Flag(flag)) => *flag,
            _ => default,
        }
    }

    pub(crate) fn integer(&self, key: &str) -> Option<i64> {
        match self.get(key)?.value {
            Value::Integer(number) => number,
            _ => None,
        }
    }

    pub(crate) fn duration(&self, key: &str) -> Option<Duration> {
        match &self.get(key)?.value {
            Value::Text(text) => units::duration(text).ok(),
            Value::Integer(Some(0)) => Some(Duration::ZERO),
            _ => None,
        }
    }

    /// A number that is not negative.
    pub(crate) fn count(&self, key: &str) -> Option<usize> {
        usize::try_from(self.integer(key)?).ok()
    }

    pub(crate) fn size(&self, key: &str) -> Option<usize> {
        match &self.get(key)?.value {
            Value::Text(text) => units::size(text).ok(),
            Value::Integer(Some(0)) => Some(0),
            _ => None,
        }
    }

    /// One value or a list of them; none if the key is not there.
    pub(crate) fn items(&self, key: &str) -> Vec<&Node> {
        self.get(key).map(Node::items).unwrap_or_default()
    }

    /// The tables in a table of names, such as each `[route.NAME]`.
    pub(crate) fn named(&self, key: &str) -> Vec<(&Entry, &Table)> {
        let entries = self.table(key).map(|table| table.entries.as_slice()).unwrap_or_default();
        entries.iter().filter_map(|entry| Some((entry, entry.node.as_table()?))).collect()
    }
}
