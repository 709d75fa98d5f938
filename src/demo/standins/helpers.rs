//! The answers that every stand-in gives, for tests and load: echo, bytes, sink, slow, status, small.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode};
use hyper::body::Incoming;
use serde_json::json;

use super::body::{self, Checksum};
use super::record::header_list;
use super::serve::{self, Answer, segments};

/// One of the common answers, asked for by the end of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Helper {
    Echo,
    Bytes(u64),
    Cut(u64),
    Sink,
    Slow(u64),
    Status(StatusCode),
    Small,
}

impl Helper {
    /// Which one a path asks for, if any, whatever the path begins with.
    pub(super) fn of(path: &str) -> Option<Self> {
        match segments(path).as_slice() {
            [.., "echo"] => Some(Self::Echo),
            [.., "bytes", length] => length.parse().ok().map(Self::Bytes),
            [.., "cut", length] => length.parse().ok().map(Self::Cut),
            [.., "sink"] => Some(Self::Sink),
            [.., "slow", milliseconds] => milliseconds.parse().ok().map(Self::Slow),
            [.., "status", code] => {
                let code: u16 = code.parse().ok().filter(|code| (200..600).contains(code))?;
                StatusCode::from_u16(code).ok().map(Self::Status)
            }
            [.., "small"] => Some(Self::Small),
            _ => None,
        }
    }

    pub(super) async fn answer(self, request: Request<Incoming>) -> io::Result<Answer> {
        Ok(match self {
            Self::Echo => echo(request).await?,
            Self::Bytes(length) => binary(body::pattern(length)),
            Self::Cut(length) => binary(body::cut(length)),
            Self::Sink => {
                let mut length = 0;
                body::pass(request.into_body(), |data| length += data.len() as u64).await?;
                serve::json(StatusCode::OK, &json!({ "bytes": length }))
            }
            Self::Slow(milliseconds) => {
                tokio::time::sleep(Duration::from_millis(milliseconds)).await;
                small("late\n")
            }
            Self::Status(status) => {
                let mut answer = Answer::new(body::full(Bytes::new()));
                *answer.status_mut() = status;
                answer
            }
            Self::Small => small("small, fixed, and cheap to make\n"),
        })
    }
}

async fn echo(request: Request<Incoming>) -> io::Result<Answer> {
    let (head, incoming) = request.into_parts();
    let mut sum = Checksum::new();
    body::pass(incoming, |data| sum.add(data)).await?;
    Ok(serve::json(
        StatusCode::OK,
        &json!({
            "method": head.method.as_str(),
            "path": head.uri.path_and_query().map_or("", |target| target.as_str()),
            "headers": header_list(&head.headers),
            "body_bytes": sum.length(),
            "checksum": sum.hex(),
        }),
    ))
}

fn binary(body: body::Body) -> Answer {
    serve::answer(StatusCode::OK, "application/octet-stream", body)
}

fn small(text: &'static str) -> Answer {
    serve::answer(StatusCode::OK, "text/plain; charset=utf-8", body::full(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_helper_is_found_at_the_end_of_any_path() {
        let cases = [
            ("/echo", Some(Helper::Echo)),
            ("/v1/a/echo", Some(Helper::Echo)),
            ("/bytes/70000", Some(Helper::Bytes(70_000))),
            ("/bytes/many", None),
            ("/x/slow/5", Some(Helper::Slow(5))),
            ("/status/418", Some(Helper::Status(StatusCode::IM_A_TEAPOT))),
            ("/status/101", None),
            ("/echo/more", None),
            ("/", None),
        ];
        for (path, want) in cases {
            assert_eq!(Helper::of(path), want, "{path}");
        }
    }
}
