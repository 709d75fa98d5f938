//! Grants whose refresh tokens rotate, against an authorization server that kills the chain of one that comes twice.
#![cfg(feature = "demo")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::sync::Arc;
use std::time::Duration;

use crate::support::faulty::Faulty;
use crate::support::logins::{Lab, ask};
use crate::support::running::{Running, eventually, patiently, sidekey_on};
use sidekey::clock::Clock;
use sidekey::credential::Vault;
use sidekey::credential::machine::State;
use sidekey::demo::standins::Fault;
use sidekey::demo::standins::authorization::{Rotation, When};
use sidekey::store::Backend as _;

const HOUR: Duration = Duration::from_secs(3600);
const SECOND: Duration = Duration::from_secs(1);
const BY_HEADER: &str = "account_header = \"Sidekey-Account\"";

/// A lab, its configuration and a vault on a store that can be made to fail.
struct Bench {
    lab: Lab,
    text: String,
    store: Arc<Faulty>,
    vault: Arc<Vault>,
}

impl Bench {
    async fn start(lifetime: Duration, credential: &str) -> Self {
        let lab = Lab::start(lifetime).await;
        let text =
            lab.text("", &format!("fetch_timeout = \"1s\"\nlease_timeout = \"500ms\"\n{credential}"), "");
        let store = Faulty::new();
        let vault = Vault::new(Arc::clone(&store) as _, Clock::system());
        Self { lab, text, store, vault }
    }

    async fn log_in(&self, account: &str) {
        self.lab.log_in(&self.vault, &self.lab.login(&self.text), account).await;
    }

    fn sidekey(&self) -> Running {
        sidekey_on(&self.text, &self.vault)
    }

    /// Another process on the same store.
    fn replica(&self) -> (Arc<Vault>, Running) {
        let vault = Vault::new(Arc::clone(&self.store) as _, Clock::system());
        let running = sidekey_on(&self.text, &vault);
        (vault, running)
    }

    /// Requests until the server has refreshed so often.
    async fn refreshed(&self, running: &Running, account: Option<&str>, times: u64) {
        let goal = self.lab.server.refreshes() + times;
        eventually("refreshes", async || {
            let reply = ask(running.addr, account).await;
            assert_eq!(
                reply.status,
                200,
                "{reply:?} {:?} {:?}",
                self.vault.record(),
                running.pool().records()
            );
            self.lab.server.refreshes() >= goal
        })
        .await;
    }
}

async fn until(running: &Running, status: u16) {
    eventually("an answer", async || ask(running.addr, None).await.status == status).await;
}

#[tokio::test]
async fn a_login_and_a_logout_are_taken_up_without_a_restart() {
    let bench = Bench::start(HOUR, "").await;
    let running = bench.sidekey();
    let refused = ask(running.addr, None).await;
    assert_eq!((refused.status, refused.header("sidekey-error")), (503, Some("login_required")));
    assert!(refused.text().contains("sidekey login neon --account default"), "{}", refused.text());
    assert!(refused.header("retry-after").is_some());
    bench.log_in("default").await;
    until(&running, 200).await;
    assert_eq!(bench.lab.last_subject().as_deref(), Some("default"));

    let login = bench.lab.login(&bench.text);
    let out = bench.vault.log_out(&login.key("default"), &login.client).await.unwrap();
    assert!(out.existed && out.revoked.unwrap());
    until(&running, 503).await;
    assert_eq!(bench.lab.server.revocations(), 1);
    let record = running.account();
    assert_eq!((record.state, record.has_token), (State::LoginRequired, false));
    let again = bench.vault.log_out(&login.key("default"), &login.client).await.unwrap();
    assert!(!again.existed, "there is nothing left");

    bench.log_in("default").await;
    until(&running, 200).await;
    running.stop().await;
}

#[tokio::test]
async fn callers_choose_among_accounts_and_get_no_other() {
    let bench = Bench::start(HOUR, BY_HEADER).await;
    for account in ["alice", "bob"] {
        bench.log_in(account).await;
    }
    let running = bench.sidekey();
    for account in ["alice", "bob", "alice"] {
        eventually(account, async || ask(running.addr, Some(account)).await.status == 200).await;
        assert_eq!(bench.lab.last_subject().as_deref(), Some(account));
        let seen = bench.lab.neon.record().requests().pop().unwrap();
        assert_eq!(seen.header("sidekey-account"), None);
    }
    let code = async |headers: &[(&str, &str)]| {
        let reply = crate::support::get(running.addr, "/projects", headers).await;
        (reply.status, reply.header("sidekey-error").unwrap_or_default().to_owned())
    };
    let asked = bench.lab.neon.record().api_requests();
    assert_eq!(code(&[("Sidekey-Account", "carol")]).await, (503, "login_required".to_owned()));
    // What an account is called must not run when somebody copies the command.
    let nasty = crate::support::get(running.addr, "/projects", &[("Sidekey-Account", "x;id${IFS}|sh")]).await;
    assert!(nasty.text().contains("--account 'x;id${IFS}|sh'"), "{}", nasty.text());
    assert_eq!(code(&[]).await, (400, "bad_request".to_owned()), "nobody is nobody's account");
    let two = [("Sidekey-Account", "alice"), ("Sidekey-Account", "bob")];
    assert_eq!(code(&two).await, (400, "bad_request".to_owned()));
    assert_eq!(code(&[("Sidekey-Account", "a b")]).await, (400, "bad_request".to_owned()));
    assert_eq!(bench.lab.neon.record().api_requests(), asked, "none of these left");
    running.stop().await;
}

#[tokio::test]
async fn a_route_of_one_account_is_nobody_elses() {
    let lab = Lab::start(HOUR).await;
    let text = lab.text("account = \"alice\"", BY_HEADER, "");
    let vault = Vault::in_memory(&Clock::system());
    let login = lab.login(&text);
    lab.log_in(&vault, &login, "alice").await;
    lab.log_in(&vault, &login, "bob").await;
    let running = sidekey_on(&text, &vault);
    until(&running, 200).await;
    assert_eq!(ask(running.addr, Some("alice")).await.status, 200);
    let refused = ask(running.addr, Some("bob")).await;
    assert_eq!((refused.status, refused.header("sidekey-error")), (403, Some("not_allowed")));
    assert_eq!(lab.last_subject().as_deref(), Some("alice"));
    running.stop().await;
}

#[tokio::test]
async fn a_hundred_accounts_at_once_never_mix() {
    let bench = Bench::start(2 * SECOND, BY_HEADER).await;
    let accounts: Vec<String> = (0..100).map(|number| format!("user-{number}")).collect();
    for account in &accounts {
        bench.log_in(account).await;
    }
    let running = bench.sidekey();
    let mut asking = tokio::task::JoinSet::new();
    for account in accounts {
        let addr = running.addr;
        asking.spawn(async move {
            while ask(addr, Some(&account)).await.status != 200 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            for _ in 0..20 {
                // The path tells whose token must come with it.
                let path = format!("/projects?of={account}");
                let reply = crate::support::get(addr, &path, &[("Sidekey-Account", &account)]).await;
                assert_eq!(reply.status, 200, "{account}");
            }
        });
    }
    patiently("a hundred accounts", async {
        while let Some(done) = asking.join_next().await {
            done.unwrap();
        }
    })
    .await;
    let mut told = 0;
    for seen in bench.lab.neon.record().requests() {
        let Some((_, account)) = seen.target.split_once("?of=") else { continue };
        let token = seen.header("authorization").unwrap().strip_prefix("Bearer ").unwrap();
        assert_eq!(bench.lab.server.tokens().subject_of(token).as_deref(), Some(account));
        // A token that expired on its way was refused, and its request sent again.
        told += usize::from(seen.status == Some(200));
    }
    assert_eq!(told, 100 * 20);
    assert_eq!(bench.lab.server.reuses(), 0);
    running.stop().await;
}

#[tokio::test]
async fn each_refresh_token_is_presented_once() {
    let bench = Bench::start(SECOND, "").await;
    bench.log_in("default").await;
    let running = bench.sidekey();
    until(&running, 200).await;
    bench.refreshed(&running, None, 5).await;
    assert_eq!(bench.lab.server.reuses(), 0);
    assert!(bench.lab.server.presented().iter().all(|times| *times <= 1));
    running.stop().await;
}

#[tokio::test]
async fn two_replicas_refresh_once_and_both_serve() {
    let bench = Bench::start(SECOND, "").await;
    bench.log_in("default").await;
    let first = bench.sidekey();
    let (_, second) = bench.replica();
    until(&first, 200).await;
    until(&second, 200).await;
    let goal = bench.lab.server.refreshes() + 5;
    eventually("refreshes", async || {
        assert_eq!(ask(first.addr, None).await.status, 200);
        assert_eq!(ask(second.addr, None).await.status, 200);
        bench.lab.server.refreshes() >= goal
    })
    .await;
    assert_eq!((bench.lab.server.reuses(), bench.lab.server.overlaps()), (0, 0));
    let login = bench.lab.login(&bench.text);
    bench.vault.log_out(&login.key("default"), &login.client).await.unwrap();
    until(&second, 503).await;
    first.stop().await;
    second.stop().await;
}

#[tokio::test]
async fn an_answer_without_a_refresh_token_leaves_the_old_one_in_force() {
    let bench = Bench::start(SECOND, "").await;
    bench.log_in("default").await;
    bench.lab.server.rotation(Rotation::Omit);
    let running = bench.sidekey();
    until(&running, 200).await;
    bench.refreshed(&running, None, 3).await;
    running.stop().await;
}

#[tokio::test]
async fn a_failure_before_the_token_was_used_up_costs_nothing() {
    for fault in [Fault::Status(503), Fault::Hangup, Fault::Silence] {
        let bench = Bench::start(2 * SECOND, "").await;
        bench.log_in("default").await;
        bench.lab.server.token_fault_once(When::Before, fault.clone());
        let running = bench.sidekey();
        until(&running, 200).await;
        eventually("a refresh", async || bench.lab.server.refreshes() >= 1).await;
        until(&running, 200).await;
        let record = bench.vault.record();
        assert_eq!((record.uncertain, record.recovered, record.lost), (1, 1, 0), "{fault:?}");
        assert_eq!(bench.lab.server.reuses(), 0, "{fault:?}");
        running.stop().await;
    }
}

#[tokio::test]
async fn an_answer_that_is_lost_after_the_token_was_used_up_is_a_loss_that_is_told() {
    let bench = Bench::start(2 * SECOND, "").await;
    bench.log_in("default").await;
    bench.lab.server.token_fault_once(When::After, Fault::Hangup);
    let running = bench.sidekey();
    until(&running, 200).await;
    until(&running, 503).await;
    assert_eq!(ask(running.addr, None).await.header("sidekey-error"), Some("login_required"));
    let record = bench.vault.record();
    assert_eq!((record.uncertain, record.recovered, record.lost), (1, 0, 1));
    assert!(running.account().last_error.unwrap().contains("sidekey login"), "it says what to do");
    assert_eq!(bench.lab.server.reuses(), 1, "the one careful try");
    bench.log_in("default").await;
    until(&running, 200).await;
    running.stop().await;
}

#[tokio::test]
async fn a_grant_that_the_server_ended_needs_a_login_and_its_token_serves_until_then() {
    let bench = Bench::start(HOUR, "").await;
    bench.log_in("default").await;
    let running = bench.sidekey();
    until(&running, 200).await;
    // The chain dies, and its access token with it: the API refuses it, and nothing else can be had.
    assert_eq!(bench.lab.server.withdraw("default"), 1);
    eventually("an end", async || {
        let reply = ask(running.addr, None).await;
        reply.status == 503 && reply.header("sidekey-error") == Some("login_required")
    })
    .await;
    let presented: u64 = bench.lab.server.presented().iter().sum();
    for _ in 0..5 {
        assert_eq!(ask(running.addr, None).await.status, 503);
    }
    assert_eq!(bench.lab.server.presented().iter().sum::<u64>(), presented, "a dead grant is left in peace");
    running.stop().await;
}

#[tokio::test]
async fn an_outcome_that_cannot_be_saved_is_kept_and_saved_later() {
    let bench = Bench::start(2 * SECOND, "").await;
    bench.log_in("default").await;
    let running = bench.sidekey();
    until(&running, 200).await;
    // The intent is written; the disk is full after that.
    bench.store.fail_writes_after(1);
    eventually("a refresh", async || bench.lab.server.refreshes() >= 1).await;
    eventually("it is told", async || bench.vault.record().unsaved == 1 && !bench.vault.record().writable)
        .await;
    bench.refreshed(&running, None, 2).await;
    bench.store.works();
    eventually("it is saved", async || bench.vault.record().unsaved == 0).await;
    running.stop().await;
    let (vault, again) = bench.replica();
    until(&again, 200).await;
    bench.refreshed(&again, None, 1).await;
    assert_eq!((bench.lab.server.reuses(), vault.record().lost), (0, 0));
    again.stop().await;
}

#[tokio::test]
async fn nothing_is_presented_that_cannot_be_written_down_before() {
    let bench = Bench::start(2 * SECOND, "").await;
    bench.log_in("default").await;
    let running = bench.sidekey();
    until(&running, 200).await;
    bench.store.fail_writes_after(0);
    until(&running, 503).await;
    assert_eq!(bench.lab.server.presented().iter().sum::<u64>(), 0);
    bench.store.works();
    until(&running, 200).await;
    assert_eq!(bench.lab.server.reuses(), 0);
    running.stop().await;
}

#[tokio::test]
async fn a_store_that_forgets_is_given_back_what_it_had() {
    let bench = Bench::start(SECOND, "").await;
    bench.log_in("default").await;
    let running = bench.sidekey();
    until(&running, 200).await;
    let old = bench.store.copy();
    bench.refreshed(&running, None, 2).await;
    // A fail-over brings an older state back: its refresh token is used up long since.
    bench.store.replace(old);
    bench.refreshed(&running, None, 1).await;
    bench.store.replace(crate::support::faulty::Copy::empty());
    bench.refreshed(&running, None, 1).await;
    assert_eq!(bench.lab.server.reuses(), 0);
    running.stop().await;
}

#[tokio::test]
async fn a_lock_that_is_lost_before_the_token_goes_out_stops_it() {
    let bench = Bench::start(2 * SECOND, "").await;
    bench.log_in("default").await;
    let running = bench.sidekey();
    until(&running, 200).await;
    bench.store.lose_locks(true);
    until(&running, 503).await;
    assert_eq!(bench.lab.server.presented().iter().sum::<u64>(), 0);
    bench.store.lose_locks(false);
    until(&running, 200).await;
    assert_eq!((bench.lab.server.reuses(), bench.vault.record().uncertain), (0, 0));
    running.stop().await;
}

#[tokio::test]
async fn a_stop_lets_a_refresh_come_to_its_end() {
    let bench = Bench::start(2 * SECOND, "").await;
    bench.log_in("default").await;
    bench.lab.server.token_delay(When::After, Duration::from_millis(700));
    let running = bench.sidekey();
    until(&running, 200).await;
    eventually("a refresh under way", async || bench.lab.server.presented().iter().sum::<u64>() == 1).await;
    running.stop().await;
    bench.lab.server.token_delay(When::After, Duration::ZERO);
    let (vault, again) = bench.replica();
    until(&again, 200).await;
    bench.refreshed(&again, None, 2).await;
    assert_eq!((bench.lab.server.reuses(), vault.record().uncertain), (0, 0));
    again.stop().await;
}

#[tokio::test]
async fn somebody_elses_refresh_at_the_same_time_is_waited_for() {
    let bench = Bench::start(SECOND, "").await;
    bench.log_in("default").await;
    bench.lab.server.token_fault_once(When::Before, Fault::Concurrent);
    let running = bench.sidekey();
    until(&running, 200).await;
    bench.refreshed(&running, None, 2).await;
    let record = bench.vault.record();
    assert_eq!((bench.lab.server.reuses(), record.uncertain, record.lost), (0, 0, 0));
    running.stop().await;
}

#[tokio::test]
async fn what_was_refreshed_in_memory_alone_gives_way_to_a_logout_and_a_login_elsewhere() {
    for logs_in in [false, true] {
        let bench = Bench::start(SECOND, "").await;
        bench.log_in("default").await;
        let running = bench.sidekey();
        until(&running, 200).await;
        let stored = bench.store.copy();
        // The intent is written, and nothing after it: generations pass that the store never sees.
        bench.store.fail_writes_after(1);
        bench.refreshed(&running, None, 3).await;
        eventually("it is told", async || bench.vault.record().unsaved == 1).await;
        // Somebody elsewhere reaches the store first.
        let elsewhere = Faulty::new();
        elsewhere.replace(stored);
        let vault = Vault::new(Arc::clone(&elsewhere) as _, Clock::system());
        let login = bench.lab.login(&bench.text);
        // Twice, so that the two histories do not come to the same revision by chance.
        for _ in 0..2 {
            if logs_in {
                bench.lab.log_in(&vault, &login, "default").await;
            } else {
                vault.log_out(&login.key("default"), &login.client).await.unwrap();
            }
        }
        let made = elsewhere.read(&login.key("default")).await.unwrap().unwrap();
        bench.store.replace(elsewhere.copy());
        bench.store.works();
        bench.store.announce().await.unwrap();
        if logs_in {
            eventually("it is settled", async || bench.vault.record().unsaved == 0).await;
            bench.refreshed(&running, None, 2).await;
        } else {
            until(&running, 503).await;
            let now = bench.store.read(&login.key("default")).await.unwrap().unwrap();
            assert_eq!(now.content, made.content, "the logout stands");
        }
        running.stop().await;
    }
}

#[tokio::test]
async fn a_login_into_an_emptied_store_counts_more_than_what_is_remembered() {
    let bench = Bench::start(HOUR, "").await;
    bench.log_in("default").await;
    let running = bench.sidekey();
    until(&running, 200).await;
    bench.log_in("default").await;
    until(&running, 200).await;
    // Somebody moves the entry away and logs in with the command.
    bench.store.replace(crate::support::faulty::Copy::empty());
    let (command, login) =
        (Vault::new(Arc::clone(&bench.store) as _, Clock::system()), bench.lab.login(&bench.text));
    bench.lab.log_in(&command, &login, "default").await;
    let made = bench.store.read(&login.key("default")).await.unwrap().unwrap();
    let before = running.account().generation;
    eventually("it is taken up", async || running.account().generation > before).await;
    let now = bench.store.read(&login.key("default")).await.unwrap().unwrap();
    assert_eq!(now.content, made.content, "the login stands");
    running.stop().await;
}

#[tokio::test]
async fn a_logout_is_seen_although_the_store_fails_when_it_is_looked_for() {
    let bench = Bench::start(HOUR, "").await;
    bench.log_in("default").await;
    let (_vault, replica) = bench.replica();
    until(&replica, 200).await;
    let login = bench.lab.login(&bench.text);
    bench.store.fail_announcements(true);
    bench.vault.log_out(&login.key("default"), &login.client).await.unwrap();
    bench.store.fail_announcements(false);
    bench.store.fail_reads(true);
    let failures = replica.account().failures;
    bench.store.announce().await.unwrap();
    eventually("a look", async || replica.account().failures > failures).await;
    bench.store.fail_reads(false);
    until(&replica, 503).await;
    replica.stop().await;
}

#[tokio::test]
async fn an_announcement_that_failed_is_made_later() {
    let bench = Bench::start(HOUR, "").await;
    bench.log_in("default").await;
    let running = bench.sidekey();
    let (_vault, replica) = bench.replica();
    until(&replica, 200).await;
    // What the first look leads to is over when both look again a second later.
    let looks = bench.store.looks().max(2) + 2;
    eventually("the next looks", async || bench.store.looks() >= looks).await;
    let login = bench.lab.login(&bench.text);
    bench.store.fail_announcements(true);
    bench.vault.log_out(&login.key("default"), &login.client).await.unwrap();
    bench.store.fail_announcements(false);
    // Without a request, whose refusal would tell as well.
    eventually("it is heard of", async || !replica.account().has_token).await;
    running.stop().await;
    replica.stop().await;
}

#[tokio::test]
async fn a_stop_tries_for_a_while_to_save_what_is_unsaved() {
    let bench = Bench::start(2 * SECOND, "").await;
    bench.log_in("default").await;
    let running = bench.sidekey();
    until(&running, 200).await;
    bench.store.fail_writes_after(1);
    eventually("it is told", async || bench.vault.record().unsaved == 1).await;
    let mends = async {
        tokio::time::sleep(SECOND).await;
        bench.store.works();
    };
    tokio::join!(running.stop(), mends);
    assert_eq!(bench.vault.record().unsaved, 0);
}
