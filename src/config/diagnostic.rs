//! What is wrong with a configuration, where, and what to write instead. Nothing in here ever holds a secret.

use std::borrow::Cow;
use std::fmt;

use crate::secret::likeness::masked;

/// Where a diagnostic points.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// The source as a whole: a file that cannot be read, an environment that says nothing.
    Whole,
    /// A place in the file.
    Text {
        /// Counted from 1.
        line: usize,
        /// Counted from 1, in characters.
        column: usize,
    },
    /// An environment variable, where the environment is the configuration or overrides the file.
    Variable(&'static str),
}

/// One thing that is wrong, or worth a warning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// The file as it was named, or `environment`.
    pub file: String,
    /// Where in it.
    pub place: Place,
    /// What is wrong, in a few words.
    pub message: String,
    /// What to write instead; may be empty.
    pub help: String,
}

impl fmt::Display for Diagnostic {
    /// `sidekey.toml:12:5: what is wrong; what to write`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Place::Whole => write!(f, "{}: ", self.file)?,
            Place::Text { line, column } => write!(f, "{}:{line}:{column}: ", self.file)?,
            Place::Variable(name) => write!(f, "environment: {name}: ")?,
        }
        f.write_str(&self.message)?;
        if !self.help.is_empty() {
            write!(f, "; {}", self.help)?;
        }
        Ok(())
    }
}

/// Every error of a configuration, sorted by place: one line each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// The errors; at least one.
    pub errors: Vec<Diagnostic>,
    /// What was worth a warning besides.
    pub warnings: Vec<Diagnostic>,
    /// Files that texts were taken from, or were to be: mended, they may mend it.
    pub text_files: Vec<std::path::PathBuf>,
}

impl Report {
    /// A report of a single error about the source as a whole.
    pub(crate) fn whole(file: &str, message: impl Into<String>, help: impl Into<String>) -> Self {
        let error = Diagnostic {
            file: file.to_owned(),
            place: Place::Whole,
            message: message.into(),
            help: help.into(),
        };
        Self { errors: vec![error], warnings: Vec::new(), text_files: Vec::new() }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.errors.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            error.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for Report {}

/// Where a piece of the tree came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum At {
    /// A byte offset in the file.
    Byte(usize),
    /// A variable of the environment.
    Variable(&'static str),
    /// Nowhere in particular.
    Whole,
}

/// Collects diagnostics, so that all of them can be told at once.
pub(crate) struct Collector {
    file: String,
    text: String,
    errors: Vec<Diagnostic>,
    warnings: Vec<Diagnostic>,
}

impl Collector {
    pub(crate) fn new(file: &str, text: &str) -> Self {
        Self { file: file.to_owned(), text: text.to_owned(), errors: Vec::new(), warnings: Vec::new() }
    }

    pub(crate) fn error(&mut self, at: At, message: impl Into<String>, help: impl Into<String>) {
        let diagnostic = self.diagnostic(at, message.into(), help.into());
        if !self.errors.contains(&diagnostic) {
            self.errors.push(diagnostic);
        }
    }

    pub(crate) fn warn(&mut self, at: At, message: impl Into<String>, help: impl Into<String>) {
        let diagnostic = self.diagnostic(at, message.into(), help.into());
        if !self.warnings.contains(&diagnostic) {
            self.warnings.push(diagnostic);
        }
    }

    pub(crate) fn has_errors(&self) -> bool {
        !self.errors.is_empty()
    }

    /// ` (line 12)`, or nothing where there is no line.
    pub(crate) fn line_hint(&self, at: At) -> String {
        match self.place(at) {
            Place::Text { line, .. } => format!(" (line {line})"),
            _ => String::new(),
        }
    }

    /// Drops what follows from an error on the same line, such as a broken value's missing key.
    pub(crate) fn keep_first_of_each_line(&mut self) {
        let mut seen = Vec::new();
        self.errors.retain(|error| match error.place {
            Place::Text { line, .. } if seen.contains(&line) => false,
            Place::Text { line, .. } => {
                seen.push(line);
                true
            }
            _ => true,
        });
    }

    /// The result if nothing is wrong, with the warnings; else the report.
    pub(crate) fn finish<T>(mut self, result: Option<T>) -> Result<(T, Vec<Diagnostic>), Report> {
        self.errors.sort_by(|a, b| a.place.cmp(&b.place));
        self.warnings.sort_by(|a, b| a.place.cmp(&b.place));
        match result {
            Some(value) if self.errors.is_empty() => Ok((value, self.warnings)),
            _ => {
                if self.errors.is_empty() {
                    // A conversion that gave up must have said why; if not, it must not pass for well either.
                    let error = self.diagnostic(At::Whole, "cannot be used".into(), String::new());
                    self.errors.push(error);
                }
                Err(Report { errors: self.errors, warnings: self.warnings, text_files: Vec::new() })
            }
        }
    }

    fn diagnostic(&self, at: At, message: String, help: String) -> Diagnostic {
        // A secret that stands where a name belongs would be quoted as that name.
        let shown = |text: String| match masked(&text) {
            Cow::Borrowed(_) => text,
            Cow::Owned(masked) => masked,
        };
        Diagnostic {
            file: self.file.clone(),
            place: self.place(at),
            message: shown(message),
            help: shown(help),
        }
    }

    fn place(&self, at: At) -> Place {
        match at {
            At::Whole => Place::Whole,
            At::Variable(name) => Place::Variable(name),
            At::Byte(offset) => {
                let before = self.text.get(..offset).unwrap_or(&self.text);
                let line = before.matches('\n').count() + 1;
                let start = before.rfind('\n').map_or(0, |newline| newline + 1);
                let column = before.get(start..).map_or(0, |text| text.chars().count()) + 1;
                Place::Text { line, column }
            }
        }
    }
}

/// The known name nearest to a mistaken one, if one is near enough to be meant.
pub(crate) fn nearest<'a>(given: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let given = given.to_lowercase();
    known
        .into_iter()
        .map(|name| (strsim::damerau_levenshtein(&given, &name.to_lowercase()), name))
        .filter(|(distance, name)| *distance <= 1 + name.len().min(given.len()) / 4)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}

/// `` `a`, `b` or `c` ``
pub(crate) fn alternatives<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    let quoted: Vec<String> = names.into_iter().map(|name| format!("`{name}`")).collect();
    match quoted.split_last() {
        Some((last, [])) => last.clone(),
        Some((last, rest)) => format!("{} or {last}", rest.join(", ")),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_counted_in_characters_from_one() {
        let mut collector = Collector::new("f", "é = 1\nünï = 2\n");
        let offset = "é = 1\nünï = ".len();
        collector.error(At::Byte(offset), "here", "");
        let report = collector.finish(Some(())).unwrap_err();
        assert_eq!(report.to_string(), "f:2:7: here");
    }

    #[test]
    fn errors_come_out_in_the_order_of_the_file() {
        let mut collector = Collector::new("f", "a\nb\n");
        collector.error(At::Byte(2), "second", "do that");
        collector.error(At::Byte(0), "first", "");
        collector.error(At::Whole, "all", "");
        let report = collector.finish::<()>(None).unwrap_err();
        assert_eq!(report.to_string(), "f: all\nf:1:1: first\nf:2:1: second; do that");
    }

    #[test]
    fn a_name_is_near_only_if_it_could_be_meant() {
        let known = ["path", "upstream", "host"];
        let cases = [
            ("pth", Some("path")),
            ("Upstream", Some("upstream")),
            ("upstraem", Some("upstream")),
            ("colour", None),
        ];
        for (given, want) in cases {
            assert_eq!(nearest(given, known), want, "{given}");
        }
    }
}
