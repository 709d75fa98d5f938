//! The stand-ins as a process of their own, for `tests/real/run`.
//!
//! Arguments: `[--token-lifetime MILLISECONDS]`. It prints one line of JSON with the addresses, then answers each
//! line on stdin with one of JSON; it ends with stdin.
//!
//! | line | what happens |
//! |---|---|
//! | `fault none`, `fault fail_half`, `fault hangup`, `fault status CODE` | how Aura's token endpoint misbehaves |
//! | `delay MS` | how long it waits before each answer |
//! | `revoke` | Aura takes back every token |
//! | `revoking MIN MAX` | it does so again and again, after a random time between the two, in milliseconds; a token younger than 50 ms is spared, for a request is sent again once only |
//! | `revoking off` | no more of it |
//! | `issue` | a new token that Neon accepts |
//! | `withdraw TOKEN` | Neon accepts it no more |
//! | `stats` | what each has received |
#![allow(clippy::print_stdout, reason = "its answers are what it is for")]

use std::cell::Cell;
use std::error::Error;
use std::rc::Rc;
use std::time::Duration;

use serde_json::{Value, json};
use sidekey::demo::standins::{Aura, Fault, Neo4j, Neon, Record};
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, LocalSet};

/// As many clients as a test may want to tell apart: `client-1` with `secret-1`, and so on.
const CLIENTS: usize = 8;

/// What Neon's SQL over HTTP is asked with.
const CONNECTION_STRING: &str = "postgresql://app:verysecret@db.neon.example/neondb";

/// Younger tokens are not revoked.
const YOUTH: Duration = Duration::from_millis(50);

struct Lab {
    aura: Aura,
    neo4j: Neo4j,
    neon: Neon,
    revocations: Cell<u64>,
}

fn main() -> Result<(), Box<dyn Error>> {
    let lifetime = match std::env::args().skip(1).collect::<Vec<_>>().as_slice() {
        [] => Duration::from_secs(3600),
        [name, value] if name == "--token-lifetime" => Duration::from_millis(value.parse()?),
        other => return Err(format!("what is {other:?}?").into()),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, run(lifetime))
}

async fn run(lifetime: Duration) -> Result<(), Box<dyn Error>> {
    let mut aura = Aura::builder().token_lifetime(lifetime);
    for number in 1..=CLIENTS {
        aura = aura.client(format!("client-{number}"), format!("secret-{number}"));
    }
    let lab = Rc::new(Lab {
        aura: aura.start().await?,
        neo4j: Neo4j::builder().basic("neo4j", "verysecret").bearer("sso-token").start().await?,
        neon: Neon::builder().key("neon-key").connection_string(CONNECTION_STRING).start().await?,
        revocations: Cell::new(0),
    });
    // Hundreds of thousands of requests come by.
    for record in [lab.aura.record(), lab.neo4j.record(), lab.neon.record()] {
        record.recording(false);
    }
    println!("{}", json!({ "aura": lab.aura.url(), "neo4j": lab.neo4j.url(), "neon": lab.neon.url() }));
    let mut revoking = None;
    let (give, mut lines) = mpsc::unbounded_channel();
    std::thread::spawn(move || {
        std::io::stdin().lines().map_while(Result::ok).try_for_each(|line| give.send(line))
    });
    while let Some(line) = lines.recv().await {
        let words: Vec<&str> = line.split_whitespace().collect();
        println!("{}", obey(&lab, &words, &mut revoking)?);
    }
    Ok(())
}

fn obey(
    lab: &Rc<Lab>,
    words: &[&str],
    revoking: &mut Option<JoinHandle<()>>,
) -> Result<Value, Box<dyn Error>> {
    match words {
        ["fault", "none"] => lab.aura.token_fault(Fault::None),
        ["fault", "fail_half"] => lab.aura.token_fault(Fault::FailHalf),
        ["fault", "hangup"] => lab.aura.token_fault(Fault::Hangup),
        ["fault", "status", code] => lab.aura.token_fault(Fault::Status(code.parse()?)),
        ["delay", milliseconds] => lab.aura.token_delay(Duration::from_millis(milliseconds.parse()?)),
        ["revoke"] => revoke(lab),
        ["revoking", "off"] => drop(revoking.take().inspect(JoinHandle::abort)),
        ["revoking", least, most] => {
            let (lab, least, most) = (Rc::clone(lab), least.parse::<u64>()?, most.parse::<u64>()?);
            *revoking = Some(tokio::task::spawn_local(async move {
                loop {
                    tokio::time::sleep(Duration::from_millis(fastrand::u64(least..=most))).await;
                    let mut issued = u64::MAX;
                    while issued != lab.aura.tokens().issued() {
                        issued = lab.aura.tokens().issued();
                        tokio::time::sleep(YOUTH).await;
                    }
                    revoke(&lab);
                }
            }));
        }
        ["issue"] => return Ok(json!({ "token": lab.neon.tokens().issue(Duration::MAX) })),
        ["withdraw", token] => return Ok(json!({ "known": lab.neon.tokens().revoke(token) })),
        ["stats"] => return Ok(stats(lab)),
        other => return Err(format!("what is {other:?}?").into()),
    }
    Ok(json!({}))
}

fn revoke(lab: &Lab) {
    lab.aura.tokens().revoke_all();
    lab.revocations.set(lab.revocations.get() + 1);
}

fn stats(lab: &Lab) -> Value {
    let of = |record: &Record| {
        json!({
            "connections": record.connections(),
            "api_requests": record.api_requests(),
            "token_requests": record.token_requests(),
            "refusals": record.refusals(),
        })
    };
    let mut aura = of(lab.aura.record());
    aura["tokens_issued"] = lab.aura.tokens().issued().into();
    aura["revocations"] = lab.revocations.get().into();
    json!({ "aura": aura, "neo4j": of(lab.neo4j.record()), "neon": of(lab.neon.record()) })
}
