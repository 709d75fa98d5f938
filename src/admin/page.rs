//! `GET /`: the page for people. One answer without anything from elsewhere; its own style and script, by their hashes.
//!
//! What it holds is what `GET /status` says. It works without the script, as it was when it was loaded; the script asks
//! `/status` again and again and draws what comes.

mod view;

use std::sync::LazyLock;

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{HeaderName, HeaderValue};
use http::{Response, StatusCode};
use http_body_util::Full;
use serde_json::Value;

use super::report::Report;
use crate::login::html;

const STYLE: &str = include_str!("page/page.css");
const SCRIPT: &str = include_str!("page/page.js");

/// The one style and the one script, questions to this listener, forms and links to it, an icon that is part of the page;
/// nothing else, and no text that becomes markup.
static POLICY: LazyLock<HeaderValue> = LazyLock::new(|| {
    let hash = |text: &str| STANDARD.encode(digest(&SHA256, text.as_bytes()));
    let text = format!(
        "default-src 'none'; script-src 'sha256-{}'; style-src 'sha256-{}'; connect-src 'self'; img-src data:; \
         form-action 'self'; frame-ancestors 'none'; base-uri 'none'; require-trusted-types-for 'script'; \
         trusted-types 'none'",
        hash(SCRIPT),
        hash(STYLE)
    );
    HeaderValue::try_from(text).unwrap_or_else(|_| HeaderValue::from_static("default-src 'none'"))
});

/// The page of a status.
pub(super) fn page(status: &Value) -> Response<Full<Bytes>> {
    // Made by this very program, so it can be read.
    let report: Report = serde::Deserialize::deserialize(status).unwrap_or_default();
    let mut response = html::answer(StatusCode::OK, view::page(&report, STYLE, SCRIPT), &POLICY);
    response.headers_mut().insert(
        HeaderName::from_static("cross-origin-resource-policy"),
        HeaderValue::from_static("same-origin"),
    );
    response
}

#[cfg(test)]
mod tests {
    use http::header::CONTENT_SECURITY_POLICY;

    use super::*;

    #[test]
    fn the_policy_lets_this_style_and_this_script_in_and_nothing_else() {
        let page = page(&serde_json::json!({ "readiness": "ready" }));
        let policy = page.headers()[CONTENT_SECURITY_POLICY].to_str().unwrap();
        for part in [
            "default-src 'none'",
            "connect-src 'self'",
            "form-action 'self'",
            "frame-ancestors 'none'",
            "base-uri 'none'",
            "trusted-types 'none'",
        ] {
            assert!(policy.split("; ").any(|known| known == part), "{part}: {policy}");
        }
        assert!(!policy.contains("unsafe") && !policy.contains('*') && !policy.contains("http"), "{policy}");
        // What would end the elements that they stand in.
        assert!(!SCRIPT.contains("</script") && !SCRIPT.contains("<!--") && !STYLE.contains("</style"));
        for of_text in
            ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "Function("]
        {
            assert!(!SCRIPT.contains(of_text), "{of_text}");
        }
    }
}
