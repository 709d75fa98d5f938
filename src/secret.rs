//! Secrets: a value that cannot be printed, and the places one can come from.

pub mod fingerprint;
pub mod key;
pub mod likeness;
pub mod reader;

use std::fmt;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

/// A secret text: zeroized when dropped, redacted in `Debug`, without `Display` or `Serialize`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Takes a text as a secret.
    pub fn new(text: impl Into<String>) -> Self {
        Self(Zeroizing::new(text.into()))
    }

    /// The text itself: the only way to it, so that every use can be found by this name.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// The same text as bytes that can be shared: wiped when the last of them is dropped.
    pub fn into_bytes(self) -> Bytes {
        Bytes::from_owner(Wiped(self))
    }

    /// Can it travel in every header that may carry it: is it one word of visible ASCII?
    pub fn is_word(&self) -> bool {
        self.0.bytes().all(|byte| byte.is_ascii_graphic())
    }

    /// Is this it? Takes as long for a nearly right guess as for a wrong one.
    pub fn is(&self, guess: &[u8]) -> bool {
        self.0.as_bytes().ct_eq(guess).into()
    }
}

/// What shared bytes are bytes of.
struct Wiped(Secret);

impl AsRef<[u8]> for Wiped {
    fn as_ref(&self) -> &[u8] {
        self.0.expose().as_bytes()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// Where a secret comes from. Read anew each time, so that a rotated one is picked up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SecretSource {
    /// An environment variable, by name.
    Env(String),
    /// A file; one trailing newline is cut.
    File(PathBuf),
    /// The standard output of a command, run without a shell; one trailing newline is cut.
    Exec(CommandLine),
    /// Written into the configuration itself.
    Value(Secret),
}

impl SecretSource {
    /// The file that it is in; none where it is elsewhere.
    pub fn file(&self) -> Option<&Path> {
        match self {
            Self::File(path) => Some(path),
            Self::Exec(_) | Self::Env(_) | Self::Value(_) => None,
        }
    }
}

/// A program and its arguments. Only the program is ever shown: an argument may be private.
#[derive(Clone, PartialEq, Eq)]
pub struct CommandLine(Vec<String>);

impl CommandLine {
    /// The program; empty where there is none.
    pub fn program(&self) -> &str {
        self.0.first().map_or("", String::as_str)
    }

    /// The program for a message; left out where it looks like the secret itself.
    pub fn shown(&self) -> String {
        likeness::masked(self.program()).into_owned()
    }

    /// Its arguments.
    pub fn arguments(&self) -> &[String] {
        self.0.get(1..).unwrap_or_default()
    }
}

impl From<Vec<String>> for CommandLine {
    fn from(words: Vec<String>) -> Self {
        Self(words)
    }
}

impl fmt::Debug for CommandLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} …", self.shown())
    }
}

/// Why a secret could not be read. Never holds any of it.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The environment variable is not set.
    #[error("the environment variable {0} is not set")]
    Unset(String),
    /// The environment variable or file or output is empty.
    #[error("{0} is empty")]
    Empty(String),
    /// Not UTF-8.
    #[error("{0} is not UTF-8 text")]
    NotText(String),
    /// A control character, most often a second line.
    #[error("{0} holds a control character (a line break inside?); a secret is one line of text")]
    ControlCharacter(String),
    /// A control character that no text of several lines has.
    #[error("{0} holds a control character; such a key is plain text of several lines (PEM)")]
    NotPlain(String),
    /// Spaces, or letters beyond ASCII, where one word is needed.
    #[error("{0} is not one word of visible ASCII")]
    NotAWord(String),
    /// The path names a directory.
    #[error("{} is a directory; name the file in it", .0.display())]
    Directory(PathBuf),
    /// The path names a pipe or a device.
    #[error("{} is a pipe or a device, not a file", .0.display())]
    NotAFile(PathBuf),
    /// The file could not be read.
    #[error("cannot read {}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// Larger than any secret is.
    #[error("{0} is larger than {MAX_SECRET_BYTES} bytes; is it the right one?")]
    TooLarge(String),
    /// The command could not be started or failed.
    #[error("the command {command:?} failed: {reason}")]
    Command {
        /// The program, without its arguments, which may be private.
        command: String,
        /// What happened, without the command's own output.
        reason: String,
    },
}

/// The most that a secret file or command may give, in bytes.
pub const MAX_SECRET_BYTES: usize = 64 * 1024;

/// Cuts one trailing newline and refuses what cannot be a secret.
pub fn clean(bytes: Vec<u8>, what: &str) -> Result<Secret, SecretError> {
    let bytes = Zeroizing::new(bytes);
    if bytes.len() > MAX_SECRET_BYTES {
        return Err(SecretError::TooLarge(what.to_owned()));
    }
    let text = std::str::from_utf8(&bytes).map_err(|_| SecretError::NotText(what.to_owned()))?;
    let text = text.strip_suffix('\n').map_or(text, |cut| cut.strip_suffix('\r').unwrap_or(cut));
    if text.is_empty() {
        return Err(SecretError::Empty(what.to_owned()));
    }
    if text.chars().any(char::is_control) {
        return Err(SecretError::ControlCharacter(what.to_owned()));
    }
    Ok(Secret::new(text))
}

/// The same for a secret of several lines, such as a key in PEM: line breaks and tabs stay as they are.
pub fn clean_text(bytes: Vec<u8>, what: &str) -> Result<Secret, SecretError> {
    let bytes = Zeroizing::new(bytes);
    if bytes.len() > MAX_SECRET_BYTES {
        return Err(SecretError::TooLarge(what.to_owned()));
    }
    let text = std::str::from_utf8(&bytes).map_err(|_| SecretError::NotText(what.to_owned()))?;
    if text.trim().is_empty() {
        return Err(SecretError::Empty(what.to_owned()));
    }
    if text.chars().any(|c| c.is_control() && !matches!(c, '\n' | '\r' | '\t')) {
        return Err(SecretError::NotPlain(what.to_owned()));
    }
    Ok(Secret::new(text))
}

/// Reads a secret file: one line of text, at most [`MAX_SECRET_BYTES`].
pub fn read_file(path: &Path) -> Result<Secret, SecretError> {
    clean(bytes_of(path, MAX_SECRET_BYTES)?, &path.display().to_string())
}

/// Reads a secret file of several lines, at most [`MAX_SECRET_BYTES`].
pub fn read_text_file(path: &Path) -> Result<Secret, SecretError> {
    clean_text(bytes_of(path, MAX_SECRET_BYTES)?, &path.display().to_string())
}

/// Reads a file whole, or one byte more than `limit` of it. A pipe, a device or a directory is an error.
pub(crate) fn bytes_of(path: &Path, limit: usize) -> Result<Vec<u8>, SecretError> {
    use std::io::Read as _;
    let unreadable = |source| SecretError::Unreadable { path: path.to_owned(), source };
    let meta = std::fs::metadata(path).map_err(unreadable)?;
    if meta.is_dir() {
        return Err(SecretError::Directory(path.to_owned()));
    }
    // Opening a pipe would wait for its writer, perhaps for ever.
    if !meta.is_file() {
        return Err(SecretError::NotAFile(path.to_owned()));
    }
    let file = std::fs::File::open(path).map_err(unreadable)?;
    // One allocation of the final size: a growing buffer would leave copies behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(limit + 1));
    file.take(limit as u64 + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    Ok(std::mem::take(&mut *bytes))
}

/// Reads a secret environment variable.
pub fn read_env(name: &str) -> Result<Secret, SecretError> {
    let value = std::env::var_os(name).ok_or_else(|| SecretError::Unset(name.to_owned()))?;
    clean(value.into_encoded_bytes(), &variable(name))
}

/// Reads a secret environment variable of several lines.
pub fn read_text_env(name: &str) -> Result<Secret, SecretError> {
    let value = std::env::var_os(name).ok_or_else(|| SecretError::Unset(name.to_owned()))?;
    clean_text(value.into_encoded_bytes(), &variable(name))
}

/// What errors call an environment variable.
pub(crate) fn variable(name: &str) -> String {
    format!("the environment variable {name}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_trailing_newline_is_cut_and_any_other_control_character_refused() {
        let cases: [(&str, Option<&str>); 8] = [
            ("s3cret", Some("s3cret")),
            ("s3cret\n", Some("s3cret")),
            ("s3cret\r\n", Some("s3cret")),
            ("s3cret\n\n", None),
            ("two\nlines", None),
            ("tab\there", None),
            ("", None),
            ("\n", None),
        ];
        for (given, want) in cases {
            let got = clean(given.as_bytes().to_vec(), "x").ok();
            assert_eq!(got.as_ref().map(Secret::expose), want, "{given:?}");
        }
    }

    #[test]
    fn a_text_keeps_its_lines_and_may_hold_no_other_control_character() {
        let pem = "-----BEGIN PRIVATE KEY-----\r\n\tMIIE\n-----END PRIVATE KEY-----\n";
        let cases = [(pem, true), ("one line", true), ("", false), (" \n\n", false), ("a\0b", false)];
        for (given, good) in cases {
            let got = clean_text(given.as_bytes().to_vec(), "x").ok();
            assert_eq!(got.as_ref().map(Secret::expose), good.then_some(given), "{given:?}");
        }
        assert!(matches!(clean_text(vec![0xff], "x"), Err(SecretError::NotText(_))));
        assert!(matches!(clean_text(vec![b'a'; MAX_SECRET_BYTES + 1], "x"), Err(SecretError::TooLarge(_))));
    }

    #[test]
    fn debug_shows_nothing() {
        assert_eq!(format!("{:?}", Secret::new("canary")), "Secret(…)");
        assert!(!format!("{:?}", SecretSource::Value(Secret::new("canary"))).contains("canary"));
        let command = CommandLine::from(vec!["helper".to_owned(), "canary".to_owned()]);
        assert_eq!(format!("{command:?}"), "\"helper\" …");
    }
}
