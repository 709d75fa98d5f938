//! An entry as it is written to a file or a server: one JSON object that says whose it is.
//!
//! `{"sidekey":1,"kind","credential","account","issuer","revision","content": base64}`, or in place of `content`
//! `"sealed": {"key": hex, "nonce": base64, "data": base64}`. Pure.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::seal::Body;
use super::{EntryFault, Key, Kind, Stored, name};

/// The format that this sidekey writes, and the newest that it reads.
const FORMAT: u64 = 1;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document<'a> {
    sidekey: u64,
    kind: String,
    credential: String,
    account: String,
    issuer: String,
    revision: u64,
    // Borrowed, so that reading leaves no copy behind.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    content: Option<&'a str>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    sealed: Option<Sealed<'a>>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Sealed<'a> {
    key: &'a str,
    nonce: &'a str,
    data: &'a str,
}

/// The text of an entry. `bytes`: what [`super::seal::Seal::close`] gave.
pub(super) fn encode(key: &Key, revision: u64, bytes: &[u8]) -> Result<Zeroizing<Vec<u8>>, EntryFault> {
    let body = Body::of(bytes).ok_or(EntryFault::Damaged("neither sealed nor open"))?;
    let (id, nonce, data) = match body {
        Body::Open(content) => (String::new(), String::new(), content),
        Body::Sealed { id, nonce, data } => (name::hex(id), STANDARD.encode(nonce), data),
    };
    let data = Zeroizing::new(STANDARD.encode(data));
    let is_sealed = !id.is_empty();
    let document = Document {
        sidekey: FORMAT,
        kind: key.kind.word().to_owned(),
        credential: key.credential.to_string(),
        account: key.account.to_string(),
        issuer: key.issuer.to_string(),
        revision,
        content: (!is_sealed).then_some(&data),
        sealed: is_sealed.then_some(Sealed { key: &id, nonce: &nonce, data: &data }),
    };
    // One allocation of the final size: a growing buffer would leave copies behind. A character takes at most six.
    let names = key.credential.len() + key.account.len() + key.issuer.len();
    let mut text = Zeroizing::new(Vec::with_capacity(256 + 6 * names + data.len()));
    serde_json::to_writer(&mut *text, &document).map_err(|_| EntryFault::Damaged("it cannot be written"))?;
    Ok(text)
}

/// The entry that a text holds, if it is this key's. The content is what [`super::seal::Seal::open`] takes.
pub(super) fn decode(key: &Key, text: &[u8]) -> Result<Stored, EntryFault> {
    let document = parse(text)?;
    if owner(&document)? != *key {
        return Err(EntryFault::Swapped);
    }
    if document.revision == 0 {
        return Err(EntryFault::Damaged("its revision is zero"));
    }
    let base64 = |text: &str| {
        STANDARD.decode(text).map(Zeroizing::new).map_err(|_| EntryFault::Damaged("a part is not base64"))
    };
    let content = match (document.content, document.sealed) {
        (Some(content), None) => Body::Open(&base64(content)?).bytes(),
        (None, Some(sealed)) => {
            let id = u32::from_str_radix(sealed.key, 16)
                .ok()
                .filter(|_| sealed.key.len() == 8)
                .ok_or(EntryFault::Damaged("its key's id is malformed"))?
                .to_be_bytes();
            let (nonce, data) = (base64(sealed.nonce)?, base64(sealed.data)?);
            let nonce =
                nonce.as_slice().try_into().map_err(|_| EntryFault::Damaged("its nonce is cut off"))?;
            let bytes = Body::Sealed { id: &id, nonce, data: &data }.bytes();
            if Body::of(&bytes).is_none() {
                return Err(EntryFault::Damaged("its sealed data is cut off"));
            }
            bytes
        }
        _ => return Err(EntryFault::Damaged("it must have either content or sealed")),
    };
    Ok(Stored { revision: document.revision, content })
}

/// Whose entry a text holds.
pub(super) fn whose(text: &[u8]) -> Result<Key, EntryFault> {
    owner(&parse(text)?)
}

fn parse(text: &[u8]) -> Result<Document<'_>, EntryFault> {
    /// What all formats share.
    #[derive(Deserialize)]
    struct Format {
        sidekey: Option<u64>,
    }
    let format: Format = serde_json::from_slice(text).map_err(|error| match error.classify() {
        serde_json::error::Category::Eof => EntryFault::Damaged("it ends too early"),
        // JSON of another shape is somebody else's; what is no JSON at all may be ours, torn.
        serde_json::error::Category::Data => EntryFault::Foreign,
        _ if text.trim_ascii_start().starts_with(b"{") => EntryFault::Damaged("it is not JSON"),
        _ if text.iter().all(|byte| *byte == 0) => EntryFault::Damaged("it is all zeros"),
        _ => EntryFault::Foreign,
    })?;
    match format.sidekey {
        None => Err(EntryFault::Foreign),
        Some(FORMAT) => serde_json::from_slice(text)
            .map_err(|_| EntryFault::Damaged("a field is missing, unknown or of another type")),
        Some(newer) if newer > FORMAT => Err(EntryFault::Newer(newer)),
        Some(_) => Err(EntryFault::Damaged("its format is zero")),
    }
}

fn owner(document: &Document<'_>) -> Result<Key, EntryFault> {
    let kinds = [Kind::Grant, Kind::Token];
    let kind = kinds.into_iter().find(|kind| kind.word() == document.kind);
    Ok(Key {
        kind: kind.ok_or(EntryFault::Damaged("its kind is unknown"))?,
        credential: document.credential.as_str().into(),
        account: document.account.as_str().into(),
        issuer: document.issuer.as_str().into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::Secret;
    use crate::store::seal::Seal;

    fn alice() -> Key {
        let (credential, account) = ("neon".into(), "alice \"\u{1}\\".into());
        Key { kind: Kind::Grant, credential, account, issuer: "https://a".into() }
    }

    fn texts() -> [Vec<u8>; 2] {
        let key = Seal::parse_key(&Secret::new("0123456789abcdef".repeat(4))).unwrap();
        [Seal::new(vec![]), Seal::new(vec![key])]
            .map(|seal| encode(&alice(), 7, &seal.close(&alice(), b"content").unwrap()).unwrap().to_vec())
    }

    #[test]
    fn what_was_encoded_is_decoded() {
        for text in texts() {
            assert_eq!(decode(&alice(), &text).unwrap().revision, 7);
            assert_eq!(whose(&text).unwrap(), alice());
        }
        assert_eq!(*decode(&alice(), &texts()[0]).unwrap().content, *b"opencontent");
        let shown = String::from_utf8(texts()[1].clone()).unwrap();
        assert!(shown.contains(r#""sealed":{"key":""#) && !shown.contains(r#""content":"#), "{shown}");
    }

    #[test]
    fn an_entry_cut_off_anywhere_is_damaged() {
        for text in texts() {
            for length in 0..text.len() {
                let fault = decode(&alice(), &text[..length]).err();
                assert_eq!(fault, Some(EntryFault::Damaged("it ends too early")), "{length}");
            }
        }
    }

    #[test]
    fn each_thing_that_is_no_entry_has_its_own_error() {
        let open = String::from_utf8(texts()[0].clone()).unwrap();
        let with = |from: &str, to: &str| {
            assert!(open.contains(from), "{from}");
            open.replace(from, to)
        };
        let cases = [
            ("[]".to_owned(), EntryFault::Foreign),
            ("hello".to_owned(), EntryFault::Foreign),
            ("12".to_owned(), EntryFault::Foreign),
            ("{}".to_owned(), EntryFault::Foreign),
            (r#"{"sidekey":"1"}"#.to_owned(), EntryFault::Foreign),
            ("\0".repeat(300), EntryFault::Damaged("it is all zeros")),
            (with(r#""sidekey":1"#, r#""sidekey":2"#), EntryFault::Newer(2)),
            (r#"{"sidekey":3,"anything":{"else":1}}"#.to_owned(), EntryFault::Newer(3)),
            (with(r#""sidekey":1"#, r#""sidekey":0"#), EntryFault::Damaged("its format is zero")),
            (with(r#""revision":7"#, r#""revision":0"#), EntryFault::Damaged("its revision is zero")),
            (with("grant", "gift"), EntryFault::Damaged("its kind is unknown")),
            (with("grant", "token"), EntryFault::Swapped),
            (with(r#""neon""#, r#""aura""#), EntryFault::Swapped),
            (with("alice", "malice"), EntryFault::Swapped),
            (with("https://a", "https://b"), EntryFault::Swapped),
            (with("Y29", "!29"), EntryFault::Damaged("a part is not base64")),
            (
                with(r#""content":"#, r#""contents":"#),
                EntryFault::Damaged("a field is missing, unknown or of another type"),
            ),
            (
                with(r#","content":"Y29udGVudA==""#, ""),
                EntryFault::Damaged("it must have either content or sealed"),
            ),
        ];
        for (text, want) in cases {
            assert_eq!(decode(&alice(), text.as_bytes()).err(), Some(want), "{text}");
        }
    }
}
