//! The strictest reader of requests: what it does not understand in exactly one way is an error. It shares nothing with
//! what it judges.

/// How many whole requests a stream is, and how many bytes of another one follow.
pub(crate) fn requests(stream: &[u8]) -> Result<(usize, usize), String> {
    let (mut at, mut whole) = (0, 0);
    while let Some(length) = request(&stream[at..])? {
        at += length;
        whole += 1;
    }
    Ok((whole, stream.len() - at))
}

/// The length of the request that a stream begins with; none if it is not whole.
fn request(stream: &[u8]) -> Result<Option<usize>, String> {
    let Some(head) = find(stream, b"\r\n\r\n") else { return Ok(None) };
    let mut lines = stream[..head].split(|byte| *byte == b'\n');
    let line = lines.next().unwrap_or_default();
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let words: Vec<&[u8]> = line.split(|byte| *byte == b' ').collect();
    let [method, target, b"HTTP/1.1"] = words[..] else { return Err(format!("request line {}", show(line))) };
    if !is_token(method) || target.is_empty() || !target.iter().all(|byte| *byte > b' ' && *byte != 0x7f) {
        return Err(format!("request line {}", show(line)));
    }
    let (mut lengths, mut codings, mut hosts) = (Vec::new(), Vec::new(), 0);
    let last = stream[..head].iter().filter(|byte| **byte == b'\n').count();
    for (number, line) in lines.enumerate() {
        let line = match line.strip_suffix(b"\r") {
            Some(line) => line,
            None if number + 1 == last => line,
            None => return Err(format!("bare LF in {}", show(line))),
        };
        let (name, value) = field(line)?;
        match name.as_str() {
            "content-length" => lengths.push(value),
            "transfer-encoding" => codings.push(value),
            "host" => hosts += 1,
            _ => {}
        }
    }
    if hosts != 1 {
        return Err(format!("{hosts} Host lines"));
    }
    let body = head + 4;
    match (&lengths[..], &codings[..]) {
        ([], []) => Ok(Some(body)),
        ([length], []) if !length.is_empty() && length.bytes().all(|byte| byte.is_ascii_digit()) => {
            let end = length.parse::<usize>().ok().and_then(|length| body.checked_add(length));
            Ok(end.filter(|end| *end <= stream.len()))
        }
        ([], [coding]) if coding.eq_ignore_ascii_case("chunked") => {
            Ok(chunked(&stream[body..])?.map(|length| body + length))
        }
        _ => Err(format!("ambiguous framing: {lengths:?} {codings:?}")),
    }
}

/// The length of a chunked body; none if it is not whole.
fn chunked(body: &[u8]) -> Result<Option<usize>, String> {
    let mut at = 0;
    loop {
        let Some(end) = find(&body[at..], b"\r\n") else { return Ok(None) };
        let digits = &body[at..at + end];
        if digits.is_empty() || digits.len() > 8 || !digits.iter().all(u8::is_ascii_hexdigit) {
            return Err(format!("chunk size {}", show(digits)));
        }
        let size =
            usize::from_str_radix(&String::from_utf8_lossy(digits), 16).map_err(|error| error.to_string())?;
        at += end + 2;
        if size == 0 {
            break;
        }
        match body.get(at + size..at + size + 2) {
            None => return Ok(None),
            Some(b"\r\n") => at += size + 2,
            Some(other) => return Err(format!("{} behind a chunk", show(other))),
        }
    }
    // Trailers.
    loop {
        let Some(end) = find(&body[at..], b"\r\n") else { return Ok(None) };
        let line = &body[at..at + end];
        at += end + 2;
        if line.is_empty() {
            return Ok(Some(at));
        }
        field(line)?;
    }
}

/// A field's name in lower case, and its value.
fn field(line: &[u8]) -> Result<(String, String), String> {
    let wrong = || format!("field line {}", show(line));
    let colon = line.iter().position(|byte| *byte == b':').ok_or_else(wrong)?;
    let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
    let legal = |byte: &u8| *byte == b'\t' || (*byte >= b' ' && *byte != 0x7f);
    if !is_token(name) || !value.iter().all(legal) {
        return Err(wrong());
    }
    Ok((show(name).to_ascii_lowercase(), show(value)))
}

fn is_token(word: &[u8]) -> bool {
    let legal = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
    !word.is_empty() && word.iter().all(legal)
}

pub(crate) fn find(within: &[u8], what: &[u8]) -> Option<usize> {
    within.windows(what.len()).position(|window| window == what)
}

fn show(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string()
}

#[test]
fn whole_requests_are_counted_and_ambiguous_ones_are_errors() {
    let count = |text: &str| requests(text.as_bytes());
    let get = "GET / HTTP/1.1\r\nhost: a\r\n\r\n";
    assert_eq!(count(""), Ok((0, 0)));
    assert_eq!(count(&get.repeat(2)), Ok((2, 0)));
    assert_eq!(count(&format!("{get}GET /")), Ok((1, 5)));
    assert_eq!(count("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\nabcG"), Ok((1, 1)));
    assert_eq!(count("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\nab").unwrap().0, 0);
    let chunked = "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n";
    assert_eq!(count(&format!("{chunked}3\r\nabc\r\n0\r\nx: y\r\n\r\nG")), Ok((1, 1)));
    assert_eq!(count(&format!("{chunked}3\r\nabc\r\n0\r\n")).unwrap().0, 0);
    for wrong in [
        "GET  / HTTP/1.1\r\nhost: a\r\n\r\n",
        "GET / HTTP/1.0\r\nhost: a\r\n\r\n",
        "GET / HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\nhost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nhost : a\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\nx: y\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\nx: a\rb\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\n x\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\ncontent-length: +1\r\n\r\na",
        "GET / HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\ncontent-length: 1\r\n\r\na",
        "GET / HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\na",
        "GET / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: gzip, chunked\r\n\r\n",
        &format!("{chunked}3;x\r\nabc\r\n0\r\n\r\n"),
        &format!("{chunked}3\r\nabcd\r\n0\r\n\r\n"),
        &format!("{chunked}0\r\nx\r\n\r\n"),
    ] {
        assert!(count(wrong).is_err(), "{wrong}");
    }
}
