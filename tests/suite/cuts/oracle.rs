//! What the right outcome of a cut is, told from the outside alone.

use super::exchanges::{Kind, Sent};
use crate::support::got::{Answer, Got};
use crate::support::scripted::How;

/// What a caller is to get.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Want {
    /// The answer, with this much of what its body holds.
    Whole(usize),
    /// The head of the answer, and a part of its body.
    Aborted,
    BadGateway,
}

/// Where an upstream cuts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// Before the request is sent, the connection being idle.
    Idle,
    /// When it has read so many bytes of the request.
    Request(usize),
    /// When it has sent so many bytes of the answer.
    Answer(usize),
}

/// What is to come of it, and on which of the upstream's connections, the first being 1.
pub(crate) fn of(sent: Sent, kind: Kind, reused: bool, place: Place, how: How) -> (Want, usize) {
    let whole = Want::Whole(kind.content("8-a-mark").len());
    // The request may have been seen: it goes out again only if that changes nothing, and only if the connection may
    // have been dead all along.
    let is_safe = matches!(sent, Sent::Get | Sent::Head | Sent::Delete | Sent::Put);
    let unanswered = if reused && is_safe { (whole, 2) } else { (Want::BadGateway, 1) };
    let (all, head) = kind.bytes("8-a-mark");
    match place {
        Place::Idle => (whole, 2),
        Place::Request(_) => unanswered,
        Place::Answer(seen) if seen < head => unanswered,
        Place::Answer(seen) if kind == Kind::UntilClose => match how {
            // Nobody can tell it from the end.
            How::Close => (Want::Whole(seen - head), 1),
            How::Reset => (Want::Aborted, 1),
        },
        Place::Answer(seen) if seen < all.len() => (Want::Aborted, 1),
        Place::Answer(_) => (whole, 1),
    }
}

/// Is it what was wanted, with this mark?
pub(crate) fn compare(got: &Got, want: Want, content: &str, mark: &str) -> bool {
    let is_ours = |answer: &Answer| answer.header("mark") == Some(mark);
    match (got, want) {
        (Got::Whole(answer), Want::Whole(length)) => {
            is_ours(answer) && answer.body == content.as_bytes()[..length]
        }
        (Got::Aborted(answer), Want::Aborted) => {
            is_ours(answer) && content.as_bytes().starts_with(&answer.body)
        }
        // Of an answer that breaks off, nothing at all may arrive.
        (Got::Nothing, Want::Aborted) => true,
        (Got::Whole(answer), Want::BadGateway) => {
            answer.status == 502
                && answer.header("sidekey-error") == Some("upstream_unreachable")
                && answer.header("mark").is_none()
        }
        _ => false,
    }
}
