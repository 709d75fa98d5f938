//! A report as HTML. `page.js` draws the same from the same data: what one says, the other says in the same words.

mod cards;

use form_urlencoded::byte_serialize;

use crate::admin::report::{Account, Credential, Report, Requests, Route};
use crate::admin::words::{self, Tone};
use crate::login::html::Html;

/// So many reasons, and so many logins, stand at the top; the rest is one step away.
const AT_THE_TOP: usize = 5;
/// So many accounts are shown, those that need somebody first.
const ROWS: usize = 200;
/// The classes of answers that are told apart.
const CLASSES: [(char, &str); 4] = [('2', "2xx"), ('3', "3xx"), ('4', "4xx"), ('5', "5xx")];

/// A round icon in a colour.
macro_rules! icon {
    ($colour:literal) => {
        concat!(
            "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16 16'%3E%3Ccircle cx='8' cy='8' r='7' fill='%23",
            $colour,
            "'/%3E%3C/svg%3E"
        )
    };
}

/// The whole page.
pub(super) fn page(report: &Report, style: &'static str, script: &'static str) -> String {
    let (tone, _) = words::readiness(&report.readiness);
    let icon = match tone {
        Tone::Good => icon!("1f8a55"),
        Tone::Warning => icon!("b97a00"),
        _ => icon!("c0392f"),
    };
    let head = Html::default()
        .raw("<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"><meta name=\"color-scheme\" content=\"light dark\"><title>")
        .text(&report.readiness)
        .raw(" – sidekey</title><link rel=\"icon\" id=\"icon\" href=\"")
        .raw(icon)
        .raw("\"><style>")
        .raw(style)
        .raw("</style></head>\n<body data-version=\"")
        .text(&report.version)
        .raw("\"><a class=\"skip\" href=\"#main\">Skip to the content</a>\n<header><div class=\"wrap\"><p class=\"brand\">sidekey <span class=\"version\">")
        .text(&report.version)
        .raw("</span></p><nav aria-label=\"On this page\"><ul id=\"nav\">");
    let head = nav(head, report)
        .raw("</ul></nav><p class=\"live\" id=\"live\"><noscript>as it was when it was loaded</noscript></p></div></header>\n<main id=\"main\" class=\"wrap\" tabindex=\"-1\">");
    let body = lead(head, report);
    let body = routes(body, report);
    let body = credentials(body, report).raw("<div class=\"grid\">");
    let body = cards::all(body, report);
    body.raw("</div></main>\n<footer class=\"wrap\"><p>The same as data: <a href=\"/status\">/status</a>. In a terminal: <code>sidekey status --watch</code>.</p></footer>\n<p class=\"unseen\" id=\"news\" role=\"status\"></p>\n<script type=\"module\">")
        .raw(script)
        .raw("</script></body></html>\n")
        .markup()
        .to_owned()
}

fn nav(html: Html, report: &Report) -> Html {
    let item = |html: Html, to: &'static str, name: &'static str, count: usize| {
        html.raw("<li><a href=\"")
            .raw(to)
            .raw("\">")
            .raw(name)
            .raw(" <span>")
            .text(&count.to_string())
            .raw("</span></a></li>")
    };
    let html = item(html, "#routes", "Routes", report.routes.len());
    let html = item(html, "#credentials", "Accounts", report.accounts.len());
    html.raw("<li><a href=\"#refusals\">Refusals</a></li><li><a href=\"#store\">Store</a></li><li><a href=\"#sandbox\">Sandbox</a></li>")
}

/// Readiness, what is wrong, and the logins that are needed.
fn lead(html: Html, report: &Report) -> Html {
    let (tone, meaning) = words::readiness(&report.readiness);
    let mut html = html
        .raw("<section class=\"lead ")
        .raw(tone.class())
        .raw("\" aria-labelledby=\"readiness\"><div class=\"verdict\"><h1 id=\"readiness\">")
        .text(&report.readiness)
        .raw("</h1><p>")
        .raw(meaning)
        .raw("</p></div><p class=\"facts\">up for ")
        .text(&words::span(report.uptime_seconds))
        .raw(" · configured by <bdi>")
        .text(&report.configuration)
        .raw("</bdi>")
        .text(&words::reloads(&report.reloads))
        .raw("</p>");
    if report.reloads.last_was_refused {
        html = html.raw("<p class=\"refused\">").raw(words::RELOAD_REFUSED).raw("</p>");
    }
    if !report.reasons.is_empty() {
        let (first, rest) = report.reasons.split_at(report.reasons.len().min(AT_THE_TOP));
        html = reasons(html, first);
        if !rest.is_empty() {
            html = html.raw("<details><summary>").text(&format!("{} more", rest.len())).raw("</summary>");
            html = reasons(html, rest).raw("</details>");
        }
    }
    let accounts = report.by_need().into_iter().filter(|account| account.login_required);
    let accounts = accounts.map(|account| (account.credential.as_str(), Some(account.account.as_str())));
    let untouched = report.untouched_logins().filter(|login| login.account_header.is_none());
    let logins: Vec<_> = accounts.chain(untouched.map(|login| (login.name.as_str(), None))).collect();
    if logins.is_empty() {
        return html.raw("</section>");
    }
    html = html.raw("<h2>Logins needed</h2><ul class=\"logins\">");
    for (credential, account) in logins.iter().take(AT_THE_TOP) {
        html = named(html.raw("<li><span>"), credential, *account).raw("</span>");
        html = connect(html, credential, *account).raw("</li>");
    }
    html = html.raw("</ul>");
    if logins.len() > AT_THE_TOP {
        let more = format!("and {} more, below", logins.len() - AT_THE_TOP);
        html = html.raw("<p class=\"more\"><a href=\"#credentials\">").text(&more).raw("</a></p>");
    }
    html.raw("</section>")
}

fn reasons(html: Html, reasons: &[String]) -> Html {
    let items = reasons.iter().fold(html.raw("<ul class=\"reasons\">"), |html, reason| {
        html.raw("<li><bdi>").text(reason).raw("</bdi></li>")
    });
    items.raw("</ul>")
}

/// A credential and its account.
fn named(html: Html, credential: &str, account: Option<&str>) -> Html {
    let html = html.raw("<bdi class=\"name\">").text(credential).raw("</bdi>");
    match account {
        // A lone client's account has its credential's name.
        Some(account) if account != credential => {
            html.raw(" <bdi class=\"account\">").text(account).raw("</bdi>")
        }
        _ => html,
    }
}

/// Leads to the page that asks for the admin token and goes on to the authorization server.
fn connect(html: Html, credential: &str, account: Option<&str>) -> Html {
    let mut path: String = ["/connect/"].into_iter().chain(byte_serialize(credential.as_bytes())).collect();
    if let Some(account) = account {
        path.push_str("?account=");
        path.extend(byte_serialize(account.as_bytes()));
    }
    named(
        html.raw("<a class=\"button\" href=\"").text(&path).raw("\">Connect<span class=\"unseen\"> "),
        credential,
        account,
    )
    .raw("</span></a>")
}

fn routes(html: Html, report: &Report) -> Html {
    let mut html = html
        .raw("<section id=\"routes\" aria-labelledby=\"routes-title\"><h2 id=\"routes-title\">Routes</h2>");
    if report.routes.is_empty() {
        return html.raw("<p class=\"none\">There are none.</p></section>");
    }
    html = html.raw("<table class=\"routes\"><thead><tr><th scope=\"col\">Route</th><th scope=\"col\">Reached at</th><th scope=\"col\">Leads to</th><th scope=\"col\">Requests</th><th scope=\"col\">Latency</th><th scope=\"col\">Answers</th></tr></thead><tbody>");
    for route in &report.routes {
        html = html
            .raw("<tr data-key=\"r:")
            .text(&route.name)
            .raw("\"><th scope=\"row\"><bdi class=\"name\">")
            .text(&route.name)
            .raw("</bdi><span class=\"kind\">")
            .text(&route.provider)
            .raw("</span></th><td data-label=\"Reached at\"><ul class=\"addresses\">");
        for url in &route.urls {
            html = html.raw("<li><code>").text(url).raw("</code></li>");
        }
        html = leads_to(html.raw("</ul></td><td data-label=\"Leads to\">"), route);
        html = numbers(html.raw("</td>"), route.requests.as_ref()).raw("</tr>");
    }
    html.raw("</tbody></table></section>")
}

fn leads_to(html: Html, route: &Route) -> Html {
    let mut html = html.raw("<code>").text(&route.upstream).raw("</code><p class=\"small\">");
    html = match &route.credential {
        Some(name) => html.raw("with <bdi>").text(name).raw("</bdi>"),
        None => html.raw("without a credential"),
    };
    if let Some(proxy) = &route.egress_proxy {
        html = html.raw(" · through <bdi>").text(proxy).raw("</bdi>");
    }
    match &route.upstream_connections {
        Some(connections) => html
            .raw("</p><p class=\"small\">")
            .text(&words::number(connections.active))
            .raw(" active, ")
            .text(&words::number(connections.idle))
            .raw(" idle connections</p>"),
        None => html.raw("</p>"),
    }
}

/// The three cells of what a route has served.
fn numbers(html: Html, requests: Option<&Requests>) -> Html {
    let Some(requests) = requests else {
        return html.raw("<td class=\"empty\" data-label=\"Requests\"><p>not counted</p></td><td class=\"empty\" data-label=\"Latency\"><p>–</p></td><td class=\"empty\" data-label=\"Answers\"><p>–</p></td>");
    };
    let html = html.raw("<td data-label=\"Requests\"><p>").text(&words::number(requests.total));
    let html = match words::latency(requests) {
        Some(latency) => {
            let html = html.raw("</p></td><td data-label=\"Latency\"><p>");
            html.text(&latency).raw("</p></td>")
        }
        None => html.raw("</p></td><td class=\"empty\" data-label=\"Latency\"><p>–</p></td>"),
    };
    let counts = CLASSES.map(|(first, name)| (name, requests.of_class(first)));
    let known: u64 = counts.iter().map(|(_, count)| count).sum();
    let rest = ("other", requests.total.saturating_sub(known));
    let seen: Vec<_> = counts.into_iter().chain([rest]).filter(|(_, count)| *count > 0).collect();
    if seen.is_empty() {
        return html.raw("<td class=\"empty\" data-label=\"Answers\"><p>–</p></td>");
    }
    let mut html = html.raw("<td data-label=\"Answers\"><p>");
    for (place, (name, count)) in seen.iter().enumerate() {
        html =
            html.raw(if place > 0 { " · " } else { "" }).raw(name).raw("\u{a0}").text(&words::number(*count));
    }
    html = html.raw(
        "</p><svg class=\"answers\" viewBox=\"0 0 100 4\" preserveAspectRatio=\"none\" aria-hidden=\"true\">",
    );
    let mut at = 0.0;
    for (name, count) in &seen {
        let width = share(*count, requests.total.max(known));
        html = html.raw("<rect class=\"c").raw(name).raw("\" x=\"").text(&format!("{at:.2}"));
        html = html.raw("\" width=\"").text(&format!("{width:.2}")).raw("\" height=\"4\"></rect>");
        at += width;
    }
    html.raw("</svg></td>")
}

#[expect(clippy::cast_precision_loss, reason = "a width in per cent")]
fn share(count: u64, total: u64) -> f64 {
    100.0 * count as f64 / total.max(1) as f64
}

fn credentials(html: Html, report: &Report) -> Html {
    let mut html = html.raw("<section id=\"credentials\" aria-labelledby=\"credentials-title\"><h2 id=\"credentials-title\">Credentials and accounts</h2>");
    let accounts = report.by_need();
    let untouched: Vec<_> = report.untouched_logins().collect();
    if accounts.is_empty() && untouched.is_empty() {
        return html.raw("<p class=\"none\">There are none.</p></section>");
    }
    html = html
        .raw("<p class=\"census\">")
        .text(&words::census(accounts.iter().copied()))
        .raw("</p><table class=\"accounts\"><thead><tr><th scope=\"col\">Account</th><th scope=\"col\">State</th><th scope=\"col\">Token</th><th scope=\"col\">What it last failed with</th><th scope=\"col\">Fetches</th></tr></thead><tbody>");
    for credential in &untouched {
        html = named(html.raw("<tr data-key=\"c:").text(&credential.name).raw("\"><th scope=\"row\">"), &credential.name, None)
            .raw("</th><td data-label=\"State\"><span class=\"state bad\">nobody has logged in</span></td><td data-label=\"Token\"><div class=\"token\"><p>no token</p></div></td><td data-label=\"Login\">");
        html = connect(html, &credential.name, None)
            .raw("</td><td class=\"empty\" data-label=\"Fetches\"><p>–</p></td></tr>");
    }
    let shown = &accounts[..accounts.len().min(ROWS)];
    html = shown.iter().copied().fold(html, account).raw("</tbody></table>");
    if accounts.len() > ROWS {
        html = html.raw("<p class=\"more\">and ").text(&words::number((accounts.len() - ROWS) as u64));
        html = html.raw(" more, as data: <a href=\"/status\">/status</a></p>");
    }
    let open = report.credentials.iter().filter(|login| login.login && login.account_header.is_some());
    open.fold(html, another).raw("</section>")
}

fn account(html: Html, account: &Account) -> Html {
    let (tone, word) = words::state(account);
    let html = html.raw("<tr data-key=\"a:").text(&account.credential).raw("/").text(&account.account);
    let html = named(html.raw("\"><th scope=\"row\">"), &account.credential, Some(&account.account))
        .raw("</th><td data-label=\"State\"><span class=\"state ")
        .raw(tone.class())
        .raw("\">")
        .text(word)
        .raw("</span></td><td data-label=\"Token\"><div class=\"token\">");
    let html = match account.left() {
        Some(left) => html
            .raw("<svg class=\"bar")
            .raw(if left < 0.1 { " low" } else { "" })
            .raw("\" viewBox=\"0 0 100 4\" preserveAspectRatio=\"none\" aria-hidden=\"true\"><rect class=\"track\" width=\"100\" height=\"4\"></rect><rect class=\"fill\" width=\"")
            .text(&format!("{:.2}", left * 100.0))
            .raw("\" height=\"4\"></rect></svg>"),
        None => html,
    };
    let html = html.raw("<p>").text(&words::token(account)).raw("</p></div></td>");
    let next = words::next_try(account);
    let mut html = if account.last_error.is_none() && next.is_none() && !account.login_required {
        html.raw("<td class=\"empty\" data-label=\"Last error\"><p>–</p>")
    } else {
        html.raw("<td data-label=\"Last error\">")
    };
    if let Some(error) = &account.last_error {
        html = html.raw("<p><bdi>").text(error).raw("</bdi></p>");
    }
    if let Some(next) = next {
        html = html.raw("<p class=\"small\">").text(&next).raw("</p>");
    }
    if account.login_required {
        html = connect(html, &account.credential, Some(&account.account));
    }
    html.raw("</td><td data-label=\"Fetches\"><p>").text(&words::fetches(account)).raw("</p></td></tr>")
}

/// Callers may name accounts that nobody has connected yet.
fn another(html: Html, credential: &Credential) -> Html {
    let path: String = ["/connect/"].into_iter().chain(byte_serialize(credential.name.as_bytes())).collect();
    html.raw("<form class=\"another\" method=\"get\" action=\"")
        .text(&path)
        .raw("\"><label>Another account of <bdi class=\"name\">")
        .text(&credential.name)
        .raw("</bdi> <input name=\"account\" required maxlength=\"128\" autocomplete=\"off\" spellcheck=\"false\"></label> <button type=\"submit\">Connect</button></form>")
}

#[cfg(test)]
mod tests;
