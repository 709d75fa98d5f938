//! Could the server lose an acknowledged write? It is asked once, and a person is told.

use ::redis::aio::MultiplexedConnection;
use ::redis::cmd;

/// What a person should know of the server's settings. A server that does not say has none.
pub(super) async fn look(connection: &mut MultiplexedConnection) -> Vec<&'static str> {
    let info: Result<String, _> = cmd("INFO").query_async(connection).await;
    let fsync: Result<Vec<String>, _> =
        cmd("CONFIG").arg("GET").arg("appendfsync").query_async(connection).await;
    let fsync = fsync.ok().and_then(|pair| pair.into_iter().nth(1));
    worries(&info.unwrap_or_default(), fsync.as_deref())
}

/// Pure. `info`: what INFO said; `fsync`: the setting `appendfsync`.
fn worries(info: &str, fsync: Option<&str>) -> Vec<&'static str> {
    let field = |name: &str| info.lines().find_map(|line| line.trim().strip_prefix(name)?.strip_prefix(':'));
    let mut worries = Vec::new();
    match (field("aof_enabled"), fsync) {
        (Some("0"), _) => worries.push(
            "a crash of the Redis server loses the logins of the last minutes; set `appendonly yes` and \
             `appendfsync always`, or log in again then",
        ),
        (Some("1"), Some("everysec" | "no")) => worries.push(
            "a crash of the Redis server may lose the last second's refreshed login; set `appendfsync always`",
        ),
        _ => (),
    }
    // Grants never expire, so the volatile policies leave them alone.
    let evicts = field("maxmemory_policy").is_some_and(|policy| policy.starts_with("allkeys"));
    if evicts && field("maxmemory").is_some_and(|bytes| bytes != "0") {
        worries.push(
            "the Redis server may evict logins when its memory is full; set `maxmemory-policy noeviction`",
        );
    }
    worries
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_may_lose_a_login_is_warned_of() {
        let info = |aof: u8, max: u32, policy: &str| {
            format!(
                "# Persistence\r\naof_enabled:{aof}\r\n# Memory\r\nmaxmemory:{max}\r\nmaxmemory_policy:{policy}\r\n"
            )
        };
        let cases: [(String, Option<&str>, &[&str]); 9] = [
            (info(1, 0, "noeviction"), Some("always"), &[]),
            (info(1, 0, "noeviction"), None, &[]),
            (info(1, 0, "noeviction"), Some("everysec"), &["last second"]),
            (info(1, 0, "noeviction"), Some("no"), &["last second"]),
            (info(0, 0, "noeviction"), Some("always"), &["last minutes"]),
            (info(1, 0, "allkeys-lru"), Some("always"), &[]),
            (info(1, 100, "allkeys-lru"), Some("always"), &["evict"]),
            (info(0, 100, "allkeys-random"), None, &["last minutes", "evict"]),
            (String::new(), None, &[]),
        ];
        for (info, fsync, want) in cases {
            let got = worries(&info, fsync);
            assert_eq!(got.len(), want.len(), "{info} {fsync:?} {got:?}");
            assert!(got.iter().zip(want).all(|(got, want)| got.contains(want)), "{got:?}");
        }
    }
}
