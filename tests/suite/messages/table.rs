//! How messages are written down, and the parser of it.
//!
//! An entry begins with `# ` and its name, a sentence. What follows is what happens, in order:
//!
//! | line | means |
//! |---|---|
//! | `-> …` | the caller sends this; on a new connection if it has none |
//! | `=> …` | the upstream receives this; on a new connection if it has none |
//! | `<= …` | the upstream sends this |
//! | `<- …` | the caller receives this |
//! | `closed` | sidekey ends the caller's connection, and nothing more came |
//! | `broken` | the same, with a reset |
//! | `cut` | sidekey ends the upstream's connection, and nothing more came |
//! | `leaves` / `breaks` | the caller ends its connection, in order or with a reset |
//! | `ends` / `resets` | the upstream ends its connection, in order or with a reset |
//! | `reconnects` | what the upstream receives next comes on a new connection |
//! | `refused` | short for hyper's bare 400, then `closed` |
//! | `refused TEXT` | short for sidekey's own 400 with this text, then `closed` |
//! | `answered` | short for a 204 from the upstream, as it is, to the caller |
//! | `failed STATUS CODE ERROR TEXT` | short for another answer of its own: `Sidekey-Error`, error of `Proxy-Status`, text |
//! | `requests N` | the upstream receives N whole requests; else at most one is allowed |
//! | `together` | what becomes of it depends on its bytes coming together |
//! | `; …` | a comment |
//!
//! Consecutive lines with the same arrow are one piece, sent in one write; an empty line ends it. Each line stands for
//! itself and CRLF, unless it ends in `\`. Escapes: `\r \n \t \0 \xNN \\`. `\{upstream}` and `\{sidekey}` stand for the
//! addresses, `\{date}` for any date, `\{id}` for any request id that sidekey made, `\{c*N}` for N times c, `\{own}` for the header lines that every request leaves
//! with. A message is compared byte by byte, but for the order of header lines with different names.
//!
//! An entry that does not end in `closed`, `leaves` or `breaks` goes on with one more request on the caller's
//! connection, which must reach the upstream and be answered: the connection is in step.
//!
//! For callers that speak HTTP/2, a further arrow will do: `2> ` and `<2 ` with a line for each pseudo-header and
//! header, an empty one, and the content. What the upstream receives is written as ever.

/// One message and what becomes of it.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) name: String,
    pub(crate) steps: Vec<Step>,
    /// How many whole requests the upstream may receive; none: at most one.
    pub(crate) requests: Option<usize>,
    /// Does it depend on its bytes coming together?
    pub(crate) together: bool,
}

/// One thing that happens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    CallerSends(String),
    UpstreamGets(String),
    UpstreamSends(String),
    CallerGets(String),
    /// By sidekey.
    CallerIsClosed {
        reset: bool,
    },
    /// By sidekey.
    UpstreamIsClosed,
    CallerEnds {
        reset: bool,
    },
    UpstreamEnds {
        reset: bool,
    },
    Reconnects,
}

/// What `\{own}` stands for.
const OWN: &str = "authorization: Bearer sesame\r\nhost: \\{upstream}\r\nvia: 1.1 sidekey";
/// What `\{date}` and `\{id}` become; see [`blanked`].
const DATE: &str = "Day, 00 Mon 0000 00:00:00 GMT";
const ID: &str = "sidekey-0000000000000000";

/// The entries of a file.
pub(crate) fn entries(text: &str) -> Vec<Entry> {
    let mut entries: Vec<Entry> = Vec::new();
    // May the next line go on with the piece before it?
    let mut open = false;
    for line in text.lines() {
        if let Some(name) = line.strip_prefix("# ") {
            entries.push(Entry { name: name.to_owned(), steps: Vec::new(), requests: None, together: false });
            open = false;
            continue;
        }
        if line.is_empty() || line.starts_with(';') {
            open = open && !line.is_empty();
            continue;
        }
        let entry = entries.last_mut().unwrap_or_else(|| panic!("before any entry: {line}"));
        open = entry.add(line, open);
    }
    for entry in &entries {
        assert!(!entry.steps.is_empty(), "{} is empty", entry.name);
    }
    entries
}

impl Entry {
    /// Adds a line; says whether the next may go on with the same piece.
    fn add(&mut self, line: &str, open: bool) -> bool {
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        let piece = match word {
            "->" => Step::CallerSends(content(rest)),
            "=>" => Step::UpstreamGets(content(rest)),
            "<=" => Step::UpstreamSends(content(rest)),
            "<-" => Step::CallerGets(content(rest)),
            _ => {
                self.directive(word, rest);
                return false;
            }
        };
        match (self.steps.last_mut(), &piece) {
            (Some(Step::CallerSends(all)), Step::CallerSends(more))
            | (Some(Step::UpstreamGets(all)), Step::UpstreamGets(more))
            | (Some(Step::UpstreamSends(all)), Step::UpstreamSends(more))
            | (Some(Step::CallerGets(all)), Step::CallerGets(more))
                if open =>
            {
                all.push_str(more);
            }
            _ => self.steps.push(piece),
        }
        true
    }

    fn directive(&mut self, word: &str, rest: &str) {
        let steps = &mut self.steps;
        match word {
            "closed" => steps.push(Step::CallerIsClosed { reset: false }),
            "broken" => steps.push(Step::CallerIsClosed { reset: true }),
            "cut" => steps.push(Step::UpstreamIsClosed),
            "leaves" => steps.push(Step::CallerEnds { reset: false }),
            "breaks" => steps.push(Step::CallerEnds { reset: true }),
            "ends" => steps.push(Step::UpstreamEnds { reset: false }),
            "resets" => steps.push(Step::UpstreamEnds { reset: true }),
            "reconnects" => steps.push(Step::Reconnects),
            "answered" => {
                let answer = "HTTP/1.1 204 No Content\\r\\n\\r\\n".to_owned();
                steps.extend([Step::UpstreamSends(answer.clone()), Step::CallerGets(answer)]);
            }
            "refused" if rest.is_empty() => {
                let bare = "HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
                steps.extend([Step::CallerGets(bare.to_owned()), Step::CallerIsClosed { reset: false }]);
            }
            "refused" => {
                let own = own_answer(
                    "400 Bad Request\r\nconnection: close",
                    "bad_request",
                    "http_request_error",
                    rest,
                );
                steps.extend([Step::CallerGets(own), Step::CallerIsClosed { reset: false }]);
            }
            "failed" => {
                let [status, code, error, text] = rest.splitn(4, ' ').collect::<Vec<_>>()[..] else {
                    panic!("in {}: failed STATUS CODE ERROR TEXT", self.name)
                };
                let status: http::StatusCode = status.parse().expect("a status");
                steps.push(Step::CallerGets(own_answer(&status.to_string(), code, error, text)));
            }
            "requests" => self.requests = Some(rest.parse().expect("a number of requests")),
            "together" => self.together = true,
            _ => panic!("in {}: what is {word}?", self.name),
        }
    }
}

/// An answer that sidekey makes itself, for a generic route.
fn own_answer(status: &str, code: &str, error: &str, text: &str) -> String {
    let body = format!("{{\"error\":\"{code}\",\"message\":\"{text}\"}}");
    format!(
        "HTTP/1.1 {status}\r\ncontent-length: {}\r\ncontent-type: application/json\r\ndate: \\{{date}}\r\n\
         proxy-status: sidekey; error={error}\r\nsidekey-error: {code}\r\nx-request-id: \\{{id}}\r\n\r\n{}",
        body.len(),
        body.replace('\\', "\\\\")
    )
}

/// A line with its end.
fn content(line: &str) -> String {
    match line.strip_suffix('\\') {
        Some(open) if !open.ends_with('\\') => open.to_owned(),
        _ => format!("{line}\\r\\n"),
    }
}

/// The bytes that a piece stands for.
pub(crate) fn bytes(piece: &str, upstream: &str, sidekey: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = piece;
    while let Some(at) = rest.find('\\') {
        bytes.extend_from_slice(&rest.as_bytes()[..at]);
        rest = &rest[at + 1..];
        if let Some(inner) = rest.strip_prefix('{') {
            let (name, after) = inner.split_once('}').expect("a closing brace");
            match name {
                "upstream" => bytes.extend_from_slice(upstream.as_bytes()),
                "sidekey" => bytes.extend_from_slice(sidekey.as_bytes()),
                "date" => bytes.extend_from_slice(DATE.as_bytes()),
                "id" => bytes.extend_from_slice(ID.as_bytes()),
                "own" => bytes.extend(self::bytes(OWN, upstream, sidekey)),
                _ => {
                    let (what, times) = name.rsplit_once('*').unwrap_or_else(|| panic!("what is {name}?"));
                    let times = times.parse().unwrap_or_else(|_| panic!("how often is {name}?"));
                    bytes.extend(self::bytes(what, upstream, sidekey).repeat(times));
                }
            }
            rest = after;
            continue;
        }
        let (byte, width) = match rest.as_bytes() {
            [b'r', ..] => (b'\r', 1),
            [b'n', ..] => (b'\n', 1),
            [b't', ..] => (b'\t', 1),
            [b'0', ..] => (0, 1),
            [b'\\', ..] => (b'\\', 1),
            [b'x', _, _, ..] => (u8::from_str_radix(&rest[1..3], 16).expect("two hexadecimal digits"), 3),
            _ => panic!("no escape: \\{rest}"),
        };
        bytes.push(byte);
        rest = &rest[width..];
    }
    bytes.extend_from_slice(rest.as_bytes());
    bytes
}

/// Puts `\{date}` and `\{id}` in the place of every date and made request id of a message, so that it can be compared.
pub(crate) fn blanked(message: &[u8]) -> Vec<u8> {
    let is_date = |text: &str| httpdate::parse_http_date(text).is_ok();
    let is_id = |text: &str| {
        let digits = text.strip_prefix("sidekey-").unwrap_or_default();
        digits.len() == 16 && digits.bytes().all(|byte| byte.is_ascii_hexdigit())
    };
    let dated = blank(message, b"\r\ndate: ", DATE, is_date);
    blank(&dated, b"\r\nx-request-id: ", ID, is_id)
}

/// Puts `with` in the place of every value of a field that is one.
fn blank(message: &[u8], name: &[u8], with: &str, is_one: impl Fn(&str) -> bool) -> Vec<u8> {
    let mut blank = message.to_vec();
    let mut from = 0;
    while let Some(at) = blank[from..].windows(name.len()).position(|window| window == name) {
        let start = from + at + name.len();
        let end = start + with.len();
        let value = blank.get(start..end).and_then(|value| std::str::from_utf8(value).ok());
        if value.is_some_and(&is_one) && blank[end..].starts_with(b"\r\n") {
            blank[start..end].copy_from_slice(with.as_bytes());
        }
        from = start;
    }
    blank
}

#[test]
fn a_piece_becomes_the_bytes_that_it_stands_for() {
    let entry = &entries(
        "# name\n-> GET / HTTP/1.1\n->\n-> a\\x0bb\\\\c\\{z*3}\\\n\n-> \\{upstream}\\t\\0\\\nclosed\n",
    )[0];
    let [Step::CallerSends(one), Step::CallerSends(two), Step::CallerIsClosed { reset: false }] =
        &entry.steps[..]
    else {
        panic!("{entry:?}")
    };
    assert_eq!(bytes(one, "u", "s"), b"GET / HTTP/1.1\r\n\r\na\x0bb\\czzz");
    assert_eq!(bytes(two, "u", "s"), b"u\t\0");
    let dated = blanked(b"x\r\ndate: Sun, 06 Nov 1994 08:49:37 GMT\r\n\r\ndate: yesterday");
    assert_eq!(dated, format!("x\r\ndate: {DATE}\r\n\r\ndate: yesterday").as_bytes());
    let named = blanked(b"x\r\nx-request-id: sidekey-00112233aabbccdd\r\nx-request-id: theirs\r\n");
    assert_eq!(named, format!("x\r\nx-request-id: {ID}\r\nx-request-id: theirs\r\n").as_bytes());
}
