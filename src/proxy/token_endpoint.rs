//! The local token endpoint: sidekey itself answers clients that insist on fetching a token, with one that is worth
//! nothing anywhere else (RFC 6749 §4.4). Nothing of it goes upstream.

use std::rc::Rc;
use std::task::Poll;
use std::time::SystemTime;

use bytes::Bytes;
use http::Response;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::request::Parts;
use hyper::body::Incoming;
use serde_json::json;
use zeroize::Zeroizing;

use super::answer;
use super::error::ProxyError;
use super::exchange::Exchange;
use super::incoming::Coming;
use super::response_body::ResponseBody;
use super::rules::Rules;
use super::token_request::{TokenRefusal, TokenRequest};
use crate::clock::Clock;
use crate::config::CallerId;
use crate::guard::local_token;

/// The longest body of a token request, in octets.
const MAX_BODY: usize = 16 << 10;

/// Answers a token request, of a caller that is known otherwise if any, on a route.
///
/// # Errors
/// Why the client gets no token.
pub(super) async fn answer(
    rules: &Rules,
    (caller, route): (Option<CallerId>, usize),
    head: &Parts,
    body: Incoming,
    exchange: &Rc<Exchange>,
    clock: &Clock,
) -> Result<Response<ResponseBody>, ProxyError> {
    let form = read(Coming::new(body, head.version), exchange).await?;
    let request = TokenRequest::read(&head.headers, &form)?;
    let (callers, now) = (rules.callers(), clock.wall());
    let shown = request.caller(|name, token| callers.of(name, token));
    let caller = shown.map(|(caller, _)| caller).or(caller);
    exchange.note(|recording| recording.caller = caller);
    if !request.shows_any() || (caller.is_none() && !callers.is_empty()) {
        return Err(TokenRefusal::Client.into());
    }
    if caller.is_some_and(|caller| !rules.may_use(caller, route)) {
        return Err(TokenRefusal::NotAllowed.into());
    }
    request.judge_grant_type()?;
    Ok(match shown {
        Some((caller, token)) => {
            let name = &rules.routes()[route].name;
            let token = local_token::mint(token, callers.name(caller), name, now);
            granted(token.expose(), exchange, now)
        }
        // Its requests show otherwise who they are from, or nobody asks.
        None => granted(local_token::OF_NOBODY, exchange, now),
    })
}

/// The whole body, in the time that callers have for any.
async fn read(mut body: Coming, exchange: &Rc<Exchange>) -> Result<Zeroizing<Vec<u8>>, ProxyError> {
    let too_large = || Err(TokenRefusal::TooLarge.into());
    let length = body.size_hint();
    if length.lower() > MAX_BODY as u64 {
        return too_large();
    }
    // One allocation of the final size: a growing buffer would leave copies behind.
    let size = length.exact().and_then(|length| usize::try_from(length).ok()).unwrap_or(MAX_BODY);
    let mut whole = Zeroizing::new(Vec::with_capacity(size));
    exchange.forwarding(None, !body.is_end_stream());
    std::future::poll_fn(|cx| {
        loop {
            match body.poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => {
                    exchange.request_moves();
                    let Ok(piece) = frame.into_data() else { continue };
                    if whole.len() + piece.len() > MAX_BODY {
                        return Poll::Ready(too_large());
                    }
                    whole.extend_from_slice(&piece);
                }
                Poll::Ready(Some(Err(_))) => return Poll::Ready(Err(ProxyError::CallerBroke)),
                Poll::Ready(None) => {
                    exchange.request_sent();
                    return Poll::Ready(Ok(std::mem::take(&mut whole)));
                }
                Poll::Pending if exchange.is_overdue(cx) => {
                    return Poll::Ready(Err(ProxyError::CallerStalled(exchange.idle_limit())));
                }
                Poll::Pending => return Poll::Pending,
            }
        }
    })
    .await
}

/// RFC 6749 §5.1.
fn granted(token: &str, exchange: &Rc<Exchange>, now: SystemTime) -> Response<ResponseBody> {
    let seconds = local_token::LIFETIME.as_secs();
    let body = json!({ "access_token": token, "token_type": "bearer", "expires_in": seconds }).to_string();
    let mut response = answer::own(Bytes::from(body), exchange, now);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    answer::not_to_be_kept(response.headers_mut());
    response
}
