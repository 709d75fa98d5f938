//! Tables of what the seal notices.

use super::*;
use crate::store::Kind;

const HEX: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";

fn key(text: &str) -> SealKey {
    Seal::parse_key(&Secret::new(text)).unwrap()
}

fn other() -> SealKey {
    key(&HEX.replace("00", "ff"))
}

fn alice() -> Key {
    Key { kind: Kind::Grant, credential: "neon".into(), account: "alice".into(), issuer: "https://a".into() }
}

fn fault(opened: Result<Zeroizing<Vec<u8>>, StoreError>) -> Option<SealFault> {
    match opened {
        Err(StoreError::Seal { fault, .. }) => Some(fault),
        Err(other) => panic!("{other}"),
        Ok(_) => None,
    }
}

#[test]
fn a_key_is_thirty_two_bytes_in_any_usual_text() {
    let id = key(HEX).id();
    let bytes: Vec<u8> = (0..32).collect();
    let base64 = base64::engine::general_purpose::STANDARD.encode(&bytes);
    for text in
        [HEX.to_uppercase(), base64.clone(), base64.trim_end_matches('=').to_owned(), format!(" {HEX} ")]
    {
        assert_eq!(key(&text).id(), id, "{text}");
    }
    let bytes: Vec<u8> = (0..32).map(|n| 0xf8_u8.wrapping_add(n)).collect();
    let url_safe = base64::engine::general_purpose::URL_SAFE.encode(&bytes);
    assert!(url_safe.contains('-'), "{url_safe}");
    assert_eq!(key(&url_safe).id(), key(&base64::engine::general_purpose::STANDARD.encode(&bytes)).id());
}

#[test]
fn what_is_no_key_is_refused_without_being_shown() {
    let cases = [
        ("", KeyError::Length(0)),
        ("canary!!", KeyError::Text),
        ("correct horse battery staple", KeyError::Text),
        ("Y2FuYXJ5", KeyError::Length(6)),
        (&HEX[..62], KeyError::Text),
        (&HEX[..60], KeyError::Length(45)),
        (&"00".repeat(32), KeyError::Guessable),
    ];
    for (text, want) in cases {
        let error = Seal::parse_key(&Secret::new(text)).unwrap_err();
        assert_eq!(error, want, "{text}");
        assert!(error.to_string().contains("openssl rand"), "{error}");
    }
    let shown = format!("{:?} {:?}", key(HEX), Seal::new(vec![key(HEX)]));
    assert!(!shown.contains("0102") && shown.contains(&key(HEX).id()), "{shown}");
}

#[test]
fn what_was_sealed_is_opened_by_any_configured_key() {
    let sealed = Seal::new(vec![key(HEX)]).close(&alice(), b"canary").unwrap();
    assert!(!sealed.windows(6).any(|window| window == b"canary"));
    for keys in [vec![key(HEX)], vec![other(), key(HEX)]] {
        assert_eq!(*Seal::new(keys).open(&alice(), &sealed).unwrap(), *b"canary");
    }
    let unknown = SealFault::UnknownKey(key(HEX).id());
    assert_eq!(fault(Seal::new(vec![other()]).open(&alice(), &sealed)), Some(unknown));
    let none = SealFault::NoKey(key(HEX).id());
    assert_eq!(fault(Seal::new(vec![]).open(&alice(), &sealed)), Some(none));
}

#[test]
fn the_first_key_seals_and_never_twice_the_same() {
    let seal = Seal::new(vec![other(), key(HEX)]);
    let (one, two) = (seal.close(&alice(), b"x").unwrap(), seal.close(&alice(), b"x").unwrap());
    assert_ne!(one, two);
    assert_eq!(fault(Seal::new(vec![other()]).open(&alice(), &one)), None);
}

#[test]
fn an_open_entry_is_opened_though_a_key_is_configured() {
    let open = Seal::new(vec![]).close(&alice(), b"x").unwrap();
    assert_eq!(*Seal::new(vec![key(HEX)]).open(&alice(), &open).unwrap(), *b"x");
}

#[test]
fn a_flipped_bit_anywhere_or_a_cut_is_noticed() {
    let seal = Seal::new(vec![key(HEX)]);
    let sealed = seal.close(&alice(), b"content").unwrap();
    for bit in 0..8 * sealed.len() {
        let mut changed = sealed.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        assert!(fault(seal.open(&alice(), &changed)).is_some(), "bit {bit}");
    }
    for length in 0..sealed.len() {
        assert!(fault(seal.open(&alice(), &sealed[..length])).is_some(), "length {length}");
    }
}

#[test]
fn an_entry_under_another_key_is_noticed() {
    let seal = Seal::new(vec![key(HEX)]);
    let sealed = seal.close(&alice(), b"content").unwrap();
    let others = [
        Key { kind: Kind::Token, ..alice() },
        Key { credential: "neo".into(), account: "nalice".into(), ..alice() },
        Key { account: "bob".into(), ..alice() },
        Key { issuer: "https://b".into(), ..alice() },
    ];
    for other in others {
        let error = seal.open(&other, &sealed).unwrap_err();
        assert!(error.to_string().contains("or is another account's"), "{error}");
    }
}
