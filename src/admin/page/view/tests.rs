use serde_json::{Value, json};

use super::*;

const EVIL: &str = "</td><script>alert(\"1\")</script>'&\u{202e}\u{1b}[2J";

fn drawn(status: Value) -> String {
    page(&serde_json::from_value(status).unwrap(), "", "")
}

fn account(name: &str, more: &[(&str, Value)]) -> Value {
    let mut account = json!({ "credential": "crm", "account": name, "state": "ready", "has_token": true });
    more.iter().for_each(|(key, value)| account[*key] = value.clone());
    account
}

#[test]
fn text_from_elsewhere_never_becomes_markup_wherever_it_stands() {
    let requests = json!({ "total": 3, "codes": { EVIL: 2, "200": 1 }, "seconds": {} });
    let status = json!({
        "readiness": EVIL, "version": EVIL, "configuration": EVIL, "reasons": vec![EVIL; 7], "listeners": [EVIL],
        "routes": [{
            "name": EVIL, "provider": EVIL, "urls": [EVIL], "upstream": EVIL, "egress_proxy": EVIL,
            "credential": EVIL, "requests": requests,
        }],
        "credentials": [
            { "name": EVIL, "login": true, "account_header": null },
            { "name": format!("{EVIL}2"), "login": true, "account_header": EVIL },
        ],
        "accounts": [
            { "credential": "a", "account": EVIL, "state": EVIL, "login_required": true, "last_error": EVIL },
            { "credential": "a", "account": "b", "state": "failing", "last_error": EVIL },
        ],
        "store": { "error": EVIL }, "refusals": { EVIL: 1 },
        "sandbox": { "landlock": 6, "not_confined": [EVIL], "absent": [EVIL], "reads": [EVIL], "writes": [EVIL] },
    });
    let page = drawn(status);
    assert_eq!(page.matches("<script").count(), 1, "its own alone: {page}");
    assert!(!page.contains("alert(\"1") && !page.contains("</td><script"), "{page}");
    assert!(!page.contains('\u{202e}') && !page.contains('\u{1b}'), "nothing unseen");
    let escaped = "&lt;/td&gt;&lt;script&gt;alert(&quot;1&quot;)&lt;/script&gt;&#39;&amp;\u{fffd}\u{fffd}[2J";
    assert!(page.matches(escaped).count() > 25, "{page}");
    assert!(page.contains("/connect/a?account=%3C%2Ftd%3E%3Cscript%3E"), "{page}");
}

/// A state, what else is so, what the page says and what it does not.
type Case<'a> = (&'a str, &'a [(&'a str, Value)], &'a [&'a str], &'a [&'a str]);

#[test]
fn each_state_has_its_word_and_what_can_be_done() {
    let error = ("last_error", json!("the token endpoint answered 400"));
    let gone = ("has_token", json!(false));
    let cases: [Case<'_>; 6] = [
        (
            "ready",
            &[("expires_in_seconds", json!(75.0)), ("age_seconds", json!(25.0))],
            &["state good\">ready", "1 min 15 s left", "width=\"75.00\""],
            &["Connect", "low"],
        ),
        (
            "ready",
            &[("expires_in_seconds", json!(5.0)), ("age_seconds", json!(95.0))],
            &["bar low", "5 s left"],
            &["Connect"],
        ),
        ("ready", &[], &["does not expire"], &["Connect", "<svg"]),
        (
            "dead",
            &[error.clone(), gone.clone(), ("next_try_seconds", json!(61.0))],
            &["state bad\">dead", "no token", "answered 400", "next try in 1 min 1 s"],
            &["Connect", "<svg"],
        ),
        (
            "failing",
            &[error.clone(), ("failures", json!(3))],
            &["state warning\">failing", "0 fetched, 3 failed"],
            &["Connect"],
        ),
        (
            "login_required",
            &[error, gone, ("login_required", json!(true))],
            &["state bad\">login needed", "href=\"/connect/crm?account=al+ice%26\"", "Logins needed"],
            &["<svg"],
        ),
    ];
    for (state, more, wanted, unwanted) in cases {
        let more: Vec<_> = more.iter().cloned().chain([("state", json!(state))]).collect();
        let page = drawn(json!({ "readiness": "ready", "accounts": [account("al ice&", &more)] }));
        let body = page.split_once("<main").unwrap().1;
        wanted.iter().for_each(|part| assert!(body.contains(part), "{state}: {part}: {body}"));
        unwanted.iter().for_each(|part| assert!(!body.contains(part), "{state}: {part}: {body}"));
    }
}

#[test]
fn a_login_of_which_there_is_no_account_can_be_connected() {
    let login = |header: Value| json!({ "name": "neon", "login": true, "account_header": header });
    let sole = drawn(json!({ "readiness": "ready", "credentials": [login(Value::Null)] }));
    assert_eq!(sole.matches("href=\"/connect/neon\"").count(), 2, "at the top and in its row: {sole}");
    assert!(!sole.contains("<form"), "{sole}");
    let many = drawn(json!({ "readiness": "ready", "credentials": [login(json!("Sidekey-Account"))] }));
    assert!(many.contains("<form class=\"another\" method=\"get\" action=\"/connect/neon\">"), "{many}");
    assert!(!many.contains("Logins needed"), "nobody may want that account: {many}");
    let machine = json!({ "name": "neon", "login": false, "account_header": "x" });
    assert!(!drawn(json!({ "readiness": "ready", "credentials": [machine] })).contains("Connect"));
}

#[test]
fn what_needs_somebody_comes_first_and_the_rest_is_counted() {
    let mut accounts: Vec<Value> = (0..300).map(|n| account(&format!("n{n}"), &[])).collect();
    accounts.push(account("lost", &[("state", json!("dead")), ("has_token", json!(false))]));
    let reasons: Vec<String> = (0..9).map(|n| format!("reason {n}")).collect();
    let page = drawn(json!({ "readiness": "degraded", "reasons": reasons, "accounts": accounts }));
    let place = |what: &str| page.find(what).unwrap_or_else(|| panic!("{what}: {page}"));
    assert!(place("a:crm/lost") < place("a:crm/n0"));
    assert!(page.contains("1 dead · 300 ready") && page.contains("and 101 more, as data"), "{page}");
    assert!(!page.contains("a:crm/n299"));
    assert!(place("reason 4") < place("<summary>4 more</summary>") && place("<summary>") < place("reason 5"));
}

#[test]
fn requests_are_shown_where_they_are_counted() {
    let counted = json!({
        "total": 1204, "codes": { "200": 1200, "404": 1, "502": 2 },
        "seconds": { "count": 1204, "sum": 9.0, "p50": 0.004, "p90": 0.01, "p99": 0.25 },
    });
    let routes = json!([
        { "name": "a", "requests": counted, "upstream_connections": { "active": 2, "idle": 5 } },
        { "name": "b" },
        { "name": "c", "requests": { "total": 0, "codes": {}, "seconds": { "p50": null, "p99": null } } },
    ]);
    let page = drawn(json!({ "readiness": "ready", "routes": routes }));
    let row = |name: &str| {
        page.split(&format!("data-key=\"r:{name}\"")).nth(1).unwrap().split("</tr>").next().unwrap()
    };
    for part in [
        "1,204",
        "p50\u{a0}4.0\u{a0}ms · p99\u{a0}250\u{a0}ms",
        "2xx\u{a0}1,200 · 4xx\u{a0}1 · 5xx\u{a0}2 · other\u{a0}1",
        "2 active, 5 idle connections",
        "class=\"c2xx\" x=\"0.00\" width=\"99.67\"",
    ] {
        assert!(row("a").contains(part), "{part}: {}", row("a"));
    }
    assert!(row("b").contains("not counted") && !row("b").contains("<svg"), "{}", row("b"));
    assert!(row("c").contains("<p>0</p>") && !row("c").contains("<svg"), "{}", row("c"));
}

#[test]
fn a_refused_reload_is_told_as_long_as_it_counts() {
    let told = |taken_up: u64, last_was_refused: bool| {
        let reloads = json!({ "taken_up": taken_up, "refused": 1, "last_was_refused": last_was_refused });
        drawn(json!({ "readiness": "ready", "reloads": reloads }))
    };
    assert!(told(2, true).contains(words::RELOAD_REFUSED) && told(2, true).contains("reloaded 2 times"));
    assert!(told(1, false).contains("reloaded once") && !told(1, false).contains(words::RELOAD_REFUSED));
    assert!(!told(0, false).contains("reloaded"));
}
