//! A page of metrics as a scraper reads it: strictly, so that what no scraper would take is found here.

use std::collections::{BTreeMap, BTreeSet};

/// What one series is told apart by.
pub(crate) type Labels = BTreeMap<String, String>;

/// A page, read.
#[derive(Debug, Default)]
pub(crate) struct Page {
    samples: BTreeMap<(String, Labels), f64>,
    /// By metric: what kind it is.
    pub(crate) kinds: BTreeMap<String, String>,
}

impl Page {
    /// Reads a page; panics where it is not one.
    pub(crate) fn read(text: &str) -> Self {
        assert!(text.ends_with('\n'), "the last line ends");
        let mut page = Self::default();
        let mut current = String::new();
        let mut helped = BTreeSet::new();
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# HELP ") {
                let (name, help) = rest.split_once(' ').expect("a help text");
                assert!(help.len() > 5 && help.ends_with('.'), "{line}");
                assert!(helped.insert(name.to_owned()), "{name} twice");
                current = name.to_owned();
            } else if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').expect("a kind");
                assert_eq!(name, current, "HELP and TYPE stand together");
                assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
                page.kinds.insert(name.to_owned(), kind.to_owned());
            } else {
                let (series, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("{line:?}"));
                let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
                let is_its = name == current
                    || (page.kinds[&current] == "histogram"
                        && ["_bucket", "_sum", "_count"]
                            .iter()
                            .any(|end| *name == format!("{current}{end}")));
                assert!(is_its, "{line:?} among {current}");
                let key = (name.to_owned(), labels_of(labels));
                let value = value.parse().unwrap_or_else(|_| panic!("{line:?}"));
                assert!(page.samples.insert(key, value).is_none(), "{series} twice");
            }
        }
        assert_eq!(helped, page.kinds.keys().cloned().collect());
        page
    }

    /// The series of a metric.
    pub(crate) fn series(&self, name: &str) -> Vec<(&Labels, f64)> {
        let of_it = self.samples.iter().filter(|((sample, _), _)| sample == name);
        of_it.map(|((_, labels), value)| (labels, *value)).collect()
    }

    /// One value; none: there is no such series.
    pub(crate) fn find(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let labels: Labels = labels.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        self.samples.get(&(name.to_owned(), labels)).copied()
    }

    /// One value; panics where there is none.
    pub(crate) fn value(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.find(name, labels).unwrap_or_else(|| panic!("no {name} {labels:?}"))
    }

    /// Requests of a route that were answered so.
    pub(crate) fn requests(&self, route: &str, code: &str) -> f64 {
        self.find("sidekey_requests_total", &[("route", route), ("code", code)]).unwrap_or_default()
    }

    /// Requests of a route.
    pub(crate) fn all_requests(&self, route: &str) -> f64 {
        let of_it = self.series("sidekey_requests_total").into_iter();
        of_it.filter(|(labels, _)| labels["route"] == route).map(|(_, value)| value).sum()
    }

    /// How many exchanges a route's histogram has.
    pub(crate) fn timed(&self, route: &str) -> f64 {
        self.value("sidekey_request_duration_seconds_count", &[("route", route)])
    }

    /// A route's connections to its upstream: active and idle.
    pub(crate) fn connections(&self, route: &str) -> (f64, f64) {
        let of = |state| self.value("sidekey_upstream_connections", &[("route", route), ("state", state)]);
        (of("active"), of("idle"))
    }

    /// How many series there are, and every label's value.
    pub(crate) fn label_values(&self) -> (usize, BTreeSet<&str>) {
        let values = self.samples.keys().flat_map(|(_, labels)| labels.values().map(String::as_str));
        (self.samples.len(), values.collect())
    }
}

fn labels_of(text: &str) -> Labels {
    let mut labels = Labels::new();
    let mut rest = text;
    while !rest.starts_with('}') {
        let (name, value) = rest.split_once("=\"").expect("a label");
        let mut text = String::new();
        let mut characters = value.char_indices();
        let end = loop {
            match characters.next().expect("a closing quote") {
                (at, '"') => break at + 1,
                (_, '\\') => match characters.next().expect("an escape").1 {
                    'n' => text.push('\n'),
                    other => text.push(other),
                },
                (_, other) => text.push(other),
            }
        };
        assert!(labels.insert(name.to_owned(), text).is_none(), "{name} twice");
        rest = value[end..].strip_prefix(',').unwrap_or(&value[end..]);
    }
    labels
}
