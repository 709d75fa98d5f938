use super::*;
use crate::oauth::answer::{AnswerError, Given};

const LIMIT: Duration = Duration::from_secs(10);

fn at(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_780_000_000 + seconds)
}

fn granted(access: &str, refresh: Option<&str>) -> Granted {
    Granted {
        access: Ok(Given { token: Secret::new(access), lifetime: Duration::from_secs(100) }),
        refresh_token: refresh.map(Secret::new),
        scope: Some("openid".to_owned()),
    }
}

fn live() -> Grant {
    Grant::of_login(&granted("a1", Some("r1")), None, at(0))
}

fn word(grant: Option<&Grant>, unlike: Option<&str>, now: u64) -> String {
    let unlike = unlike.map(|token| AuthHeader::bearer(&Secret::new(token), Encoding::Plain).unwrap());
    match step(grant, unlike.as_ref(), Encoding::Plain, at(now), LIMIT) {
        Step::Take(access) => format!("take {}", access.token().expose()),
        Step::Refresh(token) => format!("refresh {}", token.expose()),
        Step::Wait(left) => format!("wait {}", left.as_secs()),
        Step::LogIn(why) => format!("{why:?}"),
    }
}

#[test]
fn what_is_at_hand_is_taken_and_what_is_due_is_refreshed() {
    let grant = live();
    let cases: [(Option<&str>, u64, &str); 8] = [
        (None, 0, "take a1"),
        (None, 94, "take a1"),
        (None, 96, "refresh r1"),
        (None, 200, "refresh r1"),
        (Some("a0"), 50, "take a1"),
        (Some("a0"), 76, "refresh r1"),
        (Some("a1"), 0, "refresh r1"),
        (Some("a1"), 50, "refresh r1"),
    ];
    for (unlike, now, want) in cases {
        assert_eq!(word(Some(&grant), unlike, now), want, "{unlike:?} at {now}");
    }
    assert_eq!(word(None, None, 0), "Never");
}

#[test]
fn an_intent_without_an_outcome_is_waited_for_and_then_tried_again() {
    let intent = live().intending(at(80));
    assert_eq!(word(Some(&intent), None, 50), "take a1", "the access token serves on");
    assert_eq!(word(Some(&intent), Some("a1"), 81), "wait 9");
    assert_eq!(word(Some(&intent), Some("a1"), 89), "wait 1");
    assert_eq!(word(Some(&intent), Some("a1"), 90), "refresh r1");
    assert_eq!(
        word(Some(&intent), Some("a1"), 70),
        "refresh r1",
        "a clock that went back does not wait for ever"
    );
    assert_eq!(word(Some(&intent.uncertain()), Some("a1"), 81), "refresh r1", "it is over");
    let stuck = intent.stuck().unwrap();
    assert_eq!(word(Some(&stuck), Some("a1"), 90), "wait 290", "whoever presents it lives");
    assert_eq!(word(Some(&stuck), Some("a1"), 380), "refresh r1", "but not for ever");
    assert!(stuck.stuck().is_none() && live().stuck().is_none() && intent.uncertain().stuck().is_none());
    assert!(stuck.is_same_attempt(&intent) && !intent.is_same_attempt(&live()));
    let again = intent.uncertain().intending(at(91));
    assert_eq!(again.intent.unwrap().tries, 2);
    assert_eq!(word(Some(&again.ended()), Some("a1"), 92), "Lost");
    assert_eq!(word(Some(&intent.ended()), Some("a1"), 92), "Ended", "the server ended it by itself");
}

#[test]
fn outcomes_count_up_and_keep_what_the_answer_does_not_tell() {
    let intent = live().intending(at(80));
    let next = intent.refreshed(&granted("a2", Some("r2")), at(80));
    assert_eq!((next.generation, next.is_uncertain()), (2, false));
    assert_eq!(word(Some(&next), Some("a1"), 81), "take a2");
    let kept = intent.refreshed(&Granted { scope: None, ..granted("a2", None) }, at(80));
    assert_eq!(kept.refresh_token().map(Secret::expose), Some("r1"));
    assert_eq!(kept.scope.as_deref(), Some("openid"));
    let without = Granted { access: Err(AnswerError::ExpiredOnArrival), ..granted("", Some("r2")) };
    assert_eq!(word(Some(&intent.refreshed(&without, at(80))), None, 81), "refresh r2");
    assert!(next.is_newer_than(&intent) && !intent.is_newer_than(&next));
    assert!(next.is_newer_than(&intent.ended()), "of two outcomes the living one counts");
    let anew = Grant::of_login(&granted("a9", Some("r9")), Some(&intent.ended()), at(100));
    assert_eq!(anew.generation, 3);
}

#[test]
fn a_login_or_logout_outranks_whatever_stems_from_an_earlier_one() {
    let mut refreshed = live();
    for _ in 0..5 {
        refreshed = refreshed.refreshed(&granted("a2", Some("r2")), at(80));
    }
    let out = live().logged_out(at(10));
    assert!(out.is_newer_than(&refreshed) && !refreshed.is_newer_than(&out));
    assert!(live().logged_out(at(0)).is_newer_than(&refreshed), "a clock that went back changes nothing");
    let alone = Grant::of_login(&granted("a9", Some("r9")), None, at(100));
    assert!(alone.is_newer_than(&refreshed) && alone.is_newer_than(&refreshed.ended()));
}

#[test]
fn ends_need_a_login_and_leave_nothing_behind() {
    let ended = live().intending(at(0)).ended();
    assert_eq!(word(Some(&ended), None, 1), "take a1", "its access token serves on");
    assert_eq!(word(Some(&ended), Some("a1"), 1), "Ended");
    let out = live().logged_out(at(1));
    assert_eq!(word(Some(&out), None, 1), "LoggedOut");
    assert!(!String::from_utf8(out.to_bytes().to_vec()).unwrap().contains("r1"));
    let unrenewable = Grant::of_login(&granted("a1", None), None, at(0));
    assert_eq!(word(Some(&unrenewable), Some("a1"), 1), "Unrenewable");
}

#[test]
fn a_record_survives_the_store_and_shows_no_secret() {
    let grant = live().intending(at(1));
    assert_eq!(Grant::from_bytes(&grant.to_bytes()).as_ref(), Some(&grant));
    assert!(!format!("{grant:?}").contains("r1"));
    for bytes in [&b""[..], b"{}", b"null", b"{\"version\":2}"] {
        assert!(Grant::from_bytes(bytes).is_none());
    }
    let newer =
        String::from_utf8(grant.to_bytes().to_vec()).unwrap().replace("\"version\":1", "\"version\":9");
    assert!(Grant::from_bytes(newer.as_bytes()).is_none());
}
