//! What a server's error means. Only its code is looked at and shown: the rest may repeat what was sent. Pure.

use ::redis::{ErrorKind, RedisError};

use crate::store::RedisFault;

/// What an error of a command means.
pub(super) fn of(error: &RedisError) -> RedisFault {
    match error.kind() {
        ErrorKind::AuthenticationFailed => RedisFault::Login,
        ErrorKind::Io => RedisFault::Lost,
        ErrorKind::Parse => RedisFault::Protocol,
        ErrorKind::UnexpectedReturnType => RedisFault::Foreign,
        _ => of_answer(error.code().unwrap_or_default(), error.detail().unwrap_or_default()),
    }
}

/// What an error means while the connection is set up: logging in, choosing the database.
pub(super) fn of_setup(error: &RedisError) -> RedisFault {
    match of(error) {
        RedisFault::Other(_) => {
            // The library puts the server's answer into its own words.
            let detail = error.detail().unwrap_or_default();
            let known = |word: &str| detail.contains(word);
            if known("uthentication required") {
                RedisFault::Login
            } else if known("no permissions") {
                RedisFault::Permission
            } else {
                RedisFault::Database
            }
        }
        fault => fault,
    }
}

/// Is another connection worth a try? After a failover the same name may lead to another server.
pub(super) fn is_of_connection(fault: &RedisFault) -> bool {
    matches!(
        fault,
        RedisFault::Lost
            | RedisFault::Protocol
            | RedisFault::ReadOnly
            | RedisFault::MasterDown
            | RedisFault::Login
            | RedisFault::Permission
            | RedisFault::Cluster(_)
    )
}

fn of_answer(code: &str, detail: &str) -> RedisFault {
    if let Some(fault) = of_code(code) {
        return fault;
    }
    // What may not be done in a script has no code of its own (Redis 7.0; from 7.2 on, and Valkey).
    if detail.contains("The user executing the script") || detail.contains("ACL failure in script") {
        return RedisFault::Permission;
    }
    // Servers before 7.0 put the code of what failed in a script into the text.
    if detail.starts_with("Error running script") {
        let codes = detail.split_ascii_whitespace().map(|word| word.trim_start_matches('-'));
        if let Some(fault) = codes.filter_map(of_code).next() {
            return fault;
        }
    }
    let is_code = !code.is_empty() && code.len() <= 32 && code.bytes().all(|byte| byte.is_ascii_uppercase());
    RedisFault::Other(if is_code { code } else { "an error without a code" }.to_owned())
}

fn of_code(code: &str) -> Option<RedisFault> {
    Some(match code {
        "WRONGPASS" | "NOAUTH" => RedisFault::Login,
        "NOPERM" => RedisFault::Permission,
        "READONLY" => RedisFault::ReadOnly,
        "LOADING" => RedisFault::Loading,
        "MASTERDOWN" => RedisFault::MasterDown,
        "OOM" => RedisFault::OutOfMemory,
        "MISCONF" | "NOREPLICAS" => RedisFault::NotDurable(code.to_owned()),
        "MOVED" | "ASK" | "CLUSTERDOWN" | "CROSSSLOT" | "TRYAGAIN" => RedisFault::Cluster(code.to_owned()),
        "WRONGTYPE" => RedisFault::Foreign,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_answer_has_its_own_fault_and_repeats_nothing() {
        let cases = [
            ("WRONGPASS", "invalid username-password pair", RedisFault::Login),
            ("NOAUTH", "Authentication required.", RedisFault::Login),
            ("NOPERM", "this user has no permissions", RedisFault::Permission),
            ("ERR", "ACL failure in script: User a has no permissions to run", RedisFault::Permission),
            (
                "ERR",
                "The user executing the script can't run this command or subcommand script: 0123",
                RedisFault::Permission,
            ),
            ("READONLY", "You can't write against a read only replica.", RedisFault::ReadOnly),
            (
                "ERR",
                "Error running script (call to f_0123): @user_script:7: -READONLY You can't write",
                RedisFault::ReadOnly,
            ),
            (
                "ERR",
                "Error running script (call to f_0123): @user_script:7: @user_script: 7: -OOM command not allowed",
                RedisFault::OutOfMemory,
            ),
            ("LOADING", "Redis is loading the dataset in memory", RedisFault::Loading),
            ("MASTERDOWN", "Link with MASTER is down", RedisFault::MasterDown),
            ("OOM", "command not allowed", RedisFault::OutOfMemory),
            ("MISCONF", "Redis is configured to save", RedisFault::NotDurable("MISCONF".to_owned())),
            ("NOREPLICAS", "Not enough good replicas", RedisFault::NotDurable("NOREPLICAS".to_owned())),
            ("MOVED", "3999 10.0.0.1:6379", RedisFault::Cluster("MOVED".to_owned())),
            ("WRONGTYPE", "Operation against a key", RedisFault::Foreign),
            (
                "ERR",
                "unknown command 'AUTH', with args beginning with: 'canary'",
                RedisFault::Other("ERR".to_owned()),
            ),
            ("canary", "", RedisFault::Other("an error without a code".to_owned())),
            ("", "", RedisFault::Other("an error without a code".to_owned())),
        ];
        for (code, detail, want) in cases {
            let got = of_answer(code, detail);
            assert_eq!(got, want, "{code} {detail}");
            assert!(!got.to_string().contains("canary"), "{got}");
        }
    }
}
