//! Turning a connection away when there are too many: early, cheaply, and with a word.

use std::io::{Read as _, Write as _};

use super::listen::RawStream;

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
    fn the_answer_is_as_long_as_it_says() {
        let text = std::str::from_utf8(ANSWER).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("content-length: {}", body.len())), "{}", body.len());
        assert!(serde_json::from_str::<serde_json::Value>(body).is_ok());
    }
}
