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
    /// The beginning of the path that matched and is removed before forwarding; none: it matched otherwise.
    pub prefix: Option<&'a str>,
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

    /// The most specific match, if there is any. `host`: lower case, without port.
    pub fn find(&self, listener: ListenId, host: &str, path: &str) -> Option<Match<'_>> {
        if let Some(route) = self.listeners.get(listener).copied().flatten() {
            return Some(Match { route, prefix: None });
        }
        if let Some(&route) = self.hosts.get(host) {
            return Some(Match { route, prefix: None });
        }
        self.find_path(path)
    }

    /// The longest prefix that matches a path, where neither listener nor host do.
    pub fn find_path(&self, path: &str) -> Option<Match<'_>> {
        let mut prefix = first_segments(path, self.deepest);
        loop {
            if let Some((prefix, &route)) = self.paths.get_key_value(prefix) {
                return Some(Match { route, prefix: Some(prefix) });
            }
            prefix = &prefix[..prefix.rfind('/')?];
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

/// Could a path be read two ways: does it have a `.` or `..` segment, plain or encoded, or a backslash?
///
/// Such a path might leave its prefix upstream, so it is refused rather than guessed at. A segment's parameters do
/// not count as part of it: servlet containers, Neo4j's among them, cut `;…` before they resolve dots.
pub fn is_ambiguous(path: &str) -> bool {
    let bytes = path.as_bytes();
    // Most paths have none of these and are done after one look.
    if !bytes.iter().any(|byte| matches!(byte, b'.' | b'%' | b'\\')) {
        return false;
    }
    if bytes.contains(&b'\\') {
        return true;
    }
    let mut dots = 0;
    let mut others = false;
    let mut in_parameters = false;
    let mut at = 0;
    while at < bytes.len() {
        let (byte, width) = match bytes[at..] {
            [b'%', a, b, ..] => match (a, b.to_ascii_lowercase()) {
                (b'2', b'e') => (b'.', 3),
                (b'2', b'f') => (b'/', 3),
                (b'3', b'b') => (b';', 3),
                (b'5', b'c') => return true,
                _ => (b'%', 3),
            },
            _ => (bytes[at], 1),
        };
        match byte {
            b'/' if !others && (dots == 1 || dots == 2) => return true,
            b'/' => (dots, others, in_parameters) = (0, false, false),
            _ if in_parameters => {}
            b';' => in_parameters = true,
            b'.' => dots += 1,
            _ => others = true,
        }
        at += width;
    }
    !others && (dots == 1 || dots == 2)
}

/// The target upstream: the upstream's own path, then what is left of the caller's, byte for byte.
///
/// None where what is left is no path (`OPTIONS *` behind an upstream that has a path).
pub fn target(upstream: &Upstream, path_and_query: &PathAndQuery, prefix: usize) -> Option<PathAndQuery> {
    if prefix == 0 && upstream.base_path.is_empty() {
        return Some(path_and_query.clone());
    }
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
            let found = table.find(listener, host, path)?;
            Some((found.route, found.prefix.map_or(0, str::len)))
        };
        assert_eq!(find(0, "localhost", "/aura"), Some((0, 5)));
        assert_eq!(find(0, "localhost", "/aura/"), Some((0, 5)));
        assert_eq!(find(0, "localhost", "/aura/x/y/z"), Some((0, 5)));
        assert_eq!(find(0, "localhost", "/aura/v1"), Some((1, 8)));
        assert_eq!(find(0, "localhost", "/aura/v1/instances"), Some((1, 8)));
        assert_eq!(find(0, "localhost", "/aura/v11"), Some((0, 5)));
        assert_eq!(find(0, "localhost", "/auras"), None);
        assert_eq!(find(0, "localhost", "/"), None);
        assert_eq!(find(0, "localhost", "*"), None);
        assert_eq!(find(0, "neon.localhost", "/aura"), Some((8, 0)), "host before path");
        assert_eq!(find(1, "neon.localhost", "/aura"), Some((9, 0)), "listener before host");
        let all = paths(&[("", 3), ("/aura", 0)]);
        assert_eq!(all.find(0, "localhost", "/other"), Some(Match { route: 3, prefix: Some("") }));
        assert_eq!(all.find(0, "localhost", "/aura"), Some(Match { route: 0, prefix: Some("/aura") }));
    }

    #[test]
    fn paths_that_can_be_read_two_ways_are_known() {
        let ambiguous = [
            "/..",
            "/../x",
            "/a/..",
            "/a/../b",
            "/a/%2e%2e/b",
            "/a/%2E./b",
            "/a/.%2e",
            "/a/..%2fb",
            "/a/%2f..%2f",
            "/a\\b",
            "/a%5cb",
            "/a%5C..",
            "/.",
            "/./a",
            "/%2e",
            "/a/.",
            "/a/..;/b",
            "/a/..;x=y",
            "/a/.%3B/b",
            "/..;%2fb",
        ];
        for path in ambiguous {
            assert!(is_ambiguous(path), "{path}");
        }
        for path in [
            "/",
            "/a.b",
            "/a..b/c",
            "/...",
            "/.well-known/x",
            "/a/b%2Fc",
            "/%41",
            "/a/%",
            "/a/..c",
            "/v1.0/x.json",
            "/a;../b",
            "/;./b",
            "/a..;b/c",
        ] {
            assert!(!is_ambiguous(path), "{path}");
        }
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
        };
        let cases = [
            ("", "/aura/v1?x=1", 5, Some("/v1?x=1")),
            ("", "/aura", 5, Some("/")),
            ("", "/aura?x", 5, Some("/?x")),
            ("", "/aura/", 5, Some("/")),
            ("/api/v2", "/neon", 5, Some("/api/v2")),
            ("/api/v2", "/neon?", 5, Some("/api/v2?")),
            ("/api/v2", "/neon/", 5, Some("/api/v2/")),
            ("/api/v2", "/neon//a;b+c/%41%2f?&=", 5, Some("/api/v2//a;b+c/%41%2f?&=")),
            ("/api/v2", "/projects", 0, Some("/api/v2/projects")),
            ("", "*", 0, Some("*")),
            ("/api", "*", 0, None),
        ];
        for (base, given, prefix, want) in cases {
            let got = target(&upstream(base), &PathAndQuery::from_static(given), prefix);
            assert_eq!(got.as_ref().map(PathAndQuery::as_str), want, "{given} behind {base}");
        }
    }
}
