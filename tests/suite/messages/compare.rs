//! Two messages side by side.

use std::fmt::Write as _;

use super::strict;

/// Compares two messages, byte by byte but for the order of header lines with different names.
pub(crate) fn compare(what: &str, want: &[u8], got: &[u8]) -> Result<(), String> {
    let (want, got) = (lines(want), lines(got));
    if want == got {
        return Ok(());
    }
    Err(format!("{what}\n{}", difference(&want, &got)))
}

/// The lines of a message: the first, the header's sorted by name, the body's; each with its end.
fn lines(message: &[u8]) -> Vec<String> {
    let (head, body) = match strict::find(message, b"\r\n\r\n") {
        Some(end) => message.split_at(end + 2),
        None => (message, &b""[..]),
    };
    let shown = |bytes: &[u8]| {
        bytes
            .split_inclusive(|byte| *byte == b'\n')
            .map(|line| line.escape_ascii().to_string())
            .collect::<Vec<_>>()
    };
    let mut lines = shown(head);
    if let Some(headers) = lines.get_mut(1..) {
        headers.sort_by_key(|line| line.split(':').next().unwrap_or_default().to_ascii_lowercase());
    }
    lines.extend(shown(body));
    lines
}

/// Both, with `-` before what is missing and `+` before what is too much.
fn difference(want: &[String], got: &[String]) -> String {
    let same_to = want.iter().zip(got).take_while(|(want, got)| want == got).count();
    let same_from = want[same_to..]
        .iter()
        .rev()
        .zip(got[same_to..].iter().rev())
        .take_while(|(want, got)| want == got)
        .count();
    let mut text = String::new();
    let mut tell = |sign: char, lines: &[String]| {
        for line in lines {
            let cut: String = line.chars().take(200).collect();
            let _ = writeln!(text, "  {sign} {cut}");
        }
    };
    tell(' ', &want[..same_to]);
    tell('-', &want[same_to..want.len() - same_from]);
    tell('+', &got[same_to..got.len() - same_from]);
    tell(' ', &want[want.len() - same_from..]);
    text
}
