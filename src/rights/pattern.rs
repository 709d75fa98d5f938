//! One rule: `GET /v1/instances/*`.

use std::sync::Arc;

use http::Method;

use super::walk::{Generous, Readings, Segment, Strict, escaped, walk};

/// Methods and a path, compiled. Matching allocates nothing and takes no longer than path times pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern {
    text: Arc<str>,
    /// Empty: any.
    methods: Box<[Method]>,
    segments: Box<[Segment]>,
}

/// Why a text is no pattern, and what to write instead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PatternError {
    /// What is wrong with it, to be read behind the text itself.
    pub problem: String,
    /// What to write.
    pub help: String,
}

/// The methods that a rule may name. CONNECT and TRACE are never forwarded.
const METHODS: [&str; 18] = [
    "GET",
    "HEAD",
    "POST",
    "PUT",
    "PATCH",
    "DELETE",
    "OPTIONS",
    "QUERY",
    "PROPFIND",
    "PROPPATCH",
    "MKCOL",
    "COPY",
    "MOVE",
    "LOCK",
    "UNLOCK",
    "REPORT",
    "SEARCH",
    "PURGE",
];

/// How many differences a name may have and still be taken for a misspelling of another.
const MISSPELLED: usize = 2;

fn wrong(problem: impl Into<String>, help: impl Into<String>) -> PatternError {
    PatternError { problem: problem.into(), help: help.into() }
}

impl Pattern {
    /// `METHOD /path`, `METHOD,METHOD /path`, `* /path`, or a path alone, which is for every method; `**` is every
    /// path.
    ///
    /// # Errors
    /// What is wrong with the text, and what to write instead.
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        let words: Vec<&str> = text.split_whitespace().collect();
        let (methods, path) = match *words.as_slice() {
            [path] if path.starts_with('/') || path == "**" => ("*", path),
            [word] if methods(word).is_ok() => {
                return Err(wrong("has no path", format!("write \"{word} /**\" for every path")));
            }
            [word] if word.contains('/') && word.find('/').is_some_and(|at| methods(&word[..at]).is_ok()) => {
                let help = format!("write \"{}\"", word.replacen('/', " /", 1));
                return Err(wrong("has no space between method and path", help));
            }
            [path] => return Err(no_slash("*", path)),
            [] => return Err(wrong("is empty", "write \"GET /v1/instances/*\", say")),
            [methods, path] if !methods.ends_with(',') => (methods, path),
            [ref list @ .., path]
                if list.iter().any(|word| word.ends_with(',') || word.starts_with(','))
                    && methods_of(&list.concat()).is_some() =>
            {
                let help = format!("write \"{} {path}\"", list.concat());
                return Err(wrong("has a space in the list of methods", help));
            }
            _ => {
                let help =
                    "write one method and one path, \"GET /v1/instances/*\", and a space of the path as %20";
                return Err(wrong("has more than one space", help));
            }
        };
        let compiled = self::methods(methods)?;
        let segments = segments(methods, path)?;
        Ok(Self { text: text.into(), methods: compiled.into(), segments: segments.into() })
    }

    /// The rule as it is written.
    pub fn text(&self) -> &Arc<str> {
        &self.text
    }

    /// Its path as it is written.
    pub fn path(&self) -> &str {
        self.text.split_whitespace().last().unwrap_or_default()
    }

    /// Does the rule surely mean this request? `path`: normalized, without the query.
    ///
    /// Each character must be written as the rule has it; no segment may be empty but where the rule ends in `/` or
    /// says `**`; and `*` stands for no parameters (`;…`), which some servers cut off.
    pub fn allows(&self, method: &Method, path: &str) -> bool {
        self.is_for(|named| named == method || (named == Method::GET && method == Method::HEAD))
            && path.strip_prefix('/').is_some_and(|path| walk(&self.segments, path.split('/'), &Strict))
    }

    /// Could the rule mean this request, for any server? `path`: normalized, without the query.
    ///
    /// Letters in either case, escapes and what they stand for, empty segments and a slash at the end, parameters
    /// (`;…`) and encoded slashes: each is read in every way in which servers do.
    pub fn denies(&self, method: &Method, path: &str) -> bool {
        let is_meant = |named: &Method| {
            named.as_str().eq_ignore_ascii_case(method.as_str())
                || (named == Method::GET && method.as_str().eq_ignore_ascii_case("HEAD"))
        };
        if !self.is_for(is_meant) {
            return false;
        }
        let reads = |cut, split| walk(&self.segments, Readings { rest: path, cut, split }, &Generous);
        if !path.contains(['%', ';']) {
            return reads(0, 1);
        }
        // Plain, encoded once, twice, or however often: a server decodes as often as it does, and what is left then is
        // content.
        let widths = [1, 3, 5, usize::MAX];
        [0].into_iter().chain(widths).any(|cut| widths.into_iter().any(|split| reads(cut, split)))
    }

    fn is_for(&self, is_meant: impl FnMut(&Method) -> bool) -> bool {
        self.methods.is_empty() || self.methods.iter().any(is_meant)
    }
}

fn methods_of(text: &str) -> Option<Vec<Method>> {
    methods(text).ok()
}

/// The methods that a list names; none: any.
fn methods(text: &str) -> Result<Vec<Method>, PatternError> {
    if text == "*" {
        return Ok(Vec::new());
    }
    text.split(',').map(method).collect()
}

fn method(name: &str) -> Result<Method, PatternError> {
    let upper = name.to_ascii_uppercase();
    if matches!(upper.as_str(), "CONNECT" | "TRACE") {
        return Err(wrong(format!("names {upper}"), format!("remove it: {upper} is never forwarded")));
    }
    if METHODS.contains(&upper.as_str()) {
        if upper != name {
            return Err(wrong(format!("has the method `{name}` in lower case"), format!("write {upper}")));
        }
        return Method::from_bytes(name.as_bytes()).map_err(|_| wrong("names no method", "write GET"));
    }
    if name == "*" || name.is_empty() {
        let help = "write \"GET,POST /path\", or \"* /path\" for every method";
        return Err(wrong("has no list of methods before its path", help));
    }
    let near = METHODS.iter().map(|known| (strsim::damerau_levenshtein(known, &upper), known)).min();
    let help = match near {
        Some((far, known)) if far <= MISSPELLED => format!("write {known}"),
        _ => "write GET, HEAD, POST, PUT, PATCH, DELETE or OPTIONS, several with commas, or * for all"
            .to_owned(),
    };
    Err(wrong(format!("has the method `{}`, which is none", name.escape_debug()), help))
}

fn no_slash(methods: &str, path: &str) -> PatternError {
    let methods = if methods == "*" { "GET" } else { methods };
    wrong("has no path that begins with `/`", format!("write \"{methods} /{}\"", path.escape_debug()))
}

fn segments(methods: &str, path: &str) -> Result<Vec<Segment>, PatternError> {
    let path = if path == "**" { "/**" } else { path };
    let Some(below) = path.strip_prefix('/') else {
        return Err(no_slash(methods, path));
    };
    if path.contains('?') {
        return Err(wrong("has a query", "remove the `?` and what follows: only the path is judged"));
    }
    if path.contains('#') {
        return Err(wrong("has a fragment", "remove the `#` and what follows: it is never sent"));
    }
    if path.contains(['{', '}']) {
        return Err(wrong("has a brace, which no path has", "write `*` for a part that varies"));
    }
    let normal = normal(path)?;
    if normal != path {
        return Err(wrong("has a path that is not in its normal form", format!("write {normal}")));
    }
    let mut segments = Vec::new();
    let mut all = below.split('/').peekable();
    while let Some(text) = all.next() {
        let is_last = all.peek().is_none();
        segments.push(match text {
            "" if is_last => Segment::One(text.into()),
            "" => return Err(wrong("has an empty segment", "write single slashes")),
            "." | ".." => {
                return Err(wrong("has a dot segment", "write it resolved: paths with dot segments never pass"));
            }
            "**" => Segment::Any,
            text if text.contains("**") => {
                let help = "write `*` for any characters of one segment, `**` alone between slashes for any segments";
                return Err(wrong("has `**` as a part of a segment", help));
            }
            text => Segment::One(text.into()),
        });
    }
    Ok(segments)
}

/// The path as requests are judged by: unreserved characters plain, all others that no path has escaped.
fn normal(path: &str) -> Result<String, PatternError> {
    let bytes = path.as_bytes();
    let mut normal = String::with_capacity(path.len());
    let mut at = 0;
    while at < bytes.len() {
        let byte = bytes[at];
        if byte == b'\\' {
            return Err(wrong("has a backslash", "write slashes: paths with a backslash never pass"));
        }
        if byte != b'%' {
            if is_plain(byte) {
                normal.push(char::from(byte));
            } else {
                normal.push_str(&format!("%{byte:02X}"));
            }
            at += 1;
            continue;
        }
        let Some(byte) = escaped(&bytes[at + 1..]) else {
            return Err(wrong("has a percent sign that begins no escape", "write the sign itself as %25"));
        };
        match byte {
            0 | b'\\' => {
                let help = "remove it: paths with %00 or %5C never pass";
                return Err(wrong(format!("has %{byte:02X}"), help));
            }
            _ if is_unreserved(byte) => normal.push(char::from(byte)),
            _ => normal.push_str(&format!("%{byte:02X}")),
        }
        at += 3;
    }
    Ok(normal)
}

/// RFC 3986 §2.3.
const fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

/// May it stand in a path as it is (RFC 3986 §3.3)?
const fn is_plain(byte: u8) -> bool {
    is_unreserved(byte) || matches!(byte, b'!' | b'$' | b'&'..=b',' | b':' | b';' | b'=' | b'@' | b'/')
}
