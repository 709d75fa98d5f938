use serde_json::json;

use super::*;

fn report() -> Report {
    serde_json::from_value(json!({
        "readiness": "degraded", "version": "0.1.0", "uptime_seconds": 3725, "configuration": "sidekey.toml",
        "reloads": { "taken_up": 2, "refused": 1, "last_was_refused": true },
        "reasons": ["credential neon, account alice: a login is needed"],
        "listeners": ["127.0.0.1:7600"],
        "routes": [
            { "name": "aura", "urls": ["http://127.0.0.1:7600/aura"], "upstream": "https://api.neo4j.io", "credential": "aura",
              "requests": { "total": 12345, "codes": { "200": 12300, "404": 40, "502": 5 }, "seconds": { "p50": 0.004, "p99": 0.25 } } },
            { "name": "open", "urls": [], "upstream": "https://api.example.com/a/long/path", "credential": null },
        ],
        "credentials": [{ "name": "wiki", "login": true, "account_header": null }],
        "accounts": [
            { "credential": "aura", "account": "aura", "state": "ready", "has_token": true, "expires_in_seconds": 61.0, "age_seconds": 5.0, "fetches": 3 },
            { "credential": "neon", "account": "alice", "state": "login_required", "login_required": true, "next_try_seconds": 30.0,
              "last_error": "the server said \u{1b}[31m\u{202e}no: invalid_grant", "failures": 2 },
        ],
        "store": { "writable": true }, "refusals": { "cross_site": 2, "no_route": 1000, "other": 0 },
    }))
    .unwrap()
}

const WIDE: Look = Look::PLAIN;

#[test]
fn a_table_tells_all_that_there_is_and_aligns_it() {
    let found = table(&report(), None, WIDE).join("\n");
    let wanted = "\
sidekey 0.1.0, degraded
  up for 1 h 2 min, configured by sidekey.toml, reloaded 2 times
  The configuration that was to be taken up last was refused, so the one before it is in force. sidekey check says why.
  Every required credential has a valid token, but something fails.
  - credential neon, account alice: a login is needed

ROUTE  AT                          UPSTREAM                             CREDENTIAL  REQUESTS  P50     P99     4XX  5XX
aura   http://127.0.0.1:7600/aura  https://api.neo4j.io                 aura        12,345    4.0 ms  250 ms  40   5
open   -                           https://api.example.com/a/long/path  -           -         -       -       -    -

CREDENTIAL  ACCOUNT  STATE         TOKEN            FETCHES
wiki        -        login needed  no token         -
neon        alice    login needed  no token         0 fetched, 2 failed
  the server said \u{fffd}[31m\u{fffd}no: invalid_grant; next try in 30 s
aura        aura     ready         1 min 1 s left   3 fetched

refused    1,000 no_route, 2 cross_site
store      It takes what it is given.
sandbox    Off.
listens on 127.0.0.1:7600";
    let squeezed = |text: &str| -> Vec<String> {
        text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
    };
    assert_eq!(squeezed(&found), squeezed(wanted), "{found}");
    let at = |line: &str| found.lines().find(|known| known.starts_with(line)).unwrap().to_owned();
    let column = at("ROUTE").find("UPSTREAM").unwrap();
    assert!(at("aura   http")[column..].starts_with("https://api.neo4j.io  "), "{found}");
}

#[test]
fn rates_have_a_column_where_somebody_watches() {
    let rates = BTreeMap::from([("aura".to_owned(), 12.34)]);
    let lines = table(&report(), Some(&rates), WIDE);
    assert!(lines.iter().any(|line| line.contains("REQUESTS  A SECOND  P50")), "{lines:?}");
    assert!(lines.iter().any(|line| line.contains("12,345    12.3")), "{lines:?}");
    let mut bare = report();
    bare.routes[0].requests = None;
    let lines = table(&bare, Some(&rates), WIDE);
    assert!(!lines.iter().any(|line| line.contains("REQUESTS")), "nobody counts: {lines:?}");
}

#[test]
fn no_line_is_wider_than_the_terminal() {
    for width in [50, 60, 80, 120] {
        for line in table(&report(), None, Look { width: Some(width), ..WIDE }) {
            assert!(line.chars().count() <= width, "{width}: {line}");
        }
    }
    let narrow = Look { width: Some(40), ..WIDE };
    let told = wrapped("a word that-is-longer-than-the-whole-terminal-is-wide and the rest of it", narrow);
    assert!(told.len() > 1 && told.iter().all(|line| line.chars().count() <= 40), "{told:?}");
    let whole: String = told.iter().flat_map(|line| line.split_whitespace()).collect();
    assert_eq!(whole, "awordthat-is-longer-than-the-whole-terminal-is-wideandtherestofit");
}

#[test]
fn colours_are_for_terminals_and_texts_of_others_never_steer_one() {
    let colourful = table(&report(), None, Look { colour: true, ..WIDE }).join("\n");
    assert!(
        colourful.contains("\x1b[1;31mlogin needed\x1b[0m") && colourful.contains("\x1b[32mready\x1b[0m")
    );
    let codes: Vec<&str> =
        colourful.split('\x1b').skip(1).map(|rest| &rest[..rest.find('m').unwrap()]).collect();
    assert!(codes.iter().all(|code| ["[0", "[2", "[32", "[33", "[1;31"].contains(code)), "{codes:?}");
    let plain = table(&report(), None, WIDE).join("\n");
    assert!(!plain.contains('\x1b') && !plain.contains('\u{202e}'), "{plain}");
    let stripped: String = colourful
        .split('\x1b')
        .enumerate()
        .map(|(at, part)| if at == 0 { part } else { part.split_once('m').unwrap().1 })
        .collect();
    assert_eq!(stripped, plain, "colours move nothing");
}
