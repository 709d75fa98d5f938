//! What a request may carry to make a server take it for another one than its first line says.

use http::HeaderMap;

use super::walk::unit;

/// Headers that some frameworks believe in place of the method, and some servers in place of the path.
const NAMES: [&str; 7] = [
    "x-http-method-override",
    "x-http-method",
    "x-method-override",
    "x-original-method",
    "x-original-url",
    "x-rewrite-url",
    "x-original-uri",
];

/// The parameter that some frameworks believe in place of the method.
const PARAMETER: &str = "_method";

/// The header or parameter with which a request asks to be taken for another one, if it has any.
///
/// Names count with `_` for `-` too, as servers in the manner of CGI read both as the same; the parameter's also
/// encoded, and with a dot or a space for its underscore, as PHP reads it. A `_method` in a form's body is not seen.
pub fn override_in(headers: &HeaderMap, query: Option<&str>) -> Option<&'static str> {
    let header = headers.keys().find_map(|name| override_of(name.as_str()));
    header.or_else(|| {
        let mut names = query?.split(['&', ';']).map(|pair| pair.split('=').next().unwrap_or_default());
        names
            .any(|name| is_parameter(name.as_bytes()) || is_parameter(after_spaces(name.as_bytes())))
            .then_some(PARAMETER)
    })
}

/// Is it the name of such a header, in lower case?
pub fn override_of(name: &str) -> Option<&'static str> {
    let plain = |byte: u8| if byte == b'_' { b'-' } else { byte };
    NAMES.into_iter().find(|known| name.bytes().map(plain).eq(known.bytes()))
}

fn after_spaces(mut name: &[u8]) -> &[u8] {
    while !name.is_empty() && matches!(unit(name).byte, b' ' | b'+') {
        name = &name[unit(name).width..];
    }
    name
}

fn is_parameter(mut name: &[u8]) -> bool {
    for wanted in PARAMETER.bytes() {
        if name.is_empty() {
            return false;
        }
        let read = unit(name);
        let byte = match read.byte {
            b'.' | b' ' | b'+' => b'_',
            byte => byte.to_ascii_lowercase(),
        };
        if byte != wanted {
            return false;
        }
        name = &name[read.width..];
    }
    // `_method[]` and the like are no text, but who knows.
    name.is_empty() || unit(name).byte == b'['
}
