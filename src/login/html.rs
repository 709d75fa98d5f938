//! HTML out of escaped pieces: what is not the program's own goes through [`Html::text`].

use bytes::Bytes;
use http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderValue, REFERRER_POLICY,
    X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use http::{Response, StatusCode};
use http_body_util::Full;

/// A page for a browser, which keeps it nowhere, shows it in no other page and tells nobody of it; `policy`: what it may
/// load and do.
pub(crate) fn answer(status: StatusCode, page: String, policy: &HeaderValue) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(page)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(CONTENT_SECURITY_POLICY, policy.clone());
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
    response
}

/// Text between tags, made of escaped pieces.
#[derive(Debug, Default)]
pub(crate) struct Html(String);

impl Html {
    /// Markup of the program's own.
    #[must_use]
    pub(crate) fn raw(mut self, markup: &'static str) -> Self {
        self.0.push_str(markup);
        self
    }

    /// Text from wherever, for between tags and for attributes in double quotes.
    #[must_use]
    pub(crate) fn text(mut self, text: &str) -> Self {
        for c in text.chars() {
            match c {
                '&' => self.0.push_str("&amp;"),
                '<' => self.0.push_str("&lt;"),
                '>' => self.0.push_str("&gt;"),
                '"' => self.0.push_str("&quot;"),
                '\'' => self.0.push_str("&#39;"),
                c if is_unseen(c) => self.0.push(char::REPLACEMENT_CHARACTER),
                c => self.0.push(c),
            }
        }
        self
    }

    /// A paragraph of text.
    #[must_use]
    pub(crate) fn paragraph(self, text: &str) -> Self {
        self.raw("<p>").text(text).raw("</p>\n")
    }

    /// A name and its value, for a list of them.
    #[must_use]
    pub(crate) fn pair(self, name: &'static str, value: &str) -> Self {
        self.raw("<dt>").raw(name).raw("</dt><dd>").text(value).raw("</dd>\n")
    }

    /// What was made.
    pub(crate) fn markup(&self) -> &str {
        &self.0
    }
}

/// Is it a control, or does it turn the direction of what follows (Unicode's Bidi_Control)? Text with those does not read
/// as what it is.
pub(crate) fn is_unseen(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}
