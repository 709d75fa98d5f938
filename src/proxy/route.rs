//! Which route a request takes, and the target it has upstream. Pure.

use std::collections::HashMap;

use http::uri::PathAndQuery;

use crate::config::{ListenId, Route, Upstream};

/// The routes by what they match: listener before host before the longest path.
#[derive(Debug, Default)]
pub struct RouteTable {
    listeners: Vec<Option<usize>>,
    hosts: HashMap<Box<str>, usize>,
    paths: HashMap<Box<str>, usize>,
    /// The most segments that any path prefix has; no longer one need be tried.
    deepest: usize,
}

/// The route that a request takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Match<'a> {
    /// Its index among the configuration's routes.
    pub route: usize,
    /// The beginning of the path that matched and is removed before forwarding, as the configuration spells it; none: it
    /// matched otherwise.
    pub prefix: Option<&'a str>,
}

impl Match<'_> {
    /// Segments of the path that are removed before forwarding, however they are spelled.
    pub fn segments(&self) -> usize {
        self.prefix.map_or(0, segments)
    }

    /// What is left of the normalized path that matched.
    pub fn rest<'p>(&self, path: &'p str) -> &'p str {
        self.prefix.and_then(|prefix| path.strip_prefix(prefix)).unwrap_or(path)
    }
}

impl RouteTable {
    /// The table of these routes on so many listeners. Conflicts were found when the configuration was loaded.
    pub fn new(routes: &[Route], listeners: usize) -> Self {
        let mut table = Self { listeners: vec![None; listeners], ..Self::default() };
        for (index, route) in routes.iter().enumerate() {
            for listener in &route.matches.listeners {
                table.listeners[*listener] = Some(index);
            }
            for host in &route.matches.hosts {
                table.hosts.insert(host.as_str().into(), index);
            }
            for path in &route.matches.paths {
                table.deepest = table.deepest.max(segments(path));
                table.paths.insert(path.as_str().into(), index);
            }
        }
        table
    }

    /// The most specific match, if there is any. `host`: lower case, without port; `path`: normalized.
    pub fn find(&self, listener: ListenId, host: &str, path: &str) -> Option<Match<'_>> {
        if let Some(route) = self.listeners.get(listener).copied().flatten() {
            return Some(Match { route, prefix: None });
        }
        if let Some(&route) = self.hosts.get(host) {
            return Some(Match { route, prefix: None });
        }
        self.find_path(path)
    }

    /// The longest prefix that matches a path, where neither listener nor host do. `path`: normalized.
    pub fn find_path(&self, path: &str) -> Option<Match<'_>> {
        let mut prefix = first_segments(path, self.deepest);
        loop {
            if let Some((prefix, &route)) = self.paths.get_key_value(prefix) {
                return Some(Match { route, prefix: Some(prefix) });
            }
            if prefix.is_empty() {
                return None;
            }
            // `*` has no segments: only the empty prefix takes it.
            prefix = &prefix[..prefix.rfind('/').unwrap_or(0)];
        }
    }
}

fn segments(path: &str) -> usize {
    path.bytes().filter(|byte| *byte == b'/').count()
}

/// The first `count` segments of a path.
fn first_segments(path: &str, count: usize) -> &str {
    let end = path.match_indices('/').nth(count).map_or(path.len(), |(at, _)| at);
    &path[..end]
}

/// The target upstream: the upstream's own path, then what is left of the caller's behind its first segments, byte for
/// byte.
///
/// None where what is left is no path (`OPTIONS *` behind an upstream that has a path).
pub fn target(upstream: &Upstream, path_and_query: &PathAndQuery, segments: usize) -> Option<PathAndQuery> {
    if segments == 0 && upstream.base_path.is_empty() {
        return Some(path_and_query.clone());
    }
    let prefix = match segments {
        // Nothing is removed, though it may not begin with a slash.
        0 => 0,
        _ => first_segments(path_and_query.path(), segments).len(),
    };
    let rest = &path_and_query.as_str()[prefix..];
    let slash = match rest.as_bytes().first() {
        Some(b'/') => "",
        // The prefix was the whole path: the upstream's own path, or its root.
        None | Some(b'?') if upstream.base_path.is_empty() => "/",
        None | Some(b'?') => "",
        Some(_) => return None,
    };
    let mut text = String::with_capacity(upstream.base_path.len() + slash.len() + rest.len());
    text.push_str(&upstream.base_path);
    text.push_str(slash);
    text.push_str(rest);
    PathAndQuery::from_maybe_shared(bytes::Bytes::from(text)).ok()
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn the_longest_prefix_wins_at_a_segment_boundary() {
        let paths = |entries: &[(&str, usize)]| RouteTable {
            listeners: vec![None, Some(9)],
            hosts: HashMap::from([("neon.localhost".into(), 8)]),
            paths: entries.iter().map(|(path, route)| ((*path).into(), *route)).collect(),
            deepest: entries.iter().map(|(path, _)| segments(path)).max().unwrap_or(0),
        };
        let table = paths(&[("/aura", 0), ("/aura/v1", 1)]);
        let find = |listener, host, path| {
            table.find(listener, host, path).map(|found| (found.route, found.segments()))
        };
        assert_eq!(find(0, "localhost", "/aura"), Some((0, 1)));
        assert_eq!(find(0, "localhost", "/aura/"), Some((0, 1)));
        assert_eq!(find(0, "localhost", "/aura/x/y/z"), Some((0, 1)));
        assert_eq!(find(0, "localhost", "/aura/v1"), Some((1, 2)));
        assert_eq!(find(0, "localhost", "/aura/v1/instances"), Some((1, 2)));
        assert_eq!(find(0, "localhost", "/aura/v11"), Some((0, 1)));
        assert_eq!(find(0, "localhost", "/auras"), None);
        assert_eq!(find(0, "localhost", "/"), None);
        assert_eq!(find(0, "localhost", "*"), None);
        assert_eq!(find(0, "neon.localhost", "/aura"), Some((8, 0)), "host before path");
        assert_eq!(find(1, "neon.localhost", "/aura"), Some((9, 0)), "listener before host");
        let all = paths(&[("", 3), ("/aura", 0)]);
        assert_eq!(all.find(0, "localhost", "/other"), Some(Match { route: 3, prefix: Some("") }));
        assert_eq!(all.find(0, "localhost", "*"), Some(Match { route: 3, prefix: Some("") }));
        assert_eq!(all.find(0, "localhost", "/aura"), Some(Match { route: 0, prefix: Some("/aura") }));
    }

    #[test]
    fn the_target_keeps_every_byte_after_the_prefix() {
        let upstream = |base: &str| Upstream {
            tls: true,
            host: "h".into(),
            port: 443,
            base_path: base.into(),
            host_header: HeaderValue::from_static("h"),
            via: None,
            allow_link_local: false,
        };
        let cases = [
            ("", "/aura/v1?x=1", 1, Some("/v1?x=1")),
            ("", "/aura", 1, Some("/")),
            ("", "/aura?x/y", 1, Some("/?x/y")),
            ("", "/aura/", 1, Some("/")),
            ("", "/%61ur%61/v1", 1, Some("/v1")),
            ("", "/%61ura/%76%31//%41?%", 2, Some("//%41?%")),
            ("/api/v2", "/neon", 1, Some("/api/v2")),
            ("/api/v2", "/ne%6Fn?/a", 1, Some("/api/v2?/a")),
            ("/api/v2", "/neon?", 1, Some("/api/v2?")),
            ("/api/v2", "/neon/", 1, Some("/api/v2/")),
            ("/api/v2", "/neon//a;b+c/%41%2f?&=", 1, Some("/api/v2//a;b+c/%41%2f?&=")),
            ("/api/v2", "/projects", 0, Some("/api/v2/projects")),
            ("", "*", 0, Some("*")),
            ("/api", "*", 0, None),
        ];
        for (base, given, segments, want) in cases {
            let got = target(&upstream(base), &PathAndQuery::from_static(given), segments);
            assert_eq!(got.as_ref().map(PathAndQuery::as_str), want, "{given} behind {base}");
        }
    }
}
