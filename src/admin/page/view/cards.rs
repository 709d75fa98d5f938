//! What is neither a route nor an account: refusals, the store, the sandbox, the listeners.

use crate::admin::report::Report;
use crate::admin::words::{self, Tone};
use crate::login::html::Html;

/// Each in a card.
pub(super) fn all(html: Html, report: &Report) -> Html {
    listeners(sandbox(store(refusals(html, report), report), report), report)
}

fn card(html: Html, id: &'static str, title: &'static str) -> Html {
    let html = html
        .raw("<section class=\"card\" id=\"")
        .raw(id)
        .raw("\" aria-labelledby=\"")
        .raw(id)
        .raw("-title\"><h2 id=\"");
    html.raw(id).raw("-title\">").raw(title).raw("</h2>")
}

fn verdict(html: Html, (tone, text): &(Tone, String)) -> Html {
    html.raw("<p class=\"verdict ").raw(tone.class()).raw("\"><bdi>").text(text).raw("</bdi></p>")
}

fn refusals(html: Html, report: &Report) -> Html {
    let html = card(html, "refusals", "Refusals");
    let mut seen: Vec<_> = report.refusals.iter().filter(|(_, count)| **count > 0).collect();
    if seen.is_empty() {
        return html.raw("<p class=\"none\">None since the start.</p></section>");
    }
    seen.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
    let html = html.raw("<table class=\"counts\"><thead><tr><th scope=\"col\">Reason</th><th scope=\"col\">Since the start</th></tr></thead><tbody>");
    let rows = seen.into_iter().fold(html, |html, (reason, count)| {
        html.raw("<tr data-key=\"x:")
            .text(reason)
            .raw("\"><th scope=\"row\"><code>")
            .text(reason)
            .raw("</code><span class=\"small\">")
            .raw(words::refusal(reason))
            .raw("</span></th><td>")
            .text(&words::number(*count))
            .raw("</td></tr>")
    });
    rows.raw("</tbody></table></section>")
}

fn store(html: Html, report: &Report) -> Html {
    let html = card(html, "store", "Store");
    let Some(store) = &report.store else { return html.raw("<p class=\"none\">Not told.</p></section>") };
    let html = verdict(html, &words::store(store)).raw("<dl>");
    let counts = [
        ("In memory alone", store.unsaved),
        ("Presented, outcome unknown", store.uncertain),
        ("Brought back", store.recovered),
        ("Lost", store.lost),
        ("Restored to the store", store.restored),
    ];
    counts
        .into_iter()
        .fold(html, |html, (name, count)| pair(html, name, &words::number(count)))
        .raw("</dl></section>")
}

fn pair(html: Html, name: &'static str, value: &str) -> Html {
    html.raw("<div><dt>").raw(name).raw("</dt><dd>").text(value).raw("</dd></div>")
}

fn sandbox(html: Html, report: &Report) -> Html {
    let html = verdict(card(html, "sandbox", "Sandbox"), &words::sandbox(report.sandbox.as_ref()));
    let Some(sandbox) = &report.sandbox else { return html.raw("</section>") };
    let ports: Vec<String> = sandbox.connects_to_ports.iter().map(u16::to_string).collect();
    let lists = [
        ("Not confined", &sandbox.not_confined),
        ("Absent at the start", &sandbox.absent),
        ("Connects to ports", &ports),
        ("Reads", &sandbox.reads),
        ("Writes", &sandbox.writes),
    ];
    let told = lists.into_iter().filter(|(_, items)| !items.is_empty());
    let html =
        told.fold(html.raw("<dl class=\"long\">"), |html, (name, items)| pair(html, name, &items.join(", ")));
    html.raw("</dl></section>")
}

fn listeners(html: Html, report: &Report) -> Html {
    let html = card(html, "listeners", "Listeners");
    if report.listeners.is_empty() {
        return html.raw("<p class=\"none\">There are none.</p></section>");
    }
    let items = report.listeners.iter().fold(html.raw("<ul class=\"addresses\">"), |html, address| {
        html.raw("<li><code>").text(address).raw("</code></li>")
    });
    items.raw("</ul></section>")
}
