//! The body of a query to Neo4j's Query API, made to say one access mode. Pure.

use bytes::Bytes;
use http::HeaderMap;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use serde::de::{Deserializer as _, MapAccess, Visitor};
use serde_json::value::RawValue;

/// What the Query API calls it.
const MEMBER: &str = "accessMode";

/// May a body with this header be read as JSON in UTF-8, by everybody?
pub(super) fn is_plain_json(headers: &HeaderMap) -> Result<(), &'static str> {
    const TYPE: &str = "On this read-only route, a query must be application/json or application/vnd.neo4j.query in \
                        UTF-8: its access mode is set in the body.";
    let mut encodings = headers.get_all(CONTENT_ENCODING).iter();
    if !encodings.all(|encoding| encoding.as_bytes().eq_ignore_ascii_case(b"identity")) {
        return Err(
            "On this read-only route, a query must not be compressed: its access mode is set in the body.",
        );
    }
    let mut types = headers.get_all(CONTENT_TYPE).iter();
    let Some(given) = types.next() else { return Ok(()) };
    let given = given.to_str().map_err(|_| TYPE)?;
    let mut parts = given.split(';').map(str::trim);
    let essence = parts.next().unwrap_or_default();
    let is_json = essence.eq_ignore_ascii_case("application/json") || is_typed_json(essence);
    let is_utf8 = |part: &str| {
        let (name, value) = part.split_once('=').unwrap_or((part, ""));
        !name.trim().eq_ignore_ascii_case("charset")
            || value.trim().trim_matches('"').eq_ignore_ascii_case("utf-8")
    };
    if is_json && parts.all(is_utf8) && types.next().is_none() { Ok(()) } else { Err(TYPE) }
}

/// Is it Neo4j's own JSON with types, of any version: `application/vnd.neo4j.query`, `application/vnd.neo4j.query.v1.1`?
fn is_typed_json(essence: &str) -> bool {
    const TYPED: &str = "application/vnd.neo4j.query";
    let Some((typed, version)) = essence.split_at_checked(TYPED.len()) else { return false };
    let is_version = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    let version_of =
        |text: &str| text.strip_prefix(".v").or_else(|| text.strip_prefix(".V")).is_some_and(is_version);
    typed.eq_ignore_ascii_case(TYPED) && (version.is_empty() || version_of(version))
}

/// A query's body with this access mode, or with none; every other member as it came, byte for byte.
///
/// However often and however spelled the body says a mode, the server sees one at most.
///
/// # Errors
/// It is not one JSON object.
pub(super) fn with_mode(body: &[u8], mode: Option<&str>) -> Result<Bytes, &'static str> {
    struct Members;
    impl<'de> Visitor<'de> for Members {
        type Value = Vec<(String, &'de RawValue)>;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut members = Vec::new();
            while let Some(member) = map.next_entry()? {
                members.push(member);
            }
            Ok(members)
        }
    }
    const TEXT: &str =
        "On this read-only route, the body of a query must be one JSON object: its access mode is set in it.";
    let mut members = Vec::new();
    if !body.trim_ascii().is_empty() {
        let mut json = serde_json::Deserializer::from_slice(body);
        members = json.deserialize_map(Members).map_err(|_| TEXT)?;
        json.end().map_err(|_| TEXT)?;
        members.retain(|(name, _)| !is_the_mode(name));
    } else if mode.is_none() {
        return Ok(Bytes::copy_from_slice(body));
    }
    let mut out = Vec::with_capacity(body.len() + MEMBER.len() + 16);
    out.push(b'{');
    let mut put = |name: &str, value: &str| -> Result<(), &'static str> {
        if out.len() > 1 {
            out.push(b',');
        }
        serde_json::to_writer(&mut out, name).map_err(|_| TEXT)?;
        out.push(b':');
        out.extend_from_slice(value.as_bytes());
        Ok(())
    };
    for (name, value) in members {
        put(&name, value.get())?;
    }
    if let Some(mode) = mode {
        put(MEMBER, &format!("\"{mode}\""))?;
    }
    out.push(b'}');
    Ok(out.into())
}

/// Is a member of this name the access mode to any reader, also to one that tells no letters' case apart?
fn is_the_mode(name: &str) -> bool {
    name.chars().flat_map(char::to_uppercase).eq(MEMBER.chars().flat_map(char::to_uppercase))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    const READ: &str = "READ";

    #[test]
    fn the_body_says_one_access_mode_whatever_it_said_before() {
        let cases = [
            (r#"{"statement":"RETURN 1"}"#, r#"{"statement":"RETURN 1","accessMode":"READ"}"#),
            (r#"{"accessMode":"WRITE","statement":"x"}"#, r#"{"statement":"x","accessMode":"READ"}"#),
            (r#"{"accessMode":"READ","accessMode":"WRITE"}"#, r#"{"accessMode":"READ"}"#),
            (r#"{"access\u004dode":"WRITE","statement":"x"}"#, r#"{"statement":"x","accessMode":"READ"}"#),
            (r#"{"\u0061ccessMod\u0065":"WRITE"}"#, r#"{"accessMode":"READ"}"#),
            (r#"{"ACCESSMODE":"WRITE","accessmode":"WRITE"}"#, r#"{"accessMode":"READ"}"#),
            (r#"{"acce\u017f\u017fMode":"WRITE"}"#, r#"{"accessMode":"READ"}"#),
            (r#"{"accessMode":{"a":["WRITE"]},"b":1}"#, r#"{"b":1,"accessMode":"READ"}"#),
            (" { } \n", r#"{"accessMode":"READ"}"#),
            ("", r#"{"accessMode":"READ"}"#),
            ("  \n", r#"{"accessMode":"READ"}"#),
            (
                r#"{"parameters" : {"n": 123456789012345678901234567890, "f":1.10e+3, "accessMode":"WRITE", "s":"\ud83d\ude00\u0000"}}"#,
                r#"{"parameters":{"n": 123456789012345678901234567890, "f":1.10e+3, "accessMode":"WRITE", "s":"\ud83d\ude00\u0000"},"accessMode":"READ"}"#,
            ),
            (
                r#"{"a\"b\\":"\"accessMode\":\"WRITE\""}"#,
                r#"{"a\"b\\":"\"accessMode\":\"WRITE\"","accessMode":"READ"}"#,
            ),
        ];
        for (body, want) in cases {
            let got = with_mode(body.as_bytes(), Some(READ)).unwrap();
            assert_eq!(std::str::from_utf8(&got).unwrap(), want, "{body}");
        }
        let within =
            |body: &str| with_mode(body.as_bytes(), None).map(|got| String::from_utf8(got.to_vec()).unwrap());
        assert_eq!(within(""), Ok(String::new()));
        assert_eq!(
            within(r#"{"accessMode":"WRITE","statement":"x"}"#),
            Ok(r#"{"statement":"x"}"#.to_owned())
        );
        for body in [
            "[]",
            "1",
            "null",
            "\"x\"",
            "{",
            "{}{}",
            "{} x",
            "{'a':1}",
            "{a:1}",
            "{\"a\":1,}",
            "{\"a\":NaN}",
            "/**/{}",
            "\u{feff}{}",
            "{\"\\ud800\":1}",
            "{\"a\":1}\0",
        ] {
            assert!(with_mode(body.as_bytes(), Some(READ)).is_err(), "{body:?}");
        }
        assert!(with_mode(b"\xff\xfe{\0}\0", Some(READ)).is_err());
        assert!(with_mode(b"{\"a\xff\":1}", Some(READ)).is_err());
    }

    #[test]
    fn only_what_everybody_reads_as_utf_8_is_rewritten() {
        let with = |lines: &[(&'static str, &str)]| {
            let mut headers = HeaderMap::new();
            for (name, value) in lines {
                headers.append(*name, value.parse().unwrap());
            }
            is_plain_json(&headers).is_ok()
        };
        for value in [
            "application/json",
            "Application/JSON; charset=UTF-8",
            "application/json;charset=\"utf-8\"",
            "application/vnd.neo4j.query",
            "application/vnd.neo4j.query;charset=utf-8",
            "application/vnd.neo4j.query.v1.0",
            "Application/vnd.Neo4j.Query.V1.12; charset=utf-8",
        ] {
            assert!(with(&[("content-type", value)]), "{value}");
        }
        assert!(with(&[]) && with(&[("content-encoding", "identity")]));
        for value in [
            "application/json; charset=utf-16",
            "application/json;charset=utf-7",
            "text/plain",
            "application/jsonl",
            "application/vnd.neo4j.query.",
            "application/vnd.neo4j.query.v",
            "application/vnd.neo4j.query.v1.1+jsonl",
            "application/vnd.neo4j.query-v1.1",
            "application/vnd.neo4j.quer\u{e9}",
            "",
        ] {
            assert!(!with(&[("content-type", value)]), "{value}");
        }
        assert!(!with(&[("content-type", "application/json"), ("content-type", "application/json")]));
        assert!(!with(&[("content-encoding", "gzip")]));
    }

    proptest! {
        #[test]
        fn nothing_but_the_access_mode_changes(
            members in proptest::collection::vec(("[a-zA-Z\u{e9}\"\\\\]{0,6}|accessMode", "[ -~]{0,8}"), 0..6),
        ) {
            let quoted = |text: &str| serde_json::to_string(text).unwrap();
            let body: Vec<String> =
                members.iter().map(|(name, value)| format!("{} :  {}", quoted(name), quoted(value))).collect();
            let got = with_mode(format!("{{{}}}", body.join(" ,\n")).as_bytes(), Some(READ)).unwrap();
            let seen: Value = serde_json::from_slice(&got).unwrap();
            let mut wanted: serde_json::Map<String, Value> = serde_json::Map::new();
            for (name, value) in &members {
                wanted.insert(name.clone(), value.clone().into());
            }
            wanted.retain(|name, _| !name.eq_ignore_ascii_case(MEMBER));
            wanted.insert(MEMBER.to_owned(), READ.into());
            prop_assert_eq!(seen, Value::Object(wanted));
        }
    }
}
