use super::*;

fn secret(text: &str) -> Secret {
    Secret::new(text)
}

fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(seconds)
}

const NOW: u64 = 1_780_000_000;

/// What becomes of a token of `ci`, whose own token is `old`, for the route `aura`, made at [`NOW`].
fn judged(token: &str, route: &str, tokens: &[&str], now: u64) -> Result<(), Invalid> {
    let tokens: Vec<_> = tokens.iter().map(|token| secret(token)).collect();
    Shown::parse(token.as_bytes()).expect("a local token")?.verify(route, &tokens, at(now))
}

fn minted() -> String {
    mint(&secret("old"), "ci", "aura", at(NOW)).expose().to_owned()
}

#[test]
fn a_token_is_good_for_its_caller_and_route_for_an_hour_while_the_callers_token_is_in_force() {
    let token = minted();
    let cases = [
        ("at once", "aura", "old", NOW, Ok(())),
        ("in its last second", "aura", "old", NOW + 3599, Ok(())),
        ("a second later", "aura", "old", NOW + 3600, Err(Invalid::Expired)),
        ("a day later", "aura", "old", NOW + 86_400, Err(Invalid::Expired)),
        ("while the caller's token is replaced", "aura", "new old", NOW, Ok(())),
        ("after it was", "aura", "new", NOW, Err(Invalid::Forged)),
        ("of a caller without tokens", "aura", "", NOW, Err(Invalid::Forged)),
        ("on another route", "graph", "old", NOW, Err(Invalid::Forged)),
        ("on a route whose name begins alike", "aur", "old", NOW, Err(Invalid::Forged)),
        ("on another route and expired", "graph", "old", NOW + 86_400, Err(Invalid::Forged)),
        ("by a replica whose clock is behind", "aura", "old", NOW - 300, Ok(())),
        ("after the clock was set back", "aura", "old", NOW - 301, Err(Invalid::Future)),
        ("before 1970", "aura", "old", 0, Err(Invalid::Future)),
    ];
    for (when, route, tokens, now, want) in cases {
        let tokens: Vec<_> = tokens.split_whitespace().collect();
        assert_eq!(judged(&token, route, &tokens, now), want, "{when}");
    }
}

#[test]
fn a_token_with_any_byte_changed_added_or_missing_is_none() {
    let token = minted();
    let is_good = |text: &str| {
        Shown::parse(text.as_bytes()).is_some_and(|shown| {
            // By whoever it claims to be of: all have the same tokens.
            shown.is_ok_and(|shown| shown.verify("aura", &[secret("old")], at(NOW)).is_ok())
        })
    };
    assert!(is_good(&token));
    for index in 0..token.len() {
        for bit in 0..7 {
            let mut bytes = token.clone().into_bytes();
            bytes[index] ^= 1 << bit;
            let changed = String::from_utf8(bytes).unwrap();
            assert!(!is_good(&changed), "{changed:?}");
        }
        assert!(!is_good(&token[..index]), "{index}");
        let (begin, end) = token.split_at(index);
        for added in ["0", "A", ".", "=", " ", "\u{e9}"] {
            assert!(!is_good(&format!("{begin}{added}{end}")), "{index}");
        }
        assert!(!is_good(&format!("{begin}{}", &end[1..])), "{index}");
    }
    for added in ["=", ".", "A", "\n"] {
        assert!(!is_good(&format!("{token}{added}")), "{added:?}");
    }
}

#[test]
fn a_token_is_its_callers_even_where_two_have_the_same_token() {
    let token = minted();
    let anothers = token.replacen(".ci.", ".cd.", 1);
    assert_eq!(Shown::parse(anothers.as_bytes()).unwrap().unwrap().caller(), "cd");
    assert_eq!(judged(&anothers, "aura", &["old"], NOW), Err(Invalid::Forged));
    // What moves from one field into the next makes another message.
    let shared = mint(&secret("old"), "c", "iaura", at(NOW));
    let moved = shared.expose().replacen(".c.", ".ci.", 1);
    assert_eq!(judged(&moved, "aura", &["old"], NOW), Err(Invalid::Forged));
}

#[test]
fn what_does_not_begin_as_one_is_no_local_token_and_what_does_is_one_or_forged() {
    for text in [
        "",
        "t0ken",
        "sidekey-local",
        "sidekey-local-v2.ci.1.x",
        "Sidekey-local-v1.ci.1.x",
        " sidekey-local-v1.",
    ] {
        assert!(Shown::parse(text.as_bytes()).is_none(), "{text:?}");
    }
    let forged = [OF_NOBODY, PREFIX, "sidekey-local-v1.ci.1"];
    let dotted = mint(&secret("old"), "a.b-c.d", "aura", at(NOW));
    assert_eq!(judged(dotted.expose(), "aura", &["old"], NOW), Ok(()));
    assert_eq!(Shown::parse(b"sidekey-local-v1.\xff.1.x").unwrap().err(), Some(Invalid::Forged));
    for text in forged {
        assert_eq!(Shown::parse(text.as_bytes()).unwrap().err(), Some(Invalid::Forged), "{text:?}");
    }
}

#[test]
fn a_token_is_one_word_that_any_header_can_carry_and_shows_nothing_of_the_callers_own() {
    let secret = secret("canary");
    let token = mint(&secret, "ci-2_b", "aura", at(NOW));
    let is_token68 = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~+/".contains(&byte);
    assert!(token.expose().bytes().all(is_token68), "{}", token.expose());
    assert!(token.expose().starts_with("sidekey-local-v1.ci-2_b.1780003600."));
    assert!(!token.expose().contains("canary"));
    let shown = format!("{:?}", Shown::parse(token.expose().as_bytes()).unwrap().unwrap());
    assert!(!shown.contains(token.expose().rsplit('.').next().unwrap()), "{shown}");
}

/// Replicas of two versions of sidekey take each other's; computed by other means than sidekey's.
#[test]
fn the_form_is_what_it_was() {
    assert_eq!(minted(), "sidekey-local-v1.ci.1780003600.yR2M1b7mK-bc9lwe3EaHp1FcQNJZob-3e-clyTaDIFU");
}
