//! The file format as data: every table, every key, its kind of value, its default and what it is for.
//! Errors, the JSON Schema and the reference all come from this one description.

mod check;
mod cors_keys;
mod credential_keys;
mod keys;
mod reference;
mod route_keys;
mod schema;

pub(crate) use check::check;
pub(crate) use credential_keys::CREDENTIALS;
pub(crate) use keys::ROOT;
pub use reference::reference_markdown;
pub use schema::json_schema;

/// A table of the file.
pub(crate) struct TableFormat {
    /// What it is in the schema, and for a credential its `type`.
    pub(crate) name: &'static str,
    /// As a person would write it.
    pub(crate) heading: &'static str,
    /// What it is for.
    pub(crate) doc: &'static str,
    /// Its keys, in groups that several tables may share.
    pub(crate) keys: &'static [&'static [Key]],
    /// What it will be, if it is not there yet.
    pub(crate) later: Option<&'static str>,
}

/// A key of a table.
pub(crate) struct Key {
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    /// What it is for, in one line.
    pub(crate) doc: &'static str,
    /// What holds without it, as text; empty if that needs no words.
    pub(crate) default: &'static str,
    pub(crate) required: bool,
    /// What it will be, if it is not there yet.
    pub(crate) later: Option<&'static str>,
}

/// What values a key takes.
#[derive(Clone, Copy)]
pub(crate) enum Kind {
    /// Any text; the second word is an example.
    Text(&'static str),
    /// An http or https URL.
    Url,
    /// `{ env }`, `{ file }`, `{ exec }` or `{ value }`.
    Secret,
    Flag,
    /// Only `false`.
    Off,
    Integer {
        min: i64,
        max: i64,
    },
    Duration {
        zero: bool,
    },
    /// Bytes.
    Size {
        /// May it be 0, which turns it off?
        zero: bool,
    },
    /// Requests in a time.
    Rate,
    OneOf(&'static [Choice]),
    List(&'static Kind),
    /// The first alternative that fits.
    AnyOf(&'static [Kind]),
    Table(&'static TableFormat),
    /// A table of names, each with such a table.
    Named(&'static TableFormat),
    /// A table of free names, each with a text.
    Fields,
    /// A table whose `type` decides its keys.
    Credential,
    /// A table of names, each with a credential.
    Credentials,
}

/// A word that a key takes.
pub(crate) struct Choice {
    pub(crate) word: &'static str,
}

impl TableFormat {
    pub(crate) fn all_keys(&self) -> impl Iterator<Item = &'static Key> + use<> {
        self.keys.iter().copied().flatten()
    }

    pub(crate) fn key(&self, name: &str) -> Option<&'static Key> {
        self.all_keys().find(|key| key.name == name)
    }
}

impl Key {
    pub(crate) const fn new(name: &'static str, kind: Kind, doc: &'static str) -> Self {
        Self { name, kind, doc, default: "", required: false, later: None }
    }

    pub(crate) const fn default(self, default: &'static str) -> Self {
        Self { default, ..self }
    }

    pub(crate) const fn required(self) -> Self {
        Self { required: true, ..self }
    }

    #[allow(dead_code, reason = "for the next key that stands in the format before it is enforced")]
    pub(crate) const fn later(self, what: &'static str) -> Self {
        Self { later: Some(what), ..self }
    }
}

impl Choice {
    pub(crate) const fn new(word: &'static str) -> Self {
        Self { word }
    }
}

/// The four ways to write a secret, as every error tells them.
pub(crate) fn secret_help(key: &str) -> String {
    format!(
        "write {key} = {{ env = \"NAME\" }}, {{ file = \"PATH\" }}, {{ exec = [\"helper\"] }} or, knowingly, \
         {{ value = \"…\" }}"
    )
}

impl Kind {
    /// What may stand there, in words.
    pub(crate) fn describe(&self) -> String {
        match self {
            Self::Text(_) => "a string".into(),
            Self::Url => "a URL".into(),
            Self::Secret => "a secret".into(),
            Self::Flag => "true or false".into(),
            Self::Off => "false".into(),
            Self::Integer { min, max } => format!("a number from {min} to {max}"),
            Self::Duration { .. } => "a duration".into(),
            Self::Size { .. } => "a size".into(),
            Self::Rate => "a rate".into(),
            Self::OneOf(choices) => quoted(choices),
            Self::List(kind) => format!("a list, each {}", kind.describe()),
            Self::AnyOf(kinds) => kinds.iter().map(Self::describe).collect::<Vec<_>>().join(", or "),
            Self::Table(_) | Self::Credential => "a table".into(),
            Self::Named(_) | Self::Credentials => "a table of names".into(),
            Self::Fields => "a table of strings".into(),
        }
    }

    /// What to write, for an error's help.
    pub(crate) fn example(&self, key: &str) -> String {
        match self {
            Self::Text(example) => format!("write {key} = \"{example}\""),
            Self::Url => format!("write {key} = \"https://api.example.com\""),
            Self::Secret => secret_help(key),
            Self::Flag => format!("write {key} = true or {key} = false"),
            Self::Off => format!("write {key} = false"),
            Self::Integer { min, max } => format!("write a number from {min} to {max}"),
            Self::Duration { zero: true } => {
                "write one number and one unit: \"250ms\", \"30s\", \"5m\" or \"1h\"; or 0".into()
            }
            Self::Duration { zero: false } => {
                "write one number and one unit: \"250ms\", \"30s\", \"5m\" or \"1h\"".into()
            }
            Self::Size { zero: true } => {
                "write one number and one unit: \"512B\", \"64KiB\" or \"1MiB\"; or 0".into()
            }
            Self::Size { zero: false } => {
                "write one number and one unit: \"512B\", \"64KiB\" or \"1MiB\"".into()
            }
            Self::OneOf(choices) => format!("write {key} = {}", quoted(choices)),
            Self::Rate => {
                format!("write one number and one unit: {key} = \"20/s\", \"125/min\" or \"1000/h\"")
            }
            Self::List(kind) => match kind {
                Self::Text(example) => format!("write {key} = [\"{example}\"]"),
                Self::Integer { min, .. } => format!("write {key} = [{min}]"),
                _ => format!("write {key} = [ … ]"),
            },
            Self::AnyOf(kinds) => kinds.first().map(|kind| kind.example(key)).unwrap_or_default(),
            Self::Table(format) => format!("write it as a table: {}", format.heading),
            Self::Named(format) => format!("write {}", format.heading),
            Self::Fields => format!("write {key} = {{ name = \"value\" }}"),
            Self::Credential => format!("write {key} = {{ type = \"…\", … }}"),
            Self::Credentials => "write [credential.NAME]".into(),
        }
    }
}

/// `"a", "b" or "c"`
pub(crate) fn quoted(choices: &[Choice]) -> String {
    let words: Vec<String> = choices.iter().map(|choice| format!("\"{}\"", choice.word)).collect();
    match words.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
        _ => words.concat(),
    }
}
