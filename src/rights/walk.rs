//! How a rule's segments are laid along a path's.

/// A part of a rule's path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Segment {
    /// `**`: any segments, also none.
    Any,
    /// One, in which each `*` stands for any characters, also none; but the whole segment is never empty.
    One(Box<str>),
}

/// The byte that two hexadecimal digits stand for.
pub(super) fn escaped(rest: &[u8]) -> Option<u8> {
    let digit = |at: usize| char::from(*rest.get(at)?).to_digit(16);
    u8::try_from(digit(0)? << 4 | digit(1)?).ok()
}

/// One character of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Unit {
    /// What it stands for, however often it is encoded.
    pub(super) byte: u8,
    /// How many bytes it is written in.
    pub(super) width: usize,
}

/// The first character; `rest` is not empty.
pub(super) fn unit(rest: &[u8]) -> Unit {
    if rest[0] != b'%' {
        return Unit { byte: rest[0], width: 1 };
    }
    let mut at = 1;
    loop {
        match escaped(&rest[at..]) {
            Some(b'%') if escaped(&rest[at + 2..]).is_some() => at += 2,
            Some(byte) => return Unit { byte, width: at + 2 },
            None => return Unit { byte: b'%', width: 1 },
        }
    }
}

/// How characters of a rule and of a path compare.
pub(super) trait Reading {
    /// Do empty segments count?
    const HAS_EMPTY: bool;
    /// Is this character of the rule that one of the path?
    fn is_same(&self, rule: (Unit, &[u8]), path: (Unit, &[u8])) -> bool;
    /// May it be one of those that `*` stands for?
    fn is_any(&self, path: Unit) -> bool;
}

/// For what lets pass: as it is written.
pub(super) struct Strict;

impl Reading for Strict {
    const HAS_EMPTY: bool = true;

    fn is_same(&self, (rule, rule_text): (Unit, &[u8]), (path, path_text): (Unit, &[u8])) -> bool {
        rule_text[..rule.width] == path_text[..path.width]
    }

    fn is_any(&self, path: Unit) -> bool {
        // Encoded once, a slash comes only where the route says that it belongs to a name.
        path.byte != b';' && (path.width <= 3 || !matches!(path.byte, b'/' | b'\\'))
    }
}

/// For what refuses: as any server might read it.
pub(super) struct Generous;

impl Reading for Generous {
    const HAS_EMPTY: bool = false;

    fn is_same(&self, (rule, _): (Unit, &[u8]), (path, _): (Unit, &[u8])) -> bool {
        rule.byte.eq_ignore_ascii_case(&path.byte)
    }

    fn is_any(&self, _: Unit) -> bool {
        true
    }
}

/// Does the rule take all segments of the path? After each `**` only the last one need be tried again.
pub(super) fn walk<'p, R: Reading>(
    rule: &[Segment],
    path: impl Iterator<Item = &'p str> + Clone,
    reading: &R,
) -> bool {
    let (mut at, mut rest, mut retry) = (0, path, None);
    loop {
        match rule.get(at) {
            Some(Segment::Any) => {
                at += 1;
                retry = Some((at, rest.clone()));
                continue;
            }
            // A rule that ends in a slash is the same as one that does not where empty segments are left out.
            Some(Segment::One(text)) if text.is_empty() && !R::HAS_EMPTY => {
                at += 1;
                continue;
            }
            _ => {}
        }
        let mut ahead = rest.clone();
        match (rule.get(at), ahead.next()) {
            (None, None) => return true,
            (_, None) => return false,
            (Some(Segment::One(text)), Some(segment)) if is_segment(text, segment, reading) => {
                (at, rest) = (at + 1, ahead);
                continue;
            }
            _ => {}
        }
        let Some((from, tried)) = &mut retry else { return false };
        if tried.next().is_none() {
            return false;
        }
        (at, rest) = (*from, tried.clone());
    }
}

/// Does one segment of a rule take one of a path?
fn is_segment(rule: &str, path: &str, reading: &impl Reading) -> bool {
    if rule.is_empty() || path.is_empty() {
        return rule.is_empty() && path.is_empty();
    }
    let (rule, path) = (rule.as_bytes(), path.as_bytes());
    let (mut at, mut here, mut retry) = (0, 0, None);
    loop {
        if at < rule.len() && rule[at] == b'*' {
            at += 1;
            retry = Some((at, here));
            continue;
        }
        if here == path.len() {
            return at == rule.len();
        }
        let read = unit(&path[here..]);
        if at < rule.len() {
            let meant = unit(&rule[at..]);
            if reading.is_same((meant, &rule[at..]), (read, &path[here..])) {
                (at, here) = (at + meant.width, here + read.width);
                continue;
            }
        }
        let Some((from, tried)) = &mut retry else { return false };
        let taken = unit(&path[*tried..]);
        if !reading.is_any(taken) {
            return false;
        }
        *tried += taken.width;
        (at, here) = (*from, *tried);
    }
}

/// The segments of a path in one of the ways in which servers read them; empty ones are left out.
#[derive(Debug, Clone)]
pub(super) struct Readings<'p> {
    pub(super) rest: &'p str,
    /// Parameters, from a `;` on that is written in so many bytes at most, are no part of a segment; 0: all are.
    pub(super) cut: usize,
    /// A slash separates that is written in so many bytes at most; 1: a plain one only.
    pub(super) split: usize,
}

impl<'p> Iterator for Readings<'p> {
    type Item = &'p str;

    fn next(&mut self) -> Option<&'p str> {
        while !self.rest.is_empty() {
            let bytes = self.rest.as_bytes();
            let (mut at, mut width, mut end) = (0, 0, None);
            while at < bytes.len() {
                let read = unit(&bytes[at..]);
                if matches!(read.byte, b'/' | b'\\') && read.width <= self.split {
                    width = read.width;
                    break;
                }
                if read.byte == b';' && read.width <= self.cut {
                    end.get_or_insert(at);
                }
                at += read.width;
            }
            let segment = &self.rest[..end.unwrap_or(at)];
            self.rest = &self.rest[at + width..];
            if !segment.is_empty() {
                return Some(segment);
            }
        }
        None
    }
}
