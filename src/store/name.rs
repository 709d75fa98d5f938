//! Names of entries: readable for people, different for different keys. Pure.

use aws_lc_rs::digest::{SHA256, digest};

use super::Key;

/// How much of a credential's and account's name a name shows.
const READABLE: usize = 40;

/// How many bytes of the hash a name holds; enough that no two keys ever share a name.
const HASH_BYTES: usize = 16;

/// All parts of a key, each with its length before it, so that no two keys give the same bytes.
pub(super) fn parts(key: &Key) -> Vec<u8> {
    prefixed(&[key.kind.word(), &key.credential, &key.account, &key.issuer])
}

/// The name of a key's entry: letters, digits, `_` and `-` only, at most 80 of them.
pub(super) fn of_entry(key: &Key) -> String {
    let readable = readable(&format!("{}-{}", key.credential, key.account));
    format!("{readable}-{}-{}", key.kind.word(), hash(&parts(key)))
}

/// The name of what lists the accounts of a credential and issuer.
pub(super) fn of_accounts(credential: &str, issuer: &str) -> String {
    format!("{}-{}", readable(credential), hash(&prefixed(&[credential, issuer])))
}

/// Lower-case hexadecimal digits.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn prefixed(texts: &[&str]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for text in texts {
        bytes.extend_from_slice(&(text.len() as u64).to_be_bytes());
        bytes.extend_from_slice(text.as_bytes());
    }
    bytes
}

fn readable(text: &str) -> String {
    let keep = |c: char| if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' };
    text.chars().take(READABLE).map(keep).collect()
}

fn hash(bytes: &[u8]) -> String {
    let full = digest(&SHA256, bytes);
    hex(full.as_ref().get(..HASH_BYTES).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Kind;

    fn key(kind: Kind, credential: &str, account: &str, issuer: &str) -> Key {
        Key { kind, credential: credential.into(), account: account.into(), issuer: issuer.into() }
    }

    #[test]
    fn keys_that_differ_in_any_part_have_different_names() {
        let keys = [
            key(Kind::Grant, "neon", "alice", "https://a"),
            key(Kind::Token, "neon", "alice", "https://a"),
            key(Kind::Grant, "neo", "nalice", "https://a"),
            key(Kind::Grant, "neon", "alic", "ehttps://a"),
            key(Kind::Grant, "neon", "alice", "https://b"),
            key(Kind::Grant, "neon", "Alice", "https://a"),
            key(Kind::Grant, "neon", "alice/", "https://a"),
            key(Kind::Grant, "neon", "alice_", "https://a"),
            key(Kind::Grant, "neon-alice", "", "https://a"),
        ];
        let mut names: Vec<_> = keys.iter().map(of_entry).collect();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), keys.len());
    }

    #[test]
    fn a_name_is_readable_and_no_path() {
        let name = of_entry(&key(Kind::Grant, "neon", "../alice@example.com\0ü", "https://a"));
        assert!(name.starts_with("neon-___alice_example_com__-grant-"), "{name}");
        let long = of_entry(&key(Kind::Token, &"x".repeat(500), "a", "i"));
        assert_eq!(long.len(), READABLE + "-token-".len() + 2 * HASH_BYTES);
    }
}
