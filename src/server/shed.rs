//! Turning a connection away when there are too many: early, cheaply, and with a word.

use std::io::{Read as _, Write as _};

use rustix::process::{Resource, getrlimit};

use super::listen::RawStream;

/// Connections at once where the configuration says nothing.
const DEFAULT: usize = 16_384;

/// What a caller is told, in either HTTP and whatever it asked: HTTP/2 reads it as a protocol error.
const ANSWER: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\n\
    content-type: application/json\r\n\
    content-length: 79\r\n\
    sidekey-error: overloaded\r\n\
    proxy-status: sidekey; error=connection_limit_reached\r\n\
    retry-after: 1\r\n\
    connection: close\r\n\
    \r\n\
    {\"error\":\"overloaded\",\"message\":\"There are too many connections; try again.\"}\r\n";

/// How many connections there may be: as many as the configuration says, else as many as go well.
pub(super) fn limit(configured: Option<usize>) -> usize {
    configured.unwrap_or_else(|| default_limit(getrlimit(Resource::Nofile).current))
}

/// Each caller may need a connection to an upstream besides its own, so half of the files that may be open are theirs.
fn default_limit(files: Option<u64>) -> usize {
    let half = files.map_or(usize::MAX, |files| usize::try_from(files / 2).unwrap_or(usize::MAX));
    half.clamp(1, DEFAULT)
}

/// Answers and closes, without waiting for anything.
pub(super) fn turn_away(stream: RawStream) {
    match stream {
        RawStream::Tcp(mut stream) => {
            let _ = stream.set_nonblocking(true);
            let _ = stream.write(ANSWER);
            let _ = stream.shutdown(std::net::Shutdown::Write);
            // What lies unread when a connection closes takes the answer with it.
            let _ = stream.read(&mut [0; 8192]);
        }
        RawStream::Unix(mut stream) => {
            let _ = stream.set_nonblocking(true);
            let _ = stream.write(ANSWER);
            let _ = stream.shutdown(std::net::Shutdown::Write);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unless_told_connections_take_half_of_the_files_at_most() {
        let cases =
            [(None, 16_384), (Some(1_048_576), 16_384), (Some(1024), 512), (Some(1), 1), (Some(0), 1)];
        for (files, limit) in cases {
            assert_eq!(default_limit(files), limit, "{files:?}");
        }
        assert_eq!(limit(Some(100_000)), 100_000);
    }

    #[test]
    fn the_answer_is_as_long_as_it_says() {
        let text = std::str::from_utf8(ANSWER).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("content-length: {}", body.len())), "{}", body.len());
        assert!(serde_json::from_str::<serde_json::Value>(body).is_ok());
    }
}
