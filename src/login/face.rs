//! What a browser meets: the one-time link of a login, and the redirect path where it comes back.

use std::sync::Arc;

use http::header::{ALLOW, HOST, HeaderValue};
use http::request::Parts;
use http::{Method, StatusCode};

use super::callback::is_prefetch;
use super::desk::Desk;
use super::pages::{Page, message};
use crate::guard::{Guard, Refused};
use crate::secret::Secret;

/// One of the two places of a login that a browser comes to, from whatever site.
#[derive(Debug, PartialEq, Eq)]
pub enum Place<'a> {
    /// The one-time link.
    Link {
        /// The credential that the path names.
        credential: &'a str,
        /// The ticket of the query.
        ticket: Secret,
    },
    /// A redirect path.
    Back,
}

/// The place that a request asks for; none: neither of the two. `is_back`: is this a redirect path?
pub fn place_of<'a>(head: &'a Parts, is_back: impl Fn(&str) -> bool) -> Option<Place<'a>> {
    let (path, query) = (head.uri.path(), head.uri.query().unwrap_or_default());
    if let Some(credential) = path.strip_prefix("/connect/")
        && let Some(ticket) = parameter(query, "ticket")
    {
        return Some(Place::Link { credential, ticket: Secret::new(ticket) });
    }
    is_back(path).then_some(Place::Back)
}

/// Answers one of the two places, to whom the guard has let in.
pub async fn serve(desk: &Arc<Desk>, place: Place<'_>, head: &Parts, port: u16) -> Page {
    if is_prefetch(&head.headers) {
        return message(
            StatusCode::SERVICE_UNAVAILABLE,
            "Not in advance",
            &["A login cannot be loaded before somebody goes to it. Open the link itself."],
        );
    }
    match place {
        Place::Link { credential, ticket } => {
            let host = head.headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
            desk.visit(credential, &ticket, host).await
        }
        Place::Back => {
            let query = head.uri.query().unwrap_or_default();
            desk.returned(head.uri.path(), query, &head.headers, port).await
        }
    }
}

/// What a door answers: the two places, and nothing else.
pub(super) async fn answer(desk: Option<&Arc<Desk>>, guard: &Guard, head: &Parts, port: u16) -> Page {
    if let Err(refused) = guard.admit_navigation(head) {
        return refusal(&refused);
    }
    let Some(desk) = desk else {
        return message(StatusCode::SERVICE_UNAVAILABLE, "Too late", &["sidekey is stopping."]);
    };
    match place_of(head, |path| desk.is_redirect_path(path, port)) {
        Some(_) if head.method != Method::GET => {
            let mut page =
                message(StatusCode::METHOD_NOT_ALLOWED, "Not this way", &["This page takes GET alone."]);
            page.headers_mut().insert(ALLOW, HeaderValue::from_static("GET"));
            page
        }
        Some(place) => serve(desk, place, head, port).await,
        None => message(
            StatusCode::NOT_FOUND,
            "Nothing is here",
            &["sidekey waits here for the end of a login, and for nothing else."],
        ),
    }
}

fn refusal(refused: &Refused) -> Page {
    let (status, text) = match refused {
        Refused::BadHost(text) => (StatusCode::BAD_REQUEST, *text),
        Refused::ForbiddenHost => {
            (StatusCode::FORBIDDEN, "The Host is not one that this listener answers for.")
        }
        Refused::CrossSite(_) => (StatusCode::FORBIDDEN, "Requests from web pages are refused."),
        Refused::Method => (StatusCode::METHOD_NOT_ALLOWED, "This listener takes GET alone."),
        // It never tells callers apart.
        Refused::CallerUnknown(text) => (StatusCode::UNAUTHORIZED, *text),
        Refused::LocalToken(_) => (StatusCode::UNAUTHORIZED, "The local token is not good."),
    };
    message(status, "Refused", &[text])
}

/// The first value of a query's parameter.
pub fn parameter(query: &str, name: &str) -> Option<String> {
    let mut pairs = form_urlencoded::parse(query.as_bytes());
    pairs.find(|(known, _)| known == name).map(|(_, value)| value.into_owned())
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    #[test]
    fn a_link_is_told_from_a_way_back_and_from_the_rest() {
        let link = |credential| Some(Place::Link { credential, ticket: Secret::new("t") });
        let cases = [
            ("/connect/neon?ticket=t", link("neon")),
            ("/connect/route.neon?account=a&ticket=t", link("route.neon")),
            ("/connect/neon?account=a", None),
            ("/connect/neon", None),
            ("/callback?code=c&state=s", Some(Place::Back)),
            ("/callback", Some(Place::Back)),
            ("/callback?ticket=t", Some(Place::Back)),
            ("/callback/", None),
            ("/Callback", None),
            ("/?ticket=t", None),
        ];
        for (target, want) in cases {
            let head = Request::get(target).body(()).unwrap().into_parts().0;
            assert_eq!(place_of(&head, |path| path == "/callback"), want, "{target}");
        }
    }
}
