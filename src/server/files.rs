//! How many connections the process may have open.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tracing::warn;

/// Callers' connections at once, where the configuration does not say.
const DEFAULT: usize = 16_384;
/// Files that are not connections: listeners, logs, the store, watched secrets.
const OTHERS: u64 = 64;

/// How many callers' connections there may be at once. Unless it is told, half of the files that the process may open,
/// for each may need one upstream; if it is, as many as there can be. Raises what the process may open as far as it may.
pub(super) fn connections(wished: Option<usize>) -> usize {
    let now = getrlimit(Resource::Nofile);
    if now.current != now.maximum {
        // Not being allowed to is no reason not to serve.
        let _ = setrlimit(Resource::Nofile, Rlimit { current: now.maximum, maximum: now.maximum });
    }
    let limit = within(wished, getrlimit(Resource::Nofile).current);
    if wished.is_some_and(|wished| wished > limit) {
        warn!(limit, "fewer connections than `max_connections`: the process may not open as many files");
    }
    limit
}

/// The same, when the process may open so many files; none: as many as it likes.
fn within(wished: Option<usize>, files: Option<u64>) -> usize {
    let possible = files.map_or(u64::MAX, |files| files.saturating_sub(OTHERS));
    let possible = usize::try_from(possible).unwrap_or(usize::MAX);
    wished.map_or(DEFAULT.min(possible / 2), |wished| wished.min(possible)).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_of_the_files_are_for_upstreams_unless_it_is_told_otherwise() {
        let cases = [
            ((None, None), DEFAULT),
            ((None, Some(1 << 20)), DEFAULT),
            ((None, Some(1024)), 480),
            ((Some(100), Some(1024)), 100),
            ((Some(900), Some(1024)), 900),
            ((Some(1000), Some(1024)), 960),
            ((Some(20_000), None), 20_000),
            ((None, Some(10)), 1),
        ];
        for ((wished, files), want) in cases {
            assert_eq!(within(wished, files), want, "{wished:?} {files:?}");
        }
    }
}
