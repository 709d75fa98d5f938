//! A report as a table for people. Pure.

use std::collections::BTreeMap;

use super::super::terminal::Look;
use crate::admin::report::{Account, Report, Route};
use crate::admin::words::{self, Tone};
use crate::login::html::is_unseen;

/// What no column gets narrower than, and what one that can be left out is worth showing in.
const NARROWEST: usize = 6;
const WORTHWHILE: usize = 20;
/// Between two columns.
const GAP: usize = 2;
/// Before what belongs to the line above.
const INDENT: &str = "  ";

/// The lines. `rates`: requests a second, by route; none: they have no column.
pub(super) fn table(report: &Report, rates: Option<&BTreeMap<String, f64>>, look: Look) -> Vec<String> {
    let (tone, meaning) = words::readiness(&report.readiness);
    let readiness = painted(&clean(&report.readiness), tone, look);
    let mut lines = vec![format!("sidekey {}, {readiness}", clean(&report.version))];
    let facts = format!(
        "up for {}, configured by {}{}",
        words::span(report.uptime_seconds),
        report.configuration,
        words::reloads(&report.reloads)
    );
    lines.extend(wrapped(&facts, look));
    if report.reloads.last_was_refused {
        lines.extend(
            wrapped(words::RELOAD_REFUSED, look).iter().map(|line| painted(line, Tone::Warning, look)),
        );
    }
    if !report.reasons.is_empty() {
        lines.extend(wrapped(meaning, look));
    }
    report.reasons.iter().for_each(|reason| lines.extend(wrapped(&format!("- {reason}"), look)));
    lines.push(String::new());
    lines.extend(grid(routes(report, rates), &["UPSTREAM", "AT"], look));
    lines.push(String::new());
    lines.extend(grid(accounts(report), &["FETCHES"], look));
    lines.push(String::new());
    lines.extend(rest(report).into_iter().map(|(tone, text)| {
        let text = cut(&text, look.width.unwrap_or(usize::MAX));
        painted(&text, tone, look)
    }));
    lines
}

/// A line that something is wrong.
pub(super) fn banner(text: &str, look: Look) -> String {
    painted(&cut(&clean(text), look.width.unwrap_or(usize::MAX)), Tone::Bad, look)
}

/// A row, and what is said below it.
struct Row {
    cells: Vec<(String, Tone)>,
    below: Vec<String>,
}

impl Row {
    fn plain(cells: impl IntoIterator<Item = String>) -> Self {
        let cells = cells.into_iter().map(|cell| (clean(&cell), Tone::Plain)).collect();
        Self { cells, below: Vec::new() }
    }
}

fn routes(report: &Report, rates: Option<&BTreeMap<String, f64>>) -> Vec<Row> {
    let is_counted = report.routes.iter().any(|route| route.requests.is_some());
    let mut names = vec!["ROUTE", "AT", "UPSTREAM", "CREDENTIAL"];
    if is_counted {
        names.push("REQUESTS");
        names.extend(rates.map(|_| "A SECOND"));
        names.extend(["P50", "P99", "4XX", "5XX"]);
    }
    let row = |route: &Route| {
        let mut cells = vec![
            route.name.clone(),
            route.urls.first().cloned().unwrap_or_else(|| "-".to_owned()),
            route.upstream.clone(),
            route.credential.clone().unwrap_or_else(|| "-".to_owned()),
        ];
        if is_counted {
            let requests = route.requests.as_ref();
            let of = |count: Option<u64>| count.map_or_else(|| "-".to_owned(), words::number);
            let time = |seconds: Option<f64>| seconds.map_or_else(|| "-".to_owned(), words::short);
            cells.push(of(requests.map(|requests| requests.total)));
            cells.extend(rates.map(|rates| {
                rates.get(&route.name).map_or_else(|| "-".to_owned(), |rate| format!("{rate:.1}"))
            }));
            cells.push(time(requests.and_then(|requests| requests.seconds.p50)));
            cells.push(time(requests.and_then(|requests| requests.seconds.p99)));
            cells.extend(['4', '5'].map(|first| of(requests.map(|requests| requests.of_class(first)))));
        }
        Row::plain(cells)
    };
    let head = Row::plain(names.into_iter().map(str::to_owned));
    std::iter::once(head).chain(report.routes.iter().map(row)).collect()
}

fn accounts(report: &Report) -> Vec<Row> {
    let head = Row::plain(["CREDENTIAL", "ACCOUNT", "STATE", "TOKEN", "FETCHES"].map(str::to_owned));
    let untouched = report.untouched_logins().map(|login| {
        let mut row =
            Row::plain([login.name.as_str(), "-", "login needed", "no token", "-"].map(str::to_owned));
        row.cells[2].1 = Tone::Bad;
        row
    });
    let row = |account: &Account| {
        let (tone, word) = words::state(account);
        let mut row = Row::plain([
            account.credential.clone(),
            account.account.clone(),
            word.to_owned(),
            words::token(account),
            words::fetches(account),
        ]);
        row.cells[2].1 = tone;
        let next = words::next_try(account);
        row.below = match (account.last_error.clone(), next) {
            (Some(error), Some(next)) => vec![format!("{error}; {next}")],
            (error, next) => error.or(next).into_iter().collect(),
        };
        row
    };
    std::iter::once(head).chain(untouched).chain(report.by_need().into_iter().map(row)).collect()
}

/// What is neither a route nor an account.
fn rest(report: &Report) -> Vec<(Tone, String)> {
    let mut lines = Vec::new();
    let mut refusals: Vec<_> = report.refusals.iter().filter(|(_, count)| **count > 0).collect();
    refusals.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
    let refusals: Vec<String> =
        refusals.iter().map(|(reason, count)| format!("{} {reason}", words::number(**count))).collect();
    let refused = if refusals.is_empty() { "nothing".to_owned() } else { refusals.join(", ") };
    lines.push((Tone::Plain, format!("refused    {}", clean(&refused))));
    if let Some(store) = &report.store {
        let (tone, text) = words::store(store);
        lines.push((tone, format!("store      {}", clean(&text))));
    }
    let (tone, text) = words::sandbox(report.sandbox.as_ref());
    lines.push((tone, format!("sandbox    {}", clean(&text))));
    lines.push((Tone::Plain, format!("listens on {}", clean(&report.listeners.join(", ")))));
    // What is as it should be needs no colour here.
    lines
        .into_iter()
        .map(|(tone, text)| (if tone == Tone::Good { Tone::Plain } else { tone }, text))
        .collect()
}

/// Rows below one another, the first of them in capitals; as wide as there is room. `expendable`: what goes first where
/// there is too little.
fn grid(mut rows: Vec<Row>, expendable: &[&str], look: Look) -> Vec<String> {
    for name in expendable {
        let least = |(at, width): (usize, usize)| {
            let is_expendable = expendable.contains(&rows[0].cells[at].0.as_str());
            width.min(if is_expendable { WORTHWHILE } else { NARROWEST.max(rows[0].cells[at].0.len()) })
        };
        let widths = natural(&rows);
        let gaps = GAP * widths.len().saturating_sub(1);
        let needed = gaps + widths.into_iter().enumerate().map(least).sum::<usize>();
        let place = rows[0].cells.iter().position(|(cell, _)| cell == name);
        if let Some(at) = place.filter(|_| look.width.is_some_and(|width| width < needed)) {
            rows.iter_mut().for_each(|row| drop(row.cells.remove(at)));
        }
    }
    let widths = fitted(natural(&rows), look.width);
    let mut lines = Vec::new();
    for (place, row) in rows.iter().enumerate() {
        let mut line = String::new();
        for (at, ((text, tone), width)) in row.cells.iter().zip(&widths).enumerate() {
            let text = cut(text, *width);
            let room = if at + 1 < widths.len() { width + GAP - text.chars().count() } else { 0 };
            line.push_str(&if place == 0 { dim(&text, look) } else { painted(&text, *tone, look) });
            line.extend(std::iter::repeat_n(' ', room));
        }
        lines.push(line.trim_end().to_owned());
        row.below.iter().for_each(|text| lines.extend(wrapped(text, look)));
    }
    lines
}

/// How wide each column would like to be.
fn natural(rows: &[Row]) -> Vec<usize> {
    let columns = rows.first().map_or(0, |row| row.cells.len());
    let widest = |at: usize| rows.iter().map(|row| row.cells[at].0.chars().count()).max().unwrap_or(0);
    (0..columns).map(widest).collect()
}

/// Takes from the widest columns what the others need.
fn fitted(mut widths: Vec<usize>, most: Option<usize>) -> Vec<usize> {
    let Some(most) = most else { return widths };
    let room = most.saturating_sub(GAP * widths.len().saturating_sub(1));
    while widths.iter().sum::<usize>() > room {
        match widths.iter_mut().max() {
            Some(widest) if *widest > NARROWEST => *widest -= 1,
            _ => break,
        }
    }
    widths
}

/// A text below a row, in lines that fit.
fn wrapped(text: &str, look: Look) -> Vec<String> {
    let text = clean(text);
    let Some(width) = look.width else { return vec![format!("{INDENT}{text}")] };
    let width = width.saturating_sub(INDENT.len()).max(NARROWEST);
    let (mut lines, mut line, mut length) = (Vec::new(), String::new(), 0);
    for word in text.split(' ') {
        let mut word: Vec<char> = word.chars().collect();
        if length > 0 && length + 1 + word.len() > width {
            lines.push(std::mem::take(&mut line));
            length = 0;
        }
        while word.len() > width {
            lines.push(word.drain(..width).collect());
        }
        if length > 0 {
            line.push(' ');
            length += 1;
        }
        length += word.len();
        line.extend(word);
    }
    lines.push(line);
    lines.into_iter().map(|line| format!("{INDENT}{line}")).collect()
}

fn cut(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    text.chars().take(width.saturating_sub(1)).chain(['…']).collect()
}

/// What an instance says holds texts of others: none of them steers a terminal.
fn clean(text: &str) -> String {
    text.chars().map(|c| if is_unseen(c) { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

fn painted(text: &str, tone: Tone, look: Look) -> String {
    let code = match tone {
        Tone::Good => "32",
        Tone::Warning => "33",
        Tone::Bad => "1;31",
        Tone::Plain => return text.to_owned(),
    };
    coded(text, code, look)
}

fn dim(text: &str, look: Look) -> String {
    coded(text, "2", look)
}

fn coded(text: &str, code: &str, look: Look) -> String {
    if look.colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
}

#[cfg(test)]
mod tests;
