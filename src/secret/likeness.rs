//! Does a text look like a secret that somebody put where something else belongs? Pure.

use std::borrow::Cow;

/// What stands in the place of what is left out.
const LEFT_OUT: &str = "(not shown)";
/// So many letters and digits in a row, with some of each, are no name that a person chose.
const LONG_RUN: usize = 20;
/// The same for a run that `-`, `_` and what base64 has may interrupt, if it has capitals as well.
const LONG_WORD: usize = 32;

/// The text without the words that look like a secret. A path from the root stays, if it has more than one step:
/// those may hold long hashes.
pub fn masked(text: &str) -> Cow<'_, str> {
    if !text.split(is_gap).any(is_telling) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len());
    for piece in text.split_inclusive(is_gap) {
        let word = piece.strip_suffix(is_gap).unwrap_or(piece);
        if is_telling(word) {
            shown.push_str(LEFT_OUT);
            shown.push_str(&piece[word.len()..]);
        } else {
            shown.push_str(piece);
        }
    }
    Cow::Owned(shown)
}

fn is_gap(character: char) -> bool {
    character.is_whitespace() || character == '`'
}

fn is_telling(word: &str) -> bool {
    let inside = word.trim_start_matches(['"', '\'', '(', '[']);
    let is_path = inside.strip_prefix('/').is_some_and(|rest| rest.contains('/'));
    !is_path && is_like_a_secret(word)
}

fn is_like_a_secret(word: &str) -> bool {
    let has = |run: &str, is: fn(&u8) -> bool| run.bytes().any(|byte| is(&byte));
    let is_mixed = |run: &str| has(run, u8::is_ascii_alphabetic) && has(run, u8::is_ascii_digit);
    let has_both_cases = |run: &str| has(run, u8::is_ascii_lowercase) && has(run, u8::is_ascii_uppercase);
    let mut runs = word.split(|c: char| !c.is_ascii_alphanumeric());
    let is_in_word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '+' | '/' | '=' | '~');
    runs.any(|run| run.len() >= LONG_RUN && is_mixed(run))
        || word
            .split(|c| !is_in_word(c))
            .any(|run| run.len() >= LONG_WORD && is_mixed(run) && has_both_cases(run))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_that_look_like_a_secret_are_left_out_and_names_of_people_stay() {
        let cases = [
            (
                "unknown key `napi_x8b3k2m9q4w7e1r5t6y0u2i3o4p` in [server]",
                "unknown key `(not shown)` in [server]",
            ),
            ("`upstream`: `https://0123456789abcdef0123/x` is", "`upstream`: `(not shown)` is"),
            ("export 8d7f6a5b4c3d2e1f0a9b8c7d=…", "export (not shown)"),
            ("key Ab1-Cd2_Ef3-Gh4_Ij5-Kl6_Mn7-Op8_Qr9 here", "key (not shown) here"),
            ("a\nMC4CAQAwBQYDK2VwBCIEIEVDcWVJSCJmWhPT0/j2+3FcX1\nb", "a\n(not shown)\nb"),
            ("`8d7f6a5b4c3d2e1f0a9b8c7d`", "`(not shown)`"),
            ("write path = \"/8d7f6a5b4c3d2e1f0a9b8c7d\"", "write path = (not shown)"),
            ("cannot read 8d7f6a5b4c3d2e1f0a9b8c7d: no", "cannot read (not shown) no"),
        ];
        for (text, want) in cases {
            assert_eq!(masked(text), want);
        }
        for stays in [
            "",
            "cannot read /nix/store/zw3x7k1m9q4w7e1r5t6y0u2i3o4p5a6s-ca.pem: no",
            "write { file = \"/run/secrets/0123456789abcdef0123456789abcdef\" }",
            "unknown key `allow_unauthenticated_remote`",
            "unknown key `egressProxyPasswordFile` in [route.prod-eu-west-1-readonly-2]",
            "https://0a1b2c3d.databases.neo4j.io",
            "https://ep-cool-darkness-123456.us-east-2.aws.neon.tech:5432/db",
            "client 123e4567-e89b-12d3-a456-426614174000",
            "\"rediss://redis-12345.c1.us-east-1-2.ec2.cloud.redislabs.com\"",
        ] {
            assert_eq!(masked(stays), stays);
        }
    }
}
