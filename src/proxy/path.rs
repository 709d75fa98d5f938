//! The one way to read a request's path, or why there is more than one. Pure.
//!
//! The path itself goes to the upstream as it came; rules look at what is made of it here.

use std::borrow::Cow;

/// A path that reads in one way only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Judged<'a> {
    normal: Cow<'a, str>,
    has_encoded_slash: bool,
}

/// Why a path could be read in two ways.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ambiguous {
    /// A segment is `.` or `..`, plain or encoded once or more; its parameters (`;…`) do not count as part of it.
    DotSegment,
    /// A backslash, plain or encoded: a slash to some.
    Backslash,
    /// `%2F`: a separator to some, content of its segment to others. A route may let it pass.
    EncodedSlash,
    /// `%00`: the end of the path to some.
    Null,
    /// A percent sign that begins no escape.
    Escape,
    /// A character in more bytes than it needs, which some take for the short one.
    Overlong,
    /// A plain space or control character, where some end the path.
    Control,
}

impl Ambiguous {
    /// What the caller is told: what is wrong, and what to send instead.
    pub const fn text(self) -> &'static str {
        match self {
            Self::DotSegment => {
                "The path has a dot segment (. or .., plain or encoded), so it could be read two ways; send it resolved."
            }
            Self::Backslash => {
                "The path has a backslash, which some servers read as a slash; send the slash that is meant, or none."
            }
            Self::EncodedSlash => {
                "The path has an encoded slash (%2F), which some servers read as a plain one; send a plain one, or set \
                 encoded_slash = \"pass\" on the route if it belongs to a name."
            }
            Self::Null => "The path has a NUL (%00), where some servers end it; send it without.",
            Self::Escape => {
                "The path has a percent sign without two hexadecimal digits after it; send the sign itself as %25."
            }
            Self::Overlong => {
                "The path has a character in an overlong UTF-8 form; send it in its shortest form."
            }
            Self::Control => {
                "The path has a plain space or control character; send it percent-encoded, a space as %20."
            }
        }
    }
}

impl Judged<'_> {
    /// The path as rules see it: unreserved characters plain, all other escapes in upper case (RFC 3986 §6.2.2), and
    /// escaped what no URI has plain (RFC 3987 §3.1). It has as many slashes as the path itself, and no more of them
    /// mean something: empty segments stay, `%2F` stays.
    pub fn normal(&self) -> &str {
        &self.normal
    }

    /// The judgement for a route, which may take an encoded slash for the content of a segment.
    ///
    /// # Errors
    /// [`Ambiguous::EncodedSlash`] where the path has one and the route does not let it pass.
    pub const fn on_route(&self, encoded_slash_passes: bool) -> Result<(), Ambiguous> {
        if self.has_encoded_slash && !encoded_slash_passes { Err(Ambiguous::EncodedSlash) } else { Ok(()) }
    }
}

/// Reads a path as the upstream will, if all upstreams read it alike.
///
/// A path of plain segments is borrowed after one look at each byte. `*`, which is no path, stands for itself.
///
/// # Errors
/// Why it could be read in two ways. An encoded slash is for its route to judge, but the dot segments that it would
/// make of its neighbours are not.
pub fn judge(path: &str) -> Result<Judged<'_>, Ambiguous> {
    let bytes = path.as_bytes();
    if bytes.iter().all(|byte| is_uri(*byte) && *byte != b'.') {
        return Ok(Judged { normal: Cow::Borrowed(path), has_encoded_slash: false });
    }
    // As long as the path is normal as it is, there is no copy of it.
    let mut copy: Option<String> = None;
    let mut has_encoded_slash = false;
    let (mut at, mut before) = (0, 0);
    while at < bytes.len() {
        let plain = bytes[at];
        let (byte, width) = match plain {
            b'%' => (escaped(&bytes[at + 1..]).ok_or(Ambiguous::Escape)?, 3),
            _ => (plain, 1),
        };
        match (plain, byte) {
            (_, b'\\') => return Err(Ambiguous::Backslash),
            (b'%', 0) => return Err(Ambiguous::Null),
            (b'%', b'/') => has_encoded_slash = true,
            (..=b' ' | 0x7f, _) => return Err(Ambiguous::Control),
            _ if is_overlong(before, byte) => return Err(Ambiguous::Overlong),
            _ => {}
        }
        let written = &bytes[at..at + width];
        let is_normal = match plain {
            b'%' => !is_unreserved(byte) && !written.iter().any(u8::is_ascii_lowercase),
            _ => is_uri(plain),
        };
        if !is_normal && copy.is_none() {
            copy = Some(path[..at].to_owned());
        }
        if let Some(copy) = &mut copy {
            if is_unreserved(byte) || plain != b'%' && is_uri(plain) {
                copy.push(char::from(byte));
            } else {
                copy.extend(['%', hexadecimal(byte >> 4), hexadecimal(byte & 15)]);
            }
        }
        before = byte;
        at += width;
    }
    let normal = copy.map_or(Cow::Borrowed(path), Cow::Owned);
    if has_dot_segment(normal.as_bytes()) {
        return Err(Ambiguous::DotSegment);
    }
    Ok(Judged { normal, has_encoded_slash })
}

/// May it stand in a URI's path as it is (RFC 3986 §3.3)? `%` may not: it begins an escape.
const fn is_uri(byte: u8) -> bool {
    const SET: [bool; 256] = {
        let mut set = [false; 256];
        let mut byte = 0;
        while byte < 256 {
            #[allow(clippy::cast_possible_truncation)] // below 256
            let character = byte as u8;
            set[byte] = is_unreserved(character)
                || matches!(character, b'!' | b'$' | b'&'..=b',' | b':' | b';' | b'=' | b'@' | b'/');
            byte += 1;
        }
        set
    };
    SET[byte as usize]
}

/// RFC 3986 §2.3.
const fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

/// The byte that two hexadecimal digits stand for.
fn escaped(rest: &[u8]) -> Option<u8> {
    let digit =
        |at: usize| char::from(*rest.get(at)?).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    Some(digit(0)? << 4 | digit(1)?)
}

fn hexadecimal(digit: u8) -> char {
    char::from_digit(digit.into(), 16).unwrap_or_default().to_ascii_uppercase()
}

/// Do these bytes begin a UTF-8 sequence that is longer than it need be (RFC 3629 §3)?
///
/// Each pair is one that no UTF-8 has. Latin-1, which is not refused, has a letter of those followed by a sign or by
/// nothing printable: hardly a name. Other bytes that are no UTF-8 stand for no other character.
const fn is_overlong(first: u8, second: u8) -> bool {
    match first {
        0xC0 | 0xC1 => matches!(second, 0x80..=0xBF),
        0xE0 => matches!(second, 0x80..=0x9F),
        0xF0 => matches!(second, 0x80..=0x8F),
        0xF8 => matches!(second, 0x80..=0x87),
        0xFC => matches!(second, 0x80..=0x83),
        _ => false,
    }
}

/// Is one of the segments, its parameters left out, `.` or `..`, for anybody who decodes the path as often as they
/// like? Servlet containers, Neo4j's among them, cut `;…` before they resolve dots.
fn has_dot_segment(path: &[u8]) -> bool {
    let (mut dots, mut others, mut in_parameters) = (0_u32, false, false);
    let mut at = 0;
    while at < path.len() {
        let (byte, width) = innermost(&path[at..]);
        match byte {
            b'/' | b'\\' if !others && (dots == 1 || dots == 2) => return true,
            b'/' | b'\\' => (dots, others, in_parameters) = (0, false, false),
            _ if in_parameters => {}
            b';' => in_parameters = true,
            b'.' => dots += 1,
            _ => others = true,
        }
        at += width;
    }
    !others && (dots == 1 || dots == 2)
}

/// The first character and its width, however often it is encoded: `%252e` is a dot to whoever decodes twice.
fn innermost(rest: &[u8]) -> (u8, usize) {
    if rest[0] != b'%' {
        return (rest[0], 1);
    }
    let mut at = 1;
    loop {
        match escaped(&rest[at..]) {
            Some(b'%') if escaped(&rest[at + 2..]).is_some() => at += 2,
            Some(byte) => return (byte, at + 2),
            None => return (b'%', 1),
        }
    }
}

#[cfg(test)]
mod tests;
