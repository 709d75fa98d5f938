//! What stands in `deploy/monitoring` names only what `/metrics` says, and each alert has its section of the runbook.
#![cfg(feature = "demo")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use crate::metrics::page::Page;
use crate::metrics::{Counting, of_aura};
use crate::support::running::aura;
use serde_json::Value;

fn text(name: &str) -> String {
    let path: PathBuf = [env!("CARGO_MANIFEST_DIR"), name].iter().collect();
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// The page of an instance that has every metric.
async fn page() -> Page {
    let aura = aura().await;
    let counting = Counting::start("", &of_aura(&aura, &aura.url())).await;
    assert_eq!(crate::support::get(counting.addr, "/elsewhere", &[]).await.status, 401);
    let has_all = |page: &Page| {
        page.kinds.iter().all(|(name, kind)| {
            let name = if kind == "histogram" { format!("{name}_count") } else { name.clone() };
            !page.series(&name).is_empty()
        })
    };
    counting.once("every metric", has_all).await
}

fn dashboard() -> Value {
    serde_json::from_str(&text("deploy/monitoring/dashboard.json")).unwrap()
}

/// The panels of a dashboard that show something, each with its expressions.
fn panels(dashboard: &Value) -> Vec<(&Value, Vec<&str>)> {
    let panels = dashboard["panels"].as_array().unwrap().iter().filter(|panel| panel["type"] != "row");
    let expressions = |panel: &'_ Value| -> Vec<_> {
        let targets = panel["targets"].as_array().unwrap();
        // They live as long as the dashboard.
        targets.iter().map(|target| target["expr"].as_str().unwrap().to_owned()).collect()
    };
    panels.map(|panel| (panel, expressions(panel).into_iter().map(|text| &*text.leak()).collect())).collect()
}

/// An alert of the rule file.
#[derive(Debug)]
struct Alert {
    name: String,
    expr: String,
    body: String,
}

fn alerts() -> Vec<Alert> {
    let rules = text("deploy/monitoring/alerts.yaml");
    rules
        .split("- alert: ")
        .skip(1)
        .map(|body| {
            let (name, rest) = body.split_once('\n').unwrap();
            let (_, expr) = rest.split_once("expr: ").unwrap();
            let next =
                |line: &&str| !["        for:", "        labels:"].iter().any(|key| line.starts_with(key));
            let expr = expr.lines().take_while(next).collect::<Vec<_>>().join("\n");
            Alert { name: name.trim().to_owned(), expr, body: rest.to_owned() }
        })
        .collect()
}

/// What an expression of PromQL names.
#[derive(Debug, Default)]
struct Named {
    metrics: BTreeSet<String>,
    labels: BTreeSet<String>,
    /// Values that a label is to have.
    values: BTreeSet<(String, String)>,
}

/// Words that PromQL itself has, where no parenthesis follows them.
const WORDS: [&str; 12] =
    ["and", "or", "unless", "on", "by", "ignoring", "without", "bool", "e", "sum", "min", "max"];

fn named(expr: &str) -> Named {
    let mut named = Named::default();
    let mut rest = expr.trim_start_matches('|');
    while let Some(first) = rest.chars().next() {
        if first.is_ascii_alphabetic() || first == '_' {
            let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
            let (word, after) = rest.split_at(end);
            rest = after;
            let list = ["by", "on", "ignoring", "without"].contains(&word);
            if list && let Some(labels) = after.trim_start().strip_prefix('(') {
                let (labels, after) = labels.split_once(')').unwrap();
                named.labels.extend(labels.split(',').map(|label| label.trim().to_owned()));
                rest = after;
            } else if !WORDS.contains(&word) && !after.trim_start().starts_with('(') {
                named.metrics.insert(word.to_owned());
            }
        } else if let Some(matchers) = rest.strip_prefix('{') {
            let (matchers, after) = matchers.split_once('}').unwrap();
            rest = after;
            for matcher in matchers.split("\",").filter(|matcher| !matcher.is_empty()) {
                let (label, value) = matcher.split_once('=').unwrap();
                named.labels.insert(label.trim().to_owned());
                let value = value.trim_start_matches('~').trim_matches('"');
                let plain = |value: &&str| value.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
                let values = value.split('|').filter(plain);
                named.values.extend(values.map(|value| (label.trim().to_owned(), value.to_owned())));
            }
        } else if let Some(range) = rest.strip_prefix('[') {
            rest = range.split_once(']').unwrap().1;
        } else {
            rest = &rest[first.len_utf8()..];
            if first.is_ascii_digit() {
                rest = rest.trim_start_matches(|c: char| c.is_ascii_alphanumeric() || c == '.');
            }
        }
    }
    named
}

#[test]
fn what_an_expression_names_is_found() {
    let named =
        named("sum by (le, a) (rate(x_total{a=~\"$a\",b=\"one|two\"}[$__i])) / 1e3 > 0.5 and on (c) y == up");
    assert_eq!(named.metrics, ["up", "x_total", "y"].map(str::to_owned).into());
    assert_eq!(named.labels, ["a", "b", "c", "le"].map(str::to_owned).into());
    assert_eq!(named.values, [("b", "one"), ("b", "two")].map(|(a, b)| (a.to_owned(), b.to_owned())).into());
}

/// Panics where the expression names what no page has.
fn assert_is_there(page: &Page, what: &str, expr: &str) {
    let named = named(expr);
    assert!(!named.metrics.is_empty(), "{what}: {expr}");
    let mut labels: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for metric in named.metrics.iter().filter(|metric| *metric != "up") {
        let series = page.series(metric);
        assert!(!series.is_empty(), "{what} names {metric}, which /metrics does not have");
        for (name, value) in series.iter().flat_map(|(labels, _)| labels.iter()) {
            labels.entry(name).or_default().insert(value);
        }
    }
    // Those that Prometheus itself gives.
    for label in named.labels.iter().filter(|label| !["job", "instance"].contains(&label.as_str())) {
        assert!(labels.contains_key(label.as_str()), "{what}: no metric of it has {label}: {expr}");
    }
    for (label, value) in named.values.iter().filter(|(label, _)| label != "job") {
        assert!(labels[label.as_str()].contains(value.as_str()), "{what}: {label} is never {value}: {expr}");
    }
}

#[tokio::test]
async fn the_dashboard_shows_every_metric_and_names_no_other() {
    let (page, dashboard) = (page().await, dashboard());
    let mut shown = BTreeSet::new();
    for (panel, expressions) in panels(&dashboard) {
        let title = panel["title"].as_str().unwrap();
        assert!(!expressions.is_empty(), "{title}");
        for expr in expressions {
            assert_is_there(&page, title, expr);
            shown.extend(named(expr).metrics);
        }
    }
    for (name, kind) in &page.kinds {
        let ends: &[&str] = if kind == "histogram" { &["_bucket", "_sum", "_count"] } else { &[""] };
        for end in ends {
            assert!(shown.contains(&format!("{name}{end}")), "no panel shows {name}{end}");
        }
    }
    for variable in dashboard["templating"]["list"].as_array().unwrap() {
        if let Some(query) = variable["definition"].as_str() {
            let (expr, label) =
                query.strip_prefix("label_values(").unwrap().trim_end_matches(')').rsplit_once(", ").unwrap();
            assert_is_there(&page, query, expr);
            assert_is_there(&page, query, &format!("sum by ({label}) ({expr})"));
        }
    }
}

#[test]
fn the_dashboard_is_one_that_grafana_imports() {
    let dashboard = dashboard();
    assert!(dashboard["schemaVersion"].as_u64().is_some_and(|version| version >= 36));
    assert_eq!((&dashboard["title"], &dashboard["uid"]), (&"sidekey".into(), &"sidekey".into()));
    assert!(dashboard["id"].is_null(), "Grafana gives it one");
    let variables = dashboard["templating"]["list"].as_array().unwrap();
    assert_eq!((&variables[0]["name"], &variables[0]["type"]), (&"datasource".into(), &"datasource".into()));
    assert_eq!(variables[0]["query"], "prometheus");
    let known: BTreeSet<_> = variables.iter().map(|variable| variable["name"].as_str().unwrap()).collect();
    let source = serde_json::json!({ "type": "prometheus", "uid": "${datasource}" });
    assert!(variables[1..].iter().all(|variable| variable["datasource"] == source));
    let mut ids = BTreeSet::new();
    let mut taken = BTreeSet::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "{panel}");
        let [x, y, width, height] = ["x", "y", "w", "h"].map(|key| panel["gridPos"][key].as_u64().unwrap());
        assert!(width > 0 && height > 0 && x + width <= 24, "{panel}");
        for place in (x..x + width).flat_map(|x| (y..y + height).map(move |y| (x, y))) {
            assert!(taken.insert(place), "{} lies over another", panel["title"]);
        }
        if panel["type"] == "row" {
            continue;
        }
        assert!(["stat", "timeseries"].contains(&panel["type"].as_str().unwrap()), "{panel}");
        assert_eq!(panel["datasource"], source);
        assert!(panel["description"].as_str().is_some_and(|text| text.ends_with(['.', '?'])), "{panel}");
        assert!(panel["fieldConfig"]["defaults"]["unit"].is_string());
        for (number, target) in (b'A'..).zip(panel["targets"].as_array().unwrap()) {
            assert_eq!(target["refId"], char::from(number).to_string());
            assert_eq!(target["datasource"], source);
            let expr = target["expr"].as_str().unwrap();
            for used in expr.split('$').skip(1) {
                let end = used.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(used.len());
                let name = &used[..end];
                assert!(name == "__rate_interval" || known.contains(name), "{name} in {expr}");
            }
        }
    }
}

#[tokio::test]
async fn each_alert_names_only_what_metrics_say() {
    let page = page().await;
    for alert in alerts() {
        assert_is_there(&page, &alert.name, &alert.expr);
    }
}

#[test]
fn each_alert_tells_what_it_is_about_has_a_test_and_has_its_section_of_the_runbook() {
    let (runbook, tests) = (text("docs/RUNBOOK.md"), text("deploy/monitoring/alerts_test.yaml"));
    let (_, section) = runbook.split_once("\n## Alerts\n").expect("a section on alerts");
    let section = section.split("\n## ").next().unwrap();
    let alerts = alerts();
    assert!(alerts.len() > 8, "{alerts:?}");
    for Alert { name, body, .. } in &alerts {
        for key in ["severity: ", "summary: ", "description: "] {
            assert!(body.contains(key), "{name} has no {key}");
        }
        let anchor = name.to_lowercase();
        assert!(body.contains(&format!("runbook_url: docs/RUNBOOK.md#{anchor}\n")), "{name}");
        let (_, told) = section.split_once(&format!("\n### {name}\n")).unwrap_or_else(|| panic!("{name}"));
        let told = told.split("\n### ").next().unwrap();
        for part in ["**Means:**", "**Look at:**", "**Do:**"] {
            assert!(told.contains(part), "{name} does not say {part}");
        }
        let case = format!("alertname: {name}\n");
        assert!(tests.contains(&case), "{name} has no test");
        let firing = tests.split(&case).skip(1).any(|rest| rest.trim_start().starts_with("exp_alerts:"));
        let quiet = tests.split(&case).skip(1).any(|rest| !rest.trim_start().starts_with("exp_alerts:"));
        assert!(firing && quiet, "{name} is not seen both firing and quiet");
    }
    let names: BTreeSet<_> = alerts.iter().map(|alert| alert.name.as_str()).collect();
    for told in section.lines().filter_map(|line| line.strip_prefix("### ")) {
        assert!(names.contains(told), "the runbook tells of {told}, which is no alert");
    }
}

#[tokio::test]
async fn the_readme_tells_of_every_metric_with_its_labels_and_of_no_other() {
    let (page, readme) = (page().await, text("README.md"));
    let (_, section) = readme.split_once("\n## Metrics\n").expect("a section on metrics");
    let section = section.split("\n## ").next().unwrap();
    let rows = section.lines().filter_map(|line| line.strip_prefix("| `")?.split_once('`'));
    let told: BTreeSet<_> = rows.map(|(name, _)| name.to_owned()).collect();
    let there: BTreeSet<_> = page
        .kinds
        .iter()
        .map(|(name, kind)| {
            let sample = if kind == "histogram" { format!("{name}_count") } else { name.clone() };
            let labels: BTreeSet<_> =
                page.series(&sample).iter().flat_map(|(labels, _)| labels.keys().cloned()).collect();
            match labels.is_empty() {
                true => name.clone(),
                false => format!("{name}{{{}}}", labels.into_iter().collect::<Vec<_>>().join(",")),
            }
        })
        .collect();
    assert_eq!(told, there);
}
