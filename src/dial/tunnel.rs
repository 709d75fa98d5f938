//! A way through an egress proxy: CONNECT (RFC 9110 §9.3.6). What goes through it is the origin's alone; the proxy
//! learns the origin's host and port, and the login that is meant for the proxy.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use zeroize::Zeroizing;

use super::error::ProxyFault;
use super::{Unreached, reach};
use crate::config::{EgressProxy, ProxyLogin, Upstream, authority};
use crate::header::AuthHeader;
use crate::secret::{self, Secret, SecretError, SecretSource};

/// The most that the header of the proxy's answers may hold together, in bytes.
const MAX_HEAD_BYTES: usize = 8 * 1024;

/// Connects to the proxy and asks it for a way to `origin`.
///
/// # Errors
/// [`ProxyFault`]; nothing was sent to the origin then.
pub(super) async fn open(
    proxy: &EgressProxy,
    origin: &Upstream,
    limit: Duration,
) -> Result<TcpStream, ProxyFault> {
    // Read each time, so that a rotated one is picked up.
    let login = match &proxy.login {
        Some(login) => Some(read(login).await?),
        None => None,
    };
    let reaching = reach(&proxy.host, proxy.port, proxy.allow_link_local, limit);
    let mut tcp = reaching.await.map_err(|unreached| match unreached {
        Unreached::Lookup(source) => ProxyFault::Lookup(source),
        Unreached::Reserved(address, why) => ProxyFault::Reserved { address, why },
        Unreached::Connect(source) => ProxyFault::Connect(source),
    })?;
    let request = request(origin, login.as_ref());
    tcp.write_all(request.as_bytes()).await.map_err(ProxyFault::Closed)?;
    let mut budget = MAX_HEAD_BYTES;
    loop {
        let head = read_head(&mut tcp, &mut budget).await?;
        match status(&head).ok_or(ProxyFault::Garbage)? {
            // Informational (RFC 9110 §15.2): another one follows.
            100..=199 => {}
            200..=299 => return Ok(tcp),
            407 => return Err(ProxyFault::Unauthenticated),
            status => return Err(ProxyFault::Refused(status)),
        }
    }
}

async fn read(login: &ProxyLogin) -> Result<AuthHeader, ProxyFault> {
    let password = password(&login.password).await.map_err(ProxyFault::Password)?;
    AuthHeader::basic(login.username.expose(), &password).map_err(ProxyFault::Login)
}

async fn password(source: &SecretSource) -> Result<Secret, SecretError> {
    match source {
        SecretSource::Value(password) => Ok(password.clone()),
        SecretSource::Env(name) => secret::read_env(name),
        SecretSource::File(path) => {
            let (path, shown) = (path.clone(), path.clone());
            // A worker serves others meanwhile, however slow the file is.
            let read = tokio::task::spawn_blocking(move || secret::read_file(&path)).await;
            read.unwrap_or_else(|error| {
                Err(SecretError::Unreadable { path: shown, source: io::Error::other(error) })
            })
        }
        // The configuration takes none: it would run once for each connection.
        SecretSource::Exec(command) => Err(SecretError::Command {
            command: command.shown(),
            reason: "no command is run for an egress proxy".to_owned(),
        }),
    }
}

/// Pure. The whole request.
fn request(origin: &Upstream, login: Option<&AuthHeader>) -> Zeroizing<String> {
    let authority = authority(&origin.host, origin.port);
    let login = login.and_then(|login| login.value().to_str().ok());
    let agent = concat!("sidekey/", env!("CARGO_PKG_VERSION"));
    // Of its final size from the start: a text that grows would leave copies of the password behind.
    let size = 2 * authority.len() + agent.len() + login.map_or(0, str::len) + 96;
    let mut text = Zeroizing::new(String::with_capacity(size));
    for piece in
        ["CONNECT ", &authority, " HTTP/1.1\r\nHost: ", &authority, "\r\nUser-Agent: ", agent, "\r\n"]
    {
        text.push_str(piece);
    }
    if let Some(login) = login {
        for piece in ["Proxy-Authorization: ", login, "\r\n"] {
            text.push_str(piece);
        }
    }
    text.push_str("\r\n");
    text
}

/// Reads up to and with the empty line, and not one byte more: what follows is the origin's.
async fn read_head(tcp: &mut TcpStream, budget: &mut usize) -> Result<Vec<u8>, ProxyFault> {
    let mut head = Vec::new();
    let mut seen = [0; 1024];
    loop {
        let room = seen.len().min(*budget);
        if room == 0 {
            return Err(ProxyFault::TooLong(MAX_HEAD_BYTES));
        }
        let there = tcp.peek(&mut seen[..room]).await.map_err(ProxyFault::Closed)?;
        if there == 0 {
            return Err(ProxyFault::Closed(io::ErrorKind::UnexpectedEof.into()));
        }
        let before = head.len();
        head.extend_from_slice(&seen[..there]);
        let end = end_of_head(&head);
        let taken = end.map_or(there, |end| end - before);
        tcp.read_exact(&mut seen[..taken]).await.map_err(ProxyFault::Closed)?;
        *budget -= taken;
        if let Some(end) = end {
            head.truncate(end);
            return Ok(head);
        }
        // What begins like nothing that HTTP says need not be read to its end.
        if !could_be_http(&head) {
            return Err(ProxyFault::Garbage);
        }
    }
}

/// Pure. Where the empty line ends; lines may end in LF alone (RFC 9112 §2.2).
fn end_of_head(bytes: &[u8]) -> Option<usize> {
    let mut lines = bytes.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(at, _)| at);
    lines.find_map(|at| match bytes.get(at + 1..)? {
        [b'\n', ..] => Some(at + 2),
        [b'\r', b'\n', ..] => Some(at + 3),
        _ => None,
    })
}

/// Pure. Is this the beginning of a status line?
fn could_be_http(bytes: &[u8]) -> bool {
    let length = bytes.len().min(b"HTTP/1.".len());
    bytes[..length] == b"HTTP/1."[..length]
}

/// Pure. The status of an answer (RFC 9112 §4); none: it is not HTTP/1.
fn status(head: &[u8]) -> Option<u16> {
    match head.strip_prefix(b"HTTP/1.")? {
        [b'0'..=b'9', b' ', a @ b'1'..=b'5', b @ b'0'..=b'9', c @ b'0'..=b'9', b' ' | b'\r' | b'\n', ..] => {
            let digit = |byte: &u8| u16::from(byte - b'0');
            Some(digit(a) * 100 + digit(b) * 10 + digit(c))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use tokio::net::TcpListener;

    use super::*;

    fn origin(host: &str) -> Upstream {
        Upstream {
            tls: true,
            host: host.into(),
            port: 443,
            base_path: "/secret-path".into(),
            host_header: HeaderValue::from_static("h"),
            via: None,
            allow_link_local: false,
        }
    }

    #[test]
    fn the_proxy_is_told_host_and_port_and_its_own_login() {
        let agent = concat!("User-Agent: sidekey/", env!("CARGO_PKG_VERSION"));
        assert_eq!(
            *request(&origin("api.example.com"), None),
            format!("CONNECT api.example.com:443 HTTP/1.1\r\nHost: api.example.com:443\r\n{agent}\r\n\r\n")
        );
        let login = AuthHeader::basic("u", &Secret::new("p:w")).unwrap();
        let text = request(&origin("2001:db8::1"), Some(&login));
        assert_eq!(
            *text,
            format!(
                "CONNECT [2001:db8::1]:443 HTTP/1.1\r\nHost: [2001:db8::1]:443\r\n{agent}\r\n\
                 Proxy-Authorization: Basic dTpwOnc=\r\n\r\n"
            )
        );
        assert!(text.capacity() < text.len() + 96, "it did not grow");
    }

    #[test]
    fn a_head_ends_with_its_empty_line() {
        let cases = [
            ("", None),
            ("HTTP/1.1 200 OK\r\n", None),
            ("HTTP/1.1 200 OK\r\n\r", None),
            ("HTTP/1.1 200 OK\r\n\r\n", Some(19)),
            ("HTTP/1.1 200 OK\r\n\r\nmore\r\n\r\n", Some(19)),
            ("HTTP/1.1 200 OK\n\nmore", Some(17)),
            ("HTTP/1.1 200 OK\r\nA: b\n\r\nmore", Some(24)),
        ];
        for (text, want) in cases {
            assert_eq!(end_of_head(text.as_bytes()), want, "{text:?}");
        }
    }

    #[test]
    fn a_status_line_is_one_of_http_1() {
        let cases = [
            ("HTTP/1.1 200 Connection established\r\n\r\n", Some(200)),
            ("HTTP/1.0 200\r\n\r\n", Some(200)),
            ("HTTP/1.1 407 Proxy Authentication Required\r\n\r\n", Some(407)),
            ("HTTP/1.1 099 x\r\n\r\n", None),
            ("HTTP/1.1 999 x\r\n\r\n", None),
            ("HTTP/1.1 2000 x\r\n\r\n", None),
            ("HTTP/1.1  200 x\r\n\r\n", None),
            ("HTTP/2 200\r\n\r\n", None),
            ("ICY 200 OK\r\n\r\n", None),
            ("SSH-2.0-x\r\n\r\n", None),
            ("\r\n\r\n", None),
        ];
        for (text, want) in cases {
            assert_eq!(status(text.as_bytes()), want, "{text:?}");
        }
    }

    /// What [`open`] makes of a proxy that sends these pieces, each when the one before was taken; then closes.
    async fn answered(pieces: Vec<Vec<u8>>) -> Result<TcpStream, ProxyFault> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let saying = async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.set_nodelay(true).unwrap();
            let mut byte = [0];
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                stream.read_exact(&mut byte).await.unwrap();
                head.push(byte[0]);
            }
            for piece in pieces {
                // It may have heard enough.
                let _ = stream.write_all(&piece).await;
                tokio::task::yield_now().await;
            }
        };
        let proxy = EgressProxy { host: "127.0.0.1".into(), port, login: None, allow_link_local: false };
        let origin = origin("api.example.com");
        let (opened, ()) = tokio::join!(open(&proxy, &origin, Duration::from_secs(5)), saying);
        opened
    }

    #[tokio::test]
    async fn what_follows_the_proxys_answer_is_the_origins_first_word() {
        let whole =
            b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello".to_vec();
        for pieces in [vec![whole.clone()], whole.iter().map(|byte| vec![*byte]).collect()] {
            let mut rest = String::new();
            answered(pieces).await.unwrap().read_to_string(&mut rest).await.unwrap();
            assert_eq!(rest, "hello");
        }
    }

    #[tokio::test]
    async fn an_answer_that_opens_nothing_is_told_by_its_kind() {
        let long = format!("HTTP/1.1 200 OK\r\nA: {}\r\n\r\n", "x".repeat(MAX_HEAD_BYTES));
        let patient = "HTTP/1.1 102 Processing\r\n\r\n".repeat(400);
        type Expected = fn(&ProxyFault) -> bool;
        let cases: [(&str, Expected); 8] = [
            ("HTTP/1.1 407 No\r\nProxy-Authenticate: Basic\r\n\r\n", |fault| {
                matches!(fault, ProxyFault::Unauthenticated)
            }),
            ("HTTP/1.1 403 Forbidden\r\n\r\n", |fault| matches!(fault, ProxyFault::Refused(403))),
            ("HTTP/1.1 302 Found\r\nLocation: x\r\n\r\n", |fault| matches!(fault, ProxyFault::Refused(302))),
            ("SSH-2.0-OpenSSH_9.9\r\n", |fault| matches!(fault, ProxyFault::Garbage)),
            ("", |fault| matches!(fault, ProxyFault::Closed(_))),
            ("HTTP/1.1 200 OK\r\n", |fault| matches!(fault, ProxyFault::Closed(_))),
            (&long, |fault| matches!(fault, ProxyFault::TooLong(MAX_HEAD_BYTES))),
            (&patient, |fault| matches!(fault, ProxyFault::TooLong(MAX_HEAD_BYTES))),
        ];
        for (answer, expected) in cases {
            let fault = answered(vec![answer.as_bytes().to_vec()]).await.expect_err("no way");
            assert!(expected(&fault), "{:?}: {fault:?}", answer.get(..30));
        }
    }
}
